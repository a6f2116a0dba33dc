"""What the claims of the layerwise paper (arXiv 2311.02960) are measured by, from the tables of a data set or a study.

Where each seed has a number of its own, averaged over the recipes of a family, the interval over seeds is Student's.
Statements that hold exactly or within a tolerance go by the worst network: `least` and `greatest` are over all
networks, and layers where a network has several numbers. Runs that did not converge enter no number, and leave a
claim about them not determined; values of C that are flagged as too small to be reliable enter none either. A network
of which a layer is missing, or flagged, has no number of what is said of every layer.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from scipy import stats

from featurespace.evidence import (
    DATA,
    WITHOUT_NETWORK,
    Absent,
    Ledger,
    Measurement,
    Registry,
    at_end,
    changed,
    is_number,
    missing_networks,
    over_seeds,
    plain,
)
from featurespace.evidence import Scene as BaseScene
from featurespace.statistics import spearman
from featurespace.tables import is_false

LEAST_LAYERS = 3  # a line through two points fits them whatever they are
LEAST_LEVELS = 3  # so does a trend over two settings
FLAGGED = ("compression", "discrimination")  # both rest on the class means
OF_LAYERS = (*FLAGGED, "numerical_rank")
OF_PROBES = {"probe_train_accuracy": "train_accuracy", "silhouette": "silhouette"}
OF_RUNS = ("test_accuracy", "train_accuracy")
# What the law knows of a setting: runs that differ in other things, such as the draw of the data, are in the same one.
OF_SETTINGS = ("init.scale", "output_scale", "dataset.n_train", "dataset.classes", "model.depth")
KINDS_IN_NAMES = ("digits", "orthonormal", "mnist", "fashion", "cifar", "cifar100", "newsgroups")

REGISTRY = Registry()
statistic = REGISTRY.statistic


class Scene(BaseScene):
    """A scene of layers."""

    FILES: ClassVar[Mapping[str, str]] = {
        "layers": "runs/.../layers.csv",
        "inputs": "datasets/.../layers.csv",
        "networks": "runs/.../networks.csv",
        "theory": "runs/.../theory.csv",
        "layer_probes": "runs/.../layer_probes.csv",
    }


LEDGER = Ledger(
    registry=REGISTRY,
    scene=Scene,
    tables={name: name for name in ("layers", "inputs", "runs", "networks", "theory", "layer_probes")},
    requirements=frozenset(["seeds", "confidence"]),
    requires=("seeds", "nothing"),
)


# --- curves over layers -----------------------------------------------------------------------------------------------


@statistic("least", "greatest")
def layer_value(scene: Scene, centring: str, family: str, quantity: str, depth: int | str) -> Measurement:
    """A quantity at one layer, by its depth: a number, or `last`; `predicted` is the theory's where it has one."""
    curves = _curves(scene, family, quantity)
    found = curves.number(scene, curves.at(depth), f", layer {depth}")
    return changed(found, predicted=_predicted(scene, curves.names, quantity, curves.depth(depth)))


@statistic("greatest")
def layer_ratio(
    scene: Scene, centring: str, family: str, quantity: str, first: int, last: int | str = "last"
) -> Measurement:
    """A quantity at one layer over that at another; layer 0 is the input."""
    curves = _curves(scene, family, quantity)
    return curves.number(scene, curves.at(last) / curves.at(first), f", layer {last} over layer {first}")


@statistic()
def layer_difference(
    scene: Scene, centring: str, family: str, quantity: str, first: int, last: int | str, at: str = "last"
) -> Measurement:
    """A quantity at one layer minus that at another."""
    curves = _curves(scene, family, quantity, at)
    return curves.number(scene, curves.at(last) - curves.at(first), f", layer {last} minus layer {first}")


@statistic("least", "greatest")
def step_ratio(scene: Scene, centring: str, family: str) -> Measurement:
    """C of a layer over that of the layer before, from layer 1 on: the geometric mean over layers, all of them.

    `least` and `greatest` are over single steps; `predicted` is the law's ε²(α²/n)^{1/L}.
    """
    curves = _curves(scene, family, "compression")
    logs = _logs(curves.from_depth(1)).diff(axis=1).iloc[:, 1:]
    mean = np.exp(logs.mean(axis=1)).where(curves.whole(scene, 1))
    found = curves.number(scene, mean, ", each layer over the one before, from layer 1 on")
    single = np.exp(logs.to_numpy(dtype=float))
    extras = {"least": _least(single), "greatest": _greatest(single)}
    return changed(found, extras=extras, predicted=_predicted(scene, curves.names, "compression_ratio", 2, "law"))


