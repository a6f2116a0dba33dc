"""The ledger: its table of rules is whole and strict, and every verdict is given where the truth is known."""

import re
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from featurespace import claims
from featurespace.claim_statistics import REGISTRY, Scene
from featurespace.claims import Claim, Rules, decide, make_ledger, parse_rules
from featurespace.errors import FeaturespaceError
from featurespace.evidence import Absent, Measurement
from featurespace.tables import read_table

STATISTICS = REGISTRY.statistics
SCRIPTS = Path(__file__).parents[2] / "scripts"
LEDGER = claims.RULES / "p-vectors.yaml"
N_SAMPLES, CLASSES = 400, 10
EPOCHS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
RECIPES = {  # task, kind, and what else the model has
    "mlp": ("classify", "mlp", {"widths": [64]}),
    "cnn": ("classify", "cnn", {"channels": [8]}),
    "wrn": ("classify", "wide-resnet", {"depth": 28, "widen": 2}),
    "resnet": ("classify", "torchvision", {"name": "resnet50"}),
    "ae": ("reconstruct", "autoencoder", {"latent": 32}),
    "dae": ("denoise", "autoencoder", {"latent": 32}),
    "simclr": ("simclr", "resnet", {"depth": 18, "width": 8}),
    "supcon": ("supcon", "resnet", {"depth": 18, "width": 8}),
    "shuffled": ("shuffled-labels", "mlp", {"widths": [64]}),
    "untrained": ("untrained", "cnn", {"channels": [8]}),
    "noise": ("noise", "noise", {"rectified": True}),
}
REFERENCES = ["wrn", "ae", "simclr"]
STILL = ("untrained", "noise")
DRAWS = np.random.default_rng(0).normal(size=1000)


@pytest.fixture(scope="module")
def rules() -> Rules:
    return parse_rules(LEDGER.read_text("utf-8"), LEDGER.name)


def only(rules: Rules, *names: str) -> Rules:
    """Keep some claims only, which is quicker."""
    chosen = [claim for claim in rules.claims if claim.claim in names]
    assert len(chosen) == len(names)
    return replace(rules, claims=chosen)


# --- a study whose truth is known -------------------------------------------------------------------------------------


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def relations(first: np.ndarray, second: np.ndarray) -> pd.DataFrame:
    """Compare vectors row by row, independently of the library."""
    n = first.shape[1]
    p, q = (rows * np.where(rows.sum(axis=1, keepdims=True) < 0, -1, 1) for rows in (first, second))
    q = q * np.where((p * q).sum(axis=1, keepdims=True) < 0, -1, 1)
    ones = [np.clip(rows.sum(axis=1) / np.sqrt(n), -1, 1) for rows in (p, q)]
    product, sines = ones[0] * ones[1], np.sqrt(1 - ones[0] ** 2) * np.sqrt(1 - ones[1] ** 2)
    cosine = np.minimum((p * q).sum(axis=1), 1)
    r = (cosine - product) / sines
    draws = np.abs(product[:, None] + sines[:, None] * DRAWS / np.sqrt(n - 1))
    return pd.DataFrame(
        {
            "angle_deg": np.where((p == q).all(axis=1), 0.0, np.degrees(np.arccos(cosine))),
            "cosine": cosine,
            "correlation": r,
            "angle_to_ones_deg": np.degrees(np.arccos(ones[0])),
            "reference_angle_to_ones_deg": np.degrees(np.arccos(ones[1])),
            "null_mean_deg": np.degrees(np.arccos(np.minimum(draws, 1))).mean(axis=1),
            "null_formula_deg": np.degrees(np.arccos(np.minimum(draws, 1))).mean(axis=1),
            "p_value": np.where(np.abs(r) > 0.3, 0.001, 0.5),
            "determined": True,
        }
    )


def compared(rows: list[tuple[dict, np.ndarray, np.ndarray]]) -> pd.DataFrame:
    """Make a table of rows that say what is compared, and the two vectors."""
    about, first, second = zip(*rows, strict=True)
    return pd.concat([pd.DataFrame(about), relations(np.array(first), np.array(second))], axis=1)


