"""What the claims of the P-vectors paper are measured by, from the tables of one data set.

Two kinds of interval, both over seeds. Where each seed has a number of its own, Student's. Where numbers belong to
two networks, as those of pairs and of curves against references do, they share networks: there it is the jackknife that
leaves out one seed of all networks, references too, at a time. Recipes are not sampled: each has the same weight, and
the interval does not speak of other recipes.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from scipy import stats

from featurespace.evidence import (
    DATA,
    Absent,
    Ledger,
    Measurement,
    Registry,
    at_end,
    changed,
    listed,
    missing_networks,
    of_networks,
    over_seeds,
    plain,
    span,
)
from featurespace.evidence import Scene as BaseScene
from featurespace.population import MIN_GROUP
from featurespace.statistics import Interval, jackknife_interval, mean_interval, spearman

OWN = "own"  # the reference that is the run's own last step
CONTRASTIVE_TASKS = ("simclr", "supcon")
PAPER_DATASETS = ("mnist", "cifar10", "cifar100")
PAPER_SAMPLES, PAPER_EPOCHS, PAPER_SEEDS = {"mnist": 60_000, "cifar10": 50_000, "cifar100": 50_000}, 200, 5

Reduction = Callable[[np.ndarray], Any]
ByNetwork = Callable[[pd.DataFrame], pd.Series]  # rows of curves to a number by recipe and seed

REGISTRY = Registry()
statistic = REGISTRY.statistic


class Scene(BaseScene):
    """A scene with what P-vectors need: references, permutations, the layers that they are of."""

    FILES: ClassVar[Mapping[str, str]] = {
        "dynamics": "tables/angle_dynamics.csv",
        "pairs": "tables/angle_pairs.csv",
        "summary": "tables/entry_summary.csv",
        "probes": "runs/.../probe.csv",
        "spectra": "runs/.../spectra.csv",
    }

    @property
    def references(self) -> Sequence[str]:
        """The recipes whose last steps all steps are compared with."""
        return self.facts["references"]

    @property
    def permutations(self) -> int:
        """The permutations of each null."""
        return self.facts["permutations"]

    @property
    def correlation_p(self) -> float:
        """The p-value below which entries correlate beyond chance."""
        return self.requirements["correlation_p"]

    @property
    def chance_correlation(self) -> float:
        """The |r| of entries that a random matching of samples exceeds with the chosen probability: z / sqrt(n - 1).

        Infinite for one sample, whose entries have no correlation.
        """
        if self.dataset["n_samples"] < 2:
            return math.inf
        return float(stats.norm.isf(self.correlation_p / 2) / np.sqrt(self.dataset["n_samples"] - 1))

    @cached_property
    def feature_layers(self) -> dict[str, str]:
        """The layer that the P-vector of each recipe is of."""
        dynamics = self.tables["dynamics"]
        return {} if dynamics.empty else dict(dynamics.groupby("recipe")["layer"].first())

    def margin_by(self, recipe: str, rule: Mapping[str, Any]) -> tuple[float, str]:
        """Compare a number of the run table, or the lower end of the interval of a probe's gain, with its level."""
        if rule["quantity"] != "probe_gain":
            return super().margin_by(recipe, rule)
        found = mean_interval(_probe_gains(self, recipe), self.confidence)
        text = f"{recipe}: probe gains {found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}]"
        margin = found.low - rule["above"]
        return (margin if margin > 0 else min(margin, -1e-12)), f"{text}, above {rule['above']} wanted"

    def lacks(self, requires: str, found: Iterable[Measurement]) -> list[str]:
        """Return what there is too little of in a population, and of permutations."""
        lacking = _population_lacks(self) if requires == "population" else []
        wanted = self.requirements["permutations"]
        if any(measurement.permutes for measurement in found) and self.permutations < wanted:
            lacking.append(f"too few permutations: {self.permutations}, of {wanted:g} wanted")
        return lacking

    def setting(self, recipes: Iterable[str]) -> str:
        """Say whose setting the data set is studied in: the paper's data set, epochs and seeds, or ours."""
        networks = [recipe for recipe in self.recipes if recipe["epochs"]]
        epochs, seeds = ({recipe[key] for recipe in networks} or {0} for key in ("epochs", "n_seeds"))
        kind, n_train = self.dataset["kind"], self.dataset["n_train"]
        if n_train >= PAPER_SAMPLES.get(kind, np.inf) and min(epochs) >= PAPER_EPOCHS and min(seeds) >= PAPER_SEEDS:
            return "the paper's data set, epochs and seeds; the rest ours"
        return f"ours: {kind}, {n_train:,} samples, {span(epochs)} epochs, {span(seeds)} seeds"


LEDGER = Ledger(
    registry=REGISTRY,
    scene=Scene,
    tables={
        **{name: name for name in ("dynamics", "pairs", "runs", "probes", "spectra", "subspaces")},
        "summary": "entry_summary",
        **{name: name for name in ("entries", "similarity", "sensitivity", "population", "correlations", "indicators")},
    },
    requirements=frozenset(
        [
            "seeds",
            "confidence",
            "permutations",
            "correlation_p",
            "settings",
            "families",
            "accuracy_spread",
            "family_error",
        ]
    ),
    requires=("seeds", "population", "nothing"),
)

# --- how trained ------------------------------------------------------------------------------------------------------


def _probe_gains(scene: Scene, recipe: str) -> np.ndarray:
    """Return the gain in the probe's test accuracy from the first step to the last, by seed; none without a probe."""
    rows = scene.tables["probes"]
    if rows.empty:
        return np.empty(0)
    rows = _own_layer(scene, rows[rows["recipe"] == recipe])
    accuracy = rows.sort_values("step").groupby("seed")["test_accuracy"]
    return (accuracy.last() - accuracy.first()).to_numpy()


def _population_lacks(scene: Scene) -> list[str]:
    population, requirements = scene.tables["population"], scene.requirements
    settings = population.dropna(subset=["angle_to_data_deg", "test_accuracy"]).drop_duplicates("recipe")
    accuracy = settings["test_accuracy"]
    spread = float(accuracy.max() - accuracy.min()) if len(settings) else 0.0
    counts = [
        ("settings", len(settings), requirements["settings"]),
        ("architecture families", settings["kind"].nunique(), requirements["families"]),
        ("seeds a setting", settings["n_seeds"].min() if len(settings) else 0, requirements["seeds"]),
    ]
    lacking = [f"too few {what}: {count}, of {wanted:g} wanted" for what, count, wanted in counts if count < wanted]
    if spread < requirements["accuracy_spread"]:
        lacking.append(f"accuracies spread over {spread:.3f} only, of {requirements['accuracy_spread']:g} wanted")
    return lacking


@statistic()
def training_margin(scene: Scene, centring: str, family: str) -> Measurement:
    """The smallest margin, over a family's recipes, above the level that makes a recipe count as trained."""
    margins = {name: scene.margins[name] for name in scene.members(family)}
    values = [margin for margin, _ in margins.values()]
    smallest = float("nan") if np.isnan(values).any() else min(values)
    texts = "; ".join(text for _, text in margins.values())
    seeds = min(scene.recipe(name)["n_seeds"] for name in margins)
    return Measurement(
        smallest, float("nan"), float("nan"), len(values), f"tables/runs.csv, probe.csv: {texts}", seeds=seeds
    )


