# Requires: features.zarr of the data sets and the runs, and of the runs their weights.
# Makes: layers.csv beside each: compression, discrimination and rank of every layer at every kept step. Of runs that
# learn classes also networks.csv (what takes the weights to measure), layer_probes.csv, embedding.csv, and of deep linear
# networks theory.csv: what was measured against what theory predicts.


rule measure_layers:
    """Measure compression, discrimination and rank of every layer."""
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
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        spec=PLAN.measure_layers(),
        code=code_of("measure_layers.py"),
    message:
        "Measuring layers of {wildcards.origin}"
    script:
        "../scripts/measure_layers.py"


rule measure_networks:
    """Measure what takes the weights: neural collapse, balance, modes of normalisation."""
    input:
        weights=ancient("<results>/runs/{recipe}/block-{block}/weights"),
        weights_digest="<results>/runs/{recipe}/block-{block}/weights.json",
        dataset=ancient(of_dataset("dataset.zarr")),
        dataset_digest=of_dataset("dataset.json"),
    output:
        table="<results>/runs/{recipe}/block-{block}/networks.csv",
    log:
        "<logs>/measure_networks/{recipe}/block-{block}.log",
    benchmark:
        "<benchmarks>/measure_networks/{recipe}/block-{block}.tsv"
    wildcard_constraints:
        recipe=NETWORK_RECIPE,
    conda:
        "../envs/featurespace.yaml"
    threads: threads_of_recipe
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        spec=of_run(PLAN.measure_networks),
        code=code_of("measure_networks.py"),
    message:
        "Measuring networks of {wildcards.recipe}, block {wildcards.block}"
    script:
        "../scripts/measure_networks.py"


rule predict_layers:
    """Set the layers of a deep linear network beside theory."""
    input:
        dataset=ancient(of_dataset("dataset.zarr")),
        dataset_digest=of_dataset("dataset.json"),
        weights_digest="<results>/runs/{recipe}/block-{block}/weights.json",
        layers="<results>/runs/{recipe}/block-{block}/layers.csv",
        networks="<results>/runs/{recipe}/block-{block}/networks.csv",
        data_layers=of_dataset("layers.csv"),
    output:
        table="<results>/runs/{recipe}/block-{block}/theory.csv",
    log:
        "<logs>/predict_layers/{recipe}/block-{block}.log",
    benchmark:
        "<benchmarks>/predict_layers/{recipe}/block-{block}.tsv"
    wildcard_constraints:
        recipe=NETWORK_RECIPE,
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=of_run(PLAN.predict_layers),
        code=code_of("predict_layers.py"),
    message:
        "Predicting layers of {wildcards.recipe}, block {wildcards.block}"
    script:
        "../scripts/predict_layers.py"


rule probe_layers:
    """Fit linear probes to every layer, on the run's data set and on others."""
    input:
        weights=ancient("<results>/runs/{recipe}/block-{block}/weights"),
        weights_digest="<results>/runs/{recipe}/block-{block}/weights.json",
        datasets=ancient(of_probe_targets("dataset.zarr")),
        dataset_digests=of_probe_targets("dataset.json"),
    output:
        table="<results>/runs/{recipe}/block-{block}/layer_probes.csv",
    log:
        "<logs>/probe_layers/{recipe}/block-{block}.log",
    benchmark:
        "<benchmarks>/probe_layers/{recipe}/block-{block}.tsv"
    wildcard_constraints:
        recipe=NETWORK_RECIPE,
    conda:
        "../envs/featurespace.yaml"
    threads: threads_of_recipe
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        spec=of_run(PLAN.probe_layers),
        code=code_of("probe_layers.py"),
    message:
        "Probing layers of {wildcards.recipe}, block {wildcards.block}"
    script:
        "../scripts/probe_layers.py"


rule embed_layers:
    """Map layers to the plane with UMAP."""
    input:
        store=ancient("<results>/runs/{recipe}/block-{block}/features.zarr"),
        digest="<results>/runs/{recipe}/block-{block}/features.json",
        dataset=ancient(of_dataset("dataset.zarr")),
        dataset_digest=of_dataset("dataset.json"),
    output:
        table="<results>/runs/{recipe}/block-{block}/embedding.csv",
    log:
        "<logs>/embed_layers/{recipe}/block-{block}.log",
    benchmark:
        "<benchmarks>/embed_layers/{recipe}/block-{block}.tsv"
    wildcard_constraints:
        recipe=NETWORK_RECIPE,
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        spec=PLAN.embed_layers(),
        code=code_of("embed_layers.py"),
    message:
        "Mapping layers of {wildcards.recipe}, block {wildcards.block}"
    script:
        "../scripts/embed_layers.py"
