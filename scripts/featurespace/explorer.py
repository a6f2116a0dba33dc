"""What the report's interactive views show: the tables of angles, spectra and layers, packed small enough to embed.

The tables of a large study are too large for a page. What is left out is left out in a fixed order (steps in between,
then single seeds, then further references or layers) and said beneath the view: nothing is cut without a word.

Numbers travel as little-endian uint16 or float32 in base64. A uint16 `q` stands for `low + q * (high - low) / 65534`, a
logarithmic one for ten to the power of that; 65535 is a missing number.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.colors import to_hex

from featurespace.figures.series import datasets_of, recipes_of
from featurespace.style import recipe_looks

CENTRINGS = ("raw", "centred")
MISSING = 65535
MOST_VALUES = 600_000  # of one view: 1.6 MB of the page
MOST_STEPS, LEAST_STEPS = 60, 12  # of a recipe
MOST_REFERENCES = 24  # other recipes that angles are shown to
MOST_LAYERS = 40  # of a recipe
OWN, DATA = "own", "data"
SEEDS = "seeds"  # as a reference: a recipe's own last steps of other seeds
# column, what it is called, its least and greatest value
ANGLES = (("angle_deg", 0.0, 90.0), ("null_mean_deg", 0.0, 90.0), ("correlation", -1.0, 1.0))
MEASURES = ("compression", "discrimination", "numerical_rank")
SHARES = (-20.0, 0.0)  # powers of ten between which shares of variance are kept
TINTS = 33  # colours of a scale


# --- numbers ----------------------------------------------------------------------------------------------------------


def pack(values: np.ndarray, low: float, high: float) -> dict[str, Any]:
    """Pack numbers between two limits as uint16, their steps (high - low) / 65534 wide; what is not finite is missing.

    Returns
    -------
    dict
        shape, low, high and u16, the numbers in C order.
    """
    values = np.asarray(values, float)
    known = np.isfinite(values)
    scaled = np.clip((np.where(known, values, low) - low) / (high - low), 0.0, 1.0) * (MISSING - 1)
    codes = np.where(known, np.rint(scaled), MISSING).astype("<u2")
    return {"shape": list(codes.shape), "low": low, "high": high, "u16": base64.b64encode(codes.tobytes()).decode()}


def pack_shares(values: np.ndarray) -> dict[str, Any]:
    """Pack shares of variance by their logarithm, to 0.04 %; what is not positive is missing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        powers = np.log10(np.where(np.asarray(values) > 0, values, np.nan))
    return pack(powers, *SHARES) | {"log": True}


def pack_floats(values: np.ndarray) -> dict[str, Any]:
    """Pack any numbers as float32; what is not finite is missing."""
    data = np.where(np.isfinite(values), values, np.nan).astype("<f4")
    return {"shape": list(data.shape), "f32": base64.b64encode(data.tobytes()).decode()}


def unpack(packed: Mapping[str, Any]) -> np.ndarray:
    """Undo any packing, as the page's script does."""
    if "f32" in packed:
        return np.frombuffer(base64.b64decode(packed["f32"]), "<f4").reshape(packed["shape"]).astype(float)
    codes = np.frombuffer(base64.b64decode(packed["u16"]), "<u2").reshape(packed["shape"])
    values = packed["low"] + codes * (packed["high"] - packed["low"]) / (MISSING - 1)
    values = np.where(codes == MISSING, np.nan, values)
    return 10.0**values if packed.get("log") else values


def embedded_json(value: Any) -> Markup:
    """Write plain data as JSON that may stand in a script element: no text in it can end the element or open another.

    Raises
    ------
    ValueError
        If a number is not finite, which JSON cannot say.
    """
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


# --- axes -------------------------------------------------------------------------------------------------------------


