"""The default study, and a study of 1,000 runs in which nothing is stale: the real Snakemake."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks import dry_run
from benchmarks.real_data import ROOT
from benchmarks.table import Row, Target, cost, require

sys.path.insert(0, str(ROOT / "tests" / "workflow"))

from harness import Workflow

# Appended to the copied workflow's `featurespace/script.py`: each job says how long it took to start, to import within
# its body, and to do the rest of it. Imports count from the outermost statement, which is what a body waits for.
CLOCKS = """
import builtins as _builtins
import json as _json
import time as _time

_bare_edge, _bare_import = script_edge, _builtins.__import__
_imports = {"depth": 0, "seconds": 0.0}


def _timed_import(*arguments, **named):
    if _imports["depth"]:
        return _bare_import(*arguments, **named)
    start = _time.perf_counter()
    _imports["depth"] += 1
    try:
        return _bare_import(*arguments, **named)
    finally:
        _imports["depth"] -= 1
        _imports["seconds"] += _time.perf_counter() - start


@contextmanager
def script_edge(snakemake):
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    started = _time.clock_gettime(_time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    _builtins.__import__ = _timed_import
    begin = _time.perf_counter()
    with _bare_edge(snakemake) as job:
        yield job
    body = _time.perf_counter() - begin
    times = {"start_up": started + _imports["seconds"], "computing": body - _imports["seconds"]}
    folder = Path("job-times")
    folder.mkdir(exist_ok=True)
    (folder / f"{os.getpid()}-{_time.time_ns()}.json").write_text(_json.dumps(times))
"""


@dataclass(frozen=True)
class StudyTimes:
    """What a study took, in seconds: as a whole, and its jobs' sums."""

    wall: float
    n_jobs: int
    start_up: float
    computing: float


def time_study(folder: Path, study: dict[str, object], n_cores: int = 2) -> StudyTimes:
    """Run a study with the real Snakemake, in a fresh copy of the workflow whose jobs keep time.

    `computing` is the time inside `script_edge` less the import statements there. `start_up` is everything from the
    start of a job's process to that, and those imports: Python, Snakemake's preamble, imports. The Snakemake that a
    job's shell may start in between is none of either; it is in the wall time.
    """
    workflow = Workflow(folder, study)
    with (folder / "scripts/featurespace/script.py").open("a") as script:
        script.write(CLOCKS)
    command = [sys.executable, "-m", "snakemake", "--cores", str(n_cores), "--configfile", *workflow.study_files]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=dict(os.environ))
    wall = time.perf_counter() - start
    require(done.returncode == 0, f"the study failed: {done.stderr[-3000:]}")
    jobs = [json.loads(path.read_text()) for path in (folder / "job-times").iterdir()]
    return StudyTimes(wall, len(jobs), sum(job["start_up"] for job in jobs), sum(job["computing"] for job in jobs))


def default_study(folder: Path) -> Iterator[Row]:
    """Compare the wall time of the default study on two cores with half of what its jobs spend computing."""
    times = time_study(folder, yaml.safe_load((ROOT / "config.yaml").read_text()))
    share = times.start_up / (times.start_up + times.computing)
    yield cost(
        "the default study, wall time",
        f"{times.n_jobs} jobs on two cores",
        "half the jobs' computing, imports excluded",
        times.wall,
        times.computing / 2,
        1.3,
        f"starting up and importing: {times.start_up:.0f} s, {share:.0%} of the jobs' time",
    )


def nothing_stale(repetitions: int = 2) -> Iterator[Row]:
    """Time a dry run of 1,000 runs that are all made; one that imports torch, or finds work, is an error."""
    measured = dry_run.measure(repeats=repetitions)
    name, case = "nothing stale, 1,000-run study", f"{measured['jobs']:.0f} jobs, {measured['outputs']:.0f} outputs"
    note = "without importing torch"
    yield Row(name, case, "10 s", measured["wall_s"], 10.0, measured["wall_s"] / 10, Target("<=", 1.0), note)
