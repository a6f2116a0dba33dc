# Requires: the tables that the study's ledgers rest on.
# Makes: tables/claims.csv, the ledger: each claim, what was published, what was measured, and the verdict.


def evidence():
    """List what the claims of the study's ledgers are measured by, by name."""
    tables = {"runs": "<results>/tables/runs.csv"}
    if "p-vectors" in STUDY.ledgers:
        tables |= {
            "dynamics": "<results>/tables/angle_dynamics.csv",
            "pairs": "<results>/tables/angle_pairs.csv",
            "subspaces": "<results>/tables/subspaces.csv",
            "entry_summary": "<results>/tables/entry_summary.csv",
            "entries": "<results>/tables/entries.csv",
            "similarity": "<results>/tables/similarity.csv",
            "sensitivity": "<results>/tables/sensitivity.csv",
            "population": "<results>/tables/population.csv",
            "correlations": "<results>/tables/correlations.csv",
            "indicators": "<results>/tables/indicators.csv",
            "probes": of_runs("probe.csv", OWN_NETWORKS),
            "spectra": of_runs("spectra.csv", PLAN.own_recipes),
        }
    if "layerwise" in STUDY.ledgers:
        tables |= {
            "layers": of_runs("layers.csv", PLAN.network_recipes),
            "inputs": of_inputs("layers.csv"),
            "networks": of_runs("networks.csv", PLAN.classifier_recipes),
            "theory": of_runs("theory.csv", PLAN.theory_recipes),
            "layer_probes": of_runs("layer_probes.csv", PLAN.probed_recipes),
        }
    return tables


rule test_claims:
    input:
        **evidence(),
    output:
        table="<results>/tables/claims.csv",
    log:
        "<logs>/test_claims.log",
    benchmark:
        "<benchmarks>/test_claims.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        spec=PLAN.test_claims(),
        code=code_of(
            "test_claims.py", *[f"featurespace/decision_rules/{name}.yaml" for name in (*STUDY.ledgers, "trained")]
        ),
    message:
        "Testing the claims"
    script:
        "../scripts/test_claims.py"