@statistic("r_squared")
def layer_slope(
    scene: Scene, centring: str, family: str, quantity: str, log: bool = False, at: str = "last"
) -> Measurement:
    """Slope of a quantity, or of its logarithm, over the depth of layers 1 and up; `r_squared` is the least of any.

    Of a logarithm, -0.1 is a fall by a tenth a layer. Missing for fewer than three layers. It does without values that
    are flagged, and decides nothing where others are missing.
    """
    curves = _curves(scene, family, quantity, at)
    values = curves.from_depth(1)
    values = _logs(values) if log else values
    fits = pd.DataFrame([_fitted(row) for _, row in values.iterrows()], values.index, columns=[0, 1], dtype=float)
    found = curves.number(scene, fits[0], f", {'log ' if log else ''}slope over layers from 1 on")
    short = values.notna().sum(axis=1) + curves.flagged < curves.n_layers(scene)
    counts = short[fits[0].notna()].groupby("recipe").sum()  # what has no slope is named already
    return changed(
        found,
        extras={**found.extras, "r_squared": _least(fits[1].to_numpy(dtype=float))},
        lacking=(*found.lacking, *(f"{n} of {name} lack values of layers" for name, n in counts.items() if n)),
        evidence=f"{found.evidence}, R² from {_least(fits[1].to_numpy(dtype=float)):.3f} on",
    )


@statistic("least")
def layer_change(
    scene: Scene, centring: str, family: str, quantity: str, which: str, log: bool = False, first: int = 1
) -> Measurement:
    """The `largest` or `smallest` change of a quantity, or of its logarithm, from a layer to the next, from `first` on.

    A curve falls throughout if the largest is below 0, and rises throughout if the smallest is above.
    """
    curves = _curves(scene, family, quantity)
    values = curves.from_depth(first)
    changes = (_logs(values) if log else values).diff(axis=1).iloc[:, 1:]
    found = (changes.max(axis=1) if which == "largest" else changes.min(axis=1)).where(curves.whole(scene, first))
    return curves.number(scene, found, f", {which} {'log ' if log else ''}change between layers from {first} on")


@statistic("greatest", "averaged")
def proportionality_error(scene: Scene, centring: str, family: str) -> Measurement:
    """How far 1 - D is from c (1 - l/L), relative to it: the layer that is farthest off, c fitted through the origin.

    Of each network; `averaged` is that of the mean of 1 - D over seeds, of the recipe where it is greatest. L is one
    more than the layers, which must all be there.
    """
    curves = _curves(scene, family, "discrimination")
    values = (1 - curves.from_depth(1))[curves.whole(scene, 1)]
    averaged = _off_proportion(values.groupby("recipe").mean()).max()
    found = curves.number(scene, _off_proportion(values), ", (1 - D) against (1 - l/L)")
    evidence = f"{found.evidence}; {averaged:.3f} off once averaged over seeds"
    return changed(found, evidence=evidence, extras={**found.extras, "averaged": float(averaged)})


def _off_proportion(values: pd.DataFrame) -> pd.Series:
    """Return the greatest relative distance of each row, with columns 1 to L - 1, from c (1 - l/L)."""
    expected = 1 - values.columns.to_numpy(dtype=float) / (len(values.columns) + 1)
    known = values.to_numpy(dtype=float)
    slope = (known * expected).sum(axis=1) / (expected**2).sum()
    return pd.Series(np.abs(known / (slope[:, None] * expected) - 1).max(axis=1), index=values.index, dtype=float)


@statistic("least", "greatest", "after")
def layer_peak(scene: Scene, centring: str, family: str, quantity: str) -> Measurement:
    """The layer at which a quantity is greatest, the first of several; `after` says how it goes on from there.

    That is Spearman's rho of depth and the quantity from the peak on, the greatest of any network: -1 if it falls
    throughout in all, missing where one has its peak at the last layer.
    """
    curves = _curves(scene, family, quantity)
    values = curves.from_depth(1)
    whole = values[curves.whole(scene, 1)]
    peaks = whole.idxmax(axis=1).astype(float).reindex(values.index)
    after = [
        _spearman(np.arange(peak, 1 + curves.deepest), row[row.index >= peak]) if peak < curves.deepest else np.nan
        for peak, (_, row) in zip(peaks.dropna(), whole.iterrows(), strict=True)
    ]
    found = curves.number(scene, peaks, ", layer of the peak")
    worst = max(after) if after and np.isfinite(after).all() else float("nan")
    return changed(found, extras={**found.extras, "after": worst})


