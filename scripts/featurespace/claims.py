"""The evidence ledger: what a paper claims, what was measured, and the verdict that a table of decision rules gives.

The rules are in `decision_rules/<ledger>.yaml`, whose header says what its keys mean; they are checked strictly, since
a key that is misspelt would be a rule that is not there. `claim_statistics` measures; here it is decided.
"""

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from featurespace.claim_statistics import (
    EXTRAS,
    STATISTICS,
    Absent,
    Measurement,
    Scene,
    arguments_of,
    under_trained,
)
from featurespace.errors import FeaturespaceError

RULES = Path(__file__).parent / "decision_rules"

REPRODUCED, BY_THE_MEAN, NOT_REPRODUCED = "reproduced", "explained by the mean", "not reproduced"
NOT_DETERMINED, NOT_RUN = "not determined", "not run"
ROWS = tuple([f"P{i}" for i in range(11)] + [f"C{i}" for i in range(1, 9)])
TASKS = (
    *("classify", "shuffled-labels", "reconstruct", "denoise", "simclr", "supcon", "untrained", "noise"),
    "data",  # the data set's own P-vector
)
KINDS = (*("mlp", "linear", "cnn", "autoencoder", "resnet", "wide-resnet", "vgg", "densenet", "torchvision", "noise"),)
TITLES = {
    "digits": "digits",
    "orthonormal": "orthonormal rows",
    "mnist": "MNIST",
    "fashion-mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
}
PAPER_SAMPLES, PAPER_EPOCHS, PAPER_SEEDS = {"mnist": 60_000, "cifar10": 50_000, "cifar100": 50_000}, 200, 5

COLUMNS = [
    *("claim", "row", "title", "source", "statistic", "dataset", "centring", "published", "threshold"),
    *("measured", "low", "high", "null", "n", "passes", "convention", "verdict", "evidence", "setting"),
]

REQUIREMENTS = {
    *("seeds", "confidence", "permutations", "correlation_p"),
    *("settings", "families", "accuracy_spread", "family_error"),
}
_FAMILY_KEYS = {"tasks", "kinds", "torchvision"}
_TRAINED_KEYS = {"dataset", "task", "kinds", "min_samples", "quantity", "at_least", "at_most", "above"}
_QUANTITIES = {
    "test_accuracy": "at_least",
    "train_accuracy": "at_least",
    "relative_loss": "at_most",
    "probe_gain": "above",
}
_NAMES = {"measured", "low", "high", "null"}
_CONDITION = re.compile(r"(\w+) (<=|>=|<|>) (\w+|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)", re.ASCII)
_FAMILY_ARGUMENTS = ("family", "a", "b", "minus_a", "minus_b", "other", "against", "reference")


@dataclass(frozen=True)
class Claim:
    """One claim and its decision rule; the keys are explained in the header of the rules."""

    claim: str
    row: str
    title: str
    source: str
    statistic: str
    passes: tuple[str, ...]
    published: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    centrings: tuple[str, ...] = ("raw", "centred")
    only_for: tuple[str, ...] = ()
    requires: str = "seeds"
    trained: bool = True
    closeness: bool = False
    every_centring: bool = False


@dataclass(frozen=True)
class Rules:
    """A table of decision rules, checked."""

    requirements: Mapping[str, float]
    families: Mapping[str, Mapping[str, Sequence[str]]]
    trained: Sequence[Mapping[str, Any]]
    claims: Sequence[Claim]


# --- reading the rules ------------------------------------------------------------------------------------------------


