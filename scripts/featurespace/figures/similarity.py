"""The P-vector's cosine against established measures of similarity, over pairs of networks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from featurespace.figures.series import datasets_of, recipes_of
from featurespace.style import FAINT, INK, legend_above, line_handle, new_figure, note_figure, styled, title_panel

DATA = "data"
COSINES = {"raw": "cosine_raw", "centred": "cosine_centred"}
MEASURES = {
    "cka": "linear CKA",
    "cka_deconfounded": "CKA, deconfounded",
    "svcca": "SVCCA",
    "procrustes": "Procrustes distance",
}
STAGES = {"first": "first kept step", "last": "last kept step"}
FACES = {"first": "#c9c9c9", "last": INK}
SHAPES = {"two recipes": "o", "two seeds of a recipe": "s", "a recipe and the data": "^"}
COLUMNS = [
    *("dataset", "measure", "centring", "stage", "relation", "recipe_a"),
    *("recipe_b", "n_pairs", "cosine", "value", "n_points", "rho"),
]


def tidy(tables: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Average over seeds, and set the P-vector's cosine beside each of the other measures.

    Parameters
    ----------
    tables
        `similarity.csv`: one row a stage, pair of networks and measure; the data is the recipe `data`.
    spec
        `recipes`: the study's recipes in order.

    Returns
    -------
    DataFrame
        dataset, measure (cka | cka_deconfounded | svcca | procrustes), centring (of the P-vectors), stage (first |
        last), relation (two recipes | two seeds of a recipe | a recipe and the data), recipe_a, recipe_b, n_pairs
        (pairs of seeds), cosine, value (means over these), n_points, rho (Spearman's rank correlation of cosine and
        value over the rows of the same data set, measure, centring and stage; NaN with fewer than three).
    """
    pair = ["dataset", "stage", "recipe_a", "recipe_b"]
    parts = []
    if len(tables):
        seeds = [*pair, "seed_a", "seed_b"]
        wide = tables.pivot_table(index=seeds, columns="measure", values="value", aggfunc="mean", sort=False)
        for measure in MEASURES:
            for centring, cosine in COSINES.items():
                if measure not in wide or cosine not in wide:
                    continue
                both = wide[[cosine, measure]].dropna().set_axis(["cosine", "value"], axis=1).reset_index()
                mean = both.groupby(pair, sort=False, as_index=False).agg(
                    n_pairs=("value", "count"), cosine=("cosine", "mean"), value=("value", "mean")
                )
                parts.append(mean.assign(measure=measure, centring=centring))
    parts = [part for part in parts if len(part)]
    if not parts:
        return pd.DataFrame(columns=COLUMNS)
    frame = pd.concat(parts, ignore_index=True)
    frame["relation"] = np.select(
        [(frame["recipe_a"] == DATA) | (frame["recipe_b"] == DATA), frame["recipe_a"] == frame["recipe_b"]],
        ["a recipe and the data", "two seeds of a recipe"],
        "two recipes",
    )
    panel = ["dataset", "measure", "centring", "stage"]
    ranks = frame.groupby(panel)[["cosine", "value"]].rank()
    frame["n_points"] = frame.groupby(panel)["value"].transform("size")
    frame["rho"] = np.nan
    for _, rows in frame.groupby(panel):
        frame.loc[rows.index, "rho"] = _pearson(ranks.loc[rows.index].to_numpy(float))
    names = {d: [DATA, *recipes_of(spec["recipes"], d)] for d in datasets_of(spec["recipes"], frame["dataset"])}
    place = {(d, name): i for d, some in names.items() for i, name in enumerate(some)}
    frame["_dataset"] = frame["dataset"].map({dataset: i for i, dataset in enumerate(names)})
    frame["_measure"] = frame["measure"].map({name: i for i, name in enumerate(MEASURES)})
    frame["_centring"] = frame["centring"].map({name: i for i, name in enumerate(COSINES)})
    for side in "ab":
        frame[f"_{side}"] = [place.get(key) for key in zip(frame["dataset"], frame[f"recipe_{side}"], strict=True)]
    keys = ["_dataset", "_measure", "_centring", "stage", "_a", "_b"]
    frame = frame.dropna(subset=["_dataset", "_a", "_b"]).sort_values(keys, kind="stable")
    return frame[COLUMNS].reset_index(drop=True)


