"""Stores are whole or absent, open silently with xarray, and say what is damaged."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from featurespace import files, stores
from featurespace.errors import FeaturespaceError
from featurespace.files import full_disk_named, write_json, write_table, write_text_atomically
from featurespace.stores import (
    FeatureStore,
    FeatureWriter,
    read_digest,
    read_group,
    require_same_samples,
    sample_hash,
    store_draft,
    verify_digest,
    write_digest,
    write_group,
)

LAYERS = {"hidden1": 7, "hidden2": 3}
SEEDS = [3, 5]
STEPS = [0, 10, 200]
N_SAMPLES = 100


def features(layer, key=0):
    """Give the feature array of a layer: (seed, step, sample, feature) float32."""
    generator = np.random.default_rng([key, LAYERS[layer]])
    shape = (len(SEEDS), len(STEPS), N_SAMPLES, LAYERS[layer])
    return generator.standard_normal(shape).astype(np.float32)


def make_features(path, key=0, sample_ids=None):
    """Write a feature store of 4 chunks a matrix (hidden1: 25 rows each) and its digest file."""
    sample_ids = np.arange(N_SAMPLES) * 2 if sample_ids is None else sample_ids
    with store_draft(path) as draft:
        writer = FeatureWriter(
            draft,
            layers=LAYERS,
            seeds=SEEDS,
            steps=STEPS,
            epochs=[0.0, 0.5, 10.0],
            sample_ids=sample_ids,
            labels=np.arange(N_SAMPLES) % 3,
            attrs={"made_by": {"recipe": "small"}, "depths": {"hidden1": 1, "hidden2": 2}},
            chunk_bytes=4 * 7 * 28,
        )
        for layer in LAYERS:
            values, rows = features(layer, key), writer.rows_per_chunk[layer]
            for seed_index, step_index in np.ndindex(len(SEEDS), len(STEPS)):
                for start in range(0, N_SAMPLES, rows):
                    block = values[seed_index, step_index, start : start + rows]
                    writer.write(layer, seed_index, step_index, start, block)
    write_digest(path, path.with_suffix(".json"), recipe="small")
    return path


def spectra(key=0):
    generator = np.random.default_rng(key)
    return xr.Dataset(
        {
            "singular_value": (
                ("seed", "step", "centring", "component"),
                generator.random((len(SEEDS), len(STEPS), 2, 4)),
            ),
            "reliable": (("seed",), np.array([True, False])),
            "total": ((), 1.5),
        },
        coords={
            "seed": SEEDS,
            "step": STEPS,
            "epoch": ("step", [0.0, 0.5, 10.0]),
            "centring": ["raw", "centred"],
        },
        attrs={"unit": "none"},
    )


def make_spectra(path, key=0):
    """Write a store of two groups, in chunks of one seed, and its digest file."""
    with store_draft(path) as draft:
        for i, layer in enumerate(LAYERS):
            write_group(draft, layer, spectra(2 * key + i), chunks={"seed": 1})
        write_group(draft, "", xr.Dataset(attrs={"layers": list(LAYERS), "sample_hash": "abc"}))
    write_digest(path, path.with_suffix(".json"))
    return path


@pytest.fixture
def feature_path(tmp_path):
    return make_features(tmp_path / "features.zarr")


@pytest.fixture
def spectra_path(tmp_path):
    return make_spectra(tmp_path / "spectra.zarr")


# --- what is written is what is read --------------------------------------------------------------


def test_features_round_trip(feature_path):
    store = FeatureStore.open(feature_path, feature_path.with_suffix(".json"))
    assert store.layers == ("hidden1", "hidden2")
    assert store.n_features == LAYERS
    assert store.seeds.tolist() == SEEDS
    assert store.steps.tolist() == STEPS
    assert store.epochs.tolist() == [0.0, 0.5, 10.0]
    assert store.labels[:4].tolist() == [0, 1, 2, 0]
    assert store.n_samples == N_SAMPLES
    assert store.sample_hash == sample_hash(np.arange(N_SAMPLES) * 2)
    assert store.attrs["featurespace_format"] == 1
    assert store.attrs["made_by"] == {"recipe": "small"}
    for layer in LAYERS:
        for seed_index, step_index in np.ndindex(len(SEEDS), len(STEPS)):
            expected = features(layer)[seed_index, step_index]
            np.testing.assert_array_equal(store.matrix(layer, seed_index, step_index), expected)
            blocks = list(store.blocks(layer, seed_index, step_index))
            assert len(blocks) > 1
            assert all(block.dtype == np.float32 and block.flags.writeable for block in blocks)
            np.testing.assert_array_equal(np.concatenate(blocks), expected)


@pytest.mark.filterwarnings("error")
def test_xarray_opens_features_silently(feature_path, capfd):
    (feature_path / ".snakemake_timestamp").touch()
    dataset = xr.open_zarr(feature_path)
    assert set(dataset.coords) == {"seed", "step", "epoch", "sample", "label"}
    for layer in LAYERS:
        assert dataset[layer].dims == ("seed", "step", "sample", f"feature_{layer}")
        assert dataset[layer].dtype == np.float32
        np.testing.assert_array_equal(dataset[layer].to_numpy(), features(layer))
    assert capfd.readouterr() == ("", "")


def test_layout_of_features(feature_path):
    metadata = json.loads((feature_path / "hidden1" / "zarr.json").read_text())
    assert metadata["fill_value"] == "NaN"
    assert [codec["name"] for codec in metadata["codecs"]] == ["bytes", "crc32c"]
    assert metadata["chunk_grid"]["configuration"]["chunk_shape"] == [1, 1, 25, 7]
    sizes = {file.stat().st_size for file in (feature_path / "hidden1").glob("c.*")}
    assert sizes == {25 * 7 * 4 + 4}


def feature_writer(draft, n_samples, n_features, chunk_bytes, n_seeds=1):
    return FeatureWriter(
        draft,
        layers={"input": n_features},
        seeds=range(n_seeds),
        steps=[0],
        epochs=[0.0],
        sample_ids=np.arange(n_samples),
        labels=np.zeros(n_samples, dtype=int),
        attrs={},
        chunk_bytes=chunk_bytes,
    )


@pytest.mark.parametrize("step", [1, 3, 4, 7, 9, 23])
def test_a_store_written_in_any_blocks_is_byte_for_byte_the_same(tmp_path, monkeypatch, step):
    monkeypatch.setattr(stores, "_PIECE_BYTES", 64)
    values = np.random.default_rng(0).normal(size=(2, 23, 5)).astype(np.float32)
    for name, n_rows in (("whole", 23), ("parts", step)):
        with store_draft(tmp_path / name) as draft:
            writer = feature_writer(draft, 23, 5, chunk_bytes=4 * 5 * 8, n_seeds=2)
            for start in range(0, 23, n_rows):  # the seeds' chunks are under way at the same time
                for seed in range(2):
                    writer.write("input", seed, 0, start, values[seed, start : start + n_rows])
        chunks = sorted((tmp_path / name / "input").glob("c.*"))
        assert len(chunks) == 6
        expected = {f"input/{path.name}": hashlib.sha256(path.read_bytes()).digest() for path in chunks}
        assert writer.hashes == expected
        assert not list((tmp_path / name / "input").glob(".*"))
    files = stores._list_files(tmp_path / "whole")
    assert stores._list_files(tmp_path / "parts") == files
    for key in files:
        assert (tmp_path / "parts" / key).read_bytes() == (tmp_path / "whole" / key).read_bytes(), key
    store = FeatureStore.open(tmp_path / "parts")
    for seed in range(2):
        np.testing.assert_array_equal(store.matrix("input", seed, 0), values[seed])
        np.testing.assert_array_equal(np.concatenate(list(store.blocks("input", seed, 0))), values[seed])
    first = write_digest(tmp_path / "parts", tmp_path / "known.json", writer.hashes)
    assert first == write_digest(tmp_path / "parts", tmp_path / "read.json")
    assert (tmp_path / "known.json").read_bytes() == (tmp_path / "read.json").read_bytes()


def test_a_chunk_that_is_not_finished_is_not_there(tmp_path):
    values = np.ones((6, 2), dtype=np.float32)
    with (
        pytest.raises(
            FeaturespaceError, match=r"1 of \d+ chunks were never written, the first of them input/c.0.0.1.0"
        ),
        store_draft(tmp_path / "f.zarr") as draft,
    ):
        writer = feature_writer(draft, 6, 2, chunk_bytes=4 * 2 * 3)
        writer.write("input", 0, 0, 0, values[:5])
    assert not (tmp_path / "f.zarr").exists()


@pytest.mark.parametrize("start", [0, 1, 3])
def test_rows_of_a_chunk_that_are_left_out_or_written_again_are_refused(tmp_path, start):
    values = np.ones((6, 2), dtype=np.float32)
    (tmp_path / "input").mkdir()
    writer = feature_writer(tmp_path, 6, 2, chunk_bytes=4 * 2 * 6)
    writer.write("input", 0, 0, 0, values[:2])
    with pytest.raises(ValueError, match=f"rows {start} onwards of input do not follow"):
        writer.write("input", 0, 0, start, values[:1])


def test_a_tail_chunk_is_padded_with_nan_and_not_read(tmp_path):
    values = np.arange(10, dtype=np.float32).reshape(5, 2)
    with store_draft(tmp_path / "f.zarr") as draft:
        writer = FeatureWriter(
            draft,
            layers={"input": 2},
            seeds=[0],
            steps=[0],
            epochs=[0.0],
            sample_ids=np.arange(5),
            labels=np.zeros(5, dtype=int),
            attrs={},
            chunk_bytes=4 * 2 * 3,
        )
        assert writer.rows_per_chunk == {"input": 3}
        with pytest.raises(ValueError, match="do not follow"):
            writer.write("input", 0, 0, 1, values[:3])
        with pytest.raises(ValueError, match="which has 5"):
            writer.write("input", 0, 0, 3, values[:3])
        with pytest.raises(ValueError, match="float32"):
            writer.write("input", 0, 0, 0, values.astype(float))
        writer.write("input", 0, 0, 0, values)  # several chunks at once, the last one not full
    np.testing.assert_array_equal(FeatureStore.open(tmp_path / "f.zarr").matrix("input", 0, 0), values)
    np.testing.assert_array_equal(xr.open_zarr(tmp_path / "f.zarr")["input"].to_numpy()[0, 0], values)
    tail = np.fromfile(tmp_path / "f.zarr" / "input" / "c.0.0.1.0", dtype="<f4")[:6]
    assert np.isnan(tail[4:]).all()


@pytest.mark.parametrize(("n_samples", "n_features"), [(10, 4), (10_000, 1024), (50_000, 3072), (3, 10**8)])
def test_chunks_stay_within_their_size(n_samples, n_features):
    rows = stores._rows_per_chunk(n_samples, n_features, 32 * 2**20)
    assert 1 <= rows <= n_samples
    assert rows == 1 or rows * n_features * 4 <= 32 * 2**20
    n_chunks = -(-n_samples // rows)
    assert n_chunks * rows - n_samples < n_chunks  # the padding is less than a row a chunk


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_zeros_and_nans_are_written(tmp_path, value):
    with store_draft(tmp_path / "s.zarr") as draft:
        write_group(draft, "", xr.Dataset({"a": ("x", np.full(4, value)), "b": ("x", np.zeros(4, dtype=int))}))
    assert (tmp_path / "s.zarr" / "a" / "c.0").is_file()
    assert (tmp_path / "s.zarr" / "b" / "c.0").is_file()
    np.testing.assert_array_equal(read_group(tmp_path / "s.zarr")["a"], np.full(4, value))


def test_groups_round_trip(spectra_path):
    for i, layer in enumerate(LAYERS):
        dataset = read_group(spectra_path, layer, spectra_path.with_suffix(".json"))
        xr.testing.assert_equal(dataset.drop_vars("centring"), spectra(i).drop_vars("centring"))
        assert dataset["reliable"].dtype == bool
        assert dataset.attrs == {"unit": "none"}
        picked = dataset["singular_value"].sel(centring="centred", seed=5).to_numpy()
        np.testing.assert_array_equal(picked, spectra(i)["singular_value"].to_numpy()[1, :, 1])
        frame = dataset["singular_value"].to_dataframe().reset_index()
        assert frame["centring"].unique().tolist() == ["raw", "centred"]
    assert read_group(spectra_path).attrs["layers"] == list(LAYERS)
    with pytest.raises(FeaturespaceError, match="hidden9"):
        read_group(spectra_path, "hidden9")


@pytest.mark.filterwarnings("error")
def test_xarray_opens_groups_silently(spectra_path, capfd):
    (spectra_path / ".snakemake_timestamp").touch()
    assert xr.open_zarr(spectra_path).attrs["layers"] == list(LAYERS)
    np.testing.assert_array_equal(
        xr.open_zarr(spectra_path, group="hidden2")["singular_value"], spectra(1)["singular_value"]
    )
    assert set(xr.open_datatree(spectra_path, engine="zarr").children) == set(LAYERS)
    assert capfd.readouterr() == ("", "")


def test_large_variables_are_cut_from_the_first_dimension_on(monkeypatch):
    monkeypatch.setattr(stores, "CHUNK_BYTES", 1000)
    assert stores._chunk_lengths({"a": 3, "b": 5}, 8, {}) == [3, 5]
    assert stores._chunk_lengths({"a": 10, "b": 5, "c": 10}, 8, {}) == [2, 5, 10]
    assert stores._chunk_lengths({"a": 10, "b": 50, "c": 10}, 8, {}) == [1, 12, 10]
    assert stores._chunk_lengths({"a": 10, "b": 5, "c": 10}, 8, {"a": 5}) == [5, 2, 10]
    assert stores._chunk_lengths({"a": 0, "b": 5}, 8, {"a": 1}) == [1, 5]


def test_groups_are_read_lazily(spectra_path):
    (chunk,) = (spectra_path / "hidden1" / "singular_value").glob("c.1.*")
    flip_a_bit(chunk)
    dataset = read_group(spectra_path, "hidden1")
    assert np.isfinite(dataset["singular_value"].isel(seed=0).to_numpy()).all()
    with pytest.raises(FeaturespaceError, match="seed 5"):
        dataset["singular_value"].isel(seed=1).load()


# --- drafts ---------------------------------------------------------------------------------------


def siblings(path):
    return sorted(file.name for file in path.parent.iterdir())


def test_a_failed_draft_leaves_what_was_there(tmp_path):
    path = make_features(tmp_path / "features.zarr", key=1)
    with pytest.raises(RuntimeError), store_draft(path) as draft:
        write_group(draft, "", spectra())
        raise RuntimeError("the network diverged")
    assert siblings(path) == ["features.json", "features.zarr"]
    verify_digest(path, tmp_path / "features.json")


def test_a_new_store_replaces_the_old_one_entirely(tmp_path):
    path = make_features(tmp_path / "store.zarr")
    make_spectra(path)
    assert siblings(path) == ["store.json", "store.zarr"]
    assert not list(path.glob("hidden1/c.*"))
    verify_digest(path, tmp_path / "store.json")


def test_an_incomplete_draft_is_refused(tmp_path):
    with (
        pytest.raises(FeaturespaceError, match=r"1 of 7 chunks were never written, .*singular_value/c"),
        store_draft(tmp_path / "s.zarr") as draft,
    ):
        write_group(draft, "", spectra())
        (draft / "singular_value" / "c.0.0.0.0").unlink()
    assert not list(tmp_path.iterdir())


def test_a_plain_directory_can_be_a_store(tmp_path):
    path = tmp_path / "weights"
    with store_draft(path) as draft:
        (draft / "seed-3").mkdir()
        (draft / "seed-3" / "step-00000010.safetensors").write_bytes(b"weights")
    write_digest(path, tmp_path / "weights.json", seeds=[3])
    verify_digest(path, tmp_path / "weights.json")
    flip_a_bit(path / "seed-3" / "step-00000010.safetensors")
    with pytest.raises(FeaturespaceError, match=r"weights: seed-3/step-00000010.safetensors is damaged"):
        verify_digest(path, tmp_path / "weights.json")


WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from featurespace.stores import FeatureWriter, store_draft
with store_draft(sys.argv[1]) as draft:
    writer = FeatureWriter(draft, layers={"input": 2}, seeds=[0], steps=[0, 1], epochs=[0.0, 1.0],
                           sample_ids=np.arange(5), labels=np.zeros(5), attrs={})
    writer.write("input", 0, 0, 0, np.zeros((5, 2), dtype=np.float32))
    print("written", flush=True)
    time.sleep(60)
"""


