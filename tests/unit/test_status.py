"""How far a study is, and what may be tidied up, told from logs and files alone."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from featurespace import status
from featurespace.errors import FeaturespaceError
from featurespace.files import PROCESS, start_of, this_process
from featurespace.leftovers import clean_resume, process_of, worker_on
from featurespace.status import JOBS, JobNote, duration, in_words, main, note, read_status

LOGS, TABLES = Path("results/s/logs"), Path("results/s/tables")
DEAD = f"{socket.gethostname()}-{os.getpid()}-1"  # this pid, which another process had at the beginning of time
ELSEWHERE = "elsewhere-12-34"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty directory in which nothing was run."""
    monkeypatch.chdir(tmp_path)
    LOGS.mkdir(parents=True)
    TABLES.mkdir(parents=True)
    return tmp_path


def record(text: str, level: str = "INFO", ago: float = 0.0) -> str:
    """Write a log record as a job does."""
    when = datetime.fromtimestamp(time.time() - ago).strftime("%Y-%m-%d %H:%M:%S,%f")[:23]
    return f"{when} {level} featurespace.script: {text}\n"


def job(name: str, rule: str = "train_run", pending: bool = True) -> JobNote:
    """Describe a job that makes one table."""
    place = f"{rule}/{name}"
    return JobNote(rule, str(LOGS / f"{place}.log"), f"results/s/benchmarks/{place}.tsv", [table_of(place)], 1, pending)


def table_of(place: str) -> str:
    return str(TABLES / f"{place.replace('/', '-')}.csv")


def log_of(given: JobNote, *records: str, process: str = DEAD) -> None:
    """Write a job's log."""
    path = Path(given.log)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(record(f"process {process}") + "".join(records))


def make(given: JobNote, seconds: float | None = None) -> None:
    """Make what a job makes, and its benchmark."""
    Path(given.outputs[0]).write_text("made")
    if seconds is not None:
        path = Path(given.benchmark)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:10\t-\n")


def ask(*jobs: JobNote, cores: int | None = 2) -> status.StudyStatus:
    """Note jobs, as a minute ago, and ask how far they are."""
    note(LOGS / JOBS, jobs, cores)
    start = json.loads((LOGS / JOBS).read_text())
    (LOGS / JOBS).write_text(json.dumps(start | {"started": time.time() - 60}))
    return read_status("s")


def test_before_anything_was_run_it_says_so(here, capsys):
    Path("study.yaml").write_text("study: s\n")
    assert main(["--configfile", "study.yaml"]) == 1
    assert capsys.readouterr().err == "featurespace: study s: nothing has been run; `snakemake -n` says what would be\n"


@pytest.mark.parametrize("text", ["", "recipes: {}\n", "study: [\n"])
def test_a_file_that_is_no_study_is_named(here, capsys, text):
    Path("study.yaml").write_text(text)
    assert main(["--configfile", "study.yaml"]) == 1
    assert "study.yaml: no study file" in capsys.readouterr().err
    assert main(["--configfile", "nowhere.yaml"]) == 1
    assert "nowhere.yaml: No such file" in capsys.readouterr().err


def test_a_list_of_jobs_that_is_damaged_is_named(here):
    (LOGS / JOBS).write_text('{"process": "x", "jobs": [{"rule"')
    with pytest.raises(FeaturespaceError, match=r"\.jobs\.json cannot be read"):
        read_status("s")


def test_each_state_is_told_from_what_a_job_has_left(here):
    names = ("made", "kept", "failed", "killed", "works", "far", "queue", "gone")
    jobs = {name: job(name, pending=name != "kept") for name in names}
    make(jobs["made"])
    make(jobs["kept"])
    os.utime(jobs["kept"].outputs[0], (1, 1))  # long before this start, which does not ask for it
    log_of(jobs["failed"], record("featurespace: no seed is finite", "ERROR"), "Traceback (most …\n")
    log_of(jobs["killed"], record("training x, seed 0: 3/9 [00:10<00:20, 1.00step/s]"))
    log_of(jobs["works"], record("training x, seed 0: 30/90 [00:10<01:20, 1.00step/s]", ago=20), process=this_process())
    log_of(jobs["far"], process=ELSEWHERE)
    log_of(jobs["gone"], record("started in 1.00 s, computed for 2.00 s"))
    found = {told.job.removeprefix("train_run/"): told for told in ask(*jobs.values()).jobs}
    assert {name: told.state for name, told in found.items()} == {
        "made": "done",
        "kept": "done",
        "failed": "failed",
        "killed": "stopped",
        "works": "running",
        "far": "running",
        "queue": "waiting",
        "gone": "waiting",
    }
    assert found["failed"].message == "featurespace: no seed is finite"
    assert found["works"].where == f"{socket.gethostname()}, process {os.getpid()}"
    assert (found["works"].doing, found["works"].n_done, found["works"].n_total) == ("training x, seed 0", 30, 90)
    assert found["works"].seconds_left == pytest.approx(60, abs=2)  # 80, as it said 20 seconds ago
    assert "only elsewhere can tell" in found["far"].where


