"""A feature store that grows step by step, while nobody knows how many there will be.

Until it is published a recording is a directory `features.zarr.partial` beside its place. In it is the store that is to
be, of chunks only, and a journal: one line that says what is recorded, and one for each step whose chunks are all
there, with their checksums. There are no metadata yet, so nothing takes it for a store. The metadata, the list of
checksums and the digest file are made at the end, when the store moves to its place.

What a killed process leaves is therefore whole up to the last line of the journal. `recover` makes a store of that; a
recording that resumes goes on from it.
"""

import fcntl
import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from featurespace.errors import FeaturespaceError
from featurespace.files import full_disk_named, write_text_atomically
from featurespace.stores import (
    ChunkWriter,
    FeatureStore,
    FeatureWriter,
    StrPath,
    publish_draft,
    store_draft,
    write_digest,
)

MODES = ("new", "replace", "resume")
STORE = "store"
JOURNAL = "journal.jsonl"
LOCK = "lock"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Facts:
    """What is recorded: all of a store but its steps.

    `layers` is {layer: n_features}, shallowest first; `sample_ids` and `labels` are (n_samples,); `attrs` are plain
    data, the attributes of the store.
    """

    layers: dict[str, int]
    seed: int
    sample_ids: list[int]
    labels: list[int]
    attrs: dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One recorded step: `chunks` is {file: SHA-256}."""

    step: int
    epoch: float
    chunks: dict[str, bytes]


def digest_path(path: StrPath) -> Path:
    """Name the digest file of a store: `features.json` beside `features.zarr`."""
    return Path(path).with_suffix(".json")


def partial_path(path: StrPath) -> Path:
    """Name the directory in which a store grows."""
    return Path(f"{path}.partial")


class Recording:
    """A store that grows: open it, write step after step, publish it.

    Parameters
    ----------
    path
        Where the store will be; its name ends in `.zarr`.
    facts
        What is recorded.
    mode
        What becomes of what is there. `new` refuses to touch it; `replace` drops a recording that did not end, and
        replaces a store once the new one is whole; `resume` goes on with a recording that did not end.

    Raises
    ------
    FeaturespaceError
        If there is something that the mode does not allow for, if another process writes the same store, or if the
        recording that is to be gone on with is of something else.
    """

    def __init__(self, path: StrPath, facts: Facts, mode: str = "new") -> None:
        self.path = Path(path)
        self.partial = partial_path(path)
        self.facts = facts = Facts(
            **json.loads(json.dumps(asdict(facts), allow_nan=False))
        )  # as the journal gives them
        self.steps: list[Step] = []
        self._replaces = mode == "replace"
        _require_room(self.path, self.partial, mode)
        self.store = self.partial / STORE
        self.partial.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.partial)
        found = _read_journal(self.partial) if mode == "resume" else None
        if found is not None:
            found_facts, self._replaces, self.steps = found
            if different := [name for name, value in asdict(facts).items() if asdict(found_facts)[name] != value]:
                self._lock.close()
                raise FeaturespaceError(
                    f"{self.partial} is of another recording ({', '.join(different)} differ); delete it, or choose"
                    " another path"
                )
            self.steps = _whole_steps(self.store, self.steps)
        self.store.mkdir(exist_ok=True)
        self._rewrite_journal()

    def begin(self) -> ChunkWriter:
        """Begin a step, and return what its chunks are written with: seed index 0, step index `len(steps)`."""
        return ChunkWriter(self.store, self.facts.layers, len(self.facts.sample_ids))

    def end(self, step: int, epoch: float, chunks: Mapping[str, bytes]) -> None:
        """Note that all chunks of a step have been written."""
        whole = Step(step, epoch, dict(chunks))
        with full_disk_named(self.partial), (self.partial / JOURNAL).open("a", encoding="utf-8") as journal:
            journal.write(_line(whole))
        self.steps.append(whole)

    def forget_from(self, step: int) -> None:
        """Forget the steps from one on, which are about to be recorded again."""
        self.steps = [kept for kept in self.steps if kept.step < step]
        self._rewrite_journal()

    def publish(self) -> None:
        """Make a store of the recorded steps, and its digest file.

        Raises
        ------
        FeaturespaceError
            If there are none, if a store has come to be there meanwhile, or the disk is full. All but the first leave
            the recording as it is.
        """
        try:
            if not self.steps:
                shutil.rmtree(self.partial)
                raise FeaturespaceError(f"no step was recorded, so there is no {self.path}")
            if self.path.exists() and not self._replaces:
                raise FeaturespaceError(
                    f"{self.path} has come to be there meanwhile; move it away, then"
                    f" featurespace.recover({str(self.path)!r}) makes a store of {self.partial.name}"
                )
            _purge(self.store, self.steps)
            facts = self.facts
            with full_disk_named(self.path):
                FeatureWriter(
                    self.store,
                    layers=facts.layers,
                    seeds=[facts.seed],
                    steps=[step.step for step in self.steps],
                    epochs=[step.epoch for step in self.steps],
                    sample_ids=np.array(facts.sample_ids, dtype=np.int64),
                    labels=np.array(facts.labels, dtype=np.int64),
                    attrs=facts.attrs,
                )
            # The digest of a store that is replaced would not be the new one's.
            digest_path(self.path).unlink(missing_ok=True)
            publish_draft(self.store, self.path)
            hashes = {key: value for step in self.steps for key, value in step.chunks.items()}
            write_digest(self.path, digest_path(self.path), hashes)
            shutil.rmtree(self.partial)
        finally:
            self._lock.close()

    def leave(self) -> None:
        """Leave the recording as it is: for `recover`, or for one that resumes."""
        self._lock.close()

    def _rewrite_journal(self) -> None:
        head = {"replaces": self._replaces, **asdict(self.facts)}
        text = json.dumps(head, allow_nan=False) + "\n" + "".join(map(_line, self.steps))
        write_text_atomically(self.partial / JOURNAL, text)
        _purge(self.store, self.steps)


def recover(path: StrPath) -> list[int]:
    """Make a store of what a recording that did not end has left: all of its steps that are whole.

    Where the store is there, and only its digest file is missing, that is written. A store that has both is left alone.

    Parameters
    ----------
    path
        Where the store was to be, such as `features.zarr`.

    Returns
    -------
    list of int
        The steps in the store.

    Raises
    ------
    FeaturespaceError
        If there is nothing to recover, if its writer is still at work, or the disk is full.
    """
    path, partial = Path(path), partial_path(path)
    if not (partial / STORE).is_dir():
        if not path.is_dir():
            raise FeaturespaceError(f"there is neither {path} nor a recording of it that did not end, {partial.name}")
        steps = FeatureStore.open(path).steps.tolist()
        if not digest_path(path).exists():
            write_digest(path, digest_path(path))
        shutil.rmtree(partial, ignore_errors=True)  # its store has moved
        return steps
    lock = _lock(partial)
    found = _read_journal(partial)
    lock.close()
    if found is None:
        raise FeaturespaceError(f"{partial} has no readable journal; nothing in it can be recovered, delete it")
    facts, _, _ = found
    recording = Recording(path, facts, "resume")
    recording.publish()
    return [step.step for step in recording.steps]


def join_seeds(paths: Sequence[StrPath], path: StrPath) -> list[int]:
    """Make one store of several, of networks that were trained alike with different seeds.

    Parameters
    ----------
    paths
        Feature stores of the same layers, steps and samples, and different seeds; they stay.
    path
        Where the joint store will be, its digest file beside it; nothing may be there.

    Returns
    -------
    list of int
        Its seeds, in the order of the stores.

    Raises
    ------
    FeaturespaceError
        If a store is damaged or does not go with the first, or there is something at the path.
    """
    path, stores = Path(path), [FeatureStore.open(given) for given in paths]
    if not stores:
        raise ValueError("there are no stores to join")
    _require_room(path, partial_path(path), "new")
    first = stores[0]
    for store in stores[1:]:
        same = {
            "layers": (store.layers, store.n_features) == (first.layers, first.n_features),
            "steps": np.array_equal(store.steps, first.steps) and np.array_equal(store.epochs, first.epochs),
            "samples": store.sample_hash == first.sample_hash and np.array_equal(store.labels, first.labels),
        }
        if different := [name for name, holds in same.items() if not holds]:
            raise FeaturespaceError(f"{store.path} has other {' and '.join(different)} than {first.path}")
    seeds = [int(seed) for store in stores for seed in store.seeds]
    if len(set(seeds)) < len(seeds):
        raise FeaturespaceError(f"seeds {seeds} of the stores to join are not all different")
    places = [(store, i) for store in stores for i in range(len(store.seeds))]
    with store_draft(path) as draft:
        writer = FeatureWriter(
            draft,
            layers=first.n_features,
            seeds=seeds,
            steps=first.steps,
            epochs=first.epochs,
            sample_ids=first.sample_ids,
            labels=first.labels,
            attrs={name: value for name, value in first.attrs.items() if name != "featurespace_format"},
        )
        for layer in first.layers:
            for seed_index, (store, i) in enumerate(places):
                for j in range(len(first.steps)):
                    start = 0
                    for block in store.blocks(layer, i, j):
                        writer.write(layer, seed_index, j, start, block)
                        start += len(block)
    write_digest(path, digest_path(path), writer.hashes)
    return seeds


def _require_room(path: Path, partial: Path, mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is none of {', '.join(MODES)}")
    if path.suffix != ".zarr":
        raise ValueError(f"the path of a feature store ends in .zarr, not as {path}")
    if path.exists() and mode == "new":
        raise FeaturespaceError(f'{path} is there already; choose another path, or add mode="replace"')
    if path.exists() and mode == "resume" and not (partial / STORE).exists():
        raise FeaturespaceError(f'{path} is whole, its recording has ended; choose another path, or add mode="replace"')
    if partial.exists() and mode == "new":
        raise FeaturespaceError(
            f'{partial} is left of a recording that did not end; go on with it with mode="resume", drop it with'
            f' mode="replace", or make a store of it with featurespace.recover({str(path)!r})'
        )


def _lock(partial: Path) -> IO[str]:
    """Lock a recording for this process, until the file that is returned is closed or the process ends."""
    file = (partial / LOCK).open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise FeaturespaceError(
            f"{partial} is being written by another process, or by a recorder of this one that was not closed"
        ) from error
    return file


def _line(step: Step) -> str:
    chunks = {key: value.hex() for key, value in step.chunks.items()}
    return json.dumps({"step": step.step, "epoch": step.epoch, "chunks": chunks}) + "\n"


def _read_journal(partial: Path) -> tuple[Facts, bool, list[Step]] | None:
    """Return the facts, whether an older store is to be replaced, and the steps; None without a readable head."""
    try:
        lines = (partial / JOURNAL).read_text(encoding="utf-8").splitlines()
        head = json.loads(lines[0])
        replaces = head.pop("replaces")
        facts = Facts(**head)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None
    steps = []
    for line in lines[1:]:
        try:
            entry = json.loads(line)
            chunks = {key: bytes.fromhex(value) for key, value in entry["chunks"].items()}
            steps.append(Step(entry["step"], entry["epoch"], chunks))
        except (ValueError, KeyError, TypeError, AttributeError):
            break  # the line that was being written
    return facts, replaces, steps


def _whole_steps(store: Path, steps: Sequence[Step]) -> list[Step]:
    """Return the steps before the first one of which a chunk is not what the journal says: a machine may have died."""
    for i, step in enumerate(steps):
        for key, expected in step.chunks.items():
            try:
                with (store / key).open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").digest()
            except OSError:
                found = b""
            if found != expected:
                logger.warning("%s: step %d is damaged; %d steps are kept", store.parent, step.step, i)
                return list(steps[:i])
    return list(steps)


def _purge(store: Path, steps: Sequence[Step]) -> None:
    """Delete what belongs to no whole step: chunks of others, and metadata that were made too early."""
    known = {key for step in steps for key in step.chunks}
    for file in [found for found in store.rglob("*") if not found.is_dir()]:
        if file.relative_to(store).as_posix() not in known:
            file.unlink()
