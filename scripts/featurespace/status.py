"""How far a study is, from what lies on the disk: while Snakemake runs, after it died, and from any node of a cluster.

Snakemake writes down which jobs it has set out to do (`note`, called as it starts). Everything else is in what jobs
leave: the first record of a log names the process that writes it, progress lines say how far it is, and outputs are
whole or absent. No store is opened.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from featurespace.cluster import ALIVE
from featurespace.errors import FeaturespaceError
from featurespace.files import PROCESS, start_of, this_process, write_json
from featurespace.leftovers import process_of

JOBS = ".jobs.json"  # in a study's logs: what Snakemake set out to do
TAIL_BYTES = 64 * 1024  # of a log, a traceback included
TIMED_JOBS = 50  # of a rule, whose times are averaged
SLACK_SECONDS = 2.0  # between the clocks of a node and of the file system
LISTED = 20  # jobs that are named under each heading

State = Literal["done", "running", "failed", "stopped", "waiting"]
STATES: tuple[State, ...] = get_args(State)
PROGRESS = re.compile(r"(?P<what>[^:]+(?:: [^:]+)*): (?P<n>\d+)/(?P<total>\d+) \[(?P<elapsed>[\d:]+)<(?P<left>[\d:?]+)")


@dataclass(frozen=True)
class JobNote:
    """What Snakemake knows of a job before it begins; `outputs` are files alone, and only those that stay."""

    rule: str
    log: str
    benchmark: str
    outputs: list[str]
    threads: int
    is_pending: bool


@dataclass
class JobStatus:
    """How far a job is.

    Attributes
    ----------
    job
        Its rule, and what of: `train_run/mlp/block-0`.
    state
        `stopped`: it began, and was killed; `waiting`: not begun.
    where
        The machine, the process and the SLURM job that work on it.
    n_done, n_total, doing
        Of its own progress line.
    seconds_left
        By its progress line, or by how long others of its rule took; None if neither tells.
    message
        Of a job that failed: what it said.
    """

    job: str
    rule: str
    state: State
    log: str
    where: str = ""
    doing: str = ""
    n_done: int | None = None
    n_total: int | None = None
    seconds_left: float | None = None
    message: str = ""


@dataclass
class StudyStatus:
    """How far a study is.

    Attributes
    ----------
    study
        Its name.
    started, process, is_at_work
        When Snakemake was last started on it, its main process, and whether that is at work: None if it is on another
        machine, where only that machine can tell.
    jobs
        All jobs of that start, those that had nothing to do included.
    mean_seconds
        {rule: how long its jobs take}, of rules of which any has ended.
    seconds_left
        An estimate for what is to come; None if nothing tells.
    n_untimed
        How many jobs to come it leaves out: none of their rule has ended yet.
    """

    study: str
    started: float
    process: str
    is_at_work: bool | None
    jobs: list[JobStatus]
    mean_seconds: dict[str, float] = field(default_factory=dict)
    seconds_left: float | None = None
    n_untimed: int = 0

    @property
    def counts(self) -> Counter[State]:
        """How many jobs are in each state."""
        return Counter(job.state for job in self.jobs)


def notes_of(dag: Any) -> list[JobNote]:
    """List the jobs of Snakemake's graph that have a log, which targets that only name others have not, by stage."""
    pending = set(dag.needrun_jobs())
    order = {rule.name: i for i, rule in enumerate(dag.workflow.rules)}
    return [
        JobNote(
            rule=job.rule.name,
            log=str(job.log[0]),
            benchmark=str(job.benchmark) if job.benchmark else "",
            outputs=[str(path) for path in job.output if not path.is_directory and not path.is_temp],
            threads=int(job.threads),
            is_pending=job in pending,
        )
        for job in sorted(dag.jobs, key=lambda job: (order[job.rule.name], str(job.log)))
        if job.log
    ]


def note(path: Path, jobs: Sequence[JobNote], cores: int | None) -> None:
    """Write down the jobs that the Snakemake of this process has set out to do.

    Parameters
    ----------
    path
        `results/<study>/logs/.jobs.json`.
    cores
        How many it may use; None on a cluster.
    """
    start = {"process": this_process(), "started": time.time(), "cores": cores}
    write_json(path, start | {"jobs": [asdict(job) for job in jobs]})


