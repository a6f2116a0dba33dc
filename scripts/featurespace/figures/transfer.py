"""What a projection head is worth to the features below it: transfer and compression against its layers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from featurespace.architectures import INPUT_LAYER
from featurespace.figures.convergence import leave_out_unconverged, name_unconverged, unconverged_rows
from featurespace.figures.depths import places
from featurespace.figures.headings import start_panel
from featurespace.figures.ladders import Ladder, at_end, draw_rungs, fit_range, ladders_of, level_axis, rungs
from featurespace.statistics import spearman
from featurespace.style import (
    INK,
    elide,
    legend_above,
    line_handle,
    log_axis,
    new_figure,
    note_figure,
    recipe_looks,
    styled,
)
from featurespace.tables import is_false

DATA = "data"
FEATURES, UNTRAINED, INPUT = "features", "untrained", "input"
PANELS = ("transfer", "compression", "source")
COLUMNS = [
    "dataset",
    "ladder",
    "target",
    "panel",
    "which",
    "part",
    "recipe",
    "head_layers",
    "seed",
    "n_seeds",
    "value",
    "low",
    "high",
    "reliable",
    "n_not_converged",
]
LEAST_RANKED = 3  # two numbers are always in order, or in the reverse


def _ladders(recipes: list[Mapping[str, Any]]) -> list[Ladder]:
    """Gather recipes that differ in the layers of their head alone; one without a head goes with any width."""
    widths = list(dict.fromkeys(recipe["head"]["width"] for recipe in recipes if recipe["head"]))
    found: list[Ladder] = []
    for width in widths:

        def split(recipe: Mapping[str, Any], width: Any = width) -> tuple[float | None, Mapping[str, Any]]:
            head = recipe["head"]
            rest = {key: value for key, value in recipe.items() if key != "head"}
            if head is None:
                return 0, rest
            return (head["layers"] if head["width"] == width else None), rest

        found += ladders_of(recipes, split)
    return found


def tidy(probes: pd.DataFrame, layers: pd.DataFrame, runs: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Gather what probes of the features below heads of different depths reach, on other data and on their own.

    Parameters
    ----------
    probes, layers
        The `layer_probes.csv` and the `layers.csv` of the runs, stacked.
    runs
        `runs.csv`, for `converged`.
    spec
        `recipes`: the study's own recipes in order, then the members of its sweeps. Those that are not probed have no
        `head`, and are passed over.

    Returns
    -------
    DataFrame
        dataset (the source), ladder (the first of the recipes, which names them all), target (the data probed on),
        panel (transfer: test accuracy of a probe on the target | source: the same on the source, both in percent |
        compression: C of the features on the source), which (features: at the last step | untrained: at the first |
        input: the data themselves, a row of the recipe `data`), part (seed | mean | rank), recipe, head_layers (0: no
        head), seed, n_seeds, value, low, high, reliable, n_not_converged (seeds of the recipe). A mean, geometric for
        compression, has Student's 95 % interval over seeds; a rank is Spearman's rho of head layers and means, of the
        recipes that have a head. Compression below 1e-8 is in no mean. Runs that did not converge are left out.
    """
    parts = []
    recipes = [recipe for recipe in spec["recipes"] if "head" in recipe]
    if probes.empty:
        return pd.DataFrame(columns=COLUMNS)
    for ladder in _ladders(recipes):
        levels = {name: level for level, name in ladder.names.items()}
        kept, counts = leave_out_unconverged(runs[runs["recipe"].isin(list(levels))])
        kept = kept[["recipe", "seed"]]
        # a recipe of which no seed is left is still named
        gone = unconverged_rows(counts[~counts.index.isin(kept["recipe"])])
        gone["head_layers"] = gone["recipe"].map(levels)
        parts.append(gone.assign(dataset=ladder.dataset, ladder=ladder.name))
        own = probes.merge(kept, on=["recipe", "seed"])
        for target in [name for name in dict.fromkeys(own["target"]) if name != ladder.dataset]:
            tables = {}
            of_ladder = {"dataset": ladder.dataset, "ladder": ladder.name, "target": target}
            for panel, data in (("transfer", target), ("source", ladder.dataset)):
                rows = own[own["target"] == data].assign(value=lambda table: 100 * table["test_accuracy"])
                # the features are the deepest layer: a head has no layers of its own
                deepest = rows[rows["depth"] == rows.groupby("recipe")["depth"].transform("max")]
                deepest = deepest[deepest["layer"] != INPUT_LAYER]
                tables[panel, FEATURES] = at_end(deepest, "last")
                tables[panel, UNTRAINED] = at_end(deepest, "first")
                raw = rows.loc[rows["layer"] == INPUT_LAYER, "value"].dropna()
                # the same for every network and step
                inputs = {
                    "panel": panel,
                    "which": INPUT,
                    "part": "mean",
                    "recipe": DATA,
                    "n_seeds": 1,
                    "reliable": True,
                }
                parts.append(pd.DataFrame([inputs | of_ladder | {"value": value} for value in raw.iloc[:1]]))
            if len(layers):
                last = at_end(layers.merge(kept, on=["recipe", "seed"]), "last")
                last = last[last["depth"] == last.groupby("recipe")["depth"].transform("max")]
                tables["compression", FEATURES] = last.assign(
                    value=last["compression"], reliable=~is_false(last["reliable"])
                )
            for (panel, which), table in tables.items():
                rows = pd.DataFrame(rungs(table.assign(level=table["recipe"].map(levels)), panel == "compression"))
                if rows.empty:
                    continue
                rows["n_not_converged"] = rows["recipe"].map(counts)
                means = rows[(rows["part"] == "mean") & (rows["level"] > 0)]  # no head is no depth of one
                if which == FEATURES and len(means) >= LEAST_RANKED:
                    rho = float(spearman(means["level"].to_numpy(float), means["value"].to_numpy(float)))
                    rank = {"part": "rank", "n_seeds": means["n_seeds"].min(), "value": rho}
                    rows = pd.concat([rows, pd.DataFrame([rank])], ignore_index=True)
                rows = rows.assign(panel=panel, which=which, **of_ladder)
                parts.append(rows.rename(columns={"level": "head_layers"}))
    filled = [part for part in parts if len(part)]
    if not filled:
        return pd.DataFrame(columns=COLUMNS)
    frame = pd.concat(filled, ignore_index=True).reindex(columns=COLUMNS)
    frame["n_not_converged"] = frame["n_not_converged"].fillna(0).astype(int)
    return frame


