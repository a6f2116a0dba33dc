"""Figures of angles and their controls: numbers by hand, and that they survive any study."""

import io
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from docutils.core import publish_doctree
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats
from synthetic_tables import ANGLE_RECIPES, Angles, make_angles

from featurespace.comparison import RELATION_COLUMNS
from featurespace.figures import (
    angle_matrix,
    early_angles,
    mean_control,
    panels,
    permutation_null,
    reference_angles,
    shuffled_labels,
    training_effect,
)
from featurespace.files import write_table
from featurespace.style import MARKERS, RC, recipe_looks
from featurespace.tables import read_table

LONG = "a-very-long-name-for-a-recipe-of-48-characters-x"
TASKS = ("classify", "reconstruct", "simclr", "shuffled-labels", "noise", "untrained")
BY_NAME = {entry["name"]: entry for entry in ANGLE_RECIPES}


def some(*names: str) -> list[dict[str, Any]]:
    return [BY_NAME[name] for name in names]


STUDIES: dict[str, dict[str, Any]] = {
    "every family": {
        "recipes": some(
            *("mlp", "cnn", "autoencoder", "simclr", "mlp-shuffled-labels", "untrained-cnn"),
            *("gaussian-noise", "rectified-noise"),
        ),
        "n_seeds": 2,
        "epochs": 4,
    },
    "one recipe, seed and step": {"recipes": some("mlp"), "n_seeds": 1, "epochs": 0},
    "one recipe, two seeds": {"recipes": some("mlp"), "n_seeds": 2, "epochs": 3},
    "long names, two data sets": {
        "recipes": [
            {
                "name": f"{i}{LONG}"[:48],
                "dataset": "fashion" if i < 6 else "digits",
                "task": TASKS[i % 6],
                "kind": "cnn",
            }
            for i in range(8)
        ],
        "n_seeds": 1,
        "epochs": 40,
    },
    "untrained only": {"recipes": some("untrained-cnn"), "n_seeds": 2, "epochs": 2},
}
FIGURES = {
    "angle_matrix": (angle_matrix, ("pairs",)),
    "permutation_null": (permutation_null, ("pairs",)),
    "training_effect": (training_effect, ("pairs",)),
    "shuffled_labels": (shuffled_labels, ("pairs",)),
    "reference_angles": (reference_angles, ("dynamics",)),
    "early_angles": (early_angles, ("dynamics",)),
    "mean_control": (mean_control, ("entries", "dynamics")),
}


@pytest.fixture(scope="module")
def usual() -> Angles:
    return make_angles(**STUDIES["every family"])


@pytest.fixture(scope="module", params=list(STUDIES)[1:])
def made(request: pytest.FixtureRequest) -> Angles:
    return make_angles(**STUDIES[request.param])


def drawn(name: str, made: Angles, **replaced: pd.DataFrame) -> tuple[pd.DataFrame, Figure]:
    module, tables = FIGURES[name]
    frame = module.tidy(*(replaced.get(table, getattr(made, table)) for table in tables), made.spec)
    return frame, module.draw(frame, made.spec)


