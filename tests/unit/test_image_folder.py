"""Folders of images: how they are laid out, and what becomes of one image."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from featurespace.errors import FeaturespaceError
from featurespace.image_folder import ImageFile, arrange, describe, is_image
from featurespace.own_data import decode_image, read_images

ROOT = Path("photos")


def png(pixels, mode=None, form="PNG", **options):
    stream = io.BytesIO()
    (Image.fromarray(pixels) if mode is None else Image.fromarray(pixels).convert(mode)).save(stream, form, **options)
    return stream.getvalue()


def colours(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


# --- layout -----------------------------------------------------------------------------------------------------


def test_a_subfolder_is_a_class_and_images_may_lie_deeper():
    files = arrange(ROOT, ["dog/2.png", "cat/x/1.png", "cat/b.png", "dog/10.png"])
    assert files == [
        ImageFile("cat/b.png", "cat", None),
        ImageFile("cat/x/1.png", "cat", None),
        ImageFile("dog/10.png", "dog", None),
        ImageFile("dog/2.png", "dog", None),
    ]
    assert describe(ROOT, [file.name for file in files]) == {"train": [2, 2], "test": None}


def test_train_and_test_are_splits_where_both_are_there():
    names = ["test/cat/1.png", "train/dog/1.png", "train/cat/2.png", "train/cat/1.png"]
    files = arrange(ROOT, names)
    assert [file.name for file in files] == ["train/cat/1.png", "train/cat/2.png", "train/dog/1.png", "test/cat/1.png"]
    assert [file.is_test for file in files] == [False, False, False, True]
    assert describe(ROOT, names) == {"train": [2, 1], "test": [1, 0]}
    # one alone is a class like any other: photos of trains
    assert {file.class_name for file in arrange(ROOT, ["train/1.png", "plane/1.png"])} == {"train", "plane"}


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], "there is no image in it"),
        (["a/1.png", "2.png", "b/3.png"], "2.png is in the folder of no class"),
        (["a/1.png"], "all images are of the class 'a'"),
        (["train/1.png", "test/a/1.png"], "train/1.png is in the folder of no class"),
        (["train/a/1.png", "train/b/1.png", "test/a/1.png", "val/a/1.png"], "beside train and test there is val"),
        (["train/a/1.png", "train/b/1.png", "test/c/1.png"], "test/c has images, and train/ has none of it"),
    ],
)
def test_other_layouts_are_refused_by_name(names, says):
    with pytest.raises(FeaturespaceError, match=f"photos: {says}"):
        arrange(ROOT, names)


def test_images_are_known_by_their_names():
    assert all(map(is_image, ["a/x.PNG", "x.jpeg", "x.JPG", "x.webp", "x.tif"]))
    assert not any(map(is_image, ["x.txt", "x.png.part", "png", "Thumbs.db", "x.svg"]))


# --- decoding ---------------------------------------------------------------------------------------------------


def test_a_square_of_the_right_size_stays_as_it_is():
    pixels = colours(8, 8)
    np.testing.assert_array_equal(decode_image(png(pixels), "x", 8, True), pixels.transpose(2, 0, 1))
    grey = pixels[:, :, 0]
    np.testing.assert_array_equal(decode_image(png(grey), "x", 8, False), grey[np.newaxis])
    np.testing.assert_array_equal(decode_image(png(grey), "x", 8, True), np.stack([grey] * 3))


@pytest.mark.parametrize(("height", "width", "top", "left"), [(8, 13, 0, 2), (11, 8, 1, 0), (8, 9, 0, 0)])
def test_the_square_is_cut_from_the_middle(height, width, top, left):
    pixels = colours(height, width)
    expected = pixels[top : top + 8, left : left + 8].transpose(2, 0, 1)
    np.testing.assert_array_equal(decode_image(png(pixels), "x", 8, True), expected)


def test_halving_averages_and_weighs_as_a_triangle_does():
    pixels = colours(16, 16)[:, :, 0]
    # antialiased bilinear at half size: weights 1 3 3 1 over 8 along each side, fewer at the borders
    weights = np.zeros((8, 16))
    for i in range(8):
        for j, weight in zip(range(2 * i - 1, 2 * i + 3), (1, 3, 3, 1), strict=True):
            if 0 <= j < 16:
                weights[i, j] = weight
    weights /= weights.sum(axis=1, keepdims=True)
    expected = weights @ pixels.astype(float) @ weights.T
    assert np.abs(decode_image(png(pixels), "x", 8, False)[0] - expected).max() <= 1.01  # Pillow rounds twice


def test_grey_is_luma():
    pixels = colours(8, 8)
    expected = pixels @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decode_image(png(pixels), "x", 8, False)[0] - expected).max() <= 1


def test_the_orientation_of_a_camera_counts():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    turned = decode_image(png(pixels, exif=exif), "x", 8, True)
    np.testing.assert_array_equal(turned, np.rot90(pixels, -1).transpose(2, 0, 1))


def test_other_kinds_of_pixels():
    grey = colours(8, 8)[:, :, 0]
    deep = grey.astype(np.uint16) * 256 + 17
    np.testing.assert_array_equal(decode_image(png(deep), "x", 8, False)[0], grey)
    layered = np.concatenate([colours(8, 8), np.full((8, 8, 1), 255, np.uint8)], axis=2)
    layered[:4, :, 3] = 0
    found = decode_image(png(layered), "x", 8, True).transpose(1, 2, 0)
    np.testing.assert_array_equal(found[4:], layered[4:, :, :3])
    assert (found[:4] == 0).all()
    palette = decode_image(png(grey, "P"), "x", 8, False)
    assert np.abs(palette[0].astype(int) - grey).max() <= 1
    ones = decode_image(png((grey > 99).astype(np.uint8) * 255, "1"), "x", 8, False)
    assert set(np.unique(ones)) == {0, 255}
    for form in ("BMP", "GIF", "WEBP", "TIFF", "PPM"):
        options = {"lossless": True} if form == "WEBP" else {}
        assert np.abs(decode_image(png(grey, form=form, **options), "x", 8, False)[0].astype(int) - grey).max() <= 1
    jpeg = decode_image(png(np.full((8, 8, 3), 100, np.uint8), "CMYK", "JPEG"), "x", 8, True)
    assert np.abs(jpeg.astype(int) - 100).max() < 8


def test_broken_images_are_named():
    whole = png(colours(64, 64))
    with pytest.raises(FeaturespaceError, match=r"a/1\.png cannot be read as an image"):
        decode_image(whole[: len(whole) // 2], "a/1.png", 8, True)
    jpeg = png(colours(64, 64), form="JPEG")
    for content in (b"", b"GIF89a", b"not an image at all", jpeg[:700]):
        with pytest.raises(FeaturespaceError, match="x cannot be read as an image"):
            decode_image(content, "x", 8, True)
    with pytest.raises(FeaturespaceError, match="x has pixels of 32 bits"):
        decode_image(png(np.ones((8, 8), np.float32), form="TIFF"), "x", 8, True)


def test_forms_that_run_other_programs_are_not_opened():
    stream = io.BytesIO()
    Image.fromarray(colours(8, 8)).save(stream, "EPS")
    with pytest.raises(FeaturespaceError, match="cannot be read as an image"):
        decode_image(stream.getvalue(), "x.png", 8, True)


def test_images_are_read_in_order_whatever_the_threads(tmp_path):
    files = []
    for i in range(20):
        (tmp_path / f"{i}.png").write_bytes(png(colours(8, 8, i)))
        files.append(ImageFile(f"{i}.png", "x", None))
    one, checksums = read_images(tmp_path, files, 8, True, 1)
    four, same = read_images(tmp_path, files, 8, True, 4)
    np.testing.assert_array_equal(one, np.stack([colours(8, 8, i).transpose(2, 0, 1) for i in range(20)]))
    np.testing.assert_array_equal(one, four)
    assert checksums == same
    assert list(checksums) == [file.name for file in files]


def test_text_in_an_image_does_not_fill_the_memory():
    about = PngImagePlugin.PngInfo()
    about.add_text("comment", "x" * 50_000_000, zip=True)
    with pytest.raises(FeaturespaceError, match="cannot be read as an image"):
        decode_image(png(colours(8, 8), pnginfo=about), "x", 8, True)
