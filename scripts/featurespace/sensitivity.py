"""What the angle between two P-vectors depends on: samples, features, split, normalisation, depth, width, matching.

Each factor changes the feature matrices and nothing else: the P-vectors of what is left are found anew, and the same
pairs of networks are compared. All vectors are float64, from the eigenvectors of Gram matrices on the smaller side.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg

from featurespace import angles
from featurespace.ends import pairs_of

CENTRINGS = ("raw", "centred")
COLUMNS = [
    *("dataset", "factor", "level", "value", "centring", "relation", "recipe_a", "seed_a", "recipe_b", "seed_b"),
    *("n_samples", "angle_deg", "cosine", "correlation", "null_formula_deg"),
]
DEPTHS = ("first", "middle", "last")

_WIDTHS = ("width", "widen", "widths", "channels", "hidden", "latent", "growth")
_CONSTANT = 1e-6  # a feature whose deviation is below this share of its largest size varies by float32 rounding only
_SAMPLES, _MATCHING, _FEATURES, _SHUFFLING = range(4)  # purposes of random numbers: their values enter every result

Vectors = dict[tuple[str, str], np.ndarray]  # by factor and level: (2, n), the raw and the centred P-vector


@dataclass(frozen=True)
class Network:
    """One network of a run.

    Attributes
    ----------
    n_features
        Width of its feature layer.
    stages
        `first` and `last`, or `last` alone if there is one step only.
    load
        Given a stage, reads the features of the sample set and of the held-out samples, (n, d) and (m, d).
    depths
        {`first`, `middle` or `last` tapped layer: its depth as a share of the last one's}; see `depth_levels`.
    load_depth
        Given one of these and a stage, reads the P-vectors (2, n) of that layer on the sample set, raw and centred.
    """

    recipe: str
    seed: int
    n_features: int
    stages: tuple[str, ...]
    load: Callable[[str], tuple[np.ndarray, np.ndarray]]
    depths: Mapping[str, float]
    load_depth: Callable[[str, str], np.ndarray]


@dataclass(frozen=True)
class Design:
    """Which parts of the samples are looked at; the same for all networks of a data set.

    Attributes
    ----------
    subsets
        {share: (k,) rows of the sample set}, each within the next larger one.
    matched
        Two sets of as many rows, (m,): of the sample set and of the held-out samples, in random order.
    seed
        Of all that is random.
    """

    shares: tuple[float, ...]
    subsets: dict[float, np.ndarray]
    matched: tuple[np.ndarray, np.ndarray]
    seed: int


def make_design(labels: np.ndarray, n_held_out: int, shares: Sequence[float], seed: int) -> Design:
    """Choose the parts of the samples.

    Parameters
    ----------
    labels
        (n,) those of the sample set: subsets are stratified, to within one sample a class.
    n_held_out
        Number of held-out samples; may be 0.
    shares
        In (0, 1], ascending.
    seed
        Of all that is random.
    """
    n = len(labels)
    generator = _generator(seed, _SAMPLES)
    place = np.empty(n)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    by_place = np.argsort(place, kind="stable")
    subsets = {share: np.sort(by_place[: min(n, max(2, round(share * n)))]) for share in shares}
    generator = _generator(seed, _MATCHING)
    m = min(n, n_held_out)
    # In random order: the rows of a data set whose order follows its classes would match by class.
    matched = (generator.permutation(n)[:m], generator.permutation(n_held_out)[:m])
    return Design(tuple(shares), subsets, matched, seed)


def _generator(seed: int, purpose: int, recipe: str = "", network_seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, purpose, zlib.crc32(recipe.encode()), network_seed]))


# --- P-vectors ----------------------------------------------------------------------------------------------------


def leading_vectors(features: np.ndarray) -> np.ndarray:
    """Return the P-vectors (2, n) of features (n, d), raw and centred, of unit length; NaN where there is none."""
    centred, mean = _centre(features)
    return _leading(centred, mean, None)


def _centre(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return centred features and their mean, float64; rows are shifted by the first one before they are averaged."""
    centred = features.astype(np.float64)
    pivot = centred[0].copy()
    centred -= pivot
    shifted_mean = centred.mean(axis=0)
    centred -= shifted_mean
    return centred, pivot + shifted_mean


def _leading(centred: np.ndarray, mean: np.ndarray, gram: np.ndarray | None) -> np.ndarray:
    """Return the P-vectors of centred + mean, from the centred features' own Gram matrix (d, d) if there is one."""
    n, d = centred.shape
    if gram is None and n < d:
        gram = centred @ centred.T
        along = centred @ mean
        raw = _top(gram + along[:, None] + along[None, :] + mean @ mean)
        return np.stack([_unit(raw), _unit(_top(gram))])
    if gram is None:
        gram = centred.T @ centred
    to_raw, to_centred = _top(gram + n * np.outer(mean, mean)), _top(gram)
    return np.stack([_unit(centred @ to_raw + mean @ to_raw), _unit(centred @ to_centred)])


def _top(gram: np.ndarray) -> np.ndarray:
    """Return the leading eigenvector of a symmetric matrix; zeros if the matrix is zero."""
    last = len(gram) - 1
    if not gram.any():
        return np.zeros(len(gram))
    return scipy.linalg.eigh(gram, subset_by_index=[last, last])[1][:, 0]


def _unit(vector: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector)
    return vector / length if length > 0 else np.full_like(vector, np.nan)


def vectors_of(
    sample_set: np.ndarray, held_out: np.ndarray, design: Design, recipe: str = "", network_seed: int = 0
) -> Vectors:
    """Find the P-vectors of one network's features under every factor but depth.

    Parameters
    ----------
    sample_set, held_out
        (n, d) and (m, d) features.
    design
        Which samples; and, with the recipe and the seed, which features.

    Returns
    -------
    dict
        By factor and level. `samples` and `features`, by share as text; `split`, `train` and `test`; `normalisation`:
        `none`, `unit-rows` (each sample divided by its length), `standardised-features` (each feature divided by its
        standard deviation; its mean is left to the centring). `matched` holds what `mismatch` compares: the vectors on
        the design's matched rows, `own` and `held-out`. What needs held-out samples is missing if there are none.
    """
    d = sample_set.shape[1]
    centred, mean = _centre(sample_set)
    gram = centred.T @ centred if d <= len(centred) else None
    plain = _leading(centred, mean, gram)
    vectors: Vectors = {}
    for share in design.shares:
        rows = design.subsets[share]
        whole = len(rows) == len(sample_set)
        vectors["samples", f"{share:g}"] = plain if whole else leading_vectors(sample_set[rows])
    columns = _generator(design.seed, _FEATURES, recipe, network_seed).permutation(d)
    for share in design.shares:
        some = np.sort(columns[: max(2, round(share * d))])
        if len(some) == d:
            vectors["features", f"{share:g}"] = plain
        else:
            part = None if gram is None else gram[np.ix_(some, some)]
            vectors["features", f"{share:g}"] = _leading(centred[:, some], mean[some], part)
    vectors["split", "train"] = plain
    if len(held_out) > 1:
        own, others = design.matched
        test = vectors["split", "test"] = leading_vectors(held_out)
        for level, rows, features, known in (("own", own, sample_set, plain), ("held-out", others, held_out, test)):
            whole = len(rows) == len(features)
            vectors["matched", level] = known[:, rows] if whole else leading_vectors(features[rows])
    vectors["normalisation", "none"] = plain
    lengths = np.linalg.norm(sample_set.astype(np.float64), axis=1, keepdims=True)
    vectors["normalisation", "unit-rows"] = leading_vectors(sample_set / np.where(lengths > 0, lengths, 1.0))
    deviation = np.sqrt(np.mean(centred**2, axis=0))
    deviation[deviation <= _CONSTANT * np.abs(sample_set).max(axis=0)] = 1.0
    scaled = None if gram is None else gram / np.outer(deviation, deviation)
    vectors["normalisation", "standardised-features"] = _leading(centred / deviation, mean / deviation, scaled)
    return vectors


# --- the recipes --------------------------------------------------------------------------------------------------


def depth_levels(layers: Sequence[str]) -> dict[str, str]:
    """Name the first, the middle and the last of some layers, shallow to deep, as far as they are different ones."""
    n = len(layers)
    places = {"first": 0, "middle": n // 2, "last": n - 1}
    levels = {1: DEPTHS[2:], 2: DEPTHS[::2]}.get(n, DEPTHS)
    return {level: layers[places[level]] for level in levels}


def width_pairs(recipes: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Pair the recipes whose tasks are the same and whose models differ in widths alone, by name; noise has no model.

    Parameters
    ----------
    recipes
        Of each its `name`, `task`, `kind` and `model`; all of one data set.
    """
    return [
        (a["name"], b["name"])
        for i, a in enumerate(recipes)
        for b in recipes[i + 1 :]
        if (a["task"], a["kind"]) == (b["task"], b["kind"])
        and a["kind"] != "noise"
        and a["model"] != b["model"]
        and _but_widths(a["model"]) == _but_widths(b["model"])
    ]


def _but_widths(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model without its widths; of a list of widths its length, which is a depth."""
    kept = {key: value for key, value in model.items() if key not in _WIDTHS}
    return kept | {key: len(model[key]) for key in _WIDTHS if isinstance(model.get(key), list | tuple)}


# --- comparison ---------------------------------------------------------------------------------------------------


def assess(
    dataset: str,
    networks: Sequence[Network],
    design: Design,
    related: Sequence[tuple[str, str]],
    done: Callable[[], Any] = lambda: None,
) -> pd.DataFrame:
    """Compare the networks of one data set under every factor: `sensitivity.csv`.

    Parameters
    ----------
    networks
        All seeds of a recipe, then those of the next.
    design
        Made for the sample set that all share.
    related
        The pairs of recipes of the factor `width`, from `width_pairs`.
    done
        Called once for each network and stage that is read.

    Returns
    -------
    DataFrame
        `COLUMNS`. Relation `between`: last steps, of the pairs of `ends.pairs_of`; for `width`, of related recipes at
        the same seed. Relation `start_to_end`: the first step of a network (a) and its last (b). The factor `mismatch`
        is the control: at level `disjoint`, a is seen on the sample set and b on as many held-out samples, which meet
        by row, in random order; at level `shuffled` the rows of b are permuted, those of each network in its own way.
        `value` is the share of samples or features; the mean of both layers' depth shares; the ratio of the number of
        features of b to that of a (`width`); else missing.
    """
    first: dict[int, Vectors] = {}
    last: dict[int, Vectors] = {}
    for i, network in enumerate(networks):
        for stage, vectors in (("first", first), ("last", last)):
            if stage in network.stages:
                vectors[i] = vectors_of(*network.load(stage), design, network.recipe, network.seed)
                done()
    between = pairs_of([(network.recipe, network.seed) for network in networks])
    itself = [(i, i) for i in first]
    widths = {network.recipe: network.n_features for network in networks}
    frames = []

    def add(factor: str, level: str, relation: str, frame: pd.DataFrame, value: Any = np.nan) -> None:
        frames.append(frame.assign(dataset=dataset, factor=factor, level=level, relation=relation, value=value))

    for key in dict.fromkeys(key for vectors in last.values() for key in vectors if key[0] != "matched"):
        value = float(key[1]) if key[0] in ("samples", "features") else np.nan
        at_last = _select(last, *key)
        add(*key, "between", _relate(networks, between, at_last, at_last), value)
        add(*key, "start_to_end", _relate(networks, itself, _select(first, *key), at_last), value)

    for level in DEPTHS:
        there = [i for i, network in enumerate(networks) if level in network.depths]
        at_last = {i: networks[i].load_depth(level, "last") for i in there}
        at_first = {i: networks[i].load_depth(level, "first") for i in there if i in first}
        shares = {networks[i].recipe: networks[i].depths[level] for i in there}
        for relation, pairs, start in (("between", between, at_last), ("start_to_end", itself, at_first)):
            frame = _relate(networks, pairs, start, at_last)
            mean_share = (frame["recipe_a"].map(shares) + frame["recipe_b"].map(shares)) / 2
            add("depth", level, relation, frame, mean_share)

    plain, plain_first = _select(last, "normalisation", "none"), _select(first, "normalisation", "none")
    for a, b in related:
        pairs = [(i, j) for i, j in between if {networks[i].recipe, networks[j].recipe} == {a, b}]
        add("width", f"{a}~{b}", "between", _relate(networks, pairs, plain, plain), widths[b] / widths[a])

    others = _select(last, "matched", "held-out")
    for relation, pairs, vectors in (("between", between, last), ("start_to_end", itself, first)):
        own = _select(vectors, "matched", "own")
        add("mismatch", "disjoint", relation, _relate(networks, pairs, own, others))
    shuffled = {i: _shuffled(vectors, design, networks[i]) for i, vectors in plain.items()}
    for relation, pairs, start in (("between", between, plain), ("start_to_end", itself, plain_first)):
        add("mismatch", "shuffled", relation, _relate(networks, pairs, start, shuffled))
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True)[COLUMNS] if filled else pd.DataFrame(columns=COLUMNS)


def _select(vectors: Mapping[int, Vectors], factor: str, level: str) -> dict[int, np.ndarray]:
    return {i: own[factor, level] for i, own in vectors.items() if (factor, level) in own}


def _shuffled(vectors: np.ndarray, design: Design, network: Network) -> np.ndarray:
    generator = _generator(design.seed, _SHUFFLING, network.recipe, network.seed)
    return vectors[:, generator.permutation(vectors.shape[1])]


def _relate(
    networks: Sequence[Network],
    pairs: Sequence[tuple[int, int]],
    first: Mapping[int, np.ndarray],
    second: Mapping[int, np.ndarray],
) -> pd.DataFrame:
    """Compare pairs of networks, by position: for a pair (i, j), first[i] with second[j], both (2, n).

    Pairs of which one vector is not there are left out.
    """
    pairs = [(i, j) for i, j in pairs if i in first and j in second]
    if not pairs:
        return pd.DataFrame(columns=COLUMNS)
    here, there = sorted({i for i, _ in pairs}), sorted({j for _, j in pairs})
    rows = np.array([here.index(i) for i, _ in pairs], dtype=int)
    columns = np.array([there.index(j) for _, j in pairs], dtype=int)
    identity = {
        "recipe_a": [networks[i].recipe for i, _ in pairs],
        "seed_a": [networks[i].seed for i, _ in pairs],
        "recipe_b": [networks[j].recipe for _, j in pairs],
        "seed_b": [networks[j].seed for _, j in pairs],
    }
    frames = []
    for c, centring in enumerate(CENTRINGS):
        vectors = np.stack([first[i][c] for i in here])
        references = np.stack([second[j][c] for j in there])
        n_samples = vectors.shape[1]
        ones = angles.angle_to_ones_deg(vectors), angles.angle_to_ones_deg(references)
        numbers = {
            "angle_deg": angles.angle_deg(vectors, references),
            "cosine": angles.cosine(vectors, references),
            "correlation": angles.correlation(vectors, references),
            "null_formula_deg": angles.null_formula_deg(*ones, n_samples),
        }
        of_pairs = {name: values[rows, columns] for name, values in numbers.items()}
        frames.append(pd.DataFrame({"centring": centring, "n_samples": n_samples} | identity | of_pairs))
    return pd.concat(frames, ignore_index=True)
