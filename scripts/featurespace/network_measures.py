"""What takes a run's weights to measure: NC3, NC4, gradients, normalisation in training mode, deep linear networks.

With W (K, d) the output weights, M (K, d) the class means of the feature layer less the overall mean, and the weights
W_1, ..., W_L of a deep linear network, whose prediction is α W_L ... W_1 x (arXiv 2311.02960; Papyan, Han & Donoho 2020
for NC3 and NC4):

    of every layer
        ncc_accuracy         share of the sample set whose nearest class mean is that of its own class
        nc4_mismatch         share of it on which the nearest class mean and the network's answer are different classes
        compression_given    C over the labels that the network was trained with, where these were shuffled
        compression_training, discrimination_training, numerical_rank_training
                             as `measures` has them, with batch normalisation in training mode: each batch is normalised
                             by its own statistics, as the published curves are, and is drawn from a shuffled order,
                             always the same one: samples may be stored class by class. Only where there is such
                             normalisation
    of the whole network
        nc3                  ‖W/‖W‖ - M/‖M‖‖, Frobenius norms; not where a head stands between features and output, and
                             of a network built elsewhere only where a dense layer reads the features themselves
        train_loss           mean loss over the whole training split
        gradient_norm        √Σ ‖∇‖², over all parameters that are trained, of the gradient of that mean, α included
    of deep linear networks
        min_norm_residual    ‖W_L ... W_1 - Y X⁺ / α‖, X (d, N) the training inputs, Y (K, N) one-hot labels: how far
                             the network is from the shortest of the best solutions, whatever N, d and the rank of X
        balancedness         of layers 1 to L - 1: ‖W_{l+1}ᵀ W_{l+1} - W_l W_lᵀ‖ / ‖W_l‖; of the network: their mean
        low_rankness         variance (divided by n - 1) of all σ_i(W_l), i = K + 1, ..., d - K, l = 1, ..., L - 1, d
                             the input's dimension however wide the layers are
        top_singular_mean    of layers 1 to L - 1: the mean of the K greatest σ_i(W_l)
        weight_norm          of layers 1 to L - 1: ‖W_l‖

Everything is in evaluation mode unless it says otherwise. Features are those of the sample set, with its true classes,
for shuffled labels too; loss, gradient and Y are those of the labels that the network was trained with.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from featurespace.architectures import feature_layer, is_own, layer_names
from featurespace.datasets import SPLITS, PreparedDataset, select_sample_set
from featurespace.errors import FeaturespaceError
from featurespace.extraction import FORWARD_ROWS, build_for, layers_of, pool
from featurespace.measures import class_scatter, measure
from featurespace.networks import STACKED_KINDS, BatchNorm, Network, OwnNetwork, scale_inputs
from featurespace.script import progress
from featurespace.spectra import Rows
from featurespace.training import EVALUATION_ORDER, even_bounds, sample_losses, seed_sequence, shuffled
from featurespace.weights import KeptWeights

COLUMNS = ["dataset", "recipe", "block", "seed", "step", "epoch", "layer", "depth", "quantity", "value"]
OUTPUT = "output"  # the layer that gives the prediction, in the networks of this library
PREDICTION = "output of the network"  # among the layers that a forward pass gives; no layer is called so
HELD_BYTES = 2**31  # features that are held at a time; a layer that is larger is computed anew at each pass over it

Values = list[tuple[str, str, float]]  # layer ("" for the whole network), quantity, value


# --- forward passes ---------------------------------------------------------------------------------------------------


def _block_bounds(n_samples: int, n_rows: int) -> list[int]:
    return [*range(0, n_samples, n_rows), n_samples]


def normalisations(network: nn.Module) -> list[nn.Module]:
    """List the layers of batch normalisation."""
    return [module for module in network.modules() if isinstance(module, BatchNorm | nn.modules.batchnorm._BatchNorm)]


def _features_by_layer(
    forward: Callable[[int, int], Mapping[str, Tensor]],
    bounds: Sequence[int],
    widths: Mapping[str, int],
    dtype: torch.dtype,
    device: torch.device,
    name: str,
) -> Iterator[tuple[str, Rows]]:
    """Go through layers in order, in as few forward passes as the memory for their features allows.

    Parameters
    ----------
    forward
        Called with the bounds of a block of samples; returns {layer: (B, d)}.
    bounds
        (n_blocks + 1,), ascending, from 0 to the number of samples.
    widths
        {layer: d} of the layers that are wanted.
    name
        Of the network, for error messages.
    """
    n_samples = bounds[-1]

    def blocks(layer: str) -> Iterator[np.ndarray]:
        return (forward(start, stop)[layer].cpu().numpy() for start, stop in pairwise(bounds))

    waiting = list(widths)
    while waiting:
        held: dict[str, np.ndarray] = {}
        room = HELD_BYTES // (n_samples * dtype.itemsize)  # in features
        while waiting and widths[waiting[0]] <= room:
            layer = waiting.pop(0)
            room -= widths[layer]
            held[layer] = np.empty((n_samples, widths[layer]), torch.empty(0, dtype=dtype).numpy().dtype)
        if not held:
            layer = waiting.pop(0)
            source = partial(blocks, layer)
            yield layer, Rows(source, n_samples, widths[layer], device=device, name=f"{name}, layer {layer}")
            continue
        for start, stop in pairwise(bounds):
            taps = forward(start, stop)
            for layer, buffer in held.items():
                buffer[start:stop] = taps[layer].cpu().numpy()
        for layer in list(held):
            yield layer, Rows.of(held.pop(layer), device=device, name=f"{name}, layer {layer}")


# --- the output -------------------------------------------------------------------------------------------------------


def self_duality(weight: np.ndarray, offsets: np.ndarray) -> float:
    """Return NC3, ‖W/‖W‖ - M/‖M‖‖, in [0, 2], of output weights and centred class means, both (K, d).

    NaN where one of the two is zero.
    """
    lengths = np.linalg.norm(weight), np.linalg.norm(offsets)
    if min(lengths) == 0.0:
        return float("nan")
    return float(np.linalg.norm(weight / lengths[0] - offsets / lengths[1]))


def loss_and_gradient_norm(
    network: Network, blocks: Iterable[tuple[Tensor, Tensor]], n_samples: int, loss: str, output_scale: float
) -> tuple[float, float]:
    """Return the mean loss over a split and the norm of its gradient, both summed over blocks in float64.

    Parameters
    ----------
    network
        Of one seed, in the mode that its normalisation is wanted in; its parameters require gradients.
    blocks
        Inputs (1, B, *input shape) and labels (1, B), `n_samples` in all.
    loss, output_scale
        `cross-entropy` or `mse`, of the prediction times α.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    gradients = [torch.zeros_like(parameter, dtype=torch.float64) for parameter in parameters]
    total = 0.0
    for inputs, labels in blocks:
        losses = sample_losses(output_scale * network(inputs)[0], inputs, labels, loss, reconstructs=False)
        total += float(losses.detach().sum(dtype=torch.float64))
        parts = torch.autograd.grad(losses.sum(), parameters, allow_unused=True)
        for gradient, part in zip(gradients, parts, strict=True):
            if part is not None:  # a network built elsewhere may have what evaluation mode leaves out
                gradient += part
    squares = sum(float(gradient.square().sum()) for gradient in gradients)
    return total / n_samples, squares**0.5 / n_samples


