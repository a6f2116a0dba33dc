"""Delete what trainings that were killed have left to continue from; trainings at work keep theirs."""

import logging
from pathlib import Path

from featurespace.leftovers import clean_resume
from featurespace.script import script_edge

logger = logging.getLogger("featurespace")

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        deleted, n_bytes = clean_resume(Path("results", job.params["study"]))
        logger.info("%d left-over states of killed trainings deleted, %.1f MB", len(deleted), n_bytes / 1e6)