@statistic()
def accuracy(scene: Scene, centring: str, family: str) -> Measurement:
    """Test accuracy of a family's best recipe: its own, or of contrastive encoders the linear probe's at the end."""
    found: dict[str, pd.Series] = {}
    names = scene.members(family)
    table = "probes" if scene.recipe(names[0])["task"] in CONTRASTIVE_TASKS else "runs"
    for name in names:
        rows = scene.rows(table, recipe=name)
        rows = _own_layer(scene, rows).sort_values("step") if table == "probes" else rows
        found[name] = rows.groupby("seed")["test_accuracy"].last()
    best = max(found, key=lambda name: found[name].mean())
    return over_seeds(scene, found[best], scene.cite(table, recipe=best), [best])


# --- samples and sizes ------------------------------------------------------------------------------------------------


@statistic()
def sample_count(scene: Scene, centring: str) -> Measurement:
    """Entries of the P-vector: samples in the sample set."""
    return plain(scene.dataset["n_samples"], f"study.yaml: sample set of {scene.dataset['name']}")


@statistic()
def sample_share(scene: Scene, centring: str) -> Measurement:
    """Entries of the P-vector over training samples."""
    share = scene.dataset["n_samples"] / scene.dataset["n_train"]
    counts = f"{scene.dataset['n_samples']:,} entries, {scene.dataset['n_train']:,} training samples"
    return plain(share, f"study.yaml: sample set of {scene.dataset['name']}: {counts}")


@statistic()
def feature_width(scene: Scene, centring: str, family: str) -> Measurement:
    """Features of the widest recipe of a family of residual networks."""
    widths = {name: _residual_width(scene.recipe(name)["model"]) for name in scene.members(family)}
    return plain(max(widths.values()), "study.yaml: " + ", ".join(f"{name} {width}" for name, width in widths.items()))


@statistic()
def study_size(scene: Scene, centring: str, what: str) -> Measurement:
    """Seeds (the fewest of a network), architectures, tasks, data sets (the paper's) or epochs (the fewest of a CNN).

    Absent for data sets unless the study has all three: each may be a study of its own, and a study sees no other.
    """
    if what == "datasets":
        kinds = [dataset["kind"] for dataset in scene.datasets]
        own = [kind for kind in PAPER_DATASETS if kind in kinds]
        if len(own) < len(PAPER_DATASETS):
            here = f"this one has {len(own)} of the paper's {len(PAPER_DATASETS)}"
            raise Absent(f"each data set is a study of its own, and {here}: the ledgers of all are to be read together")
        return plain(len(own), "study.yaml: datasets " + listed(own))
    networks = [scene.recipe(name) for name in scene.members("networks")]
    tasks = {"classify": "classification", "reconstruct": "reconstruction", "denoise": "reconstruction"}
    counts: dict[str, Callable[[], int]] = {
        "seeds": lambda: min(recipe["n_seeds"] for recipe in networks),
        "architectures": lambda: len({str(sorted(recipe["model"].items())) for recipe in networks}),
        "tasks": lambda: len({tasks.get(recipe["task"], "self-supervision") for recipe in networks}),
        "epochs": lambda: min(scene.recipe(name)["epochs"] for name in scene.members("supervised-cnn")),
    }
    return plain(counts[what](), "study.yaml: recipes " + listed([recipe["name"] for recipe in networks]))


# --- exact statements -------------------------------------------------------------------------------------------------


@statistic()
def identity_error(scene: Scene, centring: str) -> Measurement:
    """The largest |cos(p,q) - cos(p,1) cos(q,1) - r sin(p,1) sin(q,1)| over both tables of angles."""
    columns = ["cosine", "correlation", "angle_to_ones_deg", "reference_angle_to_ones_deg"]
    rows = pd.concat([scene.rows(table, centring)[columns] for table in ("pairs", "dynamics")]).dropna()
    ones, other = (np.radians(rows[column].to_numpy()) for column in columns[2:])
    identity = np.cos(ones) * np.cos(other) + rows["correlation"].to_numpy() * np.sin(ones) * np.sin(other)
    error = np.abs(rows["cosine"].to_numpy() - identity).max() if len(rows) else float("nan")
    where = f"{scene.cite('pairs', centring)}; tables/angle_dynamics.csv: {len(rows):,} rows in all"
    return plain(error, where, len(rows))


@statistic()
def own_last_angle(scene: Scene, centring: str) -> Measurement:
    """The largest angle of a run's last step to itself."""
    last = at_end(scene.rows("dynamics", centring, reference=OWN), "last")
    return plain(last["angle_deg"].max(), scene.cite("dynamics", centring, reference=OWN) + ", last steps", len(last))


@statistic()
def norm_error(scene: Scene, centring: str) -> Measurement:
    """The largest |‖p‖ - 1|."""
    norms = scene.rows("summary", centring)["norm"].dropna()
    return plain((norms - 1).abs().max(), scene.cite("summary", centring), len(norms))


@statistic()
def tangent_error(scene: Scene, centring: str) -> Measurement:
    """The largest |tan(p,1) - sd/|mean|| relative to it."""
    rows = scene.rows("summary", centring)[["angle_to_ones_deg", "cv"]].dropna()
    rows = rows[rows["cv"] > 0]
    error = (np.tan(np.radians(rows["angle_to_ones_deg"])) / rows["cv"] - 1).abs().max()
    return plain(error, scene.cite("summary", centring), len(rows))


@statistic()
def null_error(scene: Scene, centring: str) -> Measurement:
    """The mean difference of the permutation null's mean from its formula's, over pairs; `high` is the largest."""
    rows = scene.rows("pairs", centring).dropna(subset=["null_mean_deg"])
    difference = (rows["null_mean_deg"] - rows["null_formula_deg"]).abs()
    where = scene.cite("pairs", centring) + ", null_mean_deg against null_formula_deg"
    mean, largest = (float(difference.mean()), float(difference.max())) if len(rows) else (float("nan"),) * 2
    return Measurement(mean, float("nan"), largest, len(rows), where, permutes=True)


# --- pairs of last steps ----------------------------------------------------------------------------------------------


@statistic()
def pair_angle(scene: Scene, centring: str, a: str, b: str, of_pairs: str = "mean") -> Measurement:
    """Angle between two families' last steps, over pairs of recipes (one with itself at another seed is a pair too)."""
    return _pair_number(scene, centring, "angle_deg", a, b, of_pairs)


@statistic()
def pair_cosine(scene: Scene, centring: str, family: str, of_pairs: str) -> Measurement:
    """|cos| between the last steps of a family's recipes: the `smallest` or `median` pair."""
    return _pair_number(scene, centring, "cosine", family, family, of_pairs)


@statistic()
def pair_correlation(scene: Scene, centring: str, a: str, b: str) -> Measurement:
    """Pearson's r of the entries of the P-vectors of two families; `null` is what chance exceeds with the chosen p."""
    found = _pair_number(scene, centring, "correlation", a, b, "mean")
    return changed(found, null=scene.chance_correlation)