# --- deep linear networks ---------------------------------------------------------------------------------------------


def min_norm_solutions(inputs: np.ndarray, labels: np.ndarray, n_classes: int, output_scale: float) -> np.ndarray:
    """Return (1/α) Y X⁺, (S, K, d): of all maps with the least squared error to one-hot labels, the shortest.

    Parameters
    ----------
    inputs
        (N, d), a row a sample, float64.
    labels
        (S, N): each seed's.
    """
    one_hot = np.eye(n_classes)[labels]  # (S, N, K)
    targets = np.moveaxis(one_hot, 0, 1).reshape(len(inputs), -1)  # (N, S K)
    solution = np.linalg.lstsq(inputs, targets, rcond=None)[0]  # (d, S K)
    return solution.T.reshape(len(labels), n_classes, -1) / output_scale


def linear_measures(weights: Sequence[np.ndarray], min_norm: np.ndarray) -> Values:
    """Measure the weights W_1, ..., W_L of a deep linear network, as the head of this module has it.

    Parameters
    ----------
    weights
        W_l (width out, width in), float64; the layers but the last are called `linear1`, ....
    min_norm
        (K, d), the shortest solution.

    Returns
    -------
    Values
        `low_rankness` is NaN where fewer than two singular values are in its range.
    """
    n_classes, dimension = min_norm.shape
    product = weights[0]
    for weight in weights[1:]:
        product = weight @ product
    values: Values = [("", "min_norm_residual", float(np.linalg.norm(product - min_norm)))]
    residuals, tails = [], []
    for i, (weight, following) in enumerate(pairwise(weights), start=1):
        layer, norm = f"linear{i}", np.linalg.norm(weight)
        imbalance = np.linalg.norm(following.T @ following - weight @ weight.T)
        residuals.append(float(imbalance / norm) if norm > 0.0 else float("nan"))
        singular_values = np.linalg.svd(weight, compute_uv=False)
        tails.append(singular_values[n_classes : max(n_classes, dimension - n_classes)])
        values += [
            (layer, "balancedness", residuals[-1]),
            (layer, "top_singular_mean", float(singular_values[:n_classes].mean())),
            (layer, "weight_norm", float(norm)),
        ]
    if residuals:
        tail = np.concatenate(tails)
        values += [
            ("", "balancedness", float(np.mean(residuals))),
            ("", "low_rankness", float(tail.var(ddof=1)) if len(tail) > 1 else float("nan")),
        ]
    return values


