"""Angle of the feature layer's P-vector to where training ends, over the first iterations."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from featurespace.figures.panels import CENTRINGS, FAMILIES, angle_axis, angle_limit, group_of
from featurespace.figures.series import datasets_of, in_study_order, over_seeds
from featurespace.style import (
    FAINT,
    draw_band,
    legend_above,
    line_handle,
    new_figure,
    note_figure,
    recipe_handles,
    recipe_looks,
    seed_handles,
    styled,
    title_panel,
)

EPOCHS = 2.0  # what counts as early
TITLES = {"own": "to own last step", "others": "to the references' last steps"}
COLUMNS = (
    "dataset",
    "recipe",
    "reference",
    "centring",
    "step",
    "epoch",
    "steps_per_epoch",
    "n_seeds",
    "angle_deg",
    "low_deg",
    "high_deg",
    "null_mean_deg",
)


def tidy(tables: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Sum up the angles of the first two epochs over seeds.

    Parameters
    ----------
    tables
        `angle_dynamics.csv`: one row a run, step, centring and reference.
    spec
        `recipes`: the study's recipes in order, each with name, dataset and task; `references`, if there: the recipes
        to compare with, else all trained ones that the table has.

    Returns
    -------
    DataFrame
        dataset, recipe, reference (own | others), centring, step (iterations), epoch, steps_per_epoch (iterations an
        epoch), n_seeds, angle_deg (mean over seeds), low_deg, high_deg (extremes over seeds), null_mean_deg (mean of
        the permutation null). `others` is, within a seed, the mean over the reference recipes other than the run's
        own, each counted once however many seeds it has; untrained networks, noise and shuffled labels are no
        references. Recipes with fewer than two kept steps in the first two epochs are left out.
    """
    recipes = spec["recipes"]
    groups = group_of(recipes)
    asked = spec.get("references") or list(groups)
    references = [name for name in asked if groups.get(name) in FAMILIES]
    early = tables[tables["recipe"].isin([recipe["name"] for recipe in recipes]) & (tables["epoch"] <= EPOCHS)]
    other = early["reference"].isin(references) & (early["reference"] != early["recipe"])
    frame = early[other | (early["reference"] == "own")].copy()
    frame = frame[frame.groupby(["recipe", "seed"])["step"].transform("nunique") > 1]
    frame["from"] = frame["reference"]
    frame["reference"] = frame["reference"].where(frame["reference"] == "own", "others")
    keys = ["dataset", "recipe", "reference", "centring"]
    run = [*keys, "seed", "step"]
    values = ["epoch", "angle_deg", "null_mean_deg"]
    frame = frame.groupby([*run, "from"], sort=False, as_index=False)[values].mean()
    frame = frame.groupby(run, sort=False, as_index=False)[values].mean()
    # where training ends within the first epochs, a run is at 0 from its end on whatever training does
    frame = frame[~((frame["reference"] == "own") & (frame["angle_deg"] < 1e-9))]
    if frame.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    moved = frame[frame["epoch"] > 0]
    rate = (moved["step"] / moved["epoch"]).groupby([moved["dataset"], moved["recipe"]]).median().rename("rate")
    angle = over_seeds(frame, keys, "angle_deg")
    null = over_seeds(frame, keys, "null_mean_deg").rename(columns={"mean": "null_mean_deg"})
    joined = angle.merge(null[[*keys, "step", "null_mean_deg"]], on=[*keys, "step"])
    joined = joined.merge(rate.reset_index(), on=["dataset", "recipe"], how="left").rename(
        columns={"mean": "angle_deg", "low": "low_deg", "high": "high_deg", "rate": "steps_per_epoch"}
    )
    joined["_reference"] = joined["reference"].map({name: i for i, name in enumerate(TITLES)})
    joined["_centring"] = joined["centring"].map({name: i for i, name in enumerate(CENTRINGS)})
    return in_study_order(joined, recipes, "_reference", "_centring", "step")[list(COLUMNS)]


def _step_axis(axes: Axes, steps: pd.Series, label: bool) -> None:
    """Make the horizontal axis logarithmic in iterations, with 0 at a distance of its own from the first kept one."""
    first = float(steps[steps > 0].min()) if (steps > 0).any() else 1.0
    last = max(float(steps.max()), first)
    axes.set_xscale("symlog", linthresh=first, linscale=0.35)
    decades = [10.0**k for k in range(int(np.floor(np.log10(last))) + 1) if 10.0**k >= first]
    axes.xaxis.set_major_locator(FixedLocator([0.0, *(decades if len(decades) > 1 else [first, last])]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}".replace(",", "\u2009")))
    axes.set_xlim(-0.15 * first, last * 1.15)
    axes.tick_params(labelbottom=label)
    if label:
        axes.set_xlabel("Iteration (logarithmic, with 0)")


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw the angles against iterations: to the own end, and to the references; raw beside centred."""
    recipes = spec["recipes"]
    looks = recipe_looks(recipes)
    frame = frame.dropna(subset=["angle_deg"])
    blocks = datasets_of(recipes, frame["dataset"])
    rows = [
        (dataset, reference)
        for dataset in blocks
        for reference in TITLES
        if ((frame["dataset"] == dataset) & (frame["reference"] == reference)).any()
    ]
    if not rows:
        return note_figure("No step was kept in the first two epochs, apart from the initialisation.")
    figure = new_figure(2.1 * len(rows) + 0.45 * len(blocks))
    grid = figure.subplots(len(rows), 2, squeeze=False)
    drawn: dict[str, set[str]] = defaultdict(set)
    for row, (dataset, reference) in enumerate(rows):
        of_dataset = frame[frame["dataset"] == dataset]
        first_row = row == 0 or rows[row - 1][0] != dataset
        last_row = row == len(rows) - 1 or rows[row + 1][0] != dataset
        epochs = of_dataset["steps_per_epoch"].dropna().round().unique()
        for column, centring in enumerate(CENTRINGS):
            axes = grid[row, column]
            of_column = of_dataset[of_dataset["centring"] == centring]
            panel = of_column[of_column["reference"] == reference]
            limit = angle_limit(of_column["high_deg"], of_column["null_mean_deg"])
            for name, curve in panel.groupby("recipe", sort=False):
                look = looks[str(name)]
                drawn[str(name)].add(draw_band(axes, curve, "step", ("angle_deg", "low_deg", "high_deg"), look))
                axes.plot(curve["step"], curve["angle_deg"], look.marker, color=look.colour, markersize=2.6)
                axes.plot(curve["step"], curve["null_mean_deg"], ":", color=look.colour, linewidth=0.7)
            for step in epochs:
                axes.axvline(step, color=FAINT, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
            angle_axis(axes, limit)
            _step_axis(axes, of_dataset["step"], last_row)
            heading = dataset if first_row and column == 0 else ""
            title_panel(axes, TITLES[reference], f"{centring}, 0–{limit}°", heading)
            if column == 0:
                axes.set_ylabel("Angle (°)")
    signs: list[Artist] = [
        *seed_handles(frame),
        line_handle("permutation null, mean", linestyle=":", linewidth=0.8),
        line_handle("end of epoch 1", linestyle="", marker="|", markersize=9),
    ]
    legend_above(figure, recipe_handles(drawn, looks), signs)
    return figure
