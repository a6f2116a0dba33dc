"""Recording in somebody else's loop: what is in the store, that training does not notice, and what a crash leaves."""

import copy
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from torch import nn

from featurespace import recorder as recording
from featurespace.errors import FeaturespaceError
from featurespace.recorder import Recorder, match_paths
from featurespace.recordings import join_seeds, recover
from featurespace.stores import ChunkWriter, FeatureStore, sample_hash, verify_digest

SCRIPTS = Path(__file__).parents[2] / "scripts"
N_SAMPLES = 70


class Net(nn.Module):
    """A small convolutional network whose rectifier works in place, with noise in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.blocks = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 6, 3, stride=2)])
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(6 * 9, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = F.relu(block(x))
        return self.head(self.drop(x.flatten(1)))


@pytest.fixture(autouse=True)
def one_thread():
    """The bytes of a product depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def x():
    return torch.randn(N_SAMPLES, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def y():
    return np.arange(N_SAMPLES) % 3


def by_hand(net: nn.Module, x: torch.Tensor) -> dict[str, np.ndarray]:
    """Compute what the layers give in evaluation mode, module by module."""
    net = copy.deepcopy(net).eval()
    with torch.no_grad():
        stem = net.stem(x)
        first = net.blocks[0](stem)
        second = net.blocks[1](F.relu(first))
        head = net.head(F.relu(second).flatten(1))
    averaged = {"stem": stem, "blocks.0": first, "blocks.1": second}
    return {**{name: maps.numpy().mean(axis=(2, 3)) for name, maps in averaged.items()}, "head": head.numpy()}


def change(net: nn.Module) -> None:
    """Stand in for training."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.1).add_(0.01)


# --- what is in the store -------------------------------------------------------------------------


@pytest.mark.parametrize("bundle_bytes", [1, 3000, 2**23])
def test_a_store_holds_what_the_layers_give_and_opens_silently(net, x, y, tmp_path, monkeypatch, bundle_bytes):
    monkeypatch.setattr(recording, "BUNDLE_BYTES", bundle_bytes)
    ids = np.arange(N_SAMPLES) * 2 + 5
    path, steps, epochs, expected = tmp_path / "made/features.zarr", [0, 3, 10], [0.0, 0.5, 2.0], []
    layers = ["head", "blocks.*", "stem"]
    with Recorder(path, net, layers, x, y, 7, sample_ids=ids, block_rows=16, attrs={"by": "me"}) as recorder:
        for step, epoch in zip(steps, epochs, strict=True):
            recorder.record(step, epoch)
            expected.append(by_hand(net, x))
            change(net)
        assert recorder.steps == steps
        assert not path.exists()
    assert sorted(file.name for file in path.parent.iterdir()) == ["features.json", "features.zarr"]

    store = FeatureStore.open(path, path.with_suffix(".json"))
    verify_digest(path, path.with_suffix(".json"))
    assert store.layers == ("stem", "blocks.0", "blocks.1", "head")
    assert store.n_features == recorder.n_features == {"stem": 4, "blocks.0": 4, "blocks.1": 6, "head": 3}
    np.testing.assert_array_equal(store.sample_ids, ids)
    np.testing.assert_array_equal(store.labels, y)
    assert store.sample_hash == sample_hash(ids)
    assert store.attrs["depths"] == {"stem": 1, "blocks.0": 2, "blocks.1": 3, "head": 4}
    assert store.attrs["recipe"] == "Net"
    assert store.attrs["made_by"]["by"] == "me"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xr.open_zarr(path) as opened:
            assert opened["blocks.1"].dims == ("seed", "step", "sample", "feature_blocks.1")
            np.testing.assert_array_equal(opened.step, steps)
            np.testing.assert_array_equal(opened.epoch, epochs)
            np.testing.assert_array_equal(opened.seed, [7])
            for i, features in enumerate(expected):
                for layer, rows in features.items():
                    np.testing.assert_allclose(opened[layer][0, i], rows, rtol=1e-5, atol=1e-6)
                    np.testing.assert_array_equal(opened[layer][0, i], store.matrix(layer, 0, i))


def test_closing_twice_is_closing_once(net, x, y, tmp_path):
    recorder = Recorder(tmp_path / "features.zarr", net, ["stem"], x.numpy(), torch.from_numpy(y), 0)
    recorder.record(0, 0)
    recorder.close()
    recorder.close()
    with pytest.raises(ValueError, match="the recorder is closed"):
        recorder.record(1, 1)


def test_samples_that_are_changed_later_were_copied(net, x, y, tmp_path):
    expected = by_hand(net, x)["head"]
    with Recorder(tmp_path / "features.zarr", net, ["head"], x, y, 0) as recorder:
        x += 1
        recorder.record(0, 0)
    store = FeatureStore.open(tmp_path / "features.zarr")
    np.testing.assert_allclose(store.matrix("head", 0, 0), expected, rtol=1e-5, atol=1e-6)


class Tokens(nn.Module):
    """Tokens in, through a layer that PyTorch has a fused way for; a module that gives a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
        self.recurrent = nn.LSTM(6, 5, batch_first=True)

    def forward(self, ids: torch.Tensor, scale: float) -> torch.Tensor:
        return self.recurrent(self.encoder(F.one_hot(ids, 6) * scale))[0]


@pytest.mark.parametrize("pooling", ["average", "flatten", "first"])
def test_tokens_are_pooled_as_asked(tmp_path, pooling):
    torch.manual_seed(0)
    model, ids = Tokens(), torch.arange(N_SAMPLES * 4).reshape(N_SAMPLES, 4) % 6
    how = {"first": lambda tap: tap[:, 0]}.get(pooling, pooling)
    with torch.no_grad():
        encoded = copy.deepcopy(model).eval().encoder(F.one_hot(ids, 6) * 2.0)
        hidden = model.recurrent(encoded)[0]
    outputs = {"encoder": encoded.numpy(), "recurrent": hidden.numpy()}
    layers = {"encoder": "encoder", "recurrent": "recurrent", "inner": "encoder.linear1"}
    with Recorder(
        *(tmp_path / "features.zarr", model, layers, ids, np.zeros(N_SAMPLES, int), 0),
        pooling=how,
        forward=lambda network, block: network(block, scale=2.0),
    ) as recorder:
        recorder.record(0, 0)
    store = FeatureStore.open(tmp_path / "features.zarr")
    assert store.layers == ("inner", "encoder", "recurrent")
    for layer, output in outputs.items():
        rows = {"average": output.mean(1), "flatten": output.reshape(N_SAMPLES, -1), "first": output[:, 0]}[pooling]
        np.testing.assert_allclose(store.matrix(layer, 0, 0), rows, rtol=1e-5, atol=1e-6)


def test_maps_are_flattened_as_they_were_before_what_works_in_place(net, x, y, tmp_path):
    with Recorder(tmp_path / "features.zarr", net, ["stem.1"], x, y, 0, pooling="flatten") as recorder:
        recorder.record(0, 0)
    with torch.no_grad():
        expected = copy.deepcopy(net).eval().stem[:2](x).flatten(1).numpy()
    assert (expected < 0).any()
    found = FeatureStore.open(tmp_path / "features.zarr").matrix("stem.1", 0, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda net: torch.compile(net, backend="eager")])
