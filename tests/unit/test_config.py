"""The study file: what is accepted, and the one line that says what is not."""

import copy
from pathlib import Path

import pytest
import yaml

from featurespace import architectures
from featurespace.config import Study, check_sources, parse_study, refuse_repeated_keys
from featurespace.errors import FeaturespaceError
from featurespace.plan import Plan, blocks_of

ROOT = Path(__file__).parents[2]

STUDY = {
    "study": "small",
    "datasets": {"digits": {"kind": "digits"}, "fashion": {"kind": "fashion-mnist"}},
    "recipes": {
        "mlp": {
            "dataset": "digits",
            "model": {"kind": "mlp", "widths": [8, 4]},
            "optimiser": {"kind": "sgd", "learning_rate": 1},
            "schedule": {"epochs": 2},
        },
        "seen": {"dataset": "fashion", "task": "untrained", "model": {"kind": "cnn"}},
    },
}

DELETE = "(the key is deleted)"


def edited(path: str, value: object) -> dict:
    """Return the study with one key set, or deleted."""
    study = copy.deepcopy(STUDY)
    section = study
    *parents, last = path.split(".")
    for part in parents:
        section = section[part]
    if value == DELETE:
        del section[last]
    else:
        section[last] = value
    return study


# (key that is set, its value, the key that the message names, something else that it says)
BROKEN = [
    ("recpies", {}, "recpies", "did you mean 'recipes'?"),
    ("recipes.mlp.model.widhts", [3], "recipes.mlp.model.widhts", "did you mean 'widths'?"),
    ("recipes.mlp.optimiser.learningrate", 1.0, "recipes.mlp.optimiser.learningrate", "'learning_rate'"),
    ("recipes.mlp.schedule.epoch", 3, "recipes.mlp.schedule.epoch", "did you mean 'epochs'?"),
    ("datasets.digits.source", "/tmp", "datasets.digits.source", "unknown key"),
    ("analysis", {"spectra": {"vector": 3}}, "analysis.spectra.vector", "did you mean 'vectors'?"),
    ("recipes.mlp.model.widths", ["a"], "recipes.mlp.model.widths.0", "number"),
    ("recipes.mlp.model.widths", ["16", 8], "recipes.mlp.model.widths.0", "'16'"),
    ("recipes.mlp.seeds", [True, 0], "recipes.mlp.seeds.0", "True"),
    ("recipes.mlp.schedule.final_fraction", 0.2, "recipes.mlp.schedule.final_fraction", "cosine"),
    ("recipes.seen.model.channels", [2, 2, 2, 2, 2], "recipes.seen.model.channels", "28 x 28"),
    ("recipes.mlp.model.widths", [], "recipes.mlp.model.widths", "empty"),
    ("recipes.mlp.schedule.epochs", "3", "recipes.mlp.schedule.epochs", "'3'"),
    ("recipes.mlp.schedule.epochs", 2.5, "recipes.mlp.schedule.epochs", "2.5"),
    ("recipes.mlp.schedule.epochs", True, "recipes.mlp.schedule.epochs", "True"),
    ("recipes.mlp.schedule.epochs", DELETE, "recipes.mlp.schedule.epochs", "missing"),
    ("recipes.mlp.optimiser.learning_rate", float("nan"), "recipes.mlp.optimiser.learning_rate", "finite"),
    ("recipes.mlp.schedule", DELETE, "recipes.mlp.schedule", "classify"),
    ("recipes.mlp.dataset", "digit", "recipes.mlp.dataset", "did you mean 'digits'?"),
    ("recipes.mlp.model.kind", "mpl", "recipes.mlp.model.kind", "did you mean 'mlp'?"),
    ("recipes.mlp.model", {}, "recipes.mlp.model.kind", "autoencoder"),
    ("recipes.mlp.model", 3, "recipes.mlp.model", "section"),
    ("recipes.mlp.task", "clasify", "recipes.mlp.task", "did you mean 'classify'?"),
    ("recipes.mlp.task", "reconstruct", "recipes.mlp.model.kind", "autoencoder"),
    ("recipes.mlp.noise", 0.3, "recipes.mlp.noise", "denoise"),
    ("recipes.mlp.feature_layer", "hiden2", "recipes.mlp.feature_layer", "did you mean 'hidden2'?"),
    ("recipes.mlp.layers", ["hidden9"], "recipes.mlp.layers", "hidden1, hidden2"),
    ("recipes.mlp.layers", ["hidden1"], "recipes.mlp.layers", "feature layer 'hidden2'"),
    ("recipes.mlp.seeds", 0, "recipes.mlp.seeds", "0"),
    ("recipes.mlp.seeds", [1, 1], "recipes.mlp.seeds", "twice"),
    ("recipes.mlp.init", {"scale": 2}, "recipes.mlp.init.scale", "orthogonal"),
    ("recipes.mlp.schedule.stop_loss", 0.1, "recipes.mlp.schedule.stop_loss", "full batch"),
    ("recipes.seen.schedule", {"epochs": 1}, "recipes.seen.task", "untrained"),
    ("recipes", {}, "recipes", "empty"),
    ("recipes", DELETE, "recipes", "empty"),
    ("recipes.a b", {}, "recipes.a b", "no name"),
    ("recipes.own", STUDY["recipes"]["seen"], "recipes.own", "choose another"),
    ("recipes.data", STUDY["recipes"]["seen"], "recipes.data", "choose another"),
    ("datasets.digits", {"kind": "mnits"}, "datasets.digits.kind", "did you mean 'mnist'?"),
    ("datasets.digits", {}, "datasets.digits.kind", "orthonormal"),
    ("datasets.digits", {"kind": "orthonormal", "dimension": 7}, "datasets.digits.dimension", "30"),
    ("datasets.fashion", {"kind": "orthonormal"}, "recipes.seen.model.kind", "images"),
    ("datasets.again", {"kind": "fashion-mnist", "source": "/x"}, "datasets.again.source", "datasets.fashion"),
    ("seeds", 0, "seeds", "not 0"),
    ("seeds", [], "seeds", "at least one"),
    ("seeds", [0, 0, 1], "seeds", "twice"),
    ("seeds", "5", "seeds", "'5'"),
    ("figures", ["spectre"], "figures.0", "did you mean 'spectra'?"),
    ("figures", ["spectra", "spectra"], "figures", "twice"),
    ("study", "../elsewhere", "study", "no name"),
    ("study", DELETE, "study", "missing"),
    ("keep_features", "yes", "keep_features", "boolean"),
    ("datasets.digits.train_limit", 0, "datasets.digits.train_limit", "not 0"),
    ("recipes.mlp.task", "simclr", "recipes.mlp.augmentation", "two views"),
    ("recipes.mlp.augmentation", {"resized_crop": [0.9, 0.1]}, "recipes.mlp.augmentation.resized_crop", "least"),
    ("recipes.mlp.augmentation", {"hue": 0.1}, "recipes.mlp.augmentation.hue", "no colour"),
    ("recipes.mlp.contrast", {}, "recipes.mlp.contrast", "simclr and supcon"),
    ("recipes.seen.augmentation", {}, "recipes.seen.augmentation", "untrained"),
    ("recipes.seen.autocast", "bfloat16", "recipes.seen.autocast", "only training in float32"),
    ("recipes.mlp.autocast", "float16", "recipes.mlp.autocast", "bfloat16"),
    ("recipes.mlp.schedule.milestones", [1], "recipes.mlp.schedule.milestones", "step"),
    ("recipes.mlp.schedule.learning_rate_schedule", "step", "recipes.mlp.schedule.milestones", "needed"),
    ("recipes.mlp.schedule.drop_factor", 0.5, "recipes.mlp.schedule.drop_factor", "step"),
    ("recipes.seen.model", {"kind": "wide-resnet", "depth": 27}, "recipes.seen.model.depth", "6 n + 4"),
    ("recipes.seen.model", {"kind": "resnet", "depth": 19}, "recipes.seen.model.depth", "19"),
    ("recipes.seen.model", {"kind": "torchvision", "name": "resnet19"}, "recipes.seen.layers", "resnet18"),
    ("recipes.seen.model", {"kind": "noise"}, "recipes.seen.model.kind", "go together"),
    ("recipes.mlp.task", "noise", "recipes.mlp.model.kind", "go together"),
    ("recipes.seen.model", {"kind": "densenet", "blocks": [1] * 7}, "recipes.seen.model", "28 x 28"),
    ("sweeps", {"many": {"base": "mpl", "vary": {"seeds": [1]}}}, "sweeps.many.base", "did you mean 'mlp'?"),
    ("sweeps", {"many": {"base": "mlp", "vary": {}}}, "sweeps.many.vary", "empty"),
    ("sweeps", {"many": {"base": "mlp", "vary": {"seeds": []}}}, "sweeps.many.vary.seeds", "empty"),
    ("sweeps", {"many": {"base": "mlp", "vary": {"model.width": [1]}}}, "sweeps.many.vary", "did you mean 'widths'?"),
    ("sweeps", {"many": {"base": "mlp", "vary": {"dataset": ["digit"]}}}, "sweeps.many", "did you mean 'digits'?"),
    ("sweeps", {"m": {"base": "mlp", "vary": {"seeds": [1, 1]}}}, "sweeps.m.vary.seeds", "twice"),
    ("sweeps", {"m": {"base": "mlp", "vary": {"seeds": [1]}, "set": {"seeds": 2}}}, "sweeps.m.vary.seeds", "`set`"),
    ("sweeps", {"m": {"base": "mlp", "set": {"layers": []}, "vary": {"seeds": [1]}}}, "sweeps.m.layers", "feature"),
    ("recipes.mlp.task", "supcon", "recipes.mlp.augmentation", "two views"),
    ("analysis", {"sensitivity": {"shares": [0.5]}}, "analysis.sensitivity.shares", "end at 1"),
    ("sweeps", {"m": {"base": "mlp", "vary": {"dataset.x": [1]}}}, "sweeps.m.vary", "no section"),
    ("analysis", {"angles": {"references": ["mlb"]}}, "analysis.angles.references.0", "did you mean 'mlp'?"),
    ("analysis", {"subspaces": {"dimensions": [7]}}, "analysis.subspaces.dimensions", "keeps 6"),
    ("ledgers", ["p-vector"], "ledgers.0", "did you mean 'p-vectors'?"),
]


