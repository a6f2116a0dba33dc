"""Tables over a population of settings: averages, groups, correlations and predictions of what is left out."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression

from featurespace import population
from featurespace.statistics import holm
from featurespace.tables import read_table

SCRIPTS = Path(__file__).parents[2] / "scripts"
KINDS = ["mlp"] * 10 + ["cnn"] * 9 + ["resnet"] * 3
N_SEEDS = 3


def made_study(kinds=KINDS, seed: int = 0) -> SimpleNamespace:
    """Make up settings whose centred angle to the data falls with accuracy, whose raw angle says nothing."""
    rng = np.random.default_rng(seed)
    recipes, pairs, runs, spectra = [], [], [], []
    for i, kind in enumerate(kinds):
        name, quality = f"{kind}-{i}", rng.uniform()
        recipes.append(
            {
                "name": name,
                "dataset": "fashion",
                "task": "classify",
                "kind": kind,
                "population": "sweep" if i % 2 else "",
                "blocks": 1,
                "feature_layer": "pooled",
            }
        )
        for s in range(N_SEEDS):
            accuracy = 0.6 + 0.3 * quality + 0.01 * rng.normal()
            runs.append(
                {
                    "dataset": "fashion",
                    "recipe": name,
                    "seed": s,
                    "train_loss": rng.uniform(),
                    "train_accuracy": 0.95,
                    "test_loss": 1.0,
                    "test_accuracy": accuracy,
                    "weight_norm": 10.0 + s,
                }
            )
            for stage in ("first", "last"):
                for centring in ("raw", "centred"):
                    angle = 60 - 30 * quality + rng.normal() if centring == "centred" else rng.uniform(5, 15)
                    relation = {"correlation": 0.5, "null_formula_deg": 80.0 + i}
                    ends = {"recipe_a": name, "seed_a": s, "recipe_b": "data", "seed_b": 0}
                    ones = {"angle_to_ones_deg": 40.0 + i, "reference_angle_to_ones_deg": 70.0}
                    if i == 0:  # the data come first in this pair
                        ends = {"recipe_a": "data", "seed_a": 0, "recipe_b": name, "seed_b": s}
                        ones = {"angle_to_ones_deg": 70.0, "reference_angle_to_ones_deg": 140.0}
                    pairs.append(
                        {
                            "dataset": "fashion",
                            "centring": centring,
                            "stage": stage,
                            **ends,
                            **ones,
                            **relation,
                            "angle_deg": angle if stage == "last" else 1.0,
                        }
                    )
            for step in (0, 10):
                for layer in ("stage1", "pooled"):
                    wanted = step == 10 and layer == "pooled"
                    spectra.append(
                        {
                            "dataset": "fashion",
                            "recipe": name,
                            "seed": s,
                            "step": step,
                            "layer": layer,
                            "centring": "raw",
                            "component": 1,
                            "singular_value": (6.0 + s if wanted else 999.0),
                            "variance_share": 0.25,
                        }
                    )
    # Pairs of two networks are of no concern here.
    pairs.append(pairs[0] | {"recipe_b": recipes[1]["name"], "recipe_a": recipes[2]["name"], "angle_deg": 89.0})
    return SimpleNamespace(
        recipes=recipes, pairs=pd.DataFrame(pairs), runs=pd.DataFrame(runs), spectra=pd.DataFrame(spectra)
    )


@pytest.fixture(scope="module")
def study() -> SimpleNamespace:
    return made_study()


@pytest.fixture(scope="module")
def settings(study) -> pd.DataFrame:
    return population.tabulate_population(study.pairs, study.runs, study.spectra, study.recipes)


@pytest.fixture(scope="module")
def correlations(settings) -> pd.DataFrame:
    return population.correlate_indicators(settings, 499, 0)


def test_a_setting_is_the_mean_over_its_seeds(study, settings):
    assert list(settings.columns) == population.POPULATION_COLUMNS
    assert len(settings) == 2 * len(KINDS)
    row = settings[(settings["recipe"] == "mlp-3") & (settings["centring"] == "centred")].iloc[0]
    mine = study.pairs.query("recipe_a == 'mlp-3' and stage == 'last' and centring == 'centred'")
    runs = study.runs.query("recipe == 'mlp-3'")
    assert row["n_seeds"] == N_SEEDS
    assert row["angle_to_data_deg"] == pytest.approx(mine["angle_deg"].mean())
    assert row["angle_to_data_sd_deg"] == pytest.approx(np.std(mine["angle_deg"], ddof=1))
    assert row["test_accuracy_sd"] == pytest.approx(np.std(runs["test_accuracy"], ddof=1))
    assert row["generalisation_gap"] == pytest.approx(0.95 - runs["test_accuracy"].mean())
    assert row["feature_norm"] == pytest.approx(np.mean([6, 7, 8]) / 0.5)  # of the feature layer, at the last step
    assert row["weight_norm"] == pytest.approx(11)
    assert (row["population"], row["kind"]) == ("sweep", "mlp")


def test_the_angle_to_the_ones_vector_is_the_networks_whichever_comes_first(settings):
    ones = settings[settings["centring"] == "raw"].set_index("recipe")["angle_to_ones_deg"]
    assert ones["mlp-0"] == pytest.approx(40)
    assert ones["mlp-1"] == pytest.approx(41)


def test_groups_are_all_and_the_kinds_with_enough_settings(correlations):
    assert list(correlations.columns) == population.CORRELATION_COLUMNS
    assert set(correlations["group"]) == {"all", "mlp", "cnn"}
    assert len(correlations) == 2 * 3 * len(population.INDICATORS) * len(population.TARGETS)


def test_a_relation_is_found_where_there_is_one(settings, correlations):
    rows = correlations.set_index(["centring", "group", "indicator", "target"])
    found = rows.loc[("centred", "all", "angle_to_data_deg", "test_accuracy")]
    own = settings[settings["centring"] == "centred"]
    expected = stats.spearmanr(own["angle_to_data_deg"], own["test_accuracy"])
    assert found["rho"] == pytest.approx(expected.statistic)
    assert found["rho"] < -0.8
    assert found["high"] < 0
    assert found["loo_high"] < 0
    assert found["p_holm"] < 0.05
    assert found["n_settings"] == len(KINDS)
    assert rows.loc[("raw", "all", "angle_to_data_deg", "test_accuracy"), "p_holm"] > 0.05


def test_holm_corrects_over_all_tests_of_the_angle(correlations):
    tests = correlations[correlations["indicator"] == "angle_to_data_deg"]
    assert len(tests) == 2 * 3 * 2
    assert tests["p_holm"].to_numpy() == pytest.approx(holm(tests["p_value"].to_numpy()))
    assert correlations.loc[correlations["indicator"] != "angle_to_data_deg", "p_holm"].isna().all()


def test_an_indicator_that_never_varies_has_no_correlation_and_no_skill(settings, correlations):
    constant = correlations[correlations["indicator"] == "weight_norm"]
    assert constant["rho"].isna().all()
    table = population.compare_indicators(settings, 99, 0)
    assert table.loc[table["indicator"] == "weight_norm", "skill"].to_numpy() == pytest.approx(0, abs=1e-12)


def test_left_out_errors_are_those_of_fits_without_each_setting():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 15))
    ranks = stats.rankdata(x)[:, None]
    expected, baseline = [], []
    for i in range(15):
        keep = np.arange(15) != i
        line = LinearRegression().fit(ranks[keep], y[keep])
        expected.append(abs(y[i] - line.predict(ranks[[i]])[0]))
        baseline.append(abs(y[i] - y[keep].mean()))
    found = population.left_out_errors(x, y)
    assert found[0] == pytest.approx(np.array(expected))
    assert found[1] == pytest.approx(np.array(baseline))


def test_indicators_are_ranked_by_what_they_predict(settings):
    table = population.compare_indicators(settings, 499, 0)
    assert list(table.columns) == population.INDICATOR_COLUMNS
    case = table.query("centring == 'centred' and group == 'all' and target == 'test_accuracy'").set_index("indicator")
    best = case.loc["angle_to_data_deg"]
    assert best["rank"] == 1
    assert best["skill"] == pytest.approx(1 - best["mae"] / best["baseline_mae"])
    assert 0.3 < best["low"] < best["skill"] < best["high"] < 1
    assert case.loc["train_loss", "low"] < 0
    assert case["rank"].max() == len(population.INDICATORS)


def test_the_best_other_indicator_is_met_on_the_same_settings(settings):
    some = settings.copy()
    some["feature_norm"] = np.nan  # known of no setting: none of the indicators
    some.loc[some["recipe"] == "cnn-12", "train_loss"] = np.nan
    table = population.compare_indicators(some, 499, 0).set_index(["centring", "group", "target", "indicator"])
    case = table.sort_index().loc[("centred", "all", "test_accuracy")]
    own = some[(some["centring"] == "centred") & (some["recipe"] != "cnn-12")]
    accuracy = own["test_accuracy"].to_numpy()
    others = [name for name in population.INDICATORS if name not in ("angle_to_data_deg", "feature_norm")]
    errors = {name: population.left_out_errors(own[name].to_numpy(), accuracy)[0].mean() for name in others}
    mine, baseline = (e.mean() for e in population.left_out_errors(own["angle_to_data_deg"].to_numpy(), accuracy))
    found = case.loc["angle_to_data_deg"]
    assert found["best_other"] == min(errors, key=errors.get)
    assert found["difference"] == pytest.approx((min(errors.values()) - mine) / baseline)
    assert 0 < found["difference_low"] < found["difference"] < found["difference_high"]
    assert case.loc["train_loss", "best_other"] == "angle_to_data_deg"
    assert case.loc["train_loss", "difference_high"] < 0
    assert np.isnan(case.loc["feature_norm", "difference"])


def test_a_study_without_a_population_has_empty_tables():
    empty = population.tabulate_population(
        pd.DataFrame(columns=made_study(KINDS[:3]).pairs.columns), pd.DataFrame(columns=["recipe"]), pd.DataFrame(), []
    )
    assert list(empty.columns) == population.POPULATION_COLUMNS
    for table in (population.correlate_indicators(empty, 99, 0), population.compare_indicators(empty, 99, 0)):
        assert table.empty
    assert list(table.columns) == population.INDICATOR_COLUMNS


def test_the_script_writes_the_same_tables_twice(tmp_path, study):
    study.pairs.to_csv(tmp_path / "pairs.csv", index=False)
    study.runs.to_csv(tmp_path / "runs.csv", index=False)
    for half in (0, 1):
        study.spectra[study.spectra["seed"] % 2 == half].to_csv(tmp_path / f"spectra-{half}.csv", index=False)
    written = []
    for out in ("a", "b"):
        (tmp_path / out).mkdir()
        outputs = {name: tmp_path / out / f"{name}.csv" for name in ("population", "correlations", "indicators")}
        snakemake = SimpleNamespace(
            input=SimpleNamespace(
                pairs=tmp_path / "pairs.csv",
                runs=tmp_path / "runs.csv",
                spectra=[tmp_path / f"spectra-{half}.csv" for half in (0, 1)],
            ),
            output=SimpleNamespace(**outputs),
            params=SimpleNamespace(
                spec={"seed": 3, "resamples": 99, "recipes": study.recipes, "datasets": ["fashion"]}
            ),
            log=[],
            config={},
            threads=1,
        )
        runpy.run_path(str(SCRIPTS / "correlate_population.py"), {"snakemake": snakemake}, "__main__")
        written.append([path.read_bytes() for path in outputs.values()])
    assert written[0] == written[1]
    table = read_table(tmp_path / "a" / "correlations.csv")
    assert set(table["group"]) == {"all", "mlp", "cnn"}
    assert read_table(tmp_path / "a" / "population.csv")["population"].isin(["", "sweep"]).all()
