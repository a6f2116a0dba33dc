"""Measure every layer at every seed and step by functions of one's own."""

import pandas as pd

from featurespace.errors import FeaturespaceError
from featurespace.files import write_table
from featurespace.own_measures import apply_measure, import_measures
from featurespace.script import progress, script_edge
from featurespace.stores import FeatureStore

COLUMNS = ("dataset", "recipe", "block", "seed", "step", "epoch", "layer", "depth", "n_features", "measure", "value")

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        measures = import_measures(job.params["functions"])
        store = FeatureStore.open(job.input.store, job.input.digest)
        matrices = [
            (layer, i, j) for layer in store.layers for i in range(len(store.seeds)) for j in range(len(store.steps))
        ]
        table = []
        for layer, i, j in progress(matrices, "measuring", "matrix"):
            seed, step = int(store.seeds[i]), int(store.steps[j])
            features = store.matrix(layer, i, j)
            of_layer = {
                "dataset": store.attrs["dataset"],
                "recipe": store.attrs["recipe"],
                "block": store.attrs["block"],
                "seed": seed,
                "step": step,
                "epoch": store.epochs[j],
                "layer": layer,
                "depth": store.attrs["depths"][layer],
                "n_features": store.n_features[layer],
            }
            for name, measure in measures.items():
                try:
                    values = apply_measure(name, measure, features, store.labels, seed)
                except FeaturespaceError as error:
                    raise FeaturespaceError(
                        f"{store.path}, layer {layer}, seed {seed}, step {step}: {error}"
                    ) from error
                table += [of_layer | {"measure": key, "value": value} for key, value in values.items()]
        write_table(job.output.table, pd.DataFrame(table, columns=COLUMNS))
