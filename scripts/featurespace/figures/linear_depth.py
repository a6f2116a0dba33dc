"""What linear layers on top of nonlinear ones are worth: accuracy and compression against their number."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from featurespace.figures.convergence import leave_out_unconverged, name_unconverged, unconverged_rows
from featurespace.figures.depths import places
from featurespace.figures.headings import start_panel
from featurespace.figures.ladders import (
    at_end,
    draw_rungs,
    fit_range,
    in_words,
    ladders_of,
    level_axis,
    rungs,
    slope_by_seed,
)
from featurespace.statistics import Interval
from featurespace.style import (
    elide,
    legend_above,
    line_handle,
    log_axis,
    new_figure,
    note_figure,
    recipe_looks,
    styled,
)
from featurespace.tables import is_false

QUANTITIES = {  # title of its panel, and of its axis
    "test_accuracy": ("test accuracy", "Accuracy, %"),
    "train_accuracy": ("training accuracy", "Accuracy, %"),
    "compression": ("C of the deepest layer", "C"),
}
COLUMNS = [
    "dataset",
    "ladder",
    "quantity",
    "part",
    "recipe",
    "linear_layers",
    "seed",
    "n_seeds",
    "value",
    "low",
    "high",
    "reliable",
    "n_not_converged",
]


def _linear_layers(recipe: Mapping[str, Any]) -> tuple[float | None, Mapping[str, Any]]:
    """Return how many linear layers a hybrid has, and what it is besides."""
    if recipe["kind"] != "hybrid" or "model" not in recipe:  # one that is not probed has a name only
        return None, recipe
    model = recipe["model"]
    return model["linear"], {**recipe, "model": {key: value for key, value in model.items() if key != "linear"}}


def tidy(runs: pd.DataFrame, layers: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Gather the last steps of hybrids that differ in their number of linear layers alone.

    Parameters
    ----------
    runs
        `runs.csv`.
    layers
        The `layers.csv` of the runs, stacked.
    spec
        `recipes`: the study's own recipes in order, then the members of its sweeps. Those that are not probed have no
        `model`, and are passed over.

    Returns
    -------
    DataFrame
        dataset, ladder (the first of the recipes, which names them all), quantity (test_accuracy | train_accuracy, in
        percent | compression, of the deepest layer), part (seed | mean | slope), recipe, linear_layers, seed, n_seeds,
        value, low, high, reliable, n_not_converged (seeds of the recipe). A mean, geometric for compression, has
        Student's 95 % interval over seeds; so has a slope, the mean of the seeds' own: percentage points a layer, or
        for compression that of its logarithm, over values above 1e-8. Runs that did not converge are left out.
    """
    parts = []
    for ladder in ladders_of(spec["recipes"], _linear_layers):
        levels = {name: level for level, name in ladder.names.items()}
        kept, counts = leave_out_unconverged(runs[runs["recipe"].isin(list(levels))])
        values = {name: kept.assign(value=100 * kept[name]) for name in ("test_accuracy", "train_accuracy")}
        if len(layers):
            last = at_end(layers[layers["recipe"].isin(list(levels))], "last")
            last = last[last["depth"] == last.groupby("recipe")["depth"].transform("max")]
            last = last.merge(kept[["recipe", "seed"]], on=["recipe", "seed"])
            values["compression"] = last.assign(value=last["compression"], reliable=~is_false(last["reliable"]))
        for quantity, table in values.items():
            logarithmic = quantity == "compression"
            table = table.assign(level=table["recipe"].map(levels))
            rows = pd.DataFrame(rungs(table, logarithmic))
            if rows.empty:
                continue
            slope = slope_by_seed(rows, logarithmic)
            ends = {"value": slope.estimate, "low": slope.low, "high": slope.high}
            rows = pd.concat([rows, pd.DataFrame([{"part": "slope", "n_seeds": slope.n, **ends}])], ignore_index=True)
            rows = rows.assign(dataset=ladder.dataset, ladder=ladder.name, quantity=quantity)
            rows["n_not_converged"] = rows["recipe"].map(counts).fillna(0).astype(int)
            parts.append(rows.rename(columns={"level": "linear_layers"}))
        # a recipe of which no seed is left is still named
        gone = unconverged_rows(counts[~counts.index.isin(kept["recipe"])])
        gone["linear_layers"] = gone["recipe"].map(levels)
        parts.append(gone.assign(dataset=ladder.dataset, ladder=ladder.name))
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True).reindex(columns=COLUMNS) if filled else pd.DataFrame(columns=COLUMNS)


