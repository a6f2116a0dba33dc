"""Which device a job computes on: a GPU of its own, leased through a lock file, or the CPU.

Snakemake counts GPUs and assigns none. Jobs of one user on one machine therefore agree through locks on files in
`/tmp`, named by the GPU's UUID; the kernel gives a lock back as soon as its holder ends, however it ends. A job that
holds a GPU sees only that one.

One GPU is lent to one job. Whoever has small networks and a large GPU sets the environment variable
`FEATURESPACE_JOBS_PER_GPU` to the number of jobs that may share one. It is no part of a study: it changes no result.
Jobs that were started without it, or with 1, still have their GPU to themselves.
"""

import ctypes
import fcntl
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from featurespace.errors import FeaturespaceError

logger = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
POLL_SECONDS = 1.0
LOCKS = Path("/tmp")  # not $TMPDIR: two shells of one user that differ in it must see each other's locks
JOBS_PER_GPU = "FEATURESPACE_JOBS_PER_GPU"


def list_gpus() -> list[str]:
    """Return the UUIDs of the GPUs (or of their MIG slices) that this process may use, without touching CUDA.

    CUDA reads which devices are visible only once, when it starts: the lease must come before that, so the driver's
    own listing is asked.

    Raises
    ------
    FeaturespaceError
        If `nvidia-smi` is there and fails, as it does where the driver is broken. Not if the environment hides all
        GPUs, or names them by their UUIDs.
    """
    if shutil.which("nvidia-smi") is None:
        return []
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    present: list[list[str]] = []  # by GPU: its own UUID, then those of its slices
    for line in listing.stdout.splitlines() if listing.returncode == 0 else []:
        _, has_uuid, rest = line.partition("UUID: ")
        if has_uuid:
            uuid = rest.rstrip(") \t")
            if line.startswith("GPU"):
                present.append([uuid])
            elif present:
                present[-1].append(uuid)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listing.returncode != 0 and (visible is None or visible.strip()[:1].isdigit()):
        said = " ".join(f"{listing.stdout} {listing.stderr}".split())  # it says what is wrong on either
        raise FeaturespaceError(f"nvidia-smi failed ({said or f'exit status {listing.returncode}'})")
    if visible is None:
        # a GPU that is cut into slices cannot be used whole
        return [uuid for uuids in present for uuid in (uuids[1:] or uuids)]
    chosen: list[str] = []
    for entry in filter(None, (part.strip() for part in visible.split(","))):
        if not entry.lstrip("-").isdigit():
            # CUDA takes the beginning of a UUID for the whole, but a lock has one name only.
            named = [uuid for uuids in present for uuid in uuids if uuid.startswith(entry)]
            chosen.append(named[0] if len(named) == 1 else entry)
        elif 0 <= int(entry) < len(present):
            chosen.extend(present[int(entry)][1:2] or present[int(entry)])
        else:
            break  # CUDA, too, ignores what follows a device that is not there
    return chosen


def jobs_per_gpu() -> int:
    """Return how many jobs may share a GPU: 1, unless the environment says otherwise.

    Raises
    ------
    FeaturespaceError
        If it says anything but a whole number from 1 on.
    """
    said = os.environ.get(JOBS_PER_GPU, "1")
    if not (said.isascii() and said.isdigit() and int(said) > 0):
        raise FeaturespaceError(f"{JOBS_PER_GPU}: {said!r} is not a number of jobs, such as 1 or 4")
    return int(said)


def _lock_file(name: str, kind: int) -> int | None:
    """Open and lock a file, shared or exclusively, without waiting; None if it is locked."""
    folder = LOCKS / f"featurespace-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{name.replace('/', '_')}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)  # not passed on to programs that the job starts
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        # Who tidies up in /tmp may have deleted the file in between: then its lock says nothing to anybody else.
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except BlockingIOError:
        pass
    os.close(descriptor)
    return None


