"""What the report's interactive views hold: the numbers of the tables, packed small, and nothing cut without a word."""

import json
from typing import Any

import numpy as np
import pytest
from synthetic_report import many_recipes, many_tables
from synthetic_tables import Made, make

from featurespace import explorer
from featurespace.style import recipe_looks


@pytest.fixture(scope="module")
def made() -> Made:
    return make(n_seeds=3, epochs=6, n_components=5, stop_early=True)


@pytest.fixture(scope="module")
def views(made: Made) -> dict[str, Any]:
    found = explorer.views(made.spec["recipes"], made.dynamics, made.spectra, made.layers)
    assert found is not None
    return found


def test_numbers_are_packed_to_within_half_a_step() -> None:
    values = np.array([[0.0, 12.3456, 90.0], [np.nan, np.inf, 45.0]])
    packed = explorer.pack(values, 0.0, 90.0)
    found = explorer.unpack(packed)
    assert packed["shape"] == [2, 3]
    assert np.isnan(found[1, :2]).all()
    known = [0, 1, 2, 5]
    np.testing.assert_allclose(found.ravel()[known], values.ravel()[known], rtol=0, atol=0.5 * 90 / 65534 + 1e-12)


def test_shares_are_packed_by_their_logarithm() -> None:
    values = np.array([1.0, 0.3, 1e-7, 1e-19, 0.0, np.nan])
    found = explorer.unpack(explorer.pack_shares(values))
    np.testing.assert_allclose(found[:4], values[:4], rtol=4e-4)
    assert np.isnan(found[4:]).all()


def test_other_numbers_are_float32() -> None:
    values = np.array([1e-12, -3.5, np.nan, 1e9])
    np.testing.assert_allclose(explorer.unpack(explorer.pack_floats(values)), values, rtol=1e-7)