@statistic()
def curve_distance(
    scene: Scene, centring: str, family: str, quantity: str, values: list[float], log: bool = False
) -> Measurement:
    """The largest distance, over layers from 1 on, from a published curve; of logarithms the largest factor."""
    curves = _curves(scene, family, quantity)
    own = curves.from_depth(1)
    if own.shape[1] < len(values):
        raise Absent(f"the published curve has {len(values)} layers, and {family} has {own.shape[1]}")
    own, published = own.iloc[:, : len(values)], np.array(values, dtype=float)
    if log:
        distance = np.exp((_logs(own) - np.log(published)).abs().max(axis=1, skipna=False))
    else:
        distance = (own - published).abs().max(axis=1, skipna=False)
    return curves.number(scene, distance, f", {'factor' if log else 'distance'} from the published curve")


@statistic()
def untrained_share(
    scene: Scene, centring: str, family: str, quantity: str, log: bool = False, first: int = 1
) -> Measurement:
    """The change of a quantity from layer `first` to the last at the first step, over the same at the last step.

    Whichever way either goes: the share has no sign.
    """
    parts = {at: _curves(scene, family, quantity, at) for at in ("first", "last")}
    change = {}
    for at, curves in parts.items():
        values = _logs(curves.values) if log else curves.values
        change[at] = values[curves.depth("last")] - values[curves.depth(first)]
    share = (change["first"] / change["last"].replace(0.0, np.nan)).abs()
    return parts["last"].number(scene, share, f", layer {first} to last: change at first steps over that at last ones")


@statistic()
def modes_agree(scene: Scene, centring: str, family: str) -> Measurement:
    """Share of networks in which C rises somewhere over the deeper half of the layers in both modes, or in neither.

    The modes are those of batch normalisation.
    """
    curves = _curves(scene, family, "compression"), _curves(scene, family, "compression_training")
    rises = []
    for own in curves:
        first = 1 + own.deepest // 2
        largest = _logs(own.from_depth(first)).diff(axis=1).iloc[:, 1:].max(axis=1).where(own.whole(scene, first))
        rises.append((largest > 0).where(largest.notna()))
    both = pd.concat(rises, axis=1, keys=["evaluation", "training"]).dropna().astype(bool)
    agree = (both["evaluation"] == both["training"]).astype(float)
    found = curves[0].number(scene, agree.reindex(curves[0].values.index), f"; {curves[1].where}")
    factor = np.exp((_logs(curves[0].from_depth(1)) - _logs(curves[1].from_depth(1))).abs().to_numpy(dtype=float))
    text = f": C rises in {both['evaluation'].sum()} and {both['training'].sum()} of {len(both)} networks; the modes "
    text += f"differ by a factor of up to {_greatest(factor):.3g}"
    return changed(found, low=float("nan"), high=float("nan"), evidence=found.evidence + text)


# --- against the theory -----------------------------------------------------------------------------------------------


@statistic()
def law_deviation(
    scene: Scene, centring: str, family: str, limit: float, law: str = "law", settings: int = 1
) -> Measurement:
    """How far C_{l+1}/C_l, l >= 1, is from ε²(α²/n)^{1/L}, relative to it: the worst layer, network and setting.

    The evidence says in how many settings it is within `limit`, and in which recipes it is not; other draws of the data
    are no other settings. With `law: scale` it is measured against ε² alone. Fewer than so many `settings`, all within
    the limit, do not decide.
    """
    names = _covered(scene, family, "compression_ratio", 2)
    rows, where = _theory(scene, names, "compression_ratio", 2)
    if law == "scale":
        rows = rows.assign(scale=[scene.recipe(name)["init"]["scale"] ** 2 for name in rows["recipe"]])
    deviation = (rows["measured"] / rows[law] - 1).abs()
    found = _over_settings(scene, names, rows, deviation, f"{where}: within {limit:.3g}", limit)
    undecided = found.measured <= limit and found.n < settings
    few = (f"too few settings: {found.n}, of {settings} wanted",) if undecided else ()
    return changed(found, lacking=found.lacking + few)


@statistic()
def bound_excess(
    scene: Scene, centring: str, family: str, quantity: str, first: int = 1, relative: bool = False
) -> Measurement:
    """How far a quantity is outside its bounds, from layer `first` on, relative to them if so; negative inside.

    The worst layer, network and setting.
    """
    names = _covered(scene, family, quantity, first)
    rows, where = _theory(scene, names, quantity, first)
    measured, lower, upper = (rows[name].to_numpy(dtype=float) for name in ("measured", "lower", "upper"))
    below, above = (lower / measured - 1, measured / upper - 1) if relative else (lower - measured, measured - upper)
    excess = pd.Series(np.fmax(below, above), index=rows.index)
    return _over_settings(scene, names, rows, excess, f"{where}: inside throughout", 0.0)


