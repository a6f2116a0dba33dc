"""Several GPUs, several jobs a GPU: no job is lent what another one holds, and a crashed holder holds nothing."""

import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from disturbed import wait_for

from featurespace import device

FORKS = multiprocessing.get_context("fork")  # a process of its own for each job, without importing torch each time
GPUS = ["GPU-aaa", "GPU-bbb"]


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """A machine with two GPUs, as its driver lists them, and a folder for what jobs note."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    listing = "".join(f"GPU {i}: NVIDIA A100 (UUID: {uuid})\n" for i, uuid in enumerate(GPUS))
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{listing}END\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    for name in ("CUDA_VISIBLE_DEVICES", device.JOBS_PER_GPU):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(device, "LOCKS", tmp_path)
    monkeypatch.setattr(device, "POLL_SECONDS", 0.002)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    notes = tmp_path / "notes"
    notes.mkdir()
    return notes


def compute(notes: Path, name: str, n_leases: int, n_jobs: int) -> None:
    """Lease a GPU again and again; note who is on it at the same time."""
    os.environ[device.JOBS_PER_GPU] = str(n_jobs)
    pauses = random.Random(name)
    for i in range(n_leases):
        with device.lease_device("cuda"):
            mine = notes / f"{os.environ['CUDA_VISIBLE_DEVICES']}.{name}"
            mine.touch()
            time.sleep(pauses.uniform(0, 0.004))
            together = sorted(path.name for path in notes.glob(f"{mine.stem}.*"))
            (notes / f"lease-{name}-{i}").write_text(" ".join(together))
            mine.unlink()


def start_all(notes: Path, n_leases: int, n_jobs_of: dict[str, int]) -> list:
    """Start jobs, by name, with how many of them each thinks may share a GPU."""
    jobs = [FORKS.Process(target=compute, args=(notes, name, n_leases, n)) for name, n in n_jobs_of.items()]
    for job in jobs:
        job.start()
    return jobs


def company(notes: Path) -> list[list[str]]:
    """Return, for each lease, who was on the GPU."""
    return [path.read_text().split() for path in notes.glob("lease-*")]


def test_more_jobs_than_gpus_wait_and_no_gpu_has_two(two_gpus, record_fault, thorough):
    n_leases = 100 if thorough else 10
    for job in start_all(two_gpus, n_leases, {f"j{i}": 1 for i in range(8)}):
        job.join(120)
        assert job.exitcode == 0
    seen = company(two_gpus)
    assert len(seen) == 8 * n_leases
    assert {len(names) for names in seen} == {1}
    assert {names[0].partition(".")[0] for names in seen} == set(GPUS)
    record_fault("GPUs of one machine", "8 jobs want 2 GPUs", "they wait, one job a GPU", times=len(seen))


def test_as_many_jobs_share_a_gpu_as_they_were_told_and_none_with_a_job_that_was_not(two_gpus, record_fault, thorough):
    n_leases = 100 if thorough else 20
    shares = {f"shares{i}": 3 for i in range(8)}
    for job in start_all(two_gpus, n_leases, shares | {"alone0": 1, "alone1": 1}):
        job.join(120)
        assert job.exitcode == 0
    seen = company(two_gpus)
    assert len(seen) == 10 * n_leases
    sizes = Counter(len(names) for names in seen)
    assert max(sizes) == 3
    assert all(len(names) == 1 for names in seen if any(".alone" in name for name in names))
    record_fault("GPUs of one machine", "jobs told to share meet jobs that were not", "never on one GPU", len(seen))


def hold(notes: Path, name: str) -> None:
    """Lease a GPU, and never give it back."""
    with device.lease_device("cuda"):
        (notes / name).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
        time.sleep(600)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_holder_that_is_killed_frees_its_gpu_at_once(two_gpus, monkeypatch, record_fault, thorough, n_jobs):
    monkeypatch.setenv(device.JOBS_PER_GPU, str(n_jobs))
    times = 30 if thorough else 3
    for i in range(times):
        holders = {name: FORKS.Process(target=hold, args=(two_gpus, name)) for name in "abcd"[: 2 * n_jobs]}
        try:
            for name, holder in holders.items():
                holder.start()
                wait_for(lambda name=name: (two_gpus / name).exists() and (two_gpus / name).read_text())
            assert all(device._lock_gpu(uuid, n_jobs) is None for uuid in GPUS)
            victim = random.Random(i).choice(sorted(holders))
            os.kill(holders[victim].pid, signal.SIGKILL)
            holders[victim].join()
            with device.lease_device("cuda"):
                assert os.environ["CUDA_VISIBLE_DEVICES"] == (two_gpus / victim).read_text()
                assert all(device._lock_gpu(uuid, n_jobs) is None for uuid in GPUS)
        finally:
            for name, holder in holders.items():
                holder.kill()
                holder.join()
                (two_gpus / name).unlink(missing_ok=True)
    record_fault("GPUs of one machine", "SIGKILL of a job that holds one", "the next job has it at once", times)


def is_free_to_another_shell(tmpdir: str, uuid: str, answer: Path) -> None:
    """Note whether a shell with another TMPDIR could have a GPU."""
    os.environ["TMPDIR"] = tmpdir
    tempfile.tempdir = None
    answer.write_text(str(device._lock_gpu(uuid, 1) is not None))


def test_shells_that_differ_in_where_temporary_files_go_see_each_others_leases(tmp_path, record_fault):
    # the folder that is really used, and a GPU that is on no machine
    uuid = f"GPU-test-{os.getpid()}-{random.SystemRandom().getrandbits(64):x}"
    answer = tmp_path / "answer"
    held = device._lock_gpu(uuid, 1)
    try:
        other = FORKS.Process(target=is_free_to_another_shell, args=(str(tmp_path), uuid, answer))
        other.start()
        other.join(60)
        assert answer.read_text() == "False"
    finally:
        device._release(held)
        (device.LOCKS / f"featurespace-{os.getuid()}" / f"{uuid}.lock").unlink()
    record_fault("GPUs of one machine", "two shells differ in TMPDIR", "one lease for both")
