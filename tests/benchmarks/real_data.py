"""Real features to compute with: what networks that this project trains on Fashion-MNIST make of its images."""

import dataclasses
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.table import threads
from featurespace.catalogue import PUBLISHED
from featurespace.config import parse_study
from featurespace.datasets import PreparedDataset
from featurespace.errors import FeaturespaceError
from featurespace.extraction import build_for, pool
from featurespace.plan import Plan
from featurespace.preparation import prepare
from featurespace.stores import read_digest
from featurespace.training import train_block
from featurespace.weights import KeptWeights, publish

ROOT = Path(__file__).parents[2]
PLACES = ("/usr/share/datasets/fashion-mnist", str(ROOT / "data" / "fashion-mnist"))
PLACE = "FEATURESPACE_FASHION_MNIST"  # the environment variable that names another one

N_STEPS = 20  # consecutive kept steps
WIDE = 32768  # of the first convolution's features, 128 channels of 16 x 16, flattened

CPU = torch.device("cpu")


def find_fashion(place: str | None) -> Path:
    """Find the published files of Fashion-MNIST.

    Raises
    ------
    FeaturespaceError
        If they are nowhere: the embedded digits are too small to stand in for them.
    """
    given = place or os.environ.get(PLACE)
    for folder in map(Path, [given] if given else PLACES):
        if all((folder / file.name).exists() for file in PUBLISHED["fashion-mnist"].files):
            return folder
    raise FeaturespaceError(
        "the benchmarks need Fashion-MNIST (digits are too small); give the folder of its published files with "
        f"`--data` or {PLACE}, or run a study that downloads it"
    )


def load_fashion(folder: Path, train_limit: int | None = None, test_limit: int | None = None) -> PreparedDataset:
    """Read Fashion-MNIST into memory, prepared as a study prepares it."""
    spec = study_plan({}).prepare_dataset("fashion") | {"train_limit": train_limit, "test_limit": test_limit}
    dataset = prepare(spec, PUBLISHED["fashion-mnist"], folder)
    return PreparedDataset(
        images=dataset["image"].to_numpy(),
        labels=dataset["label"].to_numpy(),
        split=dataset["split"].to_numpy(),
        sample_ids=dataset["sample"].to_numpy(),
        class_names=list(dataset.attrs["class_names"]),
        offset=float(dataset.attrs["offset"]),
        scale=float(dataset.attrs["scale"]),
        sample_hash=dataset.attrs["sample_hash"],
    )


def few(dataset: PreparedDataset, n_train: int, n_test: int) -> PreparedDataset:
    """Keep the first samples of each split."""
    splits = np.asarray(dataset.split)
    rows = np.concatenate([np.flatnonzero(splits == 0)[:n_train], np.flatnonzero(splits == 1)[:n_test]])
    return dataclasses.replace(
        dataset,
        images=dataset.images[rows],
        labels=dataset.labels[rows],
        split=splits[rows],
        sample_ids=dataset.sample_ids[rows],
    )


def padded(dataset: PreparedDataset) -> PreparedDataset:
    """Pad images of 28 x 28 pixels to 32 x 32."""
    return dataclasses.replace(dataset, images=np.pad(dataset.images, ((0, 0), (0, 0), (2, 2), (2, 2))))


def study_plan(recipes: Mapping[str, Any], dataset: Mapping[str, Any] | None = None) -> Plan:
    """Plan a study of recipes on Fashion-MNIST, so that a benchmark's parameters are what a user's would be."""
    recipe = {"dataset": "fashion", "task": "untrained", "model": {"kind": "mlp", "widths": [1]}}
    study = {
        "study": "bench",
        "seeds": 1,
        "datasets": {"fashion": {"kind": "fashion-mnist"} | dict(dataset or {})},
        "recipes": recipes or {"none": recipe},
        "figures": [],
    }
    return Plan(parse_study(study))


def recipe_of(model: Mapping[str, Any], epochs: int, **changes: Any) -> dict[str, Any]:
    """Return a recipe's section: a classifier of Fashion-MNIST, batches of 128, Adam."""
    schedule = {"epochs": epochs, "batch_size": 128} | changes.pop("schedule", {})
    return {"dataset": "fashion", "model": dict(model), "schedule": schedule, **changes}


