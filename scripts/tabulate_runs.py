"""Collect where every run ended into one table, one row a recipe and seed."""

from featurespace.files import write_table
from featurespace.run_table import tabulate_runs
from featurespace.script import script_edge
from featurespace.stores import read_digest
from featurespace.tables import read_table

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        histories = [read_table(path) for path in job.input.histories]
        digests = [read_digest(path) for path in job.input.weights_digests]
        write_table(job.output.table, tabulate_runs(histories, digests, job.params["recipes"]))
