"""Other people's formats of arrays: what is read is what was written, and what lies is refused by name."""

import json
import zipfile

import numpy as np
import pytest
import zarr
from safetensors.numpy import save_file

from featurespace import foreign
from featurespace.errors import FeaturespaceError
from featurespace.foreign import open_arrays, require_memory

VALUES = {
    "a": np.random.default_rng(0).normal(size=(2, 3, 20, 4)).astype(np.float32),
    "b": np.arange(20, dtype=np.int64),
}


def write_npy(path):
    path.mkdir()
    for name, values in VALUES.items():
        np.save(path / f"{name}.npy", values)


def write_zarr(version, **options):
    def write(path):
        group = zarr.open_group(str(path), mode="w", zarr_format=version)
        group.attrs["layers"] = ["a"]
        for name, values in VALUES.items():
            chunks = (1, 1, 6, 4) if values.ndim == 4 else (7,)
            shards = (1, 1, 12, 4) if options.get("sharded") and values.ndim == 4 else None
            array = group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=chunks, shards=shards)
            array[...] = values

    return write


FORMATS = {
    "a folder of .npy": ("x", write_npy),
    ".npz": ("x.npz", lambda path: np.savez(path, **VALUES)),
    ".npz, compressed": ("x.npz", lambda path: np.savez_compressed(path, **VALUES)),
    ".safetensors": ("x.safetensors", lambda path: save_file(VALUES, path)),
    "Zarr 2": ("x.zarr", write_zarr(2)),
    "Zarr 3": ("x.zarr", write_zarr(3)),
    "Zarr 3, sharded": ("x.zarr", write_zarr(3, sharded=True)),
}


@pytest.mark.parametrize("form", FORMATS)
def test_what_was_written_is_read(tmp_path, form):
    name, write = FORMATS[form]
    write(tmp_path / name)
    arrays, attributes = open_arrays(tmp_path / name)
    assert {key: (array.shape, array.dtype) for key, array in arrays.items()} == {
        key: (values.shape, values.dtype) for key, values in VALUES.items()
    }
    assert attributes == ({"layers": ["a"]} if "Zarr" in form else {})
    a, rows = arrays["a"], np.array([1, 2, 3, 9, 17, 19])
    np.testing.assert_array_equal(a.whole(), VALUES["a"])
    np.testing.assert_array_equal(a.read((1, 2), slice(4, 11)), VALUES["a"][1, 2, 4:11])
    np.testing.assert_array_equal(a.read((1, 0), rows), VALUES["a"][1, 0, rows])
    np.testing.assert_array_equal(arrays["b"].read((), rows), rows)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["?", "u1", "<i8", ">i4", "<f2", ">f8"])
def test_dtypes_and_orders_of_numpy(tmp_path, dtype, order):
    values = np.asarray(np.arange(12).reshape(4, 3) % 2, dtype=dtype, order=order)
    np.save(tmp_path / "x.npy", values)
    np.testing.assert_array_equal(open_arrays(tmp_path / "x.npy")[0]["x"].read((), slice(1, 3)), values[1:3])


def test_text_is_read(tmp_path):
    names = np.array(["ankle boot", "名前"])
    np.savez(tmp_path / "x.npz", names=names)
    assert open_arrays(tmp_path / "x.npz")[0]["names"].whole().tolist() == names.tolist()
    zarr.open_group(str(tmp_path / "x.zarr"), mode="w").create_array(
        "names", data=names.astype(np.dtypes.StringDType())
    )
    assert open_arrays(tmp_path / "x.zarr")[0]["names"].whole().tolist() == names.tolist()


def test_a_scalar_and_an_empty_array_are_arrays(tmp_path):
    np.savez(tmp_path / "x.npz", one=np.float32(3), none=np.empty((0, 3)))
    arrays, _ = open_arrays(tmp_path / "x.npz")
    assert arrays["one"].whole() == 3
    assert arrays["none"].whole().shape == (0, 3)


