"""Intervals, correlations and tests of small samples: seeds, settings, pairs. SciPy's where it has them.

Whatever is resampled comes from a `numpy.random.Generator`, so that the same generator gives the same numbers. Missing
values are left out in pairs; a number that is not defined is NaN.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its confidence interval (NaN where there is none) and how many values it is from."""

    estimate: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rho with its bootstrap interval, two-sided permutation p-value, and range with one pair left out."""

    rho: float
    low: float
    high: float
    p_value: float
    loo_low: float
    loo_high: float
    n: int


def mean_interval(values: np.ndarray, confidence: float = CONFIDENCE) -> Interval:
    """Return the mean of (n,) values with Student's t interval; for differences of pairs, give the differences."""
    values = _finite(values)
    n = len(values)
    mean = float(values.mean()) if n else float("nan")
    if n < 2:
        return Interval(mean, float("nan"), float("nan"), n)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def jackknife_interval(estimate: float, leave_one_out: np.ndarray, confidence: float = CONFIDENCE) -> Interval:
    """Return an estimate with the t interval of its pseudo-values n θ - (n - 1) θ₋ᵢ (Tukey 1958).

    For what is no mean over independent units, such as a mean over pairs of networks, whose pairs share networks:
    `leave_one_out`, (n,), is the estimate without unit i. For a plain mean it is the t interval.
    """
    without = _finite(leave_one_out)
    n = len(without)
    if n < 2 or not np.isfinite(estimate):
        return Interval(float(estimate), float("nan"), float("nan"), n)
    spread = mean_interval(n * estimate - (n - 1) * without, confidence)
    half = (spread.high - spread.low) / 2
    return Interval(float(estimate), float(estimate) - half, float(estimate) + half, n)


def bootstrap_interval(
    samples: tuple[np.ndarray, ...],
    statistic: Callable[..., np.ndarray],
    resamples: int,
    generator: np.random.Generator,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """Return a bootstrap interval of a statistic of paired samples, each (n,), resampled together.

    BCa (Efron 1987), or the percentiles where its correction is not defined; NaN for fewer than three pairs, or
    where the statistic is hardly ever defined. `statistic(*samples, axis)` works along an axis.
    """
    if len(samples[0]) < 3:
        return float("nan"), float("nan")
    ends = (float("nan"), float("nan"))
    state = generator.bit_generator.state
    for method in ("BCa", "percentile"):
        generator.bit_generator.state = state
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # of degenerate resamples: the outcome is looked at instead
            result = stats.bootstrap(
                samples,
                lambda *parts, axis=-1: _defined(statistic(*parts, axis=axis)),
                paired=True,
                vectorized=True,
                n_resamples=resamples,
                confidence_level=confidence,
                method=method,
                rng=generator,
            )
        ends = (float(result.confidence_interval.low), float(result.confidence_interval.high))
        if np.isfinite(ends).all():
            break
    return ends


def rank_correlation(x: np.ndarray, y: np.ndarray, resamples: int, generator: np.random.Generator) -> RankCorrelation:
    """Return Spearman's rho of (n,) and (n,), pairs with a missing value left out.

    All but `n` is NaN for fewer than four pairs, or where one side is constant.
    """
    both = np.isfinite(x) & np.isfinite(y)
    x, y = np.asarray(x, float)[both], np.asarray(y, float)[both]
    n = len(x)
    if n < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        nan = float("nan")
        return RankCorrelation(nan, nan, nan, nan, nan, nan, n)
    rho = float(spearman(x, y))
    test = stats.permutation_test(
        (x,),
        lambda permuted, axis=-1: spearman(permuted, np.broadcast_to(y, permuted.shape), axis=axis),
        permutation_type="pairings",
        vectorized=True,
        n_resamples=resamples,
        alternative="two-sided",
        rng=generator,
    )
    low, high = bootstrap_interval((x, y), spearman, resamples, generator)
    keep = ~np.eye(n, dtype=bool)
    without = np.array([spearman(x[rows], y[rows]) for rows in keep])
    return RankCorrelation(rho, low, high, float(test.pvalue), *_range(without), n)


def spearman(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return Spearman's rho along an axis: Pearson's r of mid-ranks; NaN where one side is constant."""
    ranks = [stats.rankdata(values, axis=axis) for values in (x, y)]
    a, b = (values - values.mean(axis=axis, keepdims=True) for values in ranks)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(axis=axis) / np.sqrt((a**2).sum(axis=axis) * (b**2).sum(axis=axis))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return step-down adjusted p-values, (m,), which control the family-wise error (Holm 1979).

    A missing p-value stays missing and is no part of the family.
    """
    p_values = np.asarray(p_values, dtype=float)
    adjusted = np.full(p_values.shape, np.nan)
    tested = np.flatnonzero(np.isfinite(p_values))
    order = tested[np.argsort(p_values[tested], kind="stable")]
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def _finite(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    return values[np.isfinite(values)]


def _defined(values: np.ndarray) -> np.ndarray:
    """Put the median of a distribution where a resample is degenerate; a few of small samples always are."""
    values = np.asarray(values, dtype=float)
    missing = ~np.isfinite(values)
    if values.ndim == 0 or not missing.any() or missing.mean() > 0.05:
        return values
    return np.where(missing, np.nanmedian(values), values)


def _range(values: np.ndarray) -> tuple[float, float]:
    values = _finite(values)
    return (float(values.min()), float(values.max())) if len(values) else (float("nan"), float("nan"))
