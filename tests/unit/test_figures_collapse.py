"""The figures of neural collapse and of both modes of batch normalisation: what they draw is what the tables say."""

import numpy as np
import pandas as pd
import pytest
import synthetic_stores
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from test_figures import assert_sound

from featurespace import measures
from featurespace.figures import collapse, normalisation_modes
from featurespace.figures.depths import pale, places
from featurespace.style import PALETTE, recipe_looks, save_figure
from featurespace.tables import read_table

LONG = "a-very-long-name-for-a-recipe-of-48-characters-x"
MLP = {"kind": "mlp", "widths": [8, 8, 8], "batch_norm": True}
PLAIN = {"kind": "mlp", "widths": [8, 8], "batch_norm": False}
CNN = {"kind": "cnn", "channels": [4, 6], "hidden": 5, "batch_norm": True}
NAMES = {"mlp": ["hidden1", "hidden2", "hidden3"], "cnn": ["conv1", "conv2", "hidden"]}
FIGURES = {"collapse": collapse, "normalisation_modes": normalisation_modes}


def recipe(name: str, model: dict = MLP, dataset: str = "digits", task: str = "classify") -> dict:
    return {"name": name, "dataset": dataset, "task": task, "kind": model["kind"], "model": model, "population": ""}


class Tables:
    """Made-up tables of a study: two seeds, three kept steps, of which networks.csv has the ends."""

    def __init__(self, recipes: list[dict], n_seeds: int = 2, steps: tuple[int, ...] = (0, 5, 10)) -> None:
        rng = np.random.default_rng(0)
        self.spec = {"recipes": recipes, "datasets": [{"name": "digits", "kind": "digits"}]}
        layers, networks, runs = [], [], []
        for r in recipes:
            names = NAMES[r["kind"]][: len(r["model"].get("widths", [0] * 3))]
            for seed in range(n_seeds):
                runs.append({"dataset": r["dataset"], "recipe": r["name"], "seed": seed, "converged": None})
                for step in steps:
                    at = {"dataset": r["dataset"], "recipe": r["name"], "block": 0, "seed": seed, "step": step}
                    at["epoch"] = step / 5
                    fade = np.exp(-step / 5)
                    numbers = []
                    for depth, layer in enumerate(names, start=1):
                        c = (0.5 + fade) ** depth * np.exp(0.1 * rng.normal())
                        place = {**at, "layer": layer, "depth": depth}
                        layers.append(
                            place
                            | {
                                "compression": c,
                                "discrimination": 0.2 * depth + 0.01 * seed,
                                "numerical_rank": 9 - depth,
                            }
                            | {"nc1": c / 3, "nc2_equinorm": 0.3 + 0.01 * seed, "nc2_equiangular": 0.4 / depth}
                            | {"reliable": True}
                        )
                        numbers += [(layer, depth, "ncc_accuracy", 0.9), (layer, depth, "nc4_mismatch", 0.1 * fade)]
                        if r["model"].get("batch_norm"):
                            numbers += [
                                (layer, depth, "compression_training", 2 * c),
                                (layer, depth, "discrimination_training", 0.1 * depth),
                                (layer, depth, "numerical_rank_training", 12.0 - depth),
                            ]
                    numbers += [("", np.nan, "nc3", 0.5 + fade), ("", np.nan, "train_loss", fade)]
                    if step in (steps[0], steps[-1]):
                        columns = ("layer", "depth", "quantity", "value")
                        networks += [at | dict(zip(columns, number, strict=True)) for number in numbers]
        self.layers, self.networks, self.runs = pd.DataFrame(layers), pd.DataFrame(networks), pd.DataFrame(runs)

    @property
    def all(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        return self.layers, self.networks, self.runs


STUDIES = {
    "two data sets": [recipe("mlp"), recipe("cnn", CNN), recipe("b", MLP, "fashion")],
    "one": [recipe("mlp")],
    "shuffled": [recipe("mlp"), recipe("mlp-shuffled-labels", task="shuffled-labels")],
    "many, long": [recipe(f"{i}{LONG}"[:48] if i % 3 == 0 else f"r{i}") for i in range(12)],
    "a long data set": [recipe("mlp", dataset="a-data-set-with-a-name-of-48-characters-in-all-x"), recipe("b")],
}


@pytest.fixture
def two() -> Tables:
    return Tables([recipe("plain", PLAIN), recipe("mlp"), recipe("ae", MLP, task="reconstruct")])


def drawn(module, tables: Tables) -> tuple[pd.DataFrame, Figure]:
    frame = module.tidy(*tables.all, tables.spec)
    return frame, module.draw(frame, tables.spec)


def panel(figure: Figure, title: str) -> Axes:
    (axes,) = [axes for axes in figure.axes if axes.get_title(loc="left").strip() == title]
    return axes


def curves_of(axes: Axes, colour: str) -> list[tuple[list[float], list[float]]]:
    """Points of every line, marked or not, of one colour, without those that only mark what another joins."""
    lines = [line for line in axes.lines if to_hex(line.get_color()) == colour and line.get_linestyle() != "None"]
    return [(np.round(line.get_xdata()).tolist(), line.get_ydata().tolist()) for line in lines]


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("study", STUDIES)
def test_every_figure_survives_every_study(name, study):
    frame, figure = drawn(FIGURES[name], Tables(STUDIES[study]))
    assert len(frame)
    assert_sound(figure)


@pytest.mark.parametrize("name", FIGURES)
def test_one_seed_and_one_step_are_enough(name):
    frame, figure = drawn(FIGURES[name], Tables(STUDIES["one"], 1, (0,)))
    assert set(frame.get("stage", ["last"])) == {"last"}
    assert_sound(figure)
    assert not {"least to greatest seed", "first step (pale)"} & {text.get_text() for text in figure.legends[-1].texts}


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_to_draw_is_said_in_words(name):
    module = FIGURES[name]
    no_classes = Tables([recipe("ae", task="reconstruct")])
    empty = pd.DataFrame()
    for tables in (no_classes.all, (empty, empty, no_classes.runs)):
        frame = module.tidy(*tables, no_classes.spec)
        assert frame.empty and list(frame.columns) == module.COLUMNS
        figure = module.draw(frame, no_classes.spec)
        assert not figure.axes and len(figure.texts) == 1


def test_without_batch_normalisation_there_are_no_modes():
    frame, figure = drawn(normalisation_modes, Tables([recipe("plain", PLAIN)]))
    assert frame.empty
    assert "batch normalisation" in figure.texts[0].get_text()


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_its_table_and_the_same_each_time(name, two, tmp_path):
    frame, figure = drawn(FIGURES[name], two)
    first, second = ({kind: tmp_path / f"{i}.{kind}" for kind in ("svg", "png", "csv")} for i in "ab")
    save_figure(figure, frame, **first, dpi=40)
    again = read_table(first["csv"])
    save_figure(FIGURES[name].draw(again, two.spec), again, **second, dpi=40)
    for kind in first:
        assert first[kind].read_bytes() == second[kind].read_bytes(), kind


@pytest.mark.parametrize("name", FIGURES)
def test_the_script_draws_from_files(name, two, tmp_path):
    for table, frame in zip(("layers", "networks", "runs"), two.all, strict=True):
        frame.to_csv(tmp_path / f"{table}.csv", index=False)
    outputs = {f"out_{kind}": str(tmp_path / f"figure.{kind}") for kind in ("svg", "png", "csv")}
    synthetic_stores.run_script(
        f"plot_{name}",
        two.spec,
        in_layers=[str(tmp_path / "layers.csv")],
        in_networks=[str(tmp_path / "networks.csv")],
        in_runs=str(tmp_path / "runs.csv"),
        **outputs,
    )
    expected = FIGURES[name].tidy(*two.all, two.spec)
    pd.testing.assert_frame_equal(read_table(outputs["out_csv"]), expected, check_dtype=False)


# --- collapse ---------------------------------------------------------------------------------------------------------


def test_collapse_shows_the_ends_of_the_recipes_that_learn_classes(two):
    frame, figure = drawn(collapse, two)
    assert list(dict.fromkeys(frame["recipe"])) == ["plain", "mlp"]
    assert frame.groupby("stage")["step"].agg(set).to_dict() == {"first": {0}, "last": {10}}
    assert len(figure.axes) == 5
    mlp, plain = PALETTE[1], PALETTE[0]
    for stage, colour, step in (("last", mlp, 10), ("first", pale(mlp), 0)):
        part = two.layers[(two.layers["recipe"] == "mlp") & (two.layers["step"] == step)]
        by_layer = [part[part["depth"] == depth] for depth in (1, 2, 3)]
        nc1 = [float(np.exp(np.log(rows["nc1"]).mean())) for rows in by_layer]
        ((x, y),) = curves_of(panel(figure, "NC1"), colour)
        assert (x, y) == ([1, 2, 3], pytest.approx(nc1, rel=1e-12))
        ((_, y),) = curves_of(panel(figure, "NC2, lengths"), colour)
        assert y == pytest.approx([0.305] * 3)
        ((_, y),) = curves_of(panel(figure, "NC2, angles"), colour)
        assert y == pytest.approx([0.4, 0.2, 0.4 / 3])
        ((x, y),) = curves_of(panel(figure, "NC3"), colour)
        assert (x, y) == ([3], pytest.approx([0.5 + np.exp(-step / 5)]))
        ((_, y),) = curves_of(panel(figure, "NC4"), colour)
        assert y == pytest.approx([10 * np.exp(-step / 5)] * 3)
        rows = frame[(frame["recipe"] == "mlp") & (frame["stage"] == stage) & (frame["measure"] == "nc1")]
        assert rows["low"].tolist() == [table["nc1"].min() for table in by_layer]
        assert rows["high"].tolist() == [table["nc1"].max() for table in by_layer]
    ((x, _),) = curves_of(panel(figure, "NC3"), plain)
    assert x == [2]  # two layers deep
    assert panel(figure, "NC1").get_yscale() == "log"


def test_bars_reach_from_the_least_to_the_greatest_seed(two):
    _, figure = drawn(collapse, two)
    (plain, mlp) = (box for box in panel(figure, "NC2, lengths").collections)
    for bars in (plain, mlp):
        for segment in bars.get_segments():
            assert segment[:, 1].tolist() == pytest.approx([0.3, 0.31])


def test_a_seed_that_stopped_early_keeps_its_last_value(two):
    """Blocks of one recipe may end at different steps."""
    early = (two.networks["seed"] == 0) & (two.networks["step"] == 10)
    networks = two.networks.assign(step=two.networks["step"].mask(early, 7))
    networks.loc[early & (networks["quantity"] == "nc3"), "value"] = 1.5
    frame = collapse.tidy(two.layers, networks, two.runs, two.spec)
    row = frame[(frame["recipe"] == "mlp") & (frame["measure"] == "nc3") & (frame["stage"] == "last")].iloc[0]
    assert (row["step"], row["n_seeds"]) == (10, 2)
    assert row["value"] == pytest.approx((1.5 + 0.5 + np.exp(-2)) / 2)


def test_a_layer_in_doubt_is_hollow_in_nc1_alone(two):
    doubtful = (two.layers["recipe"] == "mlp") & (two.layers["depth"] == 2) & (two.layers["seed"] == 1)
    two.layers["reliable"] = ~doubtful
    frame, figure = drawn(collapse, two)
    flagged = frame[~frame["reliable"].astype(bool)]
    assert set(flagged["measure"]) == {"nc1"} and set(flagged["depth"]) == {2} and set(flagged["recipe"]) == {"mlp"}

    def hollow(title: str) -> list[float]:
        lines = [line for line in panel(figure, title).lines if line.get_markerfacecolor() == "white"]
        return sorted(x for line in lines for x in np.round(line.get_xdata()))

    assert hollow("NC1") == [2, 2]  # first and last step
    assert hollow("NC2, lengths") == []
    assert "C too small to be reliable" in [text.get_text() for text in figure.legends[-1].texts]


@pytest.mark.parametrize("name", FIGURES)
def test_a_run_that_did_not_converge_is_dotted_and_said(name, two):
    two.runs.loc[(two.runs["recipe"] == "mlp") & (two.runs["seed"] == 1), "converged"] = False
    frame, figure = drawn(FIGURES[name], two)
    assert frame.groupby("recipe")["n_not_converged"].max()["mlp"] == 1
    labels = [text.get_text() for legend in figure.legends for text in legend.texts]
    assert "mlp (not converged: 1 seed)" in labels
    assert "plain" in labels or name == "normalisation_modes"
    lines = [line for line in figure.axes[0].lines if line.get_color() == PALETTE[1] and len(line.get_xdata()) > 1]
    dotted = [line.get_linestyle() for line in lines if line.get_linestyle() != "None"]
    assert dotted and all(style not in ("-", "None") for style in dotted)


def test_values_that_are_missing_leave_gaps(two):
    two.layers.loc[two.layers["depth"] == 2, ["nc1", "nc2_equiangular"]] = np.nan
    two.networks.loc[two.networks["quantity"] == "nc3", "value"] = np.nan
    _, figure = drawn(collapse, two)
    ((x, _),) = curves_of(panel(figure, "NC1"), PALETTE[1])
    assert x == [1, 3]
    assert not figure.axes[3].axison
    assert [text.get_text() for text in figure.axes[3].texts] == ["no value"]


def test_zero_nc1_has_no_place_on_a_logarithmic_axis(two):
    two.layers.loc[(two.layers["depth"] == 3) & (two.layers["step"] == 10), "nc1"] = 0.0
    _, figure = drawn(collapse, two)
    ((x, _),) = curves_of(panel(figure, "NC1"), PALETTE[1])
    assert x == [1, 2]


# --- modes of normalisation -------------------------------------------------------------------------------------------


def test_both_modes_are_drawn_of_networks_that_normalise(two):
    frame, figure = drawn(normalisation_modes, two)
    assert set(frame["recipe"]) == {"mlp"} and set(frame["step"]) == {10}
    layers = two.layers[(two.layers["recipe"] == "mlp") & (two.layers["step"] == 10)]
    c = [float(np.exp(np.log(rows["compression"]).mean())) for _, rows in layers.groupby("depth")]
    (evaluation, training) = curves_of(panel(figure, "Compression"), PALETTE[1])
    assert evaluation == ([1, 2, 3], pytest.approx(c, rel=1e-12))
    assert training == ([1, 2, 3], pytest.approx([2 * value for value in c], rel=1e-12))
    (evaluation, training) = curves_of(panel(figure, "Discrimination"), PALETTE[1])
    assert evaluation[1] == pytest.approx([0.205, 0.405, 0.605])
    assert training[1] == pytest.approx([0.1, 0.2, 0.3])
    (evaluation, training) = curves_of(panel(figure, "Numerical rank"), PALETTE[1])
    assert evaluation[1] == [8, 7, 6]
    assert training[1] == [11, 10, 9]
    lines = [line for line in panel(figure, "Numerical rank").lines if line.get_linestyle() != "None"]
    assert [line.get_linestyle() for line in lines] == ["-", "--"]


def test_values_in_doubt_are_kept_in_the_table_and_left_out_of_the_panels(two):
    doubtful = (two.networks["quantity"] == "compression_training") & (two.networks["depth"] == 3)
    two.networks.loc[doubtful, "value"] = 1e-9
    frame, figure = drawn(normalisation_modes, two)
    flagged = frame[~frame["reliable"].astype(bool)]
    assert set(zip(flagged["which"], flagged["depth"], strict=True)) == {("training", 3)}
    assert set(flagged["measure"]) == {"compression", "discrimination"}
    for title, n in (("Compression", 2), ("Discrimination", 2), ("Numerical rank", 3)):
        evaluation, training = curves_of(panel(figure, title), PALETTE[1])
        assert (len(evaluation[0]), len(training[0])) == (3, n)


def test_what_is_in_doubt_is_what_the_layer_tables_call_so():
    """The figure does not import the measures: they take torch with them."""
    assert normalisation_modes.LEAST_COMPRESSION == measures.RELIABLE_COMPRESSION


# --- what they share --------------------------------------------------------------------------------------------------


def test_recipes_stand_side_by_side_within_a_third_of_a_layer():
    assert places(["a"]) == {"a": 0.0}
    for n in (2, 5, 30):
        beside = list(places([str(i) for i in range(n)]).values())
        assert beside == sorted(beside) and len(set(beside)) == n
        assert max(beside) - min(beside) <= 1 / 3


def test_a_long_name_of_a_data_set_moves_no_panel():
    boxes = {}
    for name in ("digits", "a-data-set-with-a-name-of-48-characters-in-all-x"):
        _, figure = drawn(collapse, Tables([recipe("mlp", dataset=name)]))
        figure.draw_without_rendering()
        boxes[name] = [axes.get_position().bounds for axes in figure.axes]
        assert name in [text.get_text() for text in figure.axes[0].texts]
    np.testing.assert_allclose(*boxes.values(), atol=1e-9)


def test_colours_are_those_of_the_other_figures(two):
    looks = recipe_looks(two.spec["recipes"])
    _, figure = drawn(collapse, two)
    handles = dict(
        zip(
            [text.get_text() for text in figure.legends[0].texts],
            figure.legends[0].legend_handles,
            strict=True,
        )
    )
    for name in ("plain", "mlp"):
        assert handles[name].get_color() == looks[name].colour
