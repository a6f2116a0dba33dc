"""From raw data to arrays: parsing the published formats, splits, classes, sample ids, and the network input's scaling.

Nothing is parsed, and no pickle opened, before `catalogue.verified_content` has said that it is the published file.
"""

from __future__ import annotations

import gzip
import io
import math
import pickle
import re
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from featurespace.catalogue import IdxLayout, PickleLayout, PostLayout, PublishedDataset, verified_content
from featurespace.datasets import spread_evenly
from featurespace.errors import FeaturespaceError
from featurespace.stores import sample_hash
from featurespace.text import parse_posts, strip_post, tfidf_rows

if TYPE_CHECKING:
    import xarray as xr

TRAIN, TEST = 0, 1  # values of `split`

_CHUNK_BYTES = 16 * 2**20
_MAX_MEMBER_BYTES = 256 * 2**20
_MAX_ARCHIVE_BYTES = 512 * 2**20


# --- published formats ------------------------------------------------------------------------------------------


def parse_idx(data: bytes) -> np.ndarray:
    """Parse an IDX file of unsigned bytes, the format of MNIST.

    Two zero bytes, the type (8: unsigned byte), the number of dimensions, each dimension as a big-endian 32-bit
    integer, then the values in row-major order (http://yann.lecun.com/exdb/mnist/, "File formats").

    Returns
    -------
    np.ndarray
        uint8, read-only.

    Raises
    ------
    ValueError
        If it is no such file, or not exactly as long as its dimensions say.
    """
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise ValueError("no IDX file of unsigned bytes")
    n_dimensions = data[3]
    start = 4 + 4 * n_dimensions
    shape = [int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4)]
    n_values = int(np.prod(shape, dtype=object))
    if len(data) != start + n_values:
        raise ValueError(f"the header says {n_values} values, the file has {len(data) - start}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


class _DType:
    """Stands in for NumPy's dtype, whose own state a pickle could set to anything: numbers and their byte order."""

    def __init__(self, name: str, *_: object) -> None:
        if not isinstance(name, str) or not re.fullmatch(r"b1|[iu][1248]|f[48]", name):
            raise pickle.UnpicklingError(f"it asks for an array of {name!r}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array that takes from a pickle only numbers, and as many as it says."""

    def __setstate__(self, state: Any) -> None:
        version, shape, dtype, is_fortran, content = state
        if not isinstance(dtype, _DType) or not isinstance(content, bytes | str):
            raise pickle.UnpicklingError("an array is not of numbers")
        super().__setstate__((version, shape, dtype.dtype, is_fortran, content))  # type: ignore[arg-type]


def _empty_array(*_: object) -> np.ndarray:
    return np.ndarray.__new__(_Array, (0,), np.uint8)


class _ArrayUnpickler(pickle.Unpickler):
    """Opens pickles of plain containers and NumPy arrays, and refuses any other object before it is made."""

    _ALLOWED: ClassVar[dict[tuple[str, str], Any]] = {
        # The name of the module differs between the NumPy that wrote the pickle and later ones.
        ("numpy.core.multiarray", "_reconstruct"): _empty_array,
        ("numpy._core.multiarray", "_reconstruct"): _empty_array,
        ("numpy", "ndarray"): None,  # named in every array, and never called
        ("numpy", "dtype"): _DType,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def unpickle_arrays(data: bytes) -> Any:
    """Open a Python 2 pickle of containers, strings, numbers and NumPy arrays.

    Raises
    ------
    ValueError
        If it holds anything else, or is damaged.
    """
    try:
        return _ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(f"no pickle of arrays: {error}") from error


class _Bounded:
    """What a gzipped archive unpacks to, as far as a published one can go."""

    def __init__(self, archive: bytes) -> None:
        self._stream = gzip.GzipFile(fileobj=io.BytesIO(archive))
        self._n_left = _MAX_ARCHIVE_BYTES

    def read(self, n_bytes: int) -> bytes:
        self._n_left -= n_bytes
        if self._n_left < 0:
            raise ValueError(f"it unpacks to more than {_MAX_ARCHIVE_BYTES} bytes")
        return self._stream.read(n_bytes)


def read_members(archive: bytes, names: Sequence[str]) -> dict[str, bytes]:
    """Read the members of these names of a gzipped tar archive into memory: `read_wanted_members`.

    Raises
    ------
    ValueError
        As there, and if a member is missing.
    """
    members = read_wanted_members(archive, set(names).__contains__)
    missing = [name for name in names if name not in members]
    if missing:
        raise ValueError(f"there is no member {', '.join(missing)}")
    return members


def read_wanted_members(archive: bytes, is_wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Read members of a gzipped tar archive into memory, chosen by name; nothing is ever extracted to a path.

    A leading `./` is no part of a name.

    Raises
    ------
    ValueError
        If any member climbs out of the archive, is a link or a device or is larger than any published one, or a
        wanted one is there twice or is cut; if all of it, headers too, unpacks to more than any published archive.
    """
    wanted: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=_Bounded(archive), mode="r|") as tar:  # type: ignore[call-overload]
            for member in tar:
                parts = member.name.split("/")
                if member.name.startswith("/") or ".." in parts:
                    raise ValueError(f"member {member.name!r} leads out of the archive")
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise ValueError(f"member {member.name!r} is no plain file")
                if member.size > _MAX_MEMBER_BYTES:
                    raise ValueError(f"member {member.name!r} is too large ({member.size} bytes)")
                name = member.name.removeprefix("./")
                if not is_wanted(name):
                    continue
                if name in wanted:
                    raise ValueError(f"member {name!r} is there twice")
                stream = tar.extractfile(member)
                wanted[name] = stream.read() if stream is not None else b""
                if len(wanted[name]) != member.size:
                    raise ValueError(f"member {name!r} is cut")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"no whole tar archive: {error}") from error
    return wanted


def read_published(
    published: PublishedDataset, directory: Path
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Read a published data set of images from its verified files.

    Returns
    -------
    images : np.ndarray
        (n_samples, channel, height, width) uint8: the training split in its published order, then the test split.
    labels : np.ndarray
        (n_samples,) int64.
    split : np.ndarray
        (n_samples,) int8, 0 for training and 1 for testing.
    class_names : list of str

    Raises
    ------
    FeaturespaceError
        If a file is missing, is not the published one, or does not hold what it should.
    """
    content = _verified_files(published, directory)
    names: Sequence[str] | None
    try:
        match published.layout:
            case IdxLayout():
                images, labels = _from_idx(published.layout, content)
                names = published.class_names
            case PickleLayout():
                images, labels, names = _from_pickles(published.layout, content)
            case _:
                raise TypeError(f"{published.kind} holds no images")
        n_samples = published.n_train + published.n_test
        assert published.image_shape is not None
        images = images.reshape(-1, *published.image_shape)
        if len(images) != n_samples or labels.shape != (n_samples,):
            raise ValueError(f"{len(images)} images and {len(labels)} labels instead of {n_samples}")
        if names is None or len(names) != published.n_classes:
            raise ValueError(f"it does not name its {published.n_classes} classes")
        if labels.min() < 0 or labels.max() >= published.n_classes:
            raise ValueError(f"a label is not in 0..{published.n_classes - 1}")
    except ValueError as error:
        raise FeaturespaceError(f"{published.kind} in {directory} cannot be read: {error}") from error
    return images, labels, _published_split(published), [str(name) for name in names]


def read_posts(published: PublishedDataset, directory: Path) -> tuple[list[str], np.ndarray, np.ndarray, list[str]]:
    """Read a published data set of texts from its verified archive.

    Returns
    -------
    texts : list of str
        Whole, headers and all: the training split by group and number, then the test split likewise.
    labels, split, class_names
        As `read_published`; the classes are the groups, in the alphabet's order.

    Raises
    ------
    FeaturespaceError
        If the archive is missing, is not the published one, or does not hold what it should.
    """
    layout = published.layout
    if not isinstance(layout, PostLayout):
        raise TypeError(f"{published.kind} holds no texts")
    content = _verified_files(published, directory)
    try:
        folders = (layout.train, layout.test)
        members = read_wanted_members(content[layout.archive], lambda name: name.split("/")[0] in folders)
        (train_groups, train_texts), (test_groups, test_texts) = (parse_posts(members, folder) for folder in folders)
        if (len(train_texts), len(test_texts)) != (published.n_train, published.n_test):
            raise ValueError(
                f"{len(train_texts)} and {len(test_texts)} posts instead of {published.n_train} and {published.n_test}"
            )
        names = sorted(set(train_groups))
        if len(names) != published.n_classes or not set(test_groups) <= set(names):
            raise ValueError(f"the posts are not those of {published.n_classes} groups, the same in either split")
    except ValueError as error:
        raise FeaturespaceError(f"{published.kind} in {directory} cannot be read: {error}") from error
    labels = np.array([names.index(group) for group in (*train_groups, *test_groups)], np.int64)
    return [*train_texts, *test_texts], labels, _published_split(published), names


def _published_split(published: PublishedDataset) -> np.ndarray:
    return np.repeat(np.array([TRAIN, TEST], np.int8), [published.n_train, published.n_test])


def _verified_files(published: PublishedDataset, directory: Path) -> dict[str, bytes]:
    """Return {name: what it holds} of all files of a data set, or say which one is missing or is another."""
    content = {}
    for file in published.files:
        path = directory / file.name
        try:
            content[file.name] = verified_content(path, file)
        except FileNotFoundError as error:
            raise FeaturespaceError(f"{path} is missing; {_retrieve_again(directory)}") from error
        except ValueError as error:
            raise FeaturespaceError(
                f"{path} is not the published file ({error}); {_retrieve_again(directory)}"
            ) from error
    return content


def _retrieve_again(directory: Path) -> str:
    return f"to retrieve it again, add `--forcerun {directory / 'retrieved.json'}` to your snakemake command"


def _from_idx(layout: IdxLayout, content: Mapping[str, bytes]) -> tuple[np.ndarray, np.ndarray]:
    pairs = (layout.train, layout.test)
    images = np.concatenate([parse_idx(content[image_file]) for image_file, _ in pairs])
    labels = np.concatenate([parse_idx(content[label_file]) for _, label_file in pairs])
    return images, labels.astype(np.int64)


def _from_pickles(layout: PickleLayout, content: Mapping[str, bytes]) -> tuple[np.ndarray, np.ndarray, Sequence[str]]:
    members = read_members(content[layout.archive], [*layout.train, *layout.test, layout.meta])
    images, labels = [], []
    for name in (*layout.train, *layout.test):
        batch = unpickle_arrays(members.pop(name))
        if not isinstance(batch, dict) or not {"data", layout.label_key} <= batch.keys():
            raise ValueError(f"member {name!r} has no data or no {layout.label_key}")
        rows = batch["data"]
        if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.ndim != 2:
            raise ValueError(f"member {name!r} does not hold rows of bytes")
        if len(rows) != len(batch[layout.label_key]):
            raise ValueError(f"member {name!r} has {len(rows)} images and {len(batch[layout.label_key])} labels")
        images.append(rows)  # a row is the red plane, then the green and the blue one, each row by row
        labels.append(np.array(batch[layout.label_key], np.int64))
    meta = unpickle_arrays(members.pop(layout.meta))
    if not isinstance(meta, dict) or layout.class_names_key not in meta:
        raise ValueError(f"member {layout.meta!r} does not name the classes")
    return np.concatenate(images), np.concatenate(labels), meta[layout.class_names_key]


# --- embedded and generated data --------------------------------------------------------------------------------


def read_digits(test_fraction: float, split_seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Take scikit-learn's digits: 1,797 images of 8 x 8 pixels with grey levels 0 to 16.

    A grey level v becomes 15 v, so that images stay exactly proportional to scikit-learn's (white is 240, not 255):
    every singular vector and angle is that of the original.

    Parameters
    ----------
    test_fraction
        Share of each class, in (0, 1), that is held out. The split is stratified.
    split_seed
        Seed of the split.

    Returns
    -------
    As `read_published`, in scikit-learn's order: training and test samples interleave.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = (15 * digits.images).astype(np.uint8)[:, np.newaxis]
    labels = digits.target.astype(np.int64)
    try:
        _, held_out = train_test_split(
            np.arange(len(labels)), test_size=test_fraction, random_state=split_seed, stratify=labels
        )
    except ValueError as error:
        raise FeaturespaceError(
            f"digits: test_fraction {test_fraction:g} does not split each class: {error}"
        ) from error
    split = np.full(len(labels), TRAIN, np.int8)
    split[held_out] = TEST
    return images, labels, split, [str(name) for name in digits.target_names]


def orthonormal_rows(
    samples_per_class: int, classes: int, dimension: int, noise: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Generate nearly orthonormal data: orthonormal rows plus a Gaussian matrix of a given Frobenius norm.

    The synthetic data of "Understanding Deep Representation Learning via Layerwise Feature Compression and
    Discrimination" (arXiv 2311.02960). The rows do not depend on `noise`, nor the direction of the noise on its size.

    Returns
    -------
    values : np.ndarray
        (samples_per_class * classes, dimension) float64.
    labels : np.ndarray
        (samples_per_class * classes,) int64: class 0's samples, then class 1's, ...

    Raises
    ------
    FeaturespaceError
        If there are more rows than dimensions.
    """
    n_samples = samples_per_class * classes
    if n_samples > dimension:
        raise FeaturespaceError(
            f"orthonormal: {n_samples} rows (samples_per_class x classes) cannot be orthonormal in dimension "
            f"{dimension}; raise the dimension to {n_samples} or more"
        )
    row_seed, noise_seed = np.random.SeedSequence(seed).spawn(2)
    columns, triangle = np.linalg.qr(np.random.default_rng(row_seed).standard_normal((dimension, n_samples)))
    # With the triangle's diagonal positive the factor is unique, and uniformly distributed.
    rows = (columns * np.sign(np.diag(triangle))).T
    direction = np.random.default_rng(noise_seed).standard_normal(rows.shape)
    values = rows + direction * (noise / np.linalg.norm(direction))
    return values, np.repeat(np.arange(classes, dtype=np.int64), samples_per_class)


def orthonormality_residuals(values: np.ndarray) -> dict[str, float]:
    """Measure how far rows are from orthonormal: max |‖x‖² − 1| and max |⟨x, x'⟩|, also times and over n_samples.

    The paper's bound on these is normalised by the number of samples in a way that its code and text leave open, so
    all three are given.

    Parameters
    ----------
    values
        (n_samples, n_features).
    """
    n_samples = len(values)
    gram = values @ values.T
    norm_residual = float(np.abs(np.diag(gram) - 1).max())
    inner_product = float(np.abs(gram - np.diag(np.diag(gram))).max())
    return {
        "norm_residual": norm_residual,
        "norm_residual_times_n": norm_residual * n_samples,
        "norm_residual_over_n": norm_residual / n_samples,
        "inner_product": inner_product,
        "inner_product_times_n": inner_product * n_samples,
        "inner_product_over_n": inner_product / n_samples,
    }


# --- scaling and assembly ---------------------------------------------------------------------------------------


def keep_classes(
    labels: np.ndarray, class_names: Sequence[str], classes: Sequence[int] | None
) -> tuple[np.ndarray, list[str]]:
    """Number some classes anew, in the order given, and drop the others; None keeps all as they are.

    Returns
    -------
    labels : np.ndarray
        (n,) int64: positions in `classes`, −1 where the sample is of none of them.
    class_names : list of str
        Of `classes`, in their order.

    Raises
    ------
    FeaturespaceError
        If there is no such class, or one is named twice.
    """
    if classes is None:
        return labels, list(class_names)
    renumbered = np.full(len(class_names), -1, np.int64)
    for position, label in enumerate(classes):
        if not 0 <= label < len(class_names):
            raise FeaturespaceError(f"classes: there is no class {label}, only 0 to {len(class_names) - 1}")
        if renumbered[label] >= 0:
            raise FeaturespaceError(f"classes: class {label} is named twice")
        renumbered[label] = position
    return renumbered[labels], [class_names[label] for label in classes]


def limited_rows(labels: np.ndarray, split: np.ndarray, train_limit: int | None, test_limit: int | None) -> np.ndarray:
    """Return the rows that a data set keeps of each split, ascending: all, or so many, evenly spread over classes.

    Samples of no class, whose label is negative, are never kept.
    """
    kept = []
    for code, limit in ((TRAIN, train_limit), (TEST, test_limit)):
        rows = np.flatnonzero((split == code) & (labels >= 0))
        kept.append(rows if limit is None else rows[spread_evenly(labels[rows], limit)])
    return np.sort(np.concatenate(kept))


def scaling_constants(images: np.ndarray, split: np.ndarray, scaling: str) -> tuple[float, float]:
    """Return offset and scale of the network input, (image / 255 − offset) / scale.

    `unit` leaves pixels in [0, 1]; `standardise` takes out mean and standard deviation over all pixels and channels
    of the training split: one pair of numbers, exact to rounding since the sums are integers.
    """
    match scaling:
        case "unit":
            return 0.0, 1.0
        case "standardise":
            counts = np.bincount(images[split == TRAIN].ravel(), minlength=256)
            levels = np.arange(256)
            n_pixels, total, squares = (int(counts @ levels**power) for power in (0, 1, 2))
            deviation = (n_pixels * squares - total**2) ** 0.5 / n_pixels
            if deviation == 0:
                raise FeaturespaceError("scaling: standardise cannot be used, all training pixels are equal; use unit")
            return total / n_pixels / 255, deviation / 255
    raise ValueError(f"unknown scaling of images: {scaling!r}")


def assemble(
    kind: str,
    data: np.ndarray,
    labels: np.ndarray,
    split: np.ndarray,
    class_names: Sequence[str],
    offset: float,
    scale: float,
    sample_ids: np.ndarray | None = None,
    **attrs: Any,
) -> xr.Dataset:
    """Put a data set into the form of `dataset.zarr`: images are uint8, values floats, ids positions if not given."""
    import xarray as xr

    name, dims = (
        ("image", ("sample", "channel", "height", "width")) if data.ndim == 4 else ("value", ("sample", "feature"))
    )
    if sample_ids is None:
        sample_ids = np.arange(len(labels), dtype=np.int64)
    return xr.Dataset(
        {
            name: (dims, data),
            "label": ("sample", labels, {"long_name": "class, an index into class_names"}),
            "split": ("sample", split, {"flag_values": [TRAIN, TEST], "flag_meanings": "train test"}),
        },
        coords={"sample": sample_ids},
        attrs={
            "kind": kind,
            "class_names": list(class_names),
            "offset": offset,
            "scale": scale,
            "sample_hash": sample_hash(sample_ids),
            **attrs,
        },
    )


def rows_per_chunk(dataset: xr.Dataset) -> int:
    """Return how many samples make a chunk of at most 16 MB, the chunks as equal as they can be."""
    data = dataset["image"] if "image" in dataset else dataset["value"]
    n_chunks = math.ceil(data.nbytes / _CHUNK_BYTES)
    return math.ceil(len(data) / n_chunks)


def prepare(spec: Mapping[str, Any], published: PublishedDataset | None, directory: Path | None) -> xr.Dataset:
    """Make the data set that a rule's parameters describe.

    Parameters
    ----------
    spec
        `kind`, of images `scaling`, `classes` (None, or missing: all), `train_limit` and `test_limit`, and the kind's
        own keys. Sample ids are positions in the whole data set, whatever classes and limits leave of it.
    published, directory
        Of a downloaded kind: its entry in the catalogue, and where its files are.

    Raises
    ------
    FeaturespaceError
        If the files are not the published ones, or do not have what is asked for.
    """
    if spec["kind"] == "orthonormal":
        values, labels = orthonormal_rows(
            spec["samples_per_class"], spec["classes"], spec["dimension"], spec["noise"], spec["seed"]
        )
        names = [str(i) for i in range(spec["classes"])]
        split = np.full(len(labels), TRAIN, np.int8)
        residuals = orthonormality_residuals(values)
        return assemble(spec["kind"], values, labels, split, names, 0.0, 1.0, None, made_by=dict(spec), **residuals)
    if published is not None and directory is not None:
        if published.is_text:
            return _prepare_texts(spec, published, directory)
        images, labels, split, names = read_published(published, directory)
    else:
        images, labels, split, names = read_digits(spec["test_fraction"], spec["split_seed"])
    labels, names = keep_classes(labels, names, spec.get("classes"))
    rows = limited_rows(labels, split, spec["train_limit"], spec["test_limit"])
    images, labels, split = images[rows], labels[rows], split[rows]
    offset, scale = scaling_constants(images, split, spec["scaling"])
    return assemble(spec["kind"], images, labels, split, names, offset, scale, rows, made_by=dict(spec))


def _prepare_texts(spec: Mapping[str, Any], published: PublishedDataset, directory: Path) -> xr.Dataset:
    """Make rows of TF-IDF from `features`, `strip` and the limits of a specification.

    Every post counts, also one of which nothing is left, as scikit-learn has it: its row is zero. `n_empty_rows` says
    how many there are, and `terms` which term each column is of.
    """
    texts, labels, split, names = read_posts(published, directory)
    rows = limited_rows(labels, split, spec["train_limit"], spec["test_limit"])
    kept = [strip_post(texts[row]) if spec["strip"] else texts[row] for row in rows]
    labels, split = labels[rows], split[rows]
    try:
        values, terms = tfidf_rows(kept, split == TRAIN, spec["features"])
    except FeaturespaceError as error:
        raise FeaturespaceError(f"{spec['kind']}: {error}") from error
    n_empty_rows = int((~values.any(1)).sum())
    about = {"made_by": dict(spec), "terms": terms, "n_empty_rows": n_empty_rows}
    return assemble(spec["kind"], values, labels, split, names, 0.0, 1.0, rows, **about)
