"""What a run's networks make of samples: tapped layers, at kept steps, for every seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featurespace.architectures import layer_depth, layer_names, matches_layer
from featurespace.datasets import PreparedDataset
from featurespace.errors import FeaturespaceError
from featurespace.networks import Inputs, Network, OwnNetwork, build_network, stacks_of
from featurespace.script import progress
from featurespace.stores import FeatureWriter
from featurespace.streams import WriteBehind
from featurespace.weights import KeptWeights

FORWARD_ROWS = 256  # samples a forward pass: more of them leave the processor's cache
BUNDLE_BYTES = 8 * 2**20  # of features handed to the writing thread at once: a small network's passes are too short
BUNDLES_BEHIND = 2  # that wait to be written or are being written


def pool(tap: Tensor, pooling: str) -> Tensor:
    """Turn a tap into rows (S, B, d), in the order of its entries, or by `average`.

    That averages maps (S, B, c, h, w) over space, to (S, B, c), and tokens (S, B, t, d) over tokens, to (S, B, d).
    """
    if tap.ndim == 5 and pooling == "average":
        return tap.mean((3, 4))
    if tap.ndim == 4 and pooling == "average":
        return tap.mean(2)
    return tap.flatten(2)


def build_for(spec: Mapping[str, Any], dataset: PreparedDataset, n_seeds: int) -> Network:
    """Build the network of S seeds that a run's kept weights fit, for evaluation and without gradients."""
    dtype = getattr(torch, spec["dtype"])
    network = build_network(
        spec["model"],
        dataset.input_shape,
        dataset.n_classes,
        n_seeds,
        dtype,
        projection=spec["projection"],
        head=spec["head"],
    )
    if isinstance(network, OwnNetwork):
        network.tap(spec["taps"])
    return network.eval().requires_grad_(False)


@dataclass(frozen=True)
class Layer:
    """A layer: its number of features, and its depth, counted from the input, which is 0.

    In a network that was built elsewhere, the depth counts the layers that its recipe names.
    """

    width: int
    depth: int


def layers_of(spec: Mapping[str, Any], dataset: PreparedDataset) -> dict[str, Layer]:
    """Return {name: layer} of the layers that `spec` asks for, shallowest first.

    Raises
    ------
    FeaturespaceError
        If the architecture has no layer of some name.
    """
    network = build_for(spec, dataset, n_seeds=1)
    if isinstance(network, OwnNetwork):
        depths = {layer: depth for depth, layer in enumerate(network.layers, start=1)}
        names = [layer for layer in depths if any(matches_layer(glob, layer) for glob in spec["layers"])]
    else:
        names = [layer for layer in layer_names(spec["model"]) if layer in spec["layers"]]
        depths = {layer: layer_depth(spec["model"], layer) for layer in names}
        for layer in spec["layers"]:
            if layer not in names:
                raise FeaturespaceError(
                    f"layers: no layer {layer!r} in this {spec['model']['kind']}: "
                    f"{', '.join(layer_names(spec['model']))}"
                )
    _, taps = network(torch.zeros(1, 1, *dataset.input_shape, dtype=getattr(torch, spec["dtype"])))
    return {layer: Layer(pool(taps[layer], spec["pooling"]).shape[2], depths[layer]) for layer in names}


def store_attributes(spec: Mapping[str, Any], layers: Mapping[str, Layer]) -> dict[str, Any]:
    """Return what a feature store says of itself: where its features come from, and each layer's depth."""
    return {
        "dataset": spec["dataset"],
        "recipe": spec["recipe"],
        "block": spec["block"],
        "depths": {name: layer.depth for name, layer in layers.items()},
        "made_by": dict(spec),
    }


def dump_run(
    spec: Mapping[str, Any],
    dataset: PreparedDataset,
    rows: np.ndarray,
    weights: KeptWeights,
    steps: Sequence[int],
    writer: FeatureWriter,
    device: torch.device,
) -> None:
    """Write the features of every layer and seed at some kept steps, in evaluation mode and without noise.

    A thread writes features, and computes their checksums, while the next ones are computed. Whatever the number of
    samples and steps, at most BUNDLES_BEHIND + 1 bundles of features are in memory. A bundle is those of all layers and
    of all seeds that share a network, of as many passes of FORWARD_ROWS samples as make BUNDLE_BYTES, at least one; the
    one being written may be there twice. Beside them are the taps of one pass and the samples, as `Inputs` holds them.

    Parameters
    ----------
    spec
        As the rules `dump_features` and `dump_ends` get it.
    rows
        (n_samples,) rows of the data set, in the store's order.
    steps
        Which of the kept steps, in the store's order.
    writer
        Made with the widths of `layers_of`, the seeds of the weights, and the steps.

    Raises
    ------
    FeaturespaceError
        If a file of weights is not the one that training wrote.
    """
    torch.set_num_threads(spec["threads"])
    dtype = getattr(torch, spec["dtype"])
    stored = torch.from_numpy(dataset.images[rows]).to(device)
    inputs = Inputs(stored, dataset.offset, dataset.scale, dtype)
    layers = layers_of(spec, dataset)
    stacks = stacks_of(spec["model"], weights.seeds)
    network = build_for(spec, dataset, n_seeds=len(stacks[0])).to(device)
    total = len(steps) * len(stacks) * len(rows)
    with (
        torch.no_grad(),
        progress(total, f"features of {spec['recipe']}", "sample") as bar,
        WriteBehind(BUNDLES_BEHIND) as behind,
    ):
        for step_index, step in enumerate(steps):
            for stack in stacks:
                network.load_state_dict(weights.read(stack, step))
                seed_indices = [weights.seeds.index(seed) for seed in stack]
                bundle: list[dict[str, np.ndarray]] = []
                first = n_bytes = 0
                for start in range(0, len(rows), FORWARD_ROWS):
                    x = inputs[start : start + FORWARD_ROWS]  # (B, ...)
                    _, taps = network(x.expand(len(stack), *x.shape))
                    features = {layer: pool(taps[layer], spec["pooling"]).float().cpu().numpy() for layer in layers}
                    bundle.append(features)
                    n_bytes += sum(block.nbytes for block in features.values())
                    stop = start + len(x)
                    if n_bytes >= BUNDLE_BYTES or stop == len(rows):
                        behind.submit(_write, writer, bundle, seed_indices, step_index, first)
                        bundle, first, n_bytes = [], stop, 0
                    bar.update(len(x))


def _write(
    writer: FeatureWriter,
    bundle: Sequence[Mapping[str, np.ndarray]],
    seed_indices: Sequence[int],
    step_index: int,
    first: int,
) -> None:
    """Write the {layer: (S, B, d)} of consecutive passes, rows `first` onwards of some seeds at one step."""
    for layer in bundle[0]:
        for s, seed_index in enumerate(seed_indices):
            blocks = [features[layer][s] for features in bundle]
            block = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
            writer.write(layer, seed_index, step_index, first, block)