def refused(path, says):
    with pytest.raises(FeaturespaceError, match=says) as caught:
        for array in open_arrays(path)[0].values():
            array.whole()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_objects_are_never_opened(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    refused(tmp_path / "x.npy", "is an array of Python objects, which is never opened")
    np.savez(tmp_path / "x.npz", x=np.array([{}], dtype=object))
    refused(tmp_path / "x.npz", "'x.npy' is an array of Python objects")


@pytest.mark.parametrize("dtype", ["c8", "M8[s]", "V4", "S3"])
def test_what_is_neither_numbers_nor_text_is_refused(tmp_path, dtype):
    np.save(tmp_path / "x.npy", np.zeros(3, dtype=dtype))
    refused(tmp_path / "x.npy", "is neither numbers nor text")


def test_files_that_are_cut_or_padded_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", VALUES["b"])
    whole = (tmp_path / "x.npy").read_bytes()
    for content in (whole[:-8], whole + b"12345678", whole[:-1]):
        (tmp_path / "x.npy").write_bytes(content)
        refused(tmp_path / "x.npy", "its header says 160 bytes of values, and there are")
    for content in (b"", whole[:7], b"\x93NUMPY\x09\x00" + whole[8:], whole[:20]):
        (tmp_path / "x.npy").write_bytes(content)
        refused(tmp_path / "x.npy", "cannot be read")
    for name in ("x.npz", "x.safetensors"):
        FORMATS[f".{name[2:]}"][1](tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        for content in (b"", whole[:100], whole[:-30], b"\xff" * 100):
            (tmp_path / name).write_bytes(content)
            refused(tmp_path / name, "cannot be read")


def test_half_precision_of_brains_is_refused_with_advice(tmp_path):
    import torch
    from safetensors.torch import save_file as save_tensors

    save_tensors({"x": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "x.safetensors")
    refused(tmp_path / "x.safetensors", "'x' is of BF16; save it as float32")


def test_other_files_and_folders_are_refused(tmp_path):
    (tmp_path / "x.csv").write_text("1,2")
    refused(tmp_path / "x.csv", "is not a Zarr store, a folder of .npy files, an .npz or a .safetensors file")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "is neither a Zarr store nor a folder with .npy files")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("readme.txt", "x")
    refused(tmp_path / "x.npz", "'readme.txt' is no .npy file")


@pytest.mark.parametrize("version", [2, 3])
def test_a_chunk_that_is_missing_is_never_filled(tmp_path, version):
    write_zarr(version)(tmp_path / "x.zarr")
    chunk = sorted(
        p for p in (tmp_path / "x.zarr/a").rglob("*") if p.is_file() and not p.name.startswith((".z", "zarr"))
    )
    chunk[0].unlink()
    refused(tmp_path / "x.zarr", r"a: 1 of 24 chunks are missing")


def test_a_chunk_that_is_damaged_is_an_error(tmp_path):
    write_zarr(3)(tmp_path / "x.zarr")
    for path in (tmp_path / "x.zarr/a/c").rglob("*"):
        if path.is_file():
            path.write_bytes(b"no chunk")
    refused(tmp_path / "x.zarr", "a cannot be read")


def edited_metadata(path, **changes):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | changes))


@pytest.mark.parametrize(
    ("version", "changes", "says"),
    [
        (2, {"dtype": "|O", "filters": [{"id": "pickle"}]}, "is packed by 'pickle', which is not read"),
        (2, {"compressor": {"id": "pickle"}}, "is packed by 'pickle'"),
        (2, {"dtype": "|O"}, "is neither numbers nor text"),
        (2, {"dtype": [["x", "<f4"]]}, "is neither numbers nor text"),
        (2, {"chunks": [2**40]}, "has chunks of more than"),
        (2, {"shape": [-3]}, "has the shape"),
        (2, {"shape": 3}, "cannot be read"),
        (3, {"codecs": [{"name": "numcodecs.pickle", "configuration": {}}]}, "is packed by 'numcodecs.pickle'"),
        (
            3,
            {"codecs": [{"name": "sharding_indexed", "configuration": {"codecs": [{"name": "evil"}]}}]},
            "is packed by 'evil'",
        ),
        (3, {"data_type": {"name": "struct"}}, "is neither numbers nor text"),
        (3, {"data_type": "complex64"}, "is neither numbers nor text"),
        (3, {"storage_transformers": [{}]}, "storage transformers"),
        (3, {"chunk_grid": {}}, "cannot be read"),
    ],
)
def test_metadata_of_a_stranger_are_not_believed(tmp_path, version, changes, says):
    write_zarr(version)(tmp_path / "x.zarr")
    edited_metadata(tmp_path / "x.zarr/b" / ("zarr.json" if version == 3 else ".zarray"), **changes)
    refused(tmp_path / "x.zarr", says)


def test_more_than_the_memory_is_not_asked_for(tmp_path, monkeypatch):
    with pytest.raises(FeaturespaceError, match=r"x would take 1e\+09 GB, and this machine has"):
        require_memory(10**18, "x")
    np.save(tmp_path / "x.npy", VALUES["b"])
    monkeypatch.setattr(foreign.os, "sysconf", lambda name: 10)
    refused(tmp_path / "x.npy", "would take 1.6e-07 GB")
