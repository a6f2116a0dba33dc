"""The prepared data set: what is read back, what enters a network, and which samples are compared."""

import os
import runpy
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from snakemake.iocontainers import InputFiles, OutputFiles

from featurespace import datasets, preparation
from featurespace.datasets import PreparedDataset, load_dataset, select_sample_set
from featurespace.errors import FeaturespaceError
from featurespace.preparation import assemble, rows_per_chunk
from featurespace.stores import FeatureStore, sample_hash, store_draft, write_digest, write_group

SCRIPTS = Path(__file__).parents[2] / "scripts"


def dataset_of(labels, split=None, images=None, offset=0.0, scale=1.0) -> PreparedDataset:
    labels = np.asarray(labels, np.int64)
    ids = np.arange(len(labels))
    return PreparedDataset(
        images=np.zeros((len(labels), 1, 2, 2), np.uint8) if images is None else images,
        labels=labels,
        split=np.zeros(len(labels), np.int8) if split is None else np.asarray(split, np.int8),
        sample_ids=ids,
        class_names=[str(i) for i in range(labels.max() + 1)],
        offset=offset,
        scale=scale,
        sample_hash=sample_hash(ids),
    )


# --- inputs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inputs_are_scaled_pixels(dtype):
    images = np.arange(256, dtype=np.uint8).reshape(64, 1, 2, 2)
    dataset = dataset_of([0] * 64, images=images, offset=0.286, scale=0.353)
    expected = ((images.astype(np.float64) / 255 - 0.286) / 0.353).astype(dtype)
    inputs = dataset.inputs(dtype=dtype)
    assert inputs.dtype == dtype
    np.testing.assert_array_equal(inputs, expected)
    rows = np.array([5, 2, 60])
    np.testing.assert_array_equal(dataset.inputs(rows, dtype), expected[rows])
    assert (dataset.is_image, dataset.input_shape) == (True, (1, 2, 2))


def test_inputs_of_values_are_the_values():
    values = np.random.default_rng(0).standard_normal((6, 4))
    dataset = dataset_of([0, 0, 0, 1, 1, 1], images=values)
    np.testing.assert_array_equal(dataset.inputs(dtype=np.float64), values)
    assert dataset.inputs([1]).dtype == np.float32
    assert (dataset.is_image, dataset.input_shape, dataset.n_classes) == (False, (4,), 2)


# --- sample sets ------------------------------------------------------------------------------------------------


def test_a_sample_set_without_limit_is_the_split():
    dataset = dataset_of([0, 1, 0, 1, 0, 1], split=[0, 1, 0, 0, 1, 0])
    np.testing.assert_array_equal(select_sample_set(dataset, "train", None), [0, 2, 3, 5])
    np.testing.assert_array_equal(select_sample_set(dataset, "test", None), [1, 4])
    np.testing.assert_array_equal(select_sample_set(dataset, "all", 6), np.arange(6))
    np.testing.assert_array_equal(select_sample_set(dataset, "train", 100), [0, 2, 3, 5])


def test_a_limited_sample_set_is_stratified_and_spread():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([0, 1, 2], [500, 300, 200]))
    dataset = dataset_of(labels, split=rng.integers(0, 2, 1000))
    in_split = np.flatnonzero(dataset.split == 0)
    for limit in (1, 2, 7, 50, 99, len(in_split) - 1):
        rows = select_sample_set(dataset, "train", limit)
        assert len(rows) == limit
        assert (np.diff(rows) > 0).all()
        assert (dataset.split[rows] == 0).all()
        shares = np.bincount(labels[rows], minlength=3) - limit * np.bincount(labels[in_split]) / len(in_split)
        assert np.abs(shares).max() < 1
        np.testing.assert_array_equal(rows, select_sample_set(dataset, "train", limit))


def test_a_limited_sample_set_is_evenly_spaced_within_each_class():
    dataset = dataset_of([0] * 12 + [1] * 6)
    np.testing.assert_array_equal(select_sample_set(dataset, "all", 6), [1, 4, 7, 10, 13, 16])
    np.testing.assert_array_equal(select_sample_set(dataset, "all", 3), [3, 9, 15])


def test_a_split_without_samples_is_an_error():
    with pytest.raises(FeaturespaceError, match="no test samples"):
        select_sample_set(dataset_of([0, 1]), "test", None)


# --- the store --------------------------------------------------------------------------------------------------


def write_dataset(path: Path, data: np.ndarray) -> xr.Dataset:
    labels = np.arange(len(data)) % 3
    split = (np.arange(len(data)) % 4 == 3).astype(np.int8)
    dataset = assemble("tiny", data, labels, split, ["a", "b", "c"], 0.25, 0.5, made_by={"kind": "tiny"})
    with store_draft(path) as draft:
        write_group(draft, "", dataset, chunks={"sample": rows_per_chunk(dataset)})
    write_digest(path, path.with_suffix(".json"))
    return dataset


@pytest.mark.parametrize("kind", ["image", "value"])
def test_what_is_written_is_read_back(tmp_path, kind):
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (50, 3, 4, 5)).astype(np.uint8) if kind == "image" else rng.standard_normal((50, 7))
    written = write_dataset(tmp_path / "dataset.zarr", data)
    dataset = load_dataset(tmp_path / "dataset.zarr", tmp_path / "dataset.json")
    np.testing.assert_array_equal(dataset.images, data)
    assert dataset.images.dtype == data.dtype
    np.testing.assert_array_equal(dataset.labels, written["label"])
    np.testing.assert_array_equal(dataset.split, written["split"])
    np.testing.assert_array_equal(dataset.sample_ids, np.arange(50))
    assert (dataset.labels.dtype, dataset.split.dtype, dataset.sample_ids.dtype) == (np.int64, np.int8, np.int64)
    assert (dataset.offset, dataset.scale, dataset.class_names) == (0.25, 0.5, ["a", "b", "c"])


