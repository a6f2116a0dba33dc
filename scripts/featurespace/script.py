"""The edge between a rule's script and the library: log, progress, one-line errors, and no orphaned jobs.

A script's entry is `with script_edge(snakemake) as job: …`, so that what every job owes its user is written down once.
"""

import ctypes
import io
import itertools
import logging
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from featurespace.cluster import mark_as_own
from featurespace.errors import FeaturespaceError
from featurespace.files import STARTED_BY, full_disk_named, has_ended, this_process
from featurespace.made import require_as_made, write_notes

LOG_INTERVAL = 10.0  # seconds between two progress lines in a log
PROCESS_LINE = "process "  # how the first record of a log begins, before the name of the process that writes it
QUIET = "FEATURESPACE_QUIET"  # set where something else draws on the terminal, and shows the logs of jobs that fail

_PR_SET_PDEATHSIG = 1  # from linux/prctl.h

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What a script needs of Snakemake's `snakemake` object."""

    input: Any  # named inputs, as Snakemake gives them
    output: Any  # named outputs, likewise
    params: dict[str, Any]  # the rule's `params.spec`: plain data, the only settings a result may depend on
    config: dict[str, Any]
    threads: int
    log: Path | None
    device_preference: str  # "auto", "cpu", "cuda", …


@contextmanager
def script_edge(snakemake: Any) -> Iterator[Job]:
    """Run the body of a rule's script.

    Inputs that are not what a job has made are refused, and what this one makes is noted (`featurespace.made`).
    Log records and Python warnings go to the rule's log and to stderr; the last record of a job that succeeds says how
    long it took to start (the interpreter, Snakemake's preamble, imports) and how long it computed. If Snakemake dies,
    however it dies, so does this process. On SLURM it first waits for a job of a Snakemake that has died and that is
    still at the same work. A failure ends the process with status 1 and one line on stderr, its
    traceback in the log.

    Parameters
    ----------
    snakemake
        The object that Snakemake injects into a script. `params.spec` and the first `log` are used; a rule
        without a log writes to stderr only.

    Raises
    ------
    SystemExit
        With status 1 in place of any exception of the body, 130 in place of KeyboardInterrupt.
    """
    entered, start_up = time.perf_counter(), _age()
    _die_with_snakemake()
    log = Path(snakemake.log[0]) if len(snakemake.log) else None
    # where a study's own modules are; last, so that a file of a common name there hides nothing of this library's
    sys.path[:0] = snakemake.config.get("module_path", [])
    hint = f"; see {log}" if log else ""
    try:
        with full_disk_named(log or "the log"):
            _start_logging(log)
        if log:
            require_as_made(snakemake.input)
        with mark_as_own(log.with_name(f".{log.name}.job")) if log else nullcontext():
            yield Job(
                input=snakemake.input,
                output=snakemake.output,
                params=dict(snakemake.params.spec),
                config=snakemake.config,
                threads=snakemake.threads,
                log=log,
                device_preference=snakemake.config.get("device", "auto"),
            )
        if log:
            write_notes(snakemake.output, snakemake.params)
        computed = time.perf_counter() - entered
        logger.info("started in %.2f s, computed for %.2f s", start_up, computed, extra={"log_only": True})
    except FeaturespaceError as error:
        _fail(f"featurespace: {_one_line(error)}", error, log)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        _fail(f"featurespace: unexpected error: {type(error).__name__}: {_one_line(error)}{hint}", error, log)


