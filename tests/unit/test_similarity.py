"""Measures of similarity, each against a definition with (n_samples, n_samples) matrices, written out here."""

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
from sklearn.cross_decomposition import CCA
from sklearn.datasets import load_digits
from synthetic_stores import run_script

from featurespace import similarity
from featurespace.stores import FeatureWriter, sample_hash, store_draft, write_digest

RNG = np.random.default_rng(0)
SHAPES = {"tall": (9, 6), "wide": (150, 120), "wide-and-tall": (150, 7)}


def features(width, n_samples=80, seed=0):
    """Rectified projections of common directions and noise of their own, away from the origin."""
    rng = np.random.default_rng(seed)
    common = np.random.default_rng(99).normal(size=(n_samples, 5)) * [3, 2, 1.5, 1, 0.5]
    own = common @ rng.normal(size=(5, width)) + 0.5 * rng.normal(size=(n_samples, width))
    return np.maximum(own + 1, 0).astype(np.float32)


def measured(a, b, data=None):
    x, y = similarity.reduce_features(a), similarity.reduce_features(b)
    nan = float("nan")
    if data is None:
        return similarity.measure_pair(x, y, nan, nan)
    z = similarity.reduce_features(data)
    with_input = [similarity.measure_pair(own, z, nan, nan)["cka"] for own in (x, y)]
    return similarity.measure_pair(x, y, *with_input)


def centred_kernel(x):
    n = len(x)
    centring = np.eye(n) - np.ones((n, n)) / n
    x = x.astype(np.float64)
    return centring @ x @ x.T @ centring


def cosine_of(a, b):
    return np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b)


def residual(kernel, of):
    """Regress one vector of all entries on another, without a constant: both have mean zero."""
    x, y = of.ravel()[:, None], kernel.ravel()
    coefficient = np.linalg.lstsq(x, y, rcond=None)[0]
    return y - x @ coefficient


def svcca_by_qr(a, b):
    bases = []
    for x in (a, b):
        u, s, _ = np.linalg.svd(x - x.mean(axis=0, dtype=np.float64), full_matrices=False)
        k = next(k for k in range(1, len(s) + 1) if np.sum(s[:k] ** 2) >= 0.99 * np.sum(s**2))
        bases.append(np.linalg.qr((u * s)[:, :k])[0])
    return scipy.linalg.svdvals(bases[0].T @ bases[1]).mean()


def procrustes_by_rotation(a, b):
    a, b = (x - x.mean(axis=0, dtype=np.float64) for x in (a, b))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    width = max(a.shape[1], b.shape[1])
    a, b = (np.pad(x, ((0, 0), (0, width - x.shape[1]))) for x in (a, b))
    rotation, _ = scipy.linalg.orthogonal_procrustes(a, b)
    return np.linalg.norm(a @ rotation - b) ** 2


@pytest.mark.parametrize("widths", SHAPES.values(), ids=SHAPES)
def test_every_measure_matches_its_definition(widths):
    a, b, data = features(widths[0]), features(widths[1], seed=1), features(20, seed=2)
    kernel_a, kernel_b, of_input = map(centred_kernel, (a, b, data))
    found = measured(a, b, data)
    assert tuple(found) == similarity.MEASURES
    assert found["cka"] == pytest.approx(cosine_of(kernel_a, kernel_b), rel=1e-10)
    residuals = residual(kernel_a, of_input), residual(kernel_b, of_input)
    assert found["cka_deconfounded"] == pytest.approx(cosine_of(*residuals), rel=1e-9)
    assert found["svcca"] == pytest.approx(svcca_by_qr(a, b), rel=1e-8)
    assert found["procrustes"] == pytest.approx(procrustes_by_rotation(a, b), rel=1e-8)
    p, q = (np.linalg.svd(x.astype(np.float64), full_matrices=False)[0][:, 0] for x in (a, b))
    assert found["cosine_raw"] == pytest.approx(abs(p @ q), abs=1e-11)
    assert found["correlation"] == pytest.approx(np.corrcoef(p, q * np.sign(p @ q))[0, 1], abs=1e-9)
    p, q = (np.linalg.svd(x - x.mean(axis=0, dtype=np.float64), full_matrices=False)[0][:, 0] for x in (a, b))
    assert found["cosine_centred"] == pytest.approx(abs(p @ q), abs=1e-10)


