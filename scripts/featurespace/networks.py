"""The networks, built from a recipe's `model` section and the shape of the data alone.

Every parameter and every buffer has a leading axis of seeds: one network holds the S networks of a block that train
together. Dense layers multiply all S at once; convolutional layers have S = 1, because a stacked convolution is no
faster than its parts on a CPU, and their seeds go one after another through the same code. The deep ones, which
`convnets` builds without that axis, and those that come from elsewhere (`own_networks`), get it here. What is called a
batch below is B samples for each seed.

`forward` returns the prediction and the taps, by the names that `architectures.layer_names` gives.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featurespace.architectures import CONVOLUTIONAL_KINDS, DEEP_KINDS, HEADED_KINDS, is_own, minimum_side
from featurespace.convnets import build_convnet
from featurespace.errors import FeaturespaceError
from featurespace.own_networks import (
    TRIAL_ROWS,
    choose_layers,
    fit_inputs,
    make_module,
    name_of,
    prediction_of,
    seeded,
    trial,
    watched,
)

Taps = dict[str, Tensor]

STACKED_KINDS = ("mlp", "linear", "hybrid")

SCALED_BYTES = 512 * 2**20  # of network inputs that are scaled once and kept: MNIST is 188 MB, CIFAR-10 614 MB
SCALED_ROWS = 256  # a piece stays in the processor's cache


def stacks_of(model: Mapping[str, Any], seeds: Sequence[int]) -> list[list[int]]:
    """Cut a block's seeds into those that share one network: all of them, or each its own."""
    return [list(seeds)] if model["kind"] in STACKED_KINDS else [[seed] for seed in seeds]


def scale_inputs(stored: Tensor, offset: float, scale: float, dtype: torch.dtype) -> Tensor:
    """Turn stored samples into network inputs: (x - offset) / scale, with pixels (uint8) taken to [0, 1] first.

    In float64 and rounded once, as the data set's own dumped inputs are.
    """
    values = stored.to(torch.float64, copy=True)
    if stored.dtype == torch.uint8:
        values /= 255
    return values.sub_(offset).div_(scale).to(dtype)


class Inputs:
    """Stored samples (n, *input shape) as network inputs of one type, by row.

    What would take up to SCALED_BYTES as inputs is scaled once, at the beginning, which takes the memory; what would
    take more, each time rows are asked for.
    """

    def __init__(self, stored: Tensor, offset: float, scale: float, dtype: torch.dtype) -> None:
        self.stored = stored
        self.offset, self.scale, self.dtype = offset, scale, dtype
        self.scaled: Tensor | None = None
        if stored.numel() * dtype.itemsize <= SCALED_BYTES:
            self.scaled = torch.empty(stored.shape, dtype=dtype, device=stored.device)
            for part, target in zip(stored.split(SCALED_ROWS), self.scaled.split(SCALED_ROWS), strict=True):
                target.copy_(scale_inputs(part, offset, scale, dtype))

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """Return (*rows, *input shape), not to be changed: a slice may be of what is kept."""
        if self.scaled is not None:
            return self.scaled[rows]
        return scale_inputs(self.stored[rows], self.offset, self.scale, self.dtype)

    def in_float64(self, n_rows: int) -> Iterator[Tensor]:
        """Iterate over all of them in order, `n_rows` at a time, unrounded: (B, *input shape) float64."""
        for part in self.stored.split(n_rows):
            yield scale_inputs(part, self.offset, self.scale, torch.float64)


def channels_last(images: Tensor) -> Tensor:
    """Copy (B, c, h, w) with the channels side by side: a CPU convolves, normalises and pools several times faster.

    A copy, since `contiguous` leaves a single channel as it is, and then all layers above in the slow layout.
    """
    return images.clone(memory_format=torch.channels_last)


# --- layers -----------------------------------------------------------------------------------------------------


