"""Recording features of a network while somebody else's loop trains it: three lines in that loop.

    recorder = Recorder("features.zarr", model, layers=["layer1", "blocks.*"], samples=x, labels=y, seed=0)
    ...
        recorder.record(step, epoch)
    ...
    recorder.close()

A recording is forward passes of fixed samples, in evaluation mode, without gradients, autocast or TF32, with hooks on
the chosen modules for just as long. Afterwards everything is as it was: modes of all modules, buffers, generators of
random numbers, hooks. So training with a recorder ends in the same bits as without.

A thread writes the features of one block of samples while those of the next are computed, and the last ones while
training goes on. Whatever the number of samples and steps, at most BUNDLES_BEHIND + 1 bundles of features are in
memory.
"""

import difflib
import logging
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from featurespace.architectures import matches_layer
from featurespace.files import full_disk_named
from featurespace.recordings import Facts, Recording
from featurespace.stores import ChunkWriter, StrPath
from featurespace.streams import WriteBehind

FORWARD_ROWS = 256  # samples a forward pass, if nothing else is asked for
BUNDLE_BYTES = 8 * 2**20  # of features handed to the writing thread at once: the passes of a small network are short
BUNDLES_BEHIND = 2  # that wait to be written or are being written
NAMED_PATHS = 100  # module paths that an error lists

NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?")
RESERVED = ("seed", "step", "epoch", "sample", "label")  # the coordinates of a store
POOLINGS = ("average", "flatten")

Pooling = str | Callable[[Tensor], Tensor]

logger = logging.getLogger(__name__)


