"""Measure compression, discrimination, NC1, numerical rank and norms of every layer at every seed and step."""

from dataclasses import asdict
from functools import partial

import pandas as pd
import torch

from featurespace.device import lease_device
from featurespace.files import write_table
from featurespace.measures import measure
from featurespace.script import progress, script_edge
from featurespace.spectra import Rows
from featurespace.stores import FeatureStore

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        torch.set_num_threads(job.threads)
        store = FeatureStore.open(job.input.store, job.input.digest)
        matrices = [
            (layer, i, j) for layer in store.layers for i in range(len(store.seeds)) for j in range(len(store.steps))
        ]
        table = []
        with lease_device(job.device_preference) as device:
            for layer, i, j in progress(matrices, "measuring", "matrix"):
                seed, step = int(store.seeds[i]), int(store.steps[j])
                rows = Rows(
                    partial(store.blocks, layer, i, j),
                    store.n_samples,
                    store.n_features[layer],
                    device=device,
                    name=f"{store.path}, layer {layer}, seed {seed}, step {step}",
                )
                measures = measure(rows, store.labels, rank_energy=job.params["rank_energy"])
                table.append(
                    {
                        "dataset": store.attrs["dataset"],
                        "recipe": store.attrs["recipe"],
                        "block": store.attrs["block"],
                        "seed": seed,
                        "step": step,
                        "epoch": store.epochs[j],
                        "layer": layer,
                        "depth": store.attrs["depths"][layer],
                        "n_features": store.n_features[layer],
                        **asdict(measures),
                    }
                )
        write_table(job.output.table, pd.DataFrame(table))
