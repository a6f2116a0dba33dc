"""Compression, its ratio from layer to layer, and discrimination: as measured, as predicted, as bounded."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from featurespace.figures.convergence import leave_out_unconverged, name_unconverged, unconverged_rows
from featurespace.figures.headings import end_row, head_row
from featurespace.figures.series import in_study_order
from featurespace.style import (
    FAINT,
    INK,
    Look,
    elide,
    legend_above,
    line_handle,
    log_axis,
    new_figure,
    note_figure,
    recipe_looks,
    styled,
    title_panel,
)
from featurespace.tables import is_false

QUANTITIES = {
    "compression": "Compression C",
    "compression_ratio": "C over that of the layer before",
    "discrimination": "Discrimination D",
}
THEORY = ("law", "predicted", "lower", "upper")
COLUMNS = [
    *("dataset", "recipe", "quantity", "layer", "depth", "n_seeds", "measured", "low", "high"),
    *(*THEORY, "reliable", "n_not_converged"),
]


def tidy(tables: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Sum up what was measured over seeds, beside what theory says.

    Parameters
    ----------
    tables
        The `theory.csv` of the study's own deep linear networks, stacked.
    spec
        `recipes`: the study's recipes in order, sweeps' members among them, which are left out here.

    Returns
    -------
    DataFrame
        dataset, recipe, quantity (compression | compression_ratio | discrimination), layer, depth, n_seeds, measured
        (mean over seeds that converged: geometric but for discrimination), low, high (extremes over these seeds),
        law, predicted, lower, upper (of the theory), reliable (in all of these seeds), n_not_converged (seeds). A
        recipe of which no seed converged has one row, without numbers.
    """
    own = [recipe["name"] for recipe in spec["recipes"] if not recipe["population"]]
    if tables.empty:
        return pd.DataFrame(columns=COLUMNS)
    tables = tables[tables["recipe"].isin(own)]
    kept, failed = leave_out_unconverged(tables)
    kept = kept[kept["quantity"].isin(QUANTITIES)]
    kept = kept.assign(
        measured=kept["measured"].where(np.isfinite(kept["measured"])), doubtful=is_false(kept["reliable"])
    )
    rows = []
    for keys, part in kept.groupby(["dataset", "recipe", "quantity", "layer", "depth"], sort=False):
        values = part["measured"].dropna()
        if keys[2] != "discrimination":
            values = values[values > 0]
        mean = values.mean() if keys[2] == "discrimination" else np.exp(np.log(values).mean())
        rows.append(
            {
                **dict(zip(("dataset", "recipe", "quantity", "layer", "depth"), keys, strict=True)),
                "n_seeds": len(values),
                "measured": mean,
                "low": values.min(),
                "high": values.max(),
                **{name: part[name].mean() for name in THEORY},
                "reliable": not part["doubtful"].any(),
                "n_not_converged": failed[str(keys[1])],
            }
        )
    there = {row["recipe"] for row in rows}
    nothing = unconverged_rows(failed[~failed.index.isin(there)])
    frame = pd.concat([pd.DataFrame(rows, columns=COLUMNS), nothing], ignore_index=True) if len(nothing) else None
    frame = pd.DataFrame(rows, columns=COLUMNS) if frame is None else frame
    order = {name: i for i, name in enumerate(QUANTITIES)}
    frame = frame.assign(_quantity=frame["quantity"].map(order))
    return in_study_order(frame, spec["recipes"], "_quantity", "depth")[COLUMNS]


def describe(recipe: Mapping[str, Any], dataset: Mapping[str, Any]) -> str:
    """Write the numbers of a setting that enter the theory."""
    n = dataset["n_train"] / dataset["classes"]
    return (
        f"L = {recipe['model']['depth']}, width {recipe['model']['width']}, ξ = {recipe['init']['scale']:g}, "
        f"α = {recipe['output_scale']:g}, K = {dataset['classes']}, n = {n:g}"
    )