def test_wrappers_are_looked_through(net, x, y, tmp_path, wrap):
    wrapped = wrap(net)
    with Recorder(tmp_path / "features.zarr", wrapped, ["blocks.1"], x, y, 0) as recorder:
        recorder.record(0, 0)
    found = FeatureStore.open(tmp_path / "features.zarr").matrix("blocks.1", 0, 0)
    np.testing.assert_allclose(found, by_hand(net, x)["blocks.1"], rtol=1e-5, atol=1e-6)


def test_modules_compiled_in_place_are_recorded_too(net, x, y, tmp_path):
    net.stem.compile(backend="eager")
    net(x)  # compiled without hooks
    expected = by_hand(net, x)
    with Recorder(tmp_path / "features.zarr", net, ["stem.0", "stem"], x, y, 0) as recorder:
        recorder.record(0, 0)
    found = FeatureStore.open(tmp_path / "features.zarr").matrix("stem", 0, 0)
    np.testing.assert_allclose(found, expected["stem"], rtol=1e-5, atol=1e-6)


# --- training does not notice ---------------------------------------------------------------------


def train(recorder: Recorder | None, net: nn.Module, x: torch.Tensor, y: np.ndarray, record_within: bool) -> None:
    """Train for a few steps, with noise from all generators and in mixed precision."""
    targets = torch.from_numpy(y)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    net.train()
    net.stem[1].eval()  # one that is frozen must stay so
    for step in range(6):
        rows = torch.randperm(N_SAMPLES)[:20]
        noise = float(np.random.normal()) + random.random()  # noqa: NPY002
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(x[rows] + 0.01 * noise)
            loss = F.cross_entropy(logits, targets[rows])
            if recorder and record_within:
                recorder.record(step, step / 3)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if recorder and not record_within:
            recorder.record(step, step / 3)


