"""What the statistics of all ledgers share: a scene to measure in, a measurement, and the reason why there is none.

A ledger's statistics are functions in a `Registry`. Each takes a `Scene`, a centring (empty for claims that are not
about P-vectors) and the arguments that the decision rules give it, and returns a `Measurement`; it raises `Absent`,
with the reason, where the study has nothing to measure. What the tables mean is the ledgers' own business:
`claim_statistics` for the P-vectors paper, `layer_statistics` for the layerwise one.
"""

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from featurespace.statistics import mean_interval

DATA = "data"  # the recipe under which the rows of a data set itself go
WITHOUT_NETWORK = ("noise", "features", "control-features")  # these have no run of their own
UNTRAINED_TASKS = ("untrained", *WITHOUT_NETWORK, DATA)


class Absent(Exception):
    """The study has nothing to measure a claim by; the message says what it lacks."""


@dataclass(frozen=True)
class Measurement:
    """A number, and what it takes to judge it.

    Attributes
    ----------
    measured, low, high
        The estimate and the ends of its confidence interval, NaN where it has none.
    n
        Seeds or settings or pairs that the interval is over.
    evidence
        The table, and how to find its rows.
    null
        What chance, or a control, gives.
    predicted
        What theory gives, computed from the same data; NaN where it gives nothing.
    recipes
        Those that the number is of, and that must count as trained.
    seeds
        The fewest seeds of any network in question; None where seeds do not matter.
    extras
        Further numbers that a threshold may name.
    beyond_chance
        Whether the entries of the raw P-vectors correlate beyond chance; None where it is not asked.
    permutes
        Whether it rests on the permutation null.
    lacking
        What else there is too little of to decide, in words, such as runs that did not converge.
    """

    measured: float
    low: float
    high: float
    n: int
    evidence: str
    null: float = float("nan")
    predicted: float = float("nan")
    recipes: tuple[str, ...] = ()
    seeds: int | None = None
    extras: Mapping[str, float] = field(default_factory=dict)
    beyond_chance: bool | None = None
    permutes: bool = False
    lacking: tuple[str, ...] = ()


Statistic = Callable[..., Measurement]


class Registry:
    """The statistics of one ledger by name, and the names that each adds for thresholds."""

    def __init__(self) -> None:
        self.statistics: dict[str, Statistic] = {}
        self.extras: dict[str, tuple[str, ...]] = {}

    def statistic(self, *extras: str) -> Callable[[Statistic], Statistic]:
        """Make a function known to the decision rules, with the names that it adds for thresholds."""

        def register(function: Statistic) -> Statistic:
            self.statistics[function.__name__] = function
            self.extras[function.__name__] = extras
            return function

        return register

    def arguments_of(self, name: str) -> tuple[set[str], set[str]]:
        """Return the arguments that a statistic must have, and those that it may have."""
        parameters = list(inspect.signature(self.statistics[name]).parameters.values())[2:]
        required = {parameter.name for parameter in parameters if parameter.default is parameter.empty}
        return required, {parameter.name for parameter in parameters}


