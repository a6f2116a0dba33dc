"""Singular values of the feature layer at the first, middle and last kept step, and the share of the first by epoch."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from featurespace.figures.series import datasets_of, geometric_mean, in_study_order, over_seeds, recipes_of
from featurespace.style import (
    INK,
    Look,
    draw_band,
    elide,
    epoch_axis,
    legend_above,
    line_handle,
    log_axis,
    new_figure,
    note_figure,
    recipe_looks,
    seed_handles,
    styled,
    title_panel,
)

FLOOR = 1e-7  # shares below are rounding errors of networks whose features have less rank than width
TINTS = {"first": 0.38, "middle": 0.68, "last": 1.0}  # how much of the recipe's colour, the rest is white
CENTRINGS = ("raw", "centred")


def tidy(tables: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Sum up the spectra tables over seeds.

    Parameters
    ----------
    tables
        The `spectra.csv` of all origins, stacked: one row a run, step, layer, centring and component; the data sets'
        own rows are those of the recipe `data`.
    spec
        `recipes`: the study's recipes in order, each with name, dataset and feature_layer.

    Returns
    -------
    DataFrame
        panel (spectrum | first component), dataset, recipe, layer, centring, which (first | middle | last kept step;
        empty for the curve over epochs), step, epoch, component (1 the first), n_seeds, variance_share (geometric
        mean over seeds of σ²/‖X‖²_F), low, high (extremes over seeds). Shares that are zero or missing are left out.
    """
    layer_of = {recipe["name"]: recipe["feature_layer"] for recipe in spec["recipes"]}
    is_data = tables["recipe"] == "data"
    frame = tables[is_data | (tables["layer"] == tables["recipe"].map(layer_of))].copy()
    # components are counted from 1 for a reader, wherever the table starts
    frame["component"] = frame["component"] - frame["component"].min() + 1 if len(frame) else frame["component"]
    frame["variance_share"] = frame["variance_share"].where(frame["variance_share"] > 0)
    parts = []
    for (_, recipe), group in frame.groupby(["dataset", "recipe"], sort=False):
        common = over_seeds(
            group[group["component"] == 1],
            ["dataset", "recipe", "layer", "centring", "component"],
            "variance_share",
            geometric_mean,
        )
        steps = sorted(common["step"].unique())
        if not steps:
            continue
        if recipe != "data":
            parts.append(common.assign(panel="first component", which=""))
        chosen = {"first": steps[0], "middle": _middle(common, steps), "last": steps[-1]}
        if len(steps) == 1:
            chosen = {"last": steps[0]}
        elif len(steps) == 2:
            del chosen["middle"]
        # The last kept step of each seed counts as the last of all: a seed that stopped early has no later row.
        own_last = group["step"] == group.groupby("seed")["step"].transform("max")
        some = group[group["step"].isin(list(chosen.values())) | own_last]
        every = over_seeds(
            some, ["dataset", "recipe", "layer", "centring", "component"], "variance_share", geometric_mean
        )
        for which, step in chosen.items():
            parts.append(every[every["step"] == step].assign(panel="spectrum", which=which))
    names = ["dataset", "recipe", "layer", "centring", "which"]
    columns = ["panel", *names, "step", "epoch", "component", "n_seeds", "variance_share", "low", "high"]
    if not parts:
        return pd.DataFrame(columns=columns)
    stacked = pd.concat(parts, ignore_index=True).rename(columns={"mean": "variance_share"})
    stacked = stacked.dropna(subset=["variance_share"])[columns]
    stacked["_centring"] = stacked["centring"].map({"raw": 0, "centred": 1})
    stacked["_panel"] = stacked["panel"].map({"spectrum": 0, "first component": 1})
    ordered = in_study_order(stacked, spec["recipes"], "dataset", "_panel", "_centring", "step", "component")
    return ordered.drop(columns=["_centring", "_panel"])


def _middle(common: pd.DataFrame, steps: list[int]) -> int:
    """Return the kept step nearest to half of the epochs, neither the first nor the last where there are others."""
    epochs = common.groupby("step")["epoch"].first().reindex(steps)
    inner = epochs.iloc[1:-1] if len(steps) > 2 else epochs
    return int((inner - (epochs.iloc[0] + epochs.iloc[-1]) / 2).abs().idxmin())


