"""Read all results of a study and compare them with the checksums kept of them; name what is damaged."""

import logging
from pathlib import Path

from featurespace.errors import FeaturespaceError
from featurespace.script import progress, script_edge
from featurespace.verification import mending_command, verify_results

logger = logging.getLogger("featurespace")

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        spec = job.params
        findings = verify_results(Path(), spec, lambda items: progress(items, "verifying", "file"))
        for damage in findings.damages:
            logger.error("%s: %s", damage.path, damage.what)
        logger.info("%s", findings.summary())
        if findings.unknown:
            logger.warning("no checksum was kept of %s", ", ".join(findings.unknown))
        if findings.damages:
            raise FeaturespaceError(
                f"{len(findings.damages)} damaged; to make them again, and all that depends on them:"
                f" {mending_command(spec['command'], findings.damages)}"
            )