@pytest.mark.parametrize(("path", "value", "key", "says"), BROKEN, ids=[f"{b[0]}={b[1]!r}"[:60] for b in BROKEN])
def test_broken_studies_end_in_one_line_that_names_the_key(path, value, key, says):
    with pytest.raises(FeaturespaceError) as caught:
        parse_study(edited(path, value), "my.yaml")
    message = str(caught.value)
    assert message.startswith(f"my.yaml: {key}: ")
    assert says in message
    assert "\n" not in message


def test_a_study_that_is_no_mapping_is_refused():
    with pytest.raises(FeaturespaceError, match="mapping"):
        parse_study([1, 2])


def test_a_source_that_is_missing_is_named(tmp_path):
    study = edited("datasets.fashion.source", str(tmp_path / "nowhere"))
    with pytest.raises(FeaturespaceError, match=r"datasets\.fashion\.source: no directory .*nowhere"):
        check_sources(parse_study(study, "my.yaml"), "my.yaml")
    with pytest.raises(FeaturespaceError, match=r"lacks train-images-idx3-ubyte.gz, .* of fashion-mnist"):
        check_sources(parse_study(edited("datasets.fashion.source", str(tmp_path))))
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{name}-ubyte.gz").touch()
    check_sources(parse_study(edited("datasets.fashion.source", str(tmp_path))))
    check_sources(parse_study(edited("datasets.fashion.source", "https://mirror.example/fashion/")))


