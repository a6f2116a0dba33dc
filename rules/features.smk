# Requires: datasets/<dataset>/dataset.zarr, and for the runs their weights.
# Makes: features.zarr for every run, and for every data set (its one layer is `input`).


rule dump_inputs:
    input:
        dataset=ancient("<results>/datasets/{dataset}/dataset.zarr"),
        dataset_digest="<results>/datasets/{dataset}/dataset.json",
    output:
        store=features_store("<results>/datasets/{dataset}/features.zarr"),
        digest="<results>/datasets/{dataset}/features.json",
    log:
        "<logs>/dump_inputs/{dataset}.log",
    benchmark:
        "<benchmarks>/dump_inputs/{dataset}.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        spec=lambda w: PLAN.dump_inputs(w.dataset),
        code=code_of("dump_inputs.py"),
    message:
        "Dumping the inputs of {wildcards.dataset}"
    script:
        "../scripts/dump_inputs.py"


rule dump_features:
    input:
        weights=ancient("<results>/runs/{recipe}/block-{block}/weights"),
        weights_digest="<results>/runs/{recipe}/block-{block}/weights.json",
        dataset=lambda w: ancient(f"<results>/datasets/{PLAN.recipe(w.recipe).dataset}/dataset.zarr"),
        dataset_digest=lambda w: f"<results>/datasets/{PLAN.recipe(w.recipe).dataset}/dataset.json",
    output:
        store=features_store("<results>/runs/{recipe}/block-{block}/features.zarr"),
        digest="<results>/runs/{recipe}/block-{block}/features.json",
    log:
        "<logs>/dump_features/{recipe}/block-{block}.log",
    benchmark:
        "<benchmarks>/dump_features/{recipe}/block-{block}.tsv"
    conda:
        "../envs/featurespace.yaml"
    threads: lambda w: PLAN.recipe(w.recipe).threads
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        spec=lambda w: PLAN.dump_features(w.recipe, int(w.block)),
        code=code_of("dump_features.py"),
    message:
        "Dumping features of {wildcards.recipe}, block {wildcards.block}"
    script:
        "../scripts/dump_features.py"
