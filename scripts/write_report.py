"""Write the report: one HTML file with the question, what was found, the figures, the runs and how to run it again."""

import os
from pathlib import Path

from featurespace import explorer
from featurespace.files import write_text_atomically
from featurespace.report import (
    ALTERNATIVES,
    FigureEntry,
    caption_html,
    image_uri,
    kept_steps,
    timings,
    versions,
    with_farther,
    with_probes,
    write_html,
)
from featurespace.script import script_edge
from featurespace.tables import read_table, read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        report = Path(job.output.report)
        command = job.params["command"]
        by_name = {
            kind: {Path(path).stem: path for path in paths}
            for kind, paths in (
                ("svg", job.input.figures),
                ("csv", job.input.tables),
            )
        }
        entries = [
            FigureEntry(
                name=name,
                image=image_uri(Path(by_name["svg"][name]).read_bytes()),
                alternative=ALTERNATIVES.get(name, ""),
                caption=caption_html(snakemake.params.captions[name]),
                csv=str(by_name["csv"][name]),
                csv_link=os.path.relpath(by_name["csv"][name], report.parent),
                png_link=os.path.relpath(Path(by_name["svg"][name]).with_suffix(".png"), report.parent),
                command=f"{command} --force {by_name['svg'][name]}",
            )
            for name in job.params["figures"]
        ]
        runs = read_table(job.input.runs)
        if job.input.probes:
            runs = with_probes(runs, read_tables(job.input.probes))
        tables = {name: read_table(path) for name, path in by_name["csv"].items()}
        if job.input.pairs:
            tables["angle_pairs"] = with_farther(read_table(job.input.pairs), job.params["permutations"])
        spectra = read_tables(job.input.spectra) if job.input.spectra else None
        layers = read_tables(job.input.layers) if job.input.layers else None
        text = write_html(
            job.params,
            entries,
            tables,
            runs,
            read_table(job.input.claims) if job.input.claims else None,
            Path(job.input.study).read_text(encoding="utf-8"),
            # undeclared: what is there of the jobs' times, which are no result
            timings(report.parent / "benchmarks", job.params["names"]),
            versions(),
            str(report.parent),
            explorer.views(
                job.params["recipes"],
                read_table(job.input.dynamics) if job.input.dynamics else None,
                spectra,
                layers,
            ),
            kept_steps([spectra, layers], [made["name"] for made in job.params["features"]]),
        )
        write_text_atomically(report, text)
