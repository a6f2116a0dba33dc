"""The checksums of the files that a job has made: a list under a hidden name beside the job's log."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from featurespace.files import write_json


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def note_checksums(log: Path, outputs: Iterable[str]) -> None:
    """Write down the SHA-256 of each file that a job has made; of directories their digest files speak.

    Parameters
    ----------
    log
        The job's log.
    outputs
        Paths, as Snakemake gives them.
    """
    checksums = {path: sha256(Path(path)) for path in map(str, outputs) if Path(path).is_file()}
    write_json(log.with_name(f".{log.name}.sums"), checksums)


def read_checksums(path: Path) -> dict[str, str] | None:
    """Return {path: SHA-256} of a list that `note_checksums` wrote; None if it cannot be read."""
    try:
        return {str(name): str(checksum) for name, checksum in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, AttributeError):
        return None
