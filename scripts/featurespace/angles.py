"""Angles between vectors with an entry per sample, what they would be by chance, and angles between subspaces.

A singular vector has no sign, so all angles lie in [0, 90] degrees: the second vector is first turned to the side of
the first. Vectors are unit rows of float64 arrays; a vector that is NaN gives NaN. The identities and the null are
elementary: with r the correlation of entries,

    cos θ(p,q) = cos θ(p,1) cos θ(q,1) + r sin θ(p,1) sin θ(q,1)

so two vectors can be close for no other reason than that both are close to the ones vector, and r carries the
evidence. By chance r has mean 0 and standard deviation 1/√(n - 1), which gives the null both by permutation and in
closed form.
"""

from dataclasses import dataclass

import numpy as np

_NEAR = 0.9  # above this |cosine| the difference of vectors is formed entry by entry: the dot product has cancelled
_BYTES = 2**26  # memory for one batch of permuted vectors, and for one of their cosines

# The standard normal law on a fine grid: the kink of |C| costs 2e-4 of C's deviation, smooth parts nothing.
_NORMAL_POINTS = np.linspace(-8.0, 8.0, 321)
_NORMAL_WEIGHTS = np.exp(-(_NORMAL_POINTS**2) / 2) / np.exp(-(_NORMAL_POINTS**2) / 2).sum()


@dataclass(frozen=True)
class PermutationNull:
    """What angles would be if samples were matched at random; each (m, r), for m vectors and r references.

    Attributes
    ----------
    mean_deg
        Mean angle over the permutations.
    low_deg
        5th percentile of the angle.
    p_value
        (1 + permutations with an angle no larger than the observed one) / (1 + permutations): Phipson & Smyth 2010.
    """

    mean_deg: np.ndarray
    low_deg: np.ndarray
    p_value: np.ndarray


