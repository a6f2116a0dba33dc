"""The study file: one pydantic model a section, from which come the check, the schema and the reference table.

Only the Snakefile's side imports this module. Rules receive plain, normalised data, so an edit here reruns nothing.
"""

from __future__ import annotations

import copy
import difflib
import itertools
import json
import math
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from featurespace import architectures
from featurespace.architectures import HEADED_KINDS, is_glob, is_own, matches_layer
from featurespace.catalogue import PUBLISHED
from featurespace.errors import FeaturespaceError

IMAGE_SIDES = {"digits": 8, "mnist": 28, "fashion-mnist": 28, "cifar10": 32, "cifar100": 32}  # pixels
N_CLASSES = {"digits": 10} | {kind: published.n_classes for kind, published in PUBLISHED.items()}
COLOUR_KINDS = ("cifar10", "cifar100")  # the others are grey
DEFAULT_FIGURES = ("angle_dynamics", "angle_matrix", "spectra", "layers", "training")
LAYER_FIGURES = (
    "layer_theory",
    "law_sweep",
    "assumptions",
    "layer_probes",
    "normalisation_modes",
    "collapse",
    "embeddings",
    "linear_depth",
    "transfer",
)
OTHER_FIGURES = ("spectra", "layers", "training")  # neither about P-vectors alone nor about the theory of layers
FIGURES = (
    *DEFAULT_FIGURES,
    "reference_angles",
    "early_angles",
    "mean_control",
    "permutation_null",
    "training_effect",
    "shuffled_labels",
    "explained_variance",
    "entry_densities",
    "entry_samples",
    "subspace_angles",
    "data_angle_accuracy",
    "indicators",
    "similarity",
    "sensitivity",
    *LAYER_FIGURES,
)
LEDGERS = ("p-vectors", "layerwise")
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
WEIGHED_TASKS = (
    "classify",
    "reconstruct",
    "saved",
)  # what networks whose weights were saved elsewhere may have learned
SUPERVISED = ("classify", "shuffled-labels")
CONTRASTIVE = ("simclr", "supcon")
NOT_TRAINED = ("untrained", "saved", "noise")
# of features that were made elsewhere, evidence or controls; these and noise have no network here
IMPORTED = ("features", "control-features")
WITHOUT_NETWORK = ("noise", *IMPORTED)
NORMALISED_KINDS = ("resnet", "wide-resnet", "densenet", "torchvision")  # batch normalisation without a choice

# Tables that a figure of one's own may be drawn from: of the whole study, and of each run, which are stacked.
STUDY_TABLES = (
    "runs",
    "angle_dynamics",
    "angle_pairs",
    "subspaces",
    "entry_summary",
    "entries",
    "extremes",
    "similarity",
    "sensitivity",
    "population",
    "correlations",
    "indicators",
    "claims",
    "own_measures",
)
RUN_TABLES = ("history", "spectra", "layers", "networks", "theory", "layer_probes", "probe", "embedding")

NAME_PATTERN = r"^[a-z0-9]([a-z0-9_.-]*[a-z0-9])?$"
FUNCTION_PATTERN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
Function = Annotated[str, StringConstraints(pattern=FUNCTION_PATTERN)]
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=48)]
PositiveInt = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
# More would be a slip of the keyboard, and fill the memory before anything is checked.
MOST = 10_000
MOST_NAMED = 8  # keys that an error names beside the one that it explains
Depth = Annotated[int, Field(ge=1, le=MOST)]
SeedCount = Annotated[int, Field(ge=1, le=MOST)]
LegacySeed = Annotated[int, Field(ge=0, lt=2**32)]  # what NumPy's old generators take, which libraries still use
# what Python calls by name
_IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"
_FACTORY = rf"^{_IDENTIFIER}(\.{_IDENTIFIER})*:{_IDENTIFIER}(\.{_IDENTIFIER})*$"
_PRETRAINED = (
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "weights",
    "weights_backbone",
)
LibraryName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9_.]*[a-z0-9])?$", max_length=100)]
LAYER_PATTERN = r"[A-Za-z0-9_*?\[\]!-]+(\.[A-Za-z0-9_*?\[\]!-]+)*"
# strict: YAML's `yes`, `1` and "1" must not slide into one another
StrictBool = Annotated[bool, Field(strict=True)]


class Section(BaseModel):
    """A part of the study file: unknown keys are errors, values are finite, nothing is coerced from text."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, coerce_numbers_to_str=False)

    @model_validator(mode="before")
    @classmethod
    def _no_numbers_in_disguise(cls, data: Any) -> Any:
        """Refuse text where a number is wanted, and a truth value where a number is: YAML has its own numbers."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        for key, value in data.items():
            field = cls.model_fields.get(key)
            if field is None:
                continue
            wanted = str(field.annotation)
            if "float" in wanted and isinstance(value, str) and re.fullmatch(r"[+-]?\d+e[+-]?\d+", value):
                data[key] = value = float(value)  # YAML 1.1 takes 1e-3, without a point, for text
            numeric = ("int" in wanted or "float" in wanted) and "str" not in wanted and "Literal" not in wanted
            if not numeric:
                continue
            members = enumerate(value) if isinstance(value, list) else [("", value)]
            for i, member in members:
                if isinstance(member, (str, bool)):
                    raise ValueError(f"{key}{'.' if i != '' else ''}{i}: should be a number, not {member!r}")
        return data


# --- data sets --------------------------------------------------------------------------------------------------


class SampleSet(Section):
    """The fixed, ordered samples whose features are compared."""

    split: Literal["train", "test", "all"] = Field("train", description="Which split the samples come from.")
    limit: PositiveInt | None = Field(
        None, description="How many samples, spread evenly over the classes; all of the split if empty."
    )


class DatasetSection(Section):
    """What every data set has."""

    sample_set: SampleSet = Field(
        default_factory=lambda: SampleSet(),
        description="The fixed, ordered samples whose features are dumped and compared.",
    )


class ImageSection(DatasetSection):
    """What every data set of images has."""

    scaling: Literal["unit", "standardise"] = Field(
        "unit",
        description="What enters the networks: pixels in [0, 1], or these with the training split's mean "
        "and standard deviation (two scalars) taken out.",
    )
    train_limit: PositiveInt | None = Field(
        None, description="Train on so many samples, spread evenly over the classes; on all if empty."
    )
    test_limit: PositiveInt | None = Field(None, description="Likewise for the test split.")
    classes: list[Count] | None = Field(
        None, min_length=2, description="Keep these classes only, numbered anew in this order; all of them if empty."
    )

    @model_validator(mode="after")
    def _classes_are_there(self) -> ImageSection:
        n_classes = N_CLASSES[self.kind]  # type: ignore[attr-defined]
        for i, label in enumerate(self.classes or []):
            if label >= n_classes:
                raise ValueError(f"classes.{i}: {self.kind} has classes 0 to {n_classes - 1}, not {label}")  # type: ignore[attr-defined]
            if label in (self.classes or [])[:i]:
                raise ValueError(f"classes.{i}: class {label} is named twice")
        return self


class Digits(ImageSection):
    """scikit-learn's 1,797 digits of 8 x 8 pixels; embedded, needs no network."""

    kind: Literal["digits"] = Field(description="Which data set.")
    test_fraction: float = Field(0.25, gt=0, lt=1, description="Share of each class held out for testing.")
    split_seed: LegacySeed = Field(0, description="Seed of the stratified split.")


class Orthonormal(DatasetSection):
    """Nearly orthonormal rows: the synthetic data of the layerwise paper."""

    kind: Literal["orthonormal"] = Field(description="Which data set.")
    samples_per_class: PositiveInt = Field(10, description="n: samples in each class.")
    dimension: PositiveInt = Field(50, description="d: the input dimension, at least n K.")
    classes: Annotated[int, Field(ge=2)] = Field(3, description="K: the number of classes.")
    noise: float = Field(1.0, ge=0, description="Frobenius norm of the Gaussian noise added to orthonormal rows.")
    # Draw 0 is one of the eighth or so in which all class means are at obtuse angles: D then falls to 1 from above.
    seed: Count = Field(1, description="Seed of the rows and their noise.")

    @model_validator(mode="after")
    def _rows_fit(self) -> Orthonormal:
        if self.sample_set.split == "test":
            raise ValueError("sample_set.split: all orthonormal rows are trained on, there is no test split")
        if self.samples_per_class * self.classes > self.dimension:
            raise ValueError(
                f"dimension: {self.samples_per_class * self.classes} orthonormal rows do not fit into "
                f"{self.dimension} dimensions"
            )
        return self


