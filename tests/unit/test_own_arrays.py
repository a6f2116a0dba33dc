"""The arrays of a data set of one's own: what they may look like, and one line for what they may not."""

import numpy as np
import pytest

from featurespace.errors import FeaturespaceError
from featurespace.own_arrays import InMemory, check_arrays, describe, read_samples
from featurespace.own_split import held_out_rows, n_held_out

RNG = np.random.default_rng(0)
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1])
ROWS = RNG.normal(size=(8, 5))


def pixels(*shape):
    return RNG.integers(0, 256, shape).astype(np.uint8)


def check(channels=None, **arrays):
    return check_arrays({name: InMemory(f"f: {name}", np.asarray(a)) for name, a in arrays.items()}, "f", channels)


# --- samples ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4", "u1", "?"])
def test_rows_keep_their_values(dtype):
    rows = np.round(ROWS * 3).clip(0, 1).astype(dtype)
    own = check(x=rows, y=LABELS)
    assert own.shape == (5,)
    assert own.layout == "rows"
    found = read_samples(own)
    assert found.dtype == (np.float32 if dtype in ("f2", "f4") else np.float64)
    np.testing.assert_array_equal(found, rows.astype(float))


def test_images_have_their_channels_first():
    grey, first, last = pixels(8, 6, 6), pixels(8, 3, 6, 6), pixels(8, 6, 6, 3)
    for images, shape, expected in (
        (grey, (1, 6, 6), grey[:, None]),
        (first, (3, 6, 6), first),
        (last, (3, 6, 6), np.stack([last[..., c] for c in range(3)], axis=1)),
        (pixels(8, 1, 6, 6), (1, 6, 6), None),
        (pixels(8, 6, 6, 1), (1, 6, 6), None),
    ):
        own = check(x=images, y=LABELS)
        assert own.shape == shape
        found = read_samples(own)
        assert found.shape == (8, *shape)
        assert found.dtype == np.uint8
        if expected is not None:
            np.testing.assert_array_equal(found, expected)


def test_where_channels_stand_may_have_to_be_said():
    images = pixels(8, 3, 3, 3)
    with pytest.raises(FeaturespaceError, match="may have its channels first or last; see the key `channels`"):
        check(x=images, y=LABELS)
    np.testing.assert_array_equal(read_samples(check("first", x=images, y=LABELS)), images)
    np.testing.assert_array_equal(read_samples(check("last", x=images, y=LABELS)), images.transpose(0, 3, 1, 2))
    with pytest.raises(FeaturespaceError, match="1 or 3 channels neither first nor last"):
        check("first", x=pixels(8, 6, 6, 3), y=LABELS)


# --- labels and splits ------------------------------------------------------------------------------------------


def test_labels_are_numbered_in_ascending_order():
    own = check(x=ROWS, y=LABELS * 10 + 5)
    np.testing.assert_array_equal(own.labels, LABELS)
    assert own.class_names == ["5", "15", "25"]
    own = check(x=ROWS, y=np.array(["dog", "cat", "emu", "dog", "cat", "emu", "dog", "cat"]))
    assert own.class_names == ["cat", "dog", "emu"]
    np.testing.assert_array_equal(own.labels, [1, 0, 2, 1, 0, 2, 1, 0])


def test_names_of_classes_say_how_many_there_are():
    own = check(x=ROWS, y=LABELS, class_names=["a", "b", "c"])
    assert own.class_names == ["a", "b", "c"]
    with pytest.raises(FeaturespaceError, match="class_names has 2 names, so labels are 0 to 1"):
        check(x=ROWS, y=LABELS, class_names=["a", "b"])
    with pytest.raises(FeaturespaceError, match="class 'd' has no training sample"):
        check(x=ROWS, y=LABELS, class_names=["a", "b", "c", "d"])


def test_a_split_is_in_arrays_of_its_own_or_in_one():
    own = check(x_train=ROWS, y_train=LABELS, x_test=ROWS[:2], y_test=LABELS[:2])
    np.testing.assert_array_equal(own.split, [0] * 8 + [1] * 2)
    np.testing.assert_array_equal(read_samples(own), np.concatenate([ROWS, ROWS[:2]]))
    assert describe(own) == {"shape": [5], "train": [3, 3, 2], "test": [1, 1, 0]}
    for split in ([0] * 6 + [1] * 2, [False] * 6 + [True] * 2, ["train"] * 6 + ["test"] * 2):
        own = check(x=ROWS, y=LABELS, split=split)
        np.testing.assert_array_equal(own.split, [0] * 6 + [1] * 2)
        assert describe(own) == {"shape": [5], "train": [2, 2, 2], "test": [1, 1, 0]}
    assert describe(check(x=ROWS, y=LABELS)) == {"shape": [5], "train": [3, 3, 2], "test": None}
    assert describe(check(x=ROWS, y=LABELS, split=[0] * 8))["test"] == [0, 0, 0]


