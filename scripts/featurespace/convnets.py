"""Deep convolutional networks for small images, as plain modules without an axis of seeds.

All have one form: a stem (3 x 3, without the maximum that follows in networks for large images), stages at falling
resolutions, average pooling, and a classifier or a projection head. Where torchvision has the same network, this is
its function: given its weights, and the small stem, it computes the same numbers.

`networks` gives them the axis of seeds that the rest of the library expects, sets their parameters, and holds an image
to the size that a network needs. Parameters are not set here, and no random number is drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featurespace.architectures import DENSENET121_BLOCKS

RESNET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
# convolutions of each stage, which a maximum ends
VGG_CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
VGG_WIDTHS = (1, 2, 4, 8, 8)
BOTTLENECK = 4  # of ResNet-50: channels after a block for each within; of DenseNet: channels within for each it adds


class Conv(nn.Conv2d):
    """A convolution that keeps the size but for its stride, and whose parameters nobody has set."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1, bias: bool = False) -> None:
        super().__init__(c_in, c_out, kernel, stride=stride, padding=kernel // 2, bias=bias)

    def reset_parameters(self) -> None:
        """Draw nothing: PyTorch's draw would move the global generator."""

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size == (1, 1) and self.stride != (1, 1):
            # oneDNN's strided 1 x 1 weight gradient, with channels last and fewer than 8 of them coming in (16 where
            # there is AVX-512), writes beyond its buffer (uxlfoundation/oneDNN#6035)
            return F.conv2d(x[:, :, :: self.stride[0], :: self.stride[1]], self.weight, self.bias)
        return super().forward(x)


class Affine(nn.Linear):
    """A dense layer whose parameters nobody has set."""

    def reset_parameters(self) -> None:
        """Draw nothing: PyTorch's draw would move the global generator."""


class NormRelu(nn.BatchNorm2d):
    """Batch normalisation, then the rectifier in its place: the backward pass needs only the input of the former."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(super().forward(x))


class Pool(nn.Module):
    """The 2 x 2 maximum; a map of a single row or column stays as it is."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2) if min(x.shape[2:]) > 1 else x


@dataclass(frozen=True)
class Top:
    """What follows the features: a classifier of `n_out`, behind a head if there is one, or a projection head.

    Attributes
    ----------
    projection
        `hidden` (None: as wide as the features) and `width` of a projection head in the classifier's place.
    head
        `layers` dense layers with rectifiers, each `width` wide (None: as wide as the features).
    """

    n_out: int
    projection: Mapping[str, Any] | None
    head: Mapping[str, Any] | None


class Convnet(nn.Module):
    """(B, c, h, w) -> prediction (B, n_out), and taps: `stage1`, ... (B, c, h, w) and `pooled` (B, d).

    `final`, before the average over space, is for networks whose blocks begin with normalisation and rectifier, and so
    end without. `output` reads `pooled`, through dense layers with rectifiers if there is a `projection` or a head.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        final: nn.Module,
        n_features: int,
        top: Top,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = [f"stage{i}" for i in range(1, len(stages) + 1)]
        for name, stage in zip(self.stages, stages, strict=True):
            self.add_module(name, stage)
        self.final = final
        n_in, n_out = n_features, top.n_out
        widths = {}  # of the dense layers with rectifiers
        if top.head is not None:
            widths = {f"head{i}": top.head["width"] or n_features for i in range(1, top.head["layers"] + 1)}
        if top.projection is not None:
            widths["projection"] = top.projection["hidden"] or n_features
            n_out = top.projection["width"]
        self.rectified = list(widths)
        for name, width in widths.items():
            self.add_module(name, Affine(n_in, width))
            n_in = width
        self.output = Affine(n_in, n_out)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        taps = {}
        h = self.stem(x)
        for name in self.stages:
            taps[name] = h = self.get_submodule(name)(h)
        taps["pooled"] = h = self.final(h).mean((2, 3))
        for name in self.rectified:
            h = F.relu(self.get_submodule(name)(h))
        return self.output(h), taps


# --- residual networks ------------------------------------------------------------------------------------------------


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, then the rectifier (He et al., 2016)."""

    expansion = 1

    def __init__(self, c_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = Conv(c_in, width, 3, stride)
        self.norm1 = NormRelu(width)
        self.conv2 = Conv(width, width)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(c_in, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm2(self.conv2(self.norm1(self.conv1(x))))
        return F.relu_(h.add_(x if self.shortcut is None else self.shortcut(x)))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 (with the stride) and 1 x 1 convolutions and a shortcut, then the rectifier."""

    expansion = BOTTLENECK

    def __init__(self, c_in: int, width: int, stride: int) -> None:
        super().__init__()
        c_out = width * self.expansion
        self.conv1 = Conv(c_in, width, 1)
        self.norm1 = NormRelu(width)
        self.conv2 = Conv(width, width, 3, stride)
        self.norm2 = NormRelu(width)
        self.conv3 = Conv(width, c_out, 1)
        self.norm3 = nn.BatchNorm2d(c_out)
        self.shortcut = _shortcut(c_in, c_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm2(self.conv2(self.norm1(self.conv1(x))))
        h = self.norm3(self.conv3(h))
        return F.relu_(h.add_(x if self.shortcut is None else self.shortcut(x)))


def _shortcut(c_in: int, c_out: int, stride: int) -> nn.Module | None:
    if stride == 1 and c_in == c_out:
        return None
    return nn.Sequential(Conv(c_in, c_out, 1, stride), nn.BatchNorm2d(c_out))


def _resnet(c_in: int, model: Mapping[str, Any], top: Top) -> Convnet:
    """ResNet (He et al., 2016), with the stride of a bottleneck in its 3 x 3 convolution, as torchvision has it."""
    block = Bottleneck if model["depth"] == 50 else BasicBlock
    c = model["width"]
    stem = nn.Sequential(Conv(c_in, c, 3, model["stem_stride"]), NormRelu(c))
    stages = []
    for i, n_blocks in enumerate(RESNET_BLOCKS[model["depth"]]):
        width = model["width"] * 2**i
        blocks = []
        for j in range(n_blocks):
            blocks.append(block(c, width, 2 if i > 0 and j == 0 else 1))
            c = width * block.expansion
        stages.append(nn.Sequential(*blocks))
    return Convnet(stem, stages, nn.Identity(), c, top)


class PreactivationBlock(nn.Module):
    """Normalisation, rectifier and 3 x 3 convolution, twice, and a shortcut (He et al., 2016b).

    Where the shape changes, the shortcut is a convolution and begins where the first one does: after the rectifier.
    """

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.norm1 = NormRelu(c_in)
        self.conv1 = Conv(c_in, c_out, 3, stride)
        self.norm2 = NormRelu(c_out)
        self.conv2 = Conv(c_out, c_out)
        self.shortcut = Conv(c_in, c_out, 1, stride) if stride != 1 or c_in != c_out else None

    def forward(self, x: Tensor) -> Tensor:
        start = self.norm1(x)
        h = self.conv2(self.norm2(self.conv1(start)))
        return h.add_(x if self.shortcut is None else self.shortcut(start))


def _wide_resnet(c_in: int, model: Mapping[str, Any], top: Top) -> Convnet:
    """Wide ResNet (Zagoruyko & Komodakis, 2016), without dropout: 16, 16k, 32k and 64k channels, d = 64k."""
    n_blocks = (model["depth"] - 4) // 6
    widths = [16, *(16 * 2**i * model["widen"] for i in range(3))]
    stages = [
        nn.Sequential(
            *(PreactivationBlock(c if j == 0 else c_out, c_out, 2 if i > 0 and j == 0 else 1) for j in range(n_blocks))
        )
        for i, (c, c_out) in enumerate(pairwise(widths))
    ]
    stem = Conv(c_in, widths[0], 3, model["stem_stride"])
    return Convnet(stem, stages, NormRelu(widths[-1]), widths[-1], top)


# --- VGG --------------------------------------------------------------------------------------------------------------


def _vgg(c_in: int, model: Mapping[str, Any], top: Top) -> Convnet:
    """The convolutions of VGG (Simonyan & Zisserman, 2015), average pooling and a single dense layer.

    A normalised convolution has no bias, unlike torchvision's: it would cancel.
    """
    normalised, stride = model["batch_norm"], model["stem_stride"]
    stages = []
    c = c_in
    for n_convolutions, factor in zip(VGG_CONVOLUTIONS[model["depth"]], VGG_WIDTHS, strict=True):
        c_out = model["width"] * factor
        layers: list[nn.Module] = []
        for j in range(n_convolutions):
            last = j == n_convolutions - 1
            layers.append(Conv(c, c_out, 3, stride, bias=not normalised))
            # the rectifier and the maximum commute, and after the maximum there is a quarter to rectify
            if normalised:
                layers.append(nn.BatchNorm2d(c_out) if last else NormRelu(c_out))
            if last:
                layers.append(Pool())
            if last or not normalised:
                layers.append(nn.ReLU(inplace=True))
            c, stride = c_out, 1
        stages.append(nn.Sequential(*layers))
    return Convnet(nn.Identity(), stages, nn.Identity(), c, top)


# --- DenseNet ---------------------------------------------------------------------------------------------------------


class DenseLayer(nn.Module):
    """Two normalised and rectified convolutions, 1 x 1 and 3 x 3, whose channels join those that came in."""

    def __init__(self, c_in: int, growth: int) -> None:
        super().__init__()
        self.norm1 = NormRelu(c_in)
        self.conv1 = Conv(c_in, BOTTLENECK * growth, 1)
        self.norm2 = NormRelu(BOTTLENECK * growth)
        self.conv2 = Conv(BOTTLENECK * growth, growth)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv2(self.norm2(self.conv1(self.norm1(x))))], 1)


class Transition(nn.Module):
    """Half the channels and half the size. A 1 x 1 convolution and an average commute; the average goes first."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.norm = NormRelu(c_in)
        self.conv = Conv(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.avg_pool2d(self.norm(x), 2))


def _densenet(c_in: int, model: Mapping[str, Any], top: Top) -> Convnet:
    """DenseNet-BC (Huang et al., 2017), compression ½; a stage's tap is its dense block, before the normalisation."""
    growth = model["growth"]
    c = 2 * growth
    stem = nn.Sequential(Conv(c_in, c, 3, model["stem_stride"]), NormRelu(c))
    stages = []
    for i, n_layers in enumerate(model["blocks"]):
        layers: list[nn.Module] = []
        if i > 0:
            layers.append(Transition(c, c // 2))
            c //= 2
        for _ in range(n_layers):
            layers.append(DenseLayer(c, growth))
            c += growth
        stages.append(nn.Sequential(*layers))
    return Convnet(stem, stages, NormRelu(c), c, top)


# --- torchvision's ----------------------------------------------------------------------------------------------------


def _torchvision(c_in: int, model: Mapping[str, Any], top: Top) -> Convnet:
    """Take torchvision's own modules apart into stem and stages, the stem replaced by the small one."""
    import torchvision.models  # seconds, for these networks only

    # without memory: its constructors would draw weights, of parts, too, that are left out here
    with torch.device("meta"):
        theirs = torchvision.models.get_model(model["name"], weights=None)
    stem: nn.Module = nn.Identity()
    final: nn.Module = nn.Identity()
    stages: list[nn.Module] = []
    if isinstance(theirs, torchvision.models.ResNet):
        stem = nn.Sequential(Conv(c_in, 64), theirs.bn1, theirs.relu)
        stages += [theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4]
        n_features = theirs.fc.in_features
    elif isinstance(theirs, torchvision.models.DenseNet):
        parts = theirs.features
        stem = nn.Sequential(Conv(c_in, 64), parts.norm0, parts.relu0)
        stages.append(parts.denseblock1)
        for i in range(2, len(DENSENET121_BLOCKS) + 1):
            stages.append(
                nn.Sequential(parts.get_submodule(f"transition{i - 1}"), parts.get_submodule(f"denseblock{i}"))
            )
        final = nn.Sequential(parts.norm5, nn.ReLU(inplace=True))
        n_features = theirs.classifier.in_features
    else:
        theirs.features[0] = Conv(c_in, 64, bias=True)
        start = 0
        for i, layer in enumerate(theirs.features):
            if isinstance(layer, nn.MaxPool2d):
                stages.append(nn.Sequential(*theirs.features[start:i], Pool()))
                start = i + 1
        n_features = 512
    convnet = Convnet(stem, stages, final, n_features, top).to_empty(device="cpu")
    for module in convnet.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()  # and the running statistics
    return convnet


def build_convnet(
    model: Mapping[str, Any],
    n_channels: int,
    n_out: int,
    projection: Mapping[str, Any] | None = None,
    head: Mapping[str, Any] | None = None,
) -> Convnet:
    """Build one of the deep networks for images of `n_channels`, with parameters not yet set.

    Parameters
    ----------
    model
        The model section of a recipe, as plain data, of one of `architectures.DEEP_KINDS`.
    n_out
        Width of the classifier.
    projection, head
        As `Top` has them.
    """
    build = {
        "resnet": _resnet,
        "wide-resnet": _wide_resnet,
        "vgg": _vgg,
        "densenet": _densenet,
        "torchvision": _torchvision,
    }[model["kind"]]
    return build(n_channels, model, Top(n_out, projection, head))
