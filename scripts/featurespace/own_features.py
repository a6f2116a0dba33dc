"""Features that were made elsewhere, brought into the standard stores: checked, and put in the order of the samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from featurespace.checksums import sha256
from featurespace.datasets import PreparedDataset
from featurespace.errors import FeaturespaceError
from featurespace.foreign import ForeignArray, Rows
from featurespace.inventory import contents_digest, list_source
from featurespace.own_layers import OwnLayers, open_layers
from featurespace.stores import CHECKSUMS, FeatureStore, FeatureWriter, sample_hash


@dataclass(frozen=True)
class Placed:
    """Which rows of a source belong to the sample set, and which to the held-out samples.

    Attributes
    ----------
    rows
        (n,) positions in the source: the sample set, then the held-out samples if the source has all of them.
    n_sample_set
        How many are the sample set's.
    """

    rows: np.ndarray
    n_sample_set: int


def open_source(path: Path) -> OwnLayers:
    """Open a source of features; one that lists its files' checksums, as this project's do, is held against them.

    Raises
    ------
    FeaturespaceError
        If it is damaged, or no source of features.
    """
    own = open_layers(path)
    if not (path / CHECKSUMS).is_file():
        return own
    store = FeatureStore.open(path)
    return replace(own, arrays={name: _verified(store, array) for name, array in own.arrays.items()})


def _verified(store: FeatureStore, array: ForeignArray) -> ForeignArray:
    """Have an array's rows read with the checksum of each chunk."""
    kept: dict[tuple[int, ...], np.ndarray] = {}

    def read(lead: tuple[int, ...], rows: Rows) -> np.ndarray:
        if lead not in kept:
            kept.clear()
            kept[lead] = store.matrix(array.name, *lead)
        return kept[lead][rows]

    return replace(array, _read=read)


def place(own: OwnLayers, dataset: PreparedDataset, rows: np.ndarray, n_sample_set: int, source: str) -> Placed:
    """Find the samples of a study in a source: by their ids if it has them, else by its number of rows.

    Without ids a source has either the sample set alone, or all samples of the data set; in their order, which nothing
    but labels could check.

    Parameters
    ----------
    own
        The source.
    dataset
        The data set.
    rows
        (n,) rows of the data set that are wanted: the sample set, then held-out ones (`ends.end_rows`).
    n_sample_set
        How many are the sample set's.
    source
        Its name, for errors.

    Raises
    ------
    FeaturespaceError
        If samples of the sample set are missing, there are more or fewer than there should be, or labels differ.
    """
    n, n_all = own.n_samples, len(dataset.sample_ids)
    if "sample" in own.coordinates:
        placed = _by_ids(own, dataset.sample_ids[rows], n_sample_set, source)
    elif n == n_all:
        placed = Placed(rows, n_sample_set)
    elif n == n_sample_set:
        placed = Placed(np.arange(n), n)
    else:
        raise FeaturespaceError(
            f"{source} has {n} samples, and no ids of them (an array `sample`): the sample set has {n_sample_set}, the "
            f"whole data set {n_all}"
        )
    if "label" in own.coordinates:
        array = own.coordinates["label"]
        if array.shape != (n,) or array.dtype.kind not in "iu":
            raise FeaturespaceError(f"{array.where} is {array.shape} of {array.dtype}: a label for each of {n} samples")
        expected = dataset.labels[rows[: len(placed.rows)]]
        wrong = np.flatnonzero(array.whole()[placed.rows] != expected)
        if len(wrong):
            first = int(placed.rows[wrong[0]])
            raise FeaturespaceError(
                f"{source} has other labels than the data set at {len(wrong)} samples, the first of them its row "
                f"{first}: the samples are others, or in another order"
            )
    return placed


def _by_ids(own: OwnLayers, wanted: np.ndarray, n_sample_set: int, source: str) -> Placed:
    array = own.coordinates["sample"]
    if array.shape != (own.n_samples,) or array.dtype.kind not in "iu":
        raise FeaturespaceError(f"{array.where} is {array.shape} of {array.dtype}: an id for each of {own.n_samples}")
    ids = array.whole().astype(np.int64)
    order = np.argsort(ids, kind="stable")
    if (np.diff(ids[order]) == 0).any():
        raise FeaturespaceError(f"{array.where}: a sample is there twice")
    where = order[np.minimum(np.searchsorted(ids[order], wanted), len(ids) - 1)]
    is_there = ids[where] == wanted
    missing = wanted[:n_sample_set][~is_there[:n_sample_set]]
    if len(missing):
        raise FeaturespaceError(
            f"{source} lacks {len(missing)} of the {n_sample_set} samples of the sample set, the first of them "
            f"{missing[0]} (hashes {sample_hash(ids)[:12]} and {sample_hash(wanted[:n_sample_set])[:12]})"
        )
    n = len(wanted) if is_there.all() else n_sample_set
    return Placed(where[:n], n_sample_set)


def write_layers(
    own: OwnLayers, layers: Sequence[str], steps: Sequence[int], rows: np.ndarray, writer: FeatureWriter
) -> None:
    """Write some layers at some steps (positions) for some rows of a source; a block of rows is in memory.

    Raises
    ------
    FeaturespaceError
        If a feature is not finite in float32, naming layer, seed and step.
    """
    for layer in layers:
        array, n_rows = own.arrays[layer], writer.rows_per_chunk[layer]
        for i, seed in enumerate(own.seeds):
            for j, step in enumerate(steps):
                lead = (i, step)[4 - len(array.shape) :]
                for start in range(0, len(rows), n_rows):
                    block = _read_rows(array, lead, rows[start : start + n_rows])
                    if not np.isfinite(block).all():
                        raise FeaturespaceError(
                            f"{array.where}, seed {seed}, step {own.steps[step]}: a feature is NaN, infinite or too "
                            "large for float32"
                        )
                    writer.write(layer, i, j, start, block)


def _read_rows(array: ForeignArray, lead: tuple[int, ...], rows: np.ndarray) -> np.ndarray:
    """Read rows at ascending positions as they are, others in ascending order and then put into theirs."""
    first, last = int(rows[0]), int(rows[-1])
    with np.errstate(over="ignore"):
        if last - first + 1 == len(rows) and (np.diff(rows) == 1).all():
            return array.read(lead, slice(first, last + 1)).astype(np.float32)
        order = np.argsort(rows, kind="stable")
        block = array.read(lead, rows[order])
        return block[np.argsort(order)].astype(np.float32)


def require_unchanged(path: Path, expected: str) -> None:
    """Refuse a source that was changed since the study was read.

    Raises
    ------
    FeaturespaceError
        If it was.
    """
    listing = list_source(path)
    found = contents_digest({name: sha256(path / name if name else path) for name in listing})
    if found != expected:
        raise FeaturespaceError(f"{path} has changed since the study was read; run the same command again")


def store_attributes(spec: Mapping[str, Any], layers: Sequence[str]) -> dict[str, Any]:
    """Return what a store of imported features says of itself, as a run's does."""
    return {
        "dataset": spec["dataset"],
        "recipe": spec["recipe"],
        "block": spec["block"],
        "depths": {layer: spec["layers"].index(layer) + 1 for layer in layers},
        "made_by": dict(spec),
    }
