"""Angles between subspaces against their definition, chance against brute force, and the script on stores."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1]))
import reference
from synthetic_stores import N_SAMPLES, decompose, make_features, run_script

from featurespace import subspaces
from featurespace.stores import FeatureStore
from featurespace.subspaces import COLUMNS, Bases, SubspaceNull, compare_last_steps, compare_steps

NULLS = {k: SubspaceNull(60.0 + k, 70.0 + k, 50.0 + k) for k in (1, 2, 3)}


def orthonormal_rows(k: int, n: int, seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n, k)))[0].T


def nearby_rows(rows: np.ndarray, noise: float, seed: int = 1) -> np.ndarray:
    moved = rows + noise * np.random.default_rng(seed).normal(size=rows.shape) / np.sqrt(rows.shape[1])
    return np.linalg.qr(moved.T)[0].T


def bases(recipe: str, seed: int, n_steps: int = 1, k: int = 3) -> Bases:
    vectors = [orthonormal_rows(k, 40, seed=100 * len(recipe) + 10 * seed + j) for j in range(n_steps)]
    return Bases(recipe, seed, np.arange(n_steps) * 10, np.arange(n_steps) / 2, np.stack(vectors))


# --- angles -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [1e-6, 1e-2, 0.5, 10.0])
@pytest.mark.parametrize("n", [300, 8], ids=["tall", "joint-span-is-everything"])
def test_angles_match_the_definition(noise, n):
    a = orthonormal_rows(5, n)
    b = nearby_rows(a, noise)
    dimensions = [1, 2, 4, 5]
    found = subspaces.subspace_angles_deg(a, b, dimensions)
    for row, k in zip(found, dimensions, strict=True):
        principal = reference.principal_angles_deg(a[:k].T, b[:k].T)
        expected = [reference.angle_deg(a[k - 1], b[k - 1]), principal.mean(), principal[-1]]
        np.testing.assert_allclose(row, expected, rtol=1e-7, atol=1e-12)


def test_equal_vectors_are_at_exactly_zero():
    a = orthonormal_rows(4, 50)
    assert not subspaces.subspace_angles_deg(a, a.copy(), [1, 3, 4]).any()


def test_a_turned_basis_spans_the_same_subspace():
    a = orthonormal_rows(3, 90)
    turned = orthonormal_rows(3, 3, seed=4) @ a
    found = subspaces.subspace_angles_deg(a, turned, [3])
    assert found[0, 0] > 1
    assert found[0, 2] < 1e-6


def test_missing_vectors_leave_their_dimensions_empty():
    a, b = orthonormal_rows(4, 50), orthonormal_rows(4, 50, seed=1)
    a[2:] = np.nan
    found = subspaces.subspace_angles_deg(a, b, [1, 2, 3, 4])
    assert np.isfinite(found[:2]).all()
    assert np.isnan(found[2:]).all()
    np.testing.assert_allclose(found[:2], subspaces.subspace_angles_deg(a[:2], b, [1, 2]), rtol=1e-9)
    assert np.isnan(subspaces.subspace_angles_deg(np.full((4, 50), np.nan), b, [1])).all()


# --- chance -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dimension", "k"), [(12, 1), (12, 3), (12, 6), (12, 8), (5, 4), (40, 5)])
def test_random_subspaces_are_as_brute_force_draws_them(dimension, k):
    generator = np.random.default_rng(0)
    found = subspaces.null_angles_deg(dimension, k, 3000, np.random.default_rng(1))
    assert found.shape == (3000, k)
    assert np.all(np.diff(found, axis=1) >= 0)
    frames = np.linalg.qr(generator.normal(size=(3000, dimension, k)))[0]
    expected = np.degrees(np.arccos(np.clip(np.linalg.svd(frames[:, :k], compute_uv=False), 0, 1)))
    for i in range(k):
        if i < 2 * k - dimension:
            assert not found[:, i].any()
            assert expected[:, i].max() < 1e-4
        else:
            assert stats.ks_2samp(found[:, i], expected[:, i]).pvalue > 1e-3


@pytest.mark.parametrize(("dimension", "k"), [(50, 1), (2000, 6), (50_000, 20)])
def test_random_subspaces_have_the_known_moments(dimension, k):
    cosines = np.cos(np.radians(subspaces.null_angles_deg(dimension, k, 2000, np.random.default_rng(2))))
    # The squared norm of a k x k block of a random orthogonal matrix of order N has mean k²/N.
    squares = np.sum(cosines**2, axis=1)
    assert squares.mean() == pytest.approx(k**2 / dimension, abs=4 * squares.std() / np.sqrt(2000))
    if k == 1:
        assert stats.kstest(cosines[:, 0] ** 2, stats.beta(0.5, (dimension - 1) / 2).cdf).pvalue > 1e-3


def test_the_whole_space_is_one_subspace():
    assert not subspaces.null_angles_deg(4, 4, 7, np.random.default_rng(0)).any()
    with pytest.raises(ValueError, match="no subspace of 5"):
        subspaces.null_angles_deg(4, 5, 7, np.random.default_rng(0))


def test_nulls_are_of_the_space_of_the_centring_and_of_the_seed():
    raw = subspaces.draw_nulls(9, "raw", [1, 2, 9], 50, seed=0)
    centred = subspaces.draw_nulls(9, "centred", [1, 2, 9], 50, seed=0)
    assert list(raw) == [1, 2, 9]
    assert list(centred) == [1, 2]
    assert raw == subspaces.draw_nulls(9, "raw", [1, 2, 9], 50, seed=0)
    assert raw[2] == subspaces.draw_nulls(9, "raw", [2], 50, seed=0)[2]
    assert raw[2] != subspaces.draw_nulls(9, "raw", [2], 50, seed=1)[2]
    assert centred == subspaces.draw_nulls(8, "raw", [1, 2], 50, seed=0)
    assert raw[2].largest_low_deg < raw[2].largest_deg
    assert raw[2].mean_deg < raw[2].largest_deg


# --- the table --------------------------------------------------------------------------------------------------


def test_every_step_is_compared_with_a_reference():
    network = bases("mlp", 2, n_steps=3)
    table = compare_steps("digits", "raw", network, network.last(), "own", NULLS)
    assert list(table.columns) == COLUMNS
    assert table["step"].tolist() == [0, 0, 0, 10, 10, 10, 20, 20, 20]
    assert table["k"].tolist() == [1, 2, 3] * 3
    assert set(zip(table["recipe"], table["seed"], table["reference"], table["reference_seed"], strict=True)) == {
        ("mlp", 2, "own", 2)
    }
    assert not table.loc[table["step"] == 20, ["vector_angle_deg", "mean_deg", "largest_deg"]].any(axis=None)
    row = table[(table["step"] == 10) & (table["k"] == 2)].iloc[0]
    principal = reference.principal_angles_deg(network.vectors[1, :2].T, network.vectors[2, :2].T)
    assert row["epoch"] == 0.5
    assert row["largest_deg"] == pytest.approx(principal[-1], rel=1e-9)
    assert row["mean_deg"] == pytest.approx(principal.mean(), rel=1e-9)
    assert row[["null_mean_deg", "null_largest_deg", "null_largest_low_deg"]].tolist() == [62.0, 72.0, 52.0]


def test_dimensions_that_are_not_stored_are_left_out():
    table = compare_steps("digits", "raw", bases("mlp", 0), bases("data", 0, k=2), "data", NULLS)
    assert table["k"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("n_seeds", "following"),
    [(1, []), (2, [(0, 1)]), (3, [(0, 1), (1, 2), (2, 0)])],
    ids=["one-seed", "two-seeds", "three-seeds"],
)
def test_last_steps_meet_other_recipes_at_their_seed_and_their_own_at_the_next(n_seeds, following):
    networks = [bases(recipe, seed) for recipe in ("a", "bb", "ccc") for seed in range(n_seeds)]
    table = compare_last_steps("digits", "centred", networks, {2: NULLS[2]})
    found = list(zip(table["recipe"], table["seed"], table["reference"], table["reference_seed"], strict=True))
    same = [(name, a, name, b) for name in ("a", "bb", "ccc") for a, b in following]
    crossed = [(a, seed, b, seed) for a, b in (("a", "bb"), ("a", "ccc"), ("bb", "ccc")) for seed in range(n_seeds)]
    assert sorted(found) == sorted(same + crossed)
    last = table[(table["recipe"] == "bb") & (table["reference"] == "ccc") & (table["seed"] == 0)].iloc[0]
    a, b = networks[n_seeds].vectors[0, :2], networks[2 * n_seeds].vectors[0, :2]
    assert last["largest_deg"] == pytest.approx(reference.principal_angles_deg(a.T, b.T)[-1], rel=1e-9)


def test_compare_subspaces_from_stores_to_a_table(tmp_path, monkeypatch):
    monkeypatch.setattr("featurespace.script._die_with_snakemake", lambda: None)
    monkeypatch.setattr("featurespace.script._start_logging", lambda log: None)
    for name, layers, n_steps in (
        ("mlp", {"hidden": 5}, 3),
        ("untrained", {"hidden": 2}, 1),
        ("data", {"input": 12}, 1),
    ):
        make_features(tmp_path / name, name, layers, n_seeds=1 if name == "data" else 2, n_steps=n_steps)
        decompose(tmp_path / name)
    recipe = {"dataset": "toy", "task": "classify", "feature_layer": "hidden", "blocks": 1}
    run_script(
        "compare_subspaces",
        {
            "datasets": ["toy"],
            "dimensions": [1, 2, 3, 6],
            "null_draws": 30,
            "null_seed": 0,
            "recipes": [recipe | {"name": "mlp"}, recipe | {"name": "untrained"}],
        },
        in_runs=[str(tmp_path / name / "spectra.zarr") for name in ("mlp", "untrained")],
        in_run_digests=[str(tmp_path / name / "spectra.json") for name in ("mlp", "untrained")],
        in_data=[str(tmp_path / "data" / "spectra.zarr")],
        in_data_digests=[str(tmp_path / "data" / "spectra.json")],
        out_table=str(tmp_path / "subspaces.csv"),
    )
    table = pd.read_csv(tmp_path / "subspaces.csv")
    assert list(table.columns) == COLUMNS
    # Four vectors are kept. Own and data at 3 + 1 steps of 2 seeds; two recipes, and each with its next seed.
    assert len(table) == 2 * 3 * (2 * 2 * 4 + 2 + 2)
    assert not table.duplicated(["centring", "recipe", "seed", "step", "reference", "reference_seed", "k"]).any()
    own_last = table[
        (table["reference"] == "own") & (table["step"] == table["recipe"].map({"mlp": 10, "untrained": 0}))
    ]
    assert (own_last.loc[own_last["k"] <= 2, "largest_deg"] == 0).all()
    # Two features have two vectors, and the first step of the other network none.
    gone = (table["recipe"] == "untrained") | (table["reference"] == "untrained")
    gone = (gone & (table["k"] == 3)) | ((table["recipe"] == "mlp") & (table["step"] == 0))
    assert table.loc[gone, "largest_deg"].isna().all()
    assert table.loc[~gone, ["vector_angle_deg", "mean_deg", "largest_deg"]].notna().all(axis=None)
    assert table["null_largest_deg"].between(60, 90).all()

    features = FeatureStore.open(tmp_path / "mlp" / "features.zarr").matrix("hidden", 1, 2)
    pixels = FeatureStore.open(tmp_path / "data" / "features.zarr").matrix("input", 0, 0)
    assert len(features) == N_SAMPLES
    keys = ["recipe", "seed", "step", "reference", "centring", "k"]
    for centring in ("raw", "centred"):
        row = table.set_index(keys).loc[("mlp", 1, 10, "data", centring, 3)]
        a, b = (reference.svd(matrix, centring)[0][:, :3] for matrix in (features, pixels))
        assert row["vector_angle_deg"] == pytest.approx(reference.angle_deg(a[:, 2], b[:, 2]), rel=1e-7)
        principal = reference.principal_angles_deg(a, b)
        assert row["mean_deg"] == pytest.approx(principal.mean(), rel=1e-7)
        assert row["largest_deg"] == pytest.approx(principal[-1], rel=1e-7)
