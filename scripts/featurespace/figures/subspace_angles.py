"""Angles beyond the first singular vector: vector by vector over training, and between the spans of the first k."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from featurespace.figures.series import CONTROLS, datasets_of, in_study_order, over_seeds, recipes_of
from featurespace.style import (
    FAINT,
    INK,
    Look,
    draw_band,
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

CENTRINGS = ("raw", "centred")
NO_PARTNERS = {*CONTROLS, "noise"}  # tasks that are compared with the other networks, and not counted among them
VECTORS = 6  # the paper shows the second to the sixth
SHADES = ("#000000", "#3b0f70", "#8c2981", "#cf4070", "#f1705c", "#feb078")  # ever lighter, so even in grey
PANELS = {"start to end": "first step to own last", "between recipes": "to other recipes, last steps"}
MEASURES = {"largest_deg": "largest principal angle", "mean_deg": "mean principal angle"}
COLUMNS = [
    *("panel", "dataset", "recipe", "centring", "measure", "k"),
    *("step", "epoch", "n_seeds", "angle_deg", "low_deg", "high_deg"),
    *("null_deg", "null_low_deg"),
]


def tidy(tables: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Sum up the angles of subspaces over seeds.

    Parameters
    ----------
    tables
        `subspaces.csv`: one row a (dataset, centring, recipe, seed, step), reference and k.
    spec
        `recipes`: the study's recipes in order, each with name, dataset and task.

    Returns
    -------
    DataFrame
        panel, dataset, recipe, centring, measure, k, step, epoch, n_seeds, angle_deg (mean over seeds), low_deg,
        high_deg (extremes over seeds), null_deg, null_low_deg (mean and 5th percentile over random subspaces).

        panel `vectors`: measure vector_angle_deg, the k-th vector against the k-th of the run's own last step, k up to
        6, over steps; the last step of each run, which is zero by definition, is left out. panel `start to end`:
        measures largest_deg and mean_deg of the first step against the run's own last. panel `between recipes`: the
        same measures at the last step, averaged over the other recipes, without controls among these. The percentile
        is known for the largest angle only.
    """
    run = ["dataset", "recipe", "centring", "seed"]
    own = tables[tables["reference"] == "own"]
    own = own[own["step"] < own.groupby(run)["step"].transform("max")]
    parts = [_summed(own[own["k"] <= VECTORS], "vectors", "vector_angle_deg")]
    start = own[own["step"] == own.groupby(run)["step"].transform("min")]
    others = _among_recipes(tables, spec)
    for panel, frame in (("start to end", start), ("between recipes", others)):
        parts += [_summed(frame, panel, measure) for measure in MEASURES]
    filled = [part for part in parts if len(part)]
    if not filled:
        return pd.DataFrame(columns=COLUMNS)
    frame = pd.concat(filled, ignore_index=True).rename(
        columns={"mean": "angle_deg", "low": "low_deg", "high": "high_deg"}
    )
    frame = frame.dropna(subset=["angle_deg"])
    frame["_panel"] = frame["panel"].map({name: i for i, name in enumerate(("vectors", *PANELS))})
    frame["_centring"] = frame["centring"].map({"raw": 0, "centred": 1})
    return in_study_order(frame, spec["recipes"], "dataset", "_panel", "_centring", "measure", "k", "step")[COLUMNS]


