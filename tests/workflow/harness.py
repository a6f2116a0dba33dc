"""A copy of the workflow in a directory of its own, and the real Snakemake run on it."""

import copy
import csv
import io
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PARTS = ("Snakefile", "rules", "scripts", "profiles", "report", "envs", "config.yaml")

FIGURES = [
    "angle_dynamics",
    "angle_matrix",
    "spectra",
    "layers",
    "training",
    "reference_angles",
    "early_angles",
    "mean_control",
    "permutation_null",
    "training_effect",
    "shuffled_labels",
    "explained_variance",
    "entry_densities",
    "entry_samples",
    "subspace_angles",
    "data_angle_accuracy",
    "indicators",
    "similarity",
    "sensitivity",
    "layer_theory",
    "law_sweep",
    "assumptions",
    "layer_probes",
    "normalisation_modes",
    "collapse",
    "embeddings",
    "linear_depth",
    "transfer",
]

# Jobs that would run are asked for some 170 times: each time the real Snakemake, in a process of its own that is forked
# from one which has imported it and nothing of this project.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["snakemake.cli", "snakemake_executor_plugin_slurm", "snakemake.sourcecache", "snakemake.ioutils", "yte"]
)

# Real data and every kind of stage, in the smallest size that trains: two data sets, two blocks of seeds.
TINY: dict[str, Any] = {
    "study": "tiny",
    "device": "cpu",
    "datasets": {
        "digits": {"kind": "digits", "sample_set": {"limit": 200}},
        "rows": {"kind": "orthonormal"},
    },
    "recipes": {
        "mlp": {
            "dataset": "digits",
            "model": {"kind": "mlp", "widths": [16, 8]},
            "optimiser": {"kind": "sgd", "learning_rate": 0.1},
            "schedule": {"epochs": 2},
            "seeds": 3,
            "block": 2,
        },
        "seen": {
            "dataset": "digits",
            "task": "untrained",
            "model": {"kind": "cnn", "channels": [4], "hidden": 8},
            "seeds": 1,
        },
        "line": {
            "dataset": "rows",
            "loss": "mse",
            "init": {"scheme": "orthogonal"},
            "model": {"kind": "linear", "depth": 3, "width": 50},
            "schedule": {"epochs": 2, "batch_size": None},
            "seeds": 1,
        },
        "chance": {"dataset": "digits", "task": "noise", "model": {"kind": "noise", "width": 5}, "seeds": 1},
    },
    "sweeps": {"few": {"base": "mlp", "set": {"seeds": 1}, "vary": {"model.widths": [[4]]}}},
    "analysis": {
        "angles": {"permutations": 19, "references": ["seen", "mlp", "line"]},
        "subspaces": {"dimensions": [1, 2], "null_draws": 10},
        "statistics": {"resamples": 99},
        "embedding": {"depths": [2], "samples": 40},
    },
    "ledgers": ["p-vectors", "layerwise"],
    "figures": FIGURES,
}


class Workflow:
    """The workflow in a directory.

    Parameters
    ----------
    root
        The directory; filled with a copy of this project's workflow if it is empty.
    study
        The study, as plain data.
    """

    def __init__(self, root: Path, study: dict[str, Any]) -> None:
        self.root = root
        self.study_files = ["study.yaml"]
        root.mkdir(parents=True, exist_ok=True)
        if not (root / "Snakefile").exists():
            for part in PARTS:
                source = ROOT / part
                if source.is_dir():
                    shutil.copytree(source, root / part, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy2(source, root / part)
        self.write_study(study)

    def write_study(self, study: dict[str, Any]) -> None:
        """Write the study file."""
        self.study = copy.deepcopy(study)
        (self.root / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))

    @property
    def name(self) -> str:
        """The study's name."""
        return self.study["study"]

    def copy_to(self, root: Path) -> "Workflow":
        """Copy everything, results and Snakemake's records included, with its time stamps."""
        shutil.copytree(self.root, root, symlinks=True)
        return Workflow(root, self.study)

    def copy_records_to(self, root: Path) -> "Workflow":
        """Copy what Snakemake looks at: everything but the contents of stores. No job can run there."""

        def contents(folder: str, names: list[str]) -> list[str]:
            is_store = Path(folder).suffix == ".zarr" or Path(folder).name == "weights"
            return [name for name in names if name != ".snakemake_timestamp"] if is_store else []

        shutil.copytree(self.root, root, symlinks=True, ignore=contents)
        return Workflow(root, self.study)

    def snakemake(self, *arguments: str, timeout: float = 1800) -> subprocess.CompletedProcess[str]:
        """Run the real Snakemake on the study."""
        command = [sys.executable, "-m", "snakemake", *arguments, "--configfile", *self.study_files]
        # Quick tests of many small jobs: threads of a matrix library would only get into each other's way.
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(
            command, cwd=self.root, capture_output=True, text=True, timeout=timeout, env=environment, check=False
        )

    def run(self, *arguments: str) -> None:
        """Run the study to its end."""
        done = self.snakemake(*arguments)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]

    def ask_status(self, *options: str) -> str:
        """Ask how far the study is."""
        command = [sys.executable, "-m", "featurespace.status", "--configfile", *self.study_files, *options]
        environment = os.environ | {"PYTHONPATH": "scripts"}
        asked = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        return asked.stdout + asked.stderr

    def states(self) -> dict[str, dict[str, Any]]:
        """Ask how far the study is, and map its jobs to what is said of them."""
        return {job["job"]: job for job in json.loads(self.ask_status("--json"))["jobs"]}

    def ask(self, *arguments: str) -> tuple[int, str, str]:
        """Run the real Snakemake where it is to look and not to make anything: quicker, in a fork.

        Returns
        -------
        status, stdout, stderr
        """
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder) / "out", Path(folder) / "err"
            arguments = (*arguments, "--configfile", *self.study_files)
            fork = _FORKS.Process(target=_snakemake_in_fork, args=(self.root, list(arguments), out, err))
            fork.start()
            fork.join(timeout=600)
            assert fork.exitcode is not None
            return fork.exitcode, out.read_text(), err.read_text()

    def pending(self, *targets: str) -> set[str]:
        """Name the jobs that would run now, for all or for some targets: the rule, then what it is for."""
        status, table, said = self.ask(*targets, "--detailed-summary")
        assert status == 0, table + said
        rows = list(csv.DictReader(io.StringIO(table), delimiter="\t"))
        prefix = f"results/{self.study['study']}/"
        return {job_of(row["output_file"].removeprefix(prefix)) for row in rows if row["plan"] != "no update"}


