"""Does the angle between a network's P-vector and the data's say how well it classifies? Over a population of settings.

A setting is a recipe: its seeds are averaged before anything is correlated, since seeds of one setting are no
independent evidence about settings.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from featurespace.statistics import bootstrap_interval, holm, rank_correlation

CENTRINGS = ("raw", "centred")
DATA = "data"  # the recipe under which a data set's own P-vector goes
INDICATORS = ("angle_to_data_deg", "angle_to_ones_deg", "train_loss", "feature_norm", "weight_norm", "null_formula_deg")
TARGETS = ("test_accuracy", "generalisation_gap")
MIN_GROUP = 8  # settings of one kind from which on it is a group of its own

POPULATION_COLUMNS = [
    *("dataset", "centring", "recipe", "population", "kind", "n_seeds"),
    *("angle_to_data_deg", "angle_to_data_sd_deg", "correlation_to_data", "null_formula_deg", "angle_to_ones_deg"),
    *("feature_norm", "weight_norm", "train_loss", "train_accuracy"),
    *("test_loss", "test_accuracy", "test_accuracy_sd", "generalisation_gap"),
]
CORRELATION_COLUMNS = [
    *("dataset", "centring", "group", "indicator", "target", "n_settings"),
    *("rho", "low", "high", "p_value", "p_holm", "loo_low", "loo_high"),
]
INDICATOR_COLUMNS = [
    *("dataset", "centring", "group", "indicator", "target", "n_settings"),
    *("mae", "baseline_mae", "skill", "low", "high", "rank"),
    *("best_other", "difference", "difference_low", "difference_high"),
]


def tabulate_population(
    pairs: pd.DataFrame, runs: pd.DataFrame, spectra: pd.DataFrame, recipes: Sequence[Mapping[str, Any]]
) -> pd.DataFrame:
    """Describe every setting: `population.csv`.

    Parameters
    ----------
    pairs
        `angle_pairs.csv`; of it the last steps against the data are used.
    runs
        `runs.csv`.
    spectra
        The `spectra.csv` of the settings' runs, stacked. The Frobenius norm of a feature matrix is the first
        singular value over the root of its share of variance, raw, at the last step.
    recipes
        The settings, in the study's order, each with name, dataset, kind, population (the sweep that it is of, or
        empty) and feature_layer.

    Returns
    -------
    DataFrame
        `POPULATION_COLUMNS`, one row a setting and centring: means over seeds, and sample standard deviations.
    """
    to_data = _pairs_with_data(pairs)
    norms = _feature_norms(spectra, recipes)
    rows = []
    for recipe in recipes:
        own_runs = runs[(runs["recipe"] == recipe["name"]) & (runs["dataset"] == recipe["dataset"])]
        own_pairs = to_data[(to_data["recipe"] == recipe["name"]) & (to_data["dataset"] == recipe["dataset"])]
        for centring in CENTRINGS:
            angles = own_pairs[own_pairs["centring"] == centring]
            accuracy = own_runs["test_accuracy"]
            rows.append(
                {
                    "dataset": recipe["dataset"],
                    "centring": centring,
                    "recipe": recipe["name"],
                    "population": recipe["population"],
                    "kind": recipe["kind"],
                    "n_seeds": own_runs["seed"].nunique(),
                    "angle_to_data_deg": angles["angle_deg"].mean(),
                    "angle_to_data_sd_deg": angles["angle_deg"].std(),
                    "correlation_to_data": angles["correlation"].mean(),
                    "null_formula_deg": angles["null_formula_deg"].mean(),
                    "angle_to_ones_deg": angles["angle_to_ones_deg"].mean(),
                    "feature_norm": norms.get(recipe["name"], np.nan),
                    **{
                        name: own_runs[name].mean()
                        for name in ("weight_norm", "train_loss", "train_accuracy", "test_loss", "test_accuracy")
                    },
                    "test_accuracy_sd": accuracy.std(),
                    "generalisation_gap": (own_runs["train_accuracy"] - accuracy).mean(),
                }
            )
    return pd.DataFrame(rows, columns=POPULATION_COLUMNS)


def correlate_indicators(population: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Correlate what a setting shows with how well it generalises: `correlations.csv`.

    Spearman's rho, its bootstrap interval, two-sided permutation p-value and range with one setting left out. The
    family of tests for Holm's correction is, in one data set, the angle to the data over centrings, groups and
    targets; the other indicators are there to compare with, and have no adjusted value.
    """
    rows = []
    for number, (key, settings) in enumerate(_cases(population)):
        *_, indicator, target = key
        generator = np.random.default_rng(np.random.SeedSequence((seed, number)))
        found = rank_correlation(settings[indicator].to_numpy(), settings[target].to_numpy(), resamples, generator)
        numbers = (found.n, found.rho, found.low, found.high, found.p_value, np.nan, found.loo_low, found.loo_high)
        rows.append((*key, *numbers))
    table = pd.DataFrame(rows, columns=CORRELATION_COLUMNS)
    of_angle = table["indicator"] == INDICATORS[0]
    for _, family in table[of_angle].groupby("dataset", sort=False):
        table.loc[family.index, "p_holm"] = holm(family["p_value"].to_numpy())
    return table


