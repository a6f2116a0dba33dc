"""Test accuracy against the angle between a network's P-vector and the data's, over a population of settings."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from featurespace.figures.series import datasets_of
from featurespace.style import (
    FAINT,
    INK,
    MARKERS,
    PALETTE,
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

CENTRINGS = ("raw", "centred")
INDICATOR, TARGET = "angle_to_data_deg", "test_accuracy"
SETTING = [
    *("recipe", "population", "kind", "n_seeds", "angle_to_data_deg", "angle_to_data_sd_deg"),
    *("null_formula_deg", "test_accuracy", "test_accuracy_sd"),
]
CORRELATION = ["group", "n_settings", "rho", "low", "high", "p_value", "p_holm", "loo_low", "loo_high"]


def tidy(population: pd.DataFrame, correlations: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Choose the settings to show and the correlations that belong to them.

    Parameters
    ----------
    population
        `population.csv`: one row a setting and centring, means over seeds.
    correlations
        `correlations.csv`; of it, the rows for the angle to the data and the test accuracy.
    spec
        `recipes`: the study's recipes in order, whose data sets are shown.

    Returns
    -------
    DataFrame
        panel (setting | correlation), dataset, centring; of a setting recipe, population, kind, n_seeds,
        angle_to_data_deg, angle_to_data_sd_deg, null_formula_deg, test_accuracy, test_accuracy_sd; of a correlation
        group (all or a kind), n_settings, rho (Spearman's, of angle and accuracy), low, high, p_value, p_holm,
        loo_low, loo_high. Settings without an angle or an accuracy are left out.
    """
    columns = ["panel", "dataset", "centring", *SETTING, *CORRELATION]
    settings = population.dropna(subset=[INDICATOR, TARGET]).assign(panel="setting")
    of_angle = (correlations["indicator"] == INDICATOR) & (correlations["target"] == TARGET)
    found = correlations[of_angle & correlations["dataset"].isin(settings["dataset"])].assign(panel="correlation")
    parts = [part.reindex(columns=columns) for part in (settings, found) if len(part)]
    if not parts:
        return pd.DataFrame(columns=columns)
    # stacking columns of one part only must not turn their kind of number
    frame = pd.concat([part.astype(object) for part in parts], ignore_index=True)
    names = ["panel", "dataset", "centring", "recipe", "population", "kind", "group"]
    frame[names] = frame[names].fillna("")
    numbers = [column for column in columns if column not in names]
    frame[numbers] = frame[numbers].astype(float)
    order = {dataset: i for i, dataset in enumerate(datasets_of(spec["recipes"], frame["dataset"]))}
    frame["_order"] = frame["dataset"].map(order)
    frame["_centring"] = frame["centring"].map({"raw": 0, "centred": 1})
    frame = frame.dropna(subset=["_order"]).sort_values(["_order", "_centring"], kind="stable")
    return frame[columns].reset_index(drop=True)


def family_looks(recipes: list[Mapping[str, Any]], kinds: list[str]) -> dict[str, Look]:
    """Give each kind of network the look of the study's first classifier of that kind, or one that no other has."""
    looks = recipe_looks(recipes)
    families: dict[str, Look] = {}
    for recipe in recipes:
        if recipe["task"] == "classify" and recipe["kind"] in kinds:
            families.setdefault(recipe["kind"], looks[recipe["name"]])
    for kind in kinds:
        taken = {look.colour for look in families.values()}
        free = [slot for slot, colour in enumerate(PALETTE) if colour not in taken] or [len(families) % len(PALETTE)]
        families.setdefault(kind, Look(PALETTE[free[0]], MARKERS[free[0]], "-"))
    return {kind: families[kind] for kind in kinds}


def _p_text(p: float) -> str:
    """Write a p-value with one digit that counts; none is written as zero."""
    return "–" if np.isnan(p) else "< 0.0001" if p < 1e-4 else f"{p:.1g}" if p < 0.1 else f"{p:.2f}"


def _overall(row: pd.Series) -> str:
    """Write what correlates angle and accuracy over all settings, on two lines."""
    rho, low, high, loo_low, loo_high = (
        f"{row[name]:z.2f}".replace("-", "−") for name in ("rho", "low", "high", "loo_low", "loo_high")
    )
    n = f"{row['n_settings']:.0f} setting{'' if row['n_settings'] == 1 else 's'}"
    if np.isnan(row["rho"]):
        return f"{n}: no rank correlation"
    return (
        f"ρ {rho} [{low}, {high}], {n}\n"
        f"p {_p_text(row['p_value'])}, Holm {_p_text(row['p_holm'])}; one left out: {loo_low} to {loo_high}"
    )


def _within(rows: pd.DataFrame) -> str:
    """Write the rank correlations within families, one a line."""
    lines = []
    for _, row in rows[rows["rho"].notna()].iterrows():
        rho, low, high = (f"{row[name]:z.2f}".replace("-", "−") for name in ("rho", "low", "high"))
        lines.append(f"{elide(str(row['group']), 18)}: ρ {rho} [{low}, {high}], {row['n_settings']:.0f} settings")
    return "\n".join(lines)


