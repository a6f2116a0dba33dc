"""The same rows on a GPU, and what only a GPU is for: a ResNet in bfloat16, and fifty networks together."""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import nn
from torchvision import transforms

from benchmarks import measures_rows, spectra_rows, stage_rows, training_rows
from benchmarks.real_data import Features, few, padded
from benchmarks.table import Row, Target, alternate, require, speedup
from featurespace.datasets import PreparedDataset

RESNET = {"kind": "resnet", "depth": 18}
N_TOGETHER = 50
NO_GPU = "no GPU"


def on_the_gpu(
    features: Features, published: Path, folder: Path, quick: bool
) -> dict[str, Callable[[], Iterator[Row]]]:
    """Return what makes the rows, by name. Without a GPU they say so, or, if they are quick, take the CPU's way."""
    if torch.cuda.is_available():
        features.device = torch.device("cuda")
        return _makers(features, published, folder, quick)
    if not quick:
        return {"gpu": _promised}
    makers = _makers(features, published, folder, quick)
    return {name: partial(_noted, make) for name, make in makers.items()}


def _promised() -> Iterator[Row]:
    for name, target in PROMISES.items():
        yield Row(name, "", "", target=target, note=NO_GPU)


def _noted(make: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    for row in make():
        yield dataclasses.replace(row, note=f"{NO_GPU}: on the CPU")


# what the table promises, for where there is no GPU
PROMISES = {
    "spectra of one matrix": Target(">=", 1.5),
    "spectra of consecutive steps": Target(">=", 2.5),
    "spectra against the roofline": Target(">=", 0.6),
    "the whole stage, store to spectra": Target("<=", 2.0),
    "dumping features": Target("<=", 1.2),
    "training MLP": Target(">=", 3.0),
    "training CNN": Target(">=", 1.5),
    "training a block of 5 seeds": Target(">=", 2.0),
    "layer measures C, D, NC1": Target(">=", 1.5),
    "training ResNet-18 in bfloat16": Target(">=", 5.0),
    f"training a block of {N_TOGETHER} seeds": Target(">=", 10.0),
}


def _makers(features: Features, published: Path, folder: Path, quick: bool) -> dict[str, Callable[[], Iterator[Row]]]:
    device, data = features.device, features.dataset
    shapes = ((300, 16), (200, 32)) if quick else spectra_rows.SHAPES
    sizes = (400, 16, 3) if quick else (stage_rows.N_SAMPLES, stage_rows.WIDTH, stage_rows.N_STEPS)
    bests: spectra_rows.Bests = {}

    def stages() -> Iterator[Row]:
        laid_out = stage_rows.stages_of(features, folder, published, *sizes, device=device.type)
        yield from stage_rows.dumping(laid_out, 1 if quick else 2)
        yield from stage_rows.whole_stage(laid_out, 1 if quick else 2)

    few_images = (400, 1, 1) if quick else ()
    return {
        "matrix": lambda: spectra_rows.one_matrix(features, shapes, bests, device),
        "steps": lambda: spectra_rows.consecutive_steps(features, shapes, bests, device),
        "stages": stages,
        "training": lambda: training_rows.against_a_plain_loop(data, *(few_images or (20_000, 3, 2)), device=device),
        "block": lambda: training_rows.seeds_together(data, *few_images, device=device),
        "measures": lambda: measures_rows.measures(features, *((300, 16, 1) if quick else ()), device=device),
        "resnet": lambda: resnet(data, *((8, 1, 1) if quick else (50_000, 1, 1)), device=device),
        "fifty": lambda: training_rows.seeds_together(
            data,
            *few_images,
            seeds=3 if quick else N_TOGETHER,
            device=device,
            least=10.0,
            widths=(),
            linear_widths=(32,) if quick else (32, 128),
        ),
    }


def resnet(
    dataset: PreparedDataset, n_train: int, epochs: int, repetitions: int, device: torch.device
) -> Iterator[Row]:
    """Train ResNet-18, with the stem for small images, in bfloat16 autocast, against a plain float32 loop.

    The images are of CIFAR's size, 32 x 32, and have three channels, but they are Fashion-MNIST's, padded and repeated.
    The check is that both learn them: test accuracies to three standard errors of the test split and a twentieth, which
    is what seeds differ by after so short a training.
    """
    coloured = padded(dataset)
    coloured = dataclasses.replace(coloured, images=np.repeat(coloured.images, 3, axis=1))
    n_test = max(8, n_train // 10)
    part = few(coloured, n_train, n_test)
    grey = dataclasses.replace(part, images=part.images[:, :1])
    to_colour = transforms.Compose(
        [transforms.Grayscale(3), transforms.ToTensor(), transforms.Normalize([part.offset] * 3, [part.scale] * 3)]
    )
    accuracies: dict[str, float] = {}

    def ours(epochs: int) -> None:
        spec = training_rows.training_spec(RESNET, epochs, autocast="bfloat16")
        history = training_rows.our_training(spec, part, device)
        accuracies["ours"] = float(training_rows.final(history, "test_accuracy")[0])

    def plain(epochs: int) -> None:
        accuracies["plain"] = training_rows.plain_loop(_small_resnet(), grey, epochs, to_colour, 0, device)

    longer = alternate({"ours": partial(ours, 2 * epochs), "plain": partial(plain, 2 * epochs)}, 1)
    times = alternate({"ours": partial(ours, epochs), "plain": partial(plain, epochs)}, repetitions)
    said = f"accuracy {accuracies['ours']:.3f} and {accuracies['plain']:.3f}"
    require(
        abs(accuracies["ours"] - accuracies["plain"]) <= 0.05 + 3 * (0.25 / n_test) ** 0.5,
        f"ResNet-18 in bfloat16, and plain in float32: {said}",
    )
    name, case = "training ResNet-18 in bfloat16", f"{n_train} images of 32 x 32, {epochs} epochs"
    against = "DataLoader loop, float32"
    yield speedup(name, case, against, times["ours"], times["plain"], 5.0, said)
    ours_more, plain_more = (max(longer[side] - times[side], 1e-9) for side in ("ours", "plain"))
    note = "without what is done once: setting up, and evaluating both splits at the beginning and at the end"
    yield speedup(name, f"{epochs} epochs more", against, ours_more, plain_more, None, note)


def _small_resnet() -> nn.Module:
    network = torchvision.models.resnet18(num_classes=10)
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network
