"""Gather in one table what functions of one's own have measured of the data sets and of all runs."""

import pandas as pd

from featurespace.files import write_table
from featurespace.script import script_edge

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        # as text: no digit is to change
        tables = [pd.read_csv(path, dtype="str", keep_default_na=False) for path in job.input.tables]
        write_table(job.output.table, pd.concat(tables, ignore_index=True))