def _curves(frame: pd.DataFrame, columns: Sequence[str], values: Sequence[str]) -> dict[str, Any]:
    """Lay the rows of one recipe out as an array over (seed, step, columns..., value).

    A seed that stopped early keeps its last value; a step that some seed never kept is left out, as in the figures.

    Parameters
    ----------
    frame
        Rows with seed, step, epoch, `columns` and `values`, which are averaged where several rows share a place.
    columns
        Columns that are axes, each with integers 0, 1, ..., their codes.
    values
        The columns of numbers.

    Returns
    -------
    dict
        seeds (list), epochs (m,) and array (seeds, m, ..., values), float64.
    """
    seeds = sorted(frame["seed"].unique())
    steps = np.sort(frame["step"].unique())
    sizes = [int(frame[column].max()) + 1 for column in columns]
    seed = np.searchsorted(seeds, frame["seed"])
    step = np.searchsorted(steps, frame["step"])
    shape = (len(seeds), len(steps), *sizes)
    place = np.ravel_multi_index((seed, step, *(frame[column].to_numpy() for column in columns)), shape)
    size = int(np.prod(shape))
    layers = []
    for value in values:
        numbers = frame[value].to_numpy(float)
        known = np.isfinite(numbers)
        sums = np.bincount(place[known], weights=numbers[known], minlength=size)
        counts = np.bincount(place[known], minlength=size)
        with np.errstate(invalid="ignore"):
            layers.append((sums / counts).reshape(shape))
    array = np.stack(layers, axis=-1)
    there = np.zeros(shape[:2], bool)
    there[seed, step] = True
    last = len(steps) - 1 - there[:, ::-1].argmax(axis=1)
    kept = there.copy()
    for i, end in enumerate(last):
        array[i, end + 1 :] = array[i, end]
        kept[i, end + 1 :] = True
    common = kept.all(axis=0)
    epochs = frame.groupby("step")["epoch"].mean().reindex(steps).to_numpy(float)
    return {"seeds": [int(seed) for seed in seeds], "epochs": epochs[common], "array": array[:, common]}


def thinned(n_steps: int, most: int) -> np.ndarray:
    """Choose at most `most` of `n_steps` positions, spread evenly over their order, the first and the last included."""
    if n_steps <= most:
        return np.arange(n_steps)
    return np.unique(np.rint(np.linspace(0, n_steps - 1, max(most, 2))).astype(int))


