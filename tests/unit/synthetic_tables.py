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
                    "population": "",
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
                    "weight_norm": 10.0 + number,
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


# --- population and controls ---

FAMILIES = (
    ("mlp", "classify", "mlp"),
    ("cnn", "classify", "cnn"),
    ("resnet18", "classify", "resnet"),
    ("resnet50", "classify", "resnet"),
    ("wide-resnet-28-narrow", "classify", "wide-resnet"),
    ("wide-resnet-28-wide", "classify", "wide-resnet"),
    ("vgg", "classify", "vgg"),
    ("densenet", "classify", "densenet"),
    ("convolutional-autoencoder", "reconstruct", "autoencoder"),
    ("denoising-autoencoder", "denoise", "autoencoder"),
    ("simclr", "simclr", "resnet"),
    ("supcon", "supcon", "resnet"),
    ("shuffled-labels", "shuffled-labels", "cnn"),
    ("untrained", "untrained", "cnn"),
    ("noise", "noise", "noise"),
)
STILL = ("untrained", "noise")  # tasks with one step
CENTRINGS = ("raw", "centred")
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@dataclass
class Controls:
    """A made-up study's tables of spectra, entries, subspaces, population, similarity and sensitivity."""

    spec: dict[str, Any]
    spectra: pd.DataFrame
    entries: pd.DataFrame
    entry_summary: pd.DataFrame
    extremes: pd.DataFrame
    images: dict[str, np.ndarray]
    subspaces: pd.DataFrame
    population: pd.DataFrame
    correlations: pd.DataFrame
    indicators: pd.DataFrame
    similarity: pd.DataFrame
    sensitivity: pd.DataFrame


def family(name: str, task: str = "classify", kind: str = "mlp", dataset: str = "fashion") -> dict[str, Any]:
    """Return one entry of a plotting spec, of any task and kind of model."""
    return {"name": name, "dataset": dataset, "task": task, "kind": kind, "feature_layer": "features"}


MAIN = tuple(family(*entry) for entry in FAMILIES)


def make_controls(
    recipes=MAIN,
    n_seeds: int = 5,
    n_steps: int = 25,
    epochs: float = 20.0,
    n_settings: int = 36,
    n_samples: int = 2000,
) -> Controls:
    """Make up the tables of populations and controls for a study; with one step there is no training."""
    rng = np.random.default_rng(1)
    datasets = list(dict.fromkeys(r["dataset"] for r in recipes))
    spec = {
        "recipes": [dict(r) for r in recipes],
        "n_classes": dict.fromkeys(datasets, 10),
        "populations": [],
    }

    def steps_of(task: str) -> list[tuple[int, float]]:
        n = 1 if task in STILL else n_steps
        return [(40 * i, 0.0 if n == 1 else epochs * (i / (n - 1)) ** 2) for i in range(n)]

    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in _CONTROL_COLUMNS}
    images: dict[str, np.ndarray] = {}
    for dataset in datasets:
        here = [family("data", "data", "data", dataset), *(r for r in recipes if r["dataset"] == dataset)]
        for number, r in enumerate(here):
            is_data = r["name"] == "data"
            seeds = range(1 if is_data else n_seeds)
            points = [(0, 0.0)] if is_data else steps_of(r["task"])
            kept = sorted({round(f * (len(points) - 1)) for f in (0, 0.55, 0.77, 1)})
            for seed in seeds:
                ids = {"dataset": dataset, "recipe": r["name"], "seed": seed}
                for i, (step, epoch) in enumerate(points):
                    done = 1 - np.exp(-epoch / (2 + 0.4 * number))
                    at = {**ids, "step": step, "epoch": epoch}
                    for centring in CENTRINGS:
                        _spectrum(tables["spectra"], at, centring, done, is_data, rng)
                        _entries(tables, at, centring, done, n_samples, i in kept, rng)
                        if not is_data and len(points) > 1:
                            ahead = 1.0 if i == len(points) - 1 else 0.9 * done
                            _subspaces(
                                tables["subspaces"], at, centring, ("own", seed), (1 - ahead) * (1 - 0.03 * number), rng
                            )
                    if i == len(points) - 1 and not is_data:
                        for other in here:
                            if other["name"] != r["name"]:
                                reference = (other["name"], 0 if other["name"] == "data" else seed)
                                for centring in CENTRINGS:
                                    apart = 0.2 if other["task"] == r["task"] == "classify" else 0.6
                                    apart *= 1 - 0.03 * number
                                    _subspaces(tables["subspaces"], at, centring, reference, apart, rng)
            _extremes(tables["extremes"], images, dataset, r["name"], n_samples, rng)
        _similarity(tables["similarity"], here, n_seeds, rng)
        _sensitivity(tables["sensitivity"], here[1:], n_seeds, n_samples, rng)
        _population(tables, spec["populations"], here[1:], dataset, n_settings, rng)
    frames = {name: pd.DataFrame(rows, columns=_CONTROL_COLUMNS[name].split()) for name, rows in tables.items()}
    return Controls(spec=spec, images=images, **frames)


