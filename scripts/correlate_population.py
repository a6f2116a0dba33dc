"""Describe the population of settings, and correlate the angle to the data with accuracy over it."""

from featurespace.files import write_table
from featurespace.population import compare_indicators, correlate_indicators, tabulate_population
from featurespace.script import script_edge
from featurespace.tables import read_table, read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        spec = job.params
        population = tabulate_population(
            read_table(job.input.pairs), read_table(job.input.runs), read_tables(job.input.spectra), spec["recipes"]
        )
        write_table(job.output.population, population)
        write_table(job.output.correlations, correlate_indicators(population, spec["resamples"], spec["seed"]))
        write_table(job.output.indicators, compare_indicators(population, spec["resamples"], spec["seed"]))
