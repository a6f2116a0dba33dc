"""One matrix far beyond memory: 1,280,000 x 2048 float32, 10.5 GB on the disk."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.peak_memory import measure_apart
from benchmarks.real_data import Features
from benchmarks.spectra_rows import RESIDUAL, K, arithmetic_seconds, matrix_rate
from benchmarks.stage_rows import LAYER, read_through
from benchmarks.table import Row, Target, cost, require, seconds
from featurespace.stores import FeatureWriter, store_draft, write_digest

N_SAMPLES = 1_280_000
WIDTH = 2_048
MEMORY = 4 * 10**9


def write_features(features: Features, folder: Path, n_samples: int, width: int) -> float:
    """Write real features of as many samples as are wanted, and return the sum of their squares.

    The samples are the images of Fashion-MNIST, moved around the edges by 0 and 0 pixels, by 0 and 1, and so on: each
    round of all images has its own displacement (down and right, from a grid as small as will do).
    """
    n_images = min(len(features.labels(n_samples)), n_samples)
    n_rounds = -(-n_samples // n_images)
    side = int(np.ceil(n_rounds**0.5))
    squares = 0.0
    with store_draft(folder / "features.zarr") as draft:
        writer = FeatureWriter(
            draft,
            layers={LAYER: width},
            seeds=[0],
            steps=[0],
            epochs=[0.0],
            sample_ids=np.arange(n_samples),
            labels=np.resize(features.labels(n_images), n_samples),
            attrs={"dataset": "fashion", "recipe": "large", "block": 0, "depths": {LAYER: 2}, "made_by": {}},
        )
        rows = writer.rows_per_chunk[LAYER]
        waiting = np.empty((0, width), dtype=np.float32)
        written = 0
        for i in range(n_rounds):
            fresh = features.matrix(n_images, width, features.n_steps // 2, shift=divmod(i, side))
            fresh = fresh[: n_samples - i * n_images]
            squares += float(np.einsum("ij,ij->", fresh, fresh, dtype=np.float64))
            waiting = np.concatenate([waiting, fresh])
            whole = len(waiting) if i == n_rounds - 1 else len(waiting) // rows * rows
            writer.write(LAYER, 0, 0, written, waiting[:whole])
            written, waiting = written + whole, waiting[whole:]
    write_digest(folder / "features.zarr", folder / "features.json")
    return squares


def forget_cached(store: Path) -> None:
    """Ask the kernel to drop a store's pages, so that the next to read it reads the disk."""
    for path in store.rglob("c.*"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def beyond_memory(features: Features, scratch: Path, n_samples: int = N_SAMPLES, width: int = WIDTH) -> Iterator[Row]:
    """Decompose the matrix within 4 GB, and compare with what reading it, or its arithmetic, takes at least.

    Both read the disk: the kernel is asked to forget the store before either. The result is held against the Frobenius
    norm summed up while the store was written, and against the residual of its own vectors, measured on the data.
    """
    name, case = "one matrix far beyond memory", f"{n_samples} x {width}"
    n_bytes = 4 * n_samples * width
    free = shutil.disk_usage(scratch).free
    if free < 1.1 * n_bytes:
        note = f"needs {1.1 * n_bytes / 1e9:.0f} GB of disk, {free / 1e9:.0f} GB are free: give --scratch"
        yield Row(name, case, "reading or arithmetic", note=note)
        return
    squares = write_features(features, scratch, n_samples, width)
    store, digest = scratch / "features.zarr", scratch / "features.json"
    sample = features.matrix(min(n_samples, 8 * width), width, features.n_steps // 2)
    arithmetic = 2 * n_samples * width**2 / matrix_rate(width)
    # the eigensolver's part does not depend on how many samples there are
    arithmetic += arithmetic_seconds(sample) - 2 * len(sample) * width**2 / matrix_rate(width)
    forget_cached(store)
    reading = seconds(lambda: read_through(str(store), str(digest)))
    forget_cached(store)
    ours = measure_apart(store, digest, K)
    error = abs(ours["frobenius_norm"] / squares**0.5 - 1)
    require(error <= 1e-10, f"{name}: the Frobenius norm is off by {error:.0e}")
    require(ours["residual"] <= RESIDUAL, f"{name}: the residual is {ours['residual']:.0e}")
    limit = max(reading, arithmetic)
    slower = "reading the disk" if reading > arithmetic else "2 n d² operations and two eigensolvers"
    note = f"reading {reading:.0f} s, arithmetic {arithmetic:.0f} s"
    yield Row(name, case, slower, ours["seconds"], limit, limit / ours["seconds"], Target(">=", 0.6), note)
    peak = ours["bytes"] / 1e9
    yield cost(f"{name}: memory", case, "4 GB", peak, MEMORY / 1e9, 1.0, "beyond imports", unit="GB")
