"""Figures of the theory of deep linear networks: what their tables hold, and that they draw whatever a study has."""

import math
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from featurespace.figures import assumptions, law_sweep, layer_theory
from featurespace.preparation import orthonormal_rows
from featurespace.rules import RULES
from featurespace.style import save_figure
from featurespace.tables import read_table
from featurespace.theory import tabulate_theory

FIGURES = {"layer_theory": layer_theory, "law_sweep": law_sweep, "assumptions": assumptions}
LONG = "a-very-long-name-for-a-recipe-of-48-characters-x"


def dataset(name: str = "rows", n: int = 10, k: int = 3, d: int = 50, noise: float = 1.0) -> dict[str, Any]:
    facts = {"name": name, "kind": "orthonormal", "classes": k, "n_train": n * k, "n_samples": n * k}
    return facts | {"noise": noise, "dimension": d}


def recipe(
    name: str,
    depth: int = 6,
    width: int = 50,
    scale: float = 0.3,
    alpha: float = 1.0,
    *,
    on: str = "rows",
    of: str = "",
) -> dict[str, Any]:
    return {
        "name": name,
        "dataset": on,
        "task": "classify",
        "kind": "linear",
        "loss": "mse",
        "model": {"kind": "linear", "depth": depth, "width": width},
        "init": {"scheme": "orthogonal", "scale": scale},
        "output_scale": alpha,
        "head": None,
        "epochs": 5000,
        "population": of,
        "n_seeds": 2,
    }


def study(recipes: list[dict[str, Any]], *datasets: dict[str, Any]) -> dict[str, Any]:
    mlp = recipe("mlp") | {"kind": "mlp", "model": {"kind": "mlp", "widths": [4]}, "init": {"scheme": "default"}}
    return {"recipes": [*recipes, mlp], "datasets": [*(datasets or (dataset(),))]}


