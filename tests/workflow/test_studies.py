"""Whole small studies, one claim each."""

import copy
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from harness import FIGURES, ROOT, TINY, Workflow

from featurespace.checksums import sha256

pytestmark = pytest.mark.workflow

FASHION = Path("/usr/share/datasets/fashion-mnist")

MLP_ONLY = {
    **{key: copy.deepcopy(TINY[key]) for key in ("study", "device", "datasets")},
    "recipes": {"mlp": copy.deepcopy(TINY["recipes"]["mlp"])},
    "figures": [],
}
WEIGHTS = "results/tiny/runs/mlp/block-0/weights.json"


def read(workflow: Workflow, path: str) -> dict:
    """Read a digest file."""
    return json.loads((workflow.root / path).read_text())


def test_a_deep_linear_network_compresses_by_the_factor_that_theory_gives(tmp_path):
    # Layerwise paper, E1 and T1: ratio 0.3^2 (1 / 10)^(1 / 6) = 0.0613 from each layer to the next, D grows
    study = yaml.safe_load((ROOT / "studies/linear.yaml").read_text())
    workflow = Workflow(tmp_path / "linear", study | {"figures": ["layers"]})
    workflow.run()
    results = workflow.root / "results/linear"
    runs = pd.read_csv(results / "tables/runs.csv")
    assert runs["converged"].all()
    assert (runs["train_loss"] < 1e-10).all()
    table = pd.read_csv(results / "runs/linear/block-0/layers.csv")
    for _, rows in table[table["step"] == table["step"].max()].groupby("seed"):
        layers = rows.sort_values("depth")
        c, d = layers["compression"].to_numpy(), layers["discrimination"].to_numpy()
        assert len(c) == 5
        np.testing.assert_allclose(c[1:] / c[:-1], 0.0613, rtol=0.03)
        assert (np.diff(d) > 0).all()


