"""The tables of angles, and the scripts of this stage from a feature store to CSV."""

import importlib
import runpy
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import reference
from synthetic_stores import N_SAMPLES, SCRIPTS, decompose, make_features, run_script

from featurespace import comparison
from featurespace.angles import draw_permutations
from featurespace.comparison import (
    DYNAMICS_COLUMNS,
    PAIRS_COLUMNS,
    Endpoint,
    Trajectory,
    compare_dynamics,
    compare_pairs,
)
from featurespace.measures import LayerMeasures
from featurespace.stores import FeatureStore, read_group

IDENTITY = ["dataset", "recipe", "block", "seed", "step", "epoch", "layer", "depth"]  # how every table begins


def make_vectors(*shape: int, seed: int) -> np.ndarray:
    """Make unit rows, (2, ..., k, n): with a mean for raw, without for centred."""
    vectors = np.random.default_rng(seed).normal(size=(2, *shape, N_SAMPLES))
    vectors[0] += 1.0
    vectors[1] -= vectors[1].mean(axis=-1, keepdims=True)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def make_endpoint(recipe: str, seed: int, vectors: np.ndarray, gaps: np.ndarray, **kind: bool) -> Endpoint:
    """Take leading vectors, (2, k, n), as those of an endpoint."""
    return Endpoint(recipe, seed, vectors[:, 0], gaps, lambda centring_index: vectors[centring_index], **kind)


def make_network(recipe: str, seed: int, n_steps: int = 3) -> tuple[Trajectory, Endpoint]:
    trajectory = Trajectory(
        recipe=recipe,
        layer="hidden1",
        seed=seed,
        steps=np.arange(n_steps) * 10,
        epochs=np.arange(n_steps) / 2,
        vectors=make_vectors(n_steps, seed=seed + 100 * len(recipe)),
        relative_gaps=np.full((2, n_steps), 0.5),
    )
    others = make_vectors(2, seed=seed + 1000)
    leading = np.concatenate([trajectory.vectors[:, -1:], others], axis=1)
    return trajectory, make_endpoint(recipe, seed, leading, trajectory.relative_gaps[:, -1])


@pytest.fixture
def networks():
    pairs = [make_network(recipe, seed) for recipe in ("a", "bb") for seed in (0, 1)]
    data = make_endpoint("data", 0, make_vectors(3, seed=9), np.array([0.5, 1e-4]), is_data=True)
    return [trajectory for trajectory, _ in pairs], [*(last for _, last in pairs), data]


def test_dynamics_compare_every_step_with_every_last_step(networks):
    trajectories, references = networks
    table = compare_dynamics("digits", trajectories, references, draw_permutations(N_SAMPLES, 39, 0))
    assert list(table.columns) == DYNAMICS_COLUMNS
    assert len(table) == 4 * 3 * 5 * 2
    assert set(table["dataset"]) == {"digits"}
    mine = table[(table["recipe"] == "a") & (table["seed"] == 1) & (table["centring"] == "centred")]
    at_end = mine[mine["step"] == 20].set_index(["reference", "reference_seed"])
    assert list(at_end.index) == [("own", 1), ("a", 0), ("bb", 0), ("bb", 1), ("data", 0)]
    assert (at_end["epoch"] == 1.0).all()
    own = at_end.loc[("own", 1)]
    assert own["angle_deg"] == 0
    assert own["cosine"] == pytest.approx(1, abs=1e-14)
    assert own["p_value"] == pytest.approx(1 / 40)
    other = at_end.loc[("bb", 0)]
    p, q = trajectories[1].vectors[1, 2], references[2].vectors[1]
    assert other["angle_deg"] == pytest.approx(reference.angle_deg(p, q), rel=1e-12)
    assert other["correlation"] == pytest.approx(reference.correlation(p, q), abs=1e-12)
    assert other["angle_to_ones_deg"] == pytest.approx(90)
    # A standard normal variable has a mean size of √(2/π).
    assert other["null_formula_deg"] == pytest.approx(90 - np.degrees(np.sqrt(2 / np.pi / (N_SAMPLES - 1))), abs=0.05)
    assert other["determined"]
    to_data = at_end.loc[("data", 0)]
    assert to_data["relative_gap"] == 1e-4
    assert not to_data["determined"]