def test_numbers_that_are_equal_give_equal_parameters():
    one = Plan(parse_study(edited("recipes.mlp.optimiser.learning_rate", 1)))
    other = Plan(parse_study(edited("recipes.mlp.optimiser.learning_rate", 1.0)))
    assert repr(one.train_run("mlp", 0)) == repr(other.train_run("mlp", 0))


def test_the_order_of_keys_changes_no_parameters():
    shuffled = copy.deepcopy(STUDY)
    shuffled["recipes"]["mlp"] = dict(reversed(shuffled["recipes"]["mlp"].items()))
    assert repr(Plan(parse_study(shuffled)).train_run("mlp", 0)) == repr(Plan(parse_study(STUDY)).train_run("mlp", 0))


def test_another_seed_refills_the_last_block_or_opens_one():
    assert blocks_of([0, 1, 2], 2) == [[0, 1], [2]]
    assert blocks_of([0, 1, 2, 3], 2) == [[0, 1], [2, 3]]
    assert blocks_of([0, 1, 2, 3, 4], 2) == [[0, 1], [2, 3], [4]]


def test_every_field_of_the_study_is_described():
    def properties(model):
        yield from model.get("properties", {}).items()

    schema = Study.model_json_schema()
    for name, model in [("Study", schema), *schema["$defs"].items()]:
        assert model.get("description"), name
        for key, field in properties(model):
            described = field.get("description") or ("$ref" in field)
            assert described, f"{name}.{key}"


def test_the_depth_of_layers_counts_from_the_input():
    model = {"kind": "cnn", "channels": [4, 8], "hidden": 16}
    assert architectures.layer_names(model) == ["conv1", "conv2", "hidden"]
    assert [architectures.layer_depth(model, name) for name in ["input", "conv1", "hidden"]] == [0, 1, 3]
    assert architectures.feature_layer(model) == "hidden"
    with pytest.raises(ValueError, match="unknown architecture"):
        architectures.layer_names({"kind": "none"})


@pytest.mark.parametrize(
    "path", [ROOT / "config.yaml", *sorted((ROOT / "studies").glob("*.yaml"))], ids=lambda path: path.name
)
def test_the_studies_that_are_shipped_are_valid(path):
    parse_study(yaml.safe_load(path.read_text()), path.name)


@pytest.mark.parametrize(
    "path", [ROOT / "config.yaml", *sorted((ROOT / "studies").glob("*.yaml"))], ids=lambda path: path.name
)
def test_a_copy_of_what_is_written_down_is_the_same_study(path):
    study = parse_study(yaml.safe_load(path.read_text()), path.name)
    written = Plan(study).write_study()
    copied = Plan(parse_study(yaml.safe_load(yaml.safe_dump(written, sort_keys=False))))
    assert copied.write_study() == written
    for recipe in copied.network_recipes:
        assert copied.train_run(recipe, 0) == Plan(study).train_run(recipe, 0)