class Downloaded(ImageSection):
    """A published data set in its published files."""

    kind: Literal["mnist", "fashion-mnist", "cifar10", "cifar100"] = Field(description="Which data set.")
    source: Annotated[str, StringConstraints(min_length=1)] | None = Field(
        None,
        description="A local directory, or an http(s) address, that holds the published files; a directory is taken "
        "from the working directory, if it does not begin with /.",
    )


class Newsgroups(DatasetSection):
    """The 20 Newsgroups, split by date: rows of TF-IDF, not images."""

    kind: Literal["newsgroups"] = Field(description="Which data set.")
    source: Annotated[str, StringConstraints(min_length=1)] | None = Field(
        None,
        description="A local directory, or an http(s) address, that holds 20news-bydate.tar.gz; a directory is taken "
        "from the working directory, if it does not begin with /.",
    )
    features: PositiveInt = Field(2000, description="How many words count: the most frequent of the training split.")
    strip: StrictBool = Field(True, description="Leave out headers, footers and quotes, which give groups away.")
    train_limit: PositiveInt | None = Field(
        None, description="Train on so many samples, spread evenly over the classes; on all if empty."
    )
    test_limit: PositiveInt | None = Field(None, description="Likewise for the test split.")


SourcePath = Annotated[str, StringConstraints(min_length=1)]
Side = Annotated[int, Field(ge=1, le=4096)]


class OwnSection(DatasetSection):
    """What every data set of one's own has."""

    scaling: Literal["unit", "standardise"] = Field(
        "unit",
        description="What enters the networks: pixels in [0, 1] and rows as they are, or these with the training "
        "split's mean and standard deviation (two scalars) taken out.",
    )
    train_limit: PositiveInt | None = Field(
        None, description="Train on so many samples, spread evenly over the classes; on all if empty."
    )
    test_limit: PositiveInt | None = Field(None, description="Likewise for the test split.")


class ImageFolder(OwnSection):
    """A folder of images: a subfolder a class, or `train` and `test` with a subfolder a class each."""

    kind: Literal["images"] = Field(description="Which data set.")
    folder: SourcePath = Field(description="The folder; from the working directory, if it does not begin with /.")
    side: Side = Field(description="Images are cut to a square and resized to so many pixels a side.")
    colour: StrictBool = Field(True, description="Red, green and blue, or else grey.")
    test_fraction: float | None = Field(
        0.25, gt=0, lt=1, description="Share of each class held out, if there is no folder `test`; none if empty."
    )
    split_seed: Count = Field(0, description="Seed of that split.")


class ArrayFile(OwnSection):
    """Arrays `x` and `y` in a file, perhaps `split`, `x_test`, `y_test` or `class_names`: images or rows."""

    kind: Literal["arrays"] = Field(description="Which data set.")
    file: SourcePath = Field(
        description="An .npz or .safetensors file, a Zarr store, or a folder of .npy files; from the working "
        "directory, if it does not begin with /."
    )
    channels: Literal["first", "last"] | None = Field(
        None, description="Where the channels of images stand; found from the shape if empty."
    )
    test_fraction: float | None = Field(
        0.25, gt=0, lt=1, description="Share of each class held out, if the file has no split; none if empty."
    )
    split_seed: Count = Field(0, description="Seed of that split.")


class FunctionData(OwnSection):
    """What a function of one's own returns: (x, y), (x, y, x_test, y_test) or a mapping of such names to arrays."""

    kind: Literal["function"] = Field(description="Which data set.")
    function: Annotated[
        str, StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$", max_length=200)
    ] = Field(
        description="`package.module:name`, found beside the study file, in the working directory or on PYTHONPATH."
    )
    arguments: dict[str, Any] = Field({}, description="Its keyword arguments.")
    files: list[SourcePath] = Field(
        [], description="Files or folders it reads, from the working directory: a change in one calls it again."
    )
    classes: Annotated[int, Field(ge=2, le=MOST)] = Field(description="K: how many classes there are.")
    shape: Annotated[list[PositiveInt], Field(min_length=1, max_length=3)] = Field(
        description="Shape of a sample: [features], or of images [channels, side, side]."
    )
    train: PositiveInt = Field(description="How many training samples it returns.")
    test: Count = Field(0, description="How many test samples it returns.")

    @field_validator("arguments")
    @classmethod
    def _arguments_are_plain(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(arguments, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"should be numbers, texts, truth values, and lists and mappings of these ({error})"
            ) from error
        return arguments

    @model_validator(mode="after")
    def _parts_agree(self) -> FunctionData:
        if len(self.shape) != 1 and (len(self.shape) != 3 or self.shape[0] not in (1, 3) or len({*self.shape[1:]}) > 1):
            raise ValueError(f"shape: [features], or [channels, side, side] with 1 or 3 channels, not {self.shape}")
        if self.sample_set.split == "test" and not self.test:
            raise ValueError("sample_set.split: there is no test split; say how many samples it has under `test`")
        return self


Dataset = Annotated[
    Digits | Orthonormal | Downloaded | Newsgroups | ImageFolder | ArrayFile | FunctionData,
    Field(discriminator="kind"),
]
Retrieved = Downloaded | Newsgroups  # those that have published files
Own = ImageFolder | ArrayFile | FunctionData

# --- recipes ----------------------------------------------------------------------------------------------------


class Mlp(Section):
    """Fully connected layers with rectifiers; layers `hidden1`, `hidden2`, ..."""

    kind: Literal["mlp"] = Field(description="Which architecture.")
    widths: list[PositiveInt] = Field([64, 64], min_length=1, description="Width of each hidden layer.")
    batch_norm: StrictBool = Field(False, description="Batch normalisation before each rectifier.")


class Linear(Section):
    """A deep linear network without biases; layers `linear1`, ... (the classifier's output is not one)."""

    kind: Literal["linear"] = Field(description="Which architecture.")
    depth: Annotated[int, Field(ge=2, le=MOST)] = Field(
        4, description="L: number of weight matrices, the classifier's too."
    )
    width: PositiveInt = Field(64, description="Width of the hidden layers.")


class Hybrid(Section):
    """Dense layers with rectifiers, then a deep linear network; layers `hidden1`, ..., `linear1`, ..."""

    kind: Literal["hybrid"] = Field(description="Which architecture.")
    nonlinear: Depth = Field(3, description="Layers with rectifiers.")
    linear: Annotated[int, Field(ge=0, le=MOST)] = Field(
        4, description="Linear layers between these and the output, without biases."
    )
    width: PositiveInt = Field(64, description="Width of all of them.")
    batch_norm: StrictBool = Field(True, description="Batch normalisation before each rectifier.")


class Cnn(Section):
    """Convolution, rectifier and 2 x 2 pooling, then one dense layer; layers `conv1`, ..., `hidden`."""

    kind: Literal["cnn"] = Field(description="Which architecture.")
    channels: list[PositiveInt] = Field([16, 32], min_length=1, description="Channels of each convolution.")
    hidden: PositiveInt = Field(64, description="Width of the dense layer that the classifier reads.")
    batch_norm: StrictBool = Field(True, description="Batch normalisation after each convolution.")


class Autoencoder(Section):
    """Strided convolutions down to a dense latent layer, and their mirror; layers `conv1`, ..., `latent`."""

    kind: Literal["autoencoder"] = Field(description="Which architecture.")
    channels: list[PositiveInt] = Field([16, 32], min_length=1, description="Channels of each convolution.")
    latent: PositiveInt = Field(32, description="Width of the latent layer.")


StemStride = Annotated[
    Literal[1, 2],
    Field(
        description="Stride of the first convolution: 2 halves the image, and quarters the cost of all that follows."
    ),
]


class ResNet(Section):
    """A residual network with the stem for small images; layers `stage1` to `stage4`, and `pooled`, the feature."""

    kind: Literal["resnet"] = Field(description="Which architecture.")
    depth: Literal[18, 34, 50] = Field(18, description="Weight layers; 50 has bottleneck blocks.")
    width: PositiveInt = Field(64, description="Channels of the first stage; 64 is the published network.")
    stem_stride: StemStride = 1


class WideResNet(Section):
    """A wide residual network (Zagoruyko & Komodakis 2016); layers `stage1` to `stage3`, and `pooled`, the feature."""

    kind: Literal["wide-resnet"] = Field(description="Which architecture.")
    depth: PositiveInt = Field(28, description="Weight layers: 6 n + 4.")
    widen: PositiveInt = Field(10, description="Factor k on the channels 16, 32, 64 of the three stages.")
    stem_stride: StemStride = 1

    @field_validator("depth")
    @classmethod
    def _depth_makes_blocks(cls, depth: int) -> int:
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"a wide residual network has 6 n + 4 layers (10, 16, 22, 28, ...), not {depth}")
        return depth


