"""How a layer holds its classes: compression, discrimination, NC1, NC2, numerical rank (arXiv 2311.02960).

With K classes, N samples z_i of class y_i, class means μ_k and the mean over all samples μ_G:

    Σ_W = (1/N) Σ_i (z_i - μ_{y_i})(z_i - μ_{y_i})ᵀ        divided by N, not N - K
    Σ_B = (1/K) Σ_k (μ_k - μ_G)(μ_k - μ_G)ᵀ                every class counts the same
    C   = Tr Σ_W / Tr Σ_B                                  compression
    D   = 1 - max_{k≠k'} cos(μ_k, μ_k')                    discrimination, of the uncentred means, signed
    NC1 = Tr(Σ_W Σ_B⁺) / K
    NC2, of m_k = μ_k - μ_G (Papyan, Han & Donoho 2020): two numbers, both 0 where the m_k span a regular simplex
        equinorm: the standard deviation of the lengths |m_k| over their mean
        equiangular: the mean over pairs k < k' of |cos(m_k, m_k') + 1/(K - 1)|
    numerical rank: the least r with σ_1 + … + σ_r >= 0.95 Σ σ_i, of the uncentred matrix

A cosine that is exactly 0 counts in D like any other; the paper's public code leaves it out, which changes D where no
cosine is greater.

Class means and scatter are merged piece by piece (Chan, Golub & LeVeque 1983), in float64, of samples shifted by the
first one of their class: neither a common offset nor collapse onto the class means loses digits. One pass gathers it
all. With W = Σ_i (z_i - μ_{y_i})(z_i - μ_{y_i})ᵀ and the class means NC1 is known too, and the raw Gram matrix, whose
eigenvalues give the numerical rank, is W + Σ_k n_k μ_k μ_kᵀ: a sum of terms that do not cancel. With fewer samples than
features the Gram matrix of the samples takes less; the features are in memory then, and gone through in slices.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from featurespace.products import add_gram, mirror
from featurespace.spectra import CUDA_PIECE_VALUES, WHOLE_SIDE, Rows

RELIABLE_COMPRESSION = 1e-8  # below it C is rounding of the float32 features as much as anything
PIECE_VALUES = 2**20  # values shifted and multiplied at a time: in float64 they stay in the cache meanwhile
PIECE_LENGTH = 256  # samples of a piece, or features where it is a slice of these, at least: for the matrix product

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class LayerMeasures:
    """The measures of one layer at one step; the fields are those of `layers.csv`.

    `compression` is infinite where classes have one mean but a scatter, NaN where they have neither. `discrimination`
    is NaN with fewer than two classes of a non-zero mean; `nc1` and both `nc2` where the class means coincide, and
    `nc2_equiangular` also where one of them is the overall mean; `numerical_rank` where the spectrum is too large to be
    computed whole. `reliable` says that C is finite and at least 1e-8.
    """

    compression: float
    discrimination: float
    nc1: float
    nc2_equinorm: float
    nc2_equiangular: float
    numerical_rank: float
    frobenius_norm: float
    within_trace: float
    between_trace: float
    reliable: bool


@dataclass(frozen=True)
class Classes:
    """The K classes, in the order of their labels, of N samples of d features; float64, on the features' device.

    Class means are split so that nothing cancels: μ_k = pivots[0] + (pivots[k] - pivots[0]) + shifted_means[k].
    """

    index: torch.Tensor  # (N,) the class of each sample, 0..K-1
    counts: torch.Tensor  # (K,) float64
    pivots: torch.Tensor  # (K, d) the first sample of each class
    shifted_means: torch.Tensor  # (K, d)
    within_squares: float  # Σ_i |z_i - μ_{y_i}|²
    within_gram: torch.Tensor | None = None  # (d, d), W, where it was asked for

    @property
    def squares(self) -> float:
        """Return Σ_i |z_i|²."""
        return self.within_squares + float(self.counts @ self.means().square().sum(dim=1))

    @property
    def traces(self) -> tuple[float, float]:
        """Tr Σ_W and Tr Σ_B; the latter is 0 where no more than rounding tells the class means apart."""
        n_samples = float(self.counts.sum())
        between = float(self.offsets().square().sum()) / len(self.counts)
        # What rounding leaves of class means that are equal: a sum over classes of squares of a few ulp.
        is_rounding = between <= (8 * _EPS) ** 2 * self.squares / n_samples
        return self.within_squares / n_samples, 0.0 if is_rounding else between

    @property
    def compression(self) -> float:
        """C; infinite where classes have one mean but a scatter, NaN where they have neither."""
        within, between = self.traces
        if between == 0.0:
            return float("inf" if within > 0.0 else "nan")
        return within / between

    def _relative(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return μ_k - pivots[0], (K, d), and μ_G - pivots[0], (d,)."""
        relative = (self.pivots - self.pivots[0]) + self.shifted_means
        return relative, (self.counts / self.counts.sum()) @ relative

    def offsets(self) -> torch.Tensor:
        """Return μ_k - μ_G, (K, d)."""
        relative, overall = self._relative()
        return relative - overall

    def means(self) -> torch.Tensor:
        """Return μ_k, (K, d)."""
        return self.pivots + self.shifted_means

    def nearest(self, rows: Rows) -> np.ndarray:
        """Return, for each sample, the class of the nearest mean, (n_samples,) int64; the first of equally near ones.

        |z - μ_k|² less what all k share: |m_k|² - 2 (z - μ_G)·m_k, with m_k = μ_k - μ_G.
        """
        relative, overall = self._relative()
        offsets = relative - overall
        nearness = offsets.square().sum(dim=1) / 2
        chosen = []
        for _, piece in _pieces(rows, max(1, _piece_values(rows) // rows.n_features)):
            # The pivot first: that difference is exact for float32 features of a like size.
            centred = (piece - self.pivots[0]).sub_(overall)
            chosen.append((nearness - centred @ offsets.T).argmin(dim=1))
        return torch.cat(chosen).cpu().numpy()


def measure(rows: Rows, labels: np.ndarray, *, rank_energy: float = 0.95) -> LayerMeasures:
    """Measure one layer.

    Parameters
    ----------
    rows
        The feature matrix, (n_samples, n_features). Gone through once, or twice where the spectrum is too large to be
        computed whole.
    labels
        (n_samples,), integers, any values.
    rank_energy
        The share of the sum of singular values that the numerical rank has to reach.

    Raises
    ------
    FeaturespaceError
        If a feature is not finite.
    """
    if len(labels) != rows.n_samples:
        raise ValueError(f"{len(labels)} labels for {rows.n_samples} samples")
    n_samples, n_features = rows.n_samples, rows.n_features
    has_rank = min(n_samples, n_features) <= WHOLE_SIDE
    wide: _Wide | None = None
    if has_rank and n_samples < n_features:
        wide = _wide_scatter(rows, labels)
        classes = wide.classes
    else:
        classes = class_scatter(rows, labels, gram=has_rank)
    within, between = classes.traces

    nc1 = equinorm = equiangular = float("nan")
    if between > 0.0:
        offsets = classes.offsets()
        lengths, directions, combinations = _span(offsets)
        if wide is not None:
            scatter = (wide.along_offsets @ combinations).square().sum(dim=0)
        elif classes.within_gram is not None:
            scatter = ((directions @ classes.within_gram) * directions).sum(dim=1)
        else:
            scatter = _scatter_along(rows, classes, directions)
        # Tr(Σ_W Σ_B⁺) carries a factor K, which the definition divides out again.
        nc1 = float((scatter / n_samples / lengths.square()).sum())
        equinorm, equiangular = _nc2(offsets)

    rank = float("nan")
    if has_rank:
        gram = _raw_gram(classes) if wide is None else wide.gram
        eigenvalues = torch.linalg.eigvalsh(gram, UPLO="U")
        rank = numerical_rank(eigenvalues.clamp(min=0.0).sqrt().flip(0).cpu().numpy(), rank_energy)
    compression = classes.compression
    return LayerMeasures(
        compression=compression,
        discrimination=_discrimination(classes.means()),
        nc1=nc1,
        nc2_equinorm=equinorm,
        nc2_equiangular=equiangular,
        numerical_rank=rank,
        frobenius_norm=classes.squares**0.5,
        within_trace=within,
        between_trace=between,
        reliable=bool(np.isfinite(compression) and compression >= RELIABLE_COMPRESSION),
    )


def numerical_rank(singular_values: np.ndarray, energy: float = 0.95) -> int:
    """Return the least number of leading values, of descending ones, that reach a share of their sum; 0 for zeros."""
    total = singular_values.sum()
    if total == 0.0:
        return 0
    reached = np.cumsum(singular_values) >= energy * total
    return int(np.argmax(reached)) + 1


def class_scatter(rows: Rows, labels: np.ndarray, *, gram: bool = False) -> Classes:
    """Find the class means and the scatter about them of features (n_samples, n_features), in one pass.

    Parameters
    ----------
    labels
        (n_samples,), integers, any values.
    gram
        Whether W, (n_features, n_features), is wanted.

    Raises
    ------
    FeaturespaceError
        If a feature is not finite.
    """
    first, inverse = _classes_of(rows, labels)
    n_classes, n_features, device = len(first), rows.n_features, rows.device
    counts = np.zeros(n_classes)
    pivots = torch.zeros((n_classes, n_features), dtype=torch.float64, device=device)
    means = torch.zeros_like(pivots)
    within = torch.zeros((n_features, n_features), dtype=torch.float64, device=device) if gram else None
    squares = torch.zeros((), dtype=torch.float64, device=device)
    n_rows = min(rows.n_samples, max(PIECE_LENGTH if gram else 1, _piece_values(rows) // n_features))
    buffer = torch.empty((n_rows + min(n_rows, n_classes), n_features), dtype=torch.float64, device=device)
    start = 0
    for block in rows.native():
        members = inverse[start : start + len(block)]
        for fresh in np.flatnonzero((first >= start) & (first < start + len(block))):
            pivots[fresh] = block[int(first[fresh]) - start]
        start += len(block)
        # Class by class, so that means are sums over neighbouring rows, and reproducible ones on a GPU too.
        order = np.argsort(members, kind="stable")
        for chosen in np.split(order, range(n_rows, len(order), n_rows)):
            n_terms = len(chosen)
            buffer[:n_terms] = block[torch.as_tensor(chosen, device=device)]
            for k, run in _runs(members[chosen]):
                mean = _centre(buffer[run], pivots[k])
                length = run.stop - run.start
                share = length / (counts[k] + length)
                delta = mean - means[k]
                if counts[k]:
                    # Chan's term, as one more row of deviations
                    torch.mul(delta, (counts[k] * share) ** 0.5, out=buffer[n_terms])
                    n_terms += 1
                means[k] += delta * share
                counts[k] += length
            if within is None:
                terms = buffer[:n_terms].flatten()
                squares += terms @ terms
            else:
                add_gram(within, buffer[:n_terms])
    if within is not None:
        mirror(within)
        squares = within.trace()
    return Classes(
        index=torch.as_tensor(inverse, device=device),
        counts=torch.as_tensor(counts, device=device),
        pivots=pivots,
        shifted_means=means,
        within_squares=float(squares),
        within_gram=within,
    )


@dataclass(frozen=True)
class _Wide:
    """What is measured of fewer samples than features: with m_k = μ_k - μ_G, and float64."""

    classes: Classes
    along_offsets: torch.Tensor  # (N, K), (z_i - μ_{y_i})·m_k, samples class by class
    gram: torch.Tensor  # (N, N), z_i·z_j, on and above the diagonal, samples class by class


def _wide_scatter(rows: Rows, labels: np.ndarray) -> _Wide:
    """Gather a matrix of fewer samples than features, and go over it in slices of features."""
    first, inverse = _classes_of(rows, labels)
    n_samples, n_features, device = rows.n_samples, rows.n_features, rows.device
    order = np.argsort(inverse, kind="stable")
    runs = _runs(inverse[order])
    counts = torch.as_tensor(np.bincount(inverse).astype(np.float64), device=device)
    matrix = torch.cat(list(rows.native()))
    pivots = matrix[torch.as_tensor(first, device=device)].to(torch.float64)
    means = torch.empty_like(pivots)
    along_offsets = torch.zeros((n_samples, len(first)), dtype=torch.float64, device=device)
    gram = torch.zeros((n_samples, n_samples), dtype=torch.float64, device=device)
    squares = torch.zeros((), dtype=torch.float64, device=device)
    width = max(PIECE_LENGTH, _piece_values(rows) // n_samples)
    for start in range(0, n_features, width):
        part = slice(start, start + width)
        values = matrix[torch.as_tensor(order, device=device), part].to(torch.float64)
        add_gram(gram, values.T)
        for k, run in runs:
            means[k, part] = _centre(values[run], pivots[k, part])
        relative = (pivots[:, part] - pivots[0, part]) + means[:, part]
        along_offsets.addmm_(values, (relative - (counts / n_samples) @ relative).T)
        squares += values.flatten() @ values.flatten()
    index = torch.as_tensor(inverse, device=device)
    return _Wide(Classes(index, counts, pivots, means, float(squares)), along_offsets, gram)


def _piece_values(rows: Rows) -> int:
    """Return how many values are shifted and multiplied at a time."""
    return CUDA_PIECE_VALUES if rows.device.type == "cuda" else PIECE_VALUES


def _classes_of(rows: Rows, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first sample of each class, (K,), and the class of each sample, (N,), 0..K-1, both int64."""
    if len(labels) != rows.n_samples:
        raise ValueError(f"{len(labels)} labels for {rows.n_samples} samples")
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return first.astype(np.int64), inverse.astype(np.int64)


def _pieces(rows: Rows, n_rows: int) -> Iterator[tuple[int, torch.Tensor]]:
    """Go through the rows at most so many at a time: the first one's place, and (<= n_rows, d) in their own dtype."""
    start = 0
    for block in rows.native():
        for piece in block.split(n_rows):
            yield start, piece
            start += len(piece)


def _runs(members: np.ndarray) -> list[tuple[int, slice]]:
    """List the classes of samples that are in the order of their classes, each with its samples."""
    classes, starts = np.unique(members, return_index=True)
    return [(int(k), slice(a, b)) for k, a, b in zip(classes, starts, [*starts[1:], len(members)], strict=True)]


def _centre(values: torch.Tensor, pivot: torch.Tensor) -> torch.Tensor:
    """Subtract the mean of some rows from them, in place, and return it less the pivot."""
    values -= pivot
    mean = values.mean(dim=0)
    values -= mean
    return mean


def _raw_gram(classes: Classes) -> torch.Tensor:
    """Turn W into the raw Gram matrix, in place, on and above the diagonal."""
    assert classes.within_gram is not None
    add_gram(classes.within_gram, classes.counts.sqrt()[:, None] * classes.means())
    return classes.within_gram


def _discrimination(means: torch.Tensor) -> float:
    """Return 1 - the largest cosine between two class means, as half the least squared distance of unit vectors.

    That form keeps the digits of a small D. Means that are zero have no direction and are left out.
    """
    lengths = torch.linalg.vector_norm(means, dim=1)
    units = means[lengths > 0] / lengths[lengths > 0][:, None]
    if len(units) < 2:
        return float("nan")
    nearest = [(units[k + 1 :] - units[k]).square().sum(dim=1).min() for k in range(len(units) - 1)]
    return float(torch.stack(nearest).min()) / 2


def _nc2(offsets: torch.Tensor) -> tuple[float, float]:
    """Return how far the offsets (K, d) of the class means are from equal lengths and from equal, widest angles."""
    n_classes = len(offsets)
    lengths = torch.linalg.vector_norm(offsets, dim=1)
    units = offsets / lengths[:, None]
    cosines = (units @ units.T)[tuple(torch.triu_indices(n_classes, n_classes, offset=1))]
    equiangular = (cosines + 1 / (n_classes - 1)).abs().mean()
    return float(lengths.std(correction=0) / lengths.mean()), float(equiangular)


def _span(offsets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Find what Σ_B⁺ is made of: K Σ_j q_j q_jᵀ / s_j², where μ_k - μ_G = Σ_j a_kj s_j q_j, singular vectors.

    As is usual, eigenvalues of Σ_B below max(d, K) ε of the largest count as zero; so does the K-th, since the offsets,
    weighted by the class sizes, sum to zero.

    Returns
    -------
    lengths, directions, combinations
        s_j, (r,); q_j, (r, d); and a_kj / s_j, (K, r), which make the q_j from the offsets.
    """
    n_classes, n_features = offsets.shape
    mixing, lengths, directions = torch.linalg.svd(offsets, full_matrices=False)
    kept = lengths.square() > max(n_features, n_classes) * _EPS * lengths[0].square()
    kept[n_classes - 1 :] = False
    lengths = lengths[kept]
    return lengths, directions[kept], mixing[:, kept] / lengths


def _scatter_along(rows: Rows, classes: Classes, directions: torch.Tensor) -> torch.Tensor:
    """Return q_jᵀ W q_j, (r,), of directions (r, d), going over the rows once more."""
    scatter = torch.zeros(len(directions), dtype=torch.float64, device=rows.device)
    for start, piece in _pieces(rows, max(1, _piece_values(rows) // rows.n_features)):
        members = classes.index[start : start + len(piece)]
        deviations = (piece - classes.pivots[members]).sub_(classes.shifted_means[members])
        scatter += (deviations @ directions.T).square().sum(dim=0)
    return scatter
