"""A name above a row of panels, which may be wider than the first of them."""

from matplotlib.axes import Axes

from featurespace.style import title_panel

TITLE_PT = 10.5  # height of a line of a title


def head_row(axes: Axes, heading: str, title: str) -> None:
    """Title the first panel of a row, with the row's name in bold above it.

    Two empty lines of the title keep its place. The name itself is left out of the layout, in which it would widen the
    panel: it has the width of the figure.
    """
    n_lines = title.count("\n") + 1
    title_panel(axes, f"\n\n{title}")
    axes.annotate(
        heading,
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 4 + TITLE_PT * n_lines),
        textcoords="offset points",
        weight="bold",
        size=9,
        va="bottom",
    ).set_in_layout(False)
