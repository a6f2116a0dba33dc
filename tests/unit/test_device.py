"""The lease of a device: which GPUs there are, and one job a GPU."""

import os
import re
import threading

import pytest
import torch

from featurespace import device
from featurespace.errors import FeaturespaceError

LISTING = """\
GPU 0: NVIDIA A100 (UUID: GPU-aaa)
  MIG 1g.5gb Device 0: (UUID: MIG-a1)
  MIG 1g.5gb Device 1: (UUID: MIG-a2)
GPU 1: NVIDIA A100 (UUID: GPU-bbb)
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with two GPUs, the first in slices, as its driver lists them."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{LISTING}END\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv(device.JOBS_PER_GPU, raising=False)
    monkeypatch.setattr(device, "LOCKS", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device, "POLL_SECONDS", 0.01)
    return tool


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["MIG-a1", "MIG-a2", "GPU-bbb"]),
        ("", []),
        ("-1", []),
        ("1", ["GPU-bbb"]),
        ("0,1", ["MIG-a1", "GPU-bbb"]),
        ("1,7,0", ["GPU-bbb"]),
        ("MIG-a2", ["MIG-a2"]),
        ("GPU-b,MIG-a", ["GPU-bbb", "MIG-a"]),  # CUDA takes the beginning of one for the whole
    ],
)
def test_gpus_are_those_that_the_environment_leaves_visible(machine, monkeypatch, visible, expected):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device.list_gpus() == expected


def test_no_gpu_means_the_cpu_unless_a_gpu_is_asked_for(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with device.lease_device("auto") as leased:
        assert leased == torch.device("cpu")
    with pytest.raises(FeaturespaceError, match="there is no GPU"), device.lease_device("cuda"):
        pass


def test_a_gpu_that_pytorch_cannot_use_is_not_used(machine, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with device.lease_device("auto") as leased:
        assert leased == torch.device("cpu")
    with pytest.raises(FeaturespaceError, match="cannot use GPU"), device.lease_device("cuda"):
        pass


def test_a_driver_that_is_broken_is_said_before_the_cpu_is_taken(machine, monkeypatch, caplog):
    words = "Failed to initialize NVML: Driver/library version mismatch"
    machine.write_text(f"#!/bin/sh\necho '{words}'\necho 'NVML library version: 580.95' >&2\nexit 18\n")
    said = f"nvidia-smi failed ({words} NVML library version: 580.95)"
    for visible in (None, "0"):
        caplog.clear()
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with device.lease_device("auto") as leased:
            assert leased == torch.device("cpu")
        assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
            ("WARNING", f"{said}; computing on the CPU")
        ]
        with pytest.raises(FeaturespaceError, match=re.escape(f"device: {said}; ")), device.lease_device("cuda"):
            pass
    machine.write_text("#!/bin/sh\nexit 9\n")
    with pytest.raises(FeaturespaceError, match=r"nvidia-smi failed \(exit status 9\)"):
        device.list_gpus()


@pytest.mark.parametrize("visible", ["", "-1", None])
def test_nothing_is_said_where_no_gpu_is_wanted_or_there_is_no_driver(machine, monkeypatch, caplog, visible):
    if visible is None:
        monkeypatch.setenv("PATH", str(machine.parent.parent))
    else:
        machine.write_text("#!/bin/sh\nexit 18\n")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with device.lease_device("auto") as leased:
        assert leased == torch.device("cpu")
    assert not caplog.records


def test_cpu_is_the_cpu_even_where_there_is_a_gpu(machine):
    with device.lease_device("cpu") as leased:
        assert leased == torch.device("cpu")
        assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_an_unknown_preference_is_refused():
    with pytest.raises(FeaturespaceError, match="none of auto, cpu, cuda"), device.lease_device("gpu"):
        pass


def test_a_gpu_is_lent_to_one_job_at_a_time(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    events = []

    def second_job():
        _, held = device._acquire_one(["GPU-bbb"])
        events.append("second")
        device._release(held)

    with device.lease_device("auto") as leased:
        assert leased == torch.device("cuda")
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-bbb"
        thread = threading.Thread(target=second_job)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        events.append("first")
    thread.join(5)
    assert events == ["first", "second"]


def test_two_jobs_get_two_gpus_and_the_environment_comes_back(machine):
    with device.lease_device("auto"):
        first = os.environ.pop("CUDA_VISIBLE_DEVICES")
        with device.lease_device("auto"):
            assert os.environ["CUDA_VISIBLE_DEVICES"] != first
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_several_jobs_share_a_gpu_only_if_told_so_and_never_with_one_that_was_not(machine, monkeypatch):
    with device.lease_device("auto"):
        assert device._lock_gpu("MIG-a1", 3) is None
    monkeypatch.setenv(device.JOBS_PER_GPU, "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with device.lease_device("auto"), device.lease_device("auto"):
        assert device._lock_gpu("GPU-bbb", 2) is None
        assert device._lock_gpu("GPU-bbb", 1) is None
    held = device._lock_gpu("GPU-bbb", 1)
    assert held is not None
    device._release(held)


@pytest.mark.parametrize("said", ["0", "-1", "two", "", "1.5", "²"])
def test_a_number_of_jobs_a_gpu_that_is_none_is_refused(machine, monkeypatch, said):
    monkeypatch.setenv(device.JOBS_PER_GPU, said)
    with pytest.raises(FeaturespaceError, match="FEATURESPACE_JOBS_PER_GPU"), device.lease_device("auto"):
        pass


def test_tf32_is_off_and_deterministic_algorithms_are_asked_for():
    with device.lease_device("cpu"):
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.allow_tf32
        assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_leased_gpu_computes():
    with device.lease_device("cuda") as leased:
        assert torch.ones(2, device=leased).sum().item() == 2
