# Requires: features.zarr of the data sets and the runs.
# Makes: spectra.zarr and spectra.csv beside each.


rule decompose_features:
    """Compute singular values and vectors of a run or a data set."""
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
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        spec=PLAN.decompose_features(),
        code=code_of("decompose_features.py"),
    message:
        "Decomposing features of {wildcards.origin}"
    script:
        "../scripts/decompose_features.py"
