"""Training: what is learned, what is kept, that seeds are independent, and that a kill costs nothing."""

import dataclasses
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from featurespace import run_table
from featurespace.augmentation import augment
from featurespace.datasets import PreparedDataset
from featurespace.errors import FeaturespaceError
from featurespace.networks import build_network
from featurespace.optimisers import make_optimiser
from featurespace.training import (
    AUGMENTATION,
    EVALUATION_AUGMENTATION,
    EVALUATION_ORDER,
    HISTORY_COLUMNS,
    METRICS,
    ORDER,
    even_bounds,
    forget_others,
    make_timetable,
    resume_folder,
    sample_losses,
    seed_sequence,
    train_block,
)
from featurespace.weights import KeptWeights, publish, step_file

CPU = torch.device("cpu")
MLP = {"kind": "mlp", "widths": [64, 64], "batch_norm": False}
CNN = {"kind": "cnn", "channels": [16, 32], "hidden": 64, "batch_norm": True}
AUTOENCODER = {"kind": "autoencoder", "channels": [16, 32], "latent": 32}
PLAIN = {"momentum": 0.0, "weight_decay": 0.0}
ADAM = {"kind": "adam", "learning_rate": 3e-3, "weight_decay": 0.0}
CHANGES = {
    "pad_crop": 1,
    "resized_crop": [0.5, 1.0],
    "flip": False,
    "jitter": 0.4,
    "hue": 0.0,
    "jitter_probability": 0.8,
    "grayscale": 0.0,
}
CONTRASTIVE = ("simclr", "supcon")
CONTRAST = {"temperature": 0.5, "hidden": 32, "width": 16}
LOSSES = {"classify": "cross-entropy", "shuffled-labels": "cross-entropy", "simclr": "simclr", "supcon": "supcon"}


def prepared(images, labels, split, n_classes):
    return PreparedDataset(
        images=images,
        labels=np.asarray(labels, dtype=np.int64),
        split=np.asarray(split, dtype=np.int8),
        sample_ids=np.arange(len(images)),
        class_names=[str(k) for k in range(n_classes)],
        offset=0.0,
        scale=1.0,
        sample_hash="",
    )


@pytest.fixture(scope="module")
def digits():
    raw = load_digits()
    split = np.zeros(len(raw.target))
    split[train_test_split(np.arange(len(split)), test_size=0.25, random_state=0, stratify=raw.target)[1]] = 1
    images = np.round(raw.images * (255 / 16)).astype(np.uint8)[:, None]
    return prepared(images, raw.target, split, 10)


@pytest.fixture(scope="module")
def few(digits):
    """One hundred and twenty digits: enough where nothing has to be learned."""
    rows = np.arange(120)
    return prepared(digits.images[rows], digits.labels[rows], rows % 4 == 3, 10)


def schedule(epochs, **changes):
    return {
        "epochs": epochs,
        "batch_size": 128,
        "learning_rate_schedule": "cosine",
        "final_fraction": 0.1,
        "milestones": [],
        "drop_factor": 0.2,
        "stop_loss": None,
        "keep_every": 1,
        "keep_early": [],
    } | changes


def recipe(model, task="classify", seeds=(0,), **changes):
    return {
        "recipe": "a-recipe",
        "dataset": "digits",
        "block": 0,
        "task": task,
        "model": model,
        "init": {"scheme": "default", "scale": 1.0},
        "loss": LOSSES.get(task, "mse"),
        "output_scale": 1.0,
        "augmentation": CHANGES if task in CONTRASTIVE else None,
        "autocast": None,
        "contrast": CONTRAST if task in CONTRASTIVE else None,
        "head": None,
        "optimiser": ADAM,
        "schedule": schedule(3, batch_size=32),
        "noise": None,
        "dtype": "float32",
        "threads": 1,
        "seeds": list(seeds),
    } | changes


def train(spec, dataset, folder, **options):
    folder.mkdir(exist_ok=True)
    run = train_block(spec, dataset, CPU, folder, **options)
    return run, pd.DataFrame(run.history, columns=HISTORY_COLUMNS)


def last_rows(history):
    return history[history["step"] == history["step"].max()]


def tensors_of(run, seed, step):
    return safetensors.torch.load_file(run.weights / step_file(seed, step))


def bytes_of(run):
    return {path.relative_to(run.weights): path.read_bytes() for path in run.weights.rglob("*.safetensors")}


# --- what is learned ---


def test_mlps_learn_digits_five_at_a_time(digits, tmp_path):
    _, history = train(recipe(MLP, seeds=range(5), schedule=schedule(20, batch_size=64)), digits, tmp_path)
    assert len(last_rows(history)) == 5
    assert last_rows(history)["test_accuracy"].min() >= 0.95
    assert history["relative_loss"].isna().all()


def test_hybrids_learn_digits(digits, tmp_path):
    model = {"kind": "hybrid", "nonlinear": 2, "linear": 2, "width": 64, "batch_norm": True}
    changes = {"loss": "mse", "schedule": schedule(20, batch_size=64)}
    run, history = train(recipe(model, seeds=range(3), **changes), digits, tmp_path)
    assert last_rows(history)["test_accuracy"].min() >= 0.95
    # two normalised layers without bias, two linear ones, the output
    assert run.facts["n_parameters"] == 2 * (64 * 64 + 2 * 64) + 2 * 64 * 64 + 64 * 10


