"""Recording features in somebody else's training loop: what it adds to the loop, and to the bare forward passes."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.real_data import few
from benchmarks.table import Row, alternate, cost, require
from benchmarks.training_rows import CNN, plain_network
from featurespace.datasets import PreparedDataset
from featurespace.recorder import FORWARD_ROWS, Recorder
from featurespace.stores import FeatureStore

LAYERS = {"conv1": "2", "conv2": "6", "hidden": "10"}  # the rectifiers of the network
MOST = 1.1


def loop(
    network: nn.Module, x: torch.Tensor, y: torch.Tensor, epochs: int, after: Callable[[int, int], object] | None
) -> None:
    """Train with Adam on batches of 128 that are in memory; `after` is called with step and epoch after each epoch."""
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    generator = torch.Generator().manual_seed(0)
    step = 0
    for epoch in range(1, epochs + 1):
        for rows in torch.randperm(len(x), generator=generator).split(128):
            optimiser.zero_grad()
            F.cross_entropy(network(x[rows]), y[rows]).backward()
            optimiser.step()
            step += 1
        if after:
            after(step, epoch)


@torch.no_grad()
def bare_passes(network: nn.Module, samples: torch.Tensor) -> torch.Tensor:
    """Pass the samples through the network, block by block, and keep nothing but the last output."""
    network.eval()
    for block in samples.split(FORWARD_ROWS):
        output = network(block)
    network.train()
    return output


def recording(
    dataset: PreparedDataset,
    scratch: Path,
    n_train: int = 16_000,
    n_samples: int = 2_000,
    epochs: int = 1,
    repetitions: int = 3,
) -> Iterator[Row]:
    """Compare a loop that records its samples after every epoch with two that do not.

    One of these makes the same forward passes and drops what comes out; the other one only trains. The time of the
    first includes making the recorder and closing it.
    """
    known = few(dataset, n_train, 0)
    x, y = torch.from_numpy(known.inputs()), torch.from_numpy(known.labels)
    samples, labels = x[:n_samples], y[:n_samples]
    trained: dict[str, nn.Module] = {}

    def network(name: str) -> nn.Module:
        torch.manual_seed(0)
        trained[name] = plain_network(CNN, x.shape[-1])
        return trained[name]

    def recorder(model: nn.Module, folder: Path) -> Recorder:
        return Recorder(folder / "features.zarr", model, LAYERS, samples, labels, seed=0, mode="replace")

    def with_recorder() -> None:
        model = network("recorder")
        with recorder(model, scratch) as own:
            loop(model, x, y, epochs, own.record)

    def with_bare_passes() -> None:
        model = network("bare")
        loop(model, x, y, epochs, lambda step, epoch: bare_passes(model, samples))

    loops = {
        "recorder": with_recorder,
        "bare": with_bare_passes,
        "plain": lambda: loop(network("plain"), x, y, epochs, None),
    }
    times = alternate(loops, repetitions)
    model = trained["recorder"]
    _require_right(model, samples, scratch / "features.zarr", epochs)
    pairs = zip(model.state_dict().values(), trained["plain"].state_dict().values(), strict=True)
    require(all(torch.equal(a, b) for a, b in pairs), "recording: the network trains otherwise when it is recorded")
    case = f"{n_samples} samples once an epoch of {len(x)}"
    yield cost(
        *("recording in a loop", case, "the loop with bare forward passes", times["recorder"], times["bare"], MOST),
        "the store is whole and on the disk at the end",
    )
    yield cost("recording in a loop", case, "the loop without", times["recorder"], times["plain"], MOST)

    with tempfile.TemporaryDirectory(dir=scratch) as folder, recorder(model, Path(folder)) as own:
        steps = iter(range(10**6))

        def record() -> None:
            step = next(steps)
            own.record(step, step)

        alone = alternate({"record": record, "bare": lambda: bare_passes(model, samples)}, 5 * repetitions)
    yield cost(
        *("recording once", f"{n_samples} samples", "bare forward passes", alone["record"], alone["bare"], None),
        "until the loop goes on",
    )


def _require_right(model: nn.Module, samples: torch.Tensor, path: Path, epochs: int) -> None:
    """Refuse to time a recorder whose store has other features than the network gives."""
    store = FeatureStore.open(path, path.with_suffix(".json"))
    require(len(store.steps) == epochs, "recording: the store has other steps than were recorded")
    assert isinstance(model, nn.Sequential)
    model.eval()
    with torch.no_grad():
        for layer, module in LAYERS.items():
            expected = model[: int(module) + 1](samples)
            expected = expected.mean((2, 3)) if expected.ndim == 4 else expected
            found = store.matrix(layer, 0, epochs - 1)
            require(
                np.allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5),
                f"recording: the store holds other features of {layer} than the network gives",
            )
    model.train()