def made_study(mean: float, common: float, n_seeds: int = 5, kind: str = "fashion-mnist", recipes=RECIPES):
    """Make the tables of a study.

    Centred P-vectors of trained networks have cosine `common` with one direction; raw ones have an angle to the ones
    vector of arctan(1/mean). Everything starts in directions of its own.
    """
    rng = np.random.default_rng(0)
    base = {"dataset": "d"}
    shared = unit(rng.normal(size=N_SAMPLES))

    def centred(vector: np.ndarray) -> np.ndarray:
        return unit(vector - vector.mean())

    def both(vector: np.ndarray) -> dict[str, np.ndarray]:
        direction = centred(vector)
        return {"raw": unit(mean / np.sqrt(N_SAMPLES) + direction), "centred": direction}

    vectors = {}  # (recipe, seed) -> a dict of both centrings a step
    for name, (task, *_) in recipes.items():
        for seed in range(n_seeds):
            start, own = rng.normal(size=(2, N_SAMPLES))
            goal = (
                unit(own)
                if task in ("shuffled-labels", *STILL)
                else common * shared + np.sqrt(1 - common**2) * unit(own)
            )
            epochs = EPOCHS[:1] if task in STILL else EPOCHS
            paths = [(1 - e / EPOCHS[-1]) * unit(start) + e / EPOCHS[-1] * unit(goal) for e in epochs]
            vectors[name, seed] = [both(path) for path in paths]
    vectors["data", 0] = [both(shared + 0.2 * unit(rng.normal(size=N_SAMPLES)))]

    tables: dict[str, list] = {name: [] for name in claim_tables()}
    networks = [key for key in vectors if key[0] != "data"]
    for centring in ("raw", "centred"):
        for (name, seed), steps in vectors.items():
            for step, (epoch, at) in enumerate(zip(EPOCHS, steps, strict=False)):
                where = base | {"centring": centring, "recipe": name, "seed": seed, "step": step, "epoch": epoch}
                p = at[centring]
                cv = p.std() / abs(p.mean()) if centring == "raw" else np.nan
                ones = np.degrees(np.arctan(cv))
                tables["summary"].append(where | {"norm": np.linalg.norm(p), "cv": cv, "angle_to_ones_deg": ones})
                tables["summary"][-1] |= {"angle_to_mean_deg": 1.0}
                counts, edges = np.histogram(p * np.sqrt(N_SAMPLES) * (1 + 0.5 * epoch), bins=np.linspace(-12, 12, 25))
                if epoch in (0.0, EPOCHS[-1]):
                    tables["entries"] += [
                        where | {"bin_low": low, "bin_high": high, "count": count, "density": np.nan}
                        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
                    ]
                if name == "data":
                    continue
                references = [(n, s) for n in REFERENCES if n in recipes for s in range(n_seeds)]
                for other in [(name, seed), ("data", 0), *(r for r in references if r != (name, seed))]:
                    label = "own" if other == (name, seed) else other[0]
                    against = where | {"layer": "pooled", "reference": label, "reference_seed": other[1]}
                    tables["dynamics"].append((against, p, vectors[other][-1][centring]))
                for k in range(1, 13):
                    vector_angle = 0.0 if epoch == EPOCHS[-1] else 85.0 + 0.1 * ((7 * step + k) % 3)
                    subspace = where | {"reference": "own", "reference_seed": seed, "k": k}
                    tables["subspaces"].append(subspace | subspace_angles(vector_angle, vector_angle))
                to_data = where | {"reference": "data", "reference_seed": 0, "k": CLASSES}
                tables["subspaces"].append(to_data | subspace_angles(80.0, 40.0 + seed))
                for component in range(1, 21):
                    fall = CLASSES - (centring == "centred")
                    share = (0.5 if component == 1 else 0.05) if component <= fall else 1e-4
                    tables["spectra"].append(
                        where
                        | {
                            "layer": "pooled",
                            "component": component,
                            "variance_share": share - 0.01 * epoch * (share > 0.1),
                        }
                    )
            if name not in ("data", *STILL):
                for reference, other_seed in [(n, seed) for n in recipes if n != name]:
                    subspace = where | {"reference": reference, "reference_seed": other_seed, "k": CLASSES}
                    tables["subspaces"].append(subspace | subspace_angles(80.0, 40.0 + seed))
        for stage, index in (("first", 0), ("last", -1)):
            keys = list(vectors)
            for i, a in enumerate(keys):
                for b in keys[i + 1 :]:
                    ends = {"recipe_a": a[0], "seed_a": a[1], "recipe_b": b[0], "seed_b": b[1]}
                    at = base | {"centring": centring, "stage": stage} | ends
                    tables["pairs"].append((at, vectors[a][index][centring], vectors[b][index][centring]))
    for name, seed in networks:
        task = recipes[name][0]
        classifier = task in ("classify", "untrained")
        numbers = {"test_accuracy": 0.8 + 0.002 * seed if classifier else np.nan, "train_accuracy": 1.0}
        numbers["relative_loss"] = 0.2 if task in ("reconstruct", "denoise") else np.nan
        tables["runs"].append(base | {"recipe": name, "seed": seed, **numbers})
        tables["probes"] += [
            base
            | {"recipe": name, "seed": seed, "step": step, "layer": "pooled", "test_accuracy": accuracy + 0.01 * seed}
            for step, accuracy in ((0, 0.5), (5, 0.6 + 0.005 * (seed % 2)))
        ]
    tables["similarity"] = similarities(base, recipes, n_seeds, rng)
    tables["sensitivity"] = sensitivities(base, recipes, n_seeds, rng)
    tables |= population_tables(base)
    spec = {
        "references": REFERENCES,
        "permutations": 1999,
        "datasets": [{"name": "d", "kind": kind, "n_train": 2000, "n_samples": N_SAMPLES, "classes": CLASSES}],
        "recipes": [
            {
                "name": name,
                "dataset": "d",
                "task": task,
                "kind": model,
                "model": {"kind": model, **extra},
                "epochs": 0 if task in STILL else 4,
                "n_seeds": n_seeds,
                "population": "",
            }
            for name, (task, model, extra) in recipes.items()
        ],
    }
    of_pairs = ("dynamics", "pairs")
    frames = {name: compared(rows) if name in of_pairs else pd.DataFrame(rows) for name, rows in tables.items()}
    return frames, spec


def claim_tables() -> list[str]:
    names = "dynamics pairs runs probes spectra subspaces summary entries similarity sensitivity"
    return f"{names} population correlations indicators".split()


def subspace_angles(vector_angle: float, mean: float) -> dict[str, float]:
    angles = {"vector_angle_deg": vector_angle, "mean_deg": mean, "largest_deg": mean + 5}
    return angles | {"null_mean_deg": 84.0, "null_largest_deg": 89.0, "null_largest_low_deg": 87.0}


def similarities(base, recipes, n_seeds, rng) -> list[dict]:
    names = [name for name, (task, *_) in recipes.items() if task not in STILL]
    rows = []
    for i, a in enumerate(names):
        for b in names[i:]:
            value = {"cosine_raw": rng.uniform(), "cosine_centred": rng.uniform(), "svcca": rng.uniform()}
            value["cka"] = value["cosine_centred"]  # in the centred case it says just the same
            value["procrustes"] = 2 - value["cosine_raw"]  # and this one in the raw case, as a distance
            value["cka_deconfounded"] = rng.uniform()
            rows += [
                base
                | {"stage": "last", "recipe_a": a, "seed_a": s, "recipe_b": b, "seed_b": (s + (a == b)) % n_seeds}
                | {"measure": measure, "value": number + 1e-6 * s}
                for s in range(n_seeds)
                for measure, number in value.items()
            ]
    return rows


def sensitivities(base, recipes, n_seeds, rng) -> list[dict]:
    """Angles of 10 degrees throughout, and of 70 to 90 from start to end, but for 30 where rows are normalised."""
    levels = {
        "samples": [("0.5", 0.5), ("1.0", 1.0)],
        "features": [("0.5", 0.5), ("1.0", 1.0)],
        "split": [("train", np.nan), ("test", np.nan)],
        "normalisation": [("none", np.nan), ("unit-rows", np.nan)],
        "depth": [("first", 0.3), ("last", 1.0)],
        "width": [("narrow~wide", np.nan)],
        "mismatch": [("disjoint", np.nan), ("shuffled", np.nan)],
    }
    names = [name for name, (task, *_) in recipes.items() if task not in (*STILL, "shuffled-labels")]
    rows = []
    for factor, steps in levels.items():
        for level, value in steps:
            for centring in ("raw", "centred"):
                for i, a in enumerate(names[:-1]):
                    for seed in range(n_seeds):
                        at = {"factor": factor, "level": level, "value": value, "centring": centring}
                        ends = {"recipe_a": a, "seed_a": seed, "recipe_b": names[i + 1], "seed_b": seed}
                        angle = (30.0 if level == "unit-rows" else 10.0) + rng.normal()
                        null = 86.0 if centring == "centred" else 40.0
                        if factor == "mismatch":
                            angle = null + 0.1 * rng.normal()
                        both = {"n_samples": 200, "null_formula_deg": null, "correlation": 0.01}
                        rows.append(base | at | ends | both | {"relation": "between", "angle_deg": angle})
                        rows.append(base | at | ends | both | {"relation": "start_to_end", "angle_deg": 80.0})
    return rows


def population_tables(base) -> dict[str, list[dict]]:
    """A population where the centred angle predicts accuracy and the raw one does not."""
    tables: dict[str, list[dict]] = {"population": [], "correlations": [], "indicators": []}
    for centring in ("raw", "centred"):
        good = centring == "centred"
        tables["population"] += [
            base
            | {"centring": centring, "recipe": f"s{i}", "kind": ("mlp", "cnn", "resnet")[i % 3], "n_seeds": 5}
            | {"angle_to_data_deg": 40.0 - i, "test_accuracy": 0.6 + 0.01 * i}
            for i in range(36)
        ]
        for group in ("all", "mlp", "cnn"):
            for target in ("test_accuracy", "generalisation_gap"):
                sign = -1 if target == "test_accuracy" else 1
                rho = sign * (0.8 if good else 0.1)
                ends = {"low": rho - 0.15, "high": rho + 0.15, "p_value": 0.001, "p_holm": 0.01 if good else 0.9}
                case = base | {"centring": centring, "group": group, "target": target, "n_settings": 36}
                loo = {"loo_low": rho - 0.02, "loo_high": rho + 0.02}
                tables["correlations"].append(case | {"indicator": "angle_to_data_deg", "rho": rho} | ends | loo)
                for indicator, skill in (("angle_to_data_deg", 0.5 if good else 0.05), ("train_loss", 0.3)):
                    tables["indicators"].append(
                        case
                        | {"indicator": indicator, "skill": skill, "low": skill - 0.1, "high": skill + 0.1, "rank": 1.0}
                        | {"best_other": "weight_norm", "difference": 0.1, "difference_high": 0.3}
                        | {"difference_low": 0.05 if good else -0.05}
                    )
    return tables


