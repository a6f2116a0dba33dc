"""Angle of each family's networks to a few reference networks' last steps, against epoch: the panel of E2."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from featurespace.figures.panels import (
    CENTRINGS,
    FAMILIES,
    LIMITS,
    angle_axis,
    angle_limit,
    group_of,
    mean_and_sd,
    sd_handles,
)
from featurespace.figures.series import datasets_of, in_study_order, over_seeds, recipes_of
from featurespace.style import (
    Look,
    draw_band,
    draw_ends,
    elide,
    epoch_axis,
    legend_above,
    line_handle,
    new_figure,
    note_figure,
    recipe_handles,
    recipe_looks,
    styled,
    title_panel,
)

COLUMNS = (
    "dataset",
    "recipe",
    "panel",
    "reference",
    "which",
    "centring",
    "step",
    "epoch",
    "n_seeds",
    "angle_deg",
    "sd_deg",
    "null_mean_deg",
)


def choose_references(spec: Mapping[str, Any], dataset: str, present: set[str]) -> list[str]:
    """Name the references of a data set: those asked for; the first recipe of each family if that is more than three.

    `present` holds the references that the table has rows of.
    """
    groups = group_of(spec["recipes"])
    asked = spec.get("references") or list(groups)
    here = [name for name in recipes_of(spec["recipes"], dataset) if groups[name] in FAMILIES]
    possible = [name for name in asked if name in here and name in present]
    if len(possible) <= 3 and spec.get("references"):
        return possible
    firsts = (next((name for name in possible if groups[name] == family), None) for family in FAMILIES)
    return [name for name in firsts if name is not None]


def tidy(tables: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Sum up the angles to the reference networks over seeds.

    Parameters
    ----------
    tables
        `angle_dynamics.csv`: one row a run, step, centring and reference.
    spec
        `recipes`: the study's recipes in order, each with name, dataset and task; `references`: names of recipes, or
        None for the first recipe of each family.

    Returns
    -------
    DataFrame
        dataset, recipe, panel (family of the recipe: supervised | reconstruction | self-supervised), reference, which
        (network: the reference's other seeds, or another recipe | own: the run's own last step, at that step only),
        centring, step, epoch, n_seeds, angle_deg (mean over the reference's seeds, then over seeds), sd_deg (over
        seeds), null_mean_deg (mean of the permutation null). Untrained networks, noise and shuffled labels belong to
        no family and are left out.
    """
    recipes = spec["recipes"]
    groups = group_of(recipes)
    parts = []
    for dataset in datasets_of(recipes, tables["dataset"]):
        here = tables[(tables["dataset"] == dataset) & (tables["recipe"].map(groups).isin(FAMILIES))]
        references = choose_references(spec, dataset, set(here["reference"]))
        own = here[(here["reference"] == "own") & here["recipe"].isin(references)]
        own = own[own["step"] == own.groupby(["recipe", "seed"])["step"].transform("max")]
        single = own.groupby("recipe")["recipe"].transform("size") == 0
        both = [
            here[here["reference"].isin(references)].assign(which="network"),
            own[~single].assign(reference=own["recipe"], which="own"),
        ]
        frame = pd.concat([part for part in both if len(part)]) if any(map(len, both)) else here.iloc[:0]
        if frame.empty:
            continue
        keys = ["dataset", "recipe", "reference", "which", "centring"]
        # over the reference's seeds first: the spread that is shown is that of the networks being trained
        run = [*keys, "seed", "step"]
        frame = frame.groupby(run, sort=False, as_index=False)[["epoch", "angle_deg", "null_mean_deg"]].mean()
        angle = mean_and_sd(frame, keys, "angle_deg").rename(columns={"mean": "angle_deg", "sd": "sd_deg"})
        null = over_seeds(frame, keys, "null_mean_deg").rename(columns={"mean": "null_mean_deg"})
        part = angle.merge(null[[*keys, "step", "null_mean_deg"]], on=[*keys, "step"])
        part["panel"] = part["recipe"].map(groups)
        part["_reference"] = part["reference"].map({name: i for i, name in enumerate(references)})
        part["_centring"] = part["centring"].map({name: i for i, name in enumerate(CENTRINGS)})
        parts.append(in_study_order(part, recipes, "_reference", "which", "_centring", "step")[list(COLUMNS)])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))


