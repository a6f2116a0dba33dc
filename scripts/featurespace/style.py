"""One look for every figure: sizes, fonts, a colour for each recipe, and files that come out the same each time.

Figures are built on `matplotlib.figure.Figure` alone, so no display, window or global state is involved. Glyphs are
drawn as paths from the font that matplotlib itself carries: a figure looks the same on every machine.
"""

import functools
import io
import re
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, TypeVar

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.path import Path as Outline
from matplotlib.ticker import FixedLocator, FuncFormatter, LogFormatterMathtext, MaxNLocator, NullLocator

from featurespace.files import write_bytes_atomically, write_table

P = ParamSpec("P")
R = TypeVar("R")
Drawn = Literal["", "point", "line"]

WIDTH_IN = 7.5  # a full text width, in inches
INK = "#1a1a1a"
FAINT = "#6b6b6b"
RULE = "#d9d9d9"

# Okabe and Ito's hues without their yellow and black, which vanish on white or pass for an axis, then Tol's darker
# ones. A test holds every pair apart for normal vision and under simulated deuteranopia and protanopia.
PALETTE = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#332288",
    "#7a1f1f",
    "#b5a642",
    "#4d4d4d",
)
MARKERS = "osD^vPX<>p"
CLOUD = 1000  # points in one panel, from which on an SVG holds them as a picture

RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "mathtext.fontset": "dejavusans",
    "axes.titlesize": 8,
    "axes.titlepad": 4,
    "axes.labelsize": 8,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.4,
    "text.color": INK,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "legend.borderaxespad": 0.2,
    "legend.columnspacing": 1.6,
    "legend.labelspacing": 0.35,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "hatch.linewidth": 0.4,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.constrained_layout.use": True,
    "svg.fonttype": "path",
    # Without a salt, matplotlib names clip paths by random numbers and no two SVG files agree.
    "svg.hashsalt": "featurespace",
    "path.simplify": True,
}


@dataclass(frozen=True)
class Look:
    """How one recipe is drawn, in every figure."""

    colour: str
    marker: str
    dashes: Any  # a matplotlib line style; solid until the palette is used up


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function run under the figures' style, and leave matplotlib's settings as they were."""

    @functools.wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(RC):
            return function(*args, **kwargs)

    return inner


def recipe_looks(recipes: Sequence[Mapping[str, Any]]) -> dict[str, Look]:
    """Give each recipe its look by its position in the study, so that it is the same in every figure.

    Parameters
    ----------
    recipes
        The study's recipes in their order, each with a `name`.
    """
    looks = {}
    for position, recipe in enumerate(recipes):
        lap, slot = divmod(position, len(PALETTE))
        dashes = ("-", (0.0, (5.0, 1.2)), (0.0, (3.0, 1.0, 1.0, 1.0)))[lap % 3]
        looks[recipe["name"]] = Look(PALETTE[slot], MARKERS[(slot + 3 * lap) % len(MARKERS)], dashes)
    return looks


def wrap_name(name: str, width: int) -> str:
    """Break a long name over lines of at most `width` characters, after hyphens and underscores where it has any."""
    lines: list[str] = [""]
    for part in re.findall(r"[^-_]*[-_]|[^-_]+", name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(piece for line in lines for piece in textwrap.wrap(line, width) or [""])


def elide(name: str, width: int) -> str:
    """Shorten a name to `width` characters by leaving out its middle, which tells recipes apart least."""
    if len(name) <= width:
        return name
    head = width // 2
    return f"{name[:head]}…{name[len(name) - (width - 1 - head) :]}"


def new_figure(height_in: float, width_in: float = WIDTH_IN) -> Figure:
    """Return an empty figure of the study's width; `height_in` in inches."""
    return Figure(
        figsize=(width_in, height_in), layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.05, wspace=0.03, hspace=0.03)
    )


def note_figure(text: str) -> Figure:
    """Return a figure that says in words why there is nothing to draw."""
    figure = new_figure(1.0)
    figure.text(0.5, 0.5, textwrap.fill(text, 90), ha="center", va="center", color=FAINT)
    return figure


def title_panel(axes: Axes, left: str, right: str = "", heading: str = "") -> None:
    """Title a panel: what it shows on the left, its variant in grey on the right, a block's name in bold above."""
    axes.set_title(left, loc="left")
    if right:
        axes.set_title(right, loc="right", color=FAINT, style="italic")
    if heading:
        axes.annotate(
            heading,
            (0, 1),
            xycoords="axes fraction",
            xytext=(0, 18),
            textcoords="offset points",
            weight="bold",
            size=9,
            va="bottom",
        )