def test_no_text_ends_the_element_that_json_stands_in() -> None:
    value = {"name": "</script><!--<script>&amp;\u2028", "n": [1.5, None]}
    text = explorer.embedded_json(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value
    with pytest.raises(ValueError, match="JSON"):
        explorer.embedded_json(float("nan"))


def test_steps_in_between_are_left_out_evenly() -> None:
    assert explorer.thinned(3, 5).tolist() == [0, 1, 2]
    assert explorer.thinned(101, 5).tolist() == [0, 25, 50, 75, 100]
    assert explorer.thinned(9, 1).tolist() == [0, 8]


def test_recipes_look_as_in_the_figures(made: Made, views: dict[str, Any]) -> None:
    looks = recipe_looks(made.spec["recipes"])
    assert [(r["name"], r["colour"]) for r in views["recipes"]] == [(name, look.colour) for name, look in looks.items()]
    many = explorer.views(many_recipes(12), None, None, many_tables(many_recipes(12), n_steps=2)["layers"])
    assert many is not None
    assert [r["dashes"] for r in many["recipes"]][9:] == ["", "7 1.68", "7 1.68"]


def test_angles_are_those_of_the_table(made: Made, views: dict[str, Any]) -> None:
    part = views["datasets"][0]["angles"]
    assert part["references"][:2] == ["own", "data"] and part["notes"] == []
    row = part["rows"]["cnn"]
    angles = explorer.unpack(row["values"]["angle_deg"])
    assert angles.shape == (2, 3, len(row["epochs"]), len(part["references"]))
    table = made.dynamics[made.dynamics["recipe"] == "cnn"]
    for c, centring in enumerate(("raw", "centred")):
        for r, reference in enumerate(part["references"]):
            some = table[(table["centring"] == centring) & (table["reference"] == reference) & (table["seed"] == 2)]
            expected = some.groupby("epoch")["angle_deg"].mean().reindex(row["epochs"])
            np.testing.assert_allclose(angles[c, 2, :, r], expected, atol=1e-3)


def test_a_seed_that_stopped_early_keeps_its_last_value(made: Made, views: dict[str, Any]) -> None:
    row = views["datasets"][0]["angles"]["rows"]["mlp"]
    last = made.dynamics.loc[(made.dynamics["recipe"] == "mlp") & (made.dynamics["seed"] == 0), "epoch"].max()
    ended = row["epochs"].index(last)
    angles = explorer.unpack(row["values"]["angle_deg"])[0, 0]
    assert 0 < ended < len(row["epochs"]) - 1
    np.testing.assert_array_equal(angles[ended:], np.broadcast_to(angles[ended], angles[ended:].shape))


def test_a_step_that_some_seed_never_kept_is_left_out(made: Made) -> None:
    table = made.layers
    there = (table["recipe"] == "mlp") & (table["seed"] == 1) & (table["epoch"] == 2.0)
    found = explorer.layer_view(table[~there], made.spec["recipes"], "digits")
    assert found is not None
    assert 2.0 in found["rows"]["cnn"]["epochs"] and 2.0 not in found["rows"]["mlp"]["epochs"]


def test_spectra_and_layers_are_those_of_the_tables(made: Made, views: dict[str, Any]) -> None:
    digits = views["datasets"][0]
    row = digits["spectra"]["rows"]["mlp"]
    assert row["layers"] == ["hidden3"] and row["feature_layer"] == 0
    table = made.spectra[(made.spectra["recipe"] == "mlp") & (made.spectra["seed"] == 1)]
    some = table[(table["epoch"] == 1.0) & (table["centring"] == "centred")].sort_values("component")
    shares = explorer.unpack(row["shares"])[1, 1, row["epochs"].index(1.0), 0]
    np.testing.assert_allclose(shares, some["variance_share"], rtol=4e-4)
    assert next(iter(digits["spectra"]["rows"])) == "data"

    row = digits["layers"]["rows"]["cnn"]
    assert row["layers"] == ["conv1", "conv2", "conv3", "hidden"] and row["depths"] == [1, 2, 3, 4]
    measure = digits["layers"]["measures"].index("discrimination")
    values = explorer.unpack(row["values"])[2, row["epochs"].index(3.0), :, measure]
    table = made.layers[(made.layers["recipe"] == "cnn") & (made.layers["seed"] == 2) & (made.layers["epoch"] == 3.0)]
    np.testing.assert_allclose(values, table.sort_values("depth")["discrimination"], rtol=1e-6)


def test_views_open_at_what_is_worth_seeing_first(made: Made, views: dict[str, Any]) -> None:
    digits, orthonormal = views["datasets"]
    # a run is at 0° from its own last step whatever it does
    assert digits["angles"]["opens_at"] == "data"
    # the latent layer of the autoencoders is the third, the hidden one of the cnn the fourth
    assert (digits["layers"]["opens_at"], orthonormal["layers"]["opens_at"]) == (4, 5)
    recipes = [recipe | {"feature_layer": "conv2"} for recipe in made.spec["recipes"]]
    shallow = explorer.layer_view(made.layers, recipes, "digits")
    assert shallow is not None and shallow["opens_at"] == 2
    none = explorer.layer_view(made.layers, [r | {"feature_layer": "gone"} for r in recipes], "digits")
    assert none is not None and none["opens_at"] == 4

    def opened(*references: str, recipes: list[dict[str, Any]] = made.spec["recipes"]) -> str:
        table = made.dynamics[made.dynamics["reference"].isin(references)]
        part = explorer.angle_view(table, recipes, "digits")
        assert part is not None
        return part["opens_at"]

    assert opened("own") == "own"
    assert opened("own", "cnn", "mlp") == "mlp"  # in the study's order
    # a recipe has no curve to itself but to its other seeds
    assert opened("own", "mlp", recipes=made.spec["recipes"][:1]) == "seeds"


def test_what_a_study_has_not_is_not_shown(made: Made) -> None:
    recipes = made.spec["recipes"]
    assert explorer.views(recipes, None, None, None) is None
    found = explorer.views(recipes, None, None, made.layers)
    assert found is not None
    assert [dataset["angles"] for dataset in found["datasets"]] == [None, None]
    nothing = made.dynamics.iloc[:0]
    assert explorer.views(recipes, nothing, None, None) is None


@pytest.mark.parametrize("n_recipes, n_seeds", [(200, 1), (40, 5)], ids=["200 recipes", "40 recipes of 5 seeds"])
def test_two_hundred_runs_stay_small_and_say_what_is_left_out(n_recipes: int, n_seeds: int) -> None:
    recipes = many_recipes(n_recipes)
    tables = many_tables(recipes, n_seeds)
    found = explorer.views(recipes, tables["dynamics"], tables["spectra"], tables["layers"])
    assert found is not None
    assert len(explorer.embedded_json(found)) < 5e6
    (dataset,) = found["datasets"]
    assert set(dataset["angles"]["rows"]) == {recipe["name"] for recipe in recipes}
    assert "of 30 reference recipes the first 24 are shown" in dataset["angles"]["notes"]
    for row in dataset["angles"]["rows"].values():
        assert row["epochs"][0] == 0 and row["epochs"][-1] == 20


def test_seeds_are_averaged_before_steps_become_few(monkeypatch: pytest.MonkeyPatch) -> None:
    recipes = many_recipes(4)
    tables = many_tables(recipes, n_seeds=5, n_steps=30)
    # as many numbers as 13 steps of means have, and not of all seeds
    monkeypatch.setattr(explorer, "MOST_VALUES", 13 * 4 * 2 * 20 * 3)
    part = explorer.spectrum_view(tables["spectra"], recipes, "digits")
    assert part is not None
    row = part["rows"]["recipe-001"]
    assert row["seeds"] is None and part["notes"][0] == "numbers are means over seeds"
    assert len(row["epochs"]) >= explorer.LEAST_STEPS and row["layers"] == ["hidden1", "hidden2", "hidden3"]
    step = int(row["epochs"][3])
    some = tables["spectra"]
    some = some[(some["recipe"] == "recipe-001") & (some["step"] == step) & (some["centring"] == "raw")]
    some = some[some["layer"] == "hidden2"]
    expected = np.exp(np.log(some["variance_share"]).groupby(some["component"]).mean())
    np.testing.assert_allclose(explorer.unpack(row["shares"])[0, 0, 3, 1], expected, rtol=4e-4)
    # and with room for hardly anything, of each recipe only the layer that stands for it
    monkeypatch.setattr(explorer, "MOST_VALUES", 4 * 2 * 20 * 13)
    part = explorer.spectrum_view(tables["spectra"], recipes, "digits")
    assert part is not None and part["rows"]["recipe-001"]["layers"] == ["hidden3"]
    assert "of each recipe its feature layer is shown" in part["notes"]


def test_a_recipe_without_any_determined_vector_has_missing_numbers(made: Made) -> None:
    table = made.dynamics.assign(
        angle_deg=np.where(made.dynamics["recipe"] == "cnn", np.nan, made.dynamics["angle_deg"])
    )
    part = explorer.angle_view(table, made.spec["recipes"], "digits")
    assert part is not None
    assert np.isnan(explorer.unpack(part["rows"]["cnn"]["values"]["angle_deg"])).all()
    assert np.isfinite(explorer.unpack(part["rows"]["mlp"]["values"]["angle_deg"])).all()