def start_writer(path):
    environment = {**os.environ, "PYTHONPATH": str(Path(stores.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, env=environment, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    return process


def test_the_draft_of_a_killed_writer_is_cleared_and_that_of_a_living_one_is_not(tmp_path):
    path = tmp_path / "features.zarr"
    killed, living = start_writer(path), start_writer(path)
    try:
        killed.send_signal(signal.SIGKILL)
        # Not reaped yet: a process that has ended but whose parent has not looked is dead all the same.
        deadline = time.monotonic() + 10
        while files.start_of(killed.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not path.exists()
        assert len(list(tmp_path.iterdir())) == 2
        make_features(path)
        (draft,) = tmp_path.glob("features.zarr.draft-*")
        assert f"-{living.pid}-" in draft.name
        assert (draft / "input" / "c.0.0.0.0").is_file()
    finally:
        for process in (killed, living):
            process.kill()
            process.wait()
            process.stdout.close()
    verify_digest(path, tmp_path / "features.json")


KILLED_AFTER_THE_OLD_STORE_IS_AWAY = """
import os, pathlib, signal, sys
rename = pathlib.Path.rename
def rename_and_die(self, target):
    rename(self, target)
    os.kill(os.getpid(), signal.SIGKILL)
pathlib.Path.rename = rename_and_die
from featurespace.stores import store_draft
with store_draft(sys.argv[1]) as draft:
    (draft / "new").touch()
"""


def test_a_writer_killed_while_replacing_leaves_no_mixture(tmp_path):
    path = make_features(tmp_path / "features.zarr")
    environment = {**os.environ, "PYTHONPATH": str(Path(stores.__file__).parents[1])}
    command = [sys.executable, "-c", KILLED_AFTER_THE_OLD_STORE_IS_AWAY, str(path)]
    assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL
    assert not path.exists()
    assert len(siblings(path)) == 3  # the digest file, the draft, and what it was to replace
    make_features(path)
    assert siblings(path) == ["features.json", "features.zarr"]
    verify_digest(path, tmp_path / "features.json")


def test_a_draft_from_another_machine_is_left_with_a_warning(tmp_path, caplog):
    draft = tmp_path / "features.zarr.draft-node-7-4242-99"
    draft.mkdir()
    make_features(tmp_path / "features.zarr")
    assert draft.is_dir()
    assert "node-7" in caplog.text


def test_a_draft_of_a_reused_pid_is_cleared(tmp_path):
    here = files.this_process().rpartition("-")[0]
    draft = tmp_path / f"features.zarr.draft-{here}-1"
    draft.mkdir()
    make_features(tmp_path / "features.zarr")
    assert not draft.exists()


# --- full disks -----------------------------------------------------------------------------------


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "broken", ["zarr.storage._local._put", "featurespace.stores.google_crc32c.value", "featurespace.stores._sync"]
)
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, broken):
    path = make_features(tmp_path / "features.zarr", key=1)
    with monkeypatch.context() as context:
        context.setattr(broken, no_space)
        with pytest.raises(FeaturespaceError) as caught:
            make_features(path)
    assert str(path) in str(caught.value)
    assert "disk is full" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert siblings(path) == ["features.json", "features.zarr"]
    verify_digest(path, tmp_path / "features.json")


@pytest.mark.parametrize("message", ["Error while serializing: I/O error: No space left on device (os error 28)"])
def test_a_full_disk_is_known_by_its_message_too(message):
    with pytest.raises(FeaturespaceError, match="disk is full: weights"), full_disk_named("weights"):
        raise RuntimeError(message)


def test_other_errors_and_named_ones_pass(tmp_path):
    with pytest.raises(PermissionError), full_disk_named("a"):
        raise PermissionError(errno.EACCES, "no")
    with pytest.raises(FeaturespaceError, match="inner"), full_disk_named("outer"), full_disk_named("inner"):
        no_space()


# --- damage ---------------------------------------------------------------------------------------


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-8])


