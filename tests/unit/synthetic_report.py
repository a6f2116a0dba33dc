"""A made-up study of many runs, as tables for the report's views: the sizes are real, the numbers of nothing."""

from typing import Any

import numpy as np
import pandas as pd

TASKS = ("classify", "reconstruct", "shuffled-labels", "untrained")
LAYERS = ("hidden1", "hidden2", "hidden3")


def many_recipes(n_recipes: int, name: str = "recipe-{:03d}") -> list[dict[str, Any]]:
    """Return the recipes of a plotting spec."""
    return [
        {
            "name": name.format(i),
            "dataset": "digits",
            "task": TASKS[i % len(TASKS)] if i % 5 == 4 else "classify",
            "kind": "mlp",
            "feature_layer": LAYERS[-1],
        }
        for i in range(n_recipes)
    ]


def _product(**axes: Any) -> pd.DataFrame:
    return pd.MultiIndex.from_product(axes.values(), names=list(axes)).to_frame(index=False)


def many_tables(
    recipes: list[dict[str, Any]], n_seeds: int = 1, n_steps: int = 21, n_components: int = 20, n_references: int = 30
) -> dict[str, pd.DataFrame]:
    """Return `dynamics`, `spectra`, `layers` and `runs` of a study on one data set, each seed at the same steps.

    Angles are to the first `n_references` recipes.
    """
    rng = np.random.default_rng(0)
    names = [recipe["name"] for recipe in recipes]
    steps = list(range(n_steps))
    seeds = list(range(n_seeds))
    centrings = ["raw", "centred"]
    dynamics = _product(
        recipe=names, centring=centrings, seed=seeds, step=steps, reference=["own", "data", *names[:n_references]]
    ).assign(dataset="digits", reference_seed=0)
    dynamics["epoch"] = dynamics["step"].astype(float)
    dynamics["angle_deg"] = rng.uniform(1, 89, len(dynamics))
    dynamics["null_mean_deg"] = np.where(dynamics["centring"] == "raw", 12.0, 88.0)
    dynamics["correlation"] = np.cos(np.radians(dynamics["angle_deg"]))
    spectra = _product(
        recipe=names, seed=seeds, step=steps, layer=LAYERS, centring=centrings, component=range(1, n_components + 1)
    ).assign(dataset="digits")
    spectra["epoch"] = spectra["step"].astype(float)
    spectra["depth"] = spectra["layer"].map({layer: i + 1 for i, layer in enumerate(LAYERS)})
    spectra["variance_share"] = np.exp(-0.4 * spectra["component"]) * rng.uniform(0.5, 1, len(spectra))
    layers = _product(recipe=names, seed=seeds, step=steps, layer=LAYERS).assign(dataset="digits")
    layers["epoch"] = layers["step"].astype(float)
    layers["depth"] = layers["layer"].map({layer: i + 1 for i, layer in enumerate(LAYERS)})
    layers["compression"] = 0.5 ** layers["depth"] * rng.uniform(0.8, 1.2, len(layers))
    layers["discrimination"] = rng.uniform(0, 1, len(layers))
    layers["numerical_rank"] = 20
    runs = _product(recipe=names, seed=seeds).assign(
        dataset="digits",
        population="",
        model="mlp",
        block=0,
        n_parameters=1234,
        steps=n_steps - 1,
        epochs=float(n_steps - 1),
        train_loss=0.1,
        train_accuracy=0.99,
        test_loss=0.2,
        test_accuracy=0.97,
        relative_loss=np.nan,
        weight_norm=10.0,
        converged=np.nan,
    )
    runs["task"] = runs["recipe"].map({recipe["name"]: recipe["task"] for recipe in recipes})
    return {"dynamics": dynamics, "spectra": spectra, "layers": layers, "runs": runs}