class Recorder:
    """Records chosen layers of a network, at chosen steps of its training, into a feature store.

    Use it as a context manager, or call `close` at the end: until then there is no store. A loop that ends in an
    error leaves `<path>.partial`, of which `featurespace.recover(path)` makes a store; a new recorder with
    `mode="resume"` goes on with it.

    Parameters
    ----------
    path
        Where the store will be, such as `features.zarr`; its digest file `features.json` will be beside it.
    model
        The network. Wrappers (DataParallel, DistributedDataParallel, torch.compile) are looked through.
    layers
        Paths of modules as `model.named_modules()` gives them, or patterns: `*` and `?` match within a part between
        dots, `**` any number of parts. Or {name in the store: path of one module}. The output of a module, the first
        one if there are several, is what is recorded; in the store layers are ordered as they are first reached.
    samples
        (n_samples, ...), a tensor or an array, as the network takes them; copied. They stay on their device, and go
        to the network's block by block.
    labels
        (n_samples,) integers.
    seed
        What tells this network from others that are trained alike: the store's coordinate `seed`.
    sample_ids
        (n_samples,) integers, all different; 0, 1, ... without them. Stores with other ids are never compared.
    pooling
        What becomes of an output with more than two dimensions: `average` over space, (n, c, h, w) -> (n, c), or over
        tokens, (n, tokens, d) -> (n, d); `flatten`, (n, c·h·w) and (n, tokens·d); or a function of the output that
        returns (n, n_features).
    block_rows
        Samples a forward pass.
    forward
        Called with the network and a block of samples instead of `model(block)`, where that is not how it is called.
    dataset, recipe
        What the store says it is of; the recipe is the model's class if it is not given.
    attrs
        Plain data that the store is to carry besides, in its attribute `made_by`.
    mode
        What becomes of a store, or of a recording that did not end, at this path: `new` refuses to touch either;
        `replace` drops them, a store only once the new one is whole; `resume` goes on with the recording, of the same
        layers, seed and samples. The first step that is then recorded takes the place of itself and of those after it.

    Attributes
    ----------
    n_features
        {layer: n_features}, in the store's order.

    Raises
    ------
    ValueError
        If no module has such a path (the message lists those there are), a module is not called exactly once in a
        forward pass, its output has no row for each sample, or another argument does not fit.
    FeaturespaceError
        If there is something at the path that the mode does not allow for.
    """

    def __init__(
        self,
        path: StrPath,
        model: nn.Module,
        layers: Sequence[str] | Mapping[str, str],
        samples: Tensor | np.ndarray,
        labels: Tensor | np.ndarray | Sequence[int],
        seed: int,
        *,
        sample_ids: Tensor | np.ndarray | Sequence[int] | None = None,
        pooling: Pooling = "average",
        block_rows: int = FORWARD_ROWS,
        forward: Callable[[Any, Tensor], object] | None = None,
        dataset: str = "elsewhere",
        recipe: str | None = None,
        attrs: Mapping[str, Any] | None = None,
        mode: str = "new",
    ) -> None:
        self._model = _unwrapped(model)
        given = samples if isinstance(samples, Tensor) else torch.tensor(np.asarray(samples))
        self._samples = given.detach().clone()
        n_samples = len(self._samples) if self._samples.ndim else 0
        if n_samples == 0:
            raise ValueError(f"samples of shape {tuple(self._samples.shape)}: expected (n_samples, ...)")
        if not callable(pooling) and pooling not in POOLINGS:
            raise ValueError(f"pooling {pooling!r} is none of {', '.join(POOLINGS)}, and no function")
        if seed != int(seed) or seed < 0:
            raise ValueError(f"seed {seed} is no whole number from 0 on")
        if block_rows < 1:
            raise ValueError(f"block_rows {block_rows} is less than 1")
        ids = _integers("sample_ids", np.arange(n_samples) if sample_ids is None else sample_ids, n_samples)
        if len(np.unique(ids)) != n_samples:
            raise ValueError("sample_ids are not all different")
        self._pooling, self._block_rows, self._forward = pooling, block_rows, forward
        self._modules = _chosen(self._model, layers)
        with tapped(self._model, self._modules, pooling, forward) as pass_of:
            widths = {name: rows.shape[1] for name, rows in pass_of(self._samples[:block_rows]).items()}
        self.n_features: dict[str, int] = widths
        paths = {module: path for path, module in self._model.named_modules()}
        made_by = {
            "model": type(self._model).__name__,
            "taps": {name: paths[self._modules[name]] for name in widths},
            "pooling": pooling if isinstance(pooling, str) else getattr(pooling, "__name__", "a function"),
        }
        facts = Facts(
            layers=widths,
            seed=int(seed),
            sample_ids=ids.tolist(),
            labels=_integers("labels", labels, n_samples).tolist(),
            attrs={
                "dataset": dataset,
                "recipe": recipe or type(self._model).__name__,
                "block": 0,
                "depths": {name: depth for depth, name in enumerate(widths, start=1)},
                "made_by": made_by | dict(attrs or {}),
            },
        )
        self._recording: Recording | None = Recording(path, facts, mode)
        self._begun = [(step.step, step.epoch) for step in self._recording.steps]
        self._resumes = bool(self._begun)
        self._behind = WriteBehind(BUNDLES_BEHIND).__enter__()
        self._broken: BaseException | None = None  # what went wrong in the thread: nothing is written after it

    @property
    def steps(self) -> list[int]:
        """The steps recorded so far; the features of the last ones may still be on their way to the disk."""
        return [step for step, _ in self._begun]

    def record(self, step: int, epoch: float) -> None:
        """Record the chosen layers as the network is now.

        It returns when the features have been computed; they may still be on their way to the disk.

        Parameters
        ----------
        step
            Updates made so far, 0 for the initialisation; greater than the one before.
        epoch
            The same moment in epochs, fractional within one.

        Raises
        ------
        ValueError
            If steps or epochs go down, or a feature is not what it was when the recorder was made.
        OSError, FeaturespaceError
            If features of this step or an earlier one could not be written. Nothing is recorded any more then, and
            `close` raises the same.
        """
        recording = self._recording
        if recording is None:
            raise ValueError("the recorder is closed")
        if self._broken is not None:
            raise self._broken
        self._require_next(recording, step, epoch)
        index, writer = len(self._begun), recording.begin()
        n_samples = len(self._samples)
        bundle: list[dict[str, np.ndarray]] = []
        first = n_bytes = 0
        with tapped(self._model, self._modules, self._pooling, self._forward) as pass_of:
            for start in range(0, n_samples, self._block_rows):
                stop = min(start + self._block_rows, n_samples)
                rows = {name: block.cpu().numpy() for name, block in pass_of(self._samples[start:stop]).items()}
                if (widths := {name: rows[name].shape[1] for name in self.n_features}) != self.n_features:
                    raise ValueError(f"layers are {widths} wide now, and were {self.n_features}")
                bundle.append(rows)
                n_bytes += sum(block.nbytes for block in rows.values())
                if n_bytes >= BUNDLE_BYTES or stop == n_samples:
                    self._submit(_write, writer, index, first, bundle)
                    bundle, first, n_bytes = [], stop, 0
        self._submit(recording.end, int(step), float(epoch), writer.hashes)
        self._begun.append((int(step), float(epoch)))

    def close(self) -> None:
        """Wait until everything is written, and make the store and its digest file. Again, it does nothing.

        Raises
        ------
        OSError, FeaturespaceError
            If something could not be written, or no step was recorded. What is whole can be had by
            `featurespace.recover(path)`.
        """
        recording = self._recording
        if recording is None:
            return
        self._end()
        if self._broken is not None:
            recording.leave()
            raise self._broken
        recording.publish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif (recording := self._recording) is not None:
            self._end()
            recording.leave()
            logger.warning(
                "%s: the loop ended in an error; %d steps are kept in %s: featurespace.recover(%r) makes a store of"
                ' them, mode="resume" goes on with them',
                recording.path,
                len(recording.steps),
                recording.partial.name,
                str(recording.path),
            )

    def _require_next(self, recording: Recording, step: int, epoch: float) -> None:
        """Check that a step comes after those before it; when a recording resumes, forget those that it redoes."""
        if step < 0 or step != int(step) or not math.isfinite(epoch):
            raise ValueError(f"step {step}, epoch {epoch}: steps are whole numbers from 0 on, and epochs are finite")
        if self._resumes:
            recording.forget_from(int(step))
            self._begun = [(done.step, done.epoch) for done in recording.steps]
            self._resumes = False
        if self._begun and step <= self._begun[-1][0]:
            raise ValueError(f"step {step} does not come after step {self._begun[-1][0]}, which is recorded")
        if self._begun and epoch < self._begun[-1][1]:
            raise ValueError(f"epoch {epoch} at step {step} is before epoch {self._begun[-1][1]}, which is recorded")

    def _submit(self, function: Callable[..., None], *args: Any) -> None:
        """Have the thread call a function, unless something went wrong in it before."""

        def call() -> None:
            if self._broken is None:
                try:
                    function(*args)
                except BaseException as error:
                    self._broken = error

        self._behind.submit(call)

    def _end(self) -> None:
        """Wait for the thread, and close for good."""
        self._recording = None
        self._behind.__exit__(None, None, None)


