"""Jobs, and Snakemake itself, are killed at random moments: what comes after is what would have come without it."""

import copy
import csv
import itertools
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from disturbed import Runner, jobs_in, made, outputs_of, remove, scripts_below, start, wait_for
from harness import FIGURES, ROOT, TINY, Workflow
from own import own_workflow

THOROUGH = "FEATURESPACE_FAULTS" in os.environ  # the fixture `thorough`, when tests are collected
pytestmark = [pytest.mark.workflow, *([pytest.mark.timeout(7200)] if THOROUGH else [])]
only_thorough = pytest.mark.skipif(not THOROUGH, reason="with `make faults` only")
FASHION = Path("/usr/share/datasets/fashion-mnist")

# One job of every rule, by stage: none of those in a line has another of them above it, so that all can be killed in
# one go and nothing but they runs.
LATE_FIGURES = {"data_angle_accuracy", "indicators"}
PLOTS = ["correlate_population", *(f"plot_{name}" for name in FIGURES if name not in LATE_FIGURES)]
STAGES = {
    "data": ["prepare_dataset/digits", "write_study"],
    "training": ["dump_inputs/digits", "train_run/mlp/block-0"],
    "features": ["dump_features/mlp/block-0", "dump_ends/mlp/block-0", "draw_noise/chance/block-0"],
    "analysis": [
        "decompose_features/runs/mlp/block-0",
        "measure_layers/runs/mlp/block-0",
        "measure_networks/mlp/block-0",
        "predict_layers/line/block-0",
        "probe_layers/mlp/block-0",
        "probe_run/mlp/block-0",
        "tabulate_runs",
        "embed_layers/mlp/block-0",
    ],
    "comparison": [
        "compare_runs",
        "compare_subspaces",
        "tabulate_entries",
        "compare_similarity",
        "assess_sensitivity",
    ],
    **{f"figures, part {i + 1}": PLOTS[i::3] for i in range(3)},  # three of like size, for as many test workers
    "claims": ["test_claims", *(f"plot_{name}" for name in sorted(LATE_FIGURES))],
    "report": ["write_report"],
    "own measures": ["measure_own/runs/mlp/block-0"],
    "own table": ["tabulate_own"],
    "own figure": ["plot_own/participation"],
}

KILLS, KILLS_OF_SNAKEMAKE = (30, 4) if THOROUGH else (3, 1)  # of each job; at the jobs of each stage
SAMPLE = {"sample": ["train_run/mlp/block-1", "dump_features/mlp/block-0", "write_study"]}
TRIED = STAGES if THOROUGH else SAMPLE
MOMENT = "SIGKILL at a random moment"
SAME = "runs again, same bytes, nothing left behind"


def study_with(stage: str, request: pytest.FixtureRequest) -> Workflow:
    """Return a study that was run to its end and has the jobs of a stage."""
    study: Workflow = request.getfixturevalue("own" if stage.startswith("own ") else "tiny")
    return study


def rule_of(job: str) -> str:
    """Name the rule of a job."""
    return job.partition("/")[0]


def seconds_of(workflow: Workflow, job: str) -> float:
    """Return how long a job took when nothing disturbed it, from the start of its process to its end."""
    path = workflow.root / "results" / workflow.name / "benchmarks" / f"{job}.tsv"
    return float(next(csv.DictReader(path.read_text().splitlines(), delimiter="\t"))["s"])


def script_of(workflow: Workflow, rule: str) -> Path:
    """Say where `make` puts the script of a rule's job."""
    return workflow.root / "scripts-of-jobs" / f"{rule}.py"


def make(workflow: Workflow, targets: list[str], moments: dict[str, float]) -> set[str]:
    """Make targets, and kill the process of each rule that has a moment when it is so many seconds old.

    The scripts of the jobs, as Snakemake makes them of a rule and its parameters, are kept.

    Returns
    -------
    set
        The rules of which a process was killed.
    """
    script_of(workflow, "any").parent.mkdir(exist_ok=True)
    process = start(workflow, *targets)
    killed = set()
    while process.poll() is None:
        for script in list(scripts_below(process.pid)):
            if not (kept := script_of(workflow, script.rule)).exists():
                with suppress(FileNotFoundError):  # it has ended
                    shutil.copyfile(script.path, kept)
            if script.rule in moments and script.rule not in killed and script.kill_at(moments[script.rule]):
                killed.add(script.rule)
        time.sleep(0.01)
    assert (process.returncode != 0) == bool(killed), (workflow.root / "said").read_text()
    return killed


