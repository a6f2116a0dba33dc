# Requires: a network connection, or a data set's `source`, for the published data sets; a user's own files, which are
# no declared inputs (a digest of what they hold is a parameter: of 100,000 images, only new ones are read for it).
# Makes: data/<kind>/ (the published files, shared by all studies) and datasets/<dataset>/dataset.zarr.


rule retrieve_dataset:
    """Download a published data set, or copy it from a directory, into data/."""
    output:
        manifest="data/{kind}/retrieved.json",
    log:
        "<logs>/retrieve_dataset/{kind}.log",
    benchmark:
        "<benchmarks>/retrieve_dataset/{kind}.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(500),
        runtime=growing(60),
    params:
        # Where the files come from is not a parameter: their checksums are known, so it changes nothing.
        spec=lambda w: {"kind": w.kind},
        code=code_of("retrieve_dataset.py"),
    message:
        "Retrieving {wildcards.kind}"
    script:
        "../scripts/retrieve_dataset.py"


rule prepare_dataset:
    """Turn a data set's files into arrays."""
    input:
        manifest=lambda w: f"data/{PLAN.kind(w.dataset)}/retrieved.json" if PLAN.is_downloaded(w.dataset) else [],
    output:
        store=directory("<results>/datasets/{dataset}/dataset.zarr"),
        digest="<results>/datasets/{dataset}/dataset.json",
    log:
        "<logs>/prepare_dataset/{dataset}.log",
    benchmark:
        "<benchmarks>/prepare_dataset/{dataset}.tsv"
    wildcard_constraints:
        dataset=OTHER_DATASET,
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=lambda w: PLAN.prepare_dataset(w.dataset),
        code=code_of("prepare_dataset.py"),
    message:
        "Preparing data set {wildcards.dataset}"
    script:
        "../scripts/prepare_dataset.py"


rule import_dataset:
    """Turn a data set of one's own (a folder of images, arrays, a function) into arrays."""
    output:
        store=directory("<results>/datasets/{dataset}/dataset.zarr"),
        digest="<results>/datasets/{dataset}/dataset.json",
    log:
        "<logs>/import_dataset/{dataset}.log",
    benchmark:
        "<benchmarks>/import_dataset/{dataset}.tsv"
    wildcard_constraints:
        dataset=OWN_DATASET,
    conda:
        "../envs/featurespace.yaml"
    threads: 4  # decode images; they change nothing
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        spec=lambda w: PLAN.import_dataset(w.dataset),
        code=code_of("import_dataset.py"),
    message:
        "Importing data set {wildcards.dataset}"
    script:
        "../scripts/import_dataset.py"
