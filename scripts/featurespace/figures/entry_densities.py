"""Densities of the P-vector's entries at four points of training."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from featurespace.figures.series import datasets_of, in_study_order, recipes_of
from featurespace.style import (
    FAINT,
    INK,
    Look,
    elide,
    legend_above,
    line_handle,
    new_figure,
    note_figure,
    recipe_looks,
    styled,
    title_panel,
)

DATA = "data"
CENTRINGS = ("raw", "centred")
FRACTIONS = (0.0, 0.3, 0.6, 1.0)  # of the epochs trained
OPACITIES = {0.0: 0.3, 0.3: 0.5, 0.6: 0.72, 1.0: 1.0}
TAIL = 0.002  # share of the entries that may lie beyond either end of an axis
NUMBERS = ("cv", "skewness", "angle_to_ones_deg")


def tidy(entries: pd.DataFrame, summary: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Join the densities to the numbers that sum up the same entries.

    Parameters
    ----------
    entries
        `entries.csv`: one row a (dataset, centring, recipe, seed, step) and bin, entries times √n, up to four steps a
        run; the data is the recipe `data`.
    summary
        `entry_summary.csv`: one row a (dataset, centring, recipe, seed, step).
    spec
        `recipes`: the study's recipes in order.

    Returns
    -------
    DataFrame
        dataset, recipe, centring, seed, fraction (0, 0.3, 0.6 or 1: of the run's epochs, the nearest; 1 where the run
        has one step only), step, epoch, bin_low, bin_high, density, cv, skewness, angle_to_ones_deg. A density is per
        unit of entry times √n.
    """
    run = ["dataset", "recipe", "centring", "seed"]
    columns = [*run, "fraction", "step", "epoch", "bin_low", "bin_high", "density", *NUMBERS]
    if entries.empty:
        return pd.DataFrame(columns=columns)
    frame = entries.merge(summary[[*run, "step", *NUMBERS]], on=[*run, "step"], how="left")
    last = frame.groupby(run)["epoch"].transform("max")
    share = (frame["epoch"] / last.where(last > 0)).fillna(1.0).to_numpy(float)
    frame["fraction"] = np.asarray(FRACTIONS)[np.abs(share[:, None] - np.asarray(FRACTIONS)).argmin(axis=1)]
    frame["_centring"] = frame["centring"].map({"raw": 0, "centred": 1})
    ordered = in_study_order(frame, spec["recipes"], "dataset", "_centring", "seed", "step", "bin_low")
    return ordered[columns]


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    """Return the range of entries outside of which no shown density has more than a small tail."""
    lows, highs = [], []
    for _, curve in rows.groupby(["seed", "step"], sort=False):
        mass = (curve["density"] * (curve["bin_high"] - curve["bin_low"])).to_numpy(float)
        if not mass.sum() > 0:
            continue
        below = np.cumsum(mass) / mass.sum()
        first = int(np.searchsorted(below, TAIL, side="right"))
        last = int(np.searchsorted(below, 1 - TAIL))
        lows.append(curve["bin_low"].iloc[first])
        highs.append(curve["bin_high"].iloc[min(last, len(curve) - 1)])
    return (min(lows), max(highs)) if lows else (0.0, 1.0)


def _span(values: pd.Series, form: str) -> str:
    """Write the first and the last of some numbers, once where they read alike."""
    ends = [value for value in (values.iloc[0], values.iloc[-1]) if np.isfinite(value)]
    known = [f"{value:z{form}}".replace("-", "−") for value in ends]
    return " → ".join(dict.fromkeys(known)) or "–"


def _numbers(rows: pd.DataFrame, centring: str) -> str:
    """Write what sums up the entries at the first and the last of the shown steps, as means over seeds."""
    by_run = rows.drop_duplicates(["seed", "step"])
    means = by_run.groupby("fraction")[list(NUMBERS)].mean()
    angle = f"θ {_span(means['angle_to_ones_deg'], '.0f' if centring == 'centred' else '.1f')}°"
    if centring == "raw":
        return f"CV {_span(means['cv'], '.2f')}\n{angle}"
    return f"skew {_span(means['skewness'], '.1f')}\n{angle}"