@statistic("least", "greatest")
def prediction_ratio(scene: Scene, centring: str, family: str, quantity: str) -> Measurement:
    """What was measured over what was predicted for the run's own data, by layer."""
    names = _covered(scene, family, quantity, 1)
    rows, where = _theory(scene, names, quantity, 1)
    ratio = (rows["measured"] / rows["predicted"]).astype(float)
    found = _over_settings(scene, names, rows, ratio, f"{where}: measured over predicted")
    values = ratio.to_numpy()
    extras = {"least": _least(values), "greatest": _greatest(values)}
    mean = float(ratio.groupby(rows["recipe"]).mean().mean())
    return changed(found, measured=mean, predicted=1.0, extras=extras)


@statistic("greatest", "deviation")
def theory_value(scene: Scene, centring: str, family: str, quantity: str) -> Measurement:
    """A quantity of whole networks beside what is predicted; `deviation` is the worst, relative to it."""
    names = scene.members(family)
    rows, where = _theory(scene, names, quantity)
    values = rows.set_index(["recipe", "seed"])[["measured", "predicted"]].astype(float)
    found = _of_numbers(scene, values["measured"], where, names)
    with np.errstate(divide="ignore", invalid="ignore"):
        deviation = (values["measured"] / values["predicted"] - 1).abs().to_numpy()
    return changed(
        found,
        predicted=float(values["predicted"].mean()),
        extras={**found.extras, "deviation": _greatest(deviation)},
    )


@statistic()
def constant_count(scene: Scene, centring: str, family: str, names: list[str]) -> Measurement:
    """How many of the constants that the theory rests on are there for every recipe; the evidence has their values."""
    recipes = scene.members(family)
    rows = scene.rows("theory", recipe=recipes, quantity=names)
    means = rows.groupby(["quantity", "recipe"])["measured"].mean().unstack("recipe").reindex(names, columns=recipes)
    whole = means[means.notna().all(axis=1)]
    text = ", ".join(f"{name} {row.min():.4g} to {row.max():.4g}" for name, row in whole.iterrows())
    where = f"{scene.cite('theory', recipe=recipes)}: {text}"
    return changed(plain(len(whole), where, len(recipes)), recipes=tuple(recipes))


# --- whole networks and data ------------------------------------------------------------------------------------------


@statistic()
def network_value(scene: Scene, centring: str, family: str, quantity: str) -> Measurement:
    """A number of whole networks at the last step: of the run table, or of `networks.csv`."""
    names = scene.members(family)
    values, where = _numbers(scene, names, quantity)
    return _of_numbers(scene, values, where, names)


@statistic("greatest")
def network_change(scene: Scene, centring: str, family: str, quantity: str) -> Measurement:
    """A number of whole networks in `networks.csv` at the last step over that at the first."""
    names = scene.members(family)
    last, first = (_numbers(scene, names, quantity, at)[0] for at in ("last", "first"))
    where = scene.cite("networks", recipe=names, quantity=quantity) + ", last over first steps"
    return _of_numbers(scene, last / first, where, names)


@statistic()
def converged_share(scene: Scene, centring: str, family: str) -> Measurement:
    """Share of runs that reached the loss at which they were to stop."""
    names = scene.members(family)
    rows = scene.rows("runs", recipe=names)
    asked = rows[rows["converged"].notna() & (rows["converged"] != "")]
    if asked.empty:
        raise Absent(f"no {family} on {scene.dataset['name']} was to stop at a loss")
    failed = _failed_text(scene, names)
    where = scene.cite("runs", recipe=names) + "".join(f"; {text}" for text in failed)
    found = plain(1 - is_false(asked["converged"]).mean(), where, len(asked))
    return changed(found, recipes=tuple(names), seeds=_fewest_seeds(asked, names))


@statistic("deviation")
def input_value(scene: Scene, centring: str, quantity: str) -> Measurement:
    """C or D of nearly orthonormal rows themselves, layer 0; `predicted` is that of exactly orthonormal ones.

    `deviation` is how far it is from that, relative to it.
    """
    _require_noise(scene, some=True)
    row = scene.rows("inputs", recipe=DATA).iloc[0]
    predicted = _of_orthonormal(scene.dataset, quantity)
    found = plain(row[quantity], scene.cite("inputs") + f": {quantity}")
    return changed(found, predicted=predicted, extras={"deviation": abs(row[quantity] / predicted - 1)})


@statistic()
def input_error(scene: Scene, centring: str, quantity: str) -> Measurement:
    """How far C or D of exactly orthonormal rows is from K(n - 1)/(K - 1), or from 1, relative to it."""
    _require_noise(scene, some=False)
    row = scene.rows("inputs", recipe=DATA).iloc[0]
    predicted = _of_orthonormal(scene.dataset, quantity)
    error = abs(row[quantity] / predicted - 1)
    return plain(error, scene.cite("inputs") + f": {quantity} {row[quantity]:.9g} against {predicted:.9g}")


