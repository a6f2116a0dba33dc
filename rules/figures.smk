# Requires: tables only, so that a colour never reads a store again.
# Makes: figures/<name>.svg, .png, and the .csv behind it.


rule plot_angle_dynamics:
    input:
        tables="<results>/tables/angle_dynamics.csv",
    output:
        svg=report(
            "<results>/figures/angle_dynamics.svg",
            caption="../report/angle_dynamics.rst",
            category="P-vectors",
        ),
        png="<results>/figures/angle_dynamics.png",
        csv="<results>/figures/angle_dynamics.csv",
    log:
        "<logs>/plot_angle_dynamics.log",
    benchmark:
        "<benchmarks>/plot_angle_dynamics.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        spec=PLAN.plot("angle_dynamics"),
        code=code_of("plot_angle_dynamics.py"),
    message:
        "Plotting the P-vector angles over training"
    script:
        "../scripts/plot_angle_dynamics.py"


rule plot_angle_matrix:
    input:
        tables="<results>/tables/angle_pairs.csv",
    output:
        svg=report(
            "<results>/figures/angle_matrix.svg",
            caption="../report/angle_matrix.rst",
            category="P-vectors",
        ),
        png="<results>/figures/angle_matrix.png",
        csv="<results>/figures/angle_matrix.csv",
    log:
        "<logs>/plot_angle_matrix.log",
    benchmark:
        "<benchmarks>/plot_angle_matrix.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        spec=PLAN.plot("angle_matrix"),
        code=code_of("plot_angle_matrix.py"),
    message:
        "Plotting the P-vector angles between trained networks"
    script:
        "../scripts/plot_angle_matrix.py"


rule plot_spectra:
    input:
        tables=of_inputs("spectra.csv") + of_runs("spectra.csv"),
    output:
        svg=report(
            "<results>/figures/spectra.svg",
            caption="../report/spectra.rst",
            category="P-vectors",
        ),
        png="<results>/figures/spectra.png",
        csv="<results>/figures/spectra.csv",
    log:
        "<logs>/plot_spectra.log",
    benchmark:
        "<benchmarks>/plot_spectra.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        spec=PLAN.plot("spectra"),
        code=code_of("plot_spectra.py"),
    message:
        "Plotting the spectra over training"
    script:
        "../scripts/plot_spectra.py"


rule plot_layers:
    input:
        tables=of_inputs("layers.csv") + of_runs("layers.csv"),
        runs="<results>/tables/runs.csv",
    output:
        svg=report(
            "<results>/figures/layers.svg",
            caption="../report/layers.rst",
            category="Layers",
        ),
        png="<results>/figures/layers.png",
        csv="<results>/figures/layers.csv",
    log:
        "<logs>/plot_layers.log",
    benchmark:
        "<benchmarks>/plot_layers.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        spec=PLAN.plot("layers"),
        code=code_of("plot_layers.py"),
    message:
        "Plotting compression and discrimination by layer"
    script:
        "../scripts/plot_layers.py"


rule plot_training:
    input:
        tables=of_runs("history.csv"),
    output:
        svg=report(
            "<results>/figures/training.svg",
            caption="../report/training.rst",
            category="Training",
        ),
        png="<results>/figures/training.png",
        csv="<results>/figures/training.csv",
    log:
        "<logs>/plot_training.log",
    benchmark:
        "<benchmarks>/plot_training.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        spec=PLAN.plot("training"),
        code=code_of("plot_training.py"),
    message:
        "Plotting the training curves"
    script:
        "../scripts/plot_training.py"