class Vgg(Section):
    """3 x 3 convolutions in five stages, average pooling and one dense output; `stage1` to `stage5`, `pooled`."""

    kind: Literal["vgg"] = Field(description="Which architecture.")
    depth: Literal[11, 13, 16] = Field(11, description="Weight layers of the published network.")
    width: PositiveInt = Field(64, description="Channels of the first stage; 64 is the published network.")
    batch_norm: StrictBool = Field(True, description="Batch normalisation after each convolution.")
    stem_stride: StemStride = 1


class DenseNet(Section):
    """Densely connected blocks (DenseNet-BC), stem for small images; layers `stage1`, ..., and `pooled`."""

    kind: Literal["densenet"] = Field(description="Which architecture.")
    blocks: list[PositiveInt] = Field([6, 12, 24, 16], min_length=1, description="Layers of each dense block.")
    growth: PositiveInt = Field(32, description="Channels that each layer adds.")
    stem_stride: StemStride = 1


class NetworkInputs(Section):
    """How images are changed for a network that wants others than the data set's."""

    channels: Literal[3] | None = Field(None, description="Repeat the one channel of grey images.")
    side: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None, description="Resize to so many pixels on each side, bilinear and antialiased."
    )


def _require_plain(value: Any) -> None:
    """Check that a value is what a study can hand to someone else's code: numbers, texts, lists and mappings."""
    if isinstance(value, dict):
        for key, member in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{key!r} is no text, as names of arguments are")
            _require_plain(member)
    elif isinstance(value, list):
        for member in value:
            _require_plain(member)
    elif not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"{value!r} is neither a finite number nor text, a truth value, a list or a mapping")


class BuiltElsewhere(Section):
    """What every network has whose layers only it knows: the recipe's `layers` are paths of modules, and globs."""

    arguments: dict[str, Any] = Field({}, description="Keyword arguments of whatever builds the network.")
    inputs: NetworkInputs | None = Field(None, description="How images are changed for it; as they are if empty.")

    @field_validator("arguments")
    @classmethod
    def _arguments_are_plain(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        _require_plain(arguments)
        for key in arguments:
            if not re.fullmatch(_IDENTIFIER, key):
                raise ValueError(f"{key!r} is no name of an argument")
            if key in _PRETRAINED:
                raise ValueError(f"{key}: networks begin untrained; a recipe's `weights` are read from files")
        return arguments


class Module(BuiltElsewhere):
    """A network of your own: what a function, or a class, of yours returns, a `torch.nn.Module`.

    `model: mypackage.nets:build` is short for this with nothing else. The function gets `arguments`, and those of
    `num_classes`, `in_channels` and `input_shape` that it names. The module is looked for in the folder of the study
    file, in the working directory, on PYTHONPATH and among what is installed.
    """

    kind: Literal["module"] = Field(description="Which architecture.")
    factory: str = Field(description="Where it is: a module, a colon, and what in it is called.")

    @field_validator("factory")
    @classmethod
    def _factory_is_one(cls, factory: str) -> str:
        if len(factory) > 200 or not re.fullmatch(_FACTORY, factory):
            shown = repr(factory) if len(factory) < 60 else "what is there"
            raise ValueError(f"should be a module and a function in it, such as mypackage.nets:build, not {shown}")
        if factory.partition(":")[0].partition(".")[0] == "featurespace":
            raise ValueError("featurespace is this library's own name; call your module otherwise")
        return factory


class Timm(BuiltElsewhere):
    """One of timm's networks, untrained; it gets the number of classes and of channels, and `arguments`."""

    kind: Literal["timm"] = Field(description="Which architecture.")
    name: LibraryName = Field(description="Its name in timm, such as vit_tiny_patch16_224.")


class Torchvision(BuiltElsewhere):
    """One of torchvision's networks, untrained.

    resnet18, resnet34, resnet50, vgg11_bn, vgg13_bn, vgg16_bn and densenet121 get the stem for small images, and have
    layers `stage1`, ..., and `pooled`. Any other is taken as it is, with the number of classes and `arguments`, and
    wants images of three channels.
    """

    kind: Literal["torchvision"] = Field(description="Which architecture.")
    name: LibraryName = Field(description="Its name in torchvision.")

    @model_validator(mode="after")
    def _small_stems_are_as_they_are(self) -> Torchvision:
        if self.name in architectures.SMALL_STEMS:
            for key in ("arguments", "inputs"):
                if getattr(self, key):
                    raise ValueError(
                        f"{key}: {self.name} with the stem for small images takes none; the published one is "
                        f"`factory: torchvision.models:{self.name}`"
                    )
        return self


class Noise(Section):
    """No network: features are drawn at random, whatever the sample; the layer is `noise`."""

    kind: Literal["noise"] = Field(description="Which architecture.")
    width: PositiveInt = Field(64, description="Number of features.")
    rectified: StrictBool = Field(False, description="Rectified: the greater of 0 and the Gaussian number.")


class _OrFactory:
    """Says in the schema that a model may be a text, which stands for a network of one's own."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [handler(core_schema), {"type": "string", "pattern": _FACTORY}]}


Model = Annotated[
    Mlp
    | Linear
    | Hybrid
    | Cnn
    | Autoencoder
    | ResNet
    | WideResNet
    | Vgg
    | DenseNet
    | Torchvision
    | Timm
    | Module
    | Noise,
    Field(discriminator="kind"),
    BeforeValidator(lambda model: {"kind": "module", "factory": model} if isinstance(model, str) else model),
    _OrFactory,
]


class Init(Section):
    """Where training starts."""

    scheme: Literal["default", "orthogonal"] = Field(
        "default", description="PyTorch's own initialisation, or orthogonal matrices."
    )
    scale: float = Field(1.0, gt=0, description="Factor on the orthogonal matrices.")

    @model_validator(mode="after")
    def _scale_is_used(self) -> Init:
        if self.scheme == "default" and self.scale != 1.0:
            raise ValueError("scale: only orthogonal initialisation takes a scale")
        return self


class Sgd(Section):
    """Stochastic (or, with a full batch, plain) gradient descent."""

    kind: Literal["sgd"] = Field(description="Which optimiser.")
    learning_rate: float = Field(gt=0, description="Learning rate at the start.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Heavy-ball momentum.")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty.")


class Adam(Section):
    """Adam with PyTorch's moments."""

    kind: Literal["adam"] = Field(description="Which optimiser.")
    learning_rate: float = Field(1e-3, gt=0, description="Learning rate at the start.")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty.")


Optimiser = Annotated[Sgd | Adam, Field(discriminator="kind")]


class Schedule(Section):
    """How long, in what batches, and which steps' weights are kept."""

    epochs: PositiveInt = Field(description="Passes over the training split.")
    batch_size: PositiveInt | None = Field(128, description="Samples a step; empty: the whole training split.")
    learning_rate_schedule: Literal["constant", "cosine", "step"] = Field(
        "constant", description="How the learning rate changes."
    )
    milestones: list[PositiveInt] = Field([], description="step: epochs at which the learning rate drops.")
    drop_factor: float = Field(0.2, gt=0, lt=1, description="step: factor on the learning rate at each milestone.")
    final_fraction: float = Field(0.1, gt=0, le=1, description="cosine: share of the learning rate left at the end.")
    stop_loss: float | None = Field(
        None,
        gt=0,
        description="A seed whose training loss falls below this has converged and stops (full batch).",
    )
    keep_every: PositiveInt = Field(1, description="Weights are kept every so many epochs, and always first and last.")
    keep_early: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [], description="Weights are also kept at these fractions of the first epoch."
    )

    @model_validator(mode="after")
    def _parts_agree(self) -> Schedule:
        if "final_fraction" in self.model_fields_set and self.learning_rate_schedule != "cosine":
            raise ValueError("final_fraction: only the cosine schedule has one")
        steps = self.learning_rate_schedule == "step"
        if bool(self.milestones) != steps:
            raise ValueError("milestones: needed by learning_rate_schedule step, and by no other")
        if "drop_factor" in self.model_fields_set and not steps:
            raise ValueError("drop_factor: only learning_rate_schedule step has one")
        if sorted(set(self.milestones)) != self.milestones or (self.milestones and self.milestones[-1] >= self.epochs):
            raise ValueError(f"milestones: should rise, and lie within the {self.epochs} epochs")
        if self.stop_loss is not None and self.batch_size is not None:
            raise ValueError("stop_loss: needs the full batch (batch_size: null), where the loss is exact")
        return self