@dataclass(frozen=True)
class Scene:
    """The tables of one data set, or of the whole study, and what the study says of it.

    Attributes
    ----------
    dataset
        name, kind, n_train, n_samples, classes; of a whole study the names of all its data sets, between bars.
    tables
        By the names of the ledger's inputs.
    recipes
        The study's own on this data set, without the members of sweeps.
    families, trained, settings, requirements
        As the decision rules have them.
    sweeps
        The members of sweeps on this data set.
    datasets
        All the study's data sets.
    ledger
        The lines so far; it grows.
    facts
        What else the study says.
    """

    dataset: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]
    recipes: Sequence[Mapping[str, Any]]
    families: Mapping[str, Mapping[str, Any]]
    trained: Sequence[Mapping[str, Any]]
    requirements: Mapping[str, float]
    sweeps: Sequence[Mapping[str, Any]] = ()
    datasets: Sequence[Mapping[str, Any]] = ()
    settings: Sequence[Mapping[str, Any]] = ()
    ledger: Sequence[Mapping[str, Any]] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    FILES: ClassVar[Mapping[str, str]] = {}  # where tables are that are not tables/<name>.csv

    @property
    def confidence(self) -> float:
        """The confidence of every interval."""
        return self.requirements["confidence"]

    # --- recipes ---

    def members(self, family: str) -> list[str]:
        """Return the recipes of a family, in the study's order; raise `Absent` if there is none."""
        rule = self.families[family]
        if DATA in rule["tasks"]:
            return [DATA]
        among = {"own": self.recipes, "sweeps": self.sweeps, "all": [*self.recipes, *self.sweeps]}
        names = [recipe["name"] for recipe in among[rule.get("among", "own")] if self._is_member(recipe, rule)]
        if not names:
            raise Absent(f"this study has no {family} on {self.dataset['name']}")
        return names

    def recipe(self, name: str) -> Mapping[str, Any]:
        """Return a recipe by name, a member of a sweep too."""
        return next(recipe for recipe in (*self.recipes, *self.sweeps) if recipe["name"] == name)

    def dataset_of(self, recipe: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the data set of a recipe: the scene's, unless that is the whole study."""
        return next((other for other in self.datasets if other["name"] == recipe.get("dataset")), self.dataset)

    def fact(self, recipe: Mapping[str, Any], key: str) -> Any:
        """Return what a study says of a recipe under a key with dots; None where it says nothing.

        `dataset.<key>` is said of its data set, and `n_layers` is how many of its layers are looked at.
        """
        if key == "n_layers":
            return len(recipe.get("layers", []))
        first, *rest = key.split(".")
        value: Any = self.dataset_of(recipe) if first == "dataset" else recipe.get(first)
        for part in rest:
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def matches(self, recipe: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
        """Say whether all that is asked of a recipe holds: keys with dots, a value or a list of allowed ones each."""
        return all(
            self.fact(recipe, key) in (wanted if isinstance(wanted, list) else [wanted])
            for key, wanted in where.items()
        )

    def _is_member(self, recipe: Mapping[str, Any], rule: Mapping[str, Any]) -> bool:
        if recipe["task"] not in rule["tasks"] or not self.matches(recipe, rule.get("where", {})):
            return False
        if "kinds" not in rule or recipe["kind"] in rule["kinds"]:
            return True
        return recipe["kind"] == "torchvision" and recipe["model"]["name"] in rule.get("torchvision", ())

    # --- tables ---

    def file(self, table: str) -> str:
        """Say where a table is."""
        return self.FILES.get(table, f"tables/{table}.csv")

    def rows(self, table: str, centring: str = "", **conditions: Any) -> pd.DataFrame:
        """Return the rows of a table with a centring and given values; raise `Absent` if there is none."""
        rows = self.tables[table]
        if centring and not rows.empty:
            rows = rows[rows["centring"] == centring]
        for column, wanted in conditions.items():
            if not rows.empty:
                rows = rows[rows[column].isin(wanted) if isinstance(wanted, list) else rows[column] == wanted]
        if rows.empty:
            wanted = "".join(f", {column} {listed(value)}" for column, value in conditions.items())
            raise Absent(f"{self.file(table)} has no rows for {self.dataset['name']}{wanted}")
        return rows

    def cite(self, table: str, centring: str = "", **conditions: Any) -> str:
        """Say in which table, and in which of its rows, a number is to be found."""
        found = {"dataset": self.dataset["name"], **({"centring": centring} if centring else {}), **conditions}
        return f"{self.file(table)}: " + ", ".join(f"{column}={listed(value)}" for column, value in found.items())

    # --- how trained, and in what setting ---

    @cached_property
    def margins(self) -> dict[str, tuple[float, str]]:
        """How far each trained recipe is above its level, as `margin_of` says."""
        recipes = [recipe for recipe in (*self.recipes, *self.sweeps) if recipe["task"] not in UNTRAINED_TASKS]
        return {recipe["name"]: self.margin_of(recipe["name"]) for recipe in recipes}

    def margin_of(self, recipe: str) -> tuple[float, str]:
        """Say by how much a recipe passes the level that makes it count as trained: negative, or NaN, if it does not.

        Returns the margin, and the comparison in words.
        """
        about = self.recipe(recipe)
        dataset = self.dataset_of(about)
        rule = next((rule for rule in self.trained if _fits(rule, about, dataset)), None)
        if rule is None:
            where = f"{dataset['n_train']:,} samples of {dataset['kind']}"
            return float("nan"), f"{recipe}: the decision rules set no level for {about['task']} on {where}"
        return self.margin_by(recipe, rule)

    def margin_by(self, recipe: str, rule: Mapping[str, Any]) -> tuple[float, str]:
        """Compare the mean over seeds of a number of the run table with its level."""
        quantity, runs = rule["quantity"], self.tables["runs"]
        mean = float("nan") if runs.empty else float(runs.loc[runs["recipe"] == recipe, quantity].mean())
        if "at_most" in rule:
            return rule["at_most"] - mean, f"{recipe}: {quantity} {mean:.3f}, at most {rule['at_most']} wanted"
        return mean - rule["at_least"], f"{recipe}: {quantity} {mean:.3f}, at least {rule['at_least']} wanted"

    def under_trained(self, recipes: Iterable[str]) -> list[str]:
        """Return, in words, what those of the recipes lack that do not count as trained."""
        lacking = []
        for name in dict.fromkeys(recipes):
            margin, text = self.margins.get(name, (0.0, ""))  # the data and the untrained have no level
            if not margin >= 0:
                lacking.append(text)
        return lacking

    def lacks(self, requires: str, found: Iterable[Measurement]) -> list[str]:
        """Return, in words, what there is too little of by the ledger's own kinds of requirement."""
        return []

    def setting(self, recipes: Iterable[str]) -> str:
        """Say whose setting the recipes are in: one of the paper's that the decision rules know, or ours."""
        about = [self.recipe(name) for name in dict.fromkeys(recipes) if name != DATA] or list(self.recipes)
        for setting in self.settings:
            if about and all(self.matches(recipe, setting["where"]) for recipe in about):
                return str(setting["name"])
        datasets = {dataset["name"]: dataset for dataset in map(self.dataset_of, about)} or {"": self.dataset}
        kinds = "|".join(dict.fromkeys(dataset["kind"] for dataset in datasets.values()))
        samples = {dataset["n_train"] for dataset in datasets.values()}
        text = f"ours: {kinds}, {span(samples, ',')} samples"
        if about:
            epochs, seeds = ({recipe[key] for recipe in about} for key in ("epochs", "n_seeds"))
            text += f", at most {span(epochs)} epochs, {span(seeds)} seeds"
        return text


@dataclass(frozen=True)
class Ledger:
    """What makes a ledger: its statistics, the scene that they are measured in, and what its rules may ask for.

    Attributes
    ----------
    registry
        Its statistics.
    scene
        The class of its scenes.
    tables
        The study's tables that it reads: its names for them, and those of the rule's inputs.
    requirements
        The keys that its rules' `requirements` must have.
    requires
        The kinds of things that a claim may require.
    """

    registry: Registry
    scene: type[Scene]
    tables: Mapping[str, str]
    requirements: frozenset[str]
    requires: tuple[str, ...]


def _fits(rule: Mapping[str, Any], recipe: Mapping[str, Any], dataset: Mapping[str, Any]) -> bool:
    return (
        rule["task"] == recipe["task"]
        and rule.get("dataset", dataset["kind"]) == dataset["kind"]
        and recipe["kind"] in rule.get("kinds", [recipe["kind"]])
        and dataset["n_train"] >= rule.get("min_samples", 0)
    )


# --- what statistics share --------------------------------------------------------------------------------------------


def listed(values: Any) -> str:
    """Write a list with bars, as evidence does."""
    return "|".join(map(str, values)) if isinstance(values, (list, tuple)) else str(values)


def span(values: set[int], form: str = "") -> str:
    """Write the least and the greatest of some numbers, or the one that there is."""
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low}-{high}"


def plain(value: float, evidence: str, n: int = 1) -> Measurement:
    """Make a measurement of a number without an interval."""
    return Measurement(float(value), float("nan"), float("nan"), n, evidence)


def changed(found: Measurement, **changes: Any) -> Measurement:
    """Return a measurement with some of its parts replaced."""
    return replace(found, **changes)


def at_end(rows: pd.DataFrame, at: str) -> pd.DataFrame:
    """Return the rows of the first or last step of every run."""
    step = rows.groupby(["recipe", "seed"])["step"].transform("min" if at == "first" else "max")
    return rows[rows["step"] == step]


def over_seeds(scene: Scene, values: pd.Series, evidence: str, recipes: Sequence[str]) -> Measurement:
    """Make a measurement of a number a seed."""
    found = mean_interval(values.to_numpy(dtype=float), scene.confidence)
    seeds = min([found.n, *(scene.recipe(name)["n_seeds"] for name in recipes if name != DATA)])
    return Measurement(
        found.estimate, found.low, found.high, found.n, evidence, recipes=tuple(dict.fromkeys(recipes)), seeds=seeds
    )


def missing_networks(scene: Scene, known: Iterable[Any], recipes: Iterable[str], what: str) -> tuple[str, ...]:
    """Say of which recipes how many networks are not among those `known`, pairs of recipe and seed."""
    counts = Counter(recipe for recipe, _ in set(known))
    wanted = {name: 1 if name == DATA else scene.recipe(name)["n_seeds"] for name in recipes}
    return tuple(f"{n - counts[name]} of {n} have no {what}: {name}" for name, n in wanted.items() if counts[name] < n)


def of_networks(scene: Scene, values: pd.Series, evidence: str, names: Sequence[str]) -> Measurement:
    """Make a measurement of a number a network, indexed by recipe and seed: recipes averaged within each seed."""
    lacking = missing_networks(scene, values.dropna().index, names, "such number")
    return changed(over_seeds(scene, values.groupby("seed").mean(), evidence, names), lacking=lacking)


def is_number(value: Any) -> bool:
    """Say whether a value is a number, and no truth value."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
