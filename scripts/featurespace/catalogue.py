"""The published data sets: their files, where these are, and how to tell that a file is the published one.

Plain Python, so that a job that only looks here imports nothing large. The names, checksums and mirrors are those
of torchvision's data sets and scikit-learn's (a test compares them), with the further mirrors that the data sets'
other keepers use.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

MAX_FILE_BYTES = 256 * 2**20  # the largest published file, CIFAR-10, has 170 MB


@dataclass(frozen=True)
class PublishedFile:
    """One file as its publisher offers it.

    The file as a whole is known by its `md5` or by its `sha256`, whichever its publisher gives. A gzip file has
    `payload_bytes`, the exact size of what it holds, and, where it is known, `payload_sha256`: a file that was
    compressed anew, as distributions do, is recognised by it. An archive (`payload_bytes` is None) counts as it is.
    `addresses` are of this file alone, for places that keep it under another name; they come before the mirrors.
    """

    name: str
    md5: str | None = None
    payload_bytes: int | None = None
    payload_sha256: str | None = None
    sha256: str | None = None
    addresses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.md5 is None) == (self.sha256 is None):
            raise ValueError(f"{self.name}: a file is known by its md5 or by its sha256, one of the two")

    @property
    def checksum(self) -> tuple[str, str]:
        """The algorithm that the whole file is known by, as hashlib names it, and its hexadecimal digest."""
        return ("md5", self.md5) if self.md5 is not None else ("sha256", self.sha256 or "")


@dataclass(frozen=True)
class IdxLayout:
    """Two gzip files of images and labels in the IDX format for each split: MNIST's."""

    train: tuple[str, str] = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
    test: tuple[str, str] = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")


@dataclass(frozen=True)
class PickleLayout:
    """One tar archive of pickled dictionaries: CIFAR's. `train` and `test` name members in order."""

    archive: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    label_key: str
    class_names_key: str


@dataclass(frozen=True)
class PostLayout:
    """One tar archive of posts, each a member `<folder>/<group>/<number>`: the 20 Newsgroups'."""

    archive: str
    train: str  # the folder
    test: str


@dataclass(frozen=True)
class PublishedDataset:
    """A published data set of uint8 images, or of texts, in classes, with its publisher's split."""

    kind: str
    mirrors: tuple[str, ...]  # base addresses in the order in which they are tried, each with its final slash
    files: tuple[PublishedFile, ...]
    layout: IdxLayout | PickleLayout | PostLayout
    image_shape: tuple[int, int, int] | None  # channel, height, width; None: texts
    n_train: int
    n_test: int
    n_classes: int
    class_names: tuple[str, ...] | None  # None: they are read from the files
    class_sizes: tuple[tuple[int, ...], tuple[int, ...]] | None = None  # (train, test); None: images of all are as many

    @property
    def is_text(self) -> bool:
        """Whether the samples are texts, which have no pixels."""
        return isinstance(self.layout, PostLayout)

    def split_sizes(self, classes: Sequence[int] | None = None) -> tuple[int, int]:
        """Return how many training and test samples some classes of images have, or all (None)."""
        if classes is None:
            return self.n_train, self.n_test
        if self.class_sizes is None:
            return self.n_train // self.n_classes * len(classes), self.n_test // self.n_classes * len(classes)
        train, test = (sum(sizes[label] for label in classes) for sizes in self.class_sizes)
        return train, test


DIGITS_CLASS_SIZES = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)  # of scikit-learn's digits


def digits_split_sizes(test_fraction: float, split_seed: int, classes: Sequence[int] | None = None) -> tuple[int, int]:
    """Return how many training and test samples `preparation.read_digits` makes of some digits, or of all (None).

    scikit-learn's stratified split, without importing it: each class's share of the training samples rounded down,
    the rest to the largest remainders, and among equal ones by chance.
    """
    n_samples = sum(DIGITS_CLASS_SIZES)
    n_train = n_samples - math.ceil(test_fraction * n_samples)
    if classes is None:
        return n_train, n_samples - n_train
    import numpy as np

    shares = np.array(DIGITS_CLASS_SIZES) / n_samples * n_train
    train = np.floor(shares)
    rng = np.random.RandomState(split_seed)  # the generator that scikit-learn draws from
    for remainder in np.unique(shares - train)[::-1]:
        n_left = n_train - int(train.sum())
        if n_left == 0:
            break
        equal = np.flatnonzero(shares - np.floor(shares) == remainder)
        train[rng.choice(equal, size=min(len(equal), n_left), replace=False)] += 1
    kept = list(classes)
    n_kept = int(train[kept].sum())
    return n_kept, sum(DIGITS_CLASS_SIZES[label] for label in kept) - n_kept


def verified_content(path: Path, file: PublishedFile) -> bytes:
    """Read a file that has to be the published one, and return what it holds: a gzip file's payload, or all of it.

    Everything is decided on the bytes that are returned, so that nothing can change between check and use.
    Decompression stops one byte after the published size.

    Raises
    ------
    ValueError
        With the reason, if the file is another one than was published.
    """
    n_bytes = path.stat().st_size
    if n_bytes > MAX_FILE_BYTES:
        raise ValueError(f"{n_bytes} bytes are more than any published file has")
    data = path.read_bytes()
    algorithm, expected = file.checksum
    found = hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()
    if found != expected and file.payload_sha256 is None:
        raise ValueError(f"wrong checksum: {algorithm} {found}, published {expected}")
    if file.payload_bytes is None:
        return data
    try:
        with gzip.open(BytesIO(data)) as stream:
            payload = stream.read(file.payload_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"wrong checksum ({algorithm} {found}, published {expected}), and no whole gzip file"
        ) from error
    if len(payload) != file.payload_bytes:
        n_payload = "more" if len(payload) > file.payload_bytes else f"{len(payload)}"
        raise ValueError(f"wrong content: {n_payload} bytes, published {file.payload_bytes}")
    sha256 = hashlib.sha256(payload).hexdigest()
    if found != expected and sha256 != file.payload_sha256:
        raise ValueError(f"wrong checksum: sha256 of the content {sha256}, published {file.payload_sha256}")
    return payload