@statistic()
def pair_angle_without_ones(scene: Scene, centring: str, a: str, b: str) -> Measurement:
    """Angle between the P-vectors of two families once the ones vector is taken out of both, arccos |r|."""
    rows = _without_ones(_pair_rows(scene, centring, a, b))
    return _over_pairs(scene, [rows], "without_ones_deg", _cite_pairs(scene, centring, a, b))


@statistic()
def angle_difference(scene: Scene, centring: str, a: str, b: str, minus_a: str, minus_b: str) -> Measurement:
    """Angle between two families minus that between two others."""
    parts = [_pair_rows(scene, centring, a, b), _pair_rows(scene, centring, minus_a, minus_b)]
    where = f"{_cite_pairs(scene, centring, a, b)}, minus {minus_a} with {minus_b}"
    return _over_pairs(scene, parts, "angle_deg", where)


@statistic()
def training_effect(scene: Scene, centring: str, a: str, b: str) -> Measurement:
    """Angle between two families at the last step minus that at the first, over pairs of recipes that have both."""
    parts = _in_both([_pair_rows(scene, centring, a, b, stage) for stage in ("last", "first")])
    if parts[0].empty:
        raise Absent(f"tables/angle_pairs.csv has no pair of {a} and {b} at both stages")
    where = f"{_cite_pairs(scene, centring, a, b)}, minus stage=first"
    return changed(_over_pairs(scene, parts, "angle_deg", where), null=0.0)


@statistic()
def shuffled_difference(scene: Scene, centring: str, against: str) -> Measurement:
    """Angle of shuffled-label networks to others minus that of their twins with true labels to the same others.

    A twin is supervised and of the same kind of model (of torchvision's, the same model), so that the labels make the
    difference and not the architecture; the others are a family without either of the two. Each shuffled recipe, twin
    and other has the same weight.
    """
    parts: tuple[list[pd.DataFrame], list[pd.DataFrame]] = ([], [])
    twins = []
    for name in scene.members("shuffled"):
        for twin in scene.members("supervised"):
            if _twin_key(scene.recipe(name)) != _twin_key(scene.recipe(twin)):
                continue
            others = [other for other in scene.members(against) if other not in (name, twin)]
            twins.append(f"{name} and {twin}{_differences(scene.recipe(name), scene.recipe(twin))}")
            for rows, one in zip(parts, (name, twin), strict=True):
                for other in others:
                    found = _rows_between(scene, centring, [one], [other])
                    rows.append(found.assign(pair=f"{name} {twin} {other}"))
    if not twins:
        raise Absent(f"no shuffled-label network on {scene.dataset['name']} has a twin with true labels of its kind")
    both = _in_both([pd.concat(rows) for rows in parts]) if parts[0] else []
    if not both or both[0].empty:
        raise Absent(f"tables/angle_pairs.csv has no {against} to compare both {' or both '.join(twins)} with")
    where = scene.cite("pairs", centring, stage="last") + f", to {against}: " + "; ".join(dict.fromkeys(twins))
    return changed(_over_pairs(scene, both, "angle_deg", where), null=0.0)


@statistic()
def pairs_beyond_permutation(scene: Scene, centring: str, family: str) -> Measurement:
    """Share of pairs of runs closer than chance: by r against its variance over permutations, and by their count.

    Twice as many permutations as the p-value asks for are wanted, so that a pair closer than all of them is below it.
    """
    rows = _pair_rows(scene, centring, family, family)
    known = rows.dropna(subset=["p_value", "correlation"])
    closer = (known["correlation"].abs() > scene.chance_correlation) & (known["p_value"] < scene.correlation_p)
    share = float(closer.mean()) if len(known) else float("nan")
    where = f"{_cite_pairs(scene, centring, family, family)}: |r| > {scene.chance_correlation:.3f}"
    recipes, seeds = _networks_in([known])
    lacking = _without_vector(scene, [rows], "correlation")
    wanted = round(2 / scene.correlation_p) - 1
    if scene.permutations < wanted:
        lacking = (f"too few permutations for p < {scene.correlation_p:g}: {scene.permutations}, of {wanted} wanted",)
    return Measurement(
        share,
        *(float("nan"), float("nan"), len(known)),
        f"{where}, p_value < {scene.correlation_p:g}",
        recipes=recipes,
        seeds=seeds,
        permutes=True,
        lacking=lacking,
    )


@statistic("start", "start_low")
def start_and_end(scene: Scene, centring: str, family: str, other: str) -> Measurement:
    """Angle between two families' last steps, with the first family's start against the references (`start_low`)."""
    end = pair_angle(scene, centring, family, other)
    start = curve_angle(scene, centring, family, "references", "first")
    return changed(
        end,
        evidence=f"{end.evidence}; start {start.measured:.1f} [{start.low:.1f}, {start.high:.1f}]: {start.evidence}",
        recipes=tuple(dict.fromkeys([*end.recipes, *start.recipes])),
        seeds=min(s for s in (end.seeds, start.seeds) if s is not None),
        extras={"start": start.measured, "start_low": start.low},
        beyond_chance=None,
        lacking=tuple(dict.fromkeys([*end.lacking, *start.lacking])),
    )


@statistic()
def rank_agreement(scene: Scene, centring: str, measure: str) -> Measurement:
    """Spearman's rho, over pairs of recipes, of the P-vector's |cos| and another similarity of the same features.

    Each pair is averaged over its pairs of seeds. Pairs share recipes and so are no independent draws: the interval is
    the jackknife over seeds, and says how far rho is settled for these recipes, not for others.
    """
    names = scene.members("networks")
    rows = scene.rows("similarity", stage="last", recipe_a=names, recipe_b=names)
    columns = [f"cosine_{centring}", measure]
    if not set(columns) <= set(rows["measure"]):
        raise Absent(f"tables/similarity.csv has no {' or '.join(columns)} of two networks on {scene.dataset['name']}")
    rows = rows[rows["measure"].isin(columns)]

    def known(without: int | None = None) -> pd.DataFrame:
        kept = rows[(rows["seed_a"] != without) & (rows["seed_b"] != without)]
        means = kept.pivot_table(index=["recipe_a", "recipe_b"], columns="measure", values="value")
        return means.reindex(columns=columns).dropna()

    def estimate(without: int | None = None) -> float:
        x, y = known(without).to_numpy().T
        return float(spearman(x, -y if measure == "procrustes" else y)) if len(x) > 1 else float("nan")  # a distance

    found = _left_out(scene, estimate, {*rows["seed_a"], *rows["seed_b"]})
    where = f"{scene.cite('similarity', stage='last')}: {columns[0]} against {measure}, {len(known())} pairs of recipes"
    lacking = _without_vector(scene, [rows[rows["measure"] == columns[0]]], "value")
    _, seeds = _networks_in([rows])
    return Measurement(
        found.estimate, found.low, found.high, found.n, where, recipes=tuple(names), seeds=seeds, lacking=lacking
    )


# --- curves over training ---------------------------------------------------------------------------------------------


