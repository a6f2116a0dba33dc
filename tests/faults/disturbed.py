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

from featurespace.made import NOTES

# What takes a job's script longest is to import. A process that has done so is forked for every attempt to run one, so
# that the moments at which it is killed lie in what it does, and not in what comes before anything is written.
LAZY = "zarr zarr.codecs zarr.storage xarray matplotlib.backends.backend_agg matplotlib.backends.backend_svg"
FORKING = """
import ast, importlib, os, runpy, sys
sys.path.append(os.path.join(os.getcwd(), "scripts"))  # the workflow's, as Snakemake does it
imported = set(sys.argv[1].split())
for line in sys.stdin:
    script, said = line.rstrip().split("\\t")
    with open(script) as file:
        for node in ast.parse(file.read()).body:
            if isinstance(node, ast.ImportFrom):
                imported.add(node.module)
            elif isinstance(node, ast.Import):
                imported.update(name.name for name in node.names)
    for module in imported:
        importlib.import_module(module)
    child = os.fork()
    if not child:
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(1, 2)
        sys.argv[:] = [script]
        runpy.run_path(script, run_name="__main__")
        sys.exit()
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
TIMES = re.compile(rb'aria-label="Times">.*?</table>', re.DOTALL)  # of jobs, in the report: they are no result
ASIDE = ("logs", "benchmarks")  # what is no result


class Runner:
    """Runs scripts of jobs as Snakemake made them, one at a time, each in a process of its own.

    Parameters
    ----------
    root
        The directory in which they run.
    modules
        What scripts import in the middle of their work, besides LAZY.
    """

    def __init__(self, root: Path, modules: str = "") -> None:
        self.said = root / "said-by-script"
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", FORKING, f"{LAZY} {modules}"],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"},
        )

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, script: Path, age: float | None = None) -> tuple[int, float]:
        """Run a script, and kill it when it is so many seconds old; return its status and how many seconds it ran."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        began = time.monotonic()
        self._process.stdin.write(f"{script}\t{self.said}\n")
        self._process.stdin.flush()
        child = Script(int(self._process.stdout.readline()), script.stem)
        if age is not None:
            child.kill_at(age)
        status = int(self._process.stdout.readline())
        assert status in (0, -signal.SIGKILL), self.said.read_text()
        return status, time.monotonic() - began


def wait_for(condition: Callable[[], object], seconds: float = 400) -> None:
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
        if (
            name.partition("/")[0] in ASIDE
            or path.name == ".snakemake_timestamp"
            or name == f"{NOTES}/report.html.json"
        ):
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
            folders[:] = [name for name in folders if name not in ASIDE and not name.startswith(".")]
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
    path: str = ""

    def kill_at(self, age: float) -> bool:
        """Kill it when it is so many seconds old; say whether it was still there to be killed."""
        try:
            handle = os.pidfd_open(self.pid)
            started = int(Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[19])
        except (FileNotFoundError, ProcessLookupError):
            return False
        try:
            moment = started / os.sysconf("SC_CLK_TCK") + age
            left = max(0, moment - time.clock_gettime(time.CLOCK_BOOTTIME))
            # no longer than it lives: whoever asks has other processes to look at
            has_ended = bool(select.select([handle], [], [], left)[0])
            if not has_ended:
                try:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                except ProcessLookupError:  # since then
                    has_ended = True
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
                yield Script(child, match[1], argument)
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