class Augmentation(Section):
    """How training images are changed at random, each time they are seen; never when features are dumped."""

    pad_crop: Count = Field(0, description="Black pixels added on every side before a crop of the image's own size.")
    resized_crop: list[Annotated[float, Field(gt=0, le=1)]] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="Least and greatest share of the area of a crop that is resized to the image's size.",
    )
    flip: StrictBool = Field(False, description="Mirror every other image, left to right.")
    jitter: float = Field(0.0, ge=0, lt=1, description="Strength of changes of brightness, contrast and saturation.")
    hue: float = Field(0.0, ge=0, le=0.5, description="Strength of changes of hue; colour images only.")
    jitter_probability: float = Field(0.8, gt=0, le=1, description="Share of images whose colours are changed.")
    grayscale: float = Field(0.0, ge=0, le=1, description="Share of images that lose their colour; colour images only.")

    @property
    def changes_images(self) -> bool:
        """Whether any change can happen at all."""
        return any((self.pad_crop, self.resized_crop, self.flip, self.jitter, self.hue, self.grayscale))

    @field_validator("resized_crop")
    @classmethod
    def _shares_rise(cls, shares: list[float] | None) -> list[float] | None:
        if shares is not None and shares[0] > shares[1]:
            raise ValueError("the least share comes first")
        return shares


class Contrast(Section):
    """The contrastive tasks: a projection head on the network's features, and the loss on what it gives."""

    temperature: float = Field(0.5, gt=0, description="τ of the loss.")
    hidden: PositiveInt | None = Field(None, description="Hidden width of the head; that of the features if empty.")
    width: PositiveInt = Field(128, description="Width of the head's output.")


class Head(Section):
    """A projection head: dense layers with rectifiers between the features and the classifier."""

    layers: PositiveInt = Field(description="How many.")
    width: PositiveInt | None = Field(None, description="Their width; that of the features if empty.")


class Saved(Section):
    """Weights that were saved elsewhere: the state dict of one seed's network at one step."""

    file: str = Field(
        description="A .safetensors file, or a .pt, .pth or .bin file of tensors; relative to the working directory."
    )
    step: Count = Field(description="The step; 0 is the initialisation.")
    epoch: float | None = Field(None, ge=0, description="The epoch that it has reached; the step's number if empty.")
    seed: Count = Field(0, description="Which of the networks that were trained alike.")

    @field_validator("file")
    @classmethod
    def _file_is_a_path(cls, file: str) -> str:
        # Snakemake takes braces and brackets for its own, wherever they stand
        if not file or not file.isprintable() or any(sign in file for sign in "{}<>*?"):
            raise ValueError(
                "should be the path of a file, without braces, brackets, stars and signs that cannot be seen"
            )
        if Path(file).suffix not in WEIGHT_SUFFIXES:
            raise ValueError(f"{file!r} is no file of weights: these end in {', '.join(WEIGHT_SUFFIXES)}")
        return file


class Recipe(Section):
    """What is trained."""

    dataset: str = Field(description="A name under `datasets`.")
    task: Literal[
        "classify", "shuffled-labels", "reconstruct", "denoise", "simclr", "supcon", "untrained", "saved", "noise"
    ] = Field(
        "classify",
        description="What the network learns; `untrained` keeps its initialisation, `saved` has learned something else "
        "elsewhere, `noise` has no network.",
    )
    weights: list[Saved] | None = Field(
        None, min_length=1, description="Weights that were saved elsewhere: nothing is trained here."
    )
    model: Model = Field(description="The architecture.")
    init: Init = Field(default_factory=lambda: Init(), description="The initialisation.")
    loss: Literal["cross-entropy", "mse"] | None = Field(
        None,
        description="Of the classifying tasks: cross-entropy (the default) or squared error to one-hot labels.",
    )
    output_scale: float = Field(1.0, gt=0, description="α: factor on the network's output.")
    head: Head | None = Field(None, description="A projection head, which learns with the network and has no layers.")
    optimiser: Optimiser | None = Field(None, description="How the weights move; Adam by default.")
    schedule: Schedule | None = Field(None, description="How long; needed by every trained task.")
    noise: float | None = Field(
        None, gt=0, description="denoise: standard deviation of the Gaussian noise on the scaled input."
    )
    augmentation: Augmentation | None = Field(
        None, description="Random changes of the training images; needed by the contrastive tasks."
    )
    contrast: Contrast | None = Field(None, description="simclr, supcon: the head and the loss.")
    dtype: Literal["float32", "float64"] = Field("float32", description="Precision of training.")
    autocast: Literal["bfloat16"] | None = Field(
        None,
        description="Precision of the matrix products of training, for speed on a GPU; weights, losses, "
        "evaluation and features keep `dtype`, which must be float32.",
    )
    threads: PositiveInt = Field(1, description="CPU threads of training: they change the last bits of the result.")
    seeds: SeedCount | list[Count] | None = Field(
        None, description="How many seeds (0, 1, ...) or which; the study's if empty."
    )
    block: PositiveInt = Field(1, description="Seeds a job: small networks train the seeds of a block together.")
    layers: list[str] | None = Field(
        None,
        description="Layers to dump; all of them if empty. Of a network that is built elsewhere, and needed: paths of "
        "its modules and globs (`blocks.*`; `**` for any number of parts).",
    )
    feature_layer: str | None = Field(
        None,
        description="Layer whose P-vector is compared; the deepest if empty, and of a network that is built elsewhere "
        "the last of `layers` that is no glob.",
    )
    pooling: Literal["average", "flatten"] = Field(
        "average",
        description="How a layer of maps, or of tokens, becomes a row: average over space, or over tokens, or every "
        "entry.",
    )

    @field_validator("seeds")
    @classmethod
    def _seeds_are_distinct(cls, seeds: int | list[int] | None) -> int | list[int] | None:
        if isinstance(seeds, list):
            if not seeds:
                raise ValueError("at least one seed is needed")
            if len(set(seeds)) != len(seeds):
                raise ValueError("a seed is named twice")
        return seeds

    @model_validator(mode="after")
    def _parts_agree(self) -> Recipe:
        is_autoencoder, is_elsewhere = self.model.kind == "autoencoder", is_own(self.model.model_dump())
        if self.task in ("reconstruct", "denoise") and not is_autoencoder and not is_elsewhere:
            raise ValueError(f"model.kind: task {self.task} needs an autoencoder, not {self.model.kind}")
        if self.task in SUPERVISED and is_autoencoder:
            raise ValueError(f"model.kind: an autoencoder has no classes to learn (task {self.task})")
        if self.task in CONTRASTIVE and (self.model.kind not in HEADED_KINDS or is_elsewhere):
            raise ValueError(f"model.kind: task {self.task} needs a network that classifies, not {self.model.kind}")
        if (self.task == "noise") != (self.model.kind == "noise"):
            raise ValueError("model.kind: task noise and model noise go together")
        if self.loss is not None and self.task not in SUPERVISED:
            raise ValueError(f"loss: task {self.task} has its own")
        if (self.noise is not None) != (self.task == "denoise"):
            raise ValueError("noise: needed by task denoise, and by no other")
        if self.contrast is not None and self.task not in CONTRASTIVE:
            raise ValueError(f"contrast: only {' and '.join(CONTRASTIVE)} have one, not task {self.task}")
        if self.task in CONTRASTIVE and (self.augmentation is None or not self.augmentation.changes_images):
            raise ValueError(f"augmentation: task {self.task} needs one, or its two views are the same")
        if self.task in CONTRASTIVE and self.schedule is not None and self.schedule.batch_size == 1:
            raise ValueError(f"schedule.batch_size: task {self.task} contrasts a sample with others of its batch")
        if self.task in CONTRASTIVE and self.output_scale != 1:
            raise ValueError(f"output_scale: task {self.task} scales outputs to length 1")
        if self.head is not None:
            if self.task not in (*SUPERVISED, "untrained"):
                raise ValueError(f"head: task {self.task} takes none")
            if self.model.kind not in HEADED_KINDS or is_elsewhere:
                raise ValueError(
                    f"head: a network of kind {self.model.kind} takes none (those of kind {', '.join(HEADED_KINDS)} do)"
                )
        if self.task == "noise":
            for key in ("init", "dtype", "threads", "output_scale", "pooling"):
                if key in self.model_fields_set:
                    raise ValueError(f"{key}: task noise has no network")
        if self.augmentation is not None and self.task not in (*SUPERVISED, *CONTRASTIVE):
            raise ValueError(f"augmentation: task {self.task} takes none")
        if self.task in NOT_TRAINED and (self.schedule is not None or self.optimiser is not None):
            raise ValueError(f"task: {self.task} takes neither schedule nor optimiser")
        if self.autocast is not None and (self.task in NOT_TRAINED or self.dtype != "float32"):
            raise ValueError("autocast: only training in float32 takes it")
        self._weights_agree()
        if is_elsewhere and "init" in self.model_fields_set:
            raise ValueError(f"init: a network of kind {self.model.kind} is initialised by whoever builds it")
        if self.task not in NOT_TRAINED and self.schedule is None and self.weights is None:
            raise ValueError(f"schedule: task {self.task} needs one")
        normalises = getattr(self.model, "batch_norm", self.model.kind in NORMALISED_KINDS)
        if normalises and self.schedule is not None and self.schedule.batch_size == 1:
            raise ValueError("schedule.batch_size: batch normalisation needs more than one sample")
        if is_elsewhere:
            self._paths_agree()
            return self
        names = architectures.layer_names(self.model.model_dump())
        feature_layer = names[-1] if self.feature_layer is None else self.feature_layer
        for key, layers in (("layers", self.layers or []), ("feature_layer", [feature_layer])):
            for layer in layers:
                if layer not in names:
                    raise ValueError(f"{key}: no layer {layer!r} in this {self.model.kind}{_allowed(layer, names)}")
        if self.layers is not None:
            if not self.layers:
                raise ValueError("layers: at least one layer is needed")
            if feature_layer not in self.layers:
                raise ValueError(f"layers: the feature layer {feature_layer!r} must be among them")
        return self

    def _weights_agree(self) -> None:
        """Check that weights saved elsewhere are those of a population of seeds at common steps."""
        if self.weights is None:
            if self.task == "saved":
                raise ValueError("weights: task saved needs them: the files, and the steps that they are of")
            return
        if self.task not in WEIGHED_TASKS:
            raise ValueError(f"weights: only tasks {', '.join(WEIGHED_TASKS)} take them, not {self.task}")
        for key in ("schedule", "optimiser", "init", "augmentation", "seeds"):
            if key in self.model_fields_set:
                raise ValueError(f"{key}: nothing is trained where `weights` are given")
        steps: dict[int, dict[int, float | None]] = {}
        for i, saved in enumerate(self.weights):
            if saved.step in steps.setdefault(saved.seed, {}):
                raise ValueError(f"weights.{i}: seed {saved.seed} has two files of step {saved.step}")
            steps[saved.seed][saved.step] = saved.epoch
        first = steps[self.weights[0].seed]
        for seed, own in steps.items():
            if own != first:
                raise ValueError(f"weights: seed {seed} has other steps, or epochs, than seed {self.weights[0].seed}")
        epochs = [float(step if epoch is None else epoch) for step, epoch in sorted(first.items())]
        if epochs != sorted(epochs):
            raise ValueError("weights: epochs should rise with the steps")

    def _paths_agree(self) -> None:
        """Check the layers of a network that is built elsewhere, as far as they can be without it."""
        if not self.layers:
            which = f"a network of kind {self.model.kind}"
            if isinstance(self.model, Torchvision):
                which = f"torchvision's {self.model.name}, which is none of {', '.join(architectures.SMALL_STEMS)}"
            raise ValueError(f"layers: paths of modules, or globs of them, are needed by {which}")
        for i, layer in enumerate(self.layers):
            if len(layer) > 200 or not re.fullmatch(LAYER_PATTERN, layer):
                shown = repr(layer) if len(layer) < 60 else "what is there"
                raise ValueError(f"layers.{i}: {shown} is no path of a module, such as blocks.3 or blocks.*")
            if layer in self.layers[:i]:
                raise ValueError(f"layers.{i}: {layer!r} is there twice")
        feature_layer = own_feature_layer(self)
        if feature_layer is None:
            raise ValueError("feature_layer: needed where all `layers` are globs: the path of one module")
        if len(feature_layer) > 200 or is_glob(feature_layer) or not re.fullmatch(LAYER_PATTERN, feature_layer):
            raise ValueError(f"feature_layer: {feature_layer[:60]!r} is no path of one module, such as blocks.3")
        if not any(matches_layer(layer, feature_layer) for layer in self.layers):
            raise ValueError(f"feature_layer: {feature_layer!r} must be among `layers`, or fit a glob there")