# --- trends over settings ---------------------------------------------------------------------------------------------


@statistic()
def setting_rank(scene: Scene, centring: str, family: str, quantity: str, key: str) -> Measurement:
    """Spearman's rho of a setting, such as `head.layers`, and a number of networks that differ in it alone.

    It is that of means over seeds, as a published curve is; the interval is over the seeds' own.
    """
    ladder = _ladder(scene, family, quantity, key)
    own = {seed: _spearman(ladder.levels, values) for seed, values in ladder.values.items()}
    found = ladder.number(scene, pd.Series(own, dtype=float), "rank correlation")
    return changed(found, measured=_spearman(ladder.levels, ladder.values.mean(axis=1)))


@statistic()
def setting_slope(scene: Scene, centring: str, family: str, quantity: str, key: str) -> Measurement:
    """Slope of a number of networks over a setting in which alone they differ, by seed."""
    ladder = _ladder(scene, family, quantity, key)
    levels = ladder.levels - ladder.levels.mean()
    return ladder.number(scene, (ladder.values.T * levels).sum(axis=1) / (levels**2).sum(), "slope")


@statistic()
def setting_gain(scene: Scene, centring: str, family: str, quantity: str, key: str) -> Measurement:
    """A number of networks at the greatest value of a setting minus that at the least, by seed."""
    ladder = _ladder(scene, family, quantity, key)
    return ladder.number(scene, ladder.values.iloc[-1] - ladder.values.iloc[0], "greatest minus least")


@statistic()
def transfer_gain(scene: Scene, centring: str, family: str, over: str) -> Measurement:
    """Test accuracy of a linear probe of the features on other data sets, minus that of the `input` or `untrained`.

    `input` is a probe of the raw samples; `untrained` one of the same network's features at its first step.
    """
    names = scene.members(family)
    last, where = _numbers(scene, names, "transfer_accuracy")
    other, _ = _numbers(scene, names, "transfer_accuracy", *(("last", "input") if over == "input" else ("first",)))
    return changed(_of_numbers(scene, last - other, f"{where}, minus {over}", names), null=0.0)


# --- what the ledger can see of the workflow --------------------------------------------------------------------------


@statistic()
def run_errors(scene: Scene, centring: str) -> Measurement:
    """Seeds of recipes that have no run of their own in the run table, or more than one."""
    runs = scene.rows("runs")
    counts = runs.groupby(["recipe", "seed"]).size().groupby("recipe").agg(["size", "sum"])
    wrong = 0
    for recipe in (*scene.recipes, *scene.sweeps):
        if recipe["task"] not in WITHOUT_NETWORK:
            distinct, rows = counts.loc[recipe["name"]] if recipe["name"] in counts.index else (0, 0)
            wrong += abs(recipe["n_seeds"] - distinct) + (rows - distinct)
    return plain(wrong, f"tables/runs.csv: {len(runs)} runs", len(runs))


@statistic()
def misnamed_data(scene: Scene, centring: str) -> Measurement:
    """Data sets that go by the name of published data and are of another kind."""
    wrong = [
        dataset["name"]
        for dataset in scene.datasets
        if any(word in dataset["name"] and word not in dataset["kind"] for word in KINDS_IN_NAMES)
    ]
    text = ", ".join(f"{dataset['name']} is {dataset['kind']}" for dataset in scene.datasets)
    return plain(len(wrong), f"study.yaml: {text}", len(scene.datasets))


# --- what they share --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Curves:
    """A quantity of each network over layers: rows (recipe, seed), columns depths in order, the input perhaps at 0.

    `flagged` is how many of a network's values are left out since they are not reliable.
    """

    values: pd.DataFrame
    flagged: pd.Series
    names: list[str]
    where: str

    @property
    def deepest(self) -> int:
        """The depth of the last layer."""
        return int(max(self.values.columns))

    def depth(self, depth: int | str) -> int:
        """Return a depth that is there; raise `Absent` if it is not."""
        found = self.deepest if depth == "last" else int(depth)
        if found not in self.values.columns:
            raise Absent(f"{self.where} has no layer {found}")
        return found

    def at(self, depth: int | str) -> pd.Series:
        """Return the values at a depth."""
        return self.values[self.depth(depth)]

    def from_depth(self, first: int) -> pd.DataFrame:
        """Return the values from a depth on, with a column for every depth."""
        return self.values.reindex(columns=range(first, self.deepest + 1))

    def n_layers(self, scene: Scene) -> pd.Series:
        """Return how many layers of each network were to be looked at."""
        return pd.Series([len(scene.recipe(recipe)["layers"]) for recipe, _ in self.values.index], self.values.index)

    def whole(self, scene: Scene, first: int) -> pd.Series:
        """Say of which networks every layer from a depth on has a value."""
        wanted = self.n_layers(scene)
        known = self.from_depth(first).notna()
        own = known.columns.to_numpy() <= wanted.to_numpy()[:, None]
        return (known & own).sum(axis=1) == wanted - first + 1

    def number(self, scene: Scene, values: pd.Series, what: str) -> Measurement:
        """Make a measurement of a number a network."""
        return _of_numbers(scene, values, self.where + what, self.names)


