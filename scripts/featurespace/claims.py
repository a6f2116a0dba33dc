"""The evidence ledger: what a paper claims, what was measured, and the verdict that a table of decision rules gives.

The rules are in `decision_rules/<ledger>.yaml`, whose header says what its keys mean; they are checked strictly, since
a key that is misspelt would be a rule that is not there. `claim_statistics` and `layer_statistics` measure; here it is
decided.
"""

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import yaml

from featurespace import claim_statistics, layer_statistics
from featurespace.errors import FeaturespaceError
from featurespace.evidence import Absent, Ledger, Measurement, Scene, is_number, listed
from featurespace.rules import RULES

LEDGERS: dict[str, Ledger] = {"p-vectors": claim_statistics.LEDGER, "layerwise": layer_statistics.LEDGER}

REPRODUCED, BY_THE_MEAN, NOT_REPRODUCED = "reproduced", "explained by the mean", "not reproduced"
NOT_DETERMINED, NOT_RUN = "not determined", "not run"
TASKS = (
    *("classify", "shuffled-labels", "reconstruct", "denoise", "simclr", "supcon", "untrained", "saved", "noise"),
    "data",  # the data set itself
)
KINDS = (
    *("mlp", "linear", "hybrid", "cnn", "autoencoder"),
    *("resnet", "wide-resnet", "vgg", "densenet", "torchvision", "timm", "module", "noise"),
)
TITLES = {
    "digits": "digits",
    "orthonormal": "orthonormal rows",
    "mnist": "MNIST",
    "fashion-mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "newsgroups": "20 Newsgroups",
}
# What may be asked of a recipe, and of its data set.
FACTS = {
    *("kind", "loss", "output_scale", "head", "epochs", "n_layers"),
    *("model.depth", "model.width", "model.widths", "model.nonlinear", "model.linear", "model.batch_norm"),
    *("init.scheme", "init.scale", "head.layers"),
    *("dataset.kind", "dataset.classes", "dataset.n_train", "dataset.n_samples"),
    *("dataset.samples_per_class", "dataset.dimension", "dataset.noise"),
}

COLUMNS = [
    *("claim", "ledger", "row", "title", "source", "statistic", "dataset", "centring", "published", "predicted"),
    *("threshold", "measured", "low", "high", "null", "n", "passes", "convention", "verdict", "evidence", "setting"),
]

_SECTIONS = {"ledger", "title", "rows", "tags", "requirements", "families", "trained", "claims"}
_FAMILY_KEYS = {"tasks", "kinds", "torchvision", "among", "where"}
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
_TAG = re.compile(r"\[([A-Z?])\]")


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
    predicted: float = float("nan")
    arguments: Mapping[str, Any] = field(default_factory=dict)
    centrings: tuple[str, ...] = ("raw", "centred")
    only_for: tuple[str, ...] = ()
    scope: str = "dataset"
    requires: str = "seeds"
    min_seeds: int | None = None
    trained: bool = True
    closeness: bool = False
    every_centring: bool = False


@dataclass(frozen=True)
class Rules:
    """A table of decision rules, checked."""

    ledger: str
    requirements: Mapping[str, float]
    families: Mapping[str, Mapping[str, Any]]
    trained: Sequence[Mapping[str, Any]]
    claims: Sequence[Claim]
    rows: Mapping[str, str]
    tags: Mapping[str, str]
    settings: Sequence[Mapping[str, Any]] = ()


# --- reading the rules ------------------------------------------------------------------------------------------------


