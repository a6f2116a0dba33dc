"""What a study needs: its runs, their blocks of seeds, and the parameters of every job.

A job's parameters are the leaves of the study that it uses and nothing else: they decide what is stale. They are
plain data with sorted keys and normalised values (3 and 3.0 are one value), because Snakemake compares their text.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

from featurespace import architectures
from featurespace.config import Downloaded, Recipe, Study

DEFAULT_OPTIMISER = {"kind": "adam", "learning_rate": 1e-3, "weight_decay": 0.0}


def normalised(value: Any) -> Any:
    """Sort the keys of nested plain data, and leave only what JSON knows."""
    return json.loads(json.dumps(value, sort_keys=True))


def blocks_of(seeds: list[int], size: int) -> list[list[int]]:
    """Cut seeds, in order, into blocks: another seed refills the last block or opens one, full blocks stay."""
    return [seeds[i : i + size] for i in range(0, len(seeds), size)]


class Plan:
    """The jobs of one study, by rule."""

    def __init__(self, study: Study) -> None:
        self.study = study

    # --- what there is ---

    def recipe(self, name: str) -> Recipe:
        """Return a recipe by name."""
        return self.study.recipes[name]

    def seeds(self, recipe: str) -> list[int]:
        """Return a recipe's seeds, in the study's order: one that is added at the end leaves full blocks alone."""
        own = self.recipe(recipe).seeds
        seeds = self.study.seeds if own is None else own
        return list(range(seeds)) if isinstance(seeds, int) else list(seeds)

    def blocks(self, recipe: str) -> list[list[int]]:
        """Return a recipe's blocks of seeds."""
        return blocks_of(self.seeds(recipe), self.recipe(recipe).block)

    @cached_property
    def runs(self) -> list[str]:
        """The runs: recipes with a block of seeds, as paths below the study's results."""
        return [
            f"runs/{recipe}/block-{block}" for recipe in self.study.recipes for block in range(len(self.blocks(recipe)))
        ]

    @cached_property
    def used_datasets(self) -> list[str]:
        """The data sets that some recipe uses, in the study's order."""
        used = {recipe.dataset for recipe in self.study.recipes.values()}
        return [name for name in self.study.datasets if name in used]

    @cached_property
    def inputs(self) -> list[str]:
        """The data sets themselves, as origins of features."""
        return [f"datasets/{name}" for name in self.used_datasets]

    def is_downloaded(self, dataset: str) -> bool:
        """Say whether a data set has files to retrieve."""
        return isinstance(self.study.datasets[dataset], Downloaded)

    def kind(self, dataset: str) -> str:
        """Return the kind of a data set."""
        return self.study.datasets[dataset].kind

    def layers(self, recipe: str) -> list[str]:
        """Return the layers that are dumped, shallowest first."""
        section = self.recipe(recipe)
        names = architectures.layer_names(section.model.model_dump())
        return [name for name in names if section.layers is None or name in section.layers]

    def feature_layer(self, recipe: str) -> str:
        """Return the layer whose P-vector stands for the recipe."""
        section = self.recipe(recipe)
        return section.feature_layer or architectures.feature_layer(section.model.model_dump())

    def loss(self, recipe: str) -> str | None:
        """Return what a recipe's training lowers; nothing if it is not trained."""
        section = self.recipe(recipe)
        match section.task:
            case "untrained":
                return None
            case "reconstruct" | "denoise":
                return "mse"
            case _:
                return section.loss or "cross-entropy"

    # --- the parameters of a job, by rule ---

    def prepare_dataset(self, dataset: str) -> dict[str, Any]:
        """How the data set's files become arrays. Where they come from is no part: their checksums are known."""
        return normalised(self.study.datasets[dataset].model_dump(exclude={"sample_set", "source"}))

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
            "model": section.model.model_dump(),
            "dtype": section.dtype,
            "threads": section.threads,
        }

    def train_run(self, recipe: str, block: int) -> dict[str, Any]:
        """Everything that decides a run's weights, apart from its data."""
        section = self.recipe(recipe)
        trained = section.task != "untrained"
        return normalised(
            self._run(recipe, block)
            | {
                "task": section.task,
                "init": section.init.model_dump(),
                "loss": self.loss(recipe),
                "output_scale": section.output_scale,
                "noise": section.noise,
                "optimiser": (section.optimiser.model_dump() if section.optimiser else DEFAULT_OPTIMISER)
                if trained
                else None,
                "schedule": section.schedule.model_dump() if section.schedule else None,
            }
        )

    def dump_features(self, recipe: str, block: int) -> dict[str, Any]:
        """Which layers of which networks are seen on which samples."""
        section = self.recipe(recipe)
        return normalised(
            self._run(recipe, block)
            | {
                "layers": self.layers(recipe),
                "pooling": section.pooling if section.model.kind in architectures.CONVOLUTIONAL_KINDS else None,
                "sample_set": self.study.datasets[section.dataset].sample_set.model_dump(),
            }
        )

    def decompose_features(self) -> dict[str, Any]:
        """How much of each spectrum is kept."""
        return normalised(self.study.analysis.spectra.model_dump())

    def measure_layers(self) -> dict[str, Any]:
        """How layers are measured."""
        return normalised(self.study.analysis.measures.model_dump())

    def compare_runs(self) -> dict[str, Any]:
        """Which layer of which recipe is compared, and how the nulls are drawn."""
        recipes = [
            {
                "name": name,
                "dataset": section.dataset,
                "feature_layer": self.feature_layer(name),
                "blocks": len(self.blocks(name)),
            }
            for name, section in self.study.recipes.items()
        ]
        angles = self.study.analysis.angles.model_dump()
        return normalised(angles | {"recipes": recipes, "datasets": self.used_datasets})

    def tabulate_runs(self) -> dict[str, Any]:
        """What the run table says of each recipe."""
        return normalised(
            {
                "recipes": [
                    {
                        "name": name,
                        "dataset": section.dataset,
                        "task": section.task,
                        "kind": section.model.kind,
                        "blocks": len(self.blocks(name)),
                    }
                    for name, section in self.study.recipes.items()
                ]
            }
        )

    def plot(self, figure: str) -> dict[str, Any]:
        """What a figure needs to know: the recipes in the study's order, which decides their colours."""
        also = {
            "angle_dynamics": ["task"],
            "training": ["task", "loss"],
            "spectra": ["feature_layer"],
            "report": ["task"],
        }
        facts = {
            name: {
                "name": name,
                "dataset": section.dataset,
                "task": section.task,
                "loss": self.loss(name),
                "feature_layer": self.feature_layer(name),
            }
            for name, section in self.study.recipes.items()
        }
        keys = ["name", "dataset", *also.get(figure, [])]
        return normalised({"recipes": [{key: recipe[key] for key in keys} for recipe in facts.values()]})

    def write_report(self, command: str) -> dict[str, Any]:
        """What heads the report, which figures it shows, and the command that remakes them."""
        return normalised(
            {
                "command": command,
                "study": self.study.study,
                "title": self.study.title or self.study.study,
                "question": self.study.question,
                "figures": list(self.study.figures),
                # whose jobs' times count
                "names": sorted({*self.study.recipes, *self.used_datasets, *map(self.kind, self.used_datasets)}),
            }
            | self.plot("report")
        )

    def write_study(self) -> dict[str, Any]:
        """The whole study, in its own order, without what changes no result."""
        return json.loads(self.study.model_dump_json(exclude={"device": True, "datasets": {"__all__": {"source"}}}))