@pytest.mark.parametrize(
    "recipe",
    [
        {"task": "noise", "model": {"kind": "noise", "width": 4}},
        {"task": "untrained", "model": {"kind": "torchvision", "name": "resnet18"}},
        {
            "task": "saved",
            "model": {"kind": "mlp", "widths": [4]},
            "weights": [{"file": "a.pt", "step": 0}],
        },
        {
            "model": {"kind": "mlp", "widths": [4]},
            "schedule": {"epochs": 3, "learning_rate_schedule": "step", "milestones": [1]},
        },
        {"model": {"kind": "mlp", "widths": [4]}, "schedule": {"epochs": 3, "learning_rate_schedule": "cosine"}},
    ],
    ids=["noise", "built elsewhere", "saved weights", "step schedule", "cosine schedule"],
)
def test_what_has_no_meaning_is_not_written_down(recipe):
    study = parse_study(
        {"study": "s", "datasets": {"digits": {"kind": "digits"}}, "recipes": {"one": recipe | {"dataset": "digits"}}}
    )
    written = Plan(study).write_study()
    assert Plan(parse_study(written)).write_study() == written


@pytest.mark.parametrize(
    "vary",
    [
        {"schedule.learning_rate_schedule": ["cosine", "constant"]},
        {"head.layers": [1, 2]},
        {"task": ["noise"], "model": [{"kind": "noise", "width": 3}, {"kind": "noise", "width": 5}]},
    ],
    ids=["schedule", "a section that the base has not", "task and model"],
)
def test_sweeps_over_what_is_written_down_have_the_same_members(vary):
    base = {"dataset": "digits", "model": {"kind": "mlp", "widths": [4]}, "schedule": {"epochs": 3}}
    base["schedule"]["learning_rate_schedule"] = "cosine"
    if "task" in vary:
        base = {"dataset": "digits", "task": "untrained", "model": {"kind": "mlp", "widths": [4]}}
    data = {"study": "s", "datasets": {"digits": {"kind": "digits"}}, "recipes": {"one": base}}
    plan = Plan(parse_study(data | {"sweeps": {"many": {"base": "one", "vary": vary}}}))
    copied = Plan(parse_study(plan.write_study()))
    assert copied.write_study() == plan.write_study()
    assert copied.study.all_recipes == plan.study.all_recipes
    assert len(copied.recipes) == 3


def test_what_changes_no_result_is_no_part_of_the_study_that_is_written_down(tmp_path):
    study = edited("datasets.fashion.source", str(tmp_path)) | {"device": "cpu"}
    assert Plan(parse_study(study)).write_study() == Plan(parse_study(STUDY)).write_study()


def test_numbers_in_the_notation_of_science_are_numbers():
    # YAML 1.1 reads 1e-3 as text and 1.0e-3 as a number
    study = parse_study(edited("recipes.mlp.optimiser.learning_rate", "1e-3"))
    assert study.recipes["mlp"].optimiser.learning_rate == 1e-3


