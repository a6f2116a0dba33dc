"""How far networks trained on shuffled labels end from other networks and the data, beside those with true labels."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from featurespace.figures.panels import (
    CENTRINGS,
    DATA,
    angle_axis,
    angle_limit,
    both_ways,
    group_of,
    of_stage,
    row_axis,
)
from featurespace.figures.series import datasets_of, recipes_of
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

# what both are compared with: a row's name, and the group of recipes
PARTNERS = {
    "true labels": "supervised",
    "shuffled labels": "shuffled labels",
    "autoencoders": "reconstruction",
    "self-supervised": "self-supervised",
    "untrained": "untrained",
    "data": DATA,
}
COLUMNS = (
    "dataset",
    "centring",
    "recipe",
    "panel",
    "which",
    "seed",
    "n_recipes",
    "n_pairs",
    "angle_deg",
    "null_mean_deg",
)


def counterparts(spec: Mapping[str, Any], recipe: str) -> list[str]:
    """Name the recipes that learn the true labels with a network of the same kind; all classifiers if there is none."""
    known = {entry["name"]: entry for entry in spec["recipes"]}
    here = recipes_of(spec["recipes"], known[recipe]["dataset"])
    true = [name for name in here if known[name]["task"] == "classify"]
    alike = [name for name in true if known[name].get("kind") == known[recipe].get("kind")]
    return alike or true


def tidy(tables: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Average the angles of each network with shuffled labels, and of its counterparts, to groups of networks.

    Parameters
    ----------
    tables
        `angle_pairs.csv`: one row an unordered pair of runs, a stage and a centring; last steps are used.
    spec
        `recipes`: the study's recipes in order, each with name, dataset, task and kind.

    Returns
    -------
    DataFrame
        dataset, centring, recipe (that with shuffled labels), panel (what is compared with: true labels | shuffled
        labels | autoencoders | self-supervised | untrained | data), which (shuffled: the recipe itself | true:
        its counterparts with true labels), seed, n_recipes (in the group), n_pairs (angles averaged), angle_deg,
        null_mean_deg (mean of the permutation null). Within a seed, the angles to each recipe of the group are averaged
        first; a run is never compared with itself.
    """
    recipes = spec["recipes"]
    groups = group_of(recipes)
    last = of_stage(tables, "last")
    parts = []
    for dataset in datasets_of(recipes, last["dataset"]):
        names = recipes_of(recipes, dataset)
        pairs = both_ways(last[last["dataset"] == dataset], [DATA, *names])
        pairs = pairs.assign(group=pairs["recipe_b"].map(groups))
        for shuffled in (name for name in names if groups[name] == "shuffled labels"):
            for which, of in (("shuffled", [shuffled]), ("true", counterparts(spec, shuffled))):
                part = pairs[pairs["recipe_a"].isin(of)].rename(columns={"seed_a": "seed"})
                part = part.dropna(subset=["angle_deg"])
                if len(part):
                    parts.append(_over_group(part).assign(dataset=dataset, recipe=shuffled, which=which))
    if not parts:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def _over_group(part: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds of each partner, then over partners, then over the recipes that stand for `a`."""
    keys = ["centring", "group", "seed"]
    by_recipe = part.groupby([*keys, "recipe_a", "recipe_b"], as_index=False).agg(
        n_pairs=("angle_deg", "size"), angle_deg=("angle_deg", "mean"), null_mean_deg=("null_mean_deg", "mean")
    )
    frame = by_recipe.groupby(keys, as_index=False).agg(
        n_recipes=("recipe_b", "nunique"),
        n_pairs=("n_pairs", "sum"),
        angle_deg=("angle_deg", "mean"),
        null_mean_deg=("null_mean_deg", "mean"),
    )
    names = {group: name for name, group in PARTNERS.items()}
    frame = frame.assign(panel=frame["group"].map(names)).dropna(subset=["panel"])
    frame["_centring"] = frame["centring"].map({name: i for i, name in enumerate(CENTRINGS)})
    frame["_panel"] = frame["panel"].map({name: i for i, name in enumerate(PARTNERS)})
    return frame.sort_values(["_centring", "_panel", "seed"])


def _draw_seeds(axes: Axes, some: pd.DataFrame, row: float, look: Look, hollow: bool) -> None:
    """Draw a seed a marker, the mean over seeds as a line across, and the mean null as a tick below."""
    spread = np.linspace(-0.08, 0.08, len(some)) if len(some) > 1 else np.zeros(1)
    face = "white" if hollow else look.colour
    axes.plot(
        some["angle_deg"],
        row + spread,
        look.marker,
        color=look.colour,
        markerfacecolor=face,
        markersize=3.6,
        markeredgewidth=0.8,
        clip_on=False,
        zorder=4,
    )
    mean, null = some["angle_deg"].mean(), some["null_mean_deg"].mean()
    axes.plot([mean, mean], [row - 0.17, row + 0.17], color=look.colour, linewidth=1.2, zorder=3)
    axes.plot(null, row, "|", color=INK, markersize=8, markeredgewidth=0.8, clip_on=False, zorder=3)
    axes.plot([mean, null], [row, row], ":", color=look.colour, linewidth=0.8, zorder=2)


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw a block a data set and recipe with shuffled labels: a row a group of networks, raw beside centred."""
    recipes = spec["recipes"]
    looks = recipe_looks(recipes)
    frame = frame.dropna(subset=["angle_deg"])
    blocks = [
        (dataset, name)
        for dataset in datasets_of(recipes, frame["dataset"])
        for name in recipes_of(recipes, dataset)
        if ((frame["dataset"] == dataset) & (frame["recipe"] == name)).any()
    ]
    if not blocks:
        return note_figure("No recipe of this study learns shuffled labels.")
    rows = {
        block: [
            name
            for name in PARTNERS
            if ((frame["dataset"] == block[0]) & (frame["recipe"] == block[1]) & (frame["panel"] == name)).any()
        ]
        for block in blocks
    }
    heights = [0.34 * max(2, len(names)) + 0.8 for names in rows.values()]
    figure = new_figure(sum(heights))
    grid = figure.subplots(len(blocks), 2, squeeze=False, height_ratios=heights)
    handles: dict[str, Artist] = {}
    for row, block in enumerate(blocks):
        dataset, shuffled = block
        of_block = frame[(frame["dataset"] == dataset) & (frame["recipe"] == shuffled)]
        true = counterparts(spec, shuffled)
        # several counterparts are one group, which has no recipe's look
        true_look = looks[true[0]] if len(true) == 1 else Look(INK, "o", "-")
        true_label = elide(true[0], 40) if len(true) == 1 else "true labels, same kind of network"
        for column, centring in enumerate(CENTRINGS):
            axes = grid[row, column]
            of_panel = of_block[of_block["centring"] == centring]
            for i, name in enumerate(rows[block]):
                group = of_panel[of_panel["panel"] == name]
                for which, look, up in (("shuffled", looks[shuffled], -0.19), ("true", true_look, 0.19)):
                    some = group[group["which"] == which]
                    if some["angle_deg"].notna().any():
                        _draw_seeds(axes, some, i + up, look, which == "true")
            row_axis(axes, [f"to {name}" for name in rows[block]], named=column == 0)
            limit = max(5, angle_limit(of_panel["angle_deg"], of_panel["null_mean_deg"]))
            angle_axis(axes, limit, horizontal=True)
            axes.set_xlabel("Angle (°)")
            first = row == 0 or blocks[row - 1][0] != dataset
            title_panel(axes, elide(shuffled, 34), f"{centring}, 0–{limit}°", dataset if first and column == 0 else "")
        handles[shuffled] = line_handle(
            elide(shuffled, 40),
            color=looks[shuffled].colour,
            marker=looks[shuffled].marker,
            linestyle="",
            markersize=3.6,
        )
        handles.setdefault(
            true_label,
            line_handle(
                true_label,
                color=true_look.colour,
                marker=true_look.marker,
                markerfacecolor="white",
                linestyle="",
                markersize=3.6,
            ),
        )
    signs = [
        line_handle("one seed; bar: their mean", marker="o", markersize=3.6, linestyle=""),
        line_handle("permutation null, mean", color=INK, marker="|", markersize=8, linestyle=""),
    ]
    legend_above(figure, list(handles.values()), signs)
    return figure
