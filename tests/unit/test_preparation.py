"""Preparation: the published formats, from tiny files in those formats, and what may hide in an archive."""

import gzip
import hashlib
import io
import os
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from published_files import idx, python2_pickle, tar_of

from featurespace.catalogue import (
    PUBLISHED,
    IdxLayout,
    PickleLayout,
    PublishedDataset,
    PublishedFile,
    digits_split_sizes,
)
from featurespace.datasets import load_dataset, select_sample_set
from featurespace.errors import FeaturespaceError
from featurespace.preparation import (
    keep_classes,
    orthonormal_rows,
    orthonormality_residuals,
    parse_idx,
    prepare,
    read_digits,
    read_members,
    read_published,
    rows_per_chunk,
    scaling_constants,
    unpickle_arrays,
)
from featurespace.stores import store_draft, write_group

UNLIMITED = {"train_limit": None, "test_limit": None}
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# --- MNIST's format ---------------------------------------------------------------------------------------------


def tiny_mnist(directory: Path, contents: dict[str, bytes]) -> PublishedDataset:
    """Write MNIST's four files, and describe them as published: 5 + 3 images of 2 x 3 pixels in 4 classes."""
    files = []
    for name, payload in contents.items():
        data = gzip.compress(payload)
        (directory / name).write_bytes(data)
        files.append(PublishedFile(name, hashlib.md5(data).hexdigest(), len(payload)))
    return PublishedDataset("tiny", (), tuple(files), IdxLayout(), (1, 2, 3), 5, 3, 4, tuple("abcd"))


@pytest.fixture
def mnist_parts(rng):
    images = rng.integers(0, 256, (8, 2, 3)).astype(np.uint8)
    labels = np.array([0, 1, 2, 3, 0, 1, 2, 3], np.uint8)
    layout = IdxLayout()
    contents = {
        layout.train[0]: idx(images[:5]),
        layout.train[1]: idx(labels[:5]),
        layout.test[0]: idx(images[5:]),
        layout.test[1]: idx(labels[5:]),
    }
    return images, labels, contents


def test_mnist_files_are_read_in_order(tmp_path, mnist_parts):
    expected_images, expected_labels, contents = mnist_parts
    images, labels, split, names = read_published(tiny_mnist(tmp_path, contents), tmp_path)
    np.testing.assert_array_equal(images, expected_images[:, np.newaxis])
    np.testing.assert_array_equal(labels, expected_labels)
    np.testing.assert_array_equal(split, [0, 0, 0, 0, 0, 1, 1, 1])
    assert (images.dtype, labels.dtype, split.dtype) == (np.uint8, np.int64, np.int8)
    assert names == ["a", "b", "c", "d"]


def test_a_file_that_is_missing_or_another_is_named(tmp_path, mnist_parts):
    published = tiny_mnist(tmp_path, mnist_parts[2])
    name = published.files[1].name
    (tmp_path / name).write_bytes(gzip.compress(idx(np.arange(5))))
    with pytest.raises(FeaturespaceError, match=f"{name} is not the published file .wrong checksum.*snakemake"):
        read_published(published, tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FeaturespaceError, match=f"{name} is missing"):
        read_published(published, tmp_path)


