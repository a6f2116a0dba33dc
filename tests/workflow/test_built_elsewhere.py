"""Networks and weights of one's own, through the real Snakemake: to the figures, and what makes them stale."""

import copy
import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from filelock import FileLock
from harness import Workflow

pytestmark = pytest.mark.workflow

NETS = '''
"""Networks for the tests."""

from torch import nn

from layers.blocks import Block


def build(width, in_channels, num_classes, dropout=0.0):
    """Return a small network: a stem, two blocks, a classifier."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64 * in_channels, width),
        nn.Sequential(Block(width, dropout), Block(width, dropout)),
        nn.Linear(width, num_classes),
    )
'''
BLOCKS = """
from torch import nn


class Block(nn.Module):
    def __init__(self, width, dropout):
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        return x + self.drop(self.dense(x).relu())
"""
FIGURES = ["spectra", "collapse", "sensitivity"]

LAYERS = ["1", "2.*"]
STUDY: dict[str, Any] = {
    "study": "mine",
    "device": "cpu",
    "seeds": 1,
    "datasets": {"digits": {"kind": "digits", "sample_set": {"limit": 100}, "train_limit": 300, "test_limit": 100}},
    "recipes": {
        "ours": {
            "dataset": "digits",
            "model": {"kind": "module", "factory": "nets:build", "arguments": {"width": 12, "dropout": 0.1}},
            "layers": LAYERS,
            "feature_layer": "2.1",
            "schedule": {"epochs": 2},
        },
        "saved": {
            "dataset": "digits",
            "model": {"kind": "module", "factory": "nets:build", "arguments": {"width": 12}},
            "layers": LAYERS,
            "feature_layer": "2.1",
            "weights": [
                {"step": 0, "file": "checkpoints/start.pt"},
                {"step": 30, "epoch": 1.5, "file": "checkpoints/end.pt"},
            ],
        },
    },
    "analysis": {"angles": {"permutations": 19}},
    "figures": FIGURES,
}


def digits_network() -> torch.nn.Module:
    """Build the network as `nets:build` does, by hand."""
    space: dict[str, Any] = {}
    exec(BLOCKS, space)
    torch.manual_seed(3)
    return torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(64, 12),
        torch.nn.Sequential(space["Block"](12, 0.0), space["Block"](12, 0.0)),
        torch.nn.Linear(12, 10),
    )


def write_checkpoints(folder: Path) -> None:
    """Save the weights of a network at two steps, in the two usual ways."""
    folder.mkdir()
    network = digits_network()
    torch.save(network.state_dict(), folder / "start.pt")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, folder / "end.pt")


