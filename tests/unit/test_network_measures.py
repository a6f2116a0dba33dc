"""What takes a run's weights to measure, against NumPy in float64: forward and backward passes written out."""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_stores
import torch
import xarray as xr

sys.path.insert(0, str(Path(__file__).parents[1]))
import reference

from featurespace import network_measures
from featurespace.architectures import layer_depth, layer_names
from featurespace.datasets import PreparedDataset
from featurespace.errors import FeaturespaceError
from featurespace.network_measures import (
    COLUMNS,
    linear_measures,
    measure_run,
    min_norm_solutions,
    self_duality,
)
from featurespace.networks import build_network
from featurespace.stores import sample_hash, store_draft, write_digest, write_group
from featurespace.training import EVALUATION_ORDER, TrainedRun, seed_sequence, train_block
from featurespace.weights import KeptWeights, publish

CPU = torch.device("cpu")
N_SAMPLES, SIDE, N_CLASSES, BATCH = 90, 4, 3, 20
RECIPES = {
    "mlp": {"model": {"kind": "mlp", "widths": [12, 7], "batch_norm": True}},
    "mlp-plain": {
        "model": {"kind": "mlp", "widths": [12, 7], "batch_norm": False},
        "loss": "mse",
        "head": {"layers": 2, "width": 6},
    },
    "hybrid": {
        "model": {"kind": "hybrid", "nonlinear": 2, "linear": 2, "width": 8, "batch_norm": True},
        "loss": "mse",
        "output_scale": 10.0,
    },
    "linear": {
        "model": {"kind": "linear", "depth": 4, "width": 20},
        "init": {"scheme": "orthogonal", "scale": 0.3},
        "loss": "mse",
        "output_scale": 3.0,
    },
    "shuffled": {"model": {"kind": "linear", "depth": 3, "width": 5}, "task": "shuffled-labels", "loss": "mse"},
}
MEASURED = {"ncc_accuracy", "nc4_mismatch"}
IN_TRAINING_MODE = {"compression_training", "discrimination_training", "numerical_rank_training"}
OF_LINEAR = {"balancedness", "top_singular_mean", "weight_norm"}