@statistic()
def curve_angle(scene: Scene, centring: str, family: str, reference: str, at: str) -> Measurement:
    """Angle to the last steps of reference networks, at the `first` or `last` step of a family's networks."""
    rows, where = _curves(scene, centring, family, reference)
    ends = at_end(rows, at)
    found = _over_curves(scene, ends, _mean_of("angle_deg"), f"{where}, {at} steps")
    found = changed(found, null=_curve_number(scene, ends, _mean_of("null_mean_deg")).estimate)
    return _with_remains(scene, found, _curve_number(scene, ends, _mean_of("correlation")), centring)


@statistic()
def curve_angle_without_ones(scene: Scene, centring: str, family: str, reference: str, at: str) -> Measurement:
    """The same once the ones vector is taken out of both vectors, arccos |r|."""
    rows, where = _curves(scene, centring, family, reference)
    ends = _without_ones(at_end(rows, at))
    return _over_curves(scene, ends, _mean_of("without_ones_deg"), f"{where}, {at} steps: arccos|r|")


@statistic()
def change_left(scene: Scene, centring: str, family: str, reference: str) -> Measurement:
    """What is left, once the ones vector is taken out of both vectors, of the rise of |cos| to the references.

    From the first step to the last, (|r| last - |r| first) / (|cos| last - |cos| first), each a mean over recipes;
    above 1 where the mean hides a rise. Missing where |cos| does not rise: there is nothing to have a share of.
    """
    rows, where = _curves(scene, centring, family, reference)
    rows = rows.assign(cosine=rows["cosine"].abs(), without_ones=rows["correlation"].abs())
    ends = {at: at_end(rows, at) for at in ("first", "last")}

    def rise(column: str, without: int | None = None) -> float:
        first, last = (_reduced(ends[at], _mean_of(column), without) for at in ("first", "last"))
        return last - first

    def estimate(without: int | None = None) -> float:
        whole = rise("cosine", without)
        return rise("without_ones", without) / whole if whole > 0 else float("nan")

    seeds = _curve_seeds(rows)
    found = _left_out(scene, estimate, seeds)
    ends_of = (found.low, found.high) if found.n == len(seeds) else (float("nan"),) * 2  # it rises without any seed
    where += f", first to last steps: |cos| rises by {rise('cosine'):.3f}, |r| by {rise('without_ones'):.3f}"
    whole = _over_curves(scene, pd.concat(ends.values()), _mean_of("cosine"), where)
    return changed(whole, measured=found.estimate, low=ends_of[0], high=ends_of[1], n=found.n)


@statistic()
def curve_trend(scene: Scene, centring: str, family: str, reference: str) -> Measurement:
    """Spearman's rho of epoch and angle to the reference networks, by network."""
    rows, where = _curves(scene, centring, family, reference)
    found = _over_curves(scene, rows, lambda kept: _trend(_averaged(kept, "angle_deg"), "angle_deg"), where)
    return _with_remains(scene, found, _curve_number(scene, at_end(rows, "last"), _mean_of("correlation")), centring)


@statistic()
def curve_minimum(scene: Scene, centring: str, family: str) -> Measurement:
    """The smallest angle of a network, over its steps, to any network of the same recipe and another seed."""
    rows, where = _curves(scene, centring, family, family, same_recipe=True)
    return _over_curves(
        scene, rows, lambda kept: kept.groupby(["recipe", "seed"])["angle_deg"].min(), f"{where}, all steps"
    )


@statistic()
def curve_plateau(scene: Scene, centring: str, family: str) -> Measurement:
    """Angle to networks of the same recipe and another seed, averaged over the last quarter of training."""
    rows, where = _curves(scene, centring, family, family, same_recipe=True)
    late = rows[rows["epoch"] >= 0.75 * rows.groupby(["recipe", "seed"])["epoch"].transform("max")]
    jitter = _averaged(late, "angle_deg").groupby(["recipe", "seed"])["angle_deg"].std().mean()
    where += f", last quarter of epochs (standard deviation over steps {jitter:.2f} degrees)"
    found = _over_curves(scene, late, _mean_of("angle_deg"), where)
    return _with_remains(scene, found, _curve_number(scene, late, _mean_of("correlation")), centring)


@statistic()
def early_steps(scene: Scene, centring: str, family: str) -> Measurement:
    """Steps kept strictly within the first epoch, the fewest of any recipe; 0 where that epoch's end is not kept.

    Recipes that keep no such step are not looked at within the first epoch: they are named, and not counted.
    """
    counts, without = {}, []
    for name in scene.members(family):
        epochs = scene.rows("dynamics", recipe=name)["epoch"].unique()
        within = int(((epochs > 0) & (epochs < 1)).sum())
        if within:
            counts[name] = within if np.isclose(epochs, 1.0).any() else 0
        else:
            without.append(name)
    if not counts:
        raise Absent(f"no recipe on {scene.dataset['name']} keeps a step within the first epoch")
    where = "tables/angle_dynamics.csv: " + ", ".join(f"{name} {count}" for name, count in counts.items())
    return plain(min(counts.values()), where + (f"; no such step kept: {', '.join(without)}" if without else ""))


# --- spectra ----------------------------------------------------------------------------------------------------------


@statistic()
def variance_share(scene: Scene, centring: str, family: str, k: int | str) -> Measurement:
    """Share of the squared norm in the first k directions at the last step; k is a number, or `classes`."""
    shares, where = _shares(scene, centring, family)
    k = _count(scene, k, shares.shape[1])
    return _of_networks(scene, shares.iloc[:, :k].sum(axis=1, skipna=False), f"{where}, components 1 to {k}", family)


@statistic()
def component_share(scene: Scene, centring: str, family: str, k: int) -> Measurement:
    """Share of the squared norm in direction k at the last step."""
    shares, where = _shares(scene, centring, family)
    k = _count(scene, k, shares.shape[1])
    return _of_networks(scene, shares.iloc[:, k - 1], f"{where}, component={k}", family)


@statistic()
def cumulative_deviation(scene: Scene, centring: str, family: str, shares: list[float]) -> Measurement:
    """The largest distance, over k, of the cumulative share of the squared norm from a published curve, at the end."""
    own, where = _shares(scene, centring, family)
    _count(scene, len(shares), own.shape[1])
    distance = (
        (own.iloc[:, : len(shares)].cumsum(axis=1, skipna=False) - np.array(shares)).abs().max(axis=1, skipna=False)
    )
    return _of_networks(scene, distance, where, family)


@statistic("off", "expected")
def cliff(scene: Scene, centring: str, family: str) -> Measurement:
    """The number of directions before the largest relative fall of singular values, the first of them left aside.

    Among the components kept whose share is more than rounding; a fall after the first direction is another claim's.
    `expected` is the number of classes, less one when centred, and `off` the mean distance from it.
    """
    shares, where = _shares(scene, centring, family)
    expected = scene.dataset["classes"] - (centring == "centred")
    if shares.shape[1] < expected + 2:
        raise Absent(f"spectra.csv keeps {shares.shape[1]} components, too few to see a fall after {expected}")
    floor = np.finfo(np.float32).eps ** 2  # features are float32: shares below this are rounding
    values = shares.where(shares > floor).to_numpy()
    falls = values[:, 1:-1] / values[:, 2:]
    some = np.isfinite(falls).any(axis=1)
    position = pd.Series(np.nan, index=shares.index)
    position[some] = np.nanargmax(falls[some], axis=1) + 2.0
    found = _of_networks(scene, position, where, family)
    return changed(found, extras={"off": float((position - expected).abs().mean()), "expected": expected})


