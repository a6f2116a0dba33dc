"""Linear probes of layers: against least squares solved otherwise, on streams, on other data, and on nothing to fit."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from sklearn.linear_model import Ridge
from sklearn.metrics import silhouette_samples
from synthetic_stores import run_script

from featurespace import layer_probes
from featurespace.architectures import layer_names
from featurespace.datasets import PreparedDataset, spread_evenly
from featurespace.errors import FeaturespaceError
from featurespace.layer_probes import COLUMNS, Moments, cut, probe_run, probe_stream
from featurespace.networks import build_network, initialise
from featurespace.silhouette import silhouette
from featurespace.stores import sample_hash, store_draft, write_digest, write_group
from featurespace.weights import KeptWeights, publish, step_file, write_tensors

CPU = torch.device("cpu")
MODELS = {
    "mlp": {"kind": "mlp", "widths": [12, 7], "batch_norm": True},
    "cnn": {"kind": "cnn", "channels": [4, 6], "hidden": 5, "batch_norm": False},
}
STEPS, EPOCHS, SEEDS = [0, 3, 9], [0.0, 1.5, 4.5], [3, 8]


def one_hot(labels, n_classes):
    return np.eye(n_classes)[labels]


def scores_by_lstsq(features, labels, others, n_classes, regularisation):
    """Solve the probe's problem as ordinary least squares: the ridge is d more rows, the bias a column of ones."""
    n, d = features.shape
    centred = features - features.mean(axis=0)
    ridge = np.sqrt(regularisation * (centred**2).sum() / d)  # n λ, in a sum instead of a mean
    rows = np.block([[features, np.ones((n, 1))], [ridge * np.eye(d), np.zeros((d, 1))]])
    targets = np.vstack([one_hot(labels, n_classes), np.zeros((d, n_classes))])
    weights = np.linalg.lstsq(rows, targets, rcond=None)[0]
    return [np.column_stack([x, np.ones(len(x))]) @ weights for x in (features, others)]


