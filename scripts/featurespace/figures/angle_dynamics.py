"""Angle of the feature layer's P-vector to four references, against epoch."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from featurespace.figures.series import CONTROLS, datasets_of, in_study_order, over_seeds
from featurespace.style import (
    draw_band,
    draw_ends,
    epoch_axis,
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
from featurespace.tables import is_false

REFERENCES = {
    "own": "to own last step",
    "seeds": "to own recipe's last steps, other seeds",
    "others": "to other recipes' last steps",
    "data": "to the data",
}
CENTRINGS = ("raw", "centred")
LIMITS = {15: 5, 30: 10, 45: 15, 60: 15, 90: 30}  # where an axis of angles may end, and the distance of its numbers


def tidy(tables: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Sum up the angle table over seeds, by kind of reference.

    Parameters
    ----------
    tables
        `angle_dynamics.csv`: one row a run, step, centring and reference.
    spec
        `recipes`: the study's recipes in order, each with name, dataset and task.

    Returns
    -------
    DataFrame
        dataset, recipe, reference (own | seeds | others | data), centring, step, epoch, n_seeds, angle_deg (mean over
        seeds), low_deg, high_deg (extremes over seeds), null_mean_deg (mean of the permutation null), n_undetermined
        (seeds whose P-vector the spectrum does not determine). `others` is, within a seed, the mean over the other
        recipes of the data set, controls (untrained, shuffled labels) left out, each counted once however many seeds
        it has. A run with one step has no angle to its own last step worth showing: it is left out of `own`.
    """
    recipes = spec["recipes"]
    controls = {recipe["name"] for recipe in recipes if recipe["task"] in CONTROLS}
    frame = tables[tables["recipe"].isin([recipe["name"] for recipe in recipes])].copy()
    same = frame["reference"] == frame["recipe"]
    frame["kind"] = frame["reference"].where(frame["reference"].isin(["own", "data"]), "others").mask(same, "seeds")
    frame = frame[~((frame["kind"] == "others") & frame["reference"].isin(controls))]
    single = frame.groupby("recipe")["step"].transform("nunique") == 1
    frame = frame[~((frame["kind"] == "own") & single)]
    frame["undetermined"] = is_false(frame["determined"]).astype(float) if "determined" in frame else 0.0

    run = ["dataset", "recipe", "kind", "centring", "seed", "step"]
    values = {"epoch": "mean", "angle_deg": "mean", "null_mean_deg": "mean", "undetermined": "max"}
    # within each reference recipe over its seeds first, so that one with many seeds weighs no more than another
    frame = frame.groupby([*run, "reference"], sort=False, as_index=False).agg(values)
    frame = frame.groupby(run, sort=False, as_index=False).agg(values)

    keys = ["dataset", "recipe", "kind", "centring"]
    # A run is at 0 from its own end on, whatever training does: such points are no part of a mean over seeds.
    ended = (frame["kind"] == "own") & (frame["angle_deg"] < 1e-9)
    angle = over_seeds(frame.assign(angle_deg=frame["angle_deg"].mask(ended)), keys, "angle_deg")
    angle = _end_own_at_zero(angle)
    null = over_seeds(frame, keys, "null_mean_deg")[[*keys, "step", "mean"]]
    vague = over_seeds(frame, keys, "undetermined")[[*keys, "step", "mean"]]
    joined = angle.merge(null.rename(columns={"mean": "null_mean_deg"}), on=[*keys, "step"])
    joined = joined.merge(vague.rename(columns={"mean": "vague"}), on=[*keys, "step"])
    joined["n_undetermined"] = (joined["vague"] * joined["n_seeds"]).round().fillna(0).astype(int)
    joined = joined.rename(
        columns={"kind": "reference", "mean": "angle_deg", "low": "low_deg", "high": "high_deg"}
    ).drop(columns="vague")
    joined["_reference"] = joined["reference"].map({name: i for i, name in enumerate(REFERENCES)})
    joined["_centring"] = joined["centring"].map({name: i for i, name in enumerate(CENTRINGS)})
    ordered = in_study_order(joined, recipes, "_reference", "_centring", "step")
    return ordered.drop(columns=["_reference", "_centring"])


def _end_own_at_zero(angle: pd.DataFrame) -> pd.DataFrame:
    """Cut each curve to the own last step where its first seed ends, and close it with the one point that is 0."""
    own = angle["kind"] == "own"
    curve = ["dataset", "recipe", "kind", "centring"]
    last = angle["step"] == angle.groupby(curve)["step"].transform("max")
    whole = angle["n_seeds"] == angle.groupby(curve)["n_seeds"].transform("max")
    n_seeds = angle.groupby(curve)["n_seeds"].transform("max")
    zero = own & last
    angle = angle.assign(n_seeds=angle["n_seeds"].mask(zero, n_seeds))
    angle.loc[zero, ["mean", "low", "high"]] = 0.0
    return angle[~own | whole | last]


