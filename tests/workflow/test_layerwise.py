"""The layerwise paper's studies: planned whole, and run as far as a small machine and the data at hand allow.

Where the data set cannot be had, the files are a few samples in the published format, and the workflow's copy is told
that these are the published ones. What comes out of those is never a result.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from harness import ROOT, Workflow
from published_files import write_published

pytestmark = pytest.mark.workflow

STUDIES = sorted(path.stem for path in (ROOT / "studies").glob("layerwise-*.yaml"))


def read(name: str) -> dict[str, Any]:
    """Read a study file, its anchors resolved and nothing shared."""
    return copy.deepcopy(yaml.safe_load((ROOT / "studies" / f"{name}.yaml").read_text()))


def with_files(root: Path, study: dict[str, Any], kind: str, n_train: int, n_test: int) -> Workflow:
    """Make a workflow whose one data set has small files in the published format."""
    source = root / "source"
    patch = write_published(kind, source, n_train=n_train, n_test=n_test)
    (dataset,) = study["datasets"].values()
    dataset["source"] = str(source)
    workflow = Workflow(root / "study", study)
    catalogue = workflow.root / "scripts/featurespace/catalogue.py"
    catalogue.write_text(catalogue.read_text() + patch)
    return workflow


def claims_of(workflow: Workflow) -> pd.DataFrame:
    """Read the ledger."""
    return pd.read_csv(workflow.root / "results" / workflow.name / "tables/claims.csv", keep_default_na=False)


@pytest.mark.parametrize("name", STUDIES)
def test_the_whole_study_can_be_planned(tmp_path, name):
    study = read(name)
    for dataset in study["datasets"].values():
        dataset.pop("source", None)  # of one machine
    done = Workflow(tmp_path / "planned", study).snakemake("--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "write_report" in done.stdout + done.stderr
    assert "compare_runs" not in done.stdout + done.stderr  # no angle is asked for


def test_a_deep_linear_network_follows_the_law(tmp_path):
    study = read("layerwise-synthetic")
    study["recipes"] = {"linear": study["recipes"]["linear"]}
    study["datasets"] = {"rows": study["datasets"]["rows"]}
    del study["sweeps"]
    study["figures"] = ["layer_theory"]
    workflow = Workflow(tmp_path / "study", study)
    workflow.run()
    claims = claims_of(workflow).set_index("claim")
    names = ["t1-ratio", "t1-last-layer", "t1-geometric", "t1-linear", "t1-rises", "t1-proportional"]
    assert claims.loc[names, "verdict"].tolist() == ["reproduced"] * len(names)
    assert claims.loc["t2-ratio", "verdict"] == "not run"
    assert claims.loc["t3-law", "verdict"] == "not determined"  # one setting

    # once more, without the library's theory: C from the features, the law from the setting
    layers = pd.read_csv(workflow.root / "results/layerwise-synthetic/runs/linear/block-0/layers.csv")
    last = layers[layers["step"] == layers["step"].max()].pivot(index="seed", columns="depth", values="compression")
    ratios = (last / last.shift(axis=1)).dropna(axis=1)
    assert ratios.shape == (5, 4)
    np.testing.assert_allclose(ratios, 0.3**2 * (1 / 10) ** (1 / 6), rtol=0.03)


def test_the_cifar10_study_ends_in_its_report(tmp_path):
    study = read("layerwise-cifar10")
    study["seeds"] = 2
    for recipe in study["recipes"].values():
        model = recipe["model"]
        recipe["model"] = model | ({"width": 12} if "width" in model else {"widths": [12] * len(model["widths"])})
        recipe["schedule"] = {"epochs": 1, "batch_size": 50}
        recipe["block"] = 2
    study["analysis"] = {"embedding": {"depths": [1], "samples": 40}}
    # the tiny study draws all figures
    study["figures"] = ["layer_probes", "collapse"]
    workflow = with_files(tmp_path, study, "cifar10", n_train=200, n_test=50)
    workflow.run()
    results = workflow.root / "results" / workflow.name
    assert (results / "report.html").stat().st_size > 50_000
    assert workflow.pending() == set()
    claims = claims_of(workflow)
    # two seeds of networks that have not learned settle nothing
    assert set(claims.loc[claims["row"].isin(["T7", "T9"]), "verdict"]) <= {"not determined", "not run"}
    probes = pd.read_csv(results / "runs/hybrid/block-0/layer_probes.csv")
    assert probes["layer"].unique().tolist() == [
        "input",
        *(f"hidden{i}" for i in (1, 2, 3)),
        *(f"linear{i}" for i in range(1, 5)),
    ]
    networks = pd.read_csv(results / "runs/mlp/block-0/networks.csv")
    assert {"compression_training", "nc3", "gradient_norm"} <= set(networks["quantity"])


def test_the_study_of_texts_ends_in_its_report(tmp_path):
    study = read("layerwise-text")
    study["seeds"] = 1
    study["datasets"]["newsgroups"]["features"] = 40
    for recipe in study["recipes"].values():
        recipe["schedule"] |= {"epochs": 2, "batch_size": 20, "keep_every": 2}
    workflow = with_files(tmp_path, study, "newsgroups", n_train=60, n_test=20)
    workflow.run()
    claims = claims_of(workflow)
    assert set(claims.loc[claims["row"] == "T11", "verdict"]) == {"not determined"}  # one seed


def test_a_study_of_texts_without_the_corpus_says_what_is_missing(tmp_path):
    study = read("layerwise-text")
    study["datasets"]["newsgroups"]["source"] = str(tmp_path)
    done = Workflow(tmp_path / "study", study).snakemake("--dry-run")
    assert done.returncode != 0
    assert "datasets.newsgroups.source: " in done.stderr
    assert "lacks 20news-bydate.tar.gz of newsgroups" in done.stderr


def test_features_under_heads_are_probed_on_classes_that_were_not_seen(tmp_path):
    classes = {"kind": "digits", "classes": [0, 1, 2, 3, 4]}
    study = {
        "study": "heads",
        "device": "cpu",
        "seeds": 3,
        "datasets": {"seen": classes, "unseen": classes | {"classes": [5, 6, 7, 8, 9]}},
        "recipes": {
            "mlp": {
                "dataset": "seen",
                "model": {"kind": "mlp", "widths": [24]},
                "optimiser": {"kind": "sgd", "learning_rate": 0.1},
                "schedule": {"epochs": 5},
                "block": 3,
            }
        },
        "sweeps": {"head": {"base": "mlp", "layers": "all", "vary": {"head.layers": [1, 2, 3]}}},
        "analysis": {"layer_probes": {"targets": ["unseen"]}},
        "ledgers": ["layerwise"],
        "figures": ["transfer"],
    }
    workflow = Workflow(tmp_path / "study", study)
    workflow.run()
    results = workflow.root / "results/heads"
    probes = pd.read_csv(results / "runs/head-03/block-0/layer_probes.csv")
    on_unseen = probes[probes["target"] == "unseen"]
    assert set(on_unseen["layer"]) == {"input", "hidden1"}
    assert (on_unseen["test_accuracy"] > 0.5).all()  # of five digits that the network never saw
    weights = pd.read_csv(results / "tables/runs.csv").groupby("recipe")["n_parameters"].first()
    assert weights["head-03"] - weights["mlp"] == 3 * (24 * 24 + 24)
    frame = pd.read_csv(results / "figures/transfer.csv")
    assert sorted(frame.loc[frame["part"] == "mean", "head_layers"].dropna().unique()) == [0, 1, 2, 3]
    claims = claims_of(workflow)
    assert set(claims.loc[claims["row"] == "T12", "verdict"]) <= {"reproduced", "not reproduced", "not determined"}
