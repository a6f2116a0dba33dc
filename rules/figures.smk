# Requires: tables only, so that a colour never reads a store again.
# Makes: figures/<name>.svg, .png, and the .csv behind it.


rule plot_angle_dynamics:
    """Plot the P-vector angles over training."""
    input:
        tables="<results>/tables/angle_dynamics.csv",
    output:
        svg=report(
            "<results>/figures/angle_dynamics.svg",
            caption="../report/angle_dynamics.rst",
            category="P-vectors",
            labels=labels_of("angle_dynamics"),
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
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("angle_dynamics"),
        code=code_of("plot_angle_dynamics.py"),
    message:
        "Plotting the P-vector angles over training"
    script:
        "../scripts/plot_angle_dynamics.py"


rule plot_angle_matrix:
    """Plot the P-vector angles between trained networks."""
    input:
        tables="<results>/tables/angle_pairs.csv",
    output:
        svg=report(
            "<results>/figures/angle_matrix.svg",
            caption="../report/angle_matrix.rst",
            category="P-vectors",
            labels=labels_of("angle_matrix"),
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
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("angle_matrix"),
        code=code_of("plot_angle_matrix.py"),
    message:
        "Plotting the P-vector angles between trained networks"
    script:
        "../scripts/plot_angle_matrix.py"


rule plot_spectra:
    """Plot the spectra over training."""
    input:
        tables=of_inputs("spectra.csv") + of_runs("spectra.csv", PLAN.own_recipes),
    output:
        svg=report(
            "<results>/figures/spectra.svg",
            caption="../report/spectra.rst",
            category="P-vectors",
            labels=labels_of("spectra"),
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
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("spectra"),
        code=code_of("plot_spectra.py"),
    message:
        "Plotting the spectra over training"
    script:
        "../scripts/plot_spectra.py"


rule plot_layers:
    """Plot compression and discrimination by layer."""
    input:
        tables=of_inputs("layers.csv") + of_runs("layers.csv", PLAN.own_recipes),
        runs="<results>/tables/runs.csv",
    output:
        svg=report(
            "<results>/figures/layers.svg",
            caption="../report/layers.rst",
            category="Layers",
            labels=labels_of("layers"),
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
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("layers"),
        code=code_of("plot_layers.py"),
    message:
        "Plotting compression and discrimination by layer"
    script:
        "../scripts/plot_layers.py"


rule plot_training:
    """Plot the training curves."""
    input:
        tables=of_runs("history.csv", own(PLAN.network_recipes)),
    output:
        svg=report(
            "<results>/figures/training.svg",
            caption="../report/training.rst",
            category="Training",
            labels=labels_of("training"),
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
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("training"),
        code=code_of("plot_training.py"),
    message:
        "Plotting the training curves"
    script:
        "../scripts/plot_training.py"


rule plot_reference_angles:
    """Plot angles to the reference networks."""
    input:
        tables="<results>/tables/angle_dynamics.csv",
    output:
        svg=report(
            "<results>/figures/reference_angles.svg",
            caption="../report/reference_angles.rst",
            category="P-vectors",
            labels=labels_of("reference_angles"),
        ),
        png="<results>/figures/reference_angles.png",
        csv="<results>/figures/reference_angles.csv",
    log:
        "<logs>/plot_reference_angles.log",
    benchmark:
        "<benchmarks>/plot_reference_angles.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("reference_angles"),
        code=code_of("plot_reference_angles.py"),
    message:
        "Plotting angles to the reference networks"
    script:
        "../scripts/plot_reference_angles.py"


rule plot_early_angles:
    """Plot angles over the first iterations."""
    input:
        tables="<results>/tables/angle_dynamics.csv",
    output:
        svg=report(
            "<results>/figures/early_angles.svg",
            caption="../report/early_angles.rst",
            category="P-vectors",
            labels=labels_of("early_angles"),
        ),
        png="<results>/figures/early_angles.png",
        csv="<results>/figures/early_angles.csv",
    log:
        "<logs>/plot_early_angles.log",
    benchmark:
        "<benchmarks>/plot_early_angles.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("early_angles"),
        code=code_of("plot_early_angles.py"),
    message:
        "Plotting angles over the first iterations"
    script:
        "../scripts/plot_early_angles.py"


rule plot_mean_control:
    """Plot what the mean accounts for."""
    input:
        tables="<results>/tables/entry_summary.csv",
        dynamics="<results>/tables/angle_dynamics.csv",
    output:
        svg=report(
            "<results>/figures/mean_control.svg",
            caption="../report/mean_control.rst",
            category="Controls",
            labels=labels_of("mean_control"),
        ),
        png="<results>/figures/mean_control.png",
        csv="<results>/figures/mean_control.csv",
    log:
        "<logs>/plot_mean_control.log",
    benchmark:
        "<benchmarks>/plot_mean_control.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("mean_control"),
        code=code_of("plot_mean_control.py"),
    message:
        "Plotting what the mean accounts for"
    script:
        "../scripts/plot_mean_control.py"


rule plot_permutation_null:
    """Plot the permutation null."""
    input:
        tables="<results>/tables/angle_pairs.csv",
    output:
        svg=report(
            "<results>/figures/permutation_null.svg",
            caption="../report/permutation_null.rst",
            category="Controls",
            labels=labels_of("permutation_null"),
        ),
        png="<results>/figures/permutation_null.png",
        csv="<results>/figures/permutation_null.csv",
    log:
        "<logs>/plot_permutation_null.log",
    benchmark:
        "<benchmarks>/plot_permutation_null.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("permutation_null"),
        code=code_of("plot_permutation_null.py"),
    message:
        "Plotting the permutation null"
    script:
        "../scripts/plot_permutation_null.py"


rule plot_training_effect:
    """Plot what training does to the angles."""
    input:
        tables="<results>/tables/angle_pairs.csv",
    output:
        svg=report(
            "<results>/figures/training_effect.svg",
            caption="../report/training_effect.rst",
            category="Controls",
            labels=labels_of("training_effect"),
        ),
        png="<results>/figures/training_effect.png",
        csv="<results>/figures/training_effect.csv",
    log:
        "<logs>/plot_training_effect.log",
    benchmark:
        "<benchmarks>/plot_training_effect.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("training_effect"),
        code=code_of("plot_training_effect.py"),
    message:
        "Plotting what training does to the angles"
    script:
        "../scripts/plot_training_effect.py"


rule plot_shuffled_labels:
    """Plot the angles of networks with shuffled labels."""
    input:
        tables="<results>/tables/angle_pairs.csv",
    output:
        svg=report(
            "<results>/figures/shuffled_labels.svg",
            caption="../report/shuffled_labels.rst",
            category="Controls",
            labels=labels_of("shuffled_labels"),
        ),
        png="<results>/figures/shuffled_labels.png",
        csv="<results>/figures/shuffled_labels.csv",
    log:
        "<logs>/plot_shuffled_labels.log",
    benchmark:
        "<benchmarks>/plot_shuffled_labels.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("shuffled_labels"),
        code=code_of("plot_shuffled_labels.py"),
    message:
        "Plotting the angles of networks with shuffled labels"
    script:
        "../scripts/plot_shuffled_labels.py"


rule plot_explained_variance:
    """Plot the share of leading directions."""
    input:
        tables=of_inputs("spectra.csv") + of_runs("spectra.csv", PLAN.own_recipes),
    output:
        svg=report(
            "<results>/figures/explained_variance.svg",
            caption="../report/explained_variance.rst",
            category="P-vectors",
            labels=labels_of("explained_variance"),
        ),
        png="<results>/figures/explained_variance.png",
        csv="<results>/figures/explained_variance.csv",
    log:
        "<logs>/plot_explained_variance.log",
    benchmark:
        "<benchmarks>/plot_explained_variance.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("explained_variance"),
        code=code_of("plot_explained_variance.py"),
    message:
        "Plotting the share of leading directions"
    script:
        "../scripts/plot_explained_variance.py"


rule plot_entry_densities:
    """Plot the densities of entries."""
    input:
        tables="<results>/tables/entries.csv",
        summary="<results>/tables/entry_summary.csv",
    output:
        svg=report(
            "<results>/figures/entry_densities.svg",
            caption="../report/entry_densities.rst",
            category="P-vectors",
            labels=labels_of("entry_densities"),
        ),
        png="<results>/figures/entry_densities.png",
        csv="<results>/figures/entry_densities.csv",
    log:
        "<logs>/plot_entry_densities.log",
    benchmark:
        "<benchmarks>/plot_entry_densities.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("entry_densities"),
        code=code_of("plot_entry_densities.py"),
    message:
        "Plotting the densities of entries"
    script:
        "../scripts/plot_entry_densities.py"


rule plot_entry_samples:
    """Plot the samples at both ends of the P-vectors."""
    input:
        tables="<results>/tables/extremes.csv",
        images="<results>/tables/extreme_images.npz",
    output:
        svg=report(
            "<results>/figures/entry_samples.svg",
            caption="../report/entry_samples.rst",
            category="P-vectors",
            labels=labels_of("entry_samples"),
        ),
        png="<results>/figures/entry_samples.png",
        csv="<results>/figures/entry_samples.csv",
    log:
        "<logs>/plot_entry_samples.log",
    benchmark:
        "<benchmarks>/plot_entry_samples.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("entry_samples"),
        code=code_of("plot_entry_samples.py"),
    message:
        "Plotting the samples at both ends of the P-vectors"
    script:
        "../scripts/plot_entry_samples.py"


rule plot_subspace_angles:
    """Plot angles beyond the first vector."""
    input:
        tables="<results>/tables/subspaces.csv",
    output:
        svg=report(
            "<results>/figures/subspace_angles.svg",
            caption="../report/subspace_angles.rst",
            category="P-vectors",
            labels=labels_of("subspace_angles"),
        ),
        png="<results>/figures/subspace_angles.png",
        csv="<results>/figures/subspace_angles.csv",
    log:
        "<logs>/plot_subspace_angles.log",
    benchmark:
        "<benchmarks>/plot_subspace_angles.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("subspace_angles"),
        code=code_of("plot_subspace_angles.py"),
    message:
        "Plotting angles beyond the first vector"
    script:
        "../scripts/plot_subspace_angles.py"


rule plot_data_angle_accuracy:
    """Plot accuracy against the angle to the data."""
    input:
        tables="<results>/tables/population.csv",
        correlations="<results>/tables/correlations.csv",
    output:
        svg=report(
            "<results>/figures/data_angle_accuracy.svg",
            caption="../report/data_angle_accuracy.rst",
            category="Generalisation",
            labels=labels_of("data_angle_accuracy"),
        ),
        png="<results>/figures/data_angle_accuracy.png",
        csv="<results>/figures/data_angle_accuracy.csv",
    log:
        "<logs>/plot_data_angle_accuracy.log",
    benchmark:
        "<benchmarks>/plot_data_angle_accuracy.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("data_angle_accuracy"),
        code=code_of("plot_data_angle_accuracy.py"),
    message:
        "Plotting accuracy against the angle to the data"
    script:
        "../scripts/plot_data_angle_accuracy.py"


rule plot_indicators:
    """Plot indicators of accuracy."""
    input:
        tables="<results>/tables/indicators.csv",
        correlations="<results>/tables/correlations.csv",
    output:
        svg=report(
            "<results>/figures/indicators.svg",
            caption="../report/indicators.rst",
            category="Generalisation",
            labels=labels_of("indicators"),
        ),
        png="<results>/figures/indicators.png",
        csv="<results>/figures/indicators.csv",
    log:
        "<logs>/plot_indicators.log",
    benchmark:
        "<benchmarks>/plot_indicators.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("indicators"),
        code=code_of("plot_indicators.py"),
    message:
        "Plotting indicators of accuracy"
    script:
        "../scripts/plot_indicators.py"


rule plot_similarity:
    """Plot the established measures of similarity."""
    input:
        tables="<results>/tables/similarity.csv",
    output:
        svg=report(
            "<results>/figures/similarity.svg",
            caption="../report/similarity.rst",
            category="Controls",
            labels=labels_of("similarity"),
        ),
        png="<results>/figures/similarity.png",
        csv="<results>/figures/similarity.csv",
    log:
        "<logs>/plot_similarity.log",
    benchmark:
        "<benchmarks>/plot_similarity.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("similarity"),
        code=code_of("plot_similarity.py"),
    message:
        "Plotting the established measures of similarity"
    script:
        "../scripts/plot_similarity.py"


rule plot_sensitivity:
    """Plot what the angles depend on."""
    input:
        tables="<results>/tables/sensitivity.csv",
    output:
        svg=report(
            "<results>/figures/sensitivity.svg",
            caption="../report/sensitivity.rst",
            category="Controls",
            labels=labels_of("sensitivity"),
        ),
        png="<results>/figures/sensitivity.png",
        csv="<results>/figures/sensitivity.csv",
    log:
        "<logs>/plot_sensitivity.log",
    benchmark:
        "<benchmarks>/plot_sensitivity.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("sensitivity"),
        code=code_of("plot_sensitivity.py"),
    message:
        "Plotting what the angles depend on"
    script:
        "../scripts/plot_sensitivity.py"


rule plot_layer_theory:
    """Plot the layers against the theory."""
    input:
        tables=of_runs("theory.csv", own(PLAN.theory_recipes)),
    output:
        svg=report(
            "<results>/figures/layer_theory.svg",
            caption="../report/layer_theory.rst",
            category="Layers",
            labels=labels_of("layer_theory"),
        ),
        png="<results>/figures/layer_theory.png",
        csv="<results>/figures/layer_theory.csv",
    log:
        "<logs>/plot_layer_theory.log",
    benchmark:
        "<benchmarks>/plot_layer_theory.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("layer_theory"),
        code=code_of("plot_layer_theory.py"),
    message:
        "Plotting the layers against the theory"
    script:
        "../scripts/plot_layer_theory.py"


rule plot_law_sweep:
    """Plot the law over settings."""
    input:
        tables=of_runs("theory.csv", PLAN.theory_recipes),
    output:
        svg=report(
            "<results>/figures/law_sweep.svg",
            caption="../report/law_sweep.rst",
            category="Layers",
            labels=labels_of("law_sweep"),
        ),
        png="<results>/figures/law_sweep.png",
        csv="<results>/figures/law_sweep.csv",
    log:
        "<logs>/plot_law_sweep.log",
    benchmark:
        "<benchmarks>/plot_law_sweep.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("law_sweep"),
        code=code_of("plot_law_sweep.py"),
    message:
        "Plotting the law over settings"
    script:
        "../scripts/plot_law_sweep.py"


rule plot_assumptions:
    """Plot the assumptions of the theory."""
    input:
        tables=of_runs("theory.csv", PLAN.theory_recipes),
    output:
        svg=report(
            "<results>/figures/assumptions.svg",
            caption="../report/assumptions.rst",
            category="Layers",
            labels=labels_of("assumptions"),
        ),
        png="<results>/figures/assumptions.png",
        csv="<results>/figures/assumptions.csv",
    log:
        "<logs>/plot_assumptions.log",
    benchmark:
        "<benchmarks>/plot_assumptions.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("assumptions"),
        code=code_of("plot_assumptions.py"),
    message:
        "Plotting the assumptions of the theory"
    script:
        "../scripts/plot_assumptions.py"


rule plot_layer_probes:
    """Plot rank and linear probes of the layers."""
    input:
        layers=of_inputs("layers.csv") + of_runs("layers.csv", own(PLAN.probed_recipes)),
        probes=of_runs("layer_probes.csv", own(PLAN.probed_recipes)),
        runs="<results>/tables/runs.csv",
    output:
        svg=report(
            "<results>/figures/layer_probes.svg",
            caption="../report/layer_probes.rst",
            category="Layers",
            labels=labels_of("layer_probes"),
        ),
        png="<results>/figures/layer_probes.png",
        csv="<results>/figures/layer_probes.csv",
    log:
        "<logs>/plot_layer_probes.log",
    benchmark:
        "<benchmarks>/plot_layer_probes.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("layer_probes"),
        code=code_of("plot_layer_probes.py"),
    message:
        "Plotting rank and linear probes of the layers"
    script:
        "../scripts/plot_layer_probes.py"


rule plot_normalisation_modes:
    """Plot both modes of batch normalisation."""
    input:
        layers=of_runs("layers.csv", own(PLAN.classifier_recipes)),
        networks=of_runs("networks.csv", own(PLAN.classifier_recipes)),
        runs="<results>/tables/runs.csv",
    output:
        svg=report(
            "<results>/figures/normalisation_modes.svg",
            caption="../report/normalisation_modes.rst",
            category="Layers",
            labels=labels_of("normalisation_modes"),
        ),
        png="<results>/figures/normalisation_modes.png",
        csv="<results>/figures/normalisation_modes.csv",
    log:
        "<logs>/plot_normalisation_modes.log",
    benchmark:
        "<benchmarks>/plot_normalisation_modes.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("normalisation_modes"),
        code=code_of("plot_normalisation_modes.py"),
    message:
        "Plotting both modes of batch normalisation"
    script:
        "../scripts/plot_normalisation_modes.py"


rule plot_collapse:
    """Plot neural collapse."""
    input:
        layers=of_runs("layers.csv", own(PLAN.classifier_recipes)),
        networks=of_runs("networks.csv", own(PLAN.classifier_recipes)),
        runs="<results>/tables/runs.csv",
    output:
        svg=report(
            "<results>/figures/collapse.svg",
            caption="../report/collapse.rst",
            category="Layers",
            labels=labels_of("collapse"),
        ),
        png="<results>/figures/collapse.png",
        csv="<results>/figures/collapse.csv",
    log:
        "<logs>/plot_collapse.log",
    benchmark:
        "<benchmarks>/plot_collapse.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("collapse"),
        code=code_of("plot_collapse.py"),
    message:
        "Plotting neural collapse"
    script:
        "../scripts/plot_collapse.py"


rule plot_embeddings:
    """Plot maps of the layers."""
    input:
        tables=[f"<results>/runs/{name}/block-0/embedding.csv" for name in own(PLAN.classifier_recipes)],
        runs="<results>/tables/runs.csv",
    output:
        svg=report(
            "<results>/figures/embeddings.svg",
            caption="../report/embeddings.rst",
            category="Layers",
            labels=labels_of("embeddings"),
        ),
        png="<results>/figures/embeddings.png",
        csv="<results>/figures/embeddings.csv",
    log:
        "<logs>/plot_embeddings.log",
    benchmark:
        "<benchmarks>/plot_embeddings.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("embeddings"),
        code=code_of("plot_embeddings.py"),
    message:
        "Plotting maps of the layers"
    script:
        "../scripts/plot_embeddings.py"


rule plot_linear_depth:
    """Plot accuracy against linear layers."""
    input:
        runs="<results>/tables/runs.csv",
        layers=of_runs("layers.csv", PLAN.probed_recipes),
    output:
        svg=report(
            "<results>/figures/linear_depth.svg",
            caption="../report/linear_depth.rst",
            category="Layers",
            labels=labels_of("linear_depth"),
        ),
        png="<results>/figures/linear_depth.png",
        csv="<results>/figures/linear_depth.csv",
    log:
        "<logs>/plot_linear_depth.log",
    benchmark:
        "<benchmarks>/plot_linear_depth.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("linear_depth"),
        code=code_of("plot_linear_depth.py"),
    message:
        "Plotting accuracy against linear layers"
    script:
        "../scripts/plot_linear_depth.py"


rule plot_transfer:
    """Plot transfer against the layers of a head."""
    input:
        layers=of_runs("layers.csv", PLAN.probed_recipes),
        probes=of_runs("layer_probes.csv", PLAN.probed_recipes),
        runs="<results>/tables/runs.csv",
    output:
        svg=report(
            "<results>/figures/transfer.svg",
            caption="../report/transfer.rst",
            category="Layers",
            labels=labels_of("transfer"),
        ),
        png="<results>/figures/transfer.png",
        csv="<results>/figures/transfer.csv",
    log:
        "<logs>/plot_transfer.log",
    benchmark:
        "<benchmarks>/plot_transfer.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=PLAN.plot("transfer"),
        code=code_of("plot_transfer.py"),
    message:
        "Plotting transfer against the layers of a head"
    script:
        "../scripts/plot_transfer.py"
