"""The entries of P-vectors: signs, moments, densities and the ends of their order, and the script on stores."""

import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1]))
import reference
from synthetic_stores import N_SAMPLES, decompose, make_features, run_script

from featurespace import entries
from featurespace.entries import DENSITY_COLUMNS, EXTREMES_COLUMNS, SUMMARY_COLUMNS, Network
from featurespace.preparation import assemble
from featurespace.stores import FeatureStore, store_draft, write_digest, write_group

SAMPLES = {"sample_ids": np.arange(50) * 3, "labels": np.arange(50) % 2, "class_names": ["odd", "even"]}


def network_of(vectors: np.ndarray, centring: str = "raw") -> Network:
    """Take rows, (m, n), as the P-vectors of m steps."""
    vectors = np.asarray(vectors, dtype=float)
    if centring == "centred":
        vectors = vectors - vectors.mean(axis=1, keepdims=True)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    m = len(vectors)
    return Network("mlp", 1, np.arange(m) * 4, np.arange(m) * 0.5, vectors, np.arange(m) + 10.0)


def skewed(m: int = 3, n: int = 400, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, size=(m, n)) + 0.3


# --- signs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
def test_raw_vectors_have_a_positive_mean_and_centred_ones_a_positive_skewness(sign):
    # The skewness of the raw ones is negative: only their mean decides.
    raw = network_of(5 - skewed()).vectors
    np.testing.assert_array_equal(entries.turn(sign * raw, "raw"), raw)
    assert np.all(stats.skew(raw, axis=1) < 0)
    centred = network_of(skewed(), "centred").vectors
    np.testing.assert_array_equal(entries.turn(sign * centred, "centred"), centred)
    # A raw vector without a mean goes by its skewness too.
    np.testing.assert_array_equal(entries.turn(sign * centred, "raw"), centred)


def test_a_symmetric_centred_vector_stays_as_it_is():
    vectors = np.array([[-1.0, 1.0, -1.0, 1.0]]) / 2
    np.testing.assert_array_equal(entries.turn(vectors, "centred"), vectors)


# --- moments ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("centring", ["raw", "centred"])
def test_the_summary_matches_scipy(centring):
    network = network_of(-skewed(), centring)
    table = entries.summarise("digits", centring, network)
    assert list(table.columns) == SUMMARY_COLUMNS
    assert table["step"].tolist() == [0, 4, 8]
    turned = -network.vectors
    np.testing.assert_allclose(table["norm"], 1, rtol=1e-14)
    np.testing.assert_allclose(table["mean"], turned.mean(axis=1), atol=1e-16)
    np.testing.assert_allclose(table["sd"], turned.std(axis=1), rtol=1e-12)
    np.testing.assert_allclose(table["skewness"], stats.skew(turned, axis=1), rtol=1e-9)
    np.testing.assert_allclose(table["excess_kurtosis"], stats.kurtosis(turned, axis=1), rtol=1e-9)
    np.testing.assert_array_equal(table["share_negative"], (turned < 0).mean(axis=1))
    assert table["angle_to_mean_deg"].tolist() == [10.0, 11.0, 12.0]
    if centring == "raw":
        np.testing.assert_allclose(table["cv"], stats.variation(turned, axis=1), rtol=1e-12)
        np.testing.assert_allclose(np.tan(np.radians(table["angle_to_ones_deg"])), table["cv"], rtol=1e-12)
    else:
        assert table["cv"].isna().all()
        np.testing.assert_allclose(table["angle_to_ones_deg"], 90)


def test_equal_entries_have_no_shape():
    row = entries.summarise("digits", "raw", network_of(np.full((1, 37), -0.1))).iloc[0]
    assert row["mean"] == pytest.approx(1 / np.sqrt(37))
    assert row["cv"] == pytest.approx(0, abs=1e-14)
    assert row["share_negative"] == 0
    assert np.isnan(row["skewness"])
    assert np.isnan(row["excess_kurtosis"])


def test_a_missing_vector_leaves_an_empty_row():
    network = network_of(skewed())
    network.vectors[1] = np.nan
    table = entries.summarise("digits", "raw", network)
    numbers = table[SUMMARY_COLUMNS[6:]]
    assert numbers.loc[1].isna().all()
    assert numbers.loc[[0, 2]].notna().all(axis=None)


# --- densities --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (np.arange(11), [0, 3, 6, 10]),
        ([0, 0.25, 0.5, 1, 2, 3, 4, 5], [0, 3, 5, 7]),  # 1.5 lies between two
        ([0, 200], [0, 1]),
        ([0.0], [0]),
    ],
    ids=["even", "dense-start", "two-steps", "one-step"],
)
def test_the_nearest_steps_to_fractions_of_training(epochs, expected):
    assert entries.nearest_steps(np.asarray(epochs, dtype=float), [0, 0.3, 0.6, 1.0]) == expected


