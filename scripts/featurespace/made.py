"""What a job notes of the files that it has made, and what the next job, a rerun and `snakemake verify` do with it.

A note lies at `results/<study>/.made/<the file's path in the study>.json`, and holds the file's SHA-256 and a digest of
the parameters and the code that it was made with. Stores and weights have their own lists of checksums
(`featurespace.stores`); their digest files have notes like any other file.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurespace.checksums import sha256, sha256_of_data
from featurespace.errors import FeaturespaceError
from featurespace.files import write_json

NOTES = ".made"  # the folder of notes in a study's results
_MOST_NAMED = 8  # files that a command names one by one


@dataclass(frozen=True)
class Note:
    """What is noted of a file: its SHA-256, in hex, and the digest of what it was made with."""

    sha256: str
    made_with: str


def note_path(path: str | Path) -> Path | None:
    """Return where the note of a file lies, relative like the file; None if the file is in no study's results."""
    parts = Path(path).parts
    if len(parts) < 3 or parts[0] != "results":
        return None
    return Path(*parts[:2], NOTES, *parts[2:-1], f"{parts[-1]}.json")


def read_note(path: str | Path, root: Path = Path()) -> Note | None:
    """Read the note of a file, whose path is relative to a root; None if there is none, or it cannot be read."""
    place = note_path(path)
    try:
        content = json.loads((root / place).read_bytes()) if place else {}
        return Note(str(content["sha256"]), str(content["made_with"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def digest_of_params(params: Any) -> str:
    """Return the SHA-256, in hex, of a rule's `params`: the settings and the code that its outputs depend on."""
    return sha256_of_data({name: getattr(params, name, None) for name in ("spec", "code")})


def write_notes(outputs: Iterable[str], params: Any) -> None:
    """Write the notes of what a job has made, of its files in a study's results.

    Parameters
    ----------
    outputs
        Paths, as Snakemake gives them, relative to the directory in which it runs.
    params
        The rule's.
    """
    made_with = digest_of_params(params)
    for path in map(str, outputs):
        place = note_path(path)
        if place and Path(path).is_file():
            write_json(place, {"sha256": sha256(Path(path)), "made_with": made_with})


def require_as_made(inputs: Iterable[str]) -> None:
    """Refuse files that are not, byte for byte, what a job has made: damaged, edited, or another study's.

    A file without a note is taken as it is.

    Raises
    ------
    FeaturespaceError
        One line that names the first such file, and the command that makes it again.
    """
    for path in map(str, inputs):
        note = read_note(path)
        if note and Path(path).is_file() and sha256(Path(path)) != note.sha256:
            raise FeaturespaceError(
                f"{path} is not the file that was made (its checksum is another); to make it again, add "
                f"`--forcerun {path}` to your snakemake command"
            )


# --- when Snakemake has lost its records --------------------------------------------------------------------------


def made_otherwise(dag: Any) -> str | None:
    """Say, in one line, which results were made with other parameters or code, where Snakemake cannot know it.

    Snakemake keeps what a job was run with in `.snakemake`, and takes what has no record there for up to date: after
    that folder was deleted, or results were copied without it, an edit would be missed.

    Parameters
    ----------
    dag
        Snakemake's graph of jobs, once it has decided which of them are to run.
    """
    found: dict[str, str] = {}  # a file of each such job, and its rule
    for job in _without_record(dag):
        made_with = digest_of_params(job.params)
        for path in map(str, job.output):
            note = read_note(path)
            if note and note.made_with != made_with:
                found[path] = job.rule.name
                break
    if not found:
        return None
    named = found if len(found) <= _MOST_NAMED else dict.fromkeys(found.values())
    return (
        f"{len(found)} results were made with other settings or other code than the study has now, and Snakemake "
        "cannot tell, since its own records of them (in .snakemake) are lost; to make them again, add "
        f"`--forcerun {' '.join(named)}` to your snakemake command"
    )


def _without_record(dag: Any) -> Iterator[Any]:
    for job in dag.jobs:
        reason = dag.reason(job)
        if (reason.no_metadata or reason.outdated_metadata) and not dag.needrun(job):
            yield job
