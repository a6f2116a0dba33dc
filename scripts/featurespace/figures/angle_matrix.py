"""Cosine, angle and correlation of entries between the last steps of every two recipes and of the data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from featurespace.figures.panels import DATA, of_stage
from featurespace.figures.series import datasets_of, recipes_of
from featurespace.style import FAINT, WIDTH_IN, elide, new_figure, note_figure, styled, wrap_name
from featurespace.tables import is_false

ABREAST = 6  # matrices with more rows stand two by two
MANY = 10  # matrices with more rows have numbers for names of columns, and no null in their cells
WRAPPED, LONGEST = 16, 28  # characters of a name: on a line, and in all
GAP_OF_BAR = 0.65  # inches, for a colour bar below its matrix


@dataclass(frozen=True)
class Panel:
    """One matrix: what it shows of which centring, on which scale."""

    value: str
    centring: str
    title: str
    limits: tuple[float, float]
    colours: str
    label: str
    ticks: tuple[float, ...]
    digits: int
    null: str = ""  # column of what chance would give


_ANGLES: Any = {
    "limits": (0.0, 90.0),
    "colours": "viridis",  # perceptually uniform, and even in grey
    "label": "Angle (°)",
    "ticks": (0, 15, 30, 45, 60, 75, 90),
    "digits": 1,
    "null": "null_mean_deg",
}
PANELS = (
    # the same colour for the same closeness as in angles: from 1, alike, to 0, at right angles
    Panel("cosine", "raw", "cosine, raw", (0.0, 1.0), "viridis_r", "Cosine", (0, 0.25, 0.5, 0.75, 1), 2),
    Panel("angle_deg", "raw", "angle, raw", **_ANGLES),
    Panel("angle_deg", "centred", "angle, centred", **_ANGLES),
    # its size: over seeds that differ in sign the correlation itself is 0 on average, and no pair's
    Panel(
        "correlation_size",
        "raw",
        "correlation of entries",
        (0.0, 1.0),
        "viridis_r",
        "Size of the correlation",
        (0, 0.25, 0.5, 0.75, 1),
        2,
    ),
)


def tidy(tables: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Average the pairs table over pairs of seeds.

    Parameters
    ----------
    tables
        `angle_pairs.csv`: one row an unordered pair of runs, a stage and a centring; the data is the recipe `data`.
        Last steps are used.
    spec
        `recipes`: the study's recipes in order; members of a population are not among them and are left out.

    Returns
    -------
    DataFrame
        dataset, centring, recipe_a, recipe_b (every pair once, in the study's order, `data` first), n_pairs, cosine
        (mean over pairs of seeds), angle_deg, low_deg, high_deg (mean and extremes), correlation, correlation_low,
        correlation_high (the same), correlation_size (mean of the absolute values: signs may differ between seeds),
        null_mean_deg (mean of the permutation null), p_value (the largest), n_tested (pairs of seeds with a p-value),
        n_below_05 (those whose p-value is below 0.05), n_undetermined. A recipe against itself is one seed against
        another.
    """
    parts = []
    tables = of_stage(tables, "last")
    for dataset in datasets_of(spec["recipes"], tables["dataset"]):
        names = [DATA, *recipes_of(spec["recipes"], dataset)]
        rank = {name: i for i, name in enumerate(names)}
        frame = tables[tables["dataset"] == dataset]
        frame = frame[frame["recipe_a"].isin(names) & frame["recipe_b"].isin(names)].copy()
        same_run = (frame["recipe_a"] == frame["recipe_b"]) & (frame["seed_a"] == frame["seed_b"])
        frame = frame[~same_run]
        swap = frame["recipe_a"].map(rank) > frame["recipe_b"].map(rank)
        frame.loc[swap, ["recipe_a", "recipe_b"]] = frame.loc[swap, ["recipe_b", "recipe_a"]].to_numpy()
        for optional in ("p_value", "null_mean_deg", "correlation", "cosine"):
            if optional not in frame:
                frame[optional] = np.nan
        frame["undetermined"] = is_false(frame["determined"]).astype(int) if "determined" in frame else 0
        frame["below"] = frame["p_value"] < 0.05
        frame["size"] = frame["correlation"].abs()
        part = frame.groupby(["dataset", "centring", "recipe_a", "recipe_b"], as_index=False).agg(
            n_pairs=("angle_deg", "count"),
            cosine=("cosine", "mean"),
            angle_deg=("angle_deg", "mean"),
            low_deg=("angle_deg", "min"),
            high_deg=("angle_deg", "max"),
            correlation=("correlation", "mean"),
            correlation_low=("correlation", "min"),
            correlation_high=("correlation", "max"),
            correlation_size=("size", "mean"),
            null_mean_deg=("null_mean_deg", "mean"),
            p_value=("p_value", "max"),
            n_tested=("p_value", "count"),
            n_below_05=("below", "sum"),
            n_undetermined=("undetermined", "sum"),
        )
        part["_centring"] = part["centring"].map({"raw": 0, "centred": 1})
        part["_a"], part["_b"] = part["recipe_a"].map(rank), part["recipe_b"].map(rank)
        parts.append(part.sort_values(["_centring", "_a", "_b"]).drop(columns=["_centring", "_a", "_b"]))
    columns = (
        "dataset centring recipe_a recipe_b n_pairs cosine angle_deg low_deg high_deg "
        "correlation correlation_low correlation_high correlation_size null_mean_deg p_value"
    )
    columns_list = [*columns.split(), "n_tested", "n_below_05", "n_undetermined"]
    return pd.concat(parts, ignore_index=True)[columns_list] if parts else pd.DataFrame(columns=columns_list)


