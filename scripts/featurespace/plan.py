"""What a study needs: its runs, their blocks of seeds, and the parameters of every job.

A job's parameters are the leaves of the study that it uses and nothing else: they decide what is stale. They are
plain data with sorted keys and normalised values (3 and 3.0 are one value), because Snakemake compares their text.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

from featurespace import architectures
from featurespace.catalogue import PUBLISHED, digits_split_sizes
from featurespace.config import (
    CONTRASTIVE,
    LAYER_FIGURES,
    N_CLASSES,
    OTHER_FIGURES,
    SUPERVISED,
    WITHOUT_NETWORK,
    Contrast,
    Digits,
    FunctionData,
    ImageSection,
    Module,
    Orthonormal,
    Own,
    Recipe,
    Retrieved,
    Saved,
    Study,
    feature_layer_of,
)
from featurespace.own_sources import OwnSources

# what a recipe is beside its data, task, network and length: two recipes may differ in one of these alone
SETTING = (
    *("loss", "init", "output_scale", "head", "optimiser", "schedule"),
    *("augmentation", "dtype", "autocast", "pooling"),
)
# the keys of a schedule that only one kind of it has
OF_ONE_SCHEDULE = {"final_fraction": "cosine", "drop_factor": "step"}
DEFAULT_OPTIMISER = {"kind": "adam", "learning_rate": 1e-3, "weight_decay": 0.0}


def normalised(value: Any) -> Any:
    """Sort the keys of nested plain data, and leave only what JSON knows."""
    return json.loads(json.dumps(value, sort_keys=True))


def blocks_of(seeds: list[int], size: int) -> list[list[int]]:
    """Cut seeds, in order, into blocks: another seed refills the last block or opens one, full blocks stay."""
    return [seeds[i : i + size] for i in range(0, len(seeds), size)]


class Plan:
    """The jobs of one study, by rule."""

    def __init__(self, study: Study, sources: OwnSources | None = None) -> None:
        self.study = study
        self.sources = sources or OwnSources(study)

    # --- what there is ---

    def recipe(self, name: str) -> Recipe:
        """Return a recipe by name, a member of a sweep too."""
        return self.study.all_recipes[name]

    def population(self, name: str) -> str:
        """Return the sweep that a recipe is a member of, or nothing: it is one of the study's own."""
        return self.study.members[name][0] if name in self.study.members else ""

    @cached_property
    def recipes(self) -> list[str]:
        """Every recipe: the study's own, then the members of its sweeps."""
        return list(self.study.all_recipes)

    @cached_property
    def own_recipes(self) -> list[str]:
        """The recipes of the study file, and features that were made elsewhere, without the members of sweeps."""
        return [*self.study.recipes, *self.study.features]

    @cached_property
    def network_recipes(self) -> list[str]:
        """The recipes that have networks, and so weights and a history."""
        return [name for name in self.recipes if self.recipe(name).task not in WITHOUT_NETWORK]

    @cached_property
    def noise_recipes(self) -> list[str]:
        """The recipes whose features are drawn at random."""
        return [name for name in self.recipes if self.recipe(name).task == "noise"]

    @cached_property
    def saved_recipes(self) -> list[str]:
        """The recipes whose weights were saved elsewhere."""
        return [name for name in self.recipes if self.recipe(name).weights is not None]

    @cached_property
    def factories(self) -> dict[str, str]:
        """The functions of the user's that build networks, by recipe: `package.module:function`."""
        models = {name: self.recipe(name).model for name in self.recipes}
        return {name: model.factory for name, model in models.items() if isinstance(model, Module)}

    @property
    def names_own_code(self) -> bool:
        """Whether the study names any module of the user's own."""
        functions = any(isinstance(dataset, FunctionData) for dataset in self.study.datasets.values())
        return bool(self.factories or self.study.analysis.measures.own or self.study.own_figures) or functions

    @cached_property
    def own_code(self) -> list[str]:
        """The functions and scripts of the user's own that the study names, as it names them."""
        functions = [dataset.function for dataset in self.study.datasets.values() if isinstance(dataset, FunctionData)]
        scripts = [figure.script for figure in self.study.own_figures.values()]
        return sorted({*self.factories.values(), *functions, *self.study.analysis.measures.own, *scripts})

    @cached_property
    def tapped_layers(self) -> dict[str, list[str]]:
        """The layers, by path or glob, of the recipes whose networks are built elsewhere."""
        return {name: self.layers(name) for name in self.recipes if self._is_built_elsewhere(name)}

    @cached_property
    def _built_elsewhere(self) -> frozenset[str]:
        models = {name: recipe.model.model_dump() for name, recipe in self.study.all_recipes.items()}
        return frozenset(name for name, model in models.items() if architectures.is_own(model))

    def _is_built_elsewhere(self, recipe: str) -> bool:
        """Say whether the network of a recipe is built elsewhere, and its layers are paths of modules."""
        return recipe in self._built_elsewhere

    @cached_property
    def imported_recipes(self) -> list[str]:
        """What features that were made elsewhere count as."""
        return list(self.study.features)

    @cached_property
    def population_recipes(self) -> list[str]:
        """The recipes over which statistics are taken: members of sweeps, and classifiers."""
        return [name for name in self.recipes if self.population(name) or self.recipe(name).task == "classify"]

    @cached_property
    def classifier_recipes(self) -> list[str]:
        """The recipes with networks that learn classes, whose weights are measured too."""
        return [name for name in self.recipes if self.recipe(name).task in SUPERVISED]

    @cached_property
    def theory_recipes(self) -> list[str]:
        """The recipes that the theory of deep linear networks speaks of.

        Its predictions are for the rows that a network was trained on, so it is those that must have been measured.
        """

        def is_covered(recipe: Recipe) -> bool:
            n_samples = self.n_samples(recipe.dataset)
            is_trained_on = self.study.datasets[recipe.dataset].sample_set.split == "train" or not n_samples["test"]
            return (
                is_trained_on
                and self.sample_set_size(recipe.dataset) == n_samples["train"]
                and recipe.model.kind == "linear"
                and recipe.task == "classify"
                and recipe.loss == "mse"
                and recipe.init.scheme == "orthogonal"
            )

        return [name for name in self.recipes if is_covered(self.recipe(name))]

    @cached_property
    def probed_recipes(self) -> list[str]:
        """The recipes whose layers are probed: they learn classes, of data with a test split."""
        return [name for name in self.classifier_recipes if self.n_samples(self.recipe(name).dataset)["test"]]

    def probe_targets(self, recipe: str) -> list[str]:
        """Return the data sets that a recipe's layers are probed on: its own, then others that fit its network."""
        own, shape = self.recipe(recipe).dataset, self.sources.shape
        targets = [name for name in self.study.analysis.layer_probes.targets if name != own]
        return [own, *(name for name in targets if shape(name) == shape(own))]

    def seeds(self, recipe: str) -> list[int]:
        """Return a recipe's seeds, in the study's order: one that is added at the end leaves full blocks alone."""
        weights = self.recipe(recipe).weights
        if weights is not None:
            return list(dict.fromkeys(saved.seed for saved in weights))
        if recipe in self.study.features:
            return self.sources.features(recipe).seeds
        own = self.recipe(recipe).seeds
        seeds = self.study.seeds if own is None else own
        return list(range(seeds)) if isinstance(seeds, int) else list(seeds)

    def blocks(self, recipe: str) -> list[list[int]]:
        """Return a recipe's blocks of seeds."""
        return blocks_of(self.seeds(recipe), self.recipe(recipe).block)

    def runs(self, recipes: list[str] | None = None) -> list[str]:
        """List the runs of all recipes, or of some: a recipe's blocks of seeds, as paths below the study's results."""
        names = self.recipes if recipes is None else recipes
        return [f"runs/{recipe}/block-{block}" for recipe in names for block in range(len(self.blocks(recipe)))]

    @cached_property
    def used_datasets(self) -> list[str]:
        """The data sets that some recipe uses, in the study's order."""
        used = {recipe.dataset for recipe in self.study.all_recipes.values()}
        return [name for name in self.study.datasets if name in used]

    @cached_property
    def prepared_datasets(self) -> list[str]:
        """The data sets that are needed at all: those that recipes use, and those that layers are probed on."""
        targets = {name for recipe in self.probed_recipes for name in self.probe_targets(recipe)}
        wanted = {*self.used_datasets, *targets}
        return [name for name in self.study.datasets if name in wanted]

    @cached_property
    def inputs(self) -> list[str]:
        """The data sets themselves, as origins of features."""
        return [f"datasets/{name}" for name in self.used_datasets]

    @property
    def figures(self) -> list[str]:
        """The figures of the report: the study's, then the user's own."""
        return [*self.study.figures, *self.study.own_figures]

    @property
    def compares_angles(self) -> bool:
        """Whether anything that the study asks for is about P-vectors: some studies are about layers alone."""
        return "p-vectors" in self.study.ledgers or bool({*self.study.figures} - {*LAYER_FIGURES, *OTHER_FIGURES})

    @property
    def decomposes(self) -> bool:
        """Whether anything that the study asks for is about the spectra of its recipes."""
        return self.compares_angles or "spectra" in self.study.figures

    def is_downloaded(self, dataset: str) -> bool:
        """Say whether a data set has files to retrieve."""
        return isinstance(self.study.datasets[dataset], Retrieved)

    def is_own(self, dataset: str) -> bool:
        """Say whether a data set is made of a user's own files or function."""
        return isinstance(self.study.datasets[dataset], Own)

    def kind(self, dataset: str) -> str:
        """Return the kind of a data set."""
        return self.study.datasets[dataset].kind

    def n_classes(self, dataset: str) -> int:
        """Return K, a data set's number of classes."""
        section = self.study.datasets[dataset]
        if isinstance(section, Orthonormal):
            return section.classes
        if isinstance(section, Own):
            return self.sources.dataset(dataset).n_classes
        if isinstance(section, ImageSection) and section.classes is not None:
            return len(section.classes)
        return N_CLASSES[section.kind]

    def n_samples(self, dataset: str) -> dict[str, int]:
        """Return the size of each split, and of both together."""
        section = self.study.datasets[dataset]
        if isinstance(section, Orthonormal):
            n_train, n_test = section.samples_per_class * section.classes, 0
        else:
            if isinstance(section, Own):
                n_train, n_test = self.sources.dataset(dataset).n_train, self.sources.dataset(dataset).n_test
            elif isinstance(section, Digits):
                n_train, n_test = digits_split_sizes(section.test_fraction, section.split_seed, section.classes)
            else:
                classes = section.classes if isinstance(section, ImageSection) else None
                n_train, n_test = PUBLISHED[section.kind].split_sizes(classes)
            n_train, n_test = min(n_train, section.train_limit or n_train), min(n_test, section.test_limit or n_test)
        return {"train": n_train, "test": n_test, "all": n_train + n_test}

    def sample_set_size(self, dataset: str) -> int:
        """Return how many samples' features are compared."""
        sample_set = self.study.datasets[dataset].sample_set
        n = self.n_samples(dataset)[sample_set.split]
        return min(n, sample_set.limit or n)

    def layers(self, recipe: str) -> list[str]:
        """Return the layers that are dumped, shallowest first; as written where only the network knows its layers."""
        if recipe in self.study.features:
            return self.sources.features(recipe).layers
        section = self.recipe(recipe)
        if self._is_built_elsewhere(recipe):
            return list(section.layers or [])
        names = architectures.layer_names(section.model.model_dump())
        return [name for name in names if section.layers is None or name in section.layers]

    def feature_layer(self, recipe: str) -> str:
        """Return the layer whose P-vector stands for the recipe."""
        if recipe in self.study.features:
            return self.sources.features(recipe).feature_layer
        return feature_layer_of(self.recipe(recipe))

    def loss(self, recipe: str) -> str | None:
        """Return what a recipe's training lowers; nothing if it is not trained."""
        section = self.recipe(recipe)
        match section.task:
            case "untrained" | "saved" | "noise" | "features" | "control-features":
                return None
            case "reconstruct" | "denoise":
                return "mse"
            case "simclr" | "supcon":
                return section.task
            case _:
                return section.loss or "cross-entropy"

    # --- the parameters of a job, by rule ---

    def prepare_dataset(self, dataset: str) -> dict[str, Any]:
        """How the data set's files become arrays. Where they come from is no part: their checksums are known."""
        return normalised(self.study.datasets[dataset].model_dump(exclude={"sample_set", "source"}))

    def import_dataset(self, dataset: str) -> dict[str, Any]:
        """How a user's own files, or function, become arrays, and what is in them. Where they are is no part."""
        spec = self.study.datasets[dataset].model_dump(exclude={"sample_set", "folder", "file", "files"})
        return normalised(spec | {"name": dataset, "contents": self.sources.dataset(dataset).contents})

    def dump_inputs(self, dataset: str) -> dict[str, Any]:
        """Which samples' inputs are dumped."""
        section = self.study.datasets[dataset]
        return normalised({"dataset": dataset, "sample_set": section.sample_set.model_dump()})

    def _run(self, recipe: str, block: int) -> dict[str, Any]:
        section = self.recipe(recipe)
        return {
            "recipe": recipe,
            "block": block,
            "dataset": section.dataset,
            "seeds": self.blocks(recipe)[block],
            "model": self._model(recipe),
            "head": section.head.model_dump() if section.head else None,
            "dtype": section.dtype,
            "threads": section.threads,
        }

    def _model(self, recipe: str) -> dict[str, Any]:
        """Return the architecture; of a network of this library without what only others take."""
        model = self.recipe(recipe).model.model_dump()
        return (
            model
            if self._is_built_elsewhere(recipe)
            else {key: model[key] for key in model if key not in ("arguments", "inputs")}
        )

    def _optimiser(self, recipe: str) -> dict[str, Any] | None:
        """Return the optimiser's section, which may be left to its defaults; nothing where nothing is trained."""
        section = self.recipe(recipe)
        if section.schedule is None:
            return None  # not trained, or not here
        return section.optimiser.model_dump() if section.optimiser else DEFAULT_OPTIMISER

    def _contrast(self, recipe: str) -> dict[str, Any] | None:
        """Return the contrastive tasks' section, which may be left to its defaults; nothing for the others."""
        section = self.recipe(recipe)
        if section.task not in CONTRASTIVE:
            return None
        return (section.contrast or Contrast()).model_dump()

    def _pooling(self, recipe: str) -> str | None:
        """Return how maps of features are pooled; nothing where layers have no maps."""
        section = self.recipe(recipe)
        has_maps = section.model.kind in architectures.CONVOLUTIONAL_KINDS or self._is_built_elsewhere(recipe)
        return section.pooling if has_maps else None

    def train_run(self, recipe: str, block: int) -> dict[str, Any]:
        """Everything that decides a run's weights, apart from its data."""
        section = self.recipe(recipe)
        return normalised(
            self._run(recipe, block)
            | {
                "task": section.task,
                "init": section.init.model_dump(),
                "loss": self.loss(recipe),
                "output_scale": section.output_scale,
                "noise": section.noise,
                "augmentation": section.augmentation.model_dump() if section.augmentation else None,
                "autocast": section.autocast,
                "contrast": self._contrast(recipe),
                "optimiser": self._optimiser(recipe),
                "schedule": section.schedule.model_dump() if section.schedule else None,
            }
        )

    def import_weights(self, recipe: str, block: int) -> dict[str, Any]:
        """Of which seeds, steps and epochs the files of a block are, in their order, and what the networks learned."""
        spec = self.train_run(recipe, block)
        of_files = [
            {"seed": saved.seed, "step": saved.step, "epoch": float(saved.step if saved.epoch is None else saved.epoch)}
            for saved in self._saved(recipe, block)
        ]
        return normalised(spec | {"weights": of_files})

    def weight_files(self, recipe: str, block: int) -> list[str]:
        """Return the files of a block's weights, in the order of `import_weights`."""
        return [saved.file for saved in self._saved(recipe, block)]

    def _saved(self, recipe: str, block: int) -> list[Saved]:
        weights, seeds = self.recipe(recipe).weights or [], self.blocks(recipe)[block]
        return sorted(
            (saved for saved in weights if saved.seed in seeds), key=lambda saved: (seeds.index(saved.seed), saved.step)
        )

    def _dump(self, recipe: str, block: int, layers: list[str]) -> dict[str, Any]:
        section = self.recipe(recipe)
        contrast = self._contrast(recipe)
        return self._run(recipe, block) | {
            "layers": layers,
            "pooling": self._pooling(recipe),
            "projection": {key: contrast[key] for key in ("hidden", "width")} if contrast else None,
            "sample_set": self.study.datasets[section.dataset].sample_set.model_dump(),
            # among which a layer has its depth
            **({"taps": self.layers(recipe)} if self._is_built_elsewhere(recipe) else {}),
        }

    def dump_features(self, recipe: str, block: int) -> dict[str, Any]:
        """Which layers of which networks are seen on which samples."""
        return normalised(self._dump(recipe, block, self.layers(recipe)))

    def dump_ends(self, recipe: str, block: int) -> dict[str, Any]:
        """Which networks' feature layer is seen, at its ends, on which samples and how many held-out ones."""
        held_out = self.study.analysis.held_out
        return normalised(self._dump(recipe, block, [self.feature_layer(recipe)]) | {"held_out": held_out})

    def draw_noise(self, recipe: str, block: int) -> dict[str, Any]:
        """How many features are drawn at random, for which samples."""
        spec = self.dump_ends(recipe, block)
        keys = ("recipe", "block", "dataset", "seeds", "model", "layers", "sample_set", "held_out")
        return {key: spec[key] for key in sorted(keys)}

    def import_features(self, recipe: str, block: int) -> dict[str, Any]:
        """Which layers of features that were made elsewhere are taken, for which samples. Where they are is no part."""
        keys = ("recipe", "block", "dataset", "seeds", "layers", "sample_set")
        spec = self._dump(recipe, block, self.layers(recipe))
        return normalised(
            {key: spec[key] for key in keys}
            | {
                "feature_layer": self.feature_layer(recipe),
                "held_out": self.study.analysis.held_out,
                "contents": self.sources.features(recipe).contents,
            }
        )

    def measure_networks(self, recipe: str, block: int) -> dict[str, Any]:
        """Which networks are measured with their weights, on which samples, and as what they were trained."""
        section = self.recipe(recipe)
        return normalised(
            self._dump(recipe, block, self.layers(recipe))
            | {
                "task": section.task,
                "loss": self.loss(recipe),
                "output_scale": section.output_scale,
                "batch_size": section.schedule.batch_size if section.schedule else None,
                "rank_energy": self.study.analysis.measures.rank_energy,
            }
            | ({"feature_layer": self.feature_layer(recipe)} if self._is_built_elsewhere(recipe) else {})
        )

    def predict_layers(self, recipe: str, block: int) -> dict[str, Any]:
        """What the theory needs to know of a deep linear network."""
        section = self.recipe(recipe)
        return normalised(
            {
                "recipe": recipe,
                "block": block,
                "dataset": section.dataset,
                "seeds": self.blocks(recipe)[block],
                "model": section.model.model_dump(),
                "scale": section.init.scale,
                "output_scale": section.output_scale,
                "classes": self.n_classes(section.dataset),
            }
        )

    def probe_layers(self, recipe: str, block: int) -> dict[str, Any]:
        """Which layers of which networks are probed, on which data sets, and how."""
        probes = self.study.analysis.layer_probes
        spec = self._dump(recipe, block, self.layers(recipe))
        del spec["sample_set"]  # probes are fitted on whole training splits
        return normalised(
            spec
            | {
                "feature_layer": self.feature_layer(recipe),
                "targets": self.probe_targets(recipe),
                "regularisation": probes.regularisation,
                "silhouette_samples": probes.silhouette_samples,
            }
        )

    def embed_layers(self) -> dict[str, Any]:
        """Which layers are shown on maps, and how the maps are made."""
        return normalised(self.study.analysis.embedding.model_dump())

    def probe_run(self) -> dict[str, Any]:
        """How the linear probe is fitted."""
        return normalised(self.study.analysis.probe.model_dump())

    def decompose_features(self) -> dict[str, Any]:
        """How much of each spectrum is kept."""
        return normalised(self.study.analysis.spectra.model_dump())

    def measure_layers(self) -> dict[str, Any]:
        """How layers are measured."""
        return normalised(self.study.analysis.measures.model_dump(exclude={"own"}))

    def measure_own(self) -> dict[str, Any]:
        """Which functions measure layers, one's own."""
        return normalised({"functions": list(self.study.analysis.measures.own)})

    def plot_own(self, figure: str) -> dict[str, Any]:
        """Which script draws a figure of one's own, from which tables, and whose colours it may need."""
        section = self.study.own_figures[figure]
        return normalised({"script": section.script, "tables": section.tables, "recipes": self.own_recipes})

    def _facts(self, recipe: str, *keys: str) -> dict[str, Any]:
        """Return what the stages that see all runs may know of a recipe."""
        section = self.recipe(recipe)
        facts = {
            "name": recipe,
            "dataset": section.dataset,
            "task": section.task,
            "kind": section.model.kind,
            "model": self._model(recipe),
            "init": section.init.model_dump(),
            "output_scale": section.output_scale,
            "head": section.head.model_dump() if section.head else None,
            "loss": self.loss(recipe),
            "layers": self.layers(recipe),
            "feature_layer": self.feature_layer(recipe),
            "blocks": len(self.blocks(recipe)),
            "population": self.population(recipe),
            "epochs": section.schedule.epochs if section.schedule else self._saved_epochs(recipe),
            "augmentation": section.augmentation.model_dump() if section.augmentation else None,
            "dtype": section.dtype,
            "autocast": section.autocast,
            "pooling": self._pooling(recipe),
            "optimiser": self._optimiser(recipe),
            # which steps are kept changes no network
            "schedule": section.schedule.model_dump(exclude={"keep_every", "keep_early"}) if section.schedule else None,
            "n_seeds": len(self.seeds(recipe)),
        }
        return {key: facts[key] for key in keys}

    def _saved_epochs(self, recipe: str) -> float:
        """Return the last epoch of weights that were saved elsewhere; 0 if nothing was trained anywhere."""
        weights = self.recipe(recipe).weights or []
        epochs = [saved.step if saved.epoch is None else saved.epoch for saved in weights]
        return max(epochs, default=0)

    def _about(self, recipes: list[str], *keys: str) -> dict[str, Any]:
        return {
            "datasets": self.used_datasets,
            "recipes": [self._facts(name, *keys) for name in recipes],
        }

    @cached_property
    def references(self) -> list[str]:
        """The recipes whose last steps all steps are compared with."""
        return self.study.analysis.angles.references or self.own_recipes

    def compare_runs(self) -> dict[str, Any]:
        """Which layer of which recipe is compared, with what, and how the nulls are drawn."""
        keys = ("name", "dataset", "feature_layer", "blocks", "population")
        angles = self.study.analysis.angles.model_dump() | {"references": self.references}
        return normalised(angles | self._about(self.recipes, *keys))

    def compare_subspaces(self) -> dict[str, Any]:
        """Which layers' subspaces are compared, and how the null is drawn."""
        subspaces = self.study.analysis.subspaces.model_dump()
        return normalised(subspaces | self._about(self.own_recipes, "name", "dataset", "feature_layer", "blocks"))

    def tabulate_entries(self) -> dict[str, Any]:
        """Which P-vectors' entries are described, and when."""
        entries = self.study.analysis.entries.model_dump()
        return normalised(entries | self._about(self.own_recipes, "name", "dataset", "feature_layer", "blocks"))

    def compare_similarity(self) -> dict[str, Any]:
        """Which runs the baselines compare."""
        return normalised(self._about(self.own_recipes, "name", "dataset", "blocks"))

    def assess_sensitivity(self) -> dict[str, Any]:
        """Which runs are compared on parts of their features, and which parts."""
        keys = ("name", "dataset", "blocks", "task", "kind", "model")
        return normalised(self.study.analysis.sensitivity.model_dump() | self._about(self.own_recipes, *keys))

    def correlate_population(self) -> dict[str, Any]:
        """Over which recipes statistics are taken, and how they are tested."""
        keys = ("name", "dataset", "kind", "feature_layer", "population")
        return normalised(self.study.analysis.statistics.model_dump() | self._about(self.population_recipes, *keys))

    def test_claims(self) -> dict[str, Any]:
        """What the ledger needs to know of the study to choose and judge the claims' numbers."""
        keys = ["name", "dataset", "task", "kind", "model", "epochs", "n_seeds", "population"]
        spec: dict[str, Any] = {
            "study": self.study.study,
            "ledgers": list(self.study.ledgers),
            "datasets": [self._dataset_facts(name) for name in self.used_datasets],
        }
        if "p-vectors" in self.study.ledgers:
            # papers speak of networks; what was made elsewhere is not known to be of one, nor how it was trained
            known = [name for name in self.references if name not in self.imported_recipes]
            spec |= {"references": known, "permutations": self.study.analysis.angles.permutations}
        if "layerwise" in self.study.ledgers:
            keys += [*SETTING, "layers", "feature_layer"]
        return normalised(self._about(self.recipes, *keys) | spec)

    def _dataset_facts(self, dataset: str) -> dict[str, Any]:
        section = self.study.datasets[dataset]
        facts = {
            "name": dataset,
            "kind": section.kind,
            "classes": self.n_classes(dataset),
            "n_train": self.n_samples(dataset)["train"],
            "n_samples": self.sample_set_size(dataset),
        }
        if isinstance(section, Orthonormal):
            facts |= section.model_dump(include={"samples_per_class", "dimension", "noise", "seed"})
        return facts

    def tabulate_runs(self) -> dict[str, Any]:
        """What the run table says of each recipe."""
        keys = ("name", "dataset", "population", "task", "kind")
        return normalised({"recipes": self._about(self.network_recipes, *keys)["recipes"]})

    def plot(self, figure: str) -> dict[str, Any]:
        """What a figure needs to know: the recipes in the study's order, which decides their colours."""
        if figure in LAYER_FIGURES:
            return normalised(self._layer_figure(figure))
        also = {
            "angle_dynamics": ["task"],
            "training": ["task", "loss"],
            "spectra": ["feature_layer"],
            "layers": [],
            "explained_variance": ["task", "kind", "feature_layer"],
            "report": ["task", "feature_layer"],
        }
        keys = ["name", "dataset", *also.get(figure, ["task", "kind"])]
        spec: dict[str, Any] = {"recipes": self._about(self.own_recipes, *keys)["recipes"]}
        match figure:
            case "explained_variance":
                spec["n_classes"] = {name: self.n_classes(name) for name in self.used_datasets}
            case "reference_angles" | "early_angles":
                spec["references"] = self.references
        return normalised(spec)

    def _layer_figure(self, figure: str) -> dict[str, Any]:
        """What a figure of layers needs to know: of the recipes that it is about, more than what they are called."""
        about = ["name", "dataset", "task", "kind", "population"]
        match figure:
            case "layer_theory" | "law_sweep" | "assumptions":
                named = self.own_recipes if figure == "layer_theory" else self.theory_recipes
                described, keys = self.theory_recipes, ["model", "init", "output_scale"]
            case "linear_depth" | "transfer":
                # all of the study's own, for their colours; those that are not probed by what they are called alone
                named = [*self.own_recipes, *(name for name in self.probed_recipes if self.population(name))]
                described = self.probed_recipes
                keys = ["model", "epochs", *SETTING]
            case "collapse":
                named, described, keys = self.own_recipes, self.classifier_recipes, ["model"]
            case _:
                named, described, keys = self.own_recipes, [], []
        spec: dict[str, Any] = {
            "recipes": [self._facts(name, *about, *(keys if name in described else [])) for name in named]
        }
        if figure == "collapse":
            for facts in spec["recipes"]:
                if facts["name"] in described and self._is_built_elsewhere(facts["name"]):
                    facts["feature_layer"] = self.feature_layer(facts["name"])
        if described is self.theory_recipes:
            used = {self.recipe(name).dataset for name in named if name in described}
            spec["datasets"] = [self._dataset_facts(name) for name in self.used_datasets if name in used]
        return spec

    def write_report(self, command: str) -> dict[str, Any]:
        """What heads the report, which figures it shows, what they rest on, and the command that remakes them."""
        angles = {"permutations": self.study.analysis.angles.permutations} if self.compares_angles else {}
        return normalised(
            angles
            | {
                "command": command,
                "study": self.study.study,
                "title": self.study.title or self.study.study,
                "question": self.study.question,
                "figures": self.figures,
                "samples": {name: self.sample_set_size(name) for name in self.used_datasets},
                "features": [self._source_facts(name) for name in self.imported_recipes],
                "own_code": self.own_code,
                "is_downloaded": any(map(self.is_downloaded, self.study.datasets)),
                # whose jobs' times count
                "names": sorted(
                    {
                        *self.recipes,
                        *self.prepared_datasets,
                        *map(self.kind, self.prepared_datasets),
                        *self.study.own_figures,
                    }
                ),
            }
            | self.plot("report")
        )

    def _source_facts(self, name: str) -> dict[str, Any]:
        """Return what the report says of features that were made elsewhere."""
        section = self.study.features[name]
        return {
            "name": name,
            "dataset": section.dataset,
            "source": section.source,
            "layers": self.layers(name),
            "seeds": self.seeds(name),
            "control": section.control,
        }

    def verify(self, command: str) -> dict[str, Any]:
        """What there is to be verified, and the command that runs the study."""
        return normalised(
            {
                "command": command,
                "study": self.study.study,
                "origins": sorted({*(f"datasets/{name}" for name in self.prepared_datasets), *self.runs()}),
                "figures": self.figures,
                "keep_features": self.study.keep_features,
                "published": sorted({self.kind(name) for name in self.prepared_datasets if self.is_downloaded(name)}),
            }
        )

    def clean_resume(self) -> dict[str, Any]:
        """Whose killed trainings are tidied up after."""
        return {"study": self.study.study}

    def write_study(self) -> dict[str, Any]:
        """The whole study, in its own order, without what changes no result.

        Where published files come from is left out: their checksums are known. Where one's own are is part of it, or a
        copy of what is written down would be no study.
        """
        exclude: Any = {"device": True, "datasets": {"__all__": {"source"}}}
        written = json.loads(self.study.model_dump_json(exclude=exclude))
        for name, recipe in self.study.recipes.items():
            section = written["recipes"][name]
            for key in self._without_meaning(recipe):
                del section[key]
            if recipe.schedule is not None:
                for key, schedule in OF_ONE_SCHEDULE.items():
                    if recipe.schedule.learning_rate_schedule != schedule:
                        del section["schedule"][key]
            # what a sweep varies is filled in as the study gives it: a default may have no meaning for its members
            given = json.loads(recipe.model_dump_json(exclude_unset=True))
            for key in self._varied(name, [*section]):
                section.pop(key, None)
                section |= {key: given[key]} if key in given else {}
        return written

    def _varied(self, base: str, keys: list[str]) -> list[str]:
        """Return which of a recipe's keys sweeps vary: all of them, if they vary what others depend on."""
        paths = {
            path for sweep in self.study.sweeps.values() if sweep.base == base for path in (*sweep.vary, *sweep.set)
        }
        if paths & {"task", "weights", "model", "model.kind"}:
            return keys
        return [key for key in keys if key in {path.split(".")[0] for path in paths}]

    def _without_meaning(self, recipe: Recipe) -> set[str]:
        """Return the keys that a recipe may not have: they would say nothing, and no default is filled in."""
        keys: set[str] = set()
        if recipe.task == "noise":
            keys |= {"init", "dtype", "threads", "output_scale", "pooling"}
        if recipe.weights is not None:
            keys |= {"schedule", "optimiser", "init", "augmentation", "seeds"}
        if architectures.is_own(recipe.model.model_dump()):
            keys |= {"init"}
        return keys
