"""What a run's networks make of samples: tapped layers, at kept steps, for every seed."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featurespace.architectures import layer_depth, layer_names
from featurespace.datasets import PreparedDataset
from featurespace.errors import FeaturespaceError
from featurespace.networks import Network, build_network, scale_inputs, stacks_of
from featurespace.script import progress
from featurespace.stores import FeatureWriter
from featurespace.weights import KeptWeights

FORWARD_ROWS = 256  # samples a forward pass


def pool(tap: Tensor, pooling: str) -> Tensor:
    """Turn a tap into rows: (S, B, c, h, w) -> (S, B, c) averaged over space, or (S, B, c h w); (S, B, d) stays."""
    if tap.ndim == 5 and pooling == "average":
        return tap.mean((3, 4))
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
    return network.eval().requires_grad_(False)


def layer_widths(spec: Mapping[str, Any], dataset: PreparedDataset) -> dict[str, int]:
    """Return {layer: number of features} of the layers to dump, shallowest first.

    Raises
    ------
    FeaturespaceError
        If the architecture has no layer of some name.
    """
    names = layer_names(spec["model"])
    for layer in spec["layers"]:
        if layer not in names:
            raise FeaturespaceError(f"layers: no layer {layer!r} in this {spec['model']['kind']}: {', '.join(names)}")
    network = build_for(spec, dataset, n_seeds=1)
    _, taps = network(torch.zeros(1, 1, *dataset.input_shape, dtype=getattr(torch, spec["dtype"])))
    return {layer: pool(taps[layer], spec["pooling"]).shape[2] for layer in names if layer in spec["layers"]}


def store_attributes(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a feature store says of itself: where its features come from, and each layer's depth."""
    return {
        "dataset": spec["dataset"],
        "recipe": spec["recipe"],
        "block": spec["block"],
        "depths": {layer: layer_depth(spec["model"], layer) for layer in spec["layers"]},
        "made_by": dict(spec),
    }


def _ranges(n_samples: int, rows_per_chunk: Sequence[int]) -> list[tuple[int, int]]:
    """Cut samples into ranges of at most FORWARD_ROWS, none of which crosses the edge of a chunk."""
    edges = {n_samples}
    for rows in (FORWARD_ROWS, *rows_per_chunk):
        edges.update(range(0, n_samples, rows))
    ordered = sorted(edges)
    return list(pairwise(ordered))


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

    At most one chunk of each layer, for each seed that shares a network, is in memory.

    Parameters
    ----------
    spec
        As the rules `dump_features` and `dump_ends` get it.
    rows
        (n_samples,) rows of the data set, in the store's order.
    steps
        Which of the kept steps, in the store's order.
    writer
        Made with the widths of `layer_widths`, the seeds of the weights, and the steps.

    Raises
    ------
    FeaturespaceError
        If a file of weights is not the one that training wrote.
    """
    torch.set_num_threads(spec["threads"])
    dtype = getattr(torch, spec["dtype"])
    widths = layer_widths(spec, dataset)
    stored = torch.from_numpy(dataset.images[rows]).to(device)
    n_samples = len(rows)
    ranges = _ranges(n_samples, list(writer.rows_per_chunk.values()))
    stacks = stacks_of(spec["model"], weights.seeds)
    network = build_for(spec, dataset, n_seeds=len(stacks[0])).to(device)
    buffers = {
        layer: np.empty((len(stacks[0]), writer.rows_per_chunk[layer], width), dtype=np.float32)
        for layer, width in widths.items()
    }
    total = len(steps) * len(stacks) * n_samples
    with torch.no_grad(), progress(total, f"features of {spec['recipe']}", "sample") as bar:
        for step_index, step in enumerate(steps):
            for stack in stacks:
                network.load_state_dict(weights.read(stack, step))
                for start, stop in ranges:
                    x = scale_inputs(stored[start:stop], dataset.offset, dataset.scale, dtype)  # (B, ...)
                    _, taps = network(x.expand(len(stack), *x.shape))
                    for layer, buffer in buffers.items():
                        chunk = writer.rows_per_chunk[layer]
                        first = start // chunk * chunk
                        features = pool(taps[layer], spec["pooling"])  # (S, B, d)
                        buffer[:, start - first : stop - first] = features.float().cpu().numpy()
                        if stop % chunk == 0 or stop == n_samples:
                            for s, seed in enumerate(stack):
                                block = buffer[s, : stop - first]
                                writer.write(layer, weights.seeds.index(seed), step_index, first, block)
                    bar.update(stop - start)
