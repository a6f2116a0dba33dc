"""What can be said of an architecture without building it: its layers, by name and in order of depth.

Kept free of torch, so that a config can be checked, and a dry run planned, without importing it. The networks
themselves are in `networks` and `convnets`; tests hold the three to the same names and sizes.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

DEEP_KINDS = ("resnet", "wide-resnet", "vgg", "densenet", "torchvision")
CONVOLUTIONAL_KINDS = ("cnn", "autoencoder", *DEEP_KINDS)
HEADED_KINDS = ("mlp", "cnn", *DEEP_KINDS)  # a head, or a projection head, may stand on their features
INPUT_LAYER = "input"  # layer 0 of every architecture: what enters the network
DENSENET121_BLOCKS = (6, 12, 24, 16)
# torchvision's networks that get the stem for small images; any other of its networks is taken as it is
SMALL_STEMS = ("resnet18", "resnet34", "resnet50", "vgg11_bn", "vgg13_bn", "vgg16_bn", "densenet121")


def is_own(model: Mapping[str, Any]) -> bool:
    """Say whether a network is built elsewhere, so that only the network itself knows its layers."""
    return model["kind"] in ("module", "timm") or (model["kind"] == "torchvision" and model["name"] not in SMALL_STEMS)


def is_glob(layer: str) -> bool:
    """Say whether a layer is given as a glob, and not as the path of one module."""
    return any(sign in layer for sign in "*?[")


def matches_layer(glob: str, path: str) -> bool:
    """Say whether a module's path, parts between dots, fits a glob: `*`, `?` and `[...]` stay within a part.

    A part `**` stands for any number of parts, none too.
    """

    def fits(wanted: list[str], parts: list[str]) -> bool:
        if not wanted:
            return not parts
        if wanted[0] == "**":
            return any(fits(wanted[1:], parts[i:]) for i in range(len(parts) + 1))
        return bool(parts) and fnmatchcase(parts[0], wanted[0]) and fits(wanted[1:], parts[1:])

    return fits(glob.split("."), path.split("."))


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
    if is_own(model):
        raise ValueError("only the network itself knows its layers")
    match model["kind"]:
        case "mlp":
            return [f"hidden{i}" for i in range(1, len(model["widths"]) + 1)]
        case "linear":
            # The last of the `depth` weight matrices is the classifier, whose output is never measured.
            return [f"linear{i}" for i in range(1, model["depth"])]
        case "hybrid":
            nonlinear = [f"hidden{i}" for i in range(1, model["nonlinear"] + 1)]
            return nonlinear + [f"linear{i}" for i in range(1, model["linear"] + 1)]
        case "cnn":
            return [*(f"conv{i}" for i in range(1, len(model["channels"]) + 1)), "hidden"]
        case "autoencoder":
            return [*(f"conv{i}" for i in range(1, len(model["channels"]) + 1)), "latent"]
        case "noise":
            return ["noise"]
        case kind if kind in DEEP_KINDS:
            return [*(f"stage{i}" for i in range(1, n_stages(model) + 1)), "pooled"]
        case kind:
            raise ValueError(f"unknown architecture: {kind!r}")


def n_stages(model: Mapping[str, Any]) -> int:
    """Return how many stages, each at one resolution, a deep convolutional network has."""
    match model["kind"]:
        case "resnet":
            return 4
        case "wide-resnet":
            return 3
        case "vgg":
            return 5
        case "densenet":
            return len(model["blocks"])
        case "torchvision":
            return 5 if model["name"].startswith("vgg") else 4
        case kind:
            raise ValueError(f"not a deep convolutional network: {kind!r}")


def minimum_side(model: Mapping[str, Any]) -> int:
    """Return the fewest pixels that each side of an image must have; 1 where the size does not matter.

    Strided and padded convolutions leave at least one pixel, and so do VGG's maxima, left out once there is one; the
    maxima of a `cnn` and the averages between dense blocks halve, rounding down.
    """
    match model["kind"]:
        case "cnn":
            return 2 ** len(model["channels"])
        case "densenet":
            # the stem leaves ceil(side / stride)
            return model["stem_stride"] * (2 ** (len(model["blocks"]) - 1) - 1) + 1
        case "torchvision" if model["name"] == "densenet121":
            return 2 ** (len(DENSENET121_BLOCKS) - 1)
        case _:
            return 1


def feature_layer(model: Mapping[str, Any]) -> str:
    """Name the layer whose P-vector stands for the model: the classifier's input, or an autoencoder's latent."""
    return layer_names(model)[-1]


def layer_depth(model: Mapping[str, Any], layer: str) -> int:
    """Return the index of a layer, counted from the input, which is 0."""
    return [INPUT_LAYER, *layer_names(model)].index(layer)
