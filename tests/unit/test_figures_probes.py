"""Figures of probes, maps and what layers are worth: what their tables hold, and that they draw."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy import stats

from featurespace.config import parse_study
from featurespace.figures import embeddings, layer_probes, linear_depth, transfer
from featurespace.plan import Plan
from featurespace.style import PALETTE, recipe_looks, save_figure

LONG = "-with-a-very-long-name-of-48-characters-or-more-x"
MLP = {"kind": "mlp", "widths": [8, 8, 8], "batch_norm": True}


def recipe(name: str, model: dict[str, Any] = MLP, **changes: Any) -> dict[str, Any]:
    kept = {"dataset": "own", "task": "classify", "loss": "mse", "init": {"scheme": "default", "scale": 1.0}}
    kept |= {"output_scale": 1.0, "head": None, "epochs": 5, "population": "", "n_seeds": 3}
    return {"name": name, "kind": model["kind"], "model": model} | kept | changes


def hybrid(n: int, **changes: Any) -> dict[str, Any]:
    return {"kind": "hybrid", "nonlinear": 2, "linear": n, "width": 8, "batch_norm": True} | changes


def headed(n: int, width: int | None = None) -> dict[str, Any]:
    return {"layers": n, "width": width}


RECIPES = [
    recipe("mlp"),
    recipe("hybrid", hybrid(0)),
    recipe("labels", task="shuffled-labels"),
    *(recipe(f"linear-{n}", hybrid(n), population="linear") for n in (1, 2, 4)),
    *(recipe(f"head-{n}", head=headed(n), population="head") for n in (1, 2, 3)),
]
STUDIES = {
    "whole": RECIPES,
    "one-recipe": [recipe("mlp")],
    "long-names": [
        {**r, "name": (r["name"] + LONG)[:48], "dataset": ("own" + LONG)[:40]} for r in (*RECIPES, recipe("other"))
    ],
}


def layer_names(model: dict[str, Any]) -> list[str]:
    if model["kind"] == "mlp":
        return ["hidden1", "hidden2", "hidden3"]
    return ["hidden1", "hidden2", *(f"linear{i + 1}" for i in range(model["linear"]))]


def made(recipes: list[dict[str, Any]], seeds: tuple[int, ...] = (0, 1, 2), targets: tuple[str, ...] = ("other",)):
    """Make up a study's spec and tables: plausible numbers, no result of anything."""
    rng = np.random.default_rng(0)
    runs, layers, probes, maps = [], [], [], []
    for r in recipes:
        names = layer_names(r["model"])
        level = r["model"].get("linear", 0) + (r["head"] or {"layers": 0})["layers"]
        for seed in seeds:
            ids = {"dataset": r["dataset"], "recipe": r["name"], "block": 0, "seed": seed}
            test = 0.8 + 0.01 * level + 0.002 * rng.normal()
            runs.append(
                {**ids, "population": r["population"], "test_accuracy": test, "train_accuracy": test + 0.1}
                | {"converged": None}
            )
            for step, epoch in ((0, 0.0), (50, 5.0)):
                at = {**ids, "step": step, "epoch": epoch}
                for depth, layer in enumerate(names, start=1):
                    c = np.exp(-depth - 0.3 * level + 0.1 * rng.normal())
                    layers.append(
                        {**at, "layer": layer, "depth": depth, "compression": c, "numerical_rank": 20 - depth}
                        | {"reliable": True}
                    )
                rows = [(r["dataset"], 0, "input")]
                rows += [(r["dataset"], i, layer) for i, layer in enumerate(names, start=1)]
                rows += [(t, i, layer) for t in targets for i, layer in ((0, "input"), (len(names), names[-1]))]
                for target, depth, layer in rows:
                    better = 0.0 if depth == 0 else 0.05 * depth * (step > 0) + 0.005 * rng.normal()
                    value = (0.6 if target == r["dataset"] else 0.5) + better + 0.01 * level * (depth > 0)
                    probes.append(
                        {**at, "layer": layer, "depth": depth, "target": target, "train_accuracy": value + 0.05}
                        | {"test_accuracy": value, "n_train": 100, "n_test": 50, "silhouette": 0.1}
                    )
        if not r["population"]:
            for depth, layer in list(enumerate(names, start=1))[:2]:
                labels = np.arange(60) % 4
                places = rng.normal(size=(60, 2)) + 4 * rng.normal(size=(4, 2))[labels]
                ids = {"dataset": r["dataset"], "recipe": r["name"], "block": 0, "seed": seeds[0], "step": 50}
                maps.append(
                    pd.DataFrame(
                        {**ids, "epoch": 5.0, "layer": layer, "depth": depth, "sample": np.arange(60), "label": labels}
                        | {"class_name": [f"class {k}" for k in labels], "x": places[:, 0], "y": places[:, 1]}
                        | {"silhouette": -0.1 * depth, "silhouette_2d": 0.4}
                    )
                )
    for dataset in dict.fromkeys(r["dataset"] for r in recipes):
        layers.append(
            {"dataset": dataset, "recipe": "data", "block": 0, "seed": 0, "step": 0, "epoch": 0.0, "layer": "input"}
            | {"depth": 0, "compression": 9.0, "numerical_rank": 30, "reliable": True}
        )
    tables = {name: pd.DataFrame(rows) for name, rows in (("runs", runs), ("layers", layers), ("probes", probes))}
    return {"recipes": recipes, "datasets": []}, tables | {"maps": pd.concat(maps, ignore_index=True)}