class Layer(nn.Module):
    """S affine maps: `weight` (S, out, in, ...) and, if any, `bias` (S, out or in)."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, weight_shape: Sequence[int], n_bias: int, options: dict[str, Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(*weight_shape, **options))
        self.bias = nn.Parameter(torch.empty(weight_shape[0], n_bias, **options)) if n_bias else None


class Dense(Layer):
    """(S, B, n_in) -> (S, B, n_out)."""

    def __init__(self, n_seeds: int, n_in: int, n_out: int, options: dict[str, Any], bias: bool = True) -> None:
        super().__init__((n_seeds, n_out, n_in), n_out if bias else 0, options)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = _Affine.apply(x, self.weight, self.bias)
        return output


class _Affine(torch.autograd.Function):
    """S affine maps, (S, B, n_in) -> (S, B, n_out), whose weights' gradient comes out in the weights' own layout.

    PyTorch's own is its transpose, which it copies: at widths of 128 and more an eighth of the time of a step.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        if bias is None:
            return torch.bmm(x, weight.transpose(1, 2))
        return torch.baddbmm(bias[:, None, :], x, weight.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (of_output,) = gradients
        x, weight = (tensor.to(of_output.dtype) for tensor in ctx.saved_tensors)  # another one under autocast
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            torch.bmm(of_output, weight) if of_x else None,
            torch.bmm(of_output.transpose(1, 2), x) if of_weight else None,
            of_output.sum(1) if of_bias else None,
        )


# The axis of the one seed is squeezed out, never indexed: the gradient of `x[0]` is copied into zeros that have lost
# the layout of their channels, and all layers below then go the slow way.


class Convolution(Layer):
    """3 x 3, padded: (1, B, c_in, h, w) -> (1, B, c_out, ceil(h / stride), ceil(w / stride))."""

    def __init__(self, c_in: int, c_out: int, options: dict[str, Any], stride: int = 1, bias: bool = True) -> None:
        super().__init__((1, c_out, c_in, 3, 3), c_out if bias else 0, options)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.squeeze(0)
        weight = channels_last(self.weight.squeeze(0))
        return F.conv2d(x.squeeze(0), weight, bias, stride=self.stride, padding=1)[None]


class TransposedConvolution(Layer):
    """The mirror of a stride-2 convolution: (1, B, c_in, h, w) -> (1, B, c_out, *size)."""

    def __init__(self, c_in: int, c_out: int, size: tuple[int, int], options: dict[str, Any]) -> None:
        super().__init__((1, c_in, c_out, 3, 3), c_out, options)
        # 2 h - 1 rows come out without padding: an even height needs one more
        self.output_padding = (1 - size[0] % 2, 1 - size[1] % 2)

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        x, weight, bias = x.squeeze(0), self.weight.squeeze(0), self.bias.squeeze(0)
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=self.output_padding)[None]


