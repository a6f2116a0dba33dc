"""Spectra against full decompositions, on matrices of every shape and misery."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import reference

from featurespace import spectra
from featurespace.errors import FeaturespaceError
from featurespace.spectra import CENTRINGS, Rows, Spectra, decompose


def graded(n_samples: int, n_features: int, decades: float, offset: float = 0.4, seed: int = 0) -> np.ndarray:
    """Make a float32 matrix whose singular values fall over some decades, with a mean."""
    generator = np.random.default_rng(seed)
    side = min(n_samples, n_features)
    left, _ = np.linalg.qr(generator.normal(size=(n_samples, side)))
    right, _ = np.linalg.qr(generator.normal(size=(n_features, side)))
    values = 30 * 10 ** np.linspace(0, -decades, side)
    return ((left * values) @ right.T + offset / np.sqrt(n_samples)).astype(np.float32)


def assert_matches_reference(
    result: Spectra, features: np.ndarray, gap: float = 1e-2, cosine_tolerance: float = 1e-10
) -> None:
    """Hold singular values, vectors and norms of both centrings against a full decomposition."""
    for index, centring in enumerate(CENTRINGS):
        left, values, right = reference.svd(features, centring)
        found = result.singular_values[index]
        counted = values[: len(found)] >= 1e-3 * values[0]
        np.testing.assert_allclose(found[counted], values[: len(found)][counted], rtol=1e-8, atol=0)
        np.testing.assert_allclose(result.frobenius_norm[index], np.linalg.norm(values), rtol=1e-12)
        assert np.all(np.diff(found) <= 0)
        padded = np.append(values, 0.0)
        for i in range(min(result.left_vectors.shape[1], len(values))):
            if values[i] < 1e-3 * values[0]:
                continue
            expected_gap = (padded[i] - padded[i + 1]) / padded[i]
            assert result.relative_gap[index, i] == pytest.approx(expected_gap, abs=1e-7)
            assert result.residual[index, i] < 2e-10
            if min(expected_gap, result.relative_gap[index, max(i - 1, 0)]) < gap:
                continue
            for vector, true in ((result.left_vectors, left), (result.right_vectors, right)):
                assert abs(vector[index, i] @ true[:, i]) == pytest.approx(1, abs=cosine_tolerance)
                assert np.linalg.norm(vector[index, i]) == pytest.approx(1, abs=1e-14)
        if centring == "centred":
            sums = result.left_vectors[index].sum(axis=1) / np.sqrt(len(features))
            assert np.nanmax(np.abs(sums)) < 1e-14


@pytest.mark.parametrize(("n_samples", "n_features"), [(400, 40), (40, 400), (60, 60), (7, 3), (3, 7), (2, 2)])
@pytest.mark.parametrize("decades", [0.5, 3.2])
def test_spectra_match_a_full_decomposition(n_samples, n_features, decades):
    features = graded(n_samples, n_features, decades)
    assert_matches_reference(decompose(Rows.of(features, block_rows=17), vectors=5), features)


def test_a_huge_common_offset_costs_the_centred_spectrum_nothing():
    features = (1000 + np.random.default_rng(1).normal(scale=1e-2, size=(500, 30))).astype(np.float32)
    result = decompose(Rows.of(features, block_rows=64), vectors=6)
    _, values, _ = reference.svd(features, "centred")
    np.testing.assert_allclose(result.singular_values[1], values, rtol=1e-10)
    assert np.all(result.residual[1] < 1e-13)
    assert abs(result.left_vectors[0, 0].sum()) / np.sqrt(500) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(("n_samples", "n_features"), [(1300, 820), (820, 1300)])
def test_lanczos_finds_the_leading_triplets(monkeypatch, n_samples, n_features):
    monkeypatch.setattr(torch.linalg, "eigh", _small_only(torch.linalg.eigh, 200))
    features = graded(n_samples, n_features, 4.0)
    result = decompose(Rows.of(features, block_rows=300), vectors=4, whole=False)
    assert result.singular_values.shape == (2, 4)
    assert_matches_reference(result, features, gap=1e-3)


def test_lanczos_that_does_not_converge_gives_way_to_the_full_solve(monkeypatch):
    monkeypatch.setattr(spectra, "DENSE_SIDE", 40)
    monkeypatch.setattr(spectra, "_search", lambda *_: ({}, False))
    features = graded(300, 80, 1.0)
    assert_matches_reference(decompose(Rows.of(features), vectors=3, whole=False), features, gap=1e-3)


@pytest.mark.parametrize(("n_samples", "n_features"), [(300, 200), (200, 300)])
def test_no_gram_matrix_is_needed(monkeypatch, n_samples, n_features):
    monkeypatch.setattr(spectra, "GRAM_SIDE", 100)
    features = graded(n_samples, n_features, 2.5)
    result = decompose(Rows.of(features, block_rows=90), vectors=4, whole=False)
    assert_matches_reference(result, features, gap=1e-3)


def test_krylov_finds_repeated_and_clustered_values(monkeypatch):
    monkeypatch.setattr(spectra, "GRAM_SIDE", 10)
    generator = np.random.default_rng(2)
    left, _ = np.linalg.qr(generator.normal(size=(150, 120)))
    right, _ = np.linalg.qr(generator.normal(size=(120, 120)))
    values = np.r_[5, 5, 5, 3, 3 - 1e-9, np.linspace(1, 0.1, 115)]
    result = decompose(Rows.of((left * values) @ right.T), vectors=5, whole=False)
    np.testing.assert_allclose(result.singular_values[0], values[:5], rtol=1e-12)
    assert result.relative_gap[0, 0] < 1e-12


def test_blocks_do_not_matter():
    features = graded(301, 25, 2.0)
    whole = decompose(Rows.of(features), vectors=3)
    parts = decompose(Rows.of(features, block_rows=1), vectors=3)
    np.testing.assert_allclose(parts.singular_values, whole.singular_values, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(parts.left_vectors, whole.left_vectors, atol=1e-11)


def test_invariances():
    features = graded(200, 30, 1.5).astype(np.float64)
    generator = np.random.default_rng(3)
    rotation, _ = np.linalg.qr(generator.normal(size=(30, 30)))
    order = generator.permutation(200)
    base = decompose(Rows.of(features), vectors=2)
    turned = decompose(Rows.of(7.5 * features @ rotation), vectors=2)
    np.testing.assert_allclose(turned.left_vectors, base.left_vectors, atol=1e-11)
    np.testing.assert_allclose(turned.singular_values, 7.5 * base.singular_values, rtol=1e-11)
    flipped = decompose(Rows.of(-features), vectors=2)
    np.testing.assert_allclose(flipped.left_vectors, base.left_vectors, atol=1e-12)
    shuffled = decompose(Rows.of(features[order]), vectors=2)
    np.testing.assert_allclose(shuffled.left_vectors, base.left_vectors[:, :, order], atol=1e-11)


def test_signs_are_deterministic():
    result = decompose(Rows.of(graded(100, 20, 1.0)), vectors=4)
    assert np.all(result.left_vectors[0].sum(axis=1) >= 0)
    largest = np.argmax(np.abs(result.left_vectors[1]), axis=1)
    assert np.all(np.take_along_axis(result.left_vectors[1], largest[:, None], axis=1) > 0)


def test_a_dead_layer_has_zero_values_and_no_vectors():
    result = decompose(Rows.of(np.zeros((20, 6), dtype=np.float32)), vectors=3)
    assert result.singular_values.shape == (2, 6)
    assert not result.singular_values.any()
    assert not result.relative_gap.any()
    assert not result.frobenius_norm.any()
    assert np.isnan(result.left_vectors).all()
    assert np.isnan(result.residual).all()


@pytest.mark.parametrize("value", [0.1, 1e20, 3e-20])
def test_constant_features_have_a_mean_and_nothing_else(value):
    result = decompose(Rows.of(np.full((37, 5), value, dtype=np.float32), block_rows=10), vectors=2)
    np.testing.assert_allclose(result.left_vectors[0, 0], 1 / np.sqrt(37), rtol=1e-14)
    assert result.relative_gap[0].tolist() == [1.0, 0.0]
    assert np.isnan(result.left_vectors[0, 1]).all()
    assert result.frobenius_norm[1] == 0
    assert not result.singular_values[1].any()
    assert np.isnan(result.left_vectors[1]).all()


def test_one_sample():
    result = decompose(Rows.of(np.array([[3.0, 4.0]], dtype=np.float32)), vectors=2)
    assert result.singular_values.tolist() == [[5.0], [0.0]]
    assert result.left_vectors[0, 0].tolist() == [1.0]
    np.testing.assert_allclose(result.right_vectors[0, 0], [0.6, 0.8], rtol=1e-15)
    assert np.isnan(result.left_vectors[0, 1]).all()


def test_low_rank_has_vectors_up_to_its_rank():
    generator = np.random.default_rng(4)
    features = generator.normal(size=(80, 2)) @ generator.normal(size=(2, 30))
    result = decompose(Rows.of(features), vectors=4)
    assert np.isfinite(result.left_vectors[:, :2]).all()
    assert np.isnan(result.left_vectors[:, 2:]).all()
    assert result.relative_gap[0, 1] == pytest.approx(1)
    assert result.relative_gap[0, 2] == 0


def test_what_is_not_finite_is_refused_by_name():
    features = graded(50, 5, 1.0)
    features[33, 2] = np.nan
    with pytest.raises(FeaturespaceError, match=r"layer conv1, step 4: sample 33 .*NaN or infinite"):
        decompose(Rows.of(features, block_rows=10, name="layer conv1, step 4"), vectors=2)


def test_rows_that_do_not_make_up_the_matrix_are_refused():
    features = graded(50, 5, 1.0)
    with pytest.raises(FeaturespaceError, match="has 50 samples, expected 60"):
        decompose(Rows(lambda: [features], 60, 5), vectors=2)
    with pytest.raises(FeaturespaceError, match="expected rows of 6 features"):
        decompose(Rows(lambda: [features], 50, 6), vectors=2)
    with pytest.raises(FeaturespaceError, match="is empty"):
        Rows.of(features[:0])


def test_a_matrix_too_large_to_keep_is_read_again(monkeypatch):
    features = graded(90, 12, 1.0)
    passes = []

    def source():
        passes.append(1)
        return iter(np.array_split(features, 4))

    kept = decompose(Rows(source, 90, 12), vectors=2)
    assert len(passes) == 1
    monkeypatch.setattr(spectra, "CACHE_BYTES", 100)
    again = decompose(Rows(source, 90, 12), vectors=2)
    assert len(passes) == 3
    np.testing.assert_array_equal(again.left_vectors, kept.left_vectors)


def test_the_whole_spectrum_of_what_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(spectra, "WHOLE_SIDE", 10)
    with pytest.raises(FeaturespaceError, match="ask for the leading one"):
        decompose(Rows.of(graded(20, 12, 1.0)), vectors=2)


@pytest.fixture
def searched(monkeypatch):
    """Have the leading triplets searched on the rows, whatever it costs; count the passes, rough and exact."""
    passes = {False: 0, True: 0}
    products = spectra._products

    def counted(rows, block, centre, exact, scale=1.0):
        passes[exact] += 1
        return products(rows, block, centre, exact, scale)

    monkeypatch.setattr(spectra, "_products", counted)
    monkeypatch.setattr(spectra, "GRAM_COST", 1e6)
    return passes


@pytest.mark.parametrize("offset", [0.4, 300.0])
@pytest.mark.parametrize("scale", [1.0, 1e25, 1e-25])
@pytest.mark.parametrize(("rough_rows", "piece_rows"), [(128, 10), (1024, 70)])  # 64 rows are the least
def test_float32_products_cost_no_accuracy(searched, monkeypatch, offset, scale, rough_rows, piece_rows):
    monkeypatch.setattr(spectra, "ROUGH_ROWS", rough_rows)
    monkeypatch.setattr(spectra, "PIECE_VALUES", piece_rows * 180)
    features = graded(700, 180, 6.0, offset=offset) * np.float32(scale)
    result = decompose(Rows.of(features, block_rows=150), vectors=4, whole=False)
    assert_matches_reference(result, features, gap=1e-3)
    assert searched[True] <= 2 < searched[False]


def test_float64_features_are_never_rounded(searched):
    features = graded(400, 150, 5.0).astype(np.float64) + 1e-9 * np.random.default_rng(5).normal(size=(400, 150))
    assert_matches_reference(decompose(Rows.of(features), vectors=4, whole=False), features, gap=1e-3)
    assert searched[False] == 0


def test_a_search_that_drags_on_gives_way_to_the_gram_matrix(searched, monkeypatch):
    # Nothing decays: no few passes find the leading ones.
    features = np.random.default_rng(6).normal(size=(400, 300)).astype(np.float32)
    search = spectra._search
    monkeypatch.setattr(spectra, "_search", lambda *given: search(*given[:-2], min(given[-2], 5), given[-1]))
    assert_matches_reference(decompose(Rows.of(features), vectors=2, whole=False), features, gap=1e-3)
    assert searched[False] == 5 + 1


def test_the_same_matrix_gives_the_same_bits(searched):
    features = graded(500, 170, 4.0)
    first, second = (decompose(Rows.of(features), vectors=3, whole=False) for _ in range(2))
    for name in ("singular_values", "left_vectors", "right_vectors", "residual"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_faint_vectors_are_certified_by_a_pass_of_their_own():
    for shape in ((300, 60), (60, 300)):
        features = graded(*shape, 0.0, offset=0.0).astype(np.float64)
        left, _, right = reference.svd(features, "raw")
        values = np.r_[1.0, 1e-2, 1e-5, np.zeros(57)]
        result = decompose(Rows.of((left * values) @ right.T), vectors=3)
        np.testing.assert_allclose(result.singular_values[0, :3], values[:3], rtol=1e-9)
        assert np.all(result.residual[0] < 1e-11)


def mean_angles_deg(features: np.ndarray) -> list[float]:
    """Compute both angles to X m by the definition."""
    matrix = features.astype(np.float64)
    centred = matrix - matrix.mean(axis=0)
    return [
        reference.angle_deg(reference.svd(features, centring)[0][:, 0], own @ matrix.mean(axis=0))
        for centring, own in (("raw", matrix), ("centred", centred))
    ]


@pytest.mark.parametrize("way", ["feature-side", "sample-side", "lanczos", "krylov"])
@pytest.mark.parametrize("offset", [0.4, 300.0])
def test_the_angle_to_the_mean_matches_its_definition(monkeypatch, way, offset):
    shape = (60, 300) if way == "sample-side" else (300, 60)
    features = graded(*shape, 1.5, offset=offset)
    if way == "lanczos":
        monkeypatch.setattr(spectra, "DENSE_SIDE", 20)
    if way == "krylov":
        monkeypatch.setattr(spectra, "GRAM_SIDE", 20)
    whole = way in ("feature-side", "sample-side")
    result = decompose(Rows.of(features, block_rows=70), vectors=3, whole=whole)
    np.testing.assert_allclose(result.angle_to_mean_deg, mean_angles_deg(features), rtol=1e-7, atol=1e-9)
    # The first left vector is not X m itself.
    assert np.all(result.angle_to_mean_deg > 1e-6)


def test_an_angle_to_a_mean_that_is_not_there_is_missing():
    half = graded(100, 20, 1.0)
    without_mean = decompose(Rows.of(np.concatenate([half, -half])), vectors=2)
    assert np.isnan(without_mean.angle_to_mean_deg).all()
    assert np.isfinite(without_mean.left_vectors).all()
    assert np.isnan(decompose(Rows.of(np.zeros((20, 6), dtype=np.float32)), vectors=2).angle_to_mean_deg).all()
    # All samples are one: X m is the ones vector, and nothing is left of it once it is centred.
    constant = decompose(Rows.of(np.full((37, 5), 0.1, dtype=np.float32)), vectors=2).angle_to_mean_deg
    assert constant[0] == pytest.approx(0, abs=1e-7)
    assert np.isnan(constant[1])
    # The mean lies across all that varies: X m is constant.
    across = np.c_[half, np.zeros((100, 1))] - np.r_[half.mean(axis=0, dtype=np.float64), 0]
    across[:, -1] = 3.0
    assert np.isnan(decompose(Rows.of(across), vectors=2).angle_to_mean_deg[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(
    ("n_samples", "n_features", "whole"), [(2000, 96, True), (96, 2000, True), (1500, 1000, False)]
)
def test_gpu_agrees_with_cpu(n_samples, n_features, whole):
    features = graded(n_samples, n_features, 2.5)
    cpu = decompose(Rows.of(features), vectors=5, whole=whole)
    gpu = decompose(Rows.of(features, device="cuda"), vectors=5, whole=whole)
    largest = cpu.singular_values[:, :1]
    error = np.abs(gpu.singular_values - cpu.singular_values)
    assert np.all((error <= 1e-8 * cpu.singular_values) | (cpu.singular_values < 1e-3 * largest))
    assert np.all(error <= 1e-8 * largest)  # a centred matrix of fewer samples than features has a zero one
    np.testing.assert_allclose(gpu.frobenius_norm, cpu.frobenius_norm, rtol=1e-12)
    np.testing.assert_allclose(gpu.left_vectors, cpu.left_vectors, atol=1e-8)
    np.testing.assert_allclose(gpu.angle_to_mean_deg, cpu.angle_to_mean_deg, atol=1e-6)
    assert gpu.residual.max() < 2e-10


def _small_only(eigh, limit):
    """Refuse a full eigensolve of a large matrix."""

    def checked(matrix):
        assert len(matrix) <= limit
        return eigh(matrix)

    return checked
