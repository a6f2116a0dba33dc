"""Data sets of one's own, from their files, or function, to what networks see."""

import hashlib

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from featurespace.datasets import load_dataset
from featurespace.errors import FeaturespaceError
from featurespace.inventory import contents_digest
from featurespace.own_data import call_function, read_own
from featurespace.own_split import held_out_rows
from featurespace.preparation import rows_per_chunk
from featurespace.stores import sample_hash, store_draft, write_digest, write_group

DIGITS = load_digits()
SPEC = {"scaling": "unit", "train_limit": None, "test_limit": None}
IMAGES = SPEC | {"kind": "images", "side": 8, "colour": False, "test_fraction": 0.25, "split_seed": 0}
ARRAYS = SPEC | {"kind": "arrays", "channels": None, "test_fraction": 0.25, "split_seed": 0}


def digest_of(root):
    """Work out the digest of a source, apart from the library's walk."""
    files = sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else [root]
    return contents_digest(
        {
            "" if path == root else path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        }
    )


def write_images(root, prefix="", rows=range(90)):
    for row in rows:
        folder = root / prefix / f"class-{DIGITS.target[row]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((15 * DIGITS.images[row]).astype(np.uint8)).save(folder / f"{row:04d}.png")


def read(spec, root):
    return read_own(spec | {"contents": digest_of(root)}, root, [], 2)


def through_a_store(dataset, tmp_path):
    with store_draft(tmp_path / "d.zarr") as draft:
        write_group(draft, "", dataset, chunks={"sample": rows_per_chunk(dataset)})
    write_digest(tmp_path / "d.zarr", tmp_path / "d.json")
    return load_dataset(tmp_path / "d.zarr", tmp_path / "d.json")


def test_a_folder_of_images_is_the_images_by_class_and_name(tmp_path):
    write_images(tmp_path / "photos")
    (tmp_path / "photos/class-3/notes.txt").write_text("no image")
    (tmp_path / "photos/class-3/notes.txt").unlink()
    dataset = through_a_store(read(IMAGES, tmp_path / "photos"), tmp_path)
    order = np.lexsort([np.arange(90), DIGITS.target[:90]])
    np.testing.assert_array_equal(dataset.images[:, 0], 15 * DIGITS.images[order])
    np.testing.assert_array_equal(dataset.labels, DIGITS.target[order])
    assert dataset.class_names == [f"class-{i}" for i in range(10)]
    np.testing.assert_array_equal(dataset.sample_ids, np.arange(90))
    assert dataset.sample_hash == sample_hash(np.arange(90))
    np.testing.assert_array_equal(np.flatnonzero(dataset.split), held_out_rows(DIGITS.target[order], 0.25, 0))
    np.testing.assert_allclose(dataset.inputs()[:, 0], 15 * DIGITS.images[order] / 255, rtol=1e-6)


def test_the_names_of_images_are_kept(tmp_path):
    write_images(tmp_path / "photos", rows=range(20))
    dataset = read(IMAGES | {"test_fraction": None}, tmp_path / "photos")
    assert dataset["file"].to_numpy()[:2].tolist() == ["class-0/0000.png", "class-0/0010.png"]
    assert not dataset["split"].any()


def test_a_folder_with_a_test_split_keeps_it(tmp_path):
    write_images(tmp_path / "photos", "train", range(40))
    write_images(tmp_path / "photos", "test", range(40, 60))
    dataset = read(IMAGES | {"colour": True, "scaling": "standardise"}, tmp_path / "photos")
    np.testing.assert_array_equal(dataset["split"], [0] * 40 + [1] * 20)
    assert dataset["image"].shape == (60, 3, 8, 8)
    training = 15 * DIGITS.images[:40] / 255
    assert dataset.attrs["offset"] == pytest.approx(training.mean(), rel=1e-12)
    assert dataset.attrs["scale"] == pytest.approx(training.std(), rel=1e-12)


def test_limits_leave_the_others_out_and_keep_the_ids(tmp_path):
    write_images(tmp_path / "photos", "train", range(40))
    write_images(tmp_path / "photos", "test", range(40, 60))
    dataset = read(IMAGES | {"train_limit": 20, "test_limit": 10}, tmp_path / "photos")
    np.testing.assert_array_equal(np.bincount(dataset["split"]), [20, 10])
    whole = read(IMAGES, tmp_path / "photos")
    np.testing.assert_array_equal(dataset["image"], whole["image"].sel(sample=dataset["sample"]))
    assert dataset["sample"][-1] > 40


