# Requires: a figure of the study that is being run, made.
# Makes: docs/figures/<study>-<figure>.svg, and beside it the .json that says where it is from. Nothing asks for them but a
# person, by name: `snakemake docs/figures/fashion-angle_dynamics.svg --configfile studies/fashion.yaml`.


rule publish_figure:
    """Documentation: docs/figures/<study>-<figure>.svg, and where it is from."""
    input:
        svg="<results>/figures/{figure}.svg",
        csv="<results>/figures/{figure}.csv",
        study="<results>/study.yaml",
    output:
        svg=f"docs/figures/{STUDY.study}-{{figure}}.svg",
        provenance=f"docs/figures/{STUDY.study}-{{figure}}.json",
    log:
        "<logs>/publish_figure/{figure}.log",
    benchmark:
        "<benchmarks>/publish_figure/{figure}.tsv"
    wildcard_constraints:
        figure=r"\w+",
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(500),
        runtime=growing(5),
    params:
        spec={"study": STUDY.study, "command": COMMAND},
        code=code_of("publish_figure.py"),
    message:
        "Publishing {wildcards.figure}"
    script:
        "../scripts/publish_figure.py"
