# Requires: datasets/<dataset>/dataset.zarr, and for the runs their weights.
# Makes: features.zarr for every run, and for every data set (its one layer is `input`); for the runs of the study's
# own recipes, and for features that were made elsewhere, also ends.zarr: the feature layer at the first and last step,
# on held-out samples too.


rule dump_inputs:
    """Write a data set's samples down as features: layer 0."""
    input:
        dataset=ancient("<results>/datasets/{dataset}/dataset.zarr"),
        dataset_digest="<results>/datasets/{dataset}/dataset.json",
    output:
        store=directory("<results>/datasets/{dataset}/features.zarr"),
        digest="<results>/datasets/{dataset}/features.json",
    log:
        "<logs>/dump_inputs/{dataset}.log",
    benchmark:
        "<benchmarks>/dump_inputs/{dataset}.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=lambda w: PLAN.dump_inputs(w.dataset),
        code=code_of("dump_inputs.py"),
    message:
        "Dumping the inputs of {wildcards.dataset}"
    script:
        "../scripts/dump_inputs.py"


rule dump_features:
    """Write down the features of a run, layer by layer and step by step."""
    input:
        weights=ancient("<results>/runs/{recipe}/block-{block}/weights"),
        weights_digest="<results>/runs/{recipe}/block-{block}/weights.json",
        dataset=ancient(of_dataset("dataset.zarr")),
        dataset_digest=of_dataset("dataset.json"),
    output:
        store=features_store("<results>/runs/{recipe}/block-{block}/features.zarr"),
        digest="<results>/runs/{recipe}/block-{block}/features.json",
    log:
        "<logs>/dump_features/{recipe}/block-{block}.log",
    benchmark:
        "<benchmarks>/dump_features/{recipe}/block-{block}.tsv"
    wildcard_constraints:
        recipe=NETWORK_RECIPE,
    conda:
        "../envs/featurespace.yaml"
    threads: threads_of_recipe
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        spec=of_run(PLAN.dump_features),
        code=code_of("dump_features.py"),
    message:
        "Dumping features of {wildcards.recipe}, block {wildcards.block}"
    script:
        "../scripts/dump_features.py"


rule dump_ends:
    """Write down a run's feature layer at its first and last step, on held-out samples too."""
    input:
        weights=ancient("<results>/runs/{recipe}/block-{block}/weights"),
        weights_digest="<results>/runs/{recipe}/block-{block}/weights.json",
        dataset=ancient(of_dataset("dataset.zarr")),
        dataset_digest=of_dataset("dataset.json"),
    output:
        store=features_store("<results>/runs/{recipe}/block-{block}/ends.zarr"),
        digest="<results>/runs/{recipe}/block-{block}/ends.json",
    log:
        "<logs>/dump_ends/{recipe}/block-{block}.log",
    benchmark:
        "<benchmarks>/dump_ends/{recipe}/block-{block}.tsv"
    wildcard_constraints:
        recipe=NETWORK_RECIPE,
    conda:
        "../envs/featurespace.yaml"
    threads: threads_of_recipe
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        spec=of_run(PLAN.dump_ends),
        code=code_of("dump_ends.py"),
    message:
        "Dumping first and last features of {wildcards.recipe}, block {wildcards.block}"
    script:
        "../scripts/dump_ends.py"


rule draw_noise:
    """Draw features at random, as a control."""
    input:
        dataset=ancient(of_dataset("dataset.zarr")),
        dataset_digest=of_dataset("dataset.json"),
    output:
        store=directory("<results>/runs/{recipe}/block-{block}/features.zarr"),
        digest="<results>/runs/{recipe}/block-{block}/features.json",
        ends=directory("<results>/runs/{recipe}/block-{block}/ends.zarr"),
        ends_digest="<results>/runs/{recipe}/block-{block}/ends.json",
    log:
        "<logs>/draw_noise/{recipe}/block-{block}.log",
    benchmark:
        "<benchmarks>/draw_noise/{recipe}/block-{block}.tsv"
    wildcard_constraints:
        recipe=NOISE_RECIPE,
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=of_run(PLAN.draw_noise),
        code=code_of("draw_noise.py"),
    message:
        "Drawing features at random for {wildcards.recipe}, block {wildcards.block}"
    script:
        "../scripts/draw_noise.py"


rule import_features:
    """Check features that were made elsewhere and take them in."""
    input:
        dataset=ancient(of_dataset("dataset.zarr")),
        dataset_digest=of_dataset("dataset.json"),
    output:
        store=features_store("<results>/runs/{recipe}/block-{block}/features.zarr"),
        digest="<results>/runs/{recipe}/block-{block}/features.json",
        ends=features_store("<results>/runs/{recipe}/block-{block}/ends.zarr"),
        ends_digest="<results>/runs/{recipe}/block-{block}/ends.json",
    log:
        "<logs>/import_features/{recipe}/block-{block}.log",
    benchmark:
        "<benchmarks>/import_features/{recipe}/block-{block}.tsv"
    wildcard_constraints:
        recipe=IMPORTED_RECIPE,
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        spec=of_run(PLAN.import_features),
        code=code_of("import_features.py"),
    message:
        "Importing features of {wildcards.recipe}"
    script:
        "../scripts/import_features.py"


rule probe_run:
    """Fit linear classifiers to a run's first and last features."""
    input:
        ends=ancient("<results>/runs/{recipe}/block-{block}/ends.zarr"),
        ends_digest="<results>/runs/{recipe}/block-{block}/ends.json",
    output:
        table="<results>/runs/{recipe}/block-{block}/probe.csv",
    log:
        "<logs>/probe_run/{recipe}/block-{block}.log",
    benchmark:
        "<benchmarks>/probe_run/{recipe}/block-{block}.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        spec=PLAN.probe_run(),
        code=code_of("probe_run.py"),
    message:
        "Probing features of {wildcards.recipe}, block {wildcards.block}"
    script:
        "../scripts/probe_run.py"
