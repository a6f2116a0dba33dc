"""Checking a study's results, byte by byte, against what was written down when they were made.

Stores and weights have digest files (`featurespace.stores`). Every other file that a job makes, the digest files
included, has a note by the job that made it (`featurespace.made`). Published files are held against the checksums that
they were published with.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from featurespace.catalogue import PUBLISHED, verified_content
from featurespace.checksums import sha256
from featurespace.errors import FeaturespaceError
from featurespace.made import NOTES, read_note
from featurespace.stores import verify_digest

# Of a data set or a run: what it may have, and the digest file of each.
STORES = {
    "dataset.zarr": "dataset.json",
    "weights": "weights.json",
    "features.zarr": "features.json",
    "ends.zarr": "ends.json",
    "spectra.zarr": "spectra.json",
}
TEMPORARY = ("features.zarr", "ends.zarr")  # with `keep_features: false`


@dataclass(frozen=True)
class Damage:
    """Something that is not what was made: its path, as Snakemake calls it, and what is wrong with it."""

    path: str
    what: str


@dataclass
class Findings:
    """What a check has found.

    Attributes
    ----------
    n_checked, n_bytes, seconds
        How many stores and files were read, how much, and how long that took.
    n_absent
        How many of those that the study has are not there: not made yet, or deleted.
    unknown
        The files that are there and of which no checksum was kept, or none that can be read.
    damages
        One for each thing that is damaged.
    """

    n_checked: int = 0
    n_bytes: int = 0
    seconds: float = 0.0
    n_absent: int = 0
    unknown: list[str] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)

    def summary(self) -> str:
        """Return in one line how much was read, and at which rate."""
        rate = self.n_bytes / 1e9 / self.seconds if self.seconds else 0.0
        return (
            f"{self.n_checked} stores and files, {self.n_bytes / 1e9:.3g} GB, read at {rate:.2g} GB/s;"
            f" {self.n_absent} not there, {len(self.unknown)} without a checksum; {len(self.damages)} damaged"
        )


def verify_results(
    root: Path, spec: Mapping[str, Any], each: Callable[[list[Any]], Iterable[Any]] = lambda items: items
) -> Findings:
    """Read everything that is there of a study, and compare it with what was written down.

    Parameters
    ----------
    root
        The directory in which Snakemake runs.
    spec
        `study`; its `origins` (`datasets/<name>`, `runs/<recipe>/block-<b>`) and `figures`; `keep_features`; the
        `published` data sets that it uses, by kind.
    each
        Wraps the list of what is checked: a progress line.

    Returns
    -------
    Findings
        Files of recipes, data sets and figures that the study no longer has are left alone.
    """
    results = f"results/{spec['study']}"
    findings, start = Findings(), time.perf_counter()
    noted = _noted_checksums(root, results, spec["origins"], spec["figures"])
    stores = [(f"{results}/{origin}", store) for origin in spec["origins"] for store in STORES]
    checks: list[Callable[[], None]] = [
        *(partial(_check_store, root, folder, store, spec["keep_features"], findings) for folder, store in stores),
        *(partial(_check_file, root, path, checksum, findings) for path, checksum in sorted(noted.items())),
        *(partial(_check_published, root, kind, findings) for kind in spec["published"]),
    ]
    for check in each(checks):
        check()
    known = noted.keys() | {f"{folder}/{store}" for folder, store in stores}
    findings.unknown = [path for path in _files_of(root, results, spec) if path not in known]
    findings.seconds = time.perf_counter() - start
    return findings


def mending_command(command: str, damages: Sequence[Damage]) -> str:
    """Return the command that makes what is damaged again, and what depends on it.

    Parameters
    ----------
    command
        That which runs the study.
    """
    program, *options = command.split(" ", 1)
    paths = " ".join(dict.fromkeys(damage.path for damage in damages))
    return " ".join([program, "--forcerun", paths, *options])


def _check_store(root: Path, folder: str, store: str, keep_features: bool, findings: Findings) -> None:
    path, digest = root / folder / store, root / folder / STORES[store]
    if not path.exists():
        findings.n_absent += 1
        if digest.exists() and (keep_features or store not in TEMPORARY):
            findings.damages.append(Damage(f"{folder}/{store}", f"is missing, and {STORES[store]} is there"))
        return
    findings.n_checked += 1
    if not digest.exists():
        findings.damages.append(Damage(f"{folder}/{store}", f"has lost its digest file {STORES[store]}"))
        return
    try:
        findings.n_bytes += verify_digest(path, digest)
    except OSError as error:
        findings.damages.append(Damage(f"{folder}/{store}", f"cannot be read ({error.strerror})"))
    except FeaturespaceError as error:
        # The command that mends it is said once, for all.
        what = str(error).partition("; ")[0].replace(f"{root}/", "").removeprefix(f"{folder}/{store}").lstrip(": ")
        findings.damages.append(Damage(f"{folder}/{store}", what))


def _check_file(root: Path, path: str, checksum: str, findings: Findings) -> None:
    try:
        found = sha256(root / path)
    except FileNotFoundError:
        findings.n_absent += 1
        return
    except OSError as error:
        findings.damages.append(Damage(path, f"cannot be read ({error.strerror})"))
        return
    findings.n_checked += 1
    findings.n_bytes += (root / path).stat().st_size
    if found != checksum:
        findings.damages.append(Damage(path, "is not the file that was made (its checksum is another)"))


def _check_published(root: Path, kind: str, findings: Findings) -> None:
    """Check the files of a published data set, which are made again together with their list."""
    folder = f"data/{kind}"
    for file in PUBLISHED[kind].files:
        path = root / folder / file.name
        try:
            findings.n_bytes += len(verified_content(path, file))
            findings.n_checked += 1
        except FileNotFoundError:
            findings.n_absent += 1
        except (OSError, ValueError) as error:
            findings.damages.append(Damage(f"{folder}/retrieved.json", f"{file.name}: {error}"))


def _noted_checksums(root: Path, results: str, origins: Sequence[str], figures: Sequence[str]) -> dict[str, str]:
    """Map the files whose checksums jobs have noted, and that belong to the study, to these."""
    checksums: dict[str, str] = {}
    notes = root / results / NOTES
    for place in sorted(notes.rglob("*.json")):
        path = f"{results}/{place.relative_to(notes).as_posix().removesuffix('.json')}"
        note = read_note(path, root)
        if note and _belongs(path, results, origins, figures):
            checksums[path] = note.sha256
    return checksums


def _belongs(path: str, results: str, origins: Sequence[str], figures: Sequence[str]) -> bool:
    inside = path.removeprefix(f"{results}/")
    if inside.startswith(("runs/", "datasets/")):
        return inside.rpartition("/")[0] in origins
    return not inside.startswith("figures/") or Path(inside).stem in figures


def _files_of(root: Path, results: str, spec: Mapping[str, Any]) -> Iterator[str]:
    """List the files that jobs of the study have made, without what is inside of stores."""
    for folder in (*spec["origins"], "tables", "figures", ""):
        for path in (root / results / folder).glob("*"):
            name = path.relative_to(root).as_posix()
            is_own = path.is_file() and not path.name.startswith(".")
            if is_own and _belongs(name, results, spec["origins"], spec["figures"]):
                yield name
