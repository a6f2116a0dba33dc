"""SLURM as a job sees it: which job this is, whether another one is still alive, and who works on what.

Snakemake locks its directory, so that one main process at a time decides what runs. Where its main process dies, the
jobs that it gave to SLURM run on, and the next main process, which knows nothing of them, submits the same again.
Each job therefore leaves a mark beside its log while it works. Who finds the mark of a job that is alive waits for it.
"""

import logging
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_SECONDS = 10.0
ENDED = "ended"  # the file that marks the hidden folder of a training that has ended, until its weights are read
ALIVE = {"RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}

logger = logging.getLogger(__name__)


def own_job() -> str | None:
    """Return the id of the SLURM job that this process is part of; None outside SLURM."""
    return os.environ.get("SLURM_JOB_ID")


def is_alive(job_id: str) -> bool:
    """Say whether a SLURM job is at work somewhere.

    One that waits in the queue is not: it has not begun, and will find the mark of whoever has. Where SLURM cannot be
    asked, no job is.
    """
    if shutil.which("squeue") is None or not job_id.isdigit():
        return False
    command = ["squeue", "--noheader", "--format=%T", f"--jobs={job_id}"]
    for _ in range(3):
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        if asked.returncode == 0:
            return any(state.strip() in ALIVE for state in asked.stdout.splitlines())
        if "Invalid job id" in asked.stderr:
            return False
        time.sleep(1.0)  # the controller is busy, or being replaced
    logger.warning("SLURM does not say whether job %s is alive: %s", job_id, asked.stderr.strip())
    return False


@contextmanager
def mark_as_own(mark: Path) -> Iterator[None]:
    """Wait until no other SLURM job that is alive has left its mark here, then leave one's own while the body runs.

    Parameters
    ----------
    mark
        A file that belongs to no rule. Outside SLURM it is looked at, and never made.
    """
    mine = own_job()
    waited = False
    while (other := _read(mark)) not in (None, mine) and is_alive(str(other)):
        if not waited:
            logger.info("SLURM job %s, of a Snakemake that is gone, is still at work on this: waiting for it", other)
            waited = True
        time.sleep(POLL_SECONDS)
    if mine is None:
        mark.unlink(missing_ok=True)
        yield
        return
    mark.parent.mkdir(parents=True, exist_ok=True)
    draft = mark.with_name(f"{mark.name}-{mine}")
    draft.write_text(mine, "ascii")
    draft.replace(mark)
    try:
        yield
    finally:
        if _read(mark) == mine:
            mark.unlink(missing_ok=True)


def _read(mark: Path) -> str | None:
    try:
        return mark.read_text("ascii").strip()
    except FileNotFoundError:
        return None