def epoch_axis(axes: Axes, epochs: pd.Series, label: bool = True) -> None:
    """Set up a horizontal axis that runs from 0 to the last of some epochs, with its numbers and its name if `label`.

    Over more than 30 epochs the first of them, where most happens, would be a sliver: where steps were kept in it, the
    axis is linear up to epoch 1 and logarithmic after it, and its name says so.
    """
    known = epochs.dropna()
    last = float(known.max()) if (known > 0).any() else 1.0
    first = float(known[known > 0].min()) if (known > 0).any() else 1.0
    logarithmic = last > 30 and first <= 1
    if logarithmic:
        axes.set_xscale("symlog", linthresh=1.0, linscale=0.6)
        decades = [10.0**k for k in range(int(np.floor(np.log10(last))) + 1)]
        axes.xaxis.set_major_locator(FixedLocator([0.0, *decades]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(-0.06, last * 1.12)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=last >= 4))
        axes.set_xlim(-0.02 * last, 1.02 * last)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}".replace(",", "\u2009")))
    axes.tick_params(labelbottom=label)
    if label:
        axes.set_xlabel("Epoch (logarithmic beyond 1)" if logarithmic else "Epoch")


def draw_band(
    axes: Axes,
    frame: pd.DataFrame,
    x: str,
    columns: tuple[str, str, str],
    look: Look,
    *,
    dashes: Any = None,
    width: float = 1.4,
    zorder: float = 3,
) -> Drawn:
    """Draw a mean line with its band, or a marker with its bar when there is one point only; say which.

    `columns` names the mean, the lower and the upper end. Rows without a mean are left out; nothing is drawn when
    none is left.
    """
    mean, low, high = columns
    part = frame.dropna(subset=[mean]).sort_values(x)
    if part.empty:
        return ""
    if len(part) == 1:
        row = part.iloc[0]
        axes.plot([row[x]] * 2, [row[low], row[high]], color=look.colour, linewidth=1, zorder=zorder)
        hollow = dashes not in (None, "-")
        axes.plot(
            row[x],
            row[mean],
            look.marker,
            color=look.colour,
            markerfacecolor="white" if hollow else look.colour,
            markersize=4.5,
            zorder=zorder + 1,
            clip_on=False,
        )
        return "point"
    if (part[high] > part[low]).any():
        axes.fill_between(
            part[x].to_numpy(float),
            part[low].to_numpy(float),
            part[high].to_numpy(float),
            color=look.colour,
            alpha=0.13,
            linewidth=0,
            zorder=zorder - 1,
        )
    axes.plot(
        part[x].to_numpy(float),
        part[mean].to_numpy(float),
        color=look.colour,
        linestyle=look.dashes if dashes is None else dashes,
        linewidth=width,
        zorder=zorder,
    )
    return "line"


def draw_ends(axes: Axes, x: float, y: float, looks: Sequence[Look]) -> None:
    """Draw an open circle where curves end; one where several end is a ring with an arc in the colour of each."""
    axes.plot(x, y, "o", color="white", markersize=4, clip_on=False, zorder=5)
    for i, look in enumerate(looks):
        arc = Outline.arc(360 * i / len(looks), 360 * (i + 1) / len(looks))
        # markers are scaled to their farthest vertex: with one at (1, 0), every arc has the same radius
        ring = Outline.make_compound_path(Outline([[1.0, 0.0]], [Outline.MOVETO]), arc)
        axes.plot(
            x,
            y,
            marker=ring,
            color=look.colour,
            markerfacecolor="none",
            markersize=4 if len(looks) == 1 else 6.5,
            markeredgewidth=1 if len(looks) == 1 else 1.6,
            clip_on=False,
            zorder=5,
        )


def recipe_handles(drawn: Mapping[str, Collection[str]], looks: Mapping[str, Look]) -> list[Artist]:
    """Return legend entries for recipes in the order of the study, each drawn as a line, as a point or as both."""
    return [
        Line2D(
            [],
            [],
            color=look.colour,
            linestyle=look.dashes if "line" in drawn[name] else "",
            marker=look.marker if "point" in drawn[name] else "",
            label=elide(name, 60),
        )
        for name, look in looks.items()
        if drawn.get(name)
    ]


def line_handle(label: str, **kwargs: Any) -> Artist:
    """Return a grey legend entry that explains a kind of line."""
    return Line2D([], [], **{"color": FAINT, "linewidth": 1.2, "label": label, **kwargs})


def seed_handles(frame: pd.DataFrame, lines: bool = True) -> list[Artist]:
    """Return legend entries for a mean and its band, where any point sums up several seeds (`n_seeds`).

    Without `lines` there are markers with bars only.
    """
    if not (frame["n_seeds"] > 1).any():
        return []
    if not lines:
        return [
            line_handle("mean over seeds", linestyle="", marker="o"),
            line_handle("least to greatest seed", linestyle="", marker="|", markersize=8),
        ]
    return [
        line_handle("mean over seeds"),
        Patch(facecolor=FAINT, alpha=0.25, linewidth=0, label="least to greatest seed"),
    ]


