"""Strangers' files: archives, pickles, stores and weights are data, read within bounds or refused, never obeyed."""

import ast
import gzip
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import torch
import xarray as xr

from featurespace import preparation
from featurespace.catalogue import PickleLayout, PublishedDataset, PublishedFile
from featurespace.errors import FeaturespaceError
from featurespace.foreign import open_arrays
from featurespace.image_folder import arrange, is_image
from featurespace.inventory import list_source
from featurespace.own_data import decode_image
from featurespace.preparation import parse_idx, read_published, read_wanted_members, unpickle_arrays
from featurespace.retrieval import retrieve
from featurespace.stores import (
    FeatureStore,
    FeatureWriter,
    read_group,
    sample_hash,
    sealed,
    store_draft,
    verify_digest,
    write_digest,
    write_group,
)
from featurespace.weights import KeptWeights, step_file, write_tensors

ROOT = Path(__file__).parents[2]
MEBIBYTE = 2**20


@contextmanager
def memory_below(n_bytes: int):
    """Check that no more memory than that is asked for in between, NumPy's included."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < n_bytes
    finally:
        tracemalloc.stop()


def files_below(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


# --- archives ---------------------------------------------------------------------------------------------------


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


def archive_of(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    """Make a gzipped tar archive; a header may say another size than its content has."""
    stream = io.BytesIO()
    for info, content in members:
        padding = -len(content) % tarfile.BLOCKSIZE
        stream.write(info.tobuf(form) + content + bytes(padding))
    stream.write(bytes(2 * tarfile.BLOCKSIZE))
    return gzip.compress(stream.getvalue(), 1)


def with_header(name: bytes, size: bytes) -> bytes:
    """Make an archive of one member whose header has these bytes for name and size, and a right checksum."""
    header = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
    header[: len(name)] = name
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return gzip.compress(bytes(header) + bytes(4096))


def renamed_by_pax(name: str, size: str | None = None) -> bytes:
    """Make an archive whose extended header gives the member another name, or size, than its own header."""
    info = member("tiny/meta")
    info.pax_headers = {"path": name, **({"size": size} if size else {})}
    return archive_of((info, b""), form=tarfile.PAX_FORMAT)


CLIMBING = [
    "../escape",
    "tiny/../../escape",
    "./../escape",
    "tiny/..",
    "..",
    "/etc/escape",
    "//escape",
    "tiny/" + "x" * 200 + "/../../../escape",
]

ARCHIVES: dict[str, tuple[list[bytes], str]] = {
    "members that lead out of the directory": (
        [
            *(archive_of((member(name), b"")) for name in CLIMBING),
            *(archive_of((member(name, tarfile.DIRTYPE), b"")) for name in CLIMBING),
            renamed_by_pax("../escape"),
            renamed_by_pax("/etc/escape"),
        ],
        "leads out of the archive",
    ),
    "links, devices and pipes": (
        [
            archive_of((member("tiny/meta", kind, target), b""))
            for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
            for target in ("/etc/passwd", "../../escape", "tiny/meta", "")
        ],
        "is no plain file",
    ),
    "sizes that lie": (
        [
            archive_of((member("tiny/meta", size=2**40), b"short")),
            archive_of((member("tiny/meta", size=300 * MEBIBYTE), b"short")),
            archive_of((member("tiny/meta", size=4096), b"short")),
            with_header(b"tiny/meta", b"\x80" + b"\xff" * 11),
            with_header(b"tiny/meta", b"\xff" * 12),
            with_header(b"tiny/meta", b"no number!!!"),
            renamed_by_pax("tiny/meta", str(2**70)),
            renamed_by_pax("tiny/meta", "-5000"),
        ],
        r"too large|cut|no whole tar archive|there is no member",
    ),
    "a bomb": (
        [
            archive_of((member("tiny/other", size=50 * MEBIBYTE), bytes(50 * MEBIBYTE))),
            archive_of(*[(member("tiny/other", size=MEBIBYTE), bytes(MEBIBYTE))] * 50),
            archive_of(*[(member("tiny", tarfile.DIRTYPE), b"")] * 40_000),
            # the names that extended headers carry are read whole
            archive_of((member("tiny/x", tarfile.XHDTYPE, size=50 * MEBIBYTE), bytes(50 * MEBIBYTE))),
            archive_of((member("tiny/x", tarfile.GNUTYPE_LONGNAME, size=50 * MEBIBYTE), bytes(50 * MEBIBYTE))),
        ],
        r"too large|unpacks to more than",
    ),
}


@pytest.mark.parametrize("what", ARCHIVES)
def test_a_hostile_archive_is_refused_and_nothing_leaves_it(tmp_path, what, monkeypatch, record_fault):
    # the limits at a size that is quick to exceed
    monkeypatch.setattr(preparation, "_MAX_ARCHIVE_BYTES", 16 * MEBIBYTE)
    archives, reason = ARCHIVES[what]
    inner = tmp_path / "a/b/c"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    before = files_below(tmp_path)
    for archive in archives:
        with memory_below(80 * MEBIBYTE), pytest.raises(ValueError, match=reason):
            preparation.read_members(archive, ["tiny/meta"])
        assert files_below(tmp_path) == before
    record_fault("an archive", what, "refused, nothing is unpacked", times=len(archives))


def test_an_archive_of_plain_members_is_still_read():
    archive = archive_of((member("./tiny/meta", size=5), b"whole"), (member("other", size=3), b"two"))
    assert read_wanted_members(archive, lambda name: name.startswith("tiny/")) == {"tiny/meta": b"whole"}


LYING_FILES: dict[str, Callable[[bytes], bytes]] = {
    "a bomb": lambda payload: gzip.compress(bytes(400 * MEBIBYTE), 1),
    "a bomb behind the right beginning": lambda payload: gzip.compress(payload + bytes(400 * MEBIBYTE), 1),
    "a second file behind the first": lambda payload: gzip.compress(payload) + gzip.compress(b"more"),
    "a size that lies": lambda payload: gzip.compress(payload)[:-4] + struct.pack("<I", 5),
    "a file that is cut": lambda payload: gzip.compress(payload)[:-9],
    "no gzip file": lambda payload: payload,
}


@pytest.mark.parametrize("what", LYING_FILES)
def test_a_compressed_file_that_lies_is_not_kept(tmp_path, what, record_fault):
    payload = np.random.default_rng(0).integers(0, 256, 10_000).astype(np.uint8).tobytes()
    (tmp_path / "from").mkdir()
    file = PublishedFile("x.gz", "0" * 32, len(payload), hashlib.sha256(payload).hexdigest())
    published = PublishedDataset("tiny", (), (file,), PickleLayout("", (), (), "", "", ""), None, 1, 1, 1, None)
    (tmp_path / "from/x.gz").write_bytes(LYING_FILES[what](payload))
    with memory_below(8 * MEBIBYTE), pytest.raises(FeaturespaceError, match=r"cannot retrieve x\.gz"):
        retrieve(published, tmp_path / "to", source=str(tmp_path / "from"))
    assert files_below(tmp_path) == {"from", "from/x.gz", "to"}
    # the same bytes, honestly compressed, are kept
    (tmp_path / "from/x.gz").write_bytes(gzip.compress(payload))
    retrieve(published, tmp_path / "to", source=str(tmp_path / "from"))
    assert (tmp_path / "to/x.gz").exists()
    record_fault("a compressed file", what, "refused within its published size, nothing is kept")


@pytest.mark.parametrize(
    "header",
    [
        b"\x00\x00\x08\xff",
        b"\x00\x00\x08\x04" + b"\xff" * 16,
        b"\x00\x00\x08\x01\x7f\xff\xff\xff",
        b"\x00\x00\x08\x02" + struct.pack(">II", 2**31, 2**31),
        b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00",
    ],
)
def test_an_idx_header_that_lies_allocates_nothing(header, record_fault):
    with memory_below(MEBIBYTE), pytest.raises(ValueError, match=r"no IDX file|the header says"):
        parse_idx(header + bytes(100))
    record_fault("a file of images", "a header that lies", "refused, no memory is asked for")


# --- pickles ----------------------------------------------------------------------------------------------------


def reduced(name: str, *arguments: bytes, new: bool = False) -> bytes:
    """Write a pickle that calls something by its name (`module name`), or makes an object of a class."""
    module, _, attribute = name.partition(" ")
    call = b"\x81" if new else b"R"
    return b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + b"(" + b"".join(arguments) + b"t" + call + b"."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


ARRAY = (
    b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"  # an empty one, as all pickles begin it
)


def array_state(shape: bytes, dtype: bytes, content: bytes) -> bytes:
    """Write a pickle of an array in this state."""
    return b"\x80\x02" + ARRAY + b"(K\x01" + shape + dtype + b"\x89" + content + b"tb."


def dtype_of(name: str) -> bytes:
    return b"cnumpy\ndtype\n(" + text(name) + b"K\x00K\x01tR"


def evil_pickles(command: str) -> dict[str, list[bytes]]:
    """Write pickles that would run a command, or make an array of memory that is not theirs."""
    calls = ("os system", "posix system", "builtins eval", "builtins exec", "__builtin__ eval", "subprocess getoutput")
    pointers = b"C\x08" + b"\x41" * 8
    return {
        "a call": [reduced(name, text(command)) for name in calls]
        + [
            reduced("builtins getattr", text("a"), text("b")),
            reduced("numpy.core.multiarray scalar", text(command)),
            reduced("numpy ndarray.tofile", text(command)),
            reduced("numpy.testing._private.utils runstring", text(command), b"}"),
            reduced("copyreg _reconstructor", text(command)),
            reduced("torch.storage _load_from_bytes", b"U\x01x"),
            reduced("numpy load", text("x.npy")),
            b"(S'" + command.encode() + b"'\nios\nsystem\n.",
            b"\x80\x02\x8c\x02os\x8c\x06system\x93" + text(command) + b"\x85R.",
        ],
        "an array of objects": [
            # NumPy itself makes an array of pointers from any bytes
            reduced("numpy ndarray", b"(K\x01t", text("O"), pointers),
            reduced("numpy ndarray", b"(K\x01t", text("O"), pointers, new=True),
            array_state(b"(K\x01t", dtype_of("O8"), pointers),
            array_state(b"(K\x01t", dtype_of("V8"), pointers),
            array_state(b"(K\x01t", dtype_of("i8,O"), pointers),
            b"\x80\x02" + dtype_of("O") + b".",
            array_state(b"(K\x01t", dtype_of("u1"), b"]K\x01a"),
        ],
        "sizes that lie": [
            array_state(b"(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft", dtype_of("u1"), b"U\x01a"),
            array_state(b"(K\x05t", dtype_of("i8"), b"U\x01a"),
            array_state(b"(J\xff\xff\xff\xfft", dtype_of("u1"), b"U\x01a"),
            b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
            b"\x80\x02X" + struct.pack("<I", 2**31) + b"x.",
            b"\x80\x04\x95" + struct.pack("<Q", 2**63 - 1) + b"N.",
        ],
    }


LAYOUT = PickleLayout("tiny.tar.gz", ("tiny/train",), ("tiny/test",), "tiny/meta", "labels", "names")


def published_pickles(directory: Path, evil: bytes, md5: str | None = None) -> PublishedDataset:
    """Put a pickle for the training batch of a published data set, whose checksum is the archive's or is given."""
    rows = np.arange(12, dtype=np.uint8).reshape(1, 12)
    test = pickle.dumps({"data": rows, "labels": [0]}, protocol=2)
    meta = pickle.dumps({"names": ["a"]}, protocol=2)
    contents = {"tiny/train": evil, "tiny/test": test, "tiny/meta": meta}
    archive = archive_of(*((member(name, size=len(content)), content) for name, content in contents.items()))
    (directory / "tiny.tar.gz").write_bytes(archive)
    file = PublishedFile("tiny.tar.gz", md5 or hashlib.md5(archive).hexdigest())
    return PublishedDataset("tiny", (), (file,), LAYOUT, (3, 2, 2), 1, 1, 1, None)


