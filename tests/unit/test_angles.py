"""Angles, their identity and nulls, and principal angles, against their definitions."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, stats
from sklearn.datasets import load_digits

sys.path.insert(0, str(Path(__file__).parents[1]))
import reference

from featurespace import angles


def unit_rows(m: int, n: int, mean: float = 0.0, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(loc=mean, size=(m, n))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("mean", [0.0, 1.0, 8.0])
def test_every_pair_matches_the_definition(mean):
    p, q = unit_rows(6, 200, mean), unit_rows(4, 200, mean, seed=1)
    q[1] *= -1
    found, r, cosine = angles.angle_deg(p, q), angles.correlation(p, q), angles.cosine(p, q)
    for i in range(6):
        for j in range(4):
            assert found[i, j] == pytest.approx(reference.angle_deg(p[i], q[j]), rel=1e-12)
            assert r[i, j] == pytest.approx(reference.correlation(p[i], q[j]), abs=1e-12)
            assert cosine[i, j] == pytest.approx(np.cos(np.radians(found[i, j])), abs=1e-14)
    ones = np.full(200, 1.0)
    expected = [reference.angle_deg(vector, ones) for vector in p]
    np.testing.assert_allclose(angles.angle_to_ones_deg(p), expected, rtol=1e-12)


def test_identical_vectors_are_at_exactly_zero():
    p = unit_rows(5, 333)
    assert np.all(np.diag(angles.angle_deg(p, p)) == 0)
    assert np.all(np.diag(angles.angle_deg(p, -p)) == 0)


@pytest.mark.parametrize("radians", [1e-9, 1e-5, 0.3, 0.5, 1.2, np.pi / 2])
def test_tiny_and_right_angles_keep_their_digits(radians):
    basis = np.linalg.qr(np.random.default_rng(1).normal(size=(50, 2)))[0].T
    turned = np.cos(radians) * basis[0] + np.sin(radians) * basis[1]
    found = angles.angle_deg(basis[:1], turned[None])[0, 0]
    assert np.radians(found) == pytest.approx(radians, rel=1e-6 if radians < 1e-8 else 1e-10)


@pytest.mark.parametrize("mean", [0.3, 1.0, 8.0])
def test_the_identity_through_the_ones_vector_holds(mean):
    p, q = unit_rows(5, 500, mean), unit_rows(7, 500, mean, seed=1)
    to_ones, q_to_ones = np.radians(angles.angle_to_ones_deg(p)), np.radians(angles.angle_to_ones_deg(q))
    # Once q is on the side of p, the two need not be on the same side of the ones vector.
    sides = np.sign(np.outer(p.sum(axis=1), q.sum(axis=1)) * (p @ q.T))
    composed = sides * np.outer(np.cos(to_ones), np.cos(q_to_ones))
    composed += angles.correlation(p, q) * np.outer(np.sin(to_ones), np.sin(q_to_ones))
    np.testing.assert_allclose(composed, np.cos(np.radians(angles.angle_deg(p, q))), atol=1e-10)


def test_a_constant_vector_has_no_correlation():
    ones = np.full((1, 64), 1 / 8)
    assert angles.angle_to_ones_deg(ones)[0] == 0
    assert np.isnan(angles.correlation(ones, unit_rows(2, 64))).all()


def test_the_permutation_null_is_what_permuting_gives():
    p, q = unit_rows(3, 40, 1.0), unit_rows(2, 40, 1.0, seed=1)
    p[0] = q[1]
    permutations = angles.draw_permutations(40, 50, seed=3)
    null = angles.permutation_null(p, q, permutations)
    for i in range(3):
        for j in range(2):
            drawn = np.array([reference.angle_deg(p[i], q[j][order]) for order in permutations])
            observed = reference.angle_deg(p[i], q[j])
            assert null.mean_deg[i, j] == pytest.approx(drawn.mean(), rel=1e-9)
            assert null.low_deg[i, j] == pytest.approx(np.quantile(drawn, 0.05), rel=1e-9)
            assert null.p_value[i, j] == pytest.approx((1 + np.sum(drawn <= observed)) / 51)
    assert null.p_value[0, 1] == pytest.approx(1 / 51)


def test_permutations_come_in_any_batch_and_from_the_seed(monkeypatch):
    p, q = unit_rows(3, 40), unit_rows(2, 40, seed=1)
    permutations = angles.draw_permutations(40, 19, seed=0)
    assert np.array_equal(np.sort(permutations, axis=1), np.tile(np.arange(40), (19, 1)))
    assert np.array_equal(permutations, angles.draw_permutations(40, 19, seed=0))
    assert not np.array_equal(permutations, angles.draw_permutations(40, 19, seed=1))
    whole = angles.permutation_null(p, q, permutations)
    for n_bytes in (8 * 40 * 4, 8 * 19 * 2, 1):
        monkeypatch.setattr(angles, "_BYTES", n_bytes)
        parts = angles.permutation_null(p, q, permutations)
        np.testing.assert_allclose(parts.mean_deg, whole.mean_deg, rtol=1e-12)
        np.testing.assert_allclose(parts.low_deg, whole.low_deg, rtol=1e-12)
        np.testing.assert_array_equal(parts.p_value, whole.p_value)


@pytest.mark.parametrize("n_permutations", [1, 2, 20, 21, 199])
def test_the_low_percentile_is_interpolated_between_ranks(n_permutations):
    p, q = unit_rows(3, 30), unit_rows(1, 30, seed=1)
    permutations = angles.draw_permutations(30, n_permutations, seed=2)
    null = angles.permutation_null(p, q, permutations)
    drawn = [[reference.angle_deg(row, q[0][order]) for order in permutations] for row in p]
    np.testing.assert_allclose(null.low_deg[:, 0], np.quantile(drawn, 0.05, axis=1), rtol=1e-9)


def p_vectors_of_digits(centring: str) -> np.ndarray:
    """Find the P-vectors of the digits themselves and of what random ReLU layers make of them."""
    pixels = load_digits().data / 16
    generator = np.random.default_rng(0)
    layers = [np.maximum(pixels @ generator.normal(size=(64, 32)) + generator.normal(size=32), 0) for _ in range(4)]
    return np.stack([reference.svd(features, centring)[0][:, 0] for features in (pixels, *layers)])


def heavy_tailed_rows(kind: str, centring: str, n: int = 1797) -> np.ndarray:
    generator = np.random.default_rng(3)
    draw = {
        "student": lambda size: generator.standard_t(4, size) + 1,
        "lognormal": lambda size: generator.lognormal(size=size),
    }
    vectors = draw[kind](size=(5, n))
    if centring == "centred":
        vectors -= vectors.mean(axis=1, keepdims=True)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("centring", ["raw", "centred"])
@pytest.mark.parametrize("kind", ["digits", "student", "lognormal"])
def test_the_mean_of_the_null_is_its_formula(kind, centring):
    p = p_vectors_of_digits(centring) if kind == "digits" else heavy_tailed_rows(kind, centring)
    ones = angles.angle_to_ones_deg(p)
    formula = angles.null_formula_deg(ones, ones[:2], p.shape[1])
    null = angles.permutation_null(p, p[:2], angles.draw_permutations(p.shape[1], 1999, seed=0))
    assert formula.shape == (5, 2)
    np.testing.assert_allclose(null.mean_deg, formula, atol=0.1)
    if centring == "centred":
        # The folding at 90 degrees is many times what is tolerated.
        assert np.all(formula < 89.0)


def test_the_formula_is_the_mean_over_a_normal_cosine():
    ones, reference_ones, n = np.array([90.0, 60.0, 12.0, 1.0, 0.0]), np.array([90.0, 45.0, 2.0, 0.0]), 300
    found = angles.null_formula_deg(ones, reference_ones, n)
    for i, p in enumerate(np.radians(ones)):
        for j, q in enumerate(np.radians(reference_ones)):
            mean, deviation = np.cos(p) * np.cos(q), np.sin(p) * np.sin(q) / np.sqrt(n - 1)

            def angle(z, mean=mean, deviation=deviation):
                return np.arccos(min(abs(mean + z * deviation), 1.0)) * stats.norm.pdf(z)

            kinks = [-mean / deviation] if deviation > 0 and mean < 8 * deviation else None
            expected = np.degrees(integrate.quad(angle, -8, 8, points=kinks, limit=200, epsabs=1e-12)[0])
            assert found[i, j] == pytest.approx(expected, abs=2e-3)
    assert found[-1, -1] == pytest.approx(0, abs=1e-5)


def test_the_formula_of_a_missing_angle_is_missing():
    found = angles.null_formula_deg(np.array([np.nan, 90.0]), np.array([90.0]), 50)
    assert np.isnan(found[0, 0])
    assert found[1, 0] < 90


def test_p_values_of_unrelated_vectors_are_spread_out():
    p, q = unit_rows(400, 60), unit_rows(1, 60, seed=1)
    null = angles.permutation_null(p, q, angles.draw_permutations(60, 199, seed=0))
    assert np.mean(null.p_value <= 0.05) < 0.09
    assert np.mean(null.p_value) == pytest.approx(0.5, abs=0.06)


def test_what_is_missing_stays_missing():
    p, q = unit_rows(2, 30), unit_rows(2, 30, seed=1)
    p[0] = np.nan
    null = angles.permutation_null(p, q, angles.draw_permutations(30, 9, seed=0))
    for values in (angles.angle_deg(p, q), angles.correlation(p, q), null.mean_deg, null.low_deg, null.p_value):
        assert np.isnan(values[0]).all()
        assert np.isfinite(values[1]).all()


def test_principal_angles_match_the_definition():
    generator = np.random.default_rng(5)
    a = generator.normal(size=(60, 4))
    b = np.c_[a[:, 0] + 1e-7 * generator.normal(size=60), a[:, 1] + a[:, 2], generator.normal(size=(60, 3))]
    basis_a, basis_b = angles.orthonormal_basis(a.T), angles.orthonormal_basis(b.T)
    found = angles.principal_angles_deg(basis_a, basis_b)
    np.testing.assert_allclose(found, reference.principal_angles_deg(a, b), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(angles.principal_angles_deg(basis_b, basis_a), found, rtol=1e-6, atol=1e-12)
    assert found[0] < 1e-12 < 1e-7 < found[1] < 1e-4
    assert np.all(np.diff(found) >= 0)


def test_principal_angles_of_known_planes():
    basis = np.eye(6)
    tilted = np.stack([basis[0], np.cos(1e-8) * basis[1] + np.sin(1e-8) * basis[3], basis[4]])
    found = np.radians(angles.principal_angles_deg(basis[:3], tilted))
    np.testing.assert_allclose(found, [0, 1e-8, np.pi / 2], rtol=1e-12)


@pytest.mark.parametrize("noise", [0.0, 1e-9, 1e-3, 0.3, 3.0])
def test_the_largest_principal_angle_is_the_last_one(noise):
    generator = np.random.default_rng(6)
    a = np.linalg.qr(generator.normal(size=(80, 3)))[0].T
    b = angles.orthonormal_basis(a + noise * generator.normal(size=a.shape) / np.sqrt(80))
    found = angles.largest_principal_angle_deg(a, b)
    assert found == pytest.approx(angles.principal_angles_deg(a, b)[-1], rel=1e-12, abs=1e-13)