def test_canonical_correlations_are_those_of_scikit_learn():
    a, b = features(4, n_samples=300), features(3, n_samples=300, seed=1)
    fitted = CCA(n_components=3, scale=False, max_iter=5000, tol=1e-12)
    scores = fitted.fit_transform(a.astype(np.float64), b.astype(np.float64))
    expected = np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(*(s.T for s in scores), strict=True)])
    x, y = similarity.reduce_features(a), similarity.reduce_features(b)
    assert similarity.svcca(x.scores.T @ y.scores, x, y, variance=1.0) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("width", [6, 150], ids=["tall", "wide"])
def test_features_are_as_similar_as_can_be_to_themselves_turned_and_scaled(width):
    a, data = features(width), features(20, seed=2)
    rotation = np.linalg.qr(RNG.normal(size=(width, width)))[0]
    for b in (a, 3e4 * a, a.astype(np.float64) @ rotation, np.pad(a, ((0, 0), (0, 30)))):
        found = measured(a, b, data)
        procrustes = found.pop("procrustes")
        assert procrustes == pytest.approx(0, abs=1e-9)
        assert all(value == pytest.approx(1, abs=1e-8) for value in found.values()), found


def test_a_common_offset_changes_only_what_is_raw():
    a, b = features(9).astype(np.float64), features(6, seed=1).astype(np.float64)
    plain, moved = measured(a, b), measured(a + 1e5, b - 1e5 * RNG.normal(size=6))
    for measure in ("cka", "svcca", "procrustes", "cosine_centred"):
        assert moved[measure] == pytest.approx(plain[measure], abs=1e-6)
    assert plain["cosine_raw"] < 0.999
    assert moved["cosine_raw"] > 1 - 1e-6


def test_unrelated_features_are_not_similar():
    a, b = (np.random.default_rng(seed).normal(size=(4000, 10)) for seed in (0, 1))
    found = measured(a, b)
    assert found["cka"] < 0.01
    assert found["svcca"] < 0.08
    assert found["procrustes"] > 1.8
    assert found["cosine_centred"] < 0.1


def test_what_comes_from_the_input_alone_does_not_count_once_it_is_regressed_out():
    rng = np.random.default_rng(3)
    data = rng.normal(size=(500, 30)) * np.linspace(3, 0.3, 30)
    a, b = (data @ np.linalg.qr(rng.normal(size=(30, 30)))[0] + 0.5 * rng.normal(size=(500, 30)) for _ in range(2))
    found = measured(a, b, data)
    assert found["cka"] > 0.85
    assert abs(found["cka_deconfounded"]) < 0.15
    assert np.isnan(measured(data, a, data)["cka_deconfounded"])


@pytest.mark.parametrize("value", [0.0, 2.5])
def test_constant_features_have_no_similarity(value):
    found = measured(np.full((40, 5), value, dtype=np.float32), features(6, n_samples=40))
    raw = found.pop("cosine_raw")
    assert np.isnan(list(found.values())).all()
    assert np.isnan(raw) == (value == 0)


def network(recipe, seed, matrix, log):
    def load():
        log.append((recipe, seed))
        return matrix

    return similarity.Network(recipe, seed, load)


