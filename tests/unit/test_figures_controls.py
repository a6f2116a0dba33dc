"""Figures of the spectra, the entries, the population and the controls: what their tables hold, and that they draw."""

import math
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy import stats
from synthetic_tables import Controls, family, make_controls

from featurespace.figures import (
    data_angle_accuracy,
    entry_densities,
    entry_samples,
    explained_variance,
    indicators,
    sensitivity,
    similarity,
    subspace_angles,
)
from featurespace.files import write_table
from featurespace.style import recipe_looks
from featurespace.tables import read_table

LONG = "a-very-long-name-for-a-recipe-of-48-characters-x"
SMALL: dict[str, Any] = {"n_steps": 2, "n_settings": 9, "n_samples": 200}
STUDIES: dict[str, dict[str, Any]] = {
    "one-recipe-seed-and-step": {"recipes": (family("mlp"),), "n_seeds": 1, "n_steps": 1, "n_settings": 0},
    "two-data-sets": {
        "recipes": (family("mlp"), family("still", "untrained", "cnn", dataset="digits")),
        "n_seeds": 2,
        "epochs": 60.0,
        "n_settings": 3,
    },
    "long-names": {
        "recipes": tuple(family(f"{i}{LONG}"[:48], kind="cnn" if i % 2 else "mlp") for i in range(3)),
        "n_seeds": 2,
    },
}
FIGURES = {
    "explained_variance": (explained_variance, ("spectra",)),
    "entry_densities": (entry_densities, ("entries", "entry_summary")),
    "entry_samples": (entry_samples, ("extremes",)),
    "subspace_angles": (subspace_angles, ("subspaces",)),
    "data_angle_accuracy": (data_angle_accuracy, ("population", "correlations")),
    "indicators": (indicators, ("indicators", "correlations")),
    "similarity": (similarity, ("similarity",)),
    "sensitivity": (sensitivity, ("sensitivity",)),
}


@pytest.fixture(scope="module", params=STUDIES)
def made(request: pytest.FixtureRequest) -> Controls:
    return make_controls(**{**SMALL, **STUDIES[request.param]})


@pytest.fixture(scope="module")
def small() -> Controls:
    recipes = (family("mlp"), family("ae", "denoise", "autoencoder"), family("labels", "shuffled-labels", "cnn"))
    return make_controls(recipes, n_seeds=2, **SMALL)


@pytest.fixture(scope="module")
def least() -> Controls:
    return make_controls((family("mlp"), family("wide")), n_seeds=2, **{**SMALL, "n_samples": 100})


def draw(module: ModuleType, frame: pd.DataFrame, made: Controls) -> Figure:
    return module.draw(frame, made.spec, made.images) if module is entry_samples else module.draw(frame, made.spec)


def drawn(name: str, made: Controls) -> tuple[pd.DataFrame, Figure]:
    module, tables = FIGURES[name]
    frame = module.tidy(*(getattr(made, table) for table in tables), made.spec)
    return frame, draw(module, frame, made)


