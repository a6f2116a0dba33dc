"""What one asks for by a word, what is said of it, and how far a study is while it runs and after it was killed."""

import copy
import json
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from disturbed import jobs_in, start, wait_for
from harness import ROOT, TINY, Workflow

pytestmark = pytest.mark.workflow

LOG = "results/tiny/logs/train_run/long/block-0.log"
TARGETS = ("all", "datasets", "train", "features", "spectra", "figures", "report", "verify", "clean_resume")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Workflow:
    """The tiny study, of which nothing was run."""
    return Workflow(tmp_path_factory.mktemp("targets") / "fresh", TINY)


def rules(jobs: set[str]) -> set[str]:
    """Name the rules of jobs."""
    return {job.partition("/")[0] for job in jobs}


def test_each_target_asks_for_its_stage(fresh):
    datasets = {"prepare_dataset/digits", "prepare_dataset/rows"}
    assert fresh.pending("datasets") == datasets
    training = {f"train_run/{run}" for run in ("mlp/block-0", "mlp/block-1", "seen/block-0", "line/block-0")}
    training |= {"train_run/few-01/block-0"}
    assert fresh.pending("train") == datasets | training | {"tabulate_runs"}
    dumping = {"dump_features", "dump_inputs", "draw_noise"}
    assert rules(fresh.pending("features")) == {"prepare_dataset", "train_run"} | dumping
    assert rules(fresh.pending("spectra")) == {"prepare_dataset", "train_run", "decompose_features"} | dumping
    everything = fresh.pending()
    assert {job for job in fresh.pending("figures") if job.startswith("plot_")} == {
        job for job in everything if job.startswith("plot_")
    }
    assert fresh.pending("results/tiny/figures/training.svg") == datasets | {"plot_training"} | {
        job for job in training if "few" not in job
    }


def test_the_list_says_something_of_every_rule(fresh):
    listed = fresh.snakemake("--list").stdout.splitlines()
    assert all(line.endswith(".)") for line in listed), [line for line in listed if not line.endswith(".)")]
    assert {line.partition(" ")[0] for line in listed} >= set(TARGETS)


def test_the_live_view_has_the_terminal_for_itself(tmp_path):
    workflow = Workflow(tmp_path / "rich", TINY)
    done = workflow.snakemake("results/tiny/datasets/rows/dataset.json", "--logger", "rich")
    assert done.returncode == 0, done.stderr
    assert "Finished" in done.stderr
    assert "INFO featurespace" not in done.stdout + done.stderr
    log = workflow.root / "results/tiny/logs/prepare_dataset/rows.log"
    assert "INFO featurespace" in log.read_text()


# --- how far a study is -----------------------------------------------------------------------------------------------


def long_study() -> dict[str, Any]:
    """One training of some minutes, and one that fails at once."""
    study = {key: copy.deepcopy(TINY[key]) for key in ("study", "device", "datasets")}
    schedule = {"epochs": 100_000, "keep_every": 100}
    long = TINY["recipes"]["mlp"] | {"schedule": schedule, "seeds": 1}
    fails = copy.deepcopy(TINY["recipes"]["line"]) | {"optimiser": {"kind": "sgd", "learning_rate": 1e30}}
    fails["schedule"] |= {"epochs": 20}
    return study | {"recipes": {"fails": fails, "long": long}, "figures": ["training"]}


@pytest.fixture
def at_work(tmp_path) -> Iterator[tuple[Workflow, "subprocess.Popen[str]"]]:
    """A study at work on a long training, and its Snakemake."""
    workflow = Workflow(tmp_path / "long", long_study())
    assert "nothing has been run" in workflow.ask_status()
    process = start(workflow, "train")
    try:
        # progress lines come every ten seconds
        wait_for(lambda: (workflow.root / LOG).exists() and "step/s" in (workflow.root / LOG).read_text(), 180)
        yield workflow, process
    finally:
        process.kill()
        process.wait()
        wait_for(lambda: not jobs_in(workflow.root))


def test_a_study_is_followed_while_it_runs_is_killed_and_is_tidied_up(at_work):
    workflow, process = at_work
    run = workflow.root / "results/tiny/runs/long/block-0"

    now = workflow.states()
    if now["train_run/fails/block-0"]["state"] != "waiting":  # it is that one's turn before or after
        assert now["train_run/fails/block-0"]["state"] == "failed"
        assert "step" in now["train_run/fails/block-0"]["message"]
    training = now["train_run/long/block-0"]
    assert training["state"] == "running"
    assert training["where"].partition(", process ")[2] in jobs_in(workflow.root)
    assert 0 < training["n_done"] < training["n_total"]
    assert training["seconds_left"] > 0
    assert now["prepare_dataset/digits"]["state"] == "done"
    assert now["tabulate_runs"]["state"] == "waiting"
    assert f"of {training['n_total']} (" in workflow.ask_status()

    # what a training at work needs is left to it
    assert list(run.glob(".resume-*"))
    done = workflow.snakemake("clean_resume")
    assert done.returncode == 0
    assert f"is kept: process {training['where'].rpartition(' ')[2]}" in done.stderr
    assert list(run.glob(".resume-*"))
    assert workflow.states()["train_run/long/block-0"]["state"] == "running"

    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not jobs_in(workflow.root))
    assert workflow.states()["train_run/long/block-0"]["state"] == "stopped"
    assert "has ended; the same command goes on" in workflow.ask_status()

    before = files_of(workflow)
    done = workflow.snakemake("clean_resume")
    assert done.returncode == 0, done.stderr
    assert "runs/long/block-0/.resume-" in done.stderr
    assert "left-over states of killed trainings deleted" in done.stderr
    gone = before - files_of(workflow)
    assert gone
    assert all("/.resume-" in path for path in gone)
    assert not list(run.glob(".resume-*"))


def files_of(workflow: Workflow) -> set[str]:
    """List everything below the study's results."""
    return {path.as_posix() for path in (workflow.root / "results").rglob("*")}


def test_of_a_study_that_has_ended_everything_is_done(tiny):
    status = json.loads(tiny.ask_status("--json"))
    assert set(status["counts"]) == {"done"}
    assert status["is_at_work"] is False
    assert status["seconds_left"] is None
    assert len(status["jobs"]) == len({job["job"] for job in status["jobs"]}) > 60
    assert "of rules" not in tiny.ask_status()


def test_the_command_is_there_for_a_user():
    script = ROOT / "scripts/status"
    assert script.stat().st_mode & 0o111
    assert "-m featurespace.status" in script.read_text()
    assert "scripts/status" in (ROOT / "docs/how-to/watch.md").read_text()
    assert (ROOT / "Makefile").read_text().count("scripts/status") == 1
