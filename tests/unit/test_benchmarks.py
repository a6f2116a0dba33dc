"""The benchmarks: what they compare with is right, what they measure is what they say, and no row passes by itself."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from benchmarks import (
    gpu_rows,
    large_rows,
    measures_rows,
    real_data,
    recording_rows,
    scaling_rows,
    spectra_rows,
    stage_rows,
    study_rows,
    table,
    training_rows,
)
from benchmarks.__main__ import Bench
from benchmarks.table import CheckFailed, Row, Target
from published_files import write_published
from threadpoolctl import threadpool_limits

from featurespace import catalogue
from featurespace.errors import FeaturespaceError

ROOT = Path(__file__).parents[2]
N_TRAIN, N_TEST = 600, 100


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Made-up images in Fashion-MNIST's files, which pass as the published ones."""
    folder = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        namespace = vars(catalogue) | {"PUBLISHED": dict(catalogue.PUBLISHED)}
        exec(write_published("fashion-mnist", folder, N_TRAIN, N_TEST), namespace)
        patch.setitem(catalogue.PUBLISHED, "fashion-mnist", namespace["PUBLISHED"]["fashion-mnist"])
        yield folder


@pytest.fixture(autouse=True)
def one_thread():
    """Small matrices: threads would only wait for each other."""
    with threadpool_limits(1), table.threads(1):
        yield


@pytest.fixture
def bench(published, tmp_path):
    return Bench(published, tmp_path / "kept", tmp_path, quick=True)


@pytest.fixture(params=[(120, 24), (24, 120)], ids=["tall", "wide"])
def matrix(request):
    """A float32 matrix off the origin, whose singular values decay slowly."""
    n, d = request.param
    generator = np.random.default_rng(0)
    return (generator.normal(size=(n, d)) * np.arange(1, d + 1) ** -0.3 + 0.5).astype(np.float32)


# --- what is compared with ---


METHODS = {
    "ours": lambda matrix: spectra_rows.triplets_of(spectra_rows.ours(matrix)),
    "numpy": spectra_rows.with_numpy(spectra_rows.numpy_svd),
    "scipy": spectra_rows.with_numpy(spectra_rows.scipy_svd),
    "covariance": spectra_rows.with_numpy(spectra_rows.covariance_eigh),
    "svds": spectra_rows.with_numpy(spectra_rows.svds),
    "randomized": spectra_rows.with_numpy(spectra_rows.scikit_randomized(64)),
    "lowrank": spectra_rows.with_torch(spectra_rows.torch_lowrank(64), "cpu"),
    "torch": spectra_rows.with_torch(spectra_rows.torch_svd, "cpu"),
    "torch covariance": spectra_rows.with_torch(spectra_rows.torch_covariance_eigh, "cpu"),
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_the_same_triplets(matrix, method):
    found = METHODS[method](matrix)
    for centring, (values, left, right) in zip(("raw", "centred"), found, strict=True):
        expected_left, expected, expected_right = reference.svd(matrix, centring)
        assert values == pytest.approx(expected[: spectra_rows.K], rel=1e-10)
        for i in range(3):
            assert reference.angle_deg(left[:, i], expected_left[:, i]) < 1e-5
            assert reference.angle_deg(right[:, i], expected_right[:, i]) < 1e-5
    assert spectra_rows.Reference(matrix).is_met(found)


def test_what_is_not_accurate_enough_does_not_count(matrix):
    check = spectra_rows.Reference(matrix)
    raw, (values, left, right) = METHODS["numpy"](matrix)
    assert not check.is_met([raw, (values * (1 + 1e-9), left, right)])
    turned = left + 1e-6 * np.roll(left, 1, axis=1)
    assert not check.is_met([raw, (values, turned, right)])
    others = spectra_rows.contest(matrix, check)
    assert "covariance_eigh" in others.accurate
    assert "svd_lowrank" in others.less_accurate
    assert others.best in others.accurate.keys() - others.less_accurate.keys()


def test_large_matrices_have_the_same_reference(matrix, monkeypatch):
    expected = spectra_rows.Reference(matrix).values
    monkeypatch.setattr(spectra_rows, "FULL_SVD_SIZE", 0)
    assert np.allclose(spectra_rows.Reference(matrix).values, expected, rtol=1e-12, atol=0)


def test_layer_measures_are_compared_with_their_definitions():
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), [10, 20, 15, 5])
    features = (labels[:, None] + generator.normal(size=(50, 12)) + 1).astype(np.float32)
    functions = (reference.compression, reference.discrimination, reference.nc1)
    expected = [function(features, labels) for function in functions]
    assert measures_rows.numpy_measures(features, labels) == pytest.approx(expected, rel=1e-10)
    assert measures_rows.torch_measures(features, labels, torch.device("cpu")) == pytest.approx(expected, rel=1e-10)
    within, _ = reference.scatter(features, labels)
    assert np.allclose(measures_rows.outer_products(features, labels), within)