def clusters(n, d, n_classes, offset=0.0, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    mixing = rng.normal(size=(d, d))
    features = (rng.normal(size=(n_classes, d))[labels] + spread * rng.normal(size=(n, d))) @ mixing
    return offset + features, labels


def gathered(features, labels, n_classes, sizes):
    moments = Moments(features.shape[1], n_classes, CPU)
    start = 0
    while start < len(features):
        stop = start + sizes[start % len(sizes)]
        encoded = torch.from_numpy(one_hot(labels[start:stop], n_classes))
        moments.add(torch.from_numpy(features[start:stop]), encoded)
        start = stop
    return moments


@pytest.mark.parametrize("regularisation", [1e-3, 1.0])
@pytest.mark.parametrize(("n", "d"), [(400, 20), (60, 90), (500, 300)])  # 300: more than a panel of columns
def test_scores_are_those_of_least_squares(n, d, regularisation):
    features, labels = clusters(n + 50, d, 4)
    fitted, others = features[:n], features[n:]
    expected = scores_by_lstsq(fitted, labels[:n], others, 4, regularisation)
    probe = gathered(fitted, labels[:n], 4, [64]).solve(regularisation)
    for x, scores in zip((fitted, others), expected, strict=True):
        np.testing.assert_allclose(probe.scores(torch.from_numpy(x)).numpy(), scores, rtol=0, atol=1e-8)


def test_scores_are_those_of_scikit_learn_s_ridge():
    features, labels = clusters(300, 25, 5)
    penalty = 0.01 * ((features - features.mean(axis=0)) ** 2).sum() / 25
    expected = Ridge(alpha=penalty).fit(features, one_hot(labels, 5)).predict(features)
    probe = gathered(features, labels, 5, [300]).solve(0.01)
    np.testing.assert_allclose(probe.scores(torch.from_numpy(features)).numpy(), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_blocks_give_what_one_block_gives(offset):
    features, labels = clusters(500, 30, 3, offset)
    whole = gathered(features, labels, 3, [500])
    parts = gathered(features, labels, 3, [1, 37, 200])
    for name in ("frequencies", "cross"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(parts.gram.tril(), whole.gram.tril(), rtol=1e-9, atol=1e-9)
    x = torch.from_numpy(features)
    np.testing.assert_allclose(parts.solve(1e-3).scores(x), whole.solve(1e-3).scores(x), rtol=0, atol=1e-9)


def test_an_offset_costs_no_digits():
    # As where features have collapsed far from the origin: powers of two, so that the sum itself is exact.
    features, labels = clusters(400, 20, 4)
    features = np.round(features * 2**20) / 2**20
    expected = gathered(features, labels, 4, [64]).solve(1e-3).scores(torch.from_numpy(features))
    moved = features + 2.0**24
    found = gathered(moved, labels, 4, [64]).solve(1e-3).scores(torch.from_numpy(moved))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("scale", [1e-6, 1e4])
def test_the_scale_of_the_features_does_not_matter(scale):
    features, labels = clusters(200, 15, 3)
    expected = gathered(features, labels, 3, [64]).solve(1e-2).scores(torch.from_numpy(features))
    found = gathered(features * scale, labels, 3, [64]).solve(1e-2).scores(torch.from_numpy(features * scale))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_some_dead_features_change_the_ridge_only():
    features, labels = clusters(200, 10, 3)
    widened = np.column_stack([features, np.full((200, 10), 4.0)])
    # twice as many features, of half the mean variance
    expected = gathered(features, labels, 3, [64]).solve(5e-3).scores(torch.from_numpy(features))
    found = gathered(widened, labels, 3, [64]).solve(1e-2).scores(torch.from_numpy(widened))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_a_ridge_too_small_for_equal_features_is_named():
    features, labels = clusters(200, 10, 3)
    doubled = np.column_stack([features, features])
    with pytest.raises(FeaturespaceError, match=r"the features: .*depend on each other.*regularisation"):
        gathered(doubled, labels, 3, [200]).solve(1e-30)


def test_products_are_factored_where_they_are():
    """A layer of 16384 features has 2 GiB of them: a copy, or two, would be as much again."""
    features, labels = clusters(200, 30, 3)
    moments = gathered(features, labels, 3, [64])
    place = moments.gram.data_ptr()
    gram = np.tril(moments.gram.numpy()) + np.tril(moments.gram.numpy(), -1).T
    moments.solve(1e-2)
    assert moments.gram.data_ptr() == place
    factor = np.tril(moments.gram.numpy())
    np.testing.assert_allclose(factor @ factor.T, gram + 1e-2 * np.trace(gram) / 30 * np.eye(30), rtol=1e-10)


# --- whole streams ----------------------------------------------------------------------------------------------------


def made_dataset(features, labels, split, n_classes, images=None):
    ids = np.arange(len(labels))
    return PreparedDataset(
        images=features if images is None else images,
        labels=labels,
        split=split.astype(np.int8),
        sample_ids=ids,
        class_names=[f"class {k}" for k in range(n_classes)],
        offset=0.0,
        scale=1.0,
        sample_hash=sample_hash(ids),
    )


def stream_of(features, block_rows=64):
    def stream(rows, layers):
        for start in range(0, len(rows), block_rows):
            chosen = rows[start : start + block_rows]
            yield {key: torch.from_numpy(matrix[chosen]) for key, matrix in features.items() if key[1] in layers}

    return stream


def probed(features, labels, n_classes=4, n_train=300, **changes):
    dataset = made_dataset(features, labels, np.arange(len(labels)) >= n_train, n_classes)
    settings = {"regularisation": 1e-3, "silhouette_samples": 100} | changes
    widths = {"layer": features.shape[1]}
    return probe_stream(stream_of({(0, "layer"): features}), widths, [0], dataset, CPU, **settings)[0, "layer"]


def test_accuracies_are_exact_shares_of_either_split():
    features, labels = clusters(420, 20, 4, spread=2.0)
    train, test = scores_by_lstsq(features[:300], labels[:300], features[300:], 4, 1e-3)
    found = probed(features, labels)
    assert (found.n_train, found.n_test) == (300, 120)
    assert found.train_accuracy == (train.argmax(axis=1) == labels[:300]).sum() / 300
    assert found.test_accuracy == (test.argmax(axis=1) == labels[300:]).sum() / 120
    assert 0.3 < found.test_accuracy < found.train_accuracy < 1


def test_the_silhouette_is_that_of_training_samples_spread_over_the_classes():
    features, labels = clusters(420, 20, 4)
    chosen = spread_evenly(labels[:300], 100)
    expected = silhouette_samples(features[chosen].astype(np.float32), labels[chosen]).mean()
    assert probed(features, labels).silhouette == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("limit", "groups"),
    [
        (1, ["a", "b", "c", "d"]),
        (4 * 2 * 100 * 5, ["ab", "c", "d"]),
        (4 * 2 * 100 * 12, ["abc", "d"]),
        (10**9, ["abcd"]),
    ],
)
def test_layers_are_streamed_together_for_their_silhouettes(monkeypatch, limit, groups):
    monkeypatch.setattr(layer_probes, "HELD_BYTES", limit)
    widths, seeds = {"a": 3, "b": 2, "c": 4, "d": 20}, [3, 8]
    features, labels = clusters(420, 58, 4)
    parts = np.split(features, np.cumsum([w for _ in seeds for w in widths.values()])[:-1], axis=1)
    by_key = dict(zip([(seed, layer) for seed in seeds for layer in widths], parts, strict=True))
    dataset = made_dataset(features, labels, np.arange(420) >= 300, 4)
    streamed = []

    def stream(rows, layers):
        if len(rows) == 100:
            streamed.append("".join(layers))
        return stream_of(by_key)(rows, layers)

    found = probe_stream(stream, widths, seeds, dataset, CPU, regularisation=1e-3, silhouette_samples=100)
    assert streamed == groups
    chosen = spread_evenly(labels[:300], 100)
    for key, matrix in by_key.items():
        expected = silhouette_samples(matrix[chosen].astype(np.float32), labels[chosen]).mean()
        assert found[key].silhouette == pytest.approx(expected, abs=1e-6)


def test_one_class_has_neither_accuracy_nor_silhouette():
    features, _ = clusters(420, 20, 4)
    found = probed(features, np.zeros(420, dtype=int), n_classes=1)
    assert np.isnan([found.train_accuracy, found.test_accuracy, found.silhouette]).all()
    assert (found.n_train, found.n_test) == (300, 120)


def test_a_class_without_training_samples_is_never_guessed():
    features, labels = clusters(420, 20, 4)
    train, test = scores_by_lstsq(features[:300], labels[:300], features[300:], 6, 1e-3)
    assert not np.isin([*train.argmax(axis=1), *test.argmax(axis=1)], [4, 5]).any()
    labels = np.where(np.arange(420) >= 300, 5, labels)
    assert probed(features, labels, n_classes=6).test_accuracy == 0


@pytest.mark.parametrize("value", [0.0, 1e30, -3.7])
def test_a_dead_layer_is_as_good_as_guessing_the_most_frequent_class(value):
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3], [100, 50, 200, 70]))
    found = probed(np.full((420, 8), value), labels)
    assert found.train_accuracy == (labels[:300] == 2).mean()
    assert found.test_accuracy == (labels[300:] == 2).mean()


