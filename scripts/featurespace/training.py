"""Training a run: one loop for every recipe, its kept weights, its history, and what it takes to go on after a kill.

The data set sits on the device as it is stored; a batch is an index into it. S seeds that train together have their
own batches, noise, labels and augmentations, and their losses are added, so that no gradient of one reaches another.
Deep linear networks whose gradient descent stays in a small subspace are trained within it, see `parsimony`.

Whatever is random is a function of (seed, recipe, purpose, epoch or step), never of what was drawn before: a resumed
run needs no generator's state.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from featurespace.augmentation import augment
from featurespace.checksums import sha256
from featurespace.contrast import nt_xent, supcon
from featurespace.datasets import SPLITS, PreparedDataset
from featurespace.errors import FeaturespaceError
from featurespace.networks import Inputs, OwnNetwork, build_network, initialise, stacks_of
from featurespace.optimisers import make_optimiser
from featurespace.own_networks import name_of, seeded
from featurespace.parsimony import ParsimoniousDescent, moves_in_a_subspace
from featurespace.script import progress
from featurespace.weights import step_file, write_tensors

logger = logging.getLogger(__name__)

# purposes of random numbers: their values enter every result
INIT, ORDER, NOISE, LABELS, EVALUATION_NOISE, AUGMENTATION, EVALUATION_AUGMENTATION, EVALUATION_ORDER = range(8)
FORWARD = 8  # what a network that was built elsewhere draws while it trains: dropout and the like

EVALUATION_ROWS = 256  # samples a forward pass when the whole split is evaluated
CHECK_STEPS = 100  # losses are looked at this often, in bulk: a look at each would stop a GPU at every step
SAVE_SECONDS = 5.0  # the state to resume from is written at kept steps, no more often than this

METRICS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "relative_loss", "weight_norm")
HISTORY_COLUMNS = ["dataset", "recipe", "block", "seed", "step", "epoch", "learning_rate", *METRICS]


# --- randomness and time ----------------------------------------------------------------------------------------------


def seed_sequence(seed: int, recipe: str, purpose: int, index: int = 0) -> np.random.SeedSequence:
    """Return the source of one kind of randomness: recipes with the same seed share nothing."""
    return np.random.SeedSequence([seed, zlib.crc32(recipe.encode()), purpose, index])


def _generator(
    seed: int, recipe: str, purpose: int, index: int = 0, device: str | torch.device = "cpu"
) -> torch.Generator:
    state = seed_sequence(seed, recipe, purpose, index).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0]))


@dataclass(frozen=True)
class Timetable:
    """Which update belongs to which samples, and after which updates the weights are kept.

    Attributes
    ----------
    bounds
        (n_batches + 1,): batch b of an epoch is rows bounds[b]:bounds[b + 1] of that epoch's order. Batches are as
        even as they can be and none is larger than the batch size, so there is no odd small one at the end.
    n_steps
        Updates in all.
    kept
        Steps, ascending; 0 is the initialisation.
    """

    bounds: tuple[int, ...]
    n_steps: int
    kept: tuple[int, ...]
    learning_rate: float
    schedule: str
    final_fraction: float
    milestones: tuple[int, ...]
    drop_factor: float

    @property
    def n_batches(self) -> int:
        """Updates in an epoch."""
        return len(self.bounds) - 1

    def epoch(self, step: int) -> float:
        """Return the epoch, fractional within one, that a step has reached."""
        return step / self.n_batches

    def rate(self, step: int) -> float:
        """Return the learning rate of the update that starts from a step.

        cosine: lr (f + (1 - f) (1 + cos(π t / T)) / 2), from lr at step 0 to f lr after the last of T.
        step: times the drop factor from the start of each milestone epoch on.
        """
        if self.schedule == "constant":
            return self.learning_rate
        if self.schedule == "step":
            n_drops = sum(step >= milestone * self.n_batches for milestone in self.milestones)
            return self.learning_rate * self.drop_factor**n_drops
        cosine = (1 + math.cos(math.pi * step / self.n_steps)) / 2
        return self.learning_rate * (self.final_fraction + (1 - self.final_fraction) * cosine)


def make_timetable(
    schedule: Mapping[str, Any] | None, optimiser: Mapping[str, Any] | None, n_samples: int
) -> Timetable:
    """Lay out a recipe's training on `n_samples`; without a schedule there is only step 0."""
    if schedule is None or optimiser is None:
        return Timetable((0, n_samples), 0, (0,), math.nan, "constant", 1.0, (), 1.0)
    bounds = even_bounds(n_samples, schedule["batch_size"])
    n_batches = len(bounds) - 1
    n_steps = schedule["epochs"] * n_batches
    kept = {0, n_steps}
    kept.update(range(0, n_steps, schedule["keep_every"] * n_batches))
    kept.update(max(1, round(fraction * n_batches)) for fraction in schedule["keep_early"])
    return Timetable(
        bounds=bounds,
        n_steps=n_steps,
        kept=tuple(sorted(kept)),
        learning_rate=optimiser["learning_rate"],
        schedule=schedule["learning_rate_schedule"],
        final_fraction=schedule["final_fraction"],
        milestones=tuple(schedule["milestones"]),
        drop_factor=schedule["drop_factor"],
    )


