"""Compare P-vectors: of every step with last steps and with the data, and of last steps with each other."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import xarray as xr

from featurespace.angles import draw_permutations
from featurespace.architectures import INPUT_LAYER
from featurespace.comparison import DATA, LastStep, Trajectory, compare_dynamics, compare_pairs
from featurespace.files import write_table
from featurespace.script import progress, script_edge
from featurespace.stores import read_group, require_same_samples

# The feature layer's spectra, with the recipe and the layer they are of.
Source = tuple[str, str, xr.Dataset]


def open_sources(
    spec: Mapping[str, Any],
    runs: Sequence[str],
    run_digests: Sequence[str],
    data: Sequence[str],
    data_digests: Sequence[str],
) -> dict[str, list[Source]]:
    """Open the feature layers of all runs, by data set.

    Parameters
    ----------
    spec
        `recipes`: of each its `name`, `dataset`, `feature_layer` and number of `blocks`; `datasets`.
    runs, run_digests
        The stores of the runs, the blocks of the first recipe, then of the next.
    data, data_digests
        The stores of the data sets, in the order of `datasets`.

    Returns
    -------
    dict
        By data set, the runs' sources and, last, the data's own.

    Raises
    ------
    FeaturespaceError
        If a run's spectra are not over the samples of its data set's.
    """
    inputs = {
        dataset: (DATA, INPUT_LAYER, read_group(store, INPUT_LAYER, digest))
        for dataset, store, digest in zip(spec["datasets"], data, data_digests, strict=True)
    }
    sources: dict[str, list[Source]] = {dataset: [] for dataset in inputs}
    of_runs = [recipe for recipe in spec["recipes"] for _ in range(recipe["blocks"])]
    for recipe, store, digest in zip(of_runs, runs, run_digests, strict=True):
        spectra = read_group(store, recipe["feature_layer"], digest)
        dataset = recipe["dataset"]
        own_hash = inputs[dataset][2].attrs["sample_hash"]
        require_same_samples(spectra.attrs["sample_hash"], own_hash, str(store), data[spec["datasets"].index(dataset)])
        sources[dataset].append((recipe["name"], recipe["feature_layer"], spectra))
    return {dataset: [*sources[dataset], inputs[dataset]] for dataset in inputs}


def last_steps(source: Source) -> list[LastStep]:
    """Read the leading vectors of every seed at the last step."""
    recipe, _, spectra = source
    last = spectra.isel(step=-1)
    return [
        LastStep(
            recipe=recipe,
            seed=int(seed),
            vectors=last["left_vector"].isel(seed=i).to_numpy(),
            relative_gaps=last["relative_gap"].isel(seed=i, vector=0).to_numpy(),
        )
        for i, seed in enumerate(spectra["seed"].to_numpy())
    ]


def trajectories(sources: Sequence[Source]) -> Iterator[Trajectory]:
    """Read the P-vectors of all steps, one seed at a time."""
    for recipe, layer, spectra in sources:
        first = spectra[["left_vector", "relative_gap"]].isel(vector=0)
        for i, seed in enumerate(spectra["seed"].to_numpy()):
            own = first.isel(seed=i)
            yield Trajectory(
                recipe=recipe,
                layer=layer,
                seed=int(seed),
                steps=spectra["step"].to_numpy(),
                epochs=spectra["epoch"].to_numpy(),
                vectors=own["left_vector"].transpose("centring", "step", "sample").to_numpy(),
                relative_gaps=own["relative_gap"].transpose("centring", "step").to_numpy(),
            )


def compare(sources: Mapping[str, list[Source]], spec: Mapping[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make both tables, `angle_dynamics.csv` and `angle_pairs.csv`, each data set for itself."""
    dynamics, pairs = [], []
    for dataset, own in sources.items():
        n_samples = own[-1][2].sizes["sample"]
        permutations = draw_permutations(n_samples, spec["permutations"], spec["permutation_seed"])
        references = [last for source in own for last in last_steps(source)]
        steps = progress(trajectories(own[:-1]), f"comparing on {dataset}", "network")
        dynamics.append(compare_dynamics(dataset, steps, references, permutations))
        pairs.append(compare_pairs(dataset, references, permutations))
    return pd.concat(dynamics, ignore_index=True), pd.concat(pairs, ignore_index=True)


if __name__ == "__main__":
    with script_edge(snakemake) as job:
        sources = open_sources(
            job.params, job.input.runs, job.input.run_digests, job.input.data, job.input.data_digests
        )
        dynamics, pairs = compare(sources, job.params)
        write_table(job.output.dynamics, dynamics)
        write_table(job.output.pairs, pairs)
