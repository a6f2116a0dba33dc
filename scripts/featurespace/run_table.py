"""The run table: where each run ended, one row a recipe and seed."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from featurespace.errors import FeaturespaceError

COLUMNS = (
    "dataset",
    "recipe",
    "task",
    "model",
    "seed",
    "block",
    "n_parameters",
    "steps",
    "epochs",
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "relative_loss",
    "converged",
)


def tabulate_runs(
    histories: Sequence[pd.DataFrame], digests: Sequence[Mapping[str, Any]], recipes: Sequence[Mapping[str, Any]]
) -> pd.DataFrame:
    """Collect the last row of every run's history and what its weights' digest file says.

    Parameters
    ----------
    histories
        The `history.csv` of each run, in the order of the runs.
    digests
        The content of each run's `weights.json`, in the same order: recipe, n_parameters, and by seed (as text)
        `steps`, `epochs` (lists of what was kept) and `converged` (true, false, or null where no loss was to be
        reached).
    recipes
        The study's recipes in order, each with name, dataset, task and kind.

    Returns
    -------
    DataFrame
        One row a recipe and seed, with the columns of `COLUMNS`: losses as trained, accuracy in 0..1, `converged`
        True, False or missing. Ordered by recipe as in the study, then by seed.

    Raises
    ------
    FeaturespaceError
        If a history lacks a seed that its weights have.
    """
    of_recipe = {recipe["name"]: (position, recipe) for position, recipe in enumerate(recipes)}
    rows = []
    for history, digest in zip(histories, digests, strict=True):
        name = digest["recipe"]
        position, recipe = of_recipe[name]
        for seed in digest["seeds"]:
            own = history[history["seed"] == seed]
            if own.empty:
                raise FeaturespaceError(
                    f"run {name}, seed {seed}: its history has no row; "
                    "add `--forcerun train_run` to your snakemake command"
                )
            last = own.sort_values("step").iloc[-1]
            rows.append(
                {
                    "_position": position,
                    "dataset": recipe["dataset"],
                    "recipe": name,
                    "task": recipe["task"],
                    "model": recipe["kind"],
                    "seed": seed,
                    "block": int(last["block"]),
                    "n_parameters": digest["n_parameters"],
                    "steps": digest["steps"][str(seed)][-1],
                    "epochs": digest["epochs"][str(seed)][-1],
                    **{key: last[key] for key in COLUMNS[9:14]},
                    "converged": digest["converged"][str(seed)],
                }
            )
    table = pd.DataFrame(rows, columns=["_position", *COLUMNS])
    return table.sort_values(["_position", "seed"], kind="stable").drop(columns="_position").reset_index(drop=True)