def make_images() -> PreparedDataset:
    """Random images of three classes that differ a little, in a fixed random order."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(N_SAMPLES) % N_CLASSES)
    means = rng.integers(40, 200, (N_CLASSES, 1, SIDE, SIDE))
    images = np.clip(means[labels] + rng.normal(0, 60, (N_SAMPLES, 1, SIDE, SIDE)), 0, 255).astype(np.uint8)
    ids = np.arange(N_SAMPLES) * 3
    return PreparedDataset(
        images=images,
        labels=labels,
        split=(np.arange(N_SAMPLES) % 5 == 0).astype(np.int8),
        sample_ids=ids,
        class_names=["a", "b", "c"],
        offset=0.4,
        scale=0.3,
        sample_hash=sample_hash(ids),
    )


def training_spec(name: str, **changes) -> dict:
    return {
        "recipe": name,
        "dataset": "noise",
        "block": 1,
        "task": "classify",
        "init": {"scheme": "default", "scale": 1.0},
        "loss": "cross-entropy",
        "output_scale": 1.0,
        "head": None,
        "augmentation": None,
        "autocast": None,
        "contrast": None,
        "optimiser": {"kind": "adam", "learning_rate": 1e-2, "weight_decay": 0.0},
        "schedule": {
            "epochs": 3,
            "batch_size": BATCH,
            "learning_rate_schedule": "constant",
            "final_fraction": 1.0,
            "milestones": [],
            "drop_factor": 0.2,
            "stop_loss": None,
            "keep_every": 1,
            "keep_early": [],
        },
        "noise": None,
        "dtype": "float64",
        "threads": 1,
        "seeds": [3, 8],
    } | changes


def measuring_spec(spec: dict, **changes) -> dict:
    names = ("recipe", "dataset", "block", "seeds", "model", "dtype", "threads", "head", "task", "loss", "output_scale")
    return (
        {name: spec[name] for name in names}
        | {
            "projection": None,
            "layers": layer_names(spec["model"]),
            "pooling": "average",
            "sample_set": {"split": "all", "limit": 60},
            "batch_size": spec["schedule"]["batch_size"],
            "rank_energy": 0.95,
        }
        | changes
    )


def train(spec: dict, dataset: PreparedDataset, folder: Path) -> tuple[TrainedRun, KeptWeights]:
    run = train_block(spec, dataset, CPU, folder)
    publish(run.weights, folder / "published", folder / "weights.json", run.facts)
    return run, KeptWeights(folder / "published", folder / "weights.json")


@pytest.fixture(scope="module")
def images() -> PreparedDataset:
    return make_images()


@pytest.fixture(scope="module")
def runs(images, tmp_path_factory) -> dict[str, tuple[dict, TrainedRun, KeptWeights]]:
    """A trained run of every recipe."""
    trained = {}
    for name, changes in RECIPES.items():
        spec = training_spec(name, **changes)
        trained[name] = (spec, *train(spec, images, tmp_path_factory.mktemp(name)))
    return trained


# --- networks by hand -------------------------------------------------------------------------------------------------


def layers_of(spec: dict) -> list[str]:
    """The dense layers of a network without convolutions, in order, the output last."""
    head = spec["head"]["layers"] if spec["head"] else 0
    return [*layer_names(spec["model"]), *(f"head{i}" for i in range(1, head + 1)), "output"]


def forward_by_hand(spec: dict, w: dict, x: np.ndarray, bounds: list[int] | None = None) -> dict[str, np.ndarray]:
    """Every layer of one seed's network, (n, d), the output α included; with `bounds`, normalised batch by batch."""
    taps: dict[str, np.ndarray] = {}
    h = x.reshape(len(x), -1)
    for layer in layers_of(spec):
        h = h @ w[f"{layer}.weight"].T + w.get(f"{layer}.bias", 0.0)
        norm = layer.replace("hidden", "norm")
        if f"{norm}.running_mean" in w:
            if bounds is None:
                h = (h - w[f"{norm}.running_mean"]) / np.sqrt(w[f"{norm}.running_var"] + 1e-5)
            else:
                parts = [h[start:stop] for start, stop in pairwise(bounds)]
                h = np.concatenate([(part - part.mean(axis=0)) / np.sqrt(part.var(axis=0) + 1e-5) for part in parts])
            h = w[f"{norm}.weight"] * h + w[f"{norm}.bias"]
        if layer.startswith(("hidden", "head")):
            h = np.maximum(h, 0.0)
        taps[layer] = h
    taps["output"] = spec["output_scale"] * taps["output"]
    return taps


