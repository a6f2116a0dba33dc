"""Jobs, and Snakemake itself, are killed at random moments: what comes after is what would have come without it."""

import copy
import csv
import itertools
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from disturbed import jobs_in, made, outputs_of, remove, scripts_below, start, wait_for
from harness import FIGURES, ROOT, TINY, Workflow
from own import own_workflow

pytestmark = pytest.mark.workflow

FASHION = Path("/usr/share/datasets/fashion-mnist")

# One job of every rule, by stage: none of those in a line has another of them above it, so that all can be killed in
# one go and nothing but they runs.
LATE_FIGURES = {"data_angle_accuracy", "indicators"}
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
        "embed_layers/mlp/block-0",
        "probe_run/mlp/block-0",
        "tabulate_runs",
    ],
    "comparison": [
        "compare_runs",
        "compare_subspaces",
        "tabulate_entries",
        "compare_similarity",
        "assess_sensitivity",
    ],
    "figures": ["correlate_population", *(f"plot_{name}" for name in FIGURES if name not in LATE_FIGURES)],
    "claims": ["test_claims", *(f"plot_{name}" for name in sorted(LATE_FIGURES))],
    "report": ["write_report"],
    "own measures": ["measure_own/runs/mlp/block-0"],
    "own table": ["tabulate_own"],
    "own figure": ["plot_own/participation"],
}

# The fixture `thorough`, when tests are collected: 30 kills of each job, in portions that a worker finishes in minutes.
THOROUGH = "FEATURESPACE_FAULTS" in os.environ
PORTIONS, KILLS = (10, 3) if THOROUGH else (1, 1)
SAMPLE = {"sample": ["train_run/mlp/block-1", "dump_features/mlp/block-0", "write_study"]}
TRIED = STAGES if THOROUGH else SAMPLE
MOMENT = "SIGKILL at a random moment"
SAME = "runs again, same bytes, nothing left behind"


def study_with(stage: str, request: pytest.FixtureRequest) -> Workflow:
    """Return a study that was run to its end and has the jobs of a stage."""
    return request.getfixturevalue("own" if stage.startswith("own ") else "tiny")


def rule_of(job: str) -> str:
    """Name the rule of a job."""
    return job.partition("/")[0]


def seconds_of(workflow: Workflow, job: str) -> float:
    """Return how long a job took when nothing disturbed it, from the start of its process to its end."""
    path = workflow.root / f"results/{workflow.name}/benchmarks/{job}.tsv"
    return float(next(csv.DictReader(path.read_text().splitlines(), delimiter="\t"))["s"])


def kill_jobs(workflow: Workflow, targets: list[str], moments: dict[str, float]) -> set[str]:
    """Make targets, and kill the process of each rule when it is so many seconds old; name those that were killed."""
    process = start(workflow, *targets)
    killed = set()
    while process.poll() is None:
        for script in list(scripts_below(process.pid)):
            if script.rule not in killed and script.kill_at(moments[script.rule]):
                killed.add(script.rule)
        time.sleep(0.01)
    assert (process.returncode != 0) == bool(killed), (workflow.root / "said").read_text()
    return killed


def kill_each(
    workflow: Workflow, outputs: dict[str, list[str]], seconds: dict[str, float], seed: str, n: int
) -> dict[str, int]:
    """Kill the job of each rule n times in a row, at moments drawn from its life, run it to its end, and compare.

    Each attempt finds what the killed one before it has left, and nothing is cleaned up in between.

    Returns
    -------
    dict
        {rule: how often it was killed}: less than n if it ended too often before its moment, which is then drawn again.
    """
    draws = random.Random(seed)
    before, pending = made(workflow), workflow.pending()
    counts = dict.fromkeys(outputs, 0)
    rules = list(outputs)
    ended = set(rules)  # those whose outputs are there
    for _ in range(2 * n + 2):
        remove(workflow, [target for rule in rules if rule in ended for target in outputs[rule]])
        targets = [target for rule in rules for target in outputs[rule]]
        killed = kill_jobs(workflow, targets, {rule: draws.uniform(0, seconds[rule]) for rule in rules})
        for rule in killed:
            counts[rule] += 1
        ended = set(rules) - killed
        rules = [rule for rule, count in counts.items() if count < n]
        if not rules:
            break
    workflow.run(*(target for targets in outputs.values() for target in targets), "--cores", "1")
    assert made(workflow) == before
    assert workflow.pending() == pending
    return counts


@pytest.mark.parametrize("portion", range(PORTIONS))
@pytest.mark.parametrize("stage", TRIED)
def test_a_killed_job_runs_again_and_leaves_the_bytes_it_would_have_left(
    request, tmp_path, record_fault, stage, portion
):
    study = study_with(stage, request)
    workflow = study.copy_to(tmp_path / "killed")
    outputs = {rule_of(job): outputs_of(study, job) for job in TRIED[stage]}
    seconds = {rule_of(job): seconds_of(study, job) for job in TRIED[stage]}
    for rule, n in kill_each(workflow, outputs, seconds, f"{stage} {portion}", KILLS).items():
        assert n, f"{rule} always ended before its moment"
        record_fault(where=rule, fault=MOMENT, outcome=SAME, times=n)