def even_bounds(n_samples: int, batch_size: int | None, least: int = 1) -> tuple[int, ...]:
    """Cut samples into the fewest batches that are no larger than `batch_size`, as even as they can be.

    But into none of fewer than `least` samples, unless there are no more. A size of None is one batch of all.
    """
    n_batches = max(1, min(math.ceil(n_samples / (batch_size or n_samples)), n_samples // least))
    return tuple(n_samples * b // n_batches for b in range(n_batches + 1))


# --- data and losses --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """One split on the device.

    Attributes
    ----------
    inputs
        n samples, (*input shape) each.
    labels
        (S, n) int64: each seed's own.
    """

    inputs: Inputs
    labels: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def augmented(
        self,
        rows: Tensor,
        options: Mapping[str, Any],
        generators: Sequence[torch.Generator],
        n_views: int,
    ) -> Tensor:
        """Return network inputs of images changed at random, independently in each view and by each seed's generator.

        Rows (S, B) give (S, n_views B, *input shape): all first views, then all second ones.
        """
        of = self.inputs
        pixels = (of.stored[rows].to(of.dtype) / 255).repeat(1, n_views, 1, 1, 1)
        changed = [augment(images, options, generator) for images, generator in zip(pixels, generators, strict=True)]
        return (torch.stack(changed) - of.offset) / of.scale


def shuffled(labels: np.ndarray, seed: int, recipe: str) -> np.ndarray:
    """Return the labels (n,) of the training split as a seed of a recipe for `shuffled-labels` is given them."""
    return np.random.default_rng(seed_sequence(seed, recipe, LABELS)).permutation(labels)


def _load_splits(
    spec: Mapping[str, Any], dataset: PreparedDataset, seeds: Sequence[int], device: torch.device
) -> tuple[Split, Split]:
    """Put the training and the test split on the device; the latter may be empty."""
    splits = []
    for code in SPLITS.values():
        rows = np.flatnonzero(np.asarray(dataset.split) == code)
        labels = np.asarray(dataset.labels, dtype=np.int64)[rows]
        of_seed = [labels] * len(seeds)
        if code == SPLITS["train"] and spec["task"] == "shuffled-labels":
            of_seed = [shuffled(labels, seed, spec["recipe"]) for seed in seeds]
        splits.append(
            Split(
                Inputs(
                    torch.from_numpy(dataset.images[rows]).to(device),
                    dataset.offset,
                    dataset.scale,
                    getattr(torch, spec["dtype"]),
                ),
                torch.from_numpy(np.stack(of_seed)).to(device),
            )
        )
    return splits[0], splits[1]


def sample_losses(prediction: Tensor, clean: Tensor, labels: Tensor, loss: str, reconstructs: bool) -> Tensor:
    """Return each sample's loss, (S, B).

    Parameters
    ----------
    prediction
        (S, B, K) outputs, or (S, B, *input shape); scaled by α already.
    clean
        (S, B, *input shape): the target of a reconstruction, which costs the mean squared error over its entries.
    labels
        (S, B) int64: the target of a classification.
    loss
        `cross-entropy`, or `mse`: Σ_k (f_k - onehot_k)², without a factor ½.
    """
    if reconstructs:
        return (prediction - clean).square().flatten(2).mean(2)
    if loss == "mse":
        return (prediction - F.one_hot(labels, prediction.shape[2])).square().sum(2)
    losses = F.cross_entropy(prediction.flatten(0, 1), labels.flatten(), reduction="none")
    return losses.view(labels.shape)


def _with_noise(clean: Tensor, std: float, generators: Sequence[torch.Generator]) -> Tensor:
    """Add each seed's Gaussian noise: (S, B, ...) -> (S, B, ...)."""
    noise = torch.empty_like(clean)
    for s, generator in enumerate(generators):
        noise[s].normal_(0.0, std, generator=generator)
    return clean + noise


# --- one stack of seeds -----------------------------------------------------------------------------------------------


@dataclass
class Stack:
    """Seeds that train in one network, and what has become of them.

    Attributes
    ----------
    rows
        History rows, by step and then by seed.
    end
        The last kept step: the end of training, or where every seed had converged.
    converged
        Of each seed, whether its training loss fell below `stop_loss`; None where nothing was asked.
    checksums
        {file: SHA-256}, in hex, of the weights that it kept.
    """

    seeds: list[int]
    rows: list[dict[str, Any]]
    end: int
    converged: list[bool | None]
    n_parameters: int
    checksums: dict[str, str]


class Trainer:
    """The training of one stack: its network, data and timetable."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        dataset: PreparedDataset,
        seeds: Sequence[int],
        device: torch.device,
        folder: Path,
        save_seconds: float = SAVE_SECONDS,
        layers: Sequence[str] | None = None,
    ) -> None:
        self.spec = spec
        self.seeds = list(seeds)
        self.recipe: str = spec["recipe"]
        self.device = device
        self.folder = folder
        self.save_seconds = save_seconds
        self.dtype: torch.dtype = getattr(torch, spec["dtype"])
        self.reconstructs = spec["model"]["kind"] == "autoencoder" or spec["task"] in ("reconstruct", "denoise")
        self.evaluates = spec["task"] != "saved"
        self.loss: str = spec["loss"] or "cross-entropy"  # an untrained network is still evaluated
        self.train, self.test = _load_splits(spec, dataset, seeds, device)
        self.timetable = make_timetable(spec["schedule"], spec["optimiser"], len(self.train))
        contrast = spec["contrast"]
        self.n_views = 2 if contrast else 1
        self.network = build_network(
            spec["model"],
            dataset.input_shape,
            dataset.n_classes,
            len(seeds),
            self.dtype,
            projection={key: contrast[key] for key in ("hidden", "width")} if contrast else None,
            head=spec["head"],
        )
        if isinstance(self.network, OwnNetwork):
            self._try_out(self.network, dataset, layers)
        if self._normalises_single_samples():
            raise FeaturespaceError(f"schedule.batch_size: recipe {self.recipe!r} normalises batches of one sample")
        initialise(
            self.network,
            spec["init"]["scheme"],
            spec["init"]["scale"],
            [_generator(seed, self.recipe, INIT) for seed in seeds],
        )
        self.network.to(device)
        parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimiser = make_optimiser(spec["optimiser"], parameters) if spec["optimiser"] else None
        self.reduced: ParsimoniousDescent | None = None
        size = math.prod(dataset.input_shape), dataset.n_classes
        if moves_in_a_subspace(spec, self.timetable.n_batches, len(self.train), *size):
            inputs = self.train.inputs[:].flatten(1)  # (n, d)
            targets = F.one_hot(self.train.labels, dataset.n_classes).to(self.dtype)  # (S, n, K)
            self.reduced = ParsimoniousDescent(parameters, spec["init"]["scale"], inputs, targets, spec["output_scale"])
        self.baseline = self._mean_image_loss() if self.reconstructs else math.nan
        self.rows: list[dict[str, Any]] = []
        self.stop_loss: float | None = spec["schedule"]["stop_loss"] if spec["schedule"] else None
        self.frozen = torch.zeros(len(seeds), dtype=torch.bool, device=device)
        self.held: dict[str, Tensor] = {}  # what frozen seeds go back to
        self.unmoved: dict[str, Tensor] = {}  # running statistics before the last forward pass
        self.order: Tensor | None = None  # (S, n_samples): of the present epoch
        self.full: tuple[Tensor, Tensor] | None = None  # the full batch, always the same
        self.unsynced: list[Path] = []
        self.checksums: dict[str, str] = {}  # of the kept weights, by file
        self.saved_at = time.monotonic()

    # --- the loop ---

    def run(self) -> Stack:
        """Train from the initialisation, or from the last saved state, to the end."""
        timetable, stop_loss = self.timetable, self.stop_loss
        kept = frozenset(timetable.kept)
        resumed, finished = self._restore()
        if finished:
            return self._result(resumed)
        if self.reduced is None:
            self.held = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        pending: list[Tensor] = []  # losses (S,) not looked at yet

        end = timetable.n_steps
        self.network.train()
        with progress(timetable.n_steps, f"training {self.recipe}, seed {_in_words(self.seeds)}", "step") as bar:
            bar.update(max(resumed, 0))
            for step in range(max(resumed, 0), timetable.n_steps + 1):
                if step in kept and step != resumed:
                    self._require_finite(pending, step)
                    self._keep(step)
                if step == timetable.n_steps or self.optimiser is None:
                    break
                losses = self._forward(step)
                pending.append(losses.detach())
                if stop_loss is not None:
                    below = (losses.detach() < stop_loss) & ~self.frozen
                    if below.any():
                        self._freeze(below)
                        if self.frozen.all():
                            end = step
                            if step not in kept:
                                self._keep(step)
                            break
                self._descend(losses, step)
                if len(pending) == CHECK_STEPS:
                    self._require_finite(pending, step + 1)
                bar.update(1)
        self._save(end, finished=True)
        return self._result(end)

    def _forward(self, step: int) -> Tensor:
        """Return the mean loss of each seed's batch, (S,), before the update that starts from a step."""
        if self.reduced is not None:
            return self.reduced.losses()
        clean, labels = self._batch(step)
        inputs = clean
        if self.spec["noise"]:
            inputs = _with_noise(clean, self.spec["noise"], self._generators(NOISE, step))
        # the forward pass moves running statistics, and a seed stops before it
        if self.stop_loss is not None:
            self.unmoved = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        # both views of a batch go through the network as one, so that they share normalisation's statistics
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.spec["autocast"] is not None)
        with autocast, self._drawing(step):
            prediction, _ = self.network(inputs)
        prediction = prediction.to(self.dtype)
        return self._losses(self.spec["output_scale"] * prediction, clean, labels).mean(1)

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the inputs (S, B, *input shape), or (S, 2B, ...) in two views, and the labels (S, B) of a step."""
        train, augmentation = self.train, self.spec["augmentation"]
        epoch, batch = divmod(step, self.timetable.n_batches)
        if self.timetable.n_batches > 1:
            if self.order is None or batch == 0:
                self.order = self._order(epoch)
            rows = self.order[:, self.timetable.bounds[batch] : self.timetable.bounds[batch + 1]]  # (S, B)
            if not augmentation:
                return train.inputs[rows], train.labels.gather(1, rows)
        else:
            rows = torch.arange(len(train), device=self.device).expand(len(self.seeds), -1)  # (S, n)
            if not augmentation:
                if self.full is None:
                    self.full = train.inputs[rows], train.labels
                return self.full
        sources = self._generators(AUGMENTATION, step)
        changed = train.augmented(rows, augmentation, sources, self.n_views)
        return changed, train.labels.gather(1, rows)

    def _descend(self, losses: Tensor, step: int) -> None:
        """Make the update that starts from a step, whose forward pass has just been made."""
        assert self.optimiser is not None
        rate = self.timetable.rate(step)
        if self.reduced is not None:
            self.reduced.descend(rate)
            return
        self.network.zero_grad(set_to_none=True)
        losses.sum().backward()
        if isinstance(self.network, OwnNetwork):
            for parameter in self.optimiser.parameters:
                if parameter.grad is None:  # it had no part in this step
                    parameter.grad = torch.zeros_like(parameter)
        self.optimiser.step(rate, n_done=step)
        if self.stop_loss is not None and self.frozen.any():
            self._hold()

    def _drawing(self, step: int) -> AbstractContextManager[None]:
        """Let what a network built elsewhere draws in a step, from the global generators, be a function of the step."""
        if not isinstance(self.network, OwnNetwork):
            return nullcontext()
        source = seed_sequence(self.seeds[0], self.recipe, FORWARD, step)
        return seeded(int(source.generate_state(1, np.uint64)[0]), self.device)

    def _losses(self, prediction: Tensor, clean: Tensor, labels: Tensor) -> Tensor:
        """Return each sample's loss, (S, B), or that of each view of a sample, (S, 2B)."""
        if not self.spec["contrast"]:
            return sample_losses(prediction, clean, labels, self.loss, self.reconstructs)
        temperature = self.spec["contrast"]["temperature"]
        if self.spec["task"] == "supcon":
            return supcon(prediction, labels, temperature)
        return nt_xent(prediction, temperature)

    def _order(self, epoch: int) -> Tensor:
        """Return each seed's order of the training samples in one epoch, (S, n_samples)."""
        return self._permutations(len(self.train), ORDER, epoch)

    def _permutations(self, n: int, purpose: int, index: int) -> Tensor:
        orders = [
            np.random.default_rng(seed_sequence(seed, self.recipe, purpose, index)).permutation(n)
            for seed in self.seeds
        ]
        return torch.from_numpy(np.stack(orders)).to(self.device)

    def _generators(self, purpose: int, index: int) -> list[torch.Generator]:
        return [_generator(seed, self.recipe, purpose, index, self.device) for seed in self.seeds]

    # --- seeds that have converged ---

    @torch.no_grad()
    def _freeze(self, below: Tensor) -> None:
        """Let some seeds, (S,) bool, stop where they are, before the update."""
        self.frozen |= below
        if self.reduced is not None:
            self.reduced.freeze(below)
            return
        for name, tensor in self.network.state_dict().items():
            self.held[name][below] = self.unmoved.get(name, tensor)[below]
        if self.frozen.all():
            self._hold()

    @torch.no_grad()
    def _hold(self) -> None:
        """Put frozen seeds back, bit by bit, to where they stopped."""
        for name, tensor in self.network.state_dict().items():
            tensor[self.frozen] = self.held[name][self.frozen]

    # --- what is kept ---

    def _keep(self, step: int) -> None:
        """Write every seed's weights and history row of a step, and, if it is time, the state to resume from."""
        if self.reduced is not None:
            with torch.no_grad():
                self.reduced.expand_into(list(self.network.parameters()))
        state = self.network.state_dict()
        for s, seed in enumerate(self.seeds):
            path = self.folder / "weights" / step_file(seed, step)
            checksum = write_tensors(path, {name: tensor[s] for name, tensor in state.items()})
            self.checksums[step_file(seed, step)] = checksum
            self.unsynced.append(path)
        self.rows.extend(self.evaluate(step))
        if time.monotonic() - self.saved_at >= self.save_seconds:
            self._save(step)

    def evaluate(self, step: int) -> list[dict[str, Any]]:
        """Evaluate the network, as it is at a step, on both splits: one row of history a seed."""
        metrics = {name: np.full(len(self.seeds), np.nan) for name in METRICS}
        if not self.evaluates:
            pass
        elif self.spec["contrast"]:
            metrics["train_loss"] = self._evaluate_views(self.train, 0)
            metrics["test_loss"] = self._evaluate_views(self.test, 1)
        else:
            metrics["train_loss"], metrics["train_accuracy"] = self._evaluate(self.train, 0)
            metrics["test_loss"], metrics["test_accuracy"] = self._evaluate(self.test, 1)
        metrics["weight_norm"] = self._weight_norm()
        if self.reconstructs:
            metrics["relative_loss"] = metrics["test_loss" if len(self.test) else "train_loss"] / self.baseline
        for s, seed in enumerate(self.seeds):
            if self.evaluates and not np.isfinite(metrics["train_loss"][s]):
                if self.optimiser is None:
                    raise FeaturespaceError(
                        f"the training loss of recipe {self.recipe!r}, seed {seed}, is not finite at step {step}"
                    )
                raise self._diverged(step, seed)
        return [
            {
                "dataset": self.spec["dataset"],
                "recipe": self.recipe,
                "block": self.spec["block"],
                "seed": seed,
                **self._when(step),
                **{name: float(values[s]) for name, values in metrics.items()},
            }
            for s, seed in enumerate(self.seeds)
        ]

    def _when(self, step: int) -> dict[str, Any]:
        return {"step": step, "epoch": self.timetable.epoch(step), "learning_rate": self.timetable.rate(step)}

    @torch.no_grad()
    def _evaluate(self, split: Split, code: int) -> tuple[np.ndarray, np.ndarray]:
        """Return mean loss and accuracy, (S,) each, over a split in evaluation mode; NaN where there is none.

        A denoising network is given noisy inputs here too: always the same, so that steps can be compared.
        """
        nothing = np.full(len(self.seeds), np.nan)
        if not len(split):
            return nothing, nothing
        loss = torch.zeros(len(self.seeds), dtype=torch.float64, device=self.device)
        hits = torch.zeros(len(self.seeds), dtype=torch.int64, device=self.device)
        sources = self._generators(EVALUATION_NOISE, code)
        self.network.eval()
        for start in range(0, len(split), EVALUATION_ROWS):
            rows = slice(start, start + EVALUATION_ROWS)
            clean = split.inputs[rows]  # (B, ...)
            clean = clean.expand(len(self.seeds), *clean.shape)  # (S, B, ...)
            inputs = _with_noise(clean, self.spec["noise"], sources) if self.spec["noise"] else clean
            labels = split.labels[:, rows]
            prediction = self.spec["output_scale"] * self.network(inputs)[0]
            loss += self._losses(prediction, clean, labels).sum(1, dtype=torch.float64)
            if not self.reconstructs:
                hits += (prediction.argmax(2) == labels).sum(1)
        self.network.train()
        accuracy = nothing if self.reconstructs else hits.cpu().numpy() / len(split)
        return loss.cpu().numpy() / len(split), accuracy

    @torch.no_grad()
    def _evaluate_views(self, split: Split, code: int) -> np.ndarray:
        """Return the mean contrastive loss, (S,), over a split in evaluation mode; NaN where there is none.

        The loss of a sample depends on those it is contrasted with: batches are of the training's size, and they and
        the two views are always the same, so that steps can be compared.
        """
        if not len(split):
            return np.full(len(self.seeds), np.nan)
        loss = torch.zeros(len(self.seeds), dtype=torch.float64, device=self.device)
        order = self._permutations(len(split), EVALUATION_ORDER, code)  # samples may be stored class by class
        sources = self._generators(EVALUATION_AUGMENTATION, code)
        self.network.eval()
        for start, end in pairwise(even_bounds(len(split), self.spec["schedule"]["batch_size"])):
            rows = order[:, start:end]
            inputs = split.augmented(rows, self.spec["augmentation"], sources, self.n_views)
            prediction = self.spec["output_scale"] * self.network(inputs)[0]
            losses = self._losses(prediction, inputs, split.labels.gather(1, rows))
            loss += losses.sum(1, dtype=torch.float64)
        self.network.train()
        return loss.cpu().numpy() / (self.n_views * len(split))

    @torch.no_grad()
    def _weight_norm(self) -> np.ndarray:
        """Return the Frobenius norm of all parameters of each seed, (S,)."""
        squares = [p.to(torch.float64).square().flatten(1).sum(1) for p in self.network.parameters()]
        return torch.stack(squares).sum(0).sqrt().cpu().numpy()

    def _mean_image_loss(self) -> float:
        """Return the loss of predicting the mean training image, on the split that `relative_loss` is about."""
        mean = sum(pixels.sum(0) for pixels in self.train.inputs.in_float64(EVALUATION_ROWS)) / len(self.train)
        split = self.test if len(self.test) else self.train
        total = sum(float((pixels - mean).square().sum()) for pixels in split.inputs.in_float64(EVALUATION_ROWS))
        return total / split.inputs.stored.numel()

    # --- what can go wrong ---

    def _try_out(self, network: OwnNetwork, dataset: PreparedDataset, layers: Sequence[str] | None) -> None:
        """Check, before anything is trained, that a network built elsewhere does what the recipe says it does.

        One that is neither trained nor said to do anything in particular is evaluated as what it is.
        """
        answer, classes = network.try_out(trains=self.spec["optimiser"] is not None), (dataset.n_classes,)
        if layers is not None:
            network.find_layers(layers)
        if self.spec["task"] == "untrained":
            self.reconstructs = answer != classes and answer == dataset.input_shape
            self.evaluates = answer in (classes, dataset.input_shape)
        wanted = dataset.input_shape if self.reconstructs else classes
        if self.evaluates and answer != wanted:
            what = "as the sample has" if self.reconstructs else "one for each class"
            raise FeaturespaceError(
                f"model: {name_of(self.spec['model'])} returns numbers of shape {answer} for a sample, where task "
                f"{self.spec['task']} needs {tuple(wanted)}, {what}"
            )

    def _normalises_single_samples(self) -> bool:
        """Say whether batch normalisation would see a single sample in some step."""
        if not self.timetable.n_steps or len(self.train) // self.timetable.n_batches * self.n_views > 1:
            return False
        return any(name.endswith("running_mean") for name, _ in self.network.named_buffers())

    def _require_finite(self, pending: list[Tensor], step: int) -> None:
        """Look at the losses of the updates before `step`, and forget them."""
        if pending:
            bad = ~torch.isfinite(torch.stack(pending)).cpu()  # (n_pending, S)
            for i, s in bad.nonzero().tolist():
                raise self._diverged(step - len(pending) + i, self.seeds[s])
        pending.clear()

    def _diverged(self, step: int, seed: int) -> FeaturespaceError:
        return FeaturespaceError(
            f"the training loss of recipe {self.recipe!r}, seed {seed}, is not finite at step {step} (epoch "
            f"{self.timetable.epoch(step):.2f}); lower its optimiser.learning_rate, or its output_scale"
        )

    # --- resuming ---

    @property
    def _state_path(self) -> Path:
        return self.folder / f"state-{self.seeds[0]}.safetensors"

    def _moving(self) -> dict[str, Tensor]:
        """Return, by name, the tensors that decide the next updates; updated in place."""
        if self.reduced is not None:
            return {f"reduced/{name}": tensor for name, tensor in self.reduced.state.items()}
        tensors = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        if self.optimiser is not None:
            tensors |= {f"optimiser/{i}": tensor for i, tensor in enumerate(self.optimiser.state)}
        return tensors

    def _save(self, step: int, finished: bool = False) -> None:
        """Write, durably, all that decides the rest of training; the kept weights it builds upon come first."""
        for path in self.unsynced:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        self.unsynced.clear()
        tensors = self._moving() | {"frozen": self.frozen}
        facts = json.dumps({"step": step, "finished": finished, "rows": self.rows, "weights": self.checksums})
        write_tensors(self._state_path, tensors, {"facts": facts, "sha256": _checksum(facts, tensors)}, durable=True)
        self.saved_at = time.monotonic()

    def _restore(self) -> tuple[int, bool]:
        """Go back to the saved state, if there is a whole one; return its step (-1: none) and whether it is the end."""
        if not self._state_path.exists():
            return -1, False
        try:
            with safetensors.safe_open(self._state_path, framework="pt") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
            if metadata["sha256"] != _checksum(metadata["facts"], tensors):
                raise ValueError("its checksum is another")
            facts = json.loads(metadata["facts"])
            for name, checksum in facts["weights"].items():
                if sha256(self.folder / "weights" / name) != checksum:
                    raise ValueError(f"the checksum of {name} is another")
        except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s cannot be gone on from (%s): training begins anew", self._state_path, error)
            return -1, False
        tensors = {name: tensor.to(self.device) for name, tensor in tensors.items()}
        for name, tensor in self._moving().items():
            tensor.copy_(tensors[name])
        self.frozen = tensors["frozen"]
        if self.reduced is not None:
            self.reduced.freeze(self.frozen)
        self.rows, self.checksums = facts["rows"], facts["weights"]
        logger.info("recipe %s, seed %s: going on from step %d", self.recipe, _in_words(self.seeds), facts["step"])
        return facts["step"], facts["finished"]

    def _result(self, end: int) -> Stack:
        converged: list[bool | None] = [None] * len(self.seeds)
        if self.stop_loss is not None:
            last = self.rows[-len(self.seeds) :]
            converged = [
                bool(frozen) or row["train_loss"] < self.stop_loss
                for frozen, row in zip(self.frozen.tolist(), last, strict=True)
            ]
        return Stack(self.seeds, self.rows, end, converged, self.network.n_parameters, self.checksums)


def _checksum(facts: str, tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256, in hex, of what a state to resume from holds."""
    total = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        values = tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        total.update(name.encode() + b"\0")
        total.update(values.numpy().data)
    return total.hexdigest()


def _in_words(seeds: Sequence[int]) -> str:
    return str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} and {len(seeds) - 1} more"


# --- a run ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainedRun:
    """A trained block of seeds.

    Attributes
    ----------
    weights
        The folder that holds the kept weights, all of them and nothing else.
    history
        One row a seed and kept step, with the columns HISTORY_COLUMNS.
    facts
        What `weights.json` says of the run, apart from checksums. Nothing in it depends on the hour or the speed.
    checksums
        {file: SHA-256}, in hex, of the kept weights as they were written.
    """

    weights: Path
    history: list[dict[str, Any]]
    facts: dict[str, Any]
    checksums: dict[str, str]


def resume_folder(parent: Path, device: torch.device, **what: Any) -> Path:
    """Make, or find, the hidden folder beside a run's outputs that it grows in, and remove those of other runs.

    Those of the same run with another device or another PyTorch stay until the run is published: a driver that is
    broken for a night must not cost what was trained for days, although no other machine can go on from it bit by bit.

    Parameters
    ----------
    parent
        The folder of the run's outputs. Snakemake removes declared outputs before a job; this one is not declared.
    device
        Its kind is part of the folder's name, and so is the version of PyTorch.
    what
        Plain data that decides, on one kind of machine, every bit of the result: parameters, code, data. The folder's
        name begins with its hash.
    """
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
    folder = parent / f".resume-{key}-{device.type}-{torch.__version__}"
    for other in _others(folder):
        if other.name.startswith(f".resume-{key}-"):
            logger.warning("%s is kept, but this is another device or PyTorch, and does not go on from it", other)
        else:
            shutil.rmtree(other)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def forget_others(folder: Path) -> None:
    """Remove what a run that is published had begun with other devices, or other versions of PyTorch."""
    for other in _others(folder):
        shutil.rmtree(other)


def _others(folder: Path) -> list[Path]:
    """Return the other folders to resume from beside one."""
    return [other for other in folder.parent.glob(".resume-*") if other != folder]


def train_block(
    spec: Mapping[str, Any],
    dataset: PreparedDataset,
    device: torch.device,
    folder: Path,
    save_seconds: float = SAVE_SECONDS,
    layers: Sequence[str] | None = None,
) -> TrainedRun:
    """Train the seeds of a block, from the beginning or from where `folder` says an earlier attempt was.

    Parameters
    ----------
    spec
        The recipe and the block, as the rule `train_run` gets them.
    folder
        Where kept weights and the state to resume from are written as they come.
    save_seconds
        Least time between two saved states, which are only written at kept steps.
    layers
        The layers of a network that was built elsewhere, as the recipe names them: that they are there is checked
        before it is trained.

    Raises
    ------
    FeaturespaceError
        If a loss is not finite, if the network does not fit the data, or if batch normalisation would see a single
        sample.
    """
    torch.set_num_threads(spec["threads"])
    n_train = int((np.asarray(dataset.split) == 0).sum())
    timetable = make_timetable(spec["schedule"], spec["optimiser"], n_train)
    stacks = [
        Trainer(spec, dataset, seeds, device, folder, save_seconds, layers).run()
        for seeds in stacks_of(spec["model"], spec["seeds"])
    ]
    end = max(stack.end for stack in stacks)
    steps = [step for step in timetable.kept if step < end] + [end]
    history = []
    for stack in stacks:
        _fill_up(folder / "weights", stack, steps, timetable)
        history += stack.rows
    history.sort(key=lambda row: (spec["seeds"].index(row["seed"]), row["step"]))
    converged = {seed: known for stack in stacks for seed, known in zip(stack.seeds, stack.converged, strict=True)}
    epochs = [timetable.epoch(step) for step in steps]
    facts = facts_of(spec, steps, epochs, converged, stacks[0].n_parameters, device)
    checksums = {name: value for stack in stacks for name, value in stack.checksums.items()}
    return TrainedRun(folder / "weights", history, facts, checksums)


def facts_of(
    spec: Mapping[str, Any],
    steps: Sequence[int],
    epochs: Sequence[float],
    converged: Mapping[int, bool | None],
    n_parameters: int,
    device: torch.device,
) -> dict[str, Any]:
    """Return what `weights.json` says of a block of seeds, all at the same steps, apart from checksums."""
    return {
        "recipe": spec["recipe"],
        "block": spec["block"],
        "seeds": list(spec["seeds"]),
        "steps": {str(seed): list(steps) for seed in spec["seeds"]},
        "epochs": {str(seed): list(epochs) for seed in spec["seeds"]},
        "converged": {str(seed): converged[seed] for seed in spec["seeds"]},
        "n_parameters": n_parameters,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "tf32": False,
        "torch_version": torch.__version__,
    }


def _fill_up(weights: Path, stack: Stack, steps: Sequence[int], timetable: Timetable) -> None:
    """Give a stack that converged before the block's end the block's steps: it stays where it stopped."""
    last = {row["seed"]: row for row in stack.rows if row["step"] == stack.end}
    for step in steps:
        if step > stack.end:
            for seed, row in last.items():
                shutil.copyfile(weights / step_file(seed, stack.end), weights / step_file(seed, step))
                stack.checksums[step_file(seed, step)] = stack.checksums[step_file(seed, stack.end)]
                when = {"step": step, "epoch": timetable.epoch(step), "learning_rate": timetable.rate(step)}
                stack.rows.append(row | when)
    if stack.end not in steps:
        for seed in stack.seeds:
            (weights / step_file(seed, stack.end)).unlink()
            del stack.checksums[step_file(seed, stack.end)]
        stack.rows = [row for row in stack.rows if row["step"] != stack.end]