def test_a_head_is_trained_and_kept(digits, tmp_path):
    head = {"layers": 2, "width": 32}
    run, history = train(recipe(MLP, head=head, schedule=schedule(20, batch_size=64)), digits, tmp_path)
    assert last_rows(history)["test_accuracy"].min() >= 0.9
    first, last = (tensors_of(run, 0, step) for step in (0, history["step"].max()))
    assert {name: tuple(tensor.shape) for name, tensor in last.items() if name.startswith("head")} == {
        "head1.weight": (32, 64),
        "head1.bias": (32,),
        "head2.weight": (32, 32),
        "head2.bias": (32,),
    }
    assert not any(torch.equal(tensor, first[name]) for name, tensor in last.items())


def test_cnns_learn_digits(digits, tmp_path):
    _, history = train(recipe(CNN, seeds=[3], schedule=schedule(8)), digits, tmp_path)
    assert last_rows(history)["test_accuracy"].min() >= 0.95


def test_autoencoders_learn_digits_beyond_their_mean_image(digits, tmp_path):
    changes = {"schedule": schedule(10, batch_size=64, keep_every=10), "optimiser": ADAM | {"learning_rate": 1e-2}}
    run, history = train(recipe(AUTOENCODER, "reconstruct", **changes), digits, tmp_path)
    assert history["relative_loss"].iloc[0] > 1
    assert history["relative_loss"].iloc[-1] < 0.4
    assert history["test_accuracy"].isna().all()
    # the last row, independently: predict every test image with the weights kept last
    x = digits.inputs(digits.split == 1)
    network = build_network(AUTOENCODER, (1, 8, 8), 10, 1)
    network.load_state_dict({name: t[None] for name, t in tensors_of(run, 0, run.facts["steps"]["0"][-1]).items()})
    with torch.no_grad():
        prediction = network(torch.from_numpy(x)[None])[0][0].numpy()
    loss = np.mean((prediction - x).astype(np.float64) ** 2)
    baseline = np.mean((digits.inputs(digits.split == 0, np.float64).mean(0) - x) ** 2)
    assert history["test_loss"].iloc[-1] == pytest.approx(loss, rel=1e-5)
    assert history["relative_loss"].iloc[-1] == pytest.approx(loss / baseline, rel=1e-5)


def test_denoising_costs_more_than_reconstructing_and_is_learned(few, tmp_path):
    model = AUTOENCODER | {"channels": [8]}
    plan = {"schedule": schedule(30, batch_size=15, keep_every=30)}
    _, clean = train(recipe(model, "reconstruct", **plan), few, tmp_path / "clean")
    _, noisy = train(recipe(model, "denoise", noise=0.5, **plan), few, tmp_path / "noisy")
    assert clean["train_loss"].iloc[-1] < noisy["train_loss"].iloc[-1] < 0.9 * noisy["train_loss"].iloc[0]


def test_shuffled_labels_are_memorised_and_differ_from_seed_to_seed(few, tmp_path):
    spec = recipe(MLP, "shuffled-labels", seeds=[0, 1], schedule=schedule(200, batch_size=30, keep_every=200))
    _, history = train(spec, few, tmp_path)
    end = last_rows(history)
    assert end["train_accuracy"].min() >= 0.99
    assert end["test_accuracy"].max() < 0.5


def test_untrained_keeps_its_initialisation_alone(few, tmp_path):
    spec = recipe(CNN, "untrained", seeds=[4, 5], loss=None, optimiser=None, schedule=None)
    run, history = train(spec, few, tmp_path)
    assert run.facts["steps"] == {"4": [0], "5": [0]}
    assert run.facts["converged"] == {"4": None, "5": None}
    assert list(history["step"]) == [0, 0]
    assert history["learning_rate"].isna().all()
    assert history["test_accuracy"].between(0, 0.4).all()


# --- two views ---


def views_loss(task, predictions, labels, temperature):
    """SimCLR's or SupCon's loss of (2B, p), anchor by anchor."""
    z = predictions / np.linalg.norm(predictions, axis=1, keepdims=True)
    labels = np.arange(len(labels)) if task == "simclr" else labels
    both = np.concatenate([labels, labels])
    losses = []
    for i in range(len(z)):
        others = np.arange(len(z)) != i
        log_shares = z @ z[i] / temperature - np.log(np.exp(z[others] @ z[i] / temperature).sum())
        losses.append(-log_shares[others & (both == both[i])].mean())
    return np.mean(losses)