@pytest.fixture(scope="module")
def close_study():
    """Close both raw and centred: the common direction is what remains of them."""
    return made_study(mean=1.0, common=0.985)


@pytest.fixture(scope="module")
def close_ledger(rules, close_study) -> pd.DataFrame:
    return make_ledger(rules, *close_study)


@pytest.fixture(scope="module")
def mean_ledger(rules) -> pd.DataFrame:
    """Close to the ones vector, and nothing in common beyond it."""
    starts = [claim.claim for claim in rules.claims if claim.claim.startswith("question-")]
    names = (
        *starts,
        "c3-untrained-fails",
        "c4-fails",
        "p3-every-pair",
        "p3-typical-pair",
        "p4-end-conv-ae",
        "c3-noise-fails",
        "c3-effect-networks-networks",
    )
    return make_ledger(only(rules, *names), *made_study(mean=10.0, common=0.0))


def line(ledger: pd.DataFrame, claim: str, centring: str = "") -> pd.Series:
    found = ledger[(ledger["claim"] == claim) & (ledger["centring"] == centring)]
    assert len(found) == 1, f"{claim} {centring}: {len(found)} lines"
    return found.iloc[0]


# --- the table of rules -----------------------------------------------------------------------------------------------


def test_every_row_of_the_specification_has_rules(rules):
    rows = [*(f"P{i}" for i in range(11)), *(f"C{i}" for i in range(1, 9))]
    assert list(rules.rows) == rows
    assert {claim.row for claim in rules.claims} == set(rows)


def test_every_statistic_serves_a_rule(rules):
    assert {claim.statistic for claim in rules.claims} == set(STATISTICS) == set(REGISTRY.extras)


def test_every_family_serves_a_rule(rules):
    named = {str(value) for claim in rules.claims for value in claim.arguments.values()}
    used = named | {"networks", "supervised-cnn"}  # statistics name these two themselves
    assert set(rules.families) <= used


def test_published_numbers_are_all_there(rules):
    """Every number of the specification that is the paper's or its reviews'."""
    published = " ".join(claim.published for claim in rules.claims)
    cumulative = [
        ".5675",
        ".6489",
        ".7067",
        ".7588",
        ".8064",
        ".8489",
        ".8891",
        ".9253",
        ".9577",
        ".9887",
        ".9896",
        ".9903",
    ]
    for number in (*cumulative, "0.081", "0.4", "0.6", "0.985", "near 1.0", "80-90", "70-80", "nearly orthogonal"):
        assert number in published
    for number in ("about 10", "below 10", "about 30", "never 0", "50000", "256", "1280", "200", "from 0.4 to 0.6"):
        assert number in published


def test_nothing_but_the_papers_and_its_reviews_numbers_is_published(rules):
    for claim in rules.claims:
        assert claim.published == "" or re.search(r"\[[PR]\]", claim.source), claim.claim


def test_claims_of_closeness_say_so(rules):
    """A claim with an upper limit on an angle or a lower one on a cosine can be the mean's doing, controls apart."""
    for claim in rules.claims:
        if claim.statistic in ("pair_cosine", "curve_plateau") or (
            claim.statistic in ("pair_angle", "curve_angle") and any("high" in p for p in claim.passes)
        ):
            ranges = claim.claim in ("p3-supcon", "p4-end-supcon", "p4-start-journal") or "panel-supcon" in claim.claim
            assert claim.closeness != ranges, claim.claim


MINIMAL = """
ledger: p-vectors
title: A paper
rows: {P3: pairs, C8: controls}
tags: {C: our choice}
requirements: {seeds: 5, confidence: 0.95, permutations: 199, correlation_p: 0.001, settings: 30, families: 3,
  accuracy_spread: 0.1, family_error: 0.05}
families:
  mlp: {tasks: [classify], kinds: [mlp]}
trained:
  - {task: classify, quantity: test_accuracy, at_least: 0.5}
claims:
  - claim: a-{family}
    row: P3
    title: "{family}"
    source: "[C]"
    statistic: pair_angle
    arguments: {a: mlp}
    published: null
    passes: [high <= 20]
    each: [{family: x, b: mlp}]
"""


def test_a_limit_may_be_a_requirement(rules):
    (claim,) = parse_rules(MINIMAL.replace("high <= 20", "high < family_error"), "small.yaml").claims
    assert claim.passes == ("high < 0.05",)
    (claim,) = only(rules, "p6-rank-correlation").claims
    assert "p_holm < 0.05" in claim.passes


def test_the_smallest_table_is_read():
    (claim,) = parse_rules(MINIMAL, "small.yaml").claims
    assert (claim.claim, claim.title, claim.published) == ("a-x", "x", "")
    assert claim.arguments == {"a": "mlp", "b": "mlp"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("row: P3", "row: P11", "row: 'P11' is not one of P3, C8"),
        ("row: P3", "rwo: P3", "row missing"),
        ("row: P3", "row: P3\n    weight: 2", "weight unknown"),
        ("statistic: pair_angle", "statistic: pair_angel", "statistic 'pair_angel' is not one"),
        ("arguments: {a: mlp}", "arguments: {a: mlp, c: mlp}", "arguments: c unknown"),
        ("arguments: {a: mlp}", "arguments: {a: cnn}", "no family 'cnn'"),
        ("b: mlp}]", "c: mlp}]", "c is neither a key, nor an argument"),
        ('title: "{family}"', 'title: "{famly}"', "nothing fills in famly"),
        ("[high <= 20]", "[higher <= 20]", "'higher' unknown"),
        ("[high <= 20]", "[high =< 20]", "is not `name <= number`"),
        ("[high <= 20]", "[high <= loo_low]", "'loo_low' unknown"),
        ("[high <= 20]", "[]", "passes: should be a list"),
        ('source: "[C]"', "source: someone", "no tag"),
        ('source: "[C]"', 'source: "[C], [M]"', "tag [M] unknown (there are: [C])"),
        ("ledger: p-vectors", "ledger: q-vectors", "ledger: 'q-vectors' unknown"),
        ("published: null", "min_seeds: few\n    published: null", "min_seeds: should be a number"),
        ("published: null", "predicted: many\n    published: null", "predicted: should be a number"),
        ("published: null", "scope: paper\n    published: null", "'paper' unknown"),
        ("published: null", "scope: study\n    only_for: [mnist]\n    published: null", "only_for: a claim about"),
        ("kinds: [mlp]}", "kinds: [mlp], among: some}", "families.mlp.among: 'some' unknown"),
        ("kinds: [mlp]}", "kinds: [mlp], where: {model.dpeth: 6}}", "families.mlp.where: model.dpeth unknown"),
        ("trained:\n", "settings: [{name: x, where: {epoch: 1}}]\ntrained:\n", "settings.0.where: epoch unknown"),
        ("trained:\n", "defaults: {centring: []}\ntrained:\n", "defaults: centring unknown"),
        ("trained:\n", "trained:\n  - untrained.yaml\n", "trained: no file 'untrained.yaml'"),
        ("published: null", "requires: luck\n    published: null", "'luck' unknown"),
        ("published: null", "only_for: [cifar]\n    published: null", "'cifar' unknown"),
        ("seeds: 5, ", "", "requirements: seeds missing"),
        ("seeds: 5,", "seeds: five,", "requirements.seeds: should be a number"),
        ("at_least: 0.5", "at_most: 0.5", "takes a level `at_least`"),
        ("kinds: [mlp]", "kinds: [mpl]", "families.mlp.kinds: 'mpl' unknown"),
        ("row: P3", "row: P3\n    row: P4", "key 'row' is given twice"),
        ("[{family: x, b: mlp}]", "[{family: x, b: mlp}, {family: x, b: mlp}]", "a-x is there twice"),
        ("trained:\n", "training:\n", "trained missing"),
        ("claims:", "claims: [", "small.yaml"),
    ],
)
def test_what_is_wrong_with_the_rules_is_said(old, new, message):
    assert old in MINIMAL
    with pytest.raises(FeaturespaceError, match=re.escape(message)) as raised:
        parse_rules(MINIMAL.replace(old, new), "small.yaml")
    assert str(raised.value).startswith("small.yaml: ")
    assert "\n" not in str(raised.value)


