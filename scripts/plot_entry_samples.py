"""Draw the samples at both ends of the order of the P-vectors' entries."""

import numpy as np

from featurespace.figures import entry_samples
from featurespace.script import script_edge
from featurespace.style import save_figure
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        frame = entry_samples.tidy(read_tables(job.input.tables), job.params)
        with np.load(job.input.images, allow_pickle=False) as images:
            figure = entry_samples.draw(frame, job.params, images)
        save_figure(figure, frame, svg=job.output.svg, png=job.output.png, csv=job.output.csv)