@pytest.mark.parametrize("what", evil_pickles(""))
def test_an_evil_pickle_is_not_opened_and_would_not_be_obeyed(tmp_path, what, monkeypatch, record_fault):
    crater = tmp_path / "crater"
    evil = evil_pickles(f"touch {crater}")[what]
    opened = []
    honest = preparation.unpickle_arrays
    monkeypatch.setattr(preparation, "unpickle_arrays", lambda data: opened.append(data) or honest(data))
    for data in evil:
        with pytest.raises(FeaturespaceError, match="is not the published file"):
            read_published(published_pickles(tmp_path, data, md5="0" * 32), tmp_path)
        assert not opened
        with memory_below(8 * MEBIBYTE), pytest.raises(FeaturespaceError, match="no pickle of arrays"):
            read_published(published_pickles(tmp_path, data), tmp_path)
        assert opened.pop() == data
        assert files_below(tmp_path) == {"tiny.tar.gz"}
    record_fault("a pickle", what, "never opened before its checksum, never obeyed after it", times=2 * len(evil))


def test_the_first_of_the_evil_pickles_is_evil(tmp_path):
    # else the test above would show nothing
    evil = evil_pickles(f"touch {tmp_path / 'crater'}")
    pickle.loads(evil["a call"][0])
    assert (tmp_path / "crater").exists()
    assert pickle.loads(evil["an array of objects"][0]).dtype == object


