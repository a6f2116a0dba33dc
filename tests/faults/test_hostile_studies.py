"""Hundreds of broken studies, made from the schema: each ends in one line that names the key, before any job."""

import atexit
import copy
import datetime
import math
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from harness import TINY, Workflow

from featurespace.config import Study, check_sources, parse_study
from featurespace.errors import FeaturespaceError
from featurespace.own_sources import OwnSources
from featurespace.plan import Plan

# What is of one's own: the smallest sources that there can be, wherever the tests run.
OWN = Path(tempfile.mkdtemp(prefix="featurespace-own-"))
atexit.register(shutil.rmtree, OWN)
for own_class in ("photos/a", "photos/b"):
    (OWN / own_class).mkdir(parents=True)
    (OWN / own_class / "1.pgm").write_bytes(b"P5 8 8 255 " + bytes(64))
np.savez(OWN / "table.npz", x=np.eye(6, 4), y=[0, 1] * 3)
np.savez(OWN / "features.npz", x=np.eye(6, 4))
(OWN / "mine_of_strangers.py").write_text("def load(): ...\n")

BASE: dict[str, Any] = TINY | {
    "datasets": TINY["datasets"]
    | {
        "fashion": {"kind": "fashion-mnist"},
        "photos": {"kind": "images", "folder": str(OWN / "photos"), "side": 8},
        "table": {"kind": "arrays", "file": str(OWN / "table.npz")},
        "made": {
            "kind": "function",
            "function": "mine_of_strangers:load",
            "files": [str(OWN / "table.npz")],
            "classes": 2,
            "shape": [4],
            "train": 6,
        },
    },
    "features": {"elsewhere": {"dataset": "table", "source": str(OWN / "features.npz"), "layers": ["x"]}},
}
# What the optional sections need before one of their keys can be the only one that is wrong.
SECTIONS = {"schedule": {"epochs": 1}, "head": {"layers": 1}, "augmentation": {}, "contrast": {}}
SCHEMA = Study.model_json_schema()

# Where a study names files or folders of one's own.
OWN_PLACES = [
    *(("datasets", "photos", "folder"), ("datasets", "table", "file"), ("features", "elsewhere", "source")),
]
HOSTILE_NAMES = [
    *("../../elsewhere", "..", ".", "/tmp/elsewhere", "a/b", "a\\b", "~", "~root", "-rf", ".hidden", "trailing."),
    *("$(touch pwned)", "`touch pwned`", "; touch pwned", "a|b", "a&b", "a>b", "*", "'", '"', "!x", "#x", "%s"),
    *(
        "",
        " ",
        "a b",
        "a\tb",
        "a\nb",
        "a\x00b",
        "\x1b[2Jb",
        "\u202eabc",
        "naïve",
        "名前",
        "e\u0301",
        "🙂",
        "A",
        "x" * 49,
    ),
    *("{wildcards}", "{recipe}", "<results>", "a,b", "a=b", "a:b", "\u2028", "null\u0000", "con\x7f"),
]

Place = tuple[str, ...]


@dataclass(frozen=True)
class Broken:
    """A study that is broken in one way: its data, and how the line that says so has to begin."""

    data: Any
    names: str
    in_file: bool = True  # whether YAML can say it, and Snakemake read it


def with_value(place: Place, value: Any) -> dict[str, Any]:
    """Return the base with one key set; sections on the way to it are made."""
    study = copy.deepcopy(BASE)
    section = study
    *parents, last = place
    for part in parents:
        section = section.setdefault(part, copy.deepcopy(SECTIONS.get(part, {})))
    section[last] = value
    return study


def at(place: Place) -> str:
    """Write a key as a message does."""
    return ".".join(place)


# --- the walk over the schema -----------------------------------------------------------------------------------


def resolved(node: dict[str, Any], value: Any) -> dict[str, Any]:
    """Follow references, and choose the member of a union by `kind`; leave unions of plain values alone."""
    if "$ref" in node:
        return resolved(SCHEMA["$defs"][node["$ref"].rsplit("/", 1)[-1]], value)
    if "discriminator" in node:
        chosen = (
            node["discriminator"]["mapping"][value["kind"]] if isinstance(value, dict) and "kind" in value else None
        )
        return resolved({"$ref": chosen}, value) if chosen else {}
    for member in node.get("anyOf", ()):
        if "$ref" in member or "discriminator" in member:
            return resolved(member, value)
    return node