@pytest.mark.parametrize("chosen", [[2, 3, 4], [4], []], ids=["one-recipe", "data", "none"])
def test_dynamics_compare_with_the_chosen_references_and_the_own_last_step(networks, chosen):
    trajectories, endpoints = networks
    permutations = draw_permutations(N_SAMPLES, 19, 0)
    references = [endpoints[i] for i in chosen]
    table = compare_dynamics("digits", trajectories, references, permutations)
    everything = compare_dynamics("digits", trajectories, endpoints, permutations)
    named = [(endpoint.recipe, endpoint.seed) for endpoint in references]
    wanted = [row.reference == "own" or (row.reference, row.reference_seed) in named for row in everything.itertuples()]
    pd.testing.assert_frame_equal(table, everything[wanted].reset_index(drop=True), rtol=1e-10)
    assert (table["reference"] == "own").sum() == 4 * 3 * 2


def test_a_missing_vector_leaves_an_empty_row(networks):
    trajectories, references = networks
    trajectories[0].vectors[1, 0] = np.nan
    trajectories[0].relative_gaps[1, 0] = 0
    table = compare_dynamics("digits", trajectories, references, draw_permutations(N_SAMPLES, 9, 0))
    gone = table[table["angle_deg"].isna()]
    assert len(gone) == len(references)
    assert set(gone["step"]) == {0}
    assert set(gone["centring"]) == {"centred"}
    assert not gone["determined"].any()
    numbers = gone[comparison.RELATION_COLUMNS].drop(columns=["relative_gap", "determined"])
    # What is known of the reference alone is not a relation either.
    assert numbers.isna().all(axis=None)


def test_batches_do_not_change_the_table(networks, monkeypatch):
    trajectories, references = networks
    permutations = draw_permutations(N_SAMPLES, 9, 0)
    together = compare_dynamics("digits", trajectories, references, permutations)
    monkeypatch.setattr(comparison, "_BATCH_BYTES", 1)
    pd.testing.assert_frame_equal(
        compare_dynamics("digits", iter(trajectories), references, permutations), together, rtol=1e-12
    )


def test_pairs_come_once(networks):
    _, endpoints = networks
    endpoints[3].read_basis(0)[2] = np.nan
    table = compare_pairs("digits", "last", endpoints, draw_permutations(N_SAMPLES, 19, 0))
    assert list(table.columns) == PAIRS_COLUMNS
    assert len(table) == 2 * 10
    assert set(table["stage"]) == {"last"}
    names = ["recipe_a", "seed_a", "recipe_b", "seed_b"]
    assert not table[["centring", *names]].duplicated().any()
    row = table.set_index(["centring", *names]).loc[("raw", "a", 1, "bb", 0)]
    a, b = endpoints[1].read_basis(0), endpoints[2].read_basis(0)
    assert row["angle_deg"] == pytest.approx(reference.angle_deg(a[0], b[0]), rel=1e-12)
    assert row["principal_angle_max_deg"] == pytest.approx(reference.principal_angles_deg(a.T, b.T)[-1], rel=1e-10)
    # Without all k vectors there is no subspace, but the P-vector is still there.
    cut = table[(table["centring"] == "raw") & (table["recipe_b"] == "bb") & (table["seed_b"] == 1)]
    assert cut["principal_angle_max_deg"].isna().all()
    assert cut["angle_deg"].notna().all()


def test_members_of_a_population_meet_data_alone(networks):
    _, endpoints = networks
    permutations = draw_permutations(N_SAMPLES, 19, 0)
    everything = compare_pairs("digits", "last", endpoints, permutations)
    crowd = [replace(endpoint, member=endpoint.recipe == "bb") for endpoint in endpoints]
    table = compare_pairs("digits", "last", crowd, permutations)
    dropped = (everything["recipe_b"] == "bb") | ((everything["recipe_a"] == "bb") & (everything["recipe_b"] != "data"))
    assert len(table) == 2 * 5
    pd.testing.assert_frame_equal(table, everything[~dropped].reset_index(drop=True), rtol=1e-10)


def test_a_single_endpoint_has_no_pairs(networks):
    table = compare_pairs("digits", "first", networks[1][:1], draw_permutations(N_SAMPLES, 9, 0))
    assert table.empty
    assert list(table.columns) == PAIRS_COLUMNS


