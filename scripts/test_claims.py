"""Test the claims of the study's papers by their decision rules."""

from pathlib import Path

import pandas as pd

from featurespace.claims import LEDGERS, RULES, make_ledger, parse_rules
from featurespace.files import write_table
from featurespace.script import script_edge
from featurespace.tables import read_tables

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        ledgers = []
        for name in job.params["ledgers"]:
            rules = parse_rules((RULES / f"{name}.yaml").read_text("utf-8"), f"{name}.yaml")
            tables = {}
            for table, source in LEDGERS[name].tables.items():
                paths = getattr(job.input, source, [])  # one table, or one of each run; none if the study has none
                tables[table] = read_tables([paths] if isinstance(paths, str | Path) else paths)
            ledgers.append(make_ledger(rules, tables, job.params))
        write_table(job.output.table, pd.concat(ledgers, ignore_index=True))