def parse_rules(text: str, name: str) -> Rules:
    """Read and check a table of decision rules.

    Raises
    ------
    FeaturespaceError
        With `name` and the place, for a key, statistic, family, argument or threshold that is not known, a key
        given twice, or a claim that is there twice.
    """
    try:
        content = yaml.load(text, _OneOfEachKey)
    except yaml.YAMLError as error:
        raise FeaturespaceError(f"{name}: {' '.join(str(error).split())}") from error
    try:
        _require_keys("the file", content, {"requirements", "families", "trained", "claims"})
        _require_keys("requirements", content["requirements"], REQUIREMENTS)
        for key, value in content["requirements"].items():
            _require(_is_number(value), f"requirements.{key}: should be a number, not {value!r}")
        for family, rule in content["families"].items():
            _require_keys(f"families.{family}", rule, {"tasks"}, _FAMILY_KEYS)
            _require_known(f"families.{family}.tasks", rule["tasks"], TASKS)
            _require_known(f"families.{family}.kinds", rule.get("kinds", []), KINDS)
        for i, rule in enumerate(content["trained"]):
            _check_level(f"trained.{i}", rule)
        claims = [
            claim
            for entry in content["claims"]
            for claim in _expand(entry, content["families"], content["requirements"])
        ]
        for i, claim in enumerate(claims):
            _require(claim.claim not in {c.claim for c in claims[:i]}, f"claims: {claim.claim} is there twice")
    except _Unsound as error:
        raise FeaturespaceError(f"{name}: {error}") from error
    return Rules(content["requirements"], content["families"], content["trained"], claims)


class _Unsound(Exception):
    """What is wrong with the rules, and where."""