@dataclass(frozen=True)
class _Ladder:
    """A number of networks over the levels of a setting: rows levels in order, columns the seeds that have all."""

    values: pd.DataFrame
    names: list[str]
    where: str

    @property
    def levels(self) -> np.ndarray:
        """The levels, (n,)."""
        return self.values.index.to_numpy(dtype=float)

    def number(self, scene: Scene, values: pd.Series, what: str) -> Measurement:
        """Make a measurement of a number a seed."""
        means = ", ".join(f"{level:g}: {mean:.4g}" for level, mean in self.values.mean(axis=1).items())
        found = over_seeds(scene, values, f"{self.where}, {what} ({means})", self.names)
        return changed(found, lacking=tuple(_failed_text(scene, self.names)))


def _curves(scene: Scene, family: str, quantity: str, at: str = "last") -> _Curves:
    names = scene.members(family)
    if quantity in OF_LAYERS:
        rows, column = scene.rows("layers", recipe=names), quantity
        where = scene.cite("layers", recipe=names) + f": {quantity}"
    elif quantity in OF_PROBES:
        rows, column = scene.rows("layer_probes", recipe=names), OF_PROBES[quantity]
        rows = rows[rows["target"] == rows["dataset"]]
        where = scene.cite("layer_probes", recipe=names) + f": {column}"
    else:
        rows, column = scene.rows("networks", recipe=names, quantity=quantity), "value"
        rows = rows[rows["layer"] != ""]
        where = scene.cite("networks", recipe=names, quantity=quantity)
    rows = at_end(rows, at)
    numbers = rows[column].astype(float)
    doubtful = pd.Series(False, index=rows.index)
    if quantity in FLAGGED:
        doubtful = is_false(rows["reliable"])
        numbers = numbers.mask(doubtful)
        where += f", {int(doubtful.sum())} flagged values left out" if doubtful.any() else ""
    numbers = numbers.where(np.isfinite(numbers))
    keys = [rows["recipe"], rows["seed"], rows["depth"].astype(int)]
    values = pd.Series(numbers.to_numpy(), index=pd.MultiIndex.from_arrays(keys)).unstack("depth")
    inputs = scene.tables["inputs"]
    if quantity in OF_LAYERS and not inputs.empty and 0 not in values.columns:
        of_data = inputs[inputs["recipe"] == DATA].groupby("dataset")[quantity].first()
        datasets = [scene.dataset_of(scene.recipe(name))["name"] for name in values.index.get_level_values("recipe")]
        values[0] = of_data.reindex(datasets).to_numpy(dtype=float)
    values = _without_failed(scene, values[sorted(values.columns)], names)
    flagged = doubtful.groupby([rows["recipe"], rows["seed"]]).sum().reindex(values.index)
    return _Curves(values, flagged, names, f"{where}, {at} steps")


def _covered(scene: Scene, family: str, quantity: str, first: int) -> list[str]:
    """Return the recipes of a family that have layers, from `first` on, of which there is theory."""
    names = scene.members(family)
    rows = scene.rows("theory", recipe=names, quantity=quantity)
    there = set(rows.loc[rows["depth"] >= first, "recipe"])
    if not there:
        raise Absent(f"no {family} on {scene.dataset['name']} is deep enough for {quantity} of layer {first}")
    return [name for name in names if name in there]


def _theory(scene: Scene, names: Sequence[str], quantity: str, first: int | None = None) -> tuple[pd.DataFrame, str]:
    """Return the reliable rows, of runs that converged, of a quantity of layers from `first` on, or of networks."""
    rows = scene.rows("theory", recipe=list(names), quantity=quantity)
    rows = rows[rows["layer"] == ""] if first is None else rows[(rows["layer"] != "") & (rows["depth"] >= first)]
    rows = rows[~is_false(rows["reliable"])]
    failed = _failed(scene, names)
    keep = [key not in failed for key in zip(rows["recipe"], rows["seed"], strict=True)]
    return rows[keep], scene.cite("theory", recipe=list(names), quantity=quantity)