# --- verdicts ---------------------------------------------------------------------------------------------------------


def measurement(value: float, spread: float = 0.0, **more) -> Measurement:
    return Measurement(value, value - spread, value + spread, 5, "", **more)


CLOSE = Claim("c", "P3", "t", "[C]", "pair_angle", ("high <= 20",), closeness=True)


@pytest.mark.parametrize(
    ("claim", "raw", "centred", "expected"),
    [
        (CLOSE, measurement(5, 1, beyond_chance=True), measurement(9, 1), ("reproduced", "both")),
        (CLOSE, measurement(5, 1, beyond_chance=False), measurement(9, 1), ("explained by the mean", "both")),
        (CLOSE, measurement(5, 1, beyond_chance=True), measurement(60, 1), ("explained by the mean", "raw only")),
        (CLOSE, measurement(30, 1, beyond_chance=True), measurement(9, 1), ("reproduced", "centred only")),
        (CLOSE, measurement(30, 1, beyond_chance=True), measurement(60, 1), ("not reproduced", "neither")),
        (CLOSE, measurement(18, 5, beyond_chance=True), measurement(18, 5), ("not reproduced", "neither")),
        (replace(CLOSE, closeness=False), measurement(5, 1), measurement(60, 1), ("reproduced", "raw only")),
        (replace(CLOSE, requires="nothing"), measurement(5, 1), measurement(60, 1), ("not reproduced", "raw only")),
        (replace(CLOSE, every_centring=True), measurement(5, 1), measurement(60, 1), ("not reproduced", "raw only")),
        (replace(CLOSE, every_centring=True), measurement(5, 1), measurement(6, 1), ("reproduced", "both")),
        (CLOSE, measurement(np.nan), measurement(np.nan), ("not reproduced", "neither")),
    ],
    ids=["both", "chance", "mean", "centred", "neither", "interval", "far", "exact", "half", "control", "nothing"],
)
def test_a_verdict_follows_from_both_centrings(claim, raw, centred, expected):
    assert decide(claim, {"raw": raw, "centred": centred}) == expected


def test_thresholds_may_name_other_numbers():
    claim = replace(CLOSE, passes=("high < null", "off <= 0.5"))
    assert claims.passes(claim, measurement(5, 1, null=7.0, extras={"off": 0.5}))
    assert not claims.passes(claim, measurement(5, 3, null=7.0, extras={"off": 0.5}))
    assert not claims.passes(claim, measurement(5, 1, extras={"off": 0.5}))  # no null


def test_the_ledger_has_the_columns_and_vocabulary_of_the_design(close_ledger, rules):
    assert list(close_ledger.columns) == claims.COLUMNS
    verdicts = {"reproduced", "explained by the mean", "not reproduced", "not determined", "not run"}
    assert set(close_ledger["verdict"]) <= verdicts
    assert set(close_ledger["convention"]) <= {"both", "raw only", "centred only", "neither", ""}
    assert list(dict.fromkeys(close_ledger["claim"])) == [claim.claim for claim in rules.claims]
    assert (close_ledger.groupby("claim")["verdict"].nunique() == 1).all()
    assert (close_ledger.groupby("claim")["convention"].nunique() == 1).all()
    assert (close_ledger["evidence"].str.len() > 0).all()


def test_a_whole_study_leaves_out_only_what_needs_other_data(close_ledger):
    missing = close_ledger[close_ledger["verdict"] == "not run"]
    assert set(missing["evidence"]) == {
        "needs CIFAR-10",
        "needs CIFAR-100",
        "needs CIFAR-10 or CIFAR-100",
        "needs MNIST",
        "needs MNIST or CIFAR-10 or CIFAR-100",
        "each data set is a study of its own, and this one has 0 of the paper's 3: the ledgers of all are to be read "
        "together",
    }
    assert missing["measured"].isna().all()
    assert missing["passes"].isna().all()
    undecided = close_ledger[close_ledger["verdict"] == "not determined"]
    assert undecided.empty, undecided[["claim", "evidence"]].to_string()
    assert line(close_ledger, "c8-rows")["measured"] == 1


def test_what_is_close_without_the_mean_too_is_reproduced(close_ledger):
    found = line(close_ledger, "question-supervised-autoencoder", "raw")
    assert (found["verdict"], found["convention"]) == ("reproduced", "both")
    assert found["low"] < found["measured"] < found["high"] < 20
    assert "r = 0.9" in found["evidence"]
    assert line(close_ledger, "question-remains-angle", "raw")["verdict"] == "reproduced"
    assert line(close_ledger, "p4-panel-autoencoder-to-wide-resnet", "centred")["convention"] == "both"


def test_what_only_the_mean_makes_close_is_explained_by_it(mean_ledger):
    for claim in ("question-supervised-autoencoder", "p3-every-pair", "p3-typical-pair", "p4-end-conv-ae"):
        found = line(mean_ledger, claim, "raw")
        assert (found["verdict"], found["convention"], found["passes"]) == ("explained by the mean", "raw only", True)
        assert line(mean_ledger, claim, "centred")["passes"] is False
    assert line(mean_ledger, "question-remains-correlation", "raw")["verdict"] == "not reproduced"
    for control in ("c3-noise-fails", "c3-untrained-fails", "c4-fails"):  # raw, they pass for similar
        found = line(mean_ledger, control, "raw")
        assert (found["passes"], found["verdict"], found["convention"]) == (False, "not reproduced", "centred only")