class BatchNorm(nn.Module):
    """Batch normalisation with each seed's own statistics: (S, B, d), or (1, B, c, h, w) over B, h and w.

    What comes before has no bias: it would cancel here, its gradient be rounding noise, and Adam amplify that.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, n_seeds: int, n_features: int, options: dict[str, Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_seeds, n_features, **options))
        self.bias = nn.Parameter(torch.zeros(n_seeds, n_features, **options))
        self.register_buffer("running_mean", torch.zeros(n_seeds, n_features, **options))
        self.register_buffer("running_var", torch.ones(n_seeds, n_features, **options))

    def forward(self, x: Tensor) -> Tensor:
        # the S sets of features are channels side by side: (B, S d) or (B, c, h, w)
        channels = x.squeeze(0) if x.ndim == 5 else x.transpose(0, 1).flatten(1)
        normalised = F.batch_norm(
            channels,
            self.running_mean.view(-1),
            self.running_var.view(-1),
            self.weight.view(-1),
            self.bias.view(-1),
            training=self.training,
        )
        return normalised[None] if x.ndim == 5 else normalised.unflatten(1, x.shape[::2]).transpose(0, 1)


# --- networks ---------------------------------------------------------------------------------------------------


class Network(nn.ModuleDict):
    """Layers by name, in order of depth, for S seeds. `forward`: (S, B, *input shape) -> prediction, taps."""

    def forward(self, x: Tensor) -> tuple[Tensor, Taps]:
        raise NotImplementedError

    @property
    def n_parameters(self) -> int:
        """How many parameters each seed's network has."""
        return sum(parameter[0].numel() for parameter in self.parameters())

    def add_output(
        self,
        n_seeds: int,
        n_in: int,
        n_out: int,
        projection: Mapping[str, Any] | None,
        head: Mapping[str, Any] | None,
        options: dict[str, Any],
    ) -> None:
        """Add the classifier, with a head before it if wanted, or a projection head in its place.

        The head is dense layers with rectifiers; the projection head is dense, rectifier, dense.
        """
        if head is not None:
            width = head["width"] or n_in
            for i in range(1, head["layers"] + 1):
                self[f"head{i}"] = Dense(n_seeds, n_in, width, options)
                n_in = width
        if projection is not None:
            n_hidden = projection["hidden"] or n_in
            self["projection"] = Dense(n_seeds, n_in, n_hidden, options)
            n_in, n_out = n_hidden, projection["width"]
        self["output"] = Dense(n_seeds, n_in, n_out, options)

    def predict(self, features: Tensor) -> Tensor:
        """Apply what follows the features: (S, B, n_in) -> (S, B, n_out)."""
        for name, layer in self.items():
            if name.startswith("head") or name == "projection":
                features = F.relu(layer(features))
        return self["output"](features)


class Rectified(Network):
    """A network that begins with dense layers with rectifiers, normalised before the rectifier if wanted."""

    n_hidden: int

    def add_hidden(
        self, n_seeds: int, n_in: int, widths: Sequence[int], batch_norm: bool, options: dict[str, Any]
    ) -> None:
        """Add a layer for each width."""
        self.n_hidden = len(widths)
        for i, (n, width) in enumerate(pairwise([n_in, *widths]), start=1):
            self[f"hidden{i}"] = Dense(n_seeds, n, width, options, bias=not batch_norm)
            if batch_norm:
                self[f"norm{i}"] = BatchNorm(n_seeds, width, options)

    def rectify(self, x: Tensor) -> tuple[Tensor, Taps]:
        """Apply these layers: (S, B, *input shape) -> (S, B, width of the last), taps."""
        taps = {}
        h = x.flatten(2)  # (S, B, d)
        for i in range(1, self.n_hidden + 1):
            h = self[f"hidden{i}"](h)
            if f"norm{i}" in self:
                h = self[f"norm{i}"](h)
            taps[f"hidden{i}"] = h = F.relu(h)
        return h, taps


class Mlp(Rectified):
    """Dense layers with rectifiers, normalised before the rectifier if wanted; a dense output."""

    def __init__(
        self,
        n_seeds: int,
        n_in: int,
        model: Mapping[str, Any],
        n_out: int,
        options: dict[str, Any],
        projection: Mapping[str, Any] | None,
        head: Mapping[str, Any] | None,
    ) -> None:
        super().__init__()
        self.add_hidden(n_seeds, n_in, model["widths"], model["batch_norm"], options)
        self.add_output(n_seeds, model["widths"][-1], n_out, projection, head, options)

    def forward(self, x: Tensor) -> tuple[Tensor, Taps]:
        h, taps = self.rectify(x)
        return self.predict(h), taps