def _densities(axes: Axes, rows: pd.DataFrame, look: Look, centring: str) -> None:
    """Draw one recipe's densities: the first seed bold, the others thin, at the last step."""
    numbers = _numbers(rows, centring)
    bold = rows["seed"].min()
    rows = rows[(rows["seed"] == bold) | (rows["fraction"] == FRACTIONS[-1])]
    for (seed, _), curve in rows.groupby(["seed", "step"], sort=False):
        fraction = float(curve["fraction"].iloc[0])
        axes.stairs(
            curve["density"].to_numpy(float),
            np.append(curve["bin_low"].to_numpy(float), float(curve["bin_high"].iloc[-1])),
            color=look.colour,
            alpha=OPACITIES[fraction] * (1 if seed == bold else 0.5),
            linewidth=1.2 if seed == bold else 0.4,
            zorder=3 + fraction if seed == bold else 2,
        )
    axes.axvline(1 if centring == "raw" else 0, color=FAINT, linestyle=":", linewidth=0.8, zorder=1)
    low, high = _limits(rows)
    low, high = (min(low, 1.0), max(high, 1.0)) if centring == "raw" else (min(low, 0.0), max(high, 0.0))
    axes.set_xlim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    top = float(rows["density"].max())
    axes.set_ylim(0, (top if top > 0 else 1) * 1.55)  # room for the numbers over the curves
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    axes.tick_params(pad=1.5)
    axes.text(
        0.98,
        0.97,
        numbers,
        transform=axes.transAxes,
        ha="right",
        va="top",
        size=6,
        linespacing=1.25,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        zorder=6,
    )


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw two small panels a recipe, raw and centred, two recipes a row."""
    looks = recipe_looks(spec["recipes"]) | {DATA: Look(INK, "o", "-")}
    frame = frame.dropna(subset=["density"])
    blocks = datasets_of(spec["recipes"], frame["dataset"])
    if not blocks:
        return note_figure("No P-vector of this study is known: there are no entries to show.")
    names_of = {}
    for dataset in blocks:
        there = set(frame.loc[frame["dataset"] == dataset, "recipe"])
        names_of[dataset] = [name for name in (DATA, *recipes_of(spec["recipes"], dataset)) if name in there]
    rows_of = {dataset: -(-len(names) // 2) for dataset, names in names_of.items()}
    heights = [1.06 * rows_of[dataset] + 0.45 for dataset in blocks]
    figure = new_figure(sum(heights))
    parts = figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for dataset, part in zip(blocks, parts, strict=True):
        part.suptitle(dataset, x=0.01, ha="left", weight="bold", size=9)
        part.supxlabel("Entry of P times √n", size=8)
        part.supylabel("Density", size=8)
        grid = part.subplots(rows_of[dataset], 4, squeeze=False)
        for i, name in enumerate(names_of[dataset]):
            for j, centring in enumerate(CENTRINGS):
                axes = grid[i // 2, 2 * (i % 2) + j]
                rows = frame[
                    (frame["dataset"] == dataset) & (frame["recipe"] == name) & (frame["centring"] == centring)
                ]
                if rows.empty:
                    axes.remove()
                    continue
                _densities(axes, rows, looks[name], centring)
                # a long name leaves no room beside it
                said = i < 2 and (centring == "centred" or len(name) < 18)
                title_panel(axes, elide(name, 25) if j == 0 else "", centring if said else "")
        for axes in grid.flat[2 * len(names_of[dataset]) :]:
            axes.remove()
    fractions = sorted(float(fraction) for fraction in set(frame["fraction"]))
    words = {
        0.0: "at the first kept step",
        0.3: "after 30 % of the epochs",
        0.6: "after 60 %",
        1.0: "at the last kept step",
    }
    signs = [line_handle(words[fraction], color=INK, alpha=OPACITIES[fraction]) for fraction in fractions]
    if frame["seed"].nunique() > 1:
        signs += [line_handle("first seed"), line_handle("other seeds, last step", linewidth=0.4)]
    signs.append(line_handle("constant vector (raw), 0 (centred)", linestyle=":", linewidth=0.8))
    legend_above(figure, [], signs)
    return figure
