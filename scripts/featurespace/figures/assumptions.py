"""What the theory of deep linear networks assumes, measured against depth and width (the layerwise paper's E3)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from featurespace.figures.convergence import leave_out_unconverged, name_unconverged, unconverged_rows
from featurespace.figures.series import in_study_order
from featurespace.style import (
    FAINT,
    INK,
    MARKERS,
    PALETTE,
    legend_above,
    line_handle,
    log_axis,
    new_figure,
    note_figure,
    styled,
    title_panel,
)

QUANTITIES = {
    "min_norm_residual": "Minimum-norm residual",
    "balancedness": "Balancedness residual",
    "low_rankness": "Variance of the tail",
}
AXES = {"depth": "Depth L", "width": "Width"}
SETTING = ("dataset", "scale", "output_scale")
# Digitised from the authors' figure (their README's "Fig 6"), about ±3 %: by quantity, (depth, width, value).
PUBLISHED = {
    "min_norm_residual": (
        *((2, 400, 0.049), (3, 400, 0.047), (4, 400, 0.044), (5, 400, 0.0395)),
        *((5, 200, 0.0587), (5, 300, 0.0476), (5, 500, 0.037), (5, 600, 0.034), (5, 700, 0.029)),
    ),
    "balancedness": (
        *((2, 400, 0.0228), (3, 400, 0.0665), (4, 400, 0.0477), (5, 400, 0.0373)),
        *((5, 200, 0.0269), (5, 300, 0.0328), (5, 500, 0.0411), (5, 600, 0.0444), (5, 700, 0.0472)),
    ),
}
# the setting of those points: nearly orthonormal rows, and what the recipe says
PAPER = {"kind": "orthonormal", "dimension": 50, "classes": 3, "n_train": 30, "noise": 1.0}
PAPER_SCALE, PAPER_OUTPUT_SCALE = 0.1, 1.0
COLUMNS = [
    *("dataset", "recipe", "scale", "output_scale", "quantity", "panel", "depth", "width", "source"),
    *("n_seeds", "value", "sd", "low", "high", "law", "n_not_converged"),
]


def tidy(tables: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Sum up the residuals over seeds, along depth and along width.

    Parameters
    ----------
    tables
        The `theory.csv` of all deep linear networks, members of sweeps among them, stacked.
    spec
        `recipes` and `datasets` of the study.

    Returns
    -------
    DataFrame
        dataset, recipe, scale (ξ), output_scale (α), quantity (min_norm_residual | balancedness | low_rankness), panel
        (depth: of the width that most recipes of a data set, ξ and α share | width: of the depth that most share),
        depth (L), width, source (measured | published), n_seeds (that converged), value (mean over these; of the
        published points, what was digitised), sd (n - 1 in the denominator; missing with one seed), low, high
        (extremes), law, n_not_converged (seeds). Published points, with no recipe, are there only for the paper's own
        setting, width 400 along depth and depth 5 along width.
    """
    if tables.empty:
        return pd.DataFrame(columns=COLUMNS)
    facts = pd.DataFrame(
        [
            {
                "recipe": recipe["name"],
                "scale": recipe["init"]["scale"],
                "output_scale": recipe["output_scale"],
                "depth": recipe["model"]["depth"],
                "width": recipe["model"]["width"],
            }
            for recipe in spec["recipes"]
            if recipe["kind"] == "linear"
        ]
    )
    kept, failed = leave_out_unconverged(tables)
    # of balancedness, the mean over layers
    kept = kept[kept["quantity"].isin(QUANTITIES) & (kept["layer"] == "")].dropna(subset=["measured"])
    summed = kept.groupby(["dataset", "recipe", "quantity"], sort=False, as_index=False).agg(
        n_seeds=("measured", "size"),
        value=("measured", "mean"),
        sd=("measured", "std"),
        low=("measured", "min"),
        high=("measured", "max"),
        law=("law", "mean"),
    )
    summed = summed.merge(facts, on="recipe").assign(source="measured")
    summed["n_not_converged"] = summed["recipe"].map(failed)
    datasets = {dataset["name"]: dataset for dataset in spec["datasets"]}
    parts = []
    # what most recipes share, whether they converged or not
    shares = facts.merge(tables[["dataset", "recipe"]].drop_duplicates(), on="recipe")
    for keys, group in summed.groupby(list(SETTING), sort=False):
        there = shares[(shares[list(SETTING)] == list(keys)).all(axis=1)]
        setting = {name: there[name].iloc[0] for name in SETTING}
        is_paper = _is_paper(datasets[setting["dataset"]], setting["scale"], setting["output_scale"])
        for panel, shared in (("depth", "width"), ("width", "depth")):
            common = _most_frequent(there[shared])
            parts.append(group[group[shared] == common].assign(panel=panel))
            if is_paper and common == {"width": 400, "depth": 5}[shared]:
                parts.append(_published(panel).assign(panel=panel, **setting))
    nothing = unconverged_rows(failed[~failed.index.isin(summed["recipe"])])
    parts += [nothing] if len(nothing) or not parts else []
    frame = pd.concat(parts, ignore_index=True).reindex(columns=COLUMNS)
    frame["recipe"] = frame["recipe"].fillna("")
    frame["n_not_converged"] = frame["n_not_converged"].fillna(0).astype(int)
    order = {name: i for i, name in enumerate(QUANTITIES)}
    return in_study_order(frame.assign(_quantity=frame["quantity"].map(order)), spec["recipes"], "_quantity", "panel")[
        COLUMNS
    ]


