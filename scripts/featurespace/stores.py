"""Zarr stores that are whole or absent, and whose damage is found before it is computed with.

Every store is Zarr v3, consolidated, uncompressed with the crc32c codec, and opens silently with `xr.open_zarr(path)`.
It is made as a draft beside its place and renamed into it. The file `checksums.json` in its root lists every other
file with its size and the CRC-32C of its content (of a chunk: of its data, the same four bytes that the codec appends).
That is what makes damage cheap to find: opening compares names and sizes, reading a chunk compares its bytes with the
codec's checksum, which finds a flipped bit, and with the listed one, which finds an intact chunk of another store.
The digest file outside the store holds the SHA-256 of that list, which ties the two together, and of everything, which
`verify_digest` recomputes.

Files whose names begin with a dot are nobody's: Snakemake keeps a timestamp inside a directory that is an output.
"""

import asyncio
import ctypes
import hashlib
import itertools
import json
import logging
import math
import mmap
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import google_crc32c
import numpy as np

from featurespace.checksums import sha256_of_data
from featurespace.errors import FeaturespaceError
from featurespace.files import draft_of, full_disk_named, write_json, write_text_atomically

if TYPE_CHECKING:
    import xarray as xr
    import zarr

FORMAT = 1  # of the layout of a store; attribute `featurespace_format` of its root
CHECKSUMS = "checksums.json"
CHUNK_BYTES = 32 * 2**20

_CRC_BYTES = 4  # what the crc32c codec appends to a chunk
_PIECE_BYTES = 2**20  # of a file that is read or written together with its checksum

