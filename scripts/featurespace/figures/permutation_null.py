"""The permutation null: its mean against its formula, and the observed angles against it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from featurespace.figures.panels import CENTRINGS, DATA, group_of, of_stage
from featurespace.figures.series import datasets_of, recipes_of
from featurespace.style import (
    FAINT,
    INK,
    MARKERS,
    PALETTE,
    legend_above,
    line_handle,
    new_figure,
    note_figure,
    styled,
    title_panel,
)

# kinds of pairs; the first of a pair's kinds from the end names it
KINDS = ("trained – trained", "with shuffled labels", "with untrained", "with noise", "with the data")
BINS = np.arange(0.0, 91.0, 2.0)
COLUMNS = (
    "dataset",
    "centring",
    "which",
    "recipe_a",
    "seed_a",
    "recipe_b",
    "seed_b",
    "angle_deg",
    "null_mean_deg",
    "null_formula_deg",
    "deviation_deg",
)


def tidy(tables: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """List the pairs of last steps with their null.

    Parameters
    ----------
    tables
        `angle_pairs.csv`: one row an unordered pair of runs, a stage and a centring; the data is the recipe `data`.
    spec
        `recipes`: the study's recipes in order, each with name, dataset and task.

    Returns
    -------
    DataFrame
        dataset, centring, which (kind of pair), recipe_a, seed_a, recipe_b, seed_b, angle_deg (observed),
        null_mean_deg (mean over permutations), null_formula_deg (the same in closed form), deviation_deg (mean
        minus formula). Pairs without an observed angle are left out.
    """
    groups = group_of(spec["recipes"])
    rank = {"shuffled labels": 1, "untrained": 2, "noise": 3, DATA: 4}
    last = of_stage(tables, "last")
    parts = []
    for dataset in datasets_of(spec["recipes"], last["dataset"]):
        names = [DATA, *recipes_of(spec["recipes"], dataset)]
        part = last[(last["dataset"] == dataset) & last["recipe_a"].isin(names) & last["recipe_b"].isin(names)]
        part = part[(part["recipe_a"] != part["recipe_b"]) | (part["seed_a"] != part["seed_b"])]
        ranks = [part[column].map(groups).map(rank).fillna(0).astype(int) for column in ("recipe_a", "recipe_b")]
        kind = pd.concat(ranks, axis=1).max(axis=1)
        part = part.assign(
            which=kind.map(dict(enumerate(KINDS))),
            null_formula_deg=part.get("null_formula_deg", np.nan),
            _kind=kind,
            _centring=part["centring"].map({"raw": 0, "centred": 1}),
        )
        part["deviation_deg"] = part["null_mean_deg"] - part["null_formula_deg"]
        part = part.dropna(subset=["angle_deg"]).sort_values(["_centring", "_kind"], kind="stable")
        parts.append(part[list(COLUMNS)])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))


def _scatter(axes: Axes, part: pd.DataFrame, value: str) -> None:
    """Draw a value against the formula, a colour a kind of pair, hollow where centred."""
    for i, kind in enumerate(KINDS):
        for centring in CENTRINGS:
            some = part[(part["which"] == kind) & (part["centring"] == centring)]
            axes.plot(
                some["null_formula_deg"],
                some[value],
                linestyle="",
                marker=MARKERS[i],
                color=PALETTE[i],
                markerfacecolor="none" if centring == "centred" else PALETTE[i],
                markersize=3,
                markeredgewidth=0.6,
                alpha=0.7,
                zorder=3 + i,
            )


def _histogram(axes: Axes, some: pd.DataFrame, colour: str) -> None:
    """Draw the observed angles filled and the null means as an outline."""
    if some.empty:
        axes.set_ylim(0, 1)
        return
    axes.hist(some["angle_deg"], bins=BINS.tolist(), color=colour, alpha=0.75, linewidth=0, zorder=3)
    null = some["null_mean_deg"].dropna()
    if len(null):
        axes.hist(null, bins=BINS.tolist(), histtype="step", color=INK, linewidth=0.9, zorder=4)
    # under the bars, each observed angle: one pair far from the others is a bar too low to see
    axes.plot(
        some["angle_deg"],
        np.zeros(len(some)),
        "|",
        color=colour,
        markersize=4,
        markeredgewidth=0.4,
        clip_on=False,
        zorder=5,
    )


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw a block a data set: null mean against formula, then a row of histograms for each kind of pair."""
    blocks = datasets_of(spec["recipes"], frame["dataset"])
    if not blocks:
        return note_figure("No pair of networks on the same samples: there is nothing to permute.")
    rows: list[tuple[str, str]] = []
    for dataset in blocks:
        part = frame[frame["dataset"] == dataset]
        if part["deviation_deg"].notna().any():
            rows.append((dataset, "formula"))
        rows += [(dataset, kind) for kind in KINDS if (part["which"] == kind).any()]
    heights = [2.3 if kind == "formula" else 0.95 for _, kind in rows]
    figure = new_figure(sum(heights) + 0.45 * len(blocks))
    grid = figure.subplots(len(rows), 2, squeeze=False, height_ratios=heights)
    for row, (dataset, kind) in enumerate(rows):
        part = frame[frame["dataset"] == dataset]
        heading = dataset if row == 0 or rows[row - 1][0] != dataset else ""
        last_row = row == len(rows) - 1 or rows[row + 1][0] != dataset
        left, right = grid[row]
        if kind == "formula":
            left.plot([0, 90], [0, 90], color=FAINT, linewidth=0.8, zorder=2)
            _scatter(left, part, "null_mean_deg")
            left.set(xlim=(0, 91), ylim=(0, 91), xticks=range(0, 91, 15), yticks=range(0, 91, 15))
            left.set(xlabel="Formula (°)", ylabel="Mean of permutations (°)")
            title_panel(left, "null against formula", "", heading)
            right.axhline(0, color=FAINT, linewidth=0.8, zorder=2)
            _scatter(right, part, "deviation_deg")
            right.set(xlim=(0, 91), xticks=range(0, 91, 15))
            right.set(xlabel="Formula (°)", ylabel="Mean − formula (°)")
            deviations = part["deviation_deg"].dropna().abs()
            reach = 1.15 * max([0.1, *deviations])
            right.set_ylim(-reach, reach)
            title_panel(right, "difference", f"greatest {deviations.max():.2g}°")
            continue
        for axes, centring in ((left, "raw"), (right, "centred")):
            some = part[(part["which"] == kind) & (part["centring"] == centring)]
            _histogram(axes, some, PALETTE[KINDS.index(kind)])
            axes.set(xlim=(0, 90), xticks=range(0, 91, 15))
            axes.yaxis.get_major_locator().set_params(nbins=3, integer=True)
            axes.tick_params(labelbottom=last_row)
            if last_row:
                axes.set_xlabel("Angle (°)")
            title_panel(axes, kind if axes is left else "", centring, heading if axes is left else "")
        left.set_ylabel("Pairs")
    kinds = [kind for kind in KINDS if (frame["which"] == kind).any()]
    marks: Any = [
        line_handle(kind, color=PALETTE[i], marker=MARKERS[i], linestyle="", markersize=4)
        for i, kind in enumerate(KINDS)
        if kind in kinds
    ]
    signs = [
        Patch(facecolor=FAINT, alpha=0.75, linewidth=0, label="observed angles"),
        line_handle("means of the permutation null", color=INK, linewidth=0.9),
        line_handle("hollow: centred", linestyle="", marker="o", markerfacecolor="none"),
    ]
    legend_above(figure, marks, signs)
    return figure
