"""Features that no network made: drawn as they should be, and written to both stores of a run."""

import numpy as np
import pytest
import xarray as xr
from synthetic_stores import run_script

from featurespace import noise
from featurespace.stores import FeatureStore, sample_hash, store_draft, write_digest, write_group

N_SAMPLES = 120


def draw(seed=0, recipe="noise", n_rows=4000, width=6, rectified=False):
    return noise.draw_rows(noise.noise_generator(seed, recipe), n_rows, width, rectified)


def test_noise_is_standard_normal_and_independent():
    rows = draw().astype(np.float64)
    assert rows.mean(axis=0) == pytest.approx(np.zeros(6), abs=4 / np.sqrt(4000))
    np.testing.assert_allclose(np.cov(rows.T), np.eye(6), atol=0.08)
    assert np.mean(np.abs(rows) > 1.959964) == pytest.approx(0.05, abs=0.006)


def test_rectified_noise_is_the_same_numbers_without_the_negative_ones():
    np.testing.assert_array_equal(draw(rectified=True), np.maximum(draw(), 0))


@pytest.mark.parametrize("other", [{"seed": 1}, {"recipe": "noise2"}], ids=["seed", "recipe"])
def test_seeds_and_recipes_share_nothing(other):
    r = np.corrcoef(draw().ravel(), draw(**other).ravel())[0, 1]
    assert abs(r) < 4 / np.sqrt(24000)


def test_rows_do_not_depend_on_how_many_come_at_once():
    generator = noise.noise_generator(0, "noise")
    pieces = [noise.draw_rows(generator, n, 7, False) for n in (1, 3, 10, 6)]
    np.testing.assert_array_equal(np.concatenate(pieces), draw(n_rows=50, width=7)[:20])


@pytest.mark.parametrize("rectified", [False, True], ids=["gaussian", "rectified"])
@pytest.mark.parametrize("held_out", [None, 8], ids=["all-held-out", "eight-held-out"])
def test_the_script_writes_both_stores(tmp_path, rectified, held_out):
    ids = np.arange(N_SAMPLES) * 2 + 1
    split = (np.arange(N_SAMPLES) % 3 == 0).astype(np.int8)
    dataset = xr.Dataset(
        {
            "value": (("sample", "feature"), np.zeros((N_SAMPLES, 2))),
            "label": ("sample", np.arange(N_SAMPLES) % 4),
            "split": ("sample", split),
        },
        {"sample": ids},
        {"class_names": list("abcd"), "offset": 0.0, "scale": 1.0, "sample_hash": sample_hash(ids)},
    )
    with store_draft(tmp_path / "dataset.zarr") as draft:
        write_group(draft, "", dataset)
    write_digest(tmp_path / "dataset.zarr", tmp_path / "dataset.json")
    spec = {
        "recipe": "noise",
        "block": 2,
        "dataset": "zeros",
        "seeds": [4, 5],
        "model": {"kind": "noise", "width": 5, "rectified": rectified},
        "layers": ["noise"],
        "sample_set": {"split": "train", "limit": 40},
        "held_out": held_out,
        "threads": 1,
    }
    run_script(
        "draw_noise",
        spec,
        in_dataset=str(tmp_path / "dataset.zarr"),
        in_dataset_digest=str(tmp_path / "dataset.json"),
        out_store=str(tmp_path / "features.zarr"),
        out_digest=str(tmp_path / "features.json"),
        out_ends=str(tmp_path / "ends.zarr"),
        out_ends_digest=str(tmp_path / "ends.json"),
    )
    features = FeatureStore.open(tmp_path / "features.zarr", tmp_path / "features.json")
    ends = FeatureStore.open(tmp_path / "ends.zarr", tmp_path / "ends.json")
    for store in (features, ends):
        assert (store.layers, list(store.seeds), list(store.steps), list(store.epochs)) == (
            ("noise",),
            [4, 5],
            [0],
            [0],
        )
        assert store.attrs["depths"] == {"noise": 1}
        assert (store.attrs["recipe"], store.attrs["dataset"], store.attrs["block"]) == ("noise", "zeros", 2)
    assert features.n_samples == ends.attrs["n_sample_set"] == 40
    assert ends.n_samples == 40 + (held_out or 40)
    assert ends.attrs["sample_set_hash"] == features.sample_hash
    assert set(features.sample_ids) <= set(ids[split == 0])
    assert set(ends.sample_ids[40:]) <= set(ids[split == 1])
    np.testing.assert_array_equal(ends.labels, (ends.sample_ids - 1) // 2 % 4)
    for i, seed in enumerate((4, 5)):
        expected = draw(seed=seed, n_rows=ends.n_samples, width=5, rectified=rectified)
        np.testing.assert_array_equal(ends.matrix("noise", i, 0), expected)
        np.testing.assert_array_equal(features.matrix("noise", i, 0), expected[:40])
