"""Write the study as it was understood: validated, with every default filled in."""

import yaml

from featurespace.files import write_text_atomically
from featurespace.script import script_edge

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        write_text_atomically(job.output.study, yaml.safe_dump(job.params, sort_keys=False, allow_unicode=True))