def _age() -> float:
    """Return how many seconds ago this process was started, to the kernel's hundredth; NaN where there is no /proc."""
    if sys.platform != "linux":
        return math.nan
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _fail(line: str, error: BaseException, log: Path | None) -> None:
    """Put the traceback in the log and one line on stderr, and leave with status 1."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _StderrHandler) and log:
            handler.setLevel(logging.CRITICAL)
    logger.error("%s", line, exc_info=error)
    if log and QUIET not in os.environ:
        print(line, file=sys.stderr)
    sys.exit(1)


# --- logging --------------------------------------------------------------------------------------


class _StderrHandler(logging.Handler):
    """Writes records to stderr above a progress line, not through it; not those that are for the log only."""

    def emit(self, record: logging.LogRecord) -> None:
        if not getattr(record, "log_only", False):
            tqdm.write(self.format(record), file=sys.stderr)


def _start_logging(log: Path | None) -> None:
    # A log that cannot be written (the disk is full) must not bury the one line that says so.
    logging.raiseExceptions = False
    handlers: list[logging.Handler] = [
        _StderrHandler(logging.CRITICAL if log and QUIET in os.environ else logging.NOTSET)
    ]
    try:
        if log:
            log.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(logging.FileHandler(log, mode="w", encoding="utf-8"))
    finally:  # without it, the error is still told as any other
        logging.basicConfig(
            level=logging.INFO,
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
            handlers=handlers,
            force=True,
        )
    logging.captureWarnings(True)
    # Whoever reads the log can tell a job that is at work from one that was killed.
    logger.info("%s%s", PROCESS_LINE, this_process(), extra={"log_only": True})


# --- progress -------------------------------------------------------------------------------------


class _LoggedProgress(tqdm):
    """A progress bar for places without a terminal: a log line with an ETA every ten seconds."""

    _logged: float = 0

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        # tqdm also calls this before anything is done, with a message to wipe the line, and twice at the end.
        if msg is None and self.n != self._logged:
            self._logged = self.n
            logger.info("%s", str(self))  # at once: it changes


def progress(items: Iterable[Any] | int, description: str, unit: str = "it") -> tqdm:
    """Show how far a long loop is and when it will end.

    On a terminal it is a bar on stderr, else a log line about every ten seconds.

    Parameters
    ----------
    items
        What to loop over, or a number of units; with a number, use the result as a context manager and call
        its `update(n)`.
    description
        What is being done, such as "training".
    unit
        What is counted.
    """
    settings: dict[str, Any] = {"total": items} if isinstance(items, int) else {"iterable": items}
    settings |= {"desc": description, "unit": unit, "dynamic_ncols": True}
    if sys.stderr.isatty() and QUIET not in os.environ:
        return tqdm(**settings)
    return _LoggedProgress(
        **settings,
        file=io.StringIO(),  # for the line end with which tqdm closes a bar
        mininterval=LOG_INTERVAL,
        maxinterval=LOG_INTERVAL,
        bar_format="{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]",
    )


# --- jobs die with their parent -------------------------------------------------------------------


def _die_with_snakemake() -> None:
    """Arrange that this process is killed as soon as a Snakemake above it, or its direct parent, ends.

    Between the two stands a shell, so the kernel's parent-death signal alone does not tell that Snakemake is
    gone: a thread watches every Snakemake among the ancestors (some jobs are started through a second one). One that
    died while this process was starting is no ancestor any more: the rules' environment names it. The
    signal is SIGKILL because nothing needs tidying: drafts are cleared by the next writer, and kept steps are whole.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    watched = select.poll()
    ancestors = _snakemake_ancestors()
    for pid in ancestors:
        try:
            watched.register(os.pidfd_open(pid), select.POLLIN)  # readable once the process has ended
        except ProcessLookupError:
            os.kill(os.getpid(), signal.SIGKILL)
        except OSError:  # a kernel before 5.3: what remains is the signal when the direct parent ends
            ancestors = []
            break

    # Last, so that there is no moment in between at which nobody would notice.
    if has_ended(os.environ.get(STARTED_BY, "")):
        os.kill(os.getpid(), signal.SIGKILL)

    def wait() -> None:
        watched.poll()
        os.kill(os.getpid(), signal.SIGKILL)

    if ancestors:
        threading.Thread(target=wait, name="die-with-snakemake", daemon=True).start()


def _snakemake_ancestors() -> list[int]:
    ancestors = []
    pid = os.getppid()
    while pid > 1:
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            status = Path(f"/proc/{pid}/stat").read_text()
        except OSError:  # it has just ended, or belongs to somebody whose processes are hidden
            break
        # `snakemake …`, `python …/bin/snakemake …` or `python -m snakemake …`; not a shell whose command names it.
        as_program = any(Path(argument).name == "snakemake" for argument in arguments[:2])
        as_module = ("-m", "snakemake") in itertools.pairwise(arguments)
        if as_program or as_module:
            ancestors.append(pid)
        pid = int(status.rpartition(")")[2].split()[1])
    return ancestors
