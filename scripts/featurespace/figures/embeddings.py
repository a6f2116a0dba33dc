"""Maps of layers made by UMAP, samples coloured by class, with the silhouettes of the features themselves."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from featurespace.figures.headings import head_row
from featurespace.figures.series import in_study_order
from featurespace.style import (
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
from featurespace.tables import is_false

COLUMNS = [
    "dataset",
    "recipe",
    "seed",
    "step",
    "epoch",
    "layer",
    "depth",
    "sample",
    "label",
    "class_name",
    "x",
    "y",
    "silhouette",
    "silhouette_2d",
    "converged",
]
DOTS = 1.5  # their zorder
LEAST_COLUMNS = 3  # fewer maps are no larger
NAMED, LETTERS = 12, 12  # more classes, or longer names, would hide a map on which they stood


def tidy(tables: pd.DataFrame, runs: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Return the maps in the study's order.

    Parameters
    ----------
    tables
        The `embedding.csv` of the first blocks, stacked; may be empty.
    runs
        `runs.csv`, for `converged`.
    spec
        `recipes`: the study's recipes in order.

    Returns
    -------
    DataFrame
        dataset, recipe, seed, step, epoch, layer, depth, sample, label, class_name, x, y, silhouette (of the layer's
        features on these samples), silhouette_2d (of the map), converged (missing where no loss was to be reached),
        ordered by recipe, depth, class and sample.
    """
    if tables.empty:
        return pd.DataFrame(columns=COLUMNS)
    tables = tables.merge(runs[["recipe", "seed", "converged"]], on=["recipe", "seed"], how="left")
    return in_study_order(tables, spec["recipes"], "depth", "label", "sample")[COLUMNS]


def _draw_map(axes: Axes, part: pd.DataFrame, looks: Mapping[str, Look]) -> None:
    """Draw one map: dots by class and, if they are few and short, the name of each above its middle."""
    for name, some in part.groupby("class_name", sort=False):
        axes.plot(
            some["x"],
            some["y"],
            looks[str(name)].marker,
            color=looks[str(name)].colour,
            linestyle="",
            markersize=1.7 if len(part) > 600 else 2.6,
            markeredgewidth=0,
            alpha=0.7,
            zorder=DOTS,
        )
    if len(looks) <= NAMED and max(map(len, looks)) <= LETTERS:
        for name, some in part.groupby("class_name", sort=False):
            axes.annotate(
                str(name),
                (some["x"].median(), some["y"].median()),
                xytext=(0, 2.5),  # above it: a class that has collapsed is no larger than its name
                textcoords="offset points",
                ha="center",
                va="bottom",
                size=5.5,
                color=INK,
                bbox={"facecolor": "white", "alpha": 0.65, "linewidth": 0, "pad": 0.4},
                zorder=5,
            ).set_in_layout(False)
    axes.set_rasterization_zorder(DOTS + 0.5)  # thousands of dots as such would make the file too large to open
    axes.set_xticks([])
    axes.set_yticks([])
    axes.margins(x=0.13, y=0.08)
    axes.spines[["top", "right"]].set_visible(True)


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw a row a recipe and a column a depth; classes of one data set look the same in all of them."""
    if frame.empty:
        return note_figure(
            "No layer was mapped: no network of this study learns classes and has one of the depths asked for."
        )
    depths = sorted(frame["depth"].unique())
    rows = list(dict.fromkeys(frame["recipe"]))
    n_columns = max(len(depths), LEAST_COLUMNS)
    side = 7.5 / n_columns - 0.1
    figure = new_figure(len(rows) * (side + 0.55))
    grid = figure.subplots(len(rows), n_columns, squeeze=False)
    several = frame["dataset"].nunique() > 1
    looks_of = {}
    for dataset, part in frame.groupby("dataset", sort=False):
        names = part.drop_duplicates("label").sort_values("label")["class_name"]
        looks_of[dataset] = recipe_looks([{"name": name} for name in names])
    for row, recipe in enumerate(rows):
        own = frame[frame["recipe"] == recipe]
        dataset = own["dataset"].iloc[0]
        heading = elide(f"{recipe} ({dataset})" if several else recipe, 60)
        if is_false(own["converged"]).any():
            heading += ", not converged"
        for column in range(n_columns):
            axes = grid[row, column]
            part = own[own["depth"] == depths[column]] if column < len(depths) else own.iloc[:0]
            if part.empty:
                axes.remove()
                continue
            _draw_map(axes, part, looks_of[dataset])
            axes.set_box_aspect(1)
            number = f"{part['silhouette'].iloc[0]:+.2f}".replace("-", "−")
            title = f"{elide(part['layer'].iloc[0], 14)}\nsilhouette {number}"
            if part["depth"].iloc[0] == own["depth"].min():
                head_row(axes, heading, title)
            else:
                title_panel(axes, title)
    entries: list[Line2D] = []
    for dataset, looks in looks_of.items():
        entries += [
            Line2D(
                [],
                [],
                color=look.colour,
                marker=look.marker,
                linestyle="",
                markersize=4,
                markeredgewidth=0,
                label=elide(f"{name} ({dataset})" if several else name, 34),
            )
            for name, look in looks.items()
        ]
    if all(len(looks) > NAMED for looks in looks_of.values()) and len(entries) > 24:
        entries = []
    legend_above(figure, entries, [] if entries else [line_handle("a sample", linestyle="", marker="o")])
    return figure