def parse_rules(text: str, name: str) -> Rules:
    """Read and check a table of decision rules.

    Raises
    ------
    FeaturespaceError
        With `name` and the place, for a key, statistic, family, argument, row, tag or threshold that is not known, a
        key given twice, or a claim that is there twice.
    """
    try:
        content = _read(text)
        _require_keys("the file", content, _SECTIONS, _SECTIONS | {"settings", "defaults"})
        _require_known("ledger", [content["ledger"]], tuple(LEDGERS))
        ledger = LEDGERS[content["ledger"]]
        _require_keys("requirements", content["requirements"], set(ledger.requirements))
        for key, value in content["requirements"].items():
            _require(is_number(value), f"requirements.{key}: should be a number, not {value!r}")
        for key in ("rows", "tags"):
            _require(isinstance(content[key], dict), f"{key}: should have keys, and what each means")
        for family, rule in content["families"].items():
            _check_family(f"families.{family}", rule)
        content["trained"] = _levels(content["trained"])
        for i, rule in enumerate(content["trained"]):
            _check_level(f"trained.{i}", rule)
        for i, setting in enumerate(content.get("settings", [])):
            _require_keys(f"settings.{i}", setting, {"name", "where"})
            _check_where(f"settings.{i}.where", setting["where"])
        _require_keys("defaults", content.get("defaults", {}), set(), set(Claim.__dataclass_fields__))
        claims = [claim for entry in content["claims"] for claim in _expand(entry, content)]
        for i, claim in enumerate(claims):
            _require(claim.claim not in {c.claim for c in claims[:i]}, f"claims: {claim.claim} is there twice")
    except yaml.YAMLError as error:
        raise FeaturespaceError(f"{name}: {' '.join(str(error).split())}") from error
    except _Unsound as error:
        raise FeaturespaceError(f"{name}: {error}") from error
    sections = {key: content[key] for key in ("ledger", "requirements", "families", "trained", "rows", "tags")}
    return Rules(**sections, claims=claims, settings=content.get("settings", []))


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
    allowed = needed if allowed is None else allowed
    missing, unknown = sorted(needed - set(section)), sorted(set(section) - allowed)
    _require(not missing, f"{where}: {', '.join(missing)} missing")
    known = ", ".join(sorted(allowed))
    _require(not unknown, f"{where}: {', '.join(unknown)} unknown (there are: {known})")


def _require_known(where: str, values: Sequence[str], known: Sequence[str]) -> None:
    _require(isinstance(values, list), f"{where}: should be a list")
    for value in values:
        _require(value in known, f"{where}: {value!r} unknown (there are: {', '.join(known)})")


def _read(text: str) -> Any:
    return yaml.load(text, _OneOfEachKey)


def _levels(entries: Any) -> list[Any]:
    """Put the levels of a file in the place of its name."""
    _require(isinstance(entries, list), "trained: should be a list of levels, and of files with such lists")
    levels: list[Any] = []
    for entry in entries:
        _require(
            not isinstance(entry, str) or (RULES / entry).is_file(), f"trained: no file {entry!r} beside the rules"
        )
        levels += _read((RULES / entry).read_text(encoding="utf-8")) if isinstance(entry, str) else [entry]
    return levels


def _check_family(where: str, rule: Any) -> None:
    _require_keys(where, rule, {"tasks"}, _FAMILY_KEYS)
    _require_known(f"{where}.tasks", rule["tasks"], TASKS)
    _require_known(f"{where}.kinds", rule.get("kinds", []), KINDS)
    _require_known(f"{where}.among", [rule.get("among", "own")], ("own", "sweeps", "all"))
    _check_where(f"{where}.where", rule.get("where", {}))


def _check_where(where: str, conditions: Any) -> None:
    _require_keys(where, conditions, set(), FACTS)


def _check_level(where: str, rule: Any) -> None:
    _require_keys(where, rule, {"task", "quantity"}, _TRAINED_KEYS)
    _require_known(f"{where}.task", [rule["task"]], TASKS)
    _require_known(f"{where}.kinds", rule.get("kinds", []), KINDS)
    _require_known(f"{where}.quantity", [rule["quantity"]], tuple(_QUANTITIES))
    if "dataset" in rule:
        _require_known(f"{where}.dataset", [rule["dataset"]], tuple(TITLES))
    given, wanted = {"at_least", "at_most", "above"} & set(rule), _QUANTITIES[rule["quantity"]]
    _require(given == {wanted}, f"{where}: {rule['quantity']} takes a level `{wanted}`, and no other")
    _require(is_number(rule[wanted]), f"{where}.{wanted}: should be a number")