FIGURES = {
    "layer_probes": (layer_probes, ("layers", "probes", "runs")),
    "embeddings": (embeddings, ("maps", "runs")),
    "linear_depth": (linear_depth, ("runs", "layers")),
    "transfer": (transfer, ("probes", "layers", "runs")),
}


def drawn(name: str, spec: dict[str, Any], tables: dict[str, pd.DataFrame]) -> tuple[pd.DataFrame, Figure]:
    module, inputs = FIGURES[name]
    frame = module.tidy(*(tables[table] for table in inputs), spec)
    return frame, module.draw(frame, spec)


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def assert_sound(figure: Figure) -> None:
    """No warning, nothing cut off at the figure's edge, no collapsed or empty panel, no title upon another."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.draw(renderer)
    inside = figure.bbox.padded(1)
    boxes = {f"legend {i}": legend.get_window_extent(renderer) for i, legend in enumerate(figure.legends)}
    boxes |= {repr(text.get_text()): text.get_window_extent(renderer) for text in figure.texts}
    titles = []
    for i, axes in enumerate(figure.axes):
        boxes[f"panel {i}"] = axes.get_tightbbox(renderer)
        own = [text for text in axes.texts if text.get_text() and text.get_weight() == "bold"]
        boxes |= {repr(text.get_text()): text.get_window_extent(renderer) for text in own}
        if axes.get_legend() is not None:
            boxes[f"legend of panel {i}"] = axes.get_legend().get_window_extent(renderer)
        if axes.axison:
            box = axes.get_window_extent(renderer)
            assert box.width > 60 and box.height > 60, "collapsed panel"
            assert any(np.isfinite(line.get_xydata()).any() for line in axes.lines), "empty panel"
            titles.append((axes.get_title(loc="left"), axes._left_title.get_window_extent(renderer)))
    for name, box in boxes.items():
        assert box.x0 >= inside.x0 and box.x1 <= inside.x1, f"cut off: {name}"
        assert box.y0 >= inside.y0 and box.y1 <= inside.y1, f"cut off: {name}"
    for i, (text, box) in enumerate(titles):
        assert not [other for other, place in titles[:i] if place.overlaps(box)], text


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_survives_every_study(name: str, study: str) -> None:
    spec, tables = made(STUDIES[study])
    _, figure = drawn(name, spec, tables)
    assert_sound(figure)


@pytest.mark.parametrize("name", FIGURES)
def test_one_seed_is_enough(name: str) -> None:
    spec, tables = made(RECIPES, seeds=(7,))
    frame, figure = drawn(name, spec, tables)
    assert len(frame)
    assert_sound(figure)


@pytest.mark.parametrize("name", FIGURES)
def test_an_empty_study_is_said_in_words(name: str) -> None:
    spec, tables = made([recipe("mlp")])
    empty = {table: frame.iloc[:0] for table, frame in tables.items()}
    for nothing in (empty, {table: pd.DataFrame() if table != "runs" else frame for table, frame in empty.items()}):
        frame, figure = drawn(name, spec, nothing)
        assert frame.empty
        assert not figure.axes and len(words(figure)) > 30


@pytest.mark.parametrize("name", FIGURES)
def test_the_same_tables_give_the_same_files(name: str, tmp_path) -> None:
    spec, tables = made(RECIPES)
    contents = []
    for i in range(2):
        frame, figure = drawn(name, spec, tables)
        paths = {kind: str(tmp_path / f"{i}.{kind}") for kind in ("svg", "png", "csv")}
        save_figure(figure, frame, **paths)
        contents.append([(tmp_path / f"{i}.{kind}").read_bytes() for kind in paths])
    assert contents[0] == contents[1]


def failed(runs: pd.DataFrame, name: str, *seeds: int) -> pd.DataFrame:
    """Say of some seeds of a recipe that they did not reach the loss at which they were to stop."""
    gone = (runs["recipe"] == name) & runs["seed"].isin(seeds)
    return runs.assign(converged=runs["converged"].mask(gone, False))


@pytest.mark.parametrize("name", ["linear_depth", "transfer"])
def test_a_recipe_has_the_colour_of_the_other_figures_where_another_before_it_is_not_probed(name: str) -> None:
    nothing_else = {"name": "seen", "dataset": "own", "task": "untrained", "kind": "hybrid", "population": ""}
    spec, tables = made(RECIPES)
    frame, figure = drawn(name, spec | {"recipes": [nothing_else, *RECIPES]}, tables)
    (legend,) = [axes.get_legend() for axes in figure.axes if axes.get_legend() is not None]
    position = 1 + [r["name"] for r in RECIPES].index(frame["ladder"].iloc[0])
    assert [handle.get_color() for handle in legend.legend_handles] == [PALETTE[position]]


def test_the_plan_gives_every_figure_of_layers_the_same_looks() -> None:
    net = {"dataset": "digits", "model": {"kind": "mlp", "widths": [8]}, "schedule": {"epochs": 1}}
    study = {
        "study": "small",
        "datasets": {"digits": {"kind": "digits"}},
        "recipes": {"seen": {"dataset": "digits", "task": "untrained", "model": net["model"]}, "a": net, "b": net},
        "sweeps": {"head": {"base": "b", "vary": {"head.layers": [1, 2]}}},
    }
    plan = Plan(parse_study(study))
    looks = {name: recipe_looks(plan.plot(name)["recipes"]) for name in ("layers", *FIGURES)}
    assert list(looks["transfer"]) == list(looks["linear_depth"]) == ["seen", "a", "b", "head-01", "head-02"]
    for name in FIGURES:
        assert {recipe: looks[name][recipe] for recipe in ("seen", "a", "b")} == looks["layers"]
    assert ["head" in r for r in plan.plot("transfer")["recipes"]] == [False, True, True, True, True]


# --- layer_probes -----------------------------------------------------------------------------------------------------


def test_probes_are_means_over_seeds_of_own_data_at_both_ends() -> None:
    spec, tables = made(RECIPES)
    frame, figure = drawn("layer_probes", spec, tables)
    probes = tables["probes"]
    own = probes[(probes["recipe"] == "mlp") & (probes["layer"] == "hidden2") & (probes["target"] == "own")]
    for stage, step in (("first", 0), ("last", 50)):
        expected = 100 * own.loc[own["step"] == step, "test_accuracy"]
        rows = frame[(frame["recipe"] == "mlp") & (frame["layer"] == "hidden2") & (frame["stage"] == stage)]
        row = rows[rows["measure"] == "test_accuracy"].iloc[0]
        assert (row["step"], row["n_seeds"]) == (step, 3)
        assert (row["value"], row["low"], row["high"]) == pytest.approx(
            (expected.mean(), expected.min(), expected.max())
        )
    ranks = frame[(frame["recipe"] == "mlp") & (frame["measure"] == "numerical_rank") & (frame["stage"] == "last")]
    assert list(ranks["value"]) == [19, 18, 17]
    assert set(frame["recipe"]) == {"data", *(r["name"] for r in RECIPES)}
    assert "input (the data)" in words(figure) and "first step" in words(figure)


def test_the_input_is_one_point_at_depth_0() -> None:
    spec, tables = made(RECIPES)
    frame, _ = drawn("layer_probes", spec, tables)
    start = frame[frame["recipe"] == "data"].set_index("measure")
    assert len(start) == 3
    assert (start["depth"] == 0).all()
    assert start.loc["numerical_rank", "value"] == 30
    assert start["value"][["train_accuracy", "test_accuracy"]].to_numpy() == pytest.approx([65, 60])


def test_a_network_that_is_not_trained_has_a_last_step_only() -> None:
    spec, tables = made([recipe("mlp")])
    for name in ("layers", "probes"):
        tables[name] = tables[name][tables[name]["step"] == 0]
    frame, figure = drawn("layer_probes", spec, tables)
    assert set(frame["stage"]) == {"last"}
    assert "first step" not in words(figure)
    assert_sound(figure)


def test_probes_of_a_run_that_did_not_converge_are_dotted_and_said() -> None:
    spec, tables = made(RECIPES)
    frame, figure = drawn("layer_probes", spec, {**tables, "runs": failed(tables["runs"], "mlp", 0, 2)})
    counts = frame.groupby("recipe")["n_not_converged"].max()
    assert counts[counts > 0].to_dict() == {"mlp": 2}
    assert "mlp (not converged: 2 seeds)" in words(figure)
    curves = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 2 and line.get_linestyle() != "None"]
    dashes = {line.get_color(): line.get_linestyle() for line in curves}
    assert dashes[PALETTE[0]] != "-" and dashes[PALETTE[2]] == "-"
    assert_sound(figure)


# --- embeddings -------------------------------------------------------------------------------------------------------


def test_maps_are_ordered_by_recipe_depth_and_class_and_named() -> None:
    spec, tables = made(RECIPES)
    frame, figure = drawn("embeddings", spec, {**tables, "maps": tables["maps"].sample(frac=1, random_state=0)})
    assert list(dict.fromkeys(zip(frame["recipe"], frame["layer"], strict=True))) == [
        (name, layer) for name in ("mlp", "hybrid", "labels") for layer in ("hidden1", "hidden2")
    ]
    assert frame["label"].iloc[:60].is_monotonic_increasing
    assert len(figure.axes) == 6
    said = words(figure)
    assert said.count("silhouette −0.10") == said.count("silhouette −0.20") == 3
    # in the legend, and on each map
    assert said.count("class 2") == 7


def test_a_map_of_a_network_that_did_not_converge_says_so() -> None:
    spec, tables = made(RECIPES)
    runs = failed(failed(tables["runs"], "mlp", 0), "labels", 1, 2)  # of the labels, seed 0 is shown
    frame, figure = drawn("embeddings", spec, {**tables, "runs": runs})
    assert set(frame.loc[frame["converged"].eq(False), "recipe"]) == {"mlp"}
    headings = [text.get_text() for text in figure.findobj(Text) if text.get_weight() == "bold"]
    assert headings == ["mlp, not converged", "hybrid", "labels"]
    assert_sound(figure)


def test_many_classes_are_in_the_legend_only() -> None:
    spec, tables = made([recipe("mlp")])
    labels = np.arange(len(tables["maps"])) % 20
    maps = tables["maps"].assign(label=labels, class_name=[f"class {k:02}" for k in labels])
    _, figure = drawn("embeddings", spec, {**tables, "maps": maps})
    assert words(figure).count("class 07") == 1
    assert_sound(figure)
    looks = [(line.get_color(), line.get_marker()) for line in figure.axes[0].lines]
    assert len(looks) == len(set(looks)) == 20


# --- linear_depth -----------------------------------------------------------------------------------------------------


def of(frame: pd.DataFrame, **values: Any) -> pd.DataFrame:
    for column, value in values.items():
        frame = frame[frame[column] == value]
    return frame


def student(values: np.ndarray) -> tuple[float, float, float]:
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    return values.mean(), low, high


def test_linear_layers_are_an_axis_with_seeds_means_and_a_slope_by_seed() -> None:
    spec, tables = made(RECIPES)
    frame, figure = drawn("linear_depth", spec, tables)
    assert set(frame["ladder"]) == {"hybrid"}
    runs = tables["runs"].set_index(["recipe", "seed"])["test_accuracy"]
    names = {0: "hybrid", 1: "linear-1", 2: "linear-2", 4: "linear-4"}
    values = pd.DataFrame({n: 100 * runs[name] for n, name in names.items()})
    tests = of(frame, quantity="test_accuracy")
    seeds = of(tests, part="seed").pivot(index="seed", columns="linear_layers", values="value")
    np.testing.assert_allclose(seeds, values)
    for n in names:
        mean = of(tests, part="mean", linear_layers=n).iloc[0]
        assert tuple(mean[["value", "low", "high"]]) == pytest.approx(student(values[n].to_numpy()))
        assert mean["n_seeds"] == 3
    slopes = np.array([np.polyfit(list(names), values.loc[seed], 1)[0] for seed in values.index])
    slope = of(tests, part="slope").iloc[0]
    assert tuple(slope[["value", "low", "high"]]) == pytest.approx(student(slopes))
    expected = "test {:+.2f} points per layer\n(95 %: {:+.2f} to {:+.2f}, 3 seeds)".format(*student(slopes))
    assert expected.replace("-", "−") in words(figure)


def test_compression_is_that_of_the_deepest_layer_on_a_logarithmic_scale() -> None:
    spec, tables = made(RECIPES)
    frame, _ = drawn("linear_depth", spec, tables)
    layers = tables["layers"]
    own = layers[(layers["recipe"] == "linear-2") & (layers["layer"] == "linear2") & (layers["step"] == 50)]
    mean = of(frame, quantity="compression", part="mean", linear_layers=2).iloc[0]
    expected = np.exp(student(np.log(own["compression"].to_numpy())))
    assert tuple(mean[["value", "low", "high"]]) == pytest.approx(tuple(expected))
    assert of(frame, quantity="compression", part="slope")["value"].iloc[0] < -0.9


def test_networks_that_differ_in_more_are_not_compared() -> None:
    recipes = [recipe("a", hybrid(0)), recipe("b", hybrid(2), output_scale=100.0), recipe("c", hybrid(3, width=9))]
    recipes += [recipe("d", hybrid(4), task="shuffled-labels"), recipe("e", hybrid(5), dataset="elsewhere")]
    spec, tables = made(recipes)
    frame, figure = drawn("linear_depth", spec, tables)
    assert frame.empty
    assert "differ in their number of linear layers alone" in words(figure).replace("\n", " ")


def test_runs_that_did_not_converge_are_named_and_in_no_mean_or_slope() -> None:
    spec, tables = made(RECIPES)
    runs = tables["runs"]
    failed = (runs["recipe"] == "linear-2") | ((runs["recipe"] == "linear-1") & (runs["seed"] == 1))
    runs = runs.assign(converged=np.where(failed, False, None), test_accuracy=runs["test_accuracy"].mask(failed, 0.01))
    frame, figure = drawn("linear_depth", spec, {**tables, "runs": runs})
    tests = of(frame, quantity="test_accuracy")
    assert tests["value"][tests["part"] != "slope"].min() > 50
    assert list(of(tests, part="mean")["linear_layers"]) == [0, 1, 4]
    assert list(of(tests, part="mean")["n_seeds"]) == [3, 2, 3]
    assert of(tests, part="slope")["n_seeds"].iloc[0] == 2  # seed 1 lacks a depth
    assert set(of(frame, quantity="compression", part="seed", linear_layers=1)["seed"]) == {0, 2}
    said = words(figure).replace("\n", " ")
    assert "linear-1 (1 seed)" in said and "linear-2 (3 seeds)" in said
    assert_sound(figure)


def test_compression_too_small_is_drawn_and_in_no_mean() -> None:
    spec, tables = made(RECIPES)
    layers = tables["layers"]
    tiny = (layers["recipe"] == "linear-4") & (layers["seed"] == 0)
    layers = layers.assign(
        compression=layers["compression"].mask(tiny, 1e-12), reliable=np.where(tiny, False, layers["reliable"])
    )
    frame, figure = drawn("linear_depth", spec, {**tables, "layers": layers})
    rows = of(frame, quantity="compression", linear_layers=4)
    assert of(rows, part="seed")["value"].min() == 1e-12
    assert of(rows, part="mean")["n_seeds"].iloc[0] == 2
    assert of(rows, part="mean")["value"].iloc[0] > 1e-6
    assert "too small to be reliable" in words(figure)


# --- transfer ---------------------------------------------------------------------------------------------------------


def test_heads_are_an_axis_with_controls_beside() -> None:
    spec, tables = made(RECIPES)
    frame, figure = drawn("transfer", spec, tables)
    assert set(zip(frame["ladder"], frame["dataset"], frame["target"], strict=True)) == {("mlp", "own", "other")}
    probes = tables["probes"]
    names = {0: "mlp", 1: "head-1", 2: "head-2", 3: "head-3"}
    for panel, target in (("transfer", "other"), ("source", "own")):
        raw = of(frame, panel=panel, which="input")
        assert list(raw["value"]) == [60 if target == "own" else 50]
        assert list(raw["part"]) == ["mean"]
        for which, layer, step in (("features", "hidden3", 50), ("untrained", "hidden3", 0)):
            for n, name in names.items():
                own = of(probes, recipe=name, target=target, layer=layer, step=step)["test_accuracy"]
                row = of(frame, panel=panel, which=which, part="mean", head_layers=n).iloc[0]
                assert tuple(row[["value", "low", "high"]]) == pytest.approx(student(100 * own.to_numpy()))
                seeds = of(frame, panel=panel, which=which, part="seed", head_layers=n)
                np.testing.assert_allclose(seeds["value"], 100 * own)
    layers = of(tables["layers"], recipe="head-2", layer="hidden3", step=50)["compression"]
    row = of(frame, panel="compression", part="mean", head_layers=2).iloc[0]
    assert row["value"] == pytest.approx(stats.gmean(layers))
    for panel in transfer.PANELS:
        means = of(frame, panel=panel, which="features", part="mean").query("head_layers > 0")
        rho = stats.spearmanr(means["head_layers"], means["value"]).statistic
        assert of(frame, panel=panel, part="rank")["value"].iloc[0] == pytest.approx(rho)
    assert "transfer: ρ = +1.00" in words(figure)
    assert "C: ρ = −1.00" in words(figure)


def test_a_network_without_a_head_is_drawn_and_not_ranked() -> None:
    """The published ranks, and the claims, are of one to five layers."""
    spec, tables = made(RECIPES)
    best = tables["probes"]["recipe"] == "mlp"
    probes = tables["probes"].assign(test_accuracy=tables["probes"]["test_accuracy"].mask(best, 0.99))
    frame, figure = drawn("transfer", spec, {**tables, "probes": probes})
    means = of(frame, panel="transfer", which="features", part="mean")
    assert list(means["head_layers"]) == [0, 1, 2, 3]
    assert of(frame, panel="transfer", part="rank")["value"].item() == pytest.approx(1)
    assert "transfer: ρ = +1.00" in words(figure)
    two = [r for r in RECIPES if r["name"] != "head-3"]
    assert of(drawn("transfer", *made(two))[0], part="rank").empty


def test_heads_of_runs_that_did_not_converge_are_left_out_and_named() -> None:
    spec, tables = made(RECIPES)
    runs = failed(failed(tables["runs"], "head-2", 0, 1, 2), "head-1", 1)
    frame, figure = drawn("transfer", spec, {**tables, "runs": runs})
    for panel in transfer.PANELS:
        means = of(frame, panel=panel, which="features", part="mean")
        assert list(means["head_layers"]) == [0, 1, 3]
        assert list(means["n_seeds"]) == [3, 2, 3]
        assert set(of(frame, panel=panel, which="features", part="seed", head_layers=1)["seed"]) == {0, 2}
    assert set(of(frame, which="untrained", part="mean")["head_layers"]) == {0, 1, 3}
    assert of(frame, part="rank").empty  # of two
    assert frame.groupby("recipe")["n_not_converged"].max()[["mlp", "head-1", "head-2"]].tolist() == [0, 1, 3]
    said = words(figure).replace("\n", " ")
    assert "head-1 (1 seed)" in said and "head-2 (3 seeds)" in said
    assert_sound(figure)


def test_where_no_head_converged_there_is_a_note() -> None:
    spec, tables = made(RECIPES)
    runs = tables["runs"].assign(converged=False)
    frame, figure = drawn("transfer", spec, {**tables, "runs": runs})
    assert set(frame["n_not_converged"]) == {3}
    assert not figure.axes and "converged" in words(figure)


def test_heads_of_other_widths_share_the_network_without_one() -> None:
    recipes = [recipe("none"), *(recipe(f"as-{n}", head=headed(n)) for n in (1, 2))]
    recipes += [recipe(f"wide-{n}", head=headed(n, 64)) for n in (1, 2)]
    spec, tables = made(recipes)
    rows = of(drawn("transfer", spec, tables)[0], panel="transfer", which="features", part="mean")
    assert [list(part["recipe"]) for part in (rows.iloc[:3], rows.iloc[3:])] == [
        ["none", "as-1", "as-2"],
        ["none", "wide-1", "wide-2"],
    ]


def test_each_target_has_a_row() -> None:
    spec, tables = made(RECIPES, targets=("other", "third"))
    frame, figure = drawn("transfer", spec, tables)
    assert list(dict.fromkeys(frame["target"])) == ["other", "third"]
    assert "own → third" in words(figure)
    assert_sound(figure)


def test_without_other_data_there_is_nothing_to_draw() -> None:
    spec, tables = made(RECIPES, targets=())
    frame, figure = drawn("transfer", spec, tables)
    assert frame.empty
    assert "analysis.layer_probes.targets" in words(figure)
