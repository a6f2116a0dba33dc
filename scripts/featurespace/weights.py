"""Where a run's kept weights lie, and how they are read back: `seed-<s>/step-<00000000>.safetensors`.

A file holds one seed's parameters and buffers at one step, by name, without an axis of seeds. `weights.json`, beside
the folder, says which seeds and steps there are, and carries the checksum of every file: nothing is read unchecked.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from featurespace import cluster
from featurespace.checksums import sha256
from featurespace.cluster import ENDED
from featurespace.errors import FeaturespaceError
from featurespace.files import full_disk_named
from featurespace.stores import read_digest, require_own_place, store_draft, write_digest


def step_file(seed: int, step: int) -> str:
    """Name the file of one seed's weights at one step, relative to the weights folder."""
    return f"seed-{seed}/step-{step:08d}.safetensors"


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None, durable: bool = False
) -> str:
    """Write tensors to a file that is there whole or not at all; if `durable`, also after a power cut.

    Returns
    -------
    str
        The SHA-256 of the file, in hex.
    """
    content = safetensors.torch.save(_apart(tensors), metadata)
    draft = path.with_name(f".{path.name}.draft")
    with full_disk_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    return hashlib.sha256(content).hexdigest()


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors on the CPU that share no memory: two names of one tensor are written twice."""
    apart: dict[str, Tensor] = {}
    known: set[int] = set()
    for name, tensor in tensors.items():
        apart[name] = tensor.detach().cpu().contiguous()
        memory = apart[name].untyped_storage().data_ptr()
        if memory in known:
            apart[name] = apart[name].clone()
        known.add(memory)
    return apart


def publish(
    kept: Path,
    folder: str | Path,
    digest: str | Path,
    facts: Mapping[str, Any],
    written: Mapping[str, str] | None = None,
) -> None:
    """Make a run's weights folder, whole or not at all, from the files it kept, and then its digest file.

    Parameters
    ----------
    kept
        A folder of weights on the same file system; it stays as it is.
    facts
        What the digest file says of the run besides the checksums.
    written
        {file: SHA-256}, in hex, of what was written there, perhaps days ago: these are published. None: all that is
        there.

    Raises
    ------
    FeaturespaceError
        If a file is not what was written; nothing is published then.
    """
    found = {name: sha256(kept / name) for name in _files_in(kept)}
    checksums = dict(sorted((found if written is None else written).items()))
    for name, checksum in checksums.items():
        if found.get(name) != checksum:
            raise FeaturespaceError(f"{kept / name} is not what training wrote; run again to train it anew")
    with store_draft(folder) as draft:
        for name in checksums:
            (draft / name).parent.mkdir(exist_ok=True)
            _link(kept / name, draft / name)
    write_digest(folder, digest, **facts, files=checksums)


def forget_when_taken(folder: Path) -> None:
    """Remove what a run that has ended grew in; on SLURM, leave that to who reads the weights.

    A main process of Snakemake that dies knows nothing of jobs that end after it, and the next one asks for the same
    again: it finds the weights whole in this folder. Files that were published are there under a second name only.
    """
    if cluster.own_job() is None:
        shutil.rmtree(folder)
    else:
        (folder / ENDED).touch()


def forget_taken(parent: Path) -> None:
    """Remove the folders beside a run's weights in which it ended: Snakemake has taken notice of the weights."""
    for mark in parent.glob(f".resume-*/{ENDED}"):
        shutil.rmtree(mark.parent, ignore_errors=True)  # the weights may be read by several jobs


def _files_in(folder: Path) -> set[str]:
    """Name the files of weights, relative to their folder; what file systems and desktops leave there is hidden."""
    return {path.relative_to(folder).as_posix() for path in folder.glob("*/*") if not path.name.startswith(".")}


def _link(source: Path, target: Path) -> None:
    """Give a file that will not change a second name, or, where the file system cannot, a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


class KeptWeights:
    """The kept weights of one run, checked file by file as they are read.

    Attributes
    ----------
    seeds, steps, epochs
        What was kept: every seed has the same steps, and each step its epoch.
    """

    def __init__(self, folder: str | Path, digest: str | Path) -> None:
        """Open a run's weights.

        Raises
        ------
        FeaturespaceError
            If a file is missing, there is one that the digest file does not know, or they are another run's.
        """
        self.folder = Path(folder)
        facts: dict[str, Any] = read_digest(digest)
        try:
            self._checksums: dict[str, str] = dict(facts["files"])
            self.recipe: str = facts["recipe"]
            self.seeds: list[int] = facts["seeds"]
            self.steps: list[int] = facts["steps"][str(self.seeds[0])]
            self.epochs: list[float] = facts["epochs"][str(self.seeds[0])]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise FeaturespaceError(
                f"{digest} is not the digest file of a run's weights; to train it again, add "
                f"`--forcerun {self.folder}` to your snakemake command"
            ) from error
        require_own_place(self.folder, facts)
        found = _files_in(self.folder)
        for name in sorted(found ^ self._checksums.keys()):
            raise self._damaged(name, "missing" if name not in found else "not one that training wrote")

    def _damaged(self, name: str, what: str) -> FeaturespaceError:
        return FeaturespaceError(
            f"{self.folder}: {name}, weights of recipe {self.recipe!r}, is {what}; "
            f"to train it again, add `--forcerun {self.folder}` to your snakemake command"
        )

    def read(self, seeds: Sequence[int], step: int) -> dict[str, Tensor]:
        """Return {name: (S, ...)} for some seeds at one step, as a network of these seeds loads it.

        Raises
        ------
        FeaturespaceError
            If a file is not, byte for byte, the one that training wrote.
        """
        states = []
        for seed in seeds:
            name = step_file(seed, step)
            content = (self.folder / name).read_bytes()
            if hashlib.sha256(content).hexdigest() != self._checksums[name]:
                raise self._damaged(name, "damaged (its checksum is another)")
            try:
                states.append(safetensors.torch.load(content))
            except (safetensors.SafetensorError, ValueError, KeyError) as error:
                raise self._damaged(name, "not a file of tensors") from error
        return {name: torch.stack([state[name] for state in states]) for name in states[0]}