# --- one job ----------------------------------------------------------------------------------------------------------


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - TAIL_BYTES))
        return file.read().decode("utf-8", "replace")


def _seconds(clock: str) -> float | None:
    """Read a time as tqdm writes it: mm:ss, or hh:mm:ss; None if it does not know."""
    parts = clock.split(":")
    if "?" in clock:
        return None
    return float(sum(int(part) * 60**i for i, part in enumerate(reversed(parts))))


def _date_of(record: str) -> float:
    """Return when a log record was written, in seconds since 1970; now if it does not say."""
    try:
        return datetime.strptime(record[:23], "%Y-%m-%d %H:%M:%S,%f").timestamp()
    except ValueError:
        return time.time()


def _is_made(job: JobNote, started: float) -> bool:
    """Say whether a job has made what it should, since Snakemake started if that set out to do it."""
    since = started - SLACK_SECONDS if job.is_pending else -math.inf
    try:
        return all(Path(path).stat().st_mtime >= since for path in job.outputs)
    except OSError:
        return False


class Workers:
    """Which of the processes that logs name are at work: SLURM is asked once, for all its jobs."""

    def __init__(self, owners: Iterable[re.Match[str] | None]) -> None:
        self.host = socket.gethostname()
        ids = {owner["job"] for owner in owners if owner and owner["job"]}
        self.slurm_jobs = _alive_in_slurm(ids) if ids else set()
        self._start_of = cache(start_of)

    def is_at_work(self, owner: re.Match[str]) -> bool | None:
        """Say whether a process is; None if it is on another machine, and in no SLURM job."""
        if owner["host"] == self.host:
            return self._start_of(int(owner["pid"])) == owner["start"]
        return owner["job"] in self.slurm_jobs if owner["job"] else None


