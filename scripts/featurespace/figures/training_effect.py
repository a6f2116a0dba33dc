"""What training does to the angle between two networks: last steps' minus first steps' angle, pair by pair."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from featurespace.figures.panels import (
    CENTRINGS,
    CONTROL_GROUPS,
    FAMILIES,
    HEIGHT_OF_ROW,
    both_ways,
    group_of,
    of_stage,
    row_axis,
    t_interval,
)
from featurespace.figures.series import datasets_of, recipes_of
from featurespace.style import (
    FAINT,
    INK,
    PALETTE,
    elide,
    legend_above,
    line_handle,
    new_figure,
    note_figure,
    styled,
    title_panel,
)

MANY = 30  # with more pairs, families of pairs are drawn
TRAINED, NOISE = "trained pair", "with noise"
COLOURS = {TRAINED: PALETTE[0], NOISE: FAINT}
ORDER = (*FAMILIES, *CONTROL_GROUPS)  # of the groups: a pair is named after the one that comes first
COLUMNS = (
    "dataset",
    "centring",
    "panel",
    "which",
    "recipe_a",
    "recipe_b",
    "n_seeds",
    "n_pairs",
    "untrained_deg",
    "trained_deg",
    "effect_deg",
    "low_deg",
    "high_deg",
)


def tidy(tables: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Subtract the angle at the first steps from that at the last, for the same two seeds.

    Parameters
    ----------
    tables
        `angle_pairs.csv`, both stages: one row an unordered pair of runs, a stage and a centring.
    spec
        `recipes`: the study's recipes in order, each with name, dataset and task.

    Returns
    -------
    DataFrame
        dataset, centring, panel (pair: a row a pair of recipes | family: a row a pair of families), which (the
        families of the two, as `supervised – reconstruction`, noise by its own name), recipe_a, recipe_b (in the
        study's order; empty for families), n_seeds (of recipe_a, over which the interval is taken), n_pairs (pairs of
        seeds, or of recipes for families), untrained_deg, trained_deg (mean angles of the first and the last steps),
        effect_deg (their difference), low_deg, high_deg (95 % t-interval: differences are averaged over the seeds of
        recipe_b first, and over the pairs of recipes for families; missing with one seed). Pairs of two trained
        recipes, or of a trained recipe and noise, whose features do not change; a recipe with itself is one seed with
        another.
    """
    groups = group_of(spec["recipes"])
    parts = []
    for dataset in datasets_of(spec["recipes"], tables["dataset"]):
        names = recipes_of(spec["recipes"], dataset)
        effects = _effects(tables[tables["dataset"] == dataset], names, groups)
        if len(effects):
            parts += [_by_pair(effects), _by_family(effects)]
    if not parts:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def _effects(tables: pd.DataFrame, names: list[str], groups: Mapping[str, str]) -> pd.DataFrame:
    """Return a row a centring and ordered pair of runs, with the angles of both stages; the trained recipe is `a`."""
    names = [name for name in names if groups[name] not in ("untrained", "controls made elsewhere")]
    keys = ["dataset", "centring", "recipe_a", "seed_a", "recipe_b", "seed_b"]
    last, first = (both_ways(of_stage(tables, stage), names)[[*keys, "angle_deg"]] for stage in ("last", "first"))
    both = last.merge(first, on=keys, suffixes=("", "_first"))
    # by group first: the network that is trained comes before noise, and a pair of families has one name
    rank = {name: (ORDER.index(groups[name]), i) for i, name in enumerate(names)}
    ordered = [rank[a] <= rank[b] for a, b in zip(both["recipe_a"], both["recipe_b"], strict=True)]
    both = both[np.array(ordered, dtype=bool) & (both["recipe_a"].map(groups) != "noise").to_numpy()]
    both = both.rename(columns={"angle_deg": "trained_deg", "angle_deg_first": "untrained_deg"})
    both["effect_deg"] = both["trained_deg"] - both["untrained_deg"]
    # two kinds of noise may be as far apart as any networks: each is a null of its own
    both["which"] = [
        f"{groups[a]} – {b if groups[b] == 'noise' else groups[b]}"
        for a, b in zip(both["recipe_a"], both["recipe_b"], strict=True)
    ]
    both["_a"], both["_b"] = both["recipe_a"].map(rank), both["recipe_b"].map(rank)
    return both.dropna(subset=["effect_deg"]).sort_values(["_a", "_b", "seed_a", "seed_b"]).drop(columns=["_a", "_b"])


def _sum_up(by_seed: pd.DataFrame, keys: list[str], panel: str) -> pd.DataFrame:
    """Sum up effects by seed, a row a (keys, seed_a), to a mean and an interval."""
    rows = []
    for values, some in by_seed.groupby(keys, sort=False):
        effect, low, high = t_interval(some["effect_deg"].to_numpy(float))
        rows.append(
            {
                **dict(zip(keys, values, strict=True)),
                "panel": panel,
                "n_seeds": len(some),
                "n_pairs": int(some["n_pairs"].sum() if panel == "pair" else some["n_pairs"].max()),
                "untrained_deg": some["untrained_deg"].mean(),
                "trained_deg": some["trained_deg"].mean(),
                "effect_deg": effect,
                "low_deg": low,
                "high_deg": high,
            }
        )
    frame = pd.DataFrame(rows)
    frame["_centring"] = frame["centring"].map({name: i for i, name in enumerate(CENTRINGS)})
    return frame.sort_values("_centring", kind="stable").drop(columns="_centring")


