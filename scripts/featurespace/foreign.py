"""Arrays in other people's files: `.npy`, `.npz`, Zarr and safetensors, read within bounds and never unpickled.

A file says of itself how large it is, and need not be believed: what a header promises is compared with what is there
before memory is asked for. Errors name the file and the array in one line.
"""

from __future__ import annotations

import json
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from featurespace.errors import FeaturespaceError

FORMATS = "a Zarr store, a folder of .npy files, an .npz or a .safetensors file"

_MOST_CHUNK_BYTES = 2**30
_BOMB_BYTES, _BOMB_RATIO = 2**28, 200  # an array that unpacks to more than both is no array of measurements
_MAX_HEADER = 10_000  # bytes of the header of a .npy file; NumPy's own limit
_V3_CODECS = {"bytes", "crc32c", "gzip", "zstd", "blosc", "transpose", "sharding_indexed", "vlen-utf8"}
_V2_CODECS = {"blosc", "zstd", "gzip", "zlib", "lz4", "bz2", "crc32c", "shuffle", "vlen-utf8"}  # and never `pickle`
_TENSOR_DTYPES = {
    "F16": "f2",
    "F32": "f4",
    "F64": "f8",
    "BOOL": "b1",
    **{f"{sign}{bits}": f"{sign.lower()}{bits // 8}" for sign in "IU" for bits in (8, 16, 32, 64)},
}

Rows = slice | np.ndarray


@dataclass(frozen=True)
class ForeignArray:
    """An array that is not read yet.

    Attributes
    ----------
    name
        By which its file knows it, with the file in front for errors: `where`.
    shape, dtype
        As its header says.
    """

    name: str
    where: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    _read: Callable[[tuple[int, ...], Rows], np.ndarray] = field(repr=False)

    @property
    def n_bytes(self) -> int:
        """Size in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, lead: tuple[int, ...] = (), rows: Rows = slice(None)) -> np.ndarray:
        """Read rows (a slice, or ascending positions) along the axis behind some leading indices.

        Raises
        ------
        FeaturespaceError
            If they cannot be read.
        """
        try:
            return np.asarray(self._read(lead, rows))
        except FeaturespaceError:
            raise
        except Exception as error:  # libraries in C and Rust raise nearly anything
            raise FeaturespaceError(f"{self.where} cannot be read: {error}") from error

    def whole(self) -> np.ndarray:
        """Read all of it, if the machine has the memory.

        Raises
        ------
        FeaturespaceError
            If not, or if it cannot be read.
        """
        require_memory(self.n_bytes, self.where)
        return self.read() if self.shape else self.read(())


def require_memory(n_bytes: int, what: str) -> None:
    """Refuse what is larger than the machine's memory.

    Raises
    ------
    FeaturespaceError
        If it is.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if n_bytes > memory:
        raise FeaturespaceError(
            f"{what} would take {n_bytes / 1e9:.3g} GB, and this machine has {memory / 1e9:.3g} GB of memory"
        )


def open_arrays(path: Path) -> tuple[dict[str, ForeignArray], dict[str, Any]]:
    """Open a file or folder of arrays: headers are read and checked, values are not read.

    Returns
    -------
    arrays, attributes
        {name: array} in the file's order, a folder's by name; and what a Zarr store says of itself, else nothing.

    Raises
    ------
    FeaturespaceError
        If it is of no known format, or damaged, or holds what is no array of numbers or text.
    """
    if path.is_dir():
        if any((path / name).exists() for name in ("zarr.json", ".zgroup")):
            return _open_zarr(path)
        files = sorted(file for file in path.glob("*.npy") if not file.name.startswith("."))
        if not files:
            raise FeaturespaceError(f"{path} is neither a Zarr store nor a folder with .npy files")
        return {file.stem: _open_npy(file) for file in files}, {}
    match path.suffix:
        case ".npz":
            return _open_npz(path), {}
        case ".npy":
            return {path.stem: _open_npy(path)}, {}
        case ".safetensors":
            return _open_safetensors(path), {}
    raise FeaturespaceError(f"{path} is not {FORMATS}")


@contextmanager
def _readable(where: str) -> Iterator[None]:
    try:
        yield
    except FeaturespaceError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise FeaturespaceError(f"{where} cannot be read: {error}") from error


def _require_plain(dtype: np.dtype[Any], where: str) -> None:
    if dtype.hasobject and dtype.kind != "T":
        raise FeaturespaceError(f"{where} is an array of Python objects, which is never opened; save plain numbers")
    if dtype.kind not in "biufUT" or (dtype.itemsize > 8 and dtype.kind in "iuf"):
        raise FeaturespaceError(f"{where} is of {dtype}, which is neither numbers nor text")


