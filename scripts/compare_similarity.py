"""Compare features by established measures of similarity: CKA, SVCCA, Procrustes, beside their P-vectors."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from featurespace.architectures import INPUT_LAYER
from featurespace.ends import open_ends, pairs_of, read_end
from featurespace.files import write_table
from featurespace.script import progress, script_edge
from featurespace.similarity import COLUMNS, DATA, STAGES, Network, compare
from featurespace.stores import FeatureStore


def load(store: FeatureStore, seed_index: int, stage: str) -> np.ndarray:
    """Read the features of the sample set, (n_samples, n_features) float32, at the first or the last step."""
    return read_end(store, seed_index, 0 if stage == "first" else len(store.steps) - 1)[0]


def networks_at(
    stage: str, recipes: Sequence[Mapping[str, Any]], stores: Mapping[str, list[FeatureStore]]
) -> list[Network]:
    """List the networks of some recipes at one stage; those of one step are the same at both."""
    return [
        Network(recipe["name"], int(seed), partial(load, store, i, stage))
        for recipe in recipes
        for store in stores[recipe["name"]]
        for i, seed in enumerate(store.seeds)
    ]


def compare_all(
    spec: Mapping[str, Any], stores: Mapping[str, list[FeatureStore]], data: Mapping[str, FeatureStore]
) -> Iterator[tuple[Any, ...]]:
    """Compare the networks of each data set at either stage: the rows of the table."""
    for dataset, inputs in data.items():
        recipes = [recipe for recipe in spec["recipes"] if recipe["dataset"] == dataset]
        for stage in STAGES:
            networks = networks_at(stage, recipes, stores)
            own = Network(DATA, 0, partial(inputs.matrix, INPUT_LAYER, 0, 0))
            n_pairs = len(networks) + len(pairs_of([(network.recipe, network.seed) for network in networks]))
            with progress(n_pairs, f"comparing {stage} steps on {dataset}", "pair") as done:
                for rows in compare(dataset, stage, networks, own):
                    yield from rows
                    done.update()


if __name__ == "__main__":
    with script_edge(snakemake) as job:
        data = {
            dataset: FeatureStore.open(store, digest)
            for dataset, store, digest in zip(
                job.params["datasets"], job.input.data, job.input.data_digests, strict=True
            )
        }
        stores = open_ends(
            job.params["recipes"],
            job.input.ends,
            job.input.ends_digests,
            {dataset: store.sample_hash for dataset, store in data.items()},
        )
        write_table(job.output.table, pd.DataFrame(compare_all(job.params, stores, data), columns=COLUMNS))