@pytest.mark.parametrize("kind", ["offset", "heavy-tailed"])
def test_every_row_satisfies_the_identity(networks, kind):
    trajectories, endpoints = networks
    if kind == "heavy-tailed":
        for trajectory in trajectories:
            vectors = trajectory.vectors**3
            trajectory.vectors[...] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    permutations = draw_permutations(N_SAMPLES, 9, 0)
    dynamics = compare_dynamics("digits", trajectories, endpoints, permutations)
    pairs = compare_pairs("digits", "last", endpoints, permutations)
    for table in (dynamics, pairs):
        a, b = np.radians(table["angle_to_ones_deg"]), np.radians(table["reference_angle_to_ones_deg"])
        composed = np.cos(a) * np.cos(b) + table["correlation"] * np.sin(a) * np.sin(b)
        np.testing.assert_allclose(composed, table["cosine"], rtol=0, atol=1e-10)
        np.testing.assert_allclose(np.cos(np.radians(table["angle_deg"])), table["cosine"], rtol=0, atol=1e-10)


def test_pairs_say_what_dynamics_say(networks):
    trajectories, references = networks
    permutations = draw_permutations(N_SAMPLES, 19, 0)
    dynamics = compare_dynamics("digits", trajectories, references, permutations)
    pairs = compare_pairs("digits", "last", references, permutations)
    end = dynamics[(dynamics["step"] == 20) & (dynamics["reference"] == "data")]
    last = pairs[pairs["recipe_b"] == "data"]
    keys = ["centring", "recipe", "seed"]
    joined = end.merge(last.rename(columns={"recipe_a": "recipe", "seed_a": "seed"}), on=keys)
    assert len(joined) == 8
    for column in ("angle_deg", "correlation", "null_mean_deg", "p_value"):
        np.testing.assert_allclose(joined[f"{column}_x"], joined[f"{column}_y"], rtol=1e-9)


# --- the scripts ------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def stay_alive(monkeypatch):
    """Keep a script's ties to its parent process, and its logging, out of the test's."""
    monkeypatch.setattr("featurespace.script._die_with_snakemake", lambda: None)
    monkeypatch.setattr("featurespace.script._start_logging", lambda log: None)