@pytest.mark.parametrize("record_within", [False, True], ids=["between steps", "between forward and backward"])
def test_training_ends_in_the_same_bits_with_and_without(x, y, tmp_path, record_within):
    ends = []
    for records in (False, True):
        torch.manual_seed(3)
        np.random.seed(3)  # noqa: NPY002
        random.seed(3)
        net = Net()
        recorder = Recorder(tmp_path / "features.zarr", net, ["**"], x, y, 0, block_rows=32) if records else None
        train(recorder, net, x, y, record_within)
        if recorder:
            recorder.close()
        ends.append((net.state_dict(), torch.rand(3), np.random.rand(3), random.random()))  # noqa: NPY002
        assert [module.training for module in net.modules()].count(False) == 1
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    (state, *drawn), (other, *also_drawn) = ends
    for name, tensor in state.items():
        assert torch.equal(tensor, other[name]), name
    np.testing.assert_array_equal(drawn[0], also_drawn[0])
    np.testing.assert_array_equal(drawn[1], also_drawn[1])
    assert drawn[2] == also_drawn[2]
    store = FeatureStore.open(tmp_path / "features.zarr")
    assert len(store.steps) == 6
    assert not np.array_equal(store.matrix("head", 0, 0), store.matrix("head", 0, 5))


class Restless(nn.Module):
    """Draws numbers and changes its buffers whatever the mode, by assignment and in place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("n_calls", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(4))
        self.inner = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.n_calls += 1
        self.mean = x.mean(0)
        return self.inner(x + torch.rand(4) + random.random() + np.random.rand())  # noqa: NPY002


def test_buffers_and_generators_are_as_they_were(tmp_path):
    model, x = Restless(), torch.ones(10, 4)
    model(x * 3)
    mean, before = model.mean, (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy())  # noqa: NPY002
    with Recorder(tmp_path / "features.zarr", model, ["inner"], x, np.zeros(10, int), 0) as recorder:
        recorder.record(0, 0)
    assert model.n_calls == 1
    assert model.mean is mean and bool((mean == 3).all())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    np.testing.assert_array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002


def test_autocast_is_off_within_and_on_after(net, x, y, tmp_path):
    expected = by_hand(net, x)["head"]
    with torch.autocast("cpu", torch.bfloat16):
        with Recorder(tmp_path / "features.zarr", net, ["head"], x, y, 0) as recorder:
            recorder.record(0, 0)
        assert torch.is_autocast_enabled("cpu")
        assert net(x).dtype == torch.bfloat16
    found = FeatureStore.open(tmp_path / "features.zarr").matrix("head", 0, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_after_a_pass_that_fails_all_is_as_before_and_recording_goes_on(net, x, y, tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "BUNDLE_BYTES", 1)
    fails = False
    calls = 0

    def forward(network: nn.Module, block: torch.Tensor) -> None:
        nonlocal calls
        calls += 1
        if fails and calls > 2:
            raise RuntimeError("out of memory")
        network(block)

    with Recorder(tmp_path / "features.zarr", net, ["stem"], x, y, 0, block_rows=16, forward=forward) as recorder:
        fails, calls = True, 0
        with pytest.raises(RuntimeError, match="out of memory"):
            recorder.record(0, 0)
        assert net.training and net.stem[1].training and torch.is_grad_enabled()
        assert not net.stem._forward_hooks
        fails = False
        recorder.record(0, 0)
        fails, calls = True, 0
        with pytest.raises(RuntimeError, match="out of memory"):
            recorder.record(1, 1)
    store = FeatureStore.open(tmp_path / "features.zarr", tmp_path / "features.json")
    assert store.steps.tolist() == [0]
    np.testing.assert_allclose(store.matrix("stem", 0, 0), by_hand(net, x)["stem"], rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the peak from /proc")
def test_memory_does_not_grow_with_steps_or_samples(tmp_path):
    """In a process of its own, whose freed memory goes back to the kernel at once."""
    code = """
