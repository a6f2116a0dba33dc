# Requires: features.zarr of the data sets and the runs.
# Makes: layers.csv beside each: compression, discrimination and rank of every layer at every kept step.


rule measure_layers:
    input:
        store=ancient("<results>/{origin}/features.zarr"),
        digest="<results>/{origin}/features.json",
    output:
        table="<results>/{origin}/layers.csv",
    log:
        "<logs>/measure_layers/{origin}.log",
    benchmark:
        "<benchmarks>/measure_layers/{origin}.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        spec=PLAN.measure_layers(),
        code=code_of("measure_layers.py"),
    message:
        "Measuring layers of {wildcards.origin}"
    script:
        "../scripts/measure_layers.py"
