"""The default study, and a study of which nothing is stale, run by the real Snakemake."""

from collections.abc import Iterator

from benchmarks.table import Row


def default_study(folder) -> Iterator[Row]:
    yield from ()


def nothing_stale(folder, n) -> Iterator[Row]:
    yield from ()