import sys
from pathlib import Path
import numpy as np, torch
from torch import nn
from featurespace.recorder import Recorder

def resident(key):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) // 1024

torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(8, 2048))
def peak(name, n_samples, n_steps):
    x, y = torch.ones(n_samples, 8), np.zeros(n_samples, int)
    with Recorder(name, model, ["0"], x, y, 0) as recorder:
        Path("/proc/self/clear_refs").write_text("5")
        before = resident("VmRSS")
        for step in range(n_steps):
            recorder.record(step, step)
        return resident("VmHWM") - before
peak("warm.zarr", 4096, 1)
print(peak("short.zarr", 4096, 1), peak("long.zarr", 4096, 6), peak("large.zarr", 16384, 1))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(SCRIPTS), "MALLOC_MMAP_THRESHOLD_": "65536"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    short, long, large = map(int, done.stdout.split())
    # in MiB: three bundles of 8, one of them copied, and a pass; the features take 32, 192 and 128
    assert max(short, long, large) < 40, (short, long, large)


# --- layers, and other arguments ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("stem", ["stem"]),
        ("blocks.*", ["blocks.0", "blocks.1"]),
        ("*", ["stem", "blocks", "drop", "head"]),
        ("**", ["stem", "stem.0", "stem.1", "stem.2", "blocks", "blocks.0", "blocks.1", "drop", "head"]),
        ("**.[01]", ["stem.0", "stem.1", "blocks.0", "blocks.1"]),
        ("stem.**", ["stem", "stem.0", "stem.1", "stem.2"]),
        ("ste?.2", ["stem.2"]),
        ("block*", ["blocks"]),
        ("stem.0.weight", []),
    ],
)
def test_patterns_match_part_by_part(net, pattern, expected):
    assert match_paths(pattern, [name for name, _ in net.named_modules()]) == expected


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        (["block.0"], r"no module 'block.0' in this Net; did you mean 'blocks.0'\? .*stem, stem.0, .*, head$"),
        ({"own": "heads"}, r"no module 'heads' .* did you mean 'head'\?"),
        (["zzz"], "no module 'zzz' in this Net; The modules are stem, "),
        ([], "no layers are given; the modules are stem"),
        ("stem", r"a list of module paths, \['stem'\]"),
        ({"label": "stem"}, "layer 'label' cannot be called that"),
        ({"a/b": "stem"}, "layer 'a/b' cannot be called that .*: layers={'name': 'a/b'}$"),
        (["blocks"], "no module 'blocks' in this Net"),
        (["unused"], "layer 'unused' is not called in a forward pass"),
    ],
)
def test_wrong_layers_are_named_with_those_there_are(net, x, y, tmp_path, layers, says):
    if layers == ["unused"]:
        net.unused = nn.Identity()
    with pytest.raises(ValueError, match=says):
        Recorder(tmp_path / "features.zarr", net, layers, x, y, 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"samples": torch.zeros(0, 1, 8, 8)}, r"samples of shape \(0, 1, 8, 8\)"),
        ({"labels": [0, 1]}, r"labels of shape \(2,\) .* expected \(70,\) integers"),
        ({"labels": np.zeros(N_SAMPLES)}, "labels of .* float64"),
        ({"sample_ids": np.zeros(N_SAMPLES, int)}, "sample_ids are not all different"),
        ({"pooling": "max"}, "pooling 'max' is none of average, flatten"),
        ({"pooling": lambda tap: tap.mean()}, r"pooling gives \(\), not \(70, n_features\)"),
        ({"block_rows": 0}, "block_rows 0"),
        ({"seed": -1}, "seed -1 is no whole number"),
        ({"mode": "append"}, "mode 'append' is none of new, replace, resume"),
        ({"path": "features"}, "ends in .zarr"),
    ],
)
def test_wrong_arguments_are_named(net, x, y, tmp_path, changes, says):
    arguments = {"path": tmp_path / "features.zarr", "samples": x, "labels": y, "seed": 0, "layers": ["stem"]}
    with pytest.raises(ValueError, match=says):
        Recorder(model=net, **(arguments | changes))
    assert not list(tmp_path.iterdir())