def test_without_test_samples_only_the_training_accuracy_is_known():
    features, labels = clusters(300, 20, 4)
    found = probed(features, labels)
    assert np.isnan(found.test_accuracy) and found.n_test == 0
    assert found.train_accuracy > 0.5


@pytest.mark.parametrize("row", [123, 350], ids=["training", "test"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_feature_that_is_not_finite_is_named(value, row):
    features, labels = clusters(420, 20, 4)
    features[row, 5] = value
    with pytest.raises(FeaturespaceError, match="the layers of x, layer layer, seed 0: a feature is NaN or infinite"):
        probed(features, labels, name="the layers of x")


def test_a_layer_too_wide_is_refused(monkeypatch):
    monkeypatch.setattr(layer_probes, "WIDEST", 16)
    features, labels = clusters(420, 20, 4)
    with pytest.raises(FeaturespaceError, match="layer layer: a probe of 20 features is out of reach"):
        probed(features, labels)


def test_silhouettes_of_points_that_have_none():
    points = np.random.default_rng(0).normal(size=(6, 2))
    assert np.isnan(silhouette(points, np.zeros(6)))
    assert np.isnan(silhouette(points, np.arange(6)))
    assert silhouette(points + 1e7, np.arange(6) % 2) == pytest.approx(silhouette(points, np.arange(6) % 2), abs=1e-7)


@pytest.mark.parametrize("limit", [1, 8 * (30**2 + 20**2), 10**9])
def test_groups_hold_every_layer_and_seed_once_and_fit(monkeypatch, limit):
    monkeypatch.setattr(layer_probes, "MOMENT_BYTES", limit)
    widths, seeds = {"a": 30, "b": 20, "c": 10, "d": 30}, [0, 1, 2]
    groups = list(cut(widths, seeds))
    assert sorted((seed, layer) for group, some in groups for seed in some for layer in group) == [
        (seed, layer) for seed in seeds for layer in widths
    ]
    for group, some in groups:
        assert 8 * len(some) * sum(w**2 for w in group.values()) <= limit or (len(some), len(group)) == (1, 1)
    assert len(groups) == {1: 12, 8 * (30**2 + 20**2): 6, 10**9: 1}[limit]


# --- runs -------------------------------------------------------------------------------------------------------------


def images_of(n_classes, seed, n=240, side=8, offset=0.4):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    patterns = rng.integers(0, 200, (n_classes, 1, side, side))
    pixels = (patterns[labels] + rng.integers(0, 56, (n, 1, side, side))).astype(np.uint8)
    dataset = made_dataset(None, labels, np.arange(n) % 4 == 0, n_classes, images=pixels)
    return PreparedDataset(**{**vars(dataset), "offset": offset, "scale": 0.3})


@pytest.fixture(scope="module")
def own():
    return images_of(3, 0)


@pytest.fixture(scope="module")
def other():
    return images_of(5, 1, n=200, offset=0.1)


def kept(model, dataset, folder, steps=STEPS, head=None):
    for s, seed in enumerate(SEEDS):
        for t, step in enumerate(steps):
            options = {} if head is None else {"head": head}
            network = build_network(model, dataset.input_shape, dataset.n_classes, 1, **options)
            initialise(network, "default", 1.0, [torch.Generator().manual_seed(10 * s + t)])
            write_tensors(folder / "kept" / step_file(seed, step), {k: v[0] for k, v in network.state_dict().items()})
    epochs = EPOCHS[: len(steps)]
    facts = {"recipe": "a-recipe", "seeds": SEEDS}
    facts |= {key: {str(seed): value for seed in SEEDS} for key, value in (("steps", steps), ("epochs", epochs))}
    publish(folder / "kept", folder / "weights", folder / "weights.json", facts)
    return KeptWeights(folder / "weights", folder / "weights.json")


@pytest.fixture(scope="module")
def mlp(own, tmp_path_factory):
    """Weights of a small network, kept once for all tests that only read them."""
    return kept(MODELS["mlp"], own, tmp_path_factory.mktemp("mlp"))


def spec_of(model, **changes):
    names = layer_names(model)
    return {
        "recipe": "a-recipe",
        "dataset": "own",
        "block": 1,
        "seeds": SEEDS,
        "model": model,
        "dtype": "float32",
        "threads": 1,
        "layers": names,
        "pooling": "average",
        "projection": None,
        "head": None,
        "feature_layer": names[-1],
        "targets": ["own", "other"],
        "regularisation": 1e-3,
        "silhouette_samples": 50,
    } | changes


def taps_by_hand(model, weights, seed, step, x):
    """Every tap of one seed's network, from its weights, in float64, convolutional ones averaged over space."""
    w = {name: tensor[0].double() for name, tensor in weights.read([seed], step).items()}
    h, taps = torch.from_numpy(x), {}
    if model["kind"] == "mlp":
        h = h.flatten(1)
        for i in (1, 2):
            h = F.linear(h, w[f"hidden{i}.weight"])
            h = F.batch_norm(h, *(w[f"norm{i}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")))
            taps[f"hidden{i}"] = h = h.relu()
        return {layer: tap.numpy() for layer, tap in taps.items()}
    for i in (1, 2):
        h = F.max_pool2d(F.conv2d(h, w[f"conv{i}.weight"], w[f"conv{i}.bias"], padding=1).relu(), 2)
        taps[f"conv{i}"] = h.mean((2, 3))
    taps["hidden"] = F.linear(h.flatten(1), w["hidden.weight"], w["hidden.bias"]).relu()
    return {layer: tap.numpy() for layer, tap in taps.items()}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_run_is_probed_at_both_ends_on_its_own_and_on_other_data(own, other, tmp_path, monkeypatch, model):
    monkeypatch.setattr(layer_probes, "DENSE_ROWS", 50)
    weights = kept(model, own, tmp_path)
    table = probe_run(spec_of(model), [own, other], weights, CPU)
    assert tuple(table.columns) == COLUMNS
    assert (table[["dataset", "recipe", "block"]] == ["own", "a-recipe", 1]).all(axis=None)
    names = layer_names(model)
    layers = [("own", "input"), *(("own", name) for name in names), ("other", "input"), ("other", names[-1])]
    expected = [
        (seed, step, epoch, *layer) for seed in SEEDS for step, epoch in ((0, 0.0), (9, 4.5)) for layer in layers
    ]
    assert list(table[["seed", "step", "epoch", "target", "layer"]].itertuples(index=False, name=None)) == expected
    assert list(table["depth"][: len(layers)]) == [0, *range(1, len(names) + 1), 0, len(names)]
    for row in table.itertuples():
        data = {"own": own, "other": other}[row.target]
        # what the networks know is the scale of their own data
        x = (data.images / 255 - own.offset) / own.scale
        taps = {"input": x.reshape(len(x), -1)} | taps_by_hand(model, weights, row.seed, row.step, x)
        train, test = data.split == 0, data.split == 1
        features, labels = taps[row.layer], data.labels
        scores = scores_by_lstsq(features[train], labels[train], features[test], data.n_classes, 1e-3)
        assert (row.n_train, row.n_test) == (train.sum(), test.sum())
        for found, part, own_scores in zip((row.train_accuracy, row.test_accuracy), (train, test), scores, strict=True):
            ordered = np.sort(own_scores, axis=1)
            assert (ordered[:, -1] - ordered[:, -2]).min() > 1e-5  # no tie that float32 would decide
            assert found == (own_scores.argmax(axis=1) == labels[part]).mean()
        chosen = np.flatnonzero(train)[spread_evenly(labels[train], 50)]
        apart = silhouette_samples(features[chosen], labels[chosen]).mean()
        assert row.silhouette == pytest.approx(apart, abs=1e-5)


def test_seeds_and_layers_apart_give_what_they_give_together(own, other, mlp, monkeypatch):
    together = probe_run(spec_of(MODELS["mlp"]), [own, other], mlp, CPU)
    monkeypatch.setattr(layer_probes, "MOMENT_BYTES", 1)
    apart = probe_run(spec_of(MODELS["mlp"]), [own, other], mlp, CPU)
    pd.testing.assert_frame_equal(together, apart, rtol=1e-6)


def test_an_untrained_run_has_one_step_and_only_dumped_layers_are_probed(own, other, tmp_path):
    weights = kept(MODELS["mlp"], own, tmp_path, steps=[0])
    table = probe_run(spec_of(MODELS["mlp"], layers=["hidden1"]), [own, other], weights, CPU)
    assert set(table["step"]) == {0}
    first = table[table["seed"] == SEEDS[0]]
    assert list(zip(first["target"], first["layer"], strict=True)) == [
        ("own", "input"),
        ("own", "hidden1"),
        ("other", "input"),
        ("other", "hidden2"),
    ]


def test_a_head_is_built_and_not_probed(own, tmp_path):
    head = {"layers": 2, "width": None}
    weights = kept(MODELS["mlp"], own, tmp_path, head=head)
    table = probe_run(spec_of(MODELS["mlp"], head=head, targets=["own"]), [own], weights, CPU)
    assert list(dict.fromkeys(table["layer"])) == ["input", "hidden1", "hidden2"]


def test_data_of_another_shape_is_refused_by_both_names(own, mlp):
    larger = images_of(3, 2, side=9)
    with pytest.raises(FeaturespaceError, match=r"see own \(1x8x8 pixels\), cannot be given other \(1x9x9 pixels\)"):
        probe_run(spec_of(MODELS["mlp"]), [own, larger], mlp, CPU)


def write_dataset(dataset, folder):
    variables = {
        "image": (("sample", "channel", "height", "width"), dataset.images),
        "label": ("sample", dataset.labels),
        "split": ("sample", dataset.split),
    }
    attributes = {key: getattr(dataset, key) for key in ("class_names", "offset", "scale", "sample_hash")}
    with store_draft(folder / "dataset.zarr") as draft:
        write_group(draft, "", xr.Dataset(variables, {"sample": dataset.sample_ids}, attributes))
    write_digest(folder / "dataset.zarr", folder / "dataset.json")


def test_the_script_writes_the_table(own, other, mlp, tmp_path):
    for name, dataset in (("own", own), ("other", other)):
        (tmp_path / name).mkdir()
        write_dataset(dataset, tmp_path / name)
    run_script(
        "probe_layers",
        spec_of(MODELS["mlp"]),
        in_weights=str(mlp.folder),
        in_weights_digest=str(mlp.folder.with_name("weights.json")),
        in_datasets=[str(tmp_path / name / "dataset.zarr") for name in ("own", "other")],
        in_dataset_digests=[str(tmp_path / name / "dataset.json") for name in ("own", "other")],
        out_table=str(tmp_path / "layer_probes.csv"),
    )
    expected = probe_run(spec_of(MODELS["mlp"]), [own, other], mlp, CPU)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "layer_probes.csv"), expected, check_exact=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_gpu_gives_what_the_cpu_gives(own, other, mlp):
    tables = [probe_run(spec_of(MODELS["mlp"]), [own, other], mlp, torch.device(d)) for d in ("cpu", "cuda")]
    pd.testing.assert_frame_equal(*tables, rtol=1e-5)
