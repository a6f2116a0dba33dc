# Requires: the tables that the study's ledgers rest on.
# Makes: tables/claims.csv, the ledger: each claim, what was published, what was measured, and the verdict.


rule test_claims:
    """Judge the papers' claims: the ledger."""
    input:
        **evidence(),
    output:
        table=report(
            "<results>/tables/claims.csv",
            caption="../report/claims.rst",
            category="Tables",
            labels=labels_of("claims", "Table"),
        ),
    log:
        "<logs>/test_claims.log",
    benchmark:
        "<benchmarks>/test_claims.tsv"
    conda:
        "../envs/featurespace.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        spec=PLAN.test_claims(),
        code=code_of(
            "test_claims.py", *[f"featurespace/decision_rules/{name}.yaml" for name in (*STUDY.ledgers, "trained")]
        ),
    message:
        "Testing the claims"
    script:
        "../scripts/test_claims.py"
