"""Descent in the small subspace: step for step what plain gradient descent does, wherever it is used."""

import hashlib
import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from featurespace import training
from featurespace.datasets import PreparedDataset
from featurespace.errors import FeaturespaceError
from featurespace.parsimony import ParsimoniousDescent, moves_in_a_subspace
from featurespace.training import HISTORY_COLUMNS, Trainer, train_block
from featurespace.weights import step_file

CPU = torch.device("cpu")
K = 3


def orthogonal(shape, scale, rng):
    """Draw `scale` times a matrix with orthonormal rows or columns."""
    left, _, right = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
    return scale * left @ right


def nearly_orthonormal(n, d, rng, noise=1.0):
    """Draw n rows of d numbers: orthonormal ones (as many as d allows) and noise of a Frobenius norm."""
    change = rng.standard_normal((n, d))
    return orthogonal((n, d), 1.0, rng) + noise * change / np.linalg.norm(change)


def product(matrices, identity):
    """Multiply W_l ... W_1, given in the order W_1, ..., W_l."""
    result = identity
    for matrix in matrices:
        result = matrix @ result
    return result


def plain_step(weights, inputs, targets, alpha, rate):
    """Return the loss of one network, Σ |α W x - y|² / N, and its weights after a step of gradient descent."""
    n, d = inputs.shape
    error = alpha * product(weights, np.eye(d)) @ inputs.T - targets.T  # (K, N)
    moved = []
    for i, weight in enumerate(weights):
        above = product(weights[i + 1 :], np.eye(len(weight)))
        below = product(weights[:i], np.eye(d))
        moved.append(weight - rate * 2 * alpha / n * above.T @ error @ inputs @ below.T)
    return (error**2).sum() / n, moved


def stack(networks):
    return [torch.from_numpy(np.stack(layers)) for layers in zip(*networks, strict=True)]


def expanded(descent):
    weights = [torch.full_like(weight, math.nan) for weight in descent.initial]
    descent.expand_into(weights)
    return weights