def _expand(entry: Any, content: Mapping[str, Any]) -> list[Claim]:
    """Make the claims of one entry: one, or one for every item of its `each`."""
    _require(isinstance(entry, dict) and "claim" in entry, "claims: an entry has no `claim`")
    where = f"claims.{entry['claim']}"
    fields = set(Claim.__dataclass_fields__)
    _require_keys(where, entry, {"claim", "row", "title", "statistic"}, fields | {"each"})
    registry = LEDGERS[content["ledger"]].registry
    claims = []
    for item in entry.get("each", [{}]):
        given = content.get("defaults", {}) | {key: value for key, value in entry.items() if key != "each"}
        given |= {key: value for key, value in item.items() if key in fields}
        _require(given["statistic"] in registry.statistics, f"{where}: statistic {given['statistic']!r} is not one")
        needed, known = registry.arguments_of(given["statistic"])
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
        claims.append(_claim(name, given, content))
    return claims


def _claim(name: str, given: Mapping[str, Any], content: Mapping[str, Any]) -> Claim:
    where = f"claims.{name}"
    ledger, families, requirements = LEDGERS[content["ledger"]], content["families"], content["requirements"]
    for key in ("source", "published", "passes"):
        _require(key in given, f"{where}: {key} missing")
    _require(re.fullmatch(r"[a-z0-9_-]+", name) is not None, f"{where}: only a-z, 0-9, - and _ are allowed in a name")
    rows, tags = list(content["rows"]), dict.fromkeys(_TAG.findall(given["source"]))
    _require(given["row"] in rows, f"{where}.row: {given['row']!r} is not one of {', '.join(rows)}")
    known_tags = ", ".join(f"[{tag}]" for tag in content["tags"])
    _require(bool(tags), f"{where}.source: no tag (there are: {known_tags})")
    for tag in tags:
        _require(tag in content["tags"], f"{where}.source: tag [{tag}] unknown (there are: {known_tags})")
    _require_known(f"{where}.centrings", given.get("centrings", []), ("raw", "centred"))
    _require_known(f"{where}.only_for", given.get("only_for", []), tuple(TITLES))
    _require_known(f"{where}.scope", [given.get("scope", "dataset")], ("dataset", "study"))
    _require(
        not (given.get("only_for") and given.get("scope") == "study"),
        f"{where}.only_for: a claim about the whole study is about all its data sets",
    )
    _require_known(f"{where}.requires", [given.get("requires", "seeds")], ledger.requires)
    for key in ("trained", "closeness", "every_centring"):
        _require(isinstance(given.get(key, True), bool), f"{where}.{key}: should be true or false")
    _require(is_number(given.get("min_seeds", 1)), f"{where}.min_seeds: should be a number")
    _require(is_number(given.get("predicted", 1)), f"{where}.predicted: should be a number")
    known = _NAMES | set(ledger.registry.extras[given["statistic"]])
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
    """Measure every claim and give its verdict: one ledger's lines of `claims.csv`.

    Parameters
    ----------
    rules
        From `parse_rules`.
    tables
        The study's tables, by the names that the ledger has for them; a table may be empty, or missing.
    spec
        `datasets` (each with name, kind, n_train, n_samples, classes, and what else is known of it) and `recipes` (each
        with name, dataset, task, kind, model, epochs, n_seeds, population, and likewise); `references` and
        `permutations` for the P-vectors' ledger.

    Returns
    -------
    DataFrame
        `COLUMNS`. A line a claim, data set and centring, or a claim if it is about the whole study; a claim's lines on
        one data set share verdict and convention. A claim that no data set of the study can answer has a single line,
        `not run`, with the reason as evidence.
    """
    ledger = LEDGERS[rules.ledger]
    tables = {name: tables.get(name, pd.DataFrame()) for name in ledger.tables}
    lines: list[dict[str, Any]] = []
    scenes = {
        "dataset": [_scene(rules, tables, spec, dataset, lines) for dataset in spec["datasets"]],
        "study": [_scene(rules, tables, spec, None, lines)],
    }
    for claim in rules.claims:
        own, reasons = [], []
        for scene in scenes[claim.scope]:
            if claim.only_for and scene.dataset["kind"] not in claim.only_for:
                reasons.append(f"needs {' or '.join(TITLES[kind] for kind in claim.only_for)}")
                continue
            try:
                own += _lines_of(rules, claim, scene)
            except Absent as reason:
                reasons.append(str(reason))
        lines += own or [_line(rules, claim, verdict=NOT_RUN, evidence="; ".join(dict.fromkeys(reasons)))]
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
    dataset: Mapping[str, Any] | None,
    lines: list[dict[str, Any]],
) -> Scene:
    """Make the scene of one data set, or of the whole study."""
    datasets = spec["datasets"]
    recipes = [recipe for recipe in spec["recipes"] if dataset is None or recipe["dataset"] == dataset["name"]]
    if dataset is None:
        dataset = {"name": listed([other["name"] for other in datasets]), "kind": ""}
    else:
        tables = {
            name: table if table.empty else table[table["dataset"] == dataset["name"]].reset_index(drop=True)
            for name, table in tables.items()
        }
    return LEDGERS[rules.ledger].scene(
        dataset=dataset,
        tables=tables,
        recipes=[recipe for recipe in recipes if not recipe["population"]],
        families=rules.families,
        trained=rules.trained,
        requirements=rules.requirements,
        sweeps=[recipe for recipe in recipes if recipe["population"]],
        datasets=datasets,
        settings=rules.settings,
        ledger=lines,
        facts=spec,
    )


