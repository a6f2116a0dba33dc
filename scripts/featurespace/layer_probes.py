"""How well a linear map reads the classes from each layer, on a recipe's own data and on others.

The probe is the layerwise paper's (arXiv 2311.02960): linear with a bias, under the squared error to one-hot labels. It
is solved exactly, with a ridge that is a share of the features' mean variance, so that their scale does not matter:

    minimise (1/n) Σ_i |Wᵀz_i + b - y_i|² + λ |W|²,   λ = regularisation · Tr(Σ) / d,   Σ = the features' covariance

so W = (Σ + λI)⁻¹ Cov(z, y) and b = ȳ - Wᵀz̄. What it takes, means and centred products, is gathered block by block
(Chan, Golub & LeVeque 1983), in float64, of samples shifted by the first one: a common offset costs no digits, and
features are never in memory whole. Networks see the training split once to fit and once to count, the test split once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from featurespace.architectures import INPUT_LAYER
from featurespace.datasets import SPLITS, PreparedDataset, spread_evenly
from featurespace.errors import FeaturespaceError
from featurespace.extraction import FORWARD_ROWS, build_for, layers_of, pool
from featurespace.networks import STACKED_KINDS, Network, scale_inputs, stacks_of
from featurespace.products import add_gram
from featurespace.script import progress
from featurespace.silhouette import silhouette
from featurespace.weights import KeptWeights

Key = tuple[int, str]  # a seed and a layer
# Given rows of a data set and layers, goes through the features of consecutive blocks of these rows: {key: (B, d)}.
Stream = Callable[[np.ndarray, Sequence[str]], Iterator[dict[Key, Tensor]]]

DENSE_ROWS = 1024  # samples a pass through a network of dense layers: what a matrix product wants
MOMENT_BYTES = 2**30  # of products that are gathered in one go, unless one layer alone has more
WIDEST = 16384  # features of a layer: 2 GiB of products
HELD_BYTES = 2**30  # of the features that silhouettes are taken of at a time, unless one layer alone has more
COLUMNS = (
    "dataset",
    "recipe",
    "block",
    "seed",
    "step",
    "epoch",
    "layer",
    "depth",
    "target",
    "train_accuracy",
    "test_accuracy",
    "n_train",
    "n_test",
    "silhouette",
)

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class LayerProbe:
    """A probe's outcome: shares of samples it gets right, of how many, and the features' silhouette.

    The accuracies are NaN over no samples, and where the training split has fewer than two classes.
    """

    train_accuracy: float
    test_accuracy: float
    n_train: int
    n_test: int
    silhouette: float


@dataclass(frozen=True)
class LinearMap:
    """A fitted probe: scores Wᵀ(z - z̄) + ȳ, float64. `mean` (d,), `weight` (d, K), `frequencies` (K,)."""

    mean: Tensor
    weight: Tensor
    frequencies: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """Return (B, K) of features (B, d): least-squares estimates of one-hot labels."""
        return (features.to(torch.float64) - self.mean) @ self.weight + self.frequencies


class Moments:
    """Means and centred products of features (n, d) and of their one-hot labels, gathered block by block in float64.

    Parameters
    ----------
    n_features, n_classes
        d and K.
    name
        What error messages call the features.
    """

    def __init__(self, n_features: int, n_classes: int, device: torch.device, name: str = "the features") -> None:
        options: dict[str, Any] = {"dtype": torch.float64, "device": device}
        self.name = name
        self.n_features = n_features
        self.count = 0
        self.pivot: Tensor | None = None  # (d,), the first sample
        self.mean = torch.zeros(n_features, **options)  # of the shifted features
        self.frequencies = torch.zeros(n_classes, **options)
        self.gram = torch.zeros(n_features, n_features, **options)  # on and below the diagonal
        self.cross = torch.zeros(n_features, n_classes, **options)

    def add(self, features: Tensor, one_hot: Tensor) -> None:
        """Merge a block: features (B, d) in any real dtype, one-hot labels (B, K) float64."""
        block = features.to(torch.float64)
        if self.pivot is None:
            self.pivot = block[0].clone()
        block = block - self.pivot
        block_mean = block.mean(dim=0)
        block -= block_mean
        block_frequencies = one_hot.mean(dim=0)
        add_gram(self.gram.T, block)
        self.cross.addmm_(block.T, one_hot - block_frequencies)
        merged = self.count + len(block)
        weight = self.count * len(block) / merged
        delta, delta_frequencies = block_mean - self.mean, block_frequencies - self.frequencies
        self.gram.addr_(delta, delta, alpha=weight)
        self.cross.addr_(delta, delta_frequencies, alpha=weight)
        self.mean += delta * (len(block) / merged)
        self.frequencies += delta_frequencies * (len(block) / merged)
        self.count = merged

    def solve(self, regularisation: float) -> LinearMap:
        """Fit the probe, by Cholesky; `gram` is used up. Features that are all constant get no weight.

        Raises
        ------
        FeaturespaceError
            If a feature is not finite, or the regularisation is too small for features that depend on each other.
        """
        assert self.pivot is not None, "no sample"
        diagonal = self.gram.diagonal()
        total = float(diagonal.sum())
        if not np.isfinite(total):
            raise _not_finite(self.name)
        mean = self.pivot + self.mean
        # Below this the features' spread is the rounding of their mean.
        if total <= (8 * _EPS) ** 2 * (total + self.count * float(mean @ mean)):
            return LinearMap(mean, torch.zeros_like(self.cross), self.frequencies)
        diagonal += regularisation * total / self.n_features
        failed = torch.empty((), dtype=torch.int32, device=self.gram.device)
        # In place, for which LAPACK wants a matrix by columns: the upper triangle of the transpose.
        torch.linalg.cholesky_ex(self.gram.T, upper=True, out=(self.gram.T, failed))
        if failed:
            raise FeaturespaceError(
                f"{self.name}: the features depend on each other and regularisation {regularisation:g} is too small "
                "to tell their weights apart; raise analysis.layer_probes.regularisation"
            )
        half = torch.linalg.solve_triangular(self.gram, self.cross, upper=False)
        weight = torch.linalg.solve_triangular(self.gram.T, half, upper=True)
        return LinearMap(mean, weight, self.frequencies)


def _not_finite(name: str) -> FeaturespaceError:
    return FeaturespaceError(f"{name}: a feature is NaN or infinite; look for a diverged training or a faulty input")


def _hits(
    stream: Stream,
    rows: np.ndarray,
    labels: Tensor,
    layers: Sequence[str],
    maps: Mapping[Key, LinearMap],
    names: Mapping[Key, str],
) -> dict[Key, int]:
    """Count, by key, the samples whose own class has the highest score; `names` are for error messages."""
    hits = {key: torch.zeros((), dtype=torch.int64, device=labels.device) for key in maps}
    finite = {key: torch.ones((), dtype=torch.bool, device=labels.device) for key in maps}
    start = 0
    for block in stream(rows, layers):
        for key, features in block.items():
            scores = maps[key].scores(features)
            finite[key] &= scores.isfinite().all()
            hits[key] += (scores.argmax(dim=1) == labels[start : start + len(features)]).sum()
        start += len(features)
    for key in maps:
        if not finite[key]:
            raise _not_finite(names[key])
    return {key: int(count) for key, count in hits.items()}


def probe_stream(
    stream: Stream,
    widths: Mapping[str, int],
    seeds: Sequence[int],
    dataset: PreparedDataset,
    device: torch.device,
    *,
    regularisation: float,
    silhouette_samples: int,
    name: str = "the features",
) -> dict[Key, LayerProbe]:
    """Fit a probe to the features of every layer and seed, and count what it gets right.

    Parameters
    ----------
    stream
        The features of rows of the data set. Gone through for the training split twice and for the test split once,
        and for some of the training samples once for as many layers as `HELD_BYTES` hold.
    widths
        {layer: number of features}.
    dataset
        Its classes are what is read, its splits what is fitted to and tested on.
    regularisation
        The ridge as a share of the features' mean variance, > 0.
    silhouette_samples
        Training samples, at most, of each silhouette, evenly spread over the classes.
    name
        What error messages call the features.

    Raises
    ------
    FeaturespaceError
        If there are no training samples, a layer is too wide, or a feature is not finite.
    """
    rows = {split: np.flatnonzero(dataset.split == code) for split, code in SPLITS.items()}
    train, test = rows["train"], rows["test"]
    n_train, n_test = len(train), len(test)
    if n_train == 0:
        raise FeaturespaceError(f"{name}: the data set has no training samples to fit a probe to")
    for layer, width in widths.items():
        if width > WIDEST:
            raise FeaturespaceError(
                f"{name}, layer {layer}: a probe of {width} features is out of reach (at most {WIDEST}); "
                "set `pooling: average`, or leave the layer out"
            )
    keys = [(seed, layer) for layer in widths for seed in seeds]
    labels = {split: torch.as_tensor(dataset.labels[chosen], device=device) for split, chosen in rows.items()}
    layers = list(widths)

    accuracies = dict.fromkeys(keys, (float("nan"), float("nan")))
    if len(labels["train"].unique()) >= 2:
        one_hot = torch.nn.functional.one_hot(labels["train"], dataset.n_classes).to(torch.float64)
        names = {(seed, layer): f"{name}, layer {layer}, seed {seed}" for seed, layer in keys}
        moments = {key: Moments(widths[key[1]], dataset.n_classes, device, names[key]) for key in keys}
        start = 0
        for block in stream(train, layers):
            for key, features in block.items():
                moments[key].add(features, one_hot[start : start + len(features)])
            start += len(features)
        maps = {key: moments.pop(key).solve(regularisation) for key in keys}
        train_hits = _hits(stream, train, labels["train"], layers, maps, names)
        test_hits = _hits(stream, test, labels["test"], layers, maps, names) if n_test else {}
        accuracies = {
            key: (train_hits[key] / n_train, test_hits[key] / n_test if n_test else float("nan")) for key in keys
        }

    some = train[spread_evenly(dataset.labels[train], silhouette_samples)]
    silhouettes = {}
    for together in held_together(widths, len(seeds), len(some)):
        blocks = [{key: part.float().cpu().numpy() for key, part in block.items()} for block in stream(some, together)]
        for key in product(seeds, together):
            silhouettes[key] = silhouette(np.concatenate([block.pop(key) for block in blocks]), dataset.labels[some])
    return {key: LayerProbe(*accuracies[key], n_train, n_test, silhouettes[key]) for key in keys}


def held_together(widths: Mapping[str, int], n_seeds: int, n_samples: int) -> list[list[str]]:
    """Cut layers into groups whose float32 features of some samples take up to `HELD_BYTES`, or are one layer's."""
    groups: list[list[str]] = []
    room = 0
    for layer, width in widths.items():
        n_bytes = 4 * width * n_seeds * n_samples
        if not groups or n_bytes > room:
            groups.append([])
            room = HELD_BYTES
        groups[-1].append(layer)
        room -= n_bytes
    return groups


