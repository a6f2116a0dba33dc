"""Draw what training does to the angle between two networks."""

from featurespace.figures import training_effect
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        frame = training_effect.tidy(read_tables(job.input.tables), job.params)
        figure = training_effect.draw(frame, job.params)
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