def swap(path):
    """Put in the chunk of another store: same shape, and its own checksum is right."""
    root = next(parent for parent in path.parents if parent.suffix == ".zarr")
    other = root.with_name(f"other-{root.name}")
    (make_features if root.name == "features.zarr" else make_spectra)(other, key=1)
    shutil.copyfile(other / path.relative_to(root), path)


def swap_within(path):
    """Put in the chunk of another seed of the same store."""
    shutil.copyfile(path.with_name(path.name.replace("c.1.", "c.0.")), path)


DAMAGES = [
    pytest.param(Path.unlink, "is missing", id="deleted"),
    pytest.param(truncate, "bytes instead of", id="truncated"),
    pytest.param(flip_a_bit, "is damaged", id="flipped"),
    pytest.param(swap, "of another store|is damaged", id="swapped"),
    pytest.param(swap_within, "of another store|is damaged", id="swapped-within"),
]


def read_everything(path):
    store = FeatureStore.open(path)
    for layer in store.layers:
        for seed_index, step_index in np.ndindex(len(SEEDS), len(STEPS)):
            store.matrix(layer, seed_index, step_index)


def load_groups(path):
    for layer in LAYERS:
        read_group(path, layer).load()


def verify(path):
    verify_digest(path, path.with_suffix(".json"))