def own_feature_layer(recipe: Recipe) -> str | None:
    """Return the feature layer of a network that is built elsewhere: the one named, or the last path of `layers`."""
    paths = [layer for layer in recipe.layers or [] if not is_glob(layer)]
    return paths[-1] if recipe.feature_layer is None and paths else recipe.feature_layer


def feature_layer_of(recipe: Recipe) -> str:
    """Return the layer whose P-vector stands for a recipe."""
    model = recipe.model.model_dump()
    own = own_feature_layer(recipe) if is_own(model) else recipe.feature_layer
    return own or architectures.feature_layer(model)


def _names_its_layers(model: dict[str, Any]) -> bool:
    """Say whether a section, unchecked, is of a network whose recipe has to name its layers."""
    is_torchvisions = model.get("kind") == "torchvision" and model.get("name") not in architectures.SMALL_STEMS
    return model.get("kind") in ("module", "timm") or is_torchvisions


class ImportedModel(Section):
    """Stands in the place of a model where features were made elsewhere; no study file has it."""

    kind: Literal["features"] = "features"


class FeatureSource(Section):
    """Features that were made elsewhere: they join the analysis as a recipe does."""

    dataset: str = Field(description="A name under `datasets`: of which samples the features are.")
    source: SourcePath = Field(
        description="A Zarr store, a folder with a .npy file a layer, or an .npz or .safetensors file with an array a "
        "layer, (n, d), (steps, n, d) or (seeds, steps, n, d); from the working directory, if it does not begin with /."
    )
    layers: list[str] | None = Field(
        None, min_length=1, description="Layers to analyse, shallowest first; all if empty, in the source's order."
    )
    feature_layer: str | None = Field(None, description="Layer whose P-vector is compared; the deepest if empty.")
    control: StrictBool = Field(
        False,
        description="They are a control (principal components, an untrained network), and no network's that learned.",
    )

    @property
    def recipe(self) -> Recipe:
        """The recipe that these features count as: without network, in one block. Layers and seeds the source has."""
        task = IMPORTED[self.control]
        return Recipe.model_construct(dataset=self.dataset, task=task, model=ImportedModel(), block=MOST)  # type: ignore[arg-type]


class Sweep(Section):
    """Many settings of one recipe: a population of networks, of which only the first and the last step are kept."""

    base: str = Field(description="A name under `recipes`: what the members have in common.")
    vary: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        min_length=1,
        description="Keys of the recipe, with dots (`optimiser.learning_rate`), and the values each takes; "
        "all combinations are trained, as `<name>-01`, `<name>-02`, ...",
    )
    set: dict[str, Any] = Field({}, description="Other keys of the recipe, and the one value that all members have.")
    layers: Literal["feature", "all"] = Field("feature", description="Which layers of the members are dumped.")

    def members(self, recipe: Recipe) -> list[dict[str, Any]]:
        """List the members' sections, the last key of `vary` changing fastest."""
        if recipe.weights is not None:
            raise ValueError(f"base: weights of {self.base} were saved elsewhere, so that nothing of it can be varied")
        n_members = math.prod(len(values) for values in self.vary.values())
        if n_members > MOST:
            raise ValueError(f"vary: {n_members} combinations are more than {MOST}")
        sections = []
        for values in itertools.product(*self.vary.values()):
            section = recipe.model_dump(exclude_unset=True)
            for key, value in [*self.set.items(), *zip(self.vary, values, strict=True)]:
                *parents, last = key.split(".")
                part = section
                for parent in parents:
                    part = part.setdefault(parent, {})
                    if not isinstance(part, dict):
                        raise ValueError(f"vary: {key}: {parent} is no section")
                part[last] = copy.deepcopy(value)  # members share none of it
            if isinstance(section.get("schedule"), dict):
                epochs = section["schedule"].get("epochs")
                section["schedule"] |= {"keep_every": epochs, "keep_early": []}
            model = section.get("model")
            if not isinstance(model, str) and not (isinstance(model, dict) and _names_its_layers(model)):
                section.pop("layers", None)  # a member's are its own
            sections.append(section)
        return sections

    @model_validator(mode="after")
    def _keys_and_values_count(self) -> Sweep:
        for key in (*self.vary, *self.set):
            if key == "layers" or key in ("schedule.keep_every", "schedule.keep_early"):
                raise ValueError(f"{key}: of a sweep's members the feature layer's first and last step are kept")
        for key, values in self.vary.items():
            if key in self.set:
                raise ValueError(f"vary.{key}: is under `set` too")
            if any(value in values[:i] for i, value in enumerate(values)):
                raise ValueError(f"vary.{key}: a value is there twice, which would make the same network twice")
        return self


