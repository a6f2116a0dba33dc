"""Decompose every layer at every seed and step, raw and centred: spectra as a store, and their heads as a table."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from featurespace.device import lease_device, return_freed_memory
from featurespace.files import write_table
from featurespace.script import progress, script_edge
from featurespace.spectra import CENTRINGS, Rows, decompose, n_components
from featurespace.stores import FeatureStore, drop_pages, store_draft, write_digest, write_group
from featurespace.streams import read_ahead

TABLE_COMPONENTS = 20
PLURALS = {"singular_value": "singular_values", "left_vector": "left_vectors", "right_vector": "right_vectors"}
MEMORY_BYTES = 2**22  # arrays past this size are kept in a scratch file until they are written


def decompose_layer(
    store: FeatureStore, layer: str, spec: Mapping[str, Any], device: torch.device, scratch: Path, done: Any
) -> xr.Dataset:
    """Decompose one layer of a feature store.

    Parameters
    ----------
    store, layer
        What to decompose.
    spec
        `vectors`: how many leading ones to keep; `spectrum`: `whole` or `leading`.
    device
        Where to compute.
    scratch
        A directory for what memory should not hold.
    done
        Its `update()` is called after each matrix.

    Returns
    -------
    Dataset
        The group of `spectra.zarr`: all float64, over (seed, step, centring, component or vector, ...).
    """
    k, whole = spec["vectors"], spec["spectrum"] == "whole"
    n, d = store.n_samples, store.n_features[layer]
    axes = (len(store.seeds), len(store.steps), len(CENTRINGS))
    over = ("seed", "step", "centring")
    variables = {
        "singular_value": ((*over, "component"), _empty((*axes, n_components(n, d, k, whole)), scratch)),
        "left_vector": ((*over, "vector", "sample"), _empty((*axes, k, n), scratch)),
        "right_vector": ((*over, "vector", "feature"), _empty((*axes, k, d), scratch)),
        "frobenius_norm": (over, _empty(axes, scratch)),
        "relative_gap": ((*over, "vector"), _empty((*axes, k), scratch)),
        "residual": ((*over, "vector"), _empty((*axes, k), scratch)),
        "angle_to_mean_deg": (over, _empty(axes, scratch)),
    }
    for i, seed in enumerate(store.seeds):
        for j, step in enumerate(store.steps):

            def source(i: int = i, j: int = j) -> Iterator[np.ndarray]:
                # One block more than the one at work: a third would double what the stage holds.
                return read_ahead(store.blocks(layer, i, j), 1)

            rows = Rows(
                source,
                n,
                d,
                device=device,
                name=f"{store.path}, layer {layer}, seed {seed}, step {step}",
            )
            spectra = decompose(rows, vectors=k, whole=whole)
            for name, (_, array) in variables.items():
                array[i, j] = getattr(spectra, PLURALS.get(name, name))
                drop_pages(array)
            del rows, spectra  # or they would be there beside the next ones
            done.update()
    return xr.Dataset(
        variables,
        coords={
            "seed": store.seeds,
            "step": store.steps,
            "epoch": ("step", store.epochs),
            "centring": list(CENTRINGS),
            "sample": store.sample_ids,
            "label": ("sample", store.labels),
        },
        attrs={"sample_hash": store.sample_hash, "depth": store.attrs["depths"][layer]},
    )


def tabulate_layer(spectra: xr.Dataset, identity: Mapping[str, Any], layer: str) -> pd.DataFrame:
    """List the leading singular values of a layer, the first one as component 1: rows of `spectra.csv`."""
    values = spectra["singular_value"].isel(component=slice(TABLE_COMPONENTS)).to_numpy()
    squares = spectra["frobenius_norm"].to_numpy()[..., None] ** 2
    # A matrix of zeros has no variance to share.
    shares = np.divide(values**2, squares, out=np.full_like(values, np.nan), where=squares > 0)
    i, j, c, component = np.indices(values.shape).reshape(4, -1)
    return pd.DataFrame(
        {
            "dataset": identity["dataset"],
            "recipe": identity["recipe"],
            "block": identity["block"],
            "seed": spectra["seed"].to_numpy()[i],
            "step": spectra["step"].to_numpy()[j],
            "epoch": spectra["epoch"].to_numpy()[j],
            "layer": layer,
            "depth": spectra.attrs["depth"],
            "centring": np.array(CENTRINGS)[c],
            "component": component + 1,
            "singular_value": values.ravel(),
            "variance_share": shares.ravel(),
        }
    )


def _empty(shape: tuple[int, ...], scratch: Path) -> np.ndarray:
    if 8 * prod(shape) <= MEMORY_BYTES:
        return np.empty(shape)
    with tempfile.TemporaryFile(dir=scratch) as file:
        # Taken now: writing to a mapped file that the disk has no room for kills the process without a word.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, 8 * prod(shape))
        return np.memmap(file, dtype=np.float64, mode="w+", shape=shape)


if __name__ == "__main__":
    with script_edge(snakemake) as job:
        torch.set_num_threads(job.threads)
        store = FeatureStore.open(job.input.store, job.input.digest)
        identity = {name: store.attrs[name] for name in ("dataset", "recipe", "block")}
        tables = []
        n_matrices = len(store.layers) * len(store.seeds) * len(store.steps)
        with (
            lease_device(job.device_preference) as device,
            store_draft(job.output.store) as draft,
            progress(n_matrices, "decomposing", "matrix") as done,
        ):
            root = {
                **identity,
                "layers": list(store.layers),
                "depths": store.attrs["depths"],
                "sample_hash": store.sample_hash,
                "made_by": job.params,
            }
            write_group(draft, "", xr.Dataset(attrs=root))
            for layer in store.layers:
                spectra = decompose_layer(store, layer, job.params, device, draft.parent, done)
                return_freed_memory()
                # One vector of all steps lies together: that is how `compare_runs` reads them.
                write_group(draft, layer, spectra, {"seed": 1, "centring": 1, "vector": 1})
                tables.append(tabulate_layer(spectra, identity, layer))
        write_table(job.output.table, pd.concat(tables, ignore_index=True))
        write_digest(job.output.store, job.output.digest)
