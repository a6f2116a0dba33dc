"""Training: against a plain DataLoader loop, and seeds together against seeds one after another."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torchvision import transforms

from benchmarks.real_data import CPU, few, recipe_of, study_plan
from benchmarks.table import Row, alternate, require, speedup
from featurespace.datasets import PreparedDataset
from featurespace.training import train_block

MLP = {"kind": "mlp", "widths": [256, 256]}
CNN = {"kind": "cnn", "channels": [16, 32], "hidden": 64}
SEEDS = 5
NOISE_SEEDS = 3  # of either side, when accuracies are compared


# --- a plain loop -------------------------------------------------------------------------------------------------


class Images(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """One split as torchvision's FashionMNIST gives it: a PIL image, transformed, and its label."""

    def __init__(self, dataset: PreparedDataset, split: int, transform: Callable[[Any], torch.Tensor]) -> None:
        rows = np.flatnonzero(np.asarray(dataset.split) == split)
        self.images = torch.from_numpy(dataset.images[rows][:, 0])
        self.labels = torch.from_numpy(dataset.labels[rows])
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index].numpy())), int(self.labels[index])


def plain_network(model: Mapping[str, Any], side: int) -> nn.Module:
    """Build the network that a recipe's model describes, of PyTorch's own layers."""
    layers: list[nn.Module] = []
    if model["kind"] == "mlp":
        layers, n_in = [nn.Flatten()], side * side
        for width in model["widths"]:
            layers += [nn.Linear(n_in, width), nn.ReLU()]
            n_in = width
    else:
        n_in = 1
        for channels in model["channels"]:
            convolution = nn.Conv2d(n_in, channels, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(2)]
            n_in, side = channels, side // 2
        layers += [nn.Flatten(), nn.Linear(n_in * side * side, model["hidden"]), nn.ReLU()]
        n_in = model["hidden"]
    return nn.Sequential(*layers, nn.Linear(n_in, 10))


def plain_loop(
    network: nn.Module,
    dataset: PreparedDataset,
    epochs: int,
    transform: Callable[[Any], torch.Tensor],
    n_workers: int = 0,
    device: torch.device = CPU,
) -> float:
    """Train as a tutorial does: a DataLoader, torchvision's transforms, Adam, batches of 128.

    Returns
    -------
    float
        The accuracy on the test split, evaluated once, at the end.
    """
    network = network.to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    load = torch.utils.data.DataLoader
    train = load(Images(dataset, 0, transform), batch_size=128, shuffle=True, num_workers=n_workers)
    test = load(Images(dataset, 1, transform), batch_size=128, num_workers=n_workers)
    network.train()
    for _ in range(epochs):
        for images, labels in train:
            optimiser.zero_grad()
            F.cross_entropy(network(images.to(device)), labels.to(device)).backward()
            optimiser.step()
    network.eval()
    hits = 0
    with torch.no_grad():
        for images, labels in test:
            hits += int((network(images.to(device)).argmax(1) == labels.to(device)).sum())
    return hits / len(test.dataset)  # type: ignore[arg-type]


def to_input(dataset: PreparedDataset) -> Callable[[Any], torch.Tensor]:
    """Return torchvision's transforms that scale as the data set is scaled."""
    return transforms.Compose([transforms.ToTensor(), transforms.Normalize((dataset.offset,), (dataset.scale,))])


# --- ours ---------------------------------------------------------------------------------------------------------


def training_spec(model: Mapping[str, Any], epochs: int, seeds: Sequence[int] = (0,), **changes: Any) -> dict[str, Any]:
    """Return the parameters of the job that trains a block of seeds, weights kept at the beginning and the end."""
    schedule = {"keep_every": epochs, "learning_rate_schedule": "constant"}
    recipe = recipe_of(model, epochs, schedule=schedule, seeds=list(seeds), block=len(seeds), **changes)
    return study_plan({"recipe": recipe}).train_run("recipe", 0)


def our_training(spec: Mapping[str, Any], dataset: PreparedDataset, device: torch.device = CPU) -> list[dict[str, Any]]:
    """Train a block and return its history; what is written lies in a temporary folder."""
    folder = Path(tempfile.mkdtemp())
    n_threads = torch.get_num_threads()
    try:
        return train_block(spec, dataset, device, folder).history
    finally:
        torch.set_num_threads(n_threads)  # training sets its own
        shutil.rmtree(folder)


def final(history: list[dict[str, Any]], what: str) -> np.ndarray:
    """Return a column at the last step, (S,)."""
    last = max(row["step"] for row in history)
    return np.array([row[what] for row in history if row["step"] == last])


# --- rows ---------------------------------------------------------------------------------------------------------


