"""Loss and accuracy, or an autoencoder's relative loss, against epoch."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from featurespace.figures.series import datasets_of, geometric_mean, in_study_order, over_seeds
from featurespace.style import (
    draw_band,
    epoch_axis,
    legend_above,
    line_handle,
    log_axis,
    new_figure,
    note_figure,
    recipe_handles,
    recipe_looks,
    seed_handles,
    styled,
    title_panel,
)

# panel: its title, the label of its axis
PANELS = {
    "classification loss": ("loss, classifiers", "Loss"),
    "cross-entropy loss": ("loss, classifiers", "Cross-entropy"),
    "squared-error loss": ("loss, classifiers", "Squared error to one-hot labels"),
    "accuracy": ("accuracy", "Accuracy (%)"),
    "reconstruction loss": ("loss, autoencoders", "Squared error a pixel"),
    "relative loss": ("loss over that of the mean image", "Ratio"),
}
CLASSIFYING = tuple(PANELS)[:3]  # the first where a spec does not say which
TRAIN_DASHES = (0, (3.5, 1.2))


def tidy(tables: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Sum up the histories over seeds.

    Parameters
    ----------
    tables
        The `history.csv` of all runs, stacked.
    spec
        `recipes`: the study's recipes in order, each with name, dataset, task and, if known, loss (cross-entropy |
        mse; None of untrained classifiers, which are evaluated by cross-entropy).

    Returns
    -------
    DataFrame
        dataset, recipe, panel (cross-entropy loss | squared-error loss, or classification loss if it is not known
        which; accuracy | reconstruction loss | relative loss), split (train | test; empty for relative loss), step,
        epoch, n_seeds, value (mean over seeds, geometric for losses), low, high (extremes over seeds). Accuracy is in
        percent. A value that no seed has is left out.
    """
    keys = ["dataset", "recipe", "panel", "split"]
    columns = [*keys, "step", "epoch", "n_seeds", "value", "low", "high"]
    if tables.empty:  # no recipe has a network
        return pd.DataFrame(columns=columns)
    kinds = {
        recipe["name"]: CLASSIFYING[0 if "loss" not in recipe else 2 if recipe["loss"] == "mse" else 1]
        for recipe in spec["recipes"]
    }
    tasks = {recipe["name"]: recipe["task"] for recipe in spec["recipes"]}
    frame = tables[tables["recipe"].isin(list(tasks))]
    rebuilds = frame["recipe"].map(tasks).isin(["reconstruct", "denoise"]) | frame["relative_loss"].notna().groupby(
        frame["recipe"]
    ).transform("any")
    pieces = []
    for split in ("train", "test"):
        loss = frame.assign(split=split, value=frame[f"{split}_loss"])
        pieces.append(loss[rebuilds].assign(panel="reconstruction loss"))
        pieces += [loss[~rebuilds & (loss["recipe"].map(kinds) == panel)].assign(panel=panel) for panel in CLASSIFYING]
        pieces.append(frame.assign(split=split, value=100 * frame[f"{split}_accuracy"], panel="accuracy"))
    pieces.append(frame.assign(split="", value=frame["relative_loss"], panel="relative loss"))
    parts = []
    for piece in pieces:
        is_loss = not piece.empty and "loss" in piece["panel"].iloc[0]
        if is_loss:
            # losses are drawn on a logarithmic axis, where a zero has no place
            piece = piece.assign(value=piece["value"].where(piece["value"] > 0))
        part = over_seeds(piece, keys, "value", geometric_mean if is_loss else None)
        parts.append(part.rename(columns={"mean": "value"}).dropna(subset=["value"]))
    filled = [part for part in parts if len(part)]
    if not filled:
        return pd.DataFrame(columns=columns)
    stacked = pd.concat(filled, ignore_index=True)
    stacked["_panel"] = stacked["panel"].map({name: i for i, name in enumerate(PANELS)})
    return in_study_order(stacked, spec["recipes"], "_panel", "split", "step")[columns]


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw the training curves: a row a data set and kind of task, the loss and beside it what it is worth."""
    looks = recipe_looks(spec["recipes"])
    rows = []
    for dataset in datasets_of(spec["recipes"], frame["dataset"]):
        there = set(frame.loc[frame["dataset"] == dataset, "panel"])
        losses = [panel for panel in CLASSIFYING if panel in there]
        for pair in ((*losses[:1], "accuracy"), losses[1:], ("reconstruction loss", "relative loss")):
            shown = [panel for panel in pair if panel in there]
            if shown:
                rows.append((dataset, shown))
    if not rows:
        return note_figure("No loss was recorded: nothing in this study is trained.")
    blocks = len({dataset for dataset, _ in rows})
    figure = new_figure(2.0 * len(rows) + 0.3 * blocks)
    grid = figure.add_gridspec(len(rows), 2)
    drawn: dict[str, set[str]] = defaultdict(set)
    for row, (dataset, shown) in enumerate(rows):
        of_dataset = frame[frame["dataset"] == dataset]
        first_row = row == 0 or rows[row - 1][0] != dataset
        for column, panel in enumerate(shown):
            axes = figure.add_subplot(grid[row, :] if len(shown) == 1 else grid[row, column])
            part = of_dataset[of_dataset["panel"] == panel]
            for (name, split), curve in part.groupby(["recipe", "split"], sort=False):
                look = looks[str(name)]
                train = split == "train"
                how = draw_band(
                    axes,
                    curve,
                    "epoch",
                    ("value", "low", "high"),
                    look,
                    dashes=TRAIN_DASHES if train else None,
                    width=1.0 if train else 1.4,
                    zorder=3 if train else 4,
                )
                drawn[str(name)].add(how)
            if panel == "accuracy":
                axes.set_ylim(-2, 102)
            else:
                least, most = float(part["low"].min()), float(part["high"].max())
                if panel == "relative loss":
                    most = max(most, 1.0)
                    axes.axhline(1.0, color="#6b6b6b", linewidth=0.7, zorder=1)
                log_axis(axes, least, most)
            title, label = PANELS[panel]
            axes.set_ylabel(label)
            epoch_axis(axes, of_dataset["epoch"] if part["epoch"].max() == 0 else part["epoch"])
            title_panel(axes, title, "", dataset if first_row and column == 0 else "")
    lines = any("line" in kinds for kinds in drawn.values())
    marks = {} if lines else {"linestyle": "", "marker": "o"}
    signs: list[Artist] = []
    if (frame["split"] == "test").any() or (frame["panel"] == "relative loss").any():
        signs.append(line_handle("test", **marks))
    if (frame["split"] == "train").any():
        train_marks = {"linestyle": TRAIN_DASHES, "linewidth": 1.0} if lines else {**marks, "markerfacecolor": "white"}
        signs.append(line_handle("training", **train_marks))
    signs += seed_handles(frame, lines)[1:]
    legend_above(figure, recipe_handles(drawn, looks), signs)
    return figure
