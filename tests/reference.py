"""What the library's numbers are held against: the definitions of the papers, in float64 NumPy, written out.

Independent of the library on purpose: full singular value decompositions, explicit scatter matrices, loops.
"""

import numpy as np


def svd(features: np.ndarray, centring: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return left vectors (n, m), singular values (m,) and right vectors (d, m), from a full decomposition."""
    matrix = features.astype(np.float64)
    if centring == "centred":
        matrix = matrix - matrix.mean(axis=0)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return left, values, right.T


def angle_deg(a: np.ndarray, b: np.ndarray) -> float:
    """Return the angle between two vectors, up to sign: arctan of the part across b over the part along it."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    along = float(a @ b)
    return float(np.degrees(np.arctan2(np.linalg.norm(a - along * b), abs(along))))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Pearson's r of the entries of a and of b, turned to the side of a."""
    return float(np.corrcoef(a, b * (np.sign(a @ b) or 1.0))[0, 1])


def principal_angles_deg(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the principal angles, ascending, between the column spans of (n, k) matrices with k_a <= k_b.

    Through the projector on the span of b and the one on its complement: cosines and sines of a basis of a.
    """
    basis_a = np.linalg.qr(a)[0]
    onto_b = b @ np.linalg.pinv(b)
    cosines = np.linalg.svd(onto_b @ basis_a, compute_uv=False)
    sines = np.linalg.svd(basis_a - onto_b @ basis_a, compute_uv=False)[::-1]
    return np.degrees(np.arctan2(sines, cosines))


def scatter(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the within-class and between-class covariance matrices, sample by sample and class by class."""
    z = features.astype(np.float64)
    n, d = z.shape
    classes = np.unique(labels)
    overall = z.mean(axis=0)
    within, between = np.zeros((d, d)), np.zeros((d, d))
    for k in classes:
        members = z[labels == k]
        mean = members.mean(axis=0)
        for row in members:
            within += np.outer(row - mean, row - mean) / n
        between += np.outer(mean - overall, mean - overall) / len(classes)
    return within, between


def compression(features: np.ndarray, labels: np.ndarray) -> float:
    """Return C = Tr Σ_W / Tr Σ_B."""
    within, between = scatter(features, labels)
    return float(np.trace(within) / np.trace(between))


def discrimination(features: np.ndarray, labels: np.ndarray) -> float:
    """Return D = 1 - max cos(μ_k, μ_k') over two different classes."""
    z = features.astype(np.float64)
    means = [z[labels == k].mean(axis=0) for k in np.unique(labels)]
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for i, a in enumerate(means) for b in means[i + 1 :]]
    return float(1 - max(cosines))


def nc1(features: np.ndarray, labels: np.ndarray) -> float:
    """Return Tr(Σ_W Σ_B⁺) / K, with the pseudo-inverse of the whole matrix."""
    within, between = scatter(features, labels)
    inverse = np.linalg.pinv(between, rcond=len(between) * np.finfo(float).eps, hermitian=True)
    return float(np.trace(within @ inverse) / len(np.unique(labels)))


def nc2(features: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return the spread of the lengths of centred class means, and of their angles about the widest equal ones."""
    z = features.astype(np.float64)
    centred = [z[labels == k].mean(axis=0) - z.mean(axis=0) for k in np.unique(labels)]
    lengths = [np.sqrt(m @ m) for m in centred]
    widest = -1 / (len(centred) - 1)
    cosines = [a @ b / np.sqrt((a @ a) * (b @ b)) for i, a in enumerate(centred) for b in centred[i + 1 :]]
    return float(np.std(lengths) / np.mean(lengths)), float(np.mean([abs(cosine - widest) for cosine in cosines]))


def nearest_class_mean(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return, for each sample, the label of the class whose mean is nearest."""
    z = features.astype(np.float64)
    values = np.unique(labels)
    means = [z[labels == k].mean(axis=0) for k in values]
    return np.array([values[np.argmin([np.linalg.norm(row - mean) for mean in means])] for row in z])


def numerical_rank(features: np.ndarray, energy: float = 0.95) -> int:
    """Return how many singular values of the uncentred matrix reach a share of their sum."""
    values = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    rank = 1
    while values[:rank].sum() < energy * values.sum():
        rank += 1
    return rank
