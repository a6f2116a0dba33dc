"""The samples at both ends of the order that a P-vector gives them, as images."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from featurespace.figures.series import datasets_of, in_study_order, recipes_of
from featurespace.style import FAINT, INK, RULE, elide, new_figure, note_figure, styled, wrap_name

DATA = "data"
CENTRINGS = ("raw", "centred")
MOST = 8  # samples shown of either end
PITCH, ASIDE = 1.3, 0.8  # of the images, and the gap between the two ends: in widths of an image
LABEL = 0.36  # room for the class names under the images, likewise
LINE_IN = 0.36  # height of a line of images with its class names
COLUMNS = [
    *("dataset", "recipe", "centring", "seed", "end", "rank"),
    *("sample", "label", "class_name", "entry"),
]


def tidy(tables: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Choose the samples to show.

    Parameters
    ----------
    tables
        `extremes.csv`: one row a (dataset, centring, recipe), end (low | high) and rank (1 the most extreme); the data
        is the recipe `data`.
    spec
        `recipes`: the study's recipes in order.

    Returns
    -------
    DataFrame
        The eight most extreme rows of either end: dataset, recipe, centring, seed, end, rank, sample, label,
        class_name, entry; from the lowest entry to the highest.
    """
    frame = tables[tables["rank"] <= MOST].copy()
    frame["_centring"] = frame["centring"].map({"raw": 0, "centred": 1})
    frame["_place"] = np.where(frame["end"] == "low", frame["rank"], 1000 - frame["rank"])
    return in_study_order(frame, spec["recipes"], "dataset", "_centring", "_place")[COLUMNS]


def _as_picture(image: np.ndarray) -> np.ndarray:
    """Turn an image (1 or 3, height, width) into a square (side, side, 3) one, its shorter sides padded with white."""
    picture = np.repeat(image, 3, axis=0) if image.shape[0] == 1 else image
    height, width = picture.shape[1:]
    side = max(height, width)
    square = np.full((side, side, 3), 255, dtype=np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = np.moveaxis(picture, 0, -1)
    return square


def _line(axes: Axes, rows: pd.DataFrame, images: Mapping[str, np.ndarray], width: int) -> None:
    """Draw one line of images: the low end from the left, the high end to the right, class names under them."""
    for end in ("low", "high"):
        some = rows[rows["end"] == end]
        origin = 0.0 if end == "low" else (2 * width - len(some)) * PITCH + ASIDE
        for i, (dataset, sample, name) in enumerate(
            zip(some["dataset"], some["sample"], some["class_name"], strict=True)
        ):
            left = origin + i * PITCH
            image = images.get(f"{dataset}/s{int(sample)}")
            if image is None:
                axes.add_patch(Rectangle((left, 0), 1, 1, facecolor="white", edgecolor=RULE, hatch="////", linewidth=0))
            else:
                axes.imshow(_as_picture(image), extent=(left, left + 1, 0, 1), interpolation="nearest")
            axes.text(left + 0.5, -0.07, elide(str(name), 11), ha="center", va="top", size=4, color=INK)
    axes.set_xlim(-0.1, 2 * width * PITCH + ASIDE)
    axes.set_ylim(-LABEL, 1.02)
    axes.set_aspect("equal")
    axes.axis("off")


@styled
def draw(frame: pd.DataFrame, spec: Mapping[str, Any], images: Mapping[str, np.ndarray] | None = None) -> Figure:
    """Draw two lines of images a recipe, raw and centred.

    `images` holds uint8 arrays (channels, height, width), one or three channels, by `<dataset>/s<sample>`; a sample
    without one is a hatched square.
    """
    pictures = {key: image for key, image in (images or {}).items() if image.ndim == 3 and image.shape[0] in (1, 3)}
    known = [f"{dataset}/s{int(s)}" in pictures for dataset, s in zip(frame["dataset"], frame["sample"], strict=True)]
    blocks = datasets_of(spec["recipes"], frame.loc[known, "dataset"])
    if not blocks:
        return note_figure("The samples of this study are no images: their order is in the table beside this figure.")
    lines = []
    for dataset in blocks:
        for name in (DATA, *recipes_of(spec["recipes"], dataset)):
            for centring in CENTRINGS:
                rows = frame[
                    (frame["dataset"] == dataset) & (frame["recipe"] == name) & (frame["centring"] == centring)
                ]
                if len(rows):
                    lines.append((dataset, name, centring, rows))
    width = max(int((rows["end"] == end).sum()) for *_, rows in lines for end in ("low", "high"))
    pairs = sum(i == 0 or lines[i - 1][:2] != line[:2] for i, line in enumerate(lines))
    height = LINE_IN * len(lines) + 0.05 * pairs + 0.45 * len(blocks)
    figure = new_figure(height)
    figure.set_layout_engine("none")  # every line has its place; laying out hundreds of images takes minutes
    wide = figure.get_figwidth()
    top, before = height - 0.05, ("", "")
    for dataset, name, centring, rows in lines:
        if dataset != before[0]:
            top -= 0.1 if before[0] else 0.0
            figure.text(0.01, (top - 0.02) / height, dataset, weight="bold", size=9, va="top")
            for text, at, side in (("lowest entries", 1.72, "left"), ("highest entries", wide - 0.12, "right")):
                figure.text(at / wide, (top - 0.08) / height, text, va="top", ha=side, color=FAINT, style="italic")
            top -= 0.35
        if (dataset, name) != before:
            if dataset == before[0]:
                top -= 0.05
            figure.text(0.01, (top - 0.04) / height, wrap_name(elide(name, 36), 18), va="top", size=7.5)
        before = (dataset, name)
        figure.text(1.62 / wide, (top - 0.14) / height, centring, va="center", ha="right", color=FAINT, style="italic")
        axes = figure.add_axes((1.7 / wide, (top - LINE_IN) / height, 1 - 1.8 / wide, LINE_IN / height))
        _line(axes, rows, pictures, width)
        top -= LINE_IN
    return figure
