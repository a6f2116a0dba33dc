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

Class means and scatter are merged block by block (Chan, Golub & LeVeque 1983), in float64, of samples shifted by the
first one of their class: neither a common offset nor collapse onto the class means loses digits.
"""

from dataclasses import dataclass

import numpy as np
import torch

from featurespace.spectra import WHOLE_SIDE, Rows, accumulate, gram_singular_values

RELIABLE_COMPRESSION = 1e-8  # below it C is rounding of the float32 features as much as anything

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

    @property
    def traces(self) -> tuple[float, float]:
        """Tr Σ_W and Tr Σ_B; the latter is 0 where no more than rounding tells the class means apart."""
        n_samples = float(self.counts.sum())
        between = float(self.offsets().square().sum()) / len(self.counts)
        squares = self.within_squares + float(self.counts @ self.means().square().sum(dim=1))
        # What rounding leaves of class means that are equal: a sum over classes of squares of a few ulp.
        is_rounding = between <= (8 * _EPS) ** 2 * squares / n_samples
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
        chosen = [(nearness - ((block - self.pivots[0]) - overall) @ offsets.T).argmin(dim=1) for block in rows]
        return torch.cat(chosen).cpu().numpy()


def measure(rows: Rows, labels: np.ndarray, *, rank_energy: float = 0.95) -> LayerMeasures:
    """Measure one layer.

    Parameters
    ----------
    rows
        The feature matrix, (n_samples, n_features). Gone through two to four times.
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
    classes = class_scatter(rows, labels)
    offsets = classes.offsets()
    within, between = classes.traces

    small_enough = min(rows.n_samples, rows.n_features) <= WHOLE_SIDE
    moments = accumulate(rows, gram=small_enough)
    equinorm, equiangular = _nc2(offsets) if between > 0.0 else (float("nan"), float("nan"))
    compression = classes.compression
    return LayerMeasures(
        compression=compression,
        discrimination=_discrimination(classes.means()),
        nc1=_nc1(rows, classes, offsets) if between > 0.0 else float("nan"),
        nc2_equinorm=equinorm,
        nc2_equiangular=equiangular,
        numerical_rank=(
            numerical_rank(gram_singular_values(moments, "raw"), rank_energy) if small_enough else float("nan")
        ),
        frobenius_norm=moments.frobenius_norm["raw"],
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


def class_scatter(rows: Rows, labels: np.ndarray) -> Classes:
    """Find the class means and the scatter about them of features (n_samples, n_features), gone through twice.

    Parameters
    ----------
    labels
        (n_samples,), integers, any values.

    Raises
    ------
    FeaturespaceError
        If a feature is not finite.
    """
    values, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    n_classes, device = len(values), rows.device
    index = torch.as_tensor(inverse.astype(np.int64), device=device)
    pivots = torch.empty((n_classes, rows.n_features), dtype=torch.float64, device=device)
    start = 0
    for block in rows.native():
        for k in np.flatnonzero((first >= start) & (first < start + len(block))):
            pivots[k] = block[int(first[k]) - start].to(torch.float64)
        start += len(block)

    counts = torch.zeros(n_classes, dtype=torch.float64, device=device)
    means = torch.zeros_like(pivots)
    squares = torch.zeros((), dtype=torch.float64, device=device)
    start = 0
    for block in rows:
        members = index[start : start + len(block)]
        start += len(block)
        # Products with the indicator matrix, since scattered additions are not reproducible on a GPU.
        indicator = torch.nn.functional.one_hot(members, n_classes).to(torch.float64)
        block_counts = indicator.sum(dim=0)
        shifted = block - pivots[members]
        block_means = indicator.T @ shifted / block_counts.clamp(min=1.0)[:, None]
        merged = counts + block_counts
        delta = block_means - means
        weight = counts * block_counts / merged.clamp(min=1.0)
        squares += (shifted - block_means[members]).square().sum() + weight @ delta.square().sum(dim=1)
        means += delta * (block_counts / merged.clamp(min=1.0))[:, None]
        counts = merged
    return Classes(index, counts, pivots, means, float(squares))


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


def _nc1(rows: Rows, classes: Classes, offsets: torch.Tensor) -> float:
    """Compute Tr(Σ_W Σ_B⁺)/K in the span of the class means, where alone Σ_B⁺ is not zero.

    With μ_k - μ_G = Σ_j a_kj s_j q_j (a singular value decomposition), Σ_B⁺ = K Σ_j q_j q_jᵀ / s_j², so only the
    scatter along each q_j is needed. As is usual, eigenvalues of Σ_B below max(d, K) ε of the largest count as zero;
    so does the K-th, since the offsets, weighted by the class sizes, sum to zero.
    """
    n_classes, d = offsets.shape
    _, lengths, directions = torch.linalg.svd(offsets, full_matrices=False)
    kept = lengths.square() > max(d, n_classes) * _EPS * lengths[0].square()
    kept[n_classes - 1 :] = False
    directions, lengths = directions[kept], lengths[kept]
    scatter = torch.zeros_like(lengths)
    start = 0
    for block in rows:
        members = classes.index[start : start + len(block)]
        start += len(block)
        deviation = (block - classes.pivots[members]) - classes.shifted_means[members]
        scatter += (deviation @ directions.T).square().sum(dim=0)
    # Tr(Σ_W Σ_B⁺) carries a factor K, which the definition divides out again.
    return float((scatter / rows.n_samples / lengths.square()).sum())
