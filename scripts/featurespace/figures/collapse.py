"""Neural collapse layer by layer: NC1, both parts of NC2, NC3 and NC4, at the first and the last step."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from featurespace.architectures import feature_layer, layer_depth
from featurespace.figures.depths import (
    CLASSIFYING,
    KEYS,
    at_the_ends,
    classifiers_of,
    count_not_converged,
    depth_axis,
    draw_layers,
    places,
    recipe_entries,
    value_axis,
)
from featurespace.figures.headings import start_panel
from featurespace.figures.series import datasets_of, geometric_mean, in_study_order
from featurespace.style import (
    legend_above,
    line_handle,
    new_figure,
    note_figure,
    recipe_looks,
    styled,
)
from featurespace.tables import is_false

# measure: title, what is on the vertical axis
PANELS = {
    "nc1": ("NC1", r"Tr($\Sigma_W\,\Sigma_B^+$) / K"),
    "nc2_equinorm": ("NC2, lengths", "relative spread"),
    "nc2_equiangular": ("NC2, angles", "|cos + 1/(K − 1)|"),
    "nc3": ("NC3", "distance"),
    "nc4": ("NC4", "mismatch (%)"),
}
OF_FEATURES = ("nc1", "nc2_equinorm", "nc2_equiangular")  # these are in `layers.csv`
COLUMNS = [*KEYS, "measure", "stage", "step", "epoch", "n_seeds", "value", "low", "high", "reliable", "n_not_converged"]


def tidy(layers: pd.DataFrame, networks: pd.DataFrame, runs: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Sum up the measures of collapse over seeds, at the first and the last step.

    Parameters
    ----------
    layers, networks
        The `layers.csv` and the `networks.csv` of all runs, stacked.
    runs
        `runs.csv`, for `converged`.
    spec
        `recipes`: the study's recipes in order, each with `task` and `model`, and a `feature_layer` if its network was
        built elsewhere. Those that learn classes are shown.

    Returns
    -------
    DataFrame
        dataset, recipe, layer, depth, measure (nc1 | nc2_equinorm | nc2_equiangular | nc3 | nc4), stage (first | last),
        step, epoch, n_seeds, value (mean over seeds: geometric for nc1), low, high (extremes over seeds), reliable
        (False where C is too small, which makes nc1 rounding), n_not_converged (seeds). nc3 is on the feature layer's
        row; nc4 is in percent of the sample set.
    """
    recipes = spec["recipes"]
    layers, networks = classifiers_of(layers, recipes), classifiers_of(networks, recipes)
    parts = []
    if len(layers):
        for measure in OF_FEATURES:
            doubtful = is_false(layers["reliable"]) if measure == "nc1" else False
            frame = layers.assign(doubtful=doubtful)
            if measure == "nc1":
                frame[measure] = frame[measure].where(frame[measure] > 0)
            centre = geometric_mean if measure == "nc1" else None
            parts.append(at_the_ends(frame, measure, centre).assign(measure=measure))
    if len(networks):
        models = {recipe["name"]: recipe["model"] for recipe in recipes if recipe["task"] in CLASSIFYING}
        nc3 = networks[networks["quantity"] == "nc3"]
        features = {recipe["name"]: recipe.get("feature_layer") for recipe in recipes}
        nc3 = nc3.assign(layer=[features[name] or feature_layer(models[name]) for name in nc3["recipe"]])
        # of a network that was built elsewhere only its tables know the depths
        known = networks.drop_duplicates(["recipe", "layer"]).set_index(["recipe", "layer"])["depth"]
        depths = [
            known[name, layer] if features[name] else layer_depth(models[name], layer)
            for name, layer in zip(nc3["recipe"], nc3["layer"], strict=True)
        ]
        nc3 = nc3.assign(depth=depths)
        nc4 = networks[networks["quantity"] == "nc4_mismatch"]
        nc4 = nc4.assign(value=100 * nc4["value"])
        for measure, frame in (("nc3", nc3), ("nc4", nc4)):
            if len(frame):
                parts.append(at_the_ends(frame.assign(doubtful=False), "value").assign(measure=measure))
    if not parts:
        return pd.DataFrame(columns=COLUMNS)
    stacked = pd.concat(parts, ignore_index=True)
    stacked["n_not_converged"] = stacked["recipe"].map(count_not_converged(runs)).fillna(0).astype(int)
    stacked["_measure"] = stacked["measure"].map({name: i for i, name in enumerate(PANELS)})
    return in_study_order(stacked, recipes, "dataset", "_measure", "stage", "depth")[COLUMNS]


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Draw a row a data set and a column a measure, against depth: the last step, and the first one faint."""
    looks = recipe_looks(spec["recipes"])
    frame = frame.dropna(subset=["value"])
    blocks = datasets_of(spec["recipes"], frame["dataset"])
    if not blocks:
        return note_figure("No network of this study learns classes, or none has class means that differ.")
    figure = new_figure(2.05 * len(blocks) + 0.25)
    grid = figure.subplots(len(blocks), len(PANELS), squeeze=False)
    for row, dataset in enumerate(blocks):
        rows = frame[frame["dataset"] == dataset]
        beside = places(list(dict.fromkeys(rows["recipe"])))
        for column, (measure, (title, label)) in enumerate(PANELS.items()):
            axes = grid[row, column]
            part = rows[rows["measure"] == measure]
            if not start_panel(axes, column, dataset, title, part):
                continue
            for name, curves in part.groupby("recipe", sort=False):
                for stage in ("first", "last"):
                    curve = curves[curves["stage"] == stage]
                    draw_layers(axes, curve, looks[str(name)], beside[str(name)], faint=stage == "first")
            depth_axis(axes, rows["depth"])
            value_axis(axes, part, logarithmic=measure == "nc1")
            axes.set_ylabel(label, labelpad=2)
    signs = [line_handle("last step", marker="o")]
    if (frame["stage"] == "first").any():
        signs.append(line_handle("first step (pale)", linewidth=0.8, marker="o", markersize=2.5, color="#c4c4c4"))
    if (frame["n_seeds"] > 1).any():
        signs.append(line_handle("least to greatest seed", linestyle="", marker="|", markersize=8))
    if is_false(frame["reliable"]).any():
        signs.append(line_handle("C too small to be reliable", linestyle="", marker="o", markerfacecolor="white"))
    legend_above(figure, recipe_entries(frame, looks), signs)
    return figure