def against_a_plain_loop(
    dataset: PreparedDataset,
    n_train: int = 4_000,
    epochs: int = 4,
    repetitions: int = 2,
    device: torch.device = CPU,
) -> Iterator[Row]:
    """Train an MLP and a small CNN on Fashion-MNIST, as a recipe does that asks for all cores, and as a tutorial does.

    Ours evaluates both splits at the beginning and at the end, the training loss of its history included; the loop
    evaluates the test split at the end. Ours on one thread, a recipe's default, is shown beside.
    """
    n_threads = torch.get_num_threads()
    n_test = max(100, n_train // 10)
    for name, model, least in (("MLP", MLP, 3.0), ("CNN", CNN, 1.5)):
        part = few(dataset, n_train // 2, n_test)
        accuracies = _accuracies(model, part, epochs, device)
        part = few(dataset, n_train, n_test)

        loop = partial(_loop, model, part, epochs, device)

        spec = training_spec(model, epochs)
        own = partial(our_training, {**spec, "threads": n_threads}, part, device)
        times = alternate({"ours": own, "plain": partial(loop, 0)}, repetitions)
        against = "DataLoader loop"
        case = f"{name} {_widths(model)}, {n_train} images, {epochs} epochs"
        yield speedup("training", case, against, times["ours"], times["plain"], least, accuracies)
        once = alternate({"ours": own, "workers": partial(loop, 2)}, 1)
        yield speedup("training", case, f"{against}, 2 workers", once["ours"], once["workers"], None, "timed once")
        alone = alternate({"ours": partial(our_training, {**spec, "threads": 1}, part, device)}, 1)["ours"]
        yield speedup("training", case, against, alone, times["plain"], None, "ours on one thread, timed once")


def _loop(
    model: Mapping[str, Any], dataset: PreparedDataset, epochs: int, device: torch.device, n_workers: int
) -> None:
    network = plain_network(model, dataset.images.shape[2])
    plain_loop(network, dataset, epochs, to_input(dataset), n_workers, device)


def _widths(model: Mapping[str, Any]) -> str:
    return "-".join(map(str, model.get("widths", model.get("channels", []))))


def _accuracies(model: Mapping[str, Any], dataset: PreparedDataset, epochs: int, device: torch.device) -> str:
    """Require that both learn alike: mean test accuracies no further apart than seeds and the test split's size say."""
    ours = final(our_training(training_spec(model, epochs, range(NOISE_SEEDS)), dataset, device), "test_accuracy")
    theirs = []
    for seed in range(NOISE_SEEDS):
        torch.manual_seed(seed)
        network = plain_network(model, dataset.images.shape[2])
        theirs.append(plain_loop(network, dataset, epochs, to_input(dataset), 0, device))
    n_test = int((np.asarray(dataset.split) == 1).sum())
    mean = (np.mean(ours) + np.mean(theirs)) / 2
    # Seeds scatter, and so does a test split of that size; the same images are tested, so this is generous.
    noise = np.hypot(np.std(ours, ddof=1), np.std(theirs, ddof=1)) / NOISE_SEEDS**0.5
    noise = np.hypot(noise, (mean * (1 - mean) / n_test) ** 0.5)
    said = f"accuracy {np.mean(ours):.3f} and {np.mean(theirs):.3f} (± {noise:.3f}) on half of the images"
    require(abs(np.mean(ours) - np.mean(theirs)) <= 3 * noise, f"training {_widths(model)}: {said}")
    return said


def seeds_together(
    dataset: PreparedDataset,
    n_train: int = 6_000,
    epochs: int = 2,
    repetitions: int = 2,
    seeds: int = SEEDS,
    device: torch.device = CPU,
    least: float = 2.0,
    widths: Sequence[int] = (32, 128, 256),
    linear_widths: Sequence[int] = (32, 128),
) -> Iterator[Row]:
    """Train a block of seeds in one network, and the same seeds in as many, on all cores and on one."""
    cores = torch.get_num_threads()
    part = few(dataset, n_train, max(100, n_train // 10))
    models = [({"kind": "mlp", "widths": [width, width]}, width, {}) for width in widths]
    models += [({"kind": "linear", "depth": 4, "width": width}, width, {"loss": "mse"}) for width in linear_widths]
    for model, width, changes in models:
        spec = training_spec(model, epochs, range(seeds), **changes)
        short = training_spec(model, 1, range(seeds), **changes)
        _require_same(short, few(dataset, min(n_train, 512), 100), device)

        for n_threads in dict.fromkeys([cores, 1] if device.type == "cpu" else [1]):
            own = {**spec, "threads": n_threads}

            def together(own: Mapping[str, Any] = own) -> None:
                our_training(own, part, device)

            def one_by_one(own: Mapping[str, Any] = own) -> None:
                for seed in own["seeds"]:
                    our_training({**own, "seeds": [seed]}, part, device)

            times = alternate({"together": together, "one by one": one_by_one}, repetitions)
            name = "MLP" if model["kind"] == "mlp" else "deep linear network"
            yield speedup(
                f"training a block of {seeds} seeds",
                f"{name}, width {width}, {n_threads} thread{'s' if n_threads > 1 else ''}",
                "one after another",
                times["together"],
                times["one by one"],
                least if width <= 128 else 1.0,
            )


def _require_same(spec: Mapping[str, Any], dataset: PreparedDataset, device: torch.device) -> None:
    together = final(our_training(spec, dataset, device), "train_loss")
    alone = [final(our_training({**spec, "seeds": [s]}, dataset, device), "train_loss")[0] for s in spec["seeds"][:2]]
    require(
        np.allclose(together[:2], alone, rtol=1e-3),
        f"{spec['model']}: losses {together[:2]} together, {alone} one by one",
    )
