"""Compression C and discrimination D of every layer at the last step, with fitted lines."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from featurespace.figures.series import datasets_of, geometric_mean, in_study_order, over_seeds
from featurespace.style import (
    FAINT,
    INK,
    Look,
    elide,
    legend_above,
    line_handle,
    log_axis,
    new_figure,
    note_figure,
    recipe_looks,
    styled,
    title_panel,
)
from featurespace.tables import is_false

DATA = "data"
MEASURES = {
    "compression": "C: within- over between-class scatter",
    "discrimination": "D: 1 − greatest cosine of class means",
}
INPUT_MARKER = "*"  # a shape that no recipe has
LEAST_POINTS = 3  # a line through two points fits them whatever they are


def fit_line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Fit a line by least squares.

    Parameters
    ----------
    x, y
        Arrays of one shape (n,).

    Returns
    -------
    slope, intercept, r_squared
        All NaN with fewer than three finite points or no spread in x; r_squared is 1 - residual over total sum of
        squares, NaN where y is constant.
    """
    keep = np.isfinite(x) & np.isfinite(y)
    x, y = x[keep], y[keep]
    if len(x) < LEAST_POINTS or np.ptp(x) == 0:
        return np.nan, np.nan, np.nan
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    total = float(dy @ dy)
    residual = dy - slope * dx
    r_squared = 1 - float(residual @ residual) / total if total > 0 else np.nan
    return slope, float(y.mean() - slope * x.mean()), r_squared


