"""Draw how features transfer to other data against the layers of the head that was dropped from them."""

from featurespace.figures import transfer
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        probes, layers = read_tables(job.input.probes), read_tables(job.input.layers)
        frame = transfer.tidy(probes, layers, read_tables(job.input.runs), job.params)
        figure = transfer.draw(frame, job.params)
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
