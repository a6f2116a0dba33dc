"""Decompose a feature store in a process of its own, and say how much memory that took beyond the imports.

    python -m benchmarks.peak_memory features.zarr features.json VECTORS

Prints JSON: `bytes`, the highest resident size during the job less the one before it, `seconds`, and of the result
`frobenius_norm` (raw) and `residual`, the largest, of the first layer, seed and step. Before the job everything is
imported, and one small decomposition made, which wakes the matrix library.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from benchmarks.stages import SCRIPTS, run_script
from benchmarks.table import require
from featurespace import spectra
from featurespace.stores import FeatureStore


def measure_apart(store: Path | str, digest: Path | str, vectors: int) -> dict[str, Any]:
    """Run this module in a process of its own, and return what it prints."""
    paths = os.pathsep.join([str(SCRIPTS), str(SCRIPTS.parent / "tests")])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.peak_memory", str(store), str(digest), str(vectors)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": paths},
    )
    require(done.returncode == 0, f"peak memory: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def resident(key: str) -> int:
    """Return VmRSS or VmHWM of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status does not say {key}")


def measure(store: str, digest: str, vectors: int) -> dict[str, Any]:
    """Decompose, and return what is printed."""
    layer = FeatureStore.open(store, digest).layers[0]
    spectra.decompose(spectra.Rows.of(np.eye(64, 16)), vectors=1)
    with tempfile.TemporaryDirectory(dir=Path(store).parent) as folder:
        names = {"store": "spectra.zarr", "digest": "spectra.json", "table": "spectra.csv"}
        outputs = {key: f"{folder}/{name}" for key, name in names.items()}
        inputs = {"store": store, "digest": digest}
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far
        start = time.perf_counter()
        run_script("decompose_features", {"vectors": vectors, "spectrum": "leading"}, inputs, outputs, threads=2)
        took = time.perf_counter() - start
        peak = resident("VmHWM")
        with xr.open_zarr(outputs["store"], group=layer) as found:
            norm = float(found["frobenius_norm"][0, 0, 0])
            residual = float(found["residual"][0, 0].max())
    return {"bytes": peak - before, "seconds": took, "frobenius_norm": norm, "residual": residual}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
