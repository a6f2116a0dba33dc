"""The entries of P-vectors: their moments, their densities over training, and the samples at both ends of their order.

A singular vector has no sign. Here a raw one is turned so that its mean is positive, and a centred one, whose mean is
zero, so that its skewness is. Multiplied by √n, a constant vector is all ones, at any n.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from featurespace.angles import angle_to_ones_deg

CENTRINGS = ("raw", "centred")
SUMMARY_COLUMNS = [
    *("dataset", "centring", "recipe", "seed", "step", "epoch"),
    *("norm", "mean", "sd", "cv", "skewness", "excess_kurtosis", "share_negative"),
    *("angle_to_ones_deg", "angle_to_mean_deg"),
]
DENSITY_COLUMNS = [
    *("dataset", "centring", "recipe", "seed", "step", "epoch"),
    *("bin_low", "bin_high", "count", "density"),
]
EXTREMES_COLUMNS = [
    *("dataset", "centring", "recipe", "seed", "end", "rank"),
    *("sample", "label", "class_name", "entry"),
]

_ROUNDING = 1e-12  # of a mean or a spread, in units of 1/√n: nothing smaller has a sign


@dataclass(frozen=True)
class Network:
    """The P-vectors of one network at its steps, in one centring, or of a data set: recipe `data`.

    `steps`, `epochs` and `angles_to_mean_deg` are (m,); `vectors` is (m, n_samples), unit rows, NaN where there is
    no vector.
    """

    recipe: str
    seed: int
    steps: np.ndarray
    epochs: np.ndarray
    vectors: np.ndarray
    angles_to_mean_deg: np.ndarray


def turn(vectors: np.ndarray, centring: str) -> np.ndarray:
    """Give rows (m, n) the sign that makes their mean (raw) or skewness (centred) positive.

    A raw vector whose mean is zero to rounding goes by its skewness; one without skewness either stays as it is.
    """
    means = vectors.mean(axis=1)
    deviations = vectors - means[:, None]
    thirds = np.mean(deviations**2 * deviations, axis=1)
    by_mean = (np.abs(means) * np.sqrt(vectors.shape[1]) > _ROUNDING) & (centring == "raw")
    return np.where(np.where(by_mean, means, thirds) < 0, -1.0, 1.0)[:, None] * vectors


def summarise(dataset: str, centring: str, network: Network) -> pd.DataFrame:
    """Describe the entries at every step: rows of `entry_summary.csv`.

    Returns
    -------
    DataFrame
        `SUMMARY_COLUMNS`, of the unit vector as `turn` leaves it. `sd` is that of the population, so that
        `cv` = sd / |mean| is the tangent of `angle_to_ones_deg`; it is missing where the mean is zero to rounding.
        `skewness` and `excess_kurtosis` are m3 / m2^1.5 and m4 / m2² - 3, missing for constant entries;
        `share_negative` is the share of entries on the other side of zero. A vector that does not exist leaves a row
        without numbers.
    """
    vectors = turn(network.vectors, centring)
    root_n = np.sqrt(vectors.shape[1])
    mean = vectors.mean(axis=1)
    deviations = vectors - mean[:, None]
    squares = deviations**2
    second, fourth = squares.mean(axis=1), np.mean(squares**2, axis=1)
    third = np.mean(squares * deviations, axis=1)
    spread = np.where(np.sqrt(second) * root_n > _ROUNDING, np.sqrt(second), np.nan)
    exists = np.isfinite(mean)
    return pd.DataFrame(
        {
            "dataset": dataset,
            "centring": centring,
            "recipe": network.recipe,
            "seed": network.seed,
            "step": network.steps,
            "epoch": network.epochs,
            "norm": np.linalg.norm(vectors, axis=1),
            "mean": mean,
            "sd": np.sqrt(second),
            "cv": np.sqrt(second) / np.where(np.abs(mean) * root_n > _ROUNDING, np.abs(mean), np.nan),
            "skewness": third / spread**3,
            "excess_kurtosis": fourth / spread**4 - 3,
            "share_negative": np.where(exists, np.mean(vectors < 0, axis=1), np.nan),
            "angle_to_ones_deg": angle_to_ones_deg(vectors),
            "angle_to_mean_deg": np.where(exists, network.angles_to_mean_deg, np.nan),
        }
    )[SUMMARY_COLUMNS]


def nearest_steps(epochs: np.ndarray, fractions: Sequence[float]) -> list[int]:
    """Find the kept steps nearest to fractions of the training: indices, ascending, each once; the earlier of a tie."""
    return sorted({int(np.argmin(np.abs(epochs - fraction * epochs[-1]))) for fraction in fractions})


def tabulate_densities(
    dataset: str, centring: str, network: Network, fractions: Sequence[float], bins: int
) -> pd.DataFrame:
    """Count the entries, times √n, in equal bins at a few steps: rows of `entries.csv`.

    The bins reach from the least to the greatest entry at any of these steps. `density` is the count over n and the
    width of the bin. Steps without a vector are left out.

    Returns
    -------
    DataFrame
        `DENSITY_COLUMNS`.
    """
    chosen = [i for i in nearest_steps(network.epochs, fractions) if np.isfinite(network.vectors[i]).all()]
    if not chosen:
        return pd.DataFrame(columns=DENSITY_COLUMNS)
    entries = _entries(network.vectors[chosen], centring)
    low, high = float(entries.min()), float(entries.max())
    if high - low <= _ROUNDING * max(abs(low), abs(high)):  # all entries are one value
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    parts = []
    for i, values in zip(chosen, entries, strict=True):
        count = np.histogram(values, edges)[0]
        parts.append(
            pd.DataFrame(
                {
                    "dataset": dataset,
                    "centring": centring,
                    "recipe": network.recipe,
                    "seed": network.seed,
                    "step": network.steps[i],
                    "epoch": network.epochs[i],
                    "bin_low": edges[:-1],
                    "bin_high": edges[1:],
                    "count": count,
                    "density": count / (len(values) * np.diff(edges)),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)[DENSITY_COLUMNS]


def list_extremes(
    dataset: str,
    centring: str,
    network: Network,
    number: int,
    *,
    sample_ids: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
) -> pd.DataFrame:
    """List the samples with the least and the greatest entries, times √n, at the last step: rows of `extremes.csv`.

    Rank 1 is the outermost sample of an `end`; of equal entries the sample that comes first is. Without a vector there
    are no rows.

    Parameters
    ----------
    dataset, centring, network
        What the rows are of.
    number
        How many samples at either end, at most all.
    sample_ids, labels
        (n_samples,), in the order of the entries.
    class_names
        By label.
    """
    if not np.isfinite(network.vectors[-1]).all():
        return pd.DataFrame(columns=EXTREMES_COLUMNS)
    entries = _entries(network.vectors[-1:], centring)[0]
    ends = {"low": np.argsort(entries, kind="stable")[:number], "high": np.argsort(-entries, kind="stable")[:number]}
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "dataset": dataset,
                    "centring": centring,
                    "recipe": network.recipe,
                    "seed": network.seed,
                    "end": end,
                    "rank": np.arange(1, len(chosen) + 1),
                    "sample": sample_ids[chosen],
                    "label": labels[chosen],
                    "class_name": [class_names[label] for label in labels[chosen]],
                    "entry": entries[chosen],
                }
            )
            for end, chosen in ends.items()
        ],
        ignore_index=True,
    )[EXTREMES_COLUMNS]


def _entries(vectors: np.ndarray, centring: str) -> np.ndarray:
    return turn(vectors, centring) * np.sqrt(vectors.shape[1])
