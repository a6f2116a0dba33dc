"""Augmentations: each against torchvision's transform of one image, and their chances against what was asked for."""

import colorsys

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as reference
from scipy import stats
from torchvision.transforms import InterpolationMode, RandomResizedCrop

from featurespace.augmentation import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    augment,
    crop_padded,
    crop_resized,
    draw_crops,
    luma,
)

OFF = {
    "pad_crop": 0,
    "resized_crop": None,
    "flip": False,
    "jitter": 0.0,
    "hue": 0.0,
    "jitter_probability": 0.8,
    "grayscale": 0.0,
}
EVERYTHING = {
    "pad_crop": 2,
    "resized_crop": [0.2, 1.0],
    "flip": True,
    "jitter": 0.4,
    "hue": 0.1,
    "jitter_probability": 0.8,
    "grayscale": 0.2,
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=16, channels=3, height=12, width=12, dtype=torch.float64):
    return torch.rand(n, channels, height, width, generator=seeded(), dtype=dtype)


def one_by_one(function, batch, *arguments):
    return torch.stack([function(image, *(a[i].item() for a in arguments)) for i, image in enumerate(batch)])


# --- each change, its size given ---


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ours", [adjust_brightness, adjust_contrast, adjust_saturation])
def test_colours_change_as_in_torchvision(ours, channels):
    batch = images(channels=channels)
    factors = torch.linspace(0, 2, len(batch), dtype=batch.dtype)
    expected = one_by_one(getattr(reference, ours.__name__), batch, factors)
    torch.testing.assert_close(ours(batch, factors), expected, rtol=0, atol=1e-12)


def test_hues_turn_as_in_torchvision_and_in_colorsys():
    batch = images()
    batch[0, :, :3] = 0.5  # grey pixels have no hue, and black ones no saturation
    batch[0, :, 3:5] = 0
    batch[1] = batch[1].round()  # two channels alike
    turns = torch.linspace(-0.5, 0.5, len(batch), dtype=batch.dtype)
    turned = adjust_hue(batch, turns)
    expected = one_by_one(reference.adjust_hue, batch, turns)  # in single precision
    torch.testing.assert_close(turned, expected, rtol=0, atol=3e-6)
    for image, turn, result in zip(batch, turns.tolist(), turned, strict=True):
        hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in image.flatten(1).T.tolist()]
        rgb = torch.tensor([colorsys.hsv_to_rgb((h + turn) % 1, s, v) for h, s, v in hsv], dtype=torch.float64)
        torch.testing.assert_close(result.flatten(1).T, rgb, rtol=0, atol=1e-12)


def test_brightness_of_pixels_is_torchvisions():
    torch.testing.assert_close(luma(images()), reference.rgb_to_grayscale(images()))
    assert torch.equal(luma(images(channels=1)), images(channels=1))


def test_a_padded_crop_is_torchvisions():
    batch = images(n=25, height=6, width=9)
    top, left = (corner.flatten() for corner in torch.meshgrid(torch.arange(5), torch.arange(5), indexing="ij"))

    def pad_and_crop(image, top, left):
        return reference.crop(reference.pad(image, [2]), top, left, 6, 9)

    cropped = crop_padded(batch, 2, top, left)
    assert torch.equal(cropped, one_by_one(pad_and_crop, batch, top, left))
    assert torch.equal(cropped[12], batch[12])  # from the middle


@pytest.mark.parametrize(("height", "width"), [(12, 12), (7, 15), (1, 4)], ids=["square", "wide", "a-row"])
def test_a_resized_crop_is_torchvisions(height, width):
    batch = images(n=40, height=height, width=width)
    rng = np.random.default_rng(0)
    heights, widths = rng.integers(1, height + 1, 40), rng.integers(1, width + 1, 40)
    top, left = rng.integers(0, height - heights + 1), rng.integers(0, width - widths + 1)
    parts = [torch.tensor(part, dtype=torch.float64) for part in (top, left, heights, widths)]

    def crop(image, top, left, h, w):
        size, mode = [height, width], InterpolationMode.BILINEAR
        return reference.resized_crop(image, int(top), int(left), int(h), int(w), size, mode, antialias=False)

    torch.testing.assert_close(crop_resized(batch, *parts), one_by_one(crop, batch, *parts), rtol=0, atol=1e-12)
    single = crop_resized(batch.float(), *parts)
    torch.testing.assert_close(single.double(), one_by_one(crop, batch, *parts), rtol=0, atol=1e-5)


def test_nothing_outside_a_resized_crop_is_seen():
    bright = torch.ones(1, 1, 8, 8)
    bright[:, :, 2:5, 3:7] = 0.25
    part = [torch.tensor([size], dtype=torch.float64) for size in (2, 3, 3, 4)]
    torch.testing.assert_close(crop_resized(bright, *part), torch.full((1, 1, 8, 8), 0.25))


# --- all together ---