@pytest.mark.parametrize("task", ["simclr", "supcon"])
def test_contrastive_losses_fall_and_predictions_of_a_class_gather(digits, tmp_path, task):
    plan = schedule(12, batch_size=128, keep_every=12)
    run, history = train(recipe(MLP, task, seeds=[0, 1], schedule=plan), digits, tmp_path)
    for seed in (0, 1):
        rows = history[history["seed"] == seed]
        for split in ("train_loss", "test_loss"):
            assert rows[split].iloc[-1] < rows[split].iloc[0] - 0.3
    assert history[["train_accuracy", "test_accuracy", "relative_loss"]].isna().all(axis=None)
    assert history[["train_loss", "test_loss"]].nunique().min() == 4
    # cosines of what the head gives for two images of one class, less those for two of two classes
    network = build_network(MLP, (1, 8, 8), 10, 1, projection={"hidden": 32, "width": 16})
    labels = digits.labels[digits.split == 1]
    alike = labels[:, None] == labels
    apart = []
    for step in run.facts["steps"]["0"]:
        network.load_state_dict({name: t[None] for name, t in tensors_of(run, 0, step).items()})
        with torch.no_grad():
            z = network(torch.from_numpy(digits.inputs(digits.split == 1))[None])[0][0].double().numpy()
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        cosines = z @ z.T
        apart.append(cosines[alike & ~np.eye(len(z), dtype=bool)].mean() - cosines[~alike].mean())
    assert apart[-1] > apart[0] + 0.3


@pytest.mark.parametrize("task", ["simclr", "supcon"])
def test_history_is_the_contrastive_loss_of_the_kept_weights_on_views_that_stay(few, tmp_path, task):
    plan = schedule(2, batch_size=20, keep_early=[0.4])
    run, history = train(recipe(MLP, task, seeds=[3, 4], schedule=plan), few, tmp_path)
    pixels, labels = few.images[few.split == 1], few.labels[few.split == 1]
    for row in history.itertuples():
        order = np.random.default_rng(seed_sequence(row.seed, "a-recipe", EVALUATION_ORDER, 1)).permutation(30)
        state = seed_sequence(row.seed, "a-recipe", EVALUATION_AUGMENTATION, 1).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0]))
        network = build_network(MLP, (1, 8, 8), 10, 1, projection={"hidden": 32, "width": 16})
        network.load_state_dict({name: t[None] for name, t in tensors_of(run, row.seed, row.step).items()})
        losses = []
        for rows in (order[:15], order[15:]):  # no batch is larger than 20
            batch = torch.from_numpy(pixels[np.concatenate([rows, rows])]).float() / 255
            with torch.no_grad():
                prediction = network(augment(batch, CHANGES, generator)[None])[0][0].double().numpy()
            losses.append(views_loss(task, prediction, labels[rows], 0.5))
        assert row.test_loss == pytest.approx(np.mean(losses), rel=1e-5)


def test_an_update_follows_the_loss_of_two_fresh_views_in_one_batch(few, tmp_path):
    model = MLP | {"widths": [12], "batch_norm": True}
    sgd = {"kind": "sgd", "learning_rate": 0.5, "momentum": 0.0, "weight_decay": 0.0}
    plan = schedule(2, batch_size=45, learning_rate_schedule="constant", keep_early=[0.5])
    spec = recipe(model, "simclr", seeds=[7], optimiser=sgd, schedule=plan, dtype="float64")
    few = dataclasses.replace(few, offset=0.3, scale=0.5)
    run, _ = train(spec, few, tmp_path)
    network = build_network(model, (1, 8, 8), 10, 1, torch.float64, projection={"hidden": 32, "width": 16})
    network.load_state_dict({name: t[None] for name, t in tensors_of(run, 7, 0).items()})
    rows = np.random.default_rng(seed_sequence(7, "a-recipe", ORDER, 0)).permutation(90)[:45]
    state = seed_sequence(7, "a-recipe", AUGMENTATION, 0).generate_state(1, np.uint64)
    batch = torch.from_numpy(few.images[few.split == 0][np.concatenate([rows, rows])]).double() / 255
    views = (augment(batch, CHANGES, torch.Generator().manual_seed(int(state[0]))) - 0.3) / 0.5
    z = torch.nn.functional.normalize(network(views[None])[0][0], dim=1)
    similarities = (z @ z.T / 0.5).fill_diagonal_(-torch.inf)
    torch.nn.functional.cross_entropy(similarities, torch.arange(90).roll(45)).backward()
    after = tensors_of(run, 7, 1)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(after[name], (parameter - 0.5 * parameter.grad)[0].detach(), rtol=1e-9, atol=1e-12)
    assert "norm1.running_mean" in after
    torch.testing.assert_close(after["norm1.running_mean"], network["norm1"].running_mean[0])


# --- augmentation ---