def test_a_key_that_is_there_twice_is_named_with_its_line(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("study: a\nrecipes:\n  mlp: {dataset: digits}\n  mlp: {dataset: digits}\n")
    with pytest.raises(FeaturespaceError, match=r"my\.yaml: line 4: mlp is there twice"):
        refuse_repeated_keys(path)
    path.write_text("a: &a {b: 1}\nc:\n  <<: *a\n  b: 2\nd: {b: 1}\n")
    refuse_repeated_keys(path)


def test_the_study_that_the_readme_shows_is_valid():
    blocks = (ROOT / "README.md").read_text().split("```yaml\n")[1:]
    assert blocks
    for block in blocks:
        parse_study(yaml.safe_load(block.split("```")[0]), "README.md")


# --- sweeps and sizes ---

SWEPT = STUDY | {
    "sweeps": {
        "few": {
            "base": "mlp",
            "set": {"seeds": 2, "schedule.batch_size": 50},
            "vary": {"model.widths": [[3], [5, 4]], "optimiser.learning_rate": [0.1, 1], "schedule.epochs": [3]},
        }
    }
}


def test_a_sweep_makes_every_combination_of_its_values_and_keeps_the_ends_only():
    plan = Plan(parse_study(SWEPT))
    assert plan.recipes == ["mlp", "seen", "few-01", "few-02", "few-03", "few-04"]
    assert plan.own_recipes == ["mlp", "seen"]
    settings = [
        (plan.recipe(name).model.widths, plan.recipe(name).optimiser.learning_rate) for name in plan.recipes[2:]
    ]
    assert settings == [([3], 0.1), ([3], 1.0), ([5, 4], 0.1), ([5, 4], 1.0)]
    for name in plan.recipes[2:]:
        assert plan.population(name) == "few"
        assert plan.seeds(name) == [0, 1]
        schedule = plan.train_run(name, 0)["schedule"]
        assert (schedule["epochs"], schedule["batch_size"], schedule["keep_every"]) == (3, 50, 3)
        assert plan.dump_features(name, 0)["layers"] == [plan.feature_layer(name)]
    assert plan.population("mlp") == ""
    assert plan.population_recipes == ["mlp", "few-01", "few-02", "few-03", "few-04"]
    # the base is as it was
    assert plan.train_run("mlp", 0) == Plan(parse_study(STUDY)).train_run("mlp", 0)


def test_members_of_a_sweep_share_nothing_with_each_other_or_the_study():
    study = copy.deepcopy(SWEPT)
    study["recipes"]["mlp"]["layers"] = ["hidden2"]
    study["sweeps"]["few"] = {
        "base": "mlp",
        "set": {"schedule": {"batch_size": 20}, "model": {"kind": "mlp", "widths": [7]}},
        "vary": {"schedule.epochs": [1, 5], "model.batch_norm": [True, False]},
    }
    parsed = parse_study(study)
    plan = Plan(parsed)
    settings = [
        (recipe["schedule"]["epochs"], recipe["model"]["batch_norm"], recipe["model"]["widths"])
        for recipe in (plan.train_run(name, 0) for name in plan.recipes[2:])
    ]
    assert settings == [(1, True, [7]), (1, False, [7]), (5, True, [7]), (5, False, [7])]
    assert parsed.sweeps["few"].set == study["sweeps"]["few"]["set"]
    assert plan.layers("few-01") == ["hidden1"]  # the base has another depth


CONTRASTIVE = {
    "dataset": "digits",
    "task": "simclr",
    "model": {"kind": "mlp", "widths": [8]},
    "augmentation": {"flip": True},
    "schedule": {"epochs": 1},
}


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"augmentation": {}}, "augmentation"),
        ({"augmentation": {"jitter_probability": 0.5}}, "augmentation"),
        ({"schedule": {"epochs": 1, "batch_size": 1}}, "schedule.batch_size"),
        ({"output_scale": 2}, "output_scale"),
        ({"model": {"kind": "linear"}}, "model.kind"),
    ],
    ids=["no change", "no jitter", "one sample", "scaled", "linear"],
)
def test_a_contrastive_recipe_has_something_to_contrast(changes, key):
    parse_study(edited("recipes.mlp", CONTRASTIVE))
    with pytest.raises(FeaturespaceError, match=rf"recipes\.mlp\.{key}: "):
        parse_study(edited("recipes.mlp", CONTRASTIVE | changes))


@pytest.mark.parametrize("key", ["threads", "dtype", "pooling", "init", "output_scale"])
def test_noise_takes_no_key_of_a_network(key):
    noise = {"dataset": "digits", "task": "noise", "model": {"kind": "noise"}}
    values = {"threads": 2, "dtype": "float64", "pooling": "flatten", "init": {}, "output_scale": 2}
    parse_study(edited("recipes.mlp", noise))
    with pytest.raises(FeaturespaceError, match=rf"recipes\.mlp\.{key}: task noise has no network"):
        parse_study(edited("recipes.mlp", noise | {key: values[key]}))


def test_a_name_that_a_sweep_makes_is_taken():
    study = copy.deepcopy(SWEPT)
    study["recipes"]["few-02"] = study["recipes"]["seen"]
    with pytest.raises(FeaturespaceError, match=r"recipes\.few-02: a sweep makes a recipe of this name"):
        parse_study(study)


@pytest.mark.parametrize(
    ("dataset", "sizes", "n_classes", "n_samples"),
    [
        ({"kind": "digits"}, (1347, 450), 10, 1347),
        ({"kind": "digits", "train_limit": 100, "sample_set": {"split": "all", "limit": 400}}, (100, 450), 10, 400),
        ({"kind": "cifar100", "test_limit": 7, "sample_set": {"split": "test"}}, (50_000, 7), 100, 7),
        ({"kind": "orthonormal", "classes": 4, "samples_per_class": 5}, (20, 0), 4, 20),
    ],
    ids=["digits", "some digits", "cifar100", "orthonormal"],
)
def test_sizes_are_known_before_any_job(dataset, sizes, n_classes, n_samples):
    study = copy.deepcopy(STUDY)
    study["datasets"]["digits"] = dataset
    plan = Plan(parse_study(study))
    assert plan.n_samples("digits") == {"train": sizes[0], "test": sizes[1], "all": sum(sizes)}
    assert plan.n_classes("digits") == n_classes
    assert plan.sample_set_size("digits") == n_samples


def test_digits_have_as_many_samples_as_the_plan_says():
    from featurespace.preparation import read_digits

    _, labels, split, names = read_digits(0.3, 0)
    plan = Plan(parse_study(edited("datasets.digits.test_fraction", 0.3)))
    assert plan.n_classes("digits") == len(names)
    assert plan.n_samples("digits") == {"train": (split == 0).sum(), "test": (split == 1).sum(), "all": len(labels)}


# --- layers ---