def _says(part: pd.DataFrame, panel: str) -> str:
    """Say in words how a measure goes with the layers of the head."""
    name = {"transfer": "transfer", "compression": "C", "source": "source"}[panel]
    rows = part[(part["panel"] == panel) & (part["part"] == "rank")]
    if rows.empty or np.isnan(rows["value"].iloc[0]):
        return f"{name}: too few heads for a rank"
    return f"{name}: ρ = {rows['value'].iloc[0]:+.2f}".replace("-", "−")


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw a row a source and target: transfer, compression and the source's own accuracy against the head's layers."""
    shown = frame[frame["part"].isin(["seed", "mean"])].rename(columns={"head_layers": "level"})
    if shown.empty:
        return note_figure(
            "Nothing shows what heads are worth: that takes recipes that differ in head.layers alone, whose runs "
            "converged, and data sets to probe on in analysis.layer_probes.targets."
        )
    looks = recipe_looks(spec["recipes"])
    blocks = list(shown[["dataset", "target"]].drop_duplicates().itertuples(index=False, name=None))
    entries = {}
    for block in blocks:
        rows = frame[(frame["dataset"] == block[0]) & (frame["target"] == block[1])]
        entries[block] = [
            Line2D(
                [],
                [],
                color=looks[str(name)].colour,
                linestyle=looks[str(name)].dashes,
                marker=looks[str(name)].marker,
                label="\n".join([elide(str(name), 24), *(_says(part, panel) for panel in PANELS)]),
            )
            for name, part in rows.groupby("ladder", sort=False)
        ]
    heights = [max(2.1, 0.11 * sum(str(e.get_label()).count("\n") + 1.6 for e in entries[b]) + 0.4) for b in blocks]
    figure = new_figure(sum(heights) + 0.35 * len(blocks))
    grid = figure.subplots(
        len(blocks), len(PANELS) + 1, squeeze=False, height_ratios=heights, width_ratios=[1, 1, 1, 0.8]
    )
    for row, (dataset, target) in enumerate(blocks):
        rows = shown[(shown["dataset"] == dataset) & (shown["target"] == target)]
        ladders = list(dict.fromkeys(rows["ladder"]))
        beside = places(ladders)
        titles = {
            "transfer": (f"probes on {elide(target, 12)}", "Test accuracy, %"),
            "compression": (f"C on {elide(dataset, 12)}", "C"),
            "source": (f"probes on {elide(dataset, 12)}", "Test accuracy, %"),
        }
        for column, panel in enumerate(PANELS):
            axes = grid[row, column]
            part = rows[rows["panel"] == panel]
            title, label = titles[panel]
            if not start_panel(axes, column, f"{elide(dataset, 36)} → {elide(target, 36)}", title, part):
                continue
            for name in ladders:
                own = part[part["ladder"] == name]
                draw_rungs(axes, own[own["which"] == FEATURES], looks[name], beside[name])
                control = own[(own["which"] == UNTRAINED) & (own["part"] == "mean")].sort_values("level")
                axes.plot(
                    control["level"] + beside[name],
                    control["value"],
                    "o",
                    linestyle=(0, (1, 1.5)),
                    linewidth=1,
                    color=looks[name].colour,
                    markerfacecolor="white",
                    markersize=3,
                    zorder=2,
                )
            raw = part.loc[part["which"] == INPUT, "value"]
            if len(raw):
                axes.axhline(raw.iloc[0], color=INK, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
            level_axis(axes, rows["level"].dropna(), "Layers of the head")
            least, most = fit_range(part)
            if panel == "compression":
                log_axis(axes, least, most)
            else:
                margin = max(0.06 * (most - least), 0.3)
                axes.set_ylim(least - margin, most + margin)
                axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
            axes.set_ylabel(label, labelpad=2)
        grid[row, -1].set_axis_off()
        grid[row, -1].legend(
            handles=entries[dataset, target], loc="upper left", fontsize=6.5, labelspacing=0.8, borderaxespad=0
        )
    signs = [line_handle("mean over seeds, last step", marker="o")]
    if (shown["n_seeds"] > 1).any():
        signs.append(line_handle("its 95 % interval", linestyle="", marker="|", markersize=8))
    signs.append(line_handle("a seed", linestyle="", marker="o", markersize=2.5, alpha=0.5))
    if (shown["which"] == UNTRAINED).any():
        signs.append(
            line_handle("untrained network", linestyle=(0, (1, 1.5)), marker="o", markerfacecolor="white", markersize=3)
        )
    if (shown["which"] == INPUT).any():
        signs.append(line_handle("the data themselves", linestyle=(0, (4, 2)), color=INK, linewidth=0.8))
    if not shown["reliable"].astype(bool).all():
        signs.append(line_handle("C too small to be reliable", linestyle="", marker="o", markerfacecolor="white"))
    legend_above(figure, [], signs)
    name_unconverged(figure, frame)
    return figure