class _OneOfEachKey(yaml.SafeLoader):
    """Refuses a key that is given twice: YAML would take the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise _Unsound(problem)


def _require_keys(where: str, section: Any, needed: set[str], allowed: set[str] | None = None) -> None:
    _require(isinstance(section, dict), f"{where}: should have keys")
    missing, unknown = sorted(needed - set(section)), sorted(set(section) - (allowed or needed))
    _require(not missing, f"{where}: {', '.join(missing)} missing")
    known = ", ".join(sorted(allowed or needed))
    _require(not unknown, f"{where}: {', '.join(unknown)} unknown (there are: {known})")


def _require_known(where: str, values: Sequence[str], known: Sequence[str]) -> None:
    _require(isinstance(values, list), f"{where}: should be a list")
    for value in values:
        _require(value in known, f"{where}: {value!r} unknown (there are: {', '.join(known)})")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_level(where: str, rule: Any) -> None:
    _require_keys(where, rule, {"task", "quantity"}, _TRAINED_KEYS)
    _require_known(f"{where}.task", [rule["task"]], TASKS)
    _require_known(f"{where}.kinds", rule.get("kinds", []), KINDS)
    _require_known(f"{where}.quantity", [rule["quantity"]], tuple(_QUANTITIES))
    if "dataset" in rule:
        _require_known(f"{where}.dataset", [rule["dataset"]], tuple(TITLES))
    given, wanted = {"at_least", "at_most", "above"} & set(rule), _QUANTITIES[rule["quantity"]]
    _require(given == {wanted}, f"{where}: {rule['quantity']} takes a level `{wanted}`, and no other")
    _require(_is_number(rule[wanted]), f"{where}.{wanted}: should be a number")


def _expand(entry: Any, families: Mapping[str, Any], requirements: Mapping[str, float]) -> list[Claim]:
    """Make the claims of one entry: one, or one for every item of its `each`."""
    _require(isinstance(entry, dict) and "claim" in entry, "claims: an entry has no `claim`")
    where = f"claims.{entry['claim']}"
    fields = set(Claim.__dataclass_fields__)
    _require_keys(where, entry, {"claim", "row", "title", "statistic"}, fields | {"each"})
    claims = []
    for item in entry.get("each", [{}]):
        given = {key: value for key, value in entry.items() if key != "each"}
        given |= {key: value for key, value in item.items() if key in fields}
        _require(given["statistic"] in STATISTICS, f"{where}: statistic {given['statistic']!r} is not one")
        needed, known = arguments_of(given["statistic"])
        filling = {key: value for key, value in item.items() if key not in fields}
        arguments = dict(given.get("arguments", {})) | {k: v for k, v in filling.items() if k in known}
        words = {"published": given.get("published"), **given.get("arguments", {}), **filling}
        used = {
            name
            for key in ("claim", "title")
            for _, name, _, _ in string.Formatter().parse(given[key])
            if name is not None
        }
        _require(used <= set(words), f"{where}: nothing fills in {', '.join(sorted(used - set(words)))}")
        idle = set(filling) - known - used
        _require(not idle, f"{where}: {', '.join(sorted(idle))} is neither a key, nor an argument, nor filled in")
        name = given["claim"].format(**words)
        _require_keys(f"claims.{name}.arguments", arguments, needed, known or {""})
        given |= {"arguments": arguments, "title": given["title"].format(**words)}
        claims.append(_claim(name, given, families, requirements))
    return claims


def _claim(
    name: str, given: Mapping[str, Any], families: Mapping[str, Any], requirements: Mapping[str, float]
) -> Claim:
    where = f"claims.{name}"
    for key in ("source", "published", "passes"):
        _require(key in given, f"{where}: {key} missing")
    _require(re.fullmatch(r"[a-z0-9_-]+", name) is not None, f"{where}: only a-z, 0-9, - and _ are allowed in a name")
    _require(given["row"] in ROWS, f"{where}.row: {given['row']!r} is not one of {ROWS[0]} to {ROWS[-1]}")
    _require(re.search(r"\[[PRIC]\]", given["source"]) is not None, f"{where}.source: no tag [P], [R], [I] or [C]")
    _require_known(f"{where}.centrings", given.get("centrings", []), ("raw", "centred"))
    _require_known(f"{where}.only_for", given.get("only_for", []), tuple(TITLES))
    _require_known(f"{where}.requires", [given.get("requires", "seeds")], ("seeds", "population", "nothing"))
    for key in ("trained", "closeness", "every_centring"):
        _require(isinstance(given.get(key, True), bool), f"{where}.{key}: should be true or false")
    known = _NAMES | set(EXTRAS[given["statistic"]])
    _require(bool(given["passes"]) and isinstance(given["passes"], list), f"{where}.passes: should be a list")
    for condition in given["passes"]:
        match = _CONDITION.fullmatch(str(condition))
        _require(match is not None, f"{where}.passes: {condition!r} is not `name <= number`")
        assert match is not None
        for word in (match[1], match[3]):
            _require(
                word in known or (word is not match[1] and (word in requirements or _as_number(word) is not None)),
                f"{where}.passes: {word!r} unknown (there are: {', '.join(sorted(known))}, and requirements as limits)",
            )
    for key in _FAMILY_ARGUMENTS:
        family = given["arguments"].get(key)
        allowed = [*families, "references"] if key == "reference" else list(families)
        _require(
            family is None or family in allowed, f"{where}: no family {family!r} (there are: {', '.join(allowed)})"
        )
    keys = {key: given[key] for key in Claim.__dataclass_fields__ if key in given}
    keys["claim"] = name
    keys["published"] = "" if given["published"] is None else str(given["published"])
    keys["passes"] = [_with_numbers(condition, requirements) for condition in given["passes"]]
    for key in ("passes", "centrings", "only_for"):
        if key in keys:
            keys[key] = tuple(keys[key])
    return Claim(**keys)


def _with_numbers(condition: str, requirements: Mapping[str, float]) -> str:
    """Put the number in the place of a requirement that is named as a limit."""
    name, relation, limit = condition.split(" ")
    return f"{name} {relation} {requirements.get(limit, limit)}"


def _as_number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


# --- deciding ---------------------------------------------------------------------------------------------------------


def make_ledger(rules: Rules, tables: Mapping[str, pd.DataFrame], spec: Mapping[str, Any]) -> pd.DataFrame:
    """Measure every claim and give its verdict: `claims.csv`.

    Parameters
    ----------
    rules
        From `parse_rules`.
    tables
        The study's tables: dynamics, pairs, runs, probes, spectra, subspaces, summary (of entries), entries,
        similarity, sensitivity, population, correlations, indicators; a table may be empty.
    spec
        `references`, `permutations`, `datasets` (each with name, kind, n_train, n_samples, classes) and `recipes` (each
        with name, dataset, task, kind, model, epochs, n_seeds, population).

    Returns
    -------
    DataFrame
        `COLUMNS`. A line a claim, data set and centring; a claim's lines on one data set share verdict and
        convention. A claim that no data set of the study can answer has a single line, `not run`, with the reason as
        evidence.
    """
    lines: list[dict[str, Any]] = []
    scenes = [_scene(rules, tables, spec, dataset, lines) for dataset in spec["datasets"]]
    for claim in rules.claims:
        own, reasons = [], []
        for scene in scenes:
            if claim.only_for and scene.dataset["kind"] not in claim.only_for:
                reasons.append(f"needs {' or '.join(TITLES[kind] for kind in claim.only_for)}")
                continue
            try:
                own += _lines_of(claim, scene, rules.requirements)
            except Absent as reason:
                reasons.append(str(reason))
        lines += own or [_line(claim, verdict=NOT_RUN, evidence="; ".join(dict.fromkeys(reasons)))]
    table = pd.DataFrame(lines, columns=COLUMNS)
    return table.astype({"n": "Int64", "passes": "object"})


def decide(claim: Claim, found: Mapping[str, Measurement]) -> tuple[str, str]:
    """Return verdict and convention from the measurements by centring, where there is enough of everything.

    A claim of closeness that only the raw vectors pass, or whose raw entries do not correlate beyond chance, is
    explained by the mean; that the centred vectors alone pass it is a convention of its own. An exact statement, and a
    control that guards a threshold, holds in every centring or not at all.
    """
    passing = [centring for centring, measurement in found.items() if passes(claim, measurement)]
    if "" in found:
        return (REPRODUCED if passing else NOT_REPRODUCED), ""
    if not passing:
        return NOT_REPRODUCED, "neither"
    convention = "both" if len(passing) == 2 else f"{passing[0]} only"
    if claim.requires == "nothing" or claim.every_centring:
        return (REPRODUCED if len(passing) == len(found) else NOT_REPRODUCED), convention
    centred_fails = "centred" in found and "centred" not in passing
    chance = "raw" in passing and found["raw"].beyond_chance is False
    if claim.closeness and (centred_fails or chance):
        return BY_THE_MEAN, convention
    return REPRODUCED, convention


def passes(claim: Claim, measurement: Measurement) -> bool:
    """Say whether a measurement meets all of a claim's thresholds; a number that is missing meets none."""
    numbers = {name: getattr(measurement, name) for name in _NAMES} | dict(measurement.extras)
    for condition in claim.passes:
        name, relation, limit = condition.split(" ")
        left = numbers[name]
        right = numbers[limit] if limit in numbers else float(limit)
        holds = {"<=": left <= right, ">=": left >= right, "<": left < right, ">": left > right}[relation]
        if not holds:  # any comparison with NaN is false
            return False
    return True


