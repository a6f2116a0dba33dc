"""Retrieve a published data set's files, checked, into `data/<kind>`: the one rule that uses the network."""

from pathlib import Path

from featurespace.catalogue import PUBLISHED
from featurespace.retrieval import retrieve
from featurespace.script import script_edge

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        kind = job.params["kind"]
        # Where the files come from is no parameter: the same files from elsewhere make nothing stale.
        sections = (section for section in job.config["datasets"].values() if section["kind"] == kind)
        source = next((section["source"] for section in sections if section.get("source")), None)
        retrieve(PUBLISHED[kind], Path(job.output.manifest).parent, source)