def legend_above(figure: Figure, recipes: Sequence[Artist], signs: Sequence[Artist]) -> None:
    """Put the legend over the panels: the recipes from the left, what lines and bands mean on the right.

    The figure grows by the legend's height, so that the panels keep theirs.
    """

    def width(handles: Sequence[Artist], columns: int) -> float:
        # At 7.5 pt a character is about 0.062 in wide; a handle with its gaps takes 0.5 in. Matplotlib makes columns as
        # equal as they can be.
        lengths = [len(str(handle.get_label())) for handle in handles]
        parts = np.array_split(lengths, min(columns, len(lengths))) if lengths else []
        return sum(0.5 + 0.062 * float(part.max()) for part in parts)

    def place(handles: Sequence[Artist], columns: int, side: Literal["left", "right"]) -> int:
        loc: Any = f"outside upper {side}"
        figure.legend(handles=list(handles), loc=loc, ncols=columns)
        return -(-len(handles) // columns)

    room = figure.get_figwidth() - 0.2
    beside = width(recipes, 1) + width(signs, 1) <= room
    left = room - width(signs, 1) if beside else room
    if recipes and beside:
        fitting = max((n for n in range(1, 5) if width(recipes, n) <= left), default=1)
        columns = min(fitting, -(-len(recipes) // max(len(signs), 3)))
        rows = max(place(recipes, columns, "left"), place(signs, 1, "right"))
    else:
        everything = [*recipes, *signs]
        rows = place(everything, max((n for n in range(1, 6) if width(everything, n) <= room), default=1), "left")
    figure.set_figheight(figure.get_figheight() + 0.15 * rows + 0.1)


def log_axis(axes: Axes, least: float, most: float) -> None:
    """Fit the vertical axis to [least, most], both positive.

    It is logarithmic, with two numbers on it at least; linear where `most` is less than three times `least`, which
    would be lost on a logarithmic axis.
    """
    if most < 3 * least:
        margin = 0.06 * (most - least) or 0.05 * most
        axes.set_ylim(least - margin, most + margin)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        return
    axes.set_yscale("log")
    margin = (most / least) ** 0.04
    least, most = least / margin, most * margin
    axes.set_ylim(least, most)
    lowest, highest = int(np.floor(np.log10(least))), int(np.ceil(np.log10(most)))
    decades = range(lowest, highest + 1)
    if most / least < 300:
        digits = (1, 2, 5) if most / least > 15 else (1, 1.5, 2, 3, 5, 7)
        ticks = [float(f"{digit}e{k}") for k in decades for digit in digits]
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        ticks = [10.0**k for k in decades if k % (1 + (highest - lowest) // 6) == 0]
        axes.yaxis.set_major_formatter(LogFormatterMathtext())
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if least <= tick <= most]))
    axes.yaxis.set_minor_locator(NullLocator())


def rasterise_clouds(figure: Figure) -> int:
    """Have the clouds of points of a figure drawn as pictures inside its SVG, where they are many; say how many are.

    In SVG each point is an element of its own: a scatter of ten thousand takes a megabyte and as long to open as the
    rest of the report. Axes, text, lines and small scatters stay outlines.
    """
    n_rasterised = 0
    for axes in figure.findobj(Axes):
        markers = [line for line in axes.lines if line.get_marker() not in ("", " ", "None", None)]
        points: list[tuple[Artist, int]] = [(line, np.size(line.get_xdata())) for line in markers]
        points += [(cloud, len(np.asarray(cloud.get_offsets()))) for cloud in axes.collections]
        if sum(n for _, n in points) < CLOUD:
            continue
        for artist, n in points:
            if n > 1:
                artist.set_rasterized(True)
                n_rasterised += n
    return n_rasterised


@styled
def save_figure(figure: Figure, frame: pd.DataFrame, *, svg: str, png: str, csv: str, dpi: int = 150) -> None:
    """Write a figure as SVG and PNG, and the table it was drawn from as CSV.

    The same figure gives the same bytes: no date, no version and no random identifier goes into a file.
    """
    # once for both formats, so that they agree to the last dot
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    rasterise_clouds(figure)
    # The layout's last bit depends on where things lie in memory, and identifiers in an SVG on that bit.
    for axes in figure.axes:
        axes.set_position(tuple(round(value, 9) for value in axes.get_position(original=True).bounds))
    rendered = {}
    for kind, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
        buffer = io.BytesIO()
        # in an SVG only clouds have pixels, as many as a fine screen or a printer shows
        figure.savefig(buffer, format=kind, dpi=2 * dpi if kind == "svg" else dpi, metadata=metadata)
        rendered[kind] = buffer.getvalue()
    write_bytes_atomically(svg, rendered["svg"])
    write_bytes_atomically(png, rendered["png"])
    write_table(csv, frame)