def _fit(
    curves: Mapping[str, dict[str, Any]], most: int, logarithmic: Sequence[bool]
) -> tuple[dict[str, Any], list[str], int]:
    """Leave out steps in between, then single seeds, until all arrays together hold no more than `most` numbers.

    Parameters
    ----------
    curves
        By name, as `_curves` gives them.
    most
        Numbers in all.
    logarithmic
        For each value, the last axis, whether its mean over seeds is the geometric one.

    Returns
    -------
    curves, notes, limit
        The same, with `seeds` None where the array holds their mean alone; what was left out, in words; and how many
        steps a recipe may have.
    """
    notes = []

    def total(n_steps: int) -> int:
        sizes = [curve["array"].shape for curve in curves.values()]
        return sum(int(np.prod(shape)) // max(shape[1], 1) * min(shape[1], n_steps) for shape in sizes)

    limit = MOST_STEPS
    while limit > LEAST_STEPS and total(limit) > most:
        limit -= 1
    several = any(len(curve["seeds"] or []) > 1 for curve in curves.values())
    if total(limit) > most and several:
        curves = {name: curve | _mean_over_seeds(curve, logarithmic) for name, curve in curves.items()}
        notes.append("numbers are means over seeds")
        limit = MOST_STEPS
    while limit > 2 and total(limit) > most:
        limit -= 1
    if any(len(curve["epochs"]) > limit for curve in curves.values()):
        notes.append(f"at most {limit} of the kept steps are shown, the first and the last among them")
    chosen = {}
    for name, curve in curves.items():
        steps = thinned(len(curve["epochs"]), limit)
        chosen[name] = curve | {"epochs": curve["epochs"][steps], "array": curve["array"][:, steps]}
    return chosen, notes, limit


def _mean_over_seeds(curve: Mapping[str, Any], logarithmic: Sequence[bool]) -> dict[str, Any]:
    """Return the mean of an array over its seeds, of positive numbers the geometric one where that is wanted."""
    array = curve["array"].copy()
    for i, is_log in enumerate(logarithmic):
        with np.errstate(divide="ignore", invalid="ignore"):
            part = np.log(np.where(array[..., i] > 0, array[..., i], np.nan)) if is_log else array[..., i]
            mean = part.mean(axis=0, keepdims=True)
        array[:1, ..., i] = np.exp(mean) if is_log else mean
    return {"seeds": None, "array": array[:1]}


def _epochs(curve: Mapping[str, Any]) -> list[float]:
    return [float(f"{epoch:.4g}") for epoch in curve["epochs"]]


# --- views ------------------------------------------------------------------------------------------------------------


def angle_view(dynamics: pd.DataFrame, recipes: Sequence[Mapping[str, Any]], dataset: str) -> dict[str, Any] | None:
    """Pack the angles of every recipe, step by step, to its own last step, to the data and to recipes' last steps.

    Parameters
    ----------
    dynamics
        `angle_dynamics.csv`. References with several seeds are averaged over them; a recipe's own other seeds are its
        reference of its own name.
    recipes
        The study's recipes in order.
    dataset
        A data set's name.

    Returns
    -------
    dict or None
        references, opens_at (the reference that is shown first: not the own end, where there is another; `seeds` for a
        recipe's own other seeds), notes, and rows by recipe: seeds (None: means), epochs and values, packed (centring,
        seed, step, reference) by column of `ANGLES`. None if there is no angle.
    """
    here = recipes_of(recipes, dataset)
    frame = dynamics[(dynamics["dataset"] == dataset) & dynamics["recipe"].isin(here)]
    there = set(frame["reference"])
    others = [name for name in here if name in there]
    references = [name for name in (OWN, DATA) if name in there] + others[:MOST_REFERENCES]
    frame = frame[frame["reference"].isin(references)]
    if frame.empty:
        return None
    values = [column for column, _, _ in ANGLES]
    frame = frame.assign(
        c=frame["centring"].map({name: i for i, name in enumerate(CENTRINGS)}),
        r=frame["reference"].map({name: i for i, name in enumerate(references)}),
        **{column: np.nan for column in values if column not in frame},
    )
    curves = {}
    for name, rows in frame.groupby("recipe", sort=False):
        curve = _curves(rows, ["c", "r"], values)
        array = np.full((*curve["array"].shape[:2], len(CENTRINGS), len(references), len(values)), np.nan)
        _, _, n_centrings, n_references, _ = curve["array"].shape
        array[:, :, :n_centrings, :n_references] = curve["array"]
        curves[str(name)] = curve | {"array": array}
    curves, notes, _ = _fit(curves, MOST_VALUES, [False] * len(values))
    if len(others) > MOST_REFERENCES:
        notes.append(f"of {len(others)} reference recipes the first {MOST_REFERENCES} are shown")
    rows_ = {}
    for name in here:
        if name in curves:
            curve = curves[name]
            array = np.moveaxis(curve["array"], 2, 0)  # centring, seed, step, reference, value
            packed = {column: pack(array[..., i], low, high) for i, (column, low, high) in enumerate(ANGLES)}
            rows_[name] = {"seeds": curve["seeds"], "epochs": _epochs(curve), "values": packed}
    opens_at = next((name for name in references if name != OWN), OWN)
    if opens_at in rows_ and len(rows_) == 1:
        opens_at = SEEDS  # to itself a recipe has no curve
    return {"references": references, "opens_at": opens_at, "notes": notes, "rows": rows_}


def spectrum_view(spectra: pd.DataFrame, recipes: Sequence[Mapping[str, Any]], dataset: str) -> dict[str, Any] | None:
    """Pack the share of variance of every component, by recipe, layer and step.

    Parameters
    ----------
    spectra
        The `spectra.csv` of the study's recipes and of the data sets, stacked.
    recipes
        The study's recipes in order, each with its `feature_layer`.
    dataset
        A data set's name.

    Returns
    -------
    dict or None
        notes, and rows by recipe (`data` first): seeds (None: the data, or geometric means), epochs, layers (shallowest
        first), feature_layer (its position among them) and shares, packed (centring, seed, step, layer, component).
    """
    here = recipes_of(recipes, dataset)
    feature_layers = {recipe["name"]: recipe["feature_layer"] for recipe in recipes}
    frame = spectra[(spectra["dataset"] == dataset) & spectra["recipe"].isin([DATA, *here])]
    if frame.empty:
        return None
    frame = frame.assign(
        c=frame["centring"].map({name: i for i, name in enumerate(CENTRINGS)}),
        k=frame["component"] - frame["component"].min(),
    )
    everything = {str(name): rows for name, rows in frame.groupby("recipe", sort=False)}

    def packed(only_feature_layer: bool) -> tuple[dict[str, Any], list[str], int, dict[str, list[str]]]:
        curves, layers = {}, {}
        for name, rows in everything.items():
            own = feature_layers.get(name, "input")
            names = [str(layer) for layer in rows.sort_values("depth", kind="stable")["layer"].unique()]
            if only_feature_layer or len(names) > MOST_LAYERS:
                names = [layer for layer in names if layer == own] or names[-1:]
            layers[name] = names
            rows = rows[rows["layer"].isin(names)]
            rows = rows.assign(layer_code=rows["layer"].map({layer: i for i, layer in enumerate(names)}))
            curve = _curves(rows, ["c", "layer_code", "k"], ["variance_share"])
            curves[name] = curve
        return *_fit(curves, MOST_VALUES, [True]), layers

    curves, notes, limit, layers = packed(False)
    if limit < LEAST_STEPS and any(len(names) > 1 for names in layers.values()):
        curves, notes, limit, layers = packed(True)
        notes.append("of each recipe its feature layer is shown")
    rows_ = {}
    for name in (DATA, *here):
        if name not in curves:
            continue
        curve, own = curves[name], feature_layers.get(name, "input")
        array = np.moveaxis(curve["array"][..., 0], 2, 0)  # centring, seed, step, layer, component
        rows_[name] = {
            "seeds": None if name == DATA else curve["seeds"],
            "epochs": _epochs(curve),
            "layers": layers[name],
            "feature_layer": layers[name].index(own) if own in layers[name] else len(layers[name]) - 1,
            "shares": pack_shares(array),
        }
    return {"notes": notes, "rows": rows_}


def layer_view(layers: pd.DataFrame, recipes: Sequence[Mapping[str, Any]], dataset: str) -> dict[str, Any] | None:
    """Pack what is measured of every layer, by recipe and step.

    Parameters
    ----------
    layers
        The `layers.csv` of the study's recipes and of the data sets, stacked.
    recipes
        The study's recipes in order, each with its `feature_layer`.
    dataset
        A data set's name.

    Returns
    -------
    dict or None
        measures, opens_at (the depth of the deepest feature layer), notes, and rows by recipe (`data` first): seeds
        (None: the data, or means, geometric of compression), epochs, layers, depths and values, packed
        (seed, step, layer, measure).
    """
    here = recipes_of(recipes, dataset)
    frame = layers[(layers["dataset"] == dataset) & layers["recipe"].isin([DATA, *here])]
    measures = [name for name in MEASURES if name in frame and frame[name].notna().any()]
    if frame.empty or not measures:
        return None
    curves, names, depths = {}, {}, {}
    for name, rows in frame.groupby("recipe", sort=False):
        of_layer = rows.drop_duplicates("layer").sort_values("depth", kind="stable")
        of_layer = of_layer.iloc[thinned(len(of_layer), MOST_LAYERS)]
        names[str(name)] = [str(layer) for layer in of_layer["layer"]]
        depths[str(name)] = [int(depth) for depth in of_layer["depth"]]
        rows = rows[rows["layer"].isin(of_layer["layer"])]
        rows = rows.assign(layer_code=rows["layer"].map({layer: i for i, layer in enumerate(names[str(name)])}))
        curves[str(name)] = _curves(rows, ["layer_code"], measures)
    curves, notes, _ = _fit(curves, MOST_VALUES // 2, [name == "compression" for name in measures])
    if (frame.groupby("recipe")["layer"].nunique() > MOST_LAYERS).any():
        notes.append(f"at most {MOST_LAYERS} layers of a recipe are shown")
    rows_ = {
        name: {
            "seeds": None if name == DATA else curves[name]["seeds"],
            "epochs": _epochs(curves[name]),
            "layers": names[name],
            "depths": depths[name],
            "values": pack_floats(curves[name]["array"]),
        }
        for name in (DATA, *here)
        if name in curves
    }
    feature_layers = {recipe["name"]: recipe["feature_layer"] for recipe in recipes}
    of_features = [
        depth
        for name in rows_
        for layer, depth in zip(names[name], depths[name], strict=True)
        if layer == feature_layers.get(name)
    ]
    opens_at = max(of_features, default=max(depth for name in rows_ for depth in depths[name]))
    return {"measures": measures, "opens_at": opens_at, "notes": notes, "rows": rows_}


# --- the whole --------------------------------------------------------------------------------------------------------


def _scale(name: str) -> list[str]:
    """Return a colour map of the figures as colours in even distances."""
    return [to_hex(matplotlib.colormaps[name](i / (TINTS - 1))) for i in range(TINTS)]


def _pattern(dashes: Any) -> str:
    """Write a line style of the figures as SVG does, for a line 1.4 wide."""
    return "" if dashes == "-" else " ".join(f"{1.4 * length:g}" for length in dashes[1])


def views(
    recipes: Sequence[Mapping[str, Any]],
    dynamics: pd.DataFrame | None,
    spectra: pd.DataFrame | None,
    layers: pd.DataFrame | None,
) -> dict[str, Any] | None:
    """Prepare everything that the interactive views show.

    Parameters
    ----------
    recipes
        The study's recipes in order, each with name, dataset, task and feature_layer.
    dynamics, spectra, layers
        `angle_dynamics.csv`, and the `spectra.csv` and `layers.csv` of recipes and data sets, stacked; None where the
        study makes them not.

    Returns
    -------
    dict or None
        recipes (name, task, colour, dashes), scales (colours by name) and datasets: name, and angles, spectra and
        layers, each None or as `angle_view`, `spectrum_view` and `layer_view` give it. None if there is none at all.
    """
    looks = recipe_looks(recipes)
    found = []
    for dataset in datasets_of(recipes, [recipe["dataset"] for recipe in recipes]):
        parts = {
            "angles": None if dynamics is None else angle_view(dynamics, recipes, dataset),
            "spectra": None if spectra is None else spectrum_view(spectra, recipes, dataset),
            "layers": None if layers is None else layer_view(layers, recipes, dataset),
        }
        if any(part is not None for part in parts.values()):
            found.append({"name": dataset} | parts)
    if not found:
        return None
    return {
        "recipes": [
            {
                "name": recipe["name"],
                "task": recipe["task"],
                "colour": looks[recipe["name"]].colour,
                "dashes": _pattern(looks[recipe["name"]].dashes),
            }
            for recipe in recipes
        ],
        "scales": {"angle": _scale("viridis"), "correlation": _scale("RdBu_r")},
        "datasets": found,
    }
