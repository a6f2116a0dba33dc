"""The results of a real study, opened with xarray and held against NumPy in float64, without the library."""

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import reference
import xarray as xr

pytestmark = pytest.mark.workflow

CENTRINGS = ("raw", "centred")


@cache
def open_store(path: Path, group: str = "") -> xr.Dataset:
    """Open a store as a user does, and let no warning pass."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return xr.open_zarr(path, group=group or None).load()


@pytest.fixture(scope="module")
def results(tiny) -> Path:
    """The results of the tiny study."""
    return tiny.root / "results/tiny"


@pytest.fixture(scope="module")
def origins(results) -> list[Path]:
    """Where features are: the data sets and the runs."""
    return sorted(path.parent for path in results.rglob("features.zarr"))


def feature_matrices(origin: Path):
    """Yield (layer, seed, step, features in float64, labels) of every matrix of a store."""
    store = open_store(origin / "features.zarr")
    for layer in store.data_vars:
        for seed in store.seed.values:
            for step in store.step.values:
                matrix = store[layer].sel(seed=seed, step=step)
                yield str(layer), int(seed), int(step), matrix.values.astype(np.float64), store.label.values


def end_vectors(results: Path, recipe: str, layer: str, centring: str, end: int) -> dict[int, np.ndarray]:
    """Decompose the features of a recipe's first (0) or last (-1) step; return its P-vectors by seed."""
    found = {}
    for block in sorted((results / "runs" / recipe).glob("block-*")):
        store = open_store(block / "features.zarr")
        for seed in store.seed.values:
            matrix = store[layer].sel(seed=seed).isel(step=end).values
            found[int(seed)] = reference.svd(matrix, centring)[0][:, 0]
    return found


def test_every_store_opens_with_named_dimensions_and_coordinates(results, origins):
    assert len(origins) == 8  # two data sets, four recipes in five blocks, and a member of a sweep
    for origin in origins:
        features = open_store(origin / "features.zarr")
        assert {"seed", "step", "epoch", "sample", "label"} <= set(features.coords)
        for layer, array in features.data_vars.items():
            assert array.dims == ("seed", "step", "sample", f"feature_{layer}")
            assert array.dtype == np.float32
            spectra = open_store(origin / "spectra.zarr", str(layer))
            assert spectra.singular_value.dims == ("seed", "step", "centring", "component")
            assert spectra.left_vector.dims == ("seed", "step", "centring", "vector", "sample")
            for coordinate in ("seed", "step", "epoch", "sample", "label"):
                np.testing.assert_array_equal(spectra[coordinate], features[coordinate])
        assert len(features.attrs["sample_hash"]) == 64
    for dataset in (results / "datasets").iterdir():
        prepared = open_store(dataset / "dataset.zarr")
        assert {"image", "value"} & set(prepared.data_vars)
        assert {"label", "split"} <= set(prepared.variables)


def test_spectra_and_p_vectors_are_those_of_a_full_decomposition(origins):
    n_checked = 0
    for origin in origins:
        for layer, seed, step, matrix, _ in feature_matrices(origin):
            spectra = open_store(origin / "spectra.zarr", layer).sel(seed=seed, step=step)
            for centring in CENTRINGS:
                left, values, right = reference.svd(matrix, centring)
                found = spectra.sel(centring=centring)
                clear = values >= 1e-3 * values[0]
                np.testing.assert_allclose(found.singular_value.values[: len(values)][clear], values[clear], rtol=1e-8)
                np.testing.assert_allclose(found.frobenius_norm, np.linalg.norm(values), rtol=1e-10)
                gap = (values[0] - values[1]) / values[0]
                np.testing.assert_allclose(found.relative_gap[0], gap, atol=1e-8)
                if gap > 1e-3:
                    for vectors, exact in ((found.left_vector, left), (found.right_vector, right)):
                        vector = vectors.values[0]
                        sign = np.sign(vector @ exact[:, 0])
                        np.testing.assert_allclose(sign * vector, exact[:, 0], atol=1e-8)
                    n_checked += 1
    assert n_checked > 50


def test_compression_and_discrimination_are_those_of_the_definitions(origins):
    n_checked = 0
    for origin in origins:
        if "few" in origin.parent.name:
            continue  # a sweep's members are not measured
        table = pd.read_csv(origin / "layers.csv").set_index(["layer", "seed", "step"])
        for layer, seed, step, matrix, labels in feature_matrices(origin):
            row = table.loc[(layer, seed, step)]
            c = reference.compression(matrix, labels)
            assert c >= 1e-8
            assert row["reliable"]
            np.testing.assert_allclose(row["compression"], c, rtol=1e-10)
            np.testing.assert_allclose(row["discrimination"], reference.discrimination(matrix, labels), atol=1e-10)
            np.testing.assert_allclose(row["nc1"], reference.nc1(matrix, labels), rtol=1e-7)
            assert row["numerical_rank"] == reference.numerical_rank(matrix)
            n_checked += 1
    assert n_checked > 20


