"""What every row is made of: timing in alternation, targets, and the table as CSV and Markdown."""

import contextlib
import csv
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

LIBRARIES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "zarr", "snakemake")
LOOK_SECONDS, AT_REST_SECONDS, MOST_LOOKS = 0.02, 0.002, 100  # of waiting until nothing computes
COLUMNS = ("row", "case", "ours", "against", "other", "unit", "ratio", "target", "met", "note")


class CheckFailed(Exception):
    """A result is wrong, so there is no time to be told."""


def require(holds: bool, what: str) -> None:
    """Refuse to time what gives a wrong result.

    Raises
    ------
    CheckFailed
        Unless it holds.
    """
    if not holds:
        raise CheckFailed(what)


@dataclass(frozen=True)
class Target:
    """What a ratio has to reach: `sign` is `>=` or `<=`."""

    sign: str
    value: float

    def met(self, ratio: float) -> bool:
        """Say whether a ratio reaches it."""
        return ratio >= self.value if self.sign == ">=" else ratio <= self.value

    def __str__(self) -> str:
        return f"{self.sign} {self.value:g}"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    row, case
        What is measured, and at which size.
    ours, other
        Medians, in `unit`; None where nothing was measured.
    against
        What the other is.
    ratio
        Of the two, so that the target speaks of it: other / ours where faster is meant, ours / other where a cost is.
    target
        None for rows that are only shown beside others.
    """

    row: str
    case: str
    against: str
    ours: float | None = None
    other: float | None = None
    ratio: float | None = None
    target: Target | None = None
    note: str = ""
    unit: str = "s"

    @property
    def met(self) -> str:
        """`yes` or `no`; nothing where there is no target, or no number."""
        if self.target is None or self.ratio is None:
            return ""
        return "yes" if self.target.met(self.ratio) else "no"

    def cells(self) -> dict[str, str]:
        """Return the line as text, by column."""
        numbers = {name: _text(getattr(self, name)) for name in ("ours", "other", "ratio")}
        target = "" if self.target is None else str(self.target)
        cells = {name: str(getattr(self, name)) for name in ("row", "case", "against", "unit", "note", "met")}
        return cells | numbers | {"target": target}


def _text(number: float | None) -> str:
    return "" if number is None else f"{number:.3g}" if abs(number) < 1000 else f"{number:.0f}"


def speedup(row: str, case: str, against: str, ours: float, other: float, least: float | None, note: str = "") -> Row:
    """Make a row of two times in seconds whose ratio is how many times as long the other takes."""
    target = None if least is None else Target(">=", least)
    return Row(row, case, against, ours, other, other / ours, target, note)


def cost(
    row: str, case: str, against: str, ours: float, other: float, most: float | None, note: str = "", unit: str = "s"
) -> Row:
    """Make a row of two amounts whose ratio is how many times as much ours is."""
    target = None if most is None else Target("<=", most)
    return Row(row, case, against, ours, other, ours / other, target, note, unit)


# --- timing -------------------------------------------------------------------------------------------------------


def settle() -> None:
    """Wait until the threads of what was called before have gone to sleep.

    OpenBLAS, NumPy's and SciPy's, keeps its own waiting busily for a while after a call, torch's for a shorter one:
    whoever is called at once by another library pays for it, a multiple where the call is short. What they use of the
    processor tells when they sleep.
    """
    at_rest = 0  # looks in a row: a single one may fall into a moment in which the machine lets nobody compute
    for _ in range(MOST_LOOKS):
        before = time.process_time()
        time.sleep(LOOK_SECONDS)
        at_rest = at_rest + 1 if time.process_time() - before < AT_REST_SECONDS else 0
        if at_rest == 2:
            return


def seconds(function: Callable[[], object]) -> float:
    """Return how long a call takes, what a GPU still computes when it returns included."""
    start = time.perf_counter()
    function()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def alternate(functions: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
    """Time functions one after another, again and again, every second time in the opposite order.

    What else happens on the machine then slows all of them alike.

    Returns
    -------
    dict
        {name: median of the seconds}.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    gc.collect()  # what others have left is not theirs to clear
    for repetition in range(repetitions):
        for name in list(functions)[:: -1 if repetition % 2 else 1]:
            settle()
            times[name].append(seconds(functions[name]))
    return {name: statistics.median(taken) for name, taken in times.items()}


@contextlib.contextmanager
def threads(n_threads: int) -> Iterator[None]:
    """Let torch compute with so many threads, and afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- the table ----------------------------------------------------------------------------------------------------


def machine() -> dict[str, str]:
    """Say what the table was measured on: no names of machines, only what decides speed."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return {
        "CPU": _cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "GPU": gpu,
        "threads": f"{torch.get_num_threads()}, where a row does not say otherwise",
        "Python": platform.python_version(),
        **{library: version(library) for library in LIBRARIES},
    }


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def as_markdown(rows: Sequence[Row], facts: Mapping[str, str]) -> str:
    """Lay out the machine's facts and the rows as Markdown."""
    lines = [", ".join(f"{name} {value}" if name != "CPU" else value for name, value in facts.items()) + ".", ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(row.cells()[column] for column in COLUMNS) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def write_tables(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """Write `<name>.csv` and `<name>.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row.cells() for row in rows)
    (folder / f"{name}.md").write_text(as_markdown(rows, machine()))


def include_table(page: Path, name: str, table: str) -> None:
    """Put a table into a page, between its two marks; what was between them goes.

    Raises
    ------
    ValueError
        If the page has no place for it.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = page.read_text().partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found and found_end):
        raise ValueError(f"{page} has no place for the table {name!r}: the marks {begin} and {end}")
    page.write_text(f"{before}{begin}\n\n{table}\n{end}{after}")
