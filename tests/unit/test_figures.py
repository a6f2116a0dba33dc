"""Figures: what their tables hold, that they survive any study, and that nothing in them is cut off or empty."""

import itertools
import math
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from synthetic_tables import DEFAULT, Made, make, recipe

from featurespace.figures import angle_dynamics, angle_matrix, layers, spectra, training
from featurespace.figures.series import geometric_mean, over_seeds
from featurespace.style import PALETTE, elide, recipe_looks, save_figure, wrap_name
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
