"""Features that leave little to measure, and training that breaks down: a defined result, or one clear error."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from featurespace.angles import draw_permutations
from featurespace.comparison import Endpoint, Trajectory, compare_dynamics, compare_pairs
from featurespace.config import parse_study
from featurespace.datasets import PreparedDataset
from featurespace.embedding import embed
from featurespace.errors import FeaturespaceError
from featurespace.measures import LayerMeasures, measure
from featurespace.plan import Plan
from featurespace.probe import probe
from featurespace.sensitivity import leading_vectors
from featurespace.similarity import MEASURES, Reduced, measure_pair, reduce_features
from featurespace.spectra import Rows, Spectra, decompose
from featurespace.subspaces import subspace_angles_deg
from featurespace.training import train_block

K = 4  # vectors that are asked for
DEFINED = "a defined result"
RAW, CENTRED = 0, 1


def orthonormal_columns(n: int, k: int, seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n, k)))[0]


def with_singular_values(values: list[float], n: int = 40, d: int = 7) -> np.ndarray:
    """Make centred features, (n, d), of given singular values."""
    left = np.linalg.qr(np.column_stack([np.ones(n), orthonormal_columns(n, len(values))]))[0][:, 1:]
    return (left * values) @ orthonormal_columns(d, len(values), seed=1).T


def ordinary(n: int) -> np.ndarray:
    """Make features as any others, (n, 5)."""
    return np.random.default_rng(5).normal(size=(n, 5)).astype(np.float32)


DEGENERATE: dict[str, np.ndarray] = {
    "a dead layer": np.zeros((40, 7), np.float32),
    "constant features": np.full((40, 7), 2.5, np.float32),
    "one sample": np.array([[3.0, 4.0, 0.0]], np.float32),
    "fewer samples than components": np.random.default_rng(2).normal(size=(3, 7)).astype(np.float32),
    "fewer features than components": np.random.default_rng(3).normal(size=(40, 2)).astype(np.float32),
    "duplicate singular values": with_singular_values([5.0, 5.0, 2.0, 2.0, 2.0, 1.0]),
    "all singular values alike": with_singular_values([3.0] * 7),
    "duplicate samples": np.repeat(np.random.default_rng(4).normal(size=(2, 7)), 20, axis=0).astype(np.float32),
    "values at the end of float32": np.where(with_singular_values([1.0] * 7) > 0, 3e38, -3e38).astype(np.float32),
    "values below the normal float32": (1e-42 * np.random.default_rng(6).integers(1, 9, (40, 7))).astype(np.float32),
}
# How many vectors there are, of the K that are asked for: raw, and centred.
N_VECTORS = {
    "a dead layer": (0, 0),
    "constant features": (1, 0),
    "one sample": (1, 0),
    "fewer samples than components": (3, 2),
    "fewer features than components": (2, 2),
    "duplicate singular values": (4, 4),
    "all singular values alike": (4, 4),
    "duplicate samples": (2, 1),
    "values at the end of float32": (4, 4),
    "values below the normal float32": (4, 4),
}
# Where the first vector is one of several that are as good, by centring.
UNDETERMINED = {
    "a dead layer": (True, True),
    "constant features": (False, True),
    "one sample": (False, True),
    "duplicate singular values": (True, True),
    "all singular values alike": (True, True),
}


def spectra_of(features: np.ndarray, whole: bool = True) -> Spectra:
    return decompose(Rows.of(features, block_rows=16), vectors=K, whole=whole)


@pytest.mark.parametrize("fault", DEGENERATE)
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "leading"])
def test_spectra(fault, whole, record_fault):
    features = DEGENERATE[fault]
    found = spectra_of(features, whole)
    n = len(features)
    for c, matrix in ((RAW, features.astype(float)), (CENTRED, features - features.mean(0, dtype=float))):
        values = np.linalg.svd(matrix, compute_uv=False)
        got = found.singular_values[c]
        assert len(got) == min(*features.shape, *([] if whole else [K]))
        np.testing.assert_allclose(
            got, values[: len(got)], rtol=1e-8, atol=2e-8 * np.linalg.norm(features.astype(float), 2)
        )
        n_vectors = N_VECTORS[fault][c]
        exists = np.isfinite(found.left_vectors[c]).all(axis=1)
        assert exists.tolist() == [i < n_vectors for i in range(K)]
        assert np.isnan(found.left_vectors[c, n_vectors:]).all()
        assert np.isfinite(found.right_vectors[c]).all(axis=1).tolist() == exists.tolist()
        assert (np.isfinite(found.residual[c]) == exists).all()
        vectors = found.left_vectors[c, :n_vectors]
        np.testing.assert_allclose(vectors @ vectors.T, np.eye(n_vectors), atol=1e-8)
        # each is a singular vector of its value, whichever of those of an equal value it is
        np.testing.assert_allclose(
            np.linalg.norm(matrix.T @ vectors.T, axis=0), values[:n_vectors], rtol=1e-7, atol=1e-9 * max(values)
        )
        assert np.isfinite(found.relative_gap[c]).all()
        assert (found.relative_gap[c, 0] < 1e-6) == UNDETERMINED.get(fault, (False, False))[c]
        assert np.isnan(found.angle_to_mean_deg[c]) or 0 <= found.angle_to_mean_deg[c] <= 90
    assert found.left_vectors.shape == (2, K, n)
    record_fault("spectra", fault, f"{DEFINED}: no vector where there is none, no gap where it is one of several")


@pytest.mark.parametrize("fault", DEGENERATE)
def test_angles_and_their_tables(fault, record_fault):
    features = DEGENERATE[fault]
    n = len(features)
    permutations = draw_permutations(n, 19, 0)
    spectra, other = spectra_of(features), spectra_of(ordinary(n))
    networks = [
        Endpoint(recipe, 0, of.left_vectors[:, 0], of.relative_gap[:, 0], lambda c, of=of: of.left_vectors[c])
        for recipe, of in (("odd", spectra), ("ordinary", other))
    ]
    path = Trajectory(
        "odd", "hidden1", 0, np.arange(1), np.zeros(1), spectra.left_vectors[:, :1], spectra.relative_gap[:, :1]
    )
    dynamics = compare_dynamics("toy", [path], networks, permutations)
    pairs = compare_pairs("toy", "last", networks, permutations)
    assert len(dynamics) == 4  # two centrings, against its own last step and the other network
    assert len(pairs) == 2
    for c, centring in enumerate(("raw", "centred")):
        exists = N_VECTORS[fault][c] > 0
        own = dynamics[(dynamics["centring"] == centring) & (dynamics["reference"] == "own")].iloc[0]
        pair = pairs[pairs["centring"] == centring].iloc[0]
        both = exists and (n > 1 or centring == "raw")
        assert own["angle_deg"] == 0 if exists else math.isnan(own["angle_deg"])
        assert bool(own["determined"]) == (not UNDETERMINED.get(fault, (False, False))[c])
        assert math.isfinite(pair["angle_deg"]) == both
        assert not both or 0 <= pair["angle_deg"] <= 90
        assert not both or 0 < pair["p_value"] <= 1
        assert both or pair.loc["angle_deg":"p_value"].isna().all()
        assert both or not pair["determined"]
        complete = min(N_VECTORS[fault][c], np.isfinite(other.left_vectors[c]).all(axis=1).sum())
        assert math.isfinite(pair["principal_angle_max_deg"]) == (complete == K)
        found = subspace_angles_deg(spectra.left_vectors[c], other.left_vectors[c], range(1, K + 1))
        assert np.isfinite(found).all(axis=1).tolist() == [k <= complete for k in range(1, K + 1)]
        assert np.isnan(found[complete:]).all()
    record_fault("angles", fault, f"{DEFINED}: missing where there is no vector, and said where it is not determined")


def test_of_duplicate_singular_values_the_span_is_what_is_compared(record_fault):
    features = with_singular_values([5.0, 5.0, 2.0])
    turned = features @ orthonormal_columns(7, 7, seed=3)  # other axes: the same samples in the same places
    a, b = (spectra_of(matrix).left_vectors[RAW] for matrix in (features, turned))
    # any two of the plane of the first two are right, and they need not be the same
    np.testing.assert_allclose(subspace_angles_deg(a, b, [2, 3])[:, 2], 0, atol=1e-5)
    assert spectra_of(turned).relative_gap[RAW, 0] < 1e-12
    assert spectra_of(turned).relative_gap[RAW, 1] == pytest.approx(0.6)
    record_fault("angles", "duplicate singular values, in two runs", "the spans agree; the vectors are said not to")


NO_CLASSES = ("compression", "nc1", "nc2_equinorm", "nc2_equiangular")


@pytest.mark.parametrize("labels", ["three classes", "a single class", "a class for each sample"])
@pytest.mark.parametrize("fault", DEGENERATE)
def test_measures_of_layers(fault, labels, record_fault):
    features = DEGENERATE[fault]
    n = len(features)
    classes = {"three classes": np.arange(n) % 3, "a single class": np.zeros(n, int)}.get(labels, np.arange(n))
    found: LayerMeasures = measure(Rows.of(features, block_rows=16), classes)
    scale = float(np.linalg.norm(features.astype(float)))
    assert found.frobenius_norm == pytest.approx(scale, rel=1e-12)
    means = np.array([features[classes == k].mean(0, dtype=float) for k in np.unique(classes)])
    within = sum(((features[classes == k] - m) ** 2).sum() for k, m in zip(np.unique(classes), means, strict=True)) / n
    between = ((means - features.mean(0, dtype=float)) ** 2).sum() / len(means) if len(means) > 1 else 0.0
    tolerance = 1e-13 * scale**2
    assert found.within_trace == pytest.approx(within, rel=1e-9, abs=tolerance)
    if labels != "three classes":  # whose overall mean is that of the samples only where classes are of one size
        assert found.between_trace == pytest.approx(between, rel=1e-9, abs=tolerance)
    if found.between_trace == 0:
        assert all(math.isnan(getattr(found, name)) for name in NO_CLASSES[1:])
        assert math.isinf(found.compression) if found.within_trace > 0 else math.isnan(found.compression)
        assert not found.reliable
    else:
        # two points, and one class has as many of either: a class mean that is the overall mean has no angle
        has_angles = (fault, labels) != ("duplicate samples", "three classes")
        assert all(math.isfinite(getattr(found, name)) for name in NO_CLASSES[:-1])
        assert math.isfinite(found.nc2_equiangular) == has_angles
    assert math.isnan(found.discrimination) == ((np.linalg.norm(means, axis=1) > 0).sum() < 2)
    assert 0 <= found.numerical_rank <= min(features.shape)
    assert (found.numerical_rank == 0) == (fault == "a dead layer")
    record_fault("measures of layers", fault, f"{DEFINED}: missing where nothing is to be measured")


@pytest.mark.parametrize("fault", DEGENERATE)
def test_similarity(fault, record_fault):
    features = DEGENERATE[fault]
    a, b = reduce_features(features), reduce_features(ordinary(len(features)))
    assert isinstance(a, Reduced)
    for x, y in ((a, b), (b, a), (a, a)):
        found = measure_pair(x, y, math.nan, math.nan)
        assert set(found) == set(MEASURES)
        if N_VECTORS[fault][CENTRED] == 0:  # nothing varies
            assert all(math.isnan(found[name]) for name in ("cka", "svcca", "procrustes", "cosine_centred"))
        else:
            assert 0 <= found["cka"] <= 1 + 1e-12
            assert 0 <= found["svcca"] <= 1
            assert 0 <= found["procrustes"] <= 2
        assert math.isfinite(found["cosine_raw"]) == (N_VECTORS[fault][RAW] > 0)
    assert np.isfinite(leading_vectors(features)).all(axis=1).tolist() == [n > 0 for n in N_VECTORS[fault]]
    record_fault("similarity", fault, f"{DEFINED}: missing where nothing varies")


@pytest.mark.parametrize("fault", ["a dead layer", "constant features", "one sample", "duplicate samples"])
def test_probes_and_maps(fault, record_fault):
    features = DEGENERATE[fault]
    n = len(features)
    labels = np.arange(n) % 3
    train, test = probe(features, labels, features, labels, 1.0)
    if n == 1:
        assert math.isnan(train)
        assert math.isnan(test)
    else:
        assert 1 / 3 <= train == test < 0.5  # as good as guessing, or nearly
    alone = probe(features, np.zeros(n, int), features, labels, 1.0)
    assert all(math.isnan(share) for share in alone)
    nothing = probe(features, labels, features[:0], labels[:0], 1.0)
    assert math.isnan(nothing[1])
    if fault != "duplicate samples":
        assert not embed(features, neighbours=5, min_dist=0.1, seed=0).any()
    record_fault("probes and maps", fault, f"{DEFINED}: as good as guessing, one point")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_features_that_are_not_finite_are_named(value, record_fault):
    features = ordinary(40)
    features[23, 2] = value
    rows = Rows.of(features, block_rows=16, name="features.zarr, layer hidden1, seed 0, step 7")
    message = "features.zarr, layer hidden1, seed 0, step 7: sample 23 has a feature that is NaN or infinite"
    for whole in (True, False):
        with pytest.raises(FeaturespaceError, match=message):
            decompose(rows, vectors=K, whole=whole)
    with pytest.raises(FeaturespaceError, match=message):
        measure(rows, np.arange(40) % 3)
    record_fault("spectra, measures of layers", "a feature that is not finite", "one line: layer, seed, step, sample")


# --- training ---------------------------------------------------------------------------------------------------


def dataset_of(images: np.ndarray, labels: np.ndarray, n_train: int, n_classes: int) -> PreparedDataset:
    return PreparedDataset(
        images=images,
        labels=labels,
        split=(np.arange(len(labels)) >= n_train).astype(np.int8),
        sample_ids=np.arange(len(labels)),
        class_names=[str(k) for k in range(n_classes)],
        offset=0.5,
        scale=0.5,
        sample_hash="",
    )


def training(**changes: Any) -> dict[str, Any]:
    """Return what the rule `train_run` is given for a small network."""
    recipe: dict[str, Any] = {
        "dataset": "digits",
        "model": {"kind": "mlp", "widths": [8, 6]},
        "optimiser": {"kind": "sgd", "learning_rate": 0.1},
        "schedule": {"epochs": 2},
        "seeds": 2,
        "block": 2,
    }
    study = {"study": "odd", "datasets": {"digits": {"kind": "digits"}}, "recipes": {"odd": recipe | changes}}
    return Plan(parse_study(study, "study.yaml")).train_run("odd", 0)


IMAGES = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8)).astype(np.uint8)
LABELS = np.arange(40) % 3


@pytest.mark.parametrize(
    "changes",
    [
        {"optimiser": {"kind": "sgd", "learning_rate": 1e30}},
        {"loss": "mse", "optimiser": {"kind": "sgd", "learning_rate": 1e4}, "schedule": {"epochs": 60}},
        {"output_scale": 1e38, "loss": "mse"},
    ],
    ids=["first updates", "later", "at the initialisation"],
)
def test_a_loss_that_is_not_finite_ends_the_run_by_name(tmp_path, changes, record_fault):
    with pytest.raises(FeaturespaceError) as caught:
        train_block(training(**changes), dataset_of(IMAGES, LABELS, 30, 3), torch.device("cpu"), tmp_path)
    message = str(caught.value)
    assert "recipe 'odd', seed 0, is not finite at step " in message
    assert "lower its optimiser.learning_rate" in message
    record_fault("training", "a loss that is not finite", "one line: recipe, seed, step, epoch, and what to lower")


ODD_DATA: dict[str, PreparedDataset] = {
    "one sample": dataset_of(IMAGES[:1], LABELS[:1], 1, 3),
    "constant features": dataset_of(np.full_like(IMAGES, 7), LABELS, 30, 3),
    "a single class": dataset_of(IMAGES, np.zeros_like(LABELS), 30, 3),
    "a dead layer": dataset_of(IMAGES, LABELS, 30, 3),
}


@pytest.mark.parametrize("fault", ODD_DATA)
def test_training_on_little_ends_with_finite_numbers(tmp_path, fault, record_fault):
    dataset = ODD_DATA[fault]
    changes = {"init": {"scheme": "orthogonal", "scale": 1e-30}} if fault == "a dead layer" else {}
    found = train_block(training(**changes), dataset, torch.device("cpu"), tmp_path)
    assert len(found.history) == 2 * len(found.facts["steps"]["0"])
    for row in found.history:
        assert math.isfinite(row["train_loss"])
        assert 0 <= row["train_accuracy"] <= 1
        assert math.isnan(row["test_loss"]) == (fault == "one sample")  # there is nothing to test on
    if fault in ("a single class", "one sample"):
        assert found.history[-1]["train_loss"] < found.history[0]["train_loss"]
    record_fault("training", fault, f"{DEFINED}: finite losses, and weights")


def test_batch_normalisation_of_a_single_sample_is_refused_by_name(tmp_path, record_fault):
    spec = training(model={"kind": "mlp", "widths": [8], "batch_norm": True})
    with pytest.raises(FeaturespaceError, match=r"schedule\.batch_size: recipe 'odd' normalises batches of one sample"):
        train_block(spec, ODD_DATA["one sample"], torch.device("cpu"), tmp_path)
    record_fault("training", "batch normalisation of one sample", "one line: recipe, and the key to change")


def test_every_degenerate_case_is_another_matrix():
    assert len({matrix.tobytes() for matrix in DEGENERATE.values()}) == len(DEGENERATE)
    assert {field.name for field in dataclasses.fields(LayerMeasures)} >= set(NO_CLASSES)