@pytest.mark.skipif(not THOROUGH, reason="with `make faults` only; test_studies.py kills a training once")
@pytest.mark.parametrize("portion", range(6 if THOROUGH else 1))
def test_a_killed_training_goes_on_from_the_last_state_it_saved(tmp_path, record_fault, portion):
    study = {key: copy.deepcopy(TINY[key]) for key in ("study", "device", "datasets")}
    schedule = {"epochs": 1200, "keep_every": 50}  # long enough to save its state a few times
    study |= {"recipes": {"mlp": TINY["recipes"]["mlp"] | {"schedule": schedule, "seeds": 1}}, "figures": []}
    workflow = Workflow(tmp_path / "killed", study)
    job = "train_run/mlp/block-0"
    workflow.run("results/tiny/runs/mlp/block-0/weights.json", "--cores", "1")
    outputs, seconds = {"train_run": outputs_of(workflow, job)}, {"train_run": seconds_of(workflow, job)}
    counts = kill_each(workflow, outputs, seconds, f"long {portion}", 5)
    record_fault(where="train_run, of a long training", fault=MOMENT, outcome=SAME, times=counts["train_run"])


@pytest.mark.skipif(not THOROUGH, reason="with `make faults` only")
@pytest.mark.skipif(not FASHION.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_a_killed_retrieval_brings_the_same_files(tmp_path, record_fault):
    study = {key: copy.deepcopy(TINY[key]) for key in ("study", "device")}
    study["datasets"] = {"digits": {"kind": "fashion-mnist", "source": str(FASHION)}}
    study |= {"recipes": {"mlp": TINY["recipes"]["mlp"]}, "figures": []}
    workflow = Workflow(tmp_path / "killed", study)
    target = "data/fashion-mnist/retrieved.json"
    workflow.run(target, "--cores", "1")
    before = made(workflow, "data")
    seconds = seconds_of(workflow, "retrieve_dataset/fashion-mnist")
    draws = random.Random("retrieval")
    n = 0
    for _ in range(40):
        shutil.rmtree(workflow.root / "data")
        n += len(kill_jobs(workflow, [target], {"retrieve_dataset": draws.uniform(0, seconds)}))
        workflow.run(target, "--cores", "1")
        assert made(workflow, "data") == before
        if n == 30:
            break
    assert n
    record_fault(where="retrieve_dataset", fault=MOMENT, outcome=SAME, times=n)


@pytest.mark.skipif(not THOROUGH, reason="with `make faults` only")
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
    counts = kill_each(workflow, outputs, seconds, "weights", 30)
    record_fault(where="import_weights", fault=MOMENT, outcome=SAME, times=counts["import_weights"])


@pytest.mark.parametrize("portion", range(PORTIONS))
def test_a_killed_import_runs_again_and_leaves_the_same_bytes(tmp_path, record_fault, portion):
    workflow = own_workflow(tmp_path / "killed")
    for job in ("import_dataset/photos", "import_features/elsewhere/block-0"):
        rule, _, of = job.partition("/")
        digest = f"results/own/{'runs' if 'block' in of else 'datasets'}/{of}/"
        digest += "features.json" if "block" in of else "dataset.json"
        workflow.run(digest, "--cores", "1")
        outputs, seconds = {rule: outputs_of(workflow, job)}, {rule: seconds_of(workflow, job)}
        counts = kill_each(workflow, outputs, seconds, f"import {portion}", KILLS)
        record_fault(where=rule, fault=MOMENT, outcome=SAME, times=counts[rule])


@pytest.mark.parametrize("portion", range(PORTIONS))
@pytest.mark.parametrize("stage", TRIED)
def test_snakemake_is_killed_and_asks_for_nothing_but_to_be_unlocked(request, tmp_path, record_fault, stage, portion):
    study = study_with(stage, request)
    moments = random.Random(f"snakemake, {stage} {portion}")
    # two jobs, so that some moments lie between them
    jobs = moments.sample(TRIED[stage], min(2, len(TRIED[stage])))
    targets = [target for job in jobs for target in outputs_of(study, job)]
    life = sum(seconds_of(study, job) for job in jobs)
    before = made(study)
    workflow = study.copy_to(tmp_path / "killed")
    n = 0
    for _ in range(3):
        remove(workflow, targets)
        process = start(workflow, *targets)
        wait_for(lambda process=process: process.poll() is not None or list(scripts_below(process.pid)))
        time.sleep(moments.uniform(0, life))
        is_alive = process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        # the jobs die with it: nothing writes into the study while it is started again
        wait_for(lambda: not jobs_in(workflow.root))
        if is_alive:
            n += 1
            refused = workflow.snakemake(*targets, "--cores", "1")
            assert refused.returncode != 0
            assert "--unlock" in refused.stderr
            assert workflow.snakemake("--unlock").returncode == 0
        workflow.run(*targets, "--cores", "1")
        assert made(workflow) == before
        if n:
            break
    assert n, "Snakemake always ended before its moment"
    assert workflow.pending() == set()
    record_fault(where=f"Snakemake, at its {stage} jobs", fault=MOMENT, outcome=f"asks for `--unlock`, {SAME}")


def test_every_rule_that_makes_something_is_among_those_that_are_killed():
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    own_tests = {"retrieve_dataset", "import_weights", "import_dataset", "import_features"}  # killed above
    assert scripts - {rule_of(job) for job in itertools.chain(*STAGES.values())} == {
        *own_tests,
        *("verify", "clean_resume"),
    }
