"""Draw the angles between the last steps of every two recipes, and of the data."""

from featurespace.figures import angle_matrix
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        frame = angle_matrix.tidy(read_tables(job.input.tables), job.params)
        figure = angle_matrix.draw(frame, job.params)
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