def _is_of(digest: Path, spec: Mapping[str, Any]) -> bool:
    """Say whether weights are kept that training by `spec` made; those of another version are not."""
    try:
        return bool(read_digest(digest).get("spec") == spec)
    except FeaturespaceError:  # there is none, or its form is not ours
        return False


class Features:
    """Features of Fashion-MNIST at consecutive kept steps of one network a width.

    A network of width d is trained on a part of the images, its weights kept after every epoch; the features are those
    of its last hidden layer, on as many images as are wanted. The first steps after the initialisation are taken:
    later ones lie closer together, and would be easier. Width 32768 is the first layer of a convolutional network,
    flattened, of images padded to 32 x 32; it is trained on a twelfth of the others' images.

    Parameters
    ----------
    dataset
        Fashion-MNIST.
    folder
        Where weights are kept from one run of the benchmarks to the next.
    n_train, n_steps
        How many images the networks are trained on, and for how many epochs.
    device
        Where that is done, and features are computed.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        folder: Path,
        n_train: int = 6_000,
        n_steps: int = N_STEPS,
        device: torch.device = CPU,
    ) -> None:
        self.dataset = dataset
        self.folder = folder
        self.device = device
        self.n_train = n_train
        self.n_steps = n_steps

    def plan(self, width: int) -> Plan:
        """Return the plan of the study that trains the network of a width."""
        model: dict[str, Any] = {"kind": "mlp", "widths": [256, width]}
        more: dict[str, Any] = {"threads": 2}
        if width == WIDE:
            model = {"kind": "cnn", "channels": [128], "hidden": 32, "batch_norm": False}
            more |= {"pooling": "flatten", "schedule": {"batch_size": 32}}
        return study_plan({f"w{width}": recipe_of(model, self.n_steps, **more)})

    def layer(self, width: int) -> str:
        """Name the layer of a width."""
        return "conv1" if width == WIDE else "hidden2"

    def weights(self, width: int) -> KeptWeights:
        """Open the weights of the network of a width, trained now if they are not kept from before."""
        name = f"w{width}-{self.n_train}-{self.n_steps}"
        digest = self.folder / f"{name}.json"
        spec = self.plan(width).train_run(f"w{width}", 0)
        if not _is_of(digest, spec):
            resume = self.folder / f".{name}"
            shutil.rmtree(resume, ignore_errors=True)
            resume.mkdir(parents=True)
            dataset = few(self.dataset, self.n_train if width != WIDE else self.n_train // 12, 100)
            with threads(torch.get_num_threads()):
                run = train_block(spec, padded(dataset) if width == WIDE else dataset, self.device, resume)
            publish(run.weights, self.folder / name, digest, run.facts | {"spec": spec})
            shutil.rmtree(resume)
        return KeptWeights(self.folder / name, digest)

    def labels(self, n_samples: int) -> np.ndarray:
        """Return the classes (n_samples,) of the first images."""
        return few(self.dataset, n_samples, 0).labels

    def matrix(self, n_samples: int, width: int, step: int, shift: tuple[int, int] = (0, 0)) -> np.ndarray:
        """Return features (n_samples, width), float32, of the first images at one kept step, from 1 on.

        `shift` moves the images by so many pixels down and right, around the edges.
        """
        weights = self.weights(width)
        spec = self.plan(width).dump_features(f"w{width}", 0)
        images = few(self.dataset, n_samples, 0)
        if width == WIDE:
            images = padded(images)
        network = build_for(spec, images, n_seeds=1).to(self.device)
        network.load_state_dict(weights.read(weights.seeds, weights.steps[step]))
        features = np.empty((n_samples, width), dtype=np.float32)
        for start in range(0, n_samples, 1024):
            pixels = np.roll(images.images[start : start + 1024], shift, axis=(2, 3))
            inputs = dataclasses.replace(images, images=pixels).inputs()
            with torch.no_grad():
                _, taps = network(torch.from_numpy(inputs)[None].to(self.device))
            features[start : start + 1024] = pool(taps[self.layer(width)], "flatten")[0].cpu().numpy()
        return features