# --- NumPy's formats --------------------------------------------------------------------------------------------


def _npy_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Read the header of a .npy file: shape, whether Fortran-ordered, dtype, and its own length in bytes."""
    # as much as a header can be, whatever length it says of itself
    stream = BytesIO(stream.read(12 + _MAX_HEADER))
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version} of the format")
    shape, fortran, dtype = readers[version](stream, max_header_size=_MAX_HEADER)
    return shape, fortran, dtype, stream.tell()


def _require_size(shape: tuple[int, ...], dtype: np.dtype[Any], n_bytes: int, where: str) -> None:
    promised = math.prod(shape) * dtype.itemsize
    if promised != n_bytes or any(n < 0 for n in shape):
        raise FeaturespaceError(f"{where}: its header says {promised} bytes of values, and there are {n_bytes}")


def _open_npy(path: Path) -> ForeignArray:
    where = str(path)
    with _readable(where), path.open("rb") as stream:
        shape, _, dtype, n_header = _npy_header(stream)
        _require_plain(dtype, where)
        _require_size(shape, dtype, os.fstat(stream.fileno()).st_size - n_header, where)

    def read(lead: tuple[int, ...], rows: Rows) -> np.ndarray:
        if not math.prod(shape) or not shape:
            return np.load(path, allow_pickle=False)
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        return np.array(values[lead][rows])

    return ForeignArray(path.stem, where, shape, dtype, read)


def _open_npz(path: Path) -> dict[str, ForeignArray]:
    arrays: dict[str, ForeignArray] = {}
    with _readable(str(path)), zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            where = f"{path}: {info.filename!a}"
            if not info.filename.endswith(".npy"):
                raise FeaturespaceError(f"{where} is no .npy file")
            name = info.filename.removesuffix(".npy")
            if name in arrays:
                raise FeaturespaceError(f"{where} is there twice")
            if info.file_size > max(_BOMB_BYTES, _BOMB_RATIO * info.compress_size):
                raise FeaturespaceError(
                    f"{where} unpacks from {info.compress_size} to {info.file_size} bytes, which no data do; "
                    "save it with numpy.savez, without compression, if it is right"
                )
            with archive.open(info) as stream:
                shape, _, dtype, n_header = _npy_header(stream)
            _require_plain(dtype, where)
            _require_size(shape, dtype, info.file_size - n_header, where)
            arrays[name] = ForeignArray(name, where, shape, dtype, _npz_reader(path, info.filename))
    return arrays


def _npz_reader(path: Path, member: str) -> Callable[[tuple[int, ...], Rows], np.ndarray]:
    kept: list[np.ndarray] = []  # an archive cannot be read in part

    def read(lead: tuple[int, ...], rows: Rows) -> np.ndarray:
        if not kept:
            with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
                kept.append(np.lib.format.read_array(stream, allow_pickle=False, max_header_size=_MAX_HEADER))
        return kept[0][lead][rows] if kept[0].ndim else kept[0]

    return read


# --- safetensors ------------------------------------------------------------------------------------------------


def _open_safetensors(path: Path) -> dict[str, ForeignArray]:
    from safetensors import safe_open

    arrays: dict[str, ForeignArray] = {}
    with _readable(str(path)), safe_open(path, framework="np") as tensors:
        for name in tensors.keys():  # noqa: SIM118
            where = f"{path}: {name!a}"
            about = tensors.get_slice(name)
            if about.get_dtype() not in _TENSOR_DTYPES:
                raise FeaturespaceError(f"{where} is of {about.get_dtype()}; save it as float32")
            dtype = np.dtype(_TENSOR_DTYPES[about.get_dtype()])
            arrays[name] = ForeignArray(name, where, tuple(about.get_shape()), dtype, _tensor_reader(path, name))
    return arrays


def _tensor_reader(path: Path, name: str) -> Callable[[tuple[int, ...], Rows], np.ndarray]:
    def read(lead: tuple[int, ...], rows: Rows) -> np.ndarray:
        from safetensors import safe_open

        with safe_open(path, framework="np") as tensors:
            tensor = tensors.get_slice(name)
            if not tensor.get_shape():
                return tensors.get_tensor(name)
            if isinstance(rows, slice):
                return tensor[(*lead, rows)]
            # stretches of neighbours: it takes slices only
            stretches = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
            return np.concatenate([tensor[(*lead, slice(int(part[0]), int(part[-1]) + 1))] for part in stretches])

    return read


# --- Zarr -------------------------------------------------------------------------------------------------------


def _open_zarr(path: Path) -> tuple[dict[str, ForeignArray], dict[str, Any]]:
    """Open the arrays at the top of a Zarr store of version 2 or 3, once their metadata ask for nothing but numbers."""
    arrays = {}
    with _readable(str(path)):
        attributes = _attributes(path)
        for folder in sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
            where = f"{path}: {folder.name}"
            if (folder / "zarr.json").is_file():
                metadata = json.loads((folder / "zarr.json").read_bytes())
                if metadata["node_type"] != "array":
                    continue
                shape, dtype, chunk = _described_v3(metadata, where)
            elif (folder / ".zarray").is_file():
                shape, dtype, chunk = _described_v2(json.loads((folder / ".zarray").read_bytes()), where)
            else:
                continue
            if len(chunk) != len(shape) or any(type(n) is not int or n < 0 for n in (*shape, *chunk)):
                raise FeaturespaceError(f"{where} has the shape {shape} in chunks of {chunk}")
            if math.prod(chunk) * dtype.itemsize > _MOST_CHUNK_BYTES:
                raise FeaturespaceError(f"{where} has chunks of more than {_MOST_CHUNK_BYTES} bytes")
            _require_plain(dtype, where)
            arrays[folder.name] = ForeignArray(folder.name, where, shape, dtype, _zarr_reader(folder, where))
    return arrays, attributes


def _attributes(path: Path) -> dict[str, Any]:
    """Return what a store says of itself."""
    for name, key in (("zarr.json", "attributes"), (".zattrs", None)):
        if (path / name).is_file():
            content = json.loads((path / name).read_bytes())
            attributes = content.get(key, {}) if key else content
            return dict(attributes)
    return {}


def _described_v3(metadata: Mapping[str, Any], where: str) -> tuple[tuple[int, ...], np.dtype[Any], tuple[int, ...]]:
    _require_codecs(metadata["codecs"], _V3_CODECS, "name", where)
    if metadata.get("storage_transformers"):
        raise FeaturespaceError(f"{where} has storage transformers, which are not read")
    kind = metadata["data_type"]
    if kind == "string":
        dtype: np.dtype[Any] = np.dtypes.StringDType()
    elif isinstance(kind, str) and re.fullmatch(r"bool|u?int(8|16|32|64)|float(16|32|64)", kind):
        dtype = np.dtype(kind)
    else:
        raise FeaturespaceError(f"{where} is of {kind}, which is neither numbers nor text")
    return tuple(metadata["shape"]), dtype, tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"])


def _described_v2(metadata: Mapping[str, Any], where: str) -> tuple[tuple[int, ...], np.dtype[Any], tuple[int, ...]]:
    codecs = [codec for codec in (metadata.get("compressor"), *(metadata.get("filters") or [])) if codec]
    _require_codecs(codecs, _V2_CODECS, "id", where)
    kind = metadata["dtype"]
    if not isinstance(kind, str) or not re.fullmatch(r"[<>|](b1|[iu][1248]|f[248]|U\d{1,4})", kind):
        raise FeaturespaceError(f"{where} is of {kind}, which is neither numbers nor text")
    return tuple(metadata["shape"]), np.dtype(kind), tuple(metadata["chunks"])


def _require_codecs(codecs: Any, known: set[str], key: str, where: str) -> None:
    """Refuse codecs that are not known to do nothing but pack numbers: some open pickles."""
    for codec in codecs:
        if codec[key] not in known:
            raise FeaturespaceError(f"{where} is packed by {codec[key]!a}, which is not read (but {', '.join(known)})")
        inner = codec.get("configuration") or {}
        for nested in ("codecs", "index_codecs"):
            _require_codecs(inner.get(nested, ()), known, key, where)


def _zarr_reader(folder: Path, where: str) -> Callable[[tuple[int, ...], Rows], np.ndarray]:
    opened: list[Any] = []

    def read(lead: tuple[int, ...], rows: Rows) -> np.ndarray:
        if not opened:
            import zarr

            array = zarr.open_array(str(folder), mode="r")
            if array.nchunks_initialized != array.nchunks:
                raise FeaturespaceError(
                    f"{where}: {array.nchunks - array.nchunks_initialized} of {array.nchunks} chunks are missing; if "
                    'they are all zero, write the store with `config={"write_empty_chunks": True}`'
                )
            opened.append(array)
        array = opened[0]
        if not array.shape:
            return array[()]
        return array[(*lead, rows)] if isinstance(rows, slice) else array.oindex[(*lead, rows)]

    return read
