"""Draw accuracy and compression against the number of linear layers of hybrid networks."""

from featurespace.figures import linear_depth
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        frame = linear_depth.tidy(read_tables(job.input.runs), read_tables(job.input.layers), job.params)
        figure = linear_depth.draw(frame, job.params)
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