def assert_sound(figure: Figure) -> None:
    """No warning, nothing cut off at the figure's edge, no panel without content, no title upon another."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.draw(renderer)
    inside = figure.bbox.padded(1)
    boxes = {f"legend {i}": legend.get_window_extent(renderer) for i, legend in enumerate(figure.legends)}
    boxes |= {f"panel {i}": axes.get_tightbbox(renderer) for i, axes in enumerate(figure.axes)}
    boxes |= {repr(text.get_text()): text.get_window_extent(renderer) for text in figure.texts}
    for name, box in boxes.items():
        assert box.x0 >= inside.x0 and box.x1 <= inside.x1, f"cut off: {name}"
        assert box.y0 >= inside.y0 and box.y1 <= inside.y1, f"cut off: {name}"
    titles = []
    for axes in figure.axes:
        box = axes.get_window_extent(renderer)
        assert box.width > 20 and box.height > 20, "collapsed panel"
        content = [line for line in axes.lines if np.isfinite(line.get_xydata()).any()]
        assert content or axes.images or axes.patches, f"empty panel: {axes.get_title(loc='left')}"
        for text in (axes._left_title, axes._right_title):
            if text.get_text():
                titles.append((text.get_text(), text.get_window_extent(renderer)))
    for i, (text, box) in enumerate(titles):
        hits = [other for other, place in titles[:i] if place.overlaps(box)]
        assert not hits, f"{text!r} on {hits}"


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_survives_every_study(name: str, made: Controls) -> None:
    _, figure = drawn(name, made)
    assert_sound(figure)


@pytest.mark.parametrize("name", FIGURES)
def test_missing_numbers_leave_gaps_and_no_failure(name: str, least: Controls) -> None:
    module, tables = FIGURES[name]
    numbers = ("variance_share", "cv", "skewness", "angle_to_ones_deg", "vector_angle_deg", "mean_deg", "value")
    numbers += ("angle_to_data_deg", "test_accuracy", "test_accuracy_sd", "rho", "skill", "low", "angle_deg")
    holed = []
    for name_of_table in tables:
        table = getattr(least, name_of_table).copy()
        for column in set(numbers) & set(table):
            table.loc[::3, column] = np.nan
        holed.append(table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw(module, module.tidy(*holed, least.spec), least)
    assert figure.axes


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_its_table(name: str, least: Controls, tmp_path) -> None:
    """Read back from the CSV, the table is the same, and so is every line, image and word drawn from it."""
    frame, figure = drawn(name, least)
    write_table(tmp_path / "a.csv", frame)
    again = read_table(tmp_path / "a.csv")
    write_table(tmp_path / "b.csv", again)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    for one, other in zip(figure.axes, draw(FIGURES[name][0], again, least).axes, strict=True):
        assert [t.get_text() for t in one.findobj(Text)] == [t.get_text() for t in other.findobj(Text)]
        for line, same in zip(one.lines, other.lines, strict=True):
            np.testing.assert_array_equal(line.get_xydata(), same.get_xydata())
        for image, same in zip(one.images, other.images, strict=True):
            np.testing.assert_array_equal(image.get_array(), same.get_array())


@pytest.mark.parametrize("name", FIGURES)
def test_no_table_at_all_is_said_in_words(name: str, small: Controls) -> None:
    module, tables = FIGURES[name]
    frame = module.tidy(*(getattr(small, table).iloc[:0] for table in tables), small.spec)
    assert list(frame) == list(module.tidy(*(getattr(small, table) for table in tables), small.spec))
    figure = draw(module, frame, small)
    assert not figure.axes
    assert len(figure.texts) == 1


# --- explained variance -----------------------------------------------------------------------------------------------


def spectrum(seed: int, step: int, shares: list[float], centring: str = "raw", layer: str = "features") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "dataset": "fashion",
            "recipe": "mlp",
            "seed": seed,
            "step": step,
            "epoch": step / 10,
            "layer": layer,
            "centring": centring,
            "component": range(1, len(shares) + 1),
            "variance_share": shares,
        }
    )


def explained(*tables: pd.DataFrame) -> pd.DataFrame:
    return explained_variance.tidy(pd.concat(tables), {"recipes": [family("mlp")]})


def test_shares_add_up_before_seeds_are_averaged() -> None:
    frame = explained(
        spectrum(0, 0, [0.4, 0.2, 0.1]),
        spectrum(1, 0, [0.5, 0.1, np.nan]),
        spectrum(0, 10, [0.64, 0.2, 0.1]),
        spectrum(1, 10, [0.84, 0.1, 0.05]),
        spectrum(0, 10, [0.9, 0.1, 0.0], layer="elsewhere"),
    )
    shares = frame[frame["panel"] == "cumulative share"].set_index(["which", "component"])
    assert shares.loc[("first", 2), ["value", "low", "high"]].tolist() == pytest.approx([0.6, 0.6, 0.6])
    assert shares.loc[("last", 3), ["value", "low", "high"]].tolist() == pytest.approx([0.965, 0.94, 0.99])
    assert shares.loc[("first", 3), ["value", "n_seeds"]].tolist() == pytest.approx([0.7, 1])
    errors = frame[frame["panel"] == "rank-1 error"]["value"].tolist()
    assert errors == pytest.approx([0.55, 0.26])
    roots = frame[frame["panel"] == "root of rank-1 error"]["value"].tolist()
    assert roots == pytest.approx([(math.sqrt(0.6) + math.sqrt(0.5)) / 2, (0.6 + 0.4) / 2])


def test_nothing_is_added_beyond_a_missing_component() -> None:
    frame = explained(spectrum(0, 0, [0.4, np.nan, 0.1]))
    shares = frame[frame["panel"] == "cumulative share"]
    assert shares["component"].tolist() == [1]
    assert shares["which"].tolist() == ["last"]


def test_a_seed_that_stopped_counts_with_its_own_last_step() -> None:
    frame = explained(
        spectrum(0, 0, [0.2, 0.1]),
        spectrum(0, 10, [0.5, 0.1]),
        spectrum(1, 0, [0.2, 0.1]),
        spectrum(1, 20, [0.7, 0.1]),
    )
    last = frame[(frame["which"] == "last") & (frame["component"] == 1)].iloc[0]
    assert (last["value"], last["n_seeds"], last["step"]) == (pytest.approx(0.6), 2, 20)


def test_shares_are_one_minus_the_error_of_the_truncated_matrix() -> None:
    matrix = np.random.default_rng(0).normal(size=(12, 5))
    u, s, vt = np.linalg.svd(matrix)
    frame = explained(spectrum(0, 0, (s**2 / (matrix**2).sum()).tolist()))
    shares = frame[frame["panel"] == "cumulative share"]["value"].tolist()
    for k in range(1, 6):
        left = matrix - (u[:, :k] * s[:k]) @ vt[:k]
        assert shares[k - 1] == pytest.approx(1 - np.sum(left**2) / np.sum(matrix**2), abs=1e-12)
    assert frame[frame["panel"] == "rank-1 error"]["value"].iloc[0] == pytest.approx(1 - shares[0])


def test_the_number_of_classes_is_marked(small: Controls) -> None:
    frame, figure = drawn("explained_variance", small)
    marks = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_zorder() == 1]
    assert marks == [10, 9]
    unknown = explained_variance.draw(frame, {"recipes": small.spec["recipes"]})
    assert not [line for line in unknown.axes[0].lines if line.get_zorder() == 1]


# --- entries ----------------------------------------------------------------------------------------------------------


def test_densities_are_labelled_by_the_share_of_their_own_training() -> None:
    rows = [(0, 0, 0.0), (0, 6, 1.2), (0, 13, 2.5), (0, 20, 4.0), (1, 0, 0.0), (1, 5, 1.0)]
    entries = pd.DataFrame(rows, columns=["seed", "step", "epoch"]).assign(
        dataset="fashion", recipe="mlp", centring="raw", bin_low=0.0, bin_high=2.0, count=4, density=0.5
    )
    summary = entries[["dataset", "recipe", "centring", "seed", "step"]].assign(
        cv=np.arange(6.0), skewness=0.0, angle_to_ones_deg=10.0
    )
    frame = entry_densities.tidy(entries, summary, {"recipes": [family("mlp")]})
    assert frame["fraction"].tolist() == [0.0, 0.3, 0.6, 1.0, 0.0, 1.0]
    assert frame["cv"].tolist() == [0, 1, 2, 3, 4, 5]
    still = entry_densities.tidy(entries.iloc[:1], summary, {"recipes": [family("mlp")]})
    assert still["fraction"].tolist() == [1.0]


def test_the_numbers_in_a_panel_are_means_over_seeds() -> None:
    rows = pd.DataFrame(
        {
            "seed": [0, 0, 0, 1, 1],
            "step": [0, 0, 9, 0, 9],
            "fraction": [0.0, 0.0, 1.0, 0.0, 1.0],
            "cv": [0.1, 0.1, 0.2, 0.3, 0.4],
            "skewness": [-0.001] * 5,
            "angle_to_ones_deg": [90.0] * 5,
        }
    )
    assert entry_densities._numbers(rows, "raw") == "CV 0.20 → 0.30\nθ 90.0°"
    assert entry_densities._numbers(rows, "centred") == "skew 0.0\nθ 90°"
    assert entry_densities._numbers(rows.assign(cv=np.nan), "raw").startswith("CV –")


def test_axes_of_densities_leave_out_thin_tails_only() -> None:
    edges = np.arange(0.0, 101.0)
    density = np.full(100, 1e-6)
    density[40:60] = 0.05
    rows = pd.DataFrame({"seed": 0, "step": 0, "bin_low": edges[:-1], "bin_high": edges[1:], "density": density})
    assert entry_densities._limits(rows) == (40, 60)
    assert entry_densities._limits(rows.assign(density=0.0)) == (0, 1)


def test_samples_go_from_the_lowest_entry_to_the_highest() -> None:
    made = make_controls((family("mlp"),), n_seeds=1, **SMALL)
    more = made.extremes[made.extremes["rank"] == 8].assign(rank=9, sample=9999)
    frame = entry_samples.tidy(pd.concat([more, made.extremes]).sample(frac=1, random_state=0), made.spec)
    rows = frame[(frame["recipe"] == "mlp") & (frame["centring"] == "raw")]
    assert rows["end"].tolist() == ["low"] * 8 + ["high"] * 8
    assert rows["rank"].tolist() == [*range(1, 9), *range(8, 0, -1)]
    assert 9999 not in set(frame["sample"])


def test_images_stand_over_their_class_and_a_missing_one_is_hatched() -> None:
    made = make_controls((family("mlp"),), n_seeds=1, **SMALL)
    frame = entry_samples.tidy(made.extremes, made.spec)
    lost = f"fashion/s{frame['sample'].iloc[1]}"
    images = {key: image for key, image in made.images.items() if key != lost}
    figure = entry_samples.draw(frame, made.spec, images)
    line = figure.axes[0]  # of the data, raw
    assert [text.get_text() for text in line.texts] == frame["class_name"].iloc[:16].tolist()
    assert len(line.images) == 15
    assert [patch.get_hatch() for patch in line.patches] == ["////"]
    assert [round(text.get_position()[0] - image.get_extent()[0], 9) for text, image in
            zip(line.texts[2:], line.images[1:], strict=True)] == [0.5] * 14  # fmt: skip
    assert not entry_samples.draw(frame, made.spec, {}).axes


def test_pictures_keep_their_pixels() -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    square = entry_samples._as_picture(grey)
    assert square.shape == (3, 3, 3)
    assert square[:2, :, 1].tolist() == grey[0].tolist()
    assert (square[2] == 255).all()
    colours = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    assert entry_samples._as_picture(colours)[1, 0].tolist() == [2, 6, 10]


# --- subspaces --------------------------------------------------------------------------------------------------------


def subspace(recipe: str, seed: int, step: int, reference: str, reference_seed: int, k: int, angle: float) -> dict:
    nulls = {"null_mean_deg": 70.0, "null_largest_deg": 88.0, "null_largest_low_deg": 85.0}
    angles = {"vector_angle_deg": angle + 10, "mean_deg": angle / 2, "largest_deg": angle}
    identity = {"dataset": "fashion", "centring": "raw", "recipe": recipe, "seed": seed, "step": step, "epoch": step}
    return {**identity, "reference": reference, "reference_seed": reference_seed, "k": k, **angles, **nulls}


def test_vectors_are_compared_with_the_own_last_step_but_for_that_step() -> None:
    rows = [subspace("mlp", seed, step, "own", seed, k, 40.0 - step + seed * 2) for seed in (0, 1) for step in (0, 5)
            for k in (1, 10)]  # fmt: skip
    rows += [subspace("mlp", seed, 9, "own", seed, k, 0.0) for seed in (0, 1) for k in (1, 10)]
    frame = subspace_angles.tidy(pd.DataFrame(rows), {"recipes": [family("mlp")]})
    vectors = frame[frame["panel"] == "vectors"]
    assert vectors["k"].unique().tolist() == [1]  # beyond the sixth vector there are spans only
    assert vectors[["step", "angle_deg", "low_deg", "high_deg"]].to_numpy().tolist() == [
        [0, 51, 50, 52],
        [5, 46, 45, 47],
    ]
    ends = frame[(frame["panel"] == "start to end") & (frame["k"] == 10)].set_index("measure")
    assert ends.loc["largest_deg", ["angle_deg", "null_deg", "null_low_deg"]].tolist() == [41, 88, 85]
    assert ends.loc["mean_deg", ["angle_deg", "null_deg"]].tolist() == [20.5, 70]
    assert math.isnan(ends.loc["mean_deg", "null_low_deg"])


def test_a_run_is_averaged_over_the_other_recipes_and_controls_are_no_partners() -> None:
    spec = {"recipes": [family("a"), family("b"), family("c"), family("still", "untrained"), family("x", "noise")]}
    rows = [
        subspace("a", 0, 9, "b", 0, 2, 10.0),
        subspace("a", 0, 9, "c", 0, 2, 30.0),
        subspace("b", 0, 9, "c", 0, 2, 50.0),
        subspace("a", 0, 9, "still", 0, 2, 80.0),
        subspace("b", 0, 9, "still", 0, 2, 60.0),
        subspace("a", 0, 9, "a", 1, 2, 1.0),
        subspace("a", 0, 9, "data", 0, 2, 1.0),
    ]
    frame = subspace_angles.tidy(pd.DataFrame(rows), spec)
    largest = frame[(frame["panel"] == "between recipes") & (frame["measure"] == "largest_deg")]
    assert largest.set_index("recipe")["angle_deg"].to_dict() == {"a": 20, "b": 30, "c": 40, "still": 70}


# --- the angle to the data --------------------------------------------------------------------------------------------


def test_settings_and_their_correlations_are_chosen() -> None:
    made = make_controls((family("mlp"),), n_seeds=1, **SMALL)
    population = made.population.copy()
    population.loc[population["recipe"] == "sweep-03", "test_accuracy"] = np.nan
    frame = data_angle_accuracy.tidy(population, made.correlations, made.spec)
    settings = frame[(frame["panel"] == "setting") & (frame["centring"] == "raw")]
    assert len(settings) == 9
    assert "sweep-03" not in set(settings["recipe"])
    found = frame[frame["panel"] == "correlation"]
    given = made.correlations.query("indicator == 'angle_to_data_deg' and target == 'test_accuracy'")
    assert len(found) == len(given)
    overall = given[(given["group"] == "all") & (given["centring"] == "centred")].iloc[0]
    shown = found[(found["group"] == "all") & (found["centring"] == "centred")].iloc[0]
    assert shown["rho"] == overall["rho"] and shown["loo_high"] == overall["loo_high"]


def test_a_family_has_the_colour_of_its_recipe_and_no_other_has_it() -> None:
    recipes = [family("ae", "denoise", "autoencoder"), family("net", kind="cnn"), family("wider", kind="cnn")]
    looks = data_angle_accuracy.family_looks(recipes, ["vgg", "cnn", "densenet"])
    assert looks["cnn"] == recipe_looks(recipes)["net"]
    assert len({look.colour for look in looks.values()}) == 3
    many = data_angle_accuracy.family_looks(recipes, [f"kind{i}" for i in range(14)])
    assert len(many) == 14


def test_the_correlation_is_written_with_its_evidence() -> None:
    row = {"rho": -0.614, "low": -0.8, "high": -0.004, "n_settings": 36, "p_value": 0.00004, "p_holm": 0.0312}
    words = data_angle_accuracy._overall(pd.Series({**row, "loo_low": -0.7, "loo_high": -0.5}))
    assert words == "ρ −0.61 [−0.80, 0.00], 36 settings\np < 0.0001, Holm 0.03; one left out: −0.70 to −0.50"
    few = pd.Series({**dict.fromkeys(("rho", "low", "high", "loo_low", "loo_high"), np.nan), "n_settings": 1})
    assert data_angle_accuracy._overall(few) == "1 setting: no rank correlation"


def test_logarithmic_axes_hold_positive_errors_only() -> None:
    made = make_controls((family("mlp"),), n_seeds=1, **SMALL)
    population = made.population.copy()
    perfect = population["recipe"] == "sweep-01"
    population.loc[perfect, "test_accuracy"] = 1.0
    population.loc[population["recipe"] == "sweep-02", "angle_to_data_deg"] = 0.0
    frame = data_angle_accuracy.tidy(population, made.correlations, made.spec)
    figure = data_angle_accuracy.draw(frame, made.spec)
    assert_sound(figure)
    linear, logarithmic = figure.axes[0], figure.axes[2]
    assert (logarithmic.get_xscale(), logarithmic.get_yscale()) == ("log", "log")
    counts = [sum(len(line.get_xdata()) for line in axes.lines) for axes in (linear, logarithmic)]
    assert counts == [10, 8]
    assert all((line.get_ydata() > 0).all() for line in logarithmic.lines)


# --- indicators -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rho", "low", "high", "expected"),
    [(-0.5, -0.8, -0.1, (0.5, 0.1, 0.8)), (0.2, -0.3, 0.1, (0.2, 0.0, 0.3)), (0.6, 0.4, 0.7, (0.6, 0.4, 0.7))],
    ids=["negative", "open", "positive"],
)
def test_absolute_correlations_have_intervals_of_their_own(rho: float, low: float, high: float, expected) -> None:
    made = make_controls((family("mlp"),), n_seeds=1, **SMALL)
    table = made.correlations.assign(rho=rho, low=low, high=high)
    frame = indicators.tidy(made.indicators, table, made.spec)
    known = frame[frame["measure"] == "correlation"]
    assert len(known) == 6 * 2 * 2  # indicators, targets, centrings; of all settings, not of each family
    assert (known[["value", "low", "high"]].to_numpy() == expected).all()
    assert (known["rho"] == rho).all()


def test_skill_is_shown_as_it_is_and_at_the_edge_below_minus_one(small: Controls) -> None:
    table = small.indicators.copy()
    worst = (table["indicator"] == "weight_norm") & (table["group"] == "all")
    table.loc[worst, ["skill", "low", "high"]] = [-3.0, -5.0, 0.5]
    frame = indicators.tidy(table, small.correlations, small.spec)
    assert frame.loc[(frame["measure"] == "skill") & (frame["indicator"] == "weight_norm"), "value"].eq(-3).all()
    figure = indicators.draw(frame, small.spec)
    assert_sound(figure)
    edge = [line for line in figure.axes[1].lines if line.get_marker() == "<"]
    assert [line.get_xdata()[0] for line in edge] == [-1.0, -1.0]


# --- similarity -------------------------------------------------------------------------------------------------------


def test_similarity_averages_seeds_and_ranks_pairs(small: Controls) -> None:
    frame = similarity.tidy(small.similarity, small.spec)
    table = small.similarity
    pair = (table["recipe_a"] == "mlp") & (table["recipe_b"] == "ae") & (table["stage"] == "last")
    means = table[pair].groupby("measure")["value"].mean()
    row = frame.query("recipe_a == 'mlp' and recipe_b == 'ae' and stage == 'last' and measure == 'svcca'")
    row = row[row["centring"] == "centred"].iloc[0]
    assert (row["cosine"], row["value"]) == pytest.approx((means["cosine_centred"], means["svcca"]))
    assert row["n_pairs"] == 2
    panel = ["dataset", "measure", "centring", "stage"]
    for _, rows in frame.groupby(panel):
        expected = stats.spearmanr(rows["cosine"], rows["value"]).statistic
        np.testing.assert_allclose(rows["rho"], expected, atol=1e-12)
        assert (rows["n_points"] == len(rows)).all()
    assert set(frame.loc[frame["recipe_a"] == "data", "relation"]) == {"a recipe and the data"}
    deconfounded = frame[frame["measure"] == "cka_deconfounded"]
    assert "data" not in {*deconfounded["recipe_a"], *deconfounded["recipe_b"]}


def test_few_or_constant_values_have_no_correlation(small: Controls) -> None:
    constant = small.similarity.assign(value=0.5)
    assert similarity.tidy(constant, small.spec)["rho"].isna().all()
    two = small.similarity.query("recipe_a == 'mlp' and recipe_b in ('ae', 'labels')")
    assert similarity.tidy(two, small.spec)["rho"].isna().all()


# --- sensitivity ------------------------------------------------------------------------------------------------------


def angle(a: str, seed_a: int, b: str, seed_b: int, degrees: float, **other: Any) -> dict[str, Any]:
    row = {"dataset": "fashion", "factor": "samples", "level": "0.5", "value": 0.5, "centring": "raw"}
    row |= {"relation": "between", "recipe_a": a, "seed_a": seed_a, "recipe_b": b, "seed_b": seed_b}
    return row | {"angle_deg": degrees, "null_formula_deg": 2 * degrees} | other


def test_sensitivity_averages_seeds_then_pairs_and_leaves_controls_out() -> None:
    spec = {"recipes": [family("a"), family("b"), family("c"), family("still", "untrained"), family("x", "noise")]}
    table = pd.DataFrame(
        [
            angle("a", 0, "b", 0, 10),
            angle("a", 1, "b", 1, 20),
            angle("a", 0, "c", 0, 21),
            angle("a", 0, "still", 0, 80),
            angle("x", 0, "c", 0, 80),
            angle("a", 0, "a", 1, 4),
            angle("a", 0, "a", 0, 40, relation="start_to_end"),
            angle("still", 0, "still", 1, 77),
        ]
    )
    frame = sensitivity.tidy(table, spec).set_index("relation")
    assert frame.index.tolist() == ["two recipes", "two seeds", "start to end"]
    assert frame.loc["two recipes", ["angle_deg", "null_formula_deg", "n_pairs"]].tolist() == [18, 36, 2]
    assert frame.loc["two recipes", "sd_deg"] == pytest.approx(math.sqrt(18))
    assert frame.loc["two recipes", ["least_deg", "greatest_deg"]].tolist() == [15, 21]
    assert frame.loc["two recipes", "low_deg"] == pytest.approx(18 - math.sqrt(18))
    assert frame["angle_deg"].tolist() == [18, 4, 40]
    assert math.isnan(frame.loc["two seeds", "sd_deg"])


def test_levels_are_in_the_order_of_their_sizes_and_names() -> None:
    rows = [angle("a", 0, "b", 0, 5, level=f"{value:g}", value=value) for value in (1.0, 0.125, 0.5)]
    rows += [angle("a", 0, "b", 0, 5, factor="depth", level=level, value=0.1) for level in ("last", "first", "middle")]
    frame = sensitivity.tidy(pd.DataFrame(rows), {"recipes": [family("a"), family("b")]})
    assert frame["level"].tolist() == ["0.125", "0.5", "1", "first", "middle", "last"]


def test_angles_of_a_centring_share_an_axis(small: Controls) -> None:
    _, figure = drawn("sensitivity", small)
    curves = {axes.get_title(loc="right"): axes.get_ylim() for axes in figure.axes[:6]}
    lists = {axes.get_title(loc="right"): axes.get_xlim() for axes in figure.axes[6:]}
    assert curves == lists
    assert {limit for _, limit in curves.values()} >= {90}
