"""Draw the angle of each recipe's P-vector to its references against epoch."""

from featurespace.figures import angle_dynamics
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        frame = angle_dynamics.tidy(read_tables(job.input.tables), job.params)
        figure = angle_dynamics.draw(frame, job.params)
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
