"""Stale is exact: every kind of edit against the exact set of jobs that must run, as the real Snakemake sees it."""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import FIGURES, TINY

pytestmark = pytest.mark.workflow

INPUTS = {"digits": "datasets/digits", "rows": "datasets/rows"}
RUNS = {
    "mlp": ["runs/mlp/block-0", "runs/mlp/block-1"],
    "seen": ["runs/seen/block-0"],
    "line": ["runs/line/block-0"],
    "chance": ["runs/chance/block-0"],
    "few-01": ["runs/few-01/block-0"],  # a member of a sweep
}
NETWORKS_OF = {"digits": ["mlp", "seen", "few-01"], "rows": ["line"]}
OWN_NETWORKS = ["mlp", "seen", "line"]
CLASSIFIERS = ["mlp", "line", "few-01"]
PROBED = ["mlp", "few-01"]  # they learn the classes of data with a test split


# --- what must run below a job, written out by hand ---

REPORT = {"write_report"}
STUDY = {"write_study"} | REPORT
CLAIMS = {"test_claims"} | REPORT


def plots(*names: str) -> set[str]:
    """The figures, and what shows them."""
    return {f"plot_{name}" for name in names} | REPORT


POPULATION = {"correlate_population"} | plots("data_angle_accuracy", "indicators") | CLAIMS
OF_DYNAMICS = plots("angle_dynamics", "reference_angles", "early_angles", "mean_control")
OF_PAIRS = plots("angle_matrix", "permutation_null", "training_effect", "shuffled_labels")
COMPARISON = {"compare_runs"} | OF_DYNAMICS | OF_PAIRS | POPULATION
SUBSPACES = {"compare_subspaces"} | plots("subspace_angles") | CLAIMS
ENTRIES = {"tabulate_entries"} | plots("entry_densities", "entry_samples", "mean_control") | CLAIMS
SIMILARITY = {"compare_similarity"} | plots("similarity") | CLAIMS
SENSITIVITY = {"assess_sensitivity"} | plots("sensitivity") | CLAIMS
OF_LAYERS = plots(
    *("layers", "layer_probes", "normalisation_modes", "collapse", "embeddings", "linear_depth", "transfer")
)
RUN_TABLE = {"tabulate_runs"} | OF_LAYERS | POPULATION
PREDICTED = {"predict_layers/line/block-0"} | plots("layer_theory", "law_sweep", "assumptions") | CLAIMS


def decomposed(*origins: str) -> set[str]:
    """The decomposition of some features, and below."""
    jobs = {f"decompose_features/{origin}" for origin in origins} | COMPARISON
    own = [origin for origin in origins if "few" not in origin]
    if own:
        jobs |= SUBSPACES | ENTRIES | plots("spectra", "explained_variance")
    if any(origin.startswith("runs/") for origin in own):
        jobs |= SENSITIVITY
    return jobs


def measured(*origins: str) -> set[str]:
    """The layer measures of some features, and below: a ledger asks for all networks, a figure for the own ones."""
    jobs = {f"measure_layers/{origin}" for origin in origins}
    for origin in origins:
        recipe = origin.split("/")[1]
        jobs |= CLAIMS if recipe != "chance" else set()
        jobs |= plots("layers") if recipe != "few-01" else set()
        jobs |= plots("linear_depth", "transfer") if recipe in PROBED else set()
        jobs |= plots("collapse", "normalisation_modes") if recipe in ("mlp", "line") else set()
        jobs |= plots("layer_probes") if recipe in ("mlp", *INPUTS) else set()
        jobs |= PREDICTED if recipe in ("line", "rows") else set()
    return jobs


def weighed(*recipes: str) -> set[str]:
    """The measures that take the weights of recipes that learn classes, and below."""
    classifiers = [recipe for recipe in recipes if recipe in CLASSIFIERS]
    if not classifiers:
        return set()
    jobs = {f"measure_networks/{run.removeprefix('runs/')}" for name in classifiers for run in RUNS[name]} | CLAIMS
    jobs |= plots("collapse", "normalisation_modes") if {*classifiers} - {"few-01"} else set()
    return jobs | (PREDICTED if "line" in classifiers else set())


