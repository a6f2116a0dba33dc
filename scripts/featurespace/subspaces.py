"""Angles between the spans of the k leading singular vectors, vector by vector and as subspaces, beside chance.

Chance is a pair of subspaces drawn uniformly (Haar) from the space that the vectors live in: R^n for raw ones, the
complement of the ones vector, of n - 1 dimensions, for centred ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from featurespace import angles

CENTRINGS = ("raw", "centred")
COLUMNS = [
    *("dataset", "centring", "recipe", "seed", "step", "epoch", "reference", "reference_seed", "k"),
    *("vector_angle_deg", "mean_deg", "largest_deg"),
    *("null_mean_deg", "null_largest_deg", "null_largest_low_deg"),
]


@dataclass(frozen=True)
class Bases:
    """The leading left vectors of one network at some of its steps, in one centring, or of a data set.

    `steps` and `epochs` are (m,); `vectors` is (m, k, n_samples), orthonormal rows, NaN from the first one on that
    does not exist.
    """

    recipe: str
    seed: int
    steps: np.ndarray
    epochs: np.ndarray
    vectors: np.ndarray

    def last(self) -> "Bases":
        """Return the last step alone, as a copy that does not keep the others in memory."""
        return Bases(self.recipe, self.seed, self.steps[-1:], self.epochs[-1:], self.vectors[-1:].copy())


@dataclass(frozen=True)
class SubspaceNull:
    """Principal angles of random subspaces, degrees: their mean, and mean and 5th percentile of the largest."""

    mean_deg: float
    largest_deg: float
    largest_low_deg: float


def compare_steps(
    dataset: str,
    centring: str,
    network: Bases,
    reference: Bases,
    name: str,
    nulls: Mapping[int, SubspaceNull],
) -> pd.DataFrame:
    """Compare every step of a network with the one step of a reference: rows of `subspaces.csv`.

    Parameters
    ----------
    dataset, centring
        What the rows are of.
    network, reference
        Over the same samples.
    name
        What the reference is called: `own`, `data` or its recipe.
    nulls
        By k, the dimensions that are compared. A k that exceeds the vectors of either side is left out.

    Returns
    -------
    DataFrame
        `COLUMNS`. `vector_angle_deg` compares the k-th vectors; `mean_deg` and `largest_deg` are over the k principal
        angles of the spans of the first k. Missing where one of these vectors does not exist at this step.
    """
    stored = min(network.vectors.shape[1], reference.vectors.shape[1])
    dimensions = [k for k in nulls if k <= stored]
    rows = []
    for step, epoch, vectors in zip(network.steps.tolist(), network.epochs.tolist(), network.vectors, strict=True):
        for k, measured in zip(dimensions, subspace_angles_deg(vectors, reference.vectors[0], dimensions), strict=True):
            null = nulls[k]
            chance = (null.mean_deg, null.largest_deg, null.largest_low_deg)
            identity = (dataset, centring, network.recipe, network.seed, step, epoch, name, reference.seed, k)
            rows.append((*identity, *measured, *chance))
    return pd.DataFrame(rows, columns=COLUMNS)


def compare_last_steps(
    dataset: str, centring: str, networks: Sequence[Bases], nulls: Mapping[int, SubspaceNull]
) -> pd.DataFrame:
    """Compare every two recipes, seed by seed, and each recipe with its own next seed; `networks` are last steps.

    The seed after the last one is the first one. Each pair comes once, under the recipe that is named first in
    `networks`; the reference is the other one, under its recipe's name.
    """
    by_recipe: dict[str, dict[int, Bases]] = {}
    for network in networks:
        by_recipe.setdefault(network.recipe, {})[network.seed] = network
    frames = []
    for i, seeds in enumerate(by_recipe.values()):
        ordered = list(seeds.values())
        # Of two seeds, each is the next one of the other.
        following = ordered[1:] + (ordered[:1] if len(ordered) > 2 else [])
        pairs = list(zip(ordered, following, strict=False))
        pairs += [
            (seeds[seed], others[seed])
            for others in list(by_recipe.values())[i + 1 :]
            for seed in seeds
            if seed in others
        ]
        frames += [compare_steps(dataset, centring, a, b, b.recipe, nulls) for a, b in pairs]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)


def subspace_angles_deg(a: np.ndarray, b: np.ndarray, dimensions: Sequence[int]) -> np.ndarray:
    """Compare the first k of orthonormal rows (k_a, n) with the first k of (k_b, n), for several k.

    All principal angles are found in the joint span of both, whose dimension does not grow with n, in sine and cosine
    form (Björck & Golub 1973).

    Returns
    -------
    np.ndarray
        (len(dimensions), 3), degrees: angle of the k-th vectors, up to sign; mean and largest principal angle. NaN
        where a vector is missing; exactly 0 for equal vectors.
    """
    found = np.full((len(dimensions), 3), np.nan)
    complete = min(_n_complete(a), _n_complete(b), max(dimensions, default=0))
    if complete == 0:
        return found
    a, b = a[:complete], b[:complete]
    equal = np.array_equal(a, b)
    # Columns of the triangular factor: the same vectors in an orthonormal basis of their joint span.
    joint = np.asarray(np.linalg.qr(np.concatenate([b, a]).T, mode="r")).T
    joint_b, joint_a = joint[:complete], joint[complete:]
    for row, k in enumerate(dimensions):
        if k <= complete:
            found[row, 0] = angles.angle_deg(a[k - 1 : k], b[k - 1 : k])[0, 0]
            principal = np.zeros(k) if equal else angles.principal_angles_deg(joint_a[:k], joint_b[:k])
            found[row, 1:] = principal.mean(), principal[-1]
    return found


def null_angles_deg(dimension: int, k: int, draws: int, generator: np.random.Generator) -> np.ndarray:
    """Draw the principal angles of pairs of random k-dimensional subspaces.

    Parameters
    ----------
    dimension
        N, of the space that they lie in.
    k
        At most N. If 2k > N any two share 2k - N dimensions, at angle 0, and the other angles are those of their
        complements.
    draws
        How many pairs.
    generator
        Where chance comes from.

    Returns
    -------
    np.ndarray
        (draws, k), degrees, ascending.

    Notes
    -----
    By symmetry one subspace may be that of the first k coordinates, and the other be spanned by a Gaussian matrix
    (G1; G2), k and N - k rows. The cotangents of the angles are the singular values of G1 R⁻¹ with RᵀR = G2ᵀG2, a
    Wishart matrix, whose factor R has independent entries (Bartlett 1933): nothing of size N is drawn.
    """
    if not 1 <= k <= dimension:
        raise ValueError(f"a space of {dimension} dimensions has no subspace of {k}")
    if 2 * k > dimension:
        shared = np.zeros((draws, 2 * k - dimension))
        if k == dimension:
            return shared
        return np.concatenate([shared, null_angles_deg(dimension, dimension - k, draws, generator)], axis=1)
    top = generator.normal(size=(draws, k, k))
    lower = np.tril(generator.normal(size=(draws, k, k)), -1)  # Rᵀ
    lower[:, range(k), range(k)] = np.sqrt(generator.chisquare(dimension - k - np.arange(k), size=(draws, k)))
    cotangents = np.linalg.svd(np.linalg.solve(lower, top), compute_uv=False)
    return np.degrees(np.arctan2(1.0, cotangents))


def draw_nulls(
    n_samples: int, centring: str, dimensions: Sequence[int], draws: int, seed: int
) -> dict[int, SubspaceNull]:
    """Summarise `null_angles_deg`, by k, for each k that fits the space of a centring; no k changes another's draws."""
    space = n_samples - (centring == "centred")
    nulls = {}
    for k in dimensions:
        if k <= space:
            drawn = null_angles_deg(space, k, draws, np.random.default_rng(np.random.SeedSequence([seed, space, k])))
            nulls[k] = SubspaceNull(
                mean_deg=float(drawn.mean()),
                largest_deg=float(drawn[:, -1].mean()),
                largest_low_deg=float(np.quantile(drawn[:, -1], 0.05)),
            )
    return nulls


def _n_complete(vectors: np.ndarray) -> int:
    """Count the vectors before the first one that is missing."""
    exists = np.isfinite(vectors).all(axis=1)
    return len(exists) if exists.all() else int(np.argmin(exists))
