"""Maps of layers: the same twice, classes that are apart stay apart, and samples that are one point have none."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.datasets import load_digits
from sklearn.metrics import silhouette_score
from synthetic_stores import run_script

from featurespace import embedding
from featurespace.datasets import spread_evenly
from featurespace.errors import FeaturespaceError
from featurespace.stores import FeatureStore, FeatureWriter, sample_hash, store_draft, write_digest, write_group

SPEC = {"depths": [1, 2, 4], "samples": 120, "neighbours": 10, "min_dist": 0.1, "seed": 3}
NAMES = [f"digit {k}" for k in range(10)]


def write_features(folder, layers, labels, last_step=True):
    """Write {layer: (n, d)} as a store of two seeds and two steps; only the first seed's last step is theirs."""
    noise = np.random.default_rng(0)
    with store_draft(folder / "features.zarr") as draft:
        writer = FeatureWriter(
            draft,
            layers={layer: matrix.shape[1] for layer, matrix in layers.items()},
            seeds=[4, 5],
            steps=[0, 30],
            epochs=[0.0, 1.5],
            sample_ids=np.arange(len(labels)) * 2,
            labels=labels,
            attrs={
                "dataset": "digits",
                "recipe": "mlp",
                "block": 0,
                "depths": {layer: i + 1 for i, layer in enumerate(layers)},
                "made_by": {},
            },
        )
        for layer, matrix in layers.items():
            for i in range(2):
                for j in range(2):
                    own = matrix if (i, j) == (0, 1) else noise.normal(size=matrix.shape)
                    writer.write(layer, i, j, 0, own.astype(np.float32))
    write_digest(folder / "features.zarr", folder / "features.json")
    return FeatureStore.open(folder / "features.zarr", folder / "features.json")


def stand_in(features, **settings):
    """Map samples to their first two features: all but UMAP."""
    return features[:, :2].astype(np.float32)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    pixels, labels = load_digits(return_X_y=True)
    layers = {"hidden1": pixels[:400], "hidden2": pixels[:400] ** 2, "hidden3": pixels[:400, :32]}
    return write_features(tmp_path_factory.mktemp("store"), layers, labels[:400])


def test_a_table_holds_a_row_a_layer_and_sample(store, monkeypatch):
    monkeypatch.setattr(embedding, "embed", stand_in)
    table = embedding.embed_layers(store, NAMES, SPEC)
    assert tuple(table.columns) == embedding.COLUMNS
    rows = spread_evenly(store.labels, 120)
    # there is no layer 4, and nobody asked for layer 3
    assert list(table.groupby("layer", sort=False).size().items()) == [("hidden1", 120), ("hidden2", 120)]
    assert (table[["dataset", "recipe", "block", "seed", "step", "epoch"]] == ["digits", "mlp", 0, 4, 30, 1.5]).all(
        axis=None
    )
    for depth, (layer, part) in enumerate(table.groupby("layer", sort=False), start=1):
        features = store.matrix(layer, 0, 1)[rows]
        assert (part["depth"] == depth).all()
        np.testing.assert_array_equal(part["sample"], store.sample_ids[rows])
        np.testing.assert_array_equal(part["label"], store.labels[rows])
        assert list(part["class_name"]) == [NAMES[label] for label in store.labels[rows]]
        np.testing.assert_array_equal(part[["x", "y"]], features[:, :2])
        for column, points in (("silhouette", features), ("silhouette_2d", features[:, :2])):
            assert part[column].nunique() == 1
            expected = silhouette_score(points.astype(float), store.labels[rows])
            assert part[column].iloc[0] == pytest.approx(expected, abs=1e-9)


def test_a_network_without_the_asked_depths_gives_an_empty_table(store):
    table = embedding.embed_layers(store, NAMES, SPEC | {"depths": [7]})
    assert tuple(table.columns) == embedding.COLUMNS and table.empty


