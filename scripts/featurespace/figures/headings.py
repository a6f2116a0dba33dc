"""What stands above panels: a name over a row of them, wider than the first, a note at its end, and their titles."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from featurespace.style import FAINT, title_panel

TITLE_PT = 10.5  # height of a line of a title


def _above(axes: Axes, x: float, text: str, title: str, **style: Any) -> None:
    """Write above a panel's title, from `x` in parts of its width, without widening the panel."""
    axes.annotate(
        text,
        (x, 1),
        xycoords="axes fraction",
        xytext=(0, 4 + TITLE_PT * (title.count("\n") + 1)),
        textcoords="offset points",
        va="bottom",
        **style,
    ).set_in_layout(False)


def head_row(axes: Axes, heading: str, title: str) -> None:
    """Title the first panel of a row, with the row's name in bold above it.

    Two empty lines of the title keep its place. The name itself is left out of the layout, in which it would widen the
    panel: it has the width of the figure.
    """
    title_panel(axes, f"\n\n{title}")
    _above(axes, 0, heading, title, weight="bold", size=9)


def end_row(axes: Axes, note: str, title: str) -> None:
    """Put a note in grey above the last panel of a row and its title, on the line of the row's name."""
    _above(axes, 1, note, title, color=FAINT, ha="right")


def start_panel(axes: Axes, column: int, heading: str, title: str, part: pd.DataFrame) -> bool:
    """Title a panel, the first of a row with the row's name, and say whether it has anything to draw.

    A panel without rows says so in words instead of having axes.
    """
    if column == 0:
        head_row(axes, heading, title)
    else:
        title_panel(axes, title)
    if part.empty:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no value", transform=axes.transAxes, ha="center", va="center", color=FAINT)
    return not part.empty
