# Requires: the study's tables.
# Makes: tables/claims.csv, the ledger: each claim, what was published, what was measured, and the verdict.


rule test_claims:
    input:
        dynamics="<results>/tables/angle_dynamics.csv",
        pairs="<results>/tables/angle_pairs.csv",
        runs="<results>/tables/runs.csv",
        subspaces="<results>/tables/subspaces.csv",
        entry_summary="<results>/tables/entry_summary.csv",
        entries="<results>/tables/entries.csv",
        similarity="<results>/tables/similarity.csv",
        sensitivity="<results>/tables/sensitivity.csv",
        population="<results>/tables/population.csv",
        correlations="<results>/tables/correlations.csv",
        indicators="<results>/tables/indicators.csv",
        probes=of_runs("probe.csv", OWN_NETWORKS),
        spectra=of_runs("spectra.csv", PLAN.own_recipes),
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
        code=code_of("test_claims.py", *[f"featurespace/decision_rules/{name}.yaml" for name in STUDY.ledgers]),
    message:
        "Testing the claims"
    script:
        "../scripts/test_claims.py"
