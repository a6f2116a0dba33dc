"""The jobs of a small study, run as Snakemake would run them, but in this process and one by one."""

import contextlib
import io
import logging
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from featurespace.config import parse_study
from featurespace.plan import Plan

SCRIPTS = Path(__file__).parents[2] / "scripts"


def run_script(
    script: str,
    spec: dict[str, Any],
    inputs: dict[str, Any],
    outputs: dict[str, str],
    threads: int,
    device: str = "cpu",
) -> None:
    """Run a rule's script in this process, whose number of threads is afterwards what it was before.

    Raises
    ------
    RuntimeError
        If it fails, with what it said.
    """
    job = SimpleNamespace(
        input=SimpleNamespace(**inputs),
        output=SimpleNamespace(**outputs),
        params=SimpleNamespace(spec=spec, get=lambda name: None),
        config={"device": device},
        threads=threads,
        log=[],
    )
    said = io.StringIO()
    n_threads = torch.get_num_threads()
    try:
        with contextlib.redirect_stderr(said):
            runpy.run_path(str(SCRIPTS / f"{script}.py"), {"snakemake": job}, run_name="__main__")
    except SystemExit as error:
        raise RuntimeError(f"{script}: {said.getvalue()}") from error
    finally:
        torch.set_num_threads(n_threads)
        # what a job says goes to its log; what comes after it says nothing
        logging.getLogger().handlers.clear()
        logging.getLogger().setLevel(logging.WARNING)


class Stages:
    """The jobs of one study on Fashion-MNIST, in a folder.

    Parameters
    ----------
    folder
        Takes the place of `results/<study>`.
    study
        The study, as plain data; its data set is called `fashion`.
    published
        The folder of the data set's published files.
    device
        As the configuration's `device`.
    """

    def __init__(self, folder: Path, study: dict[str, Any], published: Path, device: str = "cpu") -> None:
        self.folder = folder
        self.published = published
        self.device = device
        self.plan = Plan(parse_study(study))

    def path(self, name: str, origin: str = "datasets/fashion") -> str:
        """Return a file's path; the origin is a data set or a run."""
        return str(self.folder / origin / name)

    def run_of(self, recipe: str) -> str:
        """Return the origin that a recipe's first block is."""
        return f"runs/{recipe}/block-0"

    def _dataset(self) -> dict[str, str]:
        return {"dataset": self.path("dataset.zarr"), "dataset_digest": self.path("dataset.json")}

    def _weights(self, run: str) -> dict[str, str]:
        return {"weights": self.path("weights", run), "weights_digest": self.path("weights.json", run)}

    def prepare_dataset(self) -> None:
        """Make the data set, and dump its inputs and their spectra."""
        outputs = {"store": self.path("dataset.zarr"), "digest": self.path("dataset.json")}
        manifest = {"manifest": str(self.published / "retrieved.json")}
        run_script("prepare_dataset", self.plan.prepare_dataset("fashion"), manifest, outputs, 1, self.device)
        features = {"store": self.path("features.zarr"), "digest": self.path("features.json")}
        run_script("dump_inputs", self.plan.dump_inputs("fashion"), self._dataset(), features, 1, self.device)

    def train_run(self, recipe: str) -> None:
        """Train a recipe's first block of seeds."""
        run = self.run_of(recipe)
        outputs = {
            "weights": self.path("weights", run),
            "digest": self.path("weights.json", run),
            "history": self.path("history.csv", run),
        }
        spec = self.plan.train_run(recipe, 0)
        run_script("train_run", spec, self._dataset(), outputs, spec["threads"], self.device)

    def dump_features(self, recipe: str) -> None:
        """Dump the features of a recipe's first block."""
        run = self.run_of(recipe)
        outputs = {"store": self.path("features.zarr", run), "digest": self.path("features.json", run)}
        spec = self.plan.dump_features(recipe, 0)
        run_script("dump_features", spec, self._dataset() | self._weights(run), outputs, spec["threads"], self.device)

    def decompose_features(self, origin: str, vectors: int = 8, threads: int = 2) -> None:
        """Decompose the features of a data set or a run: the leading vectors only."""
        inputs = {"store": self.path("features.zarr", origin), "digest": self.path("features.json", origin)}
        outputs = {
            "store": self.path("spectra.zarr", origin),
            "digest": self.path("spectra.json", origin),
            "table": self.path("spectra.csv", origin),
        }
        spec = {"vectors": vectors, "spectrum": "leading"}
        run_script("decompose_features", spec, inputs, outputs, threads, self.device)

    def measure_layers(self, recipe: str) -> None:
        """Measure the layers of a recipe's first block."""
        run = self.run_of(recipe)
        inputs = {"store": self.path("features.zarr", run), "digest": self.path("features.json", run)}
        outputs = {"table": self.path("layers.csv", run)}
        run_script("measure_layers", self.plan.measure_layers(), inputs, outputs, 2, self.device)

    def measure_networks(self, recipe: str) -> None:
        """Measure the networks of a recipe's first block, with their weights."""
        run = self.run_of(recipe)
        outputs = {"table": self.path("networks.csv", run)}
        spec = self.plan.measure_networks(recipe, 0)
        run_script(
            "measure_networks", spec, self._dataset() | self._weights(run), outputs, spec["threads"], self.device
        )

    def probe_layers(self, recipe: str) -> None:
        """Probe the layers of a recipe's first block, on its own data."""
        run = self.run_of(recipe)
        inputs = {"datasets": [self.path("dataset.zarr")], "dataset_digests": [self.path("dataset.json")]}
        outputs = {"table": self.path("layer_probes.csv", run)}
        spec = self.plan.probe_layers(recipe, 0)
        run_script("probe_layers", spec, inputs | self._weights(run), outputs, spec["threads"], self.device)

    def compare_runs(self) -> None:
        """Compare the P-vectors of all runs and the data."""
        runs = self.plan.runs()
        inputs = {
            "runs": [self.path("spectra.zarr", run) for run in runs],
            "run_digests": [self.path("spectra.json", run) for run in runs],
            "data": [self.path("spectra.zarr")],
            "data_digests": [self.path("spectra.json")],
        }
        outputs = {"dynamics": str(self.folder / "angle_dynamics.csv"), "pairs": str(self.folder / "angle_pairs.csv")}
        run_script("compare_runs", self.plan.compare_runs(), inputs, outputs, 1, self.device)
