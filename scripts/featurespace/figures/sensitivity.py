"""What the angles between P-vectors depend on: samples, features, depth, split, normalisation, width, matching."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from featurespace.figures.series import CONTROLS, datasets_of
from featurespace.style import (
    FAINT,
    INK,
    Look,
    draw_band,
    elide,
    legend_above,
    line_handle,
    new_figure,
    note_figure,
    styled,
    title_panel,
)

CENTRINGS = ("raw", "centred")
LEFT_OUT = {*CONTROLS, "noise"}  # tasks whose networks are no evidence for what training on a task does
CURVES = {"samples": "Share of samples", "features": "Share of features", "depth": "Tapped layer"}
LISTS = {
    "split": "split",
    "normalisation": "normalisation",
    "width": "models of one kind",
    "mismatch": "unmatched samples",
}
LEVELS = {
    "split": ("train", "test"),
    "normalisation": ("none", "unit-rows", "standardised-features"),
    "depth": ("first", "middle", "last"),
    "mismatch": ("disjoint", "shuffled"),
}
RELATIONS = {  # in colours of no recipe
    "two recipes": Look(INK, "o", "-"),
    "two seeds": Look("#c2185b", "s", (0, (4, 1.2))),
    "start to end": Look("#8a8a8a", "^", (0, (1.5, 1))),
}
LIMITS = {1: 0.2, 2: 0.5, 5: 1, 10: 2, 15: 5, 30: 10, 45: 15, 60: 15, 90: 30}  # ends of an axis of angles: its ticks
COLUMNS = [
    *("dataset", "factor", "level", "value", "centring", "relation"),
    *("n_pairs", "angle_deg", "sd_deg", "low_deg", "high_deg", "least_deg"),
    *("greatest_deg", "null_formula_deg"),
]


def tidy(tables: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Average the angles over seeds, then over recipes or pairs of them.

    Parameters
    ----------
    tables
        `sensitivity.csv`: one row a factor, level, centring, relation and pair of runs.
    spec
        `recipes`: the study's recipes in order, each with name, dataset and task.

    Returns
    -------
    DataFrame
        dataset, factor, level, value (mean), centring, relation (two recipes, with the same seed | two seeds, of a
        recipe | start to end, of a run), n_pairs (recipes, or pairs of them), angle_deg (mean), sd_deg (standard
        deviation over these; missing with one), low_deg, high_deg (the mean less and plus it, within 0 to 90),
        least_deg, greatest_deg, null_formula_deg (mean angle if samples were shuffled). Untrained networks, those of
        shuffled labels, and noise are left out.
    """
    kept = [recipe["name"] for recipe in spec["recipes"] if recipe["task"] not in LEFT_OUT]
    frame = tables[tables["recipe_a"].isin(kept) & tables["recipe_b"].isin(kept)].dropna(subset=["angle_deg"])
    if frame.empty:
        return pd.DataFrame(columns=COLUMNS)
    of_seeds = (frame["relation"] == "between") & (frame["recipe_a"] == frame["recipe_b"])
    names = frame["relation"].map({"between": "two recipes", "start_to_end": "start to end"})
    frame = frame.assign(relation=names.mask(of_seeds, "two seeds"))
    keys = ["dataset", "factor", "level", "centring", "relation"]
    pairs = frame.groupby([*keys, "recipe_a", "recipe_b"], as_index=False)[
        ["value", "angle_deg", "null_formula_deg"]
    ].mean()
    result = pairs.groupby(keys, as_index=False).agg(
        value=("value", "mean"),
        n_pairs=("angle_deg", "count"),
        mean=("angle_deg", "mean"),
        sd_deg=("angle_deg", "std"),
        least_deg=("angle_deg", "min"),
        greatest_deg=("angle_deg", "max"),
        null_formula_deg=("null_formula_deg", "mean"),
    )
    result = result.rename(columns={"mean": "angle_deg"})
    spread = result["sd_deg"].fillna(0)
    result["low_deg"] = (result["angle_deg"] - spread).clip(lower=0)
    result["high_deg"] = (result["angle_deg"] + spread).clip(upper=90)
    orders = {
        "dataset": datasets_of(spec["recipes"], result["dataset"]),
        "factor": [*CURVES, *LISTS],
        "centring": list(CENTRINGS),
        "relation": list(RELATIONS),
        "level": [level for levels in LEVELS.values() for level in levels],
    }
    for column, order in orders.items():
        result[f"_{column}"] = result[column].map({name: i for i, name in enumerate(order)})
    by_value = result["factor"].isin(["samples", "features"])
    result["_level"] = result["_level"].mask(by_value, result["value"])
    result = result.dropna(subset=["_dataset", "_factor"])
    ordered = result.sort_values([f"_{column}" for column in orders], kind="stable")
    return ordered[COLUMNS].reset_index(drop=True)