def _most_frequent(values: pd.Series) -> float:
    """Return the most frequent value, the first of equally frequent ones."""
    return float(values[values.isin(values.mode())].iloc[0])


def _is_paper(dataset: Mapping[str, Any], scale: float, output_scale: float) -> bool:
    same_data = all(dataset.get(key) == value for key, value in PAPER.items())
    return same_data and scale == PAPER_SCALE and output_scale == PAPER_OUTPUT_SCALE


def _published(panel: str) -> pd.DataFrame:
    """Return the digitised points that lie along depth (at width 400) or along width (at depth 5)."""
    rows = [
        {"quantity": quantity, "depth": depth, "width": width, "value": value, "source": "published"}
        for quantity, points in PUBLISHED.items()
        for depth, width, value in points
        if (width == 400 if panel == "depth" else depth == 5)
    ]
    return pd.DataFrame(rows)


def _draw_panel(axes: Axes, rows: pd.DataFrame, x: str, looks: Mapping[tuple[Any, ...], tuple[str, str]]) -> None:
    for keys, group in rows.groupby(list(SETTING), sort=False):
        colour, marker = looks[keys]
        measured = group[group["source"] == "measured"].sort_values(x)
        axes.vlines(measured[x], measured["low"], measured["high"], color=colour, linewidth=1.1, zorder=3)
        axes.plot(measured[x], measured["value"], marker, linestyle="-", linewidth=0.6, color=colour, zorder=4)
        if (measured["law"] > 0).any():
            axes.plot(measured[x], measured["law"], "--", color=colour, linewidth=1.1, zorder=2)
        published = group[group["source"] == "published"]
        axes.plot(
            published[x],
            published["value"],
            "D",
            linestyle="",
            color=INK,
            markerfacecolor="none",
            markersize=6,
            zorder=5,
        )
    places = sorted(set(rows[x].astype(int)))
    axes.set_xticks(places, [str(place) for place in places])
    margin = 0.08 * (places[-1] - places[0]) or 0.5
    axes.set_xlim(places[0] - margin, places[-1] + margin)


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw a column an assumption: against depth above, against width below."""
    drawn = frame.dropna(subset=["value"])
    if drawn.empty:
        failed = ", ".join(frame.loc[frame["n_not_converged"] > 0, "recipe"])
        reached = f" Not converged: {failed}." if failed else ""
        return note_figure("No deep linear network of this study was trained to the end on classes." + reached)
    settings = list(dict.fromkeys(drawn[list(SETTING)].itertuples(index=False, name=None)))
    looks = {keys: (PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]) for i, keys in enumerate(settings)}
    quantities = [name for name in QUANTITIES if (drawn["quantity"] == name).any()]
    figure = new_figure(4.3)
    grid = figure.subplots(2, len(quantities), squeeze=False, sharey="col")
    for line, (panel, label) in zip(grid, AXES.items(), strict=True):
        along = drawn[drawn["panel"] == panel]
        shared = sorted(set(along["width" if panel == "depth" else "depth"].astype(int)))
        at = f"{'width' if panel == 'depth' else 'L ='} {' and '.join(map(str, shared))}"
        for axes, quantity in zip(line, quantities, strict=True):
            rows = along[along["quantity"] == quantity]
            title_panel(axes, QUANTITIES[quantity])
            axes.set_xlabel(f"{label} ({at})" if shared else label)
            if rows.empty:
                axes.text(0.5, 0.5, "none converged", transform=axes.transAxes, ha="center", va="center", color=FAINT)
                axes.set_xticks([])
                continue
            _draw_panel(axes, rows, panel, looks)
    for axes, quantity in zip(grid[0], quantities, strict=True):
        rows = drawn[drawn["quantity"] == quantity]
        if quantity == "low_rankness":
            positive = rows.loc[rows["low"] > 0, ["low", "high"]].to_numpy(float)
            if positive.size:
                log_axis(axes, positive.min(), positive.max())
        else:
            axes.set_ylim(0, 1.12 * float(np.nanmax(rows[["value", "high", "law"]].to_numpy(float))))
    several = [
        Line2D([], [], color=colour, marker=marker, label=f"{keys[0]}, ξ = {keys[1]:g}, α = {keys[2]:g}")
        for keys, (colour, marker) in looks.items()
    ]
    signs = [line_handle("mean over seeds" if (drawn["n_seeds"] > 1).any() else "measured", linestyle="", marker="o")]
    if (drawn["n_seeds"] > 1).any():
        signs.append(line_handle("least to greatest seed", linestyle="", marker="|", markersize=8))
    if (drawn["law"] > 0).any():
        signs.append(line_handle("law", linestyle="--", linewidth=1.1))
    if (drawn["source"] == "published").any():
        signs.append(
            line_handle(
                "digitised from the authors' figure",
                linestyle="",
                marker="D",
                color=INK,
                markerfacecolor="none",
                markersize=6,
            )
        )
    legend_above(figure, several, signs)
    name_unconverged(figure, frame)
    return figure
