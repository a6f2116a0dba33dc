"""How much of the P-vector is the mean: its angles to the ones vector and to X·mean, and its change without them."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from featurespace.figures.panels import DATA, HEIGHT_OF_ROW, angle_axis, angle_limit, group_of, row_axis
from featurespace.figures.series import datasets_of, in_study_order, over_seeds
from featurespace.style import (
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

# panel: its title, the centring it is of
PANELS = {
    "ones": ("to the ones vector", "raw"),
    "mean raw": ("to X·mean feature", "raw"),
    "mean centred": ("to X·mean feature", "centred"),
    "own": ("to own last step", "raw"),
    "own without ones": ("to own last step, ones vector removed", "raw"),
}
# which panels stand beside each other and share an axis
ROWS = (("ones", "mean raw"), ("own", "own without ones"), ("mean centred", "share"))
COLUMNS = ("dataset", "recipe", "panel", "step", "epoch", "n_seeds", "angle_deg", "low_deg", "high_deg")
SHARES = ("mean_share", "low_share", "high_share")


def mean_share(dynamics: pd.DataFrame) -> pd.Series:
    """Return which share of the squared change from each step to the reference lies along the ones vector, in 0..1.

    With θ_p, θ_q the angles to the ones vector and s = ±1 the sign that its components have to each other once p and
    q are aligned, |p - q|² = 2 - 2 cos θ(p,q) is the sum of (cos θ_p - s cos θ_q)², along the ones vector, and of the
    rest, at right angles to it. The sign follows from cos θ(p,q) = s cos θ_p cos θ_q + r sin θ_p sin θ_q. NaN where
    nothing changed.
    """
    p, q = np.radians(dynamics["angle_to_ones_deg"]), np.radians(dynamics["reference_angle_to_ones_deg"])
    cosine = np.cos(np.radians(dynamics["angle_deg"]))
    through_mean = cosine - dynamics["correlation"].fillna(0.0) * np.sin(p) * np.sin(q)
    sign = np.where(through_mean < 0, -1.0, 1.0)
    along = (np.cos(p) - sign * np.cos(q)) ** 2
    whole = 4 * np.sin(np.radians(dynamics["angle_deg"]) / 2) ** 2  # 2 - 2 cos, without its cancellation
    return (along / whole.where(whole > 0)).clip(0.0, 1.0)


def tidy(tables: pd.DataFrame, dynamics: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Sum up over seeds what the mean does to the P-vector.

    Parameters
    ----------
    tables
        `entry_summary.csv`: one row a run, step and centring; the data is the recipe `data`.
    dynamics
        `angle_dynamics.csv`: one row a run, step, centring and reference; those of `own`, raw, are used.
    spec
        `recipes`: the study's recipes in order.

    Returns
    -------
    DataFrame
        dataset, recipe (`data` too), panel, step, epoch, n_seeds, angle_deg (mean over seeds), low_deg, high_deg
        (extremes over seeds), and mean_share, low_share, high_share. Panels: `ones` (raw P-vector to the ones vector:
        for a centred one it is 90° by construction), `mean raw` and `mean centred` (raw or centred P-vector to X·m, m
        the mean feature), `own` (raw, to the own last step), `own without ones` (the same once the ones vector is
        removed from both: arccos |r|). The shares, in 0..1 and on rows of `own` only, are of the squared change to
        the last step that lies along the ones vector. The last step, at 0 from itself, is left out of `own`.
    """
    names = [DATA, *(recipe["name"] for recipe in spec["recipes"])]
    entries = tables[tables["recipe"].isin(names)]
    raw, centred = (entries[entries["centring"] == centring] for centring in ("raw", "centred"))
    own = dynamics[(dynamics["reference"] == "own") & (dynamics["centring"] == "raw")]
    own = own[own["recipe"].isin(names) & (own["angle_deg"] > 1e-9)]
    removed = np.degrees(np.arccos(own["correlation"].abs().clip(upper=1.0)))
    pieces = {
        "ones": raw.assign(value=raw["angle_to_ones_deg"]),
        "mean raw": raw.assign(value=raw["angle_to_mean_deg"]),
        "mean centred": centred.assign(value=centred["angle_to_mean_deg"]),
        "own": own.assign(value=own["angle_deg"]),
        "own without ones": own.assign(value=removed),
    }
    renamed = {"mean": "angle_deg", "low": "low_deg", "high": "high_deg"}
    keys = ["dataset", "recipe"]
    parts = [
        over_seeds(piece, keys, "value").rename(columns=renamed).assign(panel=panel)
        for panel, piece in pieces.items()
        if len(piece)
    ]
    if not parts:
        return pd.DataFrame(columns=[*COLUMNS, *SHARES])
    stacked = pd.concat(parts, ignore_index=True)
    if len(own):
        shares = over_seeds(own.assign(value=mean_share(own)), keys, "value").drop(columns=["epoch", "n_seeds"])
        shares = shares.rename(columns=dict(zip(("mean", "low", "high"), SHARES, strict=True))).assign(panel="own")
        stacked = stacked.merge(shares, on=[*keys, "panel", "step"], how="left")
    else:
        stacked = stacked.assign(**dict.fromkeys(SHARES, np.nan))
    stacked["_panel"] = stacked["panel"].map({name: i for i, name in enumerate(PANELS)})
    return in_study_order(stacked, spec["recipes"], "_panel", "step")[[*COLUMNS, *SHARES]]