def _limit(rows: pd.DataFrame) -> int:
    """Return the least end of an axis that holds all angles of some rows."""
    most = float(rows[["high_deg", "null_formula_deg"]].max().max())
    return next((limit for limit in LIMITS if limit >= most), 90)


def _words(centring: str, limit: int) -> str:
    return f"{centring}, 0–{limit}°"


def _level_name(level: str) -> str:
    """Write a level, of two recipes' names no more than fits beside a panel."""
    names = level.split("~")
    return " ~ ".join(elide(name, 17 if len(names) > 1 else 30) for name in names)


def _curve(axes: Axes, rows: pd.DataFrame, factor: str, limit: int) -> None:
    """Draw angles over the levels of a factor, evenly spaced."""
    levels = list(dict.fromkeys(rows["level"]))
    places = {level: i for i, level in enumerate(levels)}
    rows = rows.assign(place=rows["level"].map(places))
    for relation, look in RELATIONS.items():
        some = rows[rows["relation"] == relation]
        draw_band(axes, some, "place", ("angle_deg", "low_deg", "high_deg"), look)
        axes.plot(some["place"], some["angle_deg"], look.marker, color=look.colour, markersize=3.2, zorder=4)
        null = some.sort_values("place")
        axes.plot(null["place"], null["null_formula_deg"], ":", color=look.colour, linewidth=0.9, zorder=2)
    names = levels if factor == "depth" else [f"{float(level):.3g}" for level in levels]
    axes.set_xticks(range(len(levels)), names)
    axes.set_xlim(-0.25, max(len(levels) - 0.75, 0.25))
    axes.set_ylim(0, limit)
    axes.set_yticks(np.arange(0, limit + 1e-9, LIMITS[limit]))