def tidy(tables: pd.DataFrame, runs: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Sum up the layer tables over seeds, at the last step of each run.

    Parameters
    ----------
    tables
        The `layers.csv` of all origins, stacked; the data sets' own rows are those of the recipe `data`, depth 0.
    runs
        `runs.csv`, for `converged`: False where a run was to stop at a loss and did not reach it.
    spec
        `recipes`: the study's recipes in order.

    Returns
    -------
    DataFrame
        dataset, recipe, layer, depth, measure (compression | discrimination), n_seeds, value (mean over seeds:
        geometric for compression), low, high (extremes over seeds), reliable (in every seed), n_not_converged
        (seeds), and the line fitted over depth >= 1 to the reliable values (log of compression; discrimination):
        slope, intercept, r_squared, missing where a run did not converge or fewer than three layers are left.
    """
    failed = runs[is_false(runs["converged"])].groupby("recipe")["seed"].nunique()
    keys = ["dataset", "recipe", "layer", "depth"]
    parts = []
    for measure in MEASURES:
        frame = tables.copy()
        if measure == "compression":
            frame[measure] = frame[measure].where(frame[measure] > 0)
        centre = geometric_mean if measure == "compression" else None
        part = over_seeds(frame, keys, measure, centre)
        part = part[part["step"] == part.groupby(keys)["step"].transform("max")]
        last = frame[frame["step"] == frame.groupby([*keys, "seed"])["step"].transform("max")]
        # C and D both rest on the class means, so a layer that is flagged for one is flagged for both
        doubtful = last.assign(doubtful=is_false(last["reliable"])).groupby(keys)["doubtful"].any()
        part = part.merge((~doubtful).rename("reliable").reset_index(), on=keys)
        parts.append(part.assign(measure=measure))
    frame = pd.concat(parts, ignore_index=True).rename(columns={"mean": "value"})
    frame["n_not_converged"] = frame["recipe"].map(failed).fillna(0).astype(int)
    for column in ("slope", "intercept", "r_squared"):
        frame[column] = np.nan
    for (_, recipe, kind), group in frame.groupby(["dataset", "recipe", "measure"], sort=False):
        if recipe == DATA or group["n_not_converged"].iloc[0]:
            continue
        fitted = group[(group["depth"] >= 1) & group["reliable"]]
        y = fitted["value"].to_numpy(float)
        y = np.log(y) if kind == "compression" else y
        frame.loc[group.index, ["slope", "intercept", "r_squared"]] = fit_line(fitted["depth"].to_numpy(float), y)
    names = ["dataset", "recipe", "layer", "depth", "measure", "n_seeds", "value", "low", "high", "reliable"]
    columns = [*names, "n_not_converged", "slope", "intercept", "r_squared"]
    return in_study_order(frame, spec["recipes"], "dataset", "measure", "depth")[columns]


def _fit_text(part: pd.DataFrame, measure: str) -> str:
    """Say in a few words what a fitted line is."""
    letter = "C" if measure == "compression" else "D"
    if part.empty:
        return f"{letter}: no value"
    slope, r_squared = part[["slope", "r_squared"]].iloc[0]
    if np.isnan(slope):
        return f"{letter}: too few layers for a line"
    change = f"×{np.exp(slope):.3g}" if measure == "compression" else f"{slope:+.3f}".replace("-", "−")
    # rounded down, so that 0.9996 does not read as 1
    quality = "" if np.isnan(r_squared) else f", R² {np.floor(r_squared * 1e3) / 1e3:.3f}".replace("-", "−")
    return f"{letter} {change} per layer{quality}"


def _draw_measure(axes: Axes, curve: pd.DataFrame, start: pd.DataFrame, look: Look, measure: str, aside: float) -> None:
    """Draw one recipe's measure against depth, from the input on, with its bars and fitted line, moved `aside`."""
    curve = curve.dropna(subset=["value"]).sort_values("depth")
    if curve.empty:
        return
    depth, value = curve["depth"].to_numpy(float) + aside, curve["value"].to_numpy(float)
    spread = np.stack([value - curve["low"].to_numpy(float), curve["high"].to_numpy(float) - value])
    axes.errorbar(depth, value, yerr=np.maximum(spread, 0), fmt="none", ecolor=look.colour, elinewidth=0.9, alpha=0.55)
    origin = start.dropna(subset=["value"])
    if len(origin):
        axes.plot(
            [origin["depth"].iloc[0], depth[0]],
            [origin["value"].iloc[0], value[0]],
            color=look.colour,
            linewidth=0.7,
            alpha=0.45,
            zorder=2,
        )
    slope, intercept = curve["slope"].iloc[0], curve["intercept"].iloc[0]
    if np.isnan(slope):
        axes.plot(depth, value, color=look.colour, linewidth=0.8, alpha=0.6, zorder=2)
    else:
        inside = curve.loc[(curve["depth"] >= 1) & curve["reliable"], "depth"]
        x = np.linspace(inside.min(), inside.max(), 30)  # the exponential is no straight line on a linear axis
        y = intercept + slope * x
        axes.plot(
            x + aside, np.exp(y) if measure == "compression" else y, color=look.colour, linestyle=look.dashes, zorder=3
        )
        axes.plot(depth, value, color=look.colour, linewidth=0.6, alpha=0.4, zorder=2)
    for reliable, part in curve.groupby("reliable"):
        axes.plot(
            part["depth"] + aside,
            part["value"],
            look.marker,
            color=look.colour,
            markerfacecolor=look.colour if reliable else "white",
            markersize=4.5,
            zorder=4,
        )


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw C and D against depth: a row a data set, each with the lines' slopes beside it."""
    looks = recipe_looks(spec["recipes"])
    frame = frame.dropna(subset=["value"])
    blocks = datasets_of(spec["recipes"], frame.loc[frame["recipe"] != DATA, "dataset"])
    if not blocks:
        return note_figure("No layer could be measured: the samples of this study have fewer than two classes.")
    handles = {}
    for dataset in blocks:
        entries = []
        rows = frame[(frame["dataset"] == dataset) & (frame["recipe"] != DATA)]
        for name, part in rows.groupby("recipe", sort=False):
            look = looks[str(name)]
            failed = int(part["n_not_converged"].max())
            lines = [elide(str(name), 30)]
            if failed:
                lines.append(f"did not converge ({failed} seed{'s' if failed > 1 else ''})")
            else:
                texts = [_fit_text(part[part["measure"] == measure], measure) for measure in MEASURES]
                few = [text for text in texts if "too few" in text]
                lines += ["too few layers for a line"] if len(few) == len(texts) else texts
            entries.append(
                Line2D([], [], color=look.colour, linestyle=look.dashes, marker=look.marker, label="\n".join(lines))
            )
        handles[dataset] = entries
    heights = [max(2.2, 0.11 * sum(str(h.get_label()).count("\n") + 1.4 for h in handles[d]) + 0.5) for d in blocks]
    figure = new_figure(sum(heights) + 0.45 * len(blocks))
    grid = figure.subplots(len(blocks), 3, squeeze=False, height_ratios=heights, width_ratios=[1, 1, 0.62])
    for row, dataset in enumerate(blocks):
        rows = frame[frame["dataset"] == dataset]
        for column, measure in enumerate(MEASURES):
            axes = grid[row, column]
            part = rows[rows["measure"] == measure]
            start = part[part["recipe"] == DATA]
            curves = list(part[part["recipe"] != DATA].groupby("recipe", sort=False))
            title_panel(axes, MEASURES[measure], "", dataset if column == 0 else "")
            if not curves:
                axes.xaxis.set_major_locator(NullLocator())
                axes.yaxis.set_major_locator(NullLocator())
                note = f"no value: {'C' if measure == 'compression' else 'D'} is zero\nor undefined in every layer"
                axes.text(0.5, 0.5, note, transform=axes.transAxes, ha="center", va="center", color=FAINT)
                continue
            # Recipes stand side by side at a layer, within a third of the way to the next.
            places = np.linspace(-1, 1, len(curves)) * min(0.16, 0.03 * len(curves)) if len(curves) > 1 else [0.0]
            for (name, curve), aside in zip(curves, places, strict=True):
                _draw_measure(axes, curve, start, looks[str(name)], measure, float(aside))
            axes.plot(start["depth"], start["value"], INPUT_MARKER, color=INK, markersize=8, zorder=5)
            depths = part["depth"]
            axes.set_xlim(min(0.7, depths.min() - 0.3), depths.max() + 0.3)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
            if measure == "compression":
                log_axis(axes, part["low"].min(), part["high"].max())
            else:
                least, most = part["low"].min(), part["high"].max()
                margin = max(0.08 * (most - least), 0.05 - (most - least) / 2)
                axes.set_ylim(least - margin, most + margin)
            axes.set_ylabel("C" if measure == "compression" else "D")
            axes.set_xlabel("Layer (0 = input)" if len(start) else "Layer")
        side = grid[row, 2]
        side.set_axis_off()
        side.legend(handles=handles[dataset], loc="upper left", fontsize=6.5, labelspacing=0.7, borderaxespad=0)
    signs = (
        [line_handle("input (the data)", linestyle="", marker=INPUT_MARKER, color=INK, markersize=8)]
        if (frame["recipe"] == DATA).any()
        else []
    )
    if (frame["n_seeds"] > 1).any():
        signs.append(line_handle("mean over seeds", linestyle="", marker="o"))
        signs.append(line_handle("least to greatest seed", linestyle="", marker="|", markersize=8))
    if frame["slope"].notna().any():
        signs.append(line_handle("fitted line"))
    if not frame["reliable"].all():
        signs.append(line_handle("C too small to be reliable", linestyle="", marker="o", markerfacecolor="white"))
    legend_above(figure, [], signs)
    return figure