def test_what_an_earlier_start_has_left_of_a_job_that_is_to_run_counts_for_nothing(here):
    stale, failed = job("stale"), job("failed")
    make(stale)
    log_of(failed, record("featurespace: no seed is finite", "ERROR"))
    for path in (stale.outputs[0], failed.log):
        os.utime(path, (1, 1))
    assert {told.state for told in ask(stale, failed).jobs} == {"waiting"}


def test_a_job_that_makes_nothing_is_done_when_its_log_says_so(here):
    verify = JobNote("verify", str(LOGS / "verify.log"), "", [], 1, True)
    log_of(verify, record("started in 1.00 s, computed for 2.00 s"))
    assert [told.state for told in ask(verify).jobs] == ["done"]


def test_slurm_is_asked_once_which_of_its_jobs_are_alive(here, monkeypatch):
    (here / "bin").mkdir()
    squeue = here / "bin/squeue"
    squeue.write_text('#!/bin/sh\necho "$@" >> asked\necho "7 RUNNING"\necho "8 PENDING"\n')
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{here / 'bin'}:{os.environ['PATH']}")
    jobs = [job(f"on-{number}") for number in (7, 8, 9)]
    for given, number in zip(jobs, (7, 8, 9), strict=True):
        log_of(given, process=f"node{number}-12-34-job{number}")
    told = ask(*jobs, cores=None)
    assert [found.state for found in told.jobs] == ["running", "stopped", "stopped"]
    assert told.jobs[0].where == "node7, process 12, SLURM job 7"
    asked = Path("asked").read_text().splitlines()
    assert len(asked) == 1
    assert "--jobs=7,8,9" in asked[0]


def test_the_time_left_is_the_work_to_come_over_the_cores(here):
    jobs = [job(f"made-{i}") for i in range(4)] + [job(f"queue-{i}") for i in range(6)]
    for given, seconds in zip(jobs, (10, 20, 30, 40), strict=False):
        make(given, seconds)
    told = ask(*jobs)
    assert told.mean_seconds == {"train_run": 25.0}
    assert (told.seconds_left, told.n_untimed) == (6 * 25 / 2, 0)
    assert ask(*jobs, cores=None).seconds_left == 6 * 25  # on a cluster: as many at once as there are now, or one
    told = ask(*jobs, job("late", rule="plot_layers"))
    assert (told.seconds_left, told.n_untimed) == (6 * 25 / 2, 1)
    assert "; at least 75 s left: 1 job is of rules of which none has ended" in in_words(told)
    # no less than one job that takes longer than the rest together
    log_of(long := job("long"), record("training: 1/9 [00:10<10:00, 1.00step/s]"), process=this_process())
    assert ask(*jobs, long).seconds_left == pytest.approx(600, abs=2)
    for given in jobs:
        make(given, 25)
    assert ask(*jobs).seconds_left is None


