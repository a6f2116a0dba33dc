"""Tabulate the entries of P-vectors: moments, densities, and the samples at both ends with their images."""

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from featurespace.datasets import PreparedDataset, load_dataset
from featurespace.entries import (
    CENTRINGS,
    DENSITY_COLUMNS,
    EXTREMES_COLUMNS,
    SUMMARY_COLUMNS,
    Network,
    list_extremes,
    summarise,
    tabulate_densities,
)
from featurespace.files import write_bytes_atomically, write_table
from featurespace.script import progress, script_edge
from featurespace.sources import Source, open_sources


def read_networks(source: Source) -> Iterator[dict[str, Network]]:
    """Read the P-vectors of all steps, one seed at a time, by centring."""
    to_mean = source.spectra["angle_to_mean_deg"].transpose("seed", "centring", "step").to_numpy()
    for i, seed in enumerate(source.seeds):
        vectors = source.p_vectors(i)
        yield {
            centring: Network(source.recipe, seed, source.steps, source.epochs, vectors[c], to_mean[i, c])
            for c, centring in enumerate(CENTRINGS)
        }


def tabulate(
    sources: Mapping[str, list[Source]], datasets: Mapping[str, PreparedDataset], spec: Mapping[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Make `entry_summary.csv`, `entries.csv` and `extremes.csv`, the last of the first seed of each recipe."""
    summaries, densities, extremes = [], [], []
    for dataset, own in sources.items():
        sample_ids, labels = own[-1].spectra["sample"].to_numpy(), own[-1].spectra["label"].to_numpy()
        seen: set[str] = set()
        for source in progress(own, f"entries on {dataset}", "store"):
            for network_of in read_networks(source):
                for centring, network in network_of.items():
                    summaries.append(summarise(dataset, centring, network))
                    densities.append(tabulate_densities(dataset, centring, network, spec["fractions"], spec["bins"]))
                    if source.recipe not in seen:
                        extremes.append(
                            list_extremes(
                                dataset,
                                centring,
                                network,
                                spec["extremes"],
                                sample_ids=sample_ids,
                                labels=labels,
                                class_names=datasets[dataset].class_names,
                            )
                        )
                seen.add(source.recipe)
    return (
        _stack(summaries, SUMMARY_COLUMNS),
        _stack(densities, DENSITY_COLUMNS),
        _stack(extremes, EXTREMES_COLUMNS),
    )


def gather_images(extremes: pd.DataFrame, datasets: Mapping[str, PreparedDataset]) -> dict[str, np.ndarray]:
    """Return the images of the samples that are listed, (c, h, w) uint8, as `<dataset>/s<sample>`, in order."""
    images = {}
    for name, samples in extremes.groupby("dataset", sort=False)["sample"]:
        dataset = datasets[name]
        if dataset.is_image:
            ids = np.unique(samples.to_numpy(dtype=np.int64))
            rows = np.searchsorted(dataset.sample_ids, ids)
            images |= {f"{name}/s{i}": dataset.images[row] for i, row in zip(ids.tolist(), rows, strict=True)}
    return images


def write_images(path: str, images: Mapping[str, np.ndarray]) -> None:
    """Write arrays as an `npz`, whole or not at all; the bytes depend on nothing but the arrays."""
    archive = io.BytesIO()
    np.savez(archive, **images)  # its members are dated 1980
    write_bytes_atomically(path, archive.getvalue())


def _stack(frames: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=columns)


if __name__ == "__main__":
    with script_edge(snakemake) as job:
        sources = open_sources(
            job.params, job.input.runs, job.input.run_digests, job.input.data, job.input.data_digests
        )
        stores = zip(job.params["datasets"], job.input.datasets, job.input.dataset_digests, strict=True)
        datasets = {name: load_dataset(store, digest) for name, store, digest in stores}
        summary, entries, extremes = tabulate(sources, datasets, job.params)
        write_table(job.output.summary, summary)
        write_table(job.output.entries, entries)
        write_table(job.output.extremes, extremes)
        write_images(job.output.images, gather_images(extremes, datasets))