# All that a store may be made of. Metadata are a stranger's text, and Zarr would go by what they say.
_NUMBERS = ("bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)), "float32", "float64")
_CODECS = {"bytes", "crc32c", "vlen-utf8"}

StrPath = str | os.PathLike[str]

logger = logging.getLogger(__name__)


def sample_hash(sample_ids: np.ndarray) -> str:
    """Return the SHA-256, in hex, of sample ids (n_samples,) as little-endian int64: order matters."""
    return hashlib.sha256(np.ascontiguousarray(sample_ids, dtype="<i8").tobytes()).hexdigest()


def require_same_samples(a_hash: str, b_hash: str, a_name: str, b_name: str) -> None:
    """Refuse to compare two stores whose rows are not the same samples in the same order.

    Raises
    ------
    FeaturespaceError
        If the hashes differ.
    """
    if a_hash != b_hash:
        raise FeaturespaceError(
            f"{a_name} and {b_name} hold different samples (hashes {a_hash[:12]} and {b_hash[:12]}) and cannot be"
            " compared; make both from the same data set and sample set"
        )


def require_own_place(path: StrPath, facts: Mapping[str, Any]) -> None:
    """Refuse what lies where another run's should: whole, and of this study, but copied or moved.

    Parameters
    ----------
    path
        The store or weights folder; only of `runs/<recipe>/block-<b>/` is it known whose should lie there.
    facts
        What it says of itself: its `recipe` and `block`, where it has them.

    Raises
    ------
    FeaturespaceError
        If it says that it is of another recipe or block.
    """
    place = re.fullmatch(r"runs/([^/]+)/block-(\d+)", "/".join(Path(path).parts[-4:-1]))
    if place is None or "recipe" not in facts or "block" not in facts:
        return
    if (str(facts["recipe"]), str(facts["block"])) != place.groups():
        raise FeaturespaceError(
            f"{os.fspath(path)} is of recipe {facts['recipe']!r}, block {facts['block']}: it does not belong here; "
            f"{_mend(path)}"
        )


# --- drafts ---------------------------------------------------------------------------------------


@contextmanager
def store_draft(path: StrPath) -> Iterator[Path]:
    """Make a store, or a plain directory, that appears at `path` only when it is whole.

    The body fills the directory it is given. Then metadata is consolidated, every expected chunk of every array is
    looked for, `checksums.json` is written, and the draft, safely on the disk, is renamed to `path`; what was
    there goes away entirely. If the body fails, the draft is removed and `path` stays as it was. Drafts that killed
    processes have left of the same store are cleared first.

    Raises
    ------
    FeaturespaceError
        If a chunk was never written, or the disk is full.
    """
    path = Path(path)
    draft = draft_of(path)
    try:
        with full_disk_named(path):
            draft.mkdir(parents=True)
            yield draft
        publish_draft(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def publish_draft(draft: Path, path: Path) -> None:
    """Make a store of a directory beside its place: check that it is complete, and rename it.

    What was at `path` goes away entirely. If the draft cannot be published it stays, and `path` is as it was.

    Raises
    ------
    FeaturespaceError
        If a chunk was never written, or the disk is full.
    """
    replaced = draft.with_name(draft.name + "-replaced")
    try:
        with full_disk_named(path):
            _finish(draft, path)
            _sync(draft)
        if path.exists():
            path.rename(replaced)
        draft.rename(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(replaced, ignore_errors=True)


def _finish(draft: Path, path: Path) -> None:
    """Consolidate a draft, check that it is complete, and list its files."""
    arrays: dict[str, Any] = {}
    if any(draft.rglob("zarr.json")):
        import zarr

        _root(draft, {})
        with warnings.catch_warnings():
            # Consolidated metadata is an extension of Zarr v3 that all readers this project serves know.
            warnings.filterwarnings("ignore", message="Consolidated metadata")
            zarr.consolidate_metadata(str(draft))
        metadata = json.loads((draft / "zarr.json").read_bytes())
        # Zarr lists the nodes in the order in which the file system happens to give them.
        nodes = metadata["consolidated_metadata"]["metadata"]
        metadata["consolidated_metadata"]["metadata"] = dict(sorted(nodes.items()))
        write_json(draft / "zarr.json", metadata)
        arrays = _arrays(metadata)
    found = _list_files(draft)
    chunks = {key for name, array in arrays.items() for key in _chunk_keys(name, array)}
    if missing := sorted(chunks - found.keys()):
        raise FeaturespaceError(
            f"{path} would be incomplete: {len(missing)} of {len(chunks)} chunks were never written,"
            f" the first of them {missing[0]}"
        )
    files = {}
    for key, n_bytes in sorted(found.items()):
        with (draft / key).open("rb") as file:
            if key in chunks:
                file.seek(-_CRC_BYTES, os.SEEK_END)
                crc = int.from_bytes(file.read(), "little")
            else:
                crc = google_crc32c.value(file.read())
        files[key] = [n_bytes, crc]
    checksums = {"featurespace_format": FORMAT, "files": files}
    write_text_atomically(draft / CHECKSUMS, json.dumps(checksums, separators=(",", ":")))


def _sync(directory: Path) -> None:
    """Wait until the file system that holds a directory has everything on the disk.

    One call, where an fsync for each of 100,000 chunks would take minutes.
    """
    if sys.platform != "linux":
        os.sync()
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fspath(directory))
    finally:
        os.close(descriptor)


# --- digests --------------------------------------------------------------------------------------


def write_digest(store: StrPath, digest_path: StrPath, hashes: Mapping[str, bytes] | None = None, **facts: Any) -> str:
    """Write the digest file of a finished store: what its consumers depend on.

    It holds `digest` (SHA-256 over the names and bytes of all files), `n_files`, `n_bytes`, `checksums` (SHA-256 of
    the store's list of files), the facts, which must be plain data and the same in every repetition, and `itself`
    (SHA-256 of all of these).

    Parameters
    ----------
    hashes
        {file: SHA-256} of those files of which it is known already, which are not read again.

    Returns
    -------
    str
        The digest.
    """
    store = Path(store)
    files = _list_files(store)
    digest = _digest(store, files, hashes or {})
    content = {
        "digest": digest,
        "n_files": len(files),
        "n_bytes": sum(files.values()),
        "checksums": _checksums_hash(store),
        **facts,
    }
    write_json(digest_path, sealed(content))
    return digest


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Add `itself` to what a digest file says: the SHA-256, in hex, of its JSON, with sorted keys."""
    return {**content, "itself": sha256_of_data(content)}


def read_digest(digest_path: StrPath) -> dict[str, Any]:
    """Read a digest file.

    Raises
    ------
    FeaturespaceError
        If it is missing, not a digest file, or not as it was written.
    """
    try:
        content: dict[str, Any] = json.loads(Path(digest_path).read_bytes())
        content["digest"], content["checksums"]
        seal = content.pop("itself")
        if seal != sealed(content)["itself"]:
            raise ValueError("it was changed")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FeaturespaceError(
            f"{os.fspath(digest_path)} is not a readable digest file; {_mend(digest_path)}"
        ) from error
    return content


def verify_digest(store: StrPath, digest_path: StrPath) -> int:
    """Read every byte of a store, once, and compare it with its digest file.

    Returns
    -------
    int
        How many bytes were read.

    Raises
    ------
    FeaturespaceError
        If they do not agree, naming the file, and of a chunk its layer, seed and step.
    """
    contents = _Contents(store, digest_path)
    total, n_bytes = hashlib.sha256(), 0
    for key in sorted([*contents.files, CHECKSUMS]):
        # `read` names what is damaged, where the digest alone could not.
        content = (contents.path / key).read_bytes() if key == CHECKSUMS else contents.read(key).data
        total.update(key.encode() + b"\0" + hashlib.sha256(content).digest())
        n_bytes += len(content)
    if total.hexdigest() != read_digest(digest_path)["digest"]:
        raise FeaturespaceError(f"{contents.path} is not what {digest_path} says; {_mend(store)}")
    return n_bytes


def _list_files(root: Path) -> dict[str, int]:
    """Map the files below a directory, by relative POSIX name, to their sizes; skip names with a dot in front."""
    files = {}
    pending = [("", os.fspath(root))]
    while pending:
        prefix, directory = pending.pop()
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    pending.append((f"{prefix}{entry.name}/", entry.path))
                elif entry.is_file():  # not a link that leads nowhere
                    files[prefix + entry.name] = entry.stat().st_size
    return files


def _digest(store: Path, files: Mapping[str, int], hashes: Mapping[str, bytes]) -> str:
    total = hashlib.sha256()
    for key in sorted(files):
        known = hashes.get(key)
        if known is None:
            with (store / key).open("rb") as file:
                known = hashlib.file_digest(file, "sha256").digest()
        total.update(key.encode() + b"\0" + known)
    return total.hexdigest()


def _checksums_hash(store: Path) -> str:
    return hashlib.sha256((store / CHECKSUMS).read_bytes()).hexdigest()


def _mend(path: StrPath) -> str:
    return f"to make it again, add `--forcerun {os.fspath(path)}` to your snakemake command"


# --- what is in a store ---------------------------------------------------------------------------


def _arrays(root_metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Map the arrays of a store, by path, to their metadata, from the consolidated metadata of its root."""
    nodes = root_metadata["consolidated_metadata"]["metadata"]
    return {name: node for name, node in nodes.items() if node["node_type"] == "array"}


def _chunk_shape(array: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(array["chunk_grid"]["configuration"]["chunk_shape"])


def _chunk_key(name: str, index: Sequence[int]) -> str:
    # The separator "." keeps the chunks of an array in one directory; "/" would cost a directory a chunk.
    return f"{name}/{'.'.join(['c', *map(str, index)])}"


def _chunk_keys(name: str, array: Mapping[str, Any]) -> Iterator[str]:
    counts = [math.ceil(n / size) for n, size in zip(array["shape"], _chunk_shape(array), strict=True)]
    return (_chunk_key(name, index) for index in itertools.product(*map(range, counts)))


def _chunks_of(array: Mapping[str, Any]) -> tuple[int, int | None]:
    """Return how many chunks an array has, and how many bytes each, None for texts.

    Raises
    ------
    ValueError, KeyError, TypeError, AttributeError
        If its metadata are not such as this project writes.
    """
    shape, chunk, kind = array["shape"], _chunk_shape(array), array["data_type"]
    names = [codec["name"] for codec in array["codecs"]]
    if kind not in (*_NUMBERS, "string") or not set(names) <= _CODECS or names[-1] != "crc32c":
        raise ValueError(f"{kind} in {names}")
    if len(names) != 2 or array["codecs"][0].get("configuration", {}).get("endian", "little") != "little":
        raise ValueError(f"{array['codecs']}")
    if array.get("storage_transformers") or array["chunk_key_encoding"]["configuration"]["separator"] != ".":
        raise ValueError("chunks under other names")
    lengths = [*shape, *(length - 1 for length in chunk)]
    if len(shape) != len(chunk) or any(type(n) is not int or n < 0 for n in lengths):
        raise ValueError(f"{shape} in chunks of {chunk}")
    n_bytes = None if kind == "string" else math.prod(chunk) * np.dtype(kind).itemsize + _CRC_BYTES
    return math.prod(math.ceil(n / size) for n, size in zip(shape, chunk, strict=True)), n_bytes


class _Contents:
    """The files of a store or plain directory: the list of what must be there, against what is there.

    Parameters
    ----------
    path
        The store.
    digest
        Its digest file, when the caller has one.

    Raises
    ------
    FeaturespaceError
        If a file is missing, of another size, or not on the list; if the metadata is damaged or of another
        format; if the store is not the one that the digest file was written for.
    """

    def __init__(self, path: StrPath, digest: StrPath | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise FeaturespaceError(f"{self.path} does not exist; {_mend(path)}")
        self.arrays: dict[str, Any] = {}
        self.attrs: dict[str, Any] = {}
        chunks: dict[str, tuple[int, int | None]] = {}
        try:
            listing = (self.path / CHECKSUMS).read_bytes()
            checksums = json.loads(listing)
            found_format = checksums["featurespace_format"]
            self.files: dict[str, list[int]] = checksums["files"]
            if not all(type(n) is int and n >= 0 for n_bytes, crc in self.files.values() for n in (n_bytes, crc)):
                raise ValueError("sizes and checksums are numbers")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise self.damage(CHECKSUMS, "is missing or not readable") from error
        if found_format != FORMAT:
            raise FeaturespaceError(
                f"{self.path} is in store format {found_format}, and this version reads format {FORMAT}; {_mend(path)}"
            )
        if digest is not None and hashlib.sha256(listing).hexdigest() != read_digest(digest)["checksums"]:
            raise FeaturespaceError(f"{self.path} is not the store that {digest} describes; {_mend(path)}")
        if "zarr.json" in self.files:
            content = self.read("zarr.json").tobytes()
            try:
                metadata = json.loads(content)
                self.arrays = _arrays(metadata)
                self.attrs = dict(metadata["attributes"])
                chunks = {name: _chunks_of(array) for name, array in self.arrays.items()}
            except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
                raise self.damage("zarr.json", "does not describe a store of this project") from error
        require_own_place(self.path, self.attrs)
        n_chunks = dict.fromkeys(chunks, 0)
        found = _list_files(self.path)
        for key, (n_bytes, _) in self.files.items():
            if key not in found:
                raise self.damage(key, "is missing")
            if found[key] != n_bytes:
                raise self.damage(key, f"has {found[key]} bytes instead of {n_bytes}")
            array, _, name = key.rpartition("/")
            if array in chunks and name != "zarr.json":
                n_chunks[array] += 1
                expected = chunks[array][1]
                if expected is not None and n_bytes != expected:
                    raise self.damage(key, f"has {n_bytes} bytes, and its array has chunks of {expected}")
        for array, n_found in n_chunks.items():
            if n_found != chunks[array][0]:
                raise self.damage("zarr.json", f"says that {array} has {chunks[array][0]} chunks, not {n_found}")
        if extra := sorted(found.keys() - self.files.keys() - {CHECKSUMS}):
            raise self.damage(extra[0], "does not belong there")
        for key in self.files:
            if key.endswith("/zarr.json"):
                self.read(key)

    def read(self, key: str, into: np.ndarray | None = None) -> np.ndarray:
        """Return the content of a file, (n,) uint8 and writable, verified; a chunk has its checksum at its end.

        It is read into `into`, (n,) uint8 and contiguous, if that is given.
        """
        n_bytes, listed = self.files[key]
        array, _, name = key.rpartition("/")
        is_chunk = array in self.arrays and name != "zarr.json"
        computed = start = 0
        try:
            with (self.path / key).open("rb", buffering=0) as file:
                found = os.fstat(file.fileno()).st_size
                # As much memory as the file needs, never as much as the list says.
                raw = np.empty(min(n_bytes, found), dtype=np.uint8) if into is None else into
                content = raw[:-_CRC_BYTES] if is_chunk else raw
                # Piece by piece, each checked while it is in the processor's cache: after the whole of a large file,
                # the checksum would take as long as the reading.
                while found == n_bytes and start < n_bytes:
                    n_read = file.readinto(raw[start : start + _PIECE_BYTES].data)
                    if not n_read:
                        found = start
                    computed = google_crc32c.extend(computed, cast("bytes", content[start : start + n_read]))
                    start += n_read
        except OSError as error:
            raise self.damage(key, f"cannot be read ({error.strerror})") from error
        if found != n_bytes:
            raise self.damage(key, f"has {found} bytes instead of {n_bytes}")
        if computed != (int(raw[-_CRC_BYTES:].view("<u4")[0]) if is_chunk else listed):
            raise self.damage(key, "is damaged (its bytes do not match its checksum)")
        if computed != listed:
            raise self.damage(key, "is whole, but of another store")
        return raw

    def read_chunk(self, key: str, dtype: Any) -> np.ndarray:
        """Return the values of a chunk, flat and writable, verified."""
        return self.read(key)[:-_CRC_BYTES].view(np.dtype(dtype).newbyteorder("<"))

    def damage(self, key: str, what: str) -> FeaturespaceError:
        """Say in one line what is wrong with a file: the store, and of a chunk its layer, seed and step."""
        return FeaturespaceError(f"{self.path}: {self._place_of(key)}{key} {what}; {_mend(self.path)}")

    def _place_of(self, key: str) -> str:
        """Name what a file belongs to, with a comma behind; nothing for what belongs to the whole store."""
        name, _, chunk = key.rpartition("/")
        group, _, _ = name.rpartition("/")
        top = key.partition("/")[0]
        is_layer = top in self.attrs.get("layers", ()) or any(a.startswith(f"{top}/") for a in self.arrays)
        places = [f"layer {top}"] if is_layer else []
        array = self.arrays.get(name)
        if array and re.fullmatch(r"c(\.\d+)+", chunk):
            index = map(int, chunk.split(".")[1:])
            for dimension, length, i in zip(array["dimension_names"], _chunk_shape(array), index, strict=False):
                if dimension in ("seed", "step") and dimension != name.rpartition("/")[2]:
                    values = self._coordinate(group, dimension)[i * length : (i + 1) * length]
                    ends = "–".join(map(str, dict.fromkeys((values[0], values[-1])))) if values else f"number {i}"
                    places.append(f"{dimension} {ends}")
        return "".join(f"{place}, " for place in places)

    def _coordinate(self, group: str, dimension: str) -> list[int]:
        """Return the seeds or steps, or nothing if these are what is damaged: this is used in errors only."""
        name = f"{group}/{dimension}" if group else dimension
        try:
            raw = (self.path / _chunk_key(name, [0])).read_bytes()
            return np.frombuffer(raw[:-_CRC_BYTES], dtype="<i8")[: self.arrays[name]["shape"][0]].tolist()
        except (OSError, KeyError, ValueError):
            return []

    def whole(self, name: str) -> np.ndarray:
        """Return a one-dimensional array of one chunk, such as a coordinate of a feature store."""
        array = self.arrays[name]
        return self.read_chunk(_chunk_key(name, [0]), array["data_type"])[: array["shape"][0]]


# --- feature stores -------------------------------------------------------------------------------


def _root(draft: Path, attrs: Mapping[str, Any]) -> "zarr.Group":
    import zarr

    root = zarr.open_group(str(draft), mode="a", zarr_format=3)
    root.update_attributes({"featurespace_format": FORMAT, **attrs})
    return root


def _create_array(
    group: "zarr.Group",
    name: str,
    shape: Sequence[int],
    dtype: Any,
    chunks: Sequence[int],
    dimensions: Sequence[str],
    attributes: Mapping[str, Any],
) -> "zarr.Array[Any]":
    from zarr.codecs import Crc32cCodec

    dtype = np.dtype(dtype)
    return group.create_array(
        name,
        shape=tuple(shape),
        dtype=dtype,
        chunks=tuple(chunks),
        compressors=Crc32cCodec(),
        fill_value=np.nan if dtype.kind == "f" else None,
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=tuple(dimensions),
        attributes=dict(attributes),
        # A chunk that equals the fill value is written all the same: a chunk that is not there is always damage.
        config={"write_empty_chunks": True},
    )


class ChunkWriter:
    """Writes the chunks of feature matrices into a draft, without the metadata that make a store of them.

    Parameters
    ----------
    draft
        A directory that is there.
    layers
        {layer: n_features}, in order of depth.
    n_samples
        The rows of every matrix.
    chunk_bytes
        A chunk holds one seed, one step, all features and at most so many bytes' worth of samples, at least one.

    Attributes
    ----------
    rows_per_chunk
        {layer: rows of samples in a chunk}.
    hashes
        {file: SHA-256} of the chunks that have been written, for `write_digest`.
    """

    def __init__(self, draft: Path, layers: Mapping[str, int], n_samples: int, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.draft = draft
        self._n_samples = n_samples
        self._n_features = dict(layers)
        self._unfinished: dict[str, _ChunkDraft] = {}
        self.hashes: dict[str, bytes] = {}
        self.rows_per_chunk = {layer: _rows_per_chunk(n_samples, d, chunk_bytes) for layer, d in layers.items()}
        for layer in layers:
            (draft / layer).mkdir(exist_ok=True)

    def write(self, layer: str, seed_index: int, step_index: int, start: int, block: np.ndarray) -> None:
        """Write rows `start` onwards of one layer at one seed and step.

        A block begins a chunk, or goes on where the block before it in that chunk ended. Nothing of it is kept.

        Parameters
        ----------
        start
            The first row.
        block
            (rows, n_features) float32.

        Raises
        ------
        ValueError
            If rows of the chunk are left out, or written again while it is unfinished; if there are too many.
        """
        rows = self.rows_per_chunk[layer]
        n_samples, n_features = self._n_samples, self._n_features[layer]
        stop = start + len(block)
        if block.shape[1:] != (n_features,) or block.dtype != np.float32:
            raise ValueError(
                f"{layer} takes blocks (rows, {n_features}) of float32, not {block.shape} of {block.dtype}"
            )
        if stop > n_samples:
            raise ValueError(f"rows {start} to {stop} of {layer}, which has {n_samples}")
        # Written without Zarr, whose machinery takes ten times as long as a small chunk's bytes.
        for first in range(start // rows * rows, stop, rows):
            key = _chunk_key(layer, [seed_index, step_index, first // rows, 0])
            chunk = self._unfinished.pop(key, None) or _ChunkDraft(self.draft / key)
            begin, end = max(start, first), min(stop, first + rows)
            if chunk.n_bytes != 4 * n_features * (begin - first):
                raise ValueError(f"rows {begin} onwards of {layer} do not follow those written before them")
            parts = [np.ascontiguousarray(block[begin - start : end - start], dtype="<f4")]
            is_whole = end == first + rows or end == n_samples
            if is_whole and end < first + rows:
                parts.append(np.full((first + rows - end, n_features), np.nan, dtype="<f4"))
            chunk.write(parts, is_whole)
            if is_whole:
                self.hashes[key] = chunk.sha256.digest()
            else:
                self._unfinished[key] = chunk


class FeatureWriter(ChunkWriter):
    """Writes `features.zarr` inside a `store_draft`: one float32 variable a layer.

    Its dimensions are (seed, step, sample, feature_<layer>).

    Parameters
    ----------
    draft
        The directory that `store_draft` gave.
    layers
        {layer: n_features}, in order of depth.
    seeds, steps, epochs
        (n_seeds,) int, (n_steps,) int and (n_steps,) float: the coordinates.
    sample_ids, labels
        (n_samples,) int, both.
    attrs
        What made the store, as plain data; the hash of the samples and the format are added.
    chunk_bytes
        As for `ChunkWriter`, whose attributes it has.
    """

    def __init__(
        self,
        draft: Path,
        *,
        layers: Mapping[str, int],
        seeds: Sequence[int] | np.ndarray,
        steps: Sequence[int] | np.ndarray,
        epochs: Sequence[float] | np.ndarray,
        sample_ids: np.ndarray,
        labels: np.ndarray,
        attrs: Mapping[str, Any],
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        n_samples = len(sample_ids)
        super().__init__(draft, layers, n_samples, chunk_bytes)
        root = _root(draft, {**attrs, "layers": list(layers), "sample_hash": sample_hash(sample_ids)})
        coordinates = {
            "seed": ("seed", np.asarray(seeds, dtype=np.int64)),
            "step": ("step", np.asarray(steps, dtype=np.int64)),
            "epoch": ("step", np.asarray(epochs, dtype=np.float64)),
            "sample": ("sample", np.asarray(sample_ids, dtype=np.int64)),
            "label": ("sample", np.asarray(labels, dtype=np.int64)),
        }
        for name, (dimension, values) in coordinates.items():
            array = _create_array(root, name, values.shape, values.dtype, [max(1, len(values))], [dimension], {})
            array[...] = values
        for layer, n_features in layers.items():
            _create_array(
                root,
                layer,
                (len(seeds), len(steps), n_samples, n_features),
                np.float32,
                (1, 1, self.rows_per_chunk[layer], n_features),
                ("seed", "step", "sample", f"feature_{layer}"),
                {"coordinates": "epoch label"},
            )


class _ChunkDraft:
    """A chunk that is written part by part, and appears under its name when it is whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_bytes = 0
        self.crc = 0
        self.sha256 = hashlib.sha256()

    def write(self, parts: Sequence[np.ndarray], is_last: bool) -> None:
        """Append parts, contiguous; after the last one, the checksum."""
        hidden = self.path.with_name(f".{self.path.name}")
        path = self.path if is_last and not self.n_bytes else hidden
        # Closed in between: a run of many seeds and layers has more chunks under way than files may be open.
        with path.open("ab" if self.n_bytes else "wb") as file:
            for part in parts:
                content = part.reshape(-1).view(np.uint8)
                for start in range(0, len(content), _PIECE_BYTES):
                    piece = content[start : start + _PIECE_BYTES]
                    self.crc = google_crc32c.extend(self.crc, cast("bytes", piece))
                    self.sha256.update(piece.data)
                    file.write(piece.data)
                self.n_bytes += len(content)
            if is_last:
                checksum = self.crc.to_bytes(_CRC_BYTES, "little")
                self.sha256.update(checksum)
                file.write(checksum)
        if is_last and path is hidden:
            hidden.rename(self.path)


def _rows_per_chunk(n_samples: int, n_features: int, chunk_bytes: int) -> int:
    most = max(1, chunk_bytes // (4 * n_features))
    # Zarr pads the last chunk to a full one, so the chunks are made equal rather than large.
    return math.ceil(n_samples / math.ceil(n_samples / most))


@dataclass(frozen=True)
class FeatureStore:
    """A feature store, open for reading: see `FeatureStore.open`.

    `seeds` (n_seeds,), `steps` (n_steps,), `sample_ids` and `labels` (n_samples,) are int64, `epochs` (n_steps,)
    float64; `layers` are in order of depth, `n_features` is by layer.
    """

    path: Path
    layers: tuple[str, ...]
    n_features: dict[str, int]
    seeds: np.ndarray
    steps: np.ndarray
    epochs: np.ndarray
    sample_ids: np.ndarray
    labels: np.ndarray
    sample_hash: str
    attrs: dict[str, Any]
    _contents: _Contents

    @classmethod
    def open(cls, path: StrPath, digest: StrPath | None = None) -> "FeatureStore":
        """Open a feature store: what is there is compared with what must be there, by name and size.

        The bytes of a chunk are verified when it is read.

        Parameters
        ----------
        path
            The store.
        digest
            Its digest file: a store that is whole, but not the one the digest was written for, is refused.

        Raises
        ------
        FeaturespaceError
            If the store is damaged, of another format, or another one; the line names layer, seed and step.
        """
        contents = _Contents(path, digest)
        attrs = contents.attrs
        layers = tuple(attrs.get("layers", ()))
        if not layers or any(layer not in contents.arrays for layer in layers):
            raise FeaturespaceError(f"{contents.path} is not a feature store")
        coordinates = {"seed": "int64", "step": "int64", "epoch": "float64", "sample": "int64", "label": "int64"}
        shapes = {}
        for name, dtype in [*coordinates.items(), *((layer, "float32") for layer in layers)]:
            array = contents.arrays.get(name, {})
            shapes[name] = tuple(array.get("shape", ()))
            n_dimensions = 1 if name in coordinates else 4
            if array.get("data_type") != dtype or len(shapes[name]) != n_dimensions:
                raise contents.damage("zarr.json", f"does not describe {name} of a feature store")
        shape = (*shapes["seed"], *shapes["step"], *shapes["sample"])
        for name, expected in [*((layer, shape) for layer in layers), ("epoch", shapes["step"]), ("label", shape[2:])]:
            if shapes[name][:3] != expected:
                raise contents.damage("zarr.json", f"gives {name} another shape than its coordinates have")
        store = cls(
            path=contents.path,
            layers=layers,
            n_features={layer: contents.arrays[layer]["shape"][3] for layer in layers},
            seeds=contents.whole("seed"),
            steps=contents.whole("step"),
            epochs=contents.whole("epoch"),
            sample_ids=contents.whole("sample"),
            labels=contents.whole("label"),
            sample_hash=attrs.get("sample_hash", ""),
            attrs=attrs,
            _contents=contents,
        )
        if sample_hash(store.sample_ids) != store.sample_hash:
            raise contents.damage("zarr.json", "has a sample_hash that is not that of the samples")
        return store

    @property
    def n_samples(self) -> int:
        """Return the number of samples, the rows of every matrix."""
        return len(self.sample_ids)

    def blocks(self, layer: str, seed_index: int, step_index: int) -> Iterator[np.ndarray]:
        """Iterate over the feature matrix of one layer at one seed and step, in blocks of rows.

        Yields
        ------
        np.ndarray
            (rows, n_features) float32, writable, its bytes verified.

        Raises
        ------
        FeaturespaceError
            If a chunk is damaged, naming the store, layer, seed and step.
        """
        n_features = self.n_features[layer]
        rows = _chunk_shape(self._contents.arrays[layer])[2]
        for i, start in enumerate(range(0, self.n_samples, rows)):
            chunk = self._contents.read_chunk(_chunk_key(layer, [seed_index, step_index, i, 0]), np.float32)
            yield chunk.reshape(rows, n_features)[: self.n_samples - start]

    def matrix(self, layer: str, seed_index: int, step_index: int) -> np.ndarray:
        """Return the feature matrix (n_samples, n_features), float32, of one layer at one seed and step."""
        n_features = self.n_features[layer]
        rows = _chunk_shape(self._contents.arrays[layer])[2]
        keys = [_chunk_key(layer, [seed_index, step_index, i, 0]) for i in range(math.ceil(self.n_samples / rows))]
        n_bytes = 4 * rows * n_features
        # Each chunk is read into its place, its checksum where the next one begins.
        buffer = np.empty(len(keys) * n_bytes + _CRC_BYTES, dtype=np.uint8)
        for i, key in enumerate(keys):
            self._contents.read(key, buffer[i * n_bytes : (i + 1) * n_bytes + _CRC_BYTES])
        return buffer[:-_CRC_BYTES].view("<f4").reshape(-1, n_features)[: self.n_samples]


# --- other stores ---------------------------------------------------------------------------------


def write_group(draft: Path, group: str, dataset: "xr.Dataset", chunks: Mapping[str, int] | None = None) -> None:
    """Write an xarray data set as a group of a draft store.

    Parameters
    ----------
    draft
        The directory that `store_draft` gave.
    group
        The group, such as a layer; "" is the root, whose attributes say what made the store.
    dataset
        Its variables may be numbers or strings; its attributes, plain data.
    chunks
        {dimension: chunk length}; a dimension that is not given is cut, from the first on, only as far as a chunk
        would pass 32 MB.
    """
    root = _root(draft, {})
    node = root.require_group(group) if group else root
    node.update_attributes(dict(dataset.attrs))
    auxiliary = [str(name) for name in dataset.coords if name not in dataset.dims]
    for name, variable in dataset.variables.items():
        attributes = dict(variable.attrs)
        if name in dataset.data_vars:
            own = [c for c in auxiliary if set(dataset[c].dims) <= set(variable.dims)]
            if own:
                attributes["coordinates"] = " ".join(own)
        values = variable.to_numpy()
        # A coordinate along its own dimension is read at once and whole, so it is one chunk.
        given = {} if name in dataset.dims else chunks or {}
        if values.dtype.kind in "UO":
            values = values.astype(np.dtypes.StringDType())
        array = _create_array(
            node,
            str(name),
            values.shape,
            values.dtype,
            _chunk_lengths(variable.sizes, values.dtype.itemsize, given),
            [str(dimension) for dimension in variable.dims],
            attributes,
        )
        # Chunk by chunk, so that a scratch file larger than memory may be written.
        for corner in itertools.product(*map(range, [0] * values.ndim, array.shape, array.chunks)):
            chunk = tuple(slice(i, i + length) for i, length in zip(corner, array.chunks, strict=True))
            array[chunk] = values[chunk]
            drop_pages(values)


def drop_pages(values: np.ndarray) -> None:
    """Give back the memory that a memory-mapped array holds; its values stay in the file. Others are left alone."""
    base: Any = values
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


def _chunk_lengths(sizes: Mapping[Any, int], itemsize: int, given: Mapping[str, int]) -> list[int]:
    lengths = {dimension: max(1, min(n, given.get(dimension, n))) for dimension, n in sizes.items()}
    for dimension in lengths:
        n_bytes = itemsize * math.prod(lengths.values())
        if dimension not in given and n_bytes > CHUNK_BYTES:
            lengths[dimension] = max(1, lengths[dimension] * CHUNK_BYTES // n_bytes)
    return list(lengths.values())


def read_group(path: StrPath, group: str = "", digest: StrPath | None = None) -> "xr.Dataset":
    """Open a group of a store as an xarray data set, lazily: a chunk is verified when it is read.

    Parameters
    ----------
    path, digest
        The store, and its digest file if there is one; as for `FeatureStore.open`.
    group
        The group, such as a layer; "" is the root.

    Raises
    ------
    FeaturespaceError
        If the store is damaged, now or when its values are read, or has no such group.
    """
    import xarray as xr

    contents = _Contents(path, digest)
    if group and not any(name.startswith(f"{group}/") for name in contents.arrays):
        raise FeaturespaceError(f"{contents.path} has no {group!r}")
    return xr.open_zarr(_verified_store(contents), group=group, chunks=None, consolidated=True)


def _verified_store(contents: _Contents) -> "zarr.storage.LocalStore":
    """Return a read-only Zarr store that verifies each file as it is read."""
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import LocalStore

    class VerifiedStore(LocalStore):
        def get_sync(self, key: str, *, prototype: Any = None, byte_range: Any = None) -> Any:
            if key in contents.files:
                # Nothing here is sharded, so Zarr never asks for a range of a file.
                return (prototype or default_buffer_prototype()).buffer.from_array_like(contents.read(key))
            return super().get_sync(key, prototype=prototype, byte_range=byte_range)

        async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
            return await asyncio.to_thread(self.get_sync, key, prototype=prototype, byte_range=byte_range)

    return VerifiedStore(contents.path, read_only=True)