@pytest.mark.parametrize("dtype", ["u1", "<i8", ">i4", "<f4", ">f8", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_numbers_are_still_read(dtype, order):
    values = np.asarray(np.arange(6).reshape(2, 3) % 2, dtype=dtype, order=order)
    found = unpickle_arrays(pickle.dumps({"data": values}, protocol=3))["data"]
    np.testing.assert_array_equal(found, values)
    assert found.dtype == values.dtype.newbyteorder("=")  # as NumPy itself does it


# --- stores -----------------------------------------------------------------------------------------------------


@pytest.fixture
def features(tmp_path) -> Path:
    """A whole feature store, and its digest file beside it."""
    path = tmp_path / "stores/features.zarr"
    with store_draft(path) as draft:
        writer = FeatureWriter(
            draft,
            layers={"hidden1": 4},
            seeds=[0],
            steps=[0, 1],
            epochs=[0.0, 1.0],
            sample_ids=np.arange(6),
            labels=np.arange(6) % 2,
            attrs={},
        )
        for step in range(2):
            writer.write("hidden1", 0, step, 0, np.full((6, 4), step, np.float32))
    write_digest(path, path.with_suffix(".json"))
    return path


@pytest.fixture
def group(tmp_path) -> Path:
    """A whole store of one group with numbers and texts, and its digest file beside it."""
    path = tmp_path / "stores/spectra.zarr"
    dataset = xr.Dataset({"value": (("step", "name"), np.ones((2, 2)))}, coords={"name": ["raw", "centred"]})
    with store_draft(path) as draft:
        write_group(draft, "hidden1", dataset)
    write_digest(path, path.with_suffix(".json"))
    return path


def forge(store: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Change the metadata of a store, and make every checksum right again, as a stranger would."""
    metadata = json.loads((store / "zarr.json").read_text())
    edit(metadata)
    consolidated = metadata.get("consolidated_metadata")
    nodes = consolidated["metadata"] if isinstance(consolidated, dict) else {}
    changed = {"zarr.json": metadata} | {f"{name}/zarr.json": node for name, node in nodes.items()}
    for key, content in changed.items():
        if (store / key).exists():
            (store / key).write_text(json.dumps(content))
    relist(store, {key: (store / key).read_bytes() for key in changed if (store / key).exists()})


def relist(store: Path, changed: dict[str, bytes], more: dict[str, Any] | None = None) -> None:
    """Write sizes and checksums of changed files, and what else is asked for, into a store's list and digest file."""
    listed = json.loads((store / "checksums.json").read_text())
    listed["files"] |= {key: [len(content), google_crc32c.value(content)] for key, content in changed.items()}
    listed["files"] |= more or {}
    (store / "checksums.json").write_text(json.dumps(listed))
    write_digest(store, store.with_suffix(".json"))


def node(name: str, **changes: Any) -> Callable[[dict[str, Any]], None]:
    """Change the description of one array."""

    def edit(metadata: dict[str, Any]) -> None:
        metadata["consolidated_metadata"]["metadata"][name] |= changes

    return edit


def chunk_grid(*shape: Any) -> dict[str, Any]:
    return {"name": "regular", "configuration": {"chunk_shape": list(shape)}}


def of_array(name: str) -> dict[str, list[Callable[[dict[str, Any]], Any]]]:
    """List what a stranger may say of one array of two dimensions or more."""
    crc = {"name": "crc32c"}
    codecs = ("numcodecs.pickle", "pickle", "gzip", "blosc", "sharding_indexed", "../../x", "zstd")
    return {
        "huge shapes": [
            node(name, shape=[2**62, 2**62, 2**62, 2**62]),
            node(name, shape=[1, 2, 2**50, 4], chunk_grid=chunk_grid(1, 1, 2**50, 4)),
            node(name, chunk_grid=chunk_grid(1, 1, 2**40, 2**40)),
            node(name, chunk_grid=chunk_grid(1, 1, 1, 1)),
            node(name, shape=[10**9], chunk_grid=chunk_grid(1)),
        ],
        "shapes that are none": [
            node(name, shape=[-1, 2, 6, 4]),
            node(name, shape=["6", 2]),
            node(name, shape=6),
            node(name, shape=None),
            node(name, chunk_grid=chunk_grid(0, 0, 0, 0)),
            node(name, chunk_grid=chunk_grid(True)),
            node(name, chunk_grid={"name": "regular"}),
            node(name, chunk_grid="regular"),
            node(name, shape=[]),
        ],
        "objects for numbers": [
            node(name, data_type="object"),
            node(name, data_type="O"),
            node(name, data_type={"name": "numcodecs.pickle"}),
            node(name, data_type={"name": "structured", "configuration": {"fields": [["a", "object"]]}}),
            node(name, data_type="complex128"),
            node(name, data_type=None),
        ],
        "codecs that run": [
            *(node(name, codecs=[{"name": codec, "configuration": {}}, crc]) for codec in codecs),
            node(name, codecs=[{"name": "bytes", "configuration": {"endian": "big"}}, crc]),
            node(name, codecs=[]),
            node(name, codecs=["pickle"]),
            node(name, codecs=[{"name": "bytes"}]),
            node(name, storage_transformers=[{"name": "x"}]),
        ],
        "names that lead out": [
            lambda m: m["attributes"].update(layers=["../../outside"]) or node(name, shape=None)(m),
            lambda m: m["consolidated_metadata"]["metadata"].update(
                {"../../outside": m["consolidated_metadata"]["metadata"][name]}
            ),
            node(name, chunk_key_encoding={"name": "default", "configuration": {"separator": "/"}}),
            node(name, chunk_key_encoding={"name": "v2", "configuration": {"separator": "../"}}),
        ],
        "no metadata at all": [
            lambda m: m.clear(),
            lambda m: m.pop("consolidated_metadata"),
            lambda m: m.update(consolidated_metadata=[]),
            lambda m: m.update(attributes=[1]),
            lambda m: m["consolidated_metadata"]["metadata"].update({"x": None}),
            lambda m: m["consolidated_metadata"]["metadata"].update({"x": {"node_type": "array"}}),
        ],
    }


def refused(read: Callable[[], Any], store: Path) -> None:
    """Check that reading ends in one line that names the store, with hardly any memory, and that nothing is made."""
    before = files_below(store.parents[1])
    with memory_below(32 * MEBIBYTE), pytest.raises(FeaturespaceError) as caught:
        read()
    message = str(caught.value)
    assert str(store) in message
    assert message.isprintable(), ascii(message)
    assert files_below(store.parents[1]) == before


@pytest.mark.parametrize("what", of_array(""))
def test_a_store_that_lies_is_refused(features, group, what, tmp_path, record_fault):
    n_tried = 0
    for store, name, read in (
        (features, "hidden1", lambda path, digest: FeatureStore.open(path, digest).matrix("hidden1", 0, 0)),
        (group, "hidden1/value", lambda path, digest: read_group(path, "hidden1", digest).load()),
    ):
        read(store, store.with_suffix(".json"))
        for i, edit in enumerate(of_array(name)[what]):
            forged = tmp_path / f"forged/{store.stem}-{i}.zarr"
            shutil.copytree(store, forged)
            forge(forged, edit)
            refused(lambda read=read, path=forged: read(path, path.with_suffix(".json")), forged)
            n_tried += 1
    record_fault("a store of a stranger", what, "one line that names the store", times=n_tried)


LISTS: dict[str, Any] = {
    "names that lead out": {"../outside": [1, 1]},
    "absolute names": {"/etc/passwd": [1, 1]},
    "another file's metadata": {"../../zarr.json": [1, 1]},
    "huge sizes": {"zarr.json": [2**62, 1]},
    "negative sizes": {"zarr.json": [-1, 1]},
    "texts for sizes": {"zarr.json": ["1", 1]},
    "no sizes": {"zarr.json": 3},
    "too many sizes": {"zarr.json": [1, 2, 3]},
}


@pytest.mark.parametrize("what", LISTS)
def test_a_list_of_files_that_lies_is_refused(features, what, record_fault):
    (features.parent / "outside").write_text("x")
    relist(features, {}, LISTS[what])
    digest = features.with_suffix(".json")
    refused(lambda: FeatureStore.open(features, digest), features)
    refused(lambda: verify_digest(features, digest), features)
    record_fault("a store of a stranger", "a list of files that lies", "one line that names the store")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"a":' * 100_000, b"\xff\xfe", b"[" * 100_000])
@pytest.mark.parametrize("key", ["zarr.json", "checksums.json"])
def test_metadata_that_are_cut_or_bottomless_are_refused(features, key, content, record_fault):
    (features / key).write_bytes(content)
    if key == "zarr.json":
        relist(features, {key: content})
    refused(lambda: FeatureStore.open(features), features)
    record_fault("a store of a stranger", "metadata that are cut or bottomless", "one line that names the store")


def test_a_feature_store_of_other_shapes_than_its_coordinates_is_refused(tmp_path):
    other = tmp_path / "stores/other.zarr"
    with store_draft(other) as draft:
        values = xr.Dataset(
            {
                "seed": ("seed", np.arange(3)),
                "step": ("step", np.arange(3)),
                "sample": ("sample", np.arange(3)),
                "epoch": ("step", np.zeros(3)),
                "label": ("sample", np.arange(3)),
                "hidden1": (("seed", "step", "row", "feature"), np.zeros((3, 3, 2, 4), np.float32)),
            },
            attrs={"layers": ["hidden1"], "sample_hash": sample_hash(np.arange(3))},
        )
        write_group(draft, "", values)
    refused(lambda: FeatureStore.open(other), other)
    with pytest.raises(FeaturespaceError, match="gives hidden1 another shape than its coordinates have"):
        FeatureStore.open(other)


# --- weights ----------------------------------------------------------------------------------------------------


def tensors_file(header: Any, data: bytes = b"", size: int | None = None) -> bytes:
    """Write a file of tensors, whose header may say anything, and say any size of itself."""
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(content) if size is None else size) + content + data


def tensor(shape: Any, begin: int = 0, end: int = 4, dtype: str = "F32") -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}}