def test_when_everything_is_off_images_stay_as_they_are():
    batch = images()
    assert augment(batch, OFF, seeded()) is batch
    # a jitter that never comes, a hue and a greying without colours
    assert torch.equal(augment(batch, OFF | {"jitter": 0.9, "hue": 0.5, "jitter_probability": 0.0}, seeded()), batch)
    grey = images(channels=1)
    assert augment(grey, OFF | {"hue": 0.5, "grayscale": 1.0}, seeded()) is grey


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["32", "64"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_generator_decides_and_pixels_stay_in_range(channels, dtype):
    batch = images(64, channels, 9, 11, dtype)
    before = batch.clone()
    first = augment(batch, EVERYTHING, seeded(3))
    assert first.shape == batch.shape
    assert first.dtype == dtype
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(batch, before)
    assert torch.equal(first, augment(batch, EVERYTHING, seeded(3)))
    other = augment(batch, EVERYTHING, seeded(4))
    assert ((first != other).flatten(1).any(1)).all()


def test_every_image_has_its_own_change():
    batch = images(1).expand(64, -1, -1, -1)
    changed = augment(batch, EVERYTHING, seeded())
    assert len({image.numpy().tobytes() for image in changed}) == 64


# --- chances ---


def test_padded_crops_start_anywhere_alike():
    spot = torch.zeros(4900, 1, 9, 9)
    spot[:, :, 4, 4] = 1
    moved = augment(spot, OFF | {"pad_crop": 3}, seeded()).flatten(1).argmax(1)
    counts = torch.bincount(moved, minlength=81).view(9, 9)
    assert counts[1:8, 1:8].sum() == 4900
    assert stats.chisquare(counts[1:8, 1:8].flatten()).pvalue > 1e-3


def test_half_of_the_images_are_flipped_and_a_share_loses_its_colour():
    batch = images(4000, height=2, width=2)
    flipped = augment(batch, OFF | {"flip": True}, seeded())
    is_flipped = (flipped == batch.flip(3)).flatten(1).all(1)
    assert torch.equal(flipped[~is_flipped], batch[~is_flipped])
    assert stats.binomtest(int(is_flipped.sum()), 4000, 0.5).pvalue > 1e-3
    greyed = augment(batch, OFF | {"grayscale": 0.2}, seeded())
    is_grey = (greyed == reference.rgb_to_grayscale(batch, 3)).flatten(1).all(1)
    assert torch.equal(greyed[~is_grey], batch[~is_grey])
    assert stats.binomtest(int(is_grey.sum()), 4000, 0.2).pvalue > 1e-3


def test_jitter_comes_as_often_and_is_as_strong_as_asked():
    constant = torch.full((5000, 1, 2, 2), 0.25, dtype=torch.float64)  # contrast does not change it
    factors = augment(constant, OFF | {"jitter": 0.4}, seeded())[:, 0, 0, 0] / 0.25
    changed = factors != 1
    assert stats.binomtest(int(changed.sum()), 5000, 0.8).pvalue > 1e-3
    assert stats.kstest(factors[changed].numpy(), stats.uniform(0.6, 0.8).cdf).pvalue > 1e-3
    # contrast: the two halves' distance, over that of their mean to black
    halves = torch.tensor([0.2, 0.3], dtype=torch.float64).expand(5000, 1, 2, 2)
    low, high = augment(halves, OFF | {"jitter": 0.4, "jitter_probability": 1.0}, seeded())[:, 0, 0].T.numpy()
    contrast = ((high - low) / 0.1) / ((high + low) / 0.5)
    assert stats.kstest(contrast, stats.uniform(0.6, 0.8).cdf).pvalue > 1e-3
    # hue: from red, towards green or blue
    red = torch.tensor([1.0, 0, 0], dtype=torch.float64)[:, None, None].expand(5000, 3, 1, 1)
    _, green, blue = augment(red, OFF | {"hue": 0.1, "jitter_probability": 1.0}, seeded())[:, :, 0, 0].T.numpy()
    assert stats.kstest((green - blue) / 6, stats.uniform(-0.1, 0.2).cdf).pvalue > 1e-3


@pytest.mark.parametrize("size", [(32, 32), (20, 30)], ids=["square", "wide"])
@pytest.mark.parametrize("area", [(0.2, 1.0), (0.9, 1.0)], ids=["small", "large"])
def test_crops_have_torchvisions_places_and_sizes(size, area):
    ours = torch.stack(draw_crops(3000, size, area, seeded())).numpy()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        image = torch.empty(1, *size)
        theirs = [RandomResizedCrop.get_params(image, list(area), [3 / 4, 4 / 3]) for _ in range(3000)]
    for own, other in zip(ours, np.transpose(theirs), strict=True):
        assert stats.ks_2samp(own, other, method="asymp").pvalue > 1e-3
    top, left, height, width = ours
    assert min(top.min(), left.min()) >= 0
    assert min(height.min(), width.min()) >= 1
    assert (top + height).max() <= size[0]
    assert (left + width).max() <= size[1]
    assert (ours == np.round(ours)).all()


@pytest.mark.parametrize("size", [(4, 40), (40, 4), (8, 8)], ids=["wide", "high", "square"])
def test_where_no_crop_fits_the_centre_is_taken(size):
    area = (3.0, 3.0)  # more than there is
    expected = RandomResizedCrop.get_params(torch.empty(1, *size), list(area), [3 / 4, 4 / 3])
    assert {tuple(crop) for crop in torch.stack(draw_crops(5, size, area, seeded())).T.tolist()} == {expected}
