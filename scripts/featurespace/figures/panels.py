"""What the figures of angles and their controls share: groups of recipes, axes of angles, sums over seeds and pairs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from scipy.special import stdtrit

from featurespace.figures.series import over_seeds
from featurespace.style import FAINT, elide, line_handle

DATA = "data"
CENTRINGS = ("raw", "centred")
# what a network is trained for, by family
FAMILIES = {
    "supervised": ("classify",),
    "reconstruction": ("reconstruct", "denoise"),
    "self-supervised": ("simclr", "supcon"),
    "trained elsewhere": ("saved",),
    "made elsewhere": ("features",),
}
CONTROL_GROUPS = {
    "shuffled labels": ("shuffled-labels",),
    "untrained": ("untrained",),
    "noise": ("noise",),
    "controls made elsewhere": ("control-features",),
}
LIMITS = {1: 0.2, 2: 0.5, 5: 1, 10: 2, 15: 5, 30: 10, 45: 15, 60: 15, 90: 30}  # ends of an axis of angles: its ticks
HEIGHT_OF_ROW = 0.17  # inches, of a row of a dot plot


def group_of(recipes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Map each recipe to its family or group of controls, and `data` to itself."""
    by_task = {task: group for group, tasks in {**FAMILIES, **CONTROL_GROUPS}.items() for task in tasks}
    return {DATA: DATA, **{recipe["name"]: by_task[recipe["task"]] for recipe in recipes}}


def of_stage(pairs: pd.DataFrame, stage: str) -> pd.DataFrame:
    """Return the pairs of a stage (first | last); a table without that column holds last steps only."""
    if "stage" in pairs:
        return pairs[pairs["stage"] == stage]
    return pairs if stage == "last" else pairs.iloc[:0]


def both_ways(pairs: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """Return the pairs among some recipes in both orders, so that every run has all its partners as `b`.

    A run is never paired with itself.
    """
    names = list(names)
    there = pairs[pairs["recipe_a"].isin(names) & pairs["recipe_b"].isin(names)]
    there = there[(there["recipe_a"] != there["recipe_b"]) | (there["seed_a"] != there["seed_b"])]
    turned = {"recipe_a": "recipe_b", "recipe_b": "recipe_a", "seed_a": "seed_b", "seed_b": "seed_a"}
    stacked = pd.concat([there, there.rename(columns=turned)[there.columns]], ignore_index=True)
    return stacked.drop_duplicates(["dataset", "centring", "recipe_a", "seed_a", "recipe_b", "seed_b"])


def mean_and_sd(frame: pd.DataFrame, keys: Sequence[str], value: str) -> pd.DataFrame:
    """Sum up runs over seeds as `over_seeds`, with `sd` (n - 1 in the denominator; missing with one seed) beside."""
    rows = [*keys, "step"]
    mean = over_seeds(frame, keys, value)
    sd = over_seeds(frame, keys, value, lambda wide: wide.std(axis=1, ddof=1))
    return mean.merge(sd[[*rows, "mean"]].rename(columns={"mean": "sd"}), on=rows)


def t_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Return mean, lower and upper end of Student's t-interval of some numbers; ends are NaN with fewer than two."""
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return np.nan, np.nan, np.nan
    mean = float(values.mean())
    if len(values) < 2:
        return mean, np.nan, np.nan
    half = float(stdtrit(len(values) - 1, 0.5 + level / 2) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def angle_limit(*columns: pd.Series) -> int:
    """Return the least end of an axis of angles, in degrees, that holds every number of some columns."""
    most = max((float(column.max()) for column in columns if column.notna().any()), default=90.0)
    return next((limit for limit in LIMITS if limit >= most), 90)


def angle_axis(axes: Axes, limit: int, *, horizontal: bool = False) -> None:
    """Let an axis of angles run from 0 to a limit of `LIMITS`, in degrees."""
    ticks = np.arange(0, limit + 1e-9, LIMITS[limit])
    if horizontal:
        axes.set_xlim(0, limit)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    else:
        axes.set_ylim(0, limit)
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])


def row_axis(axes: Axes, labels: Sequence[str], *, named: bool = True, width: int = 60) -> None:
    """Set up the vertical axis of a dot plot, its first row on top; the rows are named if `named`."""
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_yticks(range(len(labels)), [elide(label, width) for label in labels] if named else [""] * len(labels))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def sd_handles(frame: pd.DataFrame) -> list[Artist]:
    """Return legend entries for a mean and a band of one standard deviation, where any point sums up several seeds."""
    if not (frame["n_seeds"] > 1).any():
        return []
    return [
        line_handle("mean over seeds"),
        Patch(facecolor=FAINT, alpha=0.25, linewidth=0, label="± 1 standard deviation"),
    ]
