"""Draw a figure of one's own from tables of the study."""

from pathlib import Path

from featurespace.errors import FeaturespaceError
from featurespace.own_code import find_script
from featurespace.own_figures import Tables, draw_own
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        file = find_script(job.params["script"], [Path(folder) for folder in job.config["module_path"]])
        if file is None:
            raise FeaturespaceError(f"no file {job.params['script']!r}")
        tables = {name: read_tables(job.input[name]) for name in job.params["tables"]}
        figure, frame = draw_own(file, Tables(tables, job.params["recipes"]))
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