def probed(*recipes: str) -> set[str]:
    """The probes of the layers of recipes that learn classes, and below."""
    names = [recipe for recipe in recipes if recipe in PROBED]
    jobs = {f"probe_layers/{run.removeprefix('runs/')}" for name in names for run in RUNS[name]}
    if names:
        jobs |= plots("transfer") | CLAIMS
    return jobs | (plots("layer_probes") if "mlp" in names else set())


def embedded(*runs: str) -> set[str]:
    """The maps of the layers of some runs: of the first block of the study's own recipes that learn classes."""
    shown = {run.removeprefix("runs/") for run in runs if run in ("runs/mlp/block-0", "runs/line/block-0")}
    return {f"embed_layers/{run}" for run in shown} | (plots("embeddings") if shown else set())


def analysed(*origins: str) -> set[str]:
    """Everything that reads features."""
    inputs = SIMILARITY if any(origin.startswith("datasets/") for origin in origins) else set()
    return decomposed(*origins) | measured(*origins) | embedded(*origins) | inputs


def ended(*runs: str) -> set[str]:
    """The ends of some runs, and below."""
    names = {run.removeprefix("runs/") for run in runs if "few" not in run}
    if not names:
        return set()
    return {f"{stage}/{name}" for name in names for stage in ("dump_ends", "probe_run")} | SIMILARITY | SENSITIVITY


def dumped(*recipes: str) -> set[str]:
    """The features of recipes, and below, without the ends."""
    runs = [run for recipe in recipes for run in RUNS[recipe]]
    return {f"dump_features/{run.removeprefix('runs/')}" for run in runs} | analysed(*runs)


def ends(*recipes: str) -> set[str]:
    """The ends of recipes, and below."""
    return ended(*(run for recipe in recipes for run in RUNS[recipe]))


def drawn() -> set[str]:
    """The features that are drawn at random, and below."""
    return {"draw_noise/chance/block-0"} | analysed(*RUNS["chance"]) | SIMILARITY | SENSITIVITY


def trained(*recipes: str) -> set[str]:
    """The training of recipes, and below."""
    runs = [run for recipe in recipes for run in RUNS[recipe]]
    training = {f"train_run/{run.removeprefix('runs/')}" for run in runs}
    own = plots("training") if set(recipes) & set(OWN_NETWORKS) else set()
    weights = weighed(*recipes) | probed(*recipes) | (PREDICTED if "line" in recipes else set())
    return training | dumped(*recipes) | ends(*recipes) | weights | RUN_TABLE | own


def inputs(*datasets: str) -> set[str]:
    """The data sets' own features, and below."""
    return {f"dump_inputs/{name}" for name in datasets} | analysed(*(INPUTS[name] for name in datasets))


def prepared(*datasets: str) -> set[str]:
    """Data sets, and below."""
    recipes = [recipe for name in datasets for recipe in NETWORKS_OF[name]]
    noise = drawn() if "digits" in datasets else set()
    return {f"prepare_dataset/{name}" for name in datasets} | inputs(*datasets) | trained(*recipes) | noise


ALL_RUNS = [run for runs in RUNS.values() for run in runs]
ALL_ORIGINS = [*INPUTS.values(), *ALL_RUNS]
EVERY_PLOT = plots(*FIGURES)
EVERYTHING = prepared("digits", "rows") | STUDY


# --- edits of the study ---


