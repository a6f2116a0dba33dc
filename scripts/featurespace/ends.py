"""The ends of a run: its feature layer at the first and the last kept step, on the sample set and on held-out samples.

The rows of an ends store are those of the sample set, in its order, and then the held-out samples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from featurespace.datasets import SPLITS, PreparedDataset, select_sample_set, spread_evenly
from featurespace.errors import FeaturespaceError
from featurespace.stores import FeatureStore, require_same_samples, sample_hash


def end_rows(dataset: PreparedDataset, sample_set: Mapping[str, Any], held_out: int | None) -> tuple[np.ndarray, int]:
    """Choose the rows of an ends store.

    Parameters
    ----------
    dataset
        The data set.
    sample_set
        `split` and `limit` of the sample set.
    held_out
        How many samples of the test split are held out at most; None for all. A sample of the sample set is never
        held out.

    Returns
    -------
    rows, n_sample_set
        (n,) rows of the data set, and how many of them, the first, are the sample set's.
    """
    own = select_sample_set(dataset, sample_set["split"], sample_set["limit"])
    if not (np.asarray(dataset.split) == SPLITS["test"]).any():
        return own, len(own)
    others = np.setdiff1d(np.flatnonzero(np.asarray(dataset.split) == SPLITS["test"]), own)
    if held_out is not None:
        others = others[spread_evenly(dataset.labels[others], held_out)]
    return np.concatenate([own, others]), len(own)


def end_attributes(sample_ids: np.ndarray, n_sample_set: int) -> dict[str, Any]:
    """Return what an ends store says of itself beyond a feature store, from the ids (n,) of all its samples."""
    return {"n_sample_set": n_sample_set, "sample_set_hash": sample_hash(sample_ids[:n_sample_set])}


def first_and_last(values: Sequence[Any]) -> list[Any]:
    """Return the first and the last of some steps or epochs; the only one once."""
    return [values[0]] if len(values) == 1 else [values[0], values[-1]]


def open_ends(
    recipes: Sequence[Mapping[str, Any]],
    stores: Sequence[str],
    digests: Sequence[str],
    sample_sets: Mapping[str, str] | None = None,
) -> dict[str, list[FeatureStore]]:
    """Open the ends stores of several recipes.

    Parameters
    ----------
    recipes
        Of each its `name`, `dataset` and number of `blocks`.
    stores, digests
        The blocks of the first recipe, then those of the next.
    sample_sets
        {data set: the hash of its sample set}; if None, the stores of a data set need only agree with each other.

    Returns
    -------
    dict
        {recipe: its stores}.

    Raises
    ------
    FeaturespaceError
        If a store is damaged, or not over the sample set of its data set, or has other held-out samples; it may have
        none.
    """
    expected = {dataset: (value, f"the sample set of {dataset}") for dataset, value in (sample_sets or {}).items()}
    all_samples: dict[str, tuple[str, str]] = {}
    opened: dict[str, list[FeatureStore]] = {recipe["name"]: [] for recipe in recipes}
    of_stores = [recipe for recipe in recipes for _ in range(recipe["blocks"])]
    for recipe, path, digest in zip(of_stores, stores, digests, strict=True):
        store = FeatureStore.open(path, digest)
        known = [(store.attrs["sample_set_hash"], expected)]
        # features that were made elsewhere may have been made for no held-out samples
        known += [(store.sample_hash, all_samples)] if store.n_samples > store.attrs["n_sample_set"] else []
        for own, others in known:
            other, name = others.setdefault(recipe["dataset"], (own, str(path)))
            require_same_samples(own, other, str(path), name)
        opened[recipe["name"]].append(store)
    return opened


def read_end(store: FeatureStore, seed_index: int, step_index: int) -> tuple[np.ndarray, np.ndarray]:
    """Read the features of one network at one end.

    Returns
    -------
    sample_set, held_out
        (n, n_features) and (m, n_features), float32; m may be 0.

    Raises
    ------
    FeaturespaceError
        If a chunk is damaged, or a feature is not finite.
    """
    layer = store.layers[0]
    features = store.matrix(layer, seed_index, step_index)
    if not np.isfinite(features).all():
        where = f"layer {layer}, seed {store.seeds[seed_index]}, step {store.steps[step_index]}"
        raise FeaturespaceError(
            f"{store.path}, {where}: a feature is NaN or infinite; look for a diverged training or a faulty input"
        )
    n_sample_set = store.attrs["n_sample_set"]
    return features[:n_sample_set], features[n_sample_set:]


def pairs_of(networks: Sequence[tuple[str, int]]) -> list[tuple[int, int]]:
    """Pair networks, given as (recipe, seed), by position.

    Recipes meet each other at the same seed, and each recipe itself at its next seed; the last seed's next one is the
    first, and two seeds are one pair.
    """
    seeds: dict[str, list[int]] = {}
    for i, (recipe, _) in enumerate(networks):
        seeds.setdefault(recipe, []).append(i)
    pairs = []
    for i, (recipe, seed) in enumerate(networks):
        own = seeds[recipe]
        following = own[(own.index(i) + 1) % len(own)]
        if following > i or (following < i and len(own) > 2):
            pairs.append((i, following))
        pairs += [(i, j) for j, other in enumerate(networks) if j > i and other[0] != recipe and other[1] == seed]
    return pairs
