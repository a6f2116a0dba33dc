"""Draw the densities of the P-vectors' entries at four points of training."""

from featurespace.figures import entry_densities
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        frame = entry_densities.tidy(read_tables(job.input.tables), read_tables(job.input.summary), job.params)
        figure = entry_densities.draw(frame, job.params)
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