def _lock_gpu(uuid: str, n_jobs: int) -> list[int] | None:
    """Lock a GPU, or one of the places on it, without waiting; return what holds the lock, None if it is taken.

    A job that wants a GPU to itself locks its file exclusively; one of several locks it as a reader does, and one of
    the places besides. So the two kinds never share a GPU.
    """
    whole = _lock_file(uuid, fcntl.LOCK_EX if n_jobs == 1 else fcntl.LOCK_SH)
    if whole is None or n_jobs == 1:
        return None if whole is None else [whole]
    for i in range(n_jobs):
        place = _lock_file(f"{uuid}.{i}", fcntl.LOCK_EX)
        if place is not None:
            return [whole, place]
    os.close(whole)
    return None


def _acquire_one(uuids: list[str]) -> tuple[str, list[int]]:
    """Wait until one of the GPUs is free, and lock it; return which, and the open files that hold the lock."""
    n_jobs = jobs_per_gpu()
    waiting = False
    while True:
        for uuid in uuids:
            held = _lock_gpu(uuid, n_jobs)
            if held is not None:
                return uuid, held
        if not waiting:
            logger.info("waiting for a free GPU (%d in use)", len(uuids))
            waiting = True
        time.sleep(POLL_SECONDS)


def _release(held: list[int]) -> None:
    for descriptor in held:
        os.close(descriptor)


def set_exact_arithmetic() -> None:
    """Turn TF32 off, and ask for deterministic algorithms where there are any."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms imports the compiler: 2 s
    # That mode also writes NaN into all memory that is taken: half the time of a small convolutional network.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def keep_freed_memory() -> None:
    """Let the C library keep blocks of up to 32 MB that are freed, instead of handing them back to the kernel.

    The tensors of a training step come and go at every step; clearing their pages anew costs as much as a third of a
    small convolutional network's time. Does nothing where the C library has no `mallopt`.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the most that glibc accepts
        mallopt(M_TRIM_THRESHOLD, 1 << 30)


def return_freed_memory() -> None:
    """Hand what `keep_freed_memory` has kept back to the kernel: before a stage that needs memory of other sizes."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


@contextmanager
def lease_device(preference: str = "auto") -> Iterator[torch.device]:
    """Lend the device that a job computes on.

    Parameters
    ----------
    preference
        `auto`: a GPU that no other job has leased, waiting for one if all are in use; the CPU if there is no GPU, and,
        with a warning, if there is one that cannot be used.
        `cuda`: the same, but no GPU is an error. `cpu`: the CPU.

    Raises
    ------
    FeaturespaceError
        If a GPU is wanted and there is none that PyTorch can use, if the preference is none of the three, or if
        the number of jobs a GPU is no number.
    """
    if preference not in ("auto", "cpu", "cuda"):
        raise FeaturespaceError(f"device: {preference!r} is none of auto, cpu, cuda")
    set_exact_arithmetic()
    uuids: list[str] = []
    if preference != "cpu":
        try:
            uuids = list_gpus()
        except FeaturespaceError as error:
            if preference == "cuda":
                raise FeaturespaceError(f"device: {error}; set `device: cpu`, or mend the driver") from error
            logger.warning("%s; computing on the CPU", error)
    if not uuids:
        if preference == "cuda":
            raise FeaturespaceError("device: cuda is asked for, but there is no GPU here; set `device: auto` or `cpu`")
        keep_freed_memory()
        yield torch.device("cpu")
        return
    uuid, held = _acquire_one(uuids)
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        os.environ["CUDA_VISIBLE_DEVICES"] = uuid
        if torch.cuda.is_available():
            logger.info("leased GPU %s", uuid)
            yield torch.device("cuda")
        elif preference == "cuda":
            raise FeaturespaceError(f"device: PyTorch cannot use GPU {uuid}; set `device: cpu`, or mend the driver")
        else:
            logger.warning("PyTorch cannot use GPU %s; computing on the CPU", uuid)
            yield torch.device("cpu")
    finally:
        _release(held)
        if before is None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