def _alive_in_slurm(ids: set[str]) -> set[str]:
    if shutil.which("squeue") is None:
        return set()
    command = ["squeue", "--noheader", "--format=%A %T", f"--jobs={','.join(sorted(ids))}"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    rows = [line.split() for line in asked.stdout.splitlines()]
    return {row[0] for row in rows if len(row) == 2 and row[1] in ALIVE}


def _read_job(note: JobNote, started: float, owner: re.Match[str] | None, workers: Workers) -> JobStatus:
    log = Path(note.log)
    name = log.as_posix().partition("/logs/")[2].removesuffix(".log") or note.rule
    status = JobStatus(job=name, rule=note.rule, state="waiting", log=note.log)
    if note.outputs and _is_made(note, started):
        status.state = "done"
        return status
    try:
        changed = log.stat().st_mtime
        lines = _tail(log).splitlines()
    except OSError:
        return status
    if note.is_pending and changed < started - SLACK_SECONDS and not (owner and workers.is_at_work(owner)):
        return status  # what an earlier start has left
    failures = [line.partition(": ")[2] for line in lines if " ERROR featurespace.script: " in line]
    if failures:
        status.state, status.message = "failed", failures[-1]
    elif any(" started in " in line and ", computed for " in line for line in lines[-1:]):
        status.state = "waiting" if note.outputs else "done"  # its outputs are gone since
    elif owner is None or workers.is_at_work(owner) is False:
        status.state = "stopped"
    else:
        status.state = "running"
        status.where = f"{owner['host']}, process {owner['pid']}" + (
            f", SLURM job {owner['job']}" if owner["job"] else ""
        )
        if workers.is_at_work(owner) is None:
            status.where += f" (only {owner['host']} can tell whether it is alive)"
        _read_progress(status, lines)
    return status


def _read_progress(status: JobStatus, lines: Sequence[str]) -> None:
    """Find out from its log how far a job is."""
    for line in reversed(lines):
        when, _, text = line.partition(" INFO featurespace.script: ")
        found = PROGRESS.match(text)
        if found is None:
            continue
        status.doing, status.n_done, status.n_total = found["what"], int(found["n"]), int(found["total"])
        left = _seconds(found["left"])
        status.seconds_left = None if left is None else max(0.0, left - (time.time() - _date_of(when)))
        return


# --- a study ----------------------------------------------------------------------------------------------------------


def read_status(study: str) -> StudyStatus:
    """Find out how far a study is, in the directory in which Snakemake runs.

    Raises
    ------
    FeaturespaceError
        If Snakemake has never been started on the study, or what it wrote down cannot be read.
    """
    path = Path("results", study, "logs", JOBS)
    try:
        start = json.loads(path.read_bytes())
        notes = [JobNote(**job) for job in start["jobs"]]
        started, process, cores = float(start["started"]), str(start["process"]), start["cores"]
    except FileNotFoundError:
        raise FeaturespaceError(f"study {study}: nothing has been run; `snakemake -n` says what would be") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FeaturespaceError(f"{path} cannot be read; the next start of Snakemake writes it anew") from error
    begun = [None if job.outputs and _is_made(job, started) else process_of(Path(job.log)) for job in notes]
    owners = [PROCESS.fullmatch(name or "") for name in begun]
    main = PROCESS.fullmatch(process)
    workers = Workers([*owners, main])
    jobs = [_read_job(job, started, owner, workers) for job, owner in zip(notes, owners, strict=True)]
    is_at_work = workers.is_at_work(main) if main else None
    status = StudyStatus(study, started, process, is_at_work, jobs, _mean_seconds(notes, jobs))
    _estimate(status, notes, cores)
    return status


def _mean_seconds(notes: Sequence[JobNote], jobs: Sequence[JobStatus]) -> dict[str, float]:
    """Average how long jobs of each rule took, over some of those that have ended, latest in the list first."""
    times: dict[str, list[float]] = {}
    for note, job in zip(reversed(notes), reversed(jobs), strict=True):
        taken = times.setdefault(note.rule, [])
        if job.state == "done" and len(taken) < TIMED_JOBS:
            try:
                header, row = Path(note.benchmark).read_text().splitlines()[:2]
                taken.append(float(dict(zip(header.split("\t"), row.split("\t"), strict=True))["s"]))
            except (OSError, ValueError, KeyError):
                continue
    return {rule: sum(taken) / len(taken) for rule, taken in sorted(times.items()) if taken}


def _estimate(status: StudyStatus, notes: Sequence[JobNote], cores: int | None) -> None:
    """Estimate how long is left: the work to come, over as many jobs as are done at once."""
    now, work, longest, known = time.time(), 0.0, 0.0, False
    for note, job in zip(notes, status.jobs, strict=True):
        if job.state not in ("running", "waiting", "stopped"):
            continue
        mean = status.mean_seconds.get(job.rule)
        if job.state == "running":
            if mean is not None and job.seconds_left is None:
                job.seconds_left = max(0.0, mean - (now - _date_of(Path(job.log).read_text("utf-8", "replace"))))
            left = job.seconds_left
        else:
            left = mean
        if left is None:
            status.n_untimed += 1
            continue
        known = True
        work += left * (min(note.threads, cores) if cores else 1)
        longest = max(longest, left)
    at_once = cores or max(1, status.counts["running"])
    status.seconds_left = max(longest, work / at_once) if known else None


# --- in words ---------------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """Write a time as one reads it: 8 s, 12 min, 3.5 h, 2.1 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36 * 3600 else f"{seconds / 86400:.1f} days"


def in_words(status: StudyStatus) -> str:
    """Write down how far a study is, for a terminal."""
    counts = status.counts
    parts = [f"{counts['done']} of {len(status.jobs)} jobs done"]
    parts += [f"{counts[state]} {state}" for state in STATES[1:] if counts[state]]
    line = f"study {status.study}: {', '.join(parts)}"
    if status.seconds_left is not None:
        if status.n_untimed:
            n = f"{status.n_untimed} job{'s are' if status.n_untimed > 1 else ' is'}"
            line += f"; at least {duration(status.seconds_left)} left: {n} of rules of which none has ended"
        else:
            line += f"; about {duration(status.seconds_left)} left"
    lines = [line, _about_snakemake(status), ""]
    rules = list(dict.fromkeys(job.rule for job in status.jobs))
    width = max((len(rule) for rule in rules), default=4)
    lines.append(f"{'rule':{width}}{'jobs':>7}{''.join(f'{state:>9}' for state in STATES)}  mean time")
    for rule in rules:
        mine = Counter(job.state for job in status.jobs if job.rule == rule)
        cells = "".join(f"{mine[state] or '':>9}" for state in STATES)
        mean = status.mean_seconds.get(rule)
        lines.append(
            f"{rule:{width}}{sum(mine.values()):>7}{cells}  {'' if mean is None else duration(mean):>9}".rstrip()
        )
    for state in ("running", "failed", "stopped"):
        lines += _listed(state, [job for job in status.jobs if job.state == state])
    return "\n".join(lines)


def _about_snakemake(status: StudyStatus) -> str:
    owner = PROCESS.fullmatch(status.process)
    when = datetime.fromtimestamp(status.started).strftime("%Y-%m-%d %H:%M:%S")
    who = f"process {owner['pid']} on {owner['host']}" if owner else status.process
    is_complete = set(status.counts) <= {"done"}
    state = {True: "at work", None: "only that machine can tell whether it is at work"}.get(
        status.is_at_work, "has ended" if is_complete else "has ended; the same command goes on"
    )
    return f"Snakemake was started on {when}, {who}: {state}"


def _listed(state: str, jobs: Sequence[JobStatus]) -> list[str]:
    if not jobs:
        return []
    what = {"running": "running", "failed": "failed", "stopped": "stopped (killed, or its machine went down)"}[state]
    lines = ["", f"{what}:"]
    for job in jobs[:LISTED]:
        lines.append(f"  {job.job}" + (f"  ({job.where})" if job.where else ""))
        if job.n_total:
            share = 100 * (job.n_done or 0) / job.n_total
            left = "" if job.seconds_left is None else f", about {duration(job.seconds_left)} left"
            lines.append(f"    {job.doing}: {job.n_done} of {job.n_total} ({share:.0f} %){left}")
        if state != "running":
            lines += [f"    {job.message}"] * bool(job.message) + [f"    {job.log}"]
    if len(jobs) > LISTED:
        lines.append(f"  and {len(jobs) - LISTED} more")
    return lines


# --- the command ------------------------------------------------------------------------------------------------------


def _name_of(configfile: str) -> str:
    try:
        study = yaml.safe_load(Path(configfile).read_text(encoding="utf-8"))["study"]
    except OSError as error:
        raise FeaturespaceError(f"{configfile}: {error.strerror}") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise FeaturespaceError(f"{configfile}: no study file: it has no key `study`") from error
    return str(study)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="scripts/status", description="Say how far a study is: from any node, while Snakemake runs and after."
    )
    parser.add_argument("--configfile", default="config.yaml", metavar="FILE", help="the study (config.yaml)")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=float,
        const=5.0,
        metavar="SECONDS",
        help="say it again every so many seconds (5), until Snakemake has ended",
    )
    parser.add_argument("--json", action="store_true", help="for a program to read, a line each time")
    options = parser.parse_args(arguments)
    try:
        study = _name_of(options.configfile)
        while True:
            status = read_status(study)
            _show(status, options.json, bool(options.watch))
            if not options.watch or (status.is_at_work is False and not status.counts["running"]):
                return 0
            time.sleep(options.watch)
    except FeaturespaceError as error:
        print(f"featurespace: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # whoever read, `head` say, has seen enough; Python would complain once more while it flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _show(status: StudyStatus, as_json: bool, again: bool) -> None:
    if as_json:
        content: dict[str, Any] = asdict(status) | {"counts": dict(status.counts)}
        print(json.dumps(content, ensure_ascii=False), flush=True)
        return
    wipe = "\033[H\033[2J" if again and sys.stdout.isatty() else ""
    print(f"{wipe}{in_words(status)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