class Odd(nn.Module):
    """Modules whose output cannot be recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.ReLU()
        self.first = nn.Identity()
        self.whole = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.whole(x.sum(0))
        self.first(x.argmax(1))
        return self.shared(self.shared(x))


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ("shared", "'shared' is called more than once"),
        ("first", r"'first' gives torch.int64, no tensor of real numbers"),
        ("whole", r"'whole' gives \(4,\) for 10 samples"),
    ],
)
def test_outputs_that_are_no_rows_are_refused(tmp_path, layer, says):
    with pytest.raises(ValueError, match=says):
        Recorder(tmp_path / "features.zarr", Odd(), [layer], torch.ones(10, 4), np.zeros(10, int), 0)


def test_lazy_parameters_are_refused_and_left_lazy(tmp_path):
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(ValueError, match="pass one batch through it first"):
        Recorder(tmp_path / "features.zarr", model, ["0"], torch.ones(10, 4), np.zeros(10, int), 0)
    assert nn.parameter.is_lazy(model[0].weight)


@pytest.mark.parametrize(
    ("step", "epoch", "says"),
    [
        (2, 3.0, "step 2 does not come after step 2"),
        (1, 3.0, "step 1 does not come after step 2"),
        (3, 1.0, "epoch 1.0 at step 3 is before epoch 2.0"),
        (3, float("nan"), "epochs are finite"),
        (-1, 3.0, "from 0 on"),
        (3.5, 3.0, "whole numbers"),
    ],
)
def test_steps_go_up(net, x, y, tmp_path, step, epoch, says):
    with Recorder(tmp_path / "features.zarr", net, ["head"], x, y, 0) as recorder:
        recorder.record(2, 2.0)
        with pytest.raises(ValueError, match=says):
            recorder.record(step, epoch)
    assert FeatureStore.open(tmp_path / "features.zarr").steps.tolist() == [2]


# --- what is there already, and what goes wrong ---------------------------------------------------


@pytest.fixture
def recorded(net, x, y, tmp_path):
    """Record some steps in an own directory, the network changing from one to the next."""

    def record(steps, mode="new", fail=False, layers=("stem", "head"), **changes):
        model = copy.deepcopy(net)
        for _ in range(steps[0]):
            change(model)
        with Recorder(tmp_path / "features.zarr", model, layers, x, y, 0, block_rows=16, mode=mode, **changes) as own:
            for step in steps:
                own.record(step, step / 2)
                change(model)
            if fail:
                raise KeyboardInterrupt

    return record


def test_what_is_there_is_not_touched_unless_told(recorded, tmp_path):
    path = tmp_path / "features.zarr"
    recorded([0, 1])
    for mode in ("new", "resume"):
        with pytest.raises(FeaturespaceError, match=r"features\.zarr is "):
            recorded([0], mode)
    with pytest.raises(KeyboardInterrupt):
        recorded([0, 1, 2], "replace", fail=True)
    assert FeatureStore.open(path, tmp_path / "features.json").steps.tolist() == [0, 1]
    recorded([4], "replace")
    assert FeatureStore.open(path, tmp_path / "features.json").steps.tolist() == [4]
    verify_digest(path, tmp_path / "features.json")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["features.json", "features.zarr"]


def test_a_loop_that_ends_in_an_error_leaves_no_store_and_loses_nothing(recorded, tmp_path, caplog):
    path, digest = tmp_path / "features.zarr", tmp_path / "features.json"
    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
        recorded([0, 1, 2], fail=True)
    assert "3 steps are kept in features.zarr.partial" in caplog.text
    assert not path.exists() and not digest.exists()
    with pytest.raises(FeaturespaceError):
        FeatureStore.open(tmp_path / "features.zarr.partial")
    with pytest.raises(FileNotFoundError):
        xr.open_zarr(tmp_path / "features.zarr.partial/store")
    with pytest.raises(FeaturespaceError, match=r'mode="resume".*mode="replace".*featurespace.recover'):
        recorded([0])
    assert recover(path) == [0, 1, 2]
    verify_digest(path, digest)
    assert recover(path) == [0, 1, 2]  # and nothing is left to do
    assert sorted(file.name for file in tmp_path.iterdir()) == ["features.json", "features.zarr"]


@pytest.mark.parametrize("again", [3, 2], ids=["next step", "last step once more"])
def test_a_recording_goes_on_as_if_it_had_never_stopped(recorded, tmp_path, again):
    recorded([0, 1, 2, 3, 4])
    shutil.move(tmp_path / "features.zarr", tmp_path / "expected.zarr")
    with pytest.raises(KeyboardInterrupt):
        recorded([0, 1, 2], fail=True)
    with pytest.raises(FeaturespaceError, match=r"another recording \(layers, attrs differ\)"):
        recorded([3], "resume", layers=["stem"])
    recorded(list(range(again, 5)), "resume")
    store = FeatureStore.open(tmp_path / "features.zarr", tmp_path / "features.json")
    expected = FeatureStore.open(tmp_path / "expected.zarr")
    assert store.steps.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(store.epochs, expected.epochs)
    for layer in expected.layers:
        for i in range(5):
            np.testing.assert_array_equal(store.matrix(layer, 0, i), expected.matrix(layer, 0, i))


KILLED = """
import os, signal, sys
import numpy as np, torch
from torch import nn
from featurespace.recorder import Recorder
from featurespace.stores import ChunkWriter

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5))
write, n_written = ChunkWriter.write, 0
def counted(*arguments):
    global n_written
    n_written += 1
    if n_written == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    write(*arguments)
