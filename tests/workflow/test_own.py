"""A study of data and features of one's own: what comes out, and what runs again when something of it changes."""

import copy
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from filelock import FileLock
from harness import Workflow
from own import MORE, STUDY, own_workflow, photos
from PIL import Image
from sklearn.datasets import load_digits

from featurespace.own_split import held_out_rows

pytestmark = pytest.mark.workflow

RESULTS = "results/own"
# what `MORE` is run for
STORES = [
    *(f"{RESULTS}/datasets/{name}/dataset.json" for name in MORE["datasets"]),
    *(f"{RESULTS}/runs/{name}/block-0/features.json" for name in MORE["features"]),
]
IMPORTS = {
    *(f"import_dataset/{n}" for n in MORE["datasets"]),
    *(f"import_features/{n}/block-0" for n in MORE["features"]),
}


def with_more() -> dict:
    """The study, with the other data sets and features in it."""
    study = copy.deepcopy(STUDY)
    study["datasets"] |= MORE["datasets"]
    study["features"] |= MORE["features"]
    return study


@pytest.fixture(scope="session")
def own(tmp_path_factory, worker_id) -> Workflow:
    """The study, run to its end, and then the stores of what `MORE` adds to it. Never change it: copy it."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    root = shared / "own"
    with FileLock(shared / "own.lock"):
        if not (shared / "own.done").exists():
            workflow = own_workflow(root)
            workflow.run()
            assert workflow.pending() == set()
            workflow.write_study(with_more())
            workflow.run(*STORES)
            (shared / "own.done").touch()
        workflow = Workflow(root, STUDY)
        workflow.write_study(with_more())
        return workflow


def test_an_image_folder_becomes_a_data_set(own):
    dataset = xr.open_zarr(own.root / RESULTS / "datasets/photos/dataset.zarr")
    images, labels = photos()
    np.testing.assert_array_equal(dataset["image"][:, 0], images)
    np.testing.assert_array_equal(dataset["label"], labels)
    np.testing.assert_array_equal(np.flatnonzero(dataset["split"]), held_out_rows(labels, 0.25, 0))
    assert dataset["file"].to_numpy()[61] == "digit-1/0061.png"


def test_features_join_the_angles_with_their_controls(own):
    pairs = pd.read_csv(own.root / RESULTS / "tables/angle_pairs.csv")
    spectra = pd.read_csv(own.root / RESULTS / "runs/elsewhere/block-0/spectra.csv")
    dataset = xr.open_zarr(own.root / RESULTS / "datasets/photos/features.zarr")
    pixels = dataset["input"].to_numpy()[0, 0].astype(float)
    # turned features have the data's own singular values
    first = spectra[(spectra["layer"] == "turned") & (spectra["centring"] == "raw")]["singular_value"].to_numpy()
    np.testing.assert_allclose(first, np.linalg.svd(pixels, compute_uv=False)[: len(first)], rtol=1e-5)
    # the angle of the scores' P-vector to that of the data, and to the network's, worked out here
    images, _ = photos()
    scores = np.load(own.root / "elsewhere/pca.npy")
    assert len(scores) == len(images)
    scores = scores[dataset["sample"].to_numpy()].astype(np.float32)
    network = xr.open_zarr(own.root / RESULTS / "runs/mlp/block-0/features.zarr")["hidden1"].to_numpy()[0, -1]
    for other, features in (("data", pixels), ("mlp", network.astype(float))):
        for centring in ("raw", "centred"):
            both = []
            for values in (scores, features):
                values = values - values.mean(axis=0) * (centring == "centred")
                both.append(np.linalg.svd(values, full_matrices=False)[0][:, 0])
            expected = np.degrees(np.arccos(min(1.0, abs(both[0] @ both[1]))))
            rows = pairs[(pairs["stage"] == "last") & (pairs["centring"] == centring)]
            row = rows[rows[["recipe_a", "recipe_b"]].apply(set, axis=1) == {"elsewhere", other}]
            assert row["angle_deg"].item() == pytest.approx(expected, abs=0.01)
            assert row[["null_mean_deg", "angle_to_ones_deg", "correlation", "p_value"]].notna().all(axis=None)
    layers = pd.read_csv(own.root / RESULTS / "figures/layers.csv")
    assert "elsewhere" in set(layers["recipe"])
    assert "elsewhere" in (own.root / RESULTS / "figures/angle_matrix.svg").read_text()
    assert "elsewhere" in (own.root / RESULTS / "report.html").read_text()


def test_functions_arrays_and_ids_become_what_they_say(own):
    digits = load_digits()
    rows = xr.open_zarr(own.root / RESULTS / "datasets/threes/dataset.zarr")
    chosen = np.isin(digits.target, (3, 5, 8))
    np.testing.assert_array_equal(rows["value"], digits.data[chosen][:300] / 16)
    np.testing.assert_array_equal(rows["split"], [0] * 200 + [1] * 100)
    assert rows.attrs["class_names"] == ["3", "5", "8"]
    table = xr.open_zarr(own.root / RESULTS / "datasets/table/dataset.zarr")
    np.testing.assert_array_equal(table["value"], digits.data[:400])
    # rows in another order found their samples by ids
    same = xr.open_zarr(own.root / RESULTS / "runs/same/block-0/features.zarr")
    np.testing.assert_array_equal(same["pixels"][0, 0], digits.data[chosen][:200].astype(np.float32))
    random = xr.open_zarr(own.root / RESULTS / "runs/random/block-0/features.zarr")
    np.testing.assert_array_equal(random["epoch"], [0.0, 0.5])
    wanted = np.load(own.root / "random.npz")["projection"][:, random["sample"].to_numpy()]
    np.testing.assert_array_equal(random["projection"][0], wanted.astype(np.float32))
    ends = xr.open_zarr(own.root / RESULTS / "runs/random/block-0/ends.zarr")
    assert ends.sizes["sample"] == 200  # 100 of the sample set, then 100 held out
    assert ends.attrs["n_sample_set"] == 100


# --- what is stale ----------------------------------------------------------------------------------------------


def of(*names: str) -> set[str]:
    """What runs again below some data sets and features of the whole study."""
    report = {"compare_runs", "plot_angle_matrix", "plot_layers", "write_report"}
    jobs = set()
    if "photos" in names:
        jobs |= {"import_dataset/photos", "dump_inputs/photos", "train_run/mlp/block-0", "dump_features/mlp/block-0"}
        jobs |= {"tabulate_runs"} | {f"{stage}/datasets/photos" for stage in ("decompose_features", "measure_layers")}
        jobs |= {f"{stage}/runs/mlp/block-0" for stage in ("decompose_features", "measure_layers")}
    jobs |= {"import_features/elsewhere/block-0"}
    jobs |= {f"{stage}/runs/elsewhere/block-0" for stage in ("decompose_features", "measure_layers")}
    return jobs | report


def edit_image(root: Path) -> None:
    """Change one pixel, and set the time stamp back."""
    path = root / "photos/digit-1/0061.png"
    before = path.stat()
    pixels = np.array(Image.open(path))
    pixels[0, 0] += 1
    Image.fromarray(pixels).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def touch_all(root: Path) -> None:
    """Give every source the time stamp of now."""
    for name in ("photos", "elsewhere", "mine", "stored", "table.npz", "random.npz"):
        for path in (root / name, *(root / name).rglob("*")):
            path.touch()


def append(root: Path, path: str, text: str) -> None:
    (root / path).write_text((root / path).read_text() + text)


def of_no_matter(root: Path) -> None:
    """Change what is no content: time stamps, a file that is no image, a comment in a function."""
    touch_all(root)
    (root / "photos/digit-0/notes.txt").write_text("no image")
    append(root, "mine/digits.py", "\n# a comment\n")


def edit_arrays(root: Path) -> None:
    """Change arrays in a file, and one chunk of a store."""
    np.savez(root / "table.npz", x=np.eye(400), y=np.arange(400) % 5)
    (root / "stored/pixels/c/1/0").write_bytes(b"another")


WHOLE_EDITS: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "what is no content": (of_no_matter, set()),
    "a pixel, with its old time stamp": (edit_image, of("photos")),
    "an image less": (lambda root: (root / "photos/digit-0/0000.png").unlink(), of("photos")),
    "other features": (lambda root: np.save(root / "elsewhere/pca.npy", np.ones((180, 6))), of()),
    "the code that reads images": (
        lambda root: append(root, "scripts/featurespace/image_folder.py", "\nE = 1\n"),
        of("photos"),
    ),
    "the code that reads features": (
        lambda root: append(root, "scripts/featurespace/own_features.py", "\nE = 1\n"),
        of(),
    ),
}


@pytest.mark.parametrize("edit", WHOLE_EDITS)
def test_an_edit_of_a_source_runs_exactly_its_jobs(own, tmp_path, edit):
    change, expected = WHOLE_EDITS[edit]
    workflow = own.copy_records_to(tmp_path / "edited")
    workflow.write_study(STUDY)
    assert workflow.pending() == set()
    change(workflow.root)
    assert workflow.pending() == expected


def move(root: Path, study: dict, section: str, name: str, key: str) -> None:
    """Move a folder, and say so in the study."""
    (root / study[section][name][key]).rename(root / "moved")
    study[section][name][key] = "moved"


@pytest.mark.parametrize("where", [("datasets", "photos", "folder"), ("features", "elsewhere", "source")], ids=".".join)
def test_a_source_that_moves_changes_what_is_written_of_the_study_alone(own, tmp_path, where):
    workflow = own.copy_records_to(tmp_path / "edited")
    study = copy.deepcopy(STUDY)
    move(workflow.root, study, *where)
    workflow.write_study(study)
    assert workflow.pending() == {"write_study", "write_report"}


def test_a_copy_of_what_is_written_of_the_study_is_the_same_study(own, tmp_path):
    workflow = own.copy_records_to(tmp_path / "copied")
    written = yaml.safe_load((own.root / RESULTS / "study.yaml").read_text())
    assert written["datasets"]["photos"]["folder"] == "photos"
    workflow.write_study(written)
    assert workflow.pending() == set()


def test_the_report_says_where_features_were_from(own):
    page = (own.root / RESULTS / "report.html").read_text()
    runs = page[page.index('id="runs"') : page.index('id="again"')]
    assert '<td class="text wrap">turned, pca</td><td>0</td><td>0</td><td class="text">trained</td>' in runs
    assert "features made elsewhere: 1 (elsewhere)" in page
    assert "Over 1 seed, 120 samples of photos." in page


MORE_EDITS: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "what is no content": (of_no_matter, set()),
    "a module that the function's imports": (
        lambda root: (root / "mine/chosen.py").write_text("WANTED = (3, 5, 9)\n"),
        {"import_dataset/threes", "import_features/same/block-0"},
    ),
    "arrays and a chunk": (
        edit_arrays,
        {"import_dataset/table", "import_features/random/block-0", "import_features/same/block-0"},
    ),
}


@pytest.mark.parametrize("edit", MORE_EDITS)
def test_an_edit_of_a_function_or_file_runs_its_import(own, tmp_path, edit):
    change, expected = MORE_EDITS[edit]
    workflow = own.copy_records_to(tmp_path / "edited")
    workflow.write_study(with_more())
    assert not workflow.pending() & IMPORTS
    change(workflow.root)
    assert workflow.pending() & IMPORTS == expected


def test_a_source_that_is_gone_is_one_line(own, tmp_path):
    workflow = own.copy_records_to(tmp_path / "gone")
    (workflow.root / "photos").rename(tmp_path / "elsewhere")
    done = workflow.snakemake("--cores", "1")
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if "profile" not in line]
    assert said == [
        "featurespace: study.yaml: datasets.photos.folder: photos cannot be read (No such file or directory)"
    ]