def cut(widths: Mapping[str, int], seeds: Sequence[int]) -> Iterator[tuple[dict[str, int], list[int]]]:
    """Cut layers and seeds into groups whose products take up to `MOMENT_BYTES` together, or are one layer's."""
    groups: list[dict[str, int]] = [{}]
    for layer, width in widths.items():
        if groups[-1] and 8 * sum(w**2 for w in (*groups[-1].values(), width)) > MOMENT_BYTES:
            groups.append({})
        groups[-1][layer] = width
    for group in filter(None, groups):
        n_seeds = max(1, MOMENT_BYTES // (8 * sum(w**2 for w in group.values())))
        for start in range(0, len(seeds), n_seeds):
            yield group, list(seeds[start : start + n_seeds])


def _require_same_shape(spec: Mapping[str, Any], datasets: Sequence[PreparedDataset]) -> None:
    own = datasets[0]
    for name, target in zip(spec["targets"], datasets, strict=True):
        if (target.input_shape, target.is_image) != (own.input_shape, own.is_image):
            kinds = [
                "x".join(map(str, d.input_shape)) + (" pixels" if d.is_image else " values") for d in (own, target)
            ]
            raise FeaturespaceError(
                f"analysis.layer_probes.targets: networks of recipe {spec['recipe']}, which see {spec['dataset']} "
                f"({kinds[0]}), cannot be given {name} ({kinds[1]}); choose data of one shape"
            )


def probe_run(
    spec: Mapping[str, Any], datasets: Sequence[PreparedDataset], weights: KeptWeights, device: torch.device
) -> pd.DataFrame:
    """Probe the layers of a run's networks at their first and last kept steps, in evaluation mode.

    On the recipe's own data set, its input and all dumped layers; on the others, the input and the feature layer.
    Inputs of other data sets are scaled as those of the recipe's own, which is what its networks know.

    Parameters
    ----------
    spec
        As the rule `probe_layers` gets it: as `dump_features`, with `feature_layer`, `targets` (names of data sets, the
        recipe's own first), `regularisation` and `silhouette_samples`.
    datasets
        Those of `targets`.

    Returns
    -------
    DataFrame
        `COLUMNS`, a row a seed, step, target and layer. The input's probe is repeated for each seed and step.

    Raises
    ------
    FeaturespaceError
        If a data set has another shape than the recipe's own, and as `probe_stream` and `KeptWeights.read` do.
    """
    torch.set_num_threads(spec["threads"])
    _require_same_shape(spec, datasets)
    own = datasets[0]
    dumped = [*layers_of(spec, own)]
    layers = layers_of({**spec, "layers": [*spec["layers"], spec["feature_layer"]]}, own)
    widths = {name: layer.width for name, layer in layers.items()}
    seen_of = {target: [spec["feature_layer"]] for target in spec["targets"]} | {spec["targets"][0]: dumped}
    steps = sorted({weights.steps[0], weights.steps[-1]})
    jobs = []
    for target, dataset in zip(spec["targets"], datasets, strict=True):
        of_target = {layer: width for layer, width in widths.items() if layer in seen_of[target]}
        for stack in stacks_of(spec["model"], weights.seeds):
            jobs += [(target, dataset, step, *part) for step in steps for part in cut(of_target, stack)]
    n_samples = sum(_n_seen(spec, dataset, group, len(seeds)) for _, dataset, _, group, seeds in jobs)
    found: dict[tuple[str, int, Key], LayerProbe] = {}
    with torch.no_grad(), progress(n_samples, f"probing layers of {spec['recipe']}", "sample") as bar:
        for target, dataset in zip(spec["targets"], datasets, strict=True):
            settings: dict[str, Any] = {
                "regularisation": spec["regularisation"],
                "silhouette_samples": spec["silhouette_samples"],
            }
            inputs = _Inputs(spec, dataset, own, device)
            name = f"recipe {spec['recipe']}, data {target}"
            width = {INPUT_LAYER: int(np.prod(own.input_shape))}
            control = probe_stream(inputs.stream, width, [0], dataset, device, name=name, **settings)[0, INPUT_LAYER]
            for step in steps:
                found |= {(target, step, (seed, INPUT_LAYER)): control for seed in weights.seeds}
            for _, _, step, group, seeds in (job for job in jobs if job[0] == target):
                network = build_for(spec, own, len(seeds)).to(device)
                network.load_state_dict(weights.read(seeds, step))
                probes = probe_stream(
                    partial(_through, network, seeds, inputs, spec["pooling"], bar.update),
                    group,
                    seeds,
                    dataset,
                    device,
                    name=f"{name}, step {step}",
                    **settings,
                )
                found |= {(target, step, key): probe for key, probe in probes.items()}
    table = [
        {
            "dataset": spec["dataset"],
            "recipe": spec["recipe"],
            "block": spec["block"],
            "seed": seed,
            "step": step,
            "epoch": weights.epochs[weights.steps.index(step)],
            "layer": layer,
            "depth": 0 if layer == INPUT_LAYER else layers[layer].depth,
            "target": target,
            **asdict(found[target, step, (seed, layer)]),
        }
        for seed in weights.seeds
        for step in steps
        for target in spec["targets"]
        for layer in (INPUT_LAYER, *(layer for layer in widths if layer in seen_of[target]))
    ]
    return pd.DataFrame(table, columns=list(COLUMNS))


def _n_seen(spec: Mapping[str, Any], dataset: PreparedDataset, group: Mapping[str, int], n_seeds: int) -> int:
    """Say how many samples pass the networks of some seeds while a group of layers, with widths, is probed."""
    n_train, n_test = (int((dataset.split == SPLITS[split]).sum()) for split in ("train", "test"))
    n_some = min(spec["silhouette_samples"], n_train)
    return n_seeds * (2 * n_train + n_test + len(held_together(group, n_seeds, n_some)) * n_some)


class _Inputs:
    """The samples of a data set, as networks that know the recipe's own one see them, in blocks of rows."""

    def __init__(
        self, spec: Mapping[str, Any], dataset: PreparedDataset, own: PreparedDataset, device: torch.device
    ) -> None:
        self.stored = torch.from_numpy(dataset.images).to(device)
        self.offset, self.scale = own.offset, own.scale
        self.dtype = getattr(torch, spec["dtype"])
        self.rows_a_pass = DENSE_ROWS if spec["model"]["kind"] in STACKED_KINDS else FORWARD_ROWS

    def blocks(self, rows: np.ndarray) -> Iterator[Tensor]:
        """Go through rows, in blocks of (B, *input shape)."""
        for start in range(0, len(rows), self.rows_a_pass):
            chosen = torch.as_tensor(rows[start : start + self.rows_a_pass], device=self.stored.device)
            yield scale_inputs(self.stored[chosen], self.offset, self.scale, self.dtype)

    def stream(self, rows: np.ndarray, layers: Sequence[str]) -> Iterator[dict[Key, Tensor]]:
        """Stream the inputs themselves, as the one layer of the one seed 0."""
        for x in self.blocks(rows):
            yield {(0, INPUT_LAYER): x.flatten(1)}


def _through(
    network: Network,
    seeds: Sequence[int],
    inputs: _Inputs,
    pooling: str,
    done: Callable[[int], object],
    rows: np.ndarray,
    layers: Sequence[str],
) -> Iterator[dict[Key, Tensor]]:
    """Stream what the networks of some seeds, stacked, make of rows; `done` is told how many have passed."""
    for x in inputs.blocks(rows):
        _, taps = network(x.expand(len(seeds), *x.shape))
        pooled = {layer: pool(taps[layer], pooling) for layer in layers}  # (S, B, d)
        yield {(seed, layer): tap[s] for layer, tap in pooled.items() for s, seed in enumerate(seeds)}
        done(len(seeds) * len(x))
