"""What the figures against depth share: the two ends of training, curves over layers, their axis and their legend."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from featurespace.figures.series import over_seeds
from featurespace.style import Look, elide, log_axis
from featurespace.tables import is_false

CLASSIFYING = ("classify", "shuffled-labels")
NOT_CONVERGED: Any = (0.0, (1.0, 1.2))  # dots: no curve of a run that came to its end is drawn so
KEYS = ["dataset", "recipe", "layer", "depth"]


def classifiers_of(table: pd.DataFrame, recipes: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the rows of the recipes that learn classes, of a table that may be empty."""
    names = [recipe["name"] for recipe in recipes if recipe["task"] in CLASSIFYING]
    return table[table["recipe"].isin(names)] if len(table) else table


def at_the_ends(
    frame: pd.DataFrame, value: str, centre: Callable[[pd.DataFrame], pd.Series] | None = None
) -> pd.DataFrame:
    """Sum up layers over seeds, at the first and the last step of each recipe.

    Parameters
    ----------
    frame
        One row a (KEYS, seed, step), with `epoch`, `value` and `doubtful`, whether its value is in doubt.
    value, centre
        As in `over_seeds`.

    Returns
    -------
    DataFrame
        KEYS, stage (first | last), step, epoch, n_seeds, value (mean over seeds), low, high (extremes), reliable (in
        every seed). A run with one step has no first one.
    """
    summary = over_seeds(frame, KEYS, value, centre).rename(columns={"mean": "value"})
    doubts = over_seeds(frame.assign(doubt=frame["doubtful"].astype(float)), KEYS, "doubt")
    summary = summary.merge(doubts[[*KEYS, "step", "high"]].rename(columns={"high": "doubt"}), on=[*KEYS, "step"])
    summary["reliable"] = ~(summary["doubt"] > 0)
    steps = summary.groupby("recipe")["step"]
    summary["stage"] = np.select(
        [summary["step"] == steps.transform("max"), summary["step"] == steps.transform("min")], ["last", "first"], ""
    )
    columns = [*KEYS, "stage", "step", "epoch", "n_seeds", "value", "low", "high", "reliable"]
    return summary.loc[summary["stage"] != "", columns]


def count_not_converged(runs: pd.DataFrame) -> pd.Series:
    """Return, by recipe, of how many seeds `runs.csv` says that they did not reach the loss they were to stop at."""
    return runs[is_false(runs["converged"])].groupby("recipe")["seed"].nunique()


def places(names: Sequence[str]) -> dict[str, float]:
    """Give each recipe its place beside a layer, within a third of the way to the next."""
    if len(names) == 1:
        return {names[0]: 0.0}
    reach = min(0.16, 0.03 * len(names))
    return dict(zip(names, np.linspace(-reach, reach, len(names)).tolist(), strict=True))


def pale(colour: str) -> str:
    """Mix a colour with white."""
    red, green, blue = (0.4 * part + 0.6 for part in to_rgb(colour))
    return to_hex((red, green, blue))


def draw_layers(
    axes: Axes, curve: pd.DataFrame, look: Look, aside: float, *, faint: bool = False, hollow: bool = False
) -> None:
    """Draw one recipe's values against depth with bars over seeds, moved `aside`.

    Markers are hollow where a value is in doubt, or all of them if `hollow`. If `faint`, the line is thin and pale,
    without bars. A recipe that did not converge is dotted.
    """
    curve = curve.dropna(subset=["value"]).sort_values("depth")
    if curve.empty:
        return
    depth, value = curve["depth"].to_numpy(float) + aside, curve["value"].to_numpy(float)
    colour = pale(look.colour) if faint else look.colour
    dashes = NOT_CONVERGED if (curve["n_not_converged"] > 0).any() else look.dashes
    if not faint:
        spread = np.stack([value - curve["low"].to_numpy(float), curve["high"].to_numpy(float) - value])
        axes.errorbar(depth, value, yerr=np.maximum(spread, 0), fmt="none", ecolor=colour, elinewidth=0.9, alpha=0.55)
    zorder = 2 if faint else 3
    axes.plot(depth, value, color=colour, linestyle=dashes, linewidth=0.8 if faint else 1.2, zorder=zorder)
    empty = is_false(curve["reliable"]).to_numpy() | hollow
    for is_empty in (False, True):
        there = empty == is_empty
        if there.any():
            axes.plot(
                depth[there],
                value[there],
                look.marker,
                color=colour,
                markerfacecolor="white" if is_empty else colour,
                markersize=2.5 if faint else 4,
                zorder=zorder + 0.5,
            )


def depth_axis(axes: Axes, depths: pd.Series) -> None:
    """Set up a horizontal axis of layers, counted from the input, with room for recipes beside the outermost ones."""
    axes.set_xlim(min(0.7, depths.min() - 0.3), depths.max() + 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    axes.set_xlabel("Layer")


def value_axis(axes: Axes, part: pd.DataFrame, logarithmic: bool) -> None:
    """Fit the vertical axis to values and their ranges: logarithmic, or linear from zero."""
    if logarithmic:
        log_axis(axes, part["low"].min(), part["high"].max())
        return
    most = max(part["high"].max(), 0.0)
    least = min(part["low"].min(), 0.0)
    margin = 0.06 * (most - least) or 0.05
    axes.set_ylim(least - margin, most + margin)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))


def recipe_entries(frame: pd.DataFrame, looks: Mapping[str, Look]) -> list[Artist]:
    """Return a legend entry for each recipe of a table, in the study's order; it says so if a run did not converge."""
    failed = frame.groupby("recipe")["n_not_converged"].max()
    entries: list[Artist] = []
    for name, look in looks.items():
        if name not in failed:
            continue
        n = int(failed[name])
        label = elide(name, 30)
        if n:
            label += f" (not converged: {n} seed{'s' if n > 1 else ''})"
        entries.append(
            Line2D(
                [],
                [],
                color=look.colour,
                linestyle=NOT_CONVERGED if n else look.dashes,
                marker=look.marker,
                label=label,
            )
        )
    return entries
