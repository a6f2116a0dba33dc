# Requires: features.zarr of the data sets and the runs.
# Makes: spectra.zarr and spectra.csv beside each, and the study's tables of angles.


rule decompose_features:
    input:
        store=ancient("<results>/{origin}/features.zarr"),
        digest="<results>/{origin}/features.json",
    output:
        store=directory("<results>/{origin}/spectra.zarr"),
        digest="<results>/{origin}/spectra.json",
        table="<results>/{origin}/spectra.csv",
    log:
        "<logs>/decompose_features/{origin}.log",
    benchmark:
        "<benchmarks>/decompose_features/{origin}.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        spec=PLAN.decompose_features(),
        code=code_of("decompose_features.py"),
    message:
        "Decomposing features of {wildcards.origin}"
    script:
        "../scripts/decompose_features.py"


rule compare_runs:
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
        mem_mb=4000,
        runtime=120,
    params:
        spec=PLAN.compare_runs(),
        code=code_of("compare_runs.py"),
    message:
        "Comparing P-vectors"
    script:
        "../scripts/compare_runs.py"
