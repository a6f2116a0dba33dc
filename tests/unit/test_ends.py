"""The ends of runs: which samples they are over, how they are read, and which of them are compared."""

import dataclasses

import numpy as np
import pytest

from featurespace import ends
from featurespace.datasets import PreparedDataset, select_sample_set
from featurespace.errors import FeaturespaceError
from featurespace.stores import FeatureStore, FeatureWriter, sample_hash, store_draft, write_digest

N_SAMPLES = 90


@pytest.fixture
def dataset():
    ids = np.arange(N_SAMPLES) * 3
    return PreparedDataset(
        images=np.zeros((N_SAMPLES, 2)),
        labels=np.arange(N_SAMPLES) % 3,
        split=(np.arange(N_SAMPLES) % 5 == 0).astype(np.int8),
        sample_ids=ids,
        class_names=list("abc"),
        offset=0.0,
        scale=1.0,
        sample_hash=sample_hash(ids),
    )


@pytest.mark.parametrize("limit", [None, 30], ids=["whole", "some"])
@pytest.mark.parametrize("held_out", [None, 7, 1000], ids=["all", "seven", "more-than-there-are"])
def test_the_sample_set_comes_first_and_then_what_is_held_out(dataset, limit, held_out):
    rows, n = ends.end_rows(dataset, {"split": "train", "limit": limit}, held_out)
    np.testing.assert_array_equal(rows[:n], select_sample_set(dataset, "train", limit))
    np.testing.assert_array_equal(rows[n:], select_sample_set(dataset, "test", held_out))
    ids = dataset.sample_ids[rows]
    attributes = ends.end_attributes(ids, n)
    assert attributes == {"n_sample_set": n, "sample_set_hash": sample_hash(ids[:n])}


@pytest.mark.parametrize("split", ["test", "all"])
def test_no_sample_is_both_in_the_sample_set_and_held_out(dataset, split):
    for limit in (None, 8):
        rows, n = ends.end_rows(dataset, {"split": split, "limit": limit}, None)
        assert len(np.unique(rows)) == len(rows)
        np.testing.assert_array_equal(rows[:n], select_sample_set(dataset, split, limit))
        assert (dataset.split[rows[n:]] == 1).all()


def test_as_many_are_held_out_as_are_asked_for_although_the_sample_set_is_of_the_same_split(dataset):
    rows, n = ends.end_rows(dataset, {"split": "test", "limit": 8}, 6)
    assert (n, len(rows)) == (8, 14)
    assert len(np.unique(rows)) == 14


def test_without_a_test_split_there_is_the_sample_set_only(dataset):
    alone = dataclasses.replace(dataset, split=np.zeros(N_SAMPLES, dtype=np.int8))
    rows, n = ends.end_rows(alone, {"split": "train", "limit": 20}, 10)
    assert len(rows) == n == 20


def test_the_only_step_is_taken_once():
    assert ends.first_and_last([0]) == [0]
    assert ends.first_and_last([0, 10]) == [0, 10]
    assert ends.first_and_last([0, 1, 5, 9]) == [0, 9]


def write_ends(folder, name, ids, n_sample_set, block):
    with store_draft(folder / f"{name}.zarr") as draft:
        writer = FeatureWriter(
            draft,
            layers={"hidden": 4},
            seeds=[6],
            steps=[0, 8],
            epochs=[0.0, 2.0],
            sample_ids=ids,
            labels=np.zeros(len(ids), dtype=int),
            attrs={"recipe": name} | ends.end_attributes(ids, n_sample_set),
        )
        for j in range(2):
            writer.write("hidden", 0, j, 0, block * np.float32(j + 1))
    write_digest(folder / f"{name}.zarr", folder / f"{name}.json")


def open_all(folder, recipes, sample_sets=None):
    names = [f"{recipe['name']}-{i}" for recipe in recipes for i in range(recipe["blocks"])]
    stores, digests = ([str(folder / f"{name}.{end}") for name in names] for end in ("zarr", "json"))
    return ends.open_ends(recipes, stores, digests, sample_sets)


def recipes_of(**blocks):
    return [{"name": name, "dataset": "toy", "blocks": n} for name, n in blocks.items()]


def test_stores_go_to_their_recipes_and_are_read_in_two_parts(tmp_path):
    ids, block = np.arange(20), np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    for name in ("a-0", "b-0", "b-1"):
        write_ends(tmp_path, name, ids, 15, block)
    opened = open_all(tmp_path, recipes_of(a=1, b=2), {"toy": sample_hash(ids[:15])})
    assert {name: [store.attrs["recipe"] for store in stores] for name, stores in opened.items()} == {
        "a": ["a-0"],
        "b": ["b-0", "b-1"],
    }
    sample_set, held_out = ends.read_end(opened["b"][1], 0, 1)
    np.testing.assert_array_equal(sample_set, 2 * block[:15])
    np.testing.assert_array_equal(held_out, 2 * block[15:])


def test_runs_over_other_samples_are_refused(tmp_path):
    block = np.zeros((20, 4), dtype=np.float32)
    write_ends(tmp_path, "a-0", np.arange(20), 15, block)
    write_ends(tmp_path, "b-0", np.arange(20) + 1, 15, block)
    write_ends(tmp_path, "c-0", np.append(np.arange(15), np.arange(50, 55)), 15, block)
    for other in ("b", "c"):  # another sample set, and other held-out samples
        with pytest.raises(FeaturespaceError, match=f"{other}-0.zarr and .*a-0.zarr hold different samples"):
            open_all(tmp_path, recipes_of(**{"a": 1, other: 1}))
    with pytest.raises(FeaturespaceError, match=r"a-0.zarr and the sample set of toy hold different samples"):
        open_all(tmp_path, recipes_of(a=1), {"toy": sample_hash(np.arange(16))})


def test_features_that_are_not_finite_are_refused(tmp_path):
    block = np.zeros((20, 4), dtype=np.float32)
    block[17, 2] = np.inf
    write_ends(tmp_path, "a-0", np.arange(20), 15, block)
    store = FeatureStore.open(tmp_path / "a-0.zarr")
    with pytest.raises(FeaturespaceError, match=r"a-0.zarr, layer hidden, seed 6, step 8: a feature is NaN"):
        ends.read_end(store, 0, 1)


def test_pairs_are_of_one_seed_or_of_neighbouring_ones():
    networks = [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 2), ("c", 1)]
    pairs = {(networks[i], networks[j]) for i, j in ends.pairs_of(networks)}
    assert len(ends.pairs_of(networks)) == len(pairs)
    assert pairs == {
        (("a", 0), ("a", 1)),
        (("a", 1), ("a", 2)),
        (("a", 2), ("a", 0)),
        (("b", 0), ("b", 2)),
        (("a", 0), ("b", 0)),
        (("a", 2), ("b", 2)),
        (("a", 1), ("c", 1)),
    }