def test_it_is_said_in_words_and_for_a_program(here, capsys):
    jobs = [job("a"), job("b"), job("c")]
    make(jobs[0], 100)
    log_of(jobs[1], record("training b: 30/90 [00:10<01:20, 1.00step/s]"), process=this_process())
    log_of(jobs[2], record("featurespace: no seed is finite", "ERROR"))
    note(LOGS / JOBS, jobs, 2)
    Path("study.yaml").write_text("study: s\n")
    assert main(["--configfile", "study.yaml"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("study s: 1 of 3 jobs done, 1 running, 1 failed; about 80 s left\n")
    assert re.search(r"^train_run +3 +1 +1 +1 +2 min$", said, re.MULTILINE)
    assert "training b: 30 of 90 (33 %), about 80 s left" in said
    assert f"    featurespace: no seed is finite\n    {jobs[2].log}" in said
    assert ": at work" in said
    assert main(["--configfile", "study.yaml", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["counts"] == {"done": 1, "running": 1, "failed": 1}
    assert told["jobs"][1]["n_total"] == 90


def test_watching_ends_when_snakemake_has(here, capsys):
    note(LOGS / JOBS, [job("a")], 2)
    start = json.loads((LOGS / JOBS).read_text())
    (LOGS / JOBS).write_text(json.dumps(start | {"process": DEAD}))
    Path("study.yaml").write_text("study: s\n")
    assert main(["--configfile", "study.yaml", "--watch", "0.01"]) == 0
    assert "has ended; the same command goes on" in capsys.readouterr().out


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_who_has_read_enough_of_it_ends_it_without_a_word(here, options):
    note(LOGS / JOBS, [job("a")], 2)
    Path("study.yaml").write_text("study: s\n")
    reader, writer = os.pipe()
    os.close(reader)  # as `head` does
    command = [sys.executable, "-m", "featurespace.status", "--configfile", "study.yaml", *options]
    folder = str(Path(status.__file__).parents[1])
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env={"PYTHONPATH": folder}, check=False)
    os.close(writer)
    assert (done.stderr, done.returncode) == (b"", 141)


def test_of_many_jobs_a_few_are_named(here):
    jobs = [job(f"{rule}-{i}", rule) for rule in ("train_run", "measure") for i in range(50)]
    for given in jobs[:60]:
        log_of(given, record("featurespace: no seed is finite", "ERROR"))
    told = ask(*jobs)
    assert told.counts == {"failed": 60, "waiting": 40}
    assert "and 40 more" in in_words(told)
    assert len(in_words(told).splitlines()) < 80


def test_neither_torch_nor_a_store_is_imported():
    code = (
        "import sys, featurespace.status; print([m for m in ('torch', 'zarr', 'pandas', 'numpy') if m in sys.modules])"
    )
    folder = str(Path(status.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": folder}, capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"


@pytest.mark.parametrize(
    ("seconds", "text"), [(8, "8 s"), (600, "10 min"), (3 * 3600, "3.0 h"), (3 * 86400, "3.0 days")]
)
def test_times_are_written_as_one_reads_them(seconds, text):
    assert duration(seconds) == text


# --- tidying up -------------------------------------------------------------------------------------------------------


def resume_of(recipe: str, *records: str, process: str | None = None) -> Path:
    """Make the folder that a training grew in, beside its weights, and its log."""
    run = Path(f"results/s/runs/{recipe}/block-0")
    folder = run / ".resume-0123"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights/step").write_bytes(b"x" * 1000)
    (run / "weights").mkdir()
    (run / "weights.json").write_text("{}")
    if process:
        log = LOGS / f"train_run/{recipe}/block-0.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(record(f"process {process}") + "".join(records))
    return folder


def test_what_killed_trainings_left_is_deleted_and_nothing_else(here):
    killed = [resume_of("killed", process=DEAD), resume_of("nameless"), resume_of("failed", process=DEAD)]
    kept = [resume_of("works", process=this_process()), resume_of("far", process=ELSEWHERE), resume_of("ended")]
    (kept[2] / "ended").touch()
    deleted, n_bytes = clean_resume(Path("results/s"))
    assert set(deleted) == set(killed)
    assert n_bytes == 3000
    assert not any(folder.exists() for folder in killed)
    assert all((folder / "weights/step").exists() for folder in kept)
    assert all((folder.parent / "weights.json").exists() for folder in (*killed, *kept))
    assert clean_resume(Path("results/s")) == ([], 0)


def test_a_training_that_slurm_runs_on_after_its_snakemake_has_died_is_left_alone(here, monkeypatch):
    folder = resume_of("works", process="node1-12-34-job7")
    (LOGS / "train_run/works/.block-0.log.job").write_text("7")
    monkeypatch.setattr("featurespace.leftovers.is_alive", lambda number: number == "7")
    assert clean_resume(Path("results/s")) == ([], 0)
    assert folder.exists()
    monkeypatch.setattr("featurespace.leftovers.is_alive", lambda number: False)
    monkeypatch.setattr("featurespace.files.is_alive", lambda number: False)
    assert clean_resume(Path("results/s"))[0] == [folder]


def test_a_training_that_begins_at_this_very_moment_gets_its_folder_back(here, monkeypatch):
    folder = resume_of("begins", process=DEAD)
    answers = iter([None, "process 12 on here"])
    monkeypatch.setattr("featurespace.leftovers.worker_on", lambda log: next(answers))
    assert clean_resume(Path("results/s")) == ([], 0)
    assert (folder / "weights/step").exists()


def test_a_log_names_its_process(here):
    given = job("a")
    assert process_of(Path(given.log)) is None
    log_of(given, process=this_process())
    assert process_of(Path(given.log)) == this_process()
    assert worker_on(Path(given.log)) == f"process {os.getpid()} on {socket.gethostname()}"
    owner = PROCESS.fullmatch(this_process())
    assert owner["start"] == start_of(os.getpid())
    Path(given.log).write_text("an older log\n")
    assert process_of(Path(given.log)) is None
    assert worker_on(Path(given.log)) is None