HOSTILE_TENSORS: dict[str, list[bytes]] = {
    "a header that lies of its size": [
        tensors_file(b"{}", size=2**63),
        tensors_file(b"{}", size=2**64 - 1),
        tensors_file(b"{}", size=10**9),
        tensors_file(b"{}", size=1),
        b"",
        b"\x00" * 7,
    ],
    "tensors that lie of theirs": [
        tensors_file(tensor([2**62]), bytes(4)),
        tensors_file(tensor([2**32, 2**32]), bytes(4)),
        tensors_file(tensor([1], 0, 2**40), bytes(4)),
        tensors_file(tensor([1], 4, 0), bytes(4)),
        tensors_file(tensor([1], -4, 0), bytes(4)),
        tensors_file(tensor([-1]), bytes(4)),
        tensors_file(tensor([1], 100, 104), bytes(4)),
        tensors_file(tensor([1]), bytes(2)),
        tensors_file(tensor([1]), bytes(400)),
    ],
    "a header that is none": [
        tensors_file(tensor([1], dtype="O"), bytes(4)),
        tensors_file(tensor([1], dtype="object"), bytes(4)),
        tensors_file([1, 2], bytes(4)),
        tensors_file(b"\xff\xfe{}", bytes(4)),
        tensors_file(b'{"a":' * 50_000, bytes(4)),
    ],
}


