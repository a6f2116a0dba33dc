"""Studies on a real SLURM: the bytes of a workstation, whatever happens to jobs, nodes and Snakemake itself."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, running, why_not
from filelock import FileLock
from harness import Workflow

from featurespace.made import NOTES

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(why_not() is not None, reason=f"SLURM: {why_not()}")]

WEIGHTS = "results/long/runs/mlp/block-0/weights.json"
EPOCHS = 1500  # of a training that lasts long enough to be disturbed
QUICK = ("--slurm-init-seconds-before-status-checks", "2")
MLP: dict[str, Any] = {
    "dataset": "digits",
    "model": {"kind": "mlp", "widths": [16, 8]},
    "optimiser": {"kind": "sgd", "learning_rate": 0.1},
    "schedule": {"epochs": 2},
    "seeds": 1,
}
STUDY: dict[str, Any] = {
    "study": "small",
    "device": "cpu",
    "datasets": {"digits": {"kind": "digits", "sample_set": {"limit": 200}}},
    "recipes": {"mlp": MLP | {"seeds": 2, "block": 1}},
    "analysis": {"angles": {"permutations": 19}, "statistics": {"resamples": 99}},
    "figures": ["angle_dynamics", "spectra", "training"],
}


def long_training(epochs: int, **names: dict[str, Any]) -> dict[str, Any]:
    """Return a study whose recipes train for so many epochs, and are saved every few seconds."""
    schedule = {"epochs": epochs, "keep_every": 50}
    recipes = {name: MLP | {"seeds": 1, "schedule": schedule} | changes for name, changes in names.items()}
    return STUDY | {"study": "long", "recipes": recipes, "figures": []}


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    """A cluster for the tests of this file; one at a time on this machine, whatever the number of test workers."""
    with (
        FileLock(Path(tempfile.gettempdir()) / f"featurespace-slurm-{os.getuid()}.lock"),
        tempfile.TemporaryDirectory(prefix="slurm-") as folder,  # pytest's own paths are too long for a socket
        running(Path(folder)) as cluster,
    ):
        yield cluster


def submit(workflow: Workflow, slurm: Cluster, *arguments: str) -> subprocess.Popen[str]:
    """Start Snakemake with the profile for SLURM."""
    command = [sys.executable, "-m", "snakemake", *arguments, "--profile", "profiles/slurm", *QUICK]
    return subprocess.Popen(
        [*command, "--configfile", *workflow.study_files],
        cwd=workflow.root,
        env=os.environ | slurm.environment | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for Snakemake to succeed, and return what it said."""
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said[-6000:]
    return said


def jobs(slurm: Cluster, workflow: Workflow, *fields: str) -> list[list[str]]:
    """Return what SLURM's accounting says of the jobs that ran in a workflow's directory, in their order."""
    asked = ",".join(("workdir%300", *(f"{field}%200" for field in fields)))
    rows = slurm.ask("sacct", "-X", "-n", "-P", "-S", "now-1day", "-o", asked).splitlines()
    return [row.split("|")[1:] for row in rows if row.split("|")[0] == str(workflow.root)]


def digests(workflow: Workflow, study: str) -> dict[str, bytes]:
    """Return a study's digest files, each a hash over a store, and its tables, by their paths."""
    results = workflow.root / "results" / study
    files = [*results.glob("**/*.json"), *results.glob("**/*.csv")]
    inside = [path for path in files if not any(part.endswith((".zarr", "weights")) for part in path.parts[:-1])]
    found = {path.relative_to(results).as_posix(): path.read_bytes() for path in inside}
    # of logs, and of the report, which has a table of running times, no two are alike
    return {name: content for name, content in found.items() if not name.startswith(("logs/", f"{NOTES}/report.html"))}


