"""Made-up tables in the shape of a study's, to draw and to report: plausible curves, no result of anything."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd


@dataclass
class Made:
    """A made-up study: its spec and its tables."""

    spec: dict[str, Any]
    dynamics: pd.DataFrame
    pairs: pd.DataFrame
    spectra: pd.DataFrame
    layers: pd.DataFrame
    history: pd.DataFrame
    runs: pd.DataFrame
    n_steps: dict[str, int] = field(default_factory=dict)


def recipe(name: str, task: str = "classify", kind: str = "mlp", dataset: str = "digits") -> dict[str, Any]:
    """Return one entry of a plotting spec."""
    layer = {"mlp": "hidden3", "cnn": "hidden", "autoencoder": "latent", "linear": "linear5"}[kind]
    return {"name": name, "dataset": dataset, "task": task, "feature_layer": layer, "kind": kind}


DEFAULT = (
    recipe("mlp"),
    recipe("cnn", kind="cnn"),
    recipe("autoencoder", "reconstruct", "autoencoder"),
    recipe("denoising-autoencoder", "denoise", "autoencoder"),
    recipe("shuffled-labels", "shuffled-labels"),
    recipe("untrained", "untrained"),
    recipe("linear", "classify", "linear", "orthonormal"),
)

LAYERS = {
    "mlp": ["hidden1", "hidden2", "hidden3"],
    "cnn": ["conv1", "conv2", "conv3", "hidden"],
    "autoencoder": ["conv1", "conv2", "latent"],
    "linear": [f"linear{i}" for i in range(1, 6)],
}


def make(recipes=DEFAULT, n_seeds: int = 5, epochs: int = 20, n_components: int = 20, stop_early: bool = False) -> Made:
    """Make up the tables of a study; with 0 epochs there is one step only."""
    rng = np.random.default_rng(0)
    spec = {"recipes": [dict(r) for r in recipes], "dpi": 60}
    dynamics, pairs, spectra, layers, history, runs = [], [], [], [], [], []
    level = {"classify": 12.0, "reconstruct": 60.0, "denoise": 55.0, "shuffled-labels": 57.0, "untrained": 56.0}

    def steps_of(r, seed):
        if r["task"] == "untrained" or epochs == 0:
            return [(0, 0.0)]
        last = epochs - 3 if stop_early and seed == 0 and epochs > 4 else epochs
        grid = [0.0, 0.25, 0.5, *map(float, range(1, last + 1))]
        return [(round(40 * e), e) for e in grid]

    for number, r in enumerate(recipes):
        tau = 1.5 + 0.7 * number
        is_ae = r["task"] in ("reconstruct", "denoise")
        for seed in range(n_seeds):
            ids = {"dataset": r["dataset"], "recipe": r["name"], "block": seed // 2, "seed": seed}
            points = steps_of(r, seed)
            last = points[-1][1]
            wobble = rng.normal(0, 1)
            for step, epoch in points:
                at = {**ids, "step": step, "epoch": epoch}
                fade = np.exp(-epoch / tau)
                references = [("own", seed), ("data", 0)]
                for other in recipes:
                    if other["dataset"] == r["dataset"]:
                        references += [
                            (other["name"], s) for s in range(n_seeds) if other["name"] != r["name"] or s != seed
                        ]
                for centring in ("raw", "centred"):
                    for reference, reference_seed in references:
                        start = 75.0 if centring == "centred" else 11.0 + 3 * number
                        if reference == "own":
                            angle = 0.0 if epoch == last else 4 + (start - 4) * fade
                        elif reference == "data":
                            angle = 0.3 * start + 0.7 * start * fade
                        else:
                            other = next((o for o in recipes if o["name"] == reference), r)
                            plateau = level[other["task"]] if centring == "centred" else 5.0
                            angle = plateau + (start - plateau) * fade
                        null = 88.6 if centring == "centred" else 9.0 + 4 * number
                        angle = float(np.clip(angle + wobble * (angle > 0) + rng.normal(0, 0.4) * (angle > 0), 0, 90))
                        dynamics.append(
                            {
                                "dataset": r["dataset"],
                                "centring": centring,
                                "recipe": r["name"],
                                "layer": r["feature_layer"],
                                "seed": seed,
                                "step": step,
                                "epoch": epoch,
                                "reference": reference,
                                "reference_seed": reference_seed,
                                "angle_deg": angle,
                                "cosine": np.cos(np.radians(angle)),
                                "correlation": np.cos(np.radians(angle * 1.1)),
                                "null_mean_deg": null + 0.5 * wobble,
                                "null_low_deg": null - 1,
                                "p_value": 0.005,
                                "relative_gap": 0.5,
                                "determined": True,
                            }
                        )
                if r["task"] == "untrained":
                    loss, accuracy = 2.31, 0.1
                else:
                    loss = (0.08 if is_ae else 2.3) * (0.04 + 0.96 * np.exp(-epoch / tau)) * (1 + 0.03 * wobble)
                    accuracy = 0.985 - 0.88 * np.exp(-epoch / tau) + 0.002 * wobble
                orthonormal = r["dataset"] == "orthonormal"
                history.append(
                    {
                        **at,
                        "learning_rate": 0.1,
                        "train_loss": loss,
                        "train_accuracy": np.nan if is_ae else accuracy,
                        "test_loss": np.nan if orthonormal else 1.2 * loss,
                        "test_accuracy": np.nan
                        if is_ae or orthonormal
                        else (0.1 if r["task"] == "shuffled-labels" else accuracy - 0.02),
                        "relative_loss": loss / 0.085 if is_ae else np.nan,
                    }
                )
                for depth, layer in enumerate(LAYERS[r["kind"]], start=1):
                    c = 12.0 * (0.9**depth if fade > 0.9 else (0.0613 if orthonormal else 0.45) ** depth)
                    c *= np.exp(0.05 * rng.normal())
                    layers.append(
                        {
                            **at,
                            "layer": layer,
                            "depth": depth,
                            "n_features": 64,
                            "compression": c,
                            "discrimination": 1 - 0.3 * (1 - depth / 6) + 0.01 * rng.normal(),
                            "nc1": c,
                            "numerical_rank": 20,
                            "frobenius_norm": 10.0,
                            "within_trace": c,
                            "between_trace": 1.0,
                            "reliable": c >= 1e-8,
                        }
                    )
                    if layer != r["feature_layer"]:
                        continue
                    for centring in ("raw", "centred"):
                        decay = np.exp(-np.arange(n_components) * (0.15 + 0.4 * (1 - fade)))
                        decay[0] *= 6 if centring == "raw" else 1
                        if centring == "centred":
                            decay[9:] *= 1e-3 * (0.01 + fade)
                        share = decay / decay.sum() * np.exp(0.1 * rng.normal(size=n_components))
                        spectra += [
                            {
                                **at,
                                "layer": layer,
                                "depth": depth,
                                "centring": centring,
                                "component": i + 1,
                                "singular_value": 10 * np.sqrt(share[i]),
                                "variance_share": share[i],
                            }
                            for i in range(n_components)
                        ]
            runs.append(
                {
                    "dataset": r["dataset"],
                    "recipe": r["name"],
                    "task": r["task"],
                    "model": r["kind"],
                    "seed": seed,
                    "block": seed // 2,
                    "n_parameters": 12345 + number,
                    "steps": points[-1][0],
                    "epochs": last,
                    **{
                        k: history[-1][k]
                        for k in ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "relative_loss")
                    },
                    "converged": True if r["kind"] == "linear" else np.nan,
                }
            )
    names = {r["name"]: r for r in recipes}
    for dataset in dict.fromkeys(r["dataset"] for r in recipes):
        here = ["data", *(r["name"] for r in recipes if r["dataset"] == dataset)]
        units = [(n, s) for n in here for s in range(1 if n == "data" else n_seeds)]
        spectra += [
            {
                "dataset": dataset,
                "recipe": "data",
                "block": 0,
                "seed": 0,
                "step": 0,
                "epoch": 0.0,
                "layer": "input",
                "depth": 0,
                "centring": centring,
                "component": i + 1,
                "singular_value": 1.0,
                "variance_share": 0.4 * np.exp(-0.25 * i) if centring == "raw" else 0.15 * np.exp(-0.2 * i),
            }
            for centring in ("raw", "centred")
            for i in range(n_components)
        ]
        layers.append(
            {
                "dataset": dataset,
                "recipe": "data",
                "block": 0,
                "seed": 0,
                "step": 0,
                "epoch": 0.0,
                "layer": "input",
                "depth": 0,
                "n_features": 64,
                "compression": 13.4,
                "discrimination": 0.9 if dataset == "orthonormal" else 0.12,
                "nc1": 1.0,
                "numerical_rank": 30,
                "frobenius_norm": 10.0,
                "within_trace": 1.0,
                "between_trace": 1.0,
                "reliable": True,
            }
        )
        for i, (a, seed_a) in enumerate(units):
            for b, seed_b in units[i + 1 :]:
                task = [names[n]["task"] if n in names else "classify" for n in (a, b)]
                for centring in ("raw", "centred"):
                    angle = max(level[t] for t in task) if centring == "centred" else 4.0 + 3 * ("reconstruct" in task)
                    angle = float(np.clip(angle + rng.normal(0, 1.5), 0.2, 89))
                    null = 88.4 if centring == "centred" else 8.2 + 2 * ("reconstruct" in task)
                    pairs.append(
                        {
                            "dataset": dataset,
                            "centring": centring,
                            "recipe_a": a,
                            "seed_a": seed_a,
                            "recipe_b": b,
                            "seed_b": seed_b,
                            "angle_deg": angle,
                            "cosine": np.cos(np.radians(angle)),
                            "correlation": np.cos(np.radians(min(90, 2.5 * angle)))
                            if centring == "raw"
                            else np.cos(np.radians(angle)),
                            "null_mean_deg": null,
                            "null_low_deg": null - 0.5,
                            "p_value": 0.005,
                            "relative_gap": 0.4,
                            "determined": True,
                            "principal_angle_max_deg": 80.0,
                        }
                    )
    columns = ["dataset", "centring", "recipe_a", "seed_a", "recipe_b", "seed_b", "angle_deg", "correlation"]
    return Made(
        spec,
        pd.DataFrame(dynamics),
        pd.DataFrame(pairs, columns=None if pairs else columns),
        pd.DataFrame(spectra),
        pd.DataFrame(layers),
        pd.DataFrame(history),
        pd.DataFrame(runs),
    )