def _among_recipes(tables: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Average each run's subspace angles to the last steps of the other recipes; every pair counts for both."""
    task_of = {recipe["name"]: recipe["task"] for recipe in spec["recipes"]}
    pairs = tables[tables["reference"].isin(list(task_of)) & tables["recipe"].isin(list(task_of))]
    pairs = pairs[pairs["reference"] != pairs["recipe"]]
    turned = {"recipe": "reference", "seed": "reference_seed", "reference": "recipe", "reference_seed": "seed"}
    both = pd.concat([pairs, pairs.rename(columns=turned)[pairs.columns]], ignore_index=True)
    key = ["dataset", "recipe", "centring", "seed", "k"]
    both = both.drop_duplicates([*key, "reference", "reference_seed"])
    both = both[~both["reference"].map(task_of).isin(NO_PARTNERS)]
    numbers = [*MEASURES, "null_mean_deg", "null_largest_deg", "null_largest_low_deg"]
    mean = both.groupby(key, as_index=False)[numbers].mean()
    # the step of a pair turned round would be its partner's
    return mean.assign(step=0, epoch=np.nan)


def _summed(frame: pd.DataFrame, panel: str, measure: str) -> pd.DataFrame:
    """Sum up one measure over seeds, its null beside it."""
    keys = ["dataset", "recipe", "centring", "k"]
    if frame.empty:
        return pd.DataFrame()
    summed = over_seeds(frame, keys, measure).assign(panel=panel, measure=measure, null_deg=np.nan, null_low_deg=np.nan)
    nulls = {"largest_deg": ("null_largest_deg", "null_largest_low_deg"), "mean_deg": ("null_mean_deg",)}
    chance = frame.groupby(keys)
    for name, column in zip(("null_deg", "null_low_deg"), nulls.get(measure, ()), strict=False):
        summed[name] = chance[column].mean().reindex(pd.MultiIndex.from_frame(summed[keys])).to_numpy()
    return summed


def _vector_panel(axes: Axes, rows: pd.DataFrame) -> None:
    for k, curve in rows.groupby("k", sort=True):
        look = Look(SHADES[int(str(k)) - 1], "o", "-")
        width = 1.3 if k == 1 else 0.8
        # six bands would hide each other
        curve = curve.assign(low_deg=curve["angle_deg"], high_deg=curve["angle_deg"])
        columns = ("angle_deg", "low_deg", "high_deg")
        draw_band(axes, curve, "epoch", columns, look, width=width, zorder=4 - 0.1 * float(str(k)))
    axes.set_ylim(0, 92)
    axes.set_yticks([0, 30, 60, 90])


def _span_panel(axes: Axes, rows: pd.DataFrame, looks: Mapping[str, Look], drawn: dict[str, set[str]]) -> None:
    """Draw one line a recipe over k, and what random subspaces give."""
    null = rows.groupby("k")[["null_deg", "null_low_deg"]].mean().dropna(subset=["null_deg"])
    if null["null_low_deg"].notna().any():
        k = null.index.to_numpy(float)
        axes.fill_between(k, null["null_low_deg"], null["null_deg"], color=FAINT, alpha=0.3, linewidth=0, zorder=1)
    axes.plot(null.index, null["null_deg"], ":", color=INK, linewidth=1, zorder=2)
    for name, curve in rows.groupby("recipe", sort=False):
        kind = draw_band(axes, curve, "k", ("angle_deg", "low_deg", "high_deg"), looks[str(name)], width=1.1)
        drawn.setdefault(str(name), set()).add(kind)
    axes.set_ylim(0, 92)
    axes.set_yticks([0, 30, 60, 90])


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw a small panel a recipe and centring over epochs, then principal angles against k."""
    looks = recipe_looks(spec["recipes"])
    blocks = datasets_of(spec["recipes"], frame["dataset"])
    if not blocks:
        return note_figure("No network of this study was trained or compared: there are no subspaces to show.")
    layout: dict[str, tuple[list[str], int, list[str], float, float]] = {}
    for dataset in blocks:
        rows = frame[frame["dataset"] == dataset]
        there = set(rows.loc[rows["panel"] == "vectors", "recipe"])
        names = [name for name in recipes_of(spec["recipes"], dataset) if name in there]
        columns = 6 if len(names) > 4 else 4
        panels = [panel for panel in PANELS if (rows["panel"] == panel).any()]
        n_rows = -(-2 * len(names) // columns)
        upper = 1.0 * n_rows + 0.75 if n_rows else 0.35
        layout[dataset] = (names, columns, panels, upper, 3.3 if panels else 0.0)
    heights = [upper + lower for *_, upper, lower in layout.values()]
    figure = new_figure(sum(heights))
    drawn: dict[str, set[str]] = {}
    subfigures = figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for dataset, block in zip(blocks, subfigures, strict=True):
        names, columns, panels, upper, lower = layout[dataset]
        rows = frame[frame["dataset"] == dataset]
        parts = block.subfigures(2 if panels else 1, 1, squeeze=False, height_ratios=[upper, lower][: 1 + bool(panels)])
        parts[0, 0].suptitle(dataset, x=0.01, ha="left", weight="bold", size=9)
        vectors = rows[rows["panel"] == "vectors"]
        if names:
            grid = parts[0, 0].subplots(-(-2 * len(names) // columns), columns, squeeze=False)
            parts[0, 0].supylabel("k-th vector to k-th of own last step (°)", size=8)
        for i, (name, centring) in enumerate((name, centring) for name in names for centring in CENTRINGS):
            axes = grid.flat[i]
            own = vectors[vectors["recipe"] == name]
            _vector_panel(axes, own[own["centring"] == centring])
            if centring == "raw":  # a long name reaches over the panel beside it
                title_panel(axes, elide(name, 24), "raw" if len(name) < 12 else "")
            else:
                title_panel(axes, "", "centred")
            below = i + columns >= 2 * len(names)
            epoch_axis(axes, own["epoch"], label=below)
            if below and axes.get_xscale() != "linear":
                axes.set_xlabel("Epoch, log > 1")  # the whole name is wider than the panel
            axes.tick_params(labelleft=i % columns == 0, labelbottom=True)
        if names:
            for axes in grid.flat[2 * len(names) :]:
                axes.remove()
        if not panels:
            continue
        grid = parts[1, 0].subplots(2, 2 * len(panels), squeeze=False)
        for i, measure in enumerate(MEASURES):
            for j, (panel, centring) in enumerate((panel, centring) for panel in panels for centring in CENTRINGS):
                axes = grid[i, j]
                shown = rows[(rows["panel"] == panel) & (rows["measure"] == measure) & (rows["centring"] == centring)]
                _span_panel(axes, shown, looks, drawn)
                left = PANELS[panel] if i == 0 and centring == "raw" else ""
                title_panel(axes, "", centring)
                if left:
                    axes.annotate(left, (0, 1), (0, 15), xycoords="axes fraction", textcoords="offset points")
                ks = sorted(set(rows["k"].astype(int)))
                axes.set_xticks([k for k in (1, 5, 10, 15, 20) if k <= ks[-1]] if ks[-1] > 6 else ks)
                axes.set_xlim(0.5, ks[-1] + 0.5)
                axes.tick_params(labelleft=j == 0, labelbottom=i == 1)
                if i == 1:
                    axes.set_xlabel("Dimensions k")
                if j == 0:
                    axes.set_ylabel(f"{MEASURES[measure].capitalize()} (°)".replace(" principal", "\nprincipal"))
    signs = [
        line_handle(f"vector {k}" if k == 1 else str(k), color=SHADES[k - 1], linewidth=1.3 if k == 1 else 0.8)
        for k in sorted(set(frame.loc[frame["panel"] == "vectors", "k"].astype(int)))
    ]
    if frame["null_deg"].notna().any():
        signs += [
            line_handle("random subspaces, mean", color=INK, linestyle=":", linewidth=1),
            Patch(facecolor=FAINT, alpha=0.3, linewidth=0, label="down to their 5th percentile"),
        ]
    if (frame.loc[frame["panel"] != "vectors", "n_seeds"] > 1).any():
        signs.append(Patch(facecolor=FAINT, alpha=0.13, linewidth=0, label="least to greatest seed"))
    legend_above(figure, recipe_handles(drawn, looks), signs)
    return figure
