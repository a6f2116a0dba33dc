"""What can be said of an architecture without building it: its layers, by name and in order of depth.

Kept free of torch, so that a config can be checked, and a dry run planned, without importing it. The networks
themselves are in `networks`; a test holds the two to the same names.
"""

from collections.abc import Mapping
from typing import Any

CONVOLUTIONAL_KINDS = ("cnn", "autoencoder")
INPUT_LAYER = "input"  # layer 0 of every architecture: what enters the network


def layer_names(model: Mapping[str, Any]) -> list[str]:
    """Name the taps of a model, shallowest first, the input and the output left out.

    Parameters
    ----------
    model
        The model section of a recipe, as plain data: `kind` and that kind's own keys.

    Raises
    ------
    ValueError
        If `kind` is not an architecture of this library.
    """
    match model["kind"]:
        case "mlp":
            return [f"hidden{i}" for i in range(1, len(model["widths"]) + 1)]
        case "linear":
            # The last of the `depth` weight matrices is the classifier, whose output is never measured.
            return [f"linear{i}" for i in range(1, model["depth"])]
        case "cnn":
            return [*(f"conv{i}" for i in range(1, len(model["channels"]) + 1)), "hidden"]
        case "autoencoder":
            return [*(f"conv{i}" for i in range(1, len(model["channels"]) + 1)), "latent"]
        case kind:
            raise ValueError(f"unknown architecture: {kind!r}")


def feature_layer(model: Mapping[str, Any]) -> str:
    """Name the layer whose P-vector stands for the model: the classifier's input, or an autoencoder's latent."""
    return layer_names(model)[-1]


def layer_depth(model: Mapping[str, Any], layer: str) -> int:
    """Return the index of a layer, counted from the input, which is 0."""
    return [INPUT_LAYER, *layer_names(model)].index(layer)
