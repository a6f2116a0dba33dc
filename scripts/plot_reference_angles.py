"""Draw the angles to the reference networks over training, by family."""

from featurespace.figures import reference_angles
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        frame = reference_angles.tidy(read_tables(job.input.tables), job.params)
        figure = reference_angles.draw(frame, job.params)
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