# --- a run ------------------------------------------------------------------------------------------------------------


class _Measurer:
    """The networks of one run, one seed at a time, and what they are measured on.

    Seeds that trained together are taken apart: a pass over one seed's network costs what it adds to the others', and
    the features of one seed are all that has to be held.
    """

    def __init__(
        self, spec: Mapping[str, Any], dataset: PreparedDataset, weights: KeptWeights, device: torch.device
    ) -> None:
        self.spec, self.dataset, self.weights, self.device = spec, dataset, weights, device
        self.model = spec["model"]
        self.dtype: torch.dtype = getattr(torch, spec["dtype"])
        self.network = build_for(spec, dataset, n_seeds=1).requires_grad_(True).to(device)
        rows = select_sample_set(dataset, spec["sample_set"]["split"], spec["sample_set"]["limit"])
        self.stored = torch.from_numpy(dataset.images[rows]).to(device)
        self.labels = np.asarray(dataset.labels)[rows]
        # NC3 is about the feature layer, whether its features are dumped or not
        self.last = spec["feature_layer"] if is_own(self.model) else feature_layer(self.model)
        self.readout = self._readout()
        self.wanted = [*layers_of(spec, dataset)]
        self.layers = layers_of({**spec, "layers": [*spec["layers"], self.last]}, dataset)
        self.widths = {name: layer.width for name, layer in self.layers.items()}

        training = np.flatnonzero(np.asarray(dataset.split) == SPLITS["train"])
        if not len(training):
            raise FeaturespaceError(f"the data set {spec['dataset']!r} has no training split")
        self.training = torch.from_numpy(dataset.images[training]).to(device)
        labels = np.asarray(dataset.labels, dtype=np.int64)[training]
        self.training_labels = np.stack([self._trained_with(labels, seed) for seed in weights.seeds])  # (S, N)
        # where the labels of the sample set are among these; None: no other labels were given, or not to all of it
        shuffled = spec["task"] == "shuffled-labels" and np.isin(rows, training).all()
        self.given = np.searchsorted(training, rows) if shuffled else None
        self.min_norm: np.ndarray | None = None  # (S, K, d)
        if self.model["kind"] == "linear":
            inputs = dataset.inputs(training, np.float64).reshape(len(training), -1)
            self.min_norm = min_norm_solutions(inputs, self.training_labels, dataset.n_classes, spec["output_scale"])

    def _readout(self) -> str | None:
        """Name the dense layer that reads the features and gives the prediction, if there is one."""
        if not isinstance(self.network, OwnNetwork):
            return OUTPUT if self.spec["head"] is None else None
        found = self.network.find_readout(self.last)
        if found is None:
            return None
        path, inputs, tap = found
        features = pool(tap[None], self.spec["pooling"])[0]
        return path if features.shape == inputs.shape and torch.allclose(features, inputs, rtol=1e-4) else None

    def _trained_with(self, labels: np.ndarray, seed: int) -> np.ndarray:
        """Return the labels (N,) that a seed was trained with."""
        return shuffled(labels, seed, self.spec["recipe"]) if self.spec["task"] == "shuffled-labels" else labels

    def _inputs(self, stored: Tensor, rows: slice | Tensor) -> Tensor:
        """Return network inputs of a block, (1, B, *input shape)."""
        return scale_inputs(stored[rows], self.dataset.offset, self.dataset.scale, self.dtype)[None]

    @torch.no_grad()
    def _forward(self, start: int, stop: int, order: Tensor | None = None) -> dict[str, Tensor]:
        """Return output and layers of a block of the sample set, or of an order (N,) of it: {name: (B, d)}."""
        rows = slice(start, stop) if order is None else order[start:stop]
        prediction, taps = self.network(self._inputs(self.stored, rows))
        return {PREDICTION: prediction[0]} | {
            layer: pool(taps[layer], self.spec["pooling"])[0] for layer in self.widths
        }

    def measure(self, seed: int, step: int) -> Values:
        """Measure one seed's network at one kept step."""
        state = self.weights.read([seed], step)
        self.network.load_state_dict(state)
        name = f"recipe {self.spec['recipe']}, seed {seed}, step {step}"
        values = self._nearest_means(state, name, seed) + self._at_the_training_split(seed)
        if self.min_norm is not None:
            names = [*layer_names(self.model), OUTPUT]
            matrices = [state[f"{layer}.weight"][0].to(torch.float64).numpy() for layer in names]
            values += linear_measures(matrices, self.min_norm[self.weights.seeds.index(seed)])
        return values + self._in_training_mode(name, seed)

    def _nearest_means(self, state: Mapping[str, Tensor], name: str, seed: int) -> Values:
        """Measure what the class means of every layer tell: NCC accuracy and NC4, and of the feature layer NC3.

        And C over the labels that were given, where they are not the true ones.
        """
        self.network.eval()
        present = np.unique(self.labels)
        values: Values = []
        answers = np.empty(0)
        widths = {PREDICTION: self.dataset.n_classes} | self.widths
        bounds = _block_bounds(len(self.stored), FORWARD_ROWS)
        for layer, rows in _features_by_layer(self._forward, bounds, widths, self.dtype, self.device, name):
            if layer == PREDICTION:
                answers = torch.cat([block.argmax(dim=1) for block in rows.native()]).cpu().numpy()
                continue
            classes = class_scatter(rows, self.labels)
            if layer in self.wanted:
                nearest = present[classes.nearest(rows)]
                values.append((layer, "ncc_accuracy", float(np.mean(nearest == self.labels))))
                values.append((layer, "nc4_mismatch", float(np.mean(nearest != answers))))
                if self.given is not None:
                    given = self.training_labels[self.weights.seeds.index(seed)][self.given]
                    values.append((layer, "compression_given", class_scatter(rows, given).compression))
            if layer == self.last and self.readout is not None:
                weight = state[f"{self.readout}.weight"][0].to(torch.float64).numpy()
                whole = len(present) == len(weight)  # else a class has no mean
                nc3 = self_duality(weight, classes.offsets().cpu().numpy()) if whole else float("nan")
                values.append(("", "nc3", nc3))
        return values

    def _at_the_training_split(self, seed: int) -> Values:
        """Measure loss and gradient on the labels that this seed was trained with."""
        self.network.eval()
        labels = torch.from_numpy(self.training_labels[self.weights.seeds.index(seed)]).to(self.device)[None]  # (1, N)
        n_samples = len(self.training)
        # adding gradients up costs as much as a few hundred samples' passes through dense layers
        n_rows = 4 * FORWARD_ROWS if self.model["kind"] in STACKED_KINDS else FORWARD_ROWS
        blocks = (
            (self._inputs(self.training, slice(start, stop)), labels[:, start:stop])
            for start, stop in pairwise(_block_bounds(n_samples, n_rows))
        )
        loss, norm = loss_and_gradient_norm(
            self.network, blocks, n_samples, self.spec["loss"], self.spec["output_scale"]
        )
        return [("", "train_loss", loss), ("", "gradient_norm", norm)]

    def _in_training_mode(self, name: str, seed: int) -> Values:
        """Measure layers with each batch of the shuffled sample set normalised by its own statistics.

        That moves the running statistics, so the network has to be loaded anew before anything else is measured.
        """
        normalising = normalisations(self.network)
        n_samples = len(self.stored)
        if not normalising or n_samples < 2:
            return []
        self.network.eval()
        for module in normalising:
            module.train()
        values: Values = []
        source = seed_sequence(seed, self.spec["recipe"], EVALUATION_ORDER)
        shuffle = np.random.default_rng(source).permutation(n_samples)
        forward = partial(self._forward, order=torch.from_numpy(shuffle).to(self.device))
        bounds = even_bounds(n_samples, self.spec["batch_size"], least=2)  # a single sample has no statistics
        widths = {layer: self.widths[layer] for layer in self.widths if layer in self.wanted}
        for layer, rows in _features_by_layer(forward, bounds, widths, self.dtype, self.device, name):
            found = measure(rows, self.labels[shuffle], rank_energy=self.spec["rank_energy"])
            values += [
                (layer, f"{quantity}_training", getattr(found, quantity))
                for quantity in ("compression", "discrimination", "numerical_rank")
            ]
        return values


