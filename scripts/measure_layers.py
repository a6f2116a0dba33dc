"""Measure compression, discrimination, NC1, numerical rank and norms of every layer at every seed and step."""

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial

import numpy as np
import pandas as pd
import torch

from featurespace.device import lease_device
from featurespace.files import write_table
from featurespace.measures import measure
from featurespace.script import progress, script_edge
from featurespace.spectra import Rows
from featurespace.stores import FeatureStore
from featurespace.streams import read_ahead


def read_blocks(store: FeatureStore, layer: str, seed_index: int, step_index: int) -> Iterator[np.ndarray]:
    """Go through one feature matrix in blocks of rows, the next one read while the last is worked on."""
    return read_ahead(store.blocks(layer, seed_index, step_index), depth=1)


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
                    partial(read_blocks, store, layer, i, j),
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
