"""Figures: what their tables hold, that they survive any study, and that nothing in them is cut off or empty."""

import itertools
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path as Outline
from synthetic_tables import DEFAULT, Made, make, recipe

from featurespace.figures import angle_dynamics, angle_matrix, layers, spectra, training
from featurespace.figures.series import geometric_mean, over_seeds
from featurespace.style import (
    MARKERS,
    PALETTE,
    draw_ends,
    elide,
    log_axis,
    new_figure,
    recipe_looks,
    save_figure,
    wrap_name,
)
from featurespace.tables import is_false, read_table, read_tables

LONG = "a-very-long-name-for-a-recipe-of-48-characters-x"
STUDIES = {
    "two data sets": {"recipes": [DEFAULT[2], *DEFAULT[5:]], "n_seeds": 2, "epochs": 4},
    "one recipe, seed and step": {"recipes": [recipe("mlp")], "n_seeds": 1, "epochs": 0},
    "ten recipes, long": {
        "recipes": [
            recipe(f"{i}{LONG}"[:48] if i % 3 == 0 else f"r{i}", kind="cnn" if i % 2 else "mlp") for i in range(10)
        ],
        "n_seeds": 1,
        "epochs": 40,
    },
    "untrained only": {"recipes": [recipe("untrained", "untrained")], "n_seeds": 2},
}
FIGURES = {
    "angle_dynamics": (angle_dynamics, lambda made: (made.dynamics,)),
    "angle_matrix": (angle_matrix, lambda made: (made.pairs,)),
    "spectra": (spectra, lambda made: (made.spectra,)),
    "layers": (layers, lambda made: (made.layers, made.runs)),
    "training": (training, lambda made: (made.history,)),
}


@pytest.fixture(scope="module")
def default() -> Made:
    return make(n_seeds=2, epochs=4)


@pytest.fixture(scope="module", params=STUDIES)
def made(request: pytest.FixtureRequest) -> Made:
    return make(**STUDIES[request.param])


def drawn(module: ModuleType, tables: tuple, spec: dict) -> tuple[pd.DataFrame, Figure]:
    frame = module.tidy(*tables, spec)
    return frame, module.draw(frame, spec)