CASES = {
    # depth, width, n, d, α, ξ
    "two layers": (2, 34, 30, 50, 1.0, 0.1),
    "three layers": (3, 40, 30, 50, 1.0, 0.2),
    "four layers": (4, 60, 30, 50, 2.0, 0.3),
    "five layers": (5, 54, 30, 50, 1.0, 0.5),
    "six layers": (6, 35, 30, 40, 0.5, 0.6),
    "more samples than numbers": (4, 24, 60, 20, 3.0, 0.3),
    "narrower than the inputs": (4, 14, 9, 25, 1.0, 0.4),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_step_is_that_of_plain_gradient_descent(case):
    depth, width, n, d, alpha, scale = case
    rng = np.random.default_rng(depth)
    inputs = nearly_orthonormal(n, d, rng)
    # each seed has its own labels
    targets = [np.eye(K)[rng.permutation(np.arange(n) % K)] for _ in range(2)]
    sizes = [d, *[width] * (depth - 1), K]
    networks = [[orthogonal((n_out, n_in), scale, rng) for n_in, n_out in pairwise(sizes)] for _ in range(2)]
    descent = ParsimoniousDescent(
        stack(networks), scale, torch.from_numpy(inputs), torch.from_numpy(np.stack(targets)), alpha
    )
    assert descent.hidden.shape == (depth - 1, 2, min(n, d) + K, min(n, d) + K)
    for step in range(400):
        rate = 0.2 / (1 + step / 400)
        losses = descent.losses()
        for s in range(2):
            loss, networks[s] = plain_step(networks[s], inputs, targets[s], alpha, rate)
            assert losses[s].item() == pytest.approx(loss, rel=1e-11, abs=1e-14)
        descent.descend(rate)
        if step % 57 == 0 or step == 399:
            for ours, theirs in zip(expanded(descent), stack(networks), strict=True):
                assert (ours - theirs).abs().max() <= 1e-12
    # something has been learned, from about 1
    assert (losses < 0.8).all()


@pytest.mark.parametrize("first_and_last", ["larger", "no longer orthogonal"])
def test_only_the_layers_between_have_to_be_orthogonal(first_and_last):
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((6, 5)) @ rng.standard_normal((5, 9))  # of rank 5
    targets = np.eye(K)[np.arange(6) % K]
    network = [orthogonal((12, 9), 0.5, rng), *(orthogonal((12, 12), 0.5, rng) for _ in range(2))]
    network.append(orthogonal((K, 12), 0.5, rng))
    for i in (0, -1):
        network[i] = 2 * network[i] if first_and_last == "larger" else rng.standard_normal(network[i].shape) / 5
    descent = ParsimoniousDescent(
        stack([network]), 0.5, torch.from_numpy(inputs), torch.from_numpy(targets)[None], output_scale=1.0
    )
    assert descent.hidden.shape[2] == 5 + K
    for _ in range(200):
        loss, network = plain_step(network, inputs, targets, 1.0, 0.01)
        assert descent.losses().item() == pytest.approx(loss, rel=1e-11)
        descent.descend(0.01)
    for ours, theirs in zip(expanded(descent), network, strict=True):
        assert np.abs(ours[0].numpy() - theirs).max() <= 1e-12


def test_the_initial_weights_come_back_bit_by_bit():
    rng = np.random.default_rng(0)
    network = [orthogonal((20, 8), 0.1, rng), orthogonal((20, 20), 0.1, rng), orthogonal((K, 20), 0.1, rng)]
    targets = torch.from_numpy(np.eye(K)[np.arange(6) % K])[None]
    descent = ParsimoniousDescent(
        stack([network]), 0.1, torch.from_numpy(nearly_orthonormal(6, 8, rng)), targets, output_scale=1.0
    )
    for ours, theirs in zip(expanded(descent), stack([network]), strict=True):
        assert torch.equal(ours, theirs)


def test_losses_far_below_rounding_of_the_targets_are_right():
    rng = np.random.default_rng(0)
    inputs = nearly_orthonormal(9, 12, rng)
    targets = np.eye(K)[np.arange(9) % K]
    network = [orthogonal((20, 12), 0.7, rng), orthogonal((20, 20), 0.7, rng), orthogonal((K, 20), 0.7, rng)]
    descent = ParsimoniousDescent(
        stack([network]), 0.7, torch.from_numpy(inputs), torch.from_numpy(targets)[None], output_scale=1.0
    )
    for _ in range(20_000):
        loss = descent.losses().item()
        if loss < 1e-20:
            break
        descent.descend(0.2)
    assert 1e-21 < loss < 1e-20
    error = product([weight[0].numpy() for weight in expanded(descent)], np.eye(12)) @ inputs.T - targets.T
    assert loss == pytest.approx((error**2).sum() / 9, rel=1e-4)


# --- in training ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(7)
    return PreparedDataset(
        images=nearly_orthonormal(16, 14, rng),
        labels=np.arange(16) % K,
        split=np.repeat([0, 1], [12, 4]).astype(np.int8),
        sample_ids=np.arange(16),
        class_names=["a", "b", "c"],
        offset=0.0,
        scale=1.0,
        sample_hash="",
    )


def recipe(**changes):
    return {
        "recipe": "a-recipe",
        "dataset": "rows",
        "block": 0,
        "task": "classify",
        "model": {"kind": "linear", "depth": 4, "width": 20},
        "init": {"scheme": "orthogonal", "scale": 0.3},
        "loss": "mse",
        "output_scale": 1.5,
        "augmentation": None,
        "autocast": None,
        "contrast": None,
        "head": None,
        "optimiser": {"kind": "sgd", "learning_rate": 0.2, "momentum": 0.0, "weight_decay": 0.0},
        "schedule": schedule(),
        "noise": None,
        "dtype": "float64",
        "threads": 1,
        "seeds": [3, 4, 5],
    } | changes


def schedule(**changes):
    return {
        "epochs": 2000,
        "batch_size": None,
        "learning_rate_schedule": "cosine",
        "final_fraction": 0.1,
        "milestones": [],
        "drop_factor": 0.2,
        "stop_loss": 1e-6,
        "keep_every": 50,
        "keep_early": [],
    } | changes


def train(spec, dataset, folder, **options):
    folder.mkdir(exist_ok=True)
    run = train_block(spec, dataset, CPU, folder, **options)
    return run, pd.DataFrame(run.history, columns=HISTORY_COLUMNS)


def train_plainly(spec, dataset, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "moves_in_a_subspace", lambda *_: False)
        return train(spec, dataset, folder)


def trainer(spec, dataset, folder):
    return Trainer(spec, dataset, spec["seeds"], CPU, folder, 5.0)


def tensors_of(run, seed, step):
    return safetensors.torch.load_file(run.weights / step_file(seed, step))


def bytes_of(run):
    return {path.relative_to(run.weights): path.read_bytes() for path in run.weights.glob("*/*")}


@pytest.mark.parametrize("task", ["classify", "shuffled-labels"])
@pytest.mark.parametrize(("depth", "scale"), [(2, 0.1), (3, 0.1), (4, 0.3), (5, 0.4)])
def test_a_run_is_the_plain_one_to_rounding(dataset, tmp_path, task, depth, scale):
    spec = recipe(
        task=task,
        model={"kind": "linear", "depth": depth, "width": 20},
        init={"scheme": "orthogonal", "scale": scale},
        schedule=schedule(stop_loss=1e-8),
    )
    run, history = train(spec, dataset, tmp_path / "fast")
    reference, expected = train_plainly(spec, dataset, tmp_path / "plain")
    assert run.facts == reference.facts  # the steps, and so where it stopped, among them
    assert set(run.facts["converged"].values()) == {True}
    assert run.facts["steps"]["3"][-1] > 100
    pd.testing.assert_frame_equal(history, expected, rtol=1e-7, atol=1e-13)
    for seed in spec["seeds"]:
        for step in run.facts["steps"]["3"]:
            ours, theirs = tensors_of(run, seed, step), tensors_of(reference, seed, step)
            assert ours.keys() == theirs.keys()
            for name, tensor in ours.items():
                assert (tensor - theirs[name]).abs().max() <= 1e-12


def test_each_seed_stops_at_the_step_at_which_it_would_alone(dataset, tmp_path):
    spec = recipe(schedule=schedule(keep_every=1, stop_loss=0.05))
    run, history = train(spec, dataset, tmp_path / "fast")
    reference, _ = train_plainly(spec, dataset, tmp_path / "plain")
    steps = run.facts["steps"]["3"]
    firsts = []
    for seed in spec["seeds"]:
        losses = history.loc[history["seed"] == seed, "train_loss"].to_numpy()
        first = int(np.argmax(losses < 0.05))
        firsts.append(first)
        assert (losses[:first] >= 0.05).all()
        for folder in (run, reference):
            files = [folder.weights / step_file(seed, step) for step in steps]
            hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
            assert hashes.index(hashes[-1]) == first
            assert set(hashes[first:]) == {hashes[-1]}
    assert len(set(firsts)) > 1
    assert max(firsts) == len(steps) - 1


def test_a_run_that_is_cut_again_and_again_ends_as_one_never_cut(dataset, tmp_path):
    spec = recipe(schedule=schedule(keep_every=3))
    reference, history = train(spec, dataset, tmp_path / "whole")
    save, n_saved = Trainer._save, 0

    frozen_at_cut = []

    def cut_after_some(trainer, *arguments, **options):
        nonlocal n_saved
        save(trainer, *arguments, **options)
        n_saved += 1
        if n_saved % 4 == 0:
            frozen_at_cut.append(int(trainer.frozen.sum()))
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_save", cut_after_some)
        while True:
            try:
                run, resumed = train(spec, dataset, tmp_path / "cut", save_seconds=0)
            except KeyboardInterrupt:
                assert len(frozen_at_cut) < 500
                continue
            break
    assert len(frozen_at_cut) > 10
    assert {0, 1, 2} & set(frozen_at_cut) > {0}
    assert bytes_of(run) == bytes_of(reference)
    assert resumed.equals(history)
    # and once at its end, it is only read
    again, _ = train(spec, dataset, tmp_path / "cut")
    assert bytes_of(again) == bytes_of(reference)


def test_a_run_that_diverges_says_so(dataset, tmp_path):
    fast = {"kind": "sgd", "learning_rate": 1e3, "momentum": 0.0, "weight_decay": 0.0}
    with pytest.raises(FeaturespaceError, match=r"recipe 'a-recipe', seed \d, is not finite at step \d+ "):
        train(recipe(optimiser=fast), dataset, tmp_path)


def test_it_is_used_where_it_applies(dataset, tmp_path):
    assert trainer(recipe(), dataset, tmp_path).reduced is not None
    assert trainer(recipe(task="shuffled-labels"), dataset, tmp_path).reduced is not None
    assert trainer(recipe(schedule=schedule(batch_size=12)), dataset, tmp_path).reduced is not None
    # 12 samples and 3 classes: 15 directions at most
    assert trainer(recipe(model={"kind": "linear", "depth": 4, "width": 16}), dataset, tmp_path).reduced is not None


SGD = {"kind": "sgd", "learning_rate": 0.2, "momentum": 0.0, "weight_decay": 0.0}
WHERE_NOT = {
    "no wider than the subspace": {"model": {"kind": "linear", "depth": 4, "width": 15}},
    "no hidden layer": {"model": {"kind": "linear", "depth": 1, "width": 20}},
    "another architecture": {"model": {"kind": "mlp", "widths": [20, 20], "batch_norm": False}},
    "another initialisation": {"init": {"scheme": "default", "scale": 1.0}},
    "nothing to begin with": {"init": {"scheme": "orthogonal", "scale": 0.0}},
    "another loss": {"loss": "cross-entropy"},
    "batches": {"schedule": schedule(batch_size=6)},
    "momentum": {"optimiser": SGD | {"momentum": 0.9}},
    "weight decay": {"optimiser": SGD | {"weight_decay": 1e-4}},
    "another optimiser": {"optimiser": {"kind": "adam", "learning_rate": 1e-3, "weight_decay": 0.0}},
    "noise": {"noise": 0.1},
    "single precision": {"dtype": "float32"},
    "no training": {"optimiser": None, "schedule": None, "loss": None, "task": "untrained"},
}


@pytest.mark.parametrize("changes", WHERE_NOT.values(), ids=WHERE_NOT)
def test_it_is_not_used_where_it_does_not_apply(dataset, tmp_path, changes):
    spec = recipe(**({"schedule": schedule(epochs=2, stop_loss=None)} | changes))
    if spec["schedule"]:
        spec["schedule"]["epochs"] = 2
    assert trainer(spec, dataset, tmp_path).reduced is None
    run, _ = train(spec, dataset, tmp_path)
    for seed, steps in run.facts["steps"].items():
        assert all((run.weights / step_file(int(seed), step)).exists() for step in steps)


@pytest.mark.parametrize(
    "changes", [{"augmentation": {"flip": True}}, {"contrast": {"temperature": 0.5}}], ids=["augmented", "contrastive"]
)
def test_changed_inputs_and_other_tasks_are_left_alone(changes):
    assert moves_in_a_subspace(recipe(), 1, 12, 14, K)
    assert not moves_in_a_subspace(recipe(**changes), 1, 12, 14, K)
