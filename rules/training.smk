# Requires: datasets/<dataset>/dataset.zarr, and of recipes with `weights` their files.
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
        recipe=TRAINED_RECIPE,
    conda:
        "../envs/featurespace.yaml"
    # The number of threads changes the last bits of the weights, so the recipe decides it.
    threads: threads_of_recipe
    resources:
        mem_mb=growing(4000),
        runtime=growing(720),
    params:
        spec=of_run(PLAN.train_run),
        code=code_of_run("train_run.py"),
    message:
        "Training {wildcards.recipe}, block {wildcards.block}"
    script:
        "../scripts/train_run.py"


rule import_weights:
    """Check weights that were trained elsewhere and take them in."""
    input:
        dataset=ancient(of_dataset("dataset.zarr")),
        dataset_digest=of_dataset("dataset.json"),
        files=of_run(PLAN.weight_files),
    output:
        weights=directory("<results>/runs/{recipe}/block-{block}/weights"),
        digest="<results>/runs/{recipe}/block-{block}/weights.json",
        history="<results>/runs/{recipe}/block-{block}/history.csv",
    log:
        "<logs>/import_weights/{recipe}/block-{block}.log",
    benchmark:
        "<benchmarks>/import_weights/{recipe}/block-{block}.tsv"
    wildcard_constraints:
        recipe=SAVED_RECIPE,
    conda:
        "../envs/featurespace.yaml"
    threads: threads_of_recipe
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        spec=of_run(PLAN.import_weights),
        code=code_of_run("import_weights.py"),
    message:
        "Reading the weights of {wildcards.recipe}, block {wildcards.block}"
    script:
        "../scripts/import_weights.py"
