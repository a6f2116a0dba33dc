"""Mean angle between the last steps of every two recipes and of the data, and the correlation of the entries."""

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from featurespace.figures.series import datasets_of, recipes_of
from featurespace.style import FAINT, WIDTH_IN, elide, new_figure, note_figure, styled, wrap_name
from featurespace.tables import is_false

DATA = "data"
MANY = 8  # matrices with more rows have numbers for names of columns, and no null in their cells
WRAPPED, LONGEST = 16, 28  # characters of a name: on a line, and in all
COLOURS = "viridis"  # of angles: perceptually uniform, and even in grey
DIVERGING = "RdBu_r"  # of correlations, white at 0: told apart with any colour vision


def tidy(tables: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Average the pairs table over pairs of seeds.

    Parameters
    ----------
    tables
        `angle_pairs.csv`: one row an unordered pair of last steps and a centring; the data is the recipe `data`.
    spec
        `recipes`: the study's recipes in order.

    Returns
    -------
    DataFrame
        dataset, centring, recipe_a, recipe_b (every pair once, in the study's order, `data` first), n_pairs,
        angle_deg, low_deg, high_deg (mean and extremes over pairs of seeds), correlation, null_mean_deg (mean of the
        permutation null), p_value (the largest), n_tested (pairs of seeds with a p-value), n_below_05 (those whose
        p-value is below 0.05), n_undetermined. A recipe against itself is one seed against another.
    """
    parts = []
    for dataset in datasets_of(spec["recipes"], tables["dataset"]):
        names = [DATA, *recipes_of(spec["recipes"], dataset)]
        rank = {name: i for i, name in enumerate(names)}
        frame = tables[tables["dataset"] == dataset]
        frame = frame[frame["recipe_a"].isin(names) & frame["recipe_b"].isin(names)].copy()
        same_run = (frame["recipe_a"] == frame["recipe_b"]) & (frame["seed_a"] == frame["seed_b"])
        frame = frame[~same_run]
        swap = frame["recipe_a"].map(rank) > frame["recipe_b"].map(rank)
        frame.loc[swap, ["recipe_a", "recipe_b"]] = frame.loc[swap, ["recipe_b", "recipe_a"]].to_numpy()
        for optional in ("p_value", "null_mean_deg", "correlation"):
            if optional not in frame:
                frame[optional] = np.nan
        frame["undetermined"] = is_false(frame["determined"]).astype(int) if "determined" in frame else 0
        frame["below"] = frame["p_value"] < 0.05
        part = frame.groupby(["dataset", "centring", "recipe_a", "recipe_b"], as_index=False).agg(
            n_pairs=("angle_deg", "count"),
            angle_deg=("angle_deg", "mean"),
            low_deg=("angle_deg", "min"),
            high_deg=("angle_deg", "max"),
            correlation=("correlation", "mean"),
            null_mean_deg=("null_mean_deg", "mean"),
            p_value=("p_value", "max"),
            n_tested=("p_value", "count"),
            n_below_05=("below", "sum"),
            n_undetermined=("undetermined", "sum"),
        )
        part["_centring"] = part["centring"].map({"raw": 0, "centred": 1})
        part["_a"], part["_b"] = part["recipe_a"].map(rank), part["recipe_b"].map(rank)
        parts.append(part.sort_values(["_centring", "_a", "_b"]).drop(columns=["_centring", "_a", "_b"]))
    columns = "dataset centring recipe_a recipe_b n_pairs angle_deg low_deg high_deg correlation null_mean_deg p_value"
    columns_list = [*columns.split(), "n_tested", "n_below_05", "n_undetermined"]
    return pd.concat(parts, ignore_index=True)[columns_list] if parts else pd.DataFrame(columns=columns_list)


def _matrix(frame: pd.DataFrame, names: list[str], value: str) -> np.ndarray:
    """Spread pairs over a symmetric matrix, (n, n) float64, NaN where there is no pair."""
    at = {name: i for i, name in enumerate(names)}
    matrix = np.full((len(names), len(names)), np.nan)
    for a, b, number in zip(frame["recipe_a"], frame["recipe_b"], frame[value], strict=True):
        matrix[at[a], at[b]] = matrix[at[b], at[a]] = number
    return matrix


def _heat_map(
    axes: Axes,
    matrix: np.ndarray,
    small: np.ndarray | None,
    names: list[str],
    limits: tuple[float, float],
    colour_map: str,
    digits: int,
    row_names: bool,
) -> Any:
    """Draw one matrix, with its numbers when they fit: `small` goes in brackets under them."""
    colours = matplotlib.colormaps[colour_map]
    n = len(names)
    for i, j in zip(*np.nonzero(np.isnan(matrix)), strict=True):
        axes.add_patch(
            Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor="white", edgecolor="#b0b0b0", hatch="////", linewidth=0)
        )
    image = axes.imshow(matrix, cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="nearest")
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
    if n > 14:
        return image
    size = float(np.clip(44 / n, 4.2, 7))
    for i, j in zip(*np.nonzero(~np.isnan(matrix)), strict=True):
        shade = colours((matrix[i, j] - limits[0]) / (limits[1] - limits[0]))
        ink = "white" if _luminance(shade) < 0.18 else "black"
        text = f"{matrix[i, j]:.{digits}f}".replace("-0.00", "0.00")
        with_null = n <= MANY and small is not None and not np.isnan(small[i, j])
        lines = [(text, size, 0.45 * size if with_null else 0.0)]
        if with_null and small is not None:
            lines.append((f"({small[i, j]:.{digits}f})", 0.75 * size, -0.65 * size))
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


def _luminance(colour: tuple[float, float, float, float]) -> float:
    """Return the relative luminance of an sRGB colour (WCAG 2): at 0.18, black and white on it contrast alike."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw three heat maps a data set: raw angle, centred angle, and correlation of entries."""
    blocks = datasets_of(spec["recipes"], frame["dataset"])
    if not blocks:
        return note_figure("No pair of networks on the same samples: there is no angle to show.")
    names_of = {dataset: [DATA, *recipes_of(spec["recipes"], dataset)] for dataset in blocks}
    longest = {dataset: max(map(len, names)) for dataset, names in names_of.items()}
    heights = []
    for dataset in blocks:
        n = len(names_of[dataset])
        margin = 0.062 * min(LONGEST if n > MANY else WRAPPED, longest[dataset])
        cells = min((WIDTH_IN - margin - 0.5) / 3, 0.5 * n)
        heights.append(cells + (0.1 if n > MANY else margin * (1 if n > 3 else 0.8)) + 1.1)
    figure = new_figure(sum(heights))
    subfigures = figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for dataset, part in zip(blocks, subfigures, strict=True):
        names = names_of[dataset]
        rows = frame[frame["dataset"] == dataset]
        raw, centred = rows[rows["centring"] == "raw"], rows[rows["centring"] == "centred"]
        grid = part.subplots(1, 3)
        angles = None
        for column, (title, some) in enumerate((("raw", raw), ("centred", centred))):
            angles = _heat_map(
                grid[column],
                _matrix(some, names, "angle_deg"),
                _matrix(some, names, "null_mean_deg"),
                names,
                (0.0, 90.0),
                COLOURS,
                0 if len(names) > MANY else 1,
                column == 0,
            )
            grid[column].set_title(f"angle, {title}")
        correlation = _heat_map(
            grid[2], _matrix(raw, names, "correlation"), None, names, (-1.0, 1.0), DIVERGING, 2, False
        )
        grid[2].set_title("correlation of entries")
        bars = (
            (angles, list(grid[:2]), "Angle (°)", [0, 15, 30, 45, 60, 75, 90]),
            (correlation, [grid[2]], "Correlation of entries", [-1, -0.5, 0, 0.5, 1]),
        )
        for image, of_axes, label, ticks in bars:
            bar = part.colorbar(
                image,
                ax=of_axes,
                orientation="horizontal",
                location="bottom",
                shrink=0.7 if len(of_axes) == 2 else 0.8,
                aspect=35 if len(of_axes) == 2 else 18,
                pad=0.02,
                ticks=ticks,
            )
            bar.set_label(label)
            bar.outline.set_visible(False)
            bar.ax.tick_params(color=FAINT)
        part.suptitle(dataset, x=0.01, ha="left", weight="bold", size=9)
    return figure
