"""Draw how much of the P-vector, and of its change over training, is the mean."""

from featurespace.figures import mean_control
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        frame = mean_control.tidy(read_tables(job.input.tables), read_tables(job.input.dynamics), job.params)
        figure = mean_control.draw(frame, job.params)
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