def _list(axes: Axes, rows: pd.DataFrame, levels: list[str], limit: int) -> None:
    """Draw angles as dots, a line of them for every level of a factor."""
    there = [relation for relation in RELATIONS if (rows["relation"] == relation).any()]
    for i, relation in enumerate(there):
        look, some = RELATIONS[relation], rows[rows["relation"] == relation]
        aside = 0.26 * (i - (len(there) - 1) / 2)
        y = np.array([levels.index(level) for level in some["level"]], dtype=float) + aside
        axes.hlines(y, some["low_deg"], some["high_deg"], color=look.colour, linewidth=1, zorder=3)
        axes.plot(some["angle_deg"], y, look.marker, color=look.colour, markersize=4, zorder=4, linestyle="")
        axes.plot(
            some["null_formula_deg"],
            y,
            "|",
            color=look.colour,
            markersize=6,
            markeredgewidth=0.9,
            zorder=2,
            linestyle="",
            clip_on=False,
        )
    axes.set_ylim(len(levels) - 0.4, -0.6)
    axes.set_yticks(range(len(levels)), [_level_name(level) for level in levels])
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    for i in range(1, len(levels)):
        axes.axhline(i - 0.5, color="#ececec", linewidth=0.5, zorder=0)
    axes.set_xlim(0, limit)
    axes.set_xticks(np.arange(0, limit + 1e-9, LIMITS[limit]))


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw curves over shares and depth, then a list of dots a factor; raw beside centred."""
    blocks = datasets_of(spec["recipes"], frame["dataset"])
    if not blocks:
        return note_figure("No two trained networks of this study were compared under any change.")
    shown: dict[str, tuple[list[str], dict[str, list[str]]]] = {}
    heights: dict[str, list[float]] = {}
    per_level: dict[str, dict[str, float]] = {}
    for dataset in blocks:
        here = frame[frame["dataset"] == dataset]
        levels_of = {factor: list(dict.fromkeys(rows["level"])) for factor, rows in here.groupby("factor", sort=False)}
        n_relations = here.groupby("factor")["relation"].nunique()
        per_level[dataset] = {str(factor): 0.06 + 0.08 * n for factor, n in n_relations.items()}
        curves = [factor for factor in CURVES if factor in levels_of]
        lists = {factor: levels_of[factor] for factor in LISTS if factor in levels_of}
        shown[dataset] = (curves, lists)
        listed = sum(per_level[dataset][factor] * len(levels) + 0.45 for factor, levels in lists.items()) + 0.4
        heights[dataset] = [height for height, there in ((3.6, curves), (listed, lists)) if there]
    figure = new_figure(sum(sum(some) + 0.3 for some in heights.values()))
    ratios = [sum(some) + 0.3 for some in heights.values()]
    subfigures = figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=ratios)[:, 0]
    for dataset, block in zip(blocks, subfigures, strict=True):
        here = frame[frame["dataset"] == dataset]
        limits = {centring: _limit(here[here["centring"] == centring]) for centring in CENTRINGS}
        curves, lists = shown[dataset]
        block.suptitle(dataset, x=0.01, ha="left", weight="bold", size=9)
        parts = list(block.subfigures(len(heights[dataset]), 1, squeeze=False, height_ratios=heights[dataset])[:, 0])
        if curves:
            grid = parts.pop(0).subplots(2, len(curves), squeeze=False)
            for (i, j), axes in np.ndenumerate(grid):
                centring, factor = CENTRINGS[i], curves[j]
                rows = here[(here["factor"] == factor) & (here["centring"] == centring)]
                _curve(axes, rows, factor, limits[centring])
                title_panel(axes, "", _words(centring, limits[centring]))
                axes.tick_params(labelleft=j == 0, labelbottom=i == 1)
                axes.set_xlabel(CURVES[factor] if i == 1 else "")
                axes.set_ylabel("Angle (°)" if j == 0 else "")
        if lists:
            ratios = [per_level[dataset][factor] * len(levels) + 0.06 for factor, levels in lists.items()]
            grid = parts.pop(0).subplots(len(lists), 2, squeeze=False, height_ratios=ratios)
            for (factor, levels), row in zip(lists.items(), grid, strict=True):
                for axes, centring in zip(row, CENTRINGS, strict=True):
                    rows = here[(here["factor"] == factor) & (here["centring"] == centring)]
                    _list(axes, rows, levels, limits[centring])
                    title_panel(axes, LISTS[factor] if centring == "raw" else "", _words(centring, limits[centring]))
                    axes.tick_params(labelleft=centring == "raw")
                    axes.set_xlabel("Angle (°)" if factor == [*lists][-1] else "")
    words = {"two recipes": "two recipes, last steps", "two seeds": "two seeds of a recipe, last steps"}
    words["start to end"] = "first step to last of a run"
    relations = [
        line_handle(words[relation], color=look.colour, marker=look.marker, linestyle=look.dashes, markersize=4)
        for relation, look in RELATIONS.items()
        if (frame["relation"] == relation).any()
    ]
    signs = [line_handle("expected if samples were shuffled", linestyle=":", linewidth=0.9)]
    if set(frame["factor"]) & set(LISTS):
        signs.append(line_handle("the same, in lists", linestyle="", marker="|", markersize=6))
    if frame["sd_deg"].notna().any():
        signs.append(line_handle("standard deviation", color=FAINT, linewidth=4, alpha=0.4))
    legend_above(figure, relations, signs)
    return figure
