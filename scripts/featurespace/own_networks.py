"""Networks that are built elsewhere: by a function of the user's, by timm or by torchvision.

They are plain modules of (B, *input shape) -> prediction, (B, K) or (B, *input shape). `networks` gives them the axis
of seeds. Their layers are modules, by path, seen by hooks: the output that a module has in a forward pass, in
evaluation mode. Of a tuple or list it is the first member that is a tensor, of a mapping likewise; of a module that
runs several times in a pass, what the last run gives. The order of layers is that in which modules finish.
"""

import difflib
import importlib
import inspect
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from featurespace.architectures import INPUT_LAYER, is_glob, matches_layer
from featurespace.errors import FeaturespaceError
from featurespace.own_errors import told

TRIAL_ROWS = 3  # samples of a trial pass: a number that no other dimension is likely to have
MOST_NAMED = 30  # layers that an error lists
# what feature stores call their coordinates, and what stands for the samples themselves
RESERVED_LAYERS = (INPUT_LAYER, "seed", "step", "epoch", "sample", "label")


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Give everything that draws from the global generators (PyTorch's, NumPy's, Python's) this seed, for a while."""
    # someone else's code draws from the old generators, whatever new code should do
    own, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002
    is_cuda = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if is_cuda else []):
        torch.default_generator.manual_seed(seed)
        if is_cuda:
            torch.cuda.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(own)
            np.random.set_state(numpys)  # noqa: NPY002


# --- making one -------------------------------------------------------------------------------------------------------


def name_of(model: Mapping[str, Any]) -> str:
    """Write which network this is, as a user does."""
    return model["factory"] if model["kind"] == "module" else f"{model['kind']}'s {model['name']}"