def _predicted(scene: Scene, names: Sequence[str], quantity: str, depth: int, column: str = "predicted") -> float:
    """Return what theory says of a quantity at a layer, over recipes and seeds; NaN where it says nothing."""
    rows = scene.tables["theory"]
    if rows.empty:
        return float("nan")
    rows = rows[rows["recipe"].isin(names) & (rows["quantity"] == quantity) & (rows["depth"] == depth)]
    return float(rows[column].mean()) if len(rows) else float("nan")


def _numbers(
    scene: Scene, names: Sequence[str], quantity: str, at: str = "last", layer: str | None = None
) -> tuple[pd.Series, str]:
    """Return a number of each network, by recipe and seed, and where it is from.

    Of the run table; `generalisation_gap`, training minus test accuracy; `transfer_accuracy` of a layer, the features'
    unless said, on other data sets; `feature_compression`, C of the features; or of `networks.csv`.
    """
    names = list(names)
    features = {name: scene.recipe(name).get("feature_layer", "") for name in names}
    if quantity in OF_RUNS or quantity == "generalisation_gap":
        rows = scene.rows("runs", recipe=names).set_index(["recipe", "seed"])
        gap = quantity == "generalisation_gap"
        values = rows["train_accuracy"] - rows["test_accuracy"] if gap else rows[quantity]
        where = scene.cite("runs", recipe=names) + f": {quantity}"
    elif quantity == "transfer_accuracy":
        rows = at_end(scene.rows("layer_probes", recipe=names), at)
        rows = rows[rows["target"] != rows["dataset"]]
        if rows.empty:
            raise Absent(
                f"no other data set was probed on; see analysis.layer_probes.targets ({scene.dataset['name']})"
            )
        rows = rows[rows["layer"] == (rows["recipe"].map(features) if layer is None else layer)]
        values = rows.groupby(["recipe", "seed"])["test_accuracy"].mean()
        targets = "|".join(dict.fromkeys(rows["target"]))
        where = scene.cite("layer_probes", recipe=names) + f", target={targets}: test_accuracy of the features"
    elif quantity == "feature_compression":
        rows = at_end(scene.rows("layers", recipe=names), at)
        rows = rows[rows["layer"] == rows["recipe"].map(features)]
        values = rows.set_index(["recipe", "seed"])["compression"].astype(float)
        values = values.mask(is_false(rows["reliable"]).to_numpy())
        where = scene.cite("layers", recipe=names) + ": compression of the features"
    else:
        rows = at_end(scene.rows("networks", recipe=names, quantity=quantity), at)
        values = rows[rows["layer"] == ""].set_index(["recipe", "seed"])["value"]
        where = scene.cite("networks", recipe=names, quantity=quantity)
    return _without_failed(scene, values.astype(float), names), where


def _ladder(scene: Scene, family: str, quantity: str, key: str) -> _Ladder:
    """Return the recipes of a family that differ in a setting alone, the most that there are, and their numbers."""
    groups: dict[str, dict[float, str]] = {}
    for name in scene.members(family):
        recipe = scene.recipe(name)
        level = scene.fact(recipe, key)
        if is_number(level):
            groups.setdefault(_but_for(recipe, key), {}).setdefault(level, name)
    most = max(groups.values(), key=len, default={})
    if len(most) < LEAST_LEVELS:
        raise Absent(f"no {LEAST_LEVELS} recipes among {family} on {scene.dataset['name']} differ in {key} alone")
    names = [most[level] for level in sorted(most)]
    values, where = _numbers(scene, names, quantity)
    table = values.unstack("seed").reindex(names).set_axis(sorted(most), axis=0).dropna(axis=1)
    return _Ladder(table, names, f"{where} over {key}")


def _but_for(recipe: Mapping[str, Any], key: str) -> str:
    """Write what a recipe is, apart from a setting and its layers, which may follow from that."""
    left_out = ("name", "layers", "feature_layer", "n_seeds", "blocks", "population")
    facts: dict[str, Any] = {name: value for name, value in recipe.items() if name not in left_out}
    if key == "n_layers":  # as many of the same width
        facts["model"] = {
            **facts["model"],
            "depth": None,
            "linear": None,
            "widths": set(facts["model"].get("widths", [])),
        }
    else:
        first, *rest = key.split(".")
        facts[first] = {name: value for name, value in facts[first].items() if name not in rest} if rest else None
    return str(sorted((name, str(value)) for name, value in facts.items()))


def _failed(scene: Scene, names: Iterable[str]) -> set[tuple[str, int]]:
    """Return the runs, pairs of recipe and seed, that did not reach the loss at which they were to stop."""
    failed: set[tuple[str, int]] = set()
    for table in (scene.tables["runs"], scene.tables["theory"]):
        if not table.empty:
            rows = table[table["recipe"].isin(list(names)) & is_false(table["converged"])]
            failed |= set(zip(rows["recipe"], rows["seed"], strict=True))
    return failed