def _by_seed(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    values = {name: (name, "mean") for name in ("untrained_deg", "trained_deg", "effect_deg")}
    return frame.groupby([*keys, "seed_a"], sort=False, as_index=False).agg(n_pairs=("effect_deg", "size"), **values)


def _by_pair(effects: pd.DataFrame) -> pd.DataFrame:
    keys = ["dataset", "centring", "which", "recipe_a", "recipe_b"]
    frame = _sum_up(_by_seed(effects, keys), keys, "pair")
    # a recipe with itself has each pair of seeds in both orders
    same = frame["recipe_a"] == frame["recipe_b"]
    frame["n_pairs"] = frame["n_pairs"].where(~same, frame["n_pairs"] // 2)
    return frame


def _by_family(effects: pd.DataFrame) -> pd.DataFrame:
    pairs = _by_seed(effects, ["dataset", "centring", "which", "recipe_a", "recipe_b"])
    keys = ["dataset", "centring", "which"]
    frame = _sum_up(_by_seed(pairs, keys), keys, "family")
    return frame.assign(recipe_a="", recipe_b="")


def _rows(part: pd.DataFrame) -> tuple[str, list[tuple[str, str, str]]]:
    """Return which panel of a data set is drawn and its rows, least (centred) effect first and noise last."""
    pairs = part[part["panel"] == "pair"]
    noise = pairs["which"].map(_with_noise)
    many = pairs.loc[~noise, ["recipe_a", "recipe_b"]].drop_duplicates().shape[0] > MANY
    panel = "family" if many else "pair"
    frame = part[part["panel"] == panel]
    centred = frame[frame["centring"] == "centred"]
    # a pair that is known raw only goes below those known centred
    by = pd.concat([centred.sort_values("effect_deg", kind="stable"), frame])
    rows = list(dict.fromkeys(zip(by["which"], by["recipe_a"], by["recipe_b"], strict=True)))
    return panel, sorted(rows, key=lambda row: row[0].split(" – ", 1)[1] if _with_noise(row[0]) else "")


def _with_noise(which: str) -> bool:
    """Say whether the second of a pair of families is noise: all but noise go by the name of their group."""
    return which.split(" – ", 1)[1] not in ORDER[:-1]


def _draw_rows(axes: Axes, frame: pd.DataFrame, rows: list[tuple[str, str, str]], single: pd.DataFrame) -> None:
    """Draw effects with their intervals; filled where the interval leaves out 0. `single`: pairs behind families."""
    axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
    at = {row: i for i, row in enumerate(rows)}
    for which, effect in zip(single["which"], single["effect_deg"], strict=True):
        row = at[which, "", ""]
        axes.plot(effect, row + 0.28, "|", color=FAINT, markersize=3, markeredgewidth=0.6, zorder=2)
    for _, point in frame.iterrows():
        row = at[point["which"], point["recipe_a"], point["recipe_b"]]
        colour = COLOURS[NOISE if _with_noise(point["which"]) else TRAINED]
        clear = point["low_deg"] > 0 or point["high_deg"] < 0
        axes.plot([point["low_deg"], point["high_deg"]], [row, row], color=colour, linewidth=1.2, zorder=3)
        axes.plot(
            point["effect_deg"],
            row,
            "o",
            color=colour,
            markerfacecolor=colour if clear else "white",
            markersize=3.6,
            zorder=4,
        )


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw a block a data set: dots with intervals, raw beside centred, sorted by the centred effect."""
    frame = frame.dropna(subset=["effect_deg"])
    frame = frame.assign(**{name: frame[name].fillna("") for name in ("recipe_a", "recipe_b")})
    blocks = datasets_of(spec["recipes"], frame["dataset"])
    if not blocks:
        return note_figure("No pair of trained networks has both its first and its last step.")
    plans = {dataset: _rows(frame[frame["dataset"] == dataset]) for dataset in blocks}
    heights = [HEIGHT_OF_ROW * max(3, len(rows)) + 0.75 for _, rows in plans.values()]
    figure = new_figure(sum(heights))
    grid = figure.subplots(len(blocks), 2, squeeze=False, height_ratios=heights)
    families = False
    for row, dataset in enumerate(blocks):
        panel, rows = plans[dataset]
        families = families or panel == "family"
        of_dataset = frame[frame["dataset"] == dataset]
        pairs = of_dataset[of_dataset["panel"] == "pair"]
        counts = pairs.groupby("which")[["recipe_a", "recipe_b"]].apply(lambda some: len(some.drop_duplicates()))
        labels = [
            f"{elide(a, 22)} – {elide(b, 22)}" if panel == "pair" else f"{elide(which, 44)} ({counts[which]})"
            for which, a, b in rows
        ]
        for column, centring in enumerate(CENTRINGS):
            axes = grid[row, column]
            some = of_dataset[of_dataset["centring"] == centring]
            single = some[some["panel"] == "pair"] if panel == "family" else some.iloc[:0]
            _draw_rows(axes, some[some["panel"] == panel], rows, single)
            row_axis(axes, labels, named=column == 0)
            axes.margins(x=0.06)
            axes.set_xlabel("Last minus first step (°)")
            title_panel(axes, "trained minus untrained", centring, dataset if column == 0 else "")
    noise = frame["which"].map(_with_noise)
    marks = [
        line_handle(label, color=COLOURS[label], marker="o", markersize=3.6)
        for label, there in ((TRAINED, (~noise).any()), (NOISE, noise.any()))
        if there
    ]
    signs = [line_handle("mean and 95 % t-interval over seeds", marker="o", markersize=3.6)]
    signs.append(line_handle("interval holds 0, or one seed", linestyle="", marker="o", markerfacecolor="white"))
    if families:
        signs.append(line_handle("one pair of recipes", linestyle="", marker="|", markersize=5))
    legend_above(figure, marks, signs)
    return figure
