"""What a source of features holds: layers, seeds and steps. Read from headers, for the Snakefile and for jobs alike.

A layer is an array (n, d), (steps, n, d) or (seeds, steps, n, d). Arrays called `sample`, `label`, `seed`, `step` and
`epoch` are coordinates, as in a `features.zarr`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featurespace.errors import FeaturespaceError
from featurespace.foreign import ForeignArray, open_arrays

COORDINATES = ("sample", "label", "seed", "step", "epoch")
MOST = 10_000  # seeds, or steps, or layers: more would be an axis that was mistaken for another

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?")


@dataclass(frozen=True)
class OwnLayers:
    """The layers of a source.

    Attributes
    ----------
    arrays
        {layer: array}, shallowest first.
    coordinates
        {name: array} of those that there are.
    n_samples
        Rows of every layer.
    seeds, steps, epochs
        (n_seeds,), (n_steps,), (n_steps,): as the source says, else 0, 1, ...
    """

    arrays: dict[str, ForeignArray]
    coordinates: dict[str, ForeignArray]
    n_samples: int
    seeds: list[int]
    steps: list[int]
    epochs: list[float]


def open_layers(path: Path) -> OwnLayers:
    """Open a source of features, and check what its headers and coordinates say.

    Raises
    ------
    FeaturespaceError
        If there are no layers, their shapes do not agree, or a coordinate does not fit; one line.
    """
    arrays, attributes = open_arrays(path)
    coordinates = {name: arrays.pop(name) for name in COORDINATES if name in arrays}
    said = attributes.get("layers")
    if isinstance(said, list) and said and all(isinstance(name, str) for name in said):
        if missing := [name for name in said if name not in arrays]:
            raise FeaturespaceError(f"{path}: says that it has a layer {missing[0]!a}, and has no such array")
        order = list(dict.fromkeys(said))
    else:
        order = sorted(arrays, key=_natural)
    if not order:
        raise FeaturespaceError(f"{path}: there is no layer in it")
    if len(order) > MOST:
        raise FeaturespaceError(f"{path}: {len(order)} layers are more than {MOST}")
    for name in order:
        if len(name) > 200 or not _NAME.fullmatch(name):
            raise FeaturespaceError(f"{path}: {name[:60]!a} cannot be the name of a layer: letters, digits, _ . and -")
    layers = {name: arrays[name] for name in order}
    sizes = {name: _sizes_of(array) for name, array in layers.items()}
    for name, size in sizes.items():
        if size != sizes[order[0]]:
            raise FeaturespaceError(
                f"{layers[name].where} has (seeds, steps, samples) {size}, and {order[0]} has {sizes[order[0]]}"
            )
    n_seeds, n_steps, n_samples = sizes[order[0]]
    steps = _whole_numbers(coordinates, "step", n_steps)
    if any(b <= a for a, b in itertools.pairwise(steps)):
        raise FeaturespaceError(f"{path}: steps should rise, not {steps[:8]}")
    return OwnLayers(
        layers,
        coordinates,
        n_samples,
        _whole_numbers(coordinates, "seed", n_seeds),
        steps,
        _epochs(coordinates, [float(step) for step in steps]),
    )


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort `layer2` before `layer10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def _sizes_of(array: ForeignArray) -> tuple[int, int, int]:
    """Return the numbers of seeds, steps and samples of a layer."""
    if array.dtype.kind not in "iuf":
        raise FeaturespaceError(f"{array.where} is of {array.dtype}: features are numbers")
    if len(array.shape) not in (2, 3, 4) or not all(array.shape):
        raise FeaturespaceError(
            f"{array.where} is {array.shape}: a layer is (n, d), (steps, n, d) or (seeds, steps, n, d)"
        )
    n_seeds, n_steps = (1, 1, *array.shape[:-2])[-2:]
    if max(n_seeds, n_steps) > MOST:
        raise FeaturespaceError(f"{array.where} is {array.shape}: {max(n_seeds, n_steps)} steps are more than {MOST}")
    return n_seeds, n_steps, array.shape[-2]


def _coordinate(coordinates: Mapping[str, ForeignArray], name: str, n: int, kinds: str) -> np.ndarray | None:
    array = coordinates.get(name)
    if array is None:
        return None
    if array.shape != (n,) or array.dtype.kind not in kinds:
        raise FeaturespaceError(f"{array.where} is {array.shape} of {array.dtype}: {n} numbers are needed")
    return array.whole()


def _whole_numbers(coordinates: Mapping[str, ForeignArray], name: str, n: int) -> list[int]:
    values = _coordinate(coordinates, name, n, "iu")
    if values is None:
        return list(range(n))
    found = [int(value) for value in values]
    if len(set(found)) != n or min(found) < 0 or max(found) >= 2**63:
        raise FeaturespaceError(f"{coordinates[name].where}: should be {n} different numbers from 0 on")
    return found


def _epochs(coordinates: Mapping[str, ForeignArray], otherwise: list[float]) -> list[float]:
    values = _coordinate(coordinates, "epoch", len(otherwise), "iuf")
    if values is None:
        return otherwise
    if not np.isfinite(values).all():
        raise FeaturespaceError(f"{coordinates['epoch'].where}: an epoch is not finite")
    return [float(value) for value in values]


def describe(path: Path, names: list[str]) -> dict[str, Any]:
    """Return what the plan of a study needs to know of a source: its layers, in order, and its seeds."""
    own = open_layers(path)
    return {"layers": [*own.arrays], "seeds": own.seeds}
