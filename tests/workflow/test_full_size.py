"""The studies at the papers' sizes, as far as a small machine can take them.

The data sets themselves cannot be had everywhere: the files here are a few noisy images in the published formats, and
the workflow's copy is told that these are the published ones. What comes out is never a result.
"""

import copy
import itertools
import re
import shutil
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from harness import ROOT, Workflow
from published_files import write_published

from featurespace.config import parse_study
from featurespace.datasets import load_dataset
from featurespace.plan import Plan
from featurespace.training import train_block

pytestmark = pytest.mark.workflow

STUDIES = sorted(path.stem for path in (ROOT / "studies").glob("pvectors-*.yaml"))
DOWNLOADED = {"pvectors-mnist": "mnist", "pvectors-cifar10": "cifar10", "pvectors-cifar100": "cifar100"}


def read(name: str) -> dict[str, Any]:
    """Read a study file, its anchors resolved and nothing shared."""
    return copy.deepcopy(yaml.safe_load((ROOT / "studies" / f"{name}.yaml").read_text()))


@pytest.mark.parametrize("name", STUDIES)
def test_the_whole_study_can_be_planned(tmp_path, name):
    study = read(name)
    for dataset in study["datasets"].values():
        dataset.pop("source", None)  # of one machine
    workflow = Workflow(tmp_path / "planned", study)
    done = workflow.snakemake("--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    n_recipes = len(study["recipes"]) + sum(
        len(list(itertools.product(*sweep["vary"].values()))) for sweep in study["sweeps"].values()
    )
    assert n_recipes >= 30
    n_noise = sum(recipe.get("task") == "noise" for recipe in study["recipes"].values())
    # a population of the same network over and over would be none
    plan = Plan(parse_study(study))
    settings = [str({**plan.train_run(member, 0), "recipe": None}) for member in plan.study.members]
    assert len(set(settings)) == len(settings) >= 30
    trained = set(re.findall(r"Training (\S+), block", done.stdout + done.stderr))
    assert len(trained) == n_recipes - n_noise


@pytest.mark.parametrize("name", DOWNLOADED)
def test_every_recipe_trains_an_epoch_on_files_in_the_published_format(tmp_path, name):
    """The workflow makes the data set of the files and one run; the others are trained here, which imports but once."""
    kind = DOWNLOADED[name]
    study = read(name)
    source = tmp_path / "source"
    patch = write_published(kind, source, n_train=10, n_test=5)  # the wide networks have tens of millions of parameters
    ((dataset_name, dataset),) = study["datasets"].items()
    dataset["source"] = str(source)
    study["seeds"] = 1
    study["sweeps"] = {}
    for recipe in study["recipes"].values():
        if "schedule" in recipe:
            recipe["schedule"] = {"epochs": 1, "batch_size": 5}
    workflow = Workflow(tmp_path / "study", study)
    catalogue = workflow.root / "scripts/featurespace/catalogue.py"
    catalogue.write_text(catalogue.read_text() + patch)
    made = f"results/{name}/datasets/{dataset_name}/dataset.json"
    workflow.run(made, f"results/{name}/runs/mlp/block-0/weights.json")
    data = load_dataset((workflow.root / made).with_suffix(".zarr"), workflow.root / made)
    plan = Plan(parse_study(study))
    networks = [name for name, recipe in study["recipes"].items() if recipe.get("task") != "noise"]
    assert len(networks) >= 15
    n_threads = torch.get_num_threads()
    for recipe in networks:
        folder = tmp_path / recipe
        run = train_block(plan.train_run(recipe, 0), data, torch.device("cpu"), folder)
        history = pd.DataFrame(run.history)
        trained = study["recipes"][recipe].get("task") != "untrained"
        assert history["epoch"].tolist() == ([0.0, 1.0] if trained else [0.0])
        assert np.isfinite(history["train_loss"]).all()
        assert history["weight_norm"].nunique() == len(history)  # an epoch moves them
        shutil.rmtree(folder)
    torch.set_num_threads(n_threads)
    by_the_workflow = pd.read_csv(workflow.root / f"results/{name}/runs/mlp/block-0/history.csv")
    assert by_the_workflow["epoch"].tolist() == [0.0, 1.0]
    assert np.isfinite(by_the_workflow["train_loss"]).all()


def test_a_narrow_copy_of_a_study_ends_in_its_report(tmp_path):
    name = "pvectors-cifar100"
    kind = DOWNLOADED[name]
    study = read(name)
    source = tmp_path / "source"
    patch = write_published(kind, source, n_train=200, n_test=100)
    (dataset,) = study["datasets"].values()
    dataset["source"] = str(source)
    study["seeds"] = 2
    keep = ("mlp", "autoencoder", "simclr", "gaussian-noise")
    study["recipes"] = {recipe: study["recipes"][recipe] for recipe in keep}
    study["recipes"]["simclr"]["model"] = {"kind": "cnn", "channels": [4], "hidden": 16}
    del study["recipes"]["simclr"]["layers"]
    for recipe in study["recipes"].values():
        recipe["block"] = 2
        if "schedule" in recipe:
            recipe["schedule"] = {"epochs": 1, "batch_size": 100}
    study["sweeps"] = {"few": {"base": "mlp", "vary": {"model.widths": [[8], [16]]}}}
    study["analysis"]["angles"] = {"permutations": 199, "references": ["autoencoder"]}
    study["figures"] = ["angle_matrix", "entry_samples", "sensitivity"]  # the tiny study draws all
    workflow = Workflow(tmp_path / "study", study)
    catalogue = workflow.root / "scripts/featurespace/catalogue.py"
    catalogue.write_text(catalogue.read_text() + patch)
    workflow.run()
    results = workflow.root / "results" / name
    claims = pd.read_csv(results / "tables/claims.csv")
    # two seeds settle nothing
    needing_seeds = claims[claims["row"].isin(["P3", "P4", "P6", "C3"])]
    assert set(needing_seeds["verdict"]) <= {"not determined", "not run"}
    assert (results / "report.html").stat().st_size > 100_000
    assert workflow.pending() == set()