def fit_shape(model: Mapping[str, Any], input_shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape that the network sees of samples of `input_shape`, once `fit_inputs` has changed them."""
    wanted = model["inputs"] or {}
    if not wanted:
        return tuple(input_shape)
    channels, height, width = input_shape
    side = wanted["side"]
    return (wanted["channels"] or channels, *((side, side) if side else (height, width)))


def fit_inputs(model: Mapping[str, Any], x: Tensor) -> Tensor:
    """Change images (B, c, h, w) as `inputs` says: resized, bilinear and antialiased, then the grey one repeated."""
    wanted = model["inputs"] or {}
    if wanted.get("side"):
        side = (wanted["side"], wanted["side"])
        x = F.interpolate(x, size=side, mode="bilinear", align_corners=False, antialias=True)
    if wanted.get("channels") and x.shape[1] == 1:
        x = x.expand(-1, wanted["channels"], -1, -1)
    return x


def make_module(model: Mapping[str, Any], input_shape: Sequence[int], n_classes: int) -> nn.Module:
    """Build the network of a recipe, with the parameters that its builder gives it, from the global generators.

    Parameters
    ----------
    model
        The model section of a recipe, as plain data, of a kind that `architectures.is_own` knows.
    input_shape
        Of a sample: (channels, height, width), or (n_features,).

    Raises
    ------
    FeaturespaceError
        One line, if there is no such network, or its builder fails, or what it returns is no module.
    """
    shape = fit_shape(model, input_shape)
    arguments: dict[str, Any] = dict(model["arguments"])
    factory: Callable[..., Any]
    match model["kind"]:
        case "module":
            factory = _import_factory(model["factory"])
            offered = {"num_classes": n_classes, "in_channels": shape[0], "input_shape": shape}
            named = _keywords_of(factory)
            arguments = {key: value for key, value in offered.items() if key in named} | arguments
        case "timm":
            import timm

            if not timm.is_model(model["name"]):
                raise _no_such_network("timm", model["name"], timm.list_models())
            factory = timm.create_model
            sizes = {"model_name": model["name"], "num_classes": n_classes, "in_chans": shape[0]}
            arguments = {**sizes, **arguments, "pretrained": False}
        case _:
            import torchvision.models

            names = torchvision.models.list_models(module=torchvision.models)
            if model["name"] not in names:
                raise _no_such_network("torchvision", model["name"], names)
            factory = torchvision.models.get_model
            arguments = {"name": model["name"], "num_classes": n_classes, **arguments, "weights": None}
    said = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    try:
        module = factory(**arguments)
    except (Exception, SystemExit) as error:
        raise FeaturespaceError(f"model: {name_of(model)} cannot be built with ({said}): {told(error)}") from error
    if not isinstance(module, nn.Module):
        raise FeaturespaceError(
            f"model: {name_of(model)} gives a {type(module).__name__}, where a torch.nn.Module is needed"
        )
    if any(is_lazy(tensor) for tensor in (*module.parameters(), *module.buffers())):
        trial(model, module, input_shape)
    return module


def _import_factory(factory: str) -> Callable[..., Any]:
    path, _, name = factory.partition(":")
    try:
        found: Any = importlib.import_module(path)
    except (Exception, SystemExit) as error:
        raise FeaturespaceError(f"model.factory: {path} cannot be imported: {told(error)}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            there = [other for other in dir(found) if not other.startswith("_") and callable(getattr(found, other))]
            raise FeaturespaceError(f"model.factory: {path} has no {name!r}; {listed(name, there)}")
        found = getattr(found, part)
    if not callable(found):
        raise FeaturespaceError(f"model.factory: {factory} is no function or class, but of type {type(found).__name__}")
    return found


def _keywords_of(factory: Callable[..., Any]) -> set[str]:
    """Name the parameters that a function, or a class's constructor, takes by keyword."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # some are written in C and do not tell
        return set()
    return {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def _no_such_network(library: str, name: str, names: Sequence[str]) -> FeaturespaceError:
    return FeaturespaceError(f"model.name: {library} has no network {name!r}; {listed(name, names)}")


def listed(given: str, names: Sequence[str]) -> str:
    """List the names that there are, the nearest first, and of many the nearest only."""
    if not names:
        return "there are none"
    near = {name: difflib.SequenceMatcher(None, given, name).ratio() for name in names}
    nearest = sorted(near, key=lambda name: -near[name])  # stable: as they come where they are as near
    shown, rest = nearest[:MOST_NAMED], len(nearest) - MOST_NAMED
    more = f" and {rest} more" if rest > 0 else ""
    return f"there are, the nearest first: {', '.join(shown)}{more}"


# --- looking into one -------------------------------------------------------------------------------------------------


def output_of(value: Any) -> Tensor | None:
    """Return what a module's output is as a layer: itself, or the first tensor of a tuple, list or mapping."""
    members = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else [value]
    return next((member for member in members if isinstance(member, Tensor)), None)


@contextmanager
def watched(module: nn.Module, paths: Sequence[str], seen: dict[str, Tensor]) -> Iterator[None]:
    """Put copies of what some submodules give in a forward pass into `seen`, in the order in which they finish.

    Copies, because rectifiers and sums in place change the output of what ran before them.
    """

    def note(path: str, output: Any) -> None:
        tensor = output_of(output)
        if tensor is not None and tensor.is_floating_point():
            seen.pop(path, None)  # of several runs the last
            seen[path] = tensor.clone()

    parts = dict(module.named_modules(remove_duplicate=False)) if paths else {}
    hooks = [parts[path].register_forward_hook(lambda _, __, output, path=path: note(path, output)) for path in paths]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def trial(
    model: Mapping[str, Any],
    run: Callable[[Tensor], Any],
    input_shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    device: torch.device | None = None,
) -> Any:
    """Pass a few standard normal samples, always the same, through a network, and return what it gives.

    Parameters
    ----------
    seed
        Where the global generators begin, from which the network may draw.

    Raises
    ------
    FeaturespaceError
        One line, if the network fails on them.
    """
    x = torch.randn(TRIAL_ROWS, *input_shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    with seeded(seed, device), torch.no_grad():
        try:
            return run(fit_inputs(model, x))
        except FeaturespaceError:
            raise
        except Exception as error:
            shape = tuple(fit_inputs(model, x).shape)
            raise FeaturespaceError(
                f"model: {name_of(model)} fails on inputs of shape {shape}: {told(error)}"
            ) from error


def prediction_of(model: Mapping[str, Any], output: Any, n_rows: int) -> Tensor:
    """Return a network's output if it is one tensor with a row a sample.

    Raises
    ------
    FeaturespaceError
        One line that says what it is instead.
    """
    if not isinstance(output, Tensor):
        what = type(output).__name__
        raise FeaturespaceError(
            f"model: {name_of(model)} returns a {what} where one tensor is needed, of logits or of a reconstruction; "
            "give it a forward that returns that alone"
        )
    if output.ndim < 2 or len(output) != n_rows:
        raise FeaturespaceError(
            f"model: {name_of(model)} returns a tensor of shape {tuple(output.shape)} for {n_rows} samples: its first "
            "dimension should be the sample, and another one follow"
        )
    return output


def choose_layers(
    globs: Sequence[str], run: Sequence[str], there: Sequence[str], n_rows_of: Mapping[str, int]
) -> list[str]:
    """Return the layers that a recipe asks for, by path, in the order in which they run.

    Parameters
    ----------
    globs
        Paths of modules, and globs.
    run
        The paths of the modules that a forward pass runs and that give a tensor, in order.
    there
        The paths of all modules.
    n_rows_of
        The length of the first dimension of what each of them gives on TRIAL_ROWS samples.

    Raises
    ------
    FeaturespaceError
        One line, if a path or a glob finds nothing, or something that cannot be a layer; it lists what can.
    """
    usable = [path for path in run if n_rows_of[path] == TRIAL_ROWS]
    chosen = set()
    for glob in globs:
        found = [path for path in usable if matches_layer(glob, path)]
        if not found and not is_glob(glob) and glob in run:
            raise FeaturespaceError(
                f"layers: what module {glob!r} gives has a first dimension of {n_rows_of[glob]} for {TRIAL_ROWS} "
                f"samples, where it should be the sample; {listed(glob, usable)}"
            )
        if not found:
            why = f"no module {glob!r} in this network"
            if any(matches_layer(glob, path) for path in there):
                why = (
                    f"{glob!r} is in this network, but is not run in a forward pass, or gives no tensor of real numbers"
                )
            raise FeaturespaceError(f"layers: {why}; {listed(glob, usable)}")
        chosen.update(found)
    for path in sorted(chosen):
        if (
            path in RESERVED_LAYERS
            or path.startswith("__")
            or not path.isascii()
            or "/" in path
            or not path.isprintable()
        ):
            raise FeaturespaceError(
                f"layers: a module called {path!r} cannot be a layer, a store has another use for it"
            )
        if f"feature_{path}" in chosen:
            raise FeaturespaceError(f"layers: {path!r} and 'feature_{path}' cannot both be layers of one store")
    return [path for path in run if path in chosen]
