"""What the figures over a setting share: recipes that differ in it alone, seeds and their means, a line by seed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from featurespace.figures.layers import fit_line
from featurespace.statistics import Interval, mean_interval
from featurespace.style import Look

# What follows from a recipe's other keys, or says nothing of what is trained.
NOT_A_SETTING = ("name", "population", "n_seeds", "blocks", "layers", "feature_layer", "kind")
Split = Callable[[Mapping[str, Any]], tuple[float | None, Mapping[str, Any]]]


@dataclass(frozen=True)
class Ladder:
    """Recipes of one data set that differ in one setting alone: `names` by its value, ascending.

    `name` is that of the first of them in the study: one of its own, if there is one, which the figure goes by.
    """

    name: str
    dataset: str
    names: dict[float, str]


def ladders_of(recipes: Sequence[Mapping[str, Any]], split: Split, least: int = 2) -> list[Ladder]:
    """Gather recipes that differ in one setting alone, and have at least so many values of it.

    Parameters
    ----------
    recipes
        All recipes of the study, members of sweeps too.
    split
        Gives a recipe's value of the setting, or None where it has none, and the recipe without it.
    least
        Values that a ladder must have.
    """
    groups: dict[str, Ladder] = {}
    for recipe in recipes:
        level, rest = split(recipe)
        if level is None:
            continue
        key = str(sorted((name, str(value)) for name, value in rest.items() if name not in NOT_A_SETTING))
        group = groups.setdefault(key, Ladder(recipe["name"], recipe["dataset"], {}))
        group.names.setdefault(level, recipe["name"])
    found = [ladder for ladder in groups.values() if len(ladder.names) >= least]
    return [Ladder(ladder.name, ladder.dataset, dict(sorted(ladder.names.items()))) for ladder in found]


def at_end(table: pd.DataFrame, end: str) -> pd.DataFrame:
    """Return the rows of each run's `last` or `first` step; a run that has one step has no first one."""
    steps = table.groupby(["recipe", "seed"])["step"]
    last = steps.transform("max")
    if end == "last":
        return table[table["step"] == last]
    first = steps.transform("min")
    return table[(table["step"] == first) & (first < last)]


def rungs(values: pd.DataFrame, logarithmic: bool = False) -> list[dict[str, Any]]:
    """Sum up the seeds of each level: a row a seed, and one with their mean and its 95 % interval.

    Parameters
    ----------
    values
        recipe, level, seed, value and, if there are values to leave out of means, `reliable`. Rows without a finite
        value are passed over.
    logarithmic
        Whether the mean is geometric, and its interval that of the logarithm.

    Returns
    -------
    list of dict
        recipe, level, part (seed | mean), seed, n_seeds, value, low, high, reliable.
    """
    rows: list[dict[str, Any]] = []
    values = values.replace([np.inf, -np.inf], np.nan).dropna(subset=["value"])
    if logarithmic:
        values = values[values["value"] > 0]
    if "reliable" not in values:
        values = values.assign(reliable=True)
    for (level, recipe), group in values.groupby(["level", "recipe"], sort=True):
        rows += [
            {
                "recipe": recipe,
                "level": level,
                "part": "seed",
                "seed": row.seed,
                "n_seeds": 1,
                "value": row.value,
                "reliable": row.reliable,
            }
            for row in group.sort_values("seed").itertuples()
        ]
        sure = group.loc[group["reliable"].astype(bool), "value"].to_numpy(float)
        if len(sure):
            mean = mean_interval(np.log(sure) if logarithmic else sure)
            ends = {"value": mean.estimate, "low": mean.low, "high": mean.high}
            if logarithmic:
                ends = {key: float(np.exp(value)) for key, value in ends.items()}
            rows.append({"recipe": recipe, "level": level, "part": "mean", "n_seeds": mean.n, "reliable": True, **ends})
    return rows


def slope_by_seed(rows: pd.DataFrame, logarithmic: bool = False) -> Interval:
    """Return the mean over seeds of the least-squares slope over levels, with its interval.

    Seeds that lack a level, or whose value there is not reliable, are left out: their lines would be other lines.
    """
    wide = rows[(rows["part"] == "seed") & rows["reliable"].astype(bool)].pivot_table(
        index="seed", columns="level", values="value", aggfunc="first"
    )
    wide = wide.reindex(columns=sorted(rows["level"].dropna().unique())).dropna()
    levels = wide.columns.to_numpy(float)
    slopes = [fit_line(levels, np.log(line) if logarithmic else line)[0] for line in wide.to_numpy(float)]
    return mean_interval(np.array(slopes, dtype=float))


def draw_rungs(axes: Axes, part: pd.DataFrame, look: Look, aside: float = 0.0, *, line: bool = True) -> None:
    """Draw seeds as faint dots left of their level, means with bars of their interval upon it, and a line through."""
    seeds, means = part[part["part"] == "seed"], part[part["part"] == "mean"].sort_values("level")
    left = 0.03 * (part["level"].max() - part["level"].min() + 1)
    for reliable, some in seeds.groupby(seeds["reliable"].astype(bool)):
        axes.plot(
            some["level"] + aside - left,
            some["value"],
            "o",
            color=look.colour,
            alpha=0.35,
            markersize=2.5,
            markerfacecolor=look.colour if reliable else "white",
            markeredgewidth=0.6,
            linestyle="",
            zorder=2,
        )
    if means.empty:
        return
    x, y = means["level"].to_numpy(float) + aside, means["value"].to_numpy(float)
    spread = np.stack([y - means["low"].to_numpy(float), means["high"].to_numpy(float) - y])
    axes.errorbar(x, y, yerr=np.nan_to_num(spread), fmt="none", ecolor=look.colour, elinewidth=1.1, capsize=2, zorder=3)
    axes.plot(
        x,
        y,
        look.marker,
        color=look.colour,
        linestyle=look.dashes if line else "",
        linewidth=0.8,
        markersize=4.5,
        zorder=4,
    )


def level_axis(axes: Axes, levels: Iterable[float], label: str) -> None:
    """Set up a horizontal axis with a tick at each level."""
    ticks = sorted(set(levels))
    axes.set_xlim(ticks[0] - 0.5, ticks[-1] + 0.5)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlabel(label)


def fit_range(part: pd.DataFrame) -> tuple[float, float]:
    """Return the least and the greatest number among values and ends of intervals."""
    numbers = part[["value", "low", "high"]].to_numpy(float)
    numbers = numbers[np.isfinite(numbers)]
    return float(numbers.min()), float(numbers.max())


def signed(value: float, digits: int = 2) -> str:
    """Write a number with its sign, and a true minus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def in_words(interval: Interval, unit: str, digits: int = 2) -> str:
    """Write a slope with its interval, as `+0.42 points per layer (0.10 to 0.74)`."""
    if not np.isfinite(interval.estimate):
        return "no line"
    text = f"{signed(interval.estimate, digits)} {unit}"
    if not np.isfinite(interval.low):
        return f"{text} (one seed)"
    return f"{text}\n(95 %: {signed(interval.low, digits)} to {signed(interval.high, digits)}, {interval.n} seeds)"