@pytest.fixture(scope="session")
def mine(tmp_path_factory, worker_id) -> Workflow:
    """The study of own networks, run to its end, once. Never change it: copy it."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    root = shared / "mine"
    with FileLock(shared / "mine.lock"):
        if not (shared / "mine.done").exists():
            workflow = Workflow(root, STUDY)
            (root / "nets.py").write_text(NETS)
            (root / "layers").mkdir()
            (root / "layers/blocks.py").write_text(BLOCKS)  # a package without __init__.py
            (root / "unrelated.py").write_text("x = 1\n")
            write_checkpoints(root / "checkpoints")
            workflow.run()
            (shared / "mine.done").touch()
        return Workflow(root, STUDY)


def rows(path: Path) -> list[dict[str, str]]:
    """Read a table."""
    with path.open() as file:
        return list(csv.DictReader(file))


def test_networks_and_weights_of_ones_own_reach_every_figure(mine):
    results = mine.root / "results/mine"
    for path, column in [("figures/spectra.csv", "recipe"), ("figures/collapse.csv", "recipe")]:
        assert {"ours", "saved"} <= {row[column] for row in rows(results / path)}
    assert {row["recipe_a"] for row in rows(results / "tables/sensitivity.csv")} == {"ours", "saved"}
    nc3 = [row for row in rows(results / "figures/collapse.csv") if row["measure"] == "nc3"]
    assert {(row["layer"], row["depth"]) for row in nc3} == {("2.1", "3")}
    for recipe in ("ours", "saved"):
        store = xr.open_zarr(results / f"runs/{recipe}/block-0/features.zarr", consolidated=True)
        assert list(store.data_vars) == ["1", "2.0", "2.1"]
        assert store.attrs["depths"] == {"1": 1, "2.0": 2, "2.1": 3}
    assert store["epoch"].values.tolist() == [0.0, 1.5]
    assert (results / "report.html").exists()
    assert mine.pending() == set()


def test_saved_weights_are_seen_as_they_would_be_elsewhere(mine):
    results = mine.root / "results/mine"
    network = digits_network().eval()
    network.load_state_dict(torch.load(mine.root / "checkpoints/end.pt", weights_only=True)["state_dict"])
    store = xr.open_zarr(results / "runs/saved/block-0/features.zarr", consolidated=True)
    inputs = xr.open_zarr(results / "datasets/digits/features.zarr", consolidated=True)
    x = torch.from_numpy(inputs["input"].values[0, 0])
    with torch.no_grad():
        first = network[1](x)
        block = network[2][0](first)
    np.testing.assert_allclose(store["1"].values[0, 1], first.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(store["2.0"].values[0, 1], block.numpy(), rtol=1e-5, atol=1e-5)
    history = rows(results / "runs/saved/block-0/history.csv")
    assert [(row["step"], row["epoch"], row["learning_rate"]) for row in history] == [
        ("0", "0", ""),
        ("30", "1.5", ""),
    ]


# --- stale is exact ---


def below(recipe: str, first: str) -> set[str]:
    """Name the jobs of a run, and those that see all runs."""
    run = f"{recipe}/block-0"
    jobs = {f"{stage}/{run}" for stage in (first, "dump_features", "dump_ends", "measure_networks")}
    jobs |= {f"decompose_features/runs/{run}", f"measure_layers/runs/{run}", "compare_runs", "assess_sensitivity"}
    return jobs | {"tabulate_runs", "write_report"} | {f"plot_{name}" for name in FIGURES}


def setting(*path: Any, value: Any) -> Callable[[Workflow], None]:
    """Set a key of the study."""

    def edit(workflow: Workflow) -> None:
        study = copy.deepcopy(STUDY)
        section = study
        for part in path[:-1]:
            section = section[part]
        section[path[-1]] = value
        workflow.write_study(study)

    return edit


def append(path: str, text: str) -> Callable[[Workflow], None]:
    """Edit a file, and keep its time stamp."""

    def edit(workflow: Workflow) -> None:
        file = workflow.root / path
        before = file.stat()
        file.write_text(file.read_text() + text)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    return edit


def touch(workflow: Workflow) -> None:
    """Give own modules and weights the time stamp of now."""
    for path in (
        workflow.root / "nets.py",
        *(workflow.root / "layers").iterdir(),
        *(workflow.root / "checkpoints").iterdir(),
    ):
        path.touch()


def another_checkpoint(workflow: Workflow) -> None:
    """Save other weights in the place of those at the end."""
    network = digits_network()
    torch.save(network.state_dict(), workflow.root / "checkpoints/end.pt")


OWN, SAVED = below("ours", "train_run"), below("saved", "import_weights")
STUDY_JOBS = {"write_study", "write_report"}
EDITS: dict[str, tuple[Callable[[Workflow], None], set[str]]] = {
    "a touch of own modules and weights": (touch, set()),
    "an own module": (append("nets.py", "\nEDITED = True\n"), OWN | SAVED),
    "a module that it imports": (append("layers/blocks.py", "\nEDITED = True\n"), OWN | SAVED),
    "a comment in an own module": (append("nets.py", "\n# a comment\n"), set()),
    "a module that nothing imports": (append("unrelated.py", "\nEDITED = True\n"), set()),
    "an argument": (setting("recipes", "ours", "model", "arguments", value={"width": 13}), OWN | STUDY_JOBS),
    "the layers": (
        setting("recipes", "ours", "layers", value=["2.*"]),
        OWN - {"train_run/ours/block-0", "tabulate_runs"} | STUDY_JOBS,
    ),
    "a file of weights": (another_checkpoint, SAVED),
    "an epoch": (setting("recipes", "saved", "weights", 1, "epoch", value=2), SAVED | STUDY_JOBS),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_runs_exactly_its_jobs(mine, tmp_path, edit):
    change, expected = EDITS[edit]
    workflow = mine.copy_records_to(tmp_path / "edited")
    change(workflow)
    assert workflow.pending() == expected


# --- what is refused ---


def test_a_wrong_layer_ends_in_one_line_before_anything_is_trained(mine, tmp_path):
    workflow = mine.copy_to(tmp_path / "edited")
    study = copy.deepcopy(STUDY)
    study["recipes"]["new"] = STUDY["recipes"]["ours"] | {"layers": ["2.7", "2.1"]}
    workflow.write_study(study)
    done = workflow.snakemake("results/mine/runs/new/block-0/weights.json", "--cores", "1")
    assert done.returncode != 0
    line = "featurespace: layers: no module '2.7' in this network; there are, the nearest first: 2.0, 2.1, "
    assert line in done.stderr
    assert list((workflow.root / "results/mine/runs/new/block-0").glob(".resume-*/weights")) == []


@pytest.mark.parametrize(
    "key, value, says",
    [
        ("factory", "nets:biuld", "nets has no 'biuld' (there are: nn, Block, build)"),
        ("factory", "nest:build", "no module 'nest': it is looked for in"),
        ("factory", "$(touch pwned):build", "should be a module and a function in it"),
    ],
)
def test_a_function_that_is_not_there_ends_in_one_line(mine, tmp_path, key, value, says):
    workflow = mine.copy_records_to(tmp_path / "edited")
    setting("recipes", "ours", "model", key, value=value)(workflow)
    done = workflow.snakemake("--cores", "1")
    said = [line for line in done.stderr.splitlines() if "profile" not in line]
    assert done.returncode != 0
    assert len(said) == 1
    assert said[0].startswith(f"featurespace: study.yaml: recipes.ours.model.factory: {says}")
    assert not (workflow.root / "pwned").exists()