def _idx_files(
    images: tuple[str, str], labels: tuple[str, str], payloads: tuple[str | None, ...]
) -> tuple[PublishedFile, ...]:
    """List MNIST's four files: md5 of the images and of the labels (train, test), sha256 of the four payloads."""
    layout = IdxLayout()
    return (
        PublishedFile(layout.train[0], images[0], 16 + 60_000 * 28 * 28, payloads[0]),
        PublishedFile(layout.train[1], labels[0], 8 + 60_000, payloads[1]),
        PublishedFile(layout.test[0], images[1], 16 + 10_000 * 28 * 28, payloads[2]),
        PublishedFile(layout.test[1], labels[1], 8 + 10_000, payloads[3]),
    )


_CIFAR_MIRRORS = (
    "https://www.cs.toronto.edu/~kriz/",
    "https://cave.cs.toronto.edu/kriz/",  # where the first one leads since the page has moved
)

PUBLISHED: dict[str, PublishedDataset] = {
    dataset.kind: dataset
    for dataset in (
        PublishedDataset(
            kind="mnist",
            mirrors=(
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",  # TensorFlow Datasets'
                "http://yann.lecun.com/exdb/mnist/",
            ),
            files=_idx_files(
                images=("f68b3c2dcbeaaa9fbdd348bbdeb94873", "9fb629c4189551a2d022fa330f9573f3"),
                labels=("d53e105ee54ea40749a09fcbcd1e9432", "ec29112dd5afa0611ce80d1b7f02629c"),
                payloads=(None, None, None, None),
            ),
            layout=IdxLayout(),
            image_shape=(1, 28, 28),
            n_train=60_000,
            n_test=10_000,
            n_classes=10,
            class_names=tuple("0123456789"),
            class_sizes=(
                (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
                (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
            ),
        ),
        PublishedDataset(
            kind="fashion-mnist",
            mirrors=(
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
                "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",  # Keras'
                # "the dataset appears under data/fashion", says its README
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            ),
            files=_idx_files(
                images=("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "bef4ecab320f06d8554ea6380940ec79"),
                labels=("25c81989df183df01b3e8a0aad5dffbe", "bb300cfdad3c16e7a12a480ee83cd310"),
                payloads=(  # those of Debian's package dataset-fashion-mnist, which compresses the files anew
                    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                ),
            ),
            layout=IdxLayout(),
            image_shape=(1, 28, 28),
            n_train=60_000,
            n_test=10_000,
            n_classes=10,
            class_names=(
                "T-shirt/top",
                "Trouser",
                "Pullover",
                "Dress",
                "Coat",
                "Sandal",
                "Shirt",
                "Sneaker",
                "Bag",
                "Ankle boot",
            ),
        ),
        PublishedDataset(
            kind="cifar10",
            mirrors=_CIFAR_MIRRORS,
            files=(PublishedFile("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),),
            layout=PickleLayout(
                archive="cifar-10-python.tar.gz",
                train=tuple(f"cifar-10-batches-py/data_batch_{i}" for i in range(1, 6)),
                test=("cifar-10-batches-py/test_batch",),
                meta="cifar-10-batches-py/batches.meta",
                label_key="labels",
                class_names_key="label_names",
            ),
            image_shape=(3, 32, 32),
            n_train=50_000,
            n_test=10_000,
            n_classes=10,
            class_names=None,
        ),
        PublishedDataset(
            kind="cifar100",
            mirrors=_CIFAR_MIRRORS,
            files=(PublishedFile("cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),),
            layout=PickleLayout(
                archive="cifar-100-python.tar.gz",
                train=("cifar-100-python/train",),
                test=("cifar-100-python/test",),
                meta="cifar-100-python/meta",
                label_key="fine_labels",
                class_names_key="fine_label_names",
            ),
            image_shape=(3, 32, 32),
            n_train=50_000,
            n_test=10_000,
            n_classes=100,
            class_names=None,
        ),
        PublishedDataset(
            kind="newsgroups",
            mirrors=(
                "http://qwone.com/~jason/20Newsgroups/",  # the data set's own page
                "https://people.csail.mit.edu/jrennie/20Newsgroups/",
            ),
            files=(
                PublishedFile(
                    "20news-bydate.tar.gz",
                    sha256="8f1b2514ca22a5ade8fbb9cfa5727df95fa587f4c87b786e15c759fa66d95610",
                    addresses=("https://ndownloader.figshare.com/files/5975967",),  # scikit-learn's
                ),
            ),
            layout=PostLayout("20news-bydate.tar.gz", "20news-bydate-train", "20news-bydate-test"),
            image_shape=None,
            n_train=11_314,
            n_test=7_532,
            n_classes=20,
            class_names=None,
        ),
    )
}