def _snakemake_in_fork(root: Path, arguments: list[str], out: Path, err: Path) -> None:
    """Run the real Snakemake in this process, which ends with it, and keep what it says in two files."""
    assert "featurespace" not in sys.modules  # the one that counts is the one beside the Snakefile
    os.chdir(root)
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    from snakemake.cli import main

    main(arguments)


# Which job makes a file: written out again here, apart from the rules, so that the two check each other.
MAKERS = {
    r"datasets/(\w+)/dataset\.(zarr|json)": r"prepare_dataset/\1",
    r"datasets/(\w+)/features\.(zarr|json)": r"dump_inputs/\1",
    r"runs/([\w-]+/block-\d+)/(weights|weights\.json|history\.csv)": r"train_run/\1",
    r"runs/(saved/block-\d+)/(weights|weights\.json|history\.csv)": r"import_weights/\1",
    r"runs/([\w-]+/block-\d+)/features\.(zarr|json)": r"dump_features/\1",
    r"runs/([\w-]+/block-\d+)/ends\.(zarr|json)": r"dump_ends/\1",
    r"datasets/(photos|threes|table)/dataset\.(zarr|json)": r"import_dataset/\1",
    r"runs/((?:elsewhere|random|same)/block-\d+)/(features|ends)\.(zarr|json)": r"import_features/\1",
    r"runs/(chance/block-\d+)/(features|ends)\.(zarr|json)": r"draw_noise/\1",
    r"runs/([\w-]+/block-\d+)/probe\.csv": r"probe_run/\1",
    r"(.*)/spectra\.(zarr|json|csv)": r"decompose_features/\1",
    r"(.*)/layers\.csv": r"measure_layers/\1",
    r"runs/([\w-]+/block-\d+)/networks\.csv": r"measure_networks/\1",
    r"runs/([\w-]+/block-\d+)/theory\.csv": r"predict_layers/\1",
    r"runs/([\w-]+/block-\d+)/layer_probes\.csv": r"probe_layers/\1",
    r"runs/([\w-]+/block-\d+)/embedding\.csv": r"embed_layers/\1",
    r"tables/angle_\w+\.csv": "compare_runs",
    r"tables/runs\.csv": "tabulate_runs",
    r"tables/subspaces\.csv": "compare_subspaces",
    r"tables/(entry_summary|entries|extremes)\.csv": "tabulate_entries",
    r"tables/extreme_images\.npz": "tabulate_entries",
    r"tables/similarity\.csv": "compare_similarity",
    r"tables/sensitivity\.csv": "assess_sensitivity",
    r"tables/(population|correlations|indicators)\.csv": "correlate_population",
    r"tables/claims\.csv": "test_claims",
    r"figures/(\w+)\.(svg|png|csv)": r"plot_\1",
    r"data/([\w-]+)/retrieved\.json": r"retrieve_dataset/\1",
    r"(.*)/own_measures\.csv": r"measure_own/\1",
    r"tables/own_measures\.csv": "tabulate_own",
    r"figures/(participation)\.(svg|png|csv)": r"plot_own/\1",
    r"report\.html": "write_report",
    r"study\.yaml": "write_study",
}


def blocks_of(page: str) -> list[tuple[str, str]]:
    """List the blocks of code of a page of the docs: their language and what is in them."""
    return re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)


def follow_page(workflow: Workflow, page: str) -> None:
    """Do what a page says: write its Python files beside the study file, and add its YAML to the study."""
    study = copy.deepcopy(workflow.study)
    for language, code in blocks_of(page):
        if language == "python":
            match = re.match(r"# (\S+\.py)\n", code)
            assert match, code
            (workflow.root / match[1]).write_text(code)
        elif language == "yaml":
            for key, section in yaml.safe_load(code).items():
                study[key] = {**study.get(key, {}), **section}
    workflow.write_study(study)


def job_of(path: str) -> str:
    """Name the job that makes a file, given relative to the study's results."""
    for pattern, job in reversed(MAKERS.items()):
        if match := re.fullmatch(pattern, path):
            return match.expand(job)
    raise AssertionError(f"no job makes {path}")