def _limit(frame: pd.DataFrame) -> int:
    """Return the least limit of an axis that holds every angle, band and null."""
    most = frame[["angle_deg", "high_deg", "null_mean_deg"]].max().max()
    return next((limit for limit in LIMITS if limit >= most), 90)


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw the angles against epoch: a row a reference, raw beside centred, a block a data set."""
    recipes = spec["recipes"]
    looks = recipe_looks(recipes)
    frame = frame.dropna(subset=["angle_deg"])
    blocks = datasets_of(recipes, frame["dataset"])
    rows = [
        (dataset, reference)
        for dataset in blocks
        for reference in REFERENCES
        if ((frame["dataset"] == dataset) & (frame["reference"] == reference)).any()
    ]
    if not rows:
        return note_figure("No angle is known: every P-vector of this study is undefined.")
    figure = new_figure(1.65 * len(rows) + 0.45 * len(blocks))
    grid = figure.subplots(len(rows), 2, squeeze=False)
    drawn: dict[str, set[str]] = defaultdict(set)
    nulls = set()
    for row, (dataset, reference) in enumerate(rows):
        of_dataset = frame[frame["dataset"] == dataset]
        first_row = row == 0 or rows[row - 1][0] != dataset
        last_row = row == len(rows) - 1 or rows[row + 1][0] != dataset
        for column, centring in enumerate(CENTRINGS):
            axes = grid[row, column]
            ends = defaultdict(list)
            panel = of_dataset[(of_dataset["reference"] == reference) & (of_dataset["centring"] == centring)]
            for name, curve in panel.groupby("recipe", sort=False):
                look = looks[str(name)]
                columns = ("angle_deg", "low_deg", "high_deg")
                line = curve
                if reference == "own":
                    end = curve.sort_values("step").iloc[-1]
                    ends[end["epoch"]].append(look)
                    line = curve[curve["step"] < end["step"]]
                    kept = of_dataset.loc[of_dataset["recipe"] == name, "step"]
                    if not kept.between(line["step"].max(), end["step"], inclusive="neither").any():
                        line = curve  # all seeds end there
                drawn[str(name)].add(draw_band(axes, line, "epoch", columns, look))
                null = curve.dropna(subset=["null_mean_deg"])
                if reference == "own":
                    null = null[null["step"] < null["step"].max()]
                if len(null) > 1:
                    axes.plot(null["epoch"], null["null_mean_deg"], ":", color=look.colour, linewidth=0.9)
                    nulls.add("line")
                elif len(null) == 1:
                    axes.plot(null["epoch"], null["null_mean_deg"], "_", color=look.colour, markersize=7)
                    nulls.add("point")
                vague = curve[curve["n_undetermined"] > 0]
                axes.plot(vague["epoch"], vague["angle_deg"], "x", color=look.colour, markersize=3.5, zorder=6)
            for epoch, of_looks in ends.items():
                draw_ends(axes, float(epoch), 0.0, of_looks)
            limit = _limit(of_dataset[of_dataset["centring"] == centring])
            axes.set_ylim(0, limit)
            axes.set_yticks(range(0, limit + 1, LIMITS[limit]))
            epoch_axis(axes, of_dataset["epoch"], label=last_row)
            variant = f"{centring}, 0–{limit}°"
            title_panel(axes, REFERENCES[reference], variant, dataset if first_row and column == 0 else "")
            if column == 0:
                axes.set_ylabel("Angle (°)")
    lines = any("line" in kinds for kinds in drawn.values())
    signs = seed_handles(frame, lines)
    if "line" in nulls:
        signs.append(line_handle("permutation null, mean", linestyle=":"))
    if "point" in nulls:
        label = "the same, one step" if "line" in nulls else "permutation null, mean"
        signs.append(line_handle(label, linestyle="", marker="_", markersize=7))
    if (frame["reference"] == "own").any():
        signs.append(
            line_handle("0° by construction", linestyle="", marker="o", markerfacecolor="white", markersize=3.5)
        )
    if (frame["n_undetermined"] > 0).any():
        signs.append(line_handle("P-vector not determined", linestyle="", marker="x", markersize=3.5))
    legend_above(figure, recipe_handles(drawn, looks), signs)
    return figure
