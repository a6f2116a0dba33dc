"""Features that no network made: independent Gaussian numbers, the null that networks are held against."""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from featurespace.stores import FeatureWriter

LAYER = "noise"

_PURPOSE = 100  # set apart from the purposes of random numbers in training


def noise_generator(seed: int, recipe: str) -> np.random.Generator:
    """Return the source of one network's worth of noise: seeds and recipes share nothing."""
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(recipe.encode()), _PURPOSE]))


def draw_rows(generator: np.random.Generator, n_rows: int, width: int, rectified: bool) -> np.ndarray:
    """Draw the next rows of noise, (n_rows, width) float32: N(0, 1), or max(0, N(0, 1)).

    Rows come from the generator in order, so that more of them leave the first as they are.
    """
    rows = generator.standard_normal((n_rows, width), dtype=np.float32)
    return np.maximum(rows, 0, out=rows) if rectified else rows


def write_noise(spec: Mapping[str, Any], n_samples: int, writer: FeatureWriter) -> None:
    """Write the noise of every seed, step 0, of a store; one chunk is in memory.

    Parameters
    ----------
    spec
        As the rule `draw_noise` gets it: `recipe`, `seeds` and the model's `width` and `rectified`.
    n_samples
        The rows of the store.
    writer
        Made with the one layer `noise`, the seeds of the spec, and one step.
    """
    model = spec["model"]
    n_rows = writer.rows_per_chunk[LAYER]
    for i, seed in enumerate(spec["seeds"]):
        generator = noise_generator(seed, spec["recipe"])
        for start in range(0, n_samples, n_rows):
            block = draw_rows(generator, min(n_rows, n_samples - start), model["width"], model["rectified"])
            writer.write(LAYER, i, 0, start, block)


def store_attributes(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a store of noise says of itself, as a run's does."""
    return {
        "dataset": spec["dataset"],
        "recipe": spec["recipe"],
        "block": spec["block"],
        "depths": {LAYER: 1},
        "made_by": dict(spec),
    }
