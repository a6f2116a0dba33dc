# Requires: features.zarr of the data sets and the runs, tables, and what the study names of the user's own code.
# Makes: own_measures.csv beside each store, tables/own_measures.csv, and figures/<name>.svg, .png and .csv.


rule measure_own:
    """Measure every layer by functions of one's own."""
    input:
        store=ancient("<results>/{origin}/features.zarr"),
        digest="<results>/{origin}/features.json",
    output:
        table="<results>/{origin}/own_measures.csv",
    log:
        "<logs>/measure_own/{origin}.log",
    benchmark:
        "<benchmarks>/measure_own/{origin}.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        spec=PLAN.measure_own(),
        code=code_of("measure_own.py") | OWN_MEASURES,
    message:
        "Measuring {wildcards.origin} by one's own functions"
    script:
        "../scripts/measure_own.py"


rule tabulate_own:
    """Gather what one's own functions have measured."""
    input:
        tables=of_inputs("own_measures.csv") + of_runs("own_measures.csv"),
    output:
        table="<results>/tables/own_measures.csv",
    log:
        "<logs>/tabulate_own.log",
    benchmark:
        "<benchmarks>/tabulate_own.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec={},
        code=code_of("tabulate_own.py"),
    message:
        "Tabulating one's own measures"
    script:
        "../scripts/tabulate_own.py"


rule plot_own:
    """Plot a figure of one's own."""
    input:
        unpack(of_own_figure),
    output:
        svg=report(
            "<results>/figures/{own_figure}.svg",
            caption="../report/own_figure.rst",
            category="Own figures",
        ),
        png="<results>/figures/{own_figure}.png",
        csv="<results>/figures/{own_figure}.csv",
    log:
        "<logs>/plot_own/{own_figure}.log",
    benchmark:
        "<benchmarks>/plot_own/{own_figure}.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        spec=lambda w: PLAN.plot_own(w.own_figure),
        code=lambda w: code_of("plot_own.py") | OWN_FIGURES[w.own_figure].code,
    message:
        "Plotting {wildcards.own_figure}"
    script:
        "../scripts/plot_own.py"
