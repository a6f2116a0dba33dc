"""What a study's plan knows of its own sources, before any job: sizes, shapes, layers, digests; errors by key."""

import copy
import json

import numpy as np
import pytest
from PIL import Image

from featurespace.config import parse_study
from featurespace.errors import FeaturespaceError
from featurespace.own_data import read_own
from featurespace.own_sources import OwnSources, places_of_modules
from featurespace.plan import Plan

STUDY = {
    "study": "mine",
    "datasets": {
        "photos": {"kind": "images", "folder": "photos", "side": 8},
        "table": {"kind": "arrays", "file": "table.npz", "sample_set": {"limit": 9}},
        "made": {
            "kind": "function",
            "function": "mine_to_plan.data:load",
            "arguments": {"a": 1},
            "files": ["table.npz"],
            "classes": 2,
            "shape": [1, 4, 4],
            "train": 30,
            "test": 10,
        },
    },
    "recipes": {
        name: {"dataset": name, "model": {"kind": "mlp", "widths": [4]}, "schedule": {"epochs": 1}}
        for name in ("photos", "table", "made")
    },
    "features": {"pca": {"dataset": "photos", "source": "pca"}},
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    for label, n in (("a", 7), ("b", 9), ("c", 1)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(n):
            pixels = np.full((8, 8, 3), 10 * i, np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"photos/{label}/{i}.png")
    np.savez("table.npz", x=np.eye(12, 5), y=np.arange(12) % 4, split=np.arange(12) // 8)
    (tmp_path / "mine_to_plan").mkdir()
    (tmp_path / "mine_to_plan/__init__.py").write_text("")
    (tmp_path / "mine_to_plan/other.py").write_text("A = 1\n")
    (tmp_path / "mine_to_plan/data.py").write_text("from mine_to_plan.other import A\n\ndef load(a): ...\n")
    (tmp_path / "pca").mkdir()
    np.save("pca/one.npy", np.zeros((2, 17, 3)))
    np.save("pca/two.npy", np.zeros((2, 17, 3)))
    return tmp_path


def edited(path="", value=None):
    study = copy.deepcopy(STUDY)
    if path:
        section = study
        *parents, last = path.split(".")
        for part in parents:
            section = section.setdefault(part, {})
        section[last] = value
    return study


def plan_of(study=STUDY, **how):
    parsed = parse_study(copy.deepcopy(study))
    sources = OwnSources(parsed, **how)
    sources.check("my.yaml")
    return Plan(parsed, sources)


def test_sizes_and_shapes_are_those_of_what_is_there(here):
    plan = plan_of()
    assert [plan.n_classes(name) for name in ("photos", "table", "made")] == [3, 4, 2]
    assert plan.n_samples("photos") == {"train": 13, "test": 4, "all": 17}
    assert plan.n_samples("table") == {"train": 8, "test": 4, "all": 12}
    assert plan.n_samples("made") == {"train": 30, "test": 10, "all": 40}
    assert plan.sample_set_size("table") == 8
    assert [plan.sources.shape(name) for name in ("photos", "table", "made")] == [(3, 8, 8), (5,), (1, 4, 4)]
    assert plan.probed_recipes == ["photos", "table", "made"]


def test_the_sizes_that_are_planned_are_those_that_are_made(here):
    plan = plan_of()
    for name in ("photos", "table"):
        spec = plan.import_dataset(name)
        del spec["name"]
        section = STUDY["datasets"][name]
        dataset = read_own(spec, here / (section.get("folder") or section["file"]), [])
        n_test = int(dataset["split"].sum())
        assert plan.n_samples(name) == {
            "train": dataset.sizes["sample"] - n_test,
            "test": n_test,
            "all": dataset.sizes["sample"],
        }
        assert plan.n_classes(name) == len(dataset.attrs["class_names"])


@pytest.mark.parametrize(("fraction", "n_test"), [(0.5, 9), (0.01, 2), (None, 0)])
def test_the_fraction_decides_how_many_are_held_out(here, fraction, n_test):
    assert plan_of(edited("datasets.photos.test_fraction", fraction)).n_samples("photos")["test"] == n_test


def test_features_count_as_a_recipe_without_network(here):
    plan = plan_of()
    assert plan.own_recipes == ["photos", "table", "made", "pca"]
    assert plan.network_recipes == ["photos", "table", "made"]
    assert plan.imported_recipes == ["pca"]
    assert plan.layers("pca") == ["one", "two"]
    assert plan.feature_layer("pca") == "two"
    assert plan.seeds("pca") == [0]
    assert plan.runs(["pca"]) == ["runs/pca/block-0"]
    assert plan.recipe("pca").task == "features"
    assert plan_of(edited("features.pca.control", True)).recipe("pca").task == "control-features"
    chosen = plan_of(edited("features.pca", {"dataset": "photos", "source": "pca", "layers": ["two", "one"]}))
    assert (chosen.layers("pca"), chosen.feature_layer("pca")) == (["two", "one"], "one")
    assert parse_study(edited("analysis.angles.references", ["pca"]))


def test_claims_about_networks_do_not_rest_on_what_was_made_elsewhere(here):
    plan = plan_of(edited("ledgers", ["p-vectors"]))
    assert "pca" in plan.compare_runs()["references"]
    spec = plan.test_claims()
    assert spec["references"] == ["photos", "table", "made"]
    assert "pca" in {recipe["name"] for recipe in spec["recipes"]}


def test_seeds_of_features_are_those_of_the_source(here):
    np.save("pca/one.npy", np.zeros((3, 2, 17, 3)))
    np.save("pca/two.npy", np.zeros((3, 2, 17, 3)))
    np.save("pca/seed.npy", [5, 6, 8])
    plan = plan_of()
    assert plan.seeds("pca") == [5, 6, 8]
    assert plan.blocks("pca") == [[5, 6, 8]]


def test_a_study_may_be_of_features_alone(here):
    study = edited("recipes", {}) | {"analysis": {}}
    plan = plan_of(study)
    assert plan.recipes == ["pca"]
    assert plan.network_recipes == []
    with pytest.raises(FeaturespaceError, match="recipes: is empty, and so is `features`"):
        parse_study(study | {"features": {}}, "my.yaml")


def test_parameters_say_what_is_there_and_not_where(here):
    plan = plan_of()
    before = {name: plan.import_dataset(name) for name in STUDY["datasets"]}
    pca = plan.import_features("pca", 0)
    text = json.dumps([before, pca])
    assert not any(place in text for place in (str(here), "table.npz", '"folder"', '"source"', '"pca"]'))
    (here / "photos").rename(here / "elsewhere")
    moved = plan_of(edited("datasets.photos.folder", "elsewhere"))
    assert moved.import_dataset("photos") == before["photos"]
    assert moved.import_features("pca", 0) == pca
    # but what is written down of the study is a study, and nothing else changes
    written = {name: again.write_study() for name, again in (("before", plan), ("moved", moved))}
    assert [written[name]["datasets"]["photos"]["folder"] for name in written] == ["photos", "elsewhere"]
    assert moved.write_report("") == plan.write_report("")


def test_a_copy_of_what_is_written_down_is_the_same_study(here):
    plan = plan_of()
    written = plan.write_study()
    assert [written["datasets"][name][key] for name, key in (("photos", "folder"), ("table", "file"))] == [
        STUDY["datasets"]["photos"]["folder"],
        STUDY["datasets"]["table"]["file"],
    ]
    assert written["features"]["pca"]["source"] == STUDY["features"]["pca"]["source"]
    copied = plan_of(copy.deepcopy(written))
    assert copied.write_study() == written
    assert copied.import_features("pca", 0) == plan.import_features("pca", 0)
    for name in STUDY["datasets"]:
        assert copied.import_dataset(name) == plan.import_dataset(name)


def test_the_report_knows_of_features_and_code_of_ones_own(here):
    spec = plan_of().write_report("make it")
    (pca,) = spec["features"]
    assert pca == {
        "name": "pca",
        "dataset": STUDY["features"]["pca"]["dataset"],
        "source": STUDY["features"]["pca"]["source"],
        "layers": plan_of().layers("pca"),
        "seeds": plan_of().seeds("pca"),
        "control": STUDY["features"]["pca"].get("control", False),
    }
    assert spec["own_code"] == [STUDY["datasets"]["made"]["function"]]
    assert spec["samples"] == {name: plan_of().sample_set_size(name) for name in plan_of().used_datasets}


def test_each_change_is_in_the_parameters_of_its_job_alone(here):
    def parameters():
        plan = plan_of()
        return {name: plan.import_dataset(name) for name in STUDY["datasets"]} | {"pca": plan.import_features("pca", 0)}

    def changed(change):
        before = parameters()
        change()
        after = parameters()
        return {name for name in before if before[name] != after[name]}

    other = here / "mine_to_plan/other.py"
    assert changed(lambda: None) == set()
    assert changed(lambda: [path.touch() for path in here.rglob("*")]) == set()
    assert changed(lambda: Image.new("RGB", (8, 8)).save(here / "photos/a/3.png")) == {"photos"}
    assert changed(lambda: (here / "photos/a/notes.txt").write_text("no image")) == set()
    assert changed(lambda: np.savez("table.npz", x=np.eye(12, 5), y=np.arange(12) % 4)) == {"table", "made"}
    assert changed(lambda: other.write_text("A = 1  # a comment\n")) == set()
    assert changed(lambda: other.write_text("A = 2\n")) == {"made"}
    assert changed(lambda: (here / "mine_to_plan/unused.py").write_text("A = 2\n")) == set()
    assert changed(lambda: np.save("pca/one.npy", np.ones((2, 17, 3)))) == {"pca"}


def test_jobs_need_not_see_the_sources(here):
    before = plan_of()
    expected = before.import_dataset("photos"), before.n_samples("table"), before.import_features("pca", 0)
    for name in ("photos", "table.npz", "pca"):
        (here / name).rename(here / f"{name}-gone")
    study = parse_study(copy.deepcopy(STUDY))
    plan = Plan(study, OwnSources(study, look=False))
    assert (plan.import_dataset("photos"), plan.n_samples("table"), plan.import_features("pca", 0)) == expected
    with pytest.raises(
        FeaturespaceError, match=r"my.yaml: datasets.photos.folder: photos cannot be read \(No such file"
    ):
        plan_of()


@pytest.mark.parametrize("content", [b"def load(:\n", b"\xff\xfe", b"x = 1\x00"])
def test_a_module_that_is_no_python_is_one_line(here, content):
    (here / "mine_to_plan/other.py").write_bytes(content)
    with pytest.raises(FeaturespaceError, match=r"^my.yaml: datasets.made.function: "):
        plan_of()


def test_modules_are_looked_for_beside_the_study_here_and_on_the_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/a:/b::/a")
    assert places_of_modules(["studies/mine.yaml"]) == ["studies", ".", "/a", "/b"]
    assert places_of_modules([]) == [".", "/a", "/b"]


BROKEN = [
    ("datasets.photos.folder", "nowhere", "datasets.photos.folder: nowhere cannot be read (No such file"),
    ("datasets.photos.folder", "~nobody-of-this-name/x", "datasets.photos.folder: ~nobody-of-this-name/x: "),
    ("datasets.photos.folder", "pca", "datasets.photos.folder: pca: there is no image in it"),
    ("datasets.table.file", "photos", "datasets.table.file: photos is neither a Zarr store nor"),
    ("datasets.table.file", "pca", "datasets.table.file: pca: array 'one' is not known"),
    (
        "datasets.made.function",
        "nowhere.data:load",
        "datasets.made.function: no module 'nowhere.data': it is looked for in",
    ),
    ("datasets.made.files", ["nowhere"], "datasets.made.files.0: nowhere cannot be read"),
    ("features.pca.source", "nowhere.npz", "features.pca.source: nowhere.npz cannot be read"),
    ("features.pca.source", "photos", "features.pca.source: photos is neither"),
    ("features.pca.layers", ["tow"], "features.pca.layers: no layer 'tow'; did you mean 'two'? (there are: one, two)"),
    ("features.pca.feature_layer", "x", "features.pca.feature_layer: no layer 'x' (there are: one, two)"),
    (
        "recipes.table.model",
        {"kind": "cnn", "channels": [4]},
        "recipes.table.model.kind: cnn needs images, not the rows",
    ),
    ("analysis.layer_probes.targets", ["table", "photos"], ""),
    ("datasets.made.shape", [1, 4, 5], "datasets.made.shape: "),
    ("datasets.made.function", "../../x:load", "datasets.made.function: "),
    ("datasets.made.arguments", {"a": float("nan")}, "datasets.made.arguments: should be numbers"),
    ("datasets.made.arguments", {"a": {1, 2}}, "datasets.made.arguments: should be numbers"),
    ("features.pca.dataset", "x", "features.pca.dataset: no data set 'x'"),
    (
        "features.photos",
        {"dataset": "photos", "source": "pca"},
        "recipes.photos: `features` has something of this name",
    ),
    ("features.own", {"dataset": "photos", "source": "pca"}, "features.own: tables use this name"),
]


@pytest.mark.parametrize(("path", "value", "says"), BROKEN, ids=[f"{b[0]}={b[1]!r}"[:60] for b in BROKEN])
def test_what_does_not_fit_is_one_line_that_names_the_key(here, path, value, says):
    study = edited(path, value)
    if not says:
        plan_of(study)
        return
    with pytest.raises(FeaturespaceError) as caught:
        parsed = parse_study(study, "my.yaml")
        OwnSources(parsed).check("my.yaml")
    assert str(caught.value).startswith(f"my.yaml: {says}")
    assert str(caught.value).isprintable()


def test_a_sample_set_needs_its_split(here):
    study = edited("datasets.table.sample_set.split", "test")
    plan_of(study)
    np.savez("table.npz", x=np.eye(12, 5), y=np.arange(12) % 4, split=np.zeros(12, int))
    with pytest.raises(FeaturespaceError, match=r"my.yaml: datasets.table.sample_set.split: there are no test samples"):
        plan_of(study)
