"""Compression, discrimination, NC1, NC2 and rank against explicit loops, and where there is nothing to measure."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import reference

from featurespace import measures
from featurespace.errors import FeaturespaceError
from featurespace.measures import class_scatter, measure, numerical_rank
from featurespace.spectra import Rows


def clusters(
    spread: float, distance: float, offset: float = 0.0, *, n: int = 240, d: int = 12, classes: int = 5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Make float32 features around class means, in classes of unequal size, and their labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=n) ** 2  # labels need not be 0..K-1
    means = distance * generator.normal(size=(classes**2, d))
    features = offset + means[labels] + spread * generator.normal(size=(n, d))
    return features.astype(np.float32), labels


@pytest.mark.parametrize(
    ("spread", "distance", "offset"),
    [(1.0, 1.0, 0.0), (1e-2, 1e-2, 1e3), (1e-2, 1e-3, 1e3), (1e-4, 1.0, 0.0), (1e-4, 1.0, 2.0), (1e-6, 1.0, 0.0)],
)
@pytest.mark.parametrize("block_rows", [1, 37, 1000])
def test_measures_match_the_definitions(spread, distance, offset, block_rows):
    features, labels = clusters(spread, distance, offset)
    found = measure(Rows.of(features, block_rows=block_rows), labels)
    assert found.reliable == (found.compression >= 1e-8)
    if found.reliable:
        # An offset of 1e3 leaves the reference itself with fewer digits, so it sees the features without it.
        exact = features.astype(np.float64) - np.float32(offset)
        assert found.compression == pytest.approx(reference.compression(exact, labels), rel=1e-10)
        assert found.nc1 == pytest.approx(reference.nc1(exact, labels), rel=1e-10)
        assert (found.nc2_equinorm, found.nc2_equiangular) == pytest.approx(reference.nc2(exact, labels), rel=1e-10)
        within, between = reference.scatter(exact, labels)
        assert found.within_trace == pytest.approx(np.trace(within), rel=1e-10)
        assert found.between_trace == pytest.approx(np.trace(between), rel=1e-10)
    assert found.discrimination == pytest.approx(reference.discrimination(features, labels), rel=1e-10, abs=1e-14)
    assert found.numerical_rank == reference.numerical_rank(features)
    assert found.frobenius_norm == pytest.approx(np.linalg.norm(features.astype(np.float64)), rel=1e-12)


def test_the_reference_agrees_even_with_the_offset_left_in():
    features, labels = clusters(1e-2, 1e-2, 1e3)
    found = measure(Rows.of(features, block_rows=50), labels)
    assert found.compression == pytest.approx(reference.compression(features, labels), rel=1e-10)


def test_more_features_than_samples():
    features, labels = clusters(0.5, 1.0, n=40, d=90)
    found = measure(Rows.of(features, block_rows=9), labels)
    assert found.compression == pytest.approx(reference.compression(features, labels), rel=1e-11)
    assert found.nc1 == pytest.approx(reference.nc1(features, labels), rel=1e-10)
    assert (found.nc2_equinorm, found.nc2_equiangular) == pytest.approx(reference.nc2(features, labels), rel=1e-11)
    assert found.numerical_rank == reference.numerical_rank(features)


class Counted(Rows):
    """Rows that count how often they are gone through."""

    passes = 0

    def native(self):
        self.passes += 1
        return super().native()


@pytest.mark.parametrize("shape", [(240, 12), (40, 90)])
def test_one_pass_over_the_rows(shape):
    features, labels = clusters(0.5, 1.0, n=shape[0], d=shape[1])
    rows = Counted(lambda: np.array_split(features, 5), *shape)
    measure(rows, labels)
    assert rows.passes == 1


@pytest.mark.parametrize("shape", [(240, 12), (40, 90)])
def test_a_spectrum_that_is_out_of_reach_leaves_out_the_rank_alone(shape, monkeypatch):
    features, labels = clusters(0.1, 1.0, n=shape[0], d=shape[1])
    whole = measure(Rows.of(features, block_rows=11), labels)
    monkeypatch.setattr(measures, "WHOLE_SIDE", min(shape) - 1)
    rows = Counted(lambda: np.array_split(features, 7), *shape)
    found = measure(rows, labels)
    assert rows.passes == 2
    assert np.isnan(found.numerical_rank)
    assert found.compression == pytest.approx(reference.compression(features, labels), rel=1e-11)
    assert found.nc1 == pytest.approx(reference.nc1(features, labels), rel=1e-10)
    assert found.frobenius_norm == pytest.approx(whole.frobenius_norm, rel=1e-12)
    assert found.discrimination == pytest.approx(whole.discrimination, rel=1e-12)


@pytest.mark.parametrize("shape", [(600, 24), (60, 700)])
@pytest.mark.parametrize("block_rows", [11, 1000])
def test_pieces_cut_classes_anywhere(shape, block_rows, monkeypatch):
    monkeypatch.setattr(measures, "PIECE_VALUES", 100)
    monkeypatch.setattr(measures, "PIECE_LENGTH", 17)
    features, labels = clusters(1e-2, 1.0, 3.0, n=shape[0], d=shape[1])
    rows = Rows.of(features, block_rows=block_rows)
    found = measure(rows, labels)
    assert found.compression == pytest.approx(reference.compression(features, labels), rel=1e-10)
    assert found.nc1 == pytest.approx(reference.nc1(features, labels), rel=1e-10)
    assert found.numerical_rank == reference.numerical_rank(features)
    nearest = np.unique(labels)[class_scatter(rows, labels).nearest(rows)]
    np.testing.assert_array_equal(nearest, reference.nearest_class_mean(features, labels))


def test_the_within_class_gram_matrix():
    features, labels = clusters(1e-2, 1.0, 3.0, n=700, d=300)
    within, _ = reference.scatter(features, labels)
    gram = class_scatter(Rows.of(features, block_rows=90), labels, gram=True).within_gram
    assert gram is not None
    np.testing.assert_allclose(gram.numpy(), len(labels) * within, rtol=0, atol=1e-12 * np.trace(within) * len(labels))


def test_classes_in_a_flat_space():
    # As many classes as features, so that the between-class covariance has full rank.
    features, labels = clusters(0.5, 1.0, d=3, classes=6)
    assert measure(Rows.of(features), labels).nc1 == pytest.approx(reference.nc1(features, labels), rel=1e-10)


def test_orthonormal_rows_have_the_paper_s_compression():
    # K classes of n orthonormal rows: C = K (n - 1) / (K - 1), layerwise.md T0.
    features = np.linalg.qr(np.random.default_rng(0).normal(size=(50, 30)))[0].T
    labels = np.repeat([0, 1, 2], 10)
    found = measure(Rows.of(features), labels)
    assert found.compression == pytest.approx(13.5, rel=1e-12)
    assert found.discrimination == pytest.approx(1, abs=1e-12)
    assert found.numerical_rank == 29


def test_measures_do_not_see_rotation_scale_and_order():
    features, labels = clusters(0.5, 1.0)
    generator = np.random.default_rng(1)
    rotation, _ = np.linalg.qr(generator.normal(size=(12, 12)))
    order = generator.permutation(len(labels))
    base = measure(Rows.of(features), labels)
    other = measure(Rows.of(3.0 * features[order].astype(np.float64) @ rotation), labels[order])
    for name in ("compression", "discrimination", "nc1", "nc2_equinorm", "nc2_equiangular", "numerical_rank"):
        assert getattr(other, name) == pytest.approx(getattr(base, name), rel=1e-10)
    assert other.frobenius_norm == pytest.approx(3 * base.frobenius_norm)


def test_discrimination_is_signed():
    means = np.array([[1.0, 0.0], [-0.8, 0.6]])
    found = measure(Rows.of(np.repeat(means, 3, axis=0)), np.repeat([0, 1], 3))
    assert found.discrimination == pytest.approx(1.8)


def test_a_cosine_of_zero_counts():
    """Ours; the public code leaves cosines of exactly 0 out, and would give 1.6 here."""
    means = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, -0.6, 0.8]])
    found = measure(Rows.of(np.repeat(means, 3, axis=0)), np.repeat([0, 1, 2], 3))
    assert found.discrimination == pytest.approx(1.0, abs=1e-15)


def published_compression(features: np.ndarray, labels: np.ndarray, aliased: bool) -> float:
    """Return C as the public code is described to compute it (layerwise.md, section 4, defect 1), class by class.

    If `aliased`, the sum over a class is begun in the memory of its first feature, which so becomes the class mean.
    """
    z = features.astype(np.float64)
    stored = {k: list(z[labels == k].copy()) for k in np.unique(labels)}
    means = {}
    for k, rows in stored.items():
        total = rows[0] if aliased else rows[0].copy()
        for row in rows[1:]:
            total += row
        total /= len(rows)
        means[k] = total
    overall = sum(means.values()) / len(means)
    d = z.shape[1]
    within, between = np.zeros((d, d)), np.zeros((d, d))
    for k, rows in stored.items():
        between += np.outer(means[k] - overall, means[k] - overall) / len(means)
        for row in rows:
            within += np.outer(row - means[k], row - means[k]) / len(z)
    return float(np.trace(within) / np.trace(between))


@pytest.mark.parametrize("n", [2, 10, 25])
def test_the_public_code_is_ours_times_a_factor_once_its_first_feature_is_the_mean(n):
    # Orthonormal rows are all as far from their class mean, so that the factor is exact.
    labels = np.repeat([0, 1, 2], n)
    features = np.linalg.qr(np.random.default_rng(0).normal(size=(100, 3 * n)))[0].T
    found = measure(Rows.of(features, block_rows=7), labels).compression
    assert found == pytest.approx(3 * (n - 1) / 2, rel=1e-10)
    assert published_compression(features, labels, aliased=False) == pytest.approx(found, rel=1e-10)
    assert published_compression(features, labels, aliased=True) == pytest.approx((n - 1) / n * found, rel=1e-10)


def test_the_public_code_s_factor_on_data_as_it_comes():
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 10)
    ratios = []
    for _ in range(300):
        features = generator.normal(size=(3, 50))[labels] + generator.normal(size=(30, 50))
        found = measure(Rows.of(features), labels).compression
        assert published_compression(features, labels, aliased=False) == pytest.approx(found, rel=1e-10)
        ratios.append(published_compression(features, labels, aliased=True) / found)
    # (n - 1) / n on average, within five standard errors
    assert np.mean(ratios) == pytest.approx(0.9, abs=5 * np.std(ratios) / 300**0.5)


def simplex(n_classes: int, d: int) -> np.ndarray:
    """Make class means of equal length and equal, widest angles, about a mean that is not zero."""
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(d, d)))[0]
    return 5.0 + (np.eye(n_classes) - 1 / n_classes) @ rotation[:n_classes]


def test_nc2_is_zero_of_a_simplex_and_only_there():
    labels = np.repeat(np.arange(5), 4)
    means = simplex(5, 9)
    found = measure(Rows.of(means[labels]), labels)
    assert (found.nc2_equinorm, found.nc2_equiangular) == pytest.approx((0, 0), abs=1e-14)
    line = np.array([[-1.0, 0.0], [1.0, 0.0], [0.5, 0.5], [-0.5, -0.5]])
    found = measure(Rows.of(np.repeat(line, 3, axis=0)), np.repeat(np.arange(4), 3))
    lengths = np.array([1, 1, 0.5**0.5, 0.5**0.5])
    assert found.nc2_equinorm == pytest.approx(lengths.std() / lengths.mean(), rel=1e-14)
    cosines = np.array([-1, 0.5**0.5, -(0.5**0.5), -(0.5**0.5), 0.5**0.5, -1])
    assert found.nc2_equiangular == pytest.approx(np.abs(cosines + 1 / 3).mean(), rel=1e-14)


def test_two_classes_always_have_the_widest_angle():
    features, labels = clusters(0.5, 1.0, classes=2)
    assert measure(Rows.of(features), labels).nc2_equiangular == pytest.approx(0, abs=1e-12)


def test_a_class_whose_mean_is_the_overall_one_has_no_angle():
    features = np.repeat([[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]], 4, axis=0)
    found = measure(Rows.of(features), np.repeat([0, 1, 2], 4))
    assert found.nc2_equinorm == pytest.approx(0.5**0.5)
    assert np.isnan(found.nc2_equiangular)


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("block_rows", [13, 1000])
def test_the_nearest_class_mean(offset, block_rows):
    features, labels = clusters(1.0, 0.5, offset)
    rows = Rows.of(features, block_rows=block_rows)
    nearest = np.unique(labels)[class_scatter(rows, labels).nearest(rows)]
    expected = reference.nearest_class_mean(features.astype(np.float64) - np.float32(offset), labels)
    np.testing.assert_array_equal(nearest, expected)
    assert 0.2 < np.mean(nearest == labels) < 0.95


def test_of_equally_near_means_the_first_is_taken():
    labels = np.array([4, 4, 2, 2, 9, 9])
    rows = Rows.of(np.array([[1.0], [1.0], [-3.0], [1.0], [4.0], [-4.0]]))  # means -1, 1 and 0
    assert class_scatter(rows, labels).nearest(rows).tolist() == [1, 1, 0, 1, 1, 0]
    halves = Rows.of(np.array([[1.0], [1.0], [-1.0], [-1.0], [0.5], [-0.5]]))  # 0.5 lies between 1 and 0
    assert class_scatter(halves, labels).nearest(halves).tolist() == [1, 1, 0, 0, 1, 0]
    dead = Rows.of(np.full((6, 2), 0.1))
    assert class_scatter(dead, labels).nearest(dead).tolist() == [0] * 6


def test_full_collapse_is_flagged():
    means = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    labels = np.arange(40) % 4
    found = measure(Rows.of(means[labels], block_rows=7), labels)
    assert found.compression == 0
    assert found.nc1 == 0
    assert not found.reliable


def test_one_class():
    features, _ = clusters(1.0, 1.0)
    found = measure(Rows.of(features), np.zeros(len(features), dtype=int))
    assert found.compression == float("inf")
    assert found.between_trace == 0
    assert np.isnan(found.discrimination)
    assert np.isnan([found.nc1, found.nc2_equinorm, found.nc2_equiangular]).all()
    assert not found.reliable


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_dead_and_constant_layers(value):
    found = measure(Rows.of(np.full((30, 4), value, dtype=np.float32)), np.arange(30) % 3)
    assert np.isnan(found.compression)
    assert np.isnan([found.nc1, found.nc2_equinorm, found.nc2_equiangular]).all()
    assert found.within_trace == found.between_trace == 0
    assert found.numerical_rank == (1 if value else 0)
    assert found.discrimination == 0 if value else np.isnan(found.discrimination)
    assert not found.reliable


def test_one_sample():
    found = measure(Rows.of(np.array([[3.0, 4.0]])), np.array([7]))
    assert found.frobenius_norm == 5
    assert np.isnan(found.compression)


def test_equal_means_leave_no_rounding_behind():
    rows = np.random.default_rng(0).normal(loc=50, size=(30, 5)).astype(np.float32)
    features = np.concatenate([rows, rows[::-1]])
    found = measure(Rows.of(features, block_rows=7), np.repeat([0, 1], 30))
    assert found.compression == float("inf")
    assert np.isnan([found.nc2_equinorm, found.nc2_equiangular]).all()


def test_numerical_rank_counts_what_reaches_the_share():
    assert numerical_rank(np.array([5.0, 4.0, 1.0]), 0.9) == 2
    assert numerical_rank(np.array([5.0, 4.0, 1.0]), 0.91) == 3
    assert numerical_rank(np.zeros(3)) == 0


def test_what_is_not_finite_is_refused():
    features, labels = clusters(1.0, 1.0)
    features[3, 3] = np.inf
    with pytest.raises(FeaturespaceError, match="layer hidden1: sample 3"):
        measure(Rows.of(features, name="layer hidden1"), labels)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_agrees_with_cpu():
    features, labels = clusters(1e-2, 1e-2, 1e3)
    cpu = measure(Rows.of(features, block_rows=100), labels)
    gpu = measure(Rows.of(features, block_rows=100, device="cuda"), labels)
    names = (
        "compression",
        "discrimination",
        "nc1",
        "nc2_equinorm",
        "nc2_equiangular",
        "numerical_rank",
        "frobenius_norm",
    )
    for name in names:
        assert getattr(gpu, name) == pytest.approx(getattr(cpu, name), rel=1e-9)
