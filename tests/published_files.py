"""Small files in the published formats of MNIST, CIFAR and the 20 Newsgroups: made by the tests, and never taken for
the data sets.
"""

import gzip
import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import ClassVar

import numpy as np


def idx(array: np.ndarray) -> bytes:
    """Write an array in the format of MNIST's files."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


class Python2Pickler(pickle._Pickler):  # type: ignore[misc, name-defined]
    """Writes a pickle as Python 2 did: text and bytes are both `str`, in its opcodes."""

    dispatch: ClassVar[dict] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_str(self, text):
        data = text.encode("latin1") if isinstance(text, str) else text
        self.write(pickle.BINSTRING + len(data).to_bytes(4, "little") + data)
        self.memoize(text)

    dispatch[str] = save_str
    dispatch[bytes] = save_str


def python2_pickle(value: object) -> bytes:
    """Pickle plain containers and arrays, as CIFAR's files are."""
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(value)
    # The name of NumPy's module in those days.
    return stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def tar_of(members: dict[str, bytes], *others: tarfile.TarInfo) -> bytes:
    """Write a gzipped tar archive with one folder, other members, and files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        folder = tarfile.TarInfo("tiny")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for other in others:
            tar.addfile(other)
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


GROUPS = {
    "test.apples": "orchard cider blossom harvest basket crisp orange pectin grafting ladder juice pips",
    "test.boats": "harbour rudder mast anchor sail keel tiller mooring ferry crew hull rigging",
    "test.clouds": "cumulus rain drizzle thunder forecast humid cirrus fog barometer storm sky hail",
    "test.drums": "snare cymbal rhythm tempo bass drummer stick beat groove kick hihat rim",
}
COMMON = "café testing sample invented sentence paragraph nothing real fixture archive"


def write_post(rng: np.random.Generator, group: str, number: int) -> bytes:
    """Make up a post: headers that name the group, sometimes a quotation, words of the group, sometimes a footer."""
    words = [*rng.choice(GROUPS[group].split(), 8, replace=False), *rng.choice(COMMON.split(), 3)]
    lines = [
        f"From: tester{number}@example.org",
        f"Newsgroups: {group}",
        "Subject: made up for the tests of featurespace",
        "",
    ]
    if rng.random() < 0.5:
        lines += ["In article <0@example.org> another tester writes:", f"> this was never posted to {group}"]
    lines += [" ".join(rng.permutation(words)), ""]
    if rng.random() < 0.5:
        lines += ["--", f"tester {number}, reader of {group}"]
    return "\n".join(lines).encode("latin-1")


def posts(train: str, test: str, n_train: int, n_test: int) -> dict[str, bytes]:
    """Make up members `<folder>/<group>/<number>` of an archive, in no order; the last of a folder is only headers."""
    rng = np.random.default_rng(0)
    members = {}
    for folder, n in ((train, n_train), (test, n_test)):
        for i in range(n):
            group = list(GROUPS)[i % len(GROUPS)]
            members[f"{folder}/{group}/{98 + i}"] = write_post(rng, group, i)
        members[list(members)[-1]] = b"From: tester@example.org\nSubject: of this post nothing is left\n"
    return dict(reversed(members.items()))


def write_published(kind: str, directory: Path, n_train: int, n_test: int) -> str:
    """Write a few noisy images, or made-up posts, of a downloaded kind in its published files.

    Returns
    -------
    str
        What has to stand at the end of `catalogue.py` for these files to pass as the published ones.
    """
    from featurespace.catalogue import PUBLISHED, IdxLayout, PostLayout

    published = PUBLISHED[kind]
    layout = published.layout
    directory.mkdir(parents=True, exist_ok=True)
    if isinstance(layout, PostLayout):
        archive = tar_of(posts(layout.train, layout.test, n_train, n_test))
        (directory / layout.archive).write_bytes(archive)
        file = f"PublishedFile({layout.archive!r}, sha256={hashlib.sha256(archive).hexdigest()!r})"
        return _patch(kind, f"files=({file},), n_train={n_train}, n_test={n_test}, n_classes={len(GROUPS)}")
    rng = np.random.default_rng(0)
    n = n_train + n_test
    # every class in either split, as far as there are samples
    labels = np.concatenate([np.arange(n_train), np.arange(n_test)]) % published.n_classes
    prototypes = rng.integers(0, 256, (published.n_classes, *published.image_shape))
    images = np.clip(prototypes[labels] + rng.normal(0, 30, (n, *published.image_shape)), 0, 255).astype(np.uint8)
    payload_bytes: list[int | None]
    if isinstance(layout, IdxLayout):
        parts = {
            layout.train[0]: idx(images[:n_train, 0]),
            layout.train[1]: idx(labels[:n_train]),
            layout.test[0]: idx(images[n_train:, 0]),
            layout.test[1]: idx(labels[n_train:]),
        }
        contents = {name: gzip.compress(payload) for name, payload in parts.items()}
        payload_bytes = [len(payload) for payload in parts.values()]
    else:
        rows = images.reshape(n, -1)
        members = {layout.meta: python2_pickle({layout.class_names_key: [f"c{i}" for i in range(published.n_classes)]})}
        chunks = np.array_split(np.arange(n_train), len(layout.train))
        for name, some in [*zip(layout.train, chunks, strict=True), (layout.test[0], np.arange(n_train, n))]:
            members[name] = python2_pickle({layout.label_key: labels[some].tolist(), "data": rows[some]})
        contents = {layout.archive: tar_of(members)}
        payload_bytes = [None]
    for name, content in contents.items():
        (directory / name).write_bytes(content)
    files = ", ".join(
        f"PublishedFile({name!r}, {hashlib.md5(content).hexdigest()!r}, {size})"
        for (name, content), size in zip(contents.items(), payload_bytes, strict=True)
    )
    sizes = tuple(
        tuple(np.bincount(some, minlength=published.n_classes).tolist()) for some in np.split(labels, [n_train])
    )
    return _patch(kind, f"files=({files},), n_train={n_train}, n_test={n_test}, class_sizes={sizes}")


def _patch(kind: str, changes: str) -> str:
    return f"\nimport dataclasses\nPUBLISHED[{kind!r}] = dataclasses.replace(\n    PUBLISHED[{kind!r}], {changes}\n)\n"