def _tinted(colour: str, amount: float) -> str:
    red, green, blue = (round(255 * (1 - amount * (1 - part))) for part in to_rgb(colour))
    return f"#{red:02x}{green:02x}{blue:02x}"


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw a row a recipe: its spectrum raw, centred, and the first component's share against epoch."""
    looks = recipe_looks(spec["recipes"])
    blocks = datasets_of(spec["recipes"], frame["dataset"])
    there = set(frame["recipe"])
    rows = [(dataset, name) for dataset in blocks for name in recipes_of(spec["recipes"], dataset) if name in there]
    if not rows:
        return note_figure("No spectrum is known: every feature matrix of this study is empty.")
    figure = new_figure(0.2 + 1.55 * len(rows) + 0.25 * len(blocks))
    grid = figure.subplots(len(rows), 3, squeeze=False, width_ratios=[1, 1, 1.1])
    spectra = frame[frame["panel"] == "spectrum"]
    n_components = int(spectra["component"].max())
    # a curve ends before the first component that rounding decides, in any seed
    frame = frame[(frame["panel"] != "spectrum") | (frame["low"] >= FLOOR)]
    spectra = frame[frame["panel"] == "spectrum"]
    lowest = float(spectra["low"].min()) / 2 if len(spectra) else FLOOR
    for row, (dataset, name) in enumerate(rows):
        look = looks[name]
        own = frame[(frame["dataset"] == dataset) & (frame["recipe"] == name)]
        data = spectra[(spectra["dataset"] == dataset) & (spectra["recipe"] == "data")]
        last_row = row == len(rows) - 1
        first_row = row == 0 or rows[row - 1][0] != dataset
        for column, centring in enumerate(CENTRINGS):
            axes = grid[row, column]
            reference = data[data["centring"] == centring].sort_values("component")
            axes.plot(reference["component"], reference["variance_share"], ":", color=INK, linewidth=0.9, zorder=2)
            for which, tint in TINTS.items():
                curve = own[(own["panel"] == "spectrum") & (own["centring"] == centring) & (own["which"] == which)]
                shade = Look(_tinted(look.colour, tint), "o", "-")
                draw_band(
                    axes, curve, "component", ("variance_share", "low", "high"), shade, width=1.1, zorder=3 + tint
                )
                axes.plot(
                    curve["component"],
                    curve["variance_share"],
                    "o",
                    color=shade.colour,
                    markersize=2.4,
                    zorder=3.5 + tint,
                )
            log_axis(axes, lowest, 1.0)
            axes.set_xlim(0.3, n_components + 0.7)
            axes.set_xticks(
                sorted({1, *range(5, n_components + 1, 5)}) if n_components > 6 else range(1, n_components + 1)
            )
            if column == 0:
                axes.set_ylabel("Share of variance")
                layer = own["layer"].iloc[0]
                both = f"{name} · {layer}"
                title_panel(axes, both if len(both) <= 30 else elide(name, 30), "raw", dataset if first_row else "")
            else:
                axes.tick_params(labelleft=False)
                title_panel(axes, "", "centred")
            axes.tick_params(labelbottom=last_row)
            if last_row:
                axes.set_xlabel("Component")
        axes = grid[row, 2]
        first = own[own["panel"] == "first component"]
        look = Look(look.colour, "o", "-")
        for centring, dashes in (("raw", "-"), ("centred", (0, (3.5, 1.2)))):
            curve = first[first["centring"] == centring]
            draw_band(axes, curve, "epoch", ("variance_share", "low", "high"), look, dashes=dashes)
        axes.set_ylim(0, 1)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
        title_panel(axes, "", "share of the first component")
        # each recipe has epochs of its own, so that every row needs its numbers
        epochs = frame.loc[frame["dataset"] == dataset, "epoch"] if first["epoch"].max() == 0 else first["epoch"]
        epoch_axis(axes, epochs)
    shown = set(spectra["which"])
    signs = [
        line_handle(f"{which} kept step", color=_tinted(INK, tint), marker="o", markersize=2.4)
        for which, tint in TINTS.items()
        if which in shown
    ]
    signs += [
        line_handle("data", color=INK, linestyle=":"),
        line_handle("first component, raw"),
        line_handle("first component, centred", linestyle=(0, (3.5, 1.2))),
        *seed_handles(frame)[1:],
    ]
    legend_above(figure, [], signs)
    return figure
