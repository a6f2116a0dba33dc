"""Opening the spectra that are compared: of the feature layer of every run, and of every data set itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featurespace.architectures import INPUT_LAYER
from featurespace.stores import read_group, require_same_samples

if TYPE_CHECKING:
    import xarray as xr

DATA = "data"  # the recipe under which a data set's own spectra go


@dataclass(frozen=True)
class Source:
    """The spectra of one block of seeds at the feature layer, or of a data set: recipe `data`, seed 0, one step.

    `population` is the sweep that the recipe is of, "" for none; `spectra` is the group of `spectra.zarr`, read
    lazily.
    """

    recipe: str
    layer: str
    population: str
    spectra: "xr.Dataset"

    @property
    def seeds(self) -> list[int]:
        return self.spectra["seed"].to_numpy().tolist()

    @property
    def steps(self) -> np.ndarray:
        return self.spectra["step"].to_numpy()

    @property
    def epochs(self) -> np.ndarray:
        return self.spectra["epoch"].to_numpy()

    @property
    def n_samples(self) -> int:
        return self.spectra.sizes["sample"]

    def p_vectors(self, seed_index: int, steps: slice = slice(None)) -> np.ndarray:
        """Read the P-vectors of one seed, (2, n_steps, n_samples), by centring as `comparison.CENTRINGS`."""
        chosen = self.spectra["left_vector"].isel(seed=seed_index, step=steps, vector=0)
        return chosen.transpose("centring", "step", "sample").to_numpy()

    def vectors(
        self, seed_index: int, centring_index: int, steps: slice = slice(None), k: int | None = None
    ) -> np.ndarray:
        """Read the k leading left vectors, or all, of one seed in one centring: (n_steps, k, n_samples)."""
        chosen = self.spectra["left_vector"].isel(seed=seed_index, centring=centring_index, step=steps, vector=slice(k))
        return chosen.transpose("step", "vector", "sample").to_numpy()

    def relative_gaps(self, seed_index: int, steps: slice = slice(None)) -> np.ndarray:
        """Read the relative gaps below the P-vectors of one seed, (2, n_steps)."""
        chosen = self.spectra["relative_gap"].isel(seed=seed_index, step=steps, vector=0)
        return chosen.transpose("centring", "step").to_numpy()


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
        `recipes`: of each its `name`, `dataset`, `feature_layer`, number of `blocks` and, if it is of one, its
        `population`; `datasets`.
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
        If a run's spectra are not over the samples of its data set's, or a store is damaged.
    """
    inputs = {
        dataset: Source(DATA, INPUT_LAYER, "", read_group(store, INPUT_LAYER, digest))
        for dataset, store, digest in zip(spec["datasets"], data, data_digests, strict=True)
    }
    sources: dict[str, list[Source]] = {dataset: [] for dataset in inputs}
    of_runs = [recipe for recipe in spec["recipes"] for _ in range(recipe["blocks"])]
    for recipe, store, digest in zip(of_runs, runs, run_digests, strict=True):
        dataset = recipe["dataset"]
        spectra = read_group(store, recipe["feature_layer"], digest)
        require_same_samples(
            spectra.attrs["sample_hash"],
            inputs[dataset].spectra.attrs["sample_hash"],
            str(store),
            data[spec["datasets"].index(dataset)],
        )
        sources[dataset].append(Source(recipe["name"], recipe["feature_layer"], recipe.get("population", ""), spectra))
    return {dataset: [*sources[dataset], inputs[dataset]] for dataset in inputs}