def _failed_text(scene: Scene, names: Sequence[str]) -> list[str]:
    """Name the runs that did not converge, by recipe."""
    failed = sorted(_failed(scene, names))
    seeds = {name: [str(seed) for recipe, seed in failed if recipe == name] for name in names}
    return [f"did not converge: {name}, seed {', '.join(own)}" for name, own in seeds.items() if own]


def _without_failed(scene: Scene, values: Any, names: Sequence[str]) -> Any:
    """Leave out the rows, by recipe and seed, of runs that did not converge."""
    failed = _failed(scene, names)
    return values[[key not in failed for key in values.index]]


def _of_numbers(scene: Scene, values: pd.Series, where: str, names: Sequence[str]) -> Measurement:
    """Make a measurement of a number a network, by recipe and seed: recipes averaged within each seed."""
    values = _without_failed(scene, values, names)
    found = over_seeds(scene, values.groupby("seed").mean(), where, names)
    known = [*values.dropna().index, *_failed(scene, names)]
    lacking = [*_failed_text(scene, names), *missing_networks(scene, known, names, "such number")]
    numbers = values.to_numpy(dtype=float)
    return changed(found, extras={"least": _least(numbers), "greatest": _greatest(numbers)}, lacking=tuple(lacking))


def _over_settings(
    scene: Scene, names: Sequence[str], rows: pd.DataFrame, values: pd.Series, where: str, limit: float | None = None
) -> Measurement:
    """Make a measurement of the greatest of some rows' values, over settings.

    It says which recipes had no number or did not converge; with a `limit` in how many settings none is above it, and
    in which recipes one is.
    """
    known = values.dropna()
    worst = known.groupby(rows["recipe"]).max()
    n = _n_settings(scene, worst.index)
    if limit is not None:
        off = {str(name): value for name, value in worst.items() if value > limit}
        where += f" in {n - _n_settings(scene, off)} of {n} settings"
        where += f"; not in {_with_values(off)}" if off else ""
    unknown = (f"no reliable number: {name}" for name in names if name not in worst.index)
    return Measurement(
        *(float(worst.max()), float("nan"), float("nan"), n, where),
        recipes=tuple(names),
        seeds=_fewest_seeds(rows.loc[known.index], names),
        lacking=(*_failed_text(scene, names), *unknown),
    )


def _n_settings(scene: Scene, names: Iterable[str]) -> int:
    """Count the settings of the law that some recipes are in."""
    return len({tuple(scene.fact(scene.recipe(name), key) for key in OF_SETTINGS) for name in names})


def _fewest_seeds(rows: pd.DataFrame, names: Sequence[str]) -> int:
    """Return how many seeds that recipe has, of those named, that has rows of the fewest."""
    return int(rows.groupby("recipe")["seed"].nunique().reindex(list(names), fill_value=0).min())


def _require_noise(scene: Scene, some: bool) -> None:
    noise = scene.dataset.get("noise")
    if noise is None or (noise > 0) != some:
        raise Absent(f"{scene.dataset['name']} is no set of {'nearly' if some else 'exactly'} orthonormal rows")


def _of_orthonormal(dataset: Mapping[str, Any], quantity: str) -> float:
    """Return C or D of exactly orthonormal rows: K(n - 1)/(K - 1), and 1."""
    n_classes, n = dataset["classes"], dataset["samples_per_class"]
    return n_classes * (n - 1) / (n_classes - 1) if quantity == "compression" else 1.0


def _logs(values: pd.DataFrame) -> pd.DataFrame:
    return values.where(values > 0).apply(np.log)


def _fitted(row: pd.Series) -> tuple[float, float]:
    """Return slope and R² of the least-squares line of values over depth; NaN for fewer than three."""
    known = row.dropna()
    if len(known) < LEAST_LAYERS:
        return float("nan"), float("nan")
    fit = stats.linregress(known.index.to_numpy(dtype=float), known.to_numpy(dtype=float))
    return float(fit.slope), float(fit.rvalue**2)


def _spearman(x: np.ndarray, y: pd.Series) -> float:
    return float(spearman(x, y.to_numpy(dtype=float)))


def _least(values: np.ndarray) -> float:
    return float(np.nanmin(values)) if np.isfinite(values).any() else float("nan")


def _greatest(values: np.ndarray) -> float:
    return float(np.nanmax(values)) if np.isfinite(values).any() else float("nan")


def _with_values(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} ({value:.3g})" for name, value in values.items())
