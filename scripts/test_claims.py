"""Test the claims of the study's papers by their decision rules."""

import pandas as pd

from featurespace.claims import RULES, make_ledger, parse_rules
from featurespace.files import write_table
from featurespace.script import script_edge
from featurespace.tables import read_table, read_tables

TABLES = {
    "dynamics": "dynamics",
    "pairs": "pairs",
    "runs": "runs",
    "probes": "probes",
    "spectra": "spectra",
    "subspaces": "subspaces",
    "summary": "entry_summary",
    "entries": "entries",
    "similarity": "similarity",
    "sensitivity": "sensitivity",
    "population": "population",
    "correlations": "correlations",
    "indicators": "indicators",
}

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        several = ("probes", "spectra")  # a table of each run
        tables = {
            name: read_tables(getattr(job.input, source)) if name in several else read_table(getattr(job.input, source))
            for name, source in TABLES.items()
        }
        ledgers = [
            make_ledger(parse_rules((RULES / f"{name}.yaml").read_text("utf-8"), f"{name}.yaml"), tables, job.params)
            for name in job.params["ledgers"]
        ]
        write_table(job.output.table, pd.concat(ledgers, ignore_index=True))