@statistic()
def rank_one_error(scene: Scene, centring: str, family: str, at: str, norm: str) -> Measurement:
    """Error of the rank-1 reconstruction over the norm of the features, `squared` or `not-squared`, at either end."""
    shares, where = _shares(scene, centring, family, at)
    return _of_networks(scene, _rank_one(shares, norm), f"{where}, from component=1", family)


@statistic()
def rank_one_rise(scene: Scene, centring: str, family: str, norm: str) -> Measurement:
    """The same at the last step minus at the first, by network."""
    (last, where), (first, _) = (_shares(scene, centring, family, at) for at in ("last", "first"))
    return _of_networks(scene, _rank_one(last, norm) - _rank_one(first, norm), f"{where} minus first steps", family)


@statistic("classes")
def directions_needed(scene: Scene, centring: str, family: str, share: float) -> Measurement:
    """Directions that carry more than a share of the squared norm, at the end.

    If those kept do not, one more than are kept, which is too few to say; missing if that is fewer than `classes`.
    """
    shares, where = _shares(scene, centring, family)
    sums = shares.cumsum(axis=1, skipna=False)
    needed = ((sums <= share).sum(axis=1) + 1.0).where(sums.notna().all(axis=1))
    if shares.shape[1] < scene.dataset["classes"]:
        needed = needed.where(sums.iloc[:, -1] > share)
    found = _of_networks(scene, needed, where, family)
    return changed(found, extras={"classes": scene.dataset["classes"]})


# --- entries ----------------------------------------------------------------------------------------------------------


@statistic()
def summary_angle(scene: Scene, centring: str, family: str, column: str) -> Measurement:
    """Angle of a family's P-vectors, at the last step, to the ones vector or to the projection on the mean feature."""
    names = scene.members(family)
    last = at_end(scene.rows("summary", centring, recipe=names), "last")
    where = scene.cite("summary", centring, recipe=names) + f", last steps: {column}"
    return _of_networks(scene, last.set_index(["recipe", "seed"])[column], where, family)


@statistic()
def shape_change(scene: Scene, centring: str, family: str) -> Measurement:
    """Total variation between the distributions of entries at the first and last of the tabulated steps, by network.

    `null` is its expectation between two samples of as many entries from the last one's distribution.
    """
    names = scene.members(family)
    rows = scene.rows("entries", centring, recipe=names)
    found = {}
    for (recipe, seed), own in rows.groupby(["recipe", "seed"], sort=False):
        counts = own.pivot_table(
            index="step", columns="bin_low", values="count", aggfunc="sum", fill_value=0
        ).to_numpy()
        share = counts / counts.sum(axis=1, keepdims=True)
        chance = np.sqrt(share[-1] * (1 - share[-1]) / (np.pi * counts[-1].sum())).sum()
        found[recipe, seed] = (np.abs(share[-1] - share[0]).sum() / 2 if len(share) > 1 else np.nan, chance)
    table = pd.DataFrame.from_dict(found, orient="index", columns=["change", "chance"])
    table.index = pd.MultiIndex.from_tuples(table.index, names=["recipe", "seed"])
    where = scene.cite("entries", centring, recipe=names) + ", first and last steps"
    return changed(_of_networks(scene, table["change"], where, family), null=float(table["chance"].mean()))


# --- beyond the first vector ------------------------------------------------------------------------------------------


@statistic()
def vector_angle(scene: Scene, centring: str, family: str, k: int) -> Measurement:
    """Angle of vector k to vector k of the run's own last step, averaged over the steps before it."""
    rows, where = _own_vectors(scene, centring, family, k)
    return _of_networks(scene, rows.groupby(["recipe", "seed"])["vector_angle_deg"].mean(), where, family)


@statistic()
def vector_trend(
    scene: Scene, centring: str, family: str, k: int | str, column: str = "vector_angle_deg"
) -> Measurement:
    """Spearman's rho of epoch and that angle, or the mean principal one (`mean_deg`), over steps before the last."""
    rows, where = _own_vectors(scene, centring, family, k)
    return _of_networks(scene, _trend(rows, column), f"{where}: {column}", family)


@statistic()
def subspace_change(scene: Scene, centring: str, family: str, k: int | str) -> Measurement:
    """Mean principal angle to the data's k-dimensional subspace at the last step minus at the first, by network."""
    names, dimension = scene.members(family), _dimension(scene, k)
    rows = scene.rows("subspaces", centring, recipe=names, reference=DATA, k=dimension)
    last, first = (at_end(rows, at).set_index(["recipe", "seed"])["mean_deg"] for at in ("last", "first"))
    where = scene.cite("subspaces", centring, recipe=names, reference=DATA, k=dimension)
    where += f": mean_deg, from {first.mean():.1f} at first steps to {last.mean():.1f} at last ones"
    return changed(_of_networks(scene, last - first, where, family), null=0.0)


@statistic("null_low")
def subspace_angle(scene: Scene, centring: str, family: str, against: str, k: int | str, which: str) -> Measurement:
    """Principal angle (`mean`, `largest`) between k-dimensional subspaces of last steps; `null` is of random ones."""
    names, others = scene.members(family), scene.members(against)
    dimension = _dimension(scene, k)
    rows = scene.rows("subspaces", centring, recipe=names, k=dimension)
    rows = rows[rows["reference"].isin(others)]
    if rows.empty:
        raise Absent(f"tables/subspaces.csv has no k={dimension} of {family} against {against}; see analysis.subspaces")
    rows = at_end(rows, "last").rename(
        columns={"recipe": "recipe_a", "seed": "seed_a", "reference": "recipe_b", "reference_seed": "seed_b"}
    )
    rows = rows.assign(pair=_pair_names(rows))
    where = (
        scene.cite("subspaces", centring, recipe=names, reference=others, k=dimension) + f", last steps: {which}_deg"
    )
    found = _over_pairs(scene, [rows], f"{which}_deg", where)
    return changed(
        found,
        null=float(rows[f"null_{which}_deg"].mean()),
        extras={"null_low": float(rows["null_largest_low_deg"].mean())},
    )


# --- controls: mismatched samples, choices ----------------------------------------------------------------------------


@statistic()
def mismatch(scene: Scene, centring: str, level: str) -> Measurement:
    """Angle between P-vectors over samples that do not match, minus what a random matching gives."""
    names = scene.members("networks")
    rows = scene.rows(
        "sensitivity", centring, factor="mismatch", level=level, relation="between", recipe_a=names, recipe_b=names
    )
    rows = rows.assign(difference=rows["angle_deg"] - rows["null_formula_deg"], pair=_pair_names(rows))
    where = scene.cite("sensitivity", centring, factor="mismatch", level=level)
    largest = rows["correlation"].abs().max()
    where += f" (mean angle {rows['angle_deg'].mean():.1f}, largest |r| {largest:.2f})"
    return changed(_over_pairs(scene, [rows], "difference", where), null=0.0)


