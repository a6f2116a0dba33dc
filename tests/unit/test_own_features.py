"""Features that were made elsewhere: which rows are whose, and what a standard store of them holds."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from featurespace.datasets import PreparedDataset
from featurespace.ends import end_rows, open_ends
from featurespace.errors import FeaturespaceError
from featurespace.own_features import open_source, place, require_unchanged, store_attributes, write_layers
from featurespace.own_layers import describe, open_layers
from featurespace.stores import FeatureStore, FeatureWriter, sample_hash, store_draft, write_digest

RNG = np.random.default_rng(0)
N, N_TRAIN = 30, 20
IDS = np.arange(N) * 3  # with gaps, where limits left some out
LABELS = np.arange(N) % 3
DATASET = PreparedDataset(
    images=RNG.normal(size=(N, 4)),
    labels=LABELS,
    split=np.repeat([0, 1], [N_TRAIN, N - N_TRAIN]).astype(np.int8),
    sample_ids=IDS,
    class_names=["a", "b", "c"],
    offset=0.0,
    scale=1.0,
    sample_hash=sample_hash(IDS),
)
ROWS, N_SET = end_rows(DATASET, {"split": "train", "limit": 12}, None)  # 12 of the training split, then 10 held out
DEEP = RNG.normal(size=(2, 3, N, 5)).astype(np.float32)


def npy(folder, **arrays):
    folder.mkdir(exist_ok=True)
    for name, values in arrays.items():
        np.save(folder / f"{name.replace('__', '.')}.npy", values)
    return folder


def placed(path):
    return place(open_source(path), DATASET, ROWS, N_SET, str(path))


# --- what there is ----------------------------------------------------------------------------------------------


def test_axes_are_seeds_steps_samples_features(tmp_path):
    for values, seeds, steps in ((DEEP, [0, 1], [0, 1, 2]), (DEEP[0], [0], [0, 1, 2]), (DEEP[0, 0], [0], [0])):
        own = open_layers(npy(tmp_path / str(values.ndim), a=values))
        assert (own.seeds, own.steps, own.epochs) == (seeds, steps, [float(step) for step in steps])
        assert own.n_samples == N


def test_layers_are_in_natural_order_and_coordinates_are_none(tmp_path):
    one = DEEP[0, 0]
    path = npy(tmp_path / "x", layer10=one, layer2=one, block1__conv=one, sample=IDS, label=LABELS)
    assert describe(path, []) == {"layers": ["block1.conv", "layer2", "layer10"], "seeds": [0]}


def test_coordinates_count(tmp_path):
    path = npy(tmp_path / "x", a=DEEP, seed=[7, 4], step=[0, 10, 40], epoch=[0, 0.5, 2.0])
    own = open_layers(path)
    assert (own.seeds, own.steps, own.epochs) == ([7, 4], [0, 10, 40], [0.0, 0.5, 2.0])


BAD = [
    ({"a": DEEP[0, 0], "b": DEEP[0]}, r"b.npy has \(seeds, steps, samples\) \(1, 3, 30\), and a has \(1, 1, 30\)"),
    ({"a": DEEP[0, 0], "b": DEEP[0, 0, :9]}, r"\(1, 1, 9\), and a has \(1, 1, 30\)"),
    ({"a": DEEP[0, 0, 0]}, r"a.npy is \(5,\): a layer is \(n, d\)"),
    ({"a": DEEP[None]}, "a layer is"),
    ({"a": DEEP[:, :, :0]}, "a layer is"),
    ({"a": np.array([["x"]])}, "features are numbers"),
    ({"sample": IDS}, "there is no layer in it"),
    ({"a b": DEEP}, "'a b' cannot be the name of a layer"),
    ({"-x": DEEP}, "'-x' cannot be the name of a layer"),
    ({"a": DEEP, "seed": [0]}, r"seed.npy is \(1,\) of int64: 2 numbers are needed"),
    ({"a": DEEP, "seed": [1, 1]}, "should be 2 different numbers from 0 on"),
    ({"a": DEEP, "seed": [0, -1]}, "should be 2 different numbers from 0 on"),
    ({"a": DEEP, "step": [0, 2, 1]}, "steps should rise"),
    ({"a": DEEP, "step": [0.0, 1.0, 2.0]}, "3 numbers are needed"),
    ({"a": DEEP, "epoch": [0, 1, np.nan]}, "an epoch is not finite"),
    ({"a": np.zeros((10_001, 1, 1))}, "10001 steps are more than 10000"),
]


@pytest.mark.parametrize(("arrays", "says"), BAD, ids=[says[:40] for _, says in BAD])
def test_what_is_no_source_is_one_line(tmp_path, arrays, says):
    with pytest.raises(FeaturespaceError, match=says) as caught:
        open_layers(npy(tmp_path / "x", **arrays))
    assert str(tmp_path / "x") in str(caught.value)


@pytest.mark.parametrize("name", ["../../escape", "/etc/passwd", "a/b", "..", "", "x" * 300, "a\nb", "é"])
def test_names_of_tensors_may_not_be_paths(tmp_path, name):
    save_file({name: DEEP[0, 0]}, tmp_path / "x.safetensors")
    with pytest.raises(FeaturespaceError, match="cannot be the name of a layer") as caught:
        open_layers(tmp_path / "x.safetensors")
    assert str(caught.value).isprintable()


# --- which rows -------------------------------------------------------------------------------------------------


def test_without_ids_the_whole_data_set_has_all_rows(tmp_path):
    found = placed(npy(tmp_path / "x", a=DEEP))
    np.testing.assert_array_equal(found.rows, ROWS)
    assert found.n_sample_set == N_SET == 12
    assert len(ROWS) == 22


def test_without_ids_the_sample_set_alone_has_no_held_out_samples(tmp_path):
    found = placed(npy(tmp_path / "x", a=DEEP[:, :, :12]))
    np.testing.assert_array_equal(found.rows, np.arange(12))
    assert found.n_sample_set == 12


def test_another_number_of_rows_is_refused(tmp_path):
    with pytest.raises(
        FeaturespaceError, match=r"has 22 samples, and no ids .*: the sample set has 12, the whole data set 30"
    ):
        placed(npy(tmp_path / "x", a=DEEP[:, :, :22]))


def test_ids_put_rows_in_their_order(tmp_path):
    order = RNG.permutation(N)
    found = placed(npy(tmp_path / "x", a=DEEP[:, :, order], sample=IDS[order], label=LABELS[order]))
    np.testing.assert_array_equal(order[found.rows], ROWS)
    # with more samples than the data set has, and with no more than the sample set
    more = np.append(IDS[order], [1000, 1001])
    found = placed(npy(tmp_path / "y", a=RNG.normal(size=(N + 2, 3)), sample=more))
    np.testing.assert_array_equal(more[found.rows], IDS[ROWS])
    few = IDS[ROWS[:12]][::-1]
    found = placed(npy(tmp_path / "z", a=DEEP[:, :, :12], sample=few))
    np.testing.assert_array_equal(few[found.rows], IDS[ROWS[:12]])
    assert len(found.rows) == 12


def test_samples_that_are_missing_or_there_twice_are_refused(tmp_path):
    ids = IDS.copy()
    ids[ROWS[3]] = 1000
    with pytest.raises(FeaturespaceError, match=f"lacks 1 of the 12 samples .*, the first of them {IDS[ROWS[3]]} "):
        placed(npy(tmp_path / "x", a=DEEP, sample=ids))
    ids[ROWS[3]] = ids[0]
    with pytest.raises(FeaturespaceError, match="a sample is there twice"):
        placed(npy(tmp_path / "y", a=DEEP, sample=ids))
    with pytest.raises(FeaturespaceError, match=r"sample.npy is \(9,\) of int64: an id for each of 30"):
        placed(npy(tmp_path / "z", a=DEEP, sample=ids[:9]))


def test_labels_tell_another_order(tmp_path):
    assert len(placed(npy(tmp_path / "x", a=DEEP, label=LABELS)).rows) == 22
    with pytest.raises(FeaturespaceError, match=r"other labels than the data set at \d+ samples, .* in another order"):
        placed(npy(tmp_path / "y", a=DEEP, label=np.roll(LABELS, 1)))
    with pytest.raises(FeaturespaceError, match="a label for each of 30 samples"):
        placed(npy(tmp_path / "z", a=DEEP, label=LABELS[:9]))


# --- what is written --------------------------------------------------------------------------------------------

SPEC = {"recipe": "pca", "block": 0, "dataset": "toy", "layers": ["b", "a"], "feature_layer": "a"}


def write(path, out, layers=("b", "a"), steps=(0, 1, 2), rows=None, chunk_bytes=200):
    own = open_source(path)
    found = place(own, DATASET, ROWS, N_SET, str(path))
    rows = found.rows[:N_SET] if rows is None else found.rows
    with store_draft(out) as draft:
        writer = FeatureWriter(
            draft,
            layers={layer: own.arrays[layer].shape[-1] for layer in layers},
            seeds=own.seeds,
            steps=[own.steps[step] for step in steps],
            epochs=[own.epochs[step] for step in steps],
            sample_ids=IDS[ROWS[: len(rows)]],
            labels=LABELS[ROWS[: len(rows)]],
            attrs=store_attributes(SPEC, layers)
            | {"n_sample_set": N_SET, "sample_set_hash": sample_hash(IDS[ROWS[:N_SET]])},
            chunk_bytes=chunk_bytes,
        )
        write_layers(own, layers, steps, rows, writer)
    write_digest(out, out.with_suffix(".json"), writer.hashes)
    return FeatureStore.open(out, out.with_suffix(".json"))


@pytest.mark.parametrize("form", ["npy", "npz", "safetensors", "zarr"])
@pytest.mark.parametrize("is_permuted", [False, True])
def test_a_store_holds_the_features_of_its_samples(tmp_path, form, is_permuted):
    order = RNG.permutation(N) if is_permuted else np.arange(N)
    arrays = {"a": DEEP[:, :, order].astype(np.float64), "b": DEEP[:, :, order, :2] * 7, "sample": IDS[order]}
    path = tmp_path / f"x.{form}"
    match form:
        case "npy":
            npy(path, **arrays)
        case "npz":
            np.savez(path, **arrays)
        case "safetensors":
            save_file({name: np.ascontiguousarray(values) for name, values in arrays.items()}, path)
        case "zarr":
            import zarr

            group = zarr.open_group(str(path), mode="w")
            for name, values in arrays.items():
                group.create_array(name, data=values, chunks=(1, 2, 7, 2)[: values.ndim] if values.ndim > 1 else (9,))
    store = write(path, tmp_path / "out.zarr", rows="all")
    assert store.layers == ("b", "a")
    assert store.attrs["depths"] == {"b": 1, "a": 2}
    np.testing.assert_array_equal(store.sample_ids, IDS[ROWS])
    for i in range(2):
        for j in range(3):
            np.testing.assert_array_equal(store.matrix("a", i, j), DEEP[i, j, ROWS])
            np.testing.assert_array_equal(store.matrix("b", i, j), DEEP[i, j, ROWS, :2] * 7)


def test_a_store_of_this_project_is_read_with_its_checksums(tmp_path):
    first = write(npy(tmp_path / "x", a=DEEP, b=DEEP), tmp_path / "first.zarr")
    again = write(tmp_path / "first.zarr", tmp_path / "again.zarr")
    np.testing.assert_array_equal(again.matrix("a", 1, 2), first.matrix("a", 1, 2))
    assert again.seeds.tolist() == first.seeds.tolist()
    chunk = tmp_path / "first.zarr/a/c.1.0.0.0"
    content = bytearray(chunk.read_bytes())
    chunk.write_bytes((tmp_path / "first.zarr/a/c.0.0.0.0").read_bytes())  # whole, and of another seed
    with pytest.raises(FeaturespaceError, match=r"layer a, seed 1, step 0, .*of another store"):
        write(tmp_path / "first.zarr", tmp_path / "worse.zarr")
    chunk.write_bytes(content)
    (tmp_path / "first.zarr/b/c.0.0.0.0").unlink()
    with pytest.raises(FeaturespaceError, match=r"layer b, seed 0, step 0, .*is missing"):
        write(tmp_path / "first.zarr", tmp_path / "worse.zarr")
    assert not (tmp_path / "worse.zarr").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_features_that_are_not_finite_are_refused_by_place(tmp_path, value):
    values = DEEP.astype(np.float64)
    values[1, 2, ROWS[5], 3] = value
    with pytest.raises(FeaturespaceError, match=r"a.npy, seed 1, step 2: a feature is NaN, infinite or too large"):
        write(npy(tmp_path / "x", a=values, b=DEEP), tmp_path / "out.zarr")


def test_features_without_held_out_samples_are_compared_with_those_that_have_them(tmp_path):
    write(npy(tmp_path / "x", a=DEEP, b=DEEP), tmp_path / "all.zarr", rows="all")
    write(npy(tmp_path / "y", a=DEEP[:, :, :12], b=DEEP[:, :, :12]), tmp_path / "few.zarr", rows="all")
    recipes = [{"name": name, "dataset": "toy", "blocks": 1} for name in ("all", "few")]
    paths = [[str(tmp_path / f"{name}.{end}") for name in ("all", "few")] for end in ("zarr", "json")]
    opened = open_ends(recipes, *paths)
    assert [store.n_samples for stores in opened.values() for store in stores] == [22, 12]


def test_a_source_that_changes_is_noticed(tmp_path):
    npy(tmp_path / "x", a=DEEP)
    with pytest.raises(FeaturespaceError, match="x has changed since the study was read"):
        require_unchanged(tmp_path / "x", "0" * 64)