_CONTROL_COLUMNS = {
    "spectra": "dataset recipe block seed step epoch layer depth centring component singular_value variance_share",
    "entries": "dataset centring recipe seed step epoch bin_low bin_high count density",
    "entry_summary": "dataset centring recipe seed step epoch norm mean sd cv skewness excess_kurtosis share_negative "
    "angle_to_ones_deg angle_to_mean_deg",
    "extremes": "dataset centring recipe seed end rank sample label class_name entry",
    "subspaces": "dataset centring recipe seed step epoch reference reference_seed k vector_angle_deg mean_deg "
    "largest_deg null_mean_deg null_largest_deg null_largest_low_deg",
    "population": "dataset centring recipe population kind n_seeds angle_to_data_deg angle_to_data_sd_deg "
    "correlation_to_data null_formula_deg angle_to_ones_deg feature_norm weight_norm train_loss train_accuracy "
    "test_loss test_accuracy test_accuracy_sd generalisation_gap",
    "correlations": "dataset centring group indicator target n_settings rho low high p_value p_holm loo_low loo_high",
    "indicators": "dataset centring group indicator target n_settings mae baseline_mae skill low high rank",
    "similarity": "dataset stage recipe_a seed_a recipe_b seed_b measure value",
    "sensitivity": "dataset factor level value centring relation recipe_a seed_a recipe_b seed_b n_samples angle_deg "
    "cosine correlation null_formula_deg",
}


def _spectrum(rows, at, centring, done, is_data, rng) -> None:
    component = np.arange(1, 21)
    within = 9 if centring == "centred" else 10
    share = np.exp(-(0.12 + 0.1 * done) * component)
    share[within:] *= 1 - 0.97 * done
    share[0] *= 4 if centring == "raw" else 1.2
    share *= np.exp(0.08 * rng.normal(size=20))
    share *= (0.8 + 0.19 * done) / share.sum()
    layer = ("input", 0) if is_data else ("features", 4)
    rows += [
        {
            **at,
            "block": 0,
            "layer": layer[0],
            "depth": layer[1],
            "centring": centring,
            "component": int(k),
            "singular_value": 10 * np.sqrt(s),
            "variance_share": s,
        }
        for k, s in zip(component, share, strict=True)
    ]


