# Requires: spectra.zarr of the data sets and the runs, ends.zarr of the runs, and tables.
# Makes: the study's tables of angles, subspaces, entries, similarity, sensitivity, and of its population.


rule compare_runs:
    """Compute angles between P-vectors, over training and between networks."""
    input:
        runs=ancient(of_runs("spectra.zarr")),
        run_digests=of_runs("spectra.json"),
        data=ancient(of_inputs("spectra.zarr")),
        data_digests=of_inputs("spectra.json"),
    output:
        dynamics="<results>/tables/angle_dynamics.csv",
        pairs="<results>/tables/angle_pairs.csv",
    log:
        "<logs>/compare_runs.log",
    benchmark:
        "<benchmarks>/compare_runs.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        spec=PLAN.compare_runs(),
        code=code_of("compare_runs.py"),
    message:
        "Comparing P-vectors"
    script:
        "../scripts/compare_runs.py"


rule compare_subspaces:
    """Compute angles between spans of several singular vectors."""
    input:
        runs=ancient(of_runs("spectra.zarr", PLAN.own_recipes)),
        run_digests=of_runs("spectra.json", PLAN.own_recipes),
        data=ancient(of_inputs("spectra.zarr")),
        data_digests=of_inputs("spectra.json"),
    output:
        table="<results>/tables/subspaces.csv",
    log:
        "<logs>/compare_subspaces.log",
    benchmark:
        "<benchmarks>/compare_subspaces.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        spec=PLAN.compare_subspaces(),
        code=code_of("compare_subspaces.py"),
    message:
        "Comparing subspaces"
    script:
        "../scripts/compare_subspaces.py"


rule tabulate_entries:
    """Tabulate the entries of P-vectors, and the samples at their ends."""
    input:
        runs=ancient(of_runs("spectra.zarr", PLAN.own_recipes)),
        run_digests=of_runs("spectra.json", PLAN.own_recipes),
        data=ancient(of_inputs("spectra.zarr")),
        data_digests=of_inputs("spectra.json"),
        datasets=ancient(of_inputs("dataset.zarr")),
        dataset_digests=of_inputs("dataset.json"),
    output:
        summary="<results>/tables/entry_summary.csv",
        entries="<results>/tables/entries.csv",
        extremes="<results>/tables/extremes.csv",
        images="<results>/tables/extreme_images.npz",
    log:
        "<logs>/tabulate_entries.log",
    benchmark:
        "<benchmarks>/tabulate_entries.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        spec=PLAN.tabulate_entries(),
        code=code_of("tabulate_entries.py"),
    message:
        "Tabulating the entries of P-vectors"
    script:
        "../scripts/tabulate_entries.py"


rule compare_similarity:
    """Compare features by CKA, SVCCA and Procrustes distance."""
    input:
        ends=ancient(of_runs("ends.zarr", PLAN.own_recipes)),
        ends_digests=of_runs("ends.json", PLAN.own_recipes),
        data=ancient(of_inputs("features.zarr")),
        data_digests=of_inputs("features.json"),
    output:
        table="<results>/tables/similarity.csv",
    log:
        "<logs>/compare_similarity.log",
    benchmark:
        "<benchmarks>/compare_similarity.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(12000),
        runtime=growing(720),
    params:
        spec=PLAN.compare_similarity(),
        code=code_of("compare_similarity.py"),
    message:
        "Comparing features by the established measures"
    script:
        "../scripts/compare_similarity.py"


rule assess_sensitivity:
    """Find what the angles depend on: samples, features, depth, split, width."""
    input:
        ends=ancient(of_runs("ends.zarr", PLAN.own_recipes)),
        ends_digests=of_runs("ends.json", PLAN.own_recipes),
        spectra=ancient(of_runs("spectra.zarr", PLAN.own_recipes)),
        spectra_digests=of_runs("spectra.json", PLAN.own_recipes),
    output:
        table="<results>/tables/sensitivity.csv",
    log:
        "<logs>/assess_sensitivity.log",
    benchmark:
        "<benchmarks>/assess_sensitivity.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        spec=PLAN.assess_sensitivity(),
        code=code_of("assess_sensitivity.py"),
    message:
        "Assessing what the angles depend on"
    script:
        "../scripts/assess_sensitivity.py"


rule correlate_population:
    """Correlate angles with accuracy over a population of networks."""
    input:
        pairs="<results>/tables/angle_pairs.csv",
        runs="<results>/tables/runs.csv",
        spectra=of_runs("spectra.csv", PLAN.population_recipes),
    output:
        population="<results>/tables/population.csv",
        correlations="<results>/tables/correlations.csv",
        indicators="<results>/tables/indicators.csv",
    log:
        "<logs>/correlate_population.log",
    benchmark:
        "<benchmarks>/correlate_population.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        spec=PLAN.correlate_population(),
        code=code_of("correlate_population.py"),
    message:
        "Correlating angles with accuracy"
    script:
        "../scripts/correlate_population.py"
