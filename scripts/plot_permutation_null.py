"""Draw the permutation null against its formula and against the observed angles."""

from featurespace.figures import permutation_null
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        frame = permutation_null.tidy(read_tables(job.input.tables), job.params)
        figure = permutation_null.draw(frame, job.params)
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