def _write(writer: ChunkWriter, step_index: int, first: int, bundle: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Write the {layer: (B, d)} of consecutive passes, rows `first` onwards of one step."""
    with full_disk_named(writer.draft):
        for layer in bundle[0]:
            blocks = [rows[layer] for rows in bundle]
            writer.write(layer, 0, step_index, first, blocks[0] if len(blocks) == 1 else np.concatenate(blocks))


# --- forward passes that leave no trace -----------------------------------------------------------


@contextmanager
def tapped(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    pooling: Pooling,
    forward: Callable[[Any, Tensor], object] | None = None,
) -> Iterator[Callable[[Tensor], dict[str, Tensor]]]:
    """Lend a function of a block of samples that returns the rows, (B, n_features) float32, of modules by name.

    They come in the order in which the pass leaves the modules. The function may be called within the context only;
    `undisturbed` says what the context does with the model.

    Raises
    ------
    ValueError
        By the function, if a module is not called exactly once, or its output does not have a row for each sample.
    """
    found: dict[str, Tensor] = {}
    n_samples = 0

    def hook_of(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if name in found:
                raise ValueError(f"layer {name!r} is called more than once in a forward pass; record modules around it")
            found[name] = _rows(name, output, n_samples, pooling)

        return hook

    def pass_of(block: Tensor) -> dict[str, Tensor]:
        nonlocal n_samples
        found.clear()
        n_samples = len(block)
        x = block.to(_device(model, block))
        if forward is None:
            model(x)
        else:
            forward(model, x)
        if missing := [name for name in modules if name not in found]:
            raise ValueError(f"layer {missing[0]!r} is not called in a forward pass")
        return dict(found)

    with undisturbed(model):
        handles = [module.register_forward_hook(hook_of(name)) for name, module in modules.items()]
        try:
            yield pass_of
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, without gradients, autocast and TF32, and afterwards everything back.

    That is the mode of every module, one by one; all buffers, where a pass changes any; and the states of the
    generators of random numbers: PyTorch's on the CPU and the model's devices, NumPy's and Python's.

    Raises
    ------
    ValueError
        If a parameter has no shape yet, which a pass would give it.
    """
    if any(nn.parameter.is_lazy(tensor) for tensor in [*model.parameters(), *model.buffers()]):
        raise ValueError("the model has lazy parameters without a shape; pass one batch through it first")
    modules = list(model.modules())
    modes = [module.training for module in modules]
    buffers = [dict(module._buffers) for module in modules]
    values = {
        id(buffer): (buffer, buffer._version, buffer.clone())
        for own in buffers
        for buffer in own.values()
        if buffer is not None and not buffer.is_inference()
    }
    cuda = {tensor.device for tensor in [*model.parameters(), *model.buffers()] if tensor.is_cuda}
    cpu_state, cuda_states = torch.get_rng_state(), {device: torch.cuda.get_rng_state(device) for device in cuda}
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        # Not by `eval()`, which a model may have made to do more than this.
        for module in modules:
            module.training = False
        with (
            torch.no_grad(),
            _no_autocast({"cpu", *(device.type for device in cuda)}),
            _no_tf32(bool(cuda)),
            _eager(modules),
        ):
            yield
    finally:
        for module, mode, own in zip(modules, modes, buffers, strict=True):
            module.training = mode
            for name, buffer in own.items():
                if module._buffers.get(name) is not buffer:
                    module._buffers[name] = buffer
        with torch.no_grad():
            for buffer, version, value in values.values():
                if buffer._version != version:
                    buffer.copy_(value)
        torch.set_rng_state(cpu_state)
        for device, state in cuda_states.items():
            torch.cuda.set_rng_state(state, device)
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


@contextmanager
def _no_autocast(devices: set[str]) -> Iterator[None]:
    before = {device: torch.is_autocast_enabled(device) for device in devices}
    for device in devices:
        torch.set_autocast_enabled(device, False)
    try:
        yield
    finally:
        for device, enabled in before.items():
            torch.set_autocast_enabled(device, enabled)


@contextmanager
def _no_tf32(has_cuda: bool) -> Iterator[None]:
    """Compute in full float32 on a GPU, and leave the setting as it was, in whichever way it was made."""
    if not has_cuda:
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, cast("Any", torch.backends.cudnn)
    # PyTorch refuses to be asked in the older way once it was told in the newer one; the newer one always works.
    newer = hasattr(matmul, "fp32_precision")
    places = [matmul, cudnn.conv, cudnn.rnn] if newer else [matmul, cudnn]
    name, exact = ("fp32_precision", "ieee") if newer else ("allow_tf32", False)
    before = [getattr(place, name) for place in places]
    try:
        for place in places:
            setattr(place, name, exact)
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            setattr(place, name, value)


def _eager(modules: Sequence[nn.Module]) -> Any:
    """Have compiled modules run as they are written, since their compiled code does not know the hooks."""
    if any(getattr(module, "_compiled_call_impl", None) or hasattr(module, "_orig_mod") for module in modules):
        return torch.compiler.set_stance("force_eager")
    return nullcontext()


def _device(model: nn.Module, block: Tensor) -> torch.device:
    """Return where a model's parameters are, or its buffers; without any, where the samples are."""
    for tensor in [*model.parameters(), *model.buffers()]:
        return tensor.device
    return block.device


def _rows(name: str, output: Any, n_samples: int, pooling: Pooling) -> Tensor:
    """Pool the output of a module for B samples into rows, (B, n_features) float32, that nothing else refers to."""
    if isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor) or not output.is_floating_point():
        kind = output.dtype if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"layer {name!r} gives {kind}, no tensor of real numbers")
    if output.ndim == 0 or len(output) != n_samples:
        raise ValueError(f"layer {name!r} gives {tuple(output.shape)} for {n_samples} samples: they must come first")
    if callable(pooling):
        pooled = pooling(output)
        if pooled.ndim != 2 or len(pooled) != n_samples:
            raise ValueError(f"layer {name!r}: pooling gives {tuple(pooled.shape)}, not ({n_samples}, n_features)")
    elif pooling == "average" and output.ndim > 2:
        # (B, tokens, d), or (B, c, height, width) and more dimensions of space
        dimensions = (1,) if output.ndim == 3 else tuple(range(2, output.ndim))
        pooled = output.mean(dimensions, dtype=torch.promote_types(output.dtype, torch.float32))
    else:
        pooled = output.reshape(n_samples, -1)
    # What comes after the module may work in place.
    return pooled.to(torch.float32, copy=True)


