"""Assess what the angles between P-vectors depend on: samples, features, split, normalisation, depth, width."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from featurespace.ends import open_ends, read_end
from featurespace.files import write_table
from featurespace.script import progress, script_edge
from featurespace.sensitivity import COLUMNS, Network, assess, depth_levels, make_design, width_pairs
from featurespace.stores import FeatureStore, read_group, require_same_samples


def load(store: FeatureStore, seed_index: int, stage: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the features of the sample set and of the held-out samples, at the first or the last step."""
    return read_end(store, seed_index, 0 if stage == "first" else len(store.steps) - 1)


def load_depth(groups: Mapping[str, xr.Dataset], seed_index: int, level: str, stage: str) -> np.ndarray:
    """Read the P-vectors (2, n_samples) of one layer, raw and centred, at the first or the last step."""
    step = 0 if stage == "first" else -1
    own = groups[level]["left_vector"].isel(seed=seed_index, step=step, vector=0)
    return own.transpose("centring", "sample").to_numpy()


def networks_of(
    recipe: Mapping[str, Any], ends: Sequence[FeatureStore], spectra: Sequence[tuple[str, str]]
) -> Iterator[Network]:
    """List the networks of one recipe, from the stores of its blocks; spectra as (store, digest).

    Raises
    ------
    FeaturespaceError
        If ends and spectra are not over the same samples.
    """
    for store, (path, digest) in zip(ends, spectra, strict=True):
        layers = read_group(path, "", digest).attrs["layers"]
        groups = {level: read_group(path, layer, digest) for level, layer in depth_levels(layers).items()}
        for group in groups.values():
            require_same_samples(store.attrs["sample_set_hash"], group.attrs["sample_hash"], str(store.path), path)
        deepest = groups["last"].attrs["depth"]
        for i, seed in enumerate(store.seeds):
            yield Network(
                recipe=recipe["name"],
                seed=int(seed),
                n_features=store.n_features[store.layers[0]],
                stages=("first", "last") if len(store.steps) > 1 else ("last",),
                load=partial(load, store, i),
                depths={level: group.attrs["depth"] / deepest for level, group in groups.items()},
                load_depth=partial(load_depth, groups, i),
            )


def assess_all(
    spec: Mapping[str, Any], ends: Mapping[str, list[FeatureStore]], spectra: Mapping[str, list[tuple[str, str]]]
) -> pd.DataFrame:
    """Assess the networks of each data set."""
    tables = []
    for dataset in spec["datasets"]:
        recipes = [recipe for recipe in spec["recipes"] if recipe["dataset"] == dataset]
        networks = [n for recipe in recipes for n in networks_of(recipe, ends[recipe["name"]], spectra[recipe["name"]])]
        if not networks:
            continue
        # of features that were made elsewhere there may be none for held-out samples
        store = max((ends[recipe["name"]][0] for recipe in recipes), key=lambda store: store.n_samples)
        n = store.attrs["n_sample_set"]
        design = make_design(store.labels[:n], store.n_samples - n, spec["shares"], spec["seed"])
        n_reads = sum(len(network.stages) for network in networks)
        with progress(n_reads, f"varying what is compared on {dataset}", "network") as done:
            tables.append(assess(dataset, networks, design, width_pairs(recipes), done.update))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)


if __name__ == "__main__":
    with script_edge(snakemake) as job:
        recipes = job.params["recipes"]
        ends = open_ends(recipes, job.input.ends, job.input.ends_digests)
        spectra: dict[str, list[tuple[str, str]]] = {recipe["name"]: [] for recipe in recipes}
        of_runs = [recipe["name"] for recipe in recipes for _ in range(recipe["blocks"])]
        for name, store, digest in zip(of_runs, job.input.spectra, job.input.spectra_digests, strict=True):
            spectra[name].append((store, digest))
        write_table(job.output.table, assess_all(job.params, ends, spectra))
