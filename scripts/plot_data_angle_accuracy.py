"""Draw test accuracy against the angle to the data, over a population of settings."""

from featurespace.figures import data_angle_accuracy
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        frame = data_angle_accuracy.tidy(read_tables(job.input.tables), read_tables(job.input.correlations), job.params)
        figure = data_angle_accuracy.draw(frame, job.params)
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