def _scene(
    rules: Rules,
    tables: Mapping[str, pd.DataFrame],
    spec: Mapping[str, Any],
    dataset: Mapping[str, Any],
    lines: list[dict[str, Any]],
) -> Scene:
    own = {
        name: table if table.empty else table[table["dataset"] == dataset["name"]].reset_index(drop=True)
        for name, table in tables.items()
    }
    recipes = [r for r in spec["recipes"] if r["dataset"] == dataset["name"] and not r["population"]]
    return Scene(
        dataset=dataset,
        tables=own,
        recipes=recipes,
        references=spec["references"],
        families=rules.families,
        trained=rules.trained,
        confidence=rules.requirements["confidence"],
        correlation_p=rules.requirements["correlation_p"],
        permutations=spec["permutations"],
        kinds=[other["kind"] for other in spec["datasets"]],
        ledger=lines,
    )


def _lines_of(claim: Claim, scene: Scene, requirements: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return a claim's lines on one data set, one a centring; raise `Absent` if there is nothing to measure."""
    measure = STATISTICS[claim.statistic]
    found = {centring: measure(scene, centring, **claim.arguments) for centring in claim.centrings or ("",)}
    lacking = _lacking(claim, scene, found, requirements)
    verdict, convention = (NOT_DETERMINED, "") if lacking else decide(claim, found)
    return [
        _line(
            claim,
            dataset=scene.dataset["name"],
            centring=centring,
            measured=measurement.measured,
            low=measurement.low,
            high=measurement.high,
            null=measurement.null,
            n=measurement.n,
            passes=passes(claim, measurement),
            convention=convention,
            verdict=verdict,
            evidence="; ".join([*lacking, measurement.evidence]),
            setting=_setting(scene),
        )
        for centring, measurement in found.items()
    ]


def _lacking(
    claim: Claim, scene: Scene, found: Mapping[str, Measurement], requirements: Mapping[str, float]
) -> list[str]:
    """Return, in words, what there is too little of to decide a claim: seeds, settings, training, permutations."""
    lacking = []
    seeds = [measurement.seeds for measurement in found.values() if measurement.seeds is not None]
    if claim.requires == "seeds" and seeds and min(seeds) < requirements["seeds"]:
        lacking.append(f"too few seeds: {min(seeds)}, of {requirements['seeds']:g} wanted")
    if claim.requires == "population":
        lacking += _population_lacks(scene, requirements)
    if any(m.permutes for m in found.values()) and scene.permutations < requirements["permutations"]:
        lacking.append(f"too few permutations: {scene.permutations}, of {requirements['permutations']:g} wanted")
    if claim.trained:
        recipes = [recipe for measurement in found.values() for recipe in measurement.recipes]
        lacking += [f"under-trained: {text}" for text in under_trained(scene, recipes)]
    for centring, measurement in found.items():
        lacking += [f"{text}{f' ({centring})' if centring else ''}" for text in measurement.lacking]
        if np.isnan(measurement.measured):
            lacking.append(f"no number{f' ({centring})' if centring else ''}: what it rests on is missing")
    return lacking


def _population_lacks(scene: Scene, requirements: Mapping[str, float]) -> list[str]:
    population = scene.tables["population"]
    settings = population.dropna(subset=["angle_to_data_deg", "test_accuracy"]).drop_duplicates("recipe")
    accuracy = settings["test_accuracy"]
    spread = float(accuracy.max() - accuracy.min()) if len(settings) else 0.0
    counts = [
        ("settings", len(settings), requirements["settings"]),
        ("architecture families", settings["kind"].nunique(), requirements["families"]),
        ("seeds a setting", settings["n_seeds"].min() if len(settings) else 0, requirements["seeds"]),
    ]
    lacking = [f"too few {what}: {count}, of {wanted:g} wanted" for what, count, wanted in counts if count < wanted]
    if spread < requirements["accuracy_spread"]:
        lacking.append(f"accuracies spread over {spread:.3f} only, of {requirements['accuracy_spread']:g} wanted")
    return lacking


def _setting(scene: Scene) -> str:
    """Say whose setting it is: the paper's data set, epochs and seeds, or ours."""
    networks = [recipe for recipe in scene.recipes if recipe["epochs"]]
    epochs, seeds = ({recipe[key] for recipe in networks} or {0} for key in ("epochs", "n_seeds"))
    kind, n_train = scene.dataset["kind"], scene.dataset["n_train"]
    if n_train >= PAPER_SAMPLES.get(kind, np.inf) and min(epochs) >= PAPER_EPOCHS and min(seeds) >= PAPER_SEEDS:
        return "the paper's data set, epochs and seeds; the rest ours"
    return f"ours: {kind}, {n_train:,} samples, {_span(epochs)} epochs, {_span(seeds)} seeds"


def _span(values: set[int]) -> str:
    return str(min(values)) if len(values) == 1 else f"{min(values)}-{max(values)}"


def _line(claim: Claim, **values: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("measured", "low", "high", "null"), float("nan"))
    return {
        "claim": claim.claim,
        "row": claim.row,
        "title": claim.title,
        "source": claim.source,
        "statistic": claim.statistic,
        "dataset": "",
        "centring": "",
        "published": claim.published,
        "threshold": " and ".join(claim.passes),
        **nothing,
        "n": None,
        "passes": None,
        "convention": "",
        "setting": "",
        **values,
    }