@pytest.mark.parametrize(
    ("position", "payload", "reason"),
    [
        (1, idx(np.arange(4)), "8 images and 7 labels"),
        (1, idx(np.full(5, 9)), r"a label is not in 0\.\.3"),
        (0, idx(np.zeros((4, 2, 3))), "7 images and 8 labels"),
        (0, b"\x00\x00\x0d\x01", "no IDX file of unsigned bytes"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, mnist_parts, position, payload, reason):
    contents = mnist_parts[2]
    contents[list(contents)[position]] = payload
    with pytest.raises(FeaturespaceError, match=reason):
        read_published(tiny_mnist(tmp_path, contents), tmp_path)


@pytest.mark.parametrize(
    "data", [b"", b"\x00", idx(np.zeros((2, 2)))[:-1], idx(np.zeros(2)) + b"!", b"\0\0\x08\x03" + b"\xff" * 12]
)
def test_an_idx_file_of_another_length_than_it_says_is_refused(data):
    with pytest.raises(ValueError):
        parse_idx(data)


@pytest.mark.skipif(not DEBIAN_FASHION.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist_is_what_its_paper_says():
    images, labels, split, names = read_published(PUBLISHED["fashion-mnist"], DEBIAN_FASHION)
    assert images.shape == (70_000, 1, 28, 28)
    np.testing.assert_array_equal(np.bincount(labels[split == 0]), np.full(10, 6000))
    np.testing.assert_array_equal(np.bincount(labels[split == 1]), np.full(10, 1000))
    np.testing.assert_array_equal(split[[0, 59_999, 60_000, 69_999]], [0, 0, 1, 1])
    assert names[labels[0]] == "Ankle boot"
    # The constants that everyone standardises Fashion-MNIST with.
    offset, scale = scaling_constants(images, split, "standardise")
    assert (round(offset, 4), round(scale, 4)) == (0.2860, 0.3530)


# --- CIFAR's format ---------------------------------------------------------------------------------------------


TINY_LAYOUT = PickleLayout(
    archive="tiny.tar.gz",
    train=("tiny/batch_1", "tiny/batch_2"),
    test=("tiny/test",),
    meta="tiny/meta",
    label_key="labels",
    class_names_key="label_names",
)


@pytest.fixture
def cifar_parts(rng):
    """Rows of 3 x 2 x 2 pixels, their labels, and the members of an archive: batches of 2 and 3 images, 2 to test."""
    rows = rng.integers(0, 256, (7, 12)).astype(np.uint8)
    labels = [0, 1, 1, 0, 1, 0, 1]
    members = {
        name: python2_pickle({"batch_label": name, "labels": labels[some], "data": rows[some], "filenames": ["x.png"]})
        for name, some in (
            ("tiny/batch_1", slice(0, 2)),
            ("tiny/batch_2", slice(2, 5)),
            ("tiny/test", slice(5, 7)),
        )
    }
    # In no particular order, with one that nobody asks for, as the published archives are.
    members = {
        "tiny/readme.html": b"<html>",
        "tiny/meta": python2_pickle({"label_names": ["plane", "car"]}),
    } | dict(reversed(members.items()))
    return rows, labels, members


def tiny_cifar(directory: Path, archive: bytes) -> PublishedDataset:
    (directory / "tiny.tar.gz").write_bytes(archive)
    file = PublishedFile("tiny.tar.gz", hashlib.md5(archive).hexdigest())
    return PublishedDataset("tiny", (), (file,), TINY_LAYOUT, (3, 2, 2), 5, 2, 2, None)


def test_cifar_archives_are_read_in_order(tmp_path, cifar_parts):
    rows, expected_labels, members = cifar_parts
    images, labels, split, names = read_published(tiny_cifar(tmp_path, tar_of(members)), tmp_path)
    # A row holds the red plane first: channel, height, width.
    np.testing.assert_array_equal(images, rows.reshape(7, 3, 2, 2))
    np.testing.assert_array_equal(labels, expected_labels)
    np.testing.assert_array_equal(split, [0, 0, 0, 0, 0, 1, 1])
    assert names == ["plane", "car"]


def link(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("tiny/batch_1")
    info.type = kind
    info.linkname = "/etc/passwd"
    return info


def sized(n_bytes: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo("tiny/other")
    info.size = n_bytes
    return info


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (tarfile.TarInfo("tiny/../../../escape"), "leads out"),
        (tarfile.TarInfo("/etc/escape"), "leads out"),
        (link(tarfile.SYMTYPE), "no plain file"),
        (link(tarfile.LNKTYPE), "no plain file"),
        (link(tarfile.CHRTYPE), "no plain file"),
        (link(tarfile.FIFOTYPE), "no plain file"),
        (link(tarfile.GNUTYPE_SPARSE), "no plain file"),
        (tarfile.TarInfo("tiny/batch_1"), "there twice"),
        (sized(2**40), "too large"),
    ],
)
def test_an_archive_with_more_than_plain_files_is_refused(tmp_path, cifar_parts, other, reason):
    published = tiny_cifar(tmp_path, tar_of(cifar_parts[2], other))
    with pytest.raises(FeaturespaceError, match=reason):
        read_published(published, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.tar.gz"]


def test_an_archive_that_says_it_holds_more_than_it_does_is_refused():
    stream = io.BytesIO()
    info = tarfile.TarInfo("tiny/meta")
    info.size = 1_000_000
    stream.write(info.tobuf() + bytes(2048))
    with pytest.raises(ValueError, match=r"no whole tar archive|cut"):
        read_members(gzip.compress(stream.getvalue()), ["tiny/meta"])


def test_an_archive_that_is_cut_or_lacks_a_member_is_refused(cifar_parts):
    archive = tar_of(cifar_parts[2] | {"tiny/noise": os.urandom(10_000)})
    with pytest.raises(ValueError, match=r"no whole tar archive|no member"):
        read_members(archive[: len(archive) // 2], ["tiny/noise"])
    with pytest.raises(ValueError, match="no member tiny/absent"):
        read_members(archive, ["tiny/meta", "tiny/absent"])


class Bomb:
    """A pickle of this makes a directory when it is opened."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __reduce__(self):
        return os.mkdir, (str(self.directory),)


def test_a_pickle_bomb_is_never_opened_and_would_not_go_off(tmp_path, cifar_parts, monkeypatch):
    crater = tmp_path / "crater"
    good = tar_of(cifar_parts[2])
    bad = tar_of(cifar_parts[2] | {"tiny/batch_1": pickle.dumps(Bomb(crater), protocol=2)})
    published = tiny_cifar(tmp_path, good)
    (tmp_path / "tiny.tar.gz").write_bytes(bad)
    with monkeypatch.context() as patch:
        patch.setattr("featurespace.preparation.unpickle_arrays", pytest.fail)
        patch.setattr("featurespace.preparation.read_members", pytest.fail)
        with pytest.raises(FeaturespaceError, match="not the published file"):
            read_published(published, tmp_path)
    # Even in an archive whose checksum is right it makes nothing.
    with pytest.raises(FeaturespaceError, match=r"no pickle of arrays: it asks for (posix|nt)\.mkdir"):
        read_published(tiny_cifar(tmp_path, bad), tmp_path)
    assert not crater.exists()


@pytest.mark.parametrize("data", [b"", b"garbage", python2_pickle({"a": 1})[:-3]])
def test_a_damaged_pickle_is_refused(data):
    with pytest.raises(ValueError, match="no pickle of arrays"):
        unpickle_arrays(data)


@pytest.mark.parametrize(
    ("batch", "reason"),
    [
        ([1, 2], "has no data"),
        ({"data": np.zeros((2, 12), np.uint8)}, "or no labels"),
        ({"data": np.zeros((2, 12)), "labels": [0, 1]}, "rows of bytes"),
        ({"data": np.zeros((2, 12), np.uint8), "labels": [0]}, "2 images and 1 labels"),
        ({"data": np.zeros((1, 12), np.uint8), "labels": [0]}, "6 images and 6 labels"),
        ({"data": np.zeros((2, 11), np.uint8), "labels": [0, 1]}, "cannot be read"),
    ],
)
def test_a_batch_of_another_form_is_refused(tmp_path, cifar_parts, batch, reason):
    published = tiny_cifar(tmp_path, tar_of(cifar_parts[2] | {"tiny/batch_1": python2_pickle(batch)}))
    with pytest.raises(FeaturespaceError, match=reason):
        read_published(published, tmp_path)


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_torchvision_reads_the_same_from_an_archive_like_the_published(tmp_path, rng, kind):
    from torchvision import datasets

    published = PUBLISHED[kind]
    layout = published.layout
    members, n_rows = {}, 4
    for name in (*layout.train, *layout.test):
        rows = rng.integers(0, 256, (n_rows, 3072)).astype(np.uint8)
        members[name] = python2_pickle(
            {"data": rows, layout.label_key: rng.integers(0, published.n_classes, n_rows).tolist()}
        )
    names = [f"class {i}" for i in range(published.n_classes)]
    members[layout.meta] = python2_pickle({layout.class_names_key: names})
    archive = tar_of(members)
    (tmp_path / layout.archive).write_bytes(archive)
    file = replace(published.files[0], md5=hashlib.md5(archive).hexdigest())
    n_train, n_test = n_rows * len(layout.train), n_rows * len(layout.test)
    images, labels, split, read_names = read_published(
        replace(published, files=(file,), n_train=n_train, n_test=n_test), tmp_path
    )
    with tarfile.open(tmp_path / layout.archive) as tar:
        tar.extractall(tmp_path, filter="data")
    reader = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[kind]

    class Unchecked(reader):
        def _check_integrity(self):
            return True

        def _load_meta(self):
            pass

    for train in (True, False):
        theirs = Unchecked(tmp_path, train=train)
        some = split == (0 if train else 1)
        np.testing.assert_array_equal(images[some].transpose(0, 2, 3, 1), theirs.data)
        np.testing.assert_array_equal(labels[some], theirs.targets)
    assert read_names == names


# --- digits, orthonormal rows, scaling --------------------------------------------------------------------------


def test_digits_are_proportional_to_scikit_learns_and_split_by_class():
    from sklearn.datasets import load_digits

    images, labels, split, names = read_digits(test_fraction=0.25, split_seed=0)
    original = load_digits()
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images[:, 0] / 15, original.images)
    np.testing.assert_array_equal(labels, original.target)
    assert names == list("0123456789")
    shares = np.bincount(labels[split == 1]) / np.bincount(labels)
    np.testing.assert_allclose(shares, 0.25, atol=0.005)
    np.testing.assert_array_equal(split, read_digits(0.25, 0)[2])
    assert (split != read_digits(0.25, 1)[2]).any()


def test_digits_cannot_be_split_so_that_a_class_is_left_out():
    with pytest.raises(FeaturespaceError, match="test_fraction"):
        read_digits(test_fraction=0.001, split_seed=0)


def test_orthonormal_rows_are_orthonormal_without_noise():
    values, labels = orthonormal_rows(10, 3, 50, noise=0.0, seed=0)
    assert values.shape == (30, 50)
    np.testing.assert_allclose(values @ values.T, np.eye(30), atol=1e-14)
    np.testing.assert_array_equal(labels, [0] * 10 + [1] * 10 + [2] * 10)


def test_noise_has_the_norm_it_should_and_leaves_the_rows_alone():
    clean, _ = orthonormal_rows(10, 3, 50, noise=0.0, seed=3)
    one, _ = orthonormal_rows(10, 3, 50, noise=1.0, seed=3)
    two, _ = orthonormal_rows(10, 3, 50, noise=2.0, seed=3)
    assert np.linalg.norm(one - clean) == pytest.approx(1)
    np.testing.assert_allclose(two - clean, 2 * (one - clean), atol=1e-14)
    assert (orthonormal_rows(10, 3, 50, noise=1.0, seed=4)[0] != one).all()


def test_too_many_rows_cannot_be_orthonormal():
    with pytest.raises(FeaturespaceError, match=r"51 rows .* dimension 50; raise the dimension to 51"):
        orthonormal_rows(17, 3, 50, noise=1.0, seed=0)
    orthonormal_rows(10, 5, 50, noise=1.0, seed=0)


def test_residuals_are_the_papers(rng):
    values = rng.standard_normal((6, 9))
    residuals = orthonormality_residuals(values)
    norms = max(abs(x @ x - 1) for x in values)
    products = max(abs(values[i] @ values[j]) for i in range(6) for j in range(6) if i != j)
    assert residuals == pytest.approx(
        {
            "norm_residual": norms,
            "norm_residual_times_n": 6 * norms,
            "norm_residual_over_n": norms / 6,
            "inner_product": products,
            "inner_product_times_n": 6 * products,
            "inner_product_over_n": products / 6,
        }
    )


def test_standardising_uses_the_training_split_only(rng):
    images = rng.integers(0, 256, (20, 1, 4, 4)).astype(np.uint8)
    split = np.array([0, 1] * 10, np.int8)
    offset, scale = scaling_constants(images, split, "standardise")
    assert offset == pytest.approx((images[split == 0] / 255).mean(), rel=1e-14)
    assert scale == pytest.approx((images[split == 0] / 255).std(), rel=1e-14)
    assert scaling_constants(images, split, "unit") == (0.0, 1.0)
    with pytest.raises(FeaturespaceError, match="all training pixels are equal"):
        scaling_constants(np.full((2, 1, 4, 4), 7, np.uint8), np.zeros(2, np.int8), "standardise")
    with pytest.raises(ValueError, match="unknown scaling"):
        scaling_constants(images, split, "none")


def test_prepared_images_carry_all_that_consumers_need():
    spec = {
        "kind": "digits",
        "scaling": "standardise",
        "train_limit": None,
        "test_limit": None,
        "test_fraction": 0.25,
        "split_seed": 0,
    }
    dataset = prepare(spec, None, None)
    assert dict(dataset.sizes) == {"sample": 1797, "channel": 1, "height": 8, "width": 8}
    assert (dataset.image.dtype, dataset.label.dtype, dataset.split.dtype) == (np.uint8, np.int64, np.int8)
    np.testing.assert_array_equal(dataset["sample"], np.arange(1797))
    assert dataset["split"].attrs["flag_meanings"] == "train test"
    assert dataset.attrs["made_by"] == spec
    assert dataset.attrs["sample_hash"] == hashlib.sha256(np.arange(1797, dtype="<i8").tobytes()).hexdigest()


# --- some classes only ------------------------------------------------------------------------------------------

DIGITS = {"kind": "digits", "scaling": "standardise", "test_fraction": 0.25, "split_seed": 0} | UNLIMITED


def test_kept_classes_are_numbered_anew_in_the_order_given():
    labels, names = keep_classes(np.array([0, 1, 2, 3, 2]), list("abcd"), [3, 2])
    np.testing.assert_array_equal(labels, [-1, -1, 1, 0, 1])
    assert names == ["d", "c"]
    labels, names = keep_classes(np.array([0, 1]), ("a", "b"), None)
    assert (labels.tolist(), names) == ([0, 1], ["a", "b"])


@pytest.mark.parametrize(("classes", "reason"), [([0, 4], "no class 4, only 0 to 3"), ([1, -1], "no class -1")])
def test_a_class_that_is_not_there_is_an_error(classes, reason):
    with pytest.raises(FeaturespaceError, match=f"classes: there is {reason}"):
        keep_classes(np.arange(4), list("abcd"), classes)
    with pytest.raises(FeaturespaceError, match="class 2 is named twice"):
        keep_classes(np.arange(4), list("abcd"), [2, 2])


def test_a_data_set_of_some_classes_is_that_part_of_the_whole():
    images, labels, split, _ = read_digits(0.25, 0)
    dataset = prepare(DIGITS | {"classes": [7, 3, 5]}, None, None)
    rows = np.flatnonzero(np.isin(labels, [7, 3, 5]))
    np.testing.assert_array_equal(dataset["sample"], rows)
    np.testing.assert_array_equal(dataset["image"], images[rows])
    np.testing.assert_array_equal(dataset["split"], split[rows])
    np.testing.assert_array_equal(np.array([7, 3, 5])[dataset["label"]], labels[rows])
    assert dataset.attrs["class_names"] == ["7", "3", "5"]
    training = images[rows][split[rows] == 0] / 255
    assert dataset.attrs["offset"] == pytest.approx(training.mean(), rel=1e-13)
    assert dataset.attrs["scale"] == pytest.approx(training.std(), rel=1e-13)
    whole = prepare(DIGITS, None, None)
    assert dataset.attrs["offset"] != whole.attrs["offset"]
    for every in (None, list(range(10))):
        assert prepare(DIGITS | {"classes": every}, None, None)["label"].equals(whole["label"])


def test_limits_count_kept_classes_only():
    dataset = prepare(DIGITS | {"classes": [9, 0], "train_limit": 40, "test_limit": 10}, None, None)
    labels, split, ids = (dataset[name].to_numpy() for name in ("label", "split", "sample"))
    assert np.bincount(labels[split == 0]).tolist() == [20, 20]
    assert np.bincount(labels[split == 1]).tolist() == [5, 5]
    _, all_labels, all_split, _ = read_digits(0.25, 0)
    np.testing.assert_array_equal(all_labels[ids], np.array([9, 0])[labels])
    np.testing.assert_array_equal(all_split[ids], split)


def test_ids_with_gaps_are_read_back(tmp_path):
    dataset = prepare(DIGITS | {"classes": [1, 8]}, None, None)
    with store_draft(tmp_path / "dataset.zarr") as draft:
        write_group(draft, "", dataset, chunks={"sample": rows_per_chunk(dataset)})
    read = load_dataset(tmp_path / "dataset.zarr")
    _, labels, _, _ = read_digits(0.25, 0)
    assert (read.n_classes, read.class_names) == (2, ["1", "8"])
    rows = select_sample_set(read, "test", 12)
    assert np.bincount(read.labels[rows]).tolist() == [6, 6]
    np.testing.assert_array_equal(labels[read.sample_ids[rows]], np.array([1, 8])[read.labels[rows]])
    # a row is found by its id, as pictures of samples are
    np.testing.assert_array_equal(np.searchsorted(read.sample_ids, read.sample_ids[rows]), rows)


@pytest.mark.parametrize("kind", ["mnist", "cifar100"])
def test_the_sizes_of_classes_are_those_of_the_published_splits(kind):
    published = PUBLISHED[kind]
    every = range(published.n_classes)
    assert published.split_sizes() == published.split_sizes(every) == (published.n_train, published.n_test)
    one_by_one = [published.split_sizes([label]) for label in every]
    assert tuple(map(sum, zip(*one_by_one, strict=True))) == published.split_sizes()
    assert published.split_sizes([1, 0]) == tuple(map(sum, zip(*one_by_one[:2], strict=True)))


def test_the_sizes_of_digits_are_those_of_their_split():
    drawn = set()
    for test_fraction in (0.1, 0.25, 0.3, 0.5, 0.77):
        for seed in range(6):
            _, labels, split, _ = read_digits(test_fraction, seed)
            sizes = [digits_split_sizes(test_fraction, seed, [label]) for label in range(10)]
            expected = [tuple(np.bincount(split[labels == label], minlength=2).tolist()) for label in range(10)]
            assert sizes == expected
            assert digits_split_sizes(test_fraction, seed) == tuple(np.bincount(split).tolist())
            drawn.add((test_fraction, tuple(sizes)))
    assert len(drawn) > 5  # among equal remainders chance decides


def test_fashion_mnist_of_some_classes(tmp_path):
    if not DEBIAN_FASHION.is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    fashion = PUBLISHED["fashion-mnist"]
    spec = {"kind": "fashion-mnist", "scaling": "unit", "classes": [5, 6, 7, 8, 9]} | UNLIMITED
    dataset = prepare(spec, fashion, DEBIAN_FASHION)
    assert tuple(np.bincount(dataset["split"]).tolist()) == fashion.split_sizes(spec["classes"]) == (30_000, 5_000)
    assert dataset.attrs["class_names"] == ["Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
    assert int(dataset["label"][0]) == 4  # the first image of all, an ankle boot


def test_prepared_values_carry_their_residuals():
    spec = {"kind": "orthonormal", "scaling": "none", "samples_per_class": 10, "dimension": 50, "classes": 3}
    dataset = prepare(spec | {"noise": 1.0, "seed": 0}, None, None)
    assert dict(dataset.sizes) == {"sample": 30, "feature": 50}
    assert dataset.value.dtype == np.float64
    assert (dataset["split"] == 0).all()
    assert (dataset.attrs["offset"], dataset.attrs["scale"]) == (0.0, 1.0)
    # Of the size that the paper's notebook prints, over n: 0.0047 and 0.0033.
    assert 0.001 < dataset.attrs["norm_residual_over_n"] < 0.01
    assert 0.001 < dataset.attrs["inner_product_over_n"] < 0.01
    assert rows_per_chunk(dataset) == 30


def test_a_downloaded_kind_is_prepared_from_its_files(tmp_path, mnist_parts):
    published = tiny_mnist(tmp_path, mnist_parts[2])
    dataset = prepare({"kind": "tiny", "scaling": "unit"} | UNLIMITED, published, tmp_path)
    np.testing.assert_array_equal(dataset.image, mnist_parts[0][:, np.newaxis])
    assert dataset.attrs["class_names"] == ["a", "b", "c", "d"]


def test_a_limited_data_set_keeps_an_even_share_of_each_split_and_its_ids():
    spec = {"kind": "digits", "scaling": "unit", "test_fraction": 0.25, "split_seed": 0}
    whole = prepare(spec | UNLIMITED, None, None)
    part = prepare(spec | {"train_limit": 200, "test_limit": 50}, None, None)
    for code, size in ((0, 200), (1, 50)):
        counts = np.bincount(part["label"].to_numpy()[part["split"].to_numpy() == code], minlength=10)
        assert counts.sum() == size
        assert counts.max() - counts.min() <= 1
    # the ids are those of the whole data set, so that the same sample has the same id in both
    rows = part["sample"].to_numpy()
    np.testing.assert_array_equal(part["image"].to_numpy(), whole["image"].to_numpy()[rows])
    np.testing.assert_array_equal(part["split"].to_numpy(), whole["split"].to_numpy()[rows])
    assert part.attrs["sample_hash"] != whole.attrs["sample_hash"]
