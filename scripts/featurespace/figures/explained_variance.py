"""Share of the squared norm in the first k directions, and what the first one leaves, over training."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from featurespace.figures.series import datasets_of, in_study_order, over_seeds, recipes_of
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
    seed_handles,
    styled,
    title_panel,
)

DATA = "data"
PER_ROW = 4
CENTRINGS = ("raw", "centred")
STAGES = {"first": 0.7, "last": 1.5}  # widths of the lines, in points
DASHED = (0, (3.5, 1.2))
ERRORS = {
    "rank-1 error": "E₁ = ‖X − X₁‖² / ‖X‖²",
    "root of rank-1 error": "√E₁ = ‖X − X₁‖ / ‖X‖",
}
COLUMNS = [
    *("panel", "dataset", "recipe", "layer", "centring", "which"),
    *("step", "epoch", "component", "n_seeds", "value", "low", "high"),
]


def tidy(tables: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Sum up over seeds the share of the squared Frobenius norm that the first k components hold.

    By Eckart and Young, ‖X − X_k‖²_F / ‖X‖²_F is one minus that share, X_k the nearest matrix of rank k.

    Parameters
    ----------
    tables
        The `spectra.csv` of all origins, stacked: one row a run, step, layer, centring and component (1 the first);
        the data sets' own rows are those of the recipe `data`.
    spec
        `recipes`: the study's recipes in order, each with name, dataset and feature_layer.

    Returns
    -------
    DataFrame
        panel (cumulative share | rank-1 error | root of rank-1 error), dataset, recipe, layer, centring, which
        (first | last kept step, the last where there is one only; empty over epochs), step, epoch, component (k; 1 in
        the errors), n_seeds, value (mean over seeds), low, high (extremes over seeds). A share is missing from the
        first component on that is missing itself.
    """
    layer_of = {recipe["name"]: recipe["feature_layer"] for recipe in spec["recipes"]}
    frame = tables[(tables["recipe"] == DATA) | (tables["layer"] == tables["recipe"].map(layer_of))]
    if frame.empty:
        return pd.DataFrame(columns=COLUMNS)
    curve = ["dataset", "recipe", "layer", "centring"]
    frame = frame.sort_values([*curve, "seed", "step", "component"])
    gaps = frame["variance_share"].isna().groupby([frame[key] for key in [*curve, "seed", "step"]], sort=False)
    shares = frame.groupby([*curve, "seed", "step"], sort=False)["variance_share"].cumsum()
    frame["value"] = shares.mask(gaps.cummax().astype(bool)).clip(upper=1.0)

    stages = frame.groupby(curve)["step"]
    # the last kept step of each seed counts as the last of all: a seed that stopped early has no later row
    own_last = frame["step"] == frame.groupby([*curve, "seed"])["step"].transform("max")
    ends = frame[(frame["step"] == stages.transform("min")) | own_last]
    cumulative = over_seeds(ends, [*curve, "component"], "value")
    last = cumulative["step"] == cumulative.groupby(curve)["step"].transform("max")
    first = cumulative["step"] == cumulative.groupby(curve)["step"].transform("min")
    cumulative = cumulative.assign(which=last.map({True: "last", False: "first"}))[first | last]

    parts = [cumulative.assign(panel="cumulative share")]
    errors = frame[(frame["component"] == 1) & (frame["recipe"] != DATA)].assign(error=lambda rows: 1 - rows["value"])
    errors["root"] = errors["error"] ** 0.5
    for panel, column in zip(ERRORS, ("error", "root"), strict=True):
        parts.append(over_seeds(errors, [*curve, "component"], column).assign(panel=panel, which=""))
    stacked = pd.concat([part for part in parts if len(part)], ignore_index=True).rename(columns={"mean": "value"})
    stacked = stacked.dropna(subset=["value"])[COLUMNS]
    stacked["_panel"] = stacked["panel"].map({name: i for i, name in enumerate(("cumulative share", *ERRORS))})
    stacked["_centring"] = stacked["centring"].map({"raw": 0, "centred": 1})
    ordered = in_study_order(stacked, spec["recipes"], "dataset", "_panel", "_centring", "step", "component")
    return ordered.drop(columns=["_panel", "_centring"])