ChunkWriter.write = counted
with Recorder("features.zarr", model, ["*"], torch.ones(9, 3), np.arange(9), 0, block_rows=4) as recorder:
    for step in range(4):
        recorder.record(step, step)
"""


@pytest.mark.parametrize("killed_at", [1, 6])
def test_a_killed_loop_leaves_what_is_whole(tmp_path, killed_at):
    # two layers, one bundle a step: two writes a step
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(killed_at)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(SCRIPTS)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert [file.name for file in tmp_path.iterdir()] == ["features.zarr.partial"]
    if killed_at == 1:
        with pytest.raises(FeaturespaceError, match="no step was recorded"):
            recover(tmp_path / "features.zarr")
        assert not list(tmp_path.iterdir())
        with pytest.raises(FeaturespaceError, match="neither"):
            recover(tmp_path / "features.zarr")
        return
    assert recover(tmp_path / "features.zarr") == [0, 1]
    verify_digest(tmp_path / "features.zarr", tmp_path / "features.json")


def test_steps_from_a_damaged_one_on_are_not_recovered(recorded, tmp_path, caplog):
    with pytest.raises(KeyboardInterrupt):
        recorded([0, 1, 2, 3], fail=True)
    partial = tmp_path / "features.zarr.partial"
    chunk = partial / "store/head/c.0.2.0.0"
    chunk.write_bytes(chunk.read_bytes()[:-20])
    with (partial / "journal.jsonl").open("a") as journal:
        journal.write('{"step": 4, "ep')
    assert recover(tmp_path / "features.zarr") == [0, 1]
    assert "step 2 is damaged; 2 steps are kept" in caplog.text
    verify_digest(tmp_path / "features.zarr", tmp_path / "features.json")


def test_a_crash_between_store_and_digest_is_mended(recorded, tmp_path, monkeypatch):
    def crash(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("featurespace.recordings.write_digest", crash)
        with pytest.raises(KeyboardInterrupt):
            recorded([0, 1])
    assert recover(tmp_path / "features.zarr") == [0, 1]
    verify_digest(tmp_path / "features.zarr", tmp_path / "features.json")
    assert not (tmp_path / "features.zarr.partial").exists()


def test_two_do_not_write_the_same_store(net, x, y, tmp_path):
    first = Recorder(tmp_path / "features.zarr", net, ["stem"], x, y, 0)
    first.record(0, 0)
    for mode in ("replace", "resume"):
        with pytest.raises(FeaturespaceError, match="being written by another process"):
            Recorder(tmp_path / "features.zarr", net, ["stem"], x, y, 0, mode=mode)
    with pytest.raises(FeaturespaceError, match="being written by another process"):
        recover(tmp_path / "features.zarr")
    first.record(1, 1)
    first.close()
    assert FeatureStore.open(tmp_path / "features.zarr").steps.tolist() == [0, 1]


def test_a_write_that_fails_raises_and_leaves_no_store(net, x, y, tmp_path, monkeypatch):
    path, write = tmp_path / "features.zarr", ChunkWriter.write

    def fail(self, layer, seed_index, step_index, start, block):
        if step_index == 1:
            raise OSError(28, "No space left on device")
        write(self, layer, seed_index, step_index, start, block)

    monkeypatch.setattr(ChunkWriter, "write", fail)
    recorder = Recorder(path, net, ["stem"], x, y, 0)
    recorder.record(0, 0)
    recorder.record(1, 1)
    recorder._behind.submit(lambda: None).result()
    with pytest.raises(FeaturespaceError, match="the disk is full"):
        recorder.record(2, 2)
    with pytest.raises(FeaturespaceError, match="the disk is full"):
        recorder.close()
    assert not path.exists()
    assert recover(path) == [0]


def test_nothing_recorded_is_an_error_and_leaves_nothing(net, x, y, tmp_path):
    with (
        pytest.raises(FeaturespaceError, match="no step was recorded"),
        Recorder(tmp_path / "features.zarr", net, ["stem"], x, y, 0),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_seeds_are_joined_if_all_else_is_the_same(net, x, y, tmp_path):
    def record(name, seed, steps=(0, 1), labels=y):
        with Recorder(tmp_path / name, net, ["stem", "head"], x, labels, seed) as recorder:
            for step in steps:
                recorder.record(step, step / 2)
                change(net)
        return FeatureStore.open(tmp_path / name)

    parts = [record("a.zarr", 5), record("b.zarr", 2)]
    with pytest.raises(FeaturespaceError, match=r"c.zarr has other steps and samples than .*a.zarr"):
        join_seeds([tmp_path / "a.zarr", record("c.zarr", 1, (0, 2), y + 1).path], tmp_path / "all.zarr")
    with pytest.raises(FeaturespaceError, match=r"seeds \[5, 5\] .* not all different"):
        join_seeds([tmp_path / "a.zarr", tmp_path / "a.zarr"], tmp_path / "all.zarr")
    with pytest.raises(FeaturespaceError, match=r"a\.zarr is there already"):
        join_seeds([tmp_path / "b.zarr"], tmp_path / "a.zarr")
    assert join_seeds([tmp_path / "a.zarr", tmp_path / "b.zarr"], tmp_path / "all.zarr") == [5, 2]
    verify_digest(tmp_path / "all.zarr", tmp_path / "all.json")
    joint = FeatureStore.open(tmp_path / "all.zarr", tmp_path / "all.json")
    assert joint.seeds.tolist() == [5, 2]
    for i, part in enumerate(parts):
        for layer in ("stem", "head"):
            for step in range(2):
                np.testing.assert_array_equal(joint.matrix(layer, i, step), part.matrix(layer, 0, step))
