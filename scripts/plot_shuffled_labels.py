"""Draw how far networks trained on shuffled labels are from the others."""

from featurespace.figures import shuffled_labels
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        frame = shuffled_labels.tidy(read_tables(job.input.tables), job.params)
        figure = shuffled_labels.draw(frame, job.params)
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