@pytest.mark.parametrize("stage", ["first", "last"])
@pytest.mark.parametrize("centring", CENTRINGS)
def test_angles_between_networks(results, centring, stage):
    table = pd.read_csv(results / "tables/angle_pairs.csv")
    table = table.query("centring == @centring and stage == @stage and determined")
    layers = {"mlp": "hidden2", "seen": "hidden", "line": "linear2", "chance": "noise", "few-01": "hidden1"}
    end = {"first": 0, "last": -1}[stage]
    vectors = {recipe: end_vectors(results, recipe, layer, centring, end) for recipe, layer in layers.items()}
    for dataset in ("digits", "rows"):
        store = open_store(results / f"datasets/{dataset}/features.zarr")
        vectors[f"data {dataset}"] = {0: reference.svd(store.input.values[0, 0], centring)[0][:, 0]}
    assert len(table) >= 8
    for row in table.itertuples():
        a = vectors[row.recipe_a][row.seed_a]
        b = vectors[f"data {row.dataset}" if row.recipe_b == "data" else row.recipe_b][row.seed_b]
        ones = np.ones(len(a))
        assert abs(row.angle_deg - reference.angle_deg(a, b)) < 1e-5
        assert abs(row.correlation - reference.correlation(a, b)) < 1e-6
        if centring == "raw":
            assert abs(row.angle_to_ones_deg - reference.angle_deg(a, ones)) < 1e-5
            folded = min(row.reference_angle_to_ones_deg, 180 - row.reference_angle_to_ones_deg)
            assert abs(folded - reference.angle_deg(b, ones)) < 1e-5
            # the identity that ties angle, mean and correlation of entries together
            to_ones, ref_to_ones = np.radians([row.angle_to_ones_deg, row.reference_angle_to_ones_deg])
            identity = np.cos(to_ones) * np.cos(ref_to_ones) + row.correlation * np.sin(to_ones) * np.sin(ref_to_ones)
            assert abs(row.cosine - identity) < 1e-10


def test_the_last_step_of_a_run_is_at_exactly_0_from_itself(results):
    table = pd.read_csv(results / "tables/angle_dynamics.csv").query("reference == 'own'")
    last = table.sort_values("step").groupby(["centring", "recipe", "seed"]).tail(1)
    assert len(last) == 12  # six networks or their stand-ins, raw and centred
    assert (last["angle_deg"] == 0.0).all()


def test_angles_over_training(results):
    table = pd.read_csv(results / "tables/angle_dynamics.csv")
    rows = table.query("recipe == 'mlp' and reference == 'own' and seed == 2 and determined")
    assert len(rows) > 2
    store = open_store(results / "runs/mlp/block-1/features.zarr").sel(seed=2)["hidden2"]
    for row in rows.itertuples():
        a = reference.svd(store.sel(step=row.step).values, row.centring)[0][:, 0]
        b = reference.svd(store.isel(step=-1).values, row.centring)[0][:, 0]
        assert abs(row.angle_deg - reference.angle_deg(a, b)) < 1e-5


def test_runs_on_different_data_are_never_compared(results):
    pairs = pd.read_csv(results / "tables/angle_pairs.csv")
    of_rows = pairs[pairs["dataset"] == "rows"]
    assert set(of_rows["recipe_a"]) | set(of_rows["recipe_b"]) == {"line", "data"}
    assert "line" not in set(pairs[pairs["dataset"] == "digits"][["recipe_a", "recipe_b"]].to_numpy().ravel())


def test_every_file_of_the_layout_is_there(results):
    for name in ("angle_dynamics", "angle_matrix", "spectra", "layers", "training"):
        for suffix in ("svg", "png", "csv"):
            assert (results / f"figures/{name}.{suffix}").stat().st_size > 100
    report = (results / "report.html").read_text()
    assert report.count("data:image/svg+xml") >= 5
    assert "http://" not in report.replace("http://www.w3.org", "")
    assert (results / "study.yaml").exists()
    logs = {path.name for path in (results / "logs").iterdir()}
    assert {"train_run", "decompose_features", "compare_runs.log", "write_report.log"} <= logs
