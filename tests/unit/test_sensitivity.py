"""What angles depend on: every factor against features changed by hand, and the control near its null."""

import numpy as np
import pandas as pd
import pytest
import reference
import xarray as xr
from sklearn.datasets import load_digits
from synthetic_stores import run_script

from featurespace import sensitivity
from featurespace.sensitivity import COLUMNS, Network, assess, make_design, vectors_of
from featurespace.stores import FeatureWriter, sample_hash, store_draft, write_digest, write_group

SHARES = (0.125, 0.5, 1.0)
CENTRINGS = ("raw", "centred")
N, M = 600, 400  # samples in the sample set, and held out


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


def projected(pixels, width, seed):
    """The features of an untrained network: rectified projections of the pixels, on random but related directions."""
    rng = np.random.default_rng(seed)
    common = np.random.default_rng(0).normal(size=(64, 3)) * [3, 2, 1]
    weights = (common @ rng.normal(size=(3, width)) + rng.normal(size=(64, width))) / 64
    return np.maximum(pixels @ weights, 0).astype(np.float32)


def p_vectors(matrix):
    return np.stack([reference.svd(matrix, centring)[0][:, 0] for centring in CENTRINGS])


def assert_same_axes(found, expected, tolerance_deg=1e-6):
    assert found.shape == expected.shape
    for p, q in zip(found, expected, strict=True):
        assert np.linalg.norm(p) == pytest.approx(1, abs=1e-12)
        assert reference.angle_deg(p, q) < tolerance_deg


# --- the design ---------------------------------------------------------------------------------------------------


def test_subsets_are_nested_and_stratified():
    labels = np.repeat([0, 1, 2, 5], [400, 200, 100, 7])
    design = make_design(labels, 30, (0.125, 0.25, 0.5, 1.0), 3)
    previous = np.array([], dtype=int)
    for share, rows in design.subsets.items():
        assert len(rows) == round(share * 707)
        assert (np.diff(rows) > 0).all()
        assert set(previous) <= set(rows)
        for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
            assert abs(np.sum(labels[rows] == label) - share * count) <= 1
        previous = rows
    own, held_out = design.matched
    assert len(own) == len(held_out) == len(np.unique(own)) == 30
    assert own.max() >= 30  # from anywhere in the sample set
    assert sorted(held_out) == list(range(30))


def test_the_seed_decides_the_design():
    labels = np.arange(200) % 4
    a, b, c = (make_design(labels, 50, (0.5,), seed).subsets[0.5] for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert set(a) != set(c)


# --- P-vectors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [3, 40, 120], ids=["tall", "nearly-square", "wide"])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_p_vectors_are_those_of_the_singular_value_decomposition(width, offset):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(50, width)) * np.linspace(1, 5, width) + offset * rng.normal(size=width)
    assert_same_axes(sensitivity.leading_vectors(matrix), p_vectors(matrix))


def test_constant_features_have_a_raw_p_vector_at_most():
    raw, centred = sensitivity.leading_vectors(np.full((20, 3), 2.0, dtype=np.float32))
    np.testing.assert_allclose(np.abs(raw), 20**-0.5)
    assert np.isnan(centred).all()
    assert np.isnan(sensitivity.leading_vectors(np.zeros((20, 3), dtype=np.float32))).all()


@pytest.mark.parametrize("width", [20, 700], ids=["tall", "wide"])
def test_every_factor_changes_what_it_says(digits, width):
    features = projected(digits[0], width, 1)
    own, held_out = features[:N], features[N : N + M]
    own[:, 4] = 7.5  # a feature without any variation is left as it is
    design = make_design(digits[1][:N], M, SHARES, 0)
    vectors = vectors_of(own, held_out, design, "a", 0)
    plain = p_vectors(own)
    for key in (("samples", "1"), ("features", "1"), ("split", "train"), ("normalisation", "none")):
        assert_same_axes(vectors[key], plain)
    for share in SHARES[:2]:
        assert_same_axes(vectors["samples", f"{share:g}"], p_vectors(own[design.subsets[share]]))
    assert_same_axes(vectors["split", "test"], p_vectors(held_out))
    lengths = np.linalg.norm(own.astype(np.float64), axis=1, keepdims=True)
    assert_same_axes(vectors["normalisation", "unit-rows"], p_vectors(own / lengths))
    deviations = own.std(axis=0, dtype=np.float64)
    deviations[deviations < 1e-6] = 1
    assert_same_axes(vectors["normalisation", "standardised-features"], p_vectors(own / deviations), 1e-5)
    matched = design.matched
    assert_same_axes(vectors["matched", "own"], p_vectors(own[matched[0]]))
    assert_same_axes(vectors["matched", "held-out"], p_vectors(held_out[matched[1]]))


def test_a_sample_without_any_feature_stays_without():
    own = np.random.default_rng(0).normal(size=(50, 4)) + 2
    own[3] = 0
    vectors = vectors_of(own, own[:0], make_design(np.zeros(50), 0, (1.0,), 0))
    p = vectors["normalisation", "unit-rows"][0]
    assert abs(p[3]) < 1e-12 < np.abs(np.delete(p, 3)).min()


def test_parts_of_the_features_are_the_networks_own_and_at_least_two():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 10)) + 0.5
    design = make_design(np.arange(60) % 3, 0, (0.125, 0.5), 0)
    found = {}
    for seed in range(6):
        vectors = vectors_of(features, features[:0], design, "a", seed)
        for level, k in (("0.125", 2), ("0.5", 5)):
            p = vectors["features", level][0]
            # Raw, the P-vector lies in the span of the columns it is of: exactly one set of k columns explains it.
            weights = np.linalg.lstsq(features, p, rcond=None)[0]
            assert np.linalg.norm(features @ weights - p) < 1e-10
            assert np.sum(np.abs(weights) > 1e-10) == k
            found.setdefault(level, set()).add(tuple(np.flatnonzero(np.abs(weights) > 1e-10)))
        assert set(found["0.125"]) and ("split", "test") not in vectors and ("matched", "own") not in vectors
    assert len(found["0.5"]) > 1


