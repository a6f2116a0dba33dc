"""A measure and a figure of one's own, by one file and a few lines in the study each, as the page of the docs says."""

import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from harness import Workflow

pytestmark = pytest.mark.workflow

ORIGINS = {
    *("datasets/digits", "datasets/rows"),
    *("runs/mlp/block-0", "runs/mlp/block-1", "runs/seen/block-0", "runs/line/block-0", "runs/chance/block-0"),
    "runs/few-01/block-0",
}
MEASURED = {f"measure_own/{origin}" for origin in ORIGINS} | {"tabulate_own"}
DRAWN = {"plot_own/participation", "write_report"}


def ratio(features: np.ndarray) -> float:
    """Compute the participation ratio another way: (tr C)² / tr(C²)."""
    covariance = np.cov(features.astype(np.float64), rowvar=False)
    return float(np.trace(covariance) ** 2 / np.trace(covariance @ covariance))


def test_what_the_page_adds_runs_and_nothing_else(own):
    pending = set((own.root.parent / "pages.pending").read_text().splitlines())
    assert pending == MEASURED | DRAWN | {"write_study"}
    assert own.pending() == set()


def test_the_measure_is_taken_of_every_layer_step_and_seed(own):
    results = own.root / "results/tiny"
    table = pd.read_csv(results / "tables/own_measures.csv")
    assert set(table["measure"]) == {"participation_ratio"}
    parts = [pd.read_csv(results / origin / "own_measures.csv") for origin in sorted(ORIGINS)]
    assert len(table) == sum(map(len, parts))
    for origin, part in zip(sorted(ORIGINS), parts, strict=True):
        store = xr.open_zarr(results / origin / "features.zarr")
        layers = [name for name in store.data_vars if f"feature_{name}" in store[name].dims]
        assert len(part) == len(layers) * store.sizes["seed"] * store.sizes["step"]
        for row in part.itertuples():
            features = store[row.layer].sel(seed=row.seed, step=row.step).to_numpy()
            assert row.n_features == features.shape[1]
            assert row.value == pytest.approx(ratio(features), rel=1e-9)


def test_the_figure_is_drawn_kept_with_its_table_and_shown_in_the_report(own):
    figures = own.root / "results/tiny/figures"
    assert (figures / "participation.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (figures / "participation.svg").read_text()
    assert set(pd.read_csv(figures / "participation.csv")["recipe"]) >= {"mlp", "seen", "line"}
    report = (own.root / "results/tiny/report.html").read_text()
    assert "The participation ratio of each layer at the last step" in report
    assert "figures/participation.csv" in report


def edit(path: Path, old: str, new: str) -> None:
    """Replace text that must be there."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_every_edit_runs_exactly_its_jobs(own, tmp_path):
    workflow = own.copy_records_to(tmp_path / "edited")
    measure, figure = workflow.root / "participation.py", workflow.root / "participation_figure.py"
    study = copy.deepcopy(own.study)
    kept = {path: path.read_text() for path in (measure, figure)}

    def now() -> set[str]:
        pending = workflow.pending()
        for path, text in kept.items():
            path.write_text(text)
        workflow.write_study(study)
        return pending

    edit(measure, "eigenvalues.sum()", "(0 + eigenvalues.sum())")
    assert now() == MEASURED | DRAWN
    edit(measure, "1 for a line", "one for a line")  # its docstring
    assert now() == set()
    edit(figure, "new_figure(2.6)", "new_figure(2.7)")
    assert now() == DRAWN
    edit(figure, "a line a recipe", "one line a recipe")  # the caption
    assert now() == {"write_report"}
    # a module that is imported counts, with what it says, before it is ever run
    (workflow.root / "colours.py").write_text("WIDTH = 2\n")
    edit(figure, "\nfrom featurespace", "\nimport colours\nfrom featurespace")
    assert now() == DRAWN
    edited = copy.deepcopy(study)
    edited["own_figures"]["participation"]["tables"].append("runs")
    workflow.write_study(edited)
    assert now() == DRAWN | {"write_study"}
    edited = copy.deepcopy(study)
    edited["own_figures"]["participation"]["caption"] = "Another caption."
    workflow.write_study(edited)
    assert now() == {"write_study", "write_report"}
    assert now() == set()


def test_verify_knows_what_is_ones_own(own, tmp_path):
    workflow = own.copy_to(tmp_path / "verified")
    table, figure = "results/tiny/tables/own_measures.csv", "results/tiny/figures/participation.png"
    assert workflow.snakemake("verify").returncode == 0
    for path in (table, figure):
        (workflow.root / path).write_bytes(b"damaged")
    done = workflow.snakemake("verify")
    assert done.returncode != 0
    assert f"--forcerun {figure} {table}" in done.stderr


def test_a_measure_that_fails_is_named_with_its_layer_in_one_line(own, tmp_path):
    workflow = own.copy_to(tmp_path / "fails")
    edit(workflow.root / "participation.py", "return eigen", "return eigenvalues if features.shape[1] == 8 else eigen")
    table = "results/tiny/runs/mlp/block-1/own_measures.csv"
    done = workflow.snakemake(table)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("featurespace: ")]
    assert said == [
        "featurespace: results/tiny/runs/mlp/block-1/features.zarr, layer hidden2, seed 2, step 0: "
        "participation_ratio: should be a number, not ndarray of shape (8,)"
    ]


BAD = {
    "a file that is not there": ({"script": "nowhere.py"}, "own_figures.participation.script: no file 'nowhere.py'"),
    "a file without the function": ({"script": "participation.py"}, "has no function `plot(tables)`"),
    "a table that nobody makes": ({"tables": ["angel_pairs"]}, "did you mean 'angle_pairs'?"),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_cannot_be_found_is_named_before_any_job(own, tmp_path, bad):
    change, says = BAD[bad]
    study = copy.deepcopy(own.study)
    study["own_figures"]["participation"] |= change
    workflow = Workflow(tmp_path / "bad", study)
    for name in ("participation.py", "participation_figure.py"):
        (workflow.root / name).write_bytes((own.root / name).read_bytes())
    done = workflow.snakemake("-n")
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "profile" not in line]
    assert done.returncode != 0
    assert len(lines) == 1
    assert says in lines[0]