def test_which_convention_starts_far_apart_is_said(close_ledger, mean_ledger):
    for family in ("mlp", "supervised-cnn", "wide-resnet", "conv-ae", "denoise-ae", "simclr", "supcon"):
        assert line(mean_ledger, f"question-start-{family}", "centred")["convention"] == "centred only"
    found = line(close_ledger, "question-both", "centred")
    assert (found["verdict"], found["convention"]) == ("reproduced", "centred only")
    assert line(mean_ledger, "question-both", "centred")["verdict"] == "not reproduced"


def test_what_does_not_hold_is_not_reproduced(mean_ledger):
    found = line(mean_ledger, "c3-effect-networks-networks", "centred")
    assert (found["verdict"], found["convention"]) == ("not reproduced", "neither")
    assert found["low"] < 0.5


def test_exact_statements_hold_exactly(close_ledger):
    assert line(close_ledger, "p0-identity", "raw")["measured"] < 1e-10
    assert line(close_ledger, "p0-own-last-step", "raw")["measured"] == 0
    assert line(close_ledger, "c2-formula", "centred")["verdict"] == "reproduced"


def test_too_few_seeds_decide_nothing(rules):
    names = ("question-supervised-autoencoder", "p0-identity", "p2-seeds")
    ledger = make_ledger(only(rules, *names), *made_study(mean=1.0, common=0.985, n_seeds=3))
    found = line(ledger, "question-supervised-autoencoder", "raw")
    assert found["verdict"] == "not determined"
    assert found["evidence"].startswith("too few seeds: 3, of 5 wanted")
    assert np.isfinite(found["measured"])
    assert line(ledger, "p0-identity", "raw")["verdict"] == "reproduced"  # it needs none
    assert line(ledger, "p2-seeds")["verdict"] == "not reproduced"


def altered(study, table: str, recipe: str, column: str, value: float):
    tables, spec = study
    changed = tables[table].copy()
    changed.loc[changed["recipe"] == recipe, column] = value
    return {**tables, table: changed}, spec


def test_under_trained_networks_decide_nothing(rules, close_study):
    names = ("question-supervised-autoencoder", "p2-trained-conv-ae", "p2-trained-denoise-ae", "p8-cliff")
    ledger = make_ledger(only(rules, *names), *altered(close_study, "runs", "ae", "relative_loss", 0.7))
    found = line(ledger, "question-supervised-autoencoder", "raw")
    assert found["verdict"] == "not determined"
    assert "under-trained: ae: relative_loss 0.700, at most 0.5 wanted" in found["evidence"]
    assert line(ledger, "p2-trained-conv-ae")["verdict"] == "not reproduced"
    assert line(ledger, "p2-trained-denoise-ae")["verdict"] == "reproduced"
    assert line(ledger, "p8-cliff", "raw")["verdict"] == "reproduced"  # about other networks


@pytest.mark.parametrize(
    ("n_train", "kind", "wanted"),
    [
        (2000, "fashion-mnist", "at least 0.75"),
        (60000, "fashion-mnist", "at least 0.9"),
        (100, "digits", "set no level"),
    ],
)
def test_what_counts_as_trained_depends_on_data_and_size(rules, close_study, n_train, kind, wanted):
    tables, spec = close_study
    dataset = spec["datasets"][0] | {"n_train": n_train, "kind": kind}
    tables, _ = altered(close_study, "runs", "cnn", "test_accuracy", 0.6)
    ledger = make_ledger(only(rules, "p3-mlp-supervised-cnn"), tables, spec | {"datasets": [dataset]})
    found = line(ledger, "p3-mlp-supervised-cnn", "raw")
    assert found["verdict"] == "not determined"
    assert wanted in found["evidence"]


def test_a_contrastive_encoder_counts_as_trained_if_its_probe_gains(rules, close_study):
    tables, spec = close_study
    probes = tables["probes"].copy()
    last = (probes["recipe"] == "simclr") & (probes["step"] == 5)
    probes.loc[last, "test_accuracy"] = (
        0.5 + np.array([0.05, -0.04, 0.02, -0.03, 0.06]) + 0.01 * probes.loc[last, "seed"]
    )
    names = ("p3-simclr-autoencoder", "p2-trained-simclr", "p2-trained-supcon")
    ledger = make_ledger(only(rules, *names), {**tables, "probes": probes}, spec)
    assert line(ledger, "p3-simclr-autoencoder", "raw")["verdict"] == "not determined"
    assert "probe gains" in line(ledger, "p2-trained-simclr")["evidence"]
    assert line(ledger, "p2-trained-simclr")["verdict"] == "not reproduced"
    assert line(ledger, "p2-trained-supcon")["verdict"] == "reproduced"


def test_a_study_without_a_family_says_so(rules):
    few = {name: RECIPES[name] for name in ("cnn", "ae", "wrn")}
    tables, spec = made_study(mean=1.0, common=0.985, recipes=few)
    for name in ("population", "correlations", "indicators", "similarity"):
        tables[name] = pd.DataFrame()
    names = ("question-start-simclr", "question-supervised-autoencoder", "p4-panel-supervised-cnn-to-simclr")
    ledger = make_ledger(only(rules, *names, "p6-rank-correlation", "c8-rows"), tables, spec)
    found = line(ledger, "question-start-simclr")
    assert (found["verdict"], found["evidence"]) == ("not run", "this study has no simclr on d")
    assert "correlations.csv has no rows for d" in line(ledger, "p6-rank-correlation")["evidence"]
    assert line(ledger, "p4-panel-supervised-cnn-to-simclr")["verdict"] == "not run"
    assert line(ledger, "question-supervised-autoencoder", "raw")["verdict"] == "reproduced"
    assert line(ledger, "c8-rows")["verdict"] == "not reproduced"
    assert "P6|P7|P8" in line(ledger, "c8-rows")["evidence"]


def test_a_data_set_that_cannot_answer_is_passed_over(rules, close_study):
    tables, spec = close_study
    other = spec["datasets"][0] | {"name": "other", "kind": "digits"}
    names = ("question-supervised-autoencoder", "p1-entries-share")
    ledger = make_ledger(only(rules, *names), tables, spec | {"datasets": [*spec["datasets"], other]})
    assert len(ledger[ledger["claim"] == "question-supervised-autoencoder"]) == 2
    assert len(ledger[ledger["claim"] == "p1-entries-share"]) == 2  # this one it can


def test_a_population_that_is_too_small_decides_nothing(rules, close_study):
    tables, spec = close_study
    one = only(rules, "p6-rank-correlation")
    found = line(make_ledger(one, tables, spec), "p6-rank-correlation", "centred")
    assert (found["verdict"], found["convention"], found["n"]) == ("reproduced", "centred only", 36)
    few = tables["population"][tables["population"]["kind"] != "resnet"]
    flat = few.assign(test_accuracy=0.8)
    for table, reasons in ((few, ["settings: 24", "families: 2"]), (flat, ["spread over 0.000"])):
        found = line(make_ledger(one, {**tables, "population": table}, spec), "p6-rank-correlation", "centred")
        assert found["verdict"] == "not determined"
        assert all(reason in found["evidence"] for reason in reasons)