def _pearson(columns: np.ndarray) -> float:
    """Return the correlation of two columns (n, 2); NaN with fewer than three rows or a constant column."""
    centred = columns - columns.mean(axis=0)
    squares = (centred**2).sum(axis=0)
    if len(columns) < 3 or not squares.all():
        return np.nan
    return float(centred[:, 0] @ centred[:, 1] / np.sqrt(squares.prod()))


def _scatter(axes: Axes, rows: pd.DataFrame) -> None:
    for stage in STAGES:
        for relation, marker in SHAPES.items():
            some = rows[(rows["stage"] == stage) & (rows["relation"] == relation)]
            axes.plot(
                some["value"],
                some["cosine"],
                marker,
                color=INK,
                markerfacecolor=FACES[stage],
                markeredgecolor="white" if stage == "last" else FAINT,
                markeredgewidth=0.3 if stage == "last" else 0.5,
                markersize=3.6,
                alpha=0.8,
                linestyle="",
                zorder=2 + (stage == "last"),
            )


def _correlations(rows: pd.DataFrame) -> str:
    texts = []
    for stage in STAGES:
        some = rows[rows["stage"] == stage]
        if len(some) and np.isfinite(some["rho"].iloc[0]):
            texts.append(f"{stage} {some['rho'].iloc[0]:z.2f}".replace("-", "−"))
    return "ρ " + ", ".join(texts) if texts else ""


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw two rows a data set, the raw and the centred cosine, against four measures of similarity."""
    blocks = datasets_of(spec["recipes"], frame["dataset"])
    if not blocks:
        return note_figure("No pair of networks was compared on the same samples.")
    heights = [4.35] * len(blocks)
    figure = new_figure(sum(heights))
    subfigures = figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for dataset, part in zip(blocks, subfigures, strict=True):
        part.suptitle(dataset, x=0.01, ha="left", weight="bold", size=9)
        here = frame[frame["dataset"] == dataset]
        measures = [measure for measure in MEASURES if (here["measure"] == measure).any()]
        grid = part.subplots(len(COSINES), len(measures), squeeze=False)
        for i, centring in enumerate(COSINES):
            shown = here[here["centring"] == centring]
            low = float(shown["cosine"].min()) if len(shown) else 0.0
            bottom = 0.0 if low < 0.5 else np.floor(20 * low) / 20
            for j, measure in enumerate(measures):
                axes = grid[i, j]
                rows = shown[shown["measure"] == measure]
                _scatter(axes, rows)
                axes.set_ylim(bottom - 0.03 * (1 - bottom), 1 + 0.03 * (1 - bottom))
                axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
                ends = (0.0, 2.0) if measure == "procrustes" else (0.0, 1.0)
                # CKA can fall below zero once the input's part is taken out
                least = min([0.0, *rows["value"]])
                axes.set_xlim(least - 0.03 * ends[1], 1.03 * ends[1])
                axes.set_xticks(np.linspace(*ends, 3), ["0", f"{ends[1] / 2:g}", f"{ends[1]:g}"])
                title_panel(axes, _correlations(rows))
                axes.tick_params(labelleft=j == 0, labelbottom=i == 1)
                if j == 0:
                    axes.set_ylabel(f"|Cosine| of P-vectors, {centring}")
                if i == 1:
                    label = MEASURES[measure]
                    axes.set_xlabel(label[0].upper() + label[1:])
    there = [stage for stage in STAGES if (frame["stage"] == stage).any()]
    signs = [
        line_handle(STAGES[stage], marker="o", linestyle="", markerfacecolor=FACES[stage], markeredgecolor=FAINT)
        for stage in there
    ]
    signs += [
        line_handle(relation, marker=marker, linestyle="", color=INK)
        for relation, marker in SHAPES.items()
        if (frame["relation"] == relation).any()
    ]
    legend_above(figure, [], signs)
    return figure
