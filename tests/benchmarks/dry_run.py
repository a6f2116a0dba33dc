"""How long `snakemake -n` takes on a study of 1,000 runs in which nothing is stale.

    python tests/benchmarks/dry_run.py [--ledgers] [--repeats 3]

The study is a sweep of one small network on digits. Its outputs are placeholders, and Snakemake itself records them
as made (`--touch`), so that the dry run compares time stamps, parameters and inputs as it would after a real run.
"""

import argparse
import csv
import io
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from harness import Workflow

NOTHING_STALE = "Nothing to be done"

# Snakemake as a user runs it, which then says whether it has imported PyTorch.
DRY_RUN = """
import sys
from snakemake.cli import main
try:
    main(["-n", "--configfile", "study.yaml"])
finally:
    print("torch was imported" if "torch" in sys.modules else "without torch")
"""

# Between two outputs that it touches, Snakemake sleeps for a time stamp's resolution: minutes, for thousands of jobs.
TOUCH = """
from snakemake.cli import main
from snakemake.executors import touch
touch.Executor.SLEEPING_TIME = 0.0
main(["--touch", "--forceall", "--quiet", "rules", "--scheduler", "greedy", "--configfile", "study.yaml"])
"""


def thousand_runs(ledgers: bool = False) -> dict[str, Any]:
    """Return a study of 1,000 runs: a recipe, and 999 members of a sweep of which all layers are dumped.

    Parameters
    ----------
    ledgers
        Whether the claims of both papers are tested, which takes six jobs a run, not three.
    """
    rates = [round(0.001 * i, 3) for i in range(1, 28)]
    sizes = [8 * i for i in range(1, 38)]
    study: dict[str, Any] = {
        "study": "thousand",
        "seeds": 1,
        "datasets": {"digits": {"kind": "digits"}},
        "recipes": {
            "mlp": {
                "dataset": "digits",
                "model": {"kind": "mlp", "widths": [64, 64]},
                "optimiser": {"kind": "adam", "learning_rate": 0.003},
                "schedule": {"epochs": 20, "batch_size": 64},
            }
        },
        "sweeps": {
            "member": {
                "base": "mlp",
                "vary": {"optimiser.learning_rate": rates, "schedule.batch_size": sizes},
                "layers": "all",
            }
        },
    }
    return study | ({"ledgers": ["p-vectors", "layerwise"]} if ledgers else {})


def finish(workflow: Workflow) -> tuple[int, int]:
    """Make a placeholder for every output of a study and have Snakemake record them as made; count jobs and outputs."""
    listed = workflow.snakemake("--detailed-summary")
    assert listed.returncode == 0, listed.stderr
    rows = list(csv.DictReader(io.StringIO(listed.stdout), delimiter="\t"))
    for row in rows:
        output = workflow.root / row["output_file"]
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.suffix == ".zarr" or output.name == "weights":
            output.mkdir()
            (output / "content").write_text(row["output_file"])
        else:
            output.write_text(row["output_file"])
    touched = subprocess.run(
        [sys.executable, "-c", TOUCH], cwd=workflow.root, capture_output=True, text=True, check=False
    )
    assert touched.returncode == 0, touched.stderr
    steps = re.findall(r"(\d+) of \1 steps", touched.stdout + touched.stderr)
    return int(steps[-1]), len(rows)


def time_dry_run(root: Path) -> tuple[float, float]:
    """Time one dry run in which nothing is stale.

    Returns
    -------
    tuple
        Seconds of wall time and of processor time.
    """
    before, start = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, "-c", DRY_RUN], cwd=root, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - start, os.times()
    if done.returncode or NOTHING_STALE not in done.stdout:
        raise SystemExit(f"something is stale, or failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    if "without torch" not in done.stdout:
        raise SystemExit("the dry run imports torch")
    return wall, after.children_user + after.children_system - before.children_user - before.children_system


def measure(ledgers: bool = False, repeats: int = 3) -> dict[str, float]:
    """Make the study in a temporary folder and time its dry run.

    Returns
    -------
    dict
        How many `jobs` and `outputs` the study has, and the medians `wall_s` and `cpu_s` in seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        workflow = Workflow(Path(folder) / "thousand", thousand_runs(ledgers))
        jobs, outputs = finish(workflow)
        times = [time_dry_run(workflow.root) for _ in range(repeats)]
    wall, cpu = (statistics.median(values) for values in zip(*times, strict=True))
    return {"jobs": jobs, "outputs": outputs, "wall_s": wall, "cpu_s": cpu}


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ledgers", action="store_true", help="test the claims of both papers too")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    for key, value in measure(options.ledgers, options.repeats).items():
        print(f"{key:8} {value:.6g}")


if __name__ == "__main__":
    main()
