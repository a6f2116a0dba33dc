"""Draw compression, discrimination and rank in both modes of batch normalisation."""

from featurespace.figures import normalisation_modes
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        layers, networks = read_tables(job.input.layers), read_tables(job.input.networks)
        frame = normalisation_modes.tidy(layers, networks, read_tables(job.input.runs), job.params)
        figure = normalisation_modes.draw(frame, job.params)
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