def _lines_of(rules: Rules, claim: Claim, scene: Scene) -> list[dict[str, Any]]:
    """Return a claim's lines on one data set, one a centring; raise `Absent` if there is nothing to measure."""
    measure = LEDGERS[rules.ledger].registry.statistics[claim.statistic]
    found = {centring: measure(scene, centring, **claim.arguments) for centring in claim.centrings or ("",)}
    lacking = _lacking(claim, scene, found)
    verdict, convention = (NOT_DETERMINED, "") if lacking else decide(claim, found)
    setting = scene.setting(recipe for measurement in found.values() for recipe in measurement.recipes)
    return [
        _line(
            rules,
            claim,
            dataset=scene.dataset["name"],
            centring=centring,
            predicted=claim.predicted if np.isnan(measurement.predicted) else measurement.predicted,
            measured=measurement.measured,
            low=measurement.low,
            high=measurement.high,
            null=measurement.null,
            n=measurement.n,
            passes=passes(claim, measurement),
            convention=convention,
            verdict=verdict,
            evidence="; ".join([*lacking, measurement.evidence]),
            setting=setting,
        )
        for centring, measurement in found.items()
    ]


def _lacking(claim: Claim, scene: Scene, found: Mapping[str, Measurement]) -> list[str]:
    """Return, in words, what there is too little of to decide a claim: seeds, settings, training, permutations."""
    lacking = []
    seeds = [measurement.seeds for measurement in found.values() if measurement.seeds is not None]
    wanted = scene.requirements["seeds"] if claim.min_seeds is None else claim.min_seeds
    if claim.requires == "seeds" and seeds and min(seeds) < wanted:
        lacking.append(f"too few seeds: {min(seeds)}, of {wanted:g} wanted")
    lacking += scene.lacks(claim.requires, found.values())
    if claim.trained:
        recipes = [recipe for measurement in found.values() for recipe in measurement.recipes]
        lacking += [f"under-trained: {text}" for text in scene.under_trained(recipes)]
    for centring, measurement in found.items():
        lacking += [f"{text}{f' ({centring})' if centring else ''}" for text in measurement.lacking]
        if np.isnan(measurement.measured):
            lacking.append(f"no number{f' ({centring})' if centring else ''}: what it rests on is missing")
    return lacking


def _line(rules: Rules, claim: Claim, **values: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("measured", "low", "high", "null"), float("nan"))
    return {
        "claim": claim.claim,
        "ledger": rules.ledger,
        "row": claim.row,
        "title": claim.title,
        "source": claim.source,
        "statistic": claim.statistic,
        "dataset": "",
        "centring": "",
        "published": claim.published,
        "predicted": claim.predicted,
        "threshold": " and ".join(claim.passes),
        **nothing,
        "n": None,
        "passes": None,
        "convention": "",
        "setting": "",
        **values,
    }