def sections(node: dict[str, Any], value: Any, place: Place = ()) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Find every section of the base, and those that it could have: where, and its schema."""
    node = resolved(node, value)
    if "properties" in node:
        yield place, node
        for key, field in node["properties"].items():
            yield from sections(field, value.get(key, {}) if isinstance(value, dict) else {}, (*place, key))
    for of_names in node.get("patternProperties", {}).values():  # sections by a name of the user's choice
        for key, member in value.items():
            yield from sections(of_names, member, (*place, key))


def keys() -> Iterator[tuple[Place, dict[str, Any]]]:
    """Find every key of every section: where, and the schema of its value."""
    for place, section in sections(SCHEMA, BASE):
        for key, field in section["properties"].items():
            yield (*place, key), field


def alternatives(field: dict[str, Any]) -> list[dict[str, Any]]:
    """List what a value may be, references followed."""
    members = field.get("anyOf") or field.get("oneOf") or [field]
    return [SCHEMA["$defs"][m["$ref"].rsplit("/", 1)[-1]] if "$ref" in m else m for m in members]


def types_of(field: dict[str, Any]) -> set[str]:
    """Name the types that a value may have; a word out of a list has none of them."""
    found = set()
    for member in alternatives(field):
        found.add("word" if "enum" in member or "const" in member else str(member.get("type", "object")))
    return found


# --- the kinds of breakage --------------------------------------------------------------------------------------


def wrong_types() -> Iterator[Broken]:
    """Every key with a value of every type that it does not take."""
    for place, field in keys():
        types = types_of(field)
        numeric = bool(types & {"integer", "number"})
        wrong: list[Any] = []
        wrong += [] if numeric else [3, 2.5]
        wrong += [] if "string" in types else ["no-such-thing", datetime.date(2020, 1, 1)]
        wrong += [] if "boolean" in types else [True]
        wrong += [] if "array" in types else [[{}]]
        wrong += [] if "object" in types else [{"a": 1}]
        wrong += [] if "null" in types else [None]
        wrong += [[{"a": 1}]] if "array" in types else []
        if place[-1] == "kind":
            wrong = [value for value in wrong if not isinstance(value, dict)]
        for value in wrong:
            yield Broken(with_value(place, value), at(place))


def wrong_ranges() -> Iterator[Broken]:
    """Every number beyond each of its bounds, and every list and text too short or too long."""
    for place, field in keys():
        for member in alternatives(field):
            for value in out_of_range(member):
                yield Broken(with_value(place, value), at(place))


def out_of_range(field: dict[str, Any]) -> list[Any]:
    """List values just beyond the bounds that a schema gives, and far beyond."""
    kind, wrong = field.get("type"), []
    if kind in ("integer", "number"):
        wrong += [field["minimum"] - 1, -(10**12)] if "minimum" in field else []
        wrong += [field["exclusiveMinimum"], -1.0] if "exclusiveMinimum" in field else []
        wrong += [field["maximum"] + 1] if "maximum" in field else []
        wrong += [field["exclusiveMaximum"]] if "exclusiveMaximum" in field else []
        wrong += [math.nan, math.inf, -math.inf, 2**63, 10**400]
        wrong += [2.5] if kind == "integer" else []
    if kind == "array":
        wrong += [[]] if field.get("minItems") else []
        wrong += [[0.5] * (field["maxItems"] + 1)] if "maxItems" in field else []
        wrong += [[value] for value in out_of_range(alternatives(field["items"])[0])] if field["items"] else []
    return wrong


def typos() -> Iterator[Broken]:
    """Every key with a letter left out, beside the right one."""
    for place, section in sections(SCHEMA, BASE):
        for key in section["properties"]:
            typo = key[:1] + key[2:] if len(key) > 2 else key + "x"
            if typo not in section["properties"]:
                yield Broken(with_value((*place, typo), 1), f"{at((*place, typo))}: unknown key; did you mean {key!r}?")


def names() -> Iterator[Broken]:
    """Every name that a user gives, or refers to, with what is no name."""
    recipe = BASE["recipes"]["mlp"]
    for name in HOSTILE_NAMES:
        yield Broken(with_value(("study",), name), "study: ")
        yield Broken(with_value(("recipes", name), recipe), "recipes.")
        yield Broken(with_value(("datasets", name), {"kind": "digits"}), "datasets.")
        yield Broken(with_value(("sweeps", name), BASE["sweeps"]["few"]), "sweeps.")
        yield Broken(with_value(("own_figures", name), {"script": "x.py", "tables": ["runs"]}), "own_figures.")
        if name != "a:b":  # which names a function
            yield Broken(with_value(("analysis", "measures"), {"own": [name]}), "analysis.measures.own.0: ")
        yield Broken(with_value(("recipes", "mlp", "dataset"), name), "recipes.mlp.dataset: ")
        yield Broken(with_value(("recipes", "mlp", "feature_layer"), name), "recipes.mlp.feature_layer: ")
        yield Broken(with_value(("recipes", "mlp", "layers"), [name]), "recipes.mlp.layers")
        yield Broken(with_value(("recipes", "mlp", "model"), name), "recipes.mlp")
        for factory in (f"{name}:build", f"nets:{name}") if name not in ("A", "x" * 49) else ():  # Python's names
            own = recipe | {"model": factory, "layers": ["a"]}
            yield Broken(with_value(("recipes", "mlp"), own), "recipes.mlp.model.factory: ")
        own = recipe | {"model": "nets:build", "layers": ["a"]}
        yield Broken(with_value(("recipes", "mlp"), own | {"feature_layer": name}), "recipes.mlp.feature_layer: ")
        named = {"kind": "timm", "name": name}
        if name != "x" * 49:  # it could be one
            yield Broken(with_value(("recipes", "mlp"), own | {"model": named}), "recipes.mlp.model.name: ")
        weights = [{"step": 0, "file": name}]
        yield Broken(with_value(("recipes", "mlp", "weights"), weights), "recipes.mlp.weights.0.file: ")
        yield Broken(with_value(("sweeps", "few", "base"), name), "sweeps.few.base: ")
        yield Broken(with_value(("sweeps", "few", "set"), {name: 1}), "sweeps.few")
        yield Broken(with_value(("figures",), [name]), "figures.0: ")
        yield Broken(with_value(("analysis", "angles"), {"references": [name]}), "analysis.angles.references.0: ")
        yield Broken(with_value(("analysis", "layer_probes"), {"targets": [name]}), "analysis.layer_probes.targets.0: ")
        if name not in ("..", ".", "~"):  # directories that there are: these lack the files instead
            yield Broken(with_value(("datasets", "fashion", "source"), name), "datasets.fashion.source: ")
            yield from (Broken(with_value(place, name), at(place)) for place in OWN_PLACES if not name.startswith("~"))
        yield Broken(with_value(("features", name), BASE["features"]["elsewhere"]), "features.")
        yield Broken(with_value(("features", "elsewhere", "dataset"), name), "features.elsewhere.dataset: ")
        yield Broken(with_value(("features", "elsewhere", "layers"), [name]), "features.elsewhere.layers: ")
        yield Broken(with_value(("features", "elsewhere", "feature_layer"), name), "features.elsewhere.feature_layer: ")
        yield Broken(with_value(("datasets", "made", "function"), name), "datasets.made.function: ")
        yield Broken(with_value(("datasets", "made", "function"), f"{name}:load"), "datasets.made.function: ")
        if not name.isidentifier():  # whether a module has one is seen when it is called
            function = f"mine_of_strangers:{name}"
            yield Broken(with_value(("datasets", "made", "function"), function), "datasets.made.function: ")
    for source in ("~nobody-of-this-name/x", "x/" * 3000, "x" * 3000, "http://", "https://[", "file:///etc", "..", "~"):
        yield Broken(with_value(("datasets", "fashion", "source"), source), "datasets.fashion.source: ")
    for key in (3, 1.5, None):
        yield Broken(with_value(("recipes", key), recipe), f"recipes.{key}: ")  # type: ignore[arg-type]
        yield Broken(with_value((key,), 1), f"{key}: ")  # type: ignore[arg-type]
    half = "\ud800"
    for place in (("title",), ("question",), ("recipes", "mlp", "dataset")):
        yield Broken(with_value(place, half), at(place))
    yield Broken(with_value(("sweeps", "few", "set"), {half: 1}), "sweeps.few.set.")


def cycles() -> Iterator[Broken]:
    """References that lead back to where they came from, in the study's own names and in YAML's."""
    yield Broken(with_value(("sweeps", "few", "base"), "few"), "sweeps.few.base: ")
    yield Broken(with_value(("sweeps", "few", "base"), "few-01"), "sweeps.few.base: ")
    two = {"a": {"base": "b", "vary": {"seeds": [1]}}, "b": {"base": "a", "vary": {"seeds": [1]}}}
    yield Broken(with_value(("sweeps",), two), "sweeps.a.base: ")
    yield Broken(with_value(("recipes", "mlp", "dataset"), "mlp"), "recipes.mlp.dataset: ")
    yield Broken(with_value(("recipes", "few-01"), BASE["recipes"]["seen"]), "recipes.few-01: ")
    loop: list[Any] = [1]
    loop.append(loop)
    ring: dict[str, Any] = {}
    ring["a"] = {"b": ring}
    for place in (("title",), ("figures",), ("seeds",), ("recipes", "mlp", "model", "widths")):
        yield Broken(with_value(place, loop), at(place))
    yield Broken(with_value(("sweeps", "few", "vary"), {"model.widths": [loop]}), "sweeps.few.vary.model.widths")
    # these Snakemake meets first, when it merges sections
    yield Broken(with_value(("sweeps", "few", "set"), {"model": ring}), "sweeps.few.set", in_file=False)
    for place in (("recipes",), ("recipes", "mlp"), ("analysis",), ("title",)):
        yield Broken(with_value(place, ring), at(place), in_file=False)


def sizes() -> Iterator[Broken]:
    """What would fill the memory of the machine that only looks at the study."""
    for count in (10_001, 10**9, 2**62):
        yield Broken(with_value(("seeds",), count), "seeds: ")
        yield Broken(with_value(("recipes", "mlp", "seeds"), count), "recipes.mlp.seeds: ")
        yield Broken(with_value(("recipes", "line", "model", "depth"), count), "recipes.line.model.depth: ")
        for key in ("linear", "nonlinear"):
            hybrid = {"kind": "hybrid", key: count}
            yield Broken(with_value(("recipes", "line", "model"), hybrid), f"recipes.line.model.{key}: ")
    vary = {f"optimiser.{key}": list(range(1, 102)) for key in ("learning_rate", "momentum")}
    yield Broken(with_value(("sweeps", "few", "vary"), vary), "sweeps.few.vary: 10201 combinations")
    huge = with_value(("seeds",), 16**6000)  # more digits than Python writes
    yield Broken(huge, "seeds: ", in_file=False)
    yield Broken(with_value(("recipes", "mlp", "model", "widths"), [16**6000]), "recipes.mlp.model.widths.0", False)
    laughs: Any = "ha"
    for _ in range(12):  # a billion of them, and more, of a few lines of YAML
        laughs = [laughs] * 9
    yield Broken(with_value(("sweeps", "few", "set"), {"model": laughs}), "sweeps: ")
    nested: Any = 1
    for _ in range(400):
        nested = [nested]
    yield Broken(with_value(("figures",), nested), "figures.0: ", in_file=False)


KINDS = {
    "a value of a wrong type": wrong_types,
    "a number, list or text out of range": wrong_ranges,
    "a misspelt key": typos,
    "a name with slashes, blanks, shell characters, `..`": names,
    "references in a circle": cycles,
    "sizes beyond any memory": sizes,
}


@cache
def broken_studies(kind: str) -> list[Broken]:
    """Make all broken studies of a kind, always the same."""
    return list(KINDS[kind]())


def is_one_clean_line(message: str) -> bool:
    """Say whether a terminal shows a message as one line, and obeys nothing in it."""
    return message.isprintable() and bool(message)


# --- in process -------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """What is remembered of sources lies in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(OWN))