@pytest.mark.parametrize("cache_bytes", [0, 2**30], ids=["two-in-memory", "all-in-memory"])
def test_all_pairs_are_compared_whatever_fits_in_memory(cache_bytes):
    log = []
    networks = [network(r, s, features(5 + s, seed=i), log) for i, (r, s) in enumerate([("a", 0), ("a", 1), ("b", 0)])]
    data = network("data", 0, features(12, seed=9), log)
    rows = [row for rows in similarity.compare("toy", "last", networks, data, cache_bytes) for row in rows]
    table = pd.DataFrame(rows, columns=similarity.COLUMNS)
    pairs = [(("a", 0), ("data", 0)), (("a", 1), ("data", 0)), (("b", 0), ("data", 0))]
    pairs += [(("a", 0), ("b", 0)), (("a", 0), ("a", 1))]  # those of one seed first
    found = list(zip(*(zip(table[f"recipe_{x}"], table[f"seed_{x}"], strict=True) for x in "ab"), strict=True))
    assert found == [pair for pair in pairs for _ in similarity.MEASURES]
    matrices = {(n.recipe, n.seed): n.load() for n in [*networks, data]}
    for i, (a, b) in enumerate(pairs):
        expected = measured(matrices[a], matrices[b], matrices["data", 0] if b[0] != "data" else None)
        values = table["value"][i * len(expected) : (i + 1) * len(expected)]
        np.testing.assert_allclose(values, list(expected.values()), rtol=1e-12)
        assert np.isnan(expected["cka_deconfounded"]) == (b[0] == "data")
    if cache_bytes:
        assert len(log) == 2 * len(matrices)


def write_store(folder, name, layer, ids, matrices, attrs):
    with store_draft(folder / f"{name}.zarr") as draft:
        writer = FeatureWriter(
            draft,
            layers={layer: matrices.shape[3]},
            seeds=np.arange(len(matrices)),
            steps=np.arange(matrices.shape[1]) * 10,
            epochs=np.arange(matrices.shape[1]) * 1.0,
            sample_ids=ids,
            labels=np.zeros(len(ids), dtype=int),
            attrs=attrs,
        )
        for i, j in np.ndindex(matrices.shape[:2]):
            writer.write(layer, i, j, 0, matrices[i, j])
    write_digest(folder / f"{name}.zarr", folder / f"{name}.json")


def test_the_script_compares_both_ends_of_all_runs(tmp_path):
    pixels = load_digits().data.astype(np.float32)[:200]
    rng = np.random.default_rng(0)
    ids, n = np.arange(200), 150
    ends = {"n_sample_set": n, "sample_set_hash": sample_hash(ids[:n])}
    matrices = {
        "mlp": np.maximum(pixels @ rng.normal(size=(2, 2, 64, 8)).astype(np.float32), 0),
        "untrained": np.maximum(pixels @ rng.normal(size=(2, 1, 64, 5)).astype(np.float32), 0),
    }
    for name, own in matrices.items():
        write_store(tmp_path, name, "hidden", ids, own, ends)
    write_store(tmp_path, "data", "input", ids[:n], pixels[None, None, :n], {})
    recipes = [{"name": name, "dataset": "digits", "blocks": 1, "task": "classify"} for name in matrices]
    run_script(
        "compare_similarity",
        {"datasets": ["digits"], "recipes": recipes},
        in_ends=[str(tmp_path / f"{name}.zarr") for name in matrices],
        in_ends_digests=[str(tmp_path / f"{name}.json") for name in matrices],
        in_data=[str(tmp_path / "data.zarr")],
        in_data_digests=[str(tmp_path / "data.json")],
        out_table=str(tmp_path / "similarity.csv"),
    )
    table = pd.read_csv(tmp_path / "similarity.csv")
    assert list(table.columns) == similarity.COLUMNS
    # with the data, between recipes at either seed, and each recipe with itself
    assert len(table) == 2 * (4 + 2 + 2) * len(similarity.MEASURES)
    table = table.set_index(["stage", "recipe_a", "seed_a", "recipe_b", "seed_b", "measure"])["value"]
    for j, stage in enumerate(("first", "last")):
        expected = measured(matrices["mlp"][1, j, :n], matrices["untrained"][1, 0, :n], pixels[:n])
        own = table.loc[stage, "mlp", 1, "untrained", 1]
        np.testing.assert_allclose(own.loc[list(expected)], list(expected.values()), rtol=1e-10)
        assert np.isnan(table.loc[stage, "untrained", 0, "data", 0, "cka_deconfounded"])