def _points(axes: Axes, rows: pd.DataFrame, looks: Mapping[str, Look], error: bool) -> None:
    """Draw one marker a setting, with standard deviations over seeds as bars."""
    for kind, some in rows.groupby("kind", sort=False):
        look = looks[str(kind)]
        x = some[INDICATOR].to_numpy(float)
        y = 100 * some[TARGET].to_numpy(float)
        y = 100 - y if error else y
        dx = some["angle_to_data_sd_deg"].fillna(0).to_numpy(float)
        dy = 100 * some["test_accuracy_sd"].fillna(0).to_numpy(float)
        # on a logarithmic axis a bar must not reach zero
        below = [np.minimum(d, 0.99 * v) if error else np.minimum(d, v) for d, v in ((dx, x), (dy, y))]
        axes.errorbar(
            x, y, xerr=[below[0], dx], yerr=[below[1], dy], fmt="none", ecolor=look.colour, elinewidth=0.6, alpha=0.5
        )
        for main, edge in ((False, "white"), (True, INK)):
            of = (some["population"] == "").to_numpy() == main
            axes.plot(
                x[of],
                y[of],
                look.marker,
                color=look.colour,
                markersize=5 if main else 4.2,
                markeredgecolor=edge,
                markeredgewidth=0.8 if main else 0.4,
                linestyle="",
                zorder=4 if main else 3,
            )


def _log_both(axes: Axes, rows: pd.DataFrame) -> None:
    """Make both axes logarithmic with plain numbers, two at least on each."""
    columns = (rows[INDICATOR].to_numpy(float), 100 - 100 * rows[TARGET].to_numpy(float))
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis, values in zip((axes.xaxis, axes.yaxis), columns, strict=True):
        margin = max(1.12, (values.max() / values.min()) ** 0.06)
        low, high = values.min() / margin, values.max() * margin
        if high / low > 3:
            digits = (1, 2, 5) if high / low > 12 else (1, 1.5, 2, 3, 4, 5, 6, 8)
            decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
            ticks = [digit * 10.0**k for k in decades for digit in digits]
        else:
            ticks = list(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
        axis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
        axis.set_view_interval(low, high, ignore=True)


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw two rows a data set: accuracy against angle, and test error against angle on logarithmic axes."""
    settings = frame[frame["panel"] == "setting"]
    blocks = datasets_of(spec["recipes"], settings["dataset"])
    if not blocks:
        return note_figure("No classifier of this study has an angle to the data and a test accuracy.")
    kinds = list(dict.fromkeys(settings["kind"]))
    looks = family_looks(list(spec["recipes"]), kinds)
    found = frame[frame["panel"] == "correlation"]
    n_groups = {d: found[(found["dataset"] == d) & (found["group"] != "all")]["group"].nunique() for d in blocks}
    heights = [5.4 + 0.11 * n_groups[dataset] for dataset in blocks]
    figure = new_figure(sum(heights))
    subfigures = figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for dataset, part in zip(blocks, subfigures, strict=True):
        part.suptitle(dataset, x=0.01, ha="left", weight="bold", size=9)
        grid = part.subplots(2, 2)
        for column, centring in enumerate(CENTRINGS):
            here = (frame["dataset"] == dataset) & (frame["centring"] == centring)
            rows = frame[here & (frame["panel"] == "setting")]
            tested = frame[here & (frame["panel"] == "correlation")]
            overall, within = tested[tested["group"] == "all"], tested[tested["group"] != "all"]
            axes = grid[0, column]
            _points(axes, rows, looks, error=False)
            axes.margins(0.06)
            axes.set_xlim(left=max(0.0, axes.get_xlim()[0]))
            axes.set_xlabel("Angle to the data's P-vector (°)")
            axes.set_ylabel("Test accuracy (%)" if column == 0 else "")
            title_panel(axes, _overall(overall.iloc[0]) if len(overall) else "", centring)
            axes = grid[1, column]
            positive = rows[(rows[INDICATOR] > 0) & (rows[TARGET] < 1)]
            if len(positive):
                _points(axes, positive, looks, error=True)
                _log_both(axes, positive)
            else:
                axes.text(0.5, 0.5, "no positive angle and error", transform=axes.transAxes, ha="center", color=FAINT)
            axes.set_xlabel("Angle to the data's P-vector (°), logarithmic")
            axes.set_ylabel("Test error (%), logarithmic" if column == 0 else "")
            title_panel(axes, _within(within), centring)
    families = [
        line_handle(elide(kind, 30), color=looks[kind].colour, marker=looks[kind].marker, linestyle="")
        for kind in kinds
    ]
    signs = []
    if (settings["population"] == "").any() and (settings["population"] != "").any():
        signs.append(
            line_handle("recipe of the study file", marker="o", linestyle="", markeredgecolor=INK, markeredgewidth=0.8)
        )
    if (settings["n_seeds"] > 1).any():
        signs.append(line_handle("standard deviation over seeds", linewidth=0.6))
    legend_above(figure, families, signs)
    return figure
