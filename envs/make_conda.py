"""Derive the conda file for `--sdm conda` from the hash-pinned lock: the same pins, of what a job needs."""

import re
from pathlib import Path

HERE = Path(__file__).parent
HEADER = "# Made by envs/make_conda.py from requirements.lock, for `snakemake --sdm conda`; do not edit.\n"


def wanted(requirements: str) -> list[str]:
    """Return the packages that running a study needs, by name, from the text of requirements.in."""
    run, _, _ = requirements.partition("# develop")
    names = (re.match(r"[A-Za-z0-9._-]+", line) for line in run.splitlines())
    return [name.group().lower() for name in names if name]


def pins(lock: str) -> dict[str, list[str]]:
    """Return {package: [version with its marker, ...]} from the text of the lock."""
    found: dict[str, list[str]] = {}
    for line in lock.splitlines():
        match = re.match(r"([a-z0-9._-]+)(==[^ ;\\]+)\s*(;[^\\]*)?", line)
        if match:
            marker = f" {match[3].strip()}" if match[3] else ""
            found.setdefault(match[1], []).append(f"{match[2]}{marker}")
    return found


def conda_file(requirements: str, lock: str) -> str:
    """Write the conda file: Python from conda-forge, everything else from the lock's pins through pip."""
    versions = pins(lock)
    lines = [f"      - {name}{version}" for name in wanted(requirements) for version in versions[name]]
    return "\n".join(
        [
            HEADER + "channels:",
            "  - conda-forge",
            "  - nodefaults",
            "dependencies:",
            "  - python=3.11",
            "  - pip",
            "  - pip:",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    text = conda_file((HERE / "requirements.in").read_text(), (HERE / "requirements.lock").read_text())
    (HERE / "featurespace.yaml").write_text(text)