def check(data: Any) -> Study:
    """Check a study as the main process of Snakemake does."""
    study = parse_study(data, "study.yaml")
    check_sources(study, "study.yaml")
    OwnSources(study, places=[OWN]).check("study.yaml")
    return study


def test_what_is_broken_was_whole_before():
    Plan(check(copy.deepcopy(BASE))).write_study()


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_study_is_one_line_that_names_the_key(kind, record_fault):
    cases = broken_studies(kind)
    assert len(cases) >= 10
    for case in cases:
        with pytest.raises(FeaturespaceError) as caught:
            check(case.data)
        message = str(caught.value)
        assert is_one_clean_line(message), ascii(message)
        start = f"study.yaml: {case.names}"
        assert message.startswith(start), f"{message!a} should name {case.names}"
        # the key itself, or one of its own parts
        assert start.endswith((" ", ".", "?", "combinations")) or message[len(start)] in ":.", ascii(message)
    record_fault("study file", kind, "one line that names the key, before any job", times=len(cases))


def test_there_are_hundreds_and_every_key_of_the_schema_is_among_them():
    assert sum(len(broken_studies(kind)) for kind in KINDS) >= 500
    places = [place for place, _ in keys()]
    assert len(places) == len(set(places)) >= 100
    named = {case.names for case in broken_studies("a value of a wrong type")}
    assert {at(place) for place in places} == named