@statistic()
def unchanged_verdict(
    scene: Scene,
    centring: str,
    factor: str,
    relation: str,
    at_most: float = float("inf"),
    at_least: float = float("-inf"),
) -> Measurement:
    """Share of a factor's levels at which the mean angle is on the same side of a threshold as by the study's choice.

    That is all samples, all features, the training split, no normalisation, the last layer; for `width`, whose levels
    are pairs of widths, it is all pairs of networks on all samples. The study's own level agrees with itself, and does
    not count.
    """
    names = scene.members("networks")
    both = {"relation": relation, "recipe_a": names, "recipe_b": names}
    rows = scene.rows("sensitivity", centring, factor=factor, **both)
    own = {"split": "train", "normalisation": "none", "depth": "last"}
    if factor in own:
        chosen = scene.rows("sensitivity", centring, factor=factor, level=own[factor], **both)
    else:
        chosen = scene.rows("sensitivity", centring, factor="samples" if factor == "width" else factor, **both)
        chosen = chosen[np.isclose(chosen["value"], 1.0)]
        if chosen.empty:
            raise Absent("tables/sensitivity.csv has no share of 1: add it to analysis.sensitivity.shares")
    passes = at_least <= chosen["angle_deg"].mean() <= at_most
    others = rows if factor == "width" else rows[~rows["level"].isin(chosen["level"])]
    if others.empty:
        raise Absent(f"tables/sensitivity.csv has no level of {factor} but the study's own on {scene.dataset['name']}")
    levels = others.groupby("level", sort=False)["angle_deg"].mean().dropna()
    same = [(at_least <= angle <= at_most) == passes for angle in levels]
    where = scene.cite("sensitivity", centring, factor=factor, relation=relation)
    where += ": " + ", ".join(f"{level} {angle:.1f}" for level, angle in levels.items())
    where += f" degrees, {chosen['angle_deg'].mean():.1f} at the study's own choice"
    recipes, seeds = _networks_in([rows])
    share = float(np.mean(same)) if same else float("nan")
    lacking = _without_vector(scene, [others], "angle_deg") if relation == "between" else ()
    return Measurement(
        share, float("nan"), float("nan"), len(same), where, recipes=recipes, seeds=seeds, lacking=lacking
    )


# --- the population ---------------------------------------------------------------------------------------------------


@statistic("p_holm", "loo_low", "loo_high")
def population_correlation(scene: Scene, centring: str, indicator: str, target: str, group: str) -> Measurement:
    """Spearman's rho over settings, as `correlations.csv` has it."""
    rows = scene.rows("correlations", centring, indicator=indicator, target=target, group=group)
    where = scene.cite("correlations", centring, indicator=indicator, target=target, group=group)
    return _from_correlations(rows.iloc[0], where)


@statistic("p_holm", "loo_low", "loo_high")
def population_correlation_within(scene: Scene, centring: str, indicator: str, target: str) -> Measurement:
    """The same within each kind of architecture with enough settings: of each number the worst of any, for rho < 0."""
    rows = scene.rows("correlations", centring, indicator=indicator, target=target)
    rows = rows[(rows["group"] != "all") & rows["rho"].notna()]
    if rows.empty:
        raise Absent(
            f"tables/correlations.csv has no kind of architecture with enough settings on {scene.dataset['name']}"
        )
    worst = rows.max(numeric_only=True).to_dict() | {"n_settings": rows["n_settings"].min()}
    # A number that is missing in one group is missing in the worst of all.
    worst |= {name: np.nan for name in ("high", "p_value", "p_holm", "loo_high") if rows[name].isna().any()}
    each = ", ".join(f"{group} {rho:.2f}" for group, rho in zip(rows["group"], rows["rho"], strict=True))
    population = scene.tables["population"]
    kinds: list[str] = [] if population.empty else population["kind"].unique().tolist()
    idle = [kind for kind in kinds if kind not in set(rows["group"])]
    where = scene.cite("correlations", centring, indicator=indicator, target=target, group=list(rows["group"]))
    where += f" (the worst of each number; rho of each: {each}"
    where += (
        f"; not tested, with fewer than {MIN_GROUP} settings or none that vary: {', '.join(idle)})" if idle else ")"
    )
    return _from_correlations(pd.Series(worst), where)


@statistic("rank", "diff_low")
def indicator_skill(scene: Scene, centring: str, indicator: str, target: str, group: str) -> Measurement:
    """Skill of predicting settings left out, as `indicators.csv` has it; `null` is the best other indicator's.

    `diff_low` is the lower end of the interval of its difference, paired over settings, from the best other's.
    """
    rows = scene.rows("indicators", centring, target=target, group=group)
    own, others = rows[rows["indicator"] == indicator], rows[rows["indicator"] != indicator]
    if own.empty:
        raise Absent(f"tables/indicators.csv has no {indicator} on {scene.dataset['name']}")
    row = own.iloc[0]
    others = others.dropna(subset=["skill"]).sort_values("skill")
    best = others.iloc[-1] if len(others) else None
    where = scene.cite("indicators", centring, indicator=indicator, target=target, group=group)
    where += (
        f" (rank {row['rank']:.0f}{f', best other {best.indicator}' if best is not None else ''}; on settings where "
    )
    where += f"all are known, the best other's skill is less by {row['difference']:.3f} "
    where += f"[{row['difference_low']:.3f}, {row['difference_high']:.3f}])"
    skill, low, high = (float(row[name]) for name in ("skill", "low", "high"))
    null = float(best["skill"]) if best is not None else float("nan")
    extras = {"rank": float(row["rank"]), "diff_low": float(row["difference_low"])}
    return Measurement(skill, low, high, int(row["n_settings"]), where, null=null, extras=extras)


# --- the ledger -------------------------------------------------------------------------------------------------------


@statistic()
def ledger_coverage(scene: Scene, centring: str) -> Measurement:
    """Share of the rows P0 to C7 with a line that was measured."""
    wanted = [f"P{i}" for i in range(11)] + [f"C{i}" for i in range(1, 8)]
    run = {line["row"] for line in scene.ledger if line["verdict"] != "not run"}
    missing = [row for row in wanted if row not in run]
    evidence = "tables/claims.csv" + (f": no line of {listed(missing)} was measured" if missing else "")
    return plain(1 - len(missing) / len(wanted), evidence, len(wanted))


# --- what they share --------------------------------------------------------------------------------------------------


