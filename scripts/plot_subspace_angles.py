"""Draw the angles between vectors beyond the first, and between the spans of the first k."""

from featurespace.figures import subspace_angles
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        frame = subspace_angles.tidy(read_tables(job.input.tables), job.params)
        figure = subspace_angles.draw(frame, job.params)
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
