"""Copy a figure into the documentation, and write down where it is from: study, command, versions, checksums."""

import importlib.metadata
import platform
from pathlib import Path

from featurespace.checksums import sha256
from featurespace.files import write_bytes_atomically, write_json
from featurespace.script import script_edge

PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "zarr",
    "xarray",
    "matplotlib",
    "snakemake",
)  # that numbers or pictures depend on

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        program, _, options = job.params["command"].partition(" ")
        write_bytes_atomically(job.output.svg, Path(job.input.svg).read_bytes())
        provenance = {
            "figure": Path(job.output.svg).name,
            "study": job.params["study"],
            "command": " ".join(filter(None, [program, str(job.output.svg), options])),
            "sha256": {
                "figure": sha256(Path(job.output.svg)),
                "numbers": sha256(Path(job.input.csv)),
                "study": sha256(Path(job.input.study)),
            },
            "versions": {
                "python": platform.python_version(),
                **{package: importlib.metadata.version(package) for package in PACKAGES},
            },
        }
        write_json(job.output.provenance, provenance)