def _draw_quantity(axes: Axes, part: pd.DataFrame, quantity: str, look: Look) -> None:
    """Draw one measure against depth: points with bars, the prediction, the law, and the bounds as a grey band."""
    part = part.sort_values("depth")
    depth = part["depth"].to_numpy(float)
    lower, upper = part["lower"].to_numpy(float), part["upper"].to_numpy(float)
    bounded = np.isfinite(lower) & np.isfinite(upper)
    if bounded.any():
        axes.fill_between(depth, lower, upper, where=bounded, color=FAINT, alpha=0.14, linewidth=0, zorder=1)
    for bound in (lower, upper):
        if np.isfinite(bound).any():
            axes.plot(depth, bound, ":", color=FAINT, linewidth=0.9, zorder=2)
    axes.plot(depth, part["law"], "--", color=FAINT, linewidth=1.1, zorder=2)
    axes.plot(depth, part["predicted"], "-", color=INK, linewidth=1.0, zorder=3)
    known = part.dropna(subset=["measured"])
    axes.vlines(known["depth"], known["low"], known["high"], color=look.colour, linewidth=1.1, zorder=4)
    for reliable, some in known.groupby("reliable"):
        axes.plot(
            some["depth"],
            some["measured"],
            look.marker,
            color=look.colour,
            markerfacecolor=look.colour if reliable else "white",
            markersize=4.5,
            zorder=5,
        )
    shown = part[["measured", "low", "high", *THEORY]].to_numpy(float)
    least, most = np.nanmin(shown), np.nanmax(shown)
    if quantity == "compression":
        log_axis(axes, np.nanmin(shown[shown > 0]), most)
    else:
        margin = 0.06 * (most - least) or 0.05 * abs(most)
        axes.set_ylim(least - margin, most + margin)
    axes.set_xlim(depth.min() - 0.3, depth.max() + 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw C, its ratio and D against depth: a row a recipe."""
    drawn = frame.dropna(subset=["measured"])
    if drawn.empty:
        failed = ", ".join(dict.fromkeys(frame.loc[frame["n_not_converged"] > 0, "recipe"]))
        what = (
            f"of {failed} reached the loss at which it was to stop" if failed else "is among this study's own recipes"
        )
        return note_figure(f"No deep linear network, trained on classes with the squared error, {what}.")
    looks = recipe_looks(spec["recipes"])
    facts = {recipe["name"]: recipe for recipe in spec["recipes"]}
    datasets = {dataset["name"]: dataset for dataset in spec["datasets"]}
    names = list(dict.fromkeys(drawn["recipe"]))
    figure = new_figure(2.15 * len(names) + 0.3)
    grid = figure.subplots(len(names), len(QUANTITIES), squeeze=False)
    for row, name in zip(grid, names, strict=True):
        recipe = facts[name]
        here = frame[frame["recipe"] == name]
        for axes, quantity in zip(row, QUANTITIES, strict=True):
            part = here[here["quantity"] == quantity].dropna(subset=["measured"])
            axes.set_xlabel("Layer (0 = input)" if quantity == "compression" else "Layer")
            title_panel(axes, QUANTITIES[quantity])
            if part.empty:
                axes.text(0.5, 0.5, "no value", transform=axes.transAxes, ha="center", va="center", color=FAINT)
                axes.set_xticks([])
                axes.set_yticks([])
                continue
            _draw_quantity(axes, part, quantity, looks[name])
        about = describe(recipe, datasets[recipe["dataset"]])
        if here["predicted"].isna().all():
            about += "; no prediction"
        first, *_, last = QUANTITIES.values()
        head_row(row[0], elide(name, 34), first)
        end_row(row[-1], about, last)
    signs = [
        line_handle(
            "measured, mean over seeds" if (drawn["n_seeds"] > 1).any() else "measured", linestyle="", marker="o"
        )
    ]
    if (drawn["n_seeds"] > 1).any():
        signs.append(line_handle("least to greatest seed", linestyle="", marker="|", markersize=8))
    if not drawn["reliable"].astype(bool).all():
        signs.append(line_handle("C too small to be reliable", linestyle="", marker="o", markerfacecolor="white"))
    if drawn["predicted"].notna().any():
        signs += [
            line_handle("predicted from the data", color=INK, linewidth=1.0),
            line_handle("law for orthonormal rows", linestyle="--", linewidth=1.1),
            line_handle("bound", linestyle=":", linewidth=0.9),
            Patch(facecolor=FAINT, alpha=0.14, linewidth=0, label="between the bounds"),
        ]
    legend_above(figure, [], signs)
    name_unconverged(figure, frame)
    return figure
