"""A user's own data set as arrays: decoding a folder of images, reading files of arrays, calling a function.

What enters here is a stranger's: every file is bounded, checked, and named in one line if it is not what it should be.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurespace.checksums import sha256
from featurespace.errors import FeaturespaceError
from featurespace.foreign import open_arrays, require_memory
from featurespace.image_folder import ImageFile, arrange, is_image
from featurespace.inventory import BATCH, contents_digest, list_source, shown
from featurespace.own_arrays import InMemory, OwnArrays, check_arrays, read_samples
from featurespace.own_errors import told
from featurespace.own_split import held_out_rows
from featurespace.preparation import TEST, TRAIN, assemble, limited_rows, scaling_constants
from featurespace.script import progress

if TYPE_CHECKING:
    import xarray as xr
    from PIL import Image

_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_MOST_PIXELS = 2**26  # of one image; Pillow itself refuses from 2.7 times as many on
_MOST_BYTES = 2**28  # of one image's file

logger = logging.getLogger(__name__)


# --- images -----------------------------------------------------------------------------------------------------


def decode_image(content: bytes, name: str, side: int, colour: bool) -> np.ndarray:
    """Decode an image, turn it as its EXIF orientation says, and cut and resize it to a square.

    The square is the largest one in the middle (of an odd remainder the smaller half is cut at the left and the top),
    resized by Pillow's antialiased bilinear filter; one of `side` x `side` pixels stays as it is. What is transparent
    becomes black, 16 bits of grey become the upper 8, and of a moving image the first picture counts.

    Parameters
    ----------
    content
        The file: PNG, JPEG, BMP, GIF, WebP, TIFF or PPM, whatever its name says.
    name
        The file's name, for errors.
    side
        Pixels of the result's sides.
    colour
        Three channels, red, green and blue, or one, grey (ITU-R 601-2 luma).

    Returns
    -------
    np.ndarray
        (channel, side, side) uint8.

    Raises
    ------
    FeaturespaceError
        If it is no image, is damaged, or has more pixels than any photo.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(BytesIO(content), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > _MOST_PIXELS:
                raise FeaturespaceError(
                    f"{name} has {width} x {height} pixels, more than {_MOST_PIXELS}; move it away or make it smaller"
                )
            upright = ImageOps.exif_transpose(image)
            plain = _in_plain_colours(upright, name).convert("RGB" if colour else "L")
    except FeaturespaceError:
        raise
    except Exception as error:  # a damaged image can raise nearly anything
        raise FeaturespaceError(f"{name} cannot be read as an image: {error}; mend it or move it away") from error
    width, height = plain.size
    least = min(width, height)
    left, top = (width - least) // 2, (height - least) // 2
    box = (left, top, left + least, top + least)
    square = plain.crop(box) if least == side else plain.resize((side, side), Image.Resampling.BILINEAR, box=box)
    pixels = np.asarray(square, np.uint8)
    return pixels.transpose(2, 0, 1) if colour else pixels[np.newaxis]


def _in_plain_colours(image: Image.Image, name: str) -> Image.Image:
    """Bring an image to eight bits a channel, without transparency."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise FeaturespaceError(f"{name} has pixels of 32 bits, whose black and white nothing says; save 8 bits")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, (0, 0, 0, 255)), layered)
    return image


def read_images(
    root: Path, files: Sequence[ImageFile], side: int, colour: bool, threads: int = 1
) -> tuple[np.ndarray, dict[str, str]]:
    """Read and decode images, in their order.

    Returns
    -------
    images, checksums
        (n, channel, side, side) uint8, and {name: SHA-256} of the files as they were read.
    """
    shape = (len(files), 3 if colour else 1, side, side)
    require_memory(int(np.prod(shape)), f"{root}, as {len(files)} images of {side} x {side} pixels,")
    images = np.empty(shape, np.uint8)

    def read(position: int) -> str:
        path = root / files[position].name
        name = shown(path)
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise FeaturespaceError(f"{name} is larger than {_MOST_BYTES} bytes; move it away or make it smaller")
            content = path.read_bytes()
        except OSError as error:
            raise FeaturespaceError(f"{name} cannot be read ({error.strerror})") from error
        images[position] = decode_image(content, name, side, colour)
        return hashlib.sha256(content).hexdigest()

    with ThreadPoolExecutor(max_workers=threads) as pool, progress(len(files), f"reading {root}", "image") as done:
        checksums = {}
        for start in range(0, len(files), BATCH):
            positions = range(start, min(start + BATCH, len(files)))
            for position, checksum in zip(positions, pool.map(read, positions), strict=True):
                checksums[files[position].name] = checksum
                done.update()
    return images, checksums


# --- functions --------------------------------------------------------------------------------------------------


def call_function(function: str, arguments: Mapping[str, Any], places: Iterable[str | Path]) -> OwnArrays:
    """Call a user's function and check the arrays it returns.

    Parameters
    ----------
    function
        `package.module:name`.
    arguments
        Its keyword arguments.
    places
        Folders that modules are looked for in, before all others.

    Returns
    -------
    OwnArrays
        Of a mapping {name: array}, or of a tuple (x, y) or (x, y, x_test, y_test).

    Raises
    ------
    FeaturespaceError
        If there is no such function, it fails, or it returns something else; one line, the traceback goes to the log.
    """
    module_name, _, name = function.partition(":")
    before = list(sys.path)
    sys.path[:0] = [str(Path(place).resolve()) for place in places]
    try:
        try:
            found = getattr(importlib.import_module(module_name), name)
        except (Exception, SystemExit) as error:
            raise FeaturespaceError(f"{function} cannot be imported: {told(error)}") from error
        try:
            returned = found(**arguments)
        except (Exception, SystemExit) as error:
            raise FeaturespaceError(f"{function} failed: {told(error)}") from error
    finally:
        sys.path[:] = before
    if isinstance(returned, tuple | list) and len(returned) in (2, 4):
        returned = dict(zip(("x", "y", "x_test", "y_test"), returned, strict=False))
    if not isinstance(returned, Mapping):
        raise FeaturespaceError(
            f"{function} should return (x, y), (x, y, x_test, y_test) or a mapping of names to arrays, not "
            f"{type(returned).__name__}"
        )
    arrays = {}
    for key, value in returned.items():
        values = np.asarray(value)
        if values.dtype.kind not in "biufUT":
            raise FeaturespaceError(f"{function}: {key} is of {values.dtype}, which is neither numbers nor text")
        arrays[str(key)] = InMemory(f"{function}: {key}", values)
    return check_arrays(arrays, function)


def _require_as_said(own: OwnArrays, spec: Mapping[str, Any]) -> None:
    """Compare what a function returned with what the study says of it, which its jobs were planned by."""
    n_test = 0 if own.split is None else int((own.split == TEST).sum())
    found = {
        "shape": list(own.shape),
        "classes": len(own.class_names),
        "train": len(own.labels) - n_test,
        "test": n_test,
    }
    for key, value in found.items():
        if value != spec[key]:
            raise FeaturespaceError(f"{spec['function']}: the study says {key}: {spec[key]}, and it returned {value}")


def row_constants(rows: np.ndarray, split: np.ndarray, scaling: str) -> tuple[float, float]:
    """Return offset and scale of rows (n, d): none, or mean and standard deviation over all of the training split."""
    if scaling == "unit":
        return 0.0, 1.0
    training = rows[split == TRAIN].astype(np.float64)
    deviation = float(training.std())
    if deviation == 0:
        raise FeaturespaceError("scaling: standardise cannot be used, all training values are equal; use unit")
    return float(training.mean()), deviation


# --- all of them ------------------------------------------------------------------------------------------------


def read_own(
    spec: Mapping[str, Any], source: Path | None, places: Iterable[str | Path], threads: int = 1
) -> xr.Dataset:
    """Make the data set that a rule's parameters describe: see `preparation.assemble`.

    Parameters
    ----------
    spec
        `kind` and that kind's own keys; `scaling`, `train_limit` and `test_limit`; of files `contents`, the digest of
        what they held when the study was read.
    source
        The folder or the file; None for a function.
    places
        Where the modules of a function are looked for.
    threads
        Of decoding; the result does not depend on them.

    Raises
    ------
    FeaturespaceError
        If it cannot be made, in one line; or if the files have changed since the study was read.
    """
    about: dict[str, Any] = {}
    if spec["kind"] == "images":
        assert source is not None
        names = [*list_source(source, is_image)]
        files = arrange(source, names)
        data, checksums = read_images(source, files, spec["side"], spec["colour"], threads)
        _require_unchanged(source, contents_digest(checksums), spec["contents"])
        class_names = sorted({file.class_name for file in files})
        number = {name: i for i, name in enumerate(class_names)}
        labels = np.array([number[file.class_name] for file in files], np.int64)
        split = None if files[0].is_test is None else np.array([bool(file.is_test) for file in files], np.int8)
        about["file"] = [file.name for file in files]
    else:
        if spec["kind"] == "function":
            own = call_function(spec["function"], spec["arguments"], places)
            _require_as_said(own, spec)
            data = read_samples(own)
        else:
            assert source is not None
            arrays, _ = open_arrays(source)
            own = check_arrays(arrays, str(source), spec["channels"])
            data = read_samples(own)
            listing = list_source(source)
            checksums = {name: sha256(source / name if name else source) for name in listing}
            _require_unchanged(source, contents_digest(checksums), spec["contents"])
        labels, split, class_names = own.labels, own.split, own.class_names
    if split is None:
        split = np.full(len(labels), TRAIN, np.int8)
        split[held_out_rows(labels, spec.get("test_fraction"), spec.get("split_seed", 0))] = TEST
    rows = limited_rows(labels, split, spec["train_limit"], spec["test_limit"])
    data, labels, split = data[rows], labels[rows], split[rows]
    constants = scaling_constants if data.dtype == np.uint8 else row_constants
    offset, scale = constants(data, split, spec["scaling"])
    dataset = assemble(spec["kind"], data, labels, split, class_names, offset, scale, rows, made_by=dict(spec))
    if "file" in about:
        names = [about["file"][row].encode("utf-8", "surrogateescape").decode("utf-8", "replace") for row in rows]
        dataset["file"] = ("sample", np.array(names), {"long_name": "name below the folder"})
    return dataset


def _require_unchanged(source: Path, found: str, expected: str) -> None:
    if found != expected:
        raise FeaturespaceError(f"{source} has changed since the study was read; run the same command again")
