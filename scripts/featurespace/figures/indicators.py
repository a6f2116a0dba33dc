"""How well the angle to the data, and simpler numbers, say how well a network generalises."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from featurespace.figures.series import datasets_of
from featurespace.style import FAINT, INK, legend_above, line_handle, new_figure, note_figure, styled, title_panel

CENTRINGS = ("raw", "centred")
NAMES = {
    "angle_to_data_deg": "angle to the data",
    "angle_to_ones_deg": "angle to the ones vector",
    "null_formula_deg": "angle to the data by chance",
    "train_loss": "training loss",
    "feature_norm": "norm of the features",
    "weight_norm": "norm of the weights",
}
TARGETS = {"test_accuracy": "test accuracy", "generalisation_gap": "generalisation gap"}
LEAST_SKILL = -1.0  # below, an indicator is worse than useless, and how much does not matter
COLUMNS = [
    *("dataset", "target", "indicator", "centring", "measure", "n_settings"),
    *("value", "low", "high", "rho"),
]


def tidy(indicators: pd.DataFrame, correlations: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Put skill and rank correlation of each indicator side by side, over all settings of a data set.

    Parameters
    ----------
    indicators, correlations
        `indicators.csv` and `correlations.csv`; of both, the group `all`.
    spec
        `recipes`: the study's recipes in order, whose data sets are shown.

    Returns
    -------
    DataFrame
        dataset, target, indicator, centring, measure (correlation | skill), n_settings, value, low, high, rho. The
        correlation is |ρ| (Spearman), `rho` its signed value, and the interval that of |ρ|: from zero on where that of
        ρ holds zero. The skill is out of sample: 1 - mean absolute error over that of predicting the mean.
    """
    found = correlations[correlations["group"] == "all"].assign(measure="correlation")
    ends = found[["low", "high"]].abs()
    holds_zero = (found["low"] <= 0) & (found["high"] >= 0)
    found = found.assign(
        value=found["rho"].abs(),
        low=ends.min(axis=1, skipna=False).mask(holds_zero, 0.0),
        high=ends.max(axis=1, skipna=False),
    )
    skill = indicators[indicators["group"] == "all"].assign(measure="skill", rho=np.nan)
    skill = skill.assign(value=skill["skill"])
    parts = [part[COLUMNS] for part in (found, skill) if len(part)]
    if not parts:
        return pd.DataFrame(columns=COLUMNS)
    frame = pd.concat(parts, ignore_index=True)
    frame = frame[frame["indicator"].isin(list(NAMES)) & frame["target"].isin(list(TARGETS))]
    orders = {
        "dataset": datasets_of(spec["recipes"], frame["dataset"]),
        "target": list(TARGETS),
        "measure": ["correlation", "skill"],
        "indicator": list(NAMES),
        "centring": list(CENTRINGS),
    }
    for column, order in orders.items():
        frame[f"_{column}"] = frame[column].map({name: i for i, name in enumerate(order)})
    keys = [f"_{column}" for column in orders]
    frame = frame.dropna(subset=["_dataset", "value"]).sort_values(keys, kind="stable")
    return frame[COLUMNS].reset_index(drop=True)


def _dots(axes: Axes, rows: pd.DataFrame, names: list[str], measure: str) -> None:
    """Draw a dot with its interval for each indicator, raw above centred."""
    for centring, aside, face in (("raw", -0.17, INK), ("centred", 0.17, "white")):
        some = rows[rows["centring"] == centring]
        for _, row in some.iterrows():
            y = names.index(row["indicator"]) + aside
            shown = max(float(row["value"]), LEAST_SKILL)
            marker = "o" if measure == "skill" else "^" if row["rho"] > 0 else "v"
            if row["value"] < LEAST_SKILL:
                marker = "<"
            low, high = (float(np.clip(row[end], LEAST_SKILL, 1)) for end in ("low", "high"))
            axes.plot([low, high], [y, y], color=INK, linewidth=1, zorder=2)
            axes.plot(
                shown, y, marker, color=INK, markerfacecolor=face, markersize=4.5, zorder=3, clip_on=False, linestyle=""
            )
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), [NAMES[name] for name in names])
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    for y in range(1, len(names)):
        axes.axhline(y - 0.5, color="#ececec", linewidth=0.5, zorder=0)
    for tick in axes.get_yticklabels():
        if tick.get_text() == NAMES["angle_to_data_deg"]:
            tick.set_fontweight("bold")


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw a row a target: the absolute rank correlation of each indicator, and its skill out of sample."""
    blocks = datasets_of(spec["recipes"], frame["dataset"])
    if not blocks:
        return note_figure("Too few settings were trained to say what tells their accuracy.")
    targets_of = {d: [t for t in TARGETS if ((frame["dataset"] == d) & (frame["target"] == t)).any()] for d in blocks}
    names = [name for name in NAMES if (frame["indicator"] == name).any()]
    panel = 0.28 * len(names) + 0.75
    heights = [panel * len(targets_of[dataset]) + 0.25 for dataset in blocks]
    figure = new_figure(sum(heights))
    subfigures = figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights)[:, 0]
    least = min(0.0, float(frame.loc[frame["measure"] == "skill", ["value", "low"]].min().min(skipna=True) or 0.0))
    least = max(LEAST_SKILL, least) if np.isfinite(least) else 0.0
    for dataset, part in zip(blocks, subfigures, strict=True):
        here = frame[frame["dataset"] == dataset]
        part.suptitle(f"{dataset}, {here['n_settings'].max():.0f} settings", x=0.01, ha="left", weight="bold", size=9)
        grid = part.subplots(len(targets_of[dataset]), 2, squeeze=False)
        for row, target in enumerate(targets_of[dataset]):
            for column, (measure, label) in enumerate(
                (("correlation", "Absolute rank correlation |ρ|"), ("skill", "Skill out of sample"))
            ):
                axes = grid[row, column]
                rows = here[(here["target"] == target) & (here["measure"] == measure)]
                _dots(axes, rows, names, measure)
                title_panel(axes, TARGETS[target] if column == 0 else "")
                axes.tick_params(labelleft=column == 0)
                axes.set_xlim(*((-0.02, 1.02) if measure == "correlation" else (least - 0.05, 1.02)))
                axes.axvline(0, color=FAINT, linewidth=0.8, zorder=1)
                if row == len(targets_of[dataset]) - 1:
                    axes.set_xlabel(label)
    dot = {"linestyle": "", "color": INK, "markersize": 4.5}
    signs = [
        line_handle("raw", marker="o", **dot),
        line_handle("centred", marker="o", **{**dot, "markerfacecolor": "white"}),
    ]
    known = frame[frame["measure"] == "correlation"]
    signs += [
        line_handle(words, marker=marker, **dot)
        for words, marker, there in (
            ("ρ > 0", "^", (known["rho"] > 0).any()),
            ("ρ ≤ 0", "v", (known["rho"] <= 0).any()),
            ("skill below −1", "<", (frame["value"] < LEAST_SKILL).any()),
        )
        if there
    ]
    signs.append(line_handle("bootstrap interval", color=INK, linewidth=1))
    legend_above(figure, [], signs)
    return figure
