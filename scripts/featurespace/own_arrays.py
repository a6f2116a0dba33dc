"""The arrays of a user's own data set: which there are, what they must look like, and which samples are whose.

Names: `x` (n, ...) and `y` (n,), or `x_train` and `y_train`; perhaps `x_test` and `y_test`, or `split` (n,); perhaps
`class_names` (K,).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from featurespace.errors import FeaturespaceError

NAMES = ("x", "y", "x_train", "y_train", "x_test", "y_test", "split", "class_names")
SPLITS = {"train": 0, "test": 1}


class Values(Protocol):
    """An array that may not have been read yet: `foreign.ForeignArray`, or `InMemory`."""

    @property
    def where(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def whole(self) -> np.ndarray: ...


@dataclass(frozen=True)
class InMemory:
    """An array that is in memory, in the guise of one that is not."""

    where: str
    values: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.values.dtype

    def whole(self) -> np.ndarray:
        return self.values


@dataclass(frozen=True)
class OwnArrays:
    """The arrays of a data set, checked; of the samples themselves only shape and dtype.

    Attributes
    ----------
    parts
        The samples: of all, or of training and of testing.
    layout
        `rows` (n, d), or of images `grey` (n, h, w), `first` (n, c, h, w) or `last` (n, h, w, c).
    shape
        (n_features,) of rows, (channel, side, side) of images.
    labels
        (n,) int64, 0 to K - 1.
    split
        (n,) int8, 0 for training and 1 for testing; None if nothing says which samples are held out.
    class_names
        (K,), in the order of the labels.
    """

    parts: tuple[Values, ...]
    layout: str
    shape: tuple[int, ...]
    labels: np.ndarray
    split: np.ndarray | None
    class_names: list[str]


def check_arrays(arrays: Mapping[str, Values], where: str, channels: str | None = None) -> OwnArrays:
    """Check the arrays of a data set, and read all of them but the samples.

    Parameters
    ----------
    arrays
        By name, see above.
    where
        Where they are from, for errors.
    channels
        Whether the channels of images come `first` or `last`; None: found from the shape.

    Raises
    ------
    FeaturespaceError
        If one is missing, not known, or of a shape, dtype or with values that no data set has; one line.
    """
    if unknown := [name for name in arrays if name not in NAMES]:
        raise FeaturespaceError(f"{where}: array {unknown[0]!a} is not known (there are: {', '.join(NAMES)})")
    x, y = ("x_train", "y_train") if "x_train" in arrays else ("x", "y")
    pairs = [(x, y), *([("x_test", "y_test")] if "x_test" in arrays or "y_test" in arrays else [])]
    wanted = [name for pair in pairs for name in pair]
    for name in wanted:
        if name not in arrays:
            raise FeaturespaceError(f"{where}: there is no array {name} (only {', '.join(arrays) or 'none'})")
    if len(pairs) == 2 and "split" in arrays:
        raise FeaturespaceError(f"{where}: split says which samples of x are held out, and x_test has others")
    if beside := [name for name in arrays if name not in (*wanted, "split", "class_names")]:
        raise FeaturespaceError(f"{where}: {beside[0]} is there beside {x}; name one of them")
    parts = tuple(arrays[a] for a, _ in pairs)
    shapes = [_shape_of(part, channels) for part in parts]
    if len({(shape, layout, part.dtype) for (shape, layout), part in zip(shapes, parts, strict=True)}) > 1:
        raise FeaturespaceError(
            f"{parts[1].where} is {_looks(parts[1])}, and {x} {_looks(parts[0])}: samples should be alike"
        )
    labels = [_read_labels(arrays[b], part) for part, (_, b) in zip(parts, pairs, strict=True)]
    numbered, names = _number(labels, arrays.get("class_names"), where)
    split = None
    if len(pairs) == 2:
        split = np.repeat(np.array([0, 1], np.int8), [len(own) for own in labels])
    elif "split" in arrays:
        split = _read_split(arrays["split"], len(numbered))
    own = OwnArrays(parts, shapes[0][1], shapes[0][0], numbered, split, names)
    present = np.bincount(numbered[own.split == 0] if own.split is not None else numbered, minlength=len(names))
    if not present.all():
        raise FeaturespaceError(f"{where}: class {names[int(np.argmin(present))]!a} has no training sample")
    return own


def _looks(values: Values) -> str:
    return f"{values.shape} of {values.dtype}"


def _shape_of(values: Values, channels: str | None) -> tuple[tuple[int, ...], str]:
    """Return the shape of one sample, channels first, and the layout of all."""
    shape, dtype = values.shape, values.dtype
    if not shape or not all(shape):
        raise FeaturespaceError(f"{values.where} is empty: {shape}")
    if len(shape) == 2:
        if dtype.kind not in "biuf":
            raise FeaturespaceError(f"{values.where} is of {dtype}: rows are numbers")
        return (shape[1],), "rows"
    if len(shape) not in (3, 4):
        raise FeaturespaceError(
            f"{values.where} is {shape}: rows are (n, d), images (n, h, w), (n, c, h, w) or (n, h, w, c)"
        )
    if dtype != np.uint8:
        raise FeaturespaceError(f"{values.where} holds images of {dtype}: pixels are uint8, 0 to 255")
    sides: tuple[int, ...]
    if len(shape) == 3:
        n_channels, sides, layout = 1, shape[1:3], "grey"
    else:
        possible = [name for name, axis in (("first", 1), ("last", 3)) if shape[axis] in (1, 3)]
        if channels is not None:
            possible = [name for name in possible if name == channels]
        if len(possible) != 1:
            said = (
                "has 1 or 3 channels neither first nor last" if not possible else "may have its channels first or last"
            )
            raise FeaturespaceError(f"{values.where} is {shape}: it {said}; see the key `channels`")
        layout = possible[0]
        n_channels, sides = (shape[1], shape[2:4]) if layout == "first" else (shape[3], shape[1:3])
    if sides[0] != sides[1]:
        raise FeaturespaceError(f"{values.where} holds images of {sides[0]} x {sides[1]} pixels: they should be square")
    return (n_channels, *sides), layout


def _read_labels(values: Values, samples: Values) -> np.ndarray:
    if len(values.shape) != 1 or values.shape[0] != samples.shape[0]:
        raise FeaturespaceError(
            f"{values.where} is {values.shape}: a label for each of the {samples.shape[0]} samples of {samples.where} "
            "is needed"
        )
    if values.dtype.kind not in "iuUT":
        raise FeaturespaceError(f"{values.where} is of {values.dtype}: labels are integers or text")
    return values.whole()


def _number(parts: list[np.ndarray], given: Values | None, where: str) -> tuple[np.ndarray, list[str]]:
    """Number the labels from 0 in ascending order, unless names are given for 0 to K - 1."""
    labels = np.concatenate(parts)
    if given is not None:
        if len(given.shape) != 1 or given.dtype.kind not in "UT":
            raise FeaturespaceError(f"{given.where} is {_looks(given)}: a text for each class is needed")
        names = [str(name) for name in given.whole()]
        if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= len(names):
            raise FeaturespaceError(f"{where}: class_names has {len(names)} names, so labels are 0 to {len(names) - 1}")
        return labels.astype(np.int64), names
    values, numbered = np.unique(labels, return_inverse=True)
    if len(values) < 2:
        raise FeaturespaceError(f"{where}: all labels are {values[0]}; two classes at least are needed")
    if len(values) > max(1000, len(labels) // 2):
        raise FeaturespaceError(f"{where}: {len(labels)} samples have {len(values)} labels, which are no classes")
    return numbered.astype(np.int64), [str(value) for value in values]


def _read_split(values: Values, n_samples: int) -> np.ndarray:
    if values.shape != (n_samples,):
        raise FeaturespaceError(f"{values.where} is {values.shape}: one entry for each of the {n_samples} samples")
    found = values.whole()
    if found.dtype.kind in "UT":
        codes = np.array([SPLITS.get(str(name), -1) for name in found], np.int8)
    elif found.dtype.kind in "biu":
        codes = np.where((found == 0) | (found == 1), found, -1).astype(np.int8)
    else:
        raise FeaturespaceError(f"{values.where} is of {found.dtype}: 0 or `train`, 1 or `test`")
    if (codes < 0).any():
        raise FeaturespaceError(f"{values.where} holds {found[codes < 0][0]!s}: 0 or `train`, 1 or `test`")
    return codes


def describe(own: OwnArrays) -> dict[str, Any]:
    """Return what the plan of a study needs to know: the shape of a sample, and how many samples each class has.

    `test` is None if nothing says which samples are held out.
    """
    n_classes = len(own.class_names)
    if own.split is None:
        counts = [np.bincount(own.labels, minlength=n_classes).tolist(), None]
    else:
        counts = [np.bincount(own.labels[own.split == code], minlength=n_classes).tolist() for code in (0, 1)]
    return {"shape": list(own.shape), "train": counts[0], "test": counts[1]}


def read_samples(own: OwnArrays) -> np.ndarray:
    """Read the samples: images (n, c, h, w) uint8, rows (n, d) float32 or float64.

    Raises
    ------
    FeaturespaceError
        If a value is not finite.
    """
    samples = np.concatenate([part.whole() for part in own.parts])
    match own.layout:
        case "grey":
            return samples[:, np.newaxis]
        case "first":
            return samples
        case "last":
            return np.ascontiguousarray(samples.transpose(0, 3, 1, 2))
    rows = samples.astype(np.float32 if samples.dtype in (np.float16, np.float32) else np.float64)
    bad = np.argwhere(~np.isfinite(rows))
    if len(bad):
        raise FeaturespaceError(
            f"{own.parts[0].where}: sample {bad[0][0]} has {rows[tuple(bad[0])]}; all should be finite"
        )
    return rows
