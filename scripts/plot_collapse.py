"""Draw neural collapse against the depth of a layer."""

from featurespace.figures import collapse
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        layers, networks = read_tables(job.input.layers), read_tables(job.input.networks)
        frame = collapse.tidy(layers, networks, read_tables(job.input.runs), job.params)
        figure = collapse.draw(frame, job.params)
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