@pytest.mark.parametrize("reader", [read_everything, verify])
@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_damaged_feature_chunk_is_named(feature_path, damage, message, reader):
    damage(feature_path / "hidden1" / "c.1.2.3.0")
    with pytest.raises(FeaturespaceError, match=message) as caught:
        reader(feature_path)
    line = str(caught.value)
    assert line.startswith(f"{feature_path}: layer hidden1, seed 5, step 200, ")
    assert f"--forcerun {feature_path}`" in line
    assert "\n" not in line


@pytest.mark.parametrize("reader", [load_groups, verify])
@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_damaged_chunk_of_a_group_is_named(spectra_path, damage, message, reader):
    damage(spectra_path / "hidden2" / "singular_value" / "c.1.0.0.0")
    with pytest.raises(FeaturespaceError, match=message) as caught:
        reader(spectra_path)
    assert str(caught.value).startswith(f"{spectra_path}: layer hidden2, seed 5, step 0–200, ")


@pytest.mark.parametrize("damage", [Path.unlink, truncate, flip_a_bit])
@pytest.mark.parametrize("key", ["seed/c.0", "label/c.0", "hidden1/zarr.json", "zarr.json", "checksums.json"])
def test_damaged_coordinates_and_metadata_are_named(feature_path, key, damage):
    damage(feature_path / key)
    with pytest.raises(FeaturespaceError) as caught:
        FeatureStore.open(feature_path, feature_path.with_suffix(".json"))
    line = str(caught.value)
    if (key, damage) == ("checksums.json", flip_a_bit):
        assert line.startswith(f"{feature_path}")
    else:
        assert line.startswith(f"{feature_path}: ")
        assert f"{key} " in line
        assert ("layer hidden1" in line) == key.startswith("hidden1")


