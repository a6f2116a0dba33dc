"""Reading a prepared data set, and choosing the samples whose features are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from featurespace.errors import FeaturespaceError
from featurespace.stores import read_group, require_same_samples, sample_hash

SPLITS = {"train": 0, "test": 1}


@dataclass(frozen=True)
class PreparedDataset:
    """A prepared data set in memory.

    Attributes
    ----------
    images
        (n_samples, channel, height, width) uint8, or (n_samples, n_features) float64 or float32 for data that are no
        images.
    labels
        (n_samples,) int64.
    split
        (n_samples,) int8: 0 training, 1 testing.
    sample_ids
        (n_samples,) int64, ascending: positions in the whole data set, with gaps where classes or limits left some out.
    class_names
        By label.
    offset, scale
        The network input is (image / 255 − offset) / scale, or (value − offset) / scale.
    sample_hash
        Of `sample_ids`.
    """

    images: np.ndarray
    labels: np.ndarray
    split: np.ndarray
    sample_ids: np.ndarray
    class_names: list[str]
    offset: float
    scale: float
    sample_hash: str

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(channel, height, width) of images, (n_features,) of values."""
        return self.images.shape[1:]

    @property
    def is_image(self) -> bool:
        return self.images.dtype == np.uint8

    def inputs(
        self, rows: np.ndarray | slice | Sequence[int] | None = None, dtype: DTypeLike = np.float32
    ) -> np.ndarray:
        """Return what enters a network, for all samples or some rows: (n_rows, *input_shape), rounded once."""
        images = self.images if rows is None else self.images[rows]
        if self.is_image:
            levels = (np.arange(256) / 255 - self.offset) / self.scale
            return levels.astype(dtype)[images]
        return ((images.astype(np.float64) - self.offset) / self.scale).astype(dtype)


def load_dataset(path: str | Path, digest: str | Path | None = None) -> PreparedDataset:
    """Read a `dataset.zarr` into memory; with its digest file, only if it is the store that this describes.

    Raises
    ------
    FeaturespaceError
        If the store is damaged or another one, or its sample ids are not those that its hash was made of.
    """
    dataset = read_group(path, digest=digest)
    sample_ids = dataset["sample"].to_numpy()
    require_same_samples(sample_hash(sample_ids), dataset.attrs["sample_hash"], f"{path}: ids", f"{path}: hash")
    return PreparedDataset(
        images=dataset["image" if "image" in dataset else "value"].to_numpy(),
        labels=dataset["label"].to_numpy(),
        split=dataset["split"].to_numpy(),
        sample_ids=sample_ids,
        class_names=list(dataset.attrs["class_names"]),
        offset=float(dataset.attrs["offset"]),
        scale=float(dataset.attrs["scale"]),
        sample_hash=dataset.attrs["sample_hash"],
    )


def spread_evenly(labels: np.ndarray, limit: int) -> np.ndarray:
    """Choose at most `limit` positions of labels (n,): stratified, without chance, evenly spaced within each class.

    Each class gets its share of `limit`, rounded by largest remainders, and of its positions the middles of as many
    equal stretches.

    Returns
    -------
    np.ndarray
        (min(limit, n),) int64 positions, ascending.
    """
    if limit >= len(labels):
        return np.arange(len(labels))
    counts = np.bincount(labels)
    # Shares in integers, limit * count / n: no rounding decides a tie, the lower class does.
    quotas, remainders = np.divmod(limit * counts, len(labels))
    by_remainder = np.argsort(-remainders, kind="stable")
    quotas[by_remainder[: limit - quotas.sum()]] += 1
    chosen = []
    for label in np.flatnonzero(quotas):
        of_class = np.flatnonzero(labels == label)
        chosen.append(of_class[(2 * np.arange(quotas[label]) + 1) * len(of_class) // (2 * quotas[label])])
    return np.sort(np.concatenate(chosen))


def select_sample_set(dataset: PreparedDataset, split: str, limit: int | None) -> np.ndarray:
    """Choose the rows of a sample set, evenly spread if it is a part of its split (`spread_evenly`).

    Parameters
    ----------
    dataset
        The data set.
    split
        `train`, `test` or `all`.
    limit
        How many samples at most; None for all of the split.

    Returns
    -------
    np.ndarray
        (n_rows,) int64 row indices, ascending.

    Raises
    ------
    FeaturespaceError
        If the split has no samples.
    """
    rows = np.arange(len(dataset.split)) if split == "all" else np.flatnonzero(dataset.split == SPLITS[split])
    if len(rows) == 0:
        raise FeaturespaceError(f"sample_set.split: the data set has no {split} samples; choose another split")
    if limit is None:
        return rows
    return rows[spread_evenly(dataset.labels[rows], limit)]