def test_augmentation_changes_training_and_nothing_else(few, tmp_path):
    plan = {"schedule": schedule(3, batch_size=30), "seeds": [0, 1]}
    plain_run, plain = train(recipe(MLP, **plan), few, tmp_path / "plain")
    spec = recipe(MLP, augmentation=CHANGES, **plan)
    run, history = train(spec, few, tmp_path / "augmented")
    start = history["step"] == 0
    assert history[start].equals(plain[start])  # the same weights, on the same images
    assert (history.loc[~start, "train_loss"] != plain.loc[~start, "train_loss"]).all()
    # evaluation, independently, of the images as they are
    network = build_network(MLP, (1, 8, 8), 10, 1)
    network.load_state_dict({name: t[None] for name, t in tensors_of(run, 1, 9).items()})
    with torch.no_grad():
        prediction = network(torch.from_numpy(few.inputs(few.split == 0))[None])[0][0]
    loss = torch.nn.functional.cross_entropy(prediction, torch.from_numpy(few.labels[few.split == 0])).item()
    assert history.query("seed == 1 and step == 9")["train_loss"].item() == pytest.approx(loss, rel=1e-5)
    # one whose every option is off draws nothing and changes nothing, to rounding
    off = CHANGES | {"pad_crop": 0, "resized_crop": None, "jitter": 0.0}
    still, _ = train(recipe(MLP, augmentation=off, **plan), few, tmp_path / "off")
    for name, tensor in tensors_of(still, 1, 9).items():
        torch.testing.assert_close(tensor, tensors_of(plain_run, 1, 9)[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("batch_size", [None, 30], ids=["full-batch", "batches"])
def test_augmentation_is_drawn_anew_at_every_step(few, tmp_path, batch_size):
    seen = []

    def watched(images, options, generator):
        seen.append(augment(images, options, generator))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featurespace.training.augment", watched)
        spec = recipe(MLP, "shuffled-labels", augmentation=CHANGES, schedule=schedule(3, batch_size=batch_size))
        train(spec, few, tmp_path)
    assert len(seen) == 3 * (90 // (batch_size or 90))
    pictures = {picture.numpy().tobytes() for batch in seen for picture in batch}
    assert len(pictures) > 3 * 85  # an image can come out unchanged, or changed alike, twice


# --- E1: the deep linear network of the layerwise paper ---


def orthonormal(n=10, d=50, n_classes=3):
    rng = np.random.default_rng(0)
    rows = np.linalg.qr(rng.standard_normal((d, n * n_classes)))[0].T
    noise = rng.standard_normal(rows.shape)
    return prepared(
        rows + noise / np.linalg.norm(noise), np.repeat(np.arange(n_classes), n), np.zeros(n * n_classes), n_classes
    )


def compression(features, labels):
    """Tr Σ_W / Tr Σ_B, with Σ_W over all samples and Σ_B over the classes."""
    means = np.stack([features[labels == k].mean(0) for k in np.unique(labels)])
    within = np.mean(np.sum((features - means[labels]) ** 2, axis=1))
    return within / np.mean(np.sum((means - features.mean(0)) ** 2, axis=1))


def discrimination(features, labels):
    means = np.stack([features[labels == k].mean(0) for k in np.unique(labels)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return 1 - (means @ means.T)[~np.eye(len(means), dtype=bool)].max()


def test_compression_falls_geometrically_as_theory_has_it(tmp_path):
    data = orthonormal()
    spec = recipe(
        {"kind": "linear", "depth": 6, "width": 50},
        seeds=range(5),
        init={"scheme": "orthogonal", "scale": 0.3},
        loss="mse",
        optimiser={"kind": "sgd", "learning_rate": 0.1, "momentum": 0.0, "weight_decay": 0.0},
        schedule=schedule(5000, batch_size=None, stop_loss=1e-10, keep_every=1000),
        dtype="float64",
    )
    run, history = train(spec, data, tmp_path)
    assert set(run.facts["converged"].values()) == {True}
    assert last_rows(history)["train_loss"].max() < 1e-10
    assert last_rows(history)["test_loss"].isna().all()
    end = run.facts["steps"]["0"][-1]
    assert end < 5000
    law = 0.3**2 * (1 / 10) ** (1 / 6)  # ε² (α² / n)^(1/L)
    assert law == pytest.approx(0.0613, abs=1e-4)
    for seed in range(5):
        weights = tensors_of(run, seed, end)
        for dtype in (np.float64, np.float32):
            z = data.images
            c, d = [compression(z, data.labels)], []
            for i in range(1, 6):
                z = z @ weights[f"linear{i}.weight"].numpy().T
                stored = z.astype(dtype).astype(np.float64)
                c.append(compression(stored, data.labels))
                d.append(discrimination(stored, data.labels))
            np.testing.assert_allclose(np.divide(c[2:], c[1:-1]), law, rtol=0.03)
            assert (np.diff(d) > 0).all()


# --- independence and repetition ---


def test_stacked_seeds_are_the_seeds_trained_one_by_one(few, tmp_path):
    for model in (MLP | {"batch_norm": True}, {"kind": "linear", "depth": 3, "width": 20}):
        for optimiser in (ADAM, {"kind": "sgd", "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 1e-3}):
            for task in ("classify", "shuffled-labels", "simclr", "supcon"):
                if task in CONTRASTIVE and model["kind"] == "linear":
                    continue
                spec = recipe(model, task, seeds=[2, 5, 9], optimiser=optimiser, dtype="float64")
                folder = tmp_path / f"{model['kind']}-{optimiser['kind']}-{task}"
                stacked, history = train(spec, few, folder)
                end = stacked.facts["steps"]["5"][-1]
                single, single_history = train(spec | {"seeds": [5]}, few, folder / "single")
                for name, tensor in tensors_of(single, 5, end).items():
                    torch.testing.assert_close(tensors_of(stacked, 5, end)[name], tensor, rtol=1e-9, atol=1e-11)
                np.testing.assert_allclose(
                    history.loc[history["seed"] == 5, "test_loss"], single_history["test_loss"], rtol=1e-9
                )
                np.testing.assert_allclose(
                    history.loc[history["seed"] == 5, "weight_norm"], single_history["weight_norm"], rtol=1e-9
                )


def test_the_same_recipe_and_seed_give_the_same_bytes_and_others_do_not(few, tmp_path):
    spec = recipe(AUTOENCODER, "denoise", noise=0.3)
    first, history = train(spec, few, tmp_path / "first")
    again, history_again = train(spec, few, tmp_path / "again")
    assert bytes_of(first) == bytes_of(again)
    assert history.equals(history_again)
    renamed, _ = train(spec | {"recipe": "b-recipe"}, few, tmp_path / "renamed")
    assert not any(bytes_of(first)[name] == content for name, content in bytes_of(renamed).items())


# --- the timetable ---


def test_kept_steps_are_the_first_the_last_the_early_and_every_so_many_epochs():
    timetable = make_timetable(schedule(5, batch_size=30, keep_every=2, keep_early=[0.01, 0.5]), ADAM, 100)
    assert timetable.bounds == (0, 25, 50, 75, 100)
    assert timetable.n_steps == 20
    assert timetable.kept == (0, 1, 2, 8, 16, 20)
    assert [timetable.epoch(step) for step in timetable.kept] == [0, 0.25, 0.5, 2, 4, 5]


@pytest.mark.parametrize(
    ("n", "size", "least", "expected"),
    [
        (60, 20, 1, (0, 20, 40, 60)),
        (60, None, 1, (0, 60)),
        (61, 20, 2, (0, 15, 30, 45, 61)),
        (5, 2, 1, (0, 1, 3, 5)),
        (5, 2, 2, (0, 2, 5)),  # not 1, 2 and 2
        (3, 1, 1, (0, 1, 2, 3)),
        (3, 1, 2, (0, 3)),
        (1, 1, 2, (0, 1)),
    ],
)
def test_batches_are_even_and_no_smaller_than_asked(n, size, least, expected):
    assert even_bounds(n, size, least) == expected


def test_the_full_batch_is_one_step_an_epoch_and_cosine_ends_at_its_fraction():
    timetable = make_timetable(schedule(10, batch_size=None), {"learning_rate": 0.1}, 100)
    assert (timetable.n_batches, timetable.n_steps) == (1, 10)
    expected = [0.1 * (0.1 + 0.9 * (1 + math.cos(math.pi * t / 10)) / 2) for t in range(11)]
    assert [timetable.rate(t) for t in range(11)] == pytest.approx(expected)
    assert (timetable.rate(0), timetable.rate(10)) == pytest.approx((0.1, 0.01))
    constant = make_timetable(schedule(10, learning_rate_schedule="constant"), {"learning_rate": 0.1}, 100)
    assert {constant.rate(t) for t in range(11)} == {0.1}


def test_the_learning_rate_drops_at_the_start_of_each_milestone_epoch():
    drops = schedule(10, batch_size=30, learning_rate_schedule="step", milestones=[3, 4, 8], drop_factor=0.5)
    timetable = make_timetable(drops, {"learning_rate": 0.8}, 100)
    assert timetable.n_batches == 4
    by_epoch = [0.8] * 3 + [0.4] + [0.2] * 4 + [0.1] * 2
    assert [timetable.rate(step) for step in range(40)] == pytest.approx(np.repeat(by_epoch, 4))


def test_a_run_s_learning_rate_is_its_schedule_s(few, tmp_path):
    drops = schedule(3, batch_size=None, learning_rate_schedule="step", milestones=[1, 2], drop_factor=0.1)
    sgd = {"kind": "sgd", "learning_rate": 0.1, "momentum": 0.0, "weight_decay": 0.0}
    run, history = train(recipe(MLP, optimiser=sgd, schedule=drops, dtype="float64"), few, tmp_path)
    assert list(history["learning_rate"]) == pytest.approx([0.1, 0.01, 0.001, 0.001])
    moved = [
        math.sqrt(
            sum(float((tensors_of(run, 0, t + 1)[k] - w).square().sum()) for k, w in tensors_of(run, 0, t).items())
        )
        for t in range(3)
    ]
    # along gradients that hardly change
    assert [moved[1] / moved[0], moved[2] / moved[1]] == pytest.approx([0.1, 0.1], rel=0.2)


@pytest.mark.parametrize("model", [MLP, CNN], ids=["mlp", "cnn"])
def test_the_weight_norm_is_that_of_all_parameters(few, tmp_path, model):
    run, history = train(recipe(model, seeds=[0, 1]), few, tmp_path)
    for row in history.itertuples():
        parameters = [
            tensor.double().numpy().ravel()
            for name, tensor in tensors_of(run, row.seed, row.step).items()
            if "running" not in name
        ]
        assert row.weight_norm == pytest.approx(np.linalg.norm(np.concatenate(parameters)), rel=1e-12)
    assert history["weight_norm"].nunique() == len(history)


def test_history_and_the_run_table_have_the_same_metrics():
    assert HISTORY_COLUMNS[-1] == "weight_norm"
    assert run_table.METRICS == METRICS


def test_history_is_what_the_kept_weights_do(few, tmp_path):
    spec = recipe(MLP, output_scale=3.0, loss="mse", schedule=schedule(2, batch_size=30, keep_early=[0.4]))
    run, history = train(spec, few, tmp_path)
    assert list(history["step"]) == run.facts["steps"]["0"] == [0, 1, 3, 6]
    assert list(history["epoch"]) == pytest.approx([0, 1 / 3, 1, 2])
    x = few.inputs(few.split == 1, np.float64).reshape(30, 64)
    for row in history.itertuples():
        w = {name: tensor.double().numpy() for name, tensor in tensors_of(run, 0, row.step).items()}
        h = x
        for layer in ("hidden1", "hidden2"):
            h = np.maximum(h @ w[f"{layer}.weight"].T + w[f"{layer}.bias"], 0)
        f = 3.0 * (h @ w["output.weight"].T + w["output.bias"])
        labels = few.labels[few.split == 1]
        assert row.test_loss == pytest.approx(((f - np.eye(10)[labels]) ** 2).sum(1).mean(), rel=1e-5)
        assert row.test_accuracy == pytest.approx((f.argmax(1) == labels).mean())


def test_losses_follow_their_conventions():
    prediction = torch.tensor([[[2.0, 0.0, 1.0]]])
    labels = torch.tensor([[2]])
    assert sample_losses(prediction, prediction, labels, "mse", False).item() == 4.0
    expected = math.log(math.exp(2) + 1 + math.exp(1)) - 1
    assert sample_losses(prediction, prediction, labels, "cross-entropy", False).item() == pytest.approx(expected)
    image = torch.ones(1, 1, 2, 2, 2)
    assert sample_losses(3 * image, image, labels, "mse", True).item() == 4.0


# --- optimisers ---


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["adam", "sgd", "plain"])
def test_optimisers_are_pytorch_s(kind, decay):
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (
        [torch.nn.Parameter(torch.arange(1.0, 4.0, dtype=torch.float64)) for _ in range(2)] for _ in range(2)
    )
    options = {"kind": "adam" if kind == "adam" else "sgd", "momentum": 0.9 * (kind == "sgd"), "weight_decay": decay}
    optimiser = make_optimiser(options, ours)
    if kind == "adam":
        reference = torch.optim.Adam(theirs, weight_decay=decay)
    else:
        reference = torch.optim.SGD(theirs, momentum=options["momentum"], weight_decay=decay)
    for step in range(20):
        rate = 0.1 / (step + 1)
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(3, dtype=torch.float64, generator=generator)
            b.grad = a.grad.clone()
        reference.param_groups[0]["lr"] = rate
        optimiser.step(rate, n_done=step)
        reference.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


# --- stopping and failing ---


def stopping(model, seeds, stop_loss, keep_every=25, **changes):
    plan = schedule(400, batch_size=None, stop_loss=stop_loss, keep_every=keep_every)
    return recipe(model, seeds=seeds, schedule=plan, **changes)


@pytest.mark.parametrize("model", [MLP, CNN], ids=["mlp", "cnn"])
def test_autocast_rounds_the_products_of_training_and_nothing_else(few, tmp_path, model):
    short = {"schedule": schedule(2, batch_size=30), "optimiser": {"kind": "sgd", "learning_rate": 0.05} | PLAIN}
    exact, exact_history = train(recipe(model, **short), few, tmp_path / "exact")
    rounded, history = train(recipe(model, autocast="bfloat16", **short), few, tmp_path / "rounded")
    # what is not trained yet is evaluated in full precision
    pd.testing.assert_frame_equal(history[history["step"] == 0], exact_history[exact_history["step"] == 0])
    end = int(history["step"].max())
    initial, ours, theirs = tensors_of(exact, 0, 0), tensors_of(rounded, 0, end), tensors_of(exact, 0, end)
    for name, tensor in theirs.items():
        if not tensor.is_floating_point():
            continue
        assert ours[name].dtype == torch.float32
        moved = torch.linalg.vector_norm(tensor - initial[name])
        apart = torch.linalg.vector_norm(ours[name] - tensor)
        assert 0 < apart < 0.2 * moved  # bfloat16 has 8 bits


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_seed_that_has_converged_stays_bit_by_bit_where_it_stopped(few, tmp_path, batch_norm):
    model = {"kind": "mlp", "widths": [16], "batch_norm": batch_norm}
    # every step, so that a seed also stops at a step that is kept
    run, history = train(stopping(model, range(4), 0.05, keep_every=1), few, tmp_path)
    steps = run.facts["steps"]["0"]
    assert set(run.facts["converged"].values()) == {True}
    assert steps[-1] < 400
    frozen_for = 0
    for seed in range(4):
        hashes = [hashlib.sha256((run.weights / step_file(seed, step)).read_bytes()).hexdigest() for step in steps]
        first = hashes.index(hashes[-1])
        assert set(hashes[first:]) == {hashes[-1]}
        assert len(set(hashes[:first])) == first
        frozen_for += len(hashes) - 1 - first
        losses = history.loc[history["seed"] == seed, "train_loss"].to_numpy()
        assert len(set(losses[first:])) == 1
        if not batch_norm:  # in evaluation mode the loss is another
            assert losses[-1] < 0.05
            assert (losses[:first] >= 0.05).all()
    assert frozen_for > 0
    # alone, each seed stops at the same weights
    alone, _ = train(stopping(model, [2], 0.05), few, tmp_path / "alone")
    for name, tensor in tensors_of(alone, 2, alone.facts["steps"]["2"][-1]).items():
        torch.testing.assert_close(tensors_of(run, 2, steps[-1])[name], tensor, rtol=1e-3, atol=1e-4)


def test_seeds_that_go_one_after_another_get_the_same_steps(few, tmp_path):
    model = {"kind": "cnn", "channels": [4], "hidden": 8, "batch_norm": False}
    seeds = [0, 1, 2]
    run, history = train(stopping(model, seeds, 0.5), few, tmp_path)
    steps = run.facts["steps"]["0"]
    assert all(run.facts["steps"][str(seed)] == steps for seed in seeds)
    assert {path.name for path in run.weights.rglob("step-*")} == {Path(step_file(0, step)).name for step in steps}
    assert len(bytes_of(run)) == len(history) == len(seeds) * len(steps)
    for seed in seeds:
        rows = history[history["seed"] == seed]
        assert list(rows["step"]) == steps
        assert list(rows["epoch"]) == steps
        assert rows["learning_rate"].is_monotonic_decreasing
        assert rows["train_loss"].iloc[-1] < 0.5


def test_a_loss_that_is_never_low_enough_is_not_converged(few, tmp_path):
    spec = stopping(MLP, [0], 1e-9)
    spec["schedule"] |= {"epochs": 10}
    run, _ = train(spec, few, tmp_path)
    assert run.facts["converged"] == {"0": False}
    assert run.facts["steps"]["0"] == [0, 10]


def test_a_loss_that_is_not_finite_is_an_error_that_names_step_recipe_and_seed(few, tmp_path):
    diverging = {"kind": "sgd", "learning_rate": 1e6, "momentum": 0.0, "weight_decay": 0.0}
    model = {"kind": "linear", "depth": 3, "width": 8}
    spec = recipe(model, seeds=[7], loss="mse", optimiser=diverging, schedule=schedule(400, batch_size=30))
    spec["schedule"]["keep_every"] = 400
    with pytest.raises(FeaturespaceError, match=r"recipe 'a-recipe', seed 7, .* at step \d ") as caught:
        train(spec, few, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "model", [CNN, {"kind": "resnet", "depth": 18, "width": 8, "stem_stride": 1}], ids=["cnn", "resnet"]
)
def test_batch_norm_of_single_samples_is_refused(few, tmp_path, model):
    with pytest.raises(FeaturespaceError, match="batches of one"):
        train(recipe(model, schedule=schedule(1, batch_size=1)), few, tmp_path)


# --- killing and resuming ---

DRIVER = """
import json, sys
from pathlib import Path
import numpy as np, torch
from featurespace.datasets import PreparedDataset
from featurespace.training import train_block
folder = Path(sys.argv[1])
data = np.load(folder / "data.npz")
facts = {"sample_ids": np.arange(len(data["split"])), "class_names": list("0123456789"), "sample_hash": ""}
dataset = PreparedDataset(**data, **facts, offset=0.0, scale=1.0)
spec = json.loads((folder / "spec.json").read_text())
run = train_block(spec, dataset, torch.device("cpu"), folder, save_seconds=0)
(folder / "history.json").write_text(json.dumps(run.history))
"""


@pytest.mark.parametrize("kind", ["mlp", "autoencoder", "simclr"])
def test_a_run_killed_again_and_again_ends_as_one_never_killed(few, tmp_path, kind):
    if kind == "mlp":
        spec = recipe(MLP | {"batch_norm": True}, seeds=[0, 1], schedule=schedule(60, batch_size=30, keep_every=2))
    elif kind == "simclr":
        spec = recipe(MLP | {"batch_norm": True}, "simclr", seeds=[0, 1])
        spec["schedule"] = schedule(30, batch_size=30, keep_every=2)
    else:
        spec = recipe(AUTOENCODER, "denoise", seeds=[0, 1], noise=0.3)
        spec["schedule"] = schedule(30, batch_size=30, keep_every=2)
    spec["schedule"]["keep_early"] = [0.5]
    reference, history = train(spec, few, tmp_path / "whole")

    folder = tmp_path / "killed"
    folder.mkdir()
    np.savez(folder / "data.npz", images=few.images, labels=few.labels, split=few.split)
    (folder / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-c", DRIVER, str(folder)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "scripts"), "OMP_NUM_THREADS": "1"}
    n_files = 0
    for more in (1, 9):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(list(folder.rglob("step-*.safetensors"))) < n_files + more and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        n_files = len(list(folder.rglob("step-*.safetensors")))
        assert 0 < n_files < len(history)
        assert not (folder / "history.json").exists()
    # the last attempt must not begin anew: what it builds upon stays untouched
    first = folder / "weights" / step_file(0, 0)
    written = first.stat().st_mtime_ns
    run, resumed = train(spec, few, folder, save_seconds=0)
    assert first.stat().st_mtime_ns == written
    assert bytes_of(run) == bytes_of(reference)
    assert resumed.equals(history)
    assert not list(folder.rglob(".*"))


def test_frozen_seeds_stay_frozen_through_a_resume(few, tmp_path):
    spec = stopping({"kind": "mlp", "widths": [16], "batch_norm": True}, range(4), 0.05)
    spec["schedule"]["keep_every"] = 5
    reference, history = train(spec, few, tmp_path / "whole")
    n_saved = 0

    def kill_after_some(*arguments, **options):
        nonlocal n_saved
        save(*arguments, **options)
        n_saved += 1
        if n_saved % 3 == 0:
            raise KeyboardInterrupt

    from featurespace.training import Trainer

    save = Trainer._save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_save", kill_after_some)
        for _ in range(100):
            try:
                run, resumed = train(spec, few, tmp_path / "cut", save_seconds=0)
            except KeyboardInterrupt:
                continue
            break
    assert n_saved > 6
    assert bytes_of(run) == bytes_of(reference)
    assert resumed.equals(history)


def test_state_whose_weights_are_gone_is_not_resumed(few, tmp_path):
    spec = recipe(MLP)
    reference, history = train(spec, few, tmp_path / "whole")
    kept = bytes_of(reference)
    (reference.weights / step_file(0, 3)).unlink()
    run, again = train(spec, few, tmp_path / "whole")
    assert bytes_of(run) == kept
    assert again.equals(history)


def test_the_folder_to_resume_from_is_keyed_by_all_that_matters_and_replaces_others(tmp_path):
    first = resume_folder(tmp_path, CPU, params={"a": 1, "b": 2}, code={"x": "1"})
    (first / "kept").touch()
    assert resume_folder(tmp_path, CPU, params={"b": 2, "a": 1}, code={"x": "1"}) == first
    assert (first / "kept").exists()
    second = resume_folder(tmp_path, CPU, params={"a": 1, "b": 2}, code={"x": "2"})
    assert second != first
    assert not first.exists()
    assert second.name.startswith(".resume-")


def test_what_was_begun_with_another_device_or_pytorch_is_kept_until_the_run_is_published(
    tmp_path, monkeypatch, caplog
):
    work = {"params": {"a": 1}, "code": {"x": "1"}}
    on_gpu = resume_folder(tmp_path, torch.device("cuda"), **work)
    (on_gpu / "state-0.safetensors").touch()
    on_cpu = resume_folder(tmp_path, CPU, **work)
    assert f"{on_gpu} is kept, but this is another device or PyTorch" in caplog.text
    monkeypatch.setattr(torch, "__version__", "99.0")
    later = resume_folder(tmp_path, CPU, **work)
    assert len({on_gpu, on_cpu, later}) == 3
    assert not list(on_cpu.iterdir()) + list(later.iterdir())
    assert resume_folder(tmp_path, torch.device("cuda", 0), **work) not in (on_gpu, on_cpu, later)
    monkeypatch.undo()
    assert resume_folder(tmp_path, torch.device("cuda", 0), **work) == on_gpu
    assert (on_gpu / "state-0.safetensors").exists()

    forget_others(on_gpu)  # as a script does when it has published
    assert list(tmp_path.iterdir()) == [on_gpu]
    resume_folder(tmp_path, CPU, **work)
    other = resume_folder(tmp_path, CPU, params={"a": 2}, code={"x": "1"})
    assert list(tmp_path.iterdir()) == [other]


# --- weights on disk ---


def test_published_weights_are_checked_when_read(few, tmp_path):
    run, _ = train(recipe(MLP, seeds=[0, 1]), few, tmp_path / "folder")
    weights, digest = tmp_path / "weights", tmp_path / "weights.json"
    publish(run.weights, weights, digest, run.facts)
    facts = json.loads(digest.read_text())
    assert facts["tf32"] is False
    assert facts["n_parameters"] == 64 * 64 + 64 + 64 * 64 + 64 + 64 * 10 + 10
    kept = KeptWeights(weights, digest)
    assert (kept.seeds, kept.steps, kept.epochs) == ([0, 1], [0, 3, 6, 9], [0, 1, 2, 3])
    state = kept.read([1, 0], 6)
    assert torch.equal(state["output.weight"][1], tensors_of(run, 0, 6)["output.weight"])
    path = weights / step_file(1, 6)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()  # a hard link: the original stays
    path.write_bytes(content)
    kept.read([0], 6)
    with pytest.raises(FeaturespaceError, match=r"seed-1/step-00000006.*damaged"):
        kept.read([0, 1], 6)
    path.unlink()
    with pytest.raises(FeaturespaceError, match=r"seed-1/step-00000006.*missing"):
        KeptWeights(weights, digest)
    path.write_bytes(content)
    (weights / "seed-9").mkdir()
    (weights / "seed-9" / "step-00000000.safetensors").touch()
    with pytest.raises(FeaturespaceError, match=r"seed-9/.*not one that training wrote"):
        KeptWeights(weights, digest)