# --- analysis ---------------------------------------------------------------------------------------------------


class Spectra(Section):
    """What is kept of each singular value decomposition."""

    vectors: PositiveInt = Field(6, description="k: leading singular vectors kept, and searched for in `leading`.")
    spectrum: Literal["whole", "leading"] = Field(
        "whole", description="Every singular value, or only the k leading ones."
    )


class Measures(Section):
    """How layers are measured."""

    rank_energy: float = Field(
        0.95,
        gt=0,
        lt=1,
        description="Numerical rank: the singular values that carry this share of their sum.",
    )
    own: list[Function] = Field(
        [],
        description="Measures of one's own, `package.module:function`: of the features (n, d) and labels (n,) of a "
        "layer, a number, or several by name. See `docs/how-to/own-measure-and-figure.md`.",
    )

    @field_validator("own")
    @classmethod
    def _functions_have_names_of_their_own(cls, own: list[str]) -> list[str]:
        names = [function.partition(":")[2] for function in own]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise ValueError(f"two functions are called {name}: tables could not tell them apart")
        return own


class Angles(Section):
    """How P-vectors are compared."""

    permutations: PositiveInt = Field(199, description="Permutations of the samples in each null distribution.")
    permutation_seed: Count = Field(0, description="Seed of the permutations.")
    references: list[str] | None = Field(
        None,
        min_length=1,
        description="Recipes whose last steps all steps of the others are compared with; every recipe if empty.",
    )


class Subspaces(Section):
    """How the spans of several singular vectors are compared."""

    dimensions: list[PositiveInt] = Field(
        [1, 2, 3, 4, 5, 6], min_length=1, description="k: how many leading vectors span a subspace; no more are kept."
    )
    null_draws: PositiveInt = Field(200, description="Pairs of random subspaces in each null distribution.")
    null_seed: Count = Field(0, description="Seed of the random subspaces.")


class Entries(Section):
    """How the entries of P-vectors are shown."""

    fractions: list[Annotated[float, Field(ge=0, le=1)]] = Field(
        [0.0, 0.3, 0.6, 1.0], min_length=1, description="Shares of training at which densities are taken."
    )
    bins: Annotated[int, Field(ge=2)] = Field(60, description="Bins of each density.")
    extremes: PositiveInt = Field(8, description="Samples listed at either end of the order of entries.")


class Probe(Section):
    """How well a linear classifier reads the classes from the features."""

    regularisation: float = Field(1.0, gt=0, description="C of scikit-learn's logistic regression.")


class LayerProbes(Section):
    """How well a linear map reads the classes from each layer, on a recipe's own data and on others."""

    regularisation: float = Field(
        1e-3, gt=0, description="Ridge of the least-squares probe, as a share of the features' mean variance."
    )
    targets: list[str] = Field(
        [], description="Further data sets that the feature layer is probed on, where they fit the network: transfer."
    )
    silhouette_samples: PositiveInt = Field(2000, description="Training samples, at most, of each silhouette.")


class Embedding(Section):
    """The maps of layers that UMAP makes."""

    depths: list[PositiveInt] = Field([1, 2, 4, 6], min_length=1, description="Layers that are shown, by depth.")
    samples: Annotated[int, Field(ge=10)] = Field(2000, description="Samples, at most, in each map.")
    neighbours: Annotated[int, Field(ge=2)] = Field(15, description="UMAP: neighbours of a sample.")
    min_dist: float = Field(0.1, ge=0, le=1, description="UMAP: how close samples may lie.")
    seed: LegacySeed = Field(0, description="UMAP: seed.")


class Sensitivity(Section):
    """What the angles depend on: samples, features, split, normalisation, depth, width."""

    shares: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [0.125, 0.25, 0.5, 1.0], min_length=1, description="Shares of the samples, and of the features, that are kept."
    )
    seed: Count = Field(0, description="Seed of what is chosen at random.")

    @field_validator("shares")
    @classmethod
    def _shares_rise(cls, shares: list[float]) -> list[float]:
        if sorted(set(shares)) != shares or shares[-1] != 1:
            raise ValueError("should rise, and end at 1: what the others are compared with")
        return shares


class Statistics(Section):
    """How the statistics over a population are tested."""

    resamples: Annotated[int, Field(ge=99)] = Field(
        1999, description="Permutations of each p-value, and resamples of each interval."
    )
    seed: Count = Field(0, description="Seed of both.")


class Analysis(Section):
    """What is computed from the features."""

    spectra: Spectra = Field(default_factory=lambda: Spectra(), description="Singular values and vectors.")
    measures: Measures = Field(default_factory=lambda: Measures(), description="Compression, discrimination, rank.")
    angles: Angles = Field(default_factory=lambda: Angles(), description="Angles between P-vectors.")
    subspaces: Subspaces = Field(default_factory=lambda: Subspaces(), description="Angles between subspaces.")
    entries: Entries = Field(default_factory=lambda: Entries(), description="The entries of P-vectors.")
    held_out: PositiveInt | None = Field(
        None, description="Test samples, at most, on which first and last steps are seen too; all if empty."
    )
    probe: Probe = Field(default_factory=lambda: Probe(), description="Linear probes of first and last steps.")
    layer_probes: LayerProbes = Field(default_factory=lambda: LayerProbes(), description="Linear probes of layers.")
    embedding: Embedding = Field(default_factory=lambda: Embedding(), description="Maps of layers.")
    sensitivity: Sensitivity = Field(default_factory=lambda: Sensitivity(), description="Sensitivity of the angles.")
    statistics: Statistics = Field(default_factory=lambda: Statistics(), description="Tests over a population.")

    @model_validator(mode="after")
    def _vectors_are_kept(self) -> Analysis:
        if max(self.subspaces.dimensions) > self.spectra.vectors:
            raise ValueError(
                f"subspaces.dimensions: {max(self.subspaces.dimensions)} vectors are asked for, and spectra.vectors "
                f"keeps {self.spectra.vectors}"
            )
        return self


class OwnFigure(Section):
    """A figure of one's own: see `docs/how-to/own-measure-and-figure.md`."""

    script: Annotated[str, StringConstraints(pattern=r"\.py$")] = Field(
        description="A Python file with a function `plot(tables)`: found from the folder of the study file, from the "
        "working directory, or from a folder on PYTHONPATH."
    )
    tables: list[Literal[(*STUDY_TABLES, *RUN_TABLES)]] = Field(  # type: ignore[valid-type]
        min_length=1, description="The tables that it is drawn from."
    )
    caption: str = Field("", description="In reStructuredText; what the file's docstring says if empty.")

    @field_validator("tables")
    @classmethod
    def _tables_are_distinct(cls, tables: list[str]) -> list[str]:
        if len(set(tables)) != len(tables):
            raise ValueError("one is named twice")
        return tables