def test_densities_are_histograms_over_common_bins():
    network = network_of(-skewed(6))
    table = entries.tabulate_densities("digits", "raw", network, [0, 0.5, 1.0], 20)
    assert list(table.columns) == DENSITY_COLUMNS
    chosen = [0, 2, 5]
    assert table["step"].unique().tolist() == [4 * i for i in chosen]
    scaled = -np.sqrt(400) * network.vectors[chosen]
    edges = np.linspace(scaled.min(), scaled.max(), 21)
    for values, (_, part) in zip(scaled, table.groupby("step"), strict=True):
        np.testing.assert_allclose(part["bin_low"], edges[:-1], rtol=1e-12)
        np.testing.assert_allclose(part["bin_high"], edges[1:], rtol=1e-12)
        density, _ = np.histogram(values, part["bin_low"].tolist() + part["bin_high"].tolist()[-1:], density=True)
        np.testing.assert_allclose(part["density"], density, rtol=1e-12)
        assert part["count"].sum() == 400
        assert ((part["bin_high"] - part["bin_low"]) * part["density"]).sum() == pytest.approx(1)


def test_equal_entries_fall_into_one_bin_around_one():
    table = entries.tabulate_densities("digits", "raw", network_of(np.full((1, 37), -0.1)), [0, 1.0], 4)
    assert table["bin_low"].min() == pytest.approx(0.5)
    assert table["bin_high"].max() == pytest.approx(1.5)
    assert sorted(table["count"]) == [0, 0, 0, 37]


def test_steps_without_a_vector_have_no_density():
    network = network_of(skewed())
    network.vectors[0] = np.nan
    table = entries.tabulate_densities("digits", "raw", network, [0, 0.5, 1.0], 4)
    assert table["step"].unique().tolist() == [4, 8]
    network.vectors[:] = np.nan
    assert entries.tabulate_densities("digits", "raw", network, [0, 1.0], 4).empty


# --- the ends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("centring", ["raw", "centred"])
def test_extremes_are_the_outermost_samples_of_the_last_step(centring):
    network = network_of(-skewed(n=50), centring)
    table = entries.list_extremes("digits", centring, network, 4, **SAMPLES)
    assert list(table.columns) == EXTREMES_COLUMNS
    scaled = -np.sqrt(50) * network.vectors[-1]
    order = np.argsort(scaled)
    low, high = (table[table["end"] == end] for end in ("low", "high"))
    assert low["rank"].tolist() == high["rank"].tolist() == [1, 2, 3, 4]
    assert low["sample"].tolist() == (3 * order[:4]).tolist()
    assert high["sample"].tolist() == (3 * order[::-1][:4]).tolist()
    np.testing.assert_allclose(high["entry"], np.sort(scaled)[::-1][:4], rtol=1e-12)
    assert high["label"].tolist() == (order[::-1][:4] % 2).tolist()
    assert high["class_name"].tolist() == [("odd", "even")[label] for label in high["label"]]


def test_of_equal_entries_the_first_sample_is_outermost():
    values = np.ones(50)
    values[[7, 20]] = 2.0
    table = entries.list_extremes("digits", "raw", network_of(values[None]), 3, **SAMPLES)
    assert table.loc[table["end"] == "high", "sample"].tolist() == [21, 60, 0]
    assert table.loc[table["end"] == "low", "sample"].tolist() == [0, 3, 6]


def test_there_are_no_more_extremes_than_samples_and_none_without_a_vector():
    network = network_of(skewed(n=50))
    assert len(entries.list_extremes("digits", "raw", network, 80, **SAMPLES)) == 100
    network.vectors[-1] = np.nan
    assert entries.list_extremes("digits", "raw", network, 3, **SAMPLES).empty


# --- the script -------------------------------------------------------------------------------------------------


def make_dataset(folder: Path, images: np.ndarray) -> None:
    """Write a data set of which the sample set is the part with ids from 7 on."""
    n = len(images)
    labels, split = np.arange(n) % 3, np.zeros(n, np.int8)
    dataset = assemble("toy", images, labels, split, ["a", "b", "007"], 0.0, 1.0)
    folder.mkdir(parents=True)
    with store_draft(folder / "dataset.zarr") as draft:
        write_group(draft, "", dataset)
    write_digest(folder / "dataset.zarr", folder / "dataset.json")


def tabulate(tmp_path: Path, runs: list[tuple[str, str]], datasets: list[str]) -> None:
    run_script(
        "tabulate_entries",
        {
            "datasets": datasets,
            "fractions": [0, 0.3, 0.6, 1.0],
            "bins": 10,
            "extremes": 3,
            "recipes": [
                {"name": name, "dataset": dataset, "feature_layer": "hidden", "blocks": 1, "task": "classify"}
                for name, dataset in runs
            ],
        },
        in_runs=[str(tmp_path / name / "spectra.zarr") for name, _ in runs],
        in_run_digests=[str(tmp_path / name / "spectra.json") for name, _ in runs],
        in_data=[str(tmp_path / name / "spectra.zarr") for name in datasets],
        in_data_digests=[str(tmp_path / name / "spectra.json") for name in datasets],
        in_datasets=[str(tmp_path / "prepared" / name / "dataset.zarr") for name in datasets],
        in_dataset_digests=[str(tmp_path / "prepared" / name / "dataset.json") for name in datasets],
        out_summary=str(tmp_path / "entry_summary.csv"),
        out_entries=str(tmp_path / "entries.csv"),
        out_extremes=str(tmp_path / "extremes.csv"),
        out_images=str(tmp_path / "extreme_images.npz"),
    )