def _matrix(frame: pd.DataFrame, names: list[str], value: str) -> np.ndarray:
    """Spread pairs over a symmetric matrix, (n, n) float64, NaN where there is no pair."""
    at = {name: i for i, name in enumerate(names)}
    matrix = np.full((len(names), len(names)), np.nan)
    for a, b, number in zip(frame["recipe_a"], frame["recipe_b"], frame[value], strict=True):
        matrix[at[a], at[b]] = matrix[at[b], at[a]] = number
    return matrix


def _heat_map(axes: Axes, panel: Panel, frame: pd.DataFrame, names: list[str], cell: float, row_names: bool) -> Any:
    """Draw one matrix, with its numbers where a cell of `cell` inches holds them, and the null in brackets below."""
    colours = matplotlib.colormaps[panel.colours]
    n = len(names)
    matrix = _matrix(frame, names, panel.value)
    for i, j in zip(*np.nonzero(np.isnan(matrix)), strict=True):
        axes.add_patch(
            Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor="white", edgecolor="#b0b0b0", hatch="////", linewidth=0)
        )
    low, high = panel.limits
    image = axes.imshow(matrix, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    axes.grid(False)
    axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    labels = [wrap_name(elide(name, LONGEST), WRAPPED) for name in names]
    if n > MANY:  # upright names would take more room than the matrix: number them
        axes.set_xticks(range(n), [str(i + 1) for i in range(n)])
        labels = [f"{elide(name, LONGEST)}  {i + 1}" for i, name in enumerate(names)]
    elif n > 3:
        axes.set_xticks(range(n), labels, rotation=90)
    else:
        axes.set_xticks(range(n), labels, rotation=45, ha="right")
        axes.tick_params(axis="x", pad=1)
    axes.set_yticks(range(n), labels if row_names else [""] * n)
    axes.set_title(panel.title)
    digits = panel.digits if n <= MANY or panel.limits[1] <= 1 else 0
    texts = [[_number(number, digits) for number in row] for row in matrix]
    if panel.value == "correlation_size":
        signs = [_matrix(frame, names, f"correlation_{end}") for end in ("low", "high")]
        texts = [
            [_sign(low[j], high[j]) + row[j] for j in range(n)] for row, low, high in zip(texts, *signs, strict=True)
        ]
    # a digit is about 0.64 of its size wide; a matrix without a single number has none
    size = min(7.0, 0.94 * 72 * cell / (0.64 * max(1, *(max(map(len, row)) for row in texts))))
    if size < 3.9:
        return image
    null = _matrix(frame, names, panel.null) if panel.null and n <= MANY else np.full((n, n), np.nan)
    for i, j in zip(*np.nonzero(~np.isnan(matrix)), strict=True):
        ink = "white" if _luminance(colours((matrix[i, j] - low) / (high - low))) < 0.18 else "black"
        with_null = not np.isnan(null[i, j])
        lines = [(texts[i][j], size, 0.45 * size if with_null else 0.0)]
        if with_null:
            lines.append((f"({_number(null[i, j], digits)})", 0.75 * size, -0.65 * size))
        for line, line_size, up in lines:
            axes.annotate(
                line,
                (j, i),
                xytext=(0, up),
                textcoords="offset points",
                ha="center",
                va="center",
                size=line_size,
                color=ink,
            )
    return image


def _number(number: float, digits: int) -> str:
    """Write a number as short as a cell needs: a fraction of 1 without its leading zero, nothing for NaN."""
    if np.isnan(number):
        return ""
    text = f"{number:.{digits}f}"
    if digits == 2:
        text = text.replace("-0.00", "0.00").replace("0.", ".", 1) if abs(number) < 0.995 else f"{round(number)}"
    return text.replace("-", "−")


def _sign(low: float, high: float) -> str:
    """Return the sign of correlations that lie between two: none where all are positive."""
    if low < 0 < high:
        return "±"
    return "−" if high < 0 else ""


def _luminance(colour: tuple[float, float, float, float]) -> float:
    """Return the relative luminance of an sRGB colour (WCAG 2): at 0.18, black and white on it contrast alike."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw four heat maps a data set: raw cosine, raw angle, centred angle, and correlation of entries."""
    blocks = datasets_of(spec["recipes"], frame["dataset"])
    if not blocks:
        return note_figure("No pair of networks on the same samples: there is no angle to show.")
    names_of = {dataset: [DATA, *recipes_of(spec["recipes"], dataset)] for dataset in blocks}
    heights, cells = [], []
    for names in names_of.values():
        n = len(names)
        columns = 2 if n > ABREAST else 4
        margin = 0.3 + 0.062 * min(LONGEST if n > MANY else WRAPPED, max(map(len, names)))
        cells.append(min((WIDTH_IN - margin - 0.12 * columns) / columns / n, 0.42 if columns == 2 else 0.5))
        below = 0.15 if n > MANY else margin
        heights.append((4 // columns) * (cells[-1] * n + GAP_OF_BAR + below) + 0.35)
    figure = new_figure(sum(heights))
    subfigures = figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for dataset, part, cell in zip(blocks, subfigures, cells, strict=True):
        names = names_of[dataset]
        rows = frame[frame["dataset"] == dataset]
        columns = 2 if len(names) > ABREAST else 4
        grid = part.subplots(4 // columns, columns, squeeze=False)
        for position, (panel, axes) in enumerate(zip(PANELS, grid.flat, strict=True)):
            some = rows[rows["centring"] == panel.centring]
            image = _heat_map(axes, panel, some, names, cell, row_names=position % columns == 0)
            bar = part.colorbar(
                image, ax=axes, orientation="horizontal", location="bottom", shrink=0.8, aspect=22, pad=0.02
            )
            bar.set_ticks(list(panel.ticks), labels=[f"{tick:g}" for tick in panel.ticks])
            bar.set_label(panel.label)
            bar.outline.set_visible(False)
            bar.ax.tick_params(color=FAINT)
        part.suptitle(dataset, x=0.01, ha="left", weight="bold", size=9)
    return figure
