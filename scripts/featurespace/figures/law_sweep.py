"""The factor by which compression falls a layer, over settings, against the law ε² (α²/n)^(1/L)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from featurespace.figures.convergence import leave_out_unconverged, name_unconverged, unconverged_rows
from featurespace.figures.series import in_study_order
from featurespace.style import (
    FAINT,
    INK,
    MARKERS,
    PALETTE,
    elide,
    legend_above,
    line_handle,
    new_figure,
    note_figure,
    styled,
    title_panel,
)
from featurespace.tables import is_false

BAND_PERCENT = 4.0  # by which the law may be off
# what may vary: its sign, and its name in the legend
FACTORS = {
    "scale": ("ξ", "scale of the initialisation ξ"),
    "depth": ("L", "depth L"),
    "samples_per_class": ("n", "samples per class n"),
    "classes": ("K", "classes K"),
    "output_scale": ("α", "output scale α"),
    "width": ("width", "width"),
    "dimension": ("d", "input dimension d"),
    "noise": ("noise", "noise of the data"),
}
MINOR = ("width", "dimension", "noise")  # no part of the law: named only where nothing else differs
SEVERAL, BASE = "several", "none"
COLUMNS = [
    *("dataset", "recipe", *FACTORS, "factor", "n_seeds", "n_layers", "measured", "low", "high"),
    *("law", "deviation_percent", "low_percent", "high_percent", "n_not_converged"),
]
HEIGHT_OF_ROW = 0.17  # inches


def settings_of(spec: Mapping[str, Any]) -> pd.DataFrame:
    """Return the setting of every deep linear network of a study, with what it varies, indexed by recipe.

    `factor` names the one in which a recipe differs from the most frequent value of each: `none` or `several` if it
    is not one. What does not enter the law (width, dimension, noise) counts only where nothing else differs.
    """
    datasets = {dataset["name"]: dataset for dataset in spec["datasets"]}
    rows = {}
    for recipe in spec["recipes"]:
        if recipe["kind"] != "linear":
            continue
        dataset = datasets[recipe["dataset"]]
        rows[recipe["name"]] = {
            "scale": recipe["init"]["scale"],
            "depth": recipe["model"]["depth"],
            "samples_per_class": dataset["n_train"] / dataset["classes"],
            "classes": dataset["classes"],
            "output_scale": recipe["output_scale"],
            "width": recipe["model"]["width"],
            "dimension": dataset.get("dimension"),
            "noise": dataset.get("noise"),
        }
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=list(FACTORS)).astype(float)
    usual = _usual(frame)
    varied = []
    for row in frame.to_dict("records"):
        differing = _differing(row, usual)
        varied.append(differing[0] if len(differing) == 1 else SEVERAL if differing else BASE)
    return frame.assign(factor=varied)


def _usual(settings: pd.DataFrame) -> dict[str, float]:
    """Return the most frequent value of each factor that has one; of equally frequent ones the first in the study."""
    known = {name: settings[name].dropna() for name in FACTORS}
    return {name: float(some[some.isin(some.mode())].iloc[0]) for name, some in known.items() if len(some)}


def _differing(row: Mapping[Any, Any], usual: Mapping[str, float]) -> list[str]:
    """Name the factors in which a recipe differs from the rest: those of the law, or, without any, the others."""
    differing = [name for name in usual if pd.notna(row[name]) and row[name] != usual[name]]
    return [name for name in differing if name not in MINOR] or differing


def tidy(tables: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Average the measured ratios over layers and seeds, beside the law.

    Parameters
    ----------
    tables
        The `theory.csv` of all deep linear networks, members of sweeps among them, stacked.
    spec
        `recipes` and `datasets` of the study.

    Returns
    -------
    DataFrame
        A row a recipe: dataset, recipe, what of its setting may vary (NaN for what its data do not have), factor (in
        what it does differ, see `settings_of`), n_seeds (that converged), n_layers, measured (geometric mean of
        C_{l+1} / C_l over l >= 1, from reliable values, then over seeds), low, high (extremes over seeds), law, the
        same as deviation from the law in percent, and n_not_converged (seeds). A recipe of which no seed converged, or
        that has no two measured layers, has no numbers.
    """
    if tables.empty:
        return pd.DataFrame(columns=COLUMNS)
    settings = settings_of(spec)
    kept, failed = leave_out_unconverged(tables)
    kept = kept[(kept["quantity"] == "compression_ratio") & (kept["depth"] >= 2) & ~is_false(kept["reliable"])]
    kept = kept[np.isfinite(kept["measured"]) & (kept["measured"] > 0)]
    kept = kept.assign(log=np.log(kept["measured"].astype(float)))
    by_seed = kept.groupby(["dataset", "recipe", "seed"], sort=False).agg(
        log=("log", "mean"), n_layers=("log", "size"), law=("law", "mean")
    )
    by_recipe = by_seed.reset_index().groupby(["dataset", "recipe"], sort=False)
    frame = by_recipe.agg(
        n_seeds=("log", "size"),
        n_layers=("n_layers", "max"),
        measured=("log", "mean"),
        low=("log", "min"),
        high=("log", "max"),
        law=("law", "mean"),
    ).reset_index()
    for name in ("measured", "low", "high"):
        frame[name] = np.exp(frame[name])
        percent = 100 * (frame[name] / frame["law"] - 1)
        frame["deviation_percent" if name == "measured" else f"{name}_percent"] = percent
    frame["n_not_converged"] = frame["recipe"].map(failed).fillna(0).astype(int)
    frame = pd.concat([frame, unconverged_rows(failed[~failed.index.isin(frame["recipe"])])], ignore_index=True)
    frame = frame.join(settings, on="recipe")
    return in_study_order(frame, spec["recipes"])[COLUMNS]


