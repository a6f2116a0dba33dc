# Requires: nothing; each target names the products of a stage.
# Makes: what people ask for by a word (`snakemake train`), and, of results, nothing of its own.


rule datasets:
    """Data sets: retrieve and prepare all that the study uses."""
    input:
        [f"<results>/datasets/{name}/dataset.json" for name in PLAN.prepared_datasets],


rule train:
    """Training: the weights and the history of every network, and the table of runs."""
    input:
        of_runs("weights.json", PLAN.network_recipes),
        "<results>/tables/runs.csv",


rule features:
    """Features: a store for every run, and one for every data set."""
    input:
        of_runs("features.json"),
        of_inputs("features.json"),


rule spectra:
    """Spectra: singular values and vectors of every feature matrix."""
    input:
        of_runs("spectra.json"),
        of_inputs("spectra.json"),


rule figures:
    """Figures: every figure of the study as SVG, PNG and CSV (one of them: ask for its file name)."""
    input:
        [of_figures(suffix) for suffix in ("svg", "png", "csv")],


rule report:
    """Report: results/<study>/report.html, and all that it shows."""
    input:
        "<results>/report.html",


rule clean_resume:
    """Tidying up: delete what killed trainings left to continue from; those at work keep it."""

    # It makes nothing, so it runs whenever it is asked for.
    log:
        "<logs>/clean_resume.log",
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(500),
        runtime=growing(10),
    params:
        spec=PLAN.clean_resume(),
        code=code_of("clean_resume.py"),
    message:
        "Deleting what killed trainings left behind"
    script:
        "../scripts/clean_resume.py"