def _says(part: pd.DataFrame, quantity: str) -> str:
    """Say in words what a slope is."""
    rows = part[(part["quantity"] == quantity) & (part["part"] == "slope")]
    name = {"test_accuracy": "test", "train_accuracy": "training", "compression": "C"}[quantity]
    if rows.empty or not np.isfinite(rows["value"].iloc[0]):
        return f"{name}: too few layers or seeds for a slope"
    row = rows.iloc[0]
    interval = Interval(row["value"], row["low"], row["high"], int(row["n_seeds"]))
    if quantity != "compression":
        return f"{name} {in_words(interval, 'points per layer')}"
    text = f"C ×{np.exp(interval.estimate):.3g} per layer"
    if not np.isfinite(interval.low):
        return f"{text} (one seed)"
    return f"{text}\n(95 %: ×{np.exp(interval.low):.3g} to ×{np.exp(interval.high):.3g}, {interval.n} seeds)"


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw a row a data set and a column a quantity against the number of linear layers, slopes in words beside."""
    shown = frame[frame["part"].isin(["seed", "mean"])]
    if shown.empty:
        return note_figure(
            "No two hybrid networks of this study, of those that converged, differ in their number of linear layers "
            "alone; vary model.linear in a sweep."
        )
    looks = recipe_looks(spec["recipes"])
    blocks = list(dict.fromkeys(shown["dataset"]))
    entries: dict[str, list[Line2D]] = {}
    for dataset in blocks:
        entries[dataset] = []
        for name, part in frame[frame["dataset"] == dataset].groupby("ladder", sort=False):
            look = looks[str(name)]
            lines = [elide(str(name), 30), *(_says(part, quantity) for quantity in QUANTITIES)]
            entries[dataset].append(
                Line2D([], [], color=look.colour, linestyle=look.dashes, marker=look.marker, label="\n".join(lines))
            )
    heights = [max(2.1, 0.11 * sum(str(e.get_label()).count("\n") + 1.6 for e in entries[d]) + 0.4) for d in blocks]
    figure = new_figure(sum(heights) + 0.35 * len(blocks))
    grid = figure.subplots(
        len(blocks), len(QUANTITIES) + 1, squeeze=False, height_ratios=heights, width_ratios=[1, 1, 1, 1.15]
    )
    for row, dataset in enumerate(blocks):
        rows = shown[shown["dataset"] == dataset].rename(columns={"linear_layers": "level"})
        ladders = list(dict.fromkeys(rows["ladder"]))
        beside = places(ladders)
        for column, (quantity, (title, label)) in enumerate(QUANTITIES.items()):
            axes = grid[row, column]
            part = rows[rows["quantity"] == quantity]
            if not start_panel(axes, column, elide(dataset, 60), title, part):
                continue
            for name in ladders:
                draw_rungs(axes, part[part["ladder"] == name], looks[name], beside[name])
            level_axis(axes, rows["level"], "Linear layers")
            least, most = fit_range(part)
            if quantity == "compression":
                log_axis(axes, least, most)
            else:
                margin = max(0.06 * (most - least), 0.1)
                axes.set_ylim(least - margin, most + margin)
                axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
            axes.set_ylabel(label, labelpad=2)
        grid[row, -1].set_axis_off()
        grid[row, -1].legend(
            handles=entries[dataset], loc="upper left", fontsize=6.5, labelspacing=0.8, borderaxespad=0
        )
    signs = [line_handle("mean over seeds", marker="o")]
    if (shown["n_seeds"] > 1).any():
        signs.append(line_handle("its 95 % interval", linestyle="", marker="|", markersize=8))
    signs.append(line_handle("a seed", linestyle="", marker="o", markersize=2.5, alpha=0.5))
    if not shown["reliable"].astype(bool).all():
        signs.append(line_handle("C too small to be reliable", linestyle="", marker="o", markerfacecolor="white"))
    legend_above(figure, [], signs)
    name_unconverged(figure, frame)
    return figure