def wait_for(condition, seconds: float = 200) -> None:
    """Wait until something is so."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.2)


def text_of(log: Path) -> str:
    """Return what a log says; nothing where Snakemake has deleted it, before the job runs again."""
    try:
        return log.read_text()
    except FileNotFoundError:
        return ""


def test_two_studies_at_once_end_in_the_bytes_of_a_workstation(slurm, tmp_path, record_fault):
    workflow = Workflow(tmp_path / "cluster", STUDY)
    other = Workflow(tmp_path / "cluster", STUDY | {"study": "other"})
    (workflow.root / "other.yaml").write_text((workflow.root / "study.yaml").read_text())
    workflow.write_study(STUDY)
    other.study_files = ["other.yaml"]
    both = [submit(workflow, slurm), submit(other, slurm)]

    local = Workflow(tmp_path / "local", STUDY)
    local.run("--cores", "1")
    for process in both:
        finish(process)

    expected = digests(local, "small")
    assert len(expected) > 10
    assert digests(workflow, "small") == expected
    assert digests(workflow, "other").keys() == expected.keys()
    assert (workflow.root / "results/small/report.html").exists()
    assert (workflow.root / "results/other/report.html").exists()

    states = jobs(slurm, workflow, "jobid", "state", "partition", "comment")
    assert {state for _, state, _, _ in states} == {"COMPLETED"}
    # what computes on networks is where the GPUs are, and short stages travel together
    folders = {folder.name for folder in (workflow.root / "results/slurm-logs").iterdir()}
    assert folders >= {"rule_train_run", "rule_decompose_features"}
    assert any(name.startswith("group_figures") for name in folders)
    assert not any(name.startswith("rule_plot") for name in folders)
    record_fault("SLURM", "two studies at once in one directory", "both end, in the bytes of a workstation", 2)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Callable[[int], bytes]:
    """Return a function that trains for so many epochs without SLURM, once, and gives the digest of the weights."""
    digests: dict[int, bytes] = {}

    def train(epochs: int) -> bytes:
        if epochs not in digests:
            local = Workflow(tmp_path_factory.mktemp("local"), long_training(epochs, mlp={}))
            local.run(WEIGHTS, "--cores", "1")
            digests[epochs] = (local.root / WEIGHTS).read_bytes()
        return digests[epochs]

    return train


@pytest.mark.parametrize("fault", ["scancel", "memory", "a node dies", "time"])
def test_a_job_that_dies_is_repeated_and_ends_in_the_same_bytes(
    slurm, undisturbed, tmp_path, record_fault, thorough, fault
):
    if fault == "time" and not thorough:
        pytest.skip("a time limit is a minute at least: make faults")
    epochs = 4 * EPOCHS if fault == "time" else EPOCHS
    workflow = Workflow(tmp_path / "cluster", long_training(epochs, mlp={}))
    limits = {"memory": ["train_run:mem_mb=450*attempt"], "time": ["train_run:runtime=attempt"]}.get(fault, [])
    process = submit(workflow, slurm, WEIGHTS, *(["--set-resources", *limits] if limits else []))
    run = workflow.root / "results/long/runs/mlp/block-0"
    if fault in ("scancel", "a node dies"):
        wait_for(lambda: any(run.glob(".resume-*/state-*")))
        job, node = jobs(slurm, workflow, "jobid", "nodelist")[-1]
        if fault == "scancel":
            slurm.ask("scancel", job)
        else:
            slurm.kill_node(node)
    finish(process)
    if fault == "a node dies":
        slurm.start_node(node)
        slurm.wait_for_node(node)

    ended = [state.split()[0] for (state,) in jobs(slurm, workflow, "state")]
    # Where a step is killed for its memory, and not its job, the job has failed: the step's log says why.
    died = {"scancel": "CANCELLED", "memory": "FAILED", "a node dies": "NODE_FAIL", "time": "TIMEOUT"}[fault]
    assert died in ended, ended
    if fault == "memory":
        said = [path.read_text() for path in (workflow.root / "results/slurm-logs/rule_train_run").glob("**/*.log")]
        assert any("exceeded memory limit" in text.lower() for text in said)
        asked = [amount for (amount,) in jobs(slurm, workflow, "reqmem")][ended.index("FAILED") :]
        # How much PyTorch takes depends on its build, and so does the number of attempts.
        assert asked == [f"{450 * attempt}M" for attempt in range(1, len(asked) + 1)]
    assert ended[-1] == "COMPLETED"
    log = (workflow.root / "results/long/logs/train_run/mlp/block-0.log").read_text()
    if fault != "memory":  # which kills it before it has begun
        assert int(re.findall(r"going on from step (\d+)", log)[-1]) > 0
    assert (workflow.root / WEIGHTS).read_bytes() == undisturbed(epochs)
    record_fault(
        "SLURM", f"a job is killed: {fault}", "repeated by itself, goes on from its last kept step, same bytes"
    )


def test_jobs_of_a_snakemake_that_was_killed_are_waited_for(slurm, undisturbed, tmp_path, record_fault):
    workflow = Workflow(tmp_path / "cluster", long_training(EPOCHS, mlp={}))
    process = submit(workflow, slurm, WEIGHTS)
    run = workflow.root / "results/long/runs/mlp/block-0"
    log = workflow.root / "results/long/logs/train_run/mlp/block-0.log"
    wait_for(lambda: any(run.glob(".resume-*/state-*")))
    (job,) = re.findall(r": process \S+?-(\d+)-\d+-job\d+$", log.read_text().splitlines()[0])
    os.kill(int(job), signal.SIGSTOP)  # or it would be done before another Snakemake has submitted
    try:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert "has ended" in workflow.ask_status()
        training = workflow.states()["train_run/mlp/block-0"]
        assert training["state"] == "running"
        assert training["where"].endswith(f"SLURM job {jobs(slurm, workflow, 'jobid')[-1][0]}")
        tidied = workflow.snakemake("clean_resume")
        assert "is kept: " in tidied.stderr, tidied.stderr
        assert any(run.glob(".resume-*/state-*"))

        assert workflow.snakemake("--unlock").returncode == 0
        again = submit(workflow, slurm, WEIGHTS)
        wait_for(lambda: "waiting for it" in text_of(log))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(job), signal.SIGCONT)
    finish(again)
    assert {state for (state,) in jobs(slurm, workflow, "state")} == {"COMPLETED"}
    resumed = int(re.findall(r"going on from step (\d+)", log.read_text())[-1])
    steps = max(map(int, re.findall(r"step-(\d+)", (workflow.root / WEIGHTS).read_text())))
    assert resumed == steps  # the second job had nothing left to do
    assert (workflow.root / WEIGHTS).read_bytes() == undisturbed(EPOCHS)
    record_fault("SLURM", "Snakemake itself is killed", "after --unlock, takes over what its jobs have made")