def test_all_layers_of_a_sweep_are_dumped_if_asked_for():
    study = copy.deepcopy(SWEPT)
    study["sweeps"]["few"]["layers"] = "all"
    plan = Plan(parse_study(study))
    assert plan.layers("few-01") == ["hidden1"]
    assert plan.layers("few-03") == ["hidden1", "hidden2"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"task": "untrained", "schedule": None, "optimiser": None}, None),
        ({}, None),
        ({"model": {"kind": "linear"}}, "a network of kind linear takes none"),
        ({"model": {"kind": "hybrid"}}, "a network of kind hybrid takes none"),
        (CONTRASTIVE, "task simclr takes none"),
    ],
    ids=["untrained", "mlp", "linear", "hybrid", "contrastive"],
)
def test_a_head_stands_on_networks_that_classify(changes, problem):
    recipe = STUDY["recipes"]["mlp"] | {"head": {"layers": 2}} | changes
    study = edited("recipes.mlp", {key: value for key, value in recipe.items() if value is not None})
    if problem is None:
        plan = Plan(parse_study(study))
        assert plan.train_run("mlp", 0)["head"] == {"layers": 2, "width": None}
        assert plan.dump_features("mlp", 0)["head"] == {"layers": 2, "width": None}
    else:
        with pytest.raises(FeaturespaceError, match=rf"recipes\.mlp\.head: {problem}"):
            parse_study(study)


@pytest.mark.parametrize(
    ("classes", "problem"),
    [
        ([3, 1], None),
        ([3], "classes: is empty|at least"),
        ([3, 3], "classes.1: class 3 is named twice"),
        ([3, 10], "10"),
    ],
    ids=["two", "one", "twice", "unknown"],
)
def test_classes_that_are_kept_are_there(classes, problem):
    study = edited("datasets.digits.classes", classes)
    if problem is None:
        plan = Plan(parse_study(study))
        assert plan.n_classes("digits") == 2
        assert plan.n_samples("digits")["all"] == 183 + 182
    else:
        with pytest.raises(FeaturespaceError, match=rf"datasets\.digits\.({problem}|classes\.1: .*{problem})"):
            parse_study(study)


@pytest.mark.parametrize(
    ("dataset", "problem"),
    [
        ({"kind": "digits", "classes": [1, 2]}, None),
        ({"kind": "mnist"}, "no recipe is trained on samples of the shape of those of other"),
        ({"kind": "newsgroups"}, "no recipe is trained on samples of the shape of those of other"),
        ({"kind": "orthonormal"}, "orthonormal rows have no test split"),
        (None, "no data set 'other'"),
    ],
    ids=["other classes", "other size", "text", "no test split", "none"],
)
def test_layers_are_probed_on_data_that_fit(dataset, problem):
    study = edited("analysis", {"layer_probes": {"targets": ["other"]}})
    del study["recipes"]["seen"]
    if dataset is not None:
        study["datasets"]["other"] = dataset
    if problem is None:
        plan = Plan(parse_study(study))
        assert plan.probe_targets("mlp") == ["digits", "other"]
        study["datasets"]["far"] = {"kind": "mnist"}
        study["recipes"]["far"] = STUDY["recipes"]["mlp"] | {"dataset": "far"}
        assert Plan(parse_study(study)).probe_targets("far") == ["far"]
        assert plan.used_datasets == ["digits"]
        assert plan.prepared_datasets == ["digits", "other"]
    else:
        with pytest.raises(FeaturespaceError, match=rf"analysis\.layer_probes\.targets\.0: {problem}"):
            parse_study(study)


def test_text_has_no_images():
    study = copy.deepcopy(STUDY)
    study["datasets"]["digits"] = {"kind": "newsgroups", "features": 30}
    plan = Plan(parse_study(study | {"recipes": {"mlp": STUDY["recipes"]["mlp"]}}))
    assert plan.n_samples("digits") == {"train": 11314, "test": 7532, "all": 18846}
    assert plan.is_downloaded("digits")
    study["recipes"]["seen"]["dataset"] = "digits"
    with pytest.raises(FeaturespaceError, match="cnn needs images, not the rows of newsgroups"):
        parse_study(study)


def test_theory_is_for_deep_linear_networks_from_orthogonal_matrices():
    line = {
        "dataset": "rows",
        "model": {"kind": "linear"},
        "loss": "mse",
        "init": {"scheme": "orthogonal", "scale": 0.3},
        "schedule": {"epochs": 1},
    }
    study = copy.deepcopy(STUDY)
    study["datasets"]["rows"] = {"kind": "orthonormal"}
    study["recipes"] |= {
        "line": line,
        "default": line | {"init": {}},
        "entropy": line | {"loss": "cross-entropy"},
        "shuffled": line | {"task": "shuffled-labels"},
        "hybrid": line | {"model": {"kind": "hybrid"}},
    }
    plan = Plan(parse_study(study))
    assert plan.theory_recipes == ["line"]
    assert plan.classifier_recipes == ["mlp", "line", "default", "entropy", "shuffled", "hybrid"]
    assert plan.probed_recipes == ["mlp"]
    assert plan.predict_layers("line", 0)["scale"] == 0.3
    study["datasets"]["rows"]["sample_set"] = {"limit": 12}
    assert Plan(parse_study(study)).theory_recipes == []  # what is measured is not what was trained on


