"""Draw the angles over the first iterations."""

from featurespace.figures import early_angles
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        frame = early_angles.tidy(read_tables(job.input.tables), job.params)
        figure = early_angles.draw(frame, job.params)
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
