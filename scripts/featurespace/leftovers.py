"""What killed trainings leave behind to continue from, and whether it may go."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

from featurespace.cluster import ENDED, is_alive
from featurespace.files import PROCESS, may_live
from featurespace.script import PROCESS_LINE

logger = logging.getLogger(__name__)


def process_of(log: Path) -> str | None:
    """Return the name of the process that a log is of, as its first record says; None if it does not say."""
    try:
        with log.open(encoding="utf-8", errors="replace") as file:
            first = file.readline().rstrip("\n")
    except OSError:
        return None
    return first.rpartition(f": {PROCESS_LINE}")[2] if f": {PROCESS_LINE}" in first else None


def worker_on(log: Path) -> str | None:
    """Name the process, or the SLURM job, that may be at work on the job of a log; None if there is none."""
    mark = log.with_name(f".{log.name}.job")
    if mark.is_file() and is_alive(job := mark.read_text("ascii", errors="replace").strip()):
        return f"SLURM job {job}"
    owner = PROCESS.fullmatch(process_of(log) or "")
    return f"process {owner['pid']} on {owner['host']}" if owner and may_live(owner) else None


def clean_resume(results: Path) -> tuple[list[Path], int]:
    """Delete the hidden folders from which trainings that were killed, or that failed, would go on.

    Those of trainings at work are kept, and on SLURM those of trainings that have ended, until their weights are read.
    Each deletion is a log record.

    Parameters
    ----------
    results
        The folder of a study's results.

    Returns
    -------
    list of Path, int
        What was deleted, and how many bytes it held. Files that are in a run's weights too are there under another
        name, and count.
    """
    deleted, n_bytes = [], 0
    for folder in _resume_folders(results):
        recipe, block = folder.parts[-3:-1]
        log = results / "logs" / "train_run" / recipe / f"{block}.log"
        if worker := worker_on(log):
            logger.info("%s is kept: %s is at work on it", folder, worker)
            continue
        if (folder / ENDED).exists():
            logger.info("%s is kept: its training has ended, and its weights have not been read", folder)
            continue
        doomed = folder.with_name(f".deleted{folder.name}")
        folder.rename(doomed)
        if worker := worker_on(log):  # it has begun this very moment
            doomed.rename(folder)
            logger.info("%s is kept: %s is at work on it", folder, worker)
            continue
        size = sum(path.stat().st_size for path in doomed.rglob("*") if path.is_file())
        shutil.rmtree(doomed)
        logger.info("%s deleted (%.1f MB)", folder, size / 1e6)
        deleted.append(folder)
        n_bytes += size
    return deleted, n_bytes


def _resume_folders(results: Path) -> Iterator[Path]:
    """List the folders that trainings grow in, those of recipes included that the study no longer has."""
    for doomed in sorted(results.glob("runs/*/block-*/.deleted.resume-*")):  # its deletion was interrupted
        shutil.rmtree(doomed)
    yield from sorted(path for path in results.glob("runs/*/block-*/.resume-*") if path.is_dir())