def kill_each(
    workflow: Workflow,
    outputs: dict[str, list[str]],
    seconds: dict[str, float],
    n: int,
    folder: str = "",
    modules: str = "",
    undeclared: Sequence[str] = (),
) -> Iterator[tuple[str, int]]:
    """Kill the job of each rule n times, at moments drawn from its life, and compare what it makes in the end.

    Once Snakemake runs the jobs, which are killed, and is then run again. Then their scripts are run without it and
    killed several times in a row: each attempt finds what the one before it has left, and nothing is cleaned up.

    Parameters
    ----------
    outputs
        {rule: what its job makes}, all of it, as targets.
    seconds
        {rule: how long its job takes}.
    folder
        What is compared; the study's results.
    modules
        What scripts import in the middle of their work.
    undeclared
        What the jobs make besides: Snakemake is not asked for it.

    Yields
    ------
    tuple
        Each rule, and how often it was killed.
    """
    draws = random.Random(" ".join(outputs))
    before, pending = made(workflow, folder), workflow.pending()
    targets = [target for files in outputs.values() for target in files]
    remove(workflow, [*targets, *undeclared])
    killed = make(workflow, targets, {rule: draws.uniform(0, seconds[rule]) for rule in outputs})
    make(workflow, targets, {})
    assert made(workflow, folder) == before
    assert workflow.pending() == pending
    with Runner(workflow.root, modules) as runner:
        for rule, files in outputs.items():
            count = int(rule in killed)
            remove(workflow, [*files, *undeclared])
            _, life = runner.run(script_of(workflow, rule))
            remove(workflow, [*files, *undeclared])
            for _ in range(3 * n):
                status, lived = runner.run(script_of(workflow, rule), draws.uniform(0, life))
                if status:
                    count += 1
                else:  # it was quicker this time, and ended before its moment
                    life = min(life, lived)
                    remove(workflow, [*files, *undeclared])
                if count == n:
                    break
            runner.run(script_of(workflow, rule))
            assert made(workflow, folder) == before, rule
            assert count == n, f"{rule} ended too often before its moment"
            yield rule, count


@pytest.mark.parametrize("stage", TRIED)
def test_a_killed_job_runs_again_and_leaves_the_bytes_it_would_have_left(request, tmp_path, record_fault, stage):
    study = study_with(stage, request)
    workflow = study.copy_to(tmp_path / "killed")
    outputs = {rule_of(job): outputs_of(study, job) for job in TRIED[stage]}
    seconds = {rule_of(job): seconds_of(study, job) for job in TRIED[stage]}
    modules = "umap" if "embed_layers" in outputs else ""
    for rule, n in kill_each(workflow, outputs, seconds, KILLS, modules=modules):
        record_fault(where=rule, fault=MOMENT, outcome=SAME, times=n)


@only_thorough  # test_studies.py kills such a training once
def test_a_killed_training_goes_on_from_the_last_state_it_saved(tmp_path, record_fault):
    study = {key: copy.deepcopy(TINY[key]) for key in ("study", "device", "datasets")}
    schedule = {"epochs": 1200, "keep_every": 50}  # long enough to save its state a few times
    study |= {"recipes": {"mlp": TINY["recipes"]["mlp"] | {"schedule": schedule, "seeds": 1}}, "figures": []}
    workflow = Workflow(tmp_path / "killed", study)
    job = "train_run/mlp/block-0"
    workflow.run("results/tiny/runs/mlp/block-0/weights.json", "--cores", "1")
    outputs, seconds = {"train_run": outputs_of(workflow, job)}, {"train_run": seconds_of(workflow, job)}
    for rule, n in kill_each(workflow, outputs, seconds, KILLS):
        record_fault(where=f"{rule}, of a long training", fault=MOMENT, outcome=SAME, times=n)