def loss_by_hand(spec: dict, output: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean loss, and its gradient by the (scaled) outputs."""
    one_hot = np.eye(N_CLASSES)[labels]
    if spec["loss"] == "mse":
        return float(((output - one_hot) ** 2).sum(axis=1).mean()), 2 * (output - one_hot) / len(output)
    shifted = output - output.max(axis=1, keepdims=True)
    probabilities = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    return float(-np.log(probabilities[one_hot == 1]).mean()), (probabilities - one_hot) / len(output)


def gradient_by_hand(spec: dict, w: dict, x: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The mean loss and the norm of its gradient, by the chain rule from the output down."""
    taps = forward_by_hand(spec, w, x)
    loss, up = loss_by_hand(spec, taps["output"], labels)
    up = spec["output_scale"] * up
    names = layers_of(spec)
    squares = 0.0
    for i in range(len(names) - 1, -1, -1):
        layer, below = names[i], (taps[names[i - 1]] if i else x.reshape(len(x), -1))
        if layer.startswith(("hidden", "head")):
            up = up * (taps[layer] > 0)
        norm = layer.replace("hidden", "norm")
        if f"{norm}.running_mean" in w:
            deviation = np.sqrt(w[f"{norm}.running_var"] + 1e-5)
            plain = (below @ w[f"{layer}.weight"].T - w[f"{norm}.running_mean"]) / deviation
            squares += ((up * plain).sum(axis=0) ** 2).sum() + (up.sum(axis=0) ** 2).sum()
            up = up * w[f"{norm}.weight"] / deviation
        squares += ((up.T @ below) ** 2).sum()
        if f"{layer}.bias" in w:
            squares += (up.sum(axis=0) ** 2).sum()
        up = up @ w[f"{layer}.weight"]
    return loss, float(np.sqrt(squares))


def measures_by_hand(spec: dict, seed: int, w: dict, dataset: PreparedDataset, training_labels: np.ndarray) -> dict:
    """{(layer, quantity): value} of one seed's network at one step, on 60 samples of the whole data set."""
    rows = sample_set_rows(dataset)
    labels = dataset.labels[rows]
    x = dataset.inputs(rows, np.float64)
    taps = forward_by_hand(spec, w, x)
    answers = taps["output"].argmax(axis=1)
    expected: dict[tuple[str, str], float] = {}
    for layer in layer_names(spec["model"]):
        nearest = reference.nearest_class_mean(taps[layer], labels)
        expected[layer, "ncc_accuracy"] = float(np.mean(nearest == labels))
        expected[layer, "nc4_mismatch"] = float(np.mean(nearest != answers))
    if spec["model"].get("batch_norm"):
        order = batch_order(spec, seed, 60)
        taps = forward_by_hand(spec, w, x[order], [0, 20, 40, 60])
        for layer in layer_names(spec["model"]):
            expected[layer, "compression_training"] = reference.compression(taps[layer], labels[order])
            expected[layer, "discrimination_training"] = reference.discrimination(taps[layer], labels[order])
            expected[layer, "numerical_rank_training"] = reference.numerical_rank(taps[layer])
    if spec["head"] is None:
        features = forward_by_hand(spec, w, x)[layer_names(spec["model"])[-1]]
        means = np.stack([features[labels == k].mean(axis=0) for k in range(N_CLASSES)]) - features.mean(axis=0)
        weight = w["output.weight"]
        gap = weight / np.sqrt((weight**2).sum()) - means / np.sqrt((means**2).sum())
        expected["", "nc3"] = float(np.sqrt((gap**2).sum()))
    train = np.flatnonzero(dataset.split == 0)
    x = dataset.inputs(train, np.float64)
    expected["", "train_loss"], expected["", "gradient_norm"] = gradient_by_hand(spec, w, x, training_labels)
    if spec["model"]["kind"] == "linear":
        expected |= linear_by_hand(spec, w, x.reshape(len(x), -1), training_labels)
    return expected


def batch_order(spec: dict, seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed_sequence(seed, spec["recipe"], EVALUATION_ORDER)).permutation(n)


def sample_set_rows(dataset: PreparedDataset) -> np.ndarray:
    """Sixty samples, twenty a class, evenly spread over each class's thirty: of each three the first and the last."""
    return np.sort(np.concatenate([np.flatnonzero(dataset.labels == k)[np.arange(30) % 3 != 1] for k in range(3)]))


def linear_by_hand(spec: dict, w: dict, x: np.ndarray, labels: np.ndarray) -> dict:
    weights = [w[f"{layer}.weight"] for layer in layers_of(spec)]
    d, product = x.shape[1], np.eye(x.shape[1])
    for weight in weights:
        product = weight @ product
    best = np.eye(N_CLASSES)[labels].T @ np.linalg.pinv(x.T) / spec["output_scale"]
    expected = {("", "min_norm_residual"): float(np.linalg.norm(product - best))}
    residuals, tails = [], []
    for i in range(len(weights) - 1):
        a, b = weights[i], weights[i + 1]
        residuals.append(np.sqrt(((b.T @ b - a @ a.T) ** 2).sum()) / np.sqrt((a**2).sum()))
        values = np.sqrt(np.clip(np.linalg.eigvalsh(a @ a.T if len(a) < a.shape[1] else a.T @ a)[::-1], 0, None))
        tails += [value for rank, value in enumerate(values, start=1) if N_CLASSES < rank <= d - N_CLASSES]
        expected[f"linear{i + 1}", "balancedness"] = float(residuals[-1])
        expected[f"linear{i + 1}", "top_singular_mean"] = float(np.mean(values[:N_CLASSES]))
        expected[f"linear{i + 1}", "weight_norm"] = float(np.sqrt((a**2).sum()))
    expected["", "balancedness"] = float(np.mean(residuals))
    mean = sum(tails) / len(tails) if tails else np.nan
    spread = sum((value - mean) ** 2 for value in tails)
    expected["", "low_rankness"] = spread / (len(tails) - 1) if len(tails) > 1 else np.nan
    return expected


def state_of(weights: KeptWeights, seed: int, step: int) -> dict[str, np.ndarray]:
    return {name: tensor[0].numpy() for name, tensor in weights.read([seed], step).items()}


def values_of(table: pd.DataFrame, seed: int, step: int) -> dict[tuple[str, str], float]:
    part = table[(table["seed"] == seed) & (table["step"] == step)]
    assert not part.duplicated(["layer", "quantity"]).any()
    return dict(zip(zip(part["layer"], part["quantity"], strict=True), part["value"], strict=True))


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_every_measure_of_a_run_is_what_numpy_makes_of_its_weights(name, runs, images):
    spec, _, weights = runs[name]
    table = measure_run(measuring_spec(spec), images, weights, CPU)
    assert list(table.columns) == COLUMNS
    assert sorted(set(table["step"])) == [0, 12]
    train = images.labels[images.split == 0]
    for s, seed in enumerate(weights.seeds):
        for step in (0, 12):
            labels = train
            if spec["task"] == "shuffled-labels":
                labels = shuffled_labels(spec, images, seed)
                assert (labels != train).any()
            expected = measures_by_hand(spec, seed, state_of(weights, seed, step), images, labels)
            found = values_of(table, seed, step)
            assert found.keys() == expected.keys()
            for key, value in expected.items():
                assert found[key] == pytest.approx(value, rel=1e-10, abs=1e-13, nan_ok=True), (s, step, key)


def shuffled_labels(spec: dict, dataset: PreparedDataset, seed: int) -> np.ndarray:
    """What training learned by heart: read off the trainer itself."""
    from featurespace.training import Trainer

    trainer = Trainer(spec, dataset, spec["seeds"], CPU, Path(), 0.0)
    return trainer.train.labels[spec["seeds"].index(seed)].numpy()


@pytest.mark.parametrize("name", RECIPES)
def test_which_quantities_there_are(name, runs, images):
    spec, _, weights = runs[name]
    table = measure_run(measuring_spec(spec), images, weights, CPU)
    normalised = bool(spec["model"].get("batch_norm"))
    linear = spec["model"]["kind"] == "linear"
    layer_quantities = MEASURED | (IN_TRAINING_MODE if normalised else set()) | (OF_LINEAR if linear else set())
    whole = {"train_loss", "gradient_norm"} | (set() if spec["head"] else {"nc3"})
    whole |= {"min_norm_residual", "balancedness", "low_rankness"} if linear else set()
    by_layer = table.groupby("layer")["quantity"].agg(set).to_dict()
    assert by_layer == {"": whole, **dict.fromkeys(layer_names(spec["model"]), layer_quantities)}
    for layer, depth in table.groupby("layer")["depth"].first().items():
        assert np.isnan(depth) if layer == "" else depth == layer_depth(spec["model"], layer)
    assert set(table["dataset"]) == {"noise"} and set(table["recipe"]) == {name} and set(table["block"]) == {1}
    assert table.groupby("step")["epoch"].first().to_dict() == {0: 0.0, 12: 3.0}


def test_compression_of_shuffled_labels_is_that_of_the_labels_given(runs, images):
    spec, _, weights = runs["shuffled"]
    train = np.flatnonzero(images.split == 0)
    asked = measuring_spec(spec) | {"sample_set": {"split": "train", "limit": None}}
    table = measure_run(asked, images, weights, CPU)
    for seed in weights.seeds:
        taps = forward_by_hand(spec, state_of(weights, seed, 12), images.inputs(train, np.float64))
        given = shuffled_labels(spec, images, seed)
        found = values_of(table, seed, 12)
        for layer in layer_names(spec["model"]):
            assert found[layer, "compression_given"] == pytest.approx(
                reference.compression(taps[layer], given), rel=1e-10
            )
    # labels that were not shuffled, or not for all of the sample set, were not given
    spec, _, weights = runs["linear"]
    assert "compression_given" not in set(measure_run(measuring_spec(spec), images, weights, CPU)["quantity"])


@pytest.mark.parametrize("name", RECIPES)
def test_the_loss_is_that_of_the_history(name, runs, images):
    """Also of shuffled labels: both draw the same ones."""
    spec, run, weights = runs[name]
    table = measure_run(measuring_spec(spec), images, weights, CPU)
    for row in run.history:
        if row["step"] in (0, 12):
            found = values_of(table, row["seed"], row["step"])["", "train_loss"]
            assert found == pytest.approx(row["train_loss"], rel=1e-12)


@pytest.mark.parametrize("held", [0, 60 * 8 * 9, 60 * 8 * 13])
def test_how_much_is_held_at_a_time_changes_nothing(held, runs, images, monkeypatch):
    """Nothing, so that all layers are computed anew at each pass; some layers; more of them."""
    spec, _, weights = runs["hybrid"]
    whole = measure_run(measuring_spec(spec), images, weights, CPU)
    monkeypatch.setattr(network_measures, "HELD_BYTES", held)
    pd.testing.assert_frame_equal(measure_run(measuring_spec(spec), images, weights, CPU), whole, rtol=1e-12)


def test_the_size_of_blocks_changes_nothing(runs, images, monkeypatch):
    spec, _, weights = runs["mlp"]
    whole = measure_run(measuring_spec(spec), images, weights, CPU)
    monkeypatch.setattr(network_measures, "FORWARD_ROWS", 7)
    pd.testing.assert_frame_equal(measure_run(measuring_spec(spec), images, weights, CPU), whole, rtol=1e-12)


def test_modes_of_normalisation_differ_and_leave_no_trace(runs, images):
    """What training mode does to running statistics reaches no other number, of this seed or the next."""
    spec, _, weights = runs["mlp"]
    both = measure_run(measuring_spec(spec), images, weights, CPU)
    again = measure_run(measuring_spec(spec), images, weights, CPU)
    pd.testing.assert_frame_equal(both, again, check_exact=True)
    whole = measure_run(measuring_spec(spec, batch_size=None), images, weights, CPU)
    same = ~both["quantity"].isin(IN_TRAINING_MODE)
    pd.testing.assert_frame_equal(both[same], whole[same], check_exact=True)
    compression = both["quantity"] == "compression_training"
    assert (both.loc[compression, "value"] != whole.loc[compression, "value"]).all()


def test_samples_stored_class_by_class_are_normalised_in_mixed_batches(runs, images):
    """As those of the newsgroups and the orthonormal rows are; a batch of one class has no class means to compare."""
    spec, _, weights = runs["mlp"]
    rows = np.tile(np.arange(N_SAMPLES), 10)
    mixed = at_rows(images, np.random.default_rng(0).permutation(rows))
    in_order = at_rows(images, rows[np.argsort(images.labels[rows], kind="stable")])
    asked = measuring_spec(spec, batch_size=150, sample_set={"split": "all", "limit": None})
    expected, found = (measure_run(asked, dataset, weights, CPU) for dataset in (mixed, in_order))
    for quantity in ("compression_training", "discrimination_training"):
        chosen = expected["quantity"] == quantity
        assert found.loc[chosen, "value"].to_numpy() == pytest.approx(expected.loc[chosen, "value"], rel=0.03)


def test_no_batch_is_a_single_sample_which_has_no_statistics(runs, images):
    spec, _, weights = runs["mlp"]
    ones, twos = (measure_run(measuring_spec(spec, batch_size=size), images, weights, CPU) for size in (1, 2))
    pd.testing.assert_frame_equal(ones, twos, check_exact=True)


def at_rows(dataset: PreparedDataset, rows: np.ndarray) -> PreparedDataset:
    by_sample = {name: getattr(dataset, name)[rows] for name in ("images", "labels", "split")}
    ids = np.arange(len(rows))
    return PreparedDataset(**vars(dataset) | by_sample | {"sample_ids": ids, "sample_hash": sample_hash(ids)})


def test_layers_that_are_not_dumped_are_left_out_but_nc3_stays(runs, images):
    spec, _, weights = runs["hybrid"]
    whole = measure_run(measuring_spec(spec), images, weights, CPU)
    some = measure_run(measuring_spec(spec, layers=["hidden1", "linear1"]), images, weights, CPU)
    assert set(some["layer"]) == {"", "hidden1", "linear1"}
    expected = whole[whole["layer"].isin(["", "hidden1", "linear1"])].reset_index(drop=True)
    keys = ["seed", "step", "layer", "quantity"]
    pd.testing.assert_frame_equal(
        some.sort_values(keys, ignore_index=True), expected.sort_values(keys, ignore_index=True), check_exact=True
    )


def test_a_class_that_the_sample_set_lacks_leaves_nc3_undefined(runs, images):
    spec, _, weights = runs["mlp"]
    labels = np.where(images.labels == 2, 0, images.labels)
    fewer = PreparedDataset(**{**vars(images), "labels": labels})
    found = values_of(measure_run(measuring_spec(spec), fewer, weights, CPU), 3, 12)
    assert np.isnan(found["", "nc3"])
    # what was the third class is the first one now: no sample's nearest mean is that of a class that is not there
    assert 0.3 < found["hidden2", "ncc_accuracy"] <= 1


@pytest.mark.parametrize(
    "model",
    [
        {"kind": "cnn", "channels": [4], "hidden": 5, "batch_norm": True},
        {"kind": "wide-resnet", "depth": 10, "widen": 1, "stem_stride": 1},
    ],
    ids=["cnn", "wide-resnet"],
)
def test_convolutional_networks_are_measured_in_both_modes(model, images, tmp_path):
    spec = training_spec("convolutions", model=model, dtype="float64")
    spec["schedule"] = spec["schedule"] | {"epochs": 1}
    _, weights = train(spec, images, tmp_path)
    table = measure_run(measuring_spec(spec), images, weights, CPU)
    rows = sample_set_rows(images)
    labels, x = images.labels[rows], torch.from_numpy(images.inputs(rows, np.float64))
    for seed in weights.seeds:
        step = weights.steps[-1]
        network = build_network(model, images.input_shape, N_CLASSES, 1, torch.float64)
        network.load_state_dict(weights.read([seed], step))
        found = values_of(table, seed, step)
        with torch.no_grad():
            output, taps = network.eval()(x[None])
            order = batch_order(spec, seed, 60)
            batches = [network.train()(x[None, order[start : start + 20]])[1] for start in (0, 20, 40)]
        for layer in layer_names(model):
            in_training = torch.cat([batch[layer][0] for batch in batches])
            features, in_training = (
                (tap.mean((2, 3)) if tap.ndim == 4 else tap).numpy() for tap in (taps[layer][0], in_training)
            )
            nearest = reference.nearest_class_mean(features, labels)
            assert found[layer, "ncc_accuracy"] == np.mean(nearest == labels)
            assert found[layer, "nc4_mismatch"] == np.mean(nearest != output[0].argmax(1).numpy())
            expected = reference.compression(in_training, labels[order])
            assert found[layer, "compression_training"] == pytest.approx(expected, rel=1e-10)
            expected = reference.discrimination(in_training, labels[order])
            assert found[layer, "discrimination_training"] == pytest.approx(expected, rel=1e-10)
            assert found[layer, "numerical_rank_training"] == reference.numerical_rank(in_training)
        state = weights.read([seed], step)
        # of the last layer, in evaluation mode
        means = np.stack([features[labels == k].mean(axis=0) for k in range(N_CLASSES)]) - features.mean(axis=0)
        weight = state["output.weight"][0].numpy()
        gap = weight / np.sqrt((weight**2).sum()) - means / np.sqrt((means**2).sum())
        assert found["", "nc3"] == pytest.approx(np.sqrt((gap**2).sum()), rel=1e-10)
        network.load_state_dict(state)  # training mode has moved the running statistics
        training = np.flatnonzero(images.split == 0)
        output, _ = network.eval()(torch.from_numpy(images.inputs(training, np.float64))[None])
        loss = torch.nn.functional.cross_entropy(output[0], torch.from_numpy(images.labels[training]))
        loss.backward()
        squares = sum(float((parameter.grad**2).sum()) for parameter in network.parameters())
        assert found["", "train_loss"] == pytest.approx(loss.item(), rel=1e-10)
        assert found["", "gradient_norm"] == pytest.approx(squares**0.5, rel=1e-10)


def test_a_run_that_kept_only_its_start_is_measured_once(images, tmp_path):
    spec = training_spec("start", model=RECIPES["mlp"]["model"], optimiser=None)
    schedule = spec["schedule"]
    spec["schedule"] = None
    _, weights = train(spec, images, tmp_path)
    table = measure_run(measuring_spec(spec | {"schedule": schedule}), images, weights, CPU)
    assert set(table["step"]) == {0}
    assert not table.duplicated(["seed", "layer", "quantity"]).any()


def test_features_that_are_not_finite_name_run_and_layer(runs, images):
    spec, _, weights = runs["mlp"]
    broken = PreparedDataset(**{**vars(images), "scale": 1e-320})
    with pytest.raises(FeaturespaceError, match="recipe mlp, seed 3, step 0, layer output of the network: sample 0"):
        measure_run(measuring_spec(spec), broken, weights, CPU)


def test_the_script_writes_the_table(runs, images, tmp_path):
    spec, _, weights = runs["linear"]
    dataset = xr.Dataset(
        {
            "image": (("sample", "channel", "height", "width"), images.images),
            "label": ("sample", images.labels),
            "split": ("sample", images.split),
        },
        {"sample": images.sample_ids},
        {"kind": "noise", "class_names": images.class_names, "offset": images.offset, "scale": images.scale}
        | {"sample_hash": images.sample_hash},
    )
    with store_draft(tmp_path / "dataset.zarr") as draft:
        write_group(draft, "", dataset)
    write_digest(tmp_path / "dataset.zarr", tmp_path / "dataset.json")
    synthetic_stores.run_script(
        "measure_networks",
        measuring_spec(spec),
        in_weights=str(weights.folder),
        in_weights_digest=str(weights.folder.parent / "weights.json"),
        in_dataset=str(tmp_path / "dataset.zarr"),
        in_dataset_digest=str(tmp_path / "dataset.json"),
        out_table=str(tmp_path / "networks.csv"),
    )
    written = pd.read_csv(
        tmp_path / "networks.csv", dtype={"layer": str}, keep_default_na=False, na_values={"depth": ""}
    )
    expected = measure_run(measuring_spec(spec), images, weights, CPU)
    pd.testing.assert_frame_equal(written, expected, check_exact=True, check_dtype=False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", RECIPES)
def test_gpu_agrees_with_cpu(name, runs, images):
    spec, _, weights = runs[name]
    cpu = measure_run(measuring_spec(spec), images, weights, CPU)
    gpu = measure_run(measuring_spec(spec), images, weights, torch.device("cuda"))
    pd.testing.assert_frame_equal(gpu, cpu, rtol=1e-9)


# --- parts ------------------------------------------------------------------------------------------------------------


def test_self_duality_is_zero_of_weights_that_are_the_class_means():
    means = np.random.default_rng(0).normal(size=(4, 9))
    assert self_duality(3.0 * means, means) == pytest.approx(0, abs=1e-15)
    assert self_duality(-means, 2.0 * means) == pytest.approx(2)
    apart = np.kron([[1.0, 0.0]], means), np.kron([[0.0, 1.0]], means)  # at right angles
    assert self_duality(*apart) == pytest.approx(2**0.5)
    assert np.isnan(self_duality(means, np.zeros_like(means)))


@pytest.mark.parametrize(
    ("n", "d", "rank"), [(12, 30, 12), (40, 8, 8), (40, 12, 5)], ids=["wide", "tall", "rank deficient"]
)
def test_the_shortest_solution_is_that_of_the_pseudoinverse(n, d, rank):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, d))
    labels = np.stack([np.arange(n) % 3, rng.permutation(np.arange(n) % 3)])
    found = min_norm_solutions(x, labels, 3, 4.0)
    assert found.shape == (2, 3, d)
    for own, solution in zip(labels, found, strict=True):
        expected = np.eye(3)[own].T @ np.linalg.pinv(x.T, rcond=1e-12) / 4.0
        np.testing.assert_allclose(solution, expected, rtol=1e-10, atol=1e-13)
    if rank == n:  # it interpolates: α pred = Y
        np.testing.assert_allclose(4.0 * found[0] @ x.T, np.eye(3)[labels[0]].T, atol=1e-12)


