"""The run table: where each run ended, one row a recipe and seed."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from featurespace.errors import FeaturespaceError

METRICS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "relative_loss", "weight_norm")
COLUMNS = (
    "dataset",
    "recipe",
    "population",
    "task",
    "model",
    "seed",
    "block",
    "n_parameters",
    "steps",
    "epochs",
    *METRICS,
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
        The study's recipes in order, each with name, dataset, population (the sweep it is a member of, or empty), task
        and kind. Those without networks, and so without a history, need not be among them.

    Returns
    -------
    DataFrame
        One row a recipe and seed, with the columns of `COLUMNS`: losses as trained, accuracy in 0..1, `weight_norm` the
        Frobenius norm of all parameters, `converged` True, False or missing. Ordered by recipe as in the study, then
        by seed.

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
                    "population": recipe["population"],
                    "task": recipe["task"],
                    "model": recipe["kind"],
                    "seed": seed,
                    "block": int(last["block"]),
                    "n_parameters": digest["n_parameters"],
                    "steps": digest["steps"][str(seed)][-1],
                    "epochs": digest["epochs"][str(seed)][-1],
                    **{key: last[key] for key in METRICS},
                    "converged": digest["converged"][str(seed)],
                }
            )
    table = pd.DataFrame(rows, columns=["_position", *COLUMNS])
    return table.sort_values(["_position", "seed"], kind="stable").drop(columns="_position").reset_index(drop=True)