@pytest.mark.parametrize("key", ["hidden1/c.0.3.0.0", "hidden1/c.0.0.0.0.partial", "hidden9/zarr.json", "notes.txt"])
def test_what_does_not_belong_is_named(feature_path, key):
    (feature_path / key).parent.mkdir(exist_ok=True)
    (feature_path / key).write_bytes(b"")
    for reader in (read_everything, verify):
        with pytest.raises(FeaturespaceError, match=f"{key} does not belong there") as caught:
            reader(feature_path)
        if key == "hidden1/c.0.3.0.0":
            assert "layer hidden1, seed 3, step number 3, " in str(caught.value)


def test_a_store_of_another_format_is_refused(feature_path, monkeypatch):
    monkeypatch.setattr(stores, "FORMAT", 2)
    for reader in (read_everything, verify, read_group):
        with pytest.raises(FeaturespaceError, match=r"features.zarr is in store format 1, and .* reads format 2"):
            reader(feature_path)


def test_a_whole_store_that_is_another_one_is_refused(tmp_path, feature_path):
    other = make_features(tmp_path / "other.zarr", key=1)
    shutil.rmtree(feature_path)
    other.rename(feature_path)
    read_everything(feature_path)
    for open_store in (FeatureStore.open, lambda path, digest: read_group(path, digest=digest), verify_digest):
        with pytest.raises(FeaturespaceError, match=r"features.zarr is not the store that .*features.json describes"):
            open_store(feature_path, feature_path.with_suffix(".json"))