@pytest.mark.parametrize("form", ["npz", "npy", "zarr", "safetensors"])
def test_rows_in_a_file_are_rows(tmp_path, form):
    arrays = {"x": DIGITS.data[:50].astype(np.float32), "y": DIGITS.target[:50], "split": np.arange(50) % 5 // 4}
    path = tmp_path / f"data.{form}"
    match form:
        case "npz":
            np.savez(path, **arrays)
        case "npy":
            path.mkdir()
            for name, values in arrays.items():
                np.save(path / f"{name}.npy", values)
        case "zarr":
            import zarr

            group = zarr.open_group(str(path), mode="w")
            for name, values in arrays.items():
                group.create_array(name, data=values, chunks=(20, *values.shape[1:]))
        case "safetensors":
            from safetensors.numpy import save_file

            save_file(arrays, path)
    dataset = through_a_store(read(ARRAYS, path), tmp_path)
    np.testing.assert_array_equal(dataset.images, arrays["x"])
    np.testing.assert_array_equal(dataset.labels, arrays["y"])
    np.testing.assert_array_equal(dataset.split, arrays["split"])
    assert dataset.input_shape == (64,)
    assert not dataset.is_image


def test_rows_are_standardised_by_two_numbers(tmp_path):
    np.savez(tmp_path / "d.npz", x=DIGITS.data[:60], y=DIGITS.target[:60], split=np.arange(60) >= 40)
    dataset = through_a_store(read(ARRAYS | {"scaling": "standardise"}, tmp_path / "d.npz"), tmp_path)
    training = DIGITS.data[:40]
    expected = (DIGITS.data[:60] - training.mean()) / training.std()
    np.testing.assert_allclose(dataset.inputs(dtype=np.float64), expected, rtol=1e-12, atol=1e-12)
    np.savez(tmp_path / "d.npz", x=np.ones((6, 2)), y=[0, 1] * 3)
    with pytest.raises(FeaturespaceError, match="all training values are equal"):
        read(ARRAYS | {"scaling": "standardise"}, tmp_path / "d.npz")


def test_sources_that_change_while_a_study_runs_are_noticed(tmp_path):
    write_images(tmp_path / "photos", rows=range(20))
    np.savez(tmp_path / "d.npz", x=DIGITS.data[:20], y=DIGITS.target[:20])
    for spec, path in ((IMAGES, tmp_path / "photos"), (ARRAYS, tmp_path / "d.npz")):
        with pytest.raises(FeaturespaceError, match="has changed since the study was read; run the same command again"):
            read_own(spec | {"contents": "0" * 64}, path, [])


# --- functions --------------------------------------------------------------------------------------------------

MODULE = """
import numpy as np
from .chosen import K

def pair(n=6):
    return np.eye(n), np.arange(n) % K

def four():
    return [np.eye(6), np.arange(6) % K, np.eye(6)[:2], np.array([0, 1])]

def named(key="x"):
    return {key: np.eye(6), "y": np.arange(6) % K}

def wrong():
    return np.eye(6)

def objects():
    return {"x": np.array([{}]), "y": [0]}

def fails():
    raise RuntimeError("no disk\\nno data")

LOAD = 3
"""


@pytest.fixture
def module(tmp_path):
    folder = tmp_path / "mine_of_tests"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "chosen.py").write_text("K = 2\n")
    (folder / "data.py").write_text(MODULE)
    return "mine_of_tests.data"


def test_a_function_may_return_a_tuple_or_names(tmp_path, module):
    own = call_function(f"{module}:pair", {"n": 8}, [tmp_path])
    np.testing.assert_array_equal(own.parts[0].whole(), np.eye(8))
    np.testing.assert_array_equal(own.labels, np.arange(8) % 2)
    assert own.split is None
    np.testing.assert_array_equal(call_function(f"{module}:four", {}, [tmp_path]).split, [0] * 6 + [1] * 2)
    assert call_function(f"{module}:named", {}, [tmp_path]).shape == (6,)


@pytest.mark.parametrize(
    ("function", "arguments", "says"),
    [
        ("wrong", {}, "wrong should return .*, not ndarray"),
        ("objects", {}, "objects: x is of object, which is neither numbers nor text"),
        ("fails", {}, r"fails failed: RuntimeError: no disk no data \(data\.py:\d+\)$"),
        ("pair", {"m": 3}, "pair failed: TypeError: .*'m'"),
        ("nowhere", {}, "nowhere cannot be imported: AttributeError"),
        ("LOAD", {}, "LOAD failed: TypeError"),
        ("named", {"key": "z"}, "named: array 'z' is not known"),
    ],
)
def test_a_function_that_fails_is_one_line(tmp_path, module, function, arguments, says):
    with pytest.raises(FeaturespaceError, match=f"{module}:{says}"):
        call_function(f"{module}:{function}", arguments, [tmp_path])


def test_a_function_is_held_to_what_the_study_says_of_it(tmp_path, module):
    said = {"function": f"{module}:four", "arguments": {}, "shape": [6], "classes": 2, "train": 6, "test": 2}
    spec = SPEC | {"kind": "function", "contents": {}} | said
    dataset = read_own(spec, None, [tmp_path])
    np.testing.assert_array_equal(dataset["value"][:6], np.eye(6))
    np.testing.assert_array_equal(dataset["split"], [0] * 6 + [1] * 2)
    for key, value in (("shape", [7]), ("classes", 3), ("train", 5), ("test", 0)):
        with pytest.raises(
            FeaturespaceError, match=rf"the study says {key}: .*, and it returned {said[key]!r}".replace("[", r"\[")
        ):
            read_own(spec | {key: value}, None, [tmp_path])
