"""What share of a study's jobs' time goes into starting them.

    python tests/benchmarks/start_up.py results/demo

Read from the logs of a study that has run: the last line of each says how long the job took to start (the interpreter,
Snakemake's preamble, imports) and how long it computed. What a job imports late, within its work, counts as computing.
"""

import argparse
import re
from pathlib import Path

TIMES = re.compile(r"started in ([\d.]+) s, computed for ([\d.]+) s$", re.MULTILINE)


def job_times(results: Path) -> dict[str, list[tuple[float, float]]]:
    """Read the times of a study's jobs.

    Parameters
    ----------
    results
        The folder of the study's results.

    Returns
    -------
    dict
        By rule, the seconds that each of its jobs took to start and to compute.

    Raises
    ------
    SystemExit
        If no log says how long its job took.
    """
    times: dict[str, list[tuple[float, float]]] = {}
    logs = results / "logs"
    for log in sorted(logs.rglob("*.log")):
        if found := TIMES.findall(log.read_text(encoding="utf-8")):
            start_up, computing = found[-1]
            rule = log.relative_to(logs).with_suffix("").parts[0]
            times.setdefault(rule, []).append((float(start_up), float(computing)))
    if not times:
        raise SystemExit(f"no job of {results} says how long it took; run the study first")
    return times


def main() -> None:
    """Print start-up and computing time by rule, longest first, and of the whole study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="the folder of the study's results")
    times = job_times(parser.parse_args().results)
    rows = [(rule, len(jobs), *map(sum, zip(*jobs, strict=True))) for rule, jobs in times.items()]
    rows.sort(key=lambda row: -row[2] - row[3])
    whole = ("all", sum(row[1] for row in rows), sum(row[2] for row in rows), sum(row[3] for row in rows))
    print(f"{'rule':24} {'jobs':>5} {'start_s':>9} {'compute_s':>10} {'share':>6}")
    for rule, jobs, start_up, computing in [*rows, whole]:
        print(f"{rule:24} {jobs:5} {start_up:9.1f} {computing:10.1f} {start_up / (start_up + computing):6.0%}")


if __name__ == "__main__":
    main()
