"""Established measures of how similar two sets of features of the same samples are, beside those of P-vectors.

Every measure here but the raw P-vector's is of centred features, and none changes when features are rotated. So a
matrix is reduced once to its principal scores Y = X V (n_samples x rank), with V from the eigenvectors of XᵀX: its
columns are orthogonal and ordered, and the cross product Y_aᵀ Y_b of two networks holds all that a pair needs. No
(n_samples, n_samples) matrix is formed, unless there are fewer samples than features.

Sources: linear CKA, Kornblith et al. 2019; CKA deconfounded of the input, Cui et al. 2022; SVCCA, Raghu et al. 2017;
the Procrustes distance, Ding et al. 2021.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from featurespace import angles
from featurespace.ends import pairs_of

DATA = "data"
STAGES = ("first", "last")
MEASURES = ("cka", "cka_deconfounded", "svcca", "procrustes", "cosine_raw", "cosine_centred", "correlation")
COLUMNS = ["dataset", "stage", "recipe_a", "seed_a", "recipe_b", "seed_b", "measure", "value"]

SVCCA_VARIANCE = 0.99  # share of variance whose directions enter SVCCA
CACHE_BYTES = 2**32  # reduced networks that are kept, besides the two that are compared

_TINY = 1e-12  # below it 1 - CKA² is rounding: the input leaves nothing of the similarity matrix


@dataclass(frozen=True)
class Reduced:
    """What one network's features (n_samples, n_features) come down to, float64.

    Attributes
    ----------
    scores
        (n_samples, m): the centred features, scaled to unit Frobenius norm and turned to their principal axes.
        NaN if the features are constant.
    singular_values
        (m,), descending: the lengths of the scores' columns.
    p_vectors
        (2, n_samples): the leading left singular vectors of the raw and of the centred features; NaN where there is
        none.
    """

    scores: np.ndarray
    singular_values: np.ndarray
    p_vectors: np.ndarray

    @property
    def n_bytes(self) -> int:
        return self.scores.nbytes + self.p_vectors.nbytes


@dataclass(frozen=True)
class Network:
    """One network at one stage, or a data set: recipe `data`.

    `load` reads the features of the sample set, (n_samples, n_features), all finite.
    """

    recipe: str
    seed: int
    load: Callable[[], np.ndarray]


def reduce_features(features: np.ndarray) -> Reduced:
    """Reduce features (n_samples, n_features) to what the measures need."""
    n, d = features.shape
    centred = features.astype(np.float64)
    # The mean of float64 sums of rows; rows are shifted by the first, so that a common offset costs no digits.
    pivot = centred[0].copy()
    centred -= pivot
    shifted_mean = centred.mean(axis=0)
    centred -= shifted_mean
    mean = pivot + shifted_mean
    norm = float(np.linalg.norm(centred))
    raw_norm = float(np.hypot(norm, np.sqrt(n) * np.linalg.norm(mean)))
    if raw_norm == 0:
        return Reduced(np.full((n, 1), np.nan), np.full(1, np.nan), np.full((2, n), np.nan))
    if norm <= np.finfo(np.float64).eps * raw_norm:
        p_vectors = np.stack([np.full(n, n**-0.5), np.full(n, np.nan)])
        return Reduced(np.full((n, 1), np.nan), np.full(1, np.nan), p_vectors)
    centred /= norm
    mean /= norm
    if n < d:
        # An orthogonal change of axes after which there are no more axes than samples.
        axes, triangle = np.linalg.qr(centred.T)
        centred, mean = triangle.T.copy(), np.append(axes.T @ mean, np.linalg.norm(mean - axes @ (axes.T @ mean)))
    _, vectors = np.linalg.eigh(centred.T @ centred)
    vectors = vectors[:, ::-1]
    scores = _rotate(centred, vectors)
    lengths = np.linalg.norm(scores, axis=0)
    coordinates = vectors.T @ mean[: len(vectors)]
    beyond = mean[len(vectors) :]  # the part of the mean outside the span of the centred rows
    gram = np.diag(np.append(lengths**2, np.zeros(len(beyond))))
    along = np.append(coordinates, beyond)
    gram += n * np.outer(along, along)
    size = len(gram)
    leading = scipy.linalg.eigh(gram, subset_by_index=[size - 1, size - 1])[1][:, 0]
    raw = scores @ leading[: len(lengths)] + along @ leading
    return Reduced(scores, lengths, np.stack([raw / np.linalg.norm(raw), scores[:, 0] / lengths[0]]))


def _rotate(matrix: np.ndarray, vectors: np.ndarray, rows: int = 8192) -> np.ndarray:
    """Multiply a matrix by a square one, in place."""
    for start in range(0, len(matrix), rows):
        matrix[start : start + rows] = matrix[start : start + rows] @ vectors
    return matrix


def cka(cross: np.ndarray, a: Reduced, b: Reduced) -> float:
    """Return linear CKA, |XᵀY|²_F / (|XᵀX|_F |YᵀY|_F), from the cross product (m_a, m_b) of the scores."""
    own = np.sqrt(np.sum(a.singular_values**4) * np.sum(b.singular_values**4))
    return float(np.sum(cross**2) / own)


def deconfounded_cka(cka_ab: float, cka_a_input: float, cka_b_input: float) -> float:
    """Return CKA with the input's similarity matrix regressed out of both networks' (Cui et al. 2022).

    With centred linear similarity matrices K, each K_a is replaced by its residual K_a - α K_input, where α is fitted
    by least squares over all entries. The cosine of two such residuals is a partial correlation:

        (c_ab - c_a c_b) / sqrt((1 - c_a²) (1 - c_b²)), where c_a is CKA with the input.

    Residuals enter as they are, with their negative eigenvalues. NaN where the input leaves nothing.
    """
    left = (1 - cka_a_input**2) * (1 - cka_b_input**2)
    if not left > _TINY:
        return float("nan")
    return float((cka_ab - cka_a_input * cka_b_input) / np.sqrt(left))


def svcca(cross: np.ndarray, a: Reduced, b: Reduced, variance: float = SVCCA_VARIANCE) -> float:
    """Return the mean canonical correlation of the leading principal directions that hold a share of variance.

    Parameters
    ----------
    cross
        (m_a, m_b), the cross product of the scores.
    """
    if not np.isfinite(cross).all():
        return float("nan")
    k_a, k_b = (_n_directions(reduced.singular_values, variance) for reduced in (a, b))
    left_vectors_product = cross[:k_a, :k_b] / np.outer(a.singular_values[:k_a], b.singular_values[:k_b])
    return float(np.minimum(np.linalg.svd(left_vectors_product, compute_uv=False), 1.0).mean())


def _n_directions(singular_values: np.ndarray, variance: float) -> int:
    shares = np.cumsum(singular_values**2) / np.sum(singular_values**2)
    return min(int(np.searchsorted(shares, variance)) + 1, len(shares))


def procrustes_distance(cross: np.ndarray) -> float:
    """Return the orthogonal Procrustes distance |X|² + |Y|² - 2 |XᵀY|_* of unit-norm features: 0 to 2.

    Parameters
    ----------
    cross
        (m_a, m_b), the cross product of the scores.
    """
    if not np.isfinite(cross).all():
        return float("nan")
    return float(max(2 - 2 * np.linalg.svd(cross, compute_uv=False).sum(), 0.0))


def measure_pair(a: Reduced, b: Reduced, cka_a_input: float, cka_b_input: float) -> dict[str, float]:
    """Compare two networks over the same samples.

    Parameters
    ----------
    cka_a_input, cka_b_input
        Each network's CKA with the input; NaN where deconfounding makes no sense.

    Returns
    -------
    dict
        By the names of `MEASURES`; all are 1 for equal features but `procrustes`, which is 0. `cosine_*` are of the
        P-vectors, and `correlation` is Pearson's r of the entries of the raw ones.
    """
    cross = a.scores.T @ b.scores
    own = cka(cross, a, b)
    vectors, references = a.p_vectors, b.p_vectors
    return {
        "cka": own,
        "cka_deconfounded": deconfounded_cka(own, cka_a_input, cka_b_input),
        "svcca": svcca(cross, a, b),
        "procrustes": procrustes_distance(cross),
        "cosine_raw": float(angles.cosine(vectors[:1], references[:1])[0, 0]),
        "cosine_centred": float(angles.cosine(vectors[1:], references[1:])[0, 0]),
        "correlation": float(angles.correlation(vectors[:1], references[:1])[0, 0]),
    }


class _Cache:
    """Reduced networks, as many of those used last as fit."""

    def __init__(self, networks: Sequence[Network], n_bytes: int) -> None:
        self._networks = networks
        self._n_bytes = n_bytes
        self._kept: OrderedDict[int, Reduced] = OrderedDict()

    def __getitem__(self, i: int) -> Reduced:
        if i in self._kept:
            self._kept.move_to_end(i)
            return self._kept[i]
        sizes = [reduced.n_bytes for reduced in self._kept.values()]
        while len(self._kept) > 1 and sum(sizes) + max(sizes) > self._n_bytes:
            _, oldest = self._kept.popitem(last=False)
            sizes.remove(oldest.n_bytes)
        self._kept[i] = reduce_features(self._networks[i].load())
        return self._kept[i]


def compare(
    dataset: str, stage: str, networks: Sequence[Network], data: Network, cache_bytes: int = CACHE_BYTES
) -> Iterator[list[tuple[str, str, str, int, str, int, str, float]]]:
    """Compare the networks of a data set at one stage with each other, and with the data.

    Parameters
    ----------
    networks
        All seeds of a recipe, then those of the next.
    data
        The network input of the same samples.
    cache_bytes
        Reduced networks beyond two are forgotten past this size, and read again when they are needed.

    Yields
    ------
    list
        Rows of `similarity.csv`, with the values of `COLUMNS`, for one pair: first all with the data, then `pairs_of`.
        `cka_deconfounded` is missing where one of the two is the data.
    """
    nan = float("nan")
    everything = [*networks, data]
    cache = _Cache(everything, cache_bytes)
    cka_input = [nan] * len(everything)
    pairs = pairs_of([(a.recipe, a.seed) for a in networks])
    # seed by seed, so that the networks of one seed stay at hand while they meet
    pairs.sort(key=lambda pair: (networks[pair[0]].seed, networks[pair[1]].seed))
    for i, j in [(i, len(networks)) for i in range(len(networks))] + pairs:
        measures = measure_pair(cache[i], cache[j], cka_input[i], cka_input[j])
        if j == len(networks):
            cka_input[i] = measures["cka"]
        a, b = everything[i], everything[j]
        yield [(dataset, stage, a.recipe, a.seed, b.recipe, b.seed, name, measures[name]) for name in MEASURES]