def test_the_store_opens_silently_with_names(tmp_path):
    written = write_dataset(tmp_path / "dataset.zarr", np.ones((50, 1, 4, 4), np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = xr.open_zarr(tmp_path / "dataset.zarr")
        opened.load()
    xr.testing.assert_equal(opened, written)
    assert opened["image"].dims == ("sample", "channel", "height", "width")


def test_samples_that_are_not_those_of_the_hash_are_refused(tmp_path):
    dataset = assemble("tiny", np.ones((4, 2)), np.zeros(4, np.int64), np.zeros(4, np.int8), ["a"], 0.0, 1.0)
    dataset.attrs["sample_hash"] = sample_hash(np.arange(5))
    with store_draft(tmp_path / "dataset.zarr") as draft:
        write_group(draft, "", dataset)
    with pytest.raises(FeaturespaceError, match="different samples"):
        load_dataset(tmp_path / "dataset.zarr")


def test_a_chunk_holds_sixteen_megabytes_and_none_is_small():
    def described(n_samples: int) -> xr.Dataset:
        return xr.Dataset({"image": (("sample", "channel"), np.broadcast_to(np.uint8(0), (n_samples, 784)))})

    assert rows_per_chunk(described(70_000)) == 17_500
    assert rows_per_chunk(described(1_000)) == 1_000


# --- the scripts ------------------------------------------------------------------------------------------------


def run_script(monkeypatch, name: str, tmp_path: Path, spec: dict, outputs: dict, inputs=None, config=None) -> None:
    """Run a rule's script as Snakemake would: with an object named `snakemake` among its globals."""
    snakemake = SimpleNamespace(
        input=InputFiles(fromdict=inputs or {}),
        output=OutputFiles(fromdict=outputs),
        params=SimpleNamespace(spec=spec),
        config=config or {},
        wildcards=SimpleNamespace(),
        threads=1,
        log=[str(tmp_path / f"{name}.log")],
    )
    # What the edge does to its whole process is not for the process of the tests.
    monkeypatch.setattr("featurespace.script._die_with_snakemake", lambda: None)
    monkeypatch.setattr("featurespace.script._start_logging", lambda log: None)
    runpy.run_path(str(SCRIPTS / f"{name}.py"), {"snakemake": snakemake}, "__main__")


@pytest.mark.parametrize("kind", ["digits", "orthonormal"])
def test_the_scripts_make_what_consumers_read(tmp_path, monkeypatch, kind):
    spec = {
        "digits": {
            "kind": "digits",
            "scaling": "standardise",
            "train_limit": None,
            "test_limit": None,
            "test_fraction": 0.25,
            "split_seed": 0,
        },
        "orthonormal": {
            "kind": "orthonormal",
            "scaling": "none",
            "samples_per_class": 4,
            "dimension": 20,
            "classes": 3,
            "noise": 1.0,
            "seed": 0,
        },
    }[kind]
    store, digest = str(tmp_path / "dataset.zarr"), str(tmp_path / "dataset.json")
    run_script(monkeypatch, "prepare_dataset", tmp_path, spec, {"store": store, "digest": digest})
    run_script(
        monkeypatch,
        "dump_inputs",
        tmp_path,
        {"dataset": "mine", "sample_set": {"split": "train", "limit": 10}},
        {"store": str(tmp_path / "features.zarr"), "digest": str(tmp_path / "features.json")},
        {"dataset": store, "dataset_digest": digest},
    )
    dataset = load_dataset(store, digest)
    rows = select_sample_set(dataset, "train", 10)
    features = FeatureStore.open(tmp_path / "features.zarr", tmp_path / "features.json")
    assert features.layers == ("input",)
    assert (features.seeds.tolist(), features.steps.tolist(), features.epochs.tolist()) == ([0], [0], [0.0])
    np.testing.assert_array_equal(features.matrix("input", 0, 0), dataset.inputs(rows).reshape(10, -1))
    np.testing.assert_array_equal(features.sample_ids, rows)
    np.testing.assert_array_equal(features.labels, dataset.labels[rows])
    expected = {"dataset": "mine", "recipe": "data", "block": 0, "depths": {"input": 0}}
    assert expected.items() <= features.attrs.items()


def test_a_downloaded_kind_comes_from_the_configured_source(tmp_path, monkeypatch):
    source = Path("/usr/share/datasets/fashion-mnist")
    if not source.is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    manifest = tmp_path / "data/fashion-mnist/retrieved.json"
    section = {"kind": "fashion-mnist", "source": os.fspath(source)}
    config = {"datasets": {"digits": {"kind": "digits"}, "other": section | {"source": None}, "clothes": section}}
    run_script(
        monkeypatch,
        "retrieve_dataset",
        tmp_path,
        {"kind": "fashion-mnist"},
        {"manifest": str(manifest)},
        config=config,
    )
    store, digest = str(tmp_path / "dataset.zarr"), str(tmp_path / "dataset.json")
    run_script(
        monkeypatch,
        "prepare_dataset",
        tmp_path,
        {"kind": "fashion-mnist", "scaling": "unit", "train_limit": None, "test_limit": None},
        {"store": store, "digest": digest},
        {"manifest": str(manifest)},
    )
    dataset = load_dataset(store)
    assert dataset.images.shape == (70_000, 1, 28, 28)
    assert dataset.class_names[dataset.labels[0]] == "Ankle boot"
    assert np.bincount(dataset.labels[select_sample_set(dataset, "test", 1000)]).tolist() == [100] * 10


def test_the_modules_agree_on_the_codes_of_splits():
    assert {"train": preparation.TRAIN, "test": preparation.TEST} == datasets.SPLITS
