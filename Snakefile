"""featurespace: from data sets to a report on how the feature spaces of deep networks form."""

import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.27")
sys.path.insert(0, str(Path(workflow.basedir) / "scripts"))


# Snakemake would merge this file with the one a user names; a study stands alone.
if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


include: "rules/common.smk"


pathvars:
    results=f"results/{STUDY.study}",
    logs=f"results/{STUDY.study}/logs",
    benchmarks=f"results/{STUDY.study}/benchmarks",


wildcard_constraints:
    kind="[a-z0-9-]+",
    dataset=NAME,
    recipe=NAME,
    block=r"\d+",
    own_figure="|".join(map(re.escape, STUDY.own_figures)) or "(?!)",
    origin=rf"datasets/{NAME}|runs/{NAME}/block-\d+",


localrules:
    all,
    retrieve_dataset,
    write_study,
    verify,
    clean_resume,


include: "rules/datasets.smk"
include: "rules/training.smk"
include: "rules/features.smk"
include: "rules/spectra.smk"
include: "rules/layers.smk"
include: "rules/comparison.smk"
include: "rules/claims.smk"
include: "rules/figures.smk"
include: "rules/report.smk"
include: "rules/docs.smk"
include: "rules/own.smk"
include: "rules/targets.smk"


rule all:
    """Everything: the report, all figures, all tables (this is what plain `snakemake` makes)."""
    default_target: True
    input:
        "<results>/study.yaml",
        "<results>/report.html",
        # named one by one, so that one that was deleted is made again
        [of_figures(suffix) for suffix in ("svg", "png", "csv")],
        of_tables(),
