"""Whole stages, from store to store: dumping features, decomposing them, and the memory that takes."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from benchmarks.peak_memory import measure_apart
from benchmarks.real_data import N_STEPS, Features
from benchmarks.spectra_rows import SIGMA_ERROR, K, Reference, arithmetic_seconds
from benchmarks.stages import Stages
from benchmarks.table import Row, alternate, cost, require, threads
from featurespace.datasets import load_dataset, select_sample_set
from featurespace.extraction import FORWARD_ROWS, build_for
from featurespace.stores import CHUNK_BYTES, FeatureStore
from featurespace.weights import KeptWeights, publish, step_file

WIDTH = 512
N_SAMPLES = 20_000
LAYER = "hidden2"
RECIPE = "network"


def stages_of(
    features: Features,
    folder: Path,
    published: Path,
    n_samples: int = N_SAMPLES,
    width: int = WIDTH,
    n_steps: int = N_STEPS,
    device: str = "cpu",
) -> Stages:
    """Lay out a run whose features the rows are about, up to its weights: the first kept steps of one network."""
    section = features.plan(width).recipe(f"w{width}").model_dump(exclude_unset=True)
    study = {
        "study": "bench",
        "seeds": 1,
        "datasets": {
            "fashion": {
                "kind": "fashion-mnist",
                "train_limit": n_samples,
                "test_limit": 100,
                "sample_set": {"limit": n_samples},
            }
        },
        "recipes": {RECIPE: section | {"layers": [LAYER], "threads": 1}},
        "figures": [],
    }
    stages = Stages(folder, study, published, device)
    stages.prepare_dataset()
    weights = features.weights(width)
    steps, epochs = weights.steps[1 : n_steps + 1], weights.epochs[1 : n_steps + 1]
    (seed,) = weights.seeds
    kept = folder / "kept"
    for step in steps:
        name = step_file(seed, step)
        (kept / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(weights.folder / name, kept / name)
    run = stages.run_of(RECIPE)
    facts = {"recipe": RECIPE, "seeds": [seed], "steps": {str(seed): steps}, "epochs": {str(seed): epochs}}
    publish(kept, stages.path("weights", run), stages.path("weights.json", run), facts)
    return stages


# --- dumping ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def bare_dump(stages: Stages, path: Path, device: torch.device) -> None:
    """Take the same batches through the same network, and write what comes out to one file, safe on the disk."""
    run = stages.run_of(RECIPE)
    spec = stages.plan.dump_features(RECIPE, 0)
    dataset = load_dataset(stages.path("dataset.zarr"))
    weights = KeptWeights(stages.path("weights", run), stages.path("weights.json", run))
    inputs = torch.from_numpy(dataset.inputs(_sample_rows(stages, dataset)))
    network = build_for(spec, dataset, n_seeds=1).to(device)
    inputs = inputs.to(device)
    with path.open("wb") as file:
        for step in weights.steps:
            network.load_state_dict(weights.read(weights.seeds, step))
            for start in range(0, len(inputs), FORWARD_ROWS):
                _, taps = network(inputs[None, start : start + FORWARD_ROWS])
                file.write(taps[LAYER][0].cpu().numpy().data)
        file.flush()
        os.fsync(file.fileno())


def _sample_rows(stages: Stages, dataset: object) -> np.ndarray:
    sample_set = stages.plan.dump_inputs("fashion")["sample_set"]
    return select_sample_set(dataset, sample_set["split"], sample_set["limit"])  # type: ignore[arg-type]


def dumping(stages: Stages, repetitions: int = 2) -> Iterator[Row]:
    """Compare the job that dumps features with the bare forward pass and a raw write of as many bytes."""
    store, digest = (stages.path(name, stages.run_of(RECIPE)) for name in ("features.zarr", "features.json"))
    raw, device = stages.folder / "raw.bin", torch.device(stages.device)
    n_threads = stages.plan.train_run(RECIPE, 0)["threads"]

    def bare() -> None:
        with threads(n_threads):
            bare_dump(stages, raw, device)

    stages.dump_features(RECIPE)
    bare()
    features = FeatureStore.open(store, digest)
    shape = (len(features.steps), features.n_samples, features.n_features[LAYER])
    written = np.memmap(raw, dtype=np.float32, mode="r", shape=shape)
    for i in (0, len(features.steps) - 1):
        require(
            np.allclose(features.matrix(LAYER, 0, i), written[i], rtol=1e-4, atol=1e-5),
            "dumping: the store holds other features than the forward pass gives",
        )
    del written
    times = alternate({"ours": lambda: stages.dump_features(RECIPE), "bare": bare}, repetitions)
    raw.unlink()
    case = f"{shape[0]} steps x {shape[1]} x {shape[2]}"
    against = "bare forward pass and raw write"
    yield cost("dumping features", case, against, times["ours"], times["bare"], 1.2, "both end on the disk")


# --- decomposing --------------------------------------------------------------------------------------------------


def read_through(store: str, digest: str) -> None:
    """Read every block of a feature store, verified, and do nothing with it."""
    features = FeatureStore.open(store, digest)
    for layer in features.layers:
        for i in range(len(features.seeds)):
            for j in range(len(features.steps)):
                for _ in features.blocks(layer, i, j):
                    pass


def whole_stage(stages: Stages, repetitions: int = 2) -> Iterator[Row]:
    """Compare the job that decomposes features with reading them, and with the roofline of its arithmetic.

    The limit is twice the time of reading plus the roofline.
    """
    run = stages.run_of(RECIPE)
    store, digest = (stages.path(name, run) for name in ("features.zarr", "features.json"))
    stages.decompose_features(run)
    _require_right(stages, run)
    times = alternate(
        {"ours": lambda: stages.decompose_features(run), "reading": lambda: read_through(store, digest)}, repetitions
    )
    features = FeatureStore.open(store, digest)
    n_steps = len(features.steps)
    arithmetic = n_steps * arithmetic_seconds(features.matrix(LAYER, 0, 0), stages.device)
    yield cost(
        "the whole stage, store to spectra",
        f"{n_steps} steps x {features.n_samples} x {features.n_features[LAYER]}",
        "2 x reading the store + the roofline",
        times["ours"],
        2 * times["reading"] + arithmetic,
        1.0,
        f"reading {times['reading']:.2f} s, the roofline of the arithmetic {arithmetic:.2f} s",
    )


def _require_right(stages: Stages, run: str) -> None:
    features = FeatureStore.open(stages.path("features.zarr", run))
    with xr.open_zarr(stages.path("spectra.zarr", run), group=LAYER) as spectra:
        for step in (0, len(features.steps) - 1):
            expected = Reference(features.matrix(LAYER, 0, step)).values
            found = spectra["singular_value"][0, step].to_numpy()[:, :K]
            error = float(np.max(np.abs(found - expected) / expected))
            require(error <= SIGMA_ERROR, f"the whole stage: σ error {error:.0e} at step {step}")


# --- memory -------------------------------------------------------------------------------------------------------


def memory(long: Stages, short: Stages) -> Iterator[Row]:
    """Compare the peak memory of the stage with three blocks and a Gram matrix, for few steps and for many."""
    for stages in (short, long):
        run = stages.run_of(RECIPE)
        features = FeatureStore.open(stages.path("features.zarr", run))
        width = features.n_features[LAYER]
        limit = 3 * CHUNK_BYTES + 8 * min(width, features.n_samples) ** 2
        peak = measure_apart(stages.path("features.zarr", run), stages.path("features.json", run), K)["bytes"]
        n_bytes = 4 * len(features.steps) * features.n_samples * width
        yield cost(
            "peak memory of that stage",
            f"{len(features.steps)} steps x {features.n_samples} x {width}",
            "3 blocks and a Gram matrix",
            peak / 2**20,
            limit / 2**20,
            1.0,
            f"beyond imports; the store has {n_bytes / 2**20:.0f} MiB",
            unit="MiB",
        )
