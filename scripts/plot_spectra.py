"""Draw the feature layers' singular values over training."""

from featurespace.figures import spectra
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        frame = spectra.tidy(read_tables(job.input.tables), job.params)
        figure = spectra.draw(frame, job.params)
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