def assert_sound(figure: Figure) -> None:
    """Nothing is cut off at the figure's edge, no panel is in another's place, and every panel shows something."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    if figure.axes:
        figure.get_layout_engine().execute(figure)
    boxes = {f"text {text.get_text()!r}": text.get_window_extent(renderer) for text in figure.texts}
    boxes |= {f"panel {i}": axes.get_tightbbox(renderer) for i, axes in enumerate(figure.axes) if axes.axison}
    boxes |= {f"legend {i}": legend.get_window_extent(renderer) for i, legend in enumerate(figure.legends)}
    for name, box in boxes.items():
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
        assert inside, f"cut off: {name} {box}"
    bodies = [axes.get_window_extent(renderer) for axes in figure.axes if axes.axison]
    for i, one in enumerate(bodies):
        assert one.width > 30 and one.height > 4, f"panel {i} has no room: {one}"
        assert not any(one.overlaps(other) for other in bodies[i + 1 :]), f"panel {i} lies over another"
    for axes in figure.axes:
        if axes.axison and axes.get_label() != "<colorbar>":
            points = [line for line in axes.lines if np.isfinite(line.get_xydata()).any()]
            assert points or axes.images or axes.patches, f"empty panel: {axes.get_title(loc='left')}"


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_survives_every_study(name: str, made: Angles) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, figure = drawn(name, made)
        assert_sound(figure)


@pytest.mark.parametrize("name", FIGURES)
def test_missing_numbers_leave_gaps_and_no_warning(name: str, usual: Angles) -> None:
    holed = {}
    for table in FIGURES[name][1]:
        frame = getattr(usual, table).copy()
        for column in ("angle_deg", "null_mean_deg", "correlation", "angle_to_ones_deg", "angle_to_mean_deg"):
            if column in frame:
                frame.loc[frame.index[::3], column] = np.nan
                frame.loc[frame["recipe" if "recipe" in frame else "recipe_b"] == "cnn", column] = np.nan
        holed[table] = frame
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, figure = drawn(name, usual, **holed)
        assert_sound(figure)


@pytest.mark.parametrize("name", FIGURES)
def test_vectors_that_none_of_the_networks_has_leave_a_figure(name: str, usual: Angles) -> None:
    # as centred ones are missing where the sample set is one sample
    numbers = [*RELATION_COLUMNS[:-2], "angle_to_mean_deg", "principal_angle_max_deg"]
    holed = {}
    for table in FIGURES[name][1]:
        frame = getattr(usual, table).copy()
        of_centred = frame["centring"] == "centred"
        frame.loc[of_centred, [column for column in numbers if column in frame]] = np.nan
        holed[table] = frame
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, figure = drawn(name, usual, **holed)
        FigureCanvasAgg(figure).draw()


@pytest.mark.parametrize("name", FIGURES)
def test_no_rows_are_said_in_words(name: str, usual: Angles) -> None:
    module, tables = FIGURES[name]
    frame = module.tidy(*(getattr(usual, table).iloc[:0] for table in tables), usual.spec)
    whole = module.tidy(*(getattr(usual, table) for table in tables), usual.spec)
    assert frame.empty and list(frame) == list(whole)
    figure = module.draw(frame, usual.spec)
    assert not figure.axes and len(figure.texts) == 1


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_its_table_and_the_same_each_time(name: str, tmp_path) -> None:
    """Drawn anew from the CSV, the figures agree to the byte."""
    made = make_angles(some("mlp", "mlp-shuffled-labels"), n_seeds=2, epochs=2, n_samples=40)
    module: ModuleType = FIGURES[name][0]
    frame, figure = drawn(name, made)
    assert len(frame)
    write_table(tmp_path / "a.csv", frame)
    again = module.draw(read_table(tmp_path / "a.csv"), made.spec)
    drawings = []
    for each in (figure, again):
        each.set_layout_engine("none")
        drawings.append(io.BytesIO())
        with rc_context(RC):
            each.savefig(drawings[-1], format="svg", metadata={"Date": None})
    assert drawings[0].getvalue() == drawings[1].getvalue()


@pytest.mark.parametrize("name", FIGURES)
def test_captions_are_sound(name: str, request: pytest.FixtureRequest) -> None:
    text = (request.config.rootpath / "report" / f"{name}.rst").read_text()
    tree = publish_doctree(text, settings_overrides={"halt_level": 2, "report_level": 2, "warning_stream": False})
    assert tree.astext()
    assert not any(line != line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize("name", ["angle_matrix", "permutation_null", "shuffled_labels"])
def test_first_steps_and_populations_stay_out(name: str, usual: Angles) -> None:
    module = FIGURES[name][0]
    frame = module.tidy(usual.pairs, usual.spec)
    member = usual.pairs[usual.pairs["recipe_a"] == "mlp"].assign(recipe_a="width-7", angle_deg=1.0)
    more = pd.concat([usual.pairs, member], ignore_index=True)
    first = more["stage"] == "first"
    more.loc[first, ["angle_deg", "null_mean_deg", "correlation", "cosine"]] = 0.5
    pd.testing.assert_frame_equal(module.tidy(more, usual.spec), frame)


# --- panels -----------------------------------------------------------------------------------------------------------


def test_interval_is_students() -> None:
    values = np.array([1.0, 4.0, 2.5, 3.0, np.nan])
    kept = values[:4]
    low, high = stats.t.interval(0.95, 3, loc=kept.mean(), scale=stats.sem(kept))
    assert panels.t_interval(values) == pytest.approx((kept.mean(), low, high), rel=1e-10)
    assert panels.t_interval(np.array([2.0]))[0] == 2.0
    assert np.isnan(panels.t_interval(np.array([2.0]))[1:]).all()
    assert np.isnan(panels.t_interval(np.array([]))).all()


@pytest.mark.parametrize(("most", "limit"), [(0.3, 1), (9.9, 10), (30.0, 30), (30.1, 45), (89.0, 90), (np.nan, 90)])
def test_axes_of_angles_end_above_every_angle(most: float, limit: int) -> None:
    assert panels.angle_limit(pd.Series([0.1, most]) if np.isfinite(most) else pd.Series([np.nan])) == limit


def test_pairs_in_both_orders_hold_no_run_with_itself() -> None:
    pairs = pd.DataFrame(
        [("a", 0, "a", 0), ("a", 0, "a", 1), ("a", 0, "b", 0), ("b", 0, "c", 0)],
        columns=["recipe_a", "seed_a", "recipe_b", "seed_b"],
    ).assign(dataset="d", centring="raw", angle_deg=[0.0, 1.0, 2.0, 3.0])
    rows = panels.both_ways(pairs, ["a", "b"])[["recipe_a", "seed_a", "recipe_b", "seed_b", "angle_deg"]]
    expected = {("a", 0, "a", 1, 1.0), ("a", 1, "a", 0, 1.0), ("a", 0, "b", 0, 2.0), ("b", 0, "a", 0, 2.0)}
    assert set(rows.itertuples(index=False, name=None)) == expected
    assert len(rows) == 4


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_the_matrix_averages_cosines_over_pairs_of_last_steps(usual: Angles) -> None:
    frame, figure = drawn("angle_matrix", usual)
    table = usual.pairs
    pair = (table["recipe_a"] == "mlp") & (table["recipe_b"] == "cnn") & (table["centring"] == "raw")
    row = frame[(frame["recipe_a"] == "mlp") & (frame["recipe_b"] == "cnn") & (frame["centring"] == "raw")].iloc[0]
    assert row["n_pairs"] == 4
    for column in ("cosine", "angle_deg", "correlation", "null_mean_deg"):
        assert row[column] == pytest.approx(table.loc[pair & (table["stage"] == "last"), column].mean(), rel=1e-12)
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert titles == ["cosine, raw", "angle, raw", "angle, centred", "correlation of entries"]
    cosines = next(axes.images[0] for axes in figure.axes if axes.get_title() == "cosine, raw").get_array()
    assert cosines[1, 2] == cosines[2, 1] == pytest.approx(row["cosine"])


@pytest.mark.parametrize("n", [5, 11])
def test_the_matrices_stand_abreast_or_two_by_two_with_numbers(n: int) -> None:
    recipes = [{**BY_NAME["mlp"], "name": f"net-{i}"} for i in range(n)]
    made = make_angles(recipes, n_seeds=1, epochs=1, n_samples=40)
    _, figure = drawn("angle_matrix", made)
    figure.get_layout_engine().execute(figure)
    heat_maps = [axes for axes in figure.axes if axes.images and axes.get_title()]
    rows = {round(axes.get_window_extent().y1) for axes in heat_maps}
    assert len(rows) == (1 if n + 1 <= angle_matrix.ABREAST else 2)
    sizes = [text.get_size() for axes in heat_maps for text in axes.texts]
    renderer = FigureCanvasAgg(figure).get_renderer()
    assert sizes and min(sizes) > 2.9
    for axes in heat_maps:
        cell = axes.get_window_extent(renderer).width / (n + 1)
        assert max(text.get_window_extent(renderer).width for text in axes.texts) < 1.1 * cell


@pytest.mark.parametrize(
    ("number", "digits", "text"),
    [
        (0.984, 2, ".98"),
        (-0.984, 2, "−.98"),
        (0.996, 2, "1"),
        (-1.0, 2, "−1"),
        (-0.001, 2, ".00"),
        (23.46, 1, "23.5"),
        (np.nan, 1, ""),
    ],
)
def test_numbers_in_cells(number: float, digits: int, text: str) -> None:
    assert angle_matrix._number(number, digits) == text


def test_references_average_over_their_seeds_then_over_the_runs(usual: Angles) -> None:
    frame, figure = drawn("reference_angles", usual)
    table = usual.dynamics
    at = (table["recipe"] == "cnn") & (table["step"] == 40) & (table["centring"] == "raw")
    by_seed = [
        table.loc[at & (table["reference"] == "autoencoder") & (table["seed"] == seed), "angle_deg"].mean()
        for seed in (0, 1)
    ]
    of_step = (frame["step"] == 40) & (frame["centring"] == "raw") & (frame["reference"] == "autoencoder")
    row = frame[of_step & (frame["recipe"] == "cnn")].iloc[0]
    assert (row["panel"], row["which"], row["n_seeds"]) == ("supervised", "network", 2)
    assert row["angle_deg"] == pytest.approx(np.mean(by_seed), rel=1e-12)
    assert row["sd_deg"] == pytest.approx(np.std(by_seed, ddof=1), rel=1e-12)
    assert list(frame["reference"].unique()) == ["mlp", "autoencoder", "simclr"]
    assert len(figure.axes) == 2 * 3 * 3


def test_a_reference_is_at_zero_from_itself_and_apart_from_its_other_seeds(usual: Angles) -> None:
    frame = reference_angles.tidy(usual.dynamics, usual.spec)
    own = frame[frame["which"] == "own"]
    assert set(own["recipe"]) == {"mlp", "autoencoder", "simclr"}
    assert (own["recipe"] == own["reference"]).all() and (own["step"] == 160).all()
    assert (own["angle_deg"] == 0).all()
    plateau = frame[(frame["which"] == "network") & (frame["recipe"] == frame["reference"]) & (frame["step"] == 160)]
    assert len(plateau) == len(own) and (plateau["angle_deg"] > 0.5).all()


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        (None, ["mlp", "autoencoder", "simclr"]),
        (["simclr", "cnn"], ["simclr", "cnn"]),
        (["untrained-cnn", "cnn"], ["cnn"]),
        (["simclr", "cnn", "mlp", "autoencoder"], ["cnn", "autoencoder", "simclr"]),
    ],
)
def test_references_are_those_asked_for_or_one_of_each_family(asked, chosen, usual: Angles) -> None:
    names = {entry["name"] for entry in usual.spec["recipes"]}
    spec = {**usual.spec, "references": asked}
    assert reference_angles.choose_references(spec, "fashion", names) == chosen


def test_early_angles_are_those_of_two_epochs_in_iterations(usual: Angles) -> None:
    frame, figure = drawn("early_angles", usual)
    assert frame["epoch"].max() == 2 and frame["step"].min() == 0
    assert set(frame["steps_per_epoch"].round(9)) == {40.0}
    table = usual.dynamics
    at = (table["recipe"] == "mlp") & (table["step"] == 40) & (table["centring"] == "centred")
    by_seed = [
        np.mean(
            [
                table.loc[at & (table["seed"] == seed) & (table["reference"] == other), "angle_deg"].mean()
                for other in ("cnn", "autoencoder", "simclr")  # neither its own nor a control
            ]
        )
        for seed in (0, 1)
    ]
    here = (frame["recipe"] == "mlp") & (frame["step"] == 40) & (frame["centring"] == "centred")
    row = frame[here & (frame["reference"] == "others")].iloc[0]
    assert row["angle_deg"] == pytest.approx(np.mean(by_seed), rel=1e-12)
    assert (row["low_deg"], row["high_deg"]) == pytest.approx((min(by_seed), max(by_seed)), rel=1e-12)
    assert "untrained-cnn" not in set(frame["recipe"])
    ends = [line for line in figure.axes[0].lines if list(line.get_xdata()) == [40, 40]]
    assert len(ends) == 1
    low, high = figure.axes[0].get_xlim()
    assert low < 0 < 80 < high and figure.axes[0].get_xscale() == "symlog"


def test_early_angles_end_where_a_run_does() -> None:
    made = make_angles(some("mlp"), n_seeds=2, epochs=1)
    frame = early_angles.tidy(made.dynamics, made.spec)
    assert frame["angle_deg"].gt(0).all() and frame["epoch"].max() < 1


@pytest.mark.parametrize("opposite", [False, True])
def test_the_share_along_ones_is_that_of_the_vectors(opposite: bool) -> None:
    """Against the vectors themselves, means of one sign or of two."""
    rng = np.random.default_rng(3)
    p = rng.normal(size=50) + 1.0
    q = p + 0.4 * rng.normal(size=50) - (1.15 * p.mean() if opposite else 0.3)
    p, q = p / np.linalg.norm(p), q / np.linalg.norm(q)
    q = q * np.sign(p @ q)
    assert (p.mean() * q.mean() < 0) == opposite
    change = p - q
    ones = np.full(50, 50**-0.5)
    row = pd.DataFrame(
        {
            "angle_deg": [np.degrees(np.arccos(p @ q)), 0.0],
            "correlation": [np.corrcoef(p, q)[0, 1], 1.0],
            "angle_to_ones_deg": np.degrees(np.arccos(abs(p @ ones))),
            "reference_angle_to_ones_deg": [np.degrees(np.arccos(abs(v @ ones))) for v in (q, p)],
        }
    )
    share = mean_control.mean_share(row)
    assert share[0] == pytest.approx((change @ ones) ** 2 / (change @ change), rel=1e-9)
    assert np.isnan(share[1])


def test_the_mean_control_takes_the_ones_vector_out(usual: Angles) -> None:
    frame = mean_control.tidy(usual.entries, usual.dynamics, usual.spec)
    table = usual.dynamics
    at = (
        (table["recipe"] == "cnn")
        & (table["step"] == 20)
        & (table["centring"] == "raw")
        & (table["reference"] == "own")
    )
    here = frame[(frame["recipe"] == "cnn") & (frame["step"] == 20)].set_index("panel")
    removed = np.degrees(np.arccos(np.abs(table.loc[at, "correlation"])))
    assert here.loc["own without ones", "angle_deg"] == pytest.approx(removed.mean(), rel=1e-12)
    assert here.loc["own", "angle_deg"] == pytest.approx(table.loc[at, "angle_deg"].mean(), rel=1e-12)
    assert here.loc["own", "mean_share"] == pytest.approx(mean_control.mean_share(table[at]).mean(), rel=1e-12)
    entries = usual.entries
    of = (entries["recipe"] == "cnn") & (entries["step"] == 20)
    ones = entries.loc[of & (entries["centring"] == "raw"), "angle_to_ones_deg"]
    assert here.loc["ones", "angle_deg"] == pytest.approx(ones.mean(), rel=1e-12)
    centred = entries.loc[of & (entries["centring"] == "centred"), "angle_to_mean_deg"]
    assert here.loc["mean centred", "angle_deg"] == pytest.approx(centred.mean(), rel=1e-12)
    assert (frame.loc[frame["panel"].str.startswith("own"), "angle_deg"] > 0).all()
    assert "data" in set(frame.loc[frame["panel"] == "ones", "recipe"])


def test_noise_beyond_the_axis_is_written_there(usual: Angles) -> None:
    frame, figure = drawn("mean_control", usual)
    axes = next(axes for axes in figure.axes if axes.get_title(loc="left") == "to the ones vector")
    assert axes.get_ylim()[1] == 30
    angle = frame.loc[(frame["recipe"] == "gaussian-noise") & (frame["panel"] == "ones"), "angle_deg"].iloc[0]
    assert [text.get_text() for text in axes.texts if text.get_text().startswith("beyond")] == [
        f"beyond the axis: gaussian-noise: {angle:.0f}°"
    ]


def test_the_null_is_held_against_its_formula_pair_by_pair(usual: Angles) -> None:
    table = usual.pairs.copy()
    odd = (table["stage"] == "last") & (table["centring"] == "raw")
    odd &= (table["recipe_a"] == "mlp") & (table["recipe_b"] == "autoencoder") & (table["seed_a"] == 1)
    table.loc[odd, "null_mean_deg"] = table.loc[odd, "null_formula_deg"] - 0.37
    frame, figure = drawn("permutation_null", usual, pairs=table)
    last = table[table["stage"] == "last"]
    assert len(frame) == len(last)
    pd.testing.assert_series_equal(
        frame["deviation_deg"], frame["null_mean_deg"] - frame["null_formula_deg"], check_names=False
    )
    assert figure.axes[1].get_title(loc="right") == "greatest 0.37°"
    assert figure.axes[1].get_ylim()[0] < -0.37
    bars = sum(
        patch.get_height() for axes in figure.axes[2::2] for patch in axes.patches[: len(permutation_null.BINS) - 1]
    )
    assert bars == (frame["centring"] == "raw").sum()


@pytest.mark.parametrize(
    ("pair", "kind"),
    [
        (("mlp", "cnn"), "trained – trained"),
        (("mlp", "mlp-shuffled-labels"), "with shuffled labels"),
        (("mlp-shuffled-labels", "untrained-cnn"), "with untrained"),
        (("untrained-cnn", "gaussian-noise"), "with noise"),
        (("data", "gaussian-noise"), "with the data"),
    ],
    ids="/".join,
)
def test_a_pair_has_the_last_of_its_kinds(pair: tuple[str, str], kind: str, usual: Angles) -> None:
    frame = permutation_null.tidy(usual.pairs, usual.spec)
    assert set(frame.loc[(frame["recipe_a"] == pair[0]) & (frame["recipe_b"] == pair[1]), "which"]) == {kind}


def _effects(usual: Angles, a: str, b: str) -> pd.DataFrame:
    """Every (seed_a, seed_b) with its last minus its first angle, centred."""
    table = usual.pairs[(usual.pairs["centring"] == "centred")]
    table = table[(table["recipe_a"] == a) & (table["recipe_b"] == b)]
    wide = table.pivot(index=["seed_a", "seed_b"], columns="stage", values="angle_deg")
    return (wide["last"] - wide["first"]).unstack("seed_b")


def test_training_effects_are_differences_for_the_same_seeds(usual: Angles) -> None:
    frame = training_effect.tidy(usual.pairs, usual.spec)
    by_seed = _effects(usual, "mlp", "autoencoder").mean(axis=1)
    row = frame[
        (frame["recipe_a"] == "mlp") & (frame["recipe_b"] == "autoencoder") & (frame["centring"] == "centred")
    ].iloc[0]
    low, high = stats.t.interval(0.95, 1, loc=by_seed.mean(), scale=stats.sem(by_seed))
    assert (row["which"], row["n_seeds"], row["n_pairs"]) == ("supervised – reconstruction", 2, 4)
    assert (row["effect_deg"], row["low_deg"], row["high_deg"]) == pytest.approx((by_seed.mean(), low, high), rel=1e-9)
    assert row["trained_deg"] - row["untrained_deg"] == pytest.approx(row["effect_deg"], rel=1e-9)
    itself = frame[(frame["recipe_a"] == "mlp") & (frame["recipe_b"] == "mlp")]
    assert (itself["n_pairs"] == 1).all() and (itself["n_seeds"] == 2).all()
    assert not (frame[["recipe_a", "recipe_b"]] == "untrained-cnn").any(axis=None)
    assert not frame["recipe_a"].str.contains("noise").any()


def test_families_average_their_pairs_seed_by_seed(usual: Angles) -> None:
    frame = training_effect.tidy(usual.pairs, usual.spec)
    by_seed = pd.concat([_effects(usual, a, "simclr").mean(axis=1) for a in ("mlp", "cnn")], axis=1).mean(axis=1)
    of = (frame["panel"] == "family") & (frame["which"] == "supervised – self-supervised")
    row = frame[of & (frame["centring"] == "centred")].iloc[0]
    assert (row["n_pairs"], row["n_seeds"]) == (2, 2)
    assert row["effect_deg"] == pytest.approx(by_seed.mean(), rel=1e-9)
    half = stats.t.ppf(0.975, 1) * stats.sem(by_seed)
    assert row["high_deg"] - row["effect_deg"] == pytest.approx(half, rel=1e-9)


@pytest.mark.parametrize("n_recipes", [7, 8])
def test_many_pairs_are_drawn_by_family_and_all_kept_in_the_table(n_recipes: int) -> None:
    recipes = [{**BY_NAME["mlp" if i % 2 else "autoencoder"], "name": f"r{i}"} for i in range(n_recipes)]
    made = make_angles([*recipes, *some("gaussian-noise")], n_seeds=2, epochs=1, n_samples=40)
    frame, figure = drawn("training_effect", made)
    trained = n_recipes * (n_recipes + 1) // 2
    pairs = frame[(frame["panel"] == "pair") & (frame["centring"] == "raw")]
    assert len(pairs) == trained + n_recipes
    rows = len(figure.axes[0].get_yticks())
    assert rows == (len(pairs) if trained <= training_effect.MANY else 3 + 2)


def test_dots_are_filled_where_the_interval_leaves_out_zero() -> None:
    frame = pd.DataFrame(
        {
            "dataset": "fashion",
            "centring": "centred",
            "panel": "pair",
            "which": ["supervised – supervised"] * 3,
            "recipe_a": "mlp",
            "recipe_b": ["cnn", "vgg", "resnet"],
            "effect_deg": [-5.0, 1.0, 2.0],
            "low_deg": [-6.0, -1.0, np.nan],
            "high_deg": [-4.0, 3.0, np.nan],
        }
    )
    figure = training_effect.draw(frame, {"recipes": [dict(entry) for entry in ANGLE_RECIPES]})
    faces = [line.get_markerfacecolor() for line in figure.axes[1].lines if line.get_marker() == "o"]
    assert faces == [training_effect.COLOURS[training_effect.TRAINED], "white", "white"]


def test_shuffled_labels_stand_beside_the_same_kind_with_true_ones(usual: Angles) -> None:
    frame, figure = drawn("shuffled_labels", usual)
    table = usual.pairs[(usual.pairs["stage"] == "last") & (usual.pairs["centring"] == "raw")]
    shuffled = table[table["recipe_b"] == "mlp-shuffled-labels"]
    to_true = [
        np.mean(
            [
                shuffled.loc[(shuffled["recipe_a"] == true) & (shuffled["seed_b"] == seed), "angle_deg"].mean()
                for true in ("mlp", "cnn")
            ]
        )
        for seed in (0, 1)
    ]
    raw = frame[frame["centring"] == "raw"]
    row = raw[(raw["panel"] == "true labels") & (raw["which"] == "shuffled")]
    assert row["angle_deg"].tolist() == pytest.approx(to_true, rel=1e-12)
    assert row["n_pairs"].tolist() == [4, 4] and row["n_recipes"].tolist() == [2, 2]
    # the counterpart: to its own other seed, and to the other classifier
    own = table[(table["recipe_a"] == "mlp") & (table["recipe_b"] == "mlp")]["angle_deg"].mean()
    other = table[(table["recipe_a"] == "mlp") & (table["recipe_b"] == "cnn") & (table["seed_a"] == 0)]["angle_deg"]
    true = raw[(raw["panel"] == "true labels") & (raw["which"] == "true") & (raw["seed"] == 0)].iloc[0]
    assert true["angle_deg"] == pytest.approx((own + other.mean()) / 2, rel=1e-12)
    assert set(raw["panel"]) == {
        *("true labels", "shuffled labels", "autoencoders", "self-supervised", "untrained", "data")
    }
    colours = {line.get_color() for line in figure.axes[0].lines if line.get_marker() in MARKERS}
    looks = recipe_looks(usual.spec["recipes"])
    assert {looks["mlp"].colour, looks["mlp-shuffled-labels"].colour} <= colours


@pytest.mark.parametrize(
    ("names", "expected"),
    [(("mlp", "cnn", "cnn-shuffled-labels"), ["cnn"]), (("mlp", "vgg", "cnn-shuffled-labels"), ["mlp", "vgg"])],
    ids=["same kind", "no such kind"],
)
def test_counterparts(names: tuple[str, ...], expected: list[str]) -> None:
    assert shuffled_labels.counterparts({"recipes": some(*names)}, "cnn-shuffled-labels") == expected
