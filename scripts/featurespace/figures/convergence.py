"""Runs that did not reach the loss at which they were to stop: left out of figures of theory, and named in a note."""

import textwrap

import pandas as pd
from matplotlib.figure import Figure

from featurespace.style import FAINT, WIDTH_IN, elide
from featurespace.tables import is_false

CHARACTERS_PER_INCH = 18  # at 7 pt


def leave_out_unconverged(tables: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """Return the rows of runs that converged, or were asked for no loss, and by recipe how many seeds did not."""
    failed = is_false(tables["converged"])
    counts = tables[failed].groupby("recipe")["seed"].nunique()
    return tables[~failed], counts.reindex(tables["recipe"].unique(), fill_value=0)


def unconverged_rows(counts: pd.Series) -> pd.DataFrame:
    """Return rows, recipe and n_not_converged, that keep in a figure's table which seeds are not in it."""
    failed = counts[counts > 0]
    return pd.DataFrame({"recipe": failed.index.to_numpy(str), "n_not_converged": failed.to_numpy(int)})


def name_unconverged(figure: Figure, frame: pd.DataFrame) -> None:
    """Name below the panels the recipes, with their seeds, of which a figure's table counts some as not converged."""
    failed = frame[frame["n_not_converged"] > 0].drop_duplicates("recipe")
    if failed.empty:
        return
    names = [
        f"{elide(str(name), 40)} ({int(n)} seed{'s' if n > 1 else ''})"
        for name, n in zip(failed["recipe"], failed["n_not_converged"], strict=True)
    ]
    text = textwrap.fill(
        f"Did not reach the loss to stop at, not drawn: {', '.join(names)}", int(WIDTH_IN * CHARACTERS_PER_INCH)
    )
    figure.supxlabel(text, x=0.01, ha="left", size=7, color=FAINT)
    figure.set_figheight(figure.get_figheight() + 0.12 * (text.count("\n") + 1) + 0.08)