def table_of(
    about: dict[str, Any], data: dict[str, Any], *, seeds: int = 2, converged: Any = True, doubtful_from: int = 99
) -> pd.DataFrame:
    """Make up a `theory.csv`: what is measured is the prediction, 2 % less a layer, 1 % more a seed."""
    k, alpha = data["classes"], about["output_scale"]
    samples, labels = orthonormal_rows(data["n_train"] // k, k, data["dimension"], data["noise"], 2)
    depth = about["model"]["depth"]
    names = ["input", *(f"linear{i}" for i in range(1, depth))]
    ratio = about["init"]["scale"] ** 2 * (alpha**2 * k / data["n_train"]) ** (1 / depth)
    layers, networks = [], []
    for seed in range(seeds):
        when = {"seed": seed, "step": 9, "epoch": 9.0}
        for layer, name in enumerate(names):
            c, d = 13.5 * (0.98 * ratio) ** layer * 1.01**seed, 0.9 + 0.09 * layer / depth
            there = {"layer": name, "depth": layer, "compression": c, "discrimination": d}
            layers.append(when | there | {"reliable": layer < doubtful_from})
            if layer:
                networks.append(when | {"layer": name, "depth": layer, "quantity": "balancedness", "value": 9.0})
        for quantity, value in (("balancedness", 0.03), ("min_norm_residual", 0.05), ("low_rankness", 1e-13)):
            at = {"layer": "", "depth": math.nan, "quantity": quantity, "value": value * (1 + seed / 10)}
            networks.append(when | at)
    every = pd.DataFrame(layers)
    spec = {"recipe": about["name"], "block": 0, "dataset": about["dataset"], "seeds": list(range(seeds)), "classes": k}
    spec |= {"model": about["model"], "scale": about["init"]["scale"], "output_scale": alpha}
    flags = {str(seed): converged[seed] if isinstance(converged, list) else converged for seed in range(seeds)}
    inputs = every[(every["depth"] == 0) & (every["seed"] == 0)]
    return tabulate_theory(samples, labels, every[every["depth"] > 0], pd.DataFrame(networks), inputs, flags, spec)


def tables_of(spec: dict[str, Any], **changes: dict[str, Any]) -> pd.DataFrame:
    """Make up the tables of all deep linear networks; `changes` are options of `table_of` by recipe."""
    datasets = {data["name"]: data for data in spec["datasets"]}
    linear = [about for about in spec["recipes"] if about["kind"] == "linear"]
    options = {name.replace("_", "-"): some for name, some in changes.items()}
    parts = [table_of(about, datasets[about["dataset"]], **options.get(about["name"], {})) for about in linear]
    return pd.concat(parts, ignore_index=True)


SWEEP = [
    recipe("base"),
    *(recipe(f"scale-{scale}", scale=scale, of="sweep") for scale in (0.1, 0.2, 0.5)),
    *(recipe(f"depth-{depth}", depth=depth, of="sweep") for depth in (3, 4, 8)),
    *(recipe(f"alpha-{alpha}", alpha=alpha, of="sweep") for alpha in (10, 100)),
    recipe("n-20", width=75, on="more", of="sweep"),
    recipe("k-5", width=75, on="five", of="sweep"),
    recipe("wide", width=80, of="sweep"),
    recipe("both", depth=4, alpha=10, of="sweep"),
]
SWEPT = (dataset(), dataset("more", n=20, d=75), dataset("five", k=5, d=75))
E3 = [recipe(f"depth-{depth}", depth, 400, 0.1, of="assumptions") for depth in (2, 3, 4, 5)]
E3 += [recipe(f"width-{width}", 5, width, 0.1, of="assumptions") for width in (200, 300, 500, 600, 700)]
STUDIES = {
    "one recipe": study([recipe("linear")]),
    "six recipes, long names": study([recipe(f"{i}{LONG}"[:48], alpha=1 + 9 * i) for i in range(6)]),
    "a sweep": study(SWEEP, *SWEPT),
    "assumptions": study(E3),
    "two layers": study([recipe("shallow", depth=2)]),
    "too narrow to predict": study([recipe("narrow", width=20)]),
}


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
    for axes in figure.axes:
        content = [line for line in axes.lines if np.isfinite(line.get_xydata().astype(float)).all(axis=1).any()]
        assert content or axes.texts, f"empty panel: {axes.get_title(loc='left')}"
        titles = [title for title in (axes.title, axes._left_title, axes._right_title) if title.get_text()]
        for i, title in enumerate(titles):
            for other in titles[i + 1 :]:
                assert not title.get_window_extent(renderer).overlaps(other.get_window_extent(renderer))
    lefts = [axes.title.axes._left_title for axes in figure.axes if axes.get_title(loc="left")]
    for i, title in enumerate(lefts):
        for other in lefts[i + 1 :]:
            assert not title.get_window_extent(renderer).overlaps(other.get_window_extent(renderer))


def text_of(figure: Figure) -> str:
    parts = [*figure.texts, *(text for axes in figure.axes for text in (*axes.texts, *axes.get_yticklabels()))]
    return "\n".join(text.get_text() for text in parts)


@pytest.fixture(scope="module", params=STUDIES)
def made(request: pytest.FixtureRequest) -> tuple[dict[str, Any], pd.DataFrame]:
    spec = STUDIES[request.param]
    return spec, tables_of(spec)


@pytest.mark.parametrize("module", FIGURES.values(), ids=FIGURES)
def test_every_figure_survives_every_study(module: ModuleType, made) -> None:
    spec, tables = made
    assert_sound(module.draw(module.tidy(tables, spec), spec))


@pytest.mark.parametrize("module", FIGURES.values(), ids=FIGURES)
def test_a_figure_is_its_table_and_the_same_each_time(module: ModuleType, tmp_path) -> None:
    """Drawn anew from the CSV, the files agree to the byte."""
    spec = study([recipe("six"), recipe("four", depth=4, of="sweep")])
    frame = module.tidy(tables_of(spec), spec)
    first, second = ({kind: tmp_path / f"{i}.{kind}" for kind in ("svg", "png", "csv")} for i in "ab")
    save_figure(module.draw(frame, spec), frame, **first, dpi=40)
    again = read_table(first["csv"])
    save_figure(module.draw(again, spec), again, **second, dpi=40)
    for kind in first:
        assert first[kind].read_bytes() == second[kind].read_bytes()


@pytest.mark.parametrize("module", FIGURES.values(), ids=FIGURES)
def test_a_study_without_such_networks_gets_a_note(module: ModuleType) -> None:
    spec = study([])
    figure = module.draw(module.tidy(pd.DataFrame(), spec), spec)
    assert not figure.axes
    assert "No deep linear network" in text_of(figure)


@pytest.mark.parametrize("module", FIGURES.values(), ids=FIGURES)
def test_runs_that_did_not_converge_are_named_and_not_drawn(module: ModuleType) -> None:
    spec = study([recipe("good"), recipe("half"), recipe("bad")])
    asked = {"good": {"converged": None}, "half": {"converged": [True, False]}, "bad": {"converged": False}}
    tables = tables_of(spec, **asked)
    frame = module.tidy(tables, spec)
    measured = "value" if module is assumptions else "measured"
    drawn = frame.dropna(subset=[measured])
    assert dict(drawn.groupby("recipe")["n_seeds"].max()) == {"good": 2, "half": 1}
    assert dict(frame.groupby("recipe")["n_not_converged"].max()) == {"bad": 2, "good": 0, "half": 1}
    figure = module.draw(frame, spec)
    assert_sound(figure)
    words = " ".join(text_of(figure).split())
    assert "not drawn: half (1 seed), bad (2 seeds)" in words
    only_bad = tables[tables["recipe"] == "bad"]
    note = module.draw(module.tidy(only_bad, spec), spec)
    assert not note.axes
    assert "bad" in text_of(note)


# --- layer_theory -----------------------------------------------------------------------------------------------------


def test_layers_are_averaged_over_seeds_beside_their_predictions() -> None:
    spec = study(SWEEP, *SWEPT)
    tables = tables_of(spec, base={"doubtful_from": 4})
    frame = layer_theory.tidy(tables, spec)
    assert set(frame["recipe"]) == {"base"}  # members of sweeps are for the other figure
    by = frame.set_index(["quantity", "depth"])
    ours = tables[(tables["recipe"] == "base") & (tables["depth"] == 3)].set_index("quantity")
    c = ours.loc["compression", "measured"].to_numpy(float)
    assert by.loc[("compression", 3), "measured"] == pytest.approx(np.sqrt(c[0] * c[1]), rel=1e-12)
    assert by.loc[("compression", 3), ["low", "high"]].tolist() == sorted(c)
    d = ours.loc["discrimination", "measured"].to_numpy(float)
    assert by.loc[("discrimination", 3), "measured"] == pytest.approx(d.mean())
    for name in ("law", "predicted", "lower", "upper"):
        assert by.loc[("compression_ratio", 3), name] == ours.loc["compression_ratio", name].iloc[0]
    assert list(frame.loc[frame["quantity"] == "compression", "depth"]) == [0, 1, 2, 3, 4, 5]
    assert list(frame.loc[frame["quantity"] == "compression", "reliable"]) == [True] * 4 + [False] * 2
    assert list(frame.loc[frame["quantity"] == "compression_ratio", "depth"]) == [1, 2, 3, 4, 5]


def test_the_setting_stands_above_its_row_and_what_cannot_be_predicted_is_said() -> None:
    spec = study([recipe("linear", alpha=10), recipe("narrow", width=20)])
    text = text_of(layer_theory.draw(layer_theory.tidy(tables_of(spec), spec), spec))
    assert "L = 6, width 50, ξ = 0.3, α = 10, K = 3, n = 10\n" in text
    assert "L = 6, width 20, ξ = 0.3, α = 1, K = 3, n = 10; no prediction" in text


# --- law_sweep --------------------------------------------------------------------------------------------------------


def test_ratios_are_geometric_means_over_layers_but_the_first() -> None:
    spec = study(SWEEP, *SWEPT)
    tables = tables_of(spec, base={"doubtful_from": 4})
    first = (tables["quantity"] == "compression_ratio") & (tables["depth"] == 1)
    tables.loc[first, "measured"] = 1e6  # whatever it is, it is no part of the law
    frame = law_sweep.tidy(tables, spec).set_index("recipe")
    assert list(frame.index) == [about["name"] for about in SWEEP]
    np.testing.assert_allclose(frame["deviation_percent"], -2, rtol=1e-9)
    law = [0.3**2 * 10 ** (-1 / 6), 0.3**2 * 10 ** (-1 / 3), 0.3**2 * (100**2 / 10) ** (1 / 6), 0.3**2 * 20 ** (-1 / 6)]
    np.testing.assert_allclose(frame.loc[["base", "depth-3", "alpha-100", "n-20"], "law"], law, rtol=1e-12)
    assert frame["n_layers"].to_dict() == dict.fromkeys(frame.index, 4) | {
        "base": 2,  # of layers 2 to 5, two are too small to be reliable
        "depth-3": 1,
        "depth-4": 2,
        "both": 2,
        "depth-8": 6,
    }


def test_a_recipe_is_known_by_what_it_varies() -> None:
    spec = study(SWEEP, *SWEPT)
    varies = law_sweep.settings_of(spec)["factor"].to_dict()
    expected = {"base": "none", "n-20": "samples_per_class", "k-5": "classes", "wide": "width", "both": "several"}
    for name, factor in (("scale", "scale"), ("depth", "depth"), ("alpha", "output_scale")):
        expected |= {about["name"]: factor for about in SWEEP if about["name"].startswith(f"{name}-")}
    assert varies == expected
    text = text_of(law_sweep.draw(law_sweep.tidy(tables_of(spec), spec), spec)).split("\n")
    for label in ("the usual setting", "ξ = 0.1", "L = 8", "α = 100", "n = 20", "K = 5", "width = 80", "L = 4, α = 10"):
        assert label in text


def test_settings_that_look_the_same_go_by_their_names() -> None:
    spec = study([recipe("a"), recipe("b"), recipe("c", alpha=10)])
    text = text_of(law_sweep.draw(law_sweep.tidy(tables_of(spec), spec), spec)).split("\n")
    assert {"a", "b", "α = 10"} <= set(text)


# --- assumptions ------------------------------------------------------------------------------------------------------


def test_residuals_lie_along_depth_and_along_width() -> None:
    spec = study(E3)
    frame = assumptions.tidy(tables_of(spec), spec)
    measured = frame[frame["source"] == "measured"]
    along = measured[measured["quantity"] == "balancedness"]
    assert list(along.loc[along["panel"] == "depth", "depth"]) == [2, 3, 4, 5]
    assert set(along.loc[along["panel"] == "depth", "width"]) == {400}
    assert sorted(along.loc[along["panel"] == "width", "width"]) == [200, 300, 400, 500, 600, 700]
    # the mean over layers, not a layer's; the mean of two seeds
    np.testing.assert_allclose(along["value"], 0.03 * 1.05)
    np.testing.assert_allclose(along["sd"], 0.03 * 0.1 / np.sqrt(2))
    laws = along[along["panel"] == "depth"].sort_values("depth")["law"]
    np.testing.assert_allclose(laws, [0.0229, 0.0664, 0.0477, 0.0373], atol=6e-5)


def test_published_points_are_there_for_the_paper_s_setting_only() -> None:
    spec = study(E3)
    published = assumptions.tidy(tables_of(spec), spec).query("source == 'published'")
    assert len(published) == 2 * (4 + 6)  # along width, the one at 400 too
    assert "low_rankness" not in set(published["quantity"])
    at = published.query("quantity == 'min_norm_residual' and panel == 'width' and width == 700")
    assert at["value"].tolist() == [0.029]
    others = {
        "another scale": study([about | {"init": {"scheme": "orthogonal", "scale": 0.3}} for about in E3]),
        "other data": study(E3, dataset(noise=2.0)),
        "another output scale": study([about | {"output_scale": 2.0} for about in E3]),
        "another width": study([recipe(f"d{depth}", depth, 100, 0.1) for depth in (2, 3, 4)]),
    }
    for name, other in others.items():
        assert (assumptions.tidy(tables_of(other), other)["source"] != "published").all(), name


def test_published_points_are_those_of_the_decision_rules() -> None:
    rules = yaml.safe_load((RULES / "layerwise.yaml").read_text(encoding="utf-8"))
    claims = {rule["claim"]: rule for rule in rules["claims"]}
    for quantity, claim in (("balancedness", "t5-balance-{family}"), ("min_norm_residual", "t5-min-norm-{family}")):
        assert claims[claim]["arguments"] == {"quantity": quantity}
        points = {entry["family"]: entry["published"] for entry in claims[claim]["each"]}
        drawn = {
            f"e3-depth-{depth}" if width == 400 else f"e3-width-{width}": value
            for depth, width, value in assumptions.PUBLISHED[quantity]
        }
        assert drawn == points


def test_published_points_are_hollow_and_said_to_be_digitised() -> None:
    spec = study(E3)
    figure = assumptions.draw(assumptions.tidy(tables_of(spec), spec), spec)
    marks = [line for line in figure.axes[1].lines if line.get_marker() == "D"]
    assert [len(line.get_xdata()) for line in marks] == [4]
    assert marks[0].get_markerfacecolor() == "none"
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "digitised from the authors' figure" in labels


def test_a_panel_keeps_its_width_where_a_run_failed() -> None:
    spec = study(E3)
    failed = {f"width_{width}": {"converged": False} for width in (200, 300, 500, 600, 700)}
    frame = assumptions.tidy(tables_of(spec, **failed, depth_5={"converged": False}), spec)
    drawn = frame[(frame["panel"] == "width") & (frame["source"] == "measured")]
    assert drawn.empty  # depth 5 is what most share, though none of it converged
    assert_sound(assumptions.draw(frame, spec))