class Study(Section):
    """One study: everything that `results/<study>/` depends on."""

    study: Name = Field(description="Name of the study, and of its folder under `results/`.")
    title: str = Field("", description="Heading of the report; the study's name if empty.")
    question: str = Field("", description="What the study asks, for the top of the report.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where tensors live: a free GPU if there is one, or always one of the two."
    )
    seeds: SeedCount | list[Count] = Field(5, description="Seeds of every recipe that names none of its own.")
    keep_features: StrictBool = Field(
        True, description="Keep the feature stores; if false each is deleted once it has been analysed."
    )
    datasets: dict[Name, Dataset] = Field(min_length=1, description="Data sets, by a name of your choice.")
    recipes: dict[Name, Recipe] = Field({}, description="Recipes, by a name of your choice.")
    features: dict[Name, FeatureSource] = Field(
        {}, description="Features that were made elsewhere, by a name of your choice."
    )
    sweeps: dict[Name, Sweep] = Field({}, description="Populations of networks, by a name of your choice.")
    analysis: Analysis = Field(default_factory=lambda: Analysis(), description="Spectra, layer measures and angles.")
    ledgers: list[Literal[LEDGERS]] = Field([], description="Papers whose claims are tested, each in a ledger.")  # type: ignore[valid-type]
    figures: list[Literal[FIGURES]] = Field(list(DEFAULT_FIGURES), description="The figures of the report.")  # type: ignore[valid-type]
    own_figures: dict[Name, OwnFigure] = Field({}, description="Figures of one's own, by a name of your choice.")

    @cached_property
    def members(self) -> dict[str, tuple[str, Recipe]]:
        """The recipes that sweeps make, by name, each with its sweep's."""
        members = {}
        for name, sweep in self.sweeps.items():
            if sweep.base not in self.recipes:
                raise ValueError(
                    f"sweeps.{name}.base: no recipe {sweep.base!r}{_allowed(sweep.base, list(self.recipes))}"
                )
            try:
                sections = sweep.members(self.recipes[sweep.base])
            except ValueError as error:
                raise ValueError(f"sweeps.{name}.{error}") from error
            for i, section in enumerate(sections, start=1):
                member = f"{name}-{i:0{max(2, len(str(len(sections))))}d}"
                try:
                    recipe = Recipe.model_validate(section)
                except ValidationError as error:
                    # told as an error of a recipe of the study file is, which knows the keys there are
                    first = error.errors()[0]
                    said = _sentence({**first, "loc": ("recipes", member, *first["loc"])})
                    said = said.removeprefix(f"recipes.{member}.")
                    raise ValueError(f"sweeps.{name}.vary: member {i}: {said}") from error
                if sweep.layers == "feature":
                    recipe = recipe.model_copy(update={"layers": [feature_layer_of(recipe)]})
                members[member] = (name, recipe)
        return members

    @cached_property
    def all_recipes(self) -> dict[str, Recipe]:
        """Every recipe by name: the study file's, what features that were made elsewhere count as, sweeps' members."""
        imported = {name: section.recipe for name, section in self.features.items()}
        return self.recipes | imported | {name: recipe for name, (_, recipe) in self.members.items()}

    @field_validator("seeds")
    @classmethod
    def _seeds_are_distinct(cls, seeds: int | list[int]) -> int | list[int]:
        if isinstance(seeds, list) and (not seeds or len(set(seeds)) != len(seeds)):
            raise ValueError("a seed is named twice" if seeds else "at least one seed is needed")
        return seeds

    @field_validator("figures", "ledgers")
    @classmethod
    def _names_are_distinct(cls, names: list[str]) -> list[str]:
        if len(set(names)) != len(names):
            raise ValueError("one is named twice")
        return names

    @model_validator(mode="after")
    def _references_resolve(self) -> Study:
        if not self.recipes and not self.features:
            raise ValueError("recipes: is empty, and so is `features`: at least one of either is needed")
        for name in (*self.members, *self.features):
            kind = "a sweep makes a recipe" if name in self.members else "`features` has something"
            if name in self.recipes or (name in self.members and name in self.features):
                section = "recipes" if name in self.recipes else "features"
                raise ValueError(f"{section}.{name}: {kind} of this name; choose another")
        for name, recipe in self.all_recipes.items():
            where = self.place_of(name)
            dataset = self.datasets.get(recipe.dataset)
            if dataset is None:
                raise ValueError(
                    f"{where}.dataset: no data set {recipe.dataset!r}{_allowed(recipe.dataset, list(self.datasets))}"
                )
            require_fit(where, recipe, dataset, input_shape(dataset))
        own = [*self.recipes, *self.features]
        for i, name in enumerate(self.analysis.angles.references or []):
            if name not in own:
                raise ValueError(f"analysis.angles.references.{i}: no recipe {name!r}{_allowed(name, own)}")
        used = {recipe.dataset for recipe in self.all_recipes.values()}
        for i, name in enumerate(self.analysis.layer_probes.targets):
            where = f"analysis.layer_probes.targets.{i}"
            if name not in self.datasets:
                raise ValueError(f"{where}: no data set {name!r}{_allowed(name, list(self.datasets))}")
            if isinstance(self.datasets[name], Orthonormal):
                raise ValueError(f"{where}: orthonormal rows have no test split to probe on")
            shapes = [input_shape(self.datasets[other]) for other in used]
            # what only a file says is asked of it later
            if None not in (own_shape := input_shape(self.datasets[name]), *shapes) and own_shape not in shapes:
                raise ValueError(f"{where}: no recipe is trained on samples of the shape of those of {name}")
        for name, figure in self.own_figures.items():
            if name in FIGURES:
                raise ValueError(f"own_figures.{name}: there is a figure of this name; choose another")
            for table, is_made in (("claims", self.ledgers), ("own_measures", self.analysis.measures.own)):
                if table in figure.tables and not is_made:
                    needed = "ledgers" if table == "claims" else "analysis.measures.own"
                    raise ValueError(f"own_figures.{name}.tables: there is no {table} without {needed}")
        sources: dict[str, tuple[str, str | None]] = {}
        for name, dataset in self.datasets.items():
            if isinstance(dataset, Retrieved):
                other = sources.setdefault(dataset.kind, (name, dataset.source))
                if other[1] != dataset.source:
                    raise ValueError(
                        f"datasets.{name}.source: {dataset.kind} is retrieved once, and datasets.{other[0]} "
                        "names another source"
                    )
        for name in ("data", "own"):
            if name in own:
                raise ValueError(f"{self.place_of(name)}: tables use this name for something else; choose another")
        return self

    def place_of(self, recipe: str) -> str:
        """Say where in the study file a recipe comes from."""
        if recipe in self.members:
            return f"sweeps.{self.members[recipe][0]}: {recipe}"
        return f"{'features' if recipe in self.features else 'recipes'}.{recipe}"


def input_shape(dataset: Dataset) -> tuple[int, ...] | None:
    """Return the shape of a data set's samples, (channel, side, side) or (n_features,); None: only its file says."""
    match dataset:
        case Digits() | Downloaded():
            side = IMAGE_SIDES[dataset.kind]
            return (3 if dataset.kind in COLOUR_KINDS else 1), side, side
        case Orthonormal():
            return (dataset.dimension,)
        case Newsgroups():
            return (dataset.features,)
        case ImageFolder():
            return (3 if dataset.colour else 1), dataset.side, dataset.side
        case FunctionData():
            return tuple(dataset.shape)
    return None


def require_fit(where: str, recipe: Recipe, dataset: Dataset, shape: tuple[int, ...] | None) -> None:
    """Check that a recipe's network and augmentation can do with samples of a shape; None: not known yet."""
    kind = recipe.model.kind
    if shape is None or recipe.task in IMPORTED:
        return
    _require_inputs_fit(where, recipe, dataset, shape)
    if len(shape) == 1:
        if kind in architectures.CONVOLUTIONAL_KINDS:
            raise ValueError(f"{where}.model.kind: {kind} needs images, not the rows of {dataset.kind}")
        if recipe.augmentation is not None:
            raise ValueError(f"{where}.augmentation: only images are augmented, not the rows of {dataset.kind}")
        return
    side, least = shape[-1], architectures.minimum_side(recipe.model.model_dump())
    if side < least:
        key = "model.channels" if kind == "cnn" else "model"
        raise ValueError(
            f"{where}.{key}: this {kind} needs images of at least {least} x {least} pixels, and halves those of "
            f"{side} x {side} pixels to nothing"
        )
    if shape[0] == 1 and recipe.augmentation is not None:
        for key in ("hue", "grayscale"):
            if getattr(recipe.augmentation, key):
                raise ValueError(f"{where}.augmentation.{key}: images of {dataset.kind} have no colour")


def _require_inputs_fit(where: str, recipe: Recipe, dataset: Dataset, shape: tuple[int, ...]) -> None:
    """Check that a network that is built elsewhere, and only wants images of some kind, is given such images."""
    model = recipe.model
    if not isinstance(model, BuiltElsewhere) or not is_own(model.model_dump()):
        return
    if len(shape) == 1:
        for key in ("inputs", "name"):  # timm's and torchvision's networks go by names
            if getattr(model, key, None):
                raise ValueError(f"{where}.model.{key}: is for images, not for the rows of {dataset.kind}")
        return
    if isinstance(model, Torchvision) and shape[0] == 1 and (model.inputs is None or model.inputs.channels is None):
        raise ValueError(
            f"{where}.model.inputs: torchvision's {model.name} wants three channels, and images of {dataset.kind} have "
            "one; `inputs: {channels: 3}` repeats it"
        )


# --- reading ----------------------------------------------------------------------------------------------------


def _allowed(given: Any, names: list[str]) -> str:
    """Say which names there are, the nearest first."""
    close = difflib.get_close_matches(str(given), names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} (there are: {', '.join(names)})"


def _sections_in(annotation: Any) -> list[type[Section]]:
    """List the sections named anywhere in a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in getattr(annotation, "__args__", ()) for section in _sections_in(part)]


def _tags(section: type[Section]) -> tuple[str, ...]:
    """Return the values of `kind` by which a section is chosen, if it is one of several."""
    kind = section.model_fields.get("kind")
    return kind.annotation.__args__ if kind is not None else ()  # type: ignore[union-attr]


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys that are known in the section at a pydantic error location."""
    sections: list[type[Section]] = [Study]
    for part in location:
        if len(sections) == 1 and str(part) in sections[0].model_fields:
            sections = _sections_in(sections[0].model_fields[str(part)].annotation)
        elif len(sections) > 1:
            # the tag of a union's member; the name of a data set comes before it and decides nothing
            sections = [section for section in sections if part in _tags(section)] or sections
    return list(sections[0].model_fields) if len(sections) == 1 else []