def test_a_sample_hash_that_is_not_that_of_the_samples_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as context:
        context.setattr(stores, "sample_hash", lambda ids: "0" * 64)
        path = make_features(tmp_path / "features.zarr")
    with pytest.raises(FeaturespaceError, match="sample_hash"):
        FeatureStore.open(path)


def test_different_samples_are_not_compared(tmp_path):
    one = FeatureStore.open(make_features(tmp_path / "a.zarr"))
    other = FeatureStore.open(make_features(tmp_path / "b.zarr", sample_ids=np.arange(N_SAMPLES)))
    require_same_samples(one.sample_hash, one.sample_hash, "a", "a")
    with pytest.raises(FeaturespaceError, match="a and b hold different samples"):
        require_same_samples(one.sample_hash, other.sample_hash, "a", "b")


@pytest.mark.parametrize("reader", [FeatureStore.open, read_group])
def test_a_store_that_is_not_there_is_named(tmp_path, reader):
    with pytest.raises(FeaturespaceError, match=r"no.zarr does not exist; to make it again, add"):
        reader(tmp_path / "no.zarr")


def test_other_stores_are_not_feature_stores(spectra_path):
    with pytest.raises(FeaturespaceError, match="is not a feature store"):
        FeatureStore.open(spectra_path)


# --- digests --------------------------------------------------------------------------------------