def _entries(tables, at, centring, done, n_samples, with_bins, rng) -> None:
    entries = rng.gamma(4 + 20 * (1 - done), 1.0, n_samples) if centring == "raw" else rng.normal(size=n_samples)
    if centring == "centred":
        entries = entries * (1 - 0.7 * done) + 2 * done * (rng.random(n_samples) < 0.2)
        entries -= entries.mean()
    entries /= np.linalg.norm(entries)
    mean, sd = entries.mean(), entries.std()
    z = (entries - mean) / sd
    here = {**at, "centring": centring}
    tables["entry_summary"].append(
        {
            **here,
            "norm": 1.0,
            "mean": mean,
            "sd": sd,
            "cv": sd / abs(mean) if centring == "raw" else np.nan,
            "skewness": (z**3).mean(),
            "excess_kurtosis": (z**4).mean() - 3,
            "share_negative": (entries < 0).mean(),
            "angle_to_ones_deg": np.degrees(np.arctan2(sd, abs(mean))),
            "angle_to_mean_deg": 3.0,
        }
    )
    if with_bins:
        edges = np.linspace(0, 3.5, 41) if centring == "raw" else np.linspace(-3.5, 4.5, 41)
        count, _ = np.histogram(entries * np.sqrt(n_samples), edges)
        density = count / (n_samples * np.diff(edges))
        tables["entries"] += [
            {**here, "bin_low": edges[b], "bin_high": edges[b + 1], "count": int(count[b]), "density": density[b]}
            for b in range(40)
        ]


def _subspaces(rows, at, centring, reference, apart, rng) -> None:
    for k in (1, 2, 3, 4, 5, 6, 10, 15, 20):
        null = 88 if centring == "centred" else 86
        start = 80 if centring == "centred" or k > 1 else 15
        largest = min(90.0, start * apart**0.5 * (1 + 0.02 * k) + abs(rng.normal()) * (apart > 0))
        rows.append(
            {
                **at,
                "centring": centring,
                "reference": reference[0],
                "reference_seed": reference[1],
                "k": k,
                "vector_angle_deg": 0.0 if apart == 0 else min(90.0, largest if k == 1 else 70 + 2 * k + rng.normal()),
                "mean_deg": 0.7 * largest,
                "largest_deg": largest,
                "null_mean_deg": null - 0.6 * k,
                "null_largest_deg": min(90, null + 0.05 * k),
                "null_largest_low_deg": min(90, null + 0.05 * k) - 1.5,
            }
        )


def _extremes(rows, images, dataset, name, n_samples, rng) -> None:
    y, x = np.mgrid[:28, :28]
    for centring in CENTRINGS:
        order = rng.permutation(n_samples)[:16]
        for i, sample in enumerate(order):
            label = int(sample) % 10
            rows.append(
                {
                    "dataset": dataset,
                    "centring": centring,
                    "recipe": name,
                    "seed": 0,
                    "end": "low" if i < 8 else "high",
                    "rank": i % 8 + 1,
                    "sample": int(sample),
                    "label": label,
                    "class_name": CLASS_NAMES[label],
                    "entry": 0.001 * i,
                }
            )
            wave = np.sin(x / (2 + label)) * np.cos(y / (3 + int(sample) % 7))
            images[f"{dataset}/s{sample}"] = np.uint8(127 + 120 * wave)[None]


def _similarity(rows, here, n_seeds, rng) -> None:
    for stage in ("first", "last"):
        for i, a in enumerate(here):
            for b in here[i:]:
                same = a["name"] == b["name"]
                if same and (n_seeds < 2 or a["name"] == "data"):
                    continue
                for seed in range(n_seeds):
                    near = rng.beta(8, 2) if a["task"] == b["task"] and stage == "last" else rng.beta(3, 3)
                    values = {
                        "cka": near,
                        "cka_deconfounded": np.nan if a["name"] == "data" else near * rng.uniform(0.5, 1),
                        "svcca": 0.3 + 0.6 * near + 0.05 * rng.normal(),
                        "procrustes": 2 - 1.6 * near,
                        "cosine_raw": 0.9 + 0.1 * near,
                        "cosine_centred": abs(np.clip(near + 0.1 * rng.normal(), -1, 1)),
                        "correlation": np.clip(near + 0.1 * rng.normal(), -1, 1),
                    }
                    pair = {
                        "dataset": a["dataset"],
                        "stage": stage,
                        "recipe_a": a["name"],
                        "seed_a": 0 if a["name"] == "data" else seed,
                        "recipe_b": b["name"],
                        "seed_b": (seed + 1) % n_seeds if same else seed,
                    }
                    rows += [{**pair, "measure": measure, "value": value} for measure, value in values.items()]