def test_too_few_permutations_decide_nothing_about_the_null(rules, close_study):
    tables, spec = close_study
    ledger = make_ledger(only(rules, "c2-formula", "p3-every-pair"), tables, spec | {"permutations": 99})
    assert "too few permutations: 99" in line(ledger, "c2-formula", "raw")["evidence"]
    assert line(ledger, "p3-every-pair", "raw")["verdict"] == "reproduced"


def test_numbers_of_a_data_set_are_tested_on_it(rules, close_study):
    tables, spec = close_study
    cifar = spec | {"datasets": [spec["datasets"][0] | {"kind": "cifar10", "n_train": 50000}]}
    names = (
        "p8-cifar10-cumulative-1",
        "p1-width-resnet",
        "p1-width-wide-resnet",
        "p1-entries-cifar",
        "p2-cifar10-simclr",
    )
    ledger = make_ledger(only(rules, *names), tables, cifar)
    found = line(ledger, "p8-cifar10-cumulative-1", "raw")
    assert found["published"] == "0.5675"
    assert found["measured"] == pytest.approx(0.5 - 0.01 * EPOCHS[-1])
    assert line(ledger, "p1-width-resnet")["measured"] == 2048
    assert line(ledger, "p1-width-wide-resnet")["measured"] == 128
    assert line(ledger, "p1-entries-cifar")["verdict"] == "not reproduced"  # 400 entries
    assert line(ledger, "p2-cifar10-simclr")["evidence"].startswith("runs/.../probe.csv")


def test_the_setting_says_whose_it_is(close_study, close_ledger, rules):
    assert (
        line(close_ledger, "p3-every-pair", "raw")["setting"] == "ours: fashion-mnist, 2,000 samples, 4 epochs, 5 seeds"
    )
    tables, spec = close_study
    recipes = [r | {"epochs": 200 if r["epochs"] else 0} for r in spec["recipes"]]
    full = spec | {"recipes": recipes, "datasets": [spec["datasets"][0] | {"kind": "cifar10", "n_train": 50000}]}
    ledger = make_ledger(only(rules, "p3-every-pair"), tables, full)
    assert line(ledger, "p3-every-pair", "raw")["setting"].startswith("the paper's data set, epochs and seeds")


# --- statistics -------------------------------------------------------------------------------------------------------


def test_the_mean_over_pairs_weighs_recipes_alike(close_study, close_ledger):
    tables, _ = close_study
    pairs = tables["pairs"].query("stage == 'last' and centring == 'centred'")
    means = [
        pairs[(pairs["recipe_a"] == a) & (pairs["recipe_b"] == b)]["angle_deg"].mean()
        for a in ("cnn", "wrn", "resnet")
        for b in ("ae", "dae")
    ]
    found = line(close_ledger, "question-supervised-autoencoder", "centred")
    assert found["measured"] == pytest.approx(np.mean(means))
    assert found["n"] == 5


def test_a_curve_is_averaged_over_references_then_seeds(close_study, close_ledger):
    tables, _ = close_study
    rows = tables["dynamics"].query(
        "recipe == 'ae' and centring == 'raw' and reference != 'own' and reference != 'data'"
    )
    start = rows[rows["epoch"] == 0]

    def estimate(own: pd.DataFrame) -> float:
        return own.groupby(["seed", "reference"])["angle_deg"].mean().groupby("seed").mean().mean()

    whole = estimate(start)
    pseudo = [5 * whole - 4 * estimate(start[(start["seed"] != s) & (start["reference_seed"] != s)]) for s in range(5)]
    found = line(close_ledger, "question-start-conv-ae", "raw")
    interval = stats.ttest_1samp(pseudo, 0).confidence_interval(0.95)
    half = (interval.high - interval.low) / 2
    assert found["measured"] == pytest.approx(whole)
    assert (found["low"], found["high"]) == pytest.approx((whole - half, whole + half))


def scene_of(rules: Rules, **tables: pd.DataFrame) -> Scene:
    """Make a scene of two classifiers, of which the Wide-ResNet is the reference, with some tables only."""
    recipes = [
        {"name": name, "task": task, "kind": kind, "model": {"kind": kind, **extra}, "epochs": 4, "n_seeds": 5}
        for name, (task, kind, extra) in RECIPES.items()
        if name in ("cnn", "wrn")
    ]
    dataset = {"name": "d", "kind": "digits", "n_train": 2000, "n_samples": N_SAMPLES, "classes": CLASSES}
    empty = {name: pd.DataFrame() for name in claim_tables()}
    return Scene(
        dataset=dataset,
        tables={**empty, **tables},
        recipes=recipes,
        families=rules.families,
        trained=rules.trained,
        requirements=rules.requirements,
        facts={"references": ["wrn"], "permutations": 1999},
    )