def test_sample_hash():
    # printf '\\1\\0\\0\\0\\0\\0\\0\\0\\2\\0\\0\\0\\0\\0\\0\\0' | sha256sum
    expected = "0c730b69905c5ef7a4ca5269f72365400bde2dd2c04eaf9bbb3d1c4a265a0131"
    for dtype in ("<i8", ">i8", np.int32):
        assert sample_hash(np.array([1, 2], dtype=dtype)) == expected
    assert sample_hash(np.array([2, 1])) != expected


def test_the_digest_depends_on_every_byte_and_on_nothing_else(tmp_path):
    digests = []
    for name, key in [("a", 0), ("b", 0), ("c", 1)]:
        path = make_features(tmp_path / name / "features.zarr", key=key)
        digests.append(path.with_suffix(".json").read_text())
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]
    (path / ".snakemake_timestamp").touch()
    assert write_digest(path, tmp_path / "again.json") == read_digest(tmp_path / "c" / "features.json")["digest"]
    facts = read_digest(tmp_path / "c" / "features.json")
    assert facts["recipe"] == "small"
    files = [file for file in path.rglob("[!.]*") if file.is_file()]
    assert facts["n_files"] == len(files)
    assert facts["n_bytes"] == sum(file.stat().st_size for file in files)


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}"])
def test_a_damaged_digest_file_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "d.json").write_text(content)
    with pytest.raises(FeaturespaceError, match=r"d.json is not a readable digest file"):
        read_digest(tmp_path / "d.json")


