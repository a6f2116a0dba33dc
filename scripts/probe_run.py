"""Probe a run: linear classifiers on its features at both ends, scored on the sample set and on held-out samples."""

import pandas as pd

from featurespace.ends import read_end
from featurespace.files import write_table
from featurespace.probe import probe
from featurespace.script import progress, script_edge
from featurespace.stores import FeatureStore

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        store = FeatureStore.open(job.input.ends, job.input.ends_digest)
        n = store.attrs["n_sample_set"]
        ends = [(i, j) for i in range(len(store.seeds)) for j in range(len(store.steps))]
        table = []
        for i, j in progress(ends, "probing", "network"):
            sample_set, held_out = read_end(store, i, j)
            train, test = probe(
                sample_set,
                store.labels[:n],
                held_out,
                store.labels[n:],
                job.params["regularisation"],
                name=f"{store.path}, seed {store.seeds[i]}, step {store.steps[j]}",
            )
            table.append(
                {
                    "dataset": store.attrs["dataset"],
                    "recipe": store.attrs["recipe"],
                    "block": store.attrs["block"],
                    "seed": store.seeds[i],
                    "step": store.steps[j],
                    "epoch": store.epochs[j],
                    "layer": store.layers[0],
                    "train_accuracy": train,
                    "test_accuracy": test,
                }
            )
        write_table(job.output.table, pd.DataFrame(table))
