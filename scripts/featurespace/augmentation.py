"""Random changes to a batch of images, each image with its own, as batched tensor work.

What each change does, and how its size is drawn, is as in torchvision's transforms of the same name, which change one
image at a time. One thing differs: the parts of a colour jitter always go in the same order.

Images are (B, c, h, w), floating, in [0, 1].
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ASPECT_RATIOS = (3 / 4, 4 / 3)  # of a resized crop, width over height
CROP_ATTEMPTS = 10  # at a resized crop that fits into the image
LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, of red, green and blue


def augment(images: Tensor, options: Mapping[str, Any], generator: torch.Generator) -> Tensor:
    """Change each image at random: crop, resized crop, flip, jitter (brightness, contrast, saturation, hue), greying.

    Parameters
    ----------
    images
        (B, c, h, w) in [0, 1].
    options
        `pad_crop`: black pixels added on every side before a crop of the image's own size; 0 for no such crop.
        `resized_crop`: lowest and highest share of the area that is cropped and resized; None for no such crop.
        `flip`: whether every other image is mirrored, left to right.
        `jitter`: largest relative change, below 1, of brightness, contrast and, in three channels, saturation.
        `hue`: largest turn of the hue, as a share of the circle, at most 0.5; three channels only.
        `jitter_probability`: of a jitter, hue included.
        `grayscale`: probability of losing all colour; three channels only.
    generator
        On the images' device.

    Returns
    -------
    Tensor
        (B, c, h, w) in [0, 1]; `images` itself if every option is off.
    """
    n, coloured = len(images), images.shape[1] == 3

    def uniform(low: float, high: float) -> Tensor:
        drawn = torch.rand(n, generator=generator, dtype=images.dtype, device=images.device)
        return low + (high - low) * drawn

    if pad := options["pad_crop"]:
        top, left = torch.randint(2 * pad + 1, (2, n), generator=generator, device=images.device)
        images = crop_padded(images, pad, top, left)
    if options["resized_crop"] is not None:
        images = crop_resized(images, *draw_crops(n, images.shape[2:], options["resized_crop"], generator))
    if options["flip"]:
        images = torch.where(_each(uniform(0, 1) < 0.5), images.flip(3), images)

    jitter, hue = options["jitter"], options["hue"] if coloured else 0
    if jitter or hue:
        jittered = images
        if jitter:
            low, high = 1 - jitter, 1 + jitter
            jittered = adjust_brightness(jittered, uniform(low, high))
            jittered = adjust_contrast(jittered, uniform(low, high))
            if coloured:
                jittered = adjust_saturation(jittered, uniform(low, high))
        if hue:
            jittered = adjust_hue(jittered, uniform(-hue, hue))
        images = torch.where(_each(uniform(0, 1) < options["jitter_probability"]), jittered, images)
    if options["grayscale"] and coloured:
        images = torch.where(_each(uniform(0, 1) < options["grayscale"]), luma(images), images)
    return images


def _each(values: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1)."""
    return values[:, None, None, None]


# --- where ------------------------------------------------------------------------------------------------------------


def crop_padded(images: Tensor, pad: int, top: Tensor, left: Tensor) -> Tensor:
    """Pad with black on every side and cut the image's own size out again, with its upper left corner at (top, left).

    Parameters
    ----------
    top, left
        (B,) int64 in 0..2 pad; `pad` gives the image itself.
    """
    height, width = images.shape[2:]
    windows = F.pad(images, [pad] * 4).unfold(2, height, 1).unfold(3, width, 1)  # a view: (B, c, 2p + 1, 2p + 1, h, w)
    return windows[torch.arange(len(images), device=images.device), :, top, left]