def _sensitivity(rows, here, n_seeds, n_samples, rng) -> None:
    levels = [("samples", str(s), s) for s in (0.125, 0.25, 0.5, 1.0)]
    levels += [("features", str(s), s) for s in (0.125, 0.25, 0.5, 1.0)]
    levels += [("split", s, np.nan) for s in ("train", "test")]
    levels += [("normalisation", s, np.nan) for s in ("none", "unit-rows", "standardised-features")]
    levels += [("depth", "first", 0.2), ("depth", "middle", 0.6), ("depth", "last", 1.0)]
    levels += [("mismatch", s, np.nan) for s in ("disjoint", "shuffled")]
    by_kind: dict[tuple[str, str], list[str]] = {}
    for r in here:
        by_kind.setdefault((r["kind"], r["task"]), []).append(r["name"])
    widths = [(names[0], name) for names in by_kind.values() for name in names[1:]]
    for factor, level, value in [*levels, *(("width", f"{a}~{b}", np.nan) for a, b in widths)]:
        for i, a in enumerate(here):
            for b in here[i:]:
                same = a["name"] == b["name"]
                if factor == "width" and f"{a['name']}~{b['name']}" != level:
                    continue
                relations = ["between"] if not same or n_seeds > 1 else []
                if same and factor not in ("mismatch", "width") and a["task"] not in STILL:
                    relations.append("start_to_end")
                for relation in relations:
                    for seed in range(n_seeds):
                        for centring in CENTRINGS:
                            null = 88.0 if centring == "centred" else 12.0
                            base = 30.0 if same else 55.0
                            angle = base if centring == "centred" else 0.15 * base
                            if factor == "mismatch":
                                angle = null
                            if relation == "start_to_end":
                                angle = 75.0 if centring == "centred" else 15.0
                            angle = float(np.clip(angle + rng.normal(0, 0.1 * angle), 0, 90))
                            rows.append(
                                {
                                    "dataset": a["dataset"],
                                    "factor": factor,
                                    "level": level,
                                    "value": value,
                                    "centring": centring,
                                    "relation": relation,
                                    "recipe_a": a["name"],
                                    "seed_a": seed,
                                    "recipe_b": b["name"],
                                    "seed_b": (seed + 1) % n_seeds if same and relation == "between" else seed,
                                    "n_samples": int(n_samples * (value if factor == "samples" else 1)),
                                    "angle_deg": angle,
                                    "cosine": np.cos(np.radians(angle)),
                                    "correlation": np.cos(np.radians(angle)),
                                    "null_formula_deg": null,
                                }
                            )


