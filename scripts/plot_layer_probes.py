"""Draw the numerical rank of layers, and how well linear probes read the classes from them, against depth."""

from featurespace.figures import layer_probes
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        layers, probes = read_tables(job.input.layers), read_tables(job.input.probes)
        frame = layer_probes.tidy(layers, probes, read_tables(job.input.runs), job.params)
        figure = layer_probes.draw(frame, job.params)
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