def draw_crops(
    n: int, size: Sequence[int], area: Sequence[float], generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw parts of an image: their share of its area uniform, the logarithm of their aspect ratio uniform.

    Of CROP_ATTEMPTS, the first that fits into the image is taken, or else the largest central part whose ratio is
    allowed.

    Parameters
    ----------
    size
        (height, width) of the image.
    area
        Lowest and highest share.

    Returns
    -------
    tuple of Tensor
        top, left, height, width, (n,) each, whole numbers as float64.
    """
    height, width = size
    share, log_ratio, of_top, of_left = torch.rand(
        4, n, CROP_ATTEMPTS, generator=generator, dtype=torch.float64, device=generator.device
    )
    share = area[0] + (area[1] - area[0]) * share
    low, high = (math.log(ratio) for ratio in ASPECT_RATIOS)
    ratio = torch.exp(low + (high - low) * log_ratio)
    widths = torch.round(torch.sqrt(height * width * share * ratio))  # (n, attempts)
    heights = torch.round(torch.sqrt(height * width * share / ratio))
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first = fits.int().argmax(1, keepdim=True)
    any_fits = fits.any(1)

    central = (min(height, round(width / ASPECT_RATIOS[0])), min(width, round(height * ASPECT_RATIOS[1])))
    heights = torch.where(any_fits, heights.gather(1, first)[:, 0], central[0])
    widths = torch.where(any_fits, widths.gather(1, first)[:, 0], central[1])
    top = torch.where(any_fits, torch.floor(of_top[:, 0] * (height - heights + 1)), (height - central[0]) // 2)
    left = torch.where(any_fits, torch.floor(of_left[:, 0] * (width - widths + 1)), (width - central[1]) // 2)
    return top, left, heights, widths


def crop_resized(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Cut a part out of each image and enlarge it to the image's size, bilinearly; no pixel outside it has a part.

    Parameters
    ----------
    top, left, height, width
        (B,) whole numbers of pixels.
    """

    def positions(start: Tensor, length: Tensor, n: int) -> Tensor:
        """Of the n new pixels along an axis, (B, n), in -1..1 from the centre of the first old pixel to the last's."""
        centres = (torch.arange(n, dtype=length.dtype, device=length.device) + 0.5) * length[:, None] / n - 0.5
        centres = start[:, None] + torch.minimum(centres.clamp(min=0), length[:, None] - 1)
        return (2 * centres / max(n - 1, 1) - 1).to(images.dtype)

    n_rows, n_columns = images.shape[2:]
    y, x = positions(top, height, n_rows), positions(left, width, n_columns)
    grid = torch.stack(
        [x[:, None, :].expand(-1, n_rows, -1), y[:, :, None].expand(-1, -1, n_columns)], 3
    )  # (B, h, w, 2)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)


# --- colour -----------------------------------------------------------------------------------------------------------


def luma(images: Tensor) -> Tensor:
    """Return the brightness of coloured pixels, (B, 3, h, w) -> (B, 1, h, w); of others, the images themselves."""
    if images.shape[1] != 3:
        return images
    weights = torch.tensor(LUMA, dtype=images.dtype, device=images.device)
    return (weights[:, None, None] * images).sum(1, keepdim=True)


def _blend(images: Tensor, others: Tensor | float, factors: Tensor) -> Tensor:
    """f x + (1 - f) y, cut to [0, 1]; factors (B,) of 1 leave the images as they are."""
    return (_each(factors) * images + (1 - _each(factors)) * others).clamp(0, 1)


def adjust_brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with black: factors (B,) ≥ 0, 1 for no change."""
    return _blend(images, 0.0, factors)


def adjust_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the image's mean brightness: factors (B,) ≥ 0, 1 for no change."""
    return _blend(images, luma(images).mean((1, 2, 3), keepdim=True), factors)


def adjust_saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Blend three channels with their brightness: factors (B,) ≥ 0, 1 for no change."""
    return _blend(images, luma(images), factors)


def adjust_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of three channels, in the hue, saturation and value of each pixel.

    Parameters
    ----------
    turns
        (B,) shares of the circle.
    """
    red, green, blue = images.unbind(1)
    value = images.amax(1)
    chroma = value - images.amin(1)  # saturation times value
    divisor = torch.where(chroma > 0, chroma, 1)
    hue = torch.where(  # in sixths of the circle
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    hue = hue + 6 * turns[:, None, None]
    offsets = torch.tensor([5, 3, 1], dtype=images.dtype, device=images.device)[:, None, None]
    distance = (offsets + hue[:, None]) % 6
    # each channel is at its highest for a third of the circle, at its lowest for another, linear in between
    lowered = torch.minimum(distance, 4 - distance).clamp(0, 1)
    return (value[:, None] - chroma[:, None] * lowered).clamp(0, 1)