class Hybrid(Rectified):
    """The hidden layers of an `Mlp`, and on them a deep linear network, output included, without biases."""

    def __init__(self, n_seeds: int, n_in: int, model: Mapping[str, Any], n_out: int, options: dict[str, Any]) -> None:
        super().__init__()
        width = model["width"]
        self.add_hidden(n_seeds, n_in, [width] * model["nonlinear"], model["batch_norm"], options)
        self.n_linear = model["linear"]
        for i in range(1, self.n_linear + 1):
            self[f"linear{i}"] = Dense(n_seeds, width, width, options, bias=False)
        self["output"] = Dense(n_seeds, width, n_out, options, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Taps]:
        h, taps = self.rectify(x)
        for i in range(1, self.n_linear + 1):
            taps[f"linear{i}"] = h = self[f"linear{i}"](h)
        return self["output"](h), taps


class DeepLinear(Network):
    """W_L ... W_1 x without biases; the output layer W_L is not tapped."""

    def __init__(self, n_seeds: int, n_in: int, model: Mapping[str, Any], n_out: int, options: dict[str, Any]) -> None:
        super().__init__()
        self.n_hidden = model["depth"] - 1
        for i in range(1, self.n_hidden + 1):
            self[f"linear{i}"] = Dense(n_seeds, n_in, model["width"], options, bias=False)
            n_in = model["width"]
        self["output"] = Dense(n_seeds, n_in, n_out, options, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Taps]:
        taps = {}
        h = x.flatten(2)  # (S, B, d)
        for i in range(1, self.n_hidden + 1):
            taps[f"linear{i}"] = h = self[f"linear{i}"](h)
        return self["output"](h), taps


class Cnn(Network):
    """Convolution, normalisation if wanted, rectifier, 2 x 2 maximum; a dense layer with a rectifier; the output."""

    def __init__(
        self,
        input_shape: Sequence[int],
        model: Mapping[str, Any],
        n_out: int,
        options: dict[str, Any],
        projection: Mapping[str, Any] | None,
        head: Mapping[str, Any] | None,
    ) -> None:
        super().__init__()
        c, height, width = input_shape
        self.n_convolutions = len(model["channels"])
        for i, channels in enumerate(model["channels"], start=1):
            self[f"conv{i}"] = Convolution(c, channels, options, bias=not model["batch_norm"])
            if model["batch_norm"]:
                self[f"norm{i}"] = BatchNorm(1, channels, options)
            c, height, width = channels, height // 2, width // 2
        self["hidden"] = Dense(1, c * height * width, model["hidden"], options)
        self.add_output(1, model["hidden"], n_out, projection, head, options)

    def forward(self, x: Tensor) -> tuple[Tensor, Taps]:
        taps = {}
        h = channels_last(x.squeeze(0))[None]  # (1, B, c, h, w)
        for i in range(1, self.n_convolutions + 1):
            h = self[f"conv{i}"](h)
            if f"norm{i}" in self:
                h = self[f"norm{i}"](h)
            # the rectifier and the maximum commute, and after the maximum there is a quarter to rectify
            taps[f"conv{i}"] = h = F.relu(F.max_pool2d(h.squeeze(0), 2))[None]
        taps["hidden"] = h = F.relu(self["hidden"](h.flatten(2)))  # (1, B, hidden)
        return self.predict(h), taps


class Autoencoder(Network):
    """Stride-2 convolutions with rectifiers, a dense latent layer without one, and the mirror of both.

    The last layer has no rectifier: it must reach the input's whole range, standardised inputs included.
    """

    def __init__(self, input_shape: Sequence[int], model: Mapping[str, Any], options: dict[str, Any]) -> None:
        super().__init__()
        channels = [input_shape[0], *model["channels"]]
        sizes = [(input_shape[1], input_shape[2])]
        for i in range(1, len(channels)):
            self[f"conv{i}"] = Convolution(channels[i - 1], channels[i], options, stride=2)
            sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
        self.n_convolutions = len(model["channels"])
        self.encoded_shape = (channels[-1], *sizes[-1])
        n_encoded = channels[-1] * sizes[-1][0] * sizes[-1][1]
        self["latent"] = Dense(1, n_encoded, model["latent"], options)
        self["unfold"] = Dense(1, model["latent"], n_encoded, options)
        for i in range(self.n_convolutions, 0, -1):
            self[f"deconv{i}"] = TransposedConvolution(channels[i], channels[i - 1], sizes[i - 1], options)

    def forward(self, x: Tensor) -> tuple[Tensor, Taps]:
        taps = {}
        h = channels_last(x.squeeze(0))[None]  # (1, B, c, h, w)
        for i in range(1, self.n_convolutions + 1):
            taps[f"conv{i}"] = h = F.relu(self[f"conv{i}"](h))
        taps["latent"] = h = self["latent"](h.flatten(2))  # (1, B, latent)
        h = self["unfold"](h).unflatten(2, self.encoded_shape)
        for i in range(self.n_convolutions, 0, -1):
            h = self[f"deconv{i}"](F.relu(h))
        return h, taps