# --- recipes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (["a"], {"last": "a"}),
        (["a", "b"], {"first": "a", "last": "b"}),
        (["a", "b", "c"], {"first": "a", "middle": "b", "last": "c"}),
        (list("abcde"), {"first": "a", "middle": "c", "last": "e"}),
    ],
    ids=["one", "two", "three", "five"],
)
def test_depths_are_of_different_layers(layers, expected):
    assert sensitivity.depth_levels(layers) == expected


def test_widths_are_of_recipes_that_differ_in_their_model_only():
    def recipe(name, /, task="classify", kind="cnn", **model):
        return {"name": name, "task": task, "kind": kind, "model": {"kind": kind} | model}

    recipes = [
        recipe("a", channels=[8]),
        recipe("b", channels=[16]),
        recipe("c", task="simclr", channels=[16]),
        recipe("d", kind="mlp", widths=[8]),
        recipe("e", channels=[8]),
        recipe("f", task="noise", kind="noise", width=8, rectified=False),
        recipe("g", task="noise", kind="noise", width=8, rectified=True),
        recipe("h", channels=[8, 16]),  # deeper
        recipe("i", kind="torchvision", name="resnet18"),
        recipe("j", kind="torchvision", name="resnet50"),
        recipe("k", kind="wide-resnet", depth=28, widen=2),
        recipe("l", kind="wide-resnet", depth=28, widen=10),
        recipe("m", kind="wide-resnet", depth=16, widen=10),
    ]
    assert sensitivity.width_pairs(recipes) == [("a", "b"), ("b", "e"), ("k", "l")]


# --- comparison -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def assessed(digits):
    """Two widths of random networks with two ends, and noise with one, two seeds each, on digits."""
    pixels, labels = digits
    matrices = {
        (name, seed, stage): projected(pixels[: N + M], width, 100 * width + 10 * seed + (stage == "last"))
        for name, width in (("narrow", 12), ("wide", 40))
        for seed in (0, 1)
        for stage in ("first", "last")
    }
    rng = np.random.default_rng(0)
    matrices |= {("noise", seed, "last"): rng.normal(size=(N + M, 8)).astype(np.float32) for seed in (0, 1)}

    def network(name, seed, width):
        def load(stage):
            return np.split(matrices[name, seed, stage], [N])

        def load_depth(level, stage):
            columns = {"first": 4, "last": width}[level]
            return p_vectors(matrices[name, seed, stage][:N, :columns])

        stages = tuple(stage for stage in ("first", "last") if (name, seed, stage) in matrices)
        depths = {"last": 1.0} if name == "noise" else {"first": 0.5 if name == "wide" else 0.25, "last": 1.0}
        return Network(name, seed, width, stages, load, depths, load_depth)

    networks = [
        network(*x) for x in [(n, s, w) for n, w in (("narrow", 12), ("wide", 40), ("noise", 8)) for s in (0, 1)]
    ]
    design = make_design(labels[:N], M, SHARES, 0)
    table = assess("digits", networks, design, [("narrow", "wide")])
    return matrices, design, table


def chosen(table, factor, level, relation, a, b, centring):
    query = {"factor": factor, "level": level, "relation": relation, "centring": centring}
    query |= {"recipe_a": a[0], "seed_a": a[1], "recipe_b": b[0], "seed_b": b[1]}
    rows = table[np.logical_and.reduce([table[name] == value for name, value in query.items()])]
    assert len(rows) == 1
    return rows.iloc[0]