def curves_with(reference_effect: np.ndarray, own_effect: np.ndarray) -> pd.DataFrame:
    """Curves of a CNN and a Wide-ResNet whose angles depend on the network and on the reference, 50 on average."""
    rows = [
        {"dataset": "d", "centring": "centred", "recipe": recipe, "layer": "pooled", "seed": seed, "step": step}
        | {"epoch": float(step), "reference": "wrn", "reference_seed": other, "correlation": 0.5, "cosine": 0.5}
        | {"angle_deg": 50 + own_effect[seed] + reference_effect[other] - (recipe == "wrn"), "null_mean_deg": 89.0}
        for recipe in ("cnn", "wrn")
        for seed in range(5)
        for other in range(5)
        for step in (0, 1, 2, 3)
        if recipe == "cnn" or seed != other
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("statistic", ["curve_angle", "curve_trend"])
def test_curves_without_a_single_vector_are_no_number_and_say_who_lacks_them(rules, statistic):
    table = curves_with(np.zeros(5), np.zeros(5))
    numbers = ["angle_deg", "correlation", "cosine", "null_mean_deg"]
    table[numbers] = np.nan
    arguments = ["supervised", "wide-resnet", *(["last"] if statistic == "curve_angle" else [])]
    found = STATISTICS[statistic](scene_of(rules, dynamics=table), "centred", *arguments)
    assert np.isnan([found.measured, found.low, found.high]).all()
    assert found.lacking


def test_an_interval_of_a_curve_holds_the_truth_although_references_are_shared(rules):
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(30):
        table = curves_with(3 * rng.normal(size=5), rng.normal(size=5))
        found = STATISTICS["curve_angle"](
            scene_of(rules, dynamics=table), "centred", "supervised", "wide-resnet", "last"
        )
        covered += found.low <= 49.5 <= found.high
    assert covered >= 26  # Student's interval over the networks' seeds alone holds it six times in ten


def test_other_seeds_of_the_same_recipe_are_what_jitter_and_the_least_angle_are_of(rules):
    table = curves_with(np.arange(5.0), np.zeros(5))
    table.loc[table["recipe"] == "cnn", "angle_deg"] = 0.0
    scene = scene_of(rules, dynamics=table)
    found = STATISTICS["curve_minimum"](scene, "centred", "supervised")
    assert found.measured == pytest.approx(np.mean([50, 49, 49, 49, 49]))  # the least over references, not their mean
    assert found.recipes == ("wrn",)
    assert STATISTICS["curve_plateau"](scene, "centred", "supervised").measured == pytest.approx(51)
    with pytest.raises(Absent, match="against other seeds of itself"):
        STATISTICS["curve_minimum"](scene_of(rules, dynamics=table[table["recipe"] == "cnn"]), "centred", "supervised")


def test_recipes_without_a_step_within_the_first_epoch_are_named_and_not_counted(rules, close_study):
    tables, spec = close_study
    dynamics = tables["dynamics"]
    within = dynamics["epoch"].between(0, 1, inclusive="neither")
    one = only(rules, "p5-joins-epoch-1")
    some = {**tables, "dynamics": dynamics[~(within & (dynamics["recipe"] == "cnn"))]}
    found = line(make_ledger(one, some, spec), "p5-joins-epoch-1")
    assert (found["verdict"], found["measured"]) == ("reproduced", 2)
    assert found["evidence"].endswith("no such step kept: cnn")
    found = line(make_ledger(one, {**tables, "dynamics": dynamics[~within]}, spec), "p5-joins-epoch-1")
    assert found["verdict"] == "not run"


def test_shuffled_labels_are_compared_with_twins_of_the_same_kind(rules, close_study):
    tables, spec = close_study
    recipes = [dict(r) for r in spec["recipes"]]
    shuffled = next(r for r in recipes if r["name"] == "shuffled")
    shuffled |= {"epochs": 8, "model": {"kind": "mlp", "widths": [128]}}
    pairs = tables["pairs"].query("stage == 'last' and centring == 'centred'")

    def mean(a: str, b: str) -> float:
        ends = (pairs["recipe_a"] == a) & (pairs["recipe_b"] == b) | (pairs["recipe_a"] == b) & (pairs["recipe_b"] == a)
        return pairs[ends]["angle_deg"].mean()

    ledger = make_ledger(only(rules, "c4-true-label-networks", "c4-the-data"), tables, spec | {"recipes": recipes})
    found = line(ledger, "c4-true-label-networks", "centred")
    expected = np.mean([mean("shuffled", x) - mean("mlp", x) for x in ("cnn", "wrn", "resnet")])
    assert found["measured"] == pytest.approx(expected)
    assert "shuffled and mlp (widths [128] against [64], epochs 8 against 4)" in found["evidence"]
    found = line(ledger, "c4-the-data", "centred")
    assert found["measured"] == pytest.approx(mean("shuffled", "data") - mean("mlp", "data"))
    shuffled |= {"kind": "torchvision", "model": {"kind": "torchvision", "name": "resnet18"}}  # the twin is a resnet50
    ledger = make_ledger(only(rules, "c4-the-data"), tables, spec | {"recipes": recipes})
    assert "no shuffled-label network on d has a twin" in line(ledger, "c4-the-data")["evidence"]


def test_networks_are_compared_with_what_they_were_before_training(rules, close_study):
    ledger = make_ledger(only(rules, "p3-below-untrained", "c3-effect-networks-networks"), *close_study)
    ours, same = (line(ledger, name, "raw") for name in ("p3-below-untrained", "c3-effect-networks-networks"))
    assert ours["measured"] == same["measured"]


def test_networks_without_a_p_vector_leave_a_claim_undetermined(rules, close_study):
    tables, spec = close_study
    dynamics, pairs = tables["dynamics"].copy(), tables["pairs"].copy()
    numbers = ["angle_deg", "cosine", "correlation", "angle_to_ones_deg", "null_mean_deg", "p_value"]
    centred = dynamics["centring"] == "centred"
    dynamics.loc[centred & (dynamics["recipe"] == "ae") & (dynamics["seed"] == 1), numbers] = np.nan
    dead = ((pairs["recipe_a"] == "ae") & (pairs["seed_a"] == 1)) | (
        (pairs["recipe_b"] == "ae") & (pairs["seed_b"] == 1)
    )
    pairs.loc[dead & (pairs["centring"] == "centred"), numbers] = np.nan
    names = ("question-start-conv-ae", "p3-autoencoder-autoencoder", "p3-beyond-permutation", "p3-mlp-supervised-cnn")
    ledger = make_ledger(only(rules, *names), {**tables, "dynamics": dynamics, "pairs": pairs}, spec)
    for name in names[:3]:
        found = line(ledger, name, "raw")
        assert found["verdict"] == "not determined"
        assert "1 of 5 have no P-vector: ae (centred)" in found["evidence"]
    assert line(ledger, "p3-mlp-supervised-cnn", "raw")["verdict"] == "reproduced"  # about other networks


def test_an_identity_of_nothing_is_not_determined(rules, close_study):
    tables, spec = close_study
    empty = {name: tables[name].assign(cosine=np.nan) for name in ("pairs", "dynamics")}
    found = line(make_ledger(only(rules, "p0-identity"), {**tables, **empty}, spec), "p0-identity", "raw")
    assert found["verdict"] == "not determined"
    assert "no number" in found["evidence"]


@pytest.mark.parametrize(("permutations", "verdict"), [(1999, "reproduced"), (999, "not determined")])
def test_a_p_value_below_a_thousandth_takes_enough_permutations(rules, close_study, permutations, verdict):
    tables, spec = close_study
    pairs = tables["pairs"].assign(p_value=1 / (1 + permutations))
    spec = spec | {"permutations": permutations}
    found = line(make_ledger(only(rules, "p3-beyond-permutation"), {**tables, "pairs": pairs}, spec), *BEYOND)
    assert found["verdict"] == verdict
    assert ("too few permutations for p < 0.001: 999, of 1999 wanted" in found["evidence"]) == (permutations < 1999)
    pairs = pairs.assign(p_value=0.001)
    assert line(make_ledger(only(rules, BEYOND[0]), {**tables, "pairs": pairs}, spec), *BEYOND)["measured"] == 0


BEYOND = ("p3-beyond-permutation", "centred")


def test_within_families_the_worst_of_all_groups_decides(rules, close_study):
    tables, spec = close_study
    correlations = tables["correlations"].copy()
    one = only(rules, "p6-within-families")
    found = line(make_ledger(one, tables, spec), "p6-within-families", "centred")
    assert found["verdict"] == "reproduced"
    assert "not tested, with fewer than 8 settings or none that vary: resnet" in found["evidence"]
    # The group with the weakest rho passes; the other one, with the stronger, is not settled.
    strong = (correlations["group"] == "mlp") & (correlations["target"] == "test_accuracy")
    correlations.loc[strong, ["rho", "high", "p_holm"]] = -0.9, 0.1, 0.3
    found = line(make_ledger(one, {**tables, "correlations": correlations}, spec), "p6-within-families", "centred")
    assert (found["verdict"], found["high"]) == ("not reproduced", 0.1)
    assert "Holm 0.3" in found["evidence"]


def test_an_indicator_beats_the_others_if_the_paired_difference_does(rules, close_study):
    tables, spec = close_study
    one = only(rules, "p7-beats-baselines")
    assert line(make_ledger(one, tables, spec), "p7-beats-baselines", "centred")["passes"] is True
    unsettled = {**tables, "indicators": tables["indicators"].assign(difference_low=-0.01)}
    found = line(make_ledger(one, unsettled, spec), "p7-beats-baselines", "centred")
    assert found["verdict"] == "not reproduced"
    assert found["measured"] > found["null"]


def spectra_of(shares: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        {"dataset": "d", "centring": "raw", "recipe": recipe, "seed": seed, "step": 1, "layer": "pooled"}
        | {"component": i, "variance_share": share}
        for recipe in ("cnn", "wrn")
        for seed in range(5)
        for i, share in enumerate(shares, start=1)
    )


def test_directions_that_are_not_kept_are_not_counted(rules):
    def needed(shares: list[float]) -> float:
        dynamics = curves_with(np.zeros(5), np.zeros(5))
        scene = scene_of(rules, dynamics=dynamics, spectra=spectra_of(shares))
        return STATISTICS["directions_needed"](scene, "raw", "supervised", 0.9).measured

    assert needed([0.5, 0.3, 0.15]) == 3
    assert np.isnan(needed([0.5, 0.2, 0.05]))  # 3 of 10 are kept: 4 may do, or 40
    assert needed([0.05] * 12) == 13  # more than there are classes, however many
    assert np.isnan(needed([0.5, np.nan, np.nan]))
    assert np.isnan(needed([np.nan] * 12))


def test_the_fall_into_rounding_is_no_cliff(rules):
    def position(shares: list[float]) -> float:
        dynamics = curves_with(np.zeros(5), np.zeros(5))
        scene = scene_of(rules, dynamics=dynamics, spectra=spectra_of(shares))
        return STATISTICS["cliff"](scene, "raw", "supervised").measured

    assert position([0.5] + [0.05] * 9 + [1e-4, 9e-5, 1e-18]) == 10
    assert position([0.5] + [0.05] * 9 + [1e-4, np.nan, np.nan]) == 10
    assert np.isnan(position([1.0, 1e-20] + [1e-21] * 11))
    assert np.isnan(position([np.nan] * 13))


def test_what_is_left_of_the_change_without_the_mean(rules, close_study):
    found = line(make_ledger(only(rules, "c1-change-left"), *close_study), "c1-change-left", "raw")
    assert found["verdict"] == "reproduced"
    assert found["measured"] > 1  # equal lengths along the ones vector halve every change
    constant = curves_with(np.zeros(5), np.zeros(5)).assign(centring="raw")
    found = STATISTICS["change_left"](scene_of(rules, dynamics=constant), "raw", "supervised", "references")
    assert np.isnan(found.measured)


@pytest.mark.parametrize("which", ["p10-subspace-converges-to-data", "p10-subspace-converges"])
def test_whether_subspaces_converge_is_said(rules, close_study, which):
    tables, spec = close_study
    subspaces = tables["subspaces"].copy()
    assert line(make_ledger(only(rules, which), tables, spec), which, "raw")["verdict"] == "not reproduced"
    subspaces["mean_deg"] = 80 - 5 * subspaces["step"] + 0.1 * subspaces["seed"]
    found = line(make_ledger(only(rules, which), {**tables, "subspaces": subspaces}, spec), which, "raw")
    assert found["verdict"] == "reproduced"
    assert found["measured"] == pytest.approx(-25 if which.endswith("data") else -1)


def test_three_data_sets_in_one_study_are_three(rules, close_study):
    tables, spec = close_study
    kinds = ("mnist", "cifar10", "cifar100")
    datasets = [spec["datasets"][0] | {"name": name, "kind": kind} for name, kind in zip("def", kinds, strict=True)]
    recipes = [recipe | {"dataset": name} for name in "def" for recipe in spec["recipes"]]
    ledger = make_ledger(only(rules, "p2-datasets"), tables, spec | {"recipes": recipes, "datasets": datasets})
    assert ledger["measured"].tolist() == [3, 3, 3]
    assert set(ledger["verdict"]) == {"reproduced"}


def test_the_cliff_is_after_as_many_directions_as_classes(close_ledger):
    raw, centred = (line(close_ledger, "p8-cliff", centring) for centring in ("raw", "centred"))
    assert (raw["measured"], centred["measured"]) == (10, 9)
    assert (raw["verdict"], raw["convention"]) == ("reproduced", "both")


def test_a_measure_that_says_the_same_leaves_nothing_to_add(close_ledger):
    same = line(close_ledger, "c6-cka", "centred")
    assert same["measured"] == pytest.approx(1)
    assert same["passes"] is False
    assert same["n"] == 5  # seeds: pairs share networks and are no independent draws
    assert line(close_ledger, "c6-procrustes", "raw")["measured"] == pytest.approx(1)
    assert line(close_ledger, "c6-svcca", "centred")["passes"] is True


def test_a_level_that_changes_the_verdict_is_found(close_ledger):
    assert line(close_ledger, "c7-samples", "raw")["measured"] == 1
    changed = line(close_ledger, "c7-normalisation", "raw")
    assert changed["measured"] == 0  # the study's own level agrees with itself, and is no evidence
    assert re.search(r"unit-rows (29|30)\.\d", changed["evidence"])


def test_the_studys_own_level_alone_says_nothing(rules, close_study):
    tables, spec = close_study
    table = tables["sensitivity"]
    alone = {**tables, "sensitivity": table[(table["factor"] != "samples") | (table["level"] == "1.0")]}
    found = line(make_ledger(only(rules, "c7-samples"), alone, spec), "c7-samples")
    assert found["verdict"] == "not run"
    assert "no level of samples but the study's own" in found["evidence"]


def test_samples_that_do_not_match_are_where_the_null_is(close_ledger):
    for centring in ("raw", "centred"):
        found = line(close_ledger, "c5-disjoint", centring)
        assert found["verdict"] == "reproduced"
        assert abs(found["measured"]) < 0.2


SAMPLE = ("question-start-mlp", "p1-entries-cifar", "p6-rank-correlation", "p8-cliff", "p9-shape-changes-mlp", "c6-cka")

# --- the script -------------------------------------------------------------------------------------------------------


def test_the_script_reads_the_tables_and_writes_the_ledger(tmp_path, monkeypatch, close_study, close_ledger):
    tables, spec = close_study
    names = dict.fromkeys(claim_tables()) | {"summary": "entry_summary"}
    paths = {}
    for name, table in tables.items():
        paths[names[name] or name] = tmp_path / f"{name}.csv"
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    for name in ("probes", "spectra"):
        paths[name] = [paths[name]]
    snakemake = SimpleNamespace(
        input=SimpleNamespace(**paths),
        output=SimpleNamespace(table=tmp_path / "claims.csv"),
        params=SimpleNamespace(spec=spec | {"ledgers": ["p-vectors"], "study": "made-up"}),
        log=[],
        config={},
        threads=1,
    )
    monkeypatch.setattr(claims, "parse_rules", lambda text, name: only(parse_rules(text, name), *SAMPLE))
    runpy.run_path(str(SCRIPTS / "test_claims.py"), {"snakemake": snakemake}, "__main__")
    written = read_table(tmp_path / "claims.csv")
    expected = close_ledger[close_ledger["claim"].isin(SAMPLE)].reset_index(drop=True)
    assert list(written.columns) == claims.COLUMNS
    for column in ("claim", "published", "verdict", "evidence", "setting"):
        assert written[column].tolist() == expected[column].tolist()
    assert written["passes"].isna().tolist() == expected["passes"].isna().tolist()
    assert written["measured"].to_numpy() == pytest.approx(expected["measured"].to_numpy(), nan_ok=True)