@pytest.mark.parametrize("model", [training_rows.MLP, training_rows.CNN])
def test_the_plain_loop_trains_the_same_network(bench, model):
    history = training_rows.our_training(training_rows.training_spec(model, 1), real_data.few(bench.dataset, 128, 50))
    plain = training_rows.plain_network(model, 28)
    with torch.no_grad():
        norm = sum(float(parameter.square().sum()) for parameter in plain.parameters()) ** 0.5
    # of as many parameters, drawn alike
    assert history[0]["weight_norm"] == pytest.approx(norm, rel=0.05)
    assert plain(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


# --- how it is measured ---


def test_functions_take_turns():
    calls = []
    times = table.alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert times.keys() == {"a", "b"}


def test_a_row_is_met_by_its_ratio_alone():
    assert table.speedup("row", "case", "other", 1.0, 3.0, 2.0).met == "yes"
    assert table.speedup("row", "case", "other", 2.0, 3.0, 2.0).met == "no"
    assert table.cost("row", "case", "other", 3.0, 2.0, 1.2).met == "no"
    assert table.cost("row", "case", "other", 2.2, 2.0, 1.2).met == "yes"
    assert table.speedup("row", "case", "other", 1.0, 3.0, None).met == ""
    assert Row("row", "case", "other", target=Target(">=", 2.0)).met == ""


def test_passes_over_the_data_are_counted():
    source = measures_rows.Counted(np.zeros((50, 3)), block_rows=20)
    assert [len(block) for block in source()] == [20, 20, 10]
    list(source())
    assert source.n_rows == 100


def test_exponents_are_those_of_powers():
    assert scaling_rows.exponent((1, 4, 16), [0.1, 0.4, 1.6]) == pytest.approx(1.0)
    assert scaling_rows.exponent((1, 4, 16), [0.1, 1.6, 25.6]) == pytest.approx(2.0)


def test_a_wrong_result_is_an_error_and_no_row(bench, monkeypatch):
    monkeypatch.setattr(measures_rows, "numpy_measures", lambda features, labels: (1.0, 2.0, 3.0))
    with pytest.raises(CheckFailed, match="layer measures"):
        list(measures_rows.measures(bench.features, 300, 16, 1))


# --- the tables ---


def test_rows_become_csv_and_markdown(tmp_path):
    rows = [table.speedup("row", "2 x 3", "other", 1.0, 3.0, 2.0, "a note"), Row("none", "", "", note="no GPU")]
    table.write_tables(tmp_path, "bench", rows)
    with (tmp_path / "bench.csv").open() as file:
        first, second = csv.DictReader(file)
    assert (first["ratio"], first["target"], first["met"]) == ("3", ">= 2", "yes")
    assert (second["ratio"], second["met"], second["note"]) == ("", "", "no GPU")
    text = (tmp_path / "bench.md").read_text()
    assert "| row | 2 x 3 | 1 | other | 3 | s | 3 | >= 2 | yes | a note |" in text
    assert f"torch {torch.__version__.partition('+')[0]}" in text


def test_a_page_takes_in_the_newest_table(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bench: begin -->\nold\n<!-- bench: end -->\nafter\n")
    table.include_table(page, "bench", "| new |\n")
    assert "old" not in page.read_text()
    assert page.read_text().startswith("before\n") and page.read_text().endswith("after\n")
    table.include_table(page, "bench", "| newer |\n")
    assert page.read_text().count("| newer |") == 1
    with pytest.raises(ValueError, match="no place for the table 'gpu'"):
        table.include_table(page, "gpu", "")


@pytest.mark.parametrize("name", ["bench", "large", "gpu", "scaling"])
def test_the_page_has_a_place_for_every_table(name, tmp_path):
    page = tmp_path / "page.md"
    page.write_text((ROOT / "docs/performance.md").read_text())
    table.include_table(page, name, "| a row |\n")
    assert "| a row |" in page.read_text()


def test_make_knows_every_table():
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in ("bench", "bench-large", "bench-gpu", "bench-scaling"):
        assert f"make {name} " in said


def test_without_the_data_there_is_one_line(tmp_path):
    with pytest.raises(FeaturespaceError, match="the benchmarks need Fashion-MNIST") as caught:
        real_data.find_fashion(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_the_clock_waits_until_nothing_computes(monkeypatch):
    used = iter([0.02, 0.0, 0.02, 0.0, 0.0, 0.02])  # of the processor, look by look: the fifth is the second at rest
    looks = []
    spent = 0.0

    def process_time() -> float:
        return spent

    def sleep(seconds: float) -> None:
        nonlocal spent
        looks.append(seconds)
        spent += next(used)

    monkeypatch.setattr(table.time, "process_time", process_time)
    monkeypatch.setattr(table.time, "sleep", sleep)
    table.settle()
    assert len(looks) == 5


# --- all of it, in the smallest size ---


def test_features_are_those_of_consecutive_steps(bench):
    first, second = (bench.features.matrix(300, 16, step) for step in (1, 2))
    assert first.shape == (300, 16) and first.dtype == np.float32
    assert not np.array_equal(first, second)
    again = real_data.Features(bench.dataset, bench.kept, 240, 3)
    assert np.array_equal(again.matrix(300, 16, 2), second)
    (bench.kept / "w16-240-3.json").write_text("{}")  # as another version might have left it
    assert np.array_equal(again.matrix(300, 16, 2), second)
    moved = bench.features.matrix(300, 16, 2, shift=(0, 28))
    assert np.array_equal(moved, second)


def test_who_was_faster_when_tried_takes_its_turn(bench, monkeypatch):
    numpy = spectra_rows.with_numpy(spectra_rows.numpy_svd)

    def lazy(matrix: np.ndarray) -> list[spectra_rows.Triplets]:
        time.sleep(0.3)
        return numpy(matrix)

    tried = spectra_rows.Contest({"lazy": lazy, "numpy": numpy}, {"lazy": 1e-6, "numpy": 2e-6})
    monkeypatch.setattr(spectra_rows, "contest", lambda *_: tried)
    bests: spectra_rows.Bests = {}
    first, second, *_ = spectra_rows.one_matrix(bench.features, ((300, 16),), bests)
    assert first.against == bests[300, 16][0] == "numpy"
    assert (second.against, second.note) == ("lazy", "")


def test_memory_is_compared_with_three_blocks_whatever_the_steps(bench, monkeypatch):
    monkeypatch.setattr(stage_rows, "measure_apart", lambda store, digest, vectors: {"bytes": 97 * 2**20})
    rows = list(bench.rows("bench")["memory"]())
    assert [row.case for row in rows] == ["2 steps x 400 x 16", "3 steps x 400 x 16"]
    assert all(row.other == pytest.approx(96 + 8 * 16**2 / 2**20) and row.met == "no" for row in rows)


def test_a_recorder_is_timed_in_a_loop_that_ends_in_the_same_weights(bench, monkeypatch):
    rows = list(bench.rows("bench")["recording"]())
    assert [row.against for row in rows] == [
        "the loop with bare forward passes",
        "the loop without",
        "bare forward passes",
    ]
    assert [str(row.target) for row in rows] == ["<= 1.1", "<= 1.1", "None"]
    assert all(row.ratio > 0 for row in rows)
    allclose = np.allclose
    monkeypatch.setattr(recording_rows.np, "allclose", lambda a, b, **_: allclose(a, b + 1e-3))
    with pytest.raises(CheckFailed, match="other features of conv1"):
        list(bench.rows("bench")["recording"]())


def test_a_job_of_a_study_tells_its_times(tmp_path):
    """Runs the rule's real script edge, with the clocks that the benchmark appends to it."""
    source = (ROOT / "scripts/featurespace/script.py").read_text() + study_rows.CLOCKS
    (tmp_path / "edge.py").write_text(source)
    body = """
import time
from types import SimpleNamespace
from edge import script_edge
time.sleep(0.3)
job = SimpleNamespace(
    log=[], input=None, output=None, params=SimpleNamespace(spec={}), config={}, threads=1
)
with script_edge(job):
    import slow
    time.sleep(0.2)
"""
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(0.4)\n")
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'scripts'}{os.pathsep}{tmp_path}"}
    subprocess.run([sys.executable, "-c", body], cwd=tmp_path, env=environment, check=True, timeout=120)
    (path,) = (tmp_path / "job-times").iterdir()
    times = json.loads(path.read_text())
    assert 0.2 <= times["computing"] < 0.59  # less than sleep and import together
    assert times["start_up"] >= 0.69  # ticks are hundredths of a second


@pytest.mark.timeout(600)
def test_the_way_of_the_gpu_is_taken_on_the_cpu(bench):
    makers = gpu_rows.on_the_gpu(bench.features, bench.published, bench.scratch / "gpu", quick=True)
    rows = [row for make in makers.values() for row in make()]
    measured = {row.row for row in rows}
    promised = {
        name.replace("consecutive", "3 consecutive").replace(" MLP", "").replace(" CNN", "")
        for name in gpu_rows.PROMISES
        if "roofline" not in name and "50" not in name and "5 seeds" not in name
    }
    assert promised <= measured
    assert {"training a block of 5 seeds", "training a block of 3 seeds"} <= measured
    assert all(row.ratio > 0 for row in rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_without_a_gpu_the_table_says_so(bench):
    makers = gpu_rows.on_the_gpu(bench.features, bench.published, bench.scratch / "gpu", quick=False)
    rows = [row for make in makers.values() for row in make()]
    assert [row.row for row in rows] == list(gpu_rows.PROMISES)
    assert all(row.note == "no GPU" and row.ratio is None and row.target is not None for row in rows)


def test_a_large_matrix_is_decomposed_where_it_fits(bench):
    time, memory = large_rows.beyond_memory(bench.features, bench.scratch, 2_000, 16)
    assert time.ratio > 0
    assert memory.met == "yes"


def test_a_large_matrix_that_does_not_fit_is_not_written(bench, monkeypatch):
    usage = type("Usage", (), {"free": 10**9})
    monkeypatch.setattr(large_rows.shutil, "disk_usage", lambda path: usage)
    (row,) = large_rows.beyond_memory(bench.features, bench.scratch)
    assert row.ratio is None and "needs 12 GB of disk, 1 GB are free" in row.note
    assert not (bench.scratch / "features.zarr").exists()


def test_every_stage_is_timed_against_size(bench):
    rows = list(scaling_rows.scaling(bench.published, bench.scratch / "scaling", quick=True, axes=("seeds",)))
    assert [row.case for row in rows] == list(scaling_rows.JOBS)
    assert all(row.target == Target("<=", 1.1) and np.isfinite(row.ratio) for row in rows)