def _draw_shares(axes: Axes, firsts: pd.DataFrame, looks: Mapping[str, Look], drawn: dict[str, set[str]]) -> None:
    """Draw, a row a recipe, which share of the change from the first to the last step lies along the ones vector."""
    for row, (_, point) in enumerate(firsts.iterrows()):
        name = str(point["recipe"])
        look = looks[name]
        axes.plot(
            [100 * point["low_share"], 100 * point["high_share"]], [row, row], color=look.colour, linewidth=1, zorder=2
        )
        axes.plot(100 * point["mean_share"], row, look.marker, color=look.colour, clip_on=False, zorder=3)
        drawn[name].add("point")
    row_axis(axes, firsts["recipe"].tolist(), width=24)
    axes.set_xlim(0, 100)
    axes.set_xlabel("Share of the squared change, first to last step (%)")


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw a block a data set: angles to the ones vector and to X·mean, the change without the ones vector, shares."""
    recipes = spec["recipes"]
    looks = recipe_looks(recipes)
    frame = frame.dropna(subset=["angle_deg"])
    rows = []
    for dataset in datasets_of(recipes, frame["dataset"]):
        part = frame[frame["dataset"] == dataset]
        there = {*part["panel"], *(["share"] if part["mean_share"].notna().any() else [])}
        rows += [(dataset, [panel for panel in row if panel in there]) for row in ROWS]
    rows = [(dataset, panels) for dataset, panels in rows if panels]
    if not rows:
        return note_figure("No P-vector of this study is defined: there is no mean to compare it with.")
    of_share = frame[frame["mean_share"].notna()].groupby("dataset")["recipe"].nunique()
    noise = [name for name, group in group_of(recipes).items() if group == "noise"]
    heights = [max(1.75, HEIGHT_OF_ROW * of_share.get(name, 0) + 0.6 if "share" in some else 0) for name, some in rows]
    figure = new_figure(sum(heights) + 0.4 * len({dataset for dataset, _ in rows}))
    # a row each: the names beside the shares must not push the panels above them apart
    strips = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    drawn: dict[str, set[str]] = defaultdict(set)
    for row, (dataset, panels) in enumerate(rows):
        of_dataset = frame[frame["dataset"] == dataset]
        first_row = row == 0 or rows[row - 1][0] != dataset
        grid = strips[row].subplots(1, 2, squeeze=False)[0]
        for axes in grid[len(panels) :]:
            axes.remove()
        for column, (panel, axes) in enumerate(zip(panels, grid, strict=False)):
            heading = dataset if first_row and column == 0 else ""
            if panel == "share":
                known = of_dataset[(of_dataset["panel"] == "own") & of_dataset["mean_share"].notna()]
                firsts = known[known["step"] == known.groupby("recipe")["step"].transform("min")]
                _draw_shares(axes, firsts, looks, drawn)
                title_panel(axes, "change along the ones vector", "raw", heading)
                continue
            of_panel = of_dataset[of_dataset["panel"] == panel]
            # before and after are to be compared; noise may lie far beyond all networks
            alike = panels if panel.startswith("own") else [panel]
            of_limit = of_dataset[of_dataset["panel"].isin(alike) & ~of_dataset["recipe"].isin(noise)]
            limit = max(5, angle_limit(of_limit["high_deg"]))
            beyond = of_panel[of_panel["low_deg"] > limit]
            for name, curve in of_panel[~of_panel["recipe"].isin(beyond["recipe"])].groupby("recipe", sort=False):
                if name == DATA:
                    axes.axhline(curve["angle_deg"].iloc[0], color=INK, linestyle=":", linewidth=1, zorder=2)
                    continue
                columns = ("angle_deg", "low_deg", "high_deg")
                drawn[str(name)].add(draw_band(axes, curve, "epoch", columns, looks[str(name)]))
            angle_axis(axes, limit)
            epoch_axis(axes, of_dataset["epoch"])
            title, centring = PANELS[panel]
            title_panel(axes, title, f"{centring}, 0–{limit}°", heading)
            if column == 0:
                axes.set_ylabel("Angle (°)")
            words = [
                f"{elide(name, 30)}: {angle:.0f}°"
                for name, angle in zip(beyond["recipe"], beyond["angle_deg"], strict=True)
            ]
            if words:
                at: dict[str, Any] = {
                    "xycoords": "axes fraction",
                    "ha": "right",
                    "va": "top",
                    "size": 6.5,
                    "color": INK,
                }
                at["bbox"] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
                axes.annotate("beyond the axis: " + "\n".join(words), (0.99, 0.97), zorder=6, **at)
    lines = any("line" in kinds for kinds in drawn.values())
    signs = seed_handles(frame, lines)
    if (frame["recipe"] == DATA).any():
        signs.append(line_handle("data", color=INK, linestyle=":"))
    legend_above(figure, recipe_handles(drawn, looks), signs)
    return figure