# --- which modules --------------------------------------------------------------------------------


def _unwrapped(model: nn.Module) -> nn.Module:
    """Look through wrappers: their passes would synchronise processes, or know no hooks."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def match_paths(pattern: str, paths: Sequence[str]) -> list[str]:
    """Return the module paths that a pattern matches, as `matches_layer` says, in their order."""
    return [path for path in paths if path and matches_layer(pattern, path)]


def _chosen(model: nn.Module, layers: Sequence[str] | Mapping[str, str]) -> dict[str, nn.Module]:
    """Return the modules to tap, by the name that each has in the store."""
    if isinstance(layers, str):
        raise ValueError(f"layers are a list of module paths, [{layers!r}], not one text")
    modules = {
        path: module
        for path, module in model.named_modules(remove_duplicate=False)
        # Lists of modules are never called.
        if path and not isinstance(module, nn.ModuleList | nn.ModuleDict)
    }
    chosen: dict[str, nn.Module] = {}
    named = layers if isinstance(layers, Mapping) else dict.fromkeys(layers)
    for name, given in named.items():
        found = match_paths(name, list(modules)) if given is None else [given] if given in modules else []
        if not found:
            raise ValueError(_no_module(given or name, list(modules), type(model).__name__))
        chosen |= {path if given is None else name: modules[path] for path in found}
    if not chosen:
        raise ValueError(f"no layers are given; the modules are {_listed(list(modules))}")
    for name in chosen:
        if name in RESERVED or len(name) > 200 or not NAME.fullmatch(name):
            raise ValueError(
                f"layer {name!r} cannot be called that in a store; give it a name of letters, digits, _ . and -, "
                f"none of {', '.join(RESERVED)}: layers={{'name': {name!r}}}"
            )
    return chosen


def _no_module(path: str, paths: Sequence[str], kind: str) -> str:
    near = difflib.get_close_matches(path, paths, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"layers: no module {path!r} in this {kind}{hint} The modules are {_listed(paths)}"


def _listed(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - NAMED_PATHS} more" if len(paths) > NAMED_PATHS else ""
    return ", ".join(paths[:NAMED_PATHS]) + more


def _integers(name: str, values: Any, n_samples: int) -> np.ndarray:
    """Return (n_samples,) int64."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.shape != (n_samples,) or array.dtype.kind not in "iu":
        raise ValueError(f"{name} of shape {array.shape} and type {array.dtype}: expected ({n_samples},) integers")
    return array.astype(np.int64)
