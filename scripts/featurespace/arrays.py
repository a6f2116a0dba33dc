"""Spectra, angles, measures and null models of plain arrays: what a notebook needs of this library.

Features are a matrix X (n_samples, n_features), a NumPy array or a torch tensor, of any real type; a vector has an
entry for each sample. Singular vectors are columns, as NumPy has them. A singular vector has no sign: angles lie in
[0, 90] degrees, and correlations are of vectors turned to the same side. Everything is computed in float64.

Whether features are raw or centred (the mean of every feature subtracted) is always said: raw P-vectors of two
unrelated networks can be close for no other reason than that both are close to the ones vector.

Sources of formulas: docs/mathematics.md, and the module of the library that each function names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from featurespace import angles, measures, similarity, spectra, subspaces
from featurespace.measures import LayerMeasures
from featurespace.noise import draw_rows
from featurespace.subspaces import SubspaceNull

Array = np.ndarray | torch.Tensor | Sequence[Any]


@dataclass(frozen=True)
class Decomposition:
    """The spectrum of one feature matrix, raw or centred; float64.

    Attributes
    ----------
    centred
        Whether the mean of every feature was subtracted.
    singular_values
        (min(n_samples, n_features),), descending.
    left_vectors, right_vectors
        (n_samples, k) and (n_features, k), unit columns; the sum of a left vector is not negative, or where it is zero,
        as when centred, its largest entry is positive. NaN where there is no such vector: past the smaller side, or
        where the singular value is zero to rounding.
    relative_gap
        (k,), (σ_i - σ_{i+1}) / σ_i. Small means that the vector is not determined, and only the span of several is.
    residual
        (k,), ‖Xᵀu - σv‖ / σ_1 as it was measured; an error of the vector is at most about residual / relative gap.
    frobenius_norm
        ‖X‖_F, the root of the sum of all squared singular values.
    """

    centred: bool
    singular_values: np.ndarray
    left_vectors: np.ndarray
    right_vectors: np.ndarray
    relative_gap: np.ndarray
    residual: np.ndarray
    frobenius_norm: float


@dataclass(frozen=True)
class Comparison:
    """The angle of two vectors with all that has to stand beside it.

    Attributes
    ----------
    angle_deg
        The angle, in degrees.
    p_ones_deg, q_ones_deg
        The angle of each vector to the ones vector, in degrees.
    correlation
        Pearson's r of the entries, of vectors turned to the same side; NaN for constant ones.
    null_mean_deg, null_low_deg
        Mean and 5th percentile of the angle in degrees if the samples of one vector are shuffled.
    null_formula_deg
        That mean in closed form, from both angles to the ones vector alone.
    p_value
        Share of shuffles with an angle no larger, the observed one counted among them.
    """

    angle_deg: float
    p_ones_deg: float
    q_ones_deg: float
    correlation: float
    null_mean_deg: float
    null_low_deg: float
    null_formula_deg: float
    p_value: float


# --- spectra --------------------------------------------------------------------------------------


def decompose(X: Array, k: int = 8, *, centred: bool, device: torch.device | str | None = None) -> Decomposition:
    """Compute all singular values of a feature matrix, and its k leading pairs of singular vectors.

    Through the Gram matrix of the smaller side in float64, and a Rayleigh-Ritz step on X itself: see
    `featurespace.spectra`. Values past the leading ones are good to 1e-8 relative down to 1e-3 of the largest.

    Parameters
    ----------
    X
        (n_samples, n_features), finite.
    k
        How many vectors are wanted.
    centred
        Whether the mean of every feature is subtracted.
    device
        Where it is computed; without one, where X is.

    Raises
    ------
    ValueError
        If X is not a matrix of finite numbers, or k is less than 1.

    Examples
    --------
    >>> X = np.array([[3.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> found = decompose(X, k=1, centred=False)
    >>> found.singular_values.round(6)
    array([4.242641, 1.414214])
    >>> found.left_vectors[:, 0].round(4).tolist()
    [0.7071, 0.7071, 0.0, 0.0]
    >>> bool(found.residual[0] < 1e-12)
    True
    """
    matrix, where = _matrix(X, "X")
    if k < 1:
        raise ValueError(f"k is {k}: at least one vector is wanted")
    found = spectra.decompose(spectra.Rows.of(matrix, device=device or where, name="X"), vectors=int(k))
    own = spectra.CENTRINGS.index("centred" if centred else "raw")
    return Decomposition(
        centred=centred,
        singular_values=found.singular_values[own],
        left_vectors=found.left_vectors[own].T,
        right_vectors=found.right_vectors[own].T,
        relative_gap=found.relative_gap[own],
        residual=found.residual[own],
        frobenius_norm=float(found.frobenius_norm[own]),
    )


def p_vector(X: Array, *, centred: bool, device: torch.device | str | None = None) -> np.ndarray:
    """Return the P-vector of a feature matrix: its top left singular vector, (n_samples,), of unit length.

    Parameters
    ----------
    X, centred, device
        As for `decompose`, which also tells whether the vector is determined (`relative_gap`).

    Raises
    ------
    ValueError
        If X is not a matrix of finite numbers, or has no such vector: all features are zero, or constant if centred.

    Examples
    --------
    >>> X = np.array([[3.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> p_vector(X, centred=True).round(4).tolist()
    [0.5, 0.5, -0.5, -0.5]
    """
    vector = decompose(X, 1, centred=centred, device=device).left_vectors[:, 0]
    if not np.isfinite(vector).all():
        raise ValueError(f"X has no P-vector: all features are {'constant' if centred else 'zero'}")
    return vector


# --- angles ---------------------------------------------------------------------------------------


def angle_deg(p: Array, q: Array) -> float:
    """Return the angle in degrees, 0 to 90, between two vectors up to sign.

    2 atan2(|p - q|, |p + q|) of unit vectors (Kahan 2006): accurate at all angles.

    Parameters
    ----------
    p, q
        (n_samples,), of any length but zero.

    Raises
    ------
    ValueError
        If they are not two vectors of the same number of finite entries, or one is zero.

    Examples
    --------
    >>> round(angle_deg([1.0, 0.0], [-1.0, -1.0]), 6)
    45.0
    """
    p, q = _pair(p, q)
    return float(angles.angle_deg(p, q)[0, 0])


def angle_to_ones_deg(p: Array) -> float:
    """Return the angle in degrees between a vector and the ones vector: tan θ = std / |mean| of its entries.

    Parameters
    ----------
    p
        (n_samples,), of any length but zero.

    Raises
    ------
    ValueError
        If it is not a vector of finite entries, or is zero.

    Examples
    --------
    >>> round(angle_to_ones_deg([1.0, 1.0, 0.0, 0.0]), 6)
    45.0
    """
    return float(angles.angle_to_ones_deg(_vector(p, "p")[None])[0])


def correlation(p: Array, q: Array) -> float:
    """Return Pearson's r of the entries of two vectors turned to the same side; NaN if one is constant.

    What is left of their angle once the ones vector is taken out: with r,
    cos θ(p,q) = cos θ(p,1) cos θ(q,1) + r sin θ(p,1) sin θ(q,1).

    Parameters
    ----------
    p, q
        (n_samples,), of any length but zero.

    Raises
    ------
    ValueError
        If they are not two vectors of the same number of finite entries, or one is zero.

    Examples
    --------
    >>> round(correlation([1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]), 6)
    1.0
    """
    p, q = _pair(p, q)
    return float(angles.correlation(p, q)[0, 0])


def compare(p: Array, q: Array, *, permutations: int = 1000, seed: int = 0) -> Comparison:
    """Compare two vectors: their angle, and beside it the ones vector, the correlation and a permutation null.

    Parameters
    ----------
    p, q
        (n_samples,), the same samples in the same order, of any length but zero.
    permutations
        Shuffles of the samples that the null is made of.
    seed
        What they come from.

    Raises
    ------
    ValueError
        If they are not two vectors of the same number of finite entries, one is zero, or no permutation is wanted.

    Examples
    --------
    Two vectors of positive entries that have nothing to do with each other: close, and no closer than by chance.

    >>> rng = np.random.default_rng(0)
    >>> p, q = rng.uniform(1, 2, 500), rng.uniform(1, 2, 500)
    >>> found = compare(p, q)
    >>> found.angle_deg < 20, found.p_value > 0.05
    (True, True)
    >>> abs(found.angle_deg - found.null_formula_deg) < 1
    True
    """
    ones = angle_to_ones_deg(p), angle_to_ones_deg(q)
    null = permutation_null(p, q, permutations=permutations, seed=seed)
    formula = angles.null_formula_deg(np.array(ones[:1]), np.array(ones[1:]), len(_vector(p, "p")))
    return Comparison(
        angle_deg=angle_deg(p, q),
        p_ones_deg=ones[0],
        q_ones_deg=ones[1],
        correlation=correlation(p, q),
        null_mean_deg=null.mean_deg,
        null_low_deg=null.low_deg,
        null_formula_deg=float(formula[0, 0]),
        p_value=null.p_value,
    )


def principal_angles_deg(U: Array, V: Array) -> np.ndarray:
    """Return the principal angles in degrees, (min(k_u, k_v),), ascending, between the spans of columns.

    In sine and cosine form (Björck & Golub 1973): accurate at all angles.

    Parameters
    ----------
    U, V
        (n_samples, k_u) and (n_samples, k_v), such as the left vectors of two decompositions; their columns are
        linearly independent, and need not be orthonormal.

    Raises
    ------
    ValueError
        If they are not two matrices of finite numbers with the same number of rows, or columns are linearly dependent.

    Examples
    --------
    >>> U = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    >>> V = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> principal_angles_deg(U, V).round(6).tolist()
    [0.0, 45.0]
    """
    bases = [_basis(matrix, name) for matrix, name in ((U, "U"), (V, "V"))]
    if bases[0].shape[1] != bases[1].shape[1]:
        raise ValueError(f"U has {bases[0].shape[1]} rows and V has {bases[1].shape[1]}: they must be the same samples")
    return angles.principal_angles_deg(*bases)


# --- measures -------------------------------------------------------------------------------------


def layer_measures(
    X: Array, y: Array, *, rank_energy: float = 0.95, device: torch.device | str | None = None
) -> LayerMeasures:
    """Measure how features hold their classes: compression C, discrimination D, NC1, NC2 and numerical rank.

    C = Tr Σ_W / Tr Σ_B, D = 1 - max cos(μ_k, μ_k'), NC1 = Tr(Σ_W Σ_B⁺) / K (arXiv 2311.02960), NC2 in its two parts
    (Papyan, Han & Donoho 2020); `featurespace.measures` has the definitions in full.

    Parameters
    ----------
    X
        (n_samples, n_features), finite.
    y
        (n_samples,) integers, the class of each sample, any values.
    rank_energy
        Share of the sum of the singular values that the numerical rank has to reach.
    device
        Where it is computed; without one, where X is.

    Returns
    -------
    LayerMeasures
        `compression`, `discrimination`, `nc1`, `nc2_equinorm`, `nc2_equiangular`, `numerical_rank`, and what they are
        made of. NaN or infinite where a definition has no value; `reliable` says whether C is more than rounding.

    Raises
    ------
    ValueError
        If X is not a matrix of finite numbers, y not an integer a sample, or the share not above 0 and at most 1.

    Examples
    --------
    >>> X = np.array([[2.0, 0.1], [2.0, -0.1], [-2.0, 0.1], [-2.0, -0.1]])
    >>> found = layer_measures(X, [0, 0, 1, 1])
    >>> round(found.compression, 6), round(found.discrimination, 6), found.numerical_rank
    (0.0025, 2.0, 1)
    """
    matrix, where = _matrix(X, "X")
    labels = _numpy(y)
    if labels.shape != (len(matrix),) or labels.dtype.kind not in "iub":
        raise ValueError(
            f"y has shape {labels.shape} and type {labels.dtype}: expected an integer for each of {len(matrix)} samples"
        )
    if not 0 < rank_energy <= 1:
        raise ValueError(f"rank_energy is {rank_energy}: expected a share above 0 and at most 1")
    rows = spectra.Rows.of(matrix, device=device or where, name="X")
    return measures.measure(rows, labels.astype(np.int64), rank_energy=rank_energy)


def linear_cka(X: Array, Y: Array) -> float:
    """Return linear CKA, |XᵀY|²_F / (|XᵀX|_F |YᵀY|_F) of centred features, 0 to 1 (Kornblith et al. 2019).

    Parameters
    ----------
    X, Y
        (n_samples, n_features) each, the same samples in the same order; finite, not constant.

    Raises
    ------
    ValueError
        If they are not such matrices.

    Examples
    --------
    >>> X = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    >>> round(linear_cka(X, 3 * X[:, ::-1] + 7), 6)
    1.0
    """
    a, b = _reduced(X=X, Y=Y)
    return similarity.cka(a.scores.T @ b.scores, a, b)


def deconfounded_cka(X: Array, Y: Array, inputs: Array) -> float:
    """Return linear CKA of two networks with the similarity of their inputs regressed out (Cui et al. 2022).

    Parameters
    ----------
    X, Y, inputs
        (n_samples, n_features) each, the same samples in the same order; finite, not constant.

    Returns
    -------
    float
        -1 to 1, and 0 for networks that have nothing in common but the input; NaN where the input leaves nothing.

    Raises
    ------
    ValueError
        If they are not such matrices.

    Examples
    --------
    Two networks that both pass on the input, each with features of its own, are similar only through it:

    >>> rng = np.random.default_rng(0)
    >>> inputs, own, other = rng.normal(size=(3, 400, 5))
    >>> X, Y = np.hstack([inputs, own]), np.hstack([inputs, other])
    >>> linear_cka(X, Y) > 0.4, abs(deconfounded_cka(X, Y, inputs)) < 0.1
    (True, True)
    """
    a, b, data = _reduced(X=X, Y=Y, inputs=inputs)
    pairs = (a, b), (a, data), (b, data)
    return similarity.deconfounded_cka(
        *(similarity.cka(left.scores.T @ right.scores, left, right) for left, right in pairs)
    )


def svcca(X: Array, Y: Array, *, variance: float = similarity.SVCCA_VARIANCE) -> float:
    """Return SVCCA, the mean canonical correlation of leading principal directions, 0 to 1 (Raghu et al. 2017).

    Parameters
    ----------
    X, Y
        (n_samples, n_features) each, the same samples in the same order; finite, not constant.
    variance
        Share of the variance that the leading directions hold.

    Raises
    ------
    ValueError
        If they are not such matrices, or the share is not above 0 and at most 1.

    Examples
    --------
    >>> X = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0], [3.0, 1.0]])
    >>> round(svcca(X, X @ [[2.0, 1.0], [0.0, 1.0]]), 6)
    1.0
    """
    if not 0 < variance <= 1:
        raise ValueError(f"variance is {variance}: expected a share above 0 and at most 1")
    a, b = _reduced(X=X, Y=Y)
    return similarity.svcca(a.scores.T @ b.scores, a, b, variance)


def procrustes_distance(X: Array, Y: Array) -> float:
    """Return the orthogonal Procrustes distance of centred features of unit norm, 0 to 2 (Ding et al. 2021).

    |X|² + |Y|² - 2 |XᵀY|_*, the squared distance that is left after the best rotation.

    Parameters
    ----------
    X, Y
        (n_samples, n_features) each, the same samples in the same order; finite, not constant.

    Raises
    ------
    ValueError
        If they are not such matrices.

    Examples
    --------
    >>> X = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    >>> round(procrustes_distance(X, X @ [[0.0, 1.0], [-1.0, 0.0]]), 6)
    0.0
    """
    a, b = _reduced(X=X, Y=Y)
    return similarity.procrustes_distance(a.scores.T @ b.scores)


# --- null models ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class PermutationNull:
    """What the angle of two vectors would be if samples were matched at random.

    `mean_deg` and `low_deg` are mean and 5th percentile over the permutations, in degrees; `p_value` is the share of
    them with an angle no larger than the observed one, which counts as one of them (Phipson & Smyth 2010).
    """

    mean_deg: float
    low_deg: float
    p_value: float


def permutation_null(p: Array, q: Array, *, permutations: int = 1000, seed: int = 0) -> PermutationNull:
    """Compare a vector with another one whose entries are shuffled.

    Parameters
    ----------
    p, q
        (n_samples,), the same samples in the same order, of any length but zero.
    permutations
        How many shuffles.
    seed
        What they come from.

    Raises
    ------
    ValueError
        If they are not two vectors of the same number of finite entries, one is zero, or no permutation is wanted.

    Examples
    --------
    >>> p = np.arange(1.0, 101.0)
    >>> null = permutation_null(p, p + 10, permutations=999)
    >>> null.p_value
    0.001
    >>> angle_deg(p, p + 10) < null.low_deg < null.mean_deg
    True
    """
    p, q = _pair(p, q)
    if permutations < 1:
        raise ValueError(f"permutations is {permutations}: at least one is needed")
    null = angles.permutation_null(p, q, angles.draw_permutations(p.shape[1], int(permutations), int(seed)))
    return PermutationNull(float(null.mean_deg[0, 0]), float(null.low_deg[0, 0]), float(null.p_value[0, 0]))


def haar_null(n_samples: int, k: int, *, centred: bool, draws: int = 1000, seed: int = 0) -> SubspaceNull:
    """Say what the principal angles of two random k-dimensional subspaces would be (uniformly drawn, Haar).

    Parameters
    ----------
    n_samples
        Entries of a vector.
    k
        Dimensions of either subspace.
    centred
        Whether vectors are centred: they then live in a space of n_samples - 1 dimensions.
    draws, seed
        How many pairs, and what they come from. Nothing of the size of n_samples is drawn (Bartlett 1933).

    Returns
    -------
    SubspaceNull
        In degrees: `mean_deg`, the mean of all angles; `largest_deg` and `largest_low_deg`, mean and 5th percentile of
        the largest one.

    Raises
    ------
    ValueError
        If k is not between 1 and the dimensions of the space, or no draw is wanted.

    Examples
    --------
    >>> null = haar_null(2000, 4, centred=True)
    >>> 80 < null.mean_deg < null.largest_deg < 90
    True
    """
    space = n_samples - bool(centred)
    if not 1 <= k <= space:
        raise ValueError(f"k is {k}: expected 1 to {space}, the dimensions that {n_samples} samples leave")
    if draws < 1:
        raise ValueError(f"draws is {draws}: at least one is needed")
    return subspaces.draw_nulls(n_samples, "centred" if centred else "raw", [k], int(draws), int(seed))[k]


def random_subspace(n_samples: int, k: int, *, centred: bool, seed: int = 0) -> np.ndarray:
    """Draw a k-dimensional subspace uniformly (Haar): an orthonormal basis, (n_samples, k).

    Parameters
    ----------
    n_samples, k
        Entries of a vector, and how many.
    centred
        Whether the entries of each vector sum to zero.
    seed
        What they come from.

    Raises
    ------
    ValueError
        If k is not between 1 and the dimensions of the space.

    Examples
    --------
    >>> U = random_subspace(500, 3, centred=True)
    >>> U.shape, bool(abs(U.sum(axis=0)).max() < 1e-12)
    ((500, 3), True)
    >>> bool(principal_angles_deg(U, random_subspace(500, 3, centred=True, seed=1))[0] > 70)
    True
    """
    space = n_samples - bool(centred)
    if not 1 <= k <= space:
        raise ValueError(f"k is {k}: expected 1 to {space}, the dimensions that {n_samples} samples leave")
    drawn = np.random.default_rng(seed).normal(size=(n_samples, k))
    if centred:
        drawn -= drawn.mean(axis=0)
    basis = np.linalg.qr(drawn)[0]
    return basis - basis.mean(axis=0) if centred else basis


def noise_features(n_samples: int, n_features: int, *, rectified: bool = False, seed: int = 0) -> np.ndarray:
    """Draw features that no network made, (n_samples, n_features) float32: N(0, 1), or max(0, N(0, 1)).

    Rectified ones are positive, so that their raw P-vectors are all close to the ones vector, and to each other.

    Parameters
    ----------
    n_samples, n_features
        The shape.
    rectified
        Whether negative numbers become zero.
    seed
        What they come from.

    Raises
    ------
    ValueError
        If there would be none.

    Examples
    --------
    >>> p, q = (p_vector(noise_features(300, 50, rectified=True, seed=s), centred=False) for s in (0, 1))
    >>> angle_deg(p, q) < 20, abs(correlation(p, q)) < 0.2
    (True, True)
    """
    if n_samples < 1 or n_features < 1:
        raise ValueError(f"{n_samples} samples of {n_features} features: expected at least one of each")
    return draw_rows(np.random.default_rng(seed), n_samples, n_features, rectified)


# --- what comes in --------------------------------------------------------------------------------


def _numpy(values: Array) -> np.ndarray:
    """Return an array of a real type that NumPy and torch both have."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
        return values.numpy()
    return np.asarray(values)


def _matrix(values: Array, name: str) -> tuple[np.ndarray, torch.device]:
    """Return a matrix (n_samples, n_features) of finite float32 or float64, and the device that it was on."""
    where = values.device if isinstance(values, torch.Tensor) else torch.device("cpu")
    matrix = _numpy(values)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"{name} has shape {matrix.shape}: expected (n_samples, n_features), at least one of each")
    matrix = _real(matrix, name)
    if not np.isfinite(matrix.sum()) and len(bad := np.flatnonzero(~np.isfinite(matrix).all(axis=1))):
        raise ValueError(f"{name} is not finite: sample {bad[0]} has a feature that is NaN or infinite")
    return matrix, where


def _vector(values: Array, name: str) -> np.ndarray:
    """Return a vector (n_samples,), float64, scaled to unit length."""
    vector = _numpy(values)
    if vector.ndim != 1 or len(vector) == 0:
        raise ValueError(f"{name} has shape {vector.shape}: expected (n_samples,), an entry a sample")
    vector = _real(vector, name).astype(np.float64)
    if len(bad := np.flatnonzero(~np.isfinite(vector))):
        raise ValueError(f"{name} is not finite: entry {bad[0]} is {vector[bad[0]]}")
    largest = np.abs(vector).max()
    if largest == 0:
        raise ValueError(f"{name} is zero, and has no direction")
    vector = vector / largest  # its square might not fit
    return vector / np.linalg.norm(vector)


def _real(values: np.ndarray, name: str) -> np.ndarray:
    """Return float32 as it is, and other real numbers as float64."""
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name} is of type {values.dtype}: expected real numbers")
    return values if values.dtype == np.float32 else values.astype(np.float64)


def _pair(p: Array, q: Array) -> tuple[np.ndarray, np.ndarray]:
    """Return two vectors over the same samples as unit rows, (1, n_samples)."""
    first, second = _vector(p, "p"), _vector(q, "q")
    if len(first) != len(second):
        raise ValueError(f"p has {len(first)} entries and q has {len(second)}: they must be of the same samples")
    return first[None], second[None]


def _basis(values: Array, name: str) -> np.ndarray:
    """Return orthonormal rows, (k, n_samples), that span the columns of a matrix."""
    matrix = _matrix(values, name)[0].astype(np.float64)
    lengths = np.linalg.norm(matrix, axis=0)
    if lengths.min() == 0 or np.linalg.matrix_rank(matrix / lengths) < matrix.shape[1]:
        raise ValueError(f"{name} has {matrix.shape[1]} columns that are linearly dependent")
    return angles.orthonormal_basis((matrix / lengths).T)


def _reduced(**features: Array) -> list[similarity.Reduced]:
    """Reduce features of the same samples to what measures of similarity need."""
    matrices = {name: _matrix(values, name)[0] for name, values in features.items()}
    lengths = {name: len(matrix) for name, matrix in matrices.items()}
    if len(set(lengths.values())) > 1:
        given = " and ".join(f"{name} has {length} samples" for name, length in lengths.items())
        raise ValueError(f"{given}: they must be the same samples, in the same order")
    reduced = []
    for name, matrix in matrices.items():
        reduced.append(similarity.reduce_features(matrix))
        if np.isnan(reduced[-1].singular_values).any():
            raise ValueError(f"all features of {name} are constant: nothing is left of them once they are centred")
    return reduced