@pytest.mark.parametrize(
    ("figures", "ledgers", "expected"),
    [
        (["layers", "collapse"], [], False),
        (["layer_probes"], ["layerwise"], False),
        (["collapse", "angle_matrix"], [], True),
        (["collapse"], ["p-vectors"], True),
    ],
    ids=["layers", "the layerwise ledger", "a figure of angles", "the ledger of angles"],
)
def test_angles_are_compared_where_something_asks_for_them(figures, ledgers, expected):
    study = copy.deepcopy(STUDY) | {"figures": figures, "ledgers": ledgers}
    assert Plan(parse_study(study)).compares_angles is expected


# --- networks and weights from elsewhere ---

OWN = {"dataset": "digits", "model": "nets:build", "layers": ["blocks.*", "norm"], "schedule": {"epochs": 1}}
ENDS = [{"step": 0, "file": "a.pt"}, {"step": 9, "epoch": 1.5, "file": "b.safetensors"}]


def study_with(recipe: dict, **others: dict) -> dict:
    return STUDY | {"recipes": {"mine": recipe, **others}}


def test_a_text_stands_for_a_network_of_one_s_own():
    study = parse_study(study_with(OWN))
    whole = OWN | {"model": {"kind": "module", "factory": "nets:build"}}
    assert study == parse_study(study_with(whole))
    plan = Plan(study)
    assert plan.factories == {"mine": "nets:build"}
    assert (plan.layers("mine"), plan.feature_layer("mine")) == (["blocks.*", "norm"], "norm")
    assert plan.tapped_layers == {"mine": ["blocks.*", "norm"]}
    empty = {"arguments": {}, "inputs": None}
    assert plan.train_run("mine", 0)["model"] == {"kind": "module", "factory": "nets:build"} | empty


def test_the_choice_of_layers_is_no_part_of_training():
    plans = [Plan(parse_study(study_with(OWN | {"layers": layers}))) for layers in (["norm"], ["norm", "head"])]
    assert plans[0].train_run("mine", 0) == plans[1].train_run("mine", 0)
    assert plans[0].dump_features("mine", 0) != plans[1].dump_features("mine", 0)


def test_torchvision_s_small_networks_are_as_they_were():
    recipe = {"dataset": "fashion", "task": "untrained", "model": {"kind": "torchvision", "name": "resnet18"}}
    plan = Plan(parse_study(study_with(recipe)))
    assert plan.layers("mine") == ["stage1", "stage2", "stage3", "stage4", "pooled"]
    assert plan.train_run("mine", 0)["model"] == {"kind": "torchvision", "name": "resnet18"}


def test_members_of_a_sweep_over_an_own_network_have_its_layers():
    vary = {"model.arguments": [{"width": 3}, {"width": 4}]}
    for layers, expected in (("feature", ["norm"]), ("all", ["blocks.*", "norm"])):
        study = study_with(OWN) | {"sweeps": {"wide": {"base": "mine", "vary": vary, "layers": layers}}}
        plan = Plan(parse_study(study))
        assert plan.layers("wide-02") == expected
        assert plan.train_run("wide-02", 0)["model"]["arguments"] == {"width": 4}


