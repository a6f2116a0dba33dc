"""Draw how well the angle to the data, and simpler numbers, say how well a network generalises."""

from featurespace.figures import indicators
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        frame = indicators.tidy(read_tables(job.input.tables), read_tables(job.input.correlations), job.params)
        figure = indicators.draw(frame, job.params)
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
