"""The linear probe: against its own optimality conditions, and on features for which the answer is known."""

import logging

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from synthetic_stores import run_script

from featurespace import probe
from featurespace.stores import FeatureStore, FeatureWriter, sample_hash, store_draft, write_digest


@pytest.fixture(scope="module")
def digits():
    pixels, labels = load_digits(return_X_y=True)
    return pixels.astype(np.float32), labels


def accuracy_by_newton(features, labels, held_out, held_out_labels, regularisation):
    """Fit the same classifier by Newton's method on the definition of the loss, for few features."""
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    x = np.column_stack([(features - mean) / deviation, np.ones(len(features))])
    n_classes, p = labels.max() + 1, x.shape[1]
    penalty = np.ones((p, n_classes)) / regularisation
    penalty[-1] = 1e-9  # not penalised; this much fixes the biases' common shift
    weights = np.zeros((p, n_classes))
    for _ in range(30):
        scores = np.exp(x @ weights)
        chances = scores / scores.sum(axis=1, keepdims=True)
        gradient = x.T @ (chances - np.eye(n_classes)[labels]) + penalty * weights
        hessian = np.zeros((p, n_classes, p, n_classes))
        for row, chance in zip(x, chances, strict=True):
            hessian += np.einsum("i,j,ab->iajb", row, row, np.diag(chance) - np.outer(chance, chance))
        hessian = hessian.reshape(p * n_classes, -1) + np.diag(penalty.ravel())
        weights -= np.linalg.solve(hessian, gradient.ravel()).reshape(p, n_classes)
    assert np.abs(gradient).max() < 1e-6
    others = np.column_stack([(held_out - mean) / deviation, np.ones(len(held_out))])
    scored = [np.mean((z @ weights).argmax(axis=1) == y) for z, y in ((x, labels), (others, held_out_labels))]
    return tuple(scored)


@pytest.mark.parametrize("regularisation", [0.01, 1.0])
def test_accuracies_are_those_of_the_regularised_optimum(regularisation):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    features = (rng.normal(size=(300, 4)) + rng.normal(size=(3, 4))[labels]) * [1, 10, 0.1, 3] + 5
    arguments = (features[:200], labels[:200], features[200:], labels[200:], regularisation)
    expected = accuracy_by_newton(*arguments)
    assert min(expected) > 0.5
    assert max(expected) < 0.95
    assert probe.probe(*arguments) == pytest.approx(expected, abs=1e-12)


def test_digits_are_told_apart_from_their_pixels(digits):
    pixels, labels = digits
    train, test = probe.probe(pixels[:1000], labels[:1000], pixels[1000:], labels[1000:], 1.0)
    assert train > 0.99
    assert 0.85 < test < train


def test_features_are_scaled_by_what_the_probe_is_fitted_on(digits):
    pixels, labels = digits
    scales = np.exp(np.random.default_rng(0).normal(size=64) * 3)
    arguments = (labels[:1000], pixels[1000:], labels[1000:], 1.0)
    expected = probe.probe(pixels[:1000], *arguments)
    moved = (pixels * scales + 1000 * scales, labels[:1000])
    found = probe.probe(moved[0][:1000], moved[1], moved[0][1000:], labels[1000:], 1.0)
    assert found == pytest.approx(expected, abs=0.005)


def test_constant_features_are_left_alone(digits):
    pixels, labels = digits
    rng = np.random.default_rng(0)
    rounding = (1000 * (1 + rng.normal(size=(len(pixels), 500)) * 1e-7)).astype(np.float32)
    assert len(np.unique(rounding[:, 0])) > 1
    dead = np.zeros((len(pixels), 3), dtype=np.float32)
    widened = np.column_stack([pixels, rounding, dead])
    assert np.isfinite(probe.standardise(widened)[0]).all()
    expected = probe.probe(pixels[:1000], labels[:1000], pixels[1000:], labels[1000:], 1.0)
    found = probe.probe(widened[:1000], labels[:1000], widened[1000:], labels[1000:], 1.0)
    assert found == pytest.approx(expected, abs=1e-3)


def test_a_dead_layer_is_as_good_as_guessing(digits):
    _, labels = digits
    dead = np.zeros((len(labels), 8), dtype=np.float32)
    train, test = probe.probe(dead[:1000], labels[:1000], dead[1000:], labels[1000:], 1.0)
    assert train == pytest.approx(np.bincount(labels[:1000]).max() / 1000)
    assert test < 0.15


def test_without_held_out_samples_only_the_training_accuracy_is_known(digits):
    pixels, labels = digits
    train, test = probe.probe(pixels[:500], labels[:500], pixels[:0], labels[:0], 1.0)
    assert train == 1.0
    assert np.isnan(test)


def test_one_class_only_gives_no_accuracy(digits):
    pixels, _ = digits
    one = np.zeros(300, dtype=int)
    assert np.isnan(probe.probe(pixels[:200], one[:200], pixels[200:300], one[200:], 1.0)).all()


def test_a_probe_that_has_not_converged_is_logged(digits, monkeypatch, caplog):
    pixels, labels = digits
    monkeypatch.setattr(probe, "MAX_ITERATIONS", 3)
    with caplog.at_level(logging.WARNING):
        probe.probe(pixels, labels, pixels, labels, 1.0, name="features.zarr, seed 7")
    assert "features.zarr, seed 7: probe: lbfgs failed to converge" in caplog.text


def test_the_script_probes_every_seed_and_step(digits, tmp_path):
    pixels, labels = digits
    pixels, labels, ids = pixels[:600], labels[:600], np.arange(600)
    noise = np.random.default_rng(0).normal(size=pixels.shape).astype(np.float32)
    with store_draft(tmp_path / "ends.zarr") as draft:
        writer = FeatureWriter(
            draft,
            layers={"hidden": 64},
            seeds=[2, 3],
            steps=[0, 50],
            epochs=[0.0, 2.5],
            sample_ids=ids,
            labels=labels,
            attrs={
                "dataset": "digits",
                "recipe": "mlp",
                "block": 1,
                "n_sample_set": 400,
                "sample_set_hash": sample_hash(ids[:400]),
            },
        )
        for i in range(2):
            writer.write("hidden", i, 0, 0, noise)
            writer.write("hidden", i, 1, 0, pixels * (i + 1))
    write_digest(tmp_path / "ends.zarr", tmp_path / "ends.json")
    run_script(
        "probe_run",
        {"regularisation": 0.5},
        in_ends=str(tmp_path / "ends.zarr"),
        in_ends_digest=str(tmp_path / "ends.json"),
        out_table=str(tmp_path / "probe.csv"),
    )
    table = pd.read_csv(tmp_path / "probe.csv")
    expected = "dataset recipe block seed step epoch layer train_accuracy test_accuracy"
    assert list(table.columns) == expected.split()
    assert list(zip(table["seed"], table["step"], table["epoch"], strict=True)) == [
        (2, 0, 0.0),
        (2, 50, 2.5),
        (3, 0, 0.0),
        (3, 50, 2.5),
    ]
    store = FeatureStore.open(tmp_path / "ends.zarr")
    own = probe.probe(store.matrix("hidden", 1, 1)[:400], labels[:400], pixels[400:] * 2, labels[400:], 0.5)
    assert (table["train_accuracy"][3], table["test_accuracy"][3]) == pytest.approx(own)
    assert table["test_accuracy"][0] < 0.25 < 0.8 < table["test_accuracy"][1]
