"""Draw the layers of deep linear networks against the theory."""

from featurespace.figures import layer_theory
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        frame = layer_theory.tidy(read_tables(job.input.tables), job.params)
        figure = layer_theory.draw(frame, job.params)
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