_TAGS = {tag for section in _sections_in(Dataset | Model | Optimiser) for tag in _tags(section)}


def _key(location: tuple[int | str, ...]) -> str:
    """Write an error's location as a person would: without the tags that pydantic puts between a union's parts."""
    parts: list[str] = []
    for i, part in enumerate(location):
        after_model = i > 0 and location[i - 1] in ("model", "optimiser")
        after_dataset = i > 1 and location[i - 2] == "datasets"
        if part in _TAGS and (after_model or after_dataset):
            continue
        if isinstance(part, str) and re.match(r"(constrained-)?(int|list)\b|list\[|\[key\]", part):
            continue  # the members of `int | list[int]`, and a name that is itself wrong
        parts.append(str(part))
    return ".".join(parts)


def _is_other_member(error: Any) -> bool:
    """Say whether an error is about the member of `int | list[int]` that was clearly not meant."""
    member = str(error["loc"][-1]) if error["loc"] else ""
    is_list = isinstance(error["input"], list)
    return (member.startswith("list[") and not is_list) or (member in ("int", "constrained-int") and is_list)


def _sentence(error: Any) -> str:
    """Turn one pydantic error into: key, what was wrong, what is allowed."""
    location, kind = error["loc"], error["type"]
    key = _key(location)
    given = error.get("input")
    if kind == "extra_forbidden":
        return f"{key}: unknown key{_allowed(location[-1], _fields_at(location[:-1]))}"
    if kind == "missing":
        return f"{key}: is missing"
    if kind == "union_tag_not_found":
        union = {"model": Model, "optimiser": Optimiser}.get(str(location[-1]), Dataset)
        names = [tag for section in _sections_in(union) for tag in _tags(section)]
        return f"{key}.kind: is missing (there are: {', '.join(names)})"
    if kind == "union_tag_invalid":
        names = [tag.strip(" '") for tag in error["ctx"]["expected_tags"].split(",")]
        return f"{key}.kind: unknown kind {error['ctx']['tag']!r}{_allowed(error['ctx']['tag'], names)}"
    if kind == "literal_error":
        names = [name.strip(" '") for name in re.split(r",| or ", error["ctx"]["expected"])]
        return f"{key}: {given!r} is not allowed{_allowed(given, names)}"
    if kind == "too_short":
        return f"{key}: is empty, at least {error['ctx']['min_length']} is needed"
    if kind == "string_pattern_mismatch" and error["ctx"]["pattern"] == FUNCTION_PATTERN:
        return f"{key}: {given!r} is no function: it should be `package.module:function`"
    if kind == "string_pattern_mismatch" and error["ctx"]["pattern"] == r"\.py$":
        return f"{key}: {given!r} is no Python file: its name should end in .py"
    if kind == "string_pattern_mismatch":
        return f"{key}: {given!r} is no name: small letters, digits, '-', '_' and '.', no blanks, no slashes"
    if kind == "value_error":
        message = str(error["ctx"]["error"])
        # raised in a section, the message begins with a key of that section
        glue = "." if re.match(r"[\w.-]+: ", message) and key else (": " if key else "")
        return f"{key}{glue}{message}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"{key}: should be a section with keys of its own, not {given!r}"
    message = error["msg"]
    shown = repr(given)
    return f"{key}: {message[0].lower()}{message[1:]}" + (f", not {shown}" if len(shown) < 60 else "")


def _printable(text: str) -> str:
    """Write what a terminal would obey, or hide, as its escape: a study's keys are a stranger's text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _refuse_unreadable(data: Any) -> None:
    """Refuse what YAML can say and no result can hold, wherever it stands: sections within themselves, and worse.

    Raises
    ------
    ValueError
        That begins with the key.
    """
    n_seen = 0
    pending: list[tuple[tuple[str, ...], Any, tuple[int, ...]]] = [((), data, ())]
    while pending:
        place, value, above = pending.pop()
        where = ".".join(place)
        n_seen += 1
        if n_seen > 100 * MOST:
            raise ValueError(f"{place[0]}: more than {100 * MOST} values in all, by YAML's aliases or one by one")
        if isinstance(value, dict | list):
            if id(value) in above:
                raise ValueError(f"{where}: is within itself (by an alias of YAML)")
            members = value.items() if isinstance(value, dict) else enumerate(value)
            pending += [((*place, str(key)), member, (*above, id(value))) for key, member in reversed([*members])]
        elif isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError(f"{where}: a number this large is not allowed (at most {2**63 - 1})")
        for text in (value, *place[-1:]):
            if isinstance(text, str) and any("\ud800" <= c <= "\udfff" for c in text):
                raise ValueError(f"{where}: should be text that a file can hold, without halves of characters")


def parse_study(data: Any, filename: str = "study") -> Study:
    """Check a study given as plain data.

    Raises
    ------
    FeaturespaceError
        One line: the file, the key, what was wrong, what is allowed. Of further errors only the keys are named.
    """
    if not isinstance(data, dict):
        raise FeaturespaceError(f"{filename}: a study is a mapping of sections, not {type(data).__name__}")
    try:
        _refuse_unreadable(data)
        return Study.model_validate(data)
    except ValidationError as error:
        # a mistyped key is also a missing one: the typo says more
        errors = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        errors = [e for e in errors if not _is_other_member(e)] or errors
        sentences = list(dict.fromkeys(_sentence(e) for e in errors))
        keys = list(dict.fromkeys(sentence.partition(": ")[0] for sentence in sentences[1:]))
        more = f"; also wrong: {', '.join(keys[:MOST_NAMED])}" if keys else ""
        more += f" and {len(keys) - MOST_NAMED} more" if len(keys) > MOST_NAMED else ""
        line = " ".join(f"{sentences[0]}{more}".split())
        raise FeaturespaceError(f"{filename}: {_printable(line)}") from error
    except ValueError as error:
        raise FeaturespaceError(f"{filename}: {_printable(' '.join(str(error).split()))}") from error


def check_sources(study: Study, filename: str = "study") -> None:
    """Check that the local sources a study names exist, before any job runs.

    Raises
    ------
    FeaturespaceError
        If a `source` is neither a directory nor a web address.
    """
    for name, recipe in study.recipes.items():
        for i, saved in enumerate(recipe.weights or []):
            try:
                is_there = Path(saved.file).is_file()
            except OSError:  # a name that is too long, a directory that is closed
                is_there = False
            if not is_there:
                raise FeaturespaceError(f"{filename}: recipes.{name}.weights.{i}.file: no file {saved.file!r}")
    for name, dataset in study.datasets.items():
        if not isinstance(dataset, Retrieved) or dataset.source is None:
            continue
        if re.match(r"https?://", dataset.source):
            if not _has_host(dataset.source):
                raise FeaturespaceError(
                    f"{filename}: datasets.{name}.source: {dataset.source!r} is no whole address: it names no host"
                )
            continue
        source = Path(dataset.source)
        try:
            source = source.expanduser()
            is_there = source.is_dir()
        except (OSError, RuntimeError):  # a name that is too long, a directory that is closed, a user who is not there
            is_there = False
        if not is_there:
            raise FeaturespaceError(
                f"{filename}: datasets.{name}.source: no directory {dataset.source!r} (and no http:// or https:// "
                f"address): it should hold the published files of {dataset.kind}"
            )
        missing = [file.name for file in PUBLISHED[dataset.kind].files if not (source / file.name).is_file()]
        if missing:
            raise FeaturespaceError(
                f"{filename}: datasets.{name}.source: {dataset.source!r} lacks {', '.join(missing)} of {dataset.kind}"
            )


def _has_host(address: str) -> bool:
    try:
        return bool(urlsplit(address).hostname)
    except ValueError:
        return False


class _OneOfEachKey(yaml.SafeLoader):
    """Reads YAML as usual, but takes a key that is repeated within a section for the mistake it is."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue  # `<<`: what it brings may be overridden
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise FeaturespaceError(f"line {line}: {key} is there twice; rename or remove one")
            seen.add(key)
        return super().construct_mapping(node, deep)


def refuse_repeated_keys(path: str | Path) -> None:
    """Check that no section of a study file has a key twice: YAML readers silently keep the last.

    Raises
    ------
    FeaturespaceError
        One line: the file, the line, the key.
    """
    try:
        yaml.load(Path(path).read_text(encoding="utf-8"), _OneOfEachKey)
    except FeaturespaceError as error:
        raise FeaturespaceError(f"{path}: {error}") from error