def cosine(vectors: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Return |cos|, (m, r), between unit rows (m, n) and (r, n)."""
    return np.minimum(np.abs(vectors @ references.T), 1.0)


def angle_deg(vectors: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Return the angle in degrees, (m, r), between unit rows (m, n) and (r, n), up to sign.

    2 atan2(|a - b|, |a + b|) (Kahan 2006): accurate at all angles, and exactly 0 for vectors equal up to sign.
    """
    dots = vectors @ references.T
    lengths = np.sum(vectors**2, axis=1)[:, None] + np.sum(references**2, axis=1)[None, :]
    apart = np.sqrt(np.maximum(lengths - 2 * np.abs(dots), 0.0))
    together = np.sqrt(lengths + 2 * np.abs(dots))
    for column, reference in enumerate(references):
        near = np.flatnonzero(np.abs(dots[:, column]) > _NEAR)
        aligned = np.where(dots[near, column] < 0, -1.0, 1.0)[:, None] * vectors[near]
        apart[near, column] = np.linalg.norm(aligned - reference, axis=1)
    return np.degrees(2 * np.arctan2(apart, together))


def correlation(vectors: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Return Pearson's r of the entries, (m, r), with the sign that aligns the vectors; NaN for constant ones."""
    aligned = np.where(vectors @ references.T < 0, -1.0, 1.0)
    return np.clip(aligned * (_standardised(vectors) @ _standardised(references).T), -1.0, 1.0)


def angle_to_ones_deg(vectors: np.ndarray) -> np.ndarray:
    """Return the angle in degrees, (m,), of rows (m, n) to the all-ones vector: tan θ = std / |mean|."""
    mean = vectors.mean(axis=1)
    spread = np.linalg.norm(vectors - mean[:, None], axis=1)
    return np.degrees(np.arctan2(spread, np.abs(mean) * np.sqrt(vectors.shape[1])))


def null_formula_deg(ones_deg: np.ndarray, reference_ones_deg: np.ndarray, n_samples: int) -> np.ndarray:
    """Return the mean angle under random matching of samples, from the angles to the ones vector alone.

    Matched at random, two vectors have a cosine C of mean cos θ(p,1) cos θ(q,1) and standard deviation
    sin θ(p,1) sin θ(q,1) / √(n - 1): both exact (Pitman 1937). The mean of arccos |C| follows by integrating over a
    normal C. Near 90 degrees it is below the angle of the mean cosine, because an angle up to sign cannot exceed 90.
    What the normal law leaves out is of the order of the product of both excess kurtoses over n.

    Parameters
    ----------
    ones_deg, reference_ones_deg
        Degrees, (m,) and (r,).
    n_samples
        n, the number of entries.

    Returns
    -------
    np.ndarray
        Degrees, (m, r); NaN where an angle is.
    """
    ones, reference_ones = np.radians(ones_deg)[:, None], np.radians(reference_ones_deg)[None, :]
    mean = np.cos(ones) * np.cos(reference_ones)
    deviation = np.sin(ones) * np.sin(reference_ones) / np.sqrt(max(n_samples - 1, 1))
    expected = np.zeros_like(mean)
    for z, weight in zip(_NORMAL_POINTS, _NORMAL_WEIGHTS, strict=True):
        expected += weight * np.arccos(np.minimum(np.abs(mean + z * deviation), 1.0))
    return np.degrees(expected)


def draw_permutations(n_samples: int, n_permutations: int, seed: int) -> np.ndarray:
    """Draw permutations of the samples, (n_permutations, n_samples) int32, from a seed."""
    generator = np.random.default_rng(np.random.SeedSequence(seed))
    drawn = np.tile(np.arange(n_samples, dtype=np.int32), (n_permutations, 1))
    return generator.permuted(drawn, axis=1, out=drawn)


def permutation_null(vectors: np.ndarray, references: np.ndarray, permutations: np.ndarray) -> PermutationNull:
    """Compare each vector with each reference, its entries permuted.

    Parameters
    ----------
    vectors, references
        Unit rows, (m, n) and (r, n).
    permutations
        (b, n), as from `draw_permutations`; the same ones serve all pairs.
    """
    n_permutations, n_samples = permutations.shape
    observed = cosine(vectors, references)
    shape = observed.shape
    null = PermutationNull(np.empty(shape), np.empty(shape), np.empty(shape))
    # The 5th percentile of the angle lies between the cosines of two ranks.
    rank = 0.05 * (n_permutations - 1)
    ranks = n_permutations - 1 - np.array([int(np.ceil(rank)), int(rank)])
    rows_at_once = max(1, _BYTES // (8 * n_permutations))
    permutations_at_once = max(1, _BYTES // (8 * n_samples))
    for column, reference in enumerate(references):
        for start in range(0, shape[0], rows_at_once):
            rows = slice(start, start + rows_at_once)
            cosines = np.empty((len(vectors[rows]), n_permutations))
            for first in range(0, n_permutations, permutations_at_once):
                batch = slice(first, first + permutations_at_once)
                cosines[:, batch] = cosine(vectors[rows], reference[permutations[batch]])
            # Rounding must not decide between a permuted cosine and an equal observed one.
            as_close = np.count_nonzero(cosines >= observed[rows, column, None] - 1e-12, axis=1)
            cosines.partition(np.unique(ranks), axis=1)
            near, far = np.degrees(np.arccos(cosines[:, ranks[::-1]])).T
            null.low_deg[rows, column] = near + (rank - int(rank)) * (far - near)
            null.mean_deg[rows, column] = np.degrees(np.arccos(cosines, out=cosines).mean(axis=1))
            null.p_value[rows, column] = (1 + as_close) / (1 + n_permutations)
    null.p_value[np.isnan(observed)] = np.nan
    return null


def orthonormal_basis(vectors: np.ndarray) -> np.ndarray:
    """Return orthonormal rows, (k, n), with the span of linearly independent rows (k, n)."""
    return np.linalg.qr(vectors.T)[0].T


def principal_angles_deg(basis_a: np.ndarray, basis_b: np.ndarray) -> np.ndarray:
    """Return the principal angles in degrees, (min(k_a, k_b),), ascending, between the spans of orthonormal rows.

    Cosines for the large angles, sines for the small ones, each where it is accurate (Björck & Golub 1973).
    """
    if len(basis_a) > len(basis_b):
        basis_a, basis_b = basis_b, basis_a
    cross = basis_a @ basis_b.T
    cosines = np.clip(np.linalg.svd(cross, compute_uv=False), 0.0, 1.0)
    sines = np.clip(np.linalg.svd(basis_a - cross @ basis_b, compute_uv=False)[::-1], 0.0, 1.0)
    return np.degrees(np.where(cosines**2 < 0.5, np.arccos(cosines), np.arcsin(sines)))


def largest_principal_angle_deg(basis_a: np.ndarray, basis_b: np.ndarray) -> float:
    """Return the largest of the angles of `principal_angles_deg`, and faster where it exceeds 45 degrees."""
    smallest = np.linalg.svd(basis_a @ basis_b.T, compute_uv=False)[-1]
    if smallest**2 < 0.5:
        return float(np.degrees(np.arccos(smallest)))
    return float(principal_angles_deg(basis_a, basis_b)[-1])


def _standardised(vectors: np.ndarray) -> np.ndarray:
    """Subtract each row's mean and scale it to unit length; NaN for a row that is constant to rounding."""
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    constant = length <= 1e-14 * np.linalg.norm(vectors, axis=1, keepdims=True)
    return centred / np.where(constant, np.nan, length)