def weights_of(folder: Path, content: bytes) -> KeptWeights:
    """Put a file in the place of a run's weights, with a right checksum."""
    path = folder / step_file(0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    facts = {"digest": "", "checksums": "", "recipe": "mlp", "seeds": [0], "steps": {"0": [0]}, "epochs": {"0": [0.0]}}
    facts["files"] = {step_file(0, 0): hashlib.sha256(content).hexdigest()}
    folder.with_suffix(".json").write_text(json.dumps(sealed(facts)))
    return KeptWeights(folder, folder.with_suffix(".json"))


@pytest.mark.parametrize("what", HOSTILE_TENSORS)
def test_weights_of_a_stranger_are_refused(tmp_path, what, record_fault):
    for content in HOSTILE_TENSORS[what]:
        with (
            memory_below(8 * MEBIBYTE),
            pytest.raises(FeaturespaceError, match="recipe 'mlp', is not a file of tensors"),
        ):
            weights_of(tmp_path / "weights", content).read([0], 0)
    record_fault("weights of a stranger", what, "one line that names the file", times=len(HOSTILE_TENSORS[what]))


class Evil:
    """A pickle of this makes a directory when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_is_code_is_never_run(tmp_path, record_fault):
    crater = tmp_path / "crater"
    stream = io.BytesIO()
    torch.save({"w": Evil(crater)}, stream)
    for content in (stream.getvalue(), pickle.dumps(Evil(crater))):
        with pytest.raises(FeaturespaceError, match="is not a file of tensors"):
            weights_of(tmp_path / "weights", content).read([0], 0)
        assert not crater.exists()
    torch.load(io.BytesIO(stream.getvalue()), weights_only=False)  # where it is opened as code, it is code
    assert crater.exists()
    record_fault("weights of a stranger", "a checkpoint that is code", "refused, never run", times=2)


def test_names_of_tensors_are_only_names(tmp_path):
    write_tensors(tmp_path / "x.safetensors", {"../../escape": torch.ones(2), "/etc/x": torch.zeros(1)})
    found = weights_of(tmp_path / "a/weights", (tmp_path / "x.safetensors").read_bytes()).read([0], 0)
    assert set(found) == {"../../escape", "/etc/x"}
    assert files_below(tmp_path) == {
        *("x.safetensors", "a", "a/weights", "a/weights.json", "a/weights/seed-0"),
        f"a/weights/{step_file(0, 0)}",
    }


@pytest.mark.parametrize(
    "facts",
    [
        *({"files": files} for files in ([], 3, None, {"../x": "0"}, {"/etc/passwd": "0"})),
        *({"seeds": seeds} for seeds in ([], 3, None, [1])),
        *({"steps": steps} for steps in ([], {}, None, 3)),
    ],
    ids=str,
)
def test_facts_of_weights_that_lie_are_refused(tmp_path, facts):
    weights_of(tmp_path / "weights", b"")
    digest = tmp_path / "weights.json"
    said = json.loads(digest.read_text()) | facts
    del said["itself"]
    digest.write_text(json.dumps(sealed(said)))
    with pytest.raises(FeaturespaceError, match=r"weights"):
        KeptWeights(tmp_path / "weights", digest)


# --- images and arrays of a user's own --------------------------------------------------------------------------


def png_of(width: int, height: int, data: bytes, more: bytes = b"") -> bytes:
    """Write a grey PNG whose header says this size, and whose pixels are the data."""

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + more + part(b"IDAT", data) + part(b"IEND", b"")


def test_the_writer_of_hostile_images_can_write_an_honest_one():
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    rows = zlib.compress(b"".join(b"\x00" + row.tobytes() for row in pixels))
    np.testing.assert_array_equal(decode_image(png_of(8, 8, rows), "x", 8, False)[0], pixels)


HOSTILE_IMAGES: dict[str, list[bytes]] = {
    "a bomb": [
        png_of(30_000, 30_000, zlib.compress(bytes(30_001 * 2000), 9)),
        png_of(2**31 - 1, 2**31 - 1, b""),
        png_of(9000, 9000, zlib.compress(bytes(9001 * 9000), 9)),
        b"GIF89a"
        + struct.pack("<HH", 65535, 65535)
        + b"\x00\x00\x00,\x00\x00\x00\x00"
        + b"\xff" * 4
        + b"\x00\x02\x00;",
    ],
    "sizes that lie": [
        png_of(64, 64, zlib.compress(bytes(10))),
        png_of(0, 0, b""),
        b"P5 4096 4096 255 short",
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 2**31, 0, 0, 54, 40, 2**20, -(2**20), 1, 24, 0, 0, 0, 0, 0, 0),
    ],
    "forms that run other programs": [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(pwned) (w) file\n",
        b"%PDF-1.4\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        b"\xd7\xcd\xc6\x9a" + bytes(60),
    ],
}


@pytest.mark.parametrize("what", HOSTILE_IMAGES)
def test_a_hostile_image_is_refused_by_name(what, record_fault):
    for content in HOSTILE_IMAGES[what]:
        with memory_below(96 * MEBIBYTE), pytest.raises(FeaturespaceError, match=r"^photos/a\.png ") as caught:
            decode_image(content, "photos/a.png", 8, False)
        assert "\n" not in str(caught.value)
    record_fault("an image of a stranger", what, "one line that names the file", times=len(HOSTILE_IMAGES[what]))


def test_a_folder_of_images_is_not_left(tmp_path, record_fault):
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "photos/a").mkdir(parents=True)
    links = ["../../secret.png", str(tmp_path / "secret.png"), "/etc/passwd", "nowhere.png", "x.png", "/dev/zero", ".."]
    for target in links:
        (tmp_path / "photos/a/x.png").symlink_to(target)
        with pytest.raises(FeaturespaceError, match=r"a/x\.png is a link"):
            list_source(tmp_path / "photos", is_image)
        (tmp_path / "photos/a/x.png").unlink()
    for name in ("\x1b[2J.png", "a\nb.png", "\udcff.png", "\u202e.png"):
        (tmp_path / "photos" / name).write_bytes(b"x")
        with pytest.raises(FeaturespaceError, match="is in the folder of no class") as caught:
            arrange(tmp_path / "photos", list_source(tmp_path / "photos", is_image))
        assert str(caught.value).isprintable()
        (tmp_path / "photos" / name).unlink()
    record_fault("images of a stranger", "links out of the folder, names that a terminal obeys", "refused", times=11)


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def npy_header(shape: tuple[int, ...], dtype: str = "|u1") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def hostile_arrays(crater: Path) -> dict[str, list[tuple[str, bytes]]]:
    """Write files of arrays that are code, that lie, or that fill the memory."""
    evil = pickle.dumps(Evil(crater))
    objects = npy_header((1,), "|O") + evil
    billion = 10**9
    return {
        "a pickle": [
            ("x.npy", objects),
            ("x.npy", evil),
            ("x.npz", zipped({"x.npy": objects})),
            ("x.npz", zipped({"x.npy": evil})),
            ("x.safetensors", evil),
        ],
        "a bomb": [
            ("x.npz", zipped({"x.npy": npy_header((300 * MEBIBYTE,)) + bytes(300 * MEBIBYTE)})),
        ],
        "sizes that lie": [
            ("x.npy", npy_header((billion, billion)) + b"short"),
            ("x.npy", npy_header((-5,)) + bytes(5)),
            ("x.npz", zipped({"x.npy": npy_header((billion, billion)) + b"short"})),
            ("x.npz", zipped({"x.npy": npy_header((2**62, 2**62)) + b"short"})),
            ("x.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{" + b" " * 100),
            ("x.npy", b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': __import__('os').system('touch x')}".ljust(118)),
            ("x.npy", b"\x93NUMPY\x01\x00\xff\xff" + b"[" * 65535),
            ("x.safetensors", struct.pack("<Q", 2**62) + b"{}"),
            ("x.safetensors", struct.pack("<Q", 60) + b'{"x":{"dtype":"F32","shape":[9,9],"data_offsets":[0,324]}}  '),
        ],
        "names that are paths": [
            ("x.npz", zipped({"../../escape": b"x"})),
            ("x.npz", zipped({"/etc/cron.d/x": b"x"})),
        ],
    }


@pytest.mark.parametrize("what", ["a pickle", "a bomb", "sizes that lie", "names that are paths"])
def test_hostile_arrays_are_refused_by_name(tmp_path, what, record_fault):
    (tmp_path / "inner").mkdir()
    crater = tmp_path / "crater"
    cases = hostile_arrays(crater)[what]
    for name, content in cases:
        path = tmp_path / "inner" / name
        path.write_bytes(content)
        with memory_below(64 * MEBIBYTE), pytest.raises(FeaturespaceError) as caught:
            for array in open_arrays(path)[0].values():
                array.whole()
        assert str(caught.value).startswith(str(path))
        assert not crater.exists()
        path.unlink()
        assert files_below(tmp_path) == {"inner"}
    pickle.loads(pickle.dumps(Evil(crater)))  # where it is opened as code, it is code
    assert crater.exists()
    record_fault("arrays of a stranger", what, "one line that names the file", times=len(cases))


def test_the_writers_of_hostile_arrays_can_write_honest_ones(tmp_path):
    content = npy_header((5,)) + b"whole"
    (tmp_path / "x.npy").write_bytes(content)
    (tmp_path / "x.npz").write_bytes(zipped({"x.npy": content}))
    for name in ("x.npy", "x.npz"):
        assert open_arrays(tmp_path / name)[0]["x"].whole().tobytes() == b"whole"


# --- what the code itself does ----------------------------------------------------------------------------------

PYTHON = sorted(path for part in ("scripts", "docs", "envs") for path in (ROOT / part).rglob("*.py"))
RULES = [ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk"))]
# Calls that run text as code or as a command, or open a pickle as code, whatever they are given.
FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.spawnl", "os.execv", "os.startfile"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "pickle.load", "pickle.loads"),
    *("pd.read_pickle", "pandas.read_pickle", "joblib.load", "marshal.loads", "shelve.open", "dill.loads"),
    *("yaml.unsafe_load", "yaml.full_load", "shell", "tar.extract", "tar.extractall", "shutil.unpack_archive"),
}


def offences(source: str) -> list[str]:
    """Find calls in a Python file that could make a stranger's text run."""
    found = []
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        name = ast.unparse(call.func)
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if name in FORBIDDEN or name.endswith((".extractall", ".getoutput")):
            found.append(name)
        if name.startswith("subprocess.") or name in ("run", "Popen", "check_output", "check_call"):
            first = call.args[0] if call.args else None
            if keywords.get("shell", "False") != "False" or isinstance(first, ast.Constant | ast.JoinedStr | ast.BinOp):
                found.append(f"{name} of text")
        if name == "torch.load" and keywords.get("weights_only") != "True":
            found.append(f"{name} of pickles")
        if name in ("np.load", "numpy.load") and keywords.get("allow_pickle", "False") != "False":
            found.append(f"{name} of pickles")
        if name == "yaml.load" and (len(call.args) < 2 or "Unsafe" in ast.unparse(call.args[1])):
            found.append(f"{name} of objects")
    return found


def rule_offences(source: str) -> list[str]:
    """Find what in a file of rules would build a command of text."""
    return re.findall(
        r"^\s*(?:shell|run|wrapper|cwl|notebook|template_engine)\s*:|\bshell\s*\(|os\.system|subprocess", source, re.M
    )


def test_no_command_is_built_of_text(record_fault):
    assert len(PYTHON) > 100
    assert len(RULES) > 9
    for path in PYTHON:
        assert offences(path.read_text(encoding="utf-8")) == [], path
    for path in RULES:
        assert rule_offences(path.read_text(encoding="utf-8")) == [], path
        # a rule is a script of its own name, whatever the study says
        for script in re.findall(r"^\s*script:\n\s*(.+)$", path.read_text(encoding="utf-8"), re.M):
            assert re.fullmatch(r'"\.\./scripts/[a-z_{}.]+\.py"', script), (path, script)
    record_fault("the code", "commands built of text, pickles opened as code", "there are none")


@pytest.mark.parametrize(
    "source",
    [
        "os.system(x)",
        "subprocess.run(f'ls {x}', shell=True)",
        "subprocess.run('ls')",
        "subprocess.run(command, shell=True)",
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "yaml.load(text, yaml.UnsafeLoader)",
        "archive.extractall(path)",
        "eval(x)",
    ],
)
def test_an_offence_would_be_found(source):
    assert offences(source)


@pytest.mark.parametrize("source", ['    shell:\n        "ls {wildcards.x}"', "    run:\n        x", "shell('ls')"])
def test_an_offence_in_a_rule_would_be_found(source):
    assert rule_offences(source)
