# Requires: datasets/<dataset>/dataset.zarr.
# Makes: runs/<recipe>/block-<b>/weights/ (the weights at every kept step) and history.csv.


rule train_run:
    """Train one block of a recipe's seeds."""
    input:
        dataset=ancient(of_dataset("dataset.zarr")),
        dataset_digest=of_dataset("dataset.json"),
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
    threads: threads_of_recipe
    resources:
        mem_mb=growing(4000),
        runtime=growing(720),
    params:
        spec=of_run(PLAN.train_run),
        code=code_of("train_run.py"),
    message:
        "Training {wildcards.recipe}, block {wildcards.block}"
    script:
        "../scripts/train_run.py"