def test_many_chunks(tmp_path):
    """Opening 5,000 chunks takes some hundredths of a second; the bound leaves room for a busy machine."""
    n_steps = 5_000
    with store_draft(tmp_path / "f.zarr") as draft:
        writer = FeatureWriter(
            draft,
            layers={"input": 1},
            seeds=[0],
            steps=np.arange(n_steps),
            epochs=np.arange(n_steps) / 10,
            sample_ids=np.arange(2),
            labels=np.zeros(2),
            attrs={},
        )
        for i in range(n_steps):
            writer.write("input", 0, i, 0, np.full((2, 1), i, dtype=np.float32))
    write_digest(tmp_path / "f.zarr", tmp_path / "f.json")
    assert (tmp_path / "f.json").stat().st_size < 1000
    start = time.monotonic()
    store = FeatureStore.open(tmp_path / "f.zarr", tmp_path / "f.json")
    assert store.matrix("input", 0, 1_234).tolist() == [[1_234.0], [1_234.0]]
    assert time.monotonic() - start < 5


# --- files ----------------------------------------------------------------------------------------


def test_tables_round_trip(tmp_path):
    import pandas as pd

    table = pd.DataFrame({"name": ["a", "b"], "angle_deg": [0.1 + 0.2, np.nan], "seed": [1, 2], "ok": [True, False]})
    write_table(tmp_path / "new" / "t.csv", table)
    assert (tmp_path / "new" / "t.csv").read_bytes() == (
        b"name,angle_deg,seed,ok\na,0.30000000000000004,1,True\nb,,2,False\n"
    )
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "new" / "t.csv"), table)


def test_text_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text_atomically(path, "old\r\n")
    with monkeypatch.context() as context:
        context.setattr(os, "fsync", no_space)
        with pytest.raises(FeaturespaceError, match=r"disk is full: .*a.txt"):
            write_text_atomically(path, "new")
    assert path.read_bytes() == b"old\r\n"
    assert siblings(path) == ["a.txt"]


KILLED_WHILE_WRITING = """
import os, pathlib, signal, sys
pathlib.Path.replace = lambda self, target: os.kill(os.getpid(), signal.SIGKILL)
from featurespace.files import write_text_atomically
write_text_atomically(sys.argv[1], "new")
"""


def test_the_draft_of_a_file_whose_writer_was_killed_is_cleared_by_the_next(tmp_path):
    path = tmp_path / "a[1].txt"
    path.write_text("old")
    environment = {**os.environ, "PYTHONPATH": str(Path(stores.__file__).parents[1])}
    command = [sys.executable, "-c", KILLED_WHILE_WRITING, str(path)]
    assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(siblings(path)) == 2
    write_text_atomically(path, "newer")
    assert path.read_text() == "newer"
    assert siblings(path) == ["a[1].txt"]


def test_json_refuses_what_is_not_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    write_json(tmp_path / "a.json", {"b": 1, "a": "é"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "b": 1,\n  "a": "é"\n}\n'


def test_no_warning_escapes_a_writer(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The one warning that Zarr gives for consolidated metadata is silenced where it arises.
        make_spectra(tmp_path / "s.zarr")
        load_groups(tmp_path / "s.zarr")