def test_saved_weights_are_runs_of_their_seeds():
    weights = [{**saved, "seed": seed, "file": f"{seed}-{saved['file']}"} for saved in ENDS[::-1] for seed in (7, 2)]
    recipe = {"dataset": "digits", "model": {"kind": "mlp"}, "weights": weights, "block": 1}
    plan = Plan(parse_study(study_with(recipe)))
    assert plan.blocks("mine") == [[7], [2]]
    assert plan.saved_recipes == ["mine"]
    assert plan.weight_files("mine", 1) == ["2-a.pt", "2-b.safetensors"]
    assert plan.import_weights("mine", 1)["weights"] == [
        {"epoch": 0.0, "seed": 2, "step": 0},
        {"epoch": 1.5, "seed": 2, "step": 9},
    ]
    assert plan.classifier_recipes == ["mine"]


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"model": "nets"}, "model.factory: should be a module and a function in it"),
        ({"model": "nets:"}, "model.factory: should be a module and a function in it"),
        ({"model": "../nets:build"}, "model.factory: should be a module and a function in it"),
        ({"model": "nets:build()"}, "model.factory: should be a module and a function in it"),
        ({"model": "featurespace.networks:Mlp"}, "model.factory: featurespace is this library's own name"),
        ({"model": {"kind": "module"}}, "model.factory: is missing"),
        ({"model": {"kind": "modul", "factory": "a:b"}}, "model.kind: unknown kind 'modul'; did you mean 'module'?"),
        ({"model": {"kind": "module", "factory": "a:b", "arguments": {"a b": 1}}}, "model.arguments: 'a b' is no name"),
        ({"model": {"kind": "module", "factory": "a:b", "arguments": {"a": float("nan")}}}, "model.arguments: nan is"),
        (
            {"model": {"kind": "timm", "name": "vit", "arguments": {"pretrained": True}}},
            "model.arguments.pretrained: net",
        ),
        ({"model": {"kind": "timm", "name": "hf-hub:x/y"}}, "model.name: 'hf-hub:x/y' is no name"),
        ({"model": {"kind": "torchvision", "name": "vit_b_16"}}, "model.inputs: torchvision's vit_b_16 wants three"),
        ({"dataset": "rows", "model": {"kind": "timm", "name": "vit"}}, "model.name: is for images, not for the rows"),
        (
            {"dataset": "rows", "model": {"kind": "module", "factory": "a:b", "inputs": {"side": 8}}},
            "model.inputs: is for images",
        ),
        ({"layers": None}, "layers: paths of modules, or globs of them, are needed by a network of kind module"),
        ({"layers": []}, "layers: paths of modules"),
        ({"layers": ["a..b"]}, "layers.0: 'a..b' is no path of a module"),
        ({"layers": ["norm", "norm"]}, "layers.1: 'norm' is there twice"),
        ({"layers": ["blocks.*"]}, "feature_layer: needed where all `layers` are globs"),
        ({"feature_layer": "blocks.*"}, "feature_layer: 'blocks.*' is no path of one module"),
        ({"feature_layer": "head"}, "feature_layer: 'head' must be among `layers`"),
        ({"init": {"scheme": "orthogonal"}}, "init: a network of kind module is initialised by whoever builds it"),
        ({"head": {"layers": 1}}, "head: a network of kind module takes none"),
        ({"task": "simclr", "augmentation": {"flip": True}}, "model.kind: task simclr needs a network that classifies"),
        ({"task": "saved", "schedule": None}, "weights: task saved needs them"),
        ({"weights": ENDS}, "schedule: nothing is trained where `weights` are given"),
        ({"weights": ENDS, "task": "shuffled-labels"}, "weights: only tasks classify, reconstruct, saved take them"),
        ({"weights": [], "schedule": None}, "weights: is empty"),
        ({"weights": [*ENDS, ENDS[0]], "schedule": DELETE}, "weights.2: seed 0 has two files of step 0"),
        ({"weights": [*ENDS, {**ENDS[0], "seed": 1}], "schedule": DELETE}, "weights: seed 1 has other steps"),
        ({"weights": [{"step": 1, "epoch": 2, "file": "a.pt"}, {"step": 2, "epoch": 1, "file": "a.pt"}]}, "schedule"),
        (
            {"weights": [{"step": 1, "file": "a.npz"}], "schedule": DELETE},
            "weights.0.file: 'a.npz' is no file of weights",
        ),
        ({"weights": [{"step": 1, "file": "{a}.pt"}], "schedule": DELETE}, "weights.0.file: should be the path"),
        ({"weights": [{"step": 1, "file": "nowhere.pt"}], "schedule": DELETE}, "weights.0.file: no file 'nowhere.pt'"),
    ],
)
def test_a_network_from_elsewhere_that_cannot_be_is_refused(changes, problem):
    recipe = {key: value for key, value in (OWN | changes).items() if value != DELETE}
    study = study_with(recipe)
    study["datasets"] = STUDY["datasets"] | {"rows": {"kind": "orthonormal"}}
    with pytest.raises(FeaturespaceError) as caught:
        check_sources(parse_study(study))
    assert f"recipes.mine.{problem}" in str(caught.value)


def test_nothing_of_saved_weights_can_be_varied():
    recipe = {"dataset": "digits", "model": {"kind": "mlp"}, "weights": ENDS}
    study = study_with(recipe) | {"sweeps": {"some": {"base": "mine", "vary": {"threads": [1, 2]}}}}
    with pytest.raises(FeaturespaceError, match=r"sweeps\.some\.base: weights of mine were saved elsewhere"):
        parse_study(study)


def test_of_several_errors_one_is_explained_and_the_others_are_named():
    study = copy.deepcopy(STUDY) | {"sedes": 3, "seeds": -1, "\x1b[2J": 1}
    study["analysis"] = {"angles": {"permutations": "many"}}
    with pytest.raises(FeaturespaceError) as caught:
        parse_study(study, "mine.yaml")
    message = str(caught.value)
    assert message.startswith("mine.yaml: sedes: unknown key; did you mean 'seeds'?")
    assert set(message.rpartition("; also wrong: ")[2].split(", ")) == {
        *("\\x1b[2J", "seeds", "analysis.angles.permutations"),
    }
    assert message.isprintable()
    for i in range(20):
        study[f"key{i}"] = 0
    with pytest.raises(FeaturespaceError, match=r"; also wrong: (\S+, ){7}\S+ and 15 more$"):
        parse_study(study, "mine.yaml")