def measure_run(
    spec: Mapping[str, Any], dataset: PreparedDataset, weights: KeptWeights, device: torch.device
) -> pd.DataFrame:
    """Measure every seed's network at the first and the last kept step.

    Parameters
    ----------
    spec
        As the rule `measure_networks` gets it.

    Returns
    -------
    DataFrame
        COLUMNS, a row a number: `layer` is empty and `depth` missing where it is one of the whole network.

    Raises
    ------
    FeaturespaceError
        If a file of weights is not the one that training wrote, or a feature is not finite.
    """
    torch.set_num_threads(spec["threads"])
    measurer = _Measurer(spec, dataset, weights, device)
    steps = list(dict.fromkeys([weights.steps[0], weights.steps[-1]]))
    networks = [(seed, step) for seed in weights.seeds for step in steps]
    table = []
    for seed, step in progress(networks, f"networks of {spec['recipe']}", "network"):
        table += [
            {
                "dataset": spec["dataset"],
                "recipe": spec["recipe"],
                "block": spec["block"],
                "seed": seed,
                "step": step,
                "epoch": weights.epochs[weights.steps.index(step)],
                "layer": layer,
                "depth": measurer.layers[layer].depth if layer else np.nan,
                "quantity": quantity,
                "value": value,
            }
            for layer, quantity, value in measurer.measure(seed, step)
        ]
    return pd.DataFrame(table, columns=COLUMNS)
