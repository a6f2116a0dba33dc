# Requires: datasets/<dataset>/dataset.zarr.
# Makes: runs/<recipe>/block-<b>/weights/ (the weights at every kept step) and history.csv.


rule train_run:
    input:
        dataset=lambda w: ancient(f"<results>/datasets/{PLAN.recipe(w.recipe).dataset}/dataset.zarr"),
        dataset_digest=lambda w: f"<results>/datasets/{PLAN.recipe(w.recipe).dataset}/dataset.json",
    output:
        weights=directory("<results>/runs/{recipe}/block-{block}/weights"),
        digest="<results>/runs/{recipe}/block-{block}/weights.json",
        history="<results>/runs/{recipe}/block-{block}/history.csv",
    log:
        "<logs>/train_run/{recipe}/block-{block}.log",
    benchmark:
        "<benchmarks>/train_run/{recipe}/block-{block}.tsv"
    wildcard_constraints:
        recipe=NETWORK_RECIPE,
    conda:
        "../envs/featurespace.yaml"
    # The number of threads changes the last bits of the weights, so the recipe decides it.
    threads: lambda w: PLAN.recipe(w.recipe).threads
    resources:
        mem_mb=4000,
        runtime=720,
    params:
        spec=lambda w: PLAN.train_run(w.recipe, int(w.block)),
        code=code_of("train_run.py"),
    message:
        "Training {wildcards.recipe}, block {wildcards.block}"
    script:
        "../scripts/train_run.py"