def balanced_layers(target: np.ndarray, depth: int, width: int, tail: float) -> list[np.ndarray]:
    """Factor a (K, d) map into balanced layers whose other singular values are `tail`; exact where tail is 0."""
    k = len(target)
    rng = np.random.default_rng(5)
    left, values, right = np.linalg.svd(target)
    bases = [right.T, *(np.linalg.qr(rng.normal(size=(width, width)))[0] for _ in range(depth - 1)), left]
    layers = []
    for i in range(depth):
        out, inner = bases[i + 1], bases[i]
        diagonal = np.zeros((out.shape[1], inner.shape[1]))
        np.fill_diagonal(diagonal, tail)
        diagonal[range(k), range(k)] = values ** (1 / depth)
        layers.append(out @ diagonal @ inner.T)
    return layers


def as_dict(values: list[tuple[str, str, float]]) -> dict[tuple[str, str], float]:
    return {(layer, quantity): value for layer, quantity, value in values}


def test_balanced_layers_of_the_shortest_solution_have_no_residual():
    """What theory says training from a small orthogonal start ends near (layerwise.md, section 2)."""
    x = np.linalg.qr(np.random.default_rng(0).normal(size=(50, 30)))[0].T
    best = min_norm_solutions(x, np.arange(30)[None] % 3, 3, 1.0)[0]
    weights = balanced_layers(best, 4, 50, 0.1)
    found = as_dict(linear_measures(weights, best))
    assert found["", "min_norm_residual"] == pytest.approx(0, abs=1e-13)
    assert found["", "low_rankness"] == pytest.approx(0, abs=1e-28)
    for i in (1, 2, 3):
        # n = 10 orthonormal rows a class: (√n)^(1/L)
        assert found[f"linear{i}", "top_singular_mean"] == pytest.approx(10 ** (1 / 8), rel=1e-12)
        assert found[f"linear{i}", "weight_norm"] == pytest.approx((3 * 10 ** (1 / 4) + 47 * 0.01) ** 0.5, rel=1e-12)
    assert found["linear1", "balancedness"] == pytest.approx(0, abs=1e-14)
    assert found["linear2", "balancedness"] == pytest.approx(0, abs=1e-14)
    # the output has no tail: ξ² √(w - K) / ‖W_{L-1}‖
    last = 0.01 * 47**0.5 / (3 * 10 ** (1 / 4) + 47 * 0.01) ** 0.5
    assert found["linear3", "balancedness"] == pytest.approx(last, rel=1e-12)
    assert found["", "balancedness"] == pytest.approx(last / 3, rel=1e-12)