def _population(tables, populations, here, dataset, n_settings, rng) -> None:
    kinds = ("mlp", "cnn", "wide-resnet")
    members = [(f"sweep-{i:02d}", f"sweep-{kinds[i % 3]}", kinds[i % 3]) for i in range(n_settings)]
    members += [(r["name"], "", r["kind"]) for r in here if r["task"] == "classify"]
    for name, population, kind in members:
        populations.append({"name": name, "population": population, "kind": kind, "dataset": dataset})
        quality = rng.uniform(0.55, 0.92)
        for centring in CENTRINGS:
            angle = (60 - 45 * quality if centring == "centred" else 14 - 9 * quality) + rng.normal(0, 1.5)
            tables["population"].append(
                {
                    "dataset": dataset,
                    "centring": centring,
                    "recipe": name,
                    "population": population,
                    "kind": kind,
                    "n_seeds": 3,
                    "angle_to_data_deg": abs(angle),
                    "angle_to_data_sd_deg": 0.8,
                    "correlation_to_data": 0.5,
                    "null_formula_deg": 88.0 if centring == "centred" else 12.0,
                    "angle_to_ones_deg": 9.0 if centring == "raw" else 90.0,
                    "feature_norm": 100.0,
                    "weight_norm": 20.0,
                    "train_loss": 0.2,
                    "train_accuracy": min(1.0, quality + 0.05),
                    "test_loss": 0.4,
                    "test_accuracy": quality,
                    "test_accuracy_sd": 0.01,
                    "generalisation_gap": min(1.0, quality + 0.05) - quality,
                }
            )
    names = (
        "angle_to_data_deg",
        "angle_to_ones_deg",
        "train_loss",
        "feature_norm",
        "weight_norm",
        "null_formula_deg",
    )
    for centring in CENTRINGS:
        for group in ("all", *dict.fromkeys(kind for *_, kind in members)):
            n = sum(group in ("all", kind) for *_, kind in members)
            for target in ("test_accuracy", "generalisation_gap"):
                for rank, indicator in enumerate(names, start=1):
                    at = {
                        "dataset": dataset,
                        "centring": centring,
                        "group": group,
                        "indicator": indicator,
                        "target": target,
                        "n_settings": n,
                    }
                    rho = float(np.clip(-0.85 + 0.22 * rank + 0.05 * rng.normal(), -1, 1)) if n > 3 else np.nan
                    tables["correlations"].append(
                        {
                            **at,
                            "rho": rho,
                            "low": max(-1, rho - 0.2),
                            "high": min(1, rho + 0.2),
                            "p_value": 0.001 * rank,
                            "p_holm": 0.006 * rank,
                            "loo_low": rho - 0.05,
                            "loo_high": rho + 0.05,
                        }
                    )
                    skill = 0.5 - 0.15 * rank if n > 3 else np.nan
                    tables["indicators"].append(
                        {
                            **at,
                            "mae": 0.05 * (1 - skill),
                            "baseline_mae": 0.05,
                            "skill": skill,
                            "low": skill - 0.2,
                            "high": skill + 0.15,
                            "rank": rank,
                        }
                    )


# --- angles ---


@dataclass
class Angles:
    """Made-up tables of angles, from made-up unit vectors: every identity between their columns holds."""

    spec: dict[str, Any]
    dynamics: pd.DataFrame
    pairs: pd.DataFrame
    entries: pd.DataFrame


def _angle_recipe(name: str, task: str, kind: str, dataset: str = "fashion") -> dict[str, Any]:
    return {"name": name, "dataset": dataset, "task": task, "kind": kind}


ANGLE_RECIPES = (
    _angle_recipe("mlp", "classify", "mlp"),
    _angle_recipe("cnn", "classify", "cnn"),
    _angle_recipe("resnet", "classify", "resnet"),
    _angle_recipe("wide-resnet", "classify", "wide-resnet"),
    _angle_recipe("vgg", "classify", "vgg"),
    _angle_recipe("densenet", "classify", "densenet"),
    _angle_recipe("autoencoder", "reconstruct", "autoencoder"),
    _angle_recipe("denoising-autoencoder", "denoise", "autoencoder"),
    _angle_recipe("simclr", "simclr", "cnn"),
    _angle_recipe("supcon", "supcon", "cnn"),
    _angle_recipe("mlp-shuffled-labels", "shuffled-labels", "mlp"),
    _angle_recipe("cnn-shuffled-labels", "shuffled-labels", "cnn"),
    _angle_recipe("untrained-cnn", "untrained", "cnn"),
    _angle_recipe("gaussian-noise", "noise", "noise"),
    _angle_recipe("rectified-noise", "noise", "noise"),
)


