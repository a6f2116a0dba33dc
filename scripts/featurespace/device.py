"""Which device a job computes on: a GPU of its own, leased through a lock file, or the CPU.

Snakemake counts GPUs and assigns none. Jobs of one user on one machine therefore agree through a lock file for each
GPU, named by its UUID. A job that holds one sees only that one.
"""

import ctypes
import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from featurespace.errors import FeaturespaceError

logger = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
POLL_SECONDS = 1.0


def list_gpus() -> list[str]:
    """Return the UUIDs of the GPUs (or of their MIG slices) that this process may use, without touching CUDA.

    CUDA reads which devices are visible only once, when it starts: the lease must come before that, so the driver's
    own listing is asked.
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
    if visible is None:
        # a GPU that is cut into slices cannot be used whole
        return [uuid for uuids in present for uuid in (uuids[1:] or uuids)]
    chosen: list[str] = []
    for entry in filter(None, (part.strip() for part in visible.split(","))):
        if not entry.lstrip("-").isdigit():
            chosen.append(entry)
        elif 0 <= int(entry) < len(present):
            chosen.extend(present[int(entry)][1:2] or present[int(entry)])
        else:
            break  # CUDA, too, ignores what follows a device that is not there
    return chosen


def _lock_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"featurespace-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _acquire_one(uuids: list[str]) -> tuple[str, FileLock]:
    """Wait until one of the GPUs is free, and lock it."""
    waiting = False
    while True:
        for uuid in uuids:
            lock = FileLock(_lock_folder() / f"{uuid.replace('/', '_')}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            return uuid, lock
        if not waiting:
            logger.info("waiting for a free GPU (%d in use)", len(uuids))
            waiting = True
        time.sleep(POLL_SECONDS)


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
        `auto`: a GPU that no other job has leased, waiting for one if all are in use; the CPU if there is no GPU.
        `cuda`: the same, but no GPU is an error. `cpu`: the CPU.

    Raises
    ------
    FeaturespaceError
        If a GPU is wanted and there is none that PyTorch can use, or if the preference is none of the three.
    """
    if preference not in ("auto", "cpu", "cuda"):
        raise FeaturespaceError(f"device: {preference!r} is none of auto, cpu, cuda")
    set_exact_arithmetic()
    uuids = [] if preference == "cpu" else list_gpus()
    if not uuids:
        if preference == "cuda":
            raise FeaturespaceError("device: cuda is asked for, but there is no GPU here; set `device: auto` or `cpu`")
        keep_freed_memory()
        yield torch.device("cpu")
        return
    uuid, lock = _acquire_one(uuids)
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
        lock.release()
        if before is None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