def assert_sound(figure: Figure) -> None:
    """Nothing is cut off at the figure's edge, and every panel shows something."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.get_layout_engine().execute(figure)
    boxes = {repr(text.get_text()): text.get_window_extent(renderer) for text in figure.texts}
    boxes |= {f"panel {i}": axes.get_tightbbox(renderer) for i, axes in enumerate(figure.axes)}
    boxes |= {f"legend {i}": legend.get_window_extent(renderer) for i, legend in enumerate(figure.legends)}
    for name, box in boxes.items():
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
        assert inside, f"cut off: {name} {box}"
    for axes in figure.axes:
        if not axes.axison:
            assert axes.get_legend() is not None
            continue
        if axes.get_label() == "<colorbar>":
            continue
        points = [line for line in axes.lines if np.isfinite(line.get_xydata()).any()]
        assert points or axes.images, f"empty panel: {axes.get_title(loc='left')}"


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_survives_every_study(name: str, made: Made) -> None:
    module, tables = FIGURES[name]
    _, figure = drawn(module, tables(made), made.spec)
    assert_sound(figure)


@pytest.mark.parametrize("name", FIGURES)
def test_missing_numbers_leave_gaps_and_no_failure(name: str) -> None:
    made = make([recipe("mlp"), recipe("ae", "denoise", "autoencoder")], n_seeds=2, epochs=3)
    module, tables = FIGURES[name]
    holed = []
    for table in tables(made):
        table = table.copy()
        for column in ("angle_deg", "null_mean_deg", "correlation", "variance_share", "compression", "test_loss"):
            if column in table:
                table.loc[::3, column] = np.nan
                table.loc[table["recipe" if "recipe" in table else "recipe_b"] == "mlp", column] = np.nan
        holed.append(table)
    _, figure = drawn(module, tuple(holed), made.spec)
    assert_sound(figure)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_its_table_and_the_same_each_time(name: str, tmp_path) -> None:
    """Drawn anew from the CSV, the files agree to the byte."""
    module, tables = FIGURES[name]
    made = make([recipe("mlp")], n_seeds=2, epochs=2)
    frame, figure = drawn(module, tables(made), made.spec)
    first = {kind: tmp_path / f"a.{kind}" for kind in ("svg", "png", "csv")}
    save_figure(figure, frame, **first, dpi=40)
    again = read_table(first["csv"])
    second = {kind: tmp_path / f"b.{kind}" for kind in ("svg", "png", "csv")}
    save_figure(module.draw(again, made.spec), again, **second, dpi=40)
    for kind in first:
        assert first[kind].read_bytes() == second[kind].read_bytes(), kind


@pytest.mark.parametrize("name", FIGURES)
def test_no_table_at_all_is_said_in_words(name: str, default: Made) -> None:
    module, tables = FIGURES[name]
    frame = module.tidy(*tables(default), default.spec).iloc[:0]
    figure = module.draw(frame, default.spec)
    assert not figure.axes
    assert len(figure.texts) == 1


# --- tables behind the figures ----------------------------------------------------------------------------------------


def test_dynamics_average_references_then_seeds(default: Made) -> None:
    frame = angle_dynamics.tidy(default.dynamics, default.spec)
    table = default.dynamics
    row = frame[
        (frame["recipe"] == "mlp")
        & (frame["reference"] == "others")
        & (frame["centring"] == "raw")
        & (frame["step"] == 40)
    ].iloc[0]
    others = ["cnn", "autoencoder", "denoising-autoencoder"]  # neither untrained nor shuffled labels
    by_seed = [
        np.mean(
            [
                table.loc[
                    (table["recipe"] == "mlp")
                    & (table["centring"] == "raw")
                    & (table["step"] == 40)
                    & (table["seed"] == seed)
                    & (table["reference"] == other),
                    "angle_deg",
                ].mean()
                for other in others
            ]
        )
        for seed in range(2)
    ]
    assert row["angle_deg"] == pytest.approx(np.mean(by_seed), rel=1e-12)
    assert (row["low_deg"], row["high_deg"]) == pytest.approx((min(by_seed), max(by_seed)), rel=1e-12)
    assert row["n_seeds"] == 2


def test_dynamics_of_own_end_at_zero_and_omit_single_steps(default: Made) -> None:
    frame = angle_dynamics.tidy(default.dynamics, default.spec)
    own = frame[frame["reference"] == "own"]
    last = own[own["step"] == own.groupby("recipe")["step"].transform("max")]
    assert (last["angle_deg"] == 0).all()
    assert "untrained" not in set(own["recipe"])
    assert "untrained" in set(frame["recipe"])
    assert not ((frame["recipe"] == "linear") & (frame["reference"] == "others")).any()


def test_dynamics_of_own_leave_out_what_is_zero_because_a_seed_has_ended() -> None:
    made = make(n_seeds=2, epochs=8, stop_early=True)
    frame = angle_dynamics.tidy(made.dynamics, made.spec)
    own = frame[(frame["reference"] == "own") & (frame["recipe"] == "mlp") & (frame["centring"] == "raw")]
    assert own["epoch"].iloc[-1] == 8
    assert own["epoch"].iloc[-2] < 5  # seed 0 ends at epoch 5
    assert (own["low_deg"].iloc[:-1] > 0).all()


def test_matrix_counts_each_pair_once_and_no_run_with_itself() -> None:
    made = make(n_seeds=3, epochs=1)
    swapped = made.pairs.rename(
        columns={"recipe_a": "recipe_b", "recipe_b": "recipe_a", "seed_a": "seed_b", "seed_b": "seed_a"}
    )
    frame = angle_matrix.tidy(made.pairs, made.spec)
    pd.testing.assert_frame_equal(frame, angle_matrix.tidy(swapped, made.spec))
    assert not frame.duplicated(["dataset", "centring", "recipe_a", "recipe_b"]).any()
    same = frame[frame["recipe_a"] == frame["recipe_b"]]
    assert (same["n_pairs"] == 3).all()
    assert (frame.loc[frame["recipe_a"] == "data", "n_pairs"] == 3).all()


def test_spectra_show_first_middle_and_last_kept_step(default: Made) -> None:
    frame = spectra.tidy(default.spectra, default.spec)
    mlp = frame[(frame["panel"] == "spectrum") & (frame["recipe"] == "mlp")]
    assert mlp.groupby("which")["epoch"].first().to_dict() == {"first": 0.0, "middle": 2.0, "last": 4.0}
    assert set(mlp["layer"]) == {"hidden3"}
    table = default.spectra
    shares = table[
        (table["recipe"] == "mlp") & (table["step"] == 160) & (table["centring"] == "raw") & (table["component"] == 2)
    ]["variance_share"]
    row = mlp[(mlp["which"] == "last") & (mlp["centring"] == "raw") & (mlp["component"] == 2)].iloc[0]
    assert row["variance_share"] == pytest.approx(np.exp(np.log(shares).mean()), rel=1e-12)


def test_layers_fit_log_c_over_reliable_layers_only(default: Made) -> None:
    table = default.layers.copy()
    linear = table["recipe"] == "linear"
    table.loc[linear, "compression"] = 3.0 * 0.0613 ** table.loc[linear, "depth"]
    table.loc[linear, "reliable"] = table.loc[linear, "depth"] < 5
    table.loc[linear & (table["depth"] == 5), "compression"] = 1e-3  # noise: flagged, so it must not tilt the line
    frame = layers.tidy(table, default.runs, default.spec)
    fit = frame[(frame["recipe"] == "linear") & (frame["measure"] == "compression")]
    assert np.exp(fit["slope"].iloc[0]) == pytest.approx(0.0613, rel=1e-10)
    assert np.exp(fit["intercept"].iloc[0]) == pytest.approx(3.0, rel=1e-10)
    assert fit["r_squared"].iloc[0] == pytest.approx(1.0)
    assert fit.loc[fit["depth"] == 5, "reliable"].tolist() == [False]


def test_layers_fit_nothing_where_a_run_did_not_converge(default: Made) -> None:
    runs = default.runs.copy()
    runs["converged"] = runs["converged"].astype(object)
    runs.loc[(runs["recipe"] == "linear") & (runs["seed"] == 1), "converged"] = False
    frame = layers.tidy(default.layers, runs, default.spec)
    linear = frame[frame["recipe"] == "linear"]
    assert linear["slope"].isna().all()
    assert set(linear["n_not_converged"]) == {1}
    figure = layers.draw(frame, default.spec)
    assert_sound(figure)
    labels = [text.get_text() for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()]
    assert "linear\ndid not converge (1 seed)" in labels


def test_line_through_known_points() -> None:
    slope, intercept, r_squared = layers.fit_line(np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 1.0, 4.0, 3.0]))
    assert (slope, intercept, r_squared) == pytest.approx((0.6, 1.0, 0.36))
    assert all(math.isnan(number) for number in layers.fit_line(np.array([1.0, 2.0]), np.array([2.0, 1.0])))


def test_training_splits_tasks_over_panels(default: Made) -> None:
    frame = training.tidy(default.history, default.spec)
    panels = frame.groupby("recipe")["panel"].agg(set).to_dict()
    assert panels["mlp"] == {"classification loss", "accuracy"}
    assert panels["autoencoder"] == {"reconstruction loss", "relative loss"}
    assert frame.loc[frame["panel"] == "accuracy", "value"].max() > 1  # percent


def test_training_without_any_network_says_so(default: Made) -> None:
    frame = training.tidy(pd.DataFrame(), default.spec)
    assert list(frame.columns) == list(training.tidy(default.history, default.spec).columns)
    assert training.draw(frame, default.spec).texts[0].get_text().startswith("No loss was recorded")


def test_training_tells_cross_entropy_from_squared_error(default: Made) -> None:
    losses = {"mlp": "mse", "autoencoder": "mse", "denoising-autoencoder": "mse", "untrained": None}
    recipes = [{**entry, "loss": losses.get(entry["name"], "cross-entropy")} for entry in default.spec["recipes"]]
    frame, figure = drawn(training, (default.history,), {"recipes": recipes})
    assert set(frame.loc[frame["panel"] == "squared-error loss", "recipe"]) == {"mlp"}
    assert {"cnn", "untrained"} <= set(frame.loc[frame["panel"] == "cross-entropy loss", "recipe"])
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert "Cross-entropy" in labels and "Squared error to one-hot labels" in labels and "Loss" not in labels
    assert_sound(figure)


# --- panels -----------------------------------------------------------------------------------------------------------


def legend_of(figure: Figure) -> dict[str, Line2D]:
    handles = [
        (text, handle) for box in figure.legends for text, handle in zip(box.texts, box.legend_handles, strict=True)
    ]
    return {text.get_text(): handle for text, handle in handles}


def test_layers_without_any_compression_say_so() -> None:
    """One sample a class has no scatter within classes: every C is 0."""
    made = make([recipe("mlp")], n_seeds=2, epochs=1)
    _, figure = drawn(layers, (made.layers.assign(compression=0.0), made.runs), made.spec)
    assert "no value: C is zero\nor undefined in every layer" in [text.get_text() for text in figure.axes[0].texts]
    assert figure.axes[1].lines


def test_the_input_has_a_shape_of_its_own(default: Made) -> None:
    assert layers.INPUT_MARKER not in MARKERS


@pytest.mark.parametrize(("least", "most"), [(1.95, 2.31), (2.0, 2.0), (2.1, 6.9), (0.04, 0.5), (1e-9, 3.0)])
def test_axes_of_positive_values_fit_them(least: float, most: float) -> None:
    axes = new_figure(2).subplots()
    log_axis(axes, least, most)
    low, high = axes.get_ylim()
    assert low <= least and high >= most
    assert axes.get_yscale() == ("linear" if most < 3 * least else "log")
    assert len([tick for tick in axes.get_yticks() if low <= tick <= high]) >= 2
    shown = (most - least) / (high - low) if most < 3 * least else np.log(most / least) / np.log(high / low)
    assert most == least or shown > 0.85


def test_angles_of_a_column_share_an_axis_that_fits_them(default: Made) -> None:
    table = default.dynamics[default.dynamics["dataset"] == "digits"].copy()
    raw = table["centring"] == "raw"
    table.loc[raw, ["angle_deg", "null_mean_deg"]] *= 20 / table.loc[raw, ["angle_deg", "null_mean_deg"]].max().max()
    _, figure = drawn(angle_dynamics, (table,), default.spec)
    assert {axes.get_ylim() for axes in figure.axes[::2]} == {(0, 30)}
    assert {axes.get_ylim() for axes in figure.axes[1::2]} == {(0, 90)}
    assert {axes.get_title(loc="right") for axes in figure.axes} == {"raw, 0–30°", "centred, 0–90°"}
    assert all(label.label1.get_visible() for label in figure.axes[1].yaxis.get_major_ticks())


@pytest.mark.parametrize("together", [True, False])
def test_dynamics_of_own_reach_zero_where_all_seeds_end(together: bool) -> None:
    made = make([recipe("mlp")], n_seeds=2, epochs=8, stop_early=not together)
    _, figure = drawn(angle_dynamics, (made.dynamics,), made.spec)
    curve = next(line for line in figure.axes[0].lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 2)
    assert (curve.get_ydata()[-1] == 0) == together


def test_curves_that_end_together_share_a_ring(default: Made) -> None:
    axes = new_figure(2).subplots()
    looks = list(recipe_looks(default.spec["recipes"]).values())[:3]
    draw_ends(axes, 1.0, 0.0, looks)
    arcs = [line for line in axes.lines if line.get_color() != "white"]
    assert [arc.get_color() for arc in arcs] == [look.colour for look in looks]
    extents = [arc.get_marker().vertices for arc in arcs]
    assert all(np.abs(extent).max() == pytest.approx(1) for extent in extents)
    _, figure = drawn(angle_dynamics, (default.dynamics,), default.spec)
    trained = ("mlp", "cnn", "autoencoder", "denoising-autoencoder", "shuffled-labels")
    colours = {line.get_color() for line in figure.axes[0].lines if isinstance(line.get_marker(), Outline)}
    assert colours == {recipe_looks(default.spec["recipes"])[name].colour for name in trained}


@pytest.mark.parametrize("single", [True, False])
def test_the_legend_shows_what_is_drawn(single: bool, default: Made) -> None:
    dynamics, history = default.dynamics, default.history
    if single:
        dynamics, history = dynamics[dynamics["step"] == 10], history[history["step"] == 10]
    _, figure = drawn(angle_dynamics, (dynamics,), default.spec)
    legend = legend_of(figure)
    assert (legend["mlp"].get_linestyle(), legend["mlp"].get_marker()) == (("None", "o") if single else ("-", ""))
    null = legend["permutation null, mean"]
    assert (null.get_linestyle(), null.get_marker()) == (("None", "_") if single else (":", "None"))
    assert ("the same, one step" in legend) == (not single)  # of the untrained network
    _, figure = drawn(training, (history,), default.spec)
    assert legend_of(figure)["test"].get_linestyle() == ("None" if single else "-")


def test_spectra_list_the_steps_that_there_are_and_no_rounding_errors(default: Made) -> None:
    table = default.spectra[default.spectra["step"].isin([0, 160])].copy()
    tiny = (table["recipe"] == "mlp") & (table["component"] > 8)
    table.loc[tiny, "variance_share"] = 1e-9
    frame, figure = drawn(spectra, (table,), default.spec)
    names = [text.get_text() for text in figure.legends[0].texts]
    assert "last kept step" in names and "middle kept step" not in names
    curves = [line for line in figure.axes[0].lines if line.get_linestyle() == "-"]
    assert curves
    assert all(line.get_xdata().max() == 8 for line in curves)
    assert figure.axes[0].get_ylim()[0] < min(line.get_ydata().min() for line in curves)
    assert (frame["variance_share"] < 1e-8).any()  # the table keeps them


def test_correlations_of_either_sign_do_not_cancel(default: Made) -> None:
    table = default.pairs.copy()
    pair = (table["recipe_a"] == "mlp") & (table["recipe_b"] == "cnn") & (table["centring"] == "raw")
    table.loc[pair, "correlation"] = [0.8, -0.6, -0.7, 0.9] * (pair.sum() // 4)
    other = (table["recipe_a"] == "mlp") & (table["recipe_b"] == "mlp") & (table["centring"] == "raw")
    table.loc[other, "correlation"] = -0.5
    frame, figure = drawn(angle_matrix, (table,), default.spec)
    row = frame[(frame["recipe_a"] == "mlp") & (frame["recipe_b"] == "cnn") & (frame["centring"] == "raw")].iloc[0]
    assert row["correlation"] == pytest.approx(0.1)
    assert (row["correlation_low"], row["correlation_high"]) == (-0.7, 0.9)
    assert row["correlation_size"] == pytest.approx(0.75)
    axes = next(axes for axes in figure.axes if "correlation" in axes.get_title())
    assert axes.images[0].get_clim() == (0, 1)
    written = [text.get_text() for text in axes.texts]
    assert written.count("±.75") == 2
    assert "−.50" in written


def test_the_matrix_counts_small_p_values(default: Made) -> None:
    table = default.pairs.copy()
    pair = (table["recipe_a"] == "mlp") & (table["recipe_b"] == "cnn") & (table["centring"] == "raw")
    table.loc[table.index[pair][:3], "p_value"] = [0.05, 0.2, np.nan]
    frame = angle_matrix.tidy(table, default.spec)
    row = frame[(frame["recipe_a"] == "mlp") & (frame["recipe_b"] == "cnn") & (frame["centring"] == "raw")].iloc[0]
    assert (row["n_pairs"], row["n_tested"], row["n_below_05"]) == (4, 3, 1)


# --- sums over seeds --------------------------------------------------------------------------------------------------


def test_a_seed_that_stopped_keeps_its_last_value() -> None:
    frame = pd.DataFrame(
        {
            "recipe": "r",
            "seed": [0, 0, 0, 1, 1, 1, 1, 1],
            "step": [0, 10, 15, 0, 10, 20, 30, 40],
            "epoch": [0.0, 1.0, 1.5, 0.0, 1.0, 2.0, 3.0, 4.0],
            "value": [8.0, 4.0, 2.0, 6.0, np.nan, 3.0, np.inf, 1.0],
        }
    )
    sums = over_seeds(frame, ["recipe"], "value")
    assert sums["step"].tolist() == [0, 10, 20, 30, 40]  # at 15 seed 1 has no row
    assert sums["mean"].tolist() == [7.0, 4.0, 2.5, 2.0, 1.5]
    assert sums["n_seeds"].tolist() == [2, 1, 2, 1, 2]
    assert sums["low"].tolist() == [6.0, 4.0, 2.0, 2.0, 1.0]


def test_recipes_with_other_seeds_do_not_disturb_each_other() -> None:
    frame = pd.DataFrame(
        {"recipe": ["a", "b", "b"], "seed": [7, 1, 2], "step": 0, "epoch": 0.0, "value": [1.0, 2.0, 8.0]}
    )
    assert over_seeds(frame, ["recipe"], "value")["mean"].tolist() == [1.0, 5.0]
    assert over_seeds(frame, ["recipe"], "value", geometric_mean)["mean"].tolist() == pytest.approx([1.0, 4.0])


# --- style ------------------------------------------------------------------------------------------------------------


def test_a_recipe_looks_the_same_wherever_it_is_and_unlike_the_others() -> None:
    many = [recipe(f"r{i}") for i in range(25)]
    looks = recipe_looks(many)
    assert len(set(looks.values())) == 25
    assert recipe_looks(many[:3])["r2"] == looks["r2"]


def _lab(linear: np.ndarray) -> np.ndarray:
    """CIE 1976 L*a*b* of linear sRGB, white D65."""
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    ratio = np.array(to_xyz) @ linear / np.array([0.95047, 1.0, 1.08883])
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize(
    "sight",
    [
        np.eye(3),
        # Machado, Oliveira and Fernandes 2009, severity 1: deuteranopia, protanopia
        np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
        np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    ],
    ids=["normal", "deuteranopia", "protanopia"],
)
def test_colours_stay_apart(sight: np.ndarray) -> None:
    srgb = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in PALETTE])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    labs = [_lab(np.clip(sight @ colour, 0, 1)) for colour in linear]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(labs, 2)) > 14


def test_long_names_are_wrapped_at_hyphens_or_shortened_in_the_middle() -> None:
    assert wrap_name("denoising-autoencoder", 16) == "denoising-\nautoencoder"
    assert wrap_name("x" * 20, 16) == "x" * 16 + "\n" + "x" * 4
    assert elide("abcdefghij", 5) == "ab…ij"
    assert elide("abc", 5) == "abc"


# --- reading ----------------------------------------------------------------------------------------------------------


def test_names_stay_text_and_flags_may_be_missing(tmp_path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("recipe,seed,angle_deg,converged\n007,0,1.5,True\nnull,1,,\n1e5,2,nan,False\n")
    frame = read_tables([str(path), str(path)])
    assert frame["recipe"].tolist() == ["007", "null", "1e5"] * 2
    assert frame["angle_deg"].isna().tolist() == [False, True, True] * 2
    assert is_false(frame["converged"]).tolist() == [False, False, True] * 2
    assert len(read_tables(str(path))) == 3


@pytest.mark.parametrize("n_points, is_cloud", [(300, False), (8000, True)], ids=["few points", "many points"])
def test_only_clouds_of_points_are_pictures_inside_an_svg(n_points: int, is_cloud: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    figure = new_figure(3.0)
    left, right = figure.subplots(1, 2)
    for axes, n in ((left, n_points), (right, 30)):
        axes.plot(rng.normal(size=n), rng.normal(size=n), "o", markersize=3)
        axes.plot([0.0, 1.0], [0.0, 1.0])
        axes.set_title("A title")
    paths = {kind: str(tmp_path / f"cloud.{kind}") for kind in ("svg", "png", "csv")}
    save_figure(figure, pd.DataFrame({"x": [1.0]}), **paths)
    text = (tmp_path / "cloud.svg").read_text()
    assert text.count("<image ") == int(is_cloud)
    assert [line.get_rasterized() for line in (*left.lines, *right.lines)] == [is_cloud, False, False, False]
    # the points of the other panel and all text stay outlines
    assert 30 < text.count("<use ") < (500 if is_cloud else n_points + 500)
    assert len(text) < 300_000


def test_the_last_bit_of_a_layout_is_in_no_file(tmp_path):
    contents = []
    for nudge in (0.0, 1e-16, -1e-16):
        figure = Figure(figsize=(4, 3))
        for left in (0.123456789123, 0.623456789123):
            axes = figure.add_axes((left + nudge, 0.2, 0.3 + 2 * nudge, 0.7))
            axes.plot([0, 1], [1, 2])
        paths = {kind: str(tmp_path / f"figure.{kind}") for kind in ("svg", "png", "csv")}
        save_figure(figure, pd.DataFrame({"x": [1]}), **paths)
        contents.append([Path(path).read_bytes() for path in paths.values()])
    assert contents[0] == contents[1] == contents[2]