# --- through Snakemake ------------------------------------------------------------------------------------------


def files_below(root: Path) -> set[str]:
    """List what lies in and around a workflow, but for Snakemake's own records and compiled modules."""
    return {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if not {".snakemake", "__pycache__"} & set(path.parts)
    }


@pytest.mark.workflow
def test_snakemake_says_the_same_and_nothing_is_written(tmp_path, record_fault, thorough):
    workflow = Workflow(tmp_path / "inner/project", BASE)
    before = files_below(tmp_path)
    for kind in KINDS:
        cases = [case for case in broken_studies(kind) if case.in_file]
        n_tried = 20 if thorough else 1
        step = max(1, len(cases) // n_tried)
        tried = cases[step // 2 :: step][:n_tried]
        for case in tried:
            workflow.write_study(case.data)
            done = workflow.snakemake("--cores", "1")
            said = [line for line in done.stderr.splitlines() if "profile" not in line]
            assert done.returncode != 0
            assert not done.stdout, done.stdout
            assert len(said) == 1, said
            assert said[0].startswith(f"featurespace: study.yaml: {case.names}"), said
            assert files_below(tmp_path) == before
        record_fault("study file, by snakemake", kind, "one line, nothing written", times=len(tried))


# What Snakemake, which reads the file before the workflow, refuses in its own words.
NOT_READ = {
    "a tag of Python": 'title: !!python/object/apply:os.system ["touch pwned"]\n',
    "a new tag of Python": 'title: !!python/object/new:subprocess.Popen [["touch", "pwned"]]\n',
    "a section within itself": "analysis: &a\n  spectra: *a\n",
    "a thousand brackets": f"title: {'[' * 1000}{']' * 1000}\n",
}


@pytest.mark.workflow
@pytest.mark.parametrize("what", NOT_READ)
def test_yaml_that_is_more_than_data_runs_nothing(tmp_path, what, record_fault):
    workflow = Workflow(tmp_path / "inner/project", BASE)
    before = files_below(tmp_path)
    plain = {key: value for key, value in BASE.items() if key != "analysis"}
    (workflow.root / "study.yaml").write_text(yaml.safe_dump(plain, sort_keys=False) + NOT_READ[what])
    done = workflow.snakemake("--cores", "1")
    assert done.returncode != 0
    assert not re.search(r"^(rule|localrule|Job stats)", done.stdout + done.stderr, re.MULTILINE)
    assert files_below(tmp_path) == before
    record_fault("study file, by snakemake", "YAML that is more than data", "refused, nothing is run")


@pytest.mark.workflow
def test_free_text_is_only_ever_text(tmp_path, record_fault):
    texts = [
        "$(touch pwned) `touch pwned`; touch pwned",
        "{wildcards} {recipe} {input} {{x}} <results> %s ${HOME} \\n",
        "'; import os; os.system('touch pwned') #",
        "</script><script>alert(1)</script> \u202e \x1b[2J 名前",
    ]
    study = BASE | {"title": " ".join(texts[:2]), "question": " ".join(texts[2:])}
    workflow = Workflow(tmp_path / "inner/project", study)
    before = files_below(tmp_path)
    done = workflow.snakemake("results/tiny/study.yaml", "--cores", "1")
    assert done.returncode == 0, done.stderr
    written = yaml.safe_load((workflow.root / "results/tiny/study.yaml").read_text(encoding="utf-8"))
    assert (written["title"], written["question"]) == (study["title"], study["question"])
    outside = {path for path in files_below(tmp_path) if not path.startswith("inner/project/results")}
    assert outside == before
    record_fault("study file, by snakemake", "free text with shell characters and markup", "kept as text, not obeyed")
