"""Weights that were saved elsewhere: read, held against the network, and kept as those that are trained here are.

A file is a state dict: names and tensors, as `torch.nn.Module.state_dict` gives them. What it may be wrapped in is
unwrapped: a mapping that holds it beside other things, under `state_dict`, `model_state_dict` or `model`, and names
that all begin with `module.` or `_orig_mod.`, as parallel and compiled modules have them.
"""

import logging
import pickle
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from featurespace.datasets import PreparedDataset
from featurespace.errors import FeaturespaceError
from featurespace.script import progress
from featurespace.training import TrainedRun, Trainer, facts_of
from featurespace.weights import step_file, write_tensors

logger = logging.getLogger(__name__)

WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")
MOST_NAMED = 5  # names that an error lists


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict; nothing in the file is run.

    Raises
    ------
    FeaturespaceError
        One line that names the file, if it holds anything but tensors by name, or is damaged.
    """
    try:
        if Path(path).suffix == ".safetensors":
            return _unprefixed(safetensors.torch.load_file(path))
        # of a file that holds more than tensors and plain values, nothing is read
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FeaturespaceError(
            f"{path}: holds more than tensors, so that reading it would run code; save `network.state_dict()`"
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, safetensors.SafetensorError) as error:
        raise FeaturespaceError(
            f"{path}: cannot be read as a file of weights: {' '.join(str(error).split())}"
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise FeaturespaceError(f"{path}: holds a {type(content).__name__} where tensors by name are needed")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise FeaturespaceError(
                f"{path}: {name!r} is a {type(tensor).__name__} where a tensor is needed; save `network.state_dict()`"
            )
    return _unprefixed(dict(content))


def _unprefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def fitted(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """Return a state dict as a network of one seed loads it, with the axis of seeds and in the network's types.

    Parameters
    ----------
    state
        {name: (...)}.
    wanted
        The network's own {name: (1, ...)}.

    Raises
    ------
    FeaturespaceError
        One line that names the file and the key: one that is missing, that the network has not, of another shape, of
        another kind of numbers, or with a number that is not finite.
    """
    missing, unknown = ([name for name in a if name not in b] for a, b in ((wanted, state), (state, wanted)))
    if missing or unknown:
        parts = [f"{what} {_few(names)}" for what, names in (("lacks", missing), ("has unknown", unknown)) if names]
        raise FeaturespaceError(f"{path}: is not of this network: it {' and '.join(parts)}")
    fits = {}
    for name, own in wanted.items():
        tensor = state[name]
        if tensor.shape != own.shape[1:]:
            raise FeaturespaceError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, and the network's has {tuple(own.shape[1:])}"
            )
        if tensor.is_floating_point() != own.is_floating_point() or tensor.is_complex() != own.is_complex():
            raise FeaturespaceError(f"{path}: {name} is of type {tensor.dtype}, and the network's of {own.dtype}")
        if not torch.isfinite(tensor).all():
            raise FeaturespaceError(f"{path}: {name} has a number that is not finite")
        fits[name] = tensor.to(own.dtype)[None]
    return fits


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def import_block(
    spec: Mapping[str, Any],
    files: Sequence[str | Path],
    dataset: PreparedDataset,
    device: torch.device,
    folder: Path,
    layers: Sequence[str] | None = None,
) -> TrainedRun:
    """Take over the weights of a block of seeds, and evaluate each step as a step of training is.

    Parameters
    ----------
    spec
        As the rule `import_weights` gets it: as `train_run`, and in `weights` of each file its seed, step and epoch.
    files
        Those files, in that order: by seed, and then by step.
    folder
        Where the kept weights are written as they come.
    layers
        As `training.train_block` takes them.

    Raises
    ------
    FeaturespaceError
        If a file is not a state dict of the network, or the network not what the recipe says.
    """
    torch.set_num_threads(spec["threads"])
    shutil.rmtree(folder / "weights", ignore_errors=True)
    history, checksums, trainer = [], {}, None
    with progress(len(files), f"reading weights of {spec['recipe']}", "file") as bar:
        for seed in spec["seeds"]:
            trainer = Trainer(spec, dataset, [seed], device, folder, layers=layers)
            wanted = trainer.network.state_dict()
            for saved, path in zip(spec["weights"], files, strict=True):
                if saved["seed"] != seed:
                    continue
                state = fitted(read_state(path), wanted, path)
                trainer.network.load_state_dict(state)
                kept = {name: tensor[0] for name, tensor in state.items()}
                name = step_file(seed, saved["step"])
                checksums[name] = write_tensors(folder / "weights" / name, kept)
                when = {"step": saved["step"], "epoch": saved["epoch"], "learning_rate": float("nan")}
                try:
                    history += [row | when for row in trainer.evaluate(saved["step"])]
                except FeaturespaceError as error:
                    raise FeaturespaceError(f"{path}: {error}") from error
                bar.update(1)
    assert trainer is not None
    of_first = [saved for saved in spec["weights"] if saved["seed"] == spec["seeds"][0]]
    steps, epochs = ([saved[key] for saved in of_first] for key in ("step", "epoch"))
    converged = dict.fromkeys(spec["seeds"])
    facts = facts_of(spec, steps, epochs, converged, trainer.network.n_parameters, device)
    return TrainedRun(folder / "weights", history, facts, checksums)