@only_thorough
@pytest.mark.skipif(not FASHION.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_a_killed_retrieval_brings_the_same_files(tmp_path, record_fault):
    study = {key: copy.deepcopy(TINY[key]) for key in ("study", "device")}
    study["datasets"] = {"digits": {"kind": "fashion-mnist", "source": str(FASHION)}}
    study |= {"recipes": {"mlp": TINY["recipes"]["mlp"]}, "figures": []}
    workflow = Workflow(tmp_path / "killed", study)
    listed, published = "data/fashion-mnist/retrieved.json", sorted(FASHION.glob("*.gz"))
    workflow.run(listed, "--cores", "1")
    files = [f"data/fashion-mnist/{path.name}" for path in published]
    outputs = {"retrieve_dataset": [listed]}
    seconds = {"retrieve_dataset": seconds_of(workflow, "retrieve_dataset/fashion-mnist")}
    for rule, n in kill_each(workflow, outputs, seconds, KILLS, folder="data", undeclared=files):
        record_fault(where=rule, fault=MOMENT, outcome=SAME, times=n)


@only_thorough
def test_a_killed_import_of_weights_brings_the_same(tiny, tmp_path, record_fault):
    study = {key: copy.deepcopy(TINY[key]) for key in ("study", "device", "datasets")}
    checkpoints = sorted((tiny.root / "results/tiny/runs/mlp/block-0/weights/seed-0").iterdir())
    weights = [{"step": i, "file": str(path)} for i, path in enumerate(checkpoints)]
    network = {"dataset": "digits", "model": TINY["recipes"]["mlp"]["model"], "weights": weights}
    study |= {"recipes": {"saved": network}, "figures": []}
    workflow = Workflow(tmp_path / "killed", study)
    job = "import_weights/saved/block-0"
    workflow.run("results/tiny/runs/saved/block-0/weights.json", "--cores", "1")
    outputs, seconds = {"import_weights": outputs_of(workflow, job)}, {"import_weights": seconds_of(workflow, job)}
    for rule, n in kill_each(workflow, outputs, seconds, KILLS):
        record_fault(where=rule, fault=MOMENT, outcome=SAME, times=n)


@only_thorough
@pytest.mark.parametrize("job", ["import_dataset/photos", "import_features/elsewhere/block-0"])
def test_a_killed_import_of_data_brings_the_same(tmp_path, record_fault, job):
    workflow = own_workflow(tmp_path / "killed")
    rule, _, of = job.partition("/")
    target = f"runs/{of}/features.json" if rule == "import_features" else f"datasets/{of}/dataset.json"
    workflow.run(f"results/{workflow.name}/{target}", "--cores", "1")
    outputs, seconds = {rule: outputs_of(workflow, job)}, {rule: seconds_of(workflow, job)}
    for rule, n in kill_each(workflow, outputs, seconds, KILLS):
        record_fault(where=rule, fault=MOMENT, outcome=SAME, times=n)


def kill_snakemake(workflow: Workflow, targets: list[str], moment: float) -> tuple[bool, float]:
    """Kill Snakemake so many seconds after its first job has begun.

    Returns
    -------
    held_lock, seconds
        Whether it had not ended yet, nor let go of the directory, which it does before it ends; and for how long it ran
        after its first job had begun.
    """
    process = start(workflow, *targets)
    wait_for(lambda: process.poll() is not None or list(scripts_below(process.pid)))
    began = time.monotonic()
    with suppress(subprocess.TimeoutExpired):
        process.wait(moment)
    seconds = time.monotonic() - began
    held_lock = False
    if process.poll() is None:
        # Stopped, so that the lock that is seen is the lock it dies with.
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        held_lock = any((workflow.root / ".snakemake/locks").glob("*.output.lock"))
        process.kill()
    process.wait()
    # the jobs die with it: nothing writes into the study while it is started again
    wait_for(lambda: not jobs_in(workflow.root))
    return held_lock, seconds


@pytest.mark.parametrize("stage", TRIED)
def test_snakemake_is_killed_and_asks_for_nothing_but_to_be_unlocked(request, tmp_path, record_fault, stage):
    study = study_with(stage, request)
    moments = random.Random(f"snakemake, {stage}")
    jobs = moments.sample(TRIED[stage], min(2, len(TRIED[stage])))  # two, so that some moments lie between them
    targets = [target for job in jobs for target in outputs_of(study, job)]
    before = made(study)
    workflow = study.copy_to(tmp_path / "killed")
    remove(workflow, targets)
    n, life = 0, sum(seconds_of(study, job) for job in jobs)
    for _ in range(3 * KILLS_OF_SNAKEMAKE + 7):
        held_lock, lived = kill_snakemake(workflow, targets, moments.uniform(0, life))
        if held_lock:
            n += 1
            status, _, said = workflow.ask(*targets, "--cores", "1")
            assert status != 0
            assert "--unlock" in said
            assert workflow.ask("--unlock")[0] == 0
        else:  # it had ended, on a machine that has more time for it than the one that made `tiny`
            life = min(life, lived)
            workflow.run(*targets, "--cores", "1")
            assert made(workflow) == before
            remove(workflow, targets)
        if n == KILLS_OF_SNAKEMAKE:
            break
    assert n == KILLS_OF_SNAKEMAKE, "Snakemake always ended before its moment"
    workflow.run(*targets, "--cores", "1")
    assert made(workflow) == before
    assert workflow.pending() == set()
    record_fault(where=f"Snakemake, at its {stage} jobs", fault=MOMENT, outcome=f"asks for `--unlock`, {SAME}", times=n)


def test_a_job_that_is_still_starting_when_snakemake_is_killed_does_nothing(tiny, tmp_path, record_fault):
    workflow = tiny.copy_to(tmp_path / "killed")
    job = "dump_features/mlp/block-0"
    targets = outputs_of(tiny, job)
    remove(workflow, targets)
    process = start(workflow, *targets)
    wait_for(lambda: list(scripts_below(process.pid)))
    process.kill()  # while the job imports what it needs, and knows of no parent yet
    process.wait()
    wait_for(lambda: not jobs_in(workflow.root))
    assert not any((workflow.root / target).exists() for target in targets)
    record_fault(rule_of(job), "Snakemake is killed while the job starts", "the job ends too, and writes nothing")


def test_every_rule_that_makes_something_is_among_those_that_are_killed():
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    by_themselves = {"retrieve_dataset", "import_dataset", "import_weights", "import_features"}  # tests of their own
    make_no_result = {"verify", "clean_resume", "publish_figure"}  # the last one copies a figure for the documentation
    in_stages = {rule_of(job) for job in itertools.chain(*STAGES.values())}
    assert scripts - in_stages == by_themselves | make_no_result