def test_the_table_has_a_row_for_every_comparison(assessed):
    *_, table = assessed
    assert list(table.columns) == COLUMNS
    keys = COLUMNS[:3] + COLUMNS[4:10]
    assert not table.duplicated(keys).any()
    counts = table.groupby(["factor", "level", "relation"]).size().to_dict()
    # three recipes: three with themselves, and three pairs at either seed
    between, start_to_end = 2 * (3 + 6), 2 * 4
    simple = [("samples", f"{share:g}") for share in SHARES] + [("features", f"{share:g}") for share in SHARES]
    simple += [("split", "train"), ("split", "test"), ("mismatch", "disjoint"), ("mismatch", "shuffled")]
    simple += [("normalisation", level) for level in ("none", "unit-rows", "standardised-features")]
    expected = {(*key, "between"): between for key in [*simple, ("depth", "last")]}
    expected |= {(*key, "start_to_end"): start_to_end for key in [*simple, ("depth", "last"), ("depth", "first")]}
    # noise has one layer only
    expected |= {("depth", "first", "between"): 2 * (2 + 2), ("width", "narrow~wide", "between"): 2 * 2}
    assert counts == expected
    assert np.isfinite(table[["angle_deg", "cosine", "correlation", "null_formula_deg"]]).all(axis=None)


@pytest.mark.parametrize("centring", CENTRINGS)
def test_a_share_of_one_is_the_plain_angle(assessed, centring):
    matrices, _, table = assessed
    c = CENTRINGS.index(centring)
    for relation, a, b in (
        ("between", ("narrow", 0, "last"), ("wide", 0, "last")),
        ("between", ("wide", 0, "last"), ("wide", 1, "last")),
        ("between", ("wide", 1, "last"), ("noise", 1, "last")),
        ("start_to_end", ("narrow", 1, "first"), ("narrow", 1, "last")),
    ):
        p, q = (p_vectors(matrices[x][:N])[c] for x in (a, b))
        for factor, level in (
            ("samples", "1"),
            ("features", "1"),
            ("split", "train"),
            ("normalisation", "none"),
            ("depth", "last"),
        ):
            row = chosen(table, factor, level, relation, a, b, centring)
            assert row["angle_deg"] == pytest.approx(reference.angle_deg(p, q), abs=1e-6)
            assert row["cosine"] == pytest.approx(np.cos(np.radians(row["angle_deg"])), abs=1e-9)
            assert row["correlation"] == pytest.approx(reference.correlation(p, q), abs=1e-8)
            assert row["n_samples"] == N


def test_values_say_how_much_there_is(assessed):
    *_, table = assessed
    value = table.drop_duplicates(["factor", "level", "recipe_a", "recipe_b"]).set_index(
        ["factor", "level", "recipe_a", "recipe_b"]
    )["value"]
    assert value["samples", "0.125", "wide", "wide"] == 0.125
    assert value["features", "0.5", "wide", "noise"] == 0.5
    assert value["depth", "first", "narrow", "wide"] == pytest.approx(0.375)
    assert value["depth", "first", "wide", "wide"] == pytest.approx(0.5)
    assert value["width", "narrow~wide", "narrow", "wide"] == pytest.approx(40 / 12)
    assert table.loc[table["factor"].isin(["split", "normalisation", "mismatch"]), "value"].isna().all()
    sizes = table.groupby(["factor", "level"])["n_samples"].unique()
    assert sizes["samples", "0.125"] == [75]
    assert sizes["split", "test"] == sizes["mismatch", "disjoint"] == [M]


def test_other_samples_and_shuffled_rows_are_as_far_apart_as_chance_says(assessed):
    *_, table = assessed
    related = table[(table["recipe_a"] != "noise") & (table["recipe_b"] != "noise")]
    plain = related[(related["factor"] == "normalisation") & (related["level"] == "none")]
    control = related[related["factor"] == "mismatch"]
    assert (plain["correlation"].groupby(plain["centring"]).mean() > 0.3).all()
    for (_, centring), rows in control.groupby(["level", "centring"]):
        n_samples = rows["n_samples"].iloc[0]
        assert (rows["correlation"].abs() < 4.5 / np.sqrt(n_samples)).all()
        distance = rows["angle_deg"] - rows["null_formula_deg"]
        assert abs(distance.mean()) < {"raw": 1.0, "centred": 2.5}[centring]


