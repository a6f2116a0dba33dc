"""Intervals and tests against SciPy's own, closed forms and examples worked by hand."""

import itertools

import numpy as np
import pytest
from scipy import stats

from featurespace import statistics


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_mean_interval_is_students():
    values = np.array([3.0, 4.0, 7.0, 8.0, 9.0])
    found = statistics.mean_interval(np.append(values, np.nan))
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.estimate, found.n) == (pytest.approx(6.2), 5)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)


@pytest.mark.parametrize(("values", "mean"), [([], np.nan), ([2.5], 2.5), ([np.nan], np.nan)])
def test_fewer_than_two_values_have_no_interval(values, mean):
    found = statistics.mean_interval(np.array(values))
    assert found.estimate == pytest.approx(mean, nan_ok=True)
    assert np.isnan([found.low, found.high]).all()


def test_the_jackknife_of_a_mean_is_the_t_interval():
    values = generator().normal(size=7)
    without = np.array([np.delete(values, i).mean() for i in range(7)])
    found, expected = statistics.jackknife_interval(values.mean(), without), statistics.mean_interval(values)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_the_jackknife_covers_a_mean_over_pairs():
    """The mean over all pairs of |x - y|, whose pairs share their units: 2/sqrt(pi) for standard normal ones."""
    rng, hits, trials = generator(1), 0, 400
    for _ in range(trials):
        x = rng.normal(size=8)
        distances = np.abs(x[:, None] - x)

        def mean_over_pairs(d):
            return d.sum() / (len(d) * (len(d) - 1))

        without = [mean_over_pairs(np.delete(np.delete(distances, i, 0), i, 1)) for i in range(8)]
        found = statistics.jackknife_interval(mean_over_pairs(distances), np.array(without))
        hits += found.low <= 2 / np.sqrt(np.pi) <= found.high
    assert 0.90 <= hits / trials <= 0.98


def test_rank_correlation_agrees_with_scipy():
    rng = generator(2)
    x = rng.normal(size=40)
    y = np.round(-x + 0.8 * rng.normal(size=40), 1)  # with ties
    found = statistics.rank_correlation(np.append(x, np.nan), np.append(y, 1.0), 1999, generator())
    expected = stats.spearmanr(x, y)
    assert found.rho == pytest.approx(expected.statistic, rel=1e-12)
    assert found.n == 40
    assert found.p_value == pytest.approx(2 / 2000)  # none of 1,999 is as far, and both tails count
    assert found.low < found.rho < found.high < 0
    without = [stats.spearmanr(np.delete(x, i), np.delete(y, i)).statistic for i in range(40)]
    assert (found.loo_low, found.loo_high) == pytest.approx((min(without), max(without)), rel=1e-12)


def test_small_samples_get_the_exact_permutation_p_value():
    found = statistics.rank_correlation(np.arange(5.0), np.array([1.0, 2, 3, 5, 4]), 9999, generator())
    rhos = [stats.spearmanr(np.arange(5), order).statistic for order in itertools.permutations(range(5))]
    assert found.p_value == pytest.approx(min(1.0, 2 * np.mean(np.array(rhos) >= found.rho - 1e-12)))


def test_unrelated_values_have_an_interval_around_zero_and_a_large_p_value():
    rng = generator(3)
    found = statistics.rank_correlation(rng.normal(size=60), rng.normal(size=60), 999, generator())
    assert found.low < 0 < found.high
    assert found.p_value > 0.05


@pytest.mark.parametrize(
    ("x", "y"), [([1, 2, 3], [1, 2, 3]), ([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]), ([1, 2, 3, np.nan], [1, 2, 3, 4])]
)
def test_a_correlation_that_is_not_defined_is_missing(x, y):
    found = statistics.rank_correlation(np.array(x, float), np.array(y, float), 99, generator())
    assert np.isnan([found.rho, found.low, found.high, found.p_value, found.loo_low, found.loo_high]).all()


def test_a_perfect_correlation_still_has_an_interval():
    found = statistics.rank_correlation(np.arange(20.0), np.arange(20.0), 199, generator())
    assert found.rho == pytest.approx(1)
    assert (found.low, found.high) == pytest.approx((1, 1))


def test_the_same_generator_gives_the_same_numbers():
    x, y = generator(4).normal(size=(2, 30))
    first, second = (statistics.rank_correlation(x, y, 299, generator(7)) for _ in range(2))
    assert first == second


def test_the_bootstrap_interval_of_a_mean_is_near_the_exact_one():
    values = generator(5).normal(size=200)
    low, high = statistics.bootstrap_interval((values,), np.mean, 4999, generator())
    exact = statistics.mean_interval(values)
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=0.02)


def test_holm_by_hand():
    # ordered .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04, and never falling: .02 .03 .06 .06
    assert statistics.holm(np.array([0.01, 0.04, np.nan, 0.03, 0.005])) == pytest.approx(
        [0.03, 0.06, np.nan, 0.06, 0.02], nan_ok=True
    )
    assert statistics.holm(np.array([0.9, 0.8])) == pytest.approx([1, 1])
    assert statistics.holm(np.array([])).shape == (0,)