@pytest.mark.parametrize(("moved", "counts"), [(2, False), (3, True), (46, True), (47, False)])
def test_low_rankness_is_about_the_middle_of_the_input_s_dimensions(moved, counts):
    """Singular values K + 1 to d - K, counted from one, of layers wider than the input too."""
    values = np.linspace(2.0, 1.0, 60)
    others = [np.diag(np.full(60, 1.5))[:, :50], np.diag(values)]
    base = as_dict(linear_measures([*others, np.eye(3, 60)], np.zeros((3, 50))))["", "low_rankness"]
    values = values.copy()
    values[moved] += 1e-3  # stays in its place
    others[1] = np.diag(values)
    found = as_dict(linear_measures([*others, np.eye(3, 60)], np.zeros((3, 50))))["", "low_rankness"]
    assert (found != pytest.approx(base, rel=1e-9)) == counts
    middle = np.concatenate([np.full(44, 1.5), values[3:47]])
    assert found == pytest.approx(middle.var(ddof=1), rel=1e-12)


def test_low_rankness_of_layers_too_narrow_for_a_tail_is_undefined():
    weights = [np.eye(4, 6), np.eye(3, 4)]
    assert np.isnan(as_dict(linear_measures(weights, np.zeros((3, 6))))["", "low_rankness"])