@pytest.mark.skipif(not FASHION.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_fashion_mnist_goes_through_the_whole_line(tmp_path):
    study = {
        "study": "fashion",
        "seeds": 1,
        "datasets": {
            "fashion": {"kind": "fashion-mnist", "source": str(FASHION), "sample_set": {"limit": 1000}},
        },
        "recipes": {
            "mlp": {
                "dataset": "fashion",
                "model": {"kind": "mlp", "widths": [64]},
                "optimiser": {"kind": "adam", "learning_rate": 0.003},
                "schedule": {"epochs": 2, "batch_size": 256},
            }
        },
    }
    workflow = Workflow(tmp_path / "fashion", study)
    workflow.run()
    runs = pd.read_csv(workflow.root / "results/fashion/tables/runs.csv")
    # 2 epochs over all 60,000 images: a network that learned from fewer, or from misread labels, stays well below
    assert runs["test_accuracy"].item() > 0.84
    manifest = read(workflow, "data/fashion-mnist/retrieved.json")
    assert str(FASHION) not in json.dumps(manifest)
    # the directory the files came from is no parameter
    study["datasets"]["fashion"]["source"] = str(shutil.copytree(FASHION, tmp_path / "elsewhere"))
    workflow.write_study(study)
    assert workflow.pending() == set()
    # the code that retrieves them is, to it and all below
    module = workflow.root / "scripts/featurespace/retrieval.py"
    module.write_text(module.read_text() + "\nEDITED = True\n")
    pending = workflow.pending()
    assert {"retrieve_dataset/fashion-mnist", "prepare_dataset/fashion", "train_run/mlp/block-0"} <= pending
    assert "write_study" not in pending


@pytest.mark.skipif(not FASHION.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_a_damaged_source_is_named_and_nothing_is_made_of_it(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for path in FASHION.iterdir():
        content = gzip.decompress(path.read_bytes())
        if path.name.startswith("t10k-labels"):
            content = content[:-1] + bytes([(content[-1] + 1) % 10])  # one label of 10,000 is another
        (source / path.name).write_bytes(gzip.compress(content, 1))
    study = copy.deepcopy(MLP_ONLY)
    study["datasets"] = {"digits": {"kind": "fashion-mnist", "source": str(source)}}
    workflow = Workflow(tmp_path / "damaged", study)
    done = workflow.snakemake()
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("featurespace: ")]
    assert len(said) == 1
    assert "t10k-labels-idx1-ubyte.gz" in said[0]
    assert not (workflow.root / "results/tiny/datasets").exists()


def test_results_survive_a_run_that_fails_and_the_whole_study_ends_in_the_same_bytes(tiny, tmp_path):
    study = copy.deepcopy(TINY) | {"keep_features": False}
    study["recipes"]["mlp"]["optimiser"]["learning_rate"] = 1e30
    thrifty = Workflow(tmp_path / "thrifty", study)
    assert thrifty.snakemake().returncode != 0
    results = thrifty.root / "results/tiny"
    survivors = {path: path.stat().st_mtime_ns for path in results.glob("runs/*/block-*/weights.json")}
    assert {path.parts[-3] for path in survivors} == {"seen", "line"}
    assert not (results / "report.html").exists()

    thrifty.write_study(TINY | {"keep_features": False})
    thrifty.run()
    assert {path: path.stat().st_mtime_ns for path in survivors} == survivors
    # what is drawn, or is the data itself, is small and stays; the other feature stores go
    kept = {path.parent.relative_to(results).as_posix() for path in results.rglob("features.zarr")}
    assert kept == {"datasets/digits", "datasets/rows", "runs/chance/block-0"}
    assert len(list(results.rglob("spectra.zarr"))) == 8
    assert (results / "report.html").exists()
    assert thrifty.pending() == set()

    made = sorted(path.relative_to(tiny.root) for path in (tiny.root / "results/tiny").rglob("*.json"))
    made = [
        path
        for path in made
        if not any(Path(part).suffix == ".zarr" or part in ("logs", ".made") for part in path.parts)
    ]
    assert sum(path.name == "features.json" for path in made) == 8  # the digests of the stores that are gone
    for path in [*made, *(Path(f"results/tiny/figures/{name}.csv") for name in FIGURES)]:
        assert (tiny.root / path).read_bytes() == (thrifty.root / path).read_bytes(), path


def test_a_killed_study_goes_on_and_ends_in_the_same_bytes(tmp_path):
    study = copy.deepcopy(MLP_ONLY)
    study["recipes"]["mlp"]["schedule"]["epochs"] = 1200
    study["recipes"]["mlp"]["schedule"]["keep_every"] = 50
    study["recipes"]["mlp"]["seeds"] = 1
    whole = Workflow(tmp_path / "whole", study)
    whole.run(WEIGHTS)

    killed = Workflow(tmp_path / "killed", study)
    runs = killed.root / "results/tiny/runs/mlp/block-0"
    command = [sys.executable, "-m", "snakemake", WEIGHTS, "--configfile", "study.yaml"]
    process = subprocess.Popen(
        command, cwd=killed.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    wait_for(lambda: any(runs.glob(".resume-*/**/state-*")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed.root / WEIGHTS).exists()
    # the job dies with its parent: nothing writes into the run while it is started again
    wait_for(lambda: not jobs_in(killed.root))
    begun = next(runs.glob(".resume-*"))
    shutil.copytree(begun, begun.with_name(f"{begun.name}.other"))  # as an earlier PyTorch left it

    assert killed.snakemake("--unlock").returncode == 0
    killed.run(WEIGHTS)
    log = (killed.root / "results/tiny/logs/train_run/mlp/block-0.log").read_text()
    assert int(re.findall(r"going on from step (\d+)", log)[-1]) > 0
    assert f"{begun.name}.other is kept" in log
    assert read(killed, WEIGHTS) == read(whole, WEIGHTS)
    assert not list(runs.glob(".resume-*"))


def wait_for(condition, seconds: float = 120) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def jobs_in(root: Path) -> list[str]:
    """List the processes whose working directory is the workflow's."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if (entry / "cwd").resolve() == root.resolve():
                    found.append(entry.name)
            except OSError:
                continue  # ended meanwhile, or not ours to look at
    return found


def test_a_damaged_store_is_refused_by_name(tiny, tmp_path):
    workflow = tiny.copy_to(tmp_path / "damaged")
    store = workflow.root / "results/tiny/runs/mlp/block-0/features.zarr"
    chunk = sorted(
        path for path in store.rglob("*") if path.is_file() and "hidden2" in str(path) and "c." in path.name
    )[0]
    content = bytearray(chunk.read_bytes())
    content[100] ^= 1
    chunk.write_bytes(content)
    (workflow.root / "results/tiny/runs/mlp/block-0/layers.csv").unlink()
    done = workflow.snakemake("results/tiny/runs/mlp/block-0/layers.csv")
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("featurespace: ")]
    assert len(said) == 1
    for part in ("features.zarr", "hidden2", "seed 0", "step 0"):
        assert part in said[0], said[0]
    # and what it says mends it
    advice = re.findall(r"`(--forcerun \S+)`", said[0])[0].split()
    workflow.run("results/tiny/runs/mlp/block-0/layers.csv", *advice)
    assert read(workflow, "results/tiny/runs/mlp/block-0/features.json") == read(
        tiny, "results/tiny/runs/mlp/block-0/features.json"
    )


def test_every_column_of_every_table_is_explained(tiny):
    page = (ROOT / "docs/results.md").read_text()
    rows = re.findall(r"^\| `[\w./]+/(\w+)\.csv` \| (.*)$", page, flags=re.MULTILINE)
    explained = {name: set(re.findall(r"`(\w+)`", text)) for name, text in rows}
    explained["angle_dynamics"] |= explained["angle_pairs"]  # "as below"
    # what a row is about, the same everywhere; docs/results.md has these words at its beginning
    about = {"dataset", "recipe", "block", "seed", "step", "epoch", "layer", "depth", "centring", "class_name", "label"}
    about |= {f"{name}_{side}" for name in ("recipe", "seed") for side in "ab"} | {"reference_seed"}
    results = tiny.root / "results/tiny"
    tables = [*results.glob("tables/*.csv"), *results.glob("runs/*/block-0/*.csv")]
    missing = {
        f"{table.stem}: {column}"
        for table in tables
        for column in pd.read_csv(table, nrows=0).columns
        if column not in about | explained.get(table.stem, set())
    }
    assert len({table.stem for table in tables}) > 15
    assert not missing, sorted(missing)


def test_a_figure_is_published_with_what_it_is_from(tiny, tmp_path):
    workflow = tiny.copy_to(tmp_path / "published")
    figure = "docs/figures/tiny-training.svg"
    workflow.run(figure)
    results = workflow.root / "results/tiny"
    assert (workflow.root / figure).read_bytes() == (results / "figures/training.svg").read_bytes()
    provenance = read(workflow, figure.replace(".svg", ".json"))
    assert provenance["command"] == f".venv/bin/snakemake {figure} --configfile study.yaml"
    assert provenance["sha256"]["numbers"] == sha256(results / "figures/training.csv")


def test_another_data_set_in_the_place_of_the_right_one_is_refused(tiny, tmp_path):
    workflow = tiny.copy_to(tmp_path / "swapped")
    other = copy.deepcopy(TINY)
    other["datasets"]["digits"]["split_seed"] = 1
    stranger = Workflow(tmp_path / "stranger", other)
    stranger.run("results/tiny/datasets/digits/dataset.json")
    store = "results/tiny/datasets/digits/dataset.zarr"
    shutil.rmtree(workflow.root / store)
    shutil.copytree(stranger.root / store, workflow.root / store)
    for target, rule in ((WEIGHTS, "train_run"), (WEIGHTS.replace("weights", "features"), "dump_features")):
        done = workflow.snakemake(target, "--forcerun", rule)
        assert done.returncode != 0
        said = [line for line in done.stderr.splitlines() if line.startswith("featurespace: ")]
        assert said
        assert all("dataset.zarr is not the store that" in line for line in said)


def test_snakemakes_own_report_has_every_figure_with_its_title_and_category(tiny, tmp_path):
    workflow = tiny.copy_records_to(tmp_path / "reported")
    done = workflow.snakemake("--report", "out.html")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    page = (workflow.root / "out.html").read_text()
    for category in ("P-vectors", "Controls", "Generalisation", "Layers", "Training", "Tables"):
        assert f'"{category}"' in page
    for name in [*(f"figures/{name}.svg" for name in FIGURES), "tables/runs.csv", "tables/claims.csv"]:
        assert f'"name": "{Path(name).name}"' in page, name
        title = (ROOT / "report" / f"{Path(name).stem}.rst").read_text().split("**")[1].rstrip(".")
        assert json.dumps(title) in page, title
