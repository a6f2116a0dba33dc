"""Reading the tables that the analysis writes: names stay text, flags may be missing."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

# Columns that hold names: they stay text, whatever a recipe is called ("007", "null").
NAMES = (
    "dataset",
    "recipe",
    "population",
    "layer",
    "centring",
    "stage",
    "reference",
    "recipe_a",
    "recipe_b",
    "task",
    "model",
    "kind",
    "panel",
    "measure",
    "split",
    "which",
    "end",
    "class_name",
    "factor",
    "level",
    "relation",
    "group",
    "indicator",
    "best_other",
    "target",
    "quantity",
    "ledger",
    "claim",
    "row",
    "title",
    "source",
    "statistic",
    "published",
    "threshold",
    "convention",
    "verdict",
    "evidence",
    "setting",
)
FLAGS = ("determined", "reliable", "converged", "passes")


def read_table(path: str | Path) -> pd.DataFrame:
    """Read one CSV table: names as text, flags as True, False or missing, all else as numbers where it is numbers."""
    frame = pd.read_csv(
        path,
        dtype=dict.fromkeys((*NAMES, *FLAGS), "str"),
        keep_default_na=False,
        na_values={},
    )
    for column in frame.columns:
        if column in FLAGS:
            flags = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
            frame[column] = frame[column].str.lower().map(flags).astype("object")
        elif column not in NAMES and not pd.api.types.is_numeric_dtype(frame[column]):
            frame[column] = pd.to_numeric(frame[column], errors="coerce")
    return frame


def read_tables(paths: str | Iterable[str]) -> pd.DataFrame:
    """Read tables of one kind and stack them; one path or several. Of none, the table has neither rows nor columns."""
    frames = [read_table(path) for path in ([paths] if isinstance(paths, str) else paths)]
    filled = [frame for frame in frames if not frame.empty]
    return pd.concat(filled or frames[:1], ignore_index=True) if frames else pd.DataFrame()


def is_false(flags: pd.Series) -> pd.Series:
    """Say where a flag is known not to be set."""
    return flags.map(lambda flag: flag is False or flag is np.False_ or flag == "False").astype(bool)