def _cumulative(axes: Axes, rows: pd.DataFrame, look: Look, n_classes: int | None, most: int) -> None:
    """Draw one recipe's cumulative shares, raw and centred, first and last."""
    if n_classes:
        for at, dashes in ((n_classes, "-"), (n_classes - 1, DASHED)):
            if 1 <= at <= most:
                axes.axvline(at, color=FAINT, linewidth=0.7, linestyle=dashes, zorder=1)
    for (centring, which), curve in rows.groupby(["centring", "which"], sort=False):
        draw_band(
            axes,
            curve,
            "component",
            ("value", "low", "high"),
            Look(look.colour, "o", "-"),
            dashes="-" if centring == "raw" else DASHED,
            width=STAGES[str(which)],
        )
    axes.set_xlim(0.5, most + 0.5)
    axes.set_xticks(sorted({1, *range(5, most + 1, 5)}) if most > 6 else range(1, most + 1))
    axes.set_ylim(0, 1.02)
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw a small panel a recipe with its cumulative shares, then the error of rank one over epochs.

    `spec` may hold `n_classes`, the number of classes of each data set, marked in the cumulative panels.
    """
    looks = recipe_looks(spec["recipes"]) | {DATA: Look(INK, "o", "-")}
    cumulative = frame[frame["panel"] == "cumulative share"]
    blocks = datasets_of(spec["recipes"], cumulative.loc[cumulative["recipe"] != DATA, "dataset"])
    if not blocks:
        return note_figure("No spectrum is known: every feature matrix of this study is empty.")
    there = {dataset: set(cumulative.loc[cumulative["dataset"] == dataset, "recipe"]) for dataset in blocks}
    names_of = {
        dataset: [name for name in (DATA, *recipes_of(spec["recipes"], dataset)) if name in there[dataset]]
        for dataset in blocks
    }
    rows_of = {dataset: -(-len(names) // PER_ROW) for dataset, names in names_of.items()}
    trained = {dataset: (frame["dataset"] == dataset) & frame["panel"].isin(list(ERRORS)) for dataset in blocks}
    heights = [1.2 * rows_of[d] + 0.5 + (1.95 if trained[d].any() else 0) for d in blocks]
    figure = new_figure(sum(heights))
    most = max(2, int(cumulative["component"].max()))
    drawn: dict[str, set[str]] = {}
    for dataset, block in zip(
        blocks, figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights), strict=True
    ):
        upper, *lower = block[0].subfigures(
            1 + bool(trained[dataset].any()),
            1,
            squeeze=False,
            height_ratios=[1.2 * rows_of[dataset] + 0.5, 1.95][: 1 + bool(trained[dataset].any())],
        )[:, 0]
        upper.suptitle(dataset, x=0.01, ha="left", weight="bold", size=9)
        names = names_of[dataset]
        grid = upper.subplots(rows_of[dataset], PER_ROW, squeeze=False)
        for i, axes in enumerate(grid.flat):
            if i >= len(names):
                axes.remove()
                continue
            rows = cumulative[(cumulative["dataset"] == dataset) & (cumulative["recipe"] == names[i])]
            _cumulative(axes, rows, looks[names[i]], spec.get("n_classes", {}).get(dataset), most)
            title_panel(axes, elide(names[i], 26))
            axes.tick_params(labelbottom=i + PER_ROW >= len(names), labelleft=i % PER_ROW == 0)
            if i + PER_ROW >= len(names):
                axes.set_xlabel("Components k")
            if i % PER_ROW == 0:
                axes.set_ylabel("Share of ‖X‖²")
        for part in lower:
            for axes, (panel, centring) in zip(
                part.subplots(1, 4), [(p, c) for p in ERRORS for c in CENTRINGS], strict=True
            ):
                shown = frame[trained[dataset] & (frame["panel"] == panel) & (frame["centring"] == centring)]
                for name, curve in shown.groupby("recipe", sort=False):
                    look = looks[str(name)]
                    drawn.setdefault(str(name), set()).add(
                        draw_band(axes, curve, "epoch", ("value", "low", "high"), look)
                    )
                axes.set_ylim(0, 1.02)
                axes.yaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
                title_panel(axes, ERRORS[panel] if centring == "raw" else "", centring)
                axes.tick_params(labelleft=centring == "raw")
                epoch_axis(axes, frame.loc[trained[dataset], "epoch"])
    stages = [which for which in STAGES if (cumulative["which"] == which).any()]
    signs = [line_handle(f"{which} kept step", linewidth=STAGES[which]) for which in stages]
    signs += [line_handle("raw; K classes"), line_handle("centred; K − 1", linestyle=DASHED), *seed_handles(frame)[1:]]
    drawn = {name: kinds - {""} for name, kinds in drawn.items()}
    legend_above(figure, recipe_handles(drawn, {name: looks[name] for name in looks if name != DATA}), signs)
    return figure