@pytest.mark.parametrize("value", [0.0, 1234.5])
def test_a_dead_layer_is_one_point_and_says_so(tmp_path, caplog, value):
    dead = write_features(tmp_path, {"hidden1": np.full((60, 8), value)}, np.arange(60) % 3)
    table = embedding.embed_layers(dead, NAMES, SPEC)
    assert (table[["x", "y"]] == 0).all(axis=None)
    assert (table[["silhouette", "silhouette_2d"]] == 0).all(axis=None)
    assert "hidden1: all samples are one point" in caplog.text


def test_a_layer_that_rounding_alone_spreads_is_one_point_and_says_so(tmp_path, caplog):
    value = np.float32(1234.5)
    choice = np.random.default_rng(0).random((60, 8)) < 0.5
    dead = write_features(
        tmp_path, {"hidden1": np.where(choice, np.nextafter(value, np.inf), value)}, np.arange(60) % 3
    )
    table = embedding.embed_layers(dead, NAMES, SPEC)
    assert (table[["x", "y"]] == 0).all(axis=None)
    assert "hidden1: all samples are one point" in caplog.text


@pytest.mark.parametrize("n", [1, 2, 3])
def test_fewer_than_four_samples_have_no_map(n):
    points = embedding.embed(np.random.default_rng(0).normal(size=(n, 5)), neighbours=15, min_dist=0.1, seed=0)
    assert points.shape == (n, 2) and (points == 0).all()


def test_a_feature_that_is_not_finite_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "embed", stand_in)
    matrix = np.ones((60, 8))
    matrix[7, 3] = np.nan
    diverged = write_features(tmp_path, {"hidden1": matrix}, np.arange(60) % 3)
    with pytest.raises(FeaturespaceError, match="layer hidden1, seed 4, step 30: a feature is NaN"):
        embedding.embed_layers(diverged, NAMES, SPEC)


def test_importing_the_module_does_not_import_umap():
    code = "import sys, featurespace.embedding; sys.exit('umap' in sys.modules or 'numba' in sys.modules)"
    folder = Path(embedding.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=folder, check=False).returncode == 0


def test_the_script_maps_digits_the_same_twice_and_silently(store, tmp_path, caplog, capfd):
    """UMAP itself: its compilation takes seconds, so that this one test holds all that needs it."""
    pixels, labels = load_digits(return_X_y=True)
    variables = {"value": (("sample", "feature"), pixels), "label": ("sample", labels)}
    ids = np.arange(len(labels))
    attributes = {"class_names": NAMES, "offset": 0.0, "scale": 1.0, "sample_hash": sample_hash(ids)}
    with store_draft(tmp_path / "dataset.zarr") as draft:
        write_group(draft, "", xr.Dataset(variables, {"sample": ids}, attributes))
    write_digest(tmp_path / "dataset.zarr", tmp_path / "dataset.json")
    contents = []
    for i in range(2):
        run_script(
            "embed_layers",
            SPEC | {"depths": [1], "samples": 300},
            in_store=str(store.path),
            in_digest=str(store.path.with_name("features.json")),
            in_dataset=str(tmp_path / "dataset.zarr"),
            in_dataset_digest=str(tmp_path / "dataset.json"),
            out_table=str(tmp_path / f"{i}.csv"),
        )
        contents.append((tmp_path / f"{i}.csv").read_bytes())
    assert contents[0] == contents[1]
    said = capfd.readouterr()
    assert said.out == ""
    assert all("mapping layers of mlp" in line for line in said.err.strip().splitlines())
    table = pd.read_csv(tmp_path / "0.csv")
    assert len(table) == 300
    assert table["class_name"].eq("digit " + table["label"].astype(str)).all()
    # digits are known to come apart on such a map, further than in their pixels
    assert table["silhouette_2d"][0] > 0.4 > table["silhouette"][0] > 0.05
    for n in (4, 8):
        few = embedding.embed(store.matrix("hidden1", 0, 1)[:n], neighbours=15, min_dist=0.1, seed=0)
        assert few.shape == (n, 2) and np.isfinite(few).all() and few.any()
    # what is said of the map itself is not kept back
    apart = np.random.default_rng(0).normal(size=(120, 6)) + 1e3 * (np.arange(120) % 6)[:, None]
    with pytest.warns(UserWarning, match="not fully connected"):
        embedding.embed(apart, neighbours=5, min_dist=0.1, seed=0)
