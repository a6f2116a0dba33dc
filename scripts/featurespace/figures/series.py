"""What the figures share in handling tables: which recipes they hold, and summing up runs over seeds."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

# Tasks whose networks serve as controls: no evidence for what training on a task does.
CONTROLS = ("untrained", "shuffled-labels", "noise", "control-features")


def recipes_of(recipes: Sequence[Mapping[str, Any]], dataset: str) -> list[str]:
    """Name the recipes on a data set, in the study's order."""
    return [recipe["name"] for recipe in recipes if recipe["dataset"] == dataset]


def datasets_of(recipes: Sequence[Mapping[str, Any]], present: Iterable[str]) -> list[str]:
    """Name the data sets that a table has rows of, in the order in which the study's recipes first use them."""
    there = set(present)
    return [name for name in dict.fromkeys(recipe["dataset"] for recipe in recipes) if name in there]


def over_seeds(
    frame: pd.DataFrame,
    keys: Sequence[str],
    value: str,
    centre: Callable[[pd.DataFrame], pd.Series] | None = None,
) -> pd.DataFrame:
    """Sum up runs over seeds, step by step.

    A seed whose training stopped early keeps its last value at the later steps of the others; a step that some seed
    never kept is left out, since a mean over changing seeds would jump.

    Parameters
    ----------
    frame
        One row a (keys, seed, step), with `epoch` and `value`.
    keys
        Columns that tell the curves apart.
    value
        The column to sum up; missing and infinite values are left out.
    centre
        Mean of a (step, seed) frame over seeds; arithmetic if None.

    Returns
    -------
    DataFrame
        keys, step, epoch, n_seeds (finite values), mean, low, high (extremes over seeds).
    """
    columns = [*keys, "step", "epoch", "n_seeds", "mean", "low", "high"]
    if frame.empty:
        return pd.DataFrame(columns=columns)
    rows = [*keys, "step"]
    there = frame.assign(there=1.0).pivot_table(index=rows, columns="seed", values="there", aggfunc="max").notna()
    wide = frame.pivot_table(index=rows, columns="seed", values=value, aggfunc="mean", dropna=False)
    wide = wide.reindex(index=there.index, columns=there.columns).replace([np.inf, -np.inf], np.nan)
    curve = list(keys)
    in_curve = there.groupby(level=curve, sort=False).transform("any")
    to_come = there[::-1].astype(int).groupby(level=curve, sort=False).cummax()[::-1].astype(bool)
    over = in_curve & ~to_come
    # a value that is missing at a seed's own last step stays missing: infinity stands for it while the rest is
    # carried on
    carried = wide.mask(there & wide.isna(), np.inf).groupby(level=curve, sort=False).ffill()
    wide = wide.where(~over, carried).replace(np.inf, np.nan)
    wide = wide[(there | over | ~in_curve).all(axis=1)]
    summary = pd.DataFrame(
        {
            "epoch": frame.groupby(rows)["epoch"].mean().reindex(wide.index),
            "n_seeds": wide.notna().sum(axis=1),
            "mean": wide.mean(axis=1) if centre is None else centre(wide),
            "low": wide.min(axis=1),
            "high": wide.max(axis=1),
        }
    )
    return summary.reset_index()[columns]


def geometric_mean(wide: pd.DataFrame) -> pd.Series:
    """Return the geometric mean of each row's positive values."""
    positive = wide.where(wide > 0)
    return np.exp(np.log(positive).mean(axis=1))


def in_study_order(frame: pd.DataFrame, recipes: Sequence[Mapping[str, Any]], *then: str) -> pd.DataFrame:
    """Sort rows by recipe in the study's order, then by other columns, stably."""
    order = {recipe["name"]: position for position, recipe in enumerate(recipes)}
    return (
        frame.assign(_order=frame["recipe"].map(order).fillna(-1))
        .sort_values(["_order", *then], kind="stable")
        .drop(columns="_order")
        .reset_index(drop=True)
    )