def _label(row: Mapping[Any, Any], usual: Mapping[str, float]) -> str:
    """Write in what a recipe differs from the rest."""
    return ", ".join(f"{FACTORS[name][0]} = {row[name]:g}" for name in _differing(row, usual))


def _parity(axes: Axes, frame: pd.DataFrame, looks: Mapping[str, tuple[str, str]]) -> None:
    ends = frame[["law", "low", "high"]].to_numpy(float)
    least, most = ends.min() / 1.25, ends.max() * 1.25
    band = 1 + BAND_PERCENT / 100
    axes.fill_between(
        [least, most], [least / band, most / band], [least * band, most * band], color=FAINT, alpha=0.16, lw=0
    )
    axes.plot([least, most], [least, most], "-", color=FAINT, linewidth=0.9, zorder=2)
    for varies, (colour, marker) in looks.items():
        some = frame[frame["factor"] == varies]
        axes.vlines(some["law"], some["low"], some["high"], color=colour, linewidth=1.0, zorder=3)
        axes.plot(some["law"], some["measured"], marker, color=colour, markersize=4.5, zorder=4, linestyle="")
    axes.set_xscale("log")
    axes.set_yscale("log")
    span = most / least
    digits = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8) if span < 8 else (1, 2, 5) if span < 300 else (1,)
    ticks = [float(f"{digit}e{k}") for k in range(-9, 4) for digit in digits]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator([tick for tick in ticks if least <= tick <= most]))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(least, most)
    axes.set_ylim(least, most)
    axes.set_aspect("equal")
    axes.set_anchor("N")
    axes.set_xlabel("Law: ξ² (α²/n)^(1/L)")
    axes.set_ylabel("Measured")


def _deviations(axes: Axes, frame: pd.DataFrame, looks: Mapping[str, tuple[str, str]], labels: list[str]) -> None:
    y = np.arange(len(frame))
    axes.axvspan(-BAND_PERCENT, BAND_PERCENT, color=FAINT, alpha=0.16, linewidth=0)
    axes.axvline(0, color=FAINT, linewidth=0.9)
    for at, row in zip(y, frame.to_dict("records"), strict=True):
        colour, marker = looks[row["factor"]]
        axes.plot([row["low_percent"], row["high_percent"]], [at, at], color=colour, linewidth=1.0, zorder=3)
        axes.plot(row["deviation_percent"], at, marker, color=colour, markersize=4.5, zorder=4)
    most = max(float(frame[["low_percent", "high_percent"]].abs().to_numpy().max()), BAND_PERCENT) * 1.12
    axes.set_xlim(-most, most)
    axes.set_ylim(len(frame) - 0.4, -0.6)
    axes.set_yticks(y, labels)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 4, 5, 10]))
    axes.set_xlabel("Deviation from the law (%)")


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw the measured factor against the law, and beside it the deviation of every setting."""
    drawn = frame.dropna(subset=["measured", "law"])
    if drawn.empty:
        failed = ", ".join(frame.loc[frame["n_not_converged"] > 0, "recipe"])
        reached = f" Not converged: {failed}." if failed else ""
        return note_figure(
            "No deep linear network of three layers or more, trained to the end on data that the law speaks of."
            + reached
        )
    order = {name: i for i, name in enumerate((BASE, *FACTORS, SEVERAL))}
    drawn = drawn.assign(_order=drawn["factor"].map(order)).reset_index(drop=True)
    value = [row[row["factor"]] if row["factor"] in FACTORS else 0.0 for row in drawn.to_dict("records")]
    drawn = drawn.assign(_value=value).sort_values(["_order", "_value"], kind="stable").reset_index(drop=True)
    usual = _usual(settings_of(spec))
    present = [name for name in order if (drawn["factor"] == name).any()]
    looks = {
        name: (INK if name == BASE else PALETTE[(order[name] - 1) % len(PALETTE)], MARKERS[order[name]])
        for name in present
    }
    labels = [_label(row, usual) or "the usual setting" for row in drawn.to_dict("records")]
    repeated = {label for label in labels if labels.count(label) > 1}
    names = drawn["recipe"].tolist()
    labels = [
        elide(str(n), 28) if label in repeated or len(label) > 34 else label
        for label, n in zip(labels, names, strict=True)
    ]
    figure = new_figure(max(3.5, HEIGHT_OF_ROW * len(drawn) + 0.9))
    left, right = figure.subplots(1, 2, width_ratios=[1, 0.95])
    _parity(left, drawn, looks)
    _deviations(right, drawn, looks, labels)
    title_panel(left, "C of a layer over that of the layer before")
    title_panel(right, "The same, setting by setting")
    words = {BASE: "the usual setting", SEVERAL: "several"} | {name: about for name, (_, about) in FACTORS.items()}
    varied = [
        Line2D([], [], linestyle="", marker=marker, color=colour, label=words[name])
        for name, (colour, marker) in looks.items()
    ]
    signs = []
    if (drawn["n_seeds"] > 1).any():
        signs.append(line_handle("least to greatest seed"))
    signs.append(Patch(facecolor=FAINT, alpha=0.16, linewidth=0, label=f"within {BAND_PERCENT:g} % of the law"))
    legend_above(figure, varied, signs)
    name_unconverged(figure, frame)
    return figure