class SingleSeed(Network):
    """A plain module of (B, c, h, w) -> prediction, taps, as a network with an axis of one seed.

    The module's parameters and buffers keep their names and get the leading axis, so that training, which moves them,
    and stores, which keep them, find what they find in any other network; the module sees them without it.
    """

    module: nn.Module
    stores: list[dict[str, Any]]  # where its submodules keep them

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.stores = [store for part in module.modules() for store in (part._parameters, part._buffers) if store]
        for store in self.stores:
            for name, tensor in store.items():
                if isinstance(tensor, nn.Parameter):
                    store[name] = nn.Parameter(tensor.detach().to(dtype)[None])
                elif tensor is not None:
                    # of the buffers, numbers of batches stay whole
                    store[name] = (tensor.to(dtype) if tensor.is_floating_point() else tensor)[None]
        for name, child in module.named_children():
            self[name] = child
        object.__setattr__(self, "module", module)  # not as a child, which would give every name a prefix

    def forward(self, x: Tensor) -> tuple[Tensor, Taps]:
        # what `torch.func.functional_call` does, which takes milliseconds for hundreds of tensors
        whole = [(store, name, tensor) for store in self.stores for name, tensor in store.items() if tensor is not None]
        try:
            for store, name, tensor in whole:
                store[name] = tensor.squeeze(0)
            prediction, taps = self.module(channels_last(x.squeeze(0)))
        finally:
            for store, name, tensor in whole:
                store[name] = tensor
        return prediction[None], {name: tap[None] for name, tap in taps.items()}