def setting(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set a key of the study."""

    def edit(study: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for part in parents:
            study = study.setdefault(part, {})
        study[last] = value

    return edit


def reordered(study: dict[str, Any]) -> None:
    """Turn the recipes round: the colours of the figures follow their order."""
    study["recipes"] = dict(reversed(study["recipes"].items()))


def without_seen(study: dict[str, Any]) -> None:
    """Take a recipe away, that was a reference."""
    del study["recipes"]["seen"]
    study["analysis"]["angles"]["references"].remove("seen")


def reordered_keys(study: dict[str, Any]) -> None:
    """Turn the keys of a recipe round, which says nothing new."""
    study["recipes"]["mlp"] = dict(reversed(study["recipes"]["mlp"].items()))


ANOTHER = {"dataset": "digits", "task": "untrained", "model": {"kind": "mlp", "widths": [4]}, "seeds": 1}
NEW_RUN = (
    {"train_run/new/block-0", "dump_features/new/block-0"} | analysed("runs/new/block-0") | ended("runs/new/block-0")
)
# what every own recipe is known to; the run table and the statistics know of members and classifiers only
OF_RECIPES = plots(*({*FIGURES} - {"law_sweep", "assumptions"}))  # these two know deep linear networks only
TABLES = COMPARISON | SUBSPACES | ENTRIES | SIMILARITY | SENSITIVITY | RUN_TABLE
EVERY_TABLE = TABLES | OF_RECIPES | STUDY

STUDY_EDITS: dict[str, tuple[Callable[[dict[str, Any]], None], set[str]]] = {
    "nothing": (lambda study: None, set()),
    "the order of keys": (reordered_keys, set()),
    "2 becomes 2.0, in a number that may be fractional": (setting("datasets.rows.noise", 1), set()),
    "the device": (setting("device", "auto"), set()),
    "the title": (setting("title", "Another"), STUDY),
    # the base of a sweep: its member changes with it
    "the learning rate of one recipe": (
        setting("recipes.mlp.optimiser.learning_rate", 0.05),
        trained("mlp", "few-01") | STUDY,
    ),
    "the epochs of one recipe": (setting("recipes.line.schedule.epochs", 3), trained("line") | STUDY),
    # the controls compare networks of one kind and other widths
    "the model of one recipe": (setting("recipes.mlp.model.widths", [16, 9]), trained("mlp") | STUDY),
    "the values of a sweep": (setting("sweeps.few.vary", {"model.widths": [[5]]}), trained("few-01") | STUDY),
    "a sweep's member more": (
        setting("sweeps.few.vary", {"model.widths": [[4], [5]]}),
        {f"{stage}/few-02/block-0" for stage in ("train_run", "dump_features", "measure_networks", "probe_layers")}
        | {f"{stage}/runs/few-02/block-0" for stage in ("decompose_features", "measure_layers")}
        | plots("linear_depth", "transfer")
        | COMPARISON
        | RUN_TABLE
        | STUDY,
    ),
    "the width of the noise": (setting("recipes.chance.model.width", 6), drawn() | STUDY),
    "the initialisation": (setting("recipes.seen.init", {"scheme": "orthogonal"}), trained("seen") | STUDY),
    "the kept steps": (setting("recipes.mlp.schedule.keep_every", 2), trained("mlp") | STUDY),
    "the layers that are dumped": (
        setting("recipes.mlp.layers", ["hidden2"]),
        dumped("mlp") | weighed("mlp") | probed("mlp") | SENSITIVITY | STUDY,
    ),
    "the pooling of one recipe": (setting("recipes.seen.pooling", "flatten"), dumped("seen") | ends("seen") | STUDY),
    "a head": (setting("recipes.mlp.head", {"layers": 1}), trained("mlp", "few-01") | STUDY),
    "the probes of layers": (
        setting("analysis.layer_probes.regularisation", 0.1),
        probed(*PROBED) | STUDY,
    ),
    "the maps of layers": (setting("analysis.embedding.samples", 50), embedded(*ALL_RUNS) | STUDY),
    "the layer that is compared": (
        setting("recipes.seen.feature_layer", "conv1"),
        COMPARISON | SUBSPACES | ENTRIES | ends("seen") | plots("spectra", "explained_variance") | STUDY,
    ),
    "the sample set": (
        setting("datasets.digits.sample_set.limit", 150),
        inputs("digits")
        | dumped("mlp", "seen", "few-01")
        | ends("mlp", "seen")
        | weighed("mlp", "few-01")
        | drawn()
        | STUDY,
    ),
    "the samples held out": (
        setting("analysis.held_out", 100),
        ends("mlp", "seen", "line") | drawn() | STUDY,
    ),
    "the dimensions of subspaces": (setting("analysis.subspaces.dimensions", [1]), SUBSPACES | STUDY),
    "the bins of the entries": (setting("analysis.entries.bins", 30), ENTRIES | STUDY),
    "the linear probe": (
        setting("analysis.probe.regularisation", 2),
        {f"probe_run/{run.removeprefix('runs/')}" for name in OWN_NETWORKS for run in RUNS[name]} | CLAIMS | STUDY,
    ),
    "the shares that are kept": (setting("analysis.sensitivity.shares", [0.5, 1.0]), SENSITIVITY | STUDY),
    "the resamples": (setting("analysis.statistics.resamples", 199), POPULATION | STUDY),
    "the references": (
        setting("analysis.angles.references", ["mlp"]),
        COMPARISON | plots("reference_angles", "early_angles") | STUDY,
    ),
    "no ledger": (setting("ledgers", []), STUDY),
    "the scaling of a data set": (setting("datasets.digits.scaling", "standardise"), prepared("digits") | STUDY),
    "the noise of a data set": (setting("datasets.rows.noise", 0.5), prepared("rows") | STUDY),
    "how many vectors": (setting("analysis.spectra.vectors", 3), decomposed(*ALL_ORIGINS) | STUDY),
    "the numerical rank": (
        setting("analysis.measures.rank_energy", 0.9),
        measured(*ALL_ORIGINS) | weighed(*CLASSIFIERS) | STUDY,
    ),
    "the permutations": (setting("analysis.angles.permutations", 29), COMPARISON | CLAIMS | STUDY),
    "the spectrum": (setting("analysis.spectra.spectrum", "leading"), decomposed(*ALL_ORIGINS) | STUDY),
    "the permutations' seed": (setting("analysis.angles.permutation_seed", 1), COMPARISON | STUDY),
    "the split's seed": (setting("datasets.digits.split_seed", 1), prepared("digits") | STUDY),
    "the momentum": (setting("recipes.line.optimiser", {"kind": "adam", "weight_decay": 0.1}), trained("line") | STUDY),
    # theory speaks of squared error
    "the loss": (
        setting("recipes.line.loss", "cross-entropy"),
        trained("line") - {"predict_layers/line/block-0"} | plots("training") | STUDY,
    ),
    "the output scale": (setting("recipes.line.output_scale", 2), trained("line") | STUDY),
    "the precision": (setting("recipes.line.dtype", "float64"), trained("line") | STUDY),
    "the precision of products": (setting("recipes.line.autocast", "bfloat16"), trained("line") | STUDY),
    "the threads": (setting("recipes.line.threads", 2), trained("line") | STUDY),
    "augmentation": (
        setting("recipes.mlp.augmentation", {"pad_crop": 1}),
        trained("mlp", "few-01") | STUDY,
    ),
    "the task": (
        setting("recipes.line.task", "shuffled-labels"),
        trained("line") - {"predict_layers/line/block-0"} | EVERY_TABLE,
    ),
    "pooling, where nothing is pooled": (setting("recipes.mlp.pooling", "flatten"), STUDY),
    "feature stores that need not be kept": (setting("keep_features", False), STUDY),
    "the same seeds, as a list": (setting("recipes.mlp.seeds", [0, 1, 2]), STUDY),
    "a seed added to a list, which leaves the full block alone": (
        setting("recipes.mlp.seeds", [0, 1, 2, 7]),
        {f"{stage}/mlp/block-1" for stage in ("train_run", "dump_features", "measure_networks", "probe_layers")}
        | analysed("runs/mlp/block-1")
        | ended("runs/mlp/block-1")
        | TABLES
        | plots("layer_probes", "spectra", "explained_variance", "training")
        | STUDY,
    ),
    "a seed that refills the last block": (
        setting("recipes.mlp.seeds", 4),
        {f"{stage}/mlp/block-1" for stage in ("train_run", "dump_features", "measure_networks", "probe_layers")}
        | analysed("runs/mlp/block-1")
        | ended("runs/mlp/block-1")
        | TABLES
        | plots("layer_probes", "spectra", "explained_variance", "training")
        | STUDY,
    ),
    "a seed that opens a block": (
        setting("recipes.seen.seeds", 2),
        {f"{stage}/seen/block-1" for stage in ("train_run", "dump_features")}
        | analysed("runs/seen/block-1")
        | ended("runs/seen/block-1")
        | TABLES
        | plots("spectra", "explained_variance", "training")
        | STUDY,
    ),
    "a new recipe": (setting("recipes.new", ANOTHER), NEW_RUN | EVERY_TABLE),
    "a recipe less": (without_seen, EVERY_TABLE),
    "the order of recipes": (reordered, EVERY_TABLE),
    "a figure less": (setting("figures", FIGURES[:-1]), STUDY),
    "a data set that nothing uses": (setting("datasets.spare", {"kind": "digits"}), STUDY),
}


@pytest.mark.parametrize("edit", STUDY_EDITS)
def test_an_edit_of_the_study_runs_exactly_its_jobs(tiny, tmp_path, edit):
    change, expected = STUDY_EDITS[edit]
    study = copy.deepcopy(TINY)
    change(study)
    workflow = tiny.copy_records_to(tmp_path / "edited")
    workflow.write_study(study)
    assert workflow.pending() == expected


# --- edits of the code: the rules whose scripts import a module, written out by hand ---

TRAINING = trained("mlp", "seen", "line", "few-01")
DUMPING = dumped("mlp", "seen", "line", "few-01") | ends("mlp", "seen", "line")
ENDS = ends(*OWN_NETWORKS)
PROBING = {f"probe_run/{run.removeprefix('runs/')}" for name in OWN_NETWORKS for run in RUNS[name]} | CLAIMS
DECOMPOSING = decomposed(*ALL_ORIGINS)
MEASURING = measured(*ALL_ORIGINS)
WEIGHING = weighed(*CLASSIFIERS)
PROBING_LAYERS = probed(*PROBED)
EMBEDDING = embedded(*ALL_RUNS)
DUMPING_INPUTS = inputs("digits", "rows")
PREPARING = prepared("digits", "rows")

WITH_PANELS = [
    *("angle_matrix", "reference_angles", "early_angles", "mean_control"),
    *("permutation_null", "training_effect", "shuffled_labels"),
]

CODE_EDITS: dict[str, set[str]] = {
    # scripts
    "prepare_dataset.py": PREPARING,
    "dump_inputs.py": DUMPING_INPUTS,
    "train_run.py": TRAINING,
    "import_weights.py": set(),  # no weights here were saved elsewhere; see test_built_elsewhere.py
    "dump_features.py": dumped("mlp", "seen", "line", "few-01"),
    "decompose_features.py": DECOMPOSING,
    "measure_layers.py": MEASURING,
    "measure_networks.py": WEIGHING,
    "predict_layers.py": PREDICTED,
    "probe_layers.py": PROBING_LAYERS,
    "embed_layers.py": EMBEDDING,
    "dump_ends.py": ENDS,
    "draw_noise.py": drawn(),
    # of data sets and features of one's own, of which this study has none: test_own.py
    "import_dataset.py": set(),
    "import_features.py": set(),
    "probe_run.py": PROBING,
    "compare_runs.py": COMPARISON,
    "compare_subspaces.py": SUBSPACES,
    "tabulate_entries.py": ENTRIES,
    "compare_similarity.py": SIMILARITY,
    "assess_sensitivity.py": SENSITIVITY,
    "correlate_population.py": POPULATION,
    "test_claims.py": CLAIMS,
    "tabulate_runs.py": RUN_TABLE,
    "write_study.py": STUDY,
    "write_report.py": REPORT,
    "verify.py": set(),
    "publish_figure.py": set(),
    **{f"plot_{name}.py": plots(name) for name in FIGURES},
    # the library
    "featurespace/config.py": set(),
    "featurespace/plan.py": set(),
    "featurespace/closure.py": set(),
    "featurespace/inventory.py": set(),
    "featurespace/image_folder.py": set(),
    "featurespace/foreign.py": set(),
    **{f"featurespace/own_{name}.py": set() for name in ("arrays", "data", "features", "layers", "sources", "split")},
    "featurespace/errors.py": EVERYTHING,
    "featurespace/files.py": EVERYTHING,
    "featurespace/checksums.py": EVERYTHING,
    "featurespace/made.py": EVERYTHING,
    "featurespace/verification.py": set(),
    # the study has nothing of one's own: test_own.py is about one that has
    **{f"{name}.py": set() for name in ("measure_own", "tabulate_own", "plot_own", "clean_resume")},
    **{f"featurespace/own_{name}.py": set() for name in ("code", "measures", "figures")},
    **{f"featurespace/{name}.py": set() for name in ("leftovers", "status", "namesakes")},
    "featurespace/script.py": EVERYTHING,
    "featurespace/cluster.py": EVERYTHING,
    "featurespace/stores.py": PREPARING,
    "featurespace/catalogue.py": PREPARING,
    "featurespace/preparation.py": PREPARING,
    "featurespace/text.py": PREPARING,
    "featurespace/retrieval.py": set(),
    "featurespace/architectures.py": DUMPING_INPUTS | TRAINING,
    "featurespace/datasets.py": PREPARING,
    "featurespace/device.py": TRAINING | DECOMPOSING | MEASURING,
    "featurespace/networks.py": TRAINING,
    "featurespace/convnets.py": TRAINING,
    "featurespace/own_networks.py": TRAINING,
    "featurespace/own_errors.py": TRAINING,
    "featurespace/saved_weights.py": set(),
    "featurespace/augmentation.py": TRAINING,
    "featurespace/contrast.py": TRAINING,
    "featurespace/optimisers.py": TRAINING,
    "featurespace/training.py": TRAINING,
    "featurespace/parsimony.py": TRAINING,
    "featurespace/weights.py": TRAINING,
    "featurespace/extraction.py": DUMPING | WEIGHING | PROBING_LAYERS,
    "featurespace/streams.py": DUMPING | WEIGHING | PROBING_LAYERS | DECOMPOSING | MEASURING,
    "featurespace/spectra.py": DECOMPOSING | MEASURING | WEIGHING,
    "featurespace/products.py": DECOMPOSING | MEASURING | WEIGHING | PROBING_LAYERS,
    "featurespace/measures.py": MEASURING | WEIGHING,
    "featurespace/network_measures.py": WEIGHING,
    "featurespace/theory.py": PREDICTED,
    "featurespace/layer_probes.py": PROBING_LAYERS,
    "featurespace/embedding.py": EMBEDDING,
    "featurespace/silhouette.py": PROBING_LAYERS | EMBEDDING,
    "featurespace/ends.py": ENDS | drawn(),
    "featurespace/noise.py": drawn(),
    "featurespace/probe.py": PROBING,
    "featurespace/sources.py": COMPARISON | SUBSPACES | ENTRIES,
    "featurespace/angles.py": COMPARISON | SUBSPACES | ENTRIES | SIMILARITY | SENSITIVITY,
    "featurespace/comparison.py": COMPARISON,
    "featurespace/subspaces.py": SUBSPACES,
    "featurespace/entries.py": ENTRIES,
    "featurespace/similarity.py": SIMILARITY,
    "featurespace/sensitivity.py": SENSITIVITY,
    "featurespace/statistics.py": POPULATION | plots("linear_depth", "transfer"),
    "featurespace/population.py": POPULATION,
    "featurespace/claim_statistics.py": CLAIMS,
    "featurespace/layer_statistics.py": CLAIMS,
    "featurespace/evidence.py": CLAIMS,
    "featurespace/claims.py": CLAIMS,
    "featurespace/rules.py": CLAIMS,
    "featurespace/tables.py": EVERY_PLOT | RUN_TABLE | PREDICTED,
    "featurespace/figures/series.py": EVERY_PLOT,
    "featurespace/style.py": EVERY_PLOT,
    "featurespace/figures/panels.py": plots(*WITH_PANELS),
    "featurespace/figures/depths.py": plots(
        "collapse", "normalisation_modes", "layer_probes", "linear_depth", "transfer"
    ),
    "featurespace/figures/headings.py": plots(
        *("layer_theory", "collapse", "normalisation_modes", "layer_probes", "embeddings", "linear_depth", "transfer")
    ),
    "featurespace/figures/ladders.py": plots("linear_depth", "transfer"),
    "featurespace/figures/convergence.py": plots(
        "layer_theory", "law_sweep", "assumptions", "linear_depth", "transfer"
    ),
    **{f"featurespace/figures/{name}.py": plots(name) for name in FIGURES},
    "featurespace/figures/layers.py": plots("layers", "linear_depth", "transfer"),
    "featurespace/run_table.py": RUN_TABLE,
    "featurespace/report.py": REPORT,
    "featurespace/explorer.py": REPORT,
}


@pytest.mark.parametrize("path", CODE_EDITS)
def test_an_edit_of_code_runs_exactly_the_rules_that_import_it(tiny, tmp_path, path):
    workflow = tiny.copy_records_to(tmp_path / "edited")
    append(workflow.root / "scripts" / path, "\nEDITED = True\n")
    assert workflow.pending() == CODE_EDITS[path]


def append(path: Path, text: str) -> None:
    """Edit a file, and keep its time stamp: an edit counts however old the file claims to be."""
    before = path.stat()
    path.write_text(path.read_text() + text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def touch_everything(root: Path) -> None:
    """Give every file of the workflow the time stamp of now, as a fresh checkout does."""
    for part in ("Snakefile", "rules", "scripts", "profiles", "report", "envs", "study.yaml"):
        for path in [root / part, *(root / part).rglob("*")]:
            path.touch()


def touch_results(root: Path) -> None:
    """Give every product, however large, the time stamp of now: a consumer before what it was made from."""
    for path in sorted((root / "results").rglob("*"), reverse=True):
        path.touch()


OTHER_EDITS: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "a touch of every file of the workflow": (touch_everything, set()),
    "a comment": (lambda root: append(root / "scripts/featurespace/training.py", "\n# a comment\n"), set()),
    "a comment in a rule": (lambda root: append(root / "rules/training.smk", "\n# a comment\n"), set()),
    "a caption": (lambda root: append(root / "report/layers.rst", "\nAnd more.\n"), REPORT),
    **{
        f"the decision rules: {name}": (
            lambda root, name=name: append(root / f"scripts/featurespace/decision_rules/{name}.yaml", "\n# another\n"),
            CLAIMS,
        )
        for name in ("p-vectors", "layerwise", "trained")
    },
    **{
        f"the report's {part}": (
            lambda root, part=part: append(root / f"scripts/featurespace/templates/report.{part}", "\n"),
            REPORT,
        )
        for part in ("html.j2", "css", "js")
    },
    "a touch of a digest": (lambda root: (root / "results/tiny/datasets/rows/dataset.json").touch(), set()),
    "a touch of a table": (lambda root: (root / "results/tiny/tables/runs.csv").touch(), set()),
    "a touch of everything that was made": (touch_results, set()),
    "a figure that is gone": (lambda root: (root / "results/tiny/figures/layers.svg").unlink(), plots("layers")),
    "a table that is gone": (lambda root: (root / "results/tiny/tables/runs.csv").unlink(), RUN_TABLE),
    # nothing that was made from it is stale
    "a history that is gone": (lambda root: (root / "results/tiny/runs/seen/block-0/history.csv").unlink(), set()),
}


@pytest.mark.parametrize("edit", OTHER_EDITS)
def test_other_edits_run_exactly_their_jobs(tiny, tmp_path, edit):
    change, expected = OTHER_EDITS[edit]
    workflow = tiny.copy_records_to(tmp_path / "edited")
    change(workflow.root)
    assert workflow.pending() == expected


def test_every_script_and_module_is_in_the_table():
    scripts = Path(__file__).parents[2] / "scripts"
    found = {str(path.relative_to(scripts)) for path in scripts.rglob("*.py")}
    # nothing to test: files without code of their own, what only the network's rule imports, and what no rule does
    found -= {str(path.relative_to(scripts)) for path in scripts.rglob("__init__.py")}
    found -= {f"featurespace/{name}.py" for name in ("arrays", "exports", "recorder", "recordings")}
    assert found - set(CODE_EDITS) == {"retrieve_dataset.py"}


def test_what_was_stale_runs_and_then_nothing_is(tiny, tmp_path):
    workflow = tiny.copy_to(tmp_path / "edited")
    study = copy.deepcopy(TINY)
    study["analysis"]["measures"] = {"rank_energy": 0.8}
    workflow.write_study(study)
    before = (workflow.root / "results/tiny/runs/mlp/block-0/weights.json").stat().st_mtime_ns
    workflow.run()
    assert workflow.pending() == set()
    assert (workflow.root / "results/tiny/runs/mlp/block-0/weights.json").stat().st_mtime_ns == before


def test_one_figure_by_name_runs_only_what_it_needs(tiny, tmp_path):
    workflow = tiny.copy_to(tmp_path / "edited")
    append(workflow.root / "scripts/featurespace/style.py", "\nEDITED = True\n")
    figures = workflow.root / "results/tiny/figures"
    before = {path.name: path.stat().st_mtime_ns for path in figures.iterdir()}
    workflow.run("results/tiny/figures/training.svg")
    changed = {name for name, when in before.items() if (figures / name).stat().st_mtime_ns != when}
    assert changed == {"training.svg", "training.png", "training.csv"}
