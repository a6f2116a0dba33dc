"""Spectra of a feature matrix: singular values and leading singular vectors, raw and centred, on any torch device.

The matrix X (n_samples x n_features) is never needed whole: its rows come in blocks, and everything is accumulated
in float64. Up to `GRAM_SIDE` the symmetric eigenproblem of the Gram matrix on the smaller side gives the first
answer; past it a block Krylov iteration applies X and its transpose block by block. Either way one more
Rayleigh-Ritz step on X itself follows, so that the k leading triplets carry the accuracy of X and not of its square,
and a last pass measures the residual that is reported.

Nothing centred is ever formed as raw minus mean products: means and centred Gram matrices are merged block by block
(Chan, Golub & LeVeque 1983), of rows shifted by the first one, so that a common offset, however large, costs nothing.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from featurespace.errors import FeaturespaceError

CENTRINGS = ("raw", "centred")

GRAM_SIDE = 8192  # the largest smaller side whose Gram matrix is formed for a few vectors only
WHOLE_SIDE = 16384  # the same for the whole spectrum: 2 GiB a matrix
DENSE_SIDE = 768  # below it the full eigensolve is as fast as Lanczos
RESIDUAL_TOLERANCE = 1e-10  # what the iterations go for, relative to the largest singular value
RESIDUAL_WARNING = 1e-8  # what is logged: beyond what Gram matrices of collapsed features give
CACHE_BYTES = 2**30  # a matrix up to this size is read once and kept on the device between passes

_EPS = float(np.finfo(np.float64).eps)
_ROUNDING = 64 * _EPS  # relative to a Frobenius norm: what a mean, or a product with it, may be by rounding alone
_SIGN_TIE = 1e-6  # a vector this close to orthogonal to the ones vector gets its sign from its largest entry

logger = logging.getLogger(__name__)


class Rows:
    """The rows of one feature matrix, in order, as float64 blocks on a device; can be gone through many times.

    Parameters
    ----------
    source
        Called once a pass; returns the (rows, n_features) blocks in order, in any real dtype.
    n_samples, n_features
        The shape of the whole.
    device
        Where the blocks are wanted.
    name
        What an error message calls the matrix.

    Raises
    ------
    FeaturespaceError
        While it is gone through: if a value is not finite, or the blocks do not make up the shape.
    """

    def __init__(
        self,
        source: Callable[[], Iterable[np.ndarray]],
        n_samples: int,
        n_features: int,
        *,
        device: torch.device | str = "cpu",
        name: str = "the feature matrix",
    ) -> None:
        if n_samples < 1 or n_features < 1:
            raise FeaturespaceError(f"{name} is empty: {n_samples} samples of {n_features} features")
        self.n_samples = n_samples
        self.n_features = n_features
        self.device = torch.device(device)
        self.name = name
        self._source = source
        self._kept: list[torch.Tensor] | None = None

    @classmethod
    def of(
        cls,
        matrix: np.ndarray,
        *,
        device: torch.device | str = "cpu",
        block_rows: int = 8192,
        name: str = "the feature matrix",
    ) -> "Rows":
        """Take the rows of a (n_samples, n_features) array that is in memory already."""
        n_samples, n_features = matrix.shape

        def source() -> Iterator[np.ndarray]:
            return (matrix[start : start + block_rows] for start in range(0, n_samples, block_rows))

        return cls(source, n_samples, n_features, device=device, name=name)

    def native(self) -> Iterator[torch.Tensor]:
        """Go through the blocks in the dtype they came in."""
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[torch.Tensor] = []
        n_rows, n_bytes = 0, 0
        for array in self._source():
            if array.ndim != 2 or array.shape[1] != self.n_features:
                raise FeaturespaceError(
                    f"{self.name}: a block has shape {array.shape}, expected rows of {self.n_features} features"
                )
            # A copy, since torch wants a writable array and a store may hand out read-only ones.
            block = torch.tensor(array, device=self.device)
            if not bool(torch.isfinite(block).all()):
                bad = (~torch.isfinite(block)).any(dim=1)
                row = n_rows + int(torch.nonzero(bad)[0, 0])
                raise FeaturespaceError(
                    f"{self.name}: sample {row} has a feature that is NaN or infinite; "
                    "look for a diverged training or a faulty input"
                )
            n_rows += len(block)
            n_bytes += block.numel() * block.element_size()
            if n_bytes <= CACHE_BYTES:
                kept.append(block)
            else:
                kept.clear()
            yield block
        if n_rows != self.n_samples:
            raise FeaturespaceError(f"{self.name}: has {n_rows} samples, expected {self.n_samples}")
        if kept:
            self._kept = kept

    def __iter__(self) -> Iterator[torch.Tensor]:
        for block in self.native():
            yield block.to(torch.float64)

    def first(self) -> torch.Tensor:
        """Return the first row, (n_features,), float64."""
        return next(iter(self))[0].clone()


@dataclass(frozen=True)
class Moments:
    """The mean and the Gram matrices of one feature matrix, float64, on its device.

    Attributes
    ----------
    pivot
        (n_features,), the first row: what every row is shifted by before it is averaged.
    shifted_mean
        (n_features,), the mean of the shifted rows. The mean itself is `pivot + shifted_mean`.
    sample_side
        Whether the Gram matrices are X Xᵀ (n_samples, n_samples), chosen when there are fewer samples than features,
        or XᵀX (n_features, n_features).
    gram
        {"raw": matrix, "centred": matrix}, or None where the smaller side is too large to form one.
    frobenius_norm
        {"raw": float, "centred": float}.
    """

    pivot: torch.Tensor
    shifted_mean: torch.Tensor
    sample_side: bool
    gram: dict[str, torch.Tensor] | None
    frobenius_norm: dict[str, float]


@dataclass(frozen=True)
class Spectra:
    """Singular values and vectors of one matrix; float64; the first axis is the centring, in the order of `CENTRINGS`.

    Attributes
    ----------
    singular_values
        (2, n_components), descending, where n_components is min(n_samples, n_features), or for a leading spectrum
        the smaller of that and the number of vectors.
    left_vectors, right_vectors
        (2, vectors, n_samples) and (2, vectors, n_features), unit rows. The sum of a left vector is >= 0; where it is
        zero to 1e-6 of √n, as when centred, its largest entry is positive. NaN where there is no such vector: past
        the smaller side, or where the singular value is zero to rounding.
    frobenius_norm
        (2,).
    relative_gap
        (2, vectors), (σ_i - σ_{i+1}) / σ_i; 0 where there is no vector. Small means that the vector is not determined.
    residual
        (2, vectors), ‖Xᵀu - σv‖ / σ_1, or with fewer samples than features ‖Xv - σu‖ / σ_1 (the other one is zero by
        construction); NaN where there is no vector. An error of the vector is at most about residual / relative gap.
    angle_to_mean_deg
        (2,), degrees in [0, 90]: of the first left vector to X m, where m is the mean row of the raw matrix and X is
        raw or centred as the vector is. NaN where X m is zero to rounding, as when the mean is.
    """

    singular_values: np.ndarray
    left_vectors: np.ndarray
    right_vectors: np.ndarray
    frobenius_norm: np.ndarray
    relative_gap: np.ndarray
    residual: np.ndarray
    angle_to_mean_deg: np.ndarray


def n_components(n_samples: int, n_features: int, vectors: int, whole: bool) -> int:
    """Say how many singular values `decompose` gives."""
    side = min(n_samples, n_features)
    return side if whole else min(side, vectors)


def decompose(rows: Rows, *, vectors: int, whole: bool = True) -> Spectra:
    """Compute the singular values and the leading singular vectors of a matrix, raw and centred.

    Centred means that the mean row has been subtracted from every row.

    Parameters
    ----------
    rows
        The matrix. It is gone through five or six times, more when both its sides exceed `GRAM_SIDE`.
    vectors
        How many leading pairs of vectors are wanted, at least 1.
    whole
        Whether all singular values are wanted. Those past the leading ones come from the Gram matrix: good to 1e-8
        relative down to 1e-3 of the largest, to about 1e-8 of the largest below.

    Returns
    -------
    Spectra
        Degenerate input has defined results: a zero matrix (a dead layer, or constant features once centred) has
        zero singular values and gaps, and NaN vectors and angles.

    Raises
    ------
    FeaturespaceError
        If a value is not finite, or the whole spectrum is asked of a matrix whose sides both exceed `WHOLE_SIDE`.
    """
    n, d, side = rows.n_samples, rows.n_features, min(rows.n_samples, rows.n_features)
    if vectors < 1:
        raise ValueError("at least one vector is wanted")
    if whole and side > WHOLE_SIDE:
        raise FeaturespaceError(
            f"{rows.name}: the whole spectrum of {n} x {d} values is out of reach (both sides exceed {WHOLE_SIDE}); "
            "ask for the leading one"
        )
    moments = accumulate(rows, gram=whole or side <= GRAM_SIDE)
    result = Spectra(
        singular_values=np.zeros((2, n_components(n, d, vectors, whole))),
        left_vectors=np.full((2, vectors, n), np.nan),
        right_vectors=np.full((2, vectors, d), np.nan),
        frobenius_norm=np.array([moments.frobenius_norm[centring] for centring in CENTRINGS]),
        relative_gap=np.zeros((2, vectors)),
        residual=np.full((2, vectors), np.nan),
        angle_to_mean_deg=np.full(2, np.nan),
    )
    for index, centring in enumerate(CENTRINGS):
        if moments.frobenius_norm[centring] > 0.0:
            _decompose_one(rows, moments, centring, index, vectors, whole, result)
    return result


def accumulate(rows: Rows, *, gram: bool = True) -> Moments:
    """Compute the mean, both Frobenius norms and, if `gram`, both Gram matrices, going over the rows once or twice."""
    pivot = rows.first()
    sample_side = rows.n_samples < rows.n_features
    matrix: torch.Tensor | None
    if gram and sample_side:
        mean, matrix, squares = _sample_gram(rows, pivot)
    else:
        mean, matrix, squares = _feature_gram(rows, pivot, gram)
    full_mean = pivot + mean
    raw_squares = squares + rows.n_samples * float(full_mean @ full_mean)
    # Below this the centred matrix is the rounding of the means, and its directions mean nothing.
    if squares <= (8 * _EPS) ** 2 * raw_squares:
        squares = 0.0
    grams: dict[str, torch.Tensor] | None = None
    if matrix is not None:
        if sample_side:
            # X Xᵀ from the centred one: (Xc + 1mᵀ)(Xc + 1mᵀ)ᵀ, only sums of terms that do not cancel.
            cross = torch.cat([(block - pivot - mean) @ full_mean for block in rows])
            raw = matrix + cross[:, None] + cross[None, :] + full_mean @ full_mean
        else:
            raw = matrix + rows.n_samples * torch.outer(full_mean, full_mean)
        grams = {"raw": raw, "centred": matrix}
    return Moments(
        pivot=pivot,
        shifted_mean=mean,
        sample_side=sample_side,
        gram=grams,
        frobenius_norm={"raw": raw_squares**0.5, "centred": squares**0.5},
    )


def gram_singular_values(moments: Moments, centring: str) -> np.ndarray:
    """Return all singular values, (min(n_samples, n_features),), descending, float64, from the Gram matrix.

    Good to 1e-8 relative down to 1e-3 of the largest.
    """
    if moments.gram is None:
        raise ValueError("the Gram matrix has not been accumulated")
    if moments.frobenius_norm[centring] == 0.0:
        return np.zeros(len(moments.gram[centring]))
    eigenvalues = torch.linalg.eigvalsh(moments.gram[centring])
    return eigenvalues.clamp(min=0.0).sqrt().flip(0).cpu().numpy()


def _feature_gram(rows: Rows, pivot: torch.Tensor, gram: bool) -> tuple[torch.Tensor, torch.Tensor | None, float]:
    """Merge block means and centred Gram matrices; return the shifted mean, the Gram matrix and the squared norm."""
    d = rows.n_features
    count = 0
    mean = torch.zeros(d, dtype=torch.float64, device=rows.device)
    matrix = torch.zeros((d, d), dtype=torch.float64, device=rows.device) if gram else None
    squares = torch.zeros((), dtype=torch.float64, device=rows.device)
    for block in rows:
        shifted = block - pivot
        block_mean = shifted.mean(dim=0)
        shifted -= block_mean
        merged = count + len(block)
        delta = block_mean - mean
        weight = count * len(block) / merged
        if matrix is None:
            squares += shifted.square().sum() + weight * (delta @ delta)
        else:
            matrix.addmm_(shifted.T, shifted)
            matrix.addr_(delta, delta, alpha=weight)
        mean += delta * (len(block) / merged)
        count = merged
    return mean, matrix, float(squares if matrix is None else matrix.trace())


def _sample_gram(rows: Rows, pivot: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Gather the (wide) matrix and go over it in slices of features, each centred before it is multiplied."""
    n, d = rows.n_samples, rows.n_features
    wide = torch.cat(list(rows.native()))
    mean = torch.empty(d, dtype=torch.float64, device=rows.device)
    matrix = torch.zeros((n, n), dtype=torch.float64, device=rows.device)
    width = max(1, 2**23 // n)  # slices of 64 MiB
    for start in range(0, d, width):
        part = slice(start, start + width)
        columns = wide[:, part].to(torch.float64) - pivot[part]
        mean[part] = columns.mean(dim=0)
        columns -= mean[part]
        matrix.addmm_(columns, columns.T)
    return mean, matrix, float(matrix.trace())


def _decompose_one(
    rows: Rows, moments: Moments, centring: str, index: int, vectors: int, whole: bool, result: Spectra
) -> None:
    """Fill in one centring of a `Spectra`."""
    n, d = rows.n_samples, rows.n_features
    side = min(n, d)
    centre = (moments.pivot, moments.shifted_mean) if centring == "centred" else None
    # One more than asked for, since the gap below the last vector is reported too.
    wanted = min(vectors + 1, side)
    tail: torch.Tensor | None = None
    leading: torch.Tensor | None = None
    on_samples = moments.sample_side and moments.gram is not None
    if moments.gram is None:
        leading, converged = _leading_eigenvectors(
            lambda block: _transposed_times(rows, _times(rows, block, centre), centre), d, wanted, rows.device
        )
        if not converged:
            logger.warning("%s, %s: the block Krylov iteration did not converge", rows.name, centring)
    else:
        gram = moments.gram[centring]
        if not whole and side > max(DENSE_SIDE, 8 * wanted):
            leading, converged = _leading_eigenvectors(lambda block: gram @ block, side, wanted, rows.device)
            if not converged:
                leading = None
        if leading is None:
            eigenvalues, eigenvectors = torch.linalg.eigh(gram)
            tail = eigenvalues.clamp(min=0.0).sqrt().flip(0)[wanted:]
            leading = eigenvectors.flip(1)[:, :wanted]
    mean = moments.pivot + moments.shifted_mean
    mean_size = float(torch.linalg.vector_norm(mean))
    mean /= max(mean_size, torch.finfo(mean.dtype).tiny)
    left, values, right, along_mean = _rayleigh_ritz(rows, leading, mean, centre, on_samples)

    largest = values[0]
    below = torch.cat([values[1:], values.new_zeros(1)])
    if tail is not None:
        # Rounding of the Gram matrix must not put a later value above an earlier, more accurate one.
        tail = torch.minimum(tail, values[-1])
        below[-1] = tail[0] if len(tail) else 0.0
    kept = min(vectors, side)
    spectrum = values if tail is None else torch.cat([values, tail])
    result.singular_values[index] = spectrum[: result.singular_values.shape[1]].cpu().numpy()

    # To rounding, such a value is zero: its vectors are arbitrary.
    exists = (values > max(n, d) * _EPS * largest)[:kept]
    left, right, values, below = left[:, :kept], right[:, :kept], values[:kept], below[:kept]
    # One of the two defining equations holds by construction; the other one is the certificate.
    if on_samples:
        product = _times(rows, torch.cat([right, mean[:, None]], dim=1), centre)
        misfit, along_mean = product[:, :-1] - left * values, product[:, -1]
    else:
        misfit = _transposed_times(rows, left, centre) - right * values
    residual = torch.linalg.vector_norm(misfit, dim=0)
    signs = _signs(left)
    undefined = torch.full_like(values, torch.nan)
    gap = torch.where(exists, (values - below) / values.clamp(min=torch.finfo(values.dtype).tiny), 0.0)
    result.left_vectors[index, :kept] = torch.where(exists, left * signs, undefined).T.cpu().numpy()
    result.right_vectors[index, :kept] = torch.where(exists, right * signs, undefined).T.cpu().numpy()
    result.relative_gap[index, :kept] = gap.cpu().numpy()
    result.residual[index, :kept] = torch.where(exists, residual / largest, undefined).cpu().numpy()
    # A mean, or a product with it, that is no more than its rounding has no direction.
    certain = n**0.5 * mean_size > _ROUNDING * moments.frobenius_norm["raw"]
    if certain and float(torch.linalg.vector_norm(along_mean)) > _ROUNDING * moments.frobenius_norm[centring]:
        result.angle_to_mean_deg[index] = _angle_deg(left[:, 0], along_mean)
    worst = float(torch.where(exists, residual / largest, 0.0).max())
    if worst > RESIDUAL_WARNING:
        logger.warning("%s, %s: singular vectors only good to a residual of %.1e", rows.name, centring, worst)


def _rayleigh_ritz(
    rows: Rows,
    start: torch.Tensor,
    mean: torch.Tensor,
    centre: tuple[torch.Tensor, torch.Tensor] | None,
    on_samples: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Turn approximate right (or, `on_samples`, left) vectors into triplets, through X and not its square.

    The product of X with the start is orthonormalised, and the small triangular factor decomposed. That removes what
    the Gram matrix's rounding has mixed among the leading vectors. Where X itself is applied here (not
    `on_samples`) it is to the `mean` too, and that product, (n_samples,), comes last; it is empty otherwise.
    """
    along_mean = mean.new_zeros(0)
    if on_samples:
        if centre is not None:
            start, _ = torch.linalg.qr(start - start.mean(dim=0))
        image, triangle = torch.linalg.qr(_transposed_times(rows, start, centre))
        inner, values, outer = torch.linalg.svd(triangle)
        right, left = image @ inner, start @ outer.T
    else:
        product = _times(rows, torch.cat([start, mean[:, None]], dim=1), centre)
        if centre is not None:
            product = product - product.mean(dim=0)
        along_mean = product[:, -1]
        image, triangle = torch.linalg.qr(product[:, :-1])
        inner, values, outer = torch.linalg.svd(triangle)
        left, right = image @ inner, start @ outer.T
    if centre is not None:
        left = left - left.mean(dim=0)
    left = left / torch.linalg.vector_norm(left, dim=0).clamp(min=_EPS)
    right = right / torch.linalg.vector_norm(right, dim=0).clamp(min=_EPS)
    return left, values, right, along_mean


def _angle_deg(unit: torch.Tensor, other: torch.Tensor) -> float:
    """Return the angle in degrees between a unit vector and another one, up to sign: 2 atan2(|a - b|, |a + b|)."""
    other = other / torch.linalg.vector_norm(other)
    apart, together = torch.linalg.vector_norm(unit - other), torch.linalg.vector_norm(unit + other)
    return float(torch.rad2deg(2 * torch.atan2(torch.minimum(apart, together), torch.maximum(apart, together))))


def _times(rows: Rows, block: torch.Tensor, centre: tuple[torch.Tensor, torch.Tensor] | None) -> torch.Tensor:
    """Return X B, (n_samples, columns), of the centred X if there is a centre."""
    return torch.cat([_centred(part, centre) @ block for part in rows])


def _transposed_times(
    rows: Rows, block: torch.Tensor, centre: tuple[torch.Tensor, torch.Tensor] | None
) -> torch.Tensor:
    """Return Xᵀ B, (n_features, columns), of the centred X if there is a centre."""
    product = torch.zeros((rows.n_features, block.shape[1]), dtype=torch.float64, device=rows.device)
    start = 0
    for part in rows:
        product.addmm_(_centred(part, centre).T, block[start : start + len(part)])
        start += len(part)
    return product


def _centred(block: torch.Tensor, centre: tuple[torch.Tensor, torch.Tensor] | None) -> torch.Tensor:
    # The pivot first: that difference is exact for float32 features of a like size.
    return block if centre is None else (block - centre[0]) - centre[1]


def _signs(left: torch.Tensor) -> torch.Tensor:
    """Return, for each column, the sign that makes its sum positive or else its largest entry."""
    sums = left.sum(dim=0)
    sizes = left.abs()
    # The first of the entries that are largest but for rounding, so that rounding does not choose.
    first = (sizes >= sizes.amax(dim=0) * (1 - _SIGN_TIE)).to(torch.int8).argmax(dim=0)
    entries = left.gather(0, first[None, :])[0]
    tied = sums.abs() <= _SIGN_TIE * left.shape[0] ** 0.5
    return torch.where(torch.where(tied, entries, sums) < 0, -1.0, 1.0).to(left.dtype)


def _leading_eigenvectors(
    apply: Callable[[torch.Tensor], torch.Tensor],
    size: int,
    wanted: int,
    device: torch.device,
    max_products: int = 400,
) -> tuple[torch.Tensor, bool]:
    """Find the leading eigenvectors of a positive semidefinite operator by thick-restarted block Lanczos.

    The basis is kept orthonormal in full and grows by the residuals of the leading Ritz vectors; when it is full it
    shrinks to the leading half of its Ritz vectors (Wu & Simon 2000, in block form). The start is random with a fixed
    seed. A pair has converged when its residual, as a singular triplet's, is below `RESIDUAL_TOLERANCE`, or at what
    float64 can resolve.

    Parameters
    ----------
    apply
        The operator: (size, columns) to (size, columns), float64.
    size, wanted
        Order of the operator, and number of eigenvectors.
    max_products
        After so many applications the iteration gives up.

    Returns
    -------
    vectors, converged
        (size, wanted), orthonormal columns in descending order of eigenvalue, and whether all have converged.
    """
    block_size = min(size, wanted + 4)
    capacity = min(size, 8 * block_size)
    # Drawn on the CPU, so that every device starts from the same block.
    generator = torch.Generator().manual_seed(0)
    start = torch.randn((size, block_size), dtype=torch.float64, generator=generator).to(device)
    basis, _ = torch.linalg.qr(start)
    image = apply(basis)
    for _ in range(max_products):
        projected = basis.T @ image
        ritz_values, rotation = torch.linalg.eigh((projected + projected.T) / 2)
        ritz_values, rotation = ritz_values.flip(0), rotation.flip(1)
        if basis.shape[1] + block_size > capacity and basis.shape[1] > 4 * block_size:
            rotation = rotation[:, : 4 * block_size]
            ritz_values = ritz_values[: 4 * block_size]
            basis, image = basis @ rotation, image @ rotation
            rotation = torch.eye(len(ritz_values), dtype=torch.float64, device=device)
        leading = rotation[:, :block_size]
        ritz = basis @ leading
        residual = image @ leading - ritz * ritz_values[:block_size]
        norms = torch.linalg.vector_norm(residual, dim=0)
        largest = ritz_values[0].clamp(min=torch.finfo(torch.float64).tiny)
        goal = RESIDUAL_TOLERANCE * (ritz_values[:block_size].clamp(min=0.0) * largest).sqrt()
        open_pairs = norms > torch.maximum(goal, 1e-14 * largest)
        if not bool(open_pairs[:wanted].any()) or basis.shape[1] >= size:
            return ritz[:, :wanted], True
        fresh = residual[:, open_pairs] / norms[open_pairs]
        for _ in range(2):
            fresh = fresh - basis @ (basis.T @ fresh)
        fresh, triangle = torch.linalg.qr(fresh)
        fresh = fresh[:, triangle.diagonal().abs() > 1e-8]
        fresh = fresh - basis @ (basis.T @ fresh)
        fresh = fresh[:, : size - basis.shape[1]]
        if fresh.shape[1] == 0:  # an invariant subspace: it holds all that the operator does
            return ritz[:, :wanted], True
        basis = torch.cat([basis, fresh], dim=1)
        image = torch.cat([image, apply(fresh)], dim=1)
    return ritz[:, :wanted], False