def make_angles(
    recipes=ANGLE_RECIPES, n_seeds: int = 5, epochs: int = 21, references: list[str] | None = None, n_samples: int = 300
) -> Angles:
    """Make up the tables of angles of a study: unit vectors that drift from chance to what their task would share."""
    rng = np.random.default_rng(1)
    normal = np.linspace(-2.5, 2.5, 41)
    weight = np.exp(-(normal**2) / 2) / np.exp(-(normal**2) / 2).sum()

    def unit(vector: np.ndarray) -> np.ndarray:
        return vector / np.linalg.norm(vector, axis=-1, keepdims=True)

    def contrast() -> np.ndarray:
        vector = rng.normal(size=n_samples)
        return unit(vector - vector.mean())

    ones = np.full(n_samples, n_samples**-0.5)
    shared = {task: contrast() for task in ("classify", "reconstruct", "simclr", "data", "chance")}

    def compare(p: np.ndarray, q: np.ndarray) -> dict[str, np.ndarray]:
        """Compare rows of p with rows of q, one by one."""
        dots = np.sum(p * q, axis=1)
        sign = np.where(dots < 0, -1.0, 1.0)
        to_ones = [np.clip(np.abs(v @ ones), 0, 1) for v in (p, q)]
        centred = [v - np.outer(v @ ones, ones) for v in (p, q)]
        r = sign * np.sum(unit(centred[0]) * unit(centred[1]), axis=1)
        mean = to_ones[0] * to_ones[1]
        sd = np.sqrt((1 - to_ones[0] ** 2) * (1 - to_ones[1] ** 2) / (n_samples - 1))
        drawn = np.degrees(np.arccos(np.clip(np.abs(mean[:, None] + sd[:, None] * normal), 0, 1)))
        same = np.abs(dots) > 1 - 1e-12
        return {
            "angle_deg": np.where(same, 0.0, np.degrees(np.arccos(np.clip(np.abs(dots), 0, 1)))),
            "cosine": np.clip(np.abs(dots), 0, 1),
            "correlation": np.clip(r, -1, 1),
            "angle_to_ones_deg": np.degrees(np.arccos(to_ones[0])),
            "reference_angle_to_ones_deg": np.degrees(np.arccos(to_ones[1])),
            "null_mean_deg": drawn @ weight + rng.normal(0, 0.01, len(p)),
            "null_low_deg": np.quantile(drawn, 0.05, axis=1),
            "null_formula_deg": drawn @ weight,
            "p_value": np.full(len(p), 0.001),
            "relative_gap": np.full(len(p), 0.4),
            "determined": np.full(len(p), True),
        }

    steps = [0.0, *(round(k / 40, 4) for k in (1, 2, 5, 10, 20)), *map(float, range(1, epochs - 1)), epochs + 0.0]
    steps = sorted(set(steps)) if epochs else [0.0]
    vectors: dict[tuple[str, str, int], np.ndarray] = {}  # (recipe, centring, seed): (steps, samples)
    times: dict[str, list[float]] = {}
    for number, r in enumerate(recipes):
        task = {"denoise": "reconstruct", "supcon": "simclr"}.get(r["task"], r["task"])
        times[r["name"]] = [0.0] if task in ("untrained", "noise") else steps
        own = contrast()
        for seed in range(n_seeds):
            start = unit(0.5 * shared["data"] + 0.8 * contrast() + 0.3 * own)
            target = shared.get(task, own)
            end = unit(target + 0.35 * shared["data"] + 0.25 * own + (0.1 + 0.02 * number) * contrast())
            if task == "noise":
                start = end = contrast()
            for centring in ("raw", "centred"):
                rows = []
                for epoch in times[r["name"]]:
                    fade = np.exp(-epoch / (1 + 0.3 * number))
                    part = unit(fade * start + (1 - fade) * end)
                    spread = np.radians(11 + 6 * (1 - fade) + 0.8 * number + 0.3 * rng.normal())
                    if r["name"] == "gaussian-noise":
                        spread = np.radians(86 + seed)
                    if centring == "raw":
                        part = np.cos(spread) * ones + np.sin(spread) * unit(part + 0.3 * shared["data"])
                    rows.append(part)
                vectors[r["name"], centring, seed] = np.array(rows)
    data = {"raw": np.cos(0.5) * ones + np.sin(0.5) * shared["data"], "centred": shared["data"]}
    known = {r["name"]: r for r in recipes}
    trained = [name for name, r in known.items() if r["task"] not in ("untrained", "noise", "shuffled-labels")]

    dynamics, entries, pairs = [], [], []
    for r in recipes:
        for seed in range(n_seeds):
            epoch = np.array(times[r["name"]])
            base = {"recipe": r["name"], "layer": "features", "seed": seed}
            at = {"step": np.round(40 * epoch).astype(int), "epoch": epoch}
            for centring in ("raw", "centred"):
                p = vectors[r["name"], centring, seed]
                compared = {("own", seed): p[-1], ("data", 0): data[centring]}
                for other in references or trained:
                    if known[other]["dataset"] == r["dataset"]:
                        compared |= {
                            (other, s): vectors[other, centring, s][-1]
                            for s in range(n_seeds)
                            if (other, s) != (r["name"], seed)
                        }
                for (reference, reference_seed), q in compared.items():
                    dynamics.append(
                        pd.DataFrame(
                            {"dataset": r["dataset"], "centring": centring, **base, **at}
                            | {"reference": reference, "reference_seed": reference_seed}
                            | compare(p, np.tile(q, (len(p), 1)))
                        )
                    )
                along = np.clip(np.abs(p @ ones), 0, 1)
                entries.append(
                    pd.DataFrame(
                        {"dataset": r["dataset"], "centring": centring, "recipe": r["name"], "seed": seed, **at}
                        | {"norm": 1.0, "mean": p.mean(axis=1), "sd": p.std(axis=1), "cv": np.nan, "skewness": 0.1}
                        | {"excess_kurtosis": 0.2, "share_negative": np.mean(p < 0, axis=1)}
                        | {"angle_to_ones_deg": np.degrees(np.arccos(along))}
                        | {"angle_to_mean_deg": 2.0 + seed if centring == "raw" else 60.0 + 5 * np.exp(-epoch)}
                    )
                )
    for dataset in dict.fromkeys(r["dataset"] for r in recipes):
        for centring in ("raw", "centred"):
            along = min(1.0, abs(float(data[centring] @ ones)))
            numbers = {"norm": 1.0, "mean": 0.05, "sd": 0.02, "cv": 0.4, "skewness": 0.0, "excess_kurtosis": 0.0}
            row = {"dataset": dataset, "centring": centring, "recipe": "data", "seed": 0, "step": 0, "epoch": 0.0}
            angles = {"angle_to_ones_deg": np.degrees(np.arccos(along)), "angle_to_mean_deg": 1.0}
            entries.append(pd.DataFrame([{**row, **numbers, "share_negative": 0.0, **angles}]))
            units = [
                ("data", 0),
                *((n, s) for n, r in known.items() for s in range(n_seeds) if r["dataset"] == dataset),
            ]
            ends = [(a, b) for i, a in enumerate(units) for b in units[i + 1 :]]
            if not ends:
                continue
            for stage, which in (("last", -1), ("first", 0)):
                of = {u: data[centring] if u[0] == "data" else vectors[u[0], centring, u[1]][which] for u in units}
                compared = compare(np.array([of[a] for a, _ in ends]), np.array([of[b] for _, b in ends]))
                names = {
                    "recipe_a": [a[0] for a, _ in ends],
                    "seed_a": [a[1] for a, _ in ends],
                    "recipe_b": [b[0] for _, b in ends],
                    "seed_b": [b[1] for _, b in ends],
                }
                frame = {"dataset": dataset, "centring": centring, "stage": stage, **names, **compared}
                pairs.append(pd.DataFrame({**frame, "principal_angle_max_deg": 80.0}))
    spec = {"recipes": [dict(r) for r in recipes], "references": references, "dpi": 60}
    tables = [pd.concat(part, ignore_index=True) for part in (dynamics, pairs, entries)]
    return Angles(spec, *tables)
