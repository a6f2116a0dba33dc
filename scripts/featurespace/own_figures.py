"""Figures of one's own: the user's function of tables, called and checked."""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from featurespace.errors import FeaturespaceError
from featurespace.own_code import PLOT
from featurespace.own_errors import told
from featurespace.style import Look, recipe_looks, styled


class Tables(dict[str, pd.DataFrame]):
    """The tables that a figure is drawn from, by name; `looks` gives each recipe its colour, as in all figures."""

    def __init__(self, tables: Mapping[str, pd.DataFrame], recipes: Sequence[str]) -> None:
        super().__init__(tables)
        self.looks: dict[str, Look] = recipe_looks([{"name": name} for name in recipes])

    def __missing__(self, name: str) -> pd.DataFrame:
        raise KeyError(f"{name!r} is not among the figure's `tables` in the study file: {', '.join(self)}")


@styled
def draw_own(file: Path, tables: Tables) -> tuple[Figure, pd.DataFrame]:
    """Load a figure's script and call its function `plot(tables)`, under the style of all figures.

    Returns
    -------
    Figure, pd.DataFrame
        The figure and the table behind it: what the function gives with it, or else the first of its tables.

    Raises
    ------
    FeaturespaceError
        If the script or the function fails, or gives something else.
    """
    matplotlib.use("Agg")
    sys.path.insert(0, str(file.parent))
    try:
        spec = importlib.util.spec_from_file_location(f"own_figure_{file.stem}", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        result: Any = getattr(module, PLOT)(tables)
    except (Exception, SystemExit) as error:
        raise FeaturespaceError(f"{file}: {PLOT} failed: {told(error)}") from error
    figure, data = result if isinstance(result, tuple) and len(result) == 2 else (result, next(iter(tables.values())))
    if not isinstance(figure, Figure) or not isinstance(data, pd.DataFrame):
        given = ", ".join(type(part).__name__ for part in (result if isinstance(result, tuple) else (result,)))
        raise FeaturespaceError(
            f"{file}: {PLOT} should give a matplotlib Figure, or (Figure, DataFrame), and not {given}"
        )
    return figure, data
