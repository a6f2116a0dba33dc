"""What tests of faults share: what a study made, byte by byte, and the processes that are at work on it."""

import hashlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import Workflow, job_of

TIMES = re.compile(rb'aria-label="Times">.*?</table>', re.DOTALL)  # of jobs, in the report: they are no result
ASIDE = ("logs", "benchmarks")  # what is no result


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def made(workflow: Workflow, folder: str = "") -> dict[str, str]:
    """Map every file that the study made, hidden ones included, to the digest of its bytes."""
    root = workflow.root / (folder or f"results/{workflow.name}")
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if name.partition("/")[0] in ASIDE or path.name == ".snakemake_timestamp":
            continue
        if path.is_file():
            content = path.read_bytes()
            if name == "report.html":
                content = TIMES.sub(b"", content)
            found[name] = hashlib.sha256(content).hexdigest()
        elif path.name.startswith(".") or ".draft-" in path.name:
            found[name] = "a folder"
    return found


def outputs_of(workflow: Workflow, job: str) -> list[str]:
    """List the files and stores that a job made, as targets."""
    results = workflow.root / "results" / workflow.name
    found = []
    for folder, folders, files in os.walk(results):
        here = Path(folder).relative_to(results)
        if here.as_posix() == ".":
            folders[:] = [name for name in folders if name not in ASIDE]
        stores = [name for name in folders if name.endswith(".zarr") or name == "weights"]
        folders[:] = [name for name in folders if name not in stores]
        names = [(here / name).as_posix() for name in (*stores, *files) if not name.startswith(".")]
        found += [f"results/{workflow.name}/{name}" for name in names if job_of(name) == job]
    assert found, job
    return sorted(found)


def start(workflow: Workflow, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    """Start the real Snakemake on the study, one job at a time, and do not wait for it; what it says goes to `said`."""
    command = [sys.executable, "-m", "snakemake", *arguments, "--cores", "1", "--configfile", *workflow.study_files]
    with (workflow.root / "said").open("w") as said:
        return subprocess.Popen(
            command,
            cwd=workflow.root,
            stdout=said,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        )


@dataclass(frozen=True)
class Script:
    """A process that runs a rule's script."""

    pid: int
    rule: str

    def kill_at(self, age: float) -> bool:
        """Kill it when it is so many seconds old; say whether it was still there to be killed."""
        try:
            handle = os.pidfd_open(self.pid)
            started = int(Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[19])
        except (FileNotFoundError, ProcessLookupError):
            return False
        try:
            now = time.clock_gettime(time.CLOCK_BOOTTIME)
            time.sleep(max(0, started / os.sysconf("SC_CLK_TCK") + age - now))
            has_ended = select.select([handle], [], [], 0)[0]
            if not has_ended:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            return not has_ended
        finally:
            os.close(handle)


def scripts_below(pid: int) -> Iterator[Script]:
    """List the processes below another one that run rules' scripts."""
    try:
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in children:
        try:
            arguments = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        for argument in arguments[1:]:
            # the shell between the two has the same words in one argument
            if match := re.fullmatch(r"\S*/\.snakemake/scripts/tmp\w+\.(\w+)\.py", argument):
                yield Script(child, match[1])
        yield from scripts_below(child)


def jobs_in(root: Path) -> list[str]:
    """List the processes whose working directory is the workflow's."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if (entry / "cwd").resolve() == root.resolve():
                    found.append(entry.name)
            except OSError:
                continue  # ended meanwhile, or not ours to look at
    return found


def complaints(said: str) -> list[str]:
    """Pick the lines in which a job says what was wrong."""
    return [line for line in said.splitlines() if line.startswith("featurespace: ")]


def disturb(folder: Path, code: str) -> dict[str, str]:
    """Return the environment in which every Python process begins with some code."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(folder)}


def finish(workflow: Workflow, *arguments: str, **environment: str) -> tuple[int, str]:
    """Run the real Snakemake, one job at a time; return its status and what it said."""
    status = start(workflow, *arguments, **environment).wait()
    return status, (workflow.root / "said").read_text()


def remove(workflow: Workflow, targets: list[str]) -> None:
    """Delete files and stores."""
    for target in targets:
        path = workflow.root / target
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