BAD = [
    ({}, "f: there is no array x (only none)"),
    ({"x": ROWS}, "f: there is no array y (only x)"),
    ({"x": ROWS, "y": LABELS, "labels": LABELS}, "f: array 'labels' is not known (there are: x, y, "),
    ({"x": ROWS, "y": LABELS, "x_test": ROWS}, "f: there is no array y_test"),
    ({"x": ROWS, "y": LABELS, "x_train": ROWS, "y_train": LABELS}, "f: x is there beside x_train"),
    (
        {"x": ROWS, "y": LABELS, "x_test": ROWS, "y_test": LABELS, "split": LABELS},
        "f: split says which samples of x are held out, and x_test has others",
    ),
    ({"x": ROWS, "y": LABELS[:7]}, "f: y is (7,): a label for each of the 8 samples of f: x is needed"),
    ({"x": ROWS, "y": LABELS[:, None]}, "f: y is (8, 1): a label for each"),
    ({"x": ROWS, "y": LABELS * 1.0}, "f: y is of float64: labels are integers or text"),
    ({"x": ROWS, "y": LABELS * 0}, "f: all labels are 0; two classes at least are needed"),
    (
        {"x": np.zeros((3000, 2)), "y": np.arange(3000)},
        "f: 3000 samples have 3000 labels, which are no classes",
    ),
    ({"x": ROWS[:, :0], "y": LABELS}, "f: x is empty: (8, 0)"),
    ({"x": ROWS[:, 0], "y": LABELS}, "f: x is (8,): rows are (n, d), images (n, h, w)"),
    ({"x": ROWS.reshape(8, 5, 1), "y": LABELS}, "f: x holds images of float64: pixels are uint8"),
    ({"x": pixels(8, 5, 6), "y": LABELS}, "f: x holds images of 5 x 6 pixels: they should be square"),
    ({"x": pixels(8, 5, 4, 4), "y": LABELS}, "f: x is (8, 5, 4, 4): it has 1 or 3 channels neither first nor last"),
    ({"x": ROWS.astype(str), "y": LABELS}, "f: x is of <U32: rows are numbers"),
    ({"x": ROWS, "y": LABELS, "split": [0] * 7}, "f: split is (7,): one entry for each of the 8 samples"),
    ({"x": ROWS, "y": LABELS, "split": [0] * 7 + [2]}, "f: split holds 2: 0 or `train`, 1 or `test`"),
    ({"x": ROWS, "y": LABELS, "split": ["train"] * 7 + ["val"]}, "f: split holds val: 0 or `train`"),
    ({"x": ROWS, "y": LABELS, "split": [1] * 3 + [0, 0, 1, 0, 0]}, "f: class '2' has no training sample"),
    ({"x": ROWS, "y": LABELS, "class_names": [1, 2, 3]}, "f: class_names is (3,) of int64: a text for each class"),
    ({"x": ROWS, "y": LABELS, "x_test": ROWS[:, :4], "y_test": LABELS}, "f: x_test is (8, 4) of float64, and x (8, 5)"),
]


@pytest.mark.parametrize(("arrays", "says"), BAD, ids=[says[:40] for _, says in BAD])
def test_what_is_no_data_set_is_one_line(arrays, says):
    with pytest.raises(FeaturespaceError) as caught:
        check(**arrays)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_by_sample(value):
    rows = ROWS.copy()
    rows[6, 2] = value
    with pytest.raises(FeaturespaceError, match=f"f: x: sample 6 has {value}; all should be finite"):
        read_samples(check(x=rows, y=LABELS))


# --- the split that is made -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "fraction", "expected"), [(8, 0.25, 2), (10, 0.25, 3), (9, 0.25, 2), (2, 0.01, 1), (2, 0.99, 1), (1, 0.5, 0)]
)
def test_how_many_are_held_out(n, fraction, expected):
    assert n_held_out(n, fraction) == expected
    assert n_held_out(n, None) == 0


def test_each_class_is_split_by_itself():
    labels = np.repeat([0, 1, 2], [20, 40, 1])
    rows = held_out_rows(labels, 0.25, 3)
    np.testing.assert_array_equal(np.bincount(labels[rows], minlength=3), [5, 10, 0])
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, held_out_rows(labels, 0.25, 3))
    assert not np.array_equal(rows, held_out_rows(labels, 0.25, 4))
    assert len(held_out_rows(labels, None, 3)) == 0
    # more of one class leave the split of the others alone
    more = np.repeat([0, 1, 2], [20, 45, 1])
    np.testing.assert_array_equal(rows[rows < 20], [row for row in held_out_rows(more, 0.25, 3) if row < 20])
