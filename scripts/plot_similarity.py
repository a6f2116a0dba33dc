"""Draw the P-vectors' cosine against established measures of similarity."""

from featurespace.figures import similarity
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        frame = similarity.tidy(read_tables(job.input.tables), job.params)
        figure = similarity.draw(frame, job.params)
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