def _draw_panel(axes: Axes, panel: pd.DataFrame, looks: Mapping[str, Look], drawn: dict[str, set[str]]) -> None:
    """Draw the curves of one family to one reference, each with its null, and the reference's own last point."""
    for name, curve in panel[panel["which"] == "network"].groupby("recipe", sort=False):
        look = looks[str(name)]
        sd = curve["sd_deg"].fillna(0.0)
        band = curve.assign(low=(curve["angle_deg"] - sd).clip(lower=0), high=(curve["angle_deg"] + sd).clip(upper=90))
        drawn[str(name)].add(draw_band(axes, band, "epoch", ("angle_deg", "low", "high"), look))
        null = curve.dropna(subset=["null_mean_deg"])
        style = {"linestyle": ":"} if len(null) > 1 else {"linestyle": "", "marker": "_", "markersize": 7}
        axes.plot(null["epoch"], null["null_mean_deg"], color=look.colour, linewidth=0.8, **style)
    for name, point in panel[panel["which"] == "own"].groupby("recipe", sort=False):
        last = point.sort_values("step").iloc[-1]
        draw_ends(axes, float(last["epoch"]), float(last["angle_deg"]), [looks[str(name)]])
        drawn[str(name)].add("line")


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw a block a data set and centring: a row a reference, a column a family of networks being trained."""
    recipes = spec["recipes"]
    looks = recipe_looks(recipes)
    frame = frame.dropna(subset=["angle_deg"])
    blocks = [
        (dataset, centring)
        for dataset in datasets_of(recipes, frame["dataset"])
        for centring in CENTRINGS
        if ((frame["dataset"] == dataset) & (frame["centring"] == centring)).any()
    ]
    if not blocks:
        return note_figure("No angle to a reference network is known: no trained recipe serves as one.")
    chosen = {dataset: list(dict.fromkeys(_in_order(frame, dataset, spec))) for dataset, _ in blocks}
    rows = [(dataset, centring, reference) for dataset, centring in blocks for reference in chosen[dataset]]
    families = [family for family in FAMILIES if (frame["panel"] == family).any()]
    figure = new_figure(1.35 * len(rows) + 0.55 * len(blocks))
    grid = figure.subplots(len(rows), len(families), squeeze=False)
    drawn: dict[str, set[str]] = defaultdict(set)
    for row, (dataset, centring, reference) in enumerate(rows):
        of_block = frame[(frame["dataset"] == dataset) & (frame["centring"] == centring)]
        limit = angle_limit(of_block["angle_deg"] + of_block["sd_deg"].fillna(0.0), of_block["null_mean_deg"])
        first_row = row == 0 or rows[row - 1][:2] != (dataset, centring)
        last_row = row == len(rows) - 1 or rows[row + 1][:2] != (dataset, centring)
        for column, family in enumerate(families):
            axes = grid[row, column]
            panel = of_block[(of_block["reference"] == reference) & (of_block["panel"] == family)]
            if panel.empty:
                axes.set_axis_off()
                if first_row and column == 0:
                    title_panel(axes, "", "", f"{dataset}, {centring}")
                continue
            _draw_panel(axes, panel, looks, drawn)
            angle_axis(axes, min(max(limit, 5), max(LIMITS)))
            epoch_axis(axes, of_block["epoch"], label=last_row)
            axes.tick_params(labelleft=column == 0)
            heading = f"{dataset}, {centring}" if first_row and column == 0 else ""
            title_panel(axes, family if first_row else "", "", heading)
            if column == 0:
                axes.set_ylabel(f"Angle (°) to\n{elide(reference, 22)}")
    signs: list[Artist] = [*sd_handles(frame), line_handle("permutation null, mean", linestyle=":", linewidth=0.8)]
    if (frame["which"] == "own").any():
        own = {"linestyle": "", "marker": "o", "markerfacecolor": "white", "markersize": 3.5}
        signs.append(line_handle("reference's own last step: 0°", **own))
    legend_above(figure, recipe_handles(drawn, looks), signs)
    return figure


def _in_order(frame: pd.DataFrame, dataset: str, spec: Mapping[str, Any]) -> list[str]:
    """Return the references of a data set that have rows, in the order in which they were asked for."""
    there = frame.loc[frame["dataset"] == dataset, "reference"].drop_duplicates()
    asked = [*(spec.get("references") or []), *recipes_of(spec["recipes"], dataset)]
    return sorted(there, key=asked.index)