def test_tabulate_entries_from_stores_to_tables(tmp_path, monkeypatch):
    monkeypatch.setattr("featurespace.script._die_with_snakemake", lambda: None)
    monkeypatch.setattr("featurespace.script._start_logging", lambda log: None)
    images = np.random.default_rng(0).integers(0, 256, (N_SAMPLES + 7, 1, 4, 4)).astype(np.uint8)
    make_dataset(tmp_path / "prepared" / "pictures", images)
    make_dataset(tmp_path / "prepared" / "values", np.ones((N_SAMPLES + 7, 5)))
    for name, layers, n_seeds, n_steps in (
        ("mlp", {"hidden": 5}, 2, 3),
        ("untrained", {"hidden": 6}, 1, 1),
        ("pictures", {"input": 16}, 1, 1),
        ("values", {"input": 5}, 1, 1),
    ):
        make_features(tmp_path / name, name, layers, n_seeds=n_seeds, n_steps=n_steps)
        decompose(tmp_path / name)
    tabulate(tmp_path, [("mlp", "pictures"), ("untrained", "values")], ["pictures", "values"])

    summary = pd.read_csv(tmp_path / "entry_summary.csv")
    assert list(summary.columns) == SUMMARY_COLUMNS
    assert summary.groupby(["dataset", "recipe"], sort=False).size().to_dict() == {
        ("pictures", "mlp"): 2 * 2 * 3,
        ("pictures", "data"): 2,
        ("values", "untrained"): 2,
        ("values", "data"): 2,
    }
    dead = summary["recipe"].eq("mlp") & summary["step"].eq(0)
    assert summary.loc[dead, SUMMARY_COLUMNS[6:]].isna().all(axis=None)
    assert summary.loc[~dead, "angle_to_mean_deg"].notna().all()
    features = FeatureStore.open(tmp_path / "mlp" / "features.zarr").matrix("hidden", 1, 2).astype(np.float64)
    keys = ["dataset", "centring", "recipe", "seed", "step"]
    row = summary.set_index(keys).loc[("pictures", "raw", "mlp", 1, 10)]
    p = reference.svd(features, "raw")[0][:, 0]
    assert row["angle_to_mean_deg"] == pytest.approx(reference.angle_deg(p, features @ features.mean(axis=0)), rel=1e-7)
    assert row["cv"] == pytest.approx(p.std() / abs(p.mean()), rel=1e-9)

    densities = pd.read_csv(tmp_path / "entries.csv")
    assert list(densities.columns) == DENSITY_COLUMNS
    assert (densities.groupby([*keys])["count"].sum() == N_SAMPLES).all()
    assert densities.groupby(["dataset", "centring", "recipe", "seed"])["bin_low"].nunique().eq(10).all()

    extremes = pd.read_csv(tmp_path / "extremes.csv", dtype={"class_name": str})
    assert list(extremes.columns) == EXTREMES_COLUMNS
    assert len(extremes) == 2 * 2 * 2 * 2 * 3
    assert set(extremes["seed"]) == {0}
    assert (extremes["label"] == (extremes["sample"] - 7) % 3).all()
    assert set(extremes["class_name"]) <= {"a", "b", "007"}

    with np.load(tmp_path / "extreme_images.npz") as archive:
        shown = extremes.loc[extremes["dataset"] == "pictures", "sample"].unique()
        assert set(archive.files) == {f"pictures/s{sample}" for sample in shown}
        for sample in shown:
            assert archive[f"pictures/s{sample}"].dtype == np.uint8
            np.testing.assert_array_equal(archive[f"pictures/s{sample}"], images[sample])

    # A time of writing would show only once the clock has moved on.
    with zipfile.ZipFile(tmp_path / "extreme_images.npz") as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    names = ("entry_summary.csv", "entries.csv", "extremes.csv", "extreme_images.npz")
    before = {name: (tmp_path / name).read_bytes() for name in names}
    tabulate(tmp_path, [("mlp", "pictures"), ("untrained", "values")], ["pictures", "values"])
    assert {name: (tmp_path / name).read_bytes() for name in names} == before
    assert not list(tmp_path.glob(".*"))


def test_without_images_the_archive_is_empty(tmp_path, monkeypatch):
    monkeypatch.setattr("featurespace.script._die_with_snakemake", lambda: None)
    monkeypatch.setattr("featurespace.script._start_logging", lambda log: None)
    make_dataset(tmp_path / "prepared" / "values", np.ones((N_SAMPLES + 7, 5)))
    make_features(tmp_path / "values", "values", {"input": 5})
    decompose(tmp_path / "values")
    tabulate(tmp_path, [], ["values"])
    with np.load(tmp_path / "extreme_images.npz") as archive:
        assert archive.files == []
    assert set(pd.read_csv(tmp_path / "extremes.csv")["recipe"]) == {"data"}
