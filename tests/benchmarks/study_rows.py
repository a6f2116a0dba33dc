"""The default study, and a study of 1,000 runs in which nothing is stale: the real Snakemake."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks import dry_run, start_up
from benchmarks.table import Row, Target, cost


def default_study(folder: Path) -> Iterator[Row]:
    """Compare the wall time of the default study on two cores with half of what its jobs spend computing."""
    measured = start_up.measure(folder)
    share = measured["start_up"] / (measured["start_up"] + measured["computing"])
    yield cost(
        "the default study, wall time",
        f"{measured['n_jobs']:.0f} jobs on two cores",
        "half the jobs' computing, imports excluded",
        measured["wall"],
        measured["computing"] / 2,
        1.3,
        f"starting up and importing is {share:.0%} of the jobs' time",
    )


def nothing_stale(repetitions: int = 3) -> Iterator[Row]:
    """Time a dry run of 1,000 runs that are all made; a run that imports torch, or finds work, is an error."""
    measured = dry_run.measure(repeats=repetitions)
    name, case = "nothing stale, 1,000-run study", f"{measured['jobs']:.0f} jobs, {measured['outputs']:.0f} outputs"
    note = "without importing torch"
    yield Row(name, case, "10 s", measured["wall_s"], 10.0, measured["wall_s"] / 10, Target("<=", 1.0), note)