def _own_layer(scene: Scene, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each recipe's feature layer."""
    return rows[rows["layer"] == rows["recipe"].map(scene.feature_layers)]


def _trend(curve: pd.DataFrame, column: str) -> pd.Series:
    """Return Spearman's rho of epoch and a column, indexed by recipe and seed."""
    names = ["recipe", "seed"]
    trends = {
        network: float(spearman(own["epoch"].to_numpy(), own[column].to_numpy())) if len(own) > 2 else np.nan
        for network, own in curve.dropna(subset=[column]).groupby(names)
    }
    return pd.Series(list(trends.values()), pd.MultiIndex.from_tuples(trends, names=names), dtype=float)


def _without_ones(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(without_ones_deg=np.degrees(np.arccos(rows["correlation"].abs().clip(upper=1.0))))


def _left_out(scene: Scene, estimate: Callable[[int | None], float], seeds: Iterable[int]) -> Interval:
    """Return an estimate, of everything or without a seed, with its jackknife over seeds."""
    without = np.array([estimate(seed) for seed in sorted(seeds)])
    return jackknife_interval(estimate(None), without, scene.confidence)


# curves


def _curves(
    scene: Scene, centring: str, family: str, reference: str, same_recipe: bool = False
) -> tuple[pd.DataFrame, str]:
    """Return the rows of a family's curves against references, if so of the same recipe alone, and where they are."""
    names = scene.members(family)
    own = {recipe["name"] for recipe in scene.recipes}
    references = [name for name in scene.references if name in own]
    if reference != "references":
        references = [name for name in references if name in scene.members(reference)]
    if not references:
        raise Absent(f"this study has no reference that is {reference} on {scene.dataset['name']}")
    rows = scene.rows("dynamics", centring, recipe=names, reference=references)
    where = scene.cite("dynamics", centring, recipe=names, reference=references)
    if not same_recipe:
        return rows, where
    rows = rows[rows["recipe"] == rows["reference"]]
    if rows.empty:
        raise Absent(
            f"{scene.file('dynamics')} has no {family} against other seeds of itself on {scene.dataset['name']}"
        )
    return rows, f"{where}, recipe = reference"


def _averaged(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Average rows of curves over the seeds of each reference, and then over references."""
    at = ["recipe", "seed", "step", "epoch"]
    means = rows.groupby([*at, "reference"], sort=False)[column].mean()
    return means.groupby(at, sort=False).mean().reset_index()


def _mean_of(column: str) -> ByNetwork:
    """Return the reduction of curves to the mean of a column over each network's steps."""
    return lambda rows: _averaged(rows, column).groupby(["recipe", "seed"])[column].mean()


def _reduced(rows: pd.DataFrame, by_network: ByNetwork, without: int | None = None) -> float:
    """Reduce curves to a mean over seeds of means over recipes; a seed left out is also left out of the references."""
    kept = rows if without is None else rows[(rows["seed"] != without) & (rows["reference_seed"] != without)]
    return float(by_network(kept).groupby("seed").mean().mean()) if len(kept) else float("nan")


def _curve_seeds(rows: pd.DataFrame) -> set[int]:
    return {*rows["seed"], *rows["reference_seed"]}


def _curve_number(scene: Scene, rows: pd.DataFrame, by_network: ByNetwork) -> Interval:
    return _left_out(scene, lambda without: _reduced(rows, by_network, without), _curve_seeds(rows))


def _over_curves(scene: Scene, rows: pd.DataFrame, by_network: ByNetwork, evidence: str) -> Measurement:
    """Make a measurement of rows of curves; networks that lack the P-vector of a step, and references, are named."""
    found = _curve_number(scene, rows, by_network)
    recipes = tuple(dict.fromkeys([*rows["recipe"].unique(), *rows["reference"].unique()]))
    exists = rows.assign(exists=np.isfinite(rows["angle_deg"]))
    at_steps = exists.groupby(["recipe", "seed", "step"])["exists"].any()
    whole = at_steps.groupby(["recipe", "seed"]).all()
    references = exists.groupby(["reference", "reference_seed"])["exists"].any()
    lacking = [
        *_missing(scene, whole.index[whole], rows["recipe"].unique()),
        *_missing(scene, references.index[references], rows["reference"].unique()),
    ]
    seeds = min([found.n, *(scene.recipe(name)["n_seeds"] for name in recipes)])
    return Measurement(
        *(found.estimate, found.low, found.high, found.n, evidence),
        recipes=recipes,
        seeds=seeds,
        lacking=tuple(dict.fromkeys(lacking)),
    )


def _with_remains(scene: Scene, found: Measurement, correlation: Interval, centring: str) -> Measurement:
    """Add, of raw vectors, what is left after the mean: r of the entries, its angle, and whether chance explains it."""
    if centring != "raw":
        return found
    r = correlation.estimate
    text = (
        f"; without the ones vector r = {r:.3f} [{correlation.low:.3f}, {correlation.high:.3f}], "
        f"{np.degrees(np.arccos(min(1.0, abs(r)))):.1f} degrees (chance: |r| < {scene.chance_correlation:.3f})"
    )
    beyond = bool(correlation.low > scene.chance_correlation)
    return changed(found, evidence=found.evidence + text, beyond_chance=beyond)


# pairs


def _pair_names(rows: pd.DataFrame) -> list[str]:
    return ["~".join(sorted(pair)) for pair in zip(rows["recipe_a"], rows["recipe_b"], strict=True)]


def _pair_rows(scene: Scene, centring: str, a: str, b: str, stage: str = "last") -> pd.DataFrame:
    """Return the pairs of two families' runs, with the names of both recipes, in one order, as `pair`."""
    rows = _rows_between(scene, centring, scene.members(a), scene.members(b), stage)
    if rows.empty:
        raise Absent(
            f"tables/angle_pairs.csv has no pair of {a} and {b} at the {stage} step on {scene.dataset['name']}"
        )
    return rows.assign(pair=_pair_names(rows))


def _rows_between(
    scene: Scene, centring: str, first: Sequence[str], second: Sequence[str], stage: str = "last"
) -> pd.DataFrame:
    rows = scene.rows("pairs", centring, stage=stage)
    forth = rows["recipe_a"].isin(first) & rows["recipe_b"].isin(second)
    back = rows["recipe_a"].isin(second) & rows["recipe_b"].isin(first)
    return rows[forth | back]


def _in_both(parts: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Keep the pairs that two tables share."""
    both = set(parts[0]["pair"]) & set(parts[1]["pair"])
    return [rows[rows["pair"].isin(both)] for rows in parts]


def _twin_key(recipe: Mapping[str, Any]) -> tuple[str, str]:
    return recipe["kind"], str(recipe["model"].get("name", "")) if recipe["kind"] == "torchvision" else ""


def _differences(recipe: Mapping[str, Any], twin: Mapping[str, Any]) -> str:
    """Say in which settings of the model, and in epochs, two recipes differ; nothing if in none."""
    one, other = ({**about["model"], "epochs": about["epochs"]} for about in (recipe, twin))
    texts = [
        f"{key} {one.get(key)} against {other.get(key)}"
        for key in dict.fromkeys([*one, *other])
        if one.get(key) != other.get(key)
    ]
    return f" ({', '.join(texts)})" if texts else ""


def _without_vector(scene: Scene, parts: Sequence[pd.DataFrame], column: str) -> tuple[str, ...]:
    """Say which networks of tables of pairs have no number in any of their pairs in one of the tables."""
    lacking: list[str] = []
    for rows in parts:
        exists = np.isfinite(rows[column].to_numpy(dtype=float))
        sides = [rows[[f"recipe_{side}", f"seed_{side}"]].set_axis(["recipe", "seed"], axis=1) for side in "ab"]
        known = pd.concat([side[exists] for side in sides]).itertuples(index=False, name=None)
        lacking += _missing(scene, known, pd.concat(sides)["recipe"].unique())
    return tuple(dict.fromkeys(lacking))


def _cite_pairs(scene: Scene, centring: str, a: str, b: str) -> str:
    sides = {"recipe_a": scene.members(a), "recipe_b": scene.members(b)} if a != b else {"recipes": scene.members(a)}
    return scene.cite("pairs", centring, stage="last", **sides)


def _networks_in(parts: Sequence[pd.DataFrame]) -> tuple[tuple[str, ...], int]:
    """Return the recipes in tables of pairs, without the data, and the fewest seeds of any."""
    sides = [
        rows[[f"recipe_{side}", f"seed_{side}"]].set_axis(["recipe", "seed"], axis=1) for rows in parts for side in "ab"
    ]
    networks = pd.concat(sides)
    networks = networks[networks["recipe"] != DATA]
    counts = networks.groupby("recipe", sort=False)["seed"].nunique()
    return tuple(counts.index), int(counts.min()) if len(counts) else 0


def _over_pairs(
    scene: Scene, parts: Sequence[pd.DataFrame], column: str, evidence: str, reduce: Reduction = np.mean
) -> Measurement:
    """Make a measurement of a table of pairs, or of the first minus the second, with its jackknife over seeds."""
    recipes, seeds = _networks_in(parts)
    found = _jackknife(scene, parts, column, reduce)
    lacking = _without_vector(scene, parts, column)
    return Measurement(
        found.estimate, found.low, found.high, found.n, evidence, recipes=recipes, seeds=seeds, lacking=lacking
    )


def _jackknife(scene: Scene, parts: Sequence[pd.DataFrame], column: str, reduce: Reduction = np.mean) -> Interval:
    """Reduce a column over pairs of recipes, each the mean over its pairs of seeds; leave out one seed at a time."""
    tables = [_PairColumn(rows, column) for rows in parts]

    def estimate(without: int | None = None) -> float:
        values = [table.reduced(reduce, without) for table in tables]
        return values[0] - values[1] if len(values) == 2 else values[0]

    return _left_out(scene, estimate, set().union(*(table.seeds for table in tables)))


class _PairColumn:
    """A column of a table of pairs, ready to be averaged with and without a seed."""

    def __init__(self, rows: pd.DataFrame, column: str) -> None:
        self.values = rows[column].to_numpy(dtype=float)
        self.pair = np.unique(rows["pair"].to_numpy(dtype=str), return_inverse=True)[1]
        # The data have no seed, so that leaving out a seed leaves them in.
        self.ends = [
            np.where(rows[f"recipe_{side}"] == DATA, -1, rows[f"seed_{side}"]).astype(int) for side in ("a", "b")
        ]

    @property
    def seeds(self) -> set[int]:
        return set(np.unique(self.ends).tolist()) - {-1}

    def reduced(self, reduce: Reduction, without: int | None) -> float:
        keep = np.isfinite(self.values)
        if without is not None:
            keep &= (self.ends[0] != without) & (self.ends[1] != without)
        counts = np.bincount(self.pair[keep])
        sums = np.bincount(self.pair[keep], self.values[keep])
        return float(reduce(sums[counts > 0] / counts[counts > 0])) if keep.any() else float("nan")


def _pair_number(scene: Scene, centring: str, column: str, a: str, b: str, of_pairs: str) -> Measurement:
    """Measure a column over the pairs of two families: the `mean` pair of recipes, the `smallest` or the `median`."""
    reductions: dict[str, Reduction] = {"mean": np.mean, "smallest": np.min, "median": np.median}
    reduce = reductions[of_pairs]
    rows = _pair_rows(scene, centring, a, b)
    where = _cite_pairs(scene, centring, a, b)
    if of_pairs == "smallest":
        means = rows.groupby("pair")[column].mean().dropna()
        where += f", the smallest: {means.idxmin()}" if len(means) else ""
    undetermined = int((~rows["determined"].astype(bool)).sum())
    where += f" ({undetermined} of {len(rows)} pairs have a vector that is not determined)" if undetermined else ""
    null = _PairColumn(rows, "null_mean_deg").reduced(np.mean, None)
    null = float(np.cos(np.radians(null))) if column == "cosine" else null
    found = changed(_over_pairs(scene, [rows], column, where, reduce), null=null)
    return _with_remains(scene, found, _jackknife(scene, [rows], "correlation", reduce), centring)


# spectra


def _shares(scene: Scene, centring: str, family: str, at: str = "last") -> tuple[pd.DataFrame, str]:
    """Return the shares of the squared norm by (recipe, seed), a column a component, and where they are from."""
    names = scene.members(family)
    rows = _own_layer(scene, scene.rows("spectra", centring, recipe=names))
    if rows.empty:
        raise Absent(f"spectra.csv has no rows of the feature layer of {family}")
    # Not a pivot table, which leaves out networks and components of which nothing is known.
    table = at_end(rows, at).set_index(["recipe", "seed", "component"])["variance_share"].unstack("component")
    return table, scene.cite("spectra", centring, recipe=names) + f", {at} steps"


def _count(scene: Scene, k: int | str, kept: int) -> int:
    wanted = _dimension(scene, k)
    if wanted > kept:
        raise Absent(f"spectra.csv keeps {kept} components, and {wanted} are asked for")
    return wanted


def _rank_one(shares: pd.DataFrame, norm: str) -> pd.Series:
    error = (1 - shares[1]).clip(lower=0.0)
    return error if norm == "squared" else np.sqrt(error)


def _dimension(scene: Scene, k: int | str) -> int:
    return int(scene.dataset["classes"] if k == "classes" else k)


def _own_vectors(scene: Scene, centring: str, family: str, k: int | str) -> tuple[pd.DataFrame, str]:
    names, k = scene.members(family), _dimension(scene, k)
    rows = scene.rows("subspaces", centring, recipe=names, reference=OWN, k=k)
    last = rows.groupby(["recipe", "seed"])["step"].transform("max")
    where = scene.cite("subspaces", centring, recipe=names, reference=OWN, k=k) + ", steps before the last"
    return rows[rows["step"] < last], where


def _residual_width(model: Mapping[str, Any]) -> int:
    """Return the features of a residual network after its last stage, by its published layout."""
    if model["kind"] == "wide-resnet":
        return 64 * model["widen"]
    depth = int(model["name"].removeprefix("resnet")) if model["kind"] == "torchvision" else model["depth"]
    return model.get("width", 64) * 8 * (4 if depth >= 50 else 1)  # bottlenecks widen fourfold


def _from_correlations(row: pd.Series, where: str) -> Measurement:
    extras = {name: float(row[name]) for name in ("p_holm", "loo_low", "loo_high")}
    where += f" (p {row['p_value']:.2g}, Holm {row['p_holm']:.2g}, "
    where += f"one left out [{row['loo_low']:.2f}, {row['loo_high']:.2f}])"
    return Measurement(
        float(row["rho"]), float(row["low"]), float(row["high"]), int(row["n_settings"]), where, extras=extras
    )


def _of_networks(scene: Scene, values: pd.Series, where: str, family: str) -> Measurement:
    """Make a measurement of a number a network, indexed by recipe and seed: recipes averaged within each seed."""
    return of_networks(scene, values, where, scene.members(family))


def _missing(scene: Scene, known: Iterable[Any], recipes: Iterable[str]) -> tuple[str, ...]:
    """Say of which recipes how many networks are not among those `known`, pairs of recipe and seed."""
    return missing_networks(scene, known, recipes, "P-vector")