def test_a_data_set_in_the_order_of_its_classes_gives_no_false_match(digits):
    pixels, labels = digits
    order = np.argsort(labels, kind="stable")
    features = projected(pixels, 20, 1)
    halves = features[order[::2]], features[order[1::2]]
    by_row = [p_vectors(half)[1][:898] for half in halves]
    assert reference.angle_deg(*by_row) < 60  # matched by row, and so by class
    design = make_design(labels[order[::2]], len(halves[1]), (1.0,), 0)
    vectors = vectors_of(*halves, design)
    matched = [vectors["matched", level][1] for level in ("own", "held-out")]
    assert reference.angle_deg(*matched) > 80


def write_stores(folder, name, matrices, layers, labels):
    """Write ends.zarr and spectra.zarr of one run: matrices (step, sample, feature) of one seed."""
    ids = np.arange(N + M)
    folder = folder / name
    folder.mkdir()
    with store_draft(folder / "ends.zarr") as draft:
        writer = FeatureWriter(
            draft,
            layers={layers[-1]: matrices.shape[2]},
            seeds=[0],
            steps=np.arange(len(matrices)),
            epochs=np.arange(len(matrices)) * 1.0,
            sample_ids=ids,
            labels=labels,
            attrs={"n_sample_set": N, "sample_set_hash": sample_hash(ids[:N])},
        )
        for j, matrix in enumerate(matrices):
            writer.write(layers[-1], 0, j, 0, matrix)
    write_digest(folder / "ends.zarr", folder / "ends.json")
    with store_draft(folder / "spectra.zarr") as draft:
        write_group(draft, "", xr.Dataset(attrs={"layers": layers}))
        for depth, layer in enumerate(layers, start=1):
            columns = matrices.shape[2] * depth // len(layers)
            vectors = np.stack([p_vectors(matrix[:N, :columns]) for matrix in matrices])
            group = xr.Dataset(
                {"left_vector": (("seed", "step", "centring", "vector", "sample"), vectors[None, :, :, None])},
                coords={"seed": [0], "step": np.arange(len(matrices)), "centring": list(CENTRINGS)},
                attrs={"sample_hash": sample_hash(ids[:N]), "depth": depth},
            )
            write_group(draft, layer, group)
    write_digest(folder / "spectra.zarr", folder / "spectra.json")


def test_the_script_reads_ends_and_spectra(digits, tmp_path):
    pixels, labels = digits[0][: N + M], digits[1][: N + M]
    trained = np.stack([projected(pixels, 16, seed) for seed in (1, 2)])
    untrained = projected(pixels, 8, 3)[None]
    layers = {"mlp": ["hidden1", "hidden2"], "untrained": ["hidden"]}
    write_stores(tmp_path, "mlp", trained, layers["mlp"], labels)
    write_stores(tmp_path, "untrained", untrained, layers["untrained"], labels)
    recipes = [
        {
            "name": name,
            "dataset": "digits",
            "blocks": 1,
            "task": "classify",
            "kind": "mlp",
            "model": {"kind": "mlp", "widths": len(own)},
        }
        for name, own in layers.items()
    ]
    run_script(
        "assess_sensitivity",
        {"datasets": ["digits"], "shares": [0.5, 1.0], "seed": 0, "recipes": recipes},
        in_ends=[str(tmp_path / name / "ends.zarr") for name in layers],
        in_ends_digests=[str(tmp_path / name / "ends.json") for name in layers],
        in_spectra=[str(tmp_path / name / "spectra.zarr") for name in layers],
        in_spectra_digests=[str(tmp_path / name / "spectra.json") for name in layers],
        out_table=str(tmp_path / "sensitivity.csv"),
    )
    table = pd.read_csv(tmp_path / "sensitivity.csv", dtype={"level": str})
    assert list(table.columns) == COLUMNS
    mlp, other = ("mlp", 0), ("untrained", 0)
    for centring, p, q, r in zip(
        CENTRINGS, p_vectors(trained[0, :N]), p_vectors(trained[1, :N]), p_vectors(untrained[0, :N]), strict=True
    ):
        row = chosen(table, "samples", "1", "start_to_end", mlp, mlp, centring)
        assert row["angle_deg"] == pytest.approx(reference.angle_deg(p, q), abs=1e-6)
        for factor, level in (("depth", "last"), ("width", "mlp~untrained")):
            row = chosen(table, factor, level, "between", mlp, other, centring)
            assert row["angle_deg"] == pytest.approx(reference.angle_deg(q, r), abs=1e-6)
        halves = [reference.svd(matrix[:N, :8], centring)[0][:, 0] for matrix in trained]
        row = chosen(table, "depth", "first", "start_to_end", mlp, mlp, centring)
        assert row["angle_deg"] == pytest.approx(reference.angle_deg(*halves), abs=1e-6)
        assert row["value"] == 0.5
