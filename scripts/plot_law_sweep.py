"""Draw by what compression falls a layer, over settings, against the law."""

from featurespace.figures import law_sweep
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        frame = law_sweep.tidy(read_tables(job.input.tables), job.params)
        figure = law_sweep.draw(frame, job.params)
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