class OwnNetwork(Network):
    """A network that was built elsewhere, (B, *input shape) -> prediction, with an axis of one seed.

    Its parameters and buffers keep their names and their identity (what shares a parameter still does) and get the
    leading axis; in a forward pass it sees them without. What is in it besides, random or not, is always that of a
    build under seed 0: the same for every seed, in every job.

    Attributes
    ----------
    layers
        The paths of the modules that are tapped, in order; none until `tap` is called.
    """

    module: nn.Module

    def __init__(
        self, model: Mapping[str, Any], input_shape: Sequence[int], n_classes: int, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.model, self.input_shape, self.dtype = model, tuple(input_shape), dtype
        self.layers: list[str] = []
        self.make = partial(make_module, model, input_shape, n_classes)
        with seeded(0):
            module = self.make()
        # not as a child, which would give every name a prefix: the root's own parameters and children are this one's
        object.__setattr__(self, "module", module)
        self._parameters, self._buffers = module._parameters, module._buffers
        self._modules: dict[str, Any] = module._modules
        self._non_persistent_buffers_set = module._non_persistent_buffers_set
        parts = list(module.modules())
        self.recurrent = [part for part in parts if isinstance(part, nn.RNNBase)]
        for recurrent in self.recurrent:
            recurrent.flatten_parameters = lambda: None  # type: ignore[method-assign]  # it cannot with another axis
        self.places: list[tuple[dict[str, Any], str]] = []  # where parameters and buffers are kept
        stacked: dict[int, Tensor] = {}
        for part in parts:
            stores: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
            for store in stores:
                for name, tensor in store.items():
                    if tensor is None:
                        continue
                    self.places.append((store, name))
                    if id(tensor) not in stacked:
                        stacked[id(tensor)] = self._stacked(tensor)
                    store[name] = stacked[id(tensor)]
        self.trainable = {id(parameter) for parameter in self.parameters() if parameter.requires_grad}

    def _stacked(self, tensor: Tensor) -> Tensor:
        """Give a tensor the axis of seeds; a parameter stays the same object."""
        values = tensor.detach().to(self.dtype if tensor.is_floating_point() else tensor.dtype)[None]
        if not isinstance(tensor, nn.Parameter):
            return values
        tensor.data = values
        return tensor

    def train(self, mode: bool = True) -> "OwnNetwork":
        self.training = mode
        self.module.train(mode)
        return self

    def requires_grad_(self, requires_grad: bool = True) -> "OwnNetwork":
        """Turn gradients on, of those parameters that had them when the network was built, or off."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad and id(parameter) in self.trainable)
        return self

    @contextmanager
    def _without_axis(self) -> Iterator[None]:
        """Let the module see its parameters and buffers without the axis of seeds, and keep what it does to buffers."""
        whole = [store[name] for store, name in self.places]
        views: dict[int, Tensor] = {}
        for (store, name), tensor in zip(self.places, whole, strict=True):
            store[name] = views.setdefault(id(tensor), tensor.squeeze(0))
        for part in self.recurrent:
            part._flat_weights = [getattr(part, name) for name in part._flat_weights_names]
        try:
            yield
            for (store, name), tensor in zip(self.places, whole, strict=True):
                if store.get(name) is not views[id(tensor)]:  # not changed in place, but another one
                    self._take_over(name, tensor, store.get(name))
        finally:
            for (store, name), tensor in zip(self.places, whole, strict=True):
                store[name] = tensor

    def _take_over(self, name: str, tensor: Tensor, other: Tensor | None) -> None:
        if other is None or other.shape != tensor.shape[1:] or isinstance(tensor, nn.Parameter):
            raise FeaturespaceError(
                f"model: {name_of(self.model)} puts something of another shape in the place of {name!r} in its forward "
                "pass, where weights of one shape are to be kept"
            )
        tensor.copy_(other.detach()[None])

    def forward(self, x: Tensor) -> tuple[Tensor, Taps]:
        # a copy: what comes in may be a part of the data set, and a module may work in place
        inputs = fit_inputs(self.model, x.squeeze(0)).clone(memory_format=torch.contiguous_format)
        seen: Taps = {}
        with self._without_axis(), watched(self.module, self.layers, seen):
            output = self.module(inputs)
        taps = {path: (seen[path][:, None] if seen[path].ndim == 1 else seen[path])[None] for path in self.layers}
        return prediction_of(self.model, output, len(inputs))[None], taps

    def tap(self, layers: Sequence[str]) -> None:
        """Choose the layers, by path or glob, that `forward` returns.

        Raises
        ------
        FeaturespaceError
            One line, if there is none of that name; it lists those there are.
        """
        self.layers = self.find_layers(layers)

    def find_layers(self, layers: Sequence[str]) -> list[str]:
        """Return the paths of the layers that `tap` would choose, in order."""
        seen: Taps = {}
        there = [path for path, _ in self.module.named_modules(remove_duplicate=False) if path]
        was_training = self.training
        self.eval()
        with watched(self.module, there, seen):
            self._try()
        self.train(was_training)
        n_rows = {path: len(tensor) if tensor.ndim else 0 for path, tensor in seen.items()}
        return choose_layers(layers, list(seen), there, n_rows)

    def _try(self, seed: int = 0) -> Tensor:
        device = next((tensor.device for tensor in self.parameters()), None)
        with self._without_axis():
            output = trial(self.model, self.module, self.input_shape, self.dtype, seed, device)
        return prediction_of(self.model, output, TRIAL_ROWS)

    def try_out(self, trains: bool) -> tuple[int, ...]:
        """Return the shape of what the network says of one sample, after it was tried; its buffers may have moved.

        Parameters
        ----------
        trains
            Whether it is tried in training mode too.

        Raises
        ------
        FeaturespaceError
            One line, if the network fails, or does not return one tensor with a row a sample, or is random in
            evaluation mode, or has nothing to train.
        """
        names = list(self.state_dict())
        if trains:
            if not self.trainable:
                raise FeaturespaceError(f"model: {name_of(self.model)} has no parameter that takes a gradient")
            self.train()
            self._try()
        self.eval()
        first, second = self._try(1), self._try(2)
        if not torch.equal(first.nan_to_num(), second.nan_to_num()):
            raise FeaturespaceError(
                f"model: {name_of(self.model)} gives random answers in evaluation mode, where features are looked at"
            )
        if list(self.state_dict()) != names:
            raise FeaturespaceError(f"model: {name_of(self.model)} adds parameters or buffers in its forward pass")
        return tuple(first.shape[1:])

    def find_readout(self, layer: str) -> tuple[str, Tensor, Tensor] | None:
        """Return the path of the dense layer whose output is the prediction, and in a trial its inputs and a layer.

        The inputs are (B, d), the layer is as its module gives it. None if there is no such dense layer.
        """
        read: list[tuple[str, Tensor, Tensor]] = []
        hooks = [
            part.register_forward_hook(lambda _, inputs, output, path=path: read.append((path, inputs[0], output)))
            for path, part in self.module.named_modules()
            if path and isinstance(part, nn.Linear)
        ]
        seen: Taps = {}
        self.eval()
        try:
            with watched(self.module, [layer], seen):
                prediction = self._try()
        finally:
            for hook in hooks:
                hook.remove()
        found = [(path, inputs) for path, inputs, output in read if output is prediction]
        return (*found[-1], seen[layer]) if found and layer in seen else None

    @torch.no_grad()
    def draw(self, seed: int) -> None:
        """Take the parameters and buffers of a network that is built anew, all generators beginning at a seed."""
        with seeded(seed):
            state = self.make().state_dict()
        try:
            self.load_state_dict({name: tensor[None] for name, tensor in state.items()})
        except RuntimeError as error:
            raise FeaturespaceError(f"model: {name_of(self.model)} is another network each time it is built") from error


def build_network(
    model: Mapping[str, Any],
    input_shape: Sequence[int],
    n_classes: int,
    n_seeds: int,
    dtype: torch.dtype = torch.float32,
    projection: Mapping[str, Any] | None = None,
    head: Mapping[str, Any] | None = None,
) -> Network:
    """Build S networks as one, with parameters not yet set. The global random generator stays as it is.

    Parameters
    ----------
    model
        The model section of a recipe, as plain data.
    input_shape
        (channels, height, width), or (n_features,).
    n_seeds
        S; 1 for convolutional networks.
    projection
        For contrastive tasks: `hidden` (None: as wide as the features) and `width` of a projection head, a dense layer,
        a rectifier and a dense layer, that takes the place of the classifier. The taps are the same. Linear and hybrid
        networks and autoencoders have none.
    head
        `layers` dense layers with rectifiers, each `width` wide (None: as wide as the features), between the features
        and the classifier, not tapped. The same kinds have none.

    Raises
    ------
    FeaturespaceError
        If a convolutional network is given rows, or images too small for it; if the kind takes no head.
    """
    options = {"dtype": dtype}
    kind = model["kind"]
    if is_own(model):
        assert n_seeds == 1, "the seeds of an own network go one after another"
        if projection is not None or head is not None:
            raise FeaturespaceError(f"model: {name_of(model)} takes no head")
        return OwnNetwork(model, input_shape, n_classes, dtype)
    if kind in CONVOLUTIONAL_KINDS:
        assert n_seeds == 1, "the seeds of a convolutional network go one after another"
        if len(input_shape) != 3:
            raise FeaturespaceError(f"model.kind: {kind} needs images, not rows of {input_shape[0]} numbers")
        least = minimum_side(model)
        if min(input_shape[1:]) < least:
            raise FeaturespaceError(
                f"model: this {kind} halves images of {input_shape[1]} x {input_shape[2]} pixels to nothing; it needs "
                f"at least {least} x {least}"
            )
    if projection is not None and kind not in HEADED_KINDS:
        raise FeaturespaceError(f"model.kind: a network of kind {kind!r} takes no projection head")
    if head is not None and kind not in HEADED_KINDS:
        raise FeaturespaceError(f"head: a network of kind {kind!r} takes no head")
    if head is not None and projection is not None:
        raise FeaturespaceError("head: a network with a projection head takes no other head")
    n_in = 1
    for size in input_shape:
        n_in *= size
    match kind:
        case "mlp":
            return Mlp(n_seeds, n_in, model, n_classes, options, projection, head)
        case "linear":
            return DeepLinear(n_seeds, n_in, model, n_classes, options)
        case "hybrid":
            return Hybrid(n_seeds, n_in, model, n_classes, options)
        case "cnn":
            return Cnn(input_shape, model, n_classes, options, projection, head)
        case "autoencoder":
            return Autoencoder(input_shape, model, options)
        case _ if kind in DEEP_KINDS:
            return SingleSeed(build_convnet(model, input_shape[0], n_classes, projection, head), dtype)
        case _:
            raise FeaturespaceError(f"unknown architecture: {kind!r}")


@torch.no_grad()
def initialise(network: Network, scheme: str, scale: float, generators: Sequence[torch.Generator]) -> None:
    """Draw each seed's parameters, in place, from its own generator, layer by layer: S seeds draw what one would.

    Parameters
    ----------
    scheme
        `default`: PyTorch's for linear and convolutional layers, weights and biases uniform in ±1/sqrt(fan-in); but the
        convolutions of the deep networks (`architectures.DEEP_KINDS`) as He et al. (2015) have it, normal with variance
        2 / fan-out, where fan-out is output channels times kernel size, and biases zero.
        `orthogonal`: `scale` times a random matrix with orthonormal rows or columns (of (out, everything else) for a
        convolution), biases zero.
        Batch normalisation begins with weight 1 and bias 0 under both.
    generators
        One a seed, on the CPU, so that the draw does not depend on the device. Layers draw in the order of
        `network.modules()`, the weight before the bias, and nothing else is drawn. An `OwnNetwork` is initialised by
        whoever builds it, all global generators beginning at the seed of the one given.
    """
    if isinstance(network, OwnNetwork):
        network.draw(generators[0].initial_seed())
        return
    for s, generator in enumerate(generators):
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight[s].fill_(1)
                layer.bias[s].fill_(0)
            if not isinstance(layer, Layer | nn.Conv2d | nn.Linear):
                continue
            weight = torch.empty(layer.weight.shape[1:], dtype=layer.weight.dtype)
            bias = None if layer.bias is None else torch.zeros(layer.bias.shape[1:], dtype=layer.bias.dtype)
            if scheme == "orthogonal":
                nn.init.orthogonal_(weight, gain=scale, generator=generator)
            elif isinstance(layer, nn.Conv2d):
                fan_out = len(weight) * weight[0, 0].numel()
                weight.normal_(0.0, (2 / fan_out) ** 0.5, generator=generator)
            else:
                bound = weight[0].numel() ** -0.5
                weight.uniform_(-bound, bound, generator=generator)
                if bias is not None:
                    bias.uniform_(-bound, bound, generator=generator)
            layer.weight[s].copy_(weight)
            if bias is not None and layer.bias is not None:
                layer.bias[s].copy_(bias)
