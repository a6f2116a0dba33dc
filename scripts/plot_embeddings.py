"""Draw maps of layers, their samples coloured by class."""

from featurespace.figures import embeddings
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        frame = embeddings.tidy(read_tables(job.input.tables), read_tables(job.input.runs), job.params)
        figure = embeddings.draw(frame, job.params)
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