def compare(
    tmp_path: Path,
    runs: list[Path],
    data: Path,
    *,
    references: list[str] | None = None,
    populations: dict | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    recipe = {"dataset": "toy", "task": "classify", "feature_layer": "hidden2", "blocks": 1}
    run_script(
        "compare_runs",
        {
            "permutations": 19,
            "permutation_seed": 0,
            "references": references,
            "recipes": [
                recipe | {"name": run.name, "population": (populations or {}).get(run.name, "")} for run in runs
            ],
            "datasets": ["toy"],
        },
        in_runs=[str(run / "spectra.zarr") for run in runs],
        in_run_digests=[str(run / "spectra.json") for run in runs],
        in_data=[str(data / "spectra.zarr")],
        in_data_digests=[str(data / "spectra.json")],
        out_dynamics=str(tmp_path / "angle_dynamics.csv"),
        out_pairs=str(tmp_path / "angle_pairs.csv"),
    )
    return pd.read_csv(tmp_path / "angle_dynamics.csv"), pd.read_csv(tmp_path / "angle_pairs.csv")


@pytest.mark.parametrize("spectrum", ["whole", "leading"])
def test_decompose_features_stores_what_the_reference_finds(tmp_path, spectrum):
    folder = tmp_path / "mlp"
    make_features(folder, "mlp", {"hidden1": 9, "hidden2": 3}, n_seeds=2, n_steps=3)
    decompose(folder, spectrum)
    store = FeatureStore.open(folder / "features.zarr")
    assert read_group(folder / "spectra.zarr").attrs["layers"] == ["hidden1", "hidden2"]
    for layer, components in (("hidden1", 9 if spectrum == "whole" else 4), ("hidden2", 3)):
        group = read_group(folder / "spectra.zarr", layer, folder / "spectra.json")
        assert group.sizes["component"] == components
        assert group.sizes["vector"] == 4
        assert group["left_vector"].dims == ("seed", "step", "centring", "vector", "sample")
        np.testing.assert_array_equal(group["sample"], store.sample_ids)
        np.testing.assert_array_equal(group["epoch"].sel(step=10), 0.5)
        for centring in ("raw", "centred"):
            here = group.sel(seed=1, step=10, centring=centring)
            matrix = store.matrix(layer, 1, 2).astype(np.float64)
            left, values, _ = reference.svd(matrix, centring)
            np.testing.assert_allclose(here["singular_value"], values[:components], rtol=1e-8)
            assert abs(here["left_vector"].to_numpy()[0] @ left[:, 0]) == pytest.approx(1, abs=1e-12)
            along_mean = matrix @ matrix.mean(axis=0)
            along_mean -= along_mean.mean() * (centring == "centred")
            assert float(here["angle_to_mean_deg"]) == pytest.approx(
                reference.angle_deg(left[:, 0], along_mean), rel=1e-8
            )
    dead = read_group(folder / "spectra.zarr", "hidden2").isel(seed=0, step=0)
    assert not dead["singular_value"].any()
    assert dead["left_vector"].isnull().all()
    assert dead["angle_to_mean_deg"].isnull().all()

    table = pd.read_csv(folder / "spectra.csv")
    assert list(table.columns[:8]) == IDENTITY
    one = table[(table["layer"] == "hidden2") & (table["seed"] == 0) & (table["step"] == 5)]
    for centring, part in one.groupby("centring"):
        _, values, _ = reference.svd(store.matrix("hidden2", 0, 1), centring)
        assert part["component"].tolist() == [1, 2, 3]
        np.testing.assert_allclose(part["singular_value"], values, rtol=1e-10)
        assert part["variance_share"].sum() == pytest.approx(1)
    assert table[(table["layer"] == "hidden2") & (table["step"] == 0)]["variance_share"].isna().all()


def test_arrays_past_the_memory_limit_go_through_a_file(tmp_path):
    sys.path.insert(0, str(SCRIPTS))
    module = runpy.run_path(str(SCRIPTS / "decompose_features.py"))
    empty = module["_empty"]
    empty.__globals__["MEMORY_BYTES"] = 64
    large = empty((3, 5), tmp_path)
    large[...] = 1.5
    assert isinstance(large, np.memmap)
    module["drop_pages"](large)
    assert large.sum() == 22.5
    assert not list(tmp_path.iterdir())


def test_measure_layers_tabulates_every_step(tmp_path):
    folder = tmp_path / "mlp"
    make_features(folder, "mlp", {"hidden1": 9, "hidden2": 3}, n_seeds=2, n_steps=3)
    run_script(
        "measure_layers",
        {"rank_energy": 0.95},
        in_store=str(folder / "features.zarr"),
        in_digest=str(folder / "features.json"),
        out_table=str(folder / "layers.csv"),
    )
    table = pd.read_csv(folder / "layers.csv")
    assert len(table) == 2 * 2 * 3
    assert list(table.columns) == [*IDENTITY, "n_features", *(field.name for field in fields(LayerMeasures))]
    store = FeatureStore.open(folder / "features.zarr")
    for i, j, layer in ((0, 1, "hidden1"), (1, 2, "hidden2")):
        row = table[(table["seed"] == i) & (table["step"] == 5 * j) & (table["layer"] == layer)].iloc[0]
        features = store.matrix(layer, i, j)
        assert row["compression"] == pytest.approx(reference.compression(features, store.labels), rel=1e-10)
        assert row["discrimination"] == pytest.approx(reference.discrimination(features, store.labels), rel=1e-10)
        assert row["reliable"]
        assert row["depth"] == (1 if layer == "hidden1" else 2)
    dead = table[(table["layer"] == "hidden2") & (table["step"] == 0)]
    assert dead["compression"].isna().all()
    assert not dead["reliable"].any()


def test_compare_runs_from_stores_to_tables(tmp_path):
    runs = [tmp_path / name for name in ("mlp", "cnn")]
    for run in runs:
        make_features(run, run.name, {"hidden1": 9, "hidden2": 5}, n_seeds=2, n_steps=3)
        decompose(run)
    make_features(tmp_path / "data", "data", {"input": 12})
    decompose(tmp_path / "data")
    dynamics, pairs = compare(tmp_path, runs, tmp_path / "data")
    assert list(dynamics.columns) == DYNAMICS_COLUMNS
    assert len(dynamics) == 2 * 2 * 3 * 5 * 2
    assert list(dict.fromkeys(dynamics["recipe"])) == ["mlp", "cnn"]
    own = dynamics[dynamics["reference"] == "own"]
    assert (own.loc[own["step"] == 10, "angle_deg"] == 0).all()
    # The dead first step has no P-vector.
    assert dynamics.loc[dynamics["step"] == 0, "angle_deg"].isna().all()
    assert not dynamics.loc[dynamics["step"] == 0, "determined"].any()
    assert len(pairs) == 2 * 2 * 10
    assert pairs.loc[pairs["stage"] == "first", "angle_deg"].isna().all()

    a = FeatureStore.open(runs[0] / "features.zarr").matrix("hidden2", 1, 2)
    b = FeatureStore.open(tmp_path / "data" / "features.zarr").matrix("input", 0, 0)
    for centring in ("raw", "centred"):
        row = pairs[
            (pairs["recipe_a"] == "mlp")
            & (pairs["seed_a"] == 1)
            & (pairs["recipe_b"] == "data")
            & (pairs["centring"] == centring)
            & (pairs["stage"] == "last")
        ].iloc[0]
        p, q = reference.svd(a, centring)[0][:, 0], reference.svd(b, centring)[0][:, 0]
        assert row["angle_deg"] == pytest.approx(reference.angle_deg(p, q), rel=1e-9)


def test_compare_runs_keeps_members_apart_and_takes_the_only_step_twice(tmp_path):
    runs = [tmp_path / name for name in ("mlp", "untrained", "sweep-1")]
    for run, n_steps in zip(runs, (3, 1, 2), strict=True):
        make_features(run, run.name, {"hidden1": 9, "hidden2": 5}, n_seeds=2, n_steps=n_steps)
        decompose(run)
    make_features(tmp_path / "data", "data", {"input": 12})
    decompose(tmp_path / "data")
    dynamics, pairs = compare(
        tmp_path, runs, tmp_path / "data", references=["untrained"], populations={"sweep-1": "sweep"}
    )
    assert set(dynamics["recipe"]) == {"mlp", "untrained"}
    assert set(dynamics.loc[dynamics["recipe"] == "mlp", "reference"]) == {"own", "untrained", "data"}
    assert dynamics.groupby(["recipe", "centring", "seed", "step"]).size().unique().tolist() == [4, 3]
    of_member = pairs[(pairs["recipe_a"] == "sweep-1") | (pairs["recipe_b"] == "sweep-1")]
    assert set(of_member["recipe_b"]) == {"data"}
    assert set(of_member["stage"]) == {"last"}
    assert len(of_member) == 2 * 2
    assert len(pairs) == len(of_member) + 2 * 2 * 10
    keys = ["centring", "recipe_a", "seed_a", "recipe_b", "seed_b"]
    only = pairs[(pairs["recipe_a"] == "untrained") & pairs["recipe_b"].isin(["untrained", "data"])].set_index(keys)
    first, last = (only[only["stage"] == stage].drop(columns="stage") for stage in ("first", "last"))
    pd.testing.assert_frame_equal(first, last)
    assert first["angle_deg"].notna().all()
    # The first step of the trained network is dead, the last one is not.
    of_mlp = pairs[pairs["recipe_a"] == "mlp"].groupby("stage")["angle_deg"].count()
    assert of_mlp["first"] == 0
    assert of_mlp["last"] == 2 * 7


def test_a_study_of_members_alone_has_only_their_angles_to_the_data(tmp_path):
    make_features(tmp_path / "sweep-1", "sweep-1", {"hidden2": 5}, n_steps=2)
    make_features(tmp_path / "data", "data", {"input": 12})
    for name in ("sweep-1", "data"):
        decompose(tmp_path / name)
    dynamics, pairs = compare(tmp_path, [tmp_path / "sweep-1"], tmp_path / "data", populations={"sweep-1": "sweep"})
    assert dynamics.empty
    assert list(dynamics.columns) == DYNAMICS_COLUMNS
    assert pairs["stage"].tolist() == ["last"] * 2
    assert pairs["seed_b"].dtype == np.int64


def test_runs_over_other_samples_are_refused(tmp_path, capsys, caplog):
    make_features(tmp_path / "mlp", "mlp", {"hidden2": 5}, n_samples=50)
    make_features(tmp_path / "data", "data", {"input": 12})
    decompose(tmp_path / "mlp")
    decompose(tmp_path / "data")
    with pytest.raises(SystemExit):
        compare(tmp_path, [tmp_path / "mlp"], tmp_path / "data")
    assert "hold different samples" in capsys.readouterr().err + caplog.text
    assert not (tmp_path / "angle_pairs.csv").exists()


def test_the_modules_agree_on_the_order_of_centrings():
    # each has its own, so that an edit of one reruns no other stage; the arrays' axes depend on the order
    modules = ("spectra", "comparison", "subspaces", "entries", "report", "figures.angle_dynamics", "figures.spectra")
    orders = [importlib.import_module(f"featurespace.{module}").CENTRINGS for module in modules]
    assert orders == [("raw", "centred")] * len(modules)
