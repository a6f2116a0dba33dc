"""C, D and numerical rank of networks with batch normalisation, in evaluation and in training mode."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from featurespace.figures.depths import (
    KEYS,
    at_the_ends,
    classifiers_of,
    count_not_converged,
    depth_axis,
    draw_layers,
    places,
    recipe_entries,
    value_axis,
)
from featurespace.figures.headings import start_panel
from featurespace.figures.series import datasets_of, geometric_mean, in_study_order
from featurespace.style import (
    legend_above,
    line_handle,
    new_figure,
    note_figure,
    recipe_looks,
    styled,
)
from featurespace.tables import is_false

# measure: title, what is on the vertical axis
PANELS = {
    "compression": ("Compression", "C"),
    "discrimination": ("Discrimination", "D"),
    "numerical_rank": ("Numerical rank", "singular values"),
}
MODES = ("evaluation", "training")
TRAINING_DASHES: Any = (0.0, (3.0, 1.6))
LEAST_COMPRESSION = 1e-8  # what `layers.csv` calls reliable
COLUMNS = [*KEYS, "measure", "which", "step", "epoch", "n_seeds", "value", "low", "high", "reliable", "n_not_converged"]


def tidy(layers: pd.DataFrame, networks: pd.DataFrame, runs: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Sum up, over seeds and at the last step, what both modes of batch normalisation give.

    Parameters
    ----------
    layers, networks
        The `layers.csv` (evaluation mode) and the `networks.csv` of all runs, stacked.
    runs
        `runs.csv`, for `converged`.
    spec
        `recipes`: the study's recipes in order, each with its `task`. Those whose networks normalise are shown.

    Returns
    -------
    DataFrame
        dataset, recipe, layer, depth, measure (compression | discrimination | numerical_rank), which (evaluation |
        training), step, epoch, n_seeds, value (mean over seeds: geometric for C), low, high (extremes over seeds),
        reliable (C is at least 1e-8 in every seed; C and D both rest on class means), n_not_converged (seeds).
    """
    layers, networks = (classifiers_of(table, spec["recipes"]) for table in (layers, networks))
    if networks.empty or layers.empty:
        return pd.DataFrame(columns=COLUMNS)
    identity = ["dataset", "recipe", "block", "seed", "step", "epoch", "layer", "depth"]
    training = networks[networks["quantity"].str.endswith("_training")]
    training = training.assign(quantity=training["quantity"].str.removesuffix("_training"))
    training = training.pivot_table(index=identity, columns="quantity", values="value", dropna=False, observed=True)
    training = training.dropna(how="all").reset_index()
    if training.empty:
        return pd.DataFrame(columns=COLUMNS)
    evaluation = layers[layers["recipe"].isin(training["recipe"])]
    parts = []
    for measure in PANELS:
        for which, table in zip(MODES, (evaluation, training), strict=True):
            frame = table.assign(doubtful=(table["compression"] < LEAST_COMPRESSION) & (measure != "numerical_rank"))
            if measure == "compression":
                frame[measure] = frame[measure].where(frame[measure] > 0)
            centre = geometric_mean if measure == "compression" else None
            part = at_the_ends(frame, measure, centre)
            parts.append(part[part["stage"] == "last"].assign(measure=measure, which=which))
    stacked = pd.concat(parts, ignore_index=True)
    stacked["n_not_converged"] = stacked["recipe"].map(count_not_converged(runs)).fillna(0).astype(int)
    stacked["_measure"] = stacked["measure"].map({name: i for i, name in enumerate(PANELS)})
    return in_study_order(stacked, spec["recipes"], "dataset", "_measure", "which", "depth")[COLUMNS]


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw a row a data set: C, D and rank against depth; evaluation mode whole, training mode dashed and hollow.

    Values in doubt are left out.
    """
    looks = recipe_looks(spec["recipes"])
    frame = frame[~is_false(frame["reliable"])].dropna(subset=["value"])
    blocks = datasets_of(spec["recipes"], frame["dataset"])
    if not blocks:
        return note_figure("No network of this study that learns classes has batch normalisation.")
    figure = new_figure(2.2 * len(blocks) + 0.25)
    grid = figure.subplots(len(blocks), len(PANELS), squeeze=False)
    for row, dataset in enumerate(blocks):
        rows = frame[frame["dataset"] == dataset]
        beside = places(list(dict.fromkeys(rows["recipe"])))
        for column, (measure, (title, label)) in enumerate(PANELS.items()):
            axes = grid[row, column]
            part = rows[rows["measure"] == measure]
            if not start_panel(axes, column, dataset, title, part):
                continue
            for name, curves in part.groupby("recipe", sort=False):
                look, aside = looks[str(name)], beside[str(name)]
                draw_layers(axes, curves[curves["which"] == "evaluation"], look, aside)
                dashed = replace(look, dashes=TRAINING_DASHES)
                draw_layers(axes, curves[curves["which"] == "training"], dashed, aside, hollow=True)
            depth_axis(axes, rows["depth"])
            value_axis(axes, part, logarithmic=measure == "compression")
            axes.set_ylabel(label)
    signs = [
        line_handle("evaluation mode", marker="o"),
        line_handle("training mode", linestyle=TRAINING_DASHES, marker="o", markerfacecolor="white"),
    ]
    if (frame["n_seeds"] > 1).any():
        signs.append(line_handle("least to greatest seed", linestyle="", marker="|", markersize=8))
    legend_above(figure, recipe_entries(frame, looks), signs)
    return figure