def compare_indicators(population: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Predict every setting from the others, by one indicator at a time: `indicators.csv`.

    Least squares on the indicator's ranks; `mae` is the mean absolute error over settings left out one at a time,
    `baseline_mae` that of the others' mean, `skill` 1 - mae/baseline_mae with its bootstrap interval over settings, and
    `rank` the place among the indicators of the same data set, centring, group and target (1 has the least error).
    `difference` is the skill minus that of `best_other`, where all indicators are known, with its own interval: which
    other one is the best is chosen on the same settings, in its favour.
    """
    rows = []
    for number, (key, settings) in enumerate(_cases(population)):
        *_, indicator, target = key
        known = settings[[indicator, target]].dropna().to_numpy(dtype=float)
        error, baseline = left_out_errors(known[:, 0], known[:, 1])
        generator = np.random.default_rng(np.random.SeedSequence((seed, number)))
        low, high = bootstrap_interval((error, baseline), _skill, resamples, generator)
        mae, baseline_mae = (values.mean() if len(values) else np.nan for values in (error, baseline))
        skill = (len(known), mae, baseline_mae, float(_skill(error, baseline)), low, high)
        generator = np.random.default_rng(np.random.SeedSequence((seed, number, 1)))
        rows.append((*key, *skill, np.nan, *_against_best_other(settings, indicator, target, resamples, generator)))
    table = pd.DataFrame(rows, columns=INDICATOR_COLUMNS)
    table["rank"] = table.groupby(["dataset", "centring", "group", "target"])["mae"].rank(method="min")
    return table


def _against_best_other(
    settings: pd.DataFrame, indicator: str, target: str, resamples: int, generator: np.random.Generator
) -> tuple[str, float, float, float]:
    """Return the best other indicator, and the indicator's skill minus its, with the interval, paired over settings.

    Over the settings of which all indicators are known; one that is known of no setting is none.
    """
    there = [name for name in INDICATORS if settings[name].notna().any()]
    known = settings[[*there, target]].dropna()
    nothing = ("", float("nan"), float("nan"), float("nan"))
    if indicator not in there or len(there) < 2 or len(known) < 4:
        return nothing
    of_target = known[target].to_numpy(dtype=float)
    errors = {name: left_out_errors(known[name].to_numpy(dtype=float), of_target) for name in there}
    own, baseline = errors.pop(indicator)
    best = min(errors, key=lambda name: errors[name][0].sum())
    samples = (own, errors[best][0], baseline)
    return best, float(_gain(*samples)), *bootstrap_interval(samples, _gain, resamples, generator)


def left_out_errors(indicator: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return absolute errors, (n,) and (n,), of each value when it is left out: of a line on ranks, and of the mean.

    For least squares the residual of a point left out is e / (1 - h), h its leverage. Empty for fewer than four values;
    an indicator that is constant predicts the mean.
    """
    n = len(target)
    if n < 4:
        return np.empty(0), np.empty(0)
    ranks = stats.rankdata(indicator)
    ranks -= ranks.mean()
    squares = (ranks**2).sum()
    slope = (ranks @ target) / squares if squares > 0 else 0.0
    residual = target - target.mean()
    leverage = 1 / n + (ranks**2 / squares if squares > 0 else 0.0)
    return np.abs((residual - slope * ranks) / (1 - leverage)), np.abs(residual / (1 - 1 / n))


def _skill(error: np.ndarray, baseline: np.ndarray, axis: int = -1) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - error.sum(axis=axis) / baseline.sum(axis=axis)


def _gain(error: np.ndarray, other: np.ndarray, baseline: np.ndarray, axis: int = -1) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return (other.sum(axis=axis) - error.sum(axis=axis)) / baseline.sum(axis=axis)


def _cases(population: pd.DataFrame) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """Yield the keys and settings of each case: data set, centring, group, indicator, target."""
    for (dataset, centring), settings in population.groupby(["dataset", "centring"], sort=False):
        sizes = settings["kind"].value_counts()
        kinds = [kind for kind in dict.fromkeys(settings["kind"]) if sizes[kind] >= MIN_GROUP]
        for group in ("all", *kinds):
            own = settings if group == "all" else settings[settings["kind"] == group]
            for indicator in INDICATORS:
                for target in TARGETS:
                    yield (str(dataset), str(centring), group, indicator, target), own


def _pairs_with_data(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs of last steps with the data, the network under `recipe`, `angle_to_ones_deg` its own."""
    last = pairs[pairs["stage"] == "last"]
    ahead = last[(last["recipe_b"] == DATA) & (last["recipe_a"] != DATA)].rename(columns={"recipe_a": "recipe"})
    behind = last[(last["recipe_a"] == DATA) & (last["recipe_b"] != DATA)].rename(columns={"recipe_b": "recipe"})
    other_side = behind["reference_angle_to_ones_deg"]
    behind = behind.assign(angle_to_ones_deg=np.minimum(other_side, 180.0 - other_side))
    return pd.concat([ahead, behind], ignore_index=True)


def _feature_norms(spectra: pd.DataFrame, recipes: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the Frobenius norm of the features at the last step by recipe, the mean over seeds."""
    if spectra.empty:
        return {}
    layers = pd.Series({recipe["name"]: recipe["feature_layer"] for recipe in recipes}, dtype="object")
    first = spectra[(spectra["centring"] == "raw") & (spectra["component"] == 1)]
    first = first[first["layer"] == first["recipe"].map(layers)]
    last = first.sort_values("step", kind="stable").groupby(["recipe", "seed"], sort=False).tail(1)
    norms = last.assign(norm=last["singular_value"] / np.sqrt(last["variance_share"]))
    return {str(recipe): float(norm) for recipe, norm in norms.groupby("recipe")["norm"].mean().items()}
