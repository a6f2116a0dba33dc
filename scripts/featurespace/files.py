"""Files that are whole or absent: text, JSON and tables, written beside their place and renamed into it."""

import errno
import glob
import json
import logging
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurespace.cluster import is_alive, own_job
from featurespace.errors import FeaturespaceError

if TYPE_CHECKING:
    import pandas as pd

STARTED_BY = "FEATURESPACE_STARTED_BY"  # the environment variable in which Snakemake tells its jobs who it is
# machine, pid, when it began, SLURM job: what `this_process` writes
PROCESS = re.compile(r"(?P<host>.+)-(?P<pid>\d+)-(?P<start>\d+)(?:-job(?P<job>\d+))?")

logger = logging.getLogger(__name__)


@contextmanager
def full_disk_named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn "no space left", from whichever library, into one line that names what was being written.

    Raises
    ------
    FeaturespaceError
        If the body fails because the disk, or the user's quota, is full.
    """
    try:
        yield
    except FeaturespaceError:
        raise
    except Exception as error:
        if _is_disk_full(error):
            raise FeaturespaceError(
                f"the disk is full: {os.fspath(path)} could not be written; free some space and run again"
            ) from error
        raise


def _is_disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        # Libraries written in Rust or C++ (safetensors, torch) pass on the message without the number.
        if "No space left on device" in str(error) or "os error 28" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


# --- drafts ---------------------------------------------------------------------------------------


def draft_of(path: Path) -> Path:
    """Name the draft in which this process makes a file or a store, and clear those that dead processes have left."""
    clear_drafts(path)
    return path.with_name(f"{path.name}.draft-{this_process()}")


def this_process() -> str:
    """Name this process as no other is or was: the machine, the pid, and when it began."""
    pid = os.getpid()
    # Without /proc (macOS) every draft counts as a dead one's, and Snakemake's own lock has to suffice.
    job = f"-job{own_job()}" if own_job() else ""
    return f"{socket.gethostname()}-{pid}-{start_of(pid) or 0}{job}"


def start_of(pid: int) -> str | None:
    """Say when a process began, in clock ticks since the machine did; None if it is no more.

    A pid alone may have been given to another process since.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else fields[18]


def may_live(owner: re.Match[str]) -> bool:
    """Say whether a process, by its name as PROCESS matches it, may be at work.

    One on another machine may, unless it was a SLURM job that SLURM knows to be over.
    """
    host, pid, start, job = owner.group("host", "pid", "start", "job")
    if host == socket.gethostname():
        return start_of(int(pid)) == start
    return job is None or is_alive(job)


def has_ended(process: str) -> bool:
    """Say whether a process that `this_process` named is no more; False of one that is on another machine."""
    owner = PROCESS.fullmatch(process)
    if owner is None or owner["host"] != socket.gethostname():
        return False
    return start_of(int(owner["pid"])) != owner["start"]


def clear_drafts(path: Path) -> None:
    """Remove the drafts of a file or a store whose writers have died."""
    for draft in path.parent.glob(f"{glob.escape(path.name)}.draft-*"):
        name = draft.name.removeprefix(f"{path.name}.draft-").removesuffix("-replaced")
        owner = PROCESS.fullmatch(name)
        if owner is None:
            continue
        if may_live(owner):
            if owner["host"] != socket.gethostname():
                logger.warning("%s was left by a job on %s; if that has ended, delete it", draft, owner["host"])
            continue
        logger.info("clearing %s, whose writer has died", draft)
        if draft.is_dir():
            shutil.rmtree(draft)
        else:
            draft.unlink(missing_ok=True)


# --- files ----------------------------------------------------------------------------------------


def write_bytes_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part of it.

    Drafts that killed processes have left of the same file are cleared first.

    Parameters
    ----------
    path
        The file; directories above it are made.
    content
        What it holds.

    Raises
    ------
    FeaturespaceError
        If the disk is full; what was there before is still there.
    """
    path = Path(path)
    draft = draft_of(path)
    with full_disk_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def write_text_atomically(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text as `write_bytes_atomically` does, as it is: line ends are not translated."""
    write_bytes_atomically(path, text.encode())


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write plain data as indented JSON, keys in the order given, atomically; NaN and infinities are refused."""
    write_text_atomically(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_table(path: str | os.PathLike[str], table: "pd.DataFrame") -> None:
    """Write a tidy table as CSV, atomically, without its index.

    Floats get 17 significant digits, which is what it takes to read the same float64 back; a missing value is
    an empty field.
    """
    text = table.to_csv(index=False, float_format="%.17g", lineterminator="\n")
    write_text_atomically(path, text)
