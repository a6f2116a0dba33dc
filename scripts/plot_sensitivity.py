"""Draw what the angles between P-vectors depend on."""

from featurespace.figures import sensitivity
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        frame = sensitivity.tidy(read_tables(job.input.tables), job.params)
        figure = sensitivity.draw(frame, job.params)
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
