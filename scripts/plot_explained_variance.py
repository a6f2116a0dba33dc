"""Draw the share of the squared norm in the leading directions, and the error of rank one."""

from featurespace.figures import explained_variance
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        frame = explained_variance.tidy(read_tables(job.input.tables), job.params)
        figure = explained_variance.draw(frame, job.params)
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
