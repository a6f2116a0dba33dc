"""Put what was measured of a deep linear network's last step beside what theory predicts from the run's own data."""

import numpy as np

from featurespace.datasets import SPLITS, load_dataset
from featurespace.files import write_table
from featurespace.script import script_edge
from featurespace.stores import read_digest
from featurespace.tables import read_table
from featurespace.theory import tabulate_theory

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        dataset = load_dataset(job.input.dataset, job.input.dataset_digest)
        rows = np.flatnonzero(dataset.split == SPLITS["train"])
        facts = read_digest(job.input.weights_digest)
        table = tabulate_theory(
            dataset.inputs(rows, np.float64).reshape(len(rows), -1),
            dataset.labels[rows],
            read_table(job.input.layers),
            read_table(job.input.networks),
            read_table(job.input.data_layers),
            facts["converged"],
            job.params,
        )
        write_table(job.output.table, table)
