"""Numerical rank of layers, and how well linear probes read the classes from them, against depth."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from featurespace.architectures import INPUT_LAYER
from featurespace.figures.depths import (
    at_the_ends,
    classifiers_of,
    count_not_converged,
    depth_axis,
    draw_layers,
    places,
    recipe_entries,
)
from featurespace.figures.headings import start_panel
from featurespace.figures.series import datasets_of, in_study_order
from featurespace.style import (
    INK,
    elide,
    legend_above,
    line_handle,
    new_figure,
    note_figure,
    recipe_looks,
    styled,
)

DATA = "data"
INPUT_MARKER = "*"  # a shape that no recipe has
PANELS = {  # title, and name of the axis
    "numerical_rank": ("numerical rank", "Rank"),
    "train_accuracy": ("linear probe, training split", "Accuracy, %"),
    "test_accuracy": ("linear probe, test split", "Accuracy, %"),
}
COLUMNS = [
    "dataset",
    "recipe",
    "layer",
    "depth",
    "measure",
    "stage",
    "step",
    "epoch",
    "n_seeds",
    "value",
    "low",
    "high",
    "n_not_converged",
]


def tidy(layers: pd.DataFrame, probes: pd.DataFrame, runs: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Sum up ranks and probes over seeds, at the first and the last step of each run.

    Parameters
    ----------
    layers
        The `layers.csv` of all origins, stacked; the data sets' own rows are those of the recipe `data`, depth 0.
    probes
        The `layer_probes.csv` of the runs, stacked. Rows of other data sets than the recipe's own are left aside.
    runs
        `runs.csv`, for `converged`.
    spec
        `recipes`: the study's recipes in order.

    Returns
    -------
    DataFrame
        dataset, recipe (`data`: the input), layer, depth, measure (numerical_rank | train_accuracy | test_accuracy,
        in percent), stage (first | last), step, epoch, n_seeds, value (mean over seeds), low, high (extremes),
        n_not_converged (seeds; 0 for the data).
    """
    if probes.empty:
        return pd.DataFrame(columns=COLUMNS)
    own = probes[probes["target"] == probes["dataset"]]
    pixels = own[own["layer"] == INPUT_LAYER].drop_duplicates("dataset").assign(recipe=DATA, step=0, epoch=0.0)
    own = pd.concat([own[own["layer"] != INPUT_LAYER], pixels], ignore_index=True)
    own = own.assign(**{name: 100 * own[name] for name in ("train_accuracy", "test_accuracy")})
    there = {DATA, *classifiers_of(own, spec["recipes"])["recipe"]}
    tables = {"numerical_rank": layers, "train_accuracy": own, "test_accuracy": own}
    parts = []
    for measure, table in tables.items():
        table = table[table["recipe"].isin(there) & table["dataset"].isin(own["dataset"])] if len(table) else table
        if len(table):
            parts.append(at_the_ends(table.assign(doubtful=False), measure).assign(measure=measure))
    frame = pd.concat(parts, ignore_index=True).dropna(subset=["value"])
    frame["n_not_converged"] = frame["recipe"].map(count_not_converged(runs)).fillna(0).astype(int)
    frame["_measure"] = frame["measure"].map({name: i for i, name in enumerate(PANELS)})
    return in_study_order(frame, spec["recipes"], "dataset", "_measure", "stage", "depth")[COLUMNS]


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw a row a data set: rank and both accuracies against depth, at the last step, and at the first one pale."""
    looks = recipe_looks(spec["recipes"])
    blocks = datasets_of(spec["recipes"], frame.loc[frame["recipe"] != DATA, "dataset"])
    if not blocks:
        return note_figure(
            "No layer was probed: this study has no network that learns the classes of data with a test split."
        )
    frame = frame.assign(reliable=True)
    figure = new_figure(2.05 * len(blocks) + 0.25)
    grid = figure.subplots(len(blocks), len(PANELS), squeeze=False)
    for row, dataset in enumerate(blocks):
        rows = frame[frame["dataset"] == dataset]
        names = [name for name in dict.fromkeys(rows["recipe"]) if name != DATA]
        beside = places(names)
        accuracies = rows.loc[rows["measure"] != "numerical_rank", ["low", "high"]]
        for column, (measure, (title, label)) in enumerate(PANELS.items()):
            axes = grid[row, column]
            part = rows[rows["measure"] == measure]
            if not start_panel(axes, column, elide(dataset, 60), title, part):
                continue
            start = part[part["recipe"] == DATA]
            for name in names:
                for stage in ("first", "last"):
                    curve = part[(part["recipe"] == name) & (part["stage"] == stage)]
                    draw_layers(axes, curve, looks[name], beside[name], faint=stage == "first")
                    if stage == "last" and len(start) and len(curve):
                        nearest = curve.sort_values("depth").iloc[0]
                        axes.plot(
                            [0, nearest["depth"] + beside[name]],
                            [start["value"].iloc[0], nearest["value"]],
                            color=looks[name].colour,
                            linewidth=0.7,
                            alpha=0.45,
                            zorder=2,
                        )
            axes.plot(start["depth"], start["value"], INPUT_MARKER, color=INK, markersize=8, zorder=5)
            depth_axis(axes, rows["depth"])
            axes.set_xlabel("Layer (0 = input)" if len(start) else "Layer")
            if measure == "numerical_rank":
                axes.set_ylim(0, 1.06 * part["high"].max())
                axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=True))
            else:  # both splits on one scale: their distance is what is learnt by heart
                margin = max(0.06 * (accuracies["high"].max() - accuracies["low"].min()), 1.0)
                axes.set_ylim(accuracies["low"].min() - margin, min(accuracies["high"].max() + margin, 102))
                axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
            axes.set_ylabel(label, labelpad=2)
    signs = [line_handle("last step", marker="o")]
    if ((frame["stage"] == "first") & (frame["recipe"] != DATA)).any():
        signs.append(line_handle("first step (pale)", linewidth=0.8, marker="o", markersize=2.5, color="#c4c4c4"))
    if (frame["n_seeds"] > 1).any():
        signs.append(line_handle("least to greatest seed", linestyle="", marker="|", markersize=8))
    if (frame["recipe"] == DATA).any():
        signs.append(line_handle("input (the data)", linestyle="", marker=INPUT_MARKER, color=INK, markersize=8))
    legend_above(figure, recipe_entries(frame, looks), signs)
    return figure
