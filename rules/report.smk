# Requires: the figures, the tables behind them, their captions, and every run's history.
# Makes: study.yaml (the study as it was understood), tables/runs.csv and report.html. `verify` checks all that is there.


rule write_study:
    """Write down the study as it was understood."""
    output:
        study="<results>/study.yaml",
    log:
        "<logs>/write_study.log",
    benchmark:
        "<benchmarks>/write_study.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(500),
        runtime=growing(5),
    params:
        spec=PLAN.write_study(),
        code=code_of("write_study.py"),
    message:
        "Writing down the study"
    script:
        "../scripts/write_study.py"


rule tabulate_runs:
    """Tabulate the runs: losses, accuracies, steps."""
    input:
        histories=of_runs("history.csv", PLAN.network_recipes),
        weights_digests=of_runs("weights.json", PLAN.network_recipes),
    output:
        table=report(
            "<results>/tables/runs.csv",
            caption="../report/runs.rst",
            category="Tables",
            labels=labels_of("runs", "Table"),
        ),
    log:
        "<logs>/tabulate_runs.log",
    benchmark:
        "<benchmarks>/tabulate_runs.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        spec=PLAN.tabulate_runs(),
        code=code_of("tabulate_runs.py"),
    message:
        "Tabulating the runs"
    script:
        "../scripts/tabulate_runs.py"


rule write_report:
    """Write the report."""
    input:
        figures=of_figures("svg"),
        tables=of_figures("csv"),
        runs="<results>/tables/runs.csv",
        claims="<results>/tables/claims.csv" if STUDY.ledgers else [],
        probes=of_runs("probe.csv", own(PLAN.network_recipes)) if "p-vectors" in STUDY.ledgers else [],
        study="<results>/study.yaml",
        # what the interactive views show, where the study makes it
        dynamics="<results>/tables/angle_dynamics.csv" if PLAN.compares_angles else [],
        # whose p-values are counted
        pairs="<results>/tables/angle_pairs.csv" if PLAN.compares_angles else [],
        spectra=of_inputs("spectra.csv") + of_runs("spectra.csv", PLAN.own_recipes) if PLAN.decomposes else [],
        layers=of_inputs("layers.csv") + of_runs("layers.csv", PLAN.own_recipes) if "layers" in STUDY.figures else [],
    output:
        report="<results>/report.html",
    log:
        "<logs>/write_report.log",
    benchmark:
        "<benchmarks>/write_report.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        spec=PLAN.write_report(COMMAND),
        code=code_of(
            "write_report.py",
            *[f"featurespace/templates/report.{kind}" for kind in ("html.j2", "css", "js")],
            *[f"featurespace/decision_rules/{name}.yaml" for name in STUDY.ledgers],
        ),
        captions=CAPTIONS,
    message:
        "Writing the report"
    script:
        "../scripts/write_report.py"


rule verify:
    """Verification: read every byte of the results and compare it with what was written down."""

    # It makes nothing, so it runs whenever it is asked for; and it asks for nothing, so nothing else runs.
    # Nor does it write where the results are: an archive of them may be read-only.
    log:
        f".snakemake/log/{STUDY.study}.verify.log",
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(240),
    params:
        spec=PLAN.verify(COMMAND),
        code=code_of("verify.py"),
    message:
        "Verifying the results"
    script:
        "../scripts/verify.py"
