"""Spectra of a feature matrix: singular values and leading singular vectors, raw and centred, on any torch device.

The matrix X (n_samples x n_features) is never needed whole: its rows come in blocks, and what is reported is
accumulated in float64. Two ways lead to the leading vectors, and arithmetic counted beforehand chooses:

- The Gram matrix of the centred rows on the smaller side, half of it computed, then a dense eigensolve or, past
  `DENSE_SIDE`, a block Krylov search on it.
- The same search on X itself, one pass a step, where few vectors of a wide matrix are wanted. Float32 features are
  multiplied in float32 at first; the products that the answer rests on are then made again in float64.

The raw matrix differs from the centred one by its mean, XᵀX = XcᵀXc + n m mᵀ. So a Krylov space that holds m serves
both, and one search, and one pass, gives both spectra. Only sums of positive terms are ever formed: nothing centred
is raw minus mean products. Means and centred Gram matrices are merged block by block (Chan, Golub & LeVeque 1983), of
rows shifted by the first one, so that a common offset, however large, costs nothing.

Either way a Rayleigh-Ritz step on X itself follows, so that the leading triplets carry the accuracy of X and not of
its square, and the residual of every triplet is measured.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from featurespace.errors import FeaturespaceError
from featurespace.products import add_gram, mirror

CENTRINGS = ("raw", "centred")

GRAM_SIDE = 8192  # the largest smaller side whose Gram matrix is formed for a few vectors only
WHOLE_SIDE = 16384  # the same for the whole spectrum: 2 GiB a matrix
DENSE_SIDE = 128  # up to it the full eigensolve is as fast as a search
# The same on a GPU, where a search is a long row of small operations, each waited for, and a Gram matrix costs little
# beside bringing the features there.
CUDA_DENSE_SIDE = 4096
RESIDUAL_TOLERANCE = 1e-10  # what the iterations go for, relative to the largest singular value
RESIDUAL_WARNING = 1e-8  # what is logged: beyond what Gram matrices of collapsed features give
CACHE_BYTES = 2**26  # a matrix up to this size is read once and kept between passes
CUDA_CACHE_BYTES = 2**30  # the same in a GPU's memory
PIECE_VALUES = 2**19  # converted to float64 at a time on a CPU: 4 MB, which stay in its cache
PIECE_ROWS = 64  # at least, however wide they are: what is summed up over pieces is as wide, and must not cost more
ROUGH_ROWS = 1024  # summed in float32 before float64 takes over
CUDA_PIECE_VALUES = 2**25  # the same on a GPU: 256 MB, enough for it to have something to do

# What a matrix of n x d costs, in nanoseconds a value on one core; only the ratios count. The Gram matrix pays for
# each value of the smaller side, a search for each vector of its block: about ten passes, mostly in float32.
GRAM_COST = 0.04
KRYLOV_COST = 2.0
REREAD_COST = 12.0  # what the passes of a search cost besides, where the matrix is not kept between them
FLOAT64_COST = 2.5  # how many times more than that, where the features themselves are float64

_EPS = float(np.finfo(np.float64).eps)
_TINY = float(np.finfo(np.float64).tiny)
_ROUNDING = 64 * _EPS  # relative to a Frobenius norm: what a mean, or a product with it, may be by rounding alone
_SIGN_TIE = 1e-6  # a vector this close to orthogonal to the ones vector gets its sign from its largest entry
_ROUGH_RESIDUAL = 1e-5  # where float32 products have done their part
GRAM_BASIS = 10  # rows of a search's basis for each vector wanted, past which it restarts from the leading part
ROWS_BASIS = 16  # the same where a product is a pass over the features, and costs more than the basis
_REAL_PASS = 2e-4  # below this σ_i/σ_1 the Gram matrix is too coarse a certificate

logger = logging.getLogger(__name__)


class Rows:
    """The rows of one feature matrix, in order, as float64 blocks on a device; can be gone through many times.

    Parameters
    ----------
    source
        Called once a pass; returns the (rows, n_features) blocks in order, in any real dtype. They may be kept, and
        are not written to.
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
        self._checked = False
        self.dtype: torch.dtype | None = None  # of the blocks, once one has been seen

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
            # Torch wants a writable array; what is read-only is copied.
            block = (torch.from_numpy(array) if array.flags.writeable else torch.tensor(array)).to(self.device)
            self.dtype = block.dtype
            if not self._checked:
                self._check(block, n_rows)
            n_rows += len(block)
            n_bytes += block.numel() * block.element_size()
            if n_bytes <= self._limit():
                kept.append(block)
            else:
                kept.clear()
            yield block
            del array, block  # or it would be there beside the next one
        if n_rows != self.n_samples:
            raise FeaturespaceError(f"{self.name}: has {n_rows} samples, expected {self.n_samples}")
        self._checked = True
        if kept:
            self._kept = kept

    def kept_whole(self) -> bool:
        """Say whether the matrix stays in memory between passes, as far as its shape tells."""
        n_bytes = 4 if self.dtype is None else self.dtype.itemsize
        return n_bytes * self.n_samples * self.n_features <= self._limit()

    def pieces(self) -> Iterator[torch.Tensor]:
        """Go through the rows in the dtype they came in, on a CPU in pieces that fit its cache unless they are wide."""
        step = max(PIECE_ROWS, PIECE_VALUES // self.n_features) if self.device.type == "cpu" else self.n_samples
        for block in self.native():
            yield from block.split(step)

    def shifted(self, shift: torch.Tensor) -> Iterator[torch.Tensor]:
        """Go through the rows minus a row, (n_features,), in its dtype, piece by piece in memory that is used again."""
        buffer = shift.new_empty((0, self.n_features))
        for piece in self.pieces():
            if len(buffer) < len(piece):
                buffer = shift.new_empty(piece.shape)
            if piece.dtype == shift.dtype:
                yield torch.sub(piece, shift, out=buffer[: len(piece)])
            else:
                yield buffer[: len(piece)].copy_(piece).sub_(shift)

    def __iter__(self) -> Iterator[torch.Tensor]:
        for block in self.native():
            yield block.to(torch.float64)

    def first(self) -> torch.Tensor:
        """Return the first row, (n_features,), float64."""
        return next(iter(self))[0].clone()

    def _limit(self) -> int:
        return CUDA_CACHE_BYTES if self.device.type == "cuda" else CACHE_BYTES

    def _check(self, block: torch.Tensor, n_rows: int) -> None:
        # A sum is read-only and quick; only where it is not finite, which finite values may cause too, look closer.
        if bool(torch.isfinite(block.sum())):
            return
        bad = (~torch.isfinite(block)).any(dim=1)
        if bool(bad.any()):
            raise FeaturespaceError(
                f"{self.name}: sample {n_rows + int(torch.nonzero(bad)[0, 0])} has a feature that is NaN or infinite; "
                "look for a diverged training or a faulty input"
            )


@dataclass(frozen=True)
class Moments:
    """The mean and the Gram matrix of one feature matrix, float64, on its device.

    Attributes
    ----------
    pivot
        (n_features,), the first row: what every row is shifted by before it is averaged.
    shifted_mean
        (n_features,), the mean of the shifted rows. The mean itself is `pivot + shifted_mean`.
    sample_side
        Whether the Gram matrix is Xc Xcᵀ (n_samples, n_samples), chosen when there are fewer samples than features,
        or XcᵀXc (n_features, n_features).
    centred_gram
        That matrix, of the centred rows, or None where it was not asked for.
    factors, weights
        (r, order) and (r, r): the raw Gram matrix is the centred one plus factorsᵀ weights factors. None without it.
    frobenius_norm
        {"raw": float, "centred": float}.
    """

    pivot: torch.Tensor
    shifted_mean: torch.Tensor
    sample_side: bool
    centred_gram: torch.Tensor | None
    factors: torch.Tensor | None
    weights: torch.Tensor | None
    frobenius_norm: dict[str, float]

    @property
    def mean(self) -> torch.Tensor:
        """(n_features,)."""
        return self.pivot + self.shifted_mean

    def gram(self, centring: str) -> torch.Tensor:
        """Return the Gram matrix of either centring."""
        if self.centred_gram is None or self.factors is None or self.weights is None:
            raise ValueError("the Gram matrix has not been accumulated")
        if centring == "centred":
            return self.centred_gram
        return torch.addmm(self.centred_gram, self.factors.T, self.weights @ self.factors)


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
        The matrix. It is gone through twice where its smaller side is short or all singular values are wanted, about
        ten times otherwise.
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
    # One more than asked for, since the gap below the last vector is reported too.
    wanted = min(vectors + 1, side)
    moments, triplets, near = None, None, None
    if not whole and _search_pays(rows, wanted):
        moments = accumulate(rows, gram=False)
        triplets, near = _triplets_of_rows(rows, moments, wanted)
    if triplets is None:
        moments = accumulate(rows)
        triplets = _triplets_of_gram(rows, moments, wanted, whole, near)
    assert moments is not None
    result = Spectra(
        singular_values=np.zeros((2, n_components(n, d, vectors, whole))),
        left_vectors=np.empty((2, vectors, n)),
        right_vectors=np.full((2, vectors, d), np.nan),
        frobenius_norm=np.array([moments.frobenius_norm[centring] for centring in CENTRINGS]),
        relative_gap=np.zeros((2, vectors)),
        residual=np.full((2, vectors), np.nan),
        angle_to_mean_deg=np.full(2, np.nan),
    )
    for index, centring in enumerate(CENTRINGS):
        n_found = 0
        if centring in triplets:
            n_found = _report(rows, moments, centring, triplets[centring], vectors, result)
        result.left_vectors[index, n_found:] = np.nan
    return result


def accumulate(rows: Rows, *, gram: bool = True) -> Moments:
    """Compute the mean, both Frobenius norms and, if `gram`, the Gram matrix, going over the rows once."""
    n = rows.n_samples
    sample_side = gram and n < rows.n_features
    matrix: torch.Tensor | None
    if sample_side:
        pivot, mean, matrix, squares, image = _sample_gram(rows)
    else:
        pivot, mean, matrix, squares = _feature_gram(rows, gram)
    full_mean = pivot + mean
    square_mean = full_mean @ full_mean
    raw_squares = squares + n * float(square_mean)
    # Below this the centred matrix is the rounding of the means, and its directions mean nothing.
    if squares <= (8 * _EPS) ** 2 * raw_squares:
        squares = 0.0
    if sample_side:
        # (Xc + 1 mᵀ)(Xc + 1 mᵀ)ᵀ, only sums of terms that do not cancel.
        factors = torch.stack([torch.ones_like(image), image])
        weights = factors.new_tensor([[0.0, 1.0], [1.0, 0.0]])
        weights[0, 0] = square_mean
    else:
        factors, weights = full_mean[None, :], full_mean.new_full((1, 1), n)
    return Moments(
        pivot=pivot,
        shifted_mean=mean,
        sample_side=sample_side,
        centred_gram=matrix,
        factors=factors,
        weights=weights,
        frobenius_norm={"raw": raw_squares**0.5, "centred": squares**0.5},
    )


# --- the Gram matrix ------------------------------------------------------------------------------


def _feature_gram(rows: Rows, gram: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, float]:
    """Merge means and centred Gram matrices of pieces; return pivot, shifted mean, Gram matrix and squared norm."""
    d = rows.n_features
    mean = torch.zeros(d, dtype=torch.float64, device=rows.device)
    pivot, buffer = mean, mean.new_empty((0, d))
    squares = mean.new_zeros(())
    matrix = mean.new_zeros((d, d)) if gram else None
    count = 0
    for piece in rows.pieces():
        size = len(piece)
        if count == 0:
            pivot = piece[0].to(torch.float64, copy=True)
        if len(buffer) <= size:
            buffer = mean.new_empty((size + 1, d))
        shifted = buffer[:size].copy_(piece).sub_(pivot)
        piece_mean = shifted.mean(dim=0)
        shifted -= piece_mean
        delta = piece_mean - mean
        # The merging term is one more row, which is cheaper than an update of rank one.
        torch.mul(delta, (count * size / (count + size)) ** 0.5, out=buffer[size])
        if matrix is None:
            flat = buffer[: size + 1].view(-1)
            squares += flat @ flat
        else:
            add_gram(matrix, buffer[: size + 1])
        mean += delta * (size / (count + size))
        count += size
    if matrix is not None:
        mirror(matrix)
        squares = matrix.trace()
    return pivot, mean, matrix, float(squares)


def _sample_gram(rows: Rows) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float, torch.Tensor]:
    """Gather the (wide) matrix and go over it in slices of features, each centred before it is multiplied.

    Returns pivot, shifted mean, Gram matrix, squared norm and Xc m, (n_samples,).
    """
    n, d = rows.n_samples, rows.n_features
    wide = torch.cat(list(rows.native()))
    pivot = wide[0].to(torch.float64)
    mean = torch.empty(d, dtype=torch.float64, device=rows.device)
    matrix = torch.zeros((n, n), dtype=torch.float64, device=rows.device)
    image = torch.zeros(n, dtype=torch.float64, device=rows.device)
    width = max(256, (CUDA_PIECE_VALUES if rows.device.type == "cuda" else PIECE_VALUES) // n)
    for start in range(0, d, width):
        part = slice(start, start + width)
        columns = wide[:, part].to(torch.float64) - pivot[part]
        mean[part] = columns.mean(dim=0)
        columns -= mean[part]
        add_gram(matrix, columns.T)
        image += columns @ (pivot[part] + mean[part])
    mirror(matrix)
    return pivot, mean, matrix, float(matrix.trace()), image


# --- the leading triplets -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Triplets:
    """Leading singular triplets of one centring, on their device, before signs and bookkeeping.

    `left` (w, n) and `right` (w, d) have unit rows, `values` (w,) descend, `misfit` (w,) is the residual, absolute.
    `along_mean` (n,) is X times the unit mean row. `tail` holds the later singular values, where they are wanted.
    """

    left: torch.Tensor
    values: torch.Tensor
    right: torch.Tensor
    misfit: torch.Tensor
    along_mean: torch.Tensor
    tail: torch.Tensor | None = None

    def on_cpu(self, kept: int) -> "_Triplets":
        """Bring what is reported of them, `kept` vectors and all values, to the CPU, where it is wanted."""
        left, right = self.left[:kept].cpu(), self.right[:kept].cpu()
        tail = None if self.tail is None else self.tail.cpu()
        return _Triplets(left, self.values.cpu(), right, self.misfit.cpu(), self.along_mean.cpu(), tail)


def _search_pays(rows: Rows, wanted: int) -> bool:
    """Say whether a search on the rows costs less than their Gram matrix would."""
    side = min(rows.n_samples, rows.n_features)
    if side > GRAM_SIDE:
        return True
    if rows.device.type == "cuda":
        return False
    return _search_cost(rows, wanted) < GRAM_COST * side


def _search_cost(rows: Rows, wanted: int) -> float:
    cost = KRYLOV_COST * (wanted + 2) * (FLOAT64_COST if rows.dtype == torch.float64 else 1.0)
    return cost if rows.kept_whole() else cost + REREAD_COST


def _triplets_of_rows(
    rows: Rows, moments: Moments, wanted: int
) -> tuple[dict[str, _Triplets] | None, torch.Tensor | None]:
    """Find the leading triplets by passes over X alone.

    Returns None, and how far the search has come, where the Gram matrix promises to be cheaper after all.
    """
    n, d = rows.n_samples, rows.n_features
    centrings = [centring for centring in CENTRINGS if moments.frobenius_norm[centring] > 0.0]
    if not centrings:
        return {}, None
    # Powers of two: float32 holds the squares of no large values, nor of small ones.
    scale = 2.0 ** -round(np.log2(moments.frobenius_norm["raw"]))
    centre = _Centre.of(moments)
    limit = 400
    if min(n, d) <= GRAM_SIDE:
        limit = max(12, round(GRAM_COST * min(n, d) / _search_cost(rows, wanted) * 10))
    rough = rows.dtype != torch.float64
    assert moments.factors is not None and moments.weights is not None

    def apply(block: torch.Tensor, exact: bool) -> torch.Tensor:
        return _products(rows, block, centre, exact, scale)[1]

    near = None
    for attempt in range(3):
        found, converged = _search(
            apply,
            moments.factors,
            moments.weights,
            d,
            wanted,
            centrings,
            rough and attempt == 0,
            near,
            limit,
            ROWS_BASIS * wanted,
        )
        basis = torch.cat([found[centring] for centring in centrings])
        if not converged and min(n, d) <= GRAM_SIDE:
            return None, basis
        result = _ritz_on_rows(rows, moments, {centring: found[centring] for centring in centrings}, None)
        # The measured residual has the last word on what was found in float32.
        if all(_settled(triplets, max(n, d)) for triplets in result.values()):
            return result, None
        near = torch.cat([triplets.right for triplets in result.values()])
    if not converged:
        logger.warning("%s: the block Krylov iteration did not converge", rows.name)
    return result, None


def _settled(triplets: _Triplets, longer: int) -> bool:
    exists = triplets.values > longer * _EPS * triplets.values[0]
    return bool((triplets.misfit <= 2 * RESIDUAL_TOLERANCE * triplets.values[0])[exists].all())


def _triplets_of_gram(
    rows: Rows, moments: Moments, wanted: int, whole: bool, near: torch.Tensor | None
) -> dict[str, _Triplets]:
    """Find the leading triplets, and all singular values if `whole`, from the Gram matrix and one pass more."""
    matrix, factors, weights = moments.centred_gram, moments.factors, moments.weights
    assert matrix is not None and factors is not None and weights is not None
    order = len(matrix)
    centrings = [centring for centring in CENTRINGS if moments.frobenius_norm[centring] > 0.0]
    if not centrings:
        return {}
    bases: dict[str, torch.Tensor] = {}
    tails: dict[str, torch.Tensor] = {}
    if order > max(CUDA_DENSE_SIDE if matrix.is_cuda else DENSE_SIDE, 8 * wanted):
        found, converged = _search(
            lambda block, _: block @ matrix,
            factors,
            weights,
            order,
            wanted,
            centrings,
            False,
            None if moments.sample_side else near,
            400,
            GRAM_BASIS * wanted,
        )
        if converged:
            bases = found
    for centring in centrings:
        if centring not in bases:
            eigenvalues, eigenvectors = torch.linalg.eigh(moments.gram(centring))
            bases[centring] = eigenvectors.flip(1)[:, :wanted].T
        elif whole:
            eigenvalues = torch.linalg.eigvalsh(moments.gram(centring))
        else:
            continue
        tails[centring] = eigenvalues.clamp(min=0.0).sqrt().flip(0)[wanted:]
    ritz = _ritz_on_samples if moments.sample_side else _ritz_on_rows
    triplets = ritz(rows, moments, bases, matrix)
    return {c: replace(found, tail=tails[c] if whole else None) for c, found in triplets.items()}


def _ritz_on_rows(
    rows: Rows, moments: Moments, bases: dict[str, torch.Tensor], gram: torch.Tensor | None
) -> dict[str, _Triplets]:
    """Turn orthonormal approximate right vectors, (w, n_features) a centring, into triplets, in one pass over X.

    The residual comes from the images under the centred Gram matrix, or without it from the same pass; where a
    singular value is too small for that, from one pass more.
    """
    mean = moments.mean
    length = float(torch.linalg.vector_norm(mean))
    unit = mean / max(length, _TINY)
    centre = _Centre.of(moments)
    stacked = torch.cat([*bases.values(), unit[None, :]])
    if gram is None:
        products, images = _products(rows, stacked, centre, True)
    else:
        products, images = _times(rows, stacked, centre), stacked[:-1] @ gram
    result: dict[str, _Triplets] = {}
    start = 0
    for centring, basis in bases.items():
        part = slice(start, start + len(basis))
        start += len(basis)
        image, along_mean = images[part], products[-1]
        along = None
        if centring == "raw":
            along = basis @ mean
            image = image + rows.n_samples * torch.outer(along, mean)
            along_mean = along_mean + length
        left, values, turn = _small_svd(products[part], along)
        if centring == "centred":
            left -= left.mean(dim=1, keepdim=True)
        left, right = _unit(left), _unit(turn @ basis)
        misfit = (turn @ image) / values.clamp(min=_TINY)[:, None] - values[:, None] * right
        result[centring] = _Triplets(left, values, right, torch.linalg.vector_norm(misfit, dim=1), along_mean)
    return _with_real_residuals(rows, moments, result, on_samples=False)


def _ritz_on_samples(
    rows: Rows, moments: Moments, bases: dict[str, torch.Tensor], gram: torch.Tensor
) -> dict[str, _Triplets]:
    """Turn orthonormal approximate left vectors, (w, n_samples) a centring, into triplets, as `_ritz_on_rows` does."""
    mean = moments.mean
    length = max(float(torch.linalg.vector_norm(mean)), _TINY)
    centre = _Centre.of(moments)
    if "centred" in bases:
        basis = bases["centred"]
        basis = torch.linalg.qr((basis - basis.mean(dim=1, keepdim=True)).T)[0].T
        bases = {**bases, "centred": basis}
    products = _transposed_times(rows, torch.cat(list(bases.values())), centre)
    result: dict[str, _Triplets] = {}
    for (centring, basis), product in zip(bases.items(), products.split([len(b) for b in bases.values()]), strict=True):
        image = basis @ gram
        assert moments.factors is not None and moments.weights is not None
        along_mean = moments.factors[1] / length
        if centring == "raw":
            product = product + torch.outer(basis.sum(dim=1), mean)
            image += (basis @ moments.factors.T) @ moments.weights @ moments.factors
            along_mean = along_mean + length
        right, values, turn = _small_svd(product)
        left = turn @ basis
        if centring == "centred":
            left -= left.mean(dim=1, keepdim=True)
        left, right = _unit(left), _unit(right)
        misfit = (turn @ image) / values.clamp(min=_TINY)[:, None] - values[:, None] * left
        result[centring] = _Triplets(left, values, right, torch.linalg.vector_norm(misfit, dim=1), along_mean)
    return _with_real_residuals(rows, moments, result, on_samples=True)


def _with_real_residuals(
    rows: Rows, moments: Moments, triplets: dict[str, _Triplets], on_samples: bool
) -> dict[str, _Triplets]:
    """Measure the residuals of centrings with faint values by a pass over X; leave the others as they are."""
    faint = {c: t for c, t in triplets.items() if _is_faint(t.values, rows)}
    if not faint:
        return triplets
    given = [t.right if on_samples else t.left for t in faint.values()]
    multiply = _times if on_samples else _transposed_times
    images = multiply(rows, torch.cat(given), _Centre.of(moments)).split([len(vectors) for vectors in given])
    measured = dict(triplets)
    for (centring, found), vectors, image in zip(faint.items(), given, images, strict=True):
        expected = found.values[:, None] * (found.left if on_samples else found.right)
        if centring == "raw":
            of_mean = (vectors @ moments.mean)[:, None] if on_samples else vectors.sum(1, keepdim=True) * moments.mean
            image = image + of_mean
        measured[centring] = replace(found, misfit=torch.linalg.vector_norm(image - expected, dim=1))
    return measured


def _is_faint(values: torch.Tensor, rows: Rows) -> bool:
    """Say whether a singular value that is not zero to rounding is too small to be certified by a Gram matrix."""
    exists = values > max(rows.n_samples, rows.n_features) * _EPS * values[0]
    return bool((exists & (values < _REAL_PASS * values[0])).any())


def _small_svd(
    product: torch.Tensor, offsets: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Decompose a few long rows, (w, length), plus a number each, (w,).

    Returns the long vectors as rows, the singular values, and the short vectors as rows.

    The rows are nearly orthogonal, as products with near singular vectors are. So their Gram matrix, once they are
    scaled to unit length, is near the identity, and its Cholesky factor as good as the triangle of a QR
    decomposition. Where they are not, or one vanishes, QR it is.
    """
    inner = product @ product.T
    if offsets is not None:
        cross = torch.outer(product.sum(dim=1), offsets)
        inner = inner + cross + cross.T + product.shape[1] * torch.outer(offsets, offsets)
    inner = inner.cpu()  # a matrix of few rows: a GPU would take longer to begin than this takes
    lengths = inner.diagonal().clamp(min=0.0).sqrt()
    inner = inner / torch.outer(lengths, lengths).clamp(min=_TINY)
    cosines = inner - torch.eye(len(inner), dtype=inner.dtype)
    if bool(cosines.abs().max() < 0.1):
        factor = torch.linalg.cholesky(inner)
        short, values, turn = torch.linalg.svd(lengths[:, None] * factor)
        # product = lengths · factor · Q with orthonormal rows Q, which need not be formed themselves.
        turn = torch.linalg.solve_triangular(factor, turn, upper=False, left=False) / lengths
        short, values, turn = (tensor.to(product.device) for tensor in (short, values, turn))
        if offsets is None:
            return turn @ product, values, short.T
        return torch.addmm((turn @ offsets)[:, None], turn, product), values, short.T
    if offsets is not None:
        product = product + offsets[:, None]
    rows, triangle = torch.linalg.qr(product.T)
    short, values, turn = torch.linalg.svd(triangle.T)
    return turn @ rows.T, values, short.T


def _unit(rows: torch.Tensor) -> torch.Tensor:
    """Scale rows to unit length, in place."""
    return rows.div_(torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_(min=_EPS))


def _report(rows: Rows, moments: Moments, centring: str, found: _Triplets, vectors: int, result: Spectra) -> int:
    """Fill in one centring of a `Spectra`, and return how many vectors there are: later left ones are not filled."""
    n, d = rows.n_samples, rows.n_features
    index = CENTRINGS.index(centring)
    kept = min(vectors, n, d)
    found = found.on_cpu(kept)
    values, largest = found.values, found.values[0]
    below = torch.cat([values[1:], values.new_zeros(1)])
    spectrum = values
    if found.tail is not None:
        # Rounding of the Gram matrix must not put a later value above an earlier, more accurate one.
        tail = torch.minimum(found.tail, values[-1])
        below[-1] = tail[0] if len(tail) else 0.0
        spectrum = torch.cat([values, tail])
    result.singular_values[index] = spectrum[: result.singular_values.shape[1]].numpy()
    # To rounding, such a value is zero: its vectors are arbitrary.
    exists = (values > max(n, d) * _EPS * largest)[:kept]
    n_exist = int(exists.sum())
    gap = torch.where(exists, (values - below)[:kept] / values[:kept].clamp(min=_TINY), 0.0)
    left, right = found.left[:n_exist], found.right[:n_exist]
    signs = _signs(left)[:, None]
    residual = found.misfit[:n_exist] / largest
    result.left_vectors[index, :n_exist] = left.mul_(signs).numpy()
    result.right_vectors[index, :n_exist] = (right * signs).numpy()
    result.relative_gap[index, :kept] = gap.numpy()
    result.residual[index, :n_exist] = residual.numpy()
    # A mean, or a product with it, that is no more than its rounding has no direction.
    certain = n**0.5 * float(torch.linalg.vector_norm(moments.mean)) > _ROUNDING * moments.frobenius_norm["raw"]
    size = float(torch.linalg.vector_norm(found.along_mean))
    if certain and size > _ROUNDING * moments.frobenius_norm[centring]:
        result.angle_to_mean_deg[index] = _angle_deg(found.left[0], found.along_mean)
    worst = float(residual.max())
    if worst > RESIDUAL_WARNING:
        logger.warning("%s, %s: singular vectors only good to a residual of %.1e", rows.name, centring, worst)
    return n_exist


def _angle_deg(unit: torch.Tensor, other: torch.Tensor) -> float:
    """Return the angle in degrees between a unit vector and another one, up to sign: 2 atan2(|a - b|, |a + b|)."""
    other = other / torch.linalg.vector_norm(other)
    apart, together = torch.linalg.vector_norm(unit - other), torch.linalg.vector_norm(unit + other)
    return float(torch.rad2deg(2 * torch.atan2(torch.minimum(apart, together), torch.maximum(apart, together))))


def _signs(left: torch.Tensor) -> torch.Tensor:
    """Return, for each row, the sign that makes its sum positive or else its largest entry."""
    sums = left.sum(dim=1)
    tied = sums.abs() <= _SIGN_TIE * left.shape[1] ** 0.5
    if bool(tied.any()):
        low, high = torch.aminmax(left, dim=1)
        entries = high + low
        if bool((tied & (entries.abs() <= _SIGN_TIE * torch.maximum(high, -low))).any()):
            sizes = left.abs()
            # The first of the entries that are largest but for rounding, so that rounding does not choose.
            first = (sizes >= sizes.amax(dim=1, keepdim=True) * (1 - _SIGN_TIE)).to(torch.int8).argmax(dim=1)
            entries = left.gather(1, first[:, None])[:, 0]
        sums = torch.where(tied, entries, sums)
    return torch.where(sums < 0, -1.0, 1.0).to(left.dtype)


# --- products with X ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Centre:
    """The mean row in two parts: the first is a float32, so that a float32 feature minus it is as good as exact."""

    shift: torch.Tensor
    rest: torch.Tensor

    @classmethod
    def of(cls, moments: Moments) -> "_Centre":
        shift = moments.mean.to(torch.float32).to(torch.float64)
        return cls(shift, (moments.pivot - shift) + moments.shifted_mean)


def _products(
    rows: Rows, block: torch.Tensor, centre: _Centre, exact: bool, scale: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return B Xcᵀ, (w, n_samples), and B XcᵀXc, (w, n_features), in one pass, for B (w, n_features).

    Computed in float32 unless `exact`; then the first is left out (it is empty). `scale` keeps float32 in its range.
    """
    dtype = torch.float64 if exact else torch.float32
    rest = (block @ centre.rest)[:, None]
    factor, offset = block.to(dtype), (rest * scale).to(dtype)
    if not exact:
        factor = factor * scale
    image = torch.zeros_like(block)
    parts: list[torch.Tensor] = []
    total = block.new_zeros((len(block), 1))
    rough, n_rough = torch.zeros_like(factor), 0
    for piece in rows.shifted(centre.shift.to(dtype)):
        product = factor @ piece.T
        if exact:
            product -= rest
            image.addmm_(product, piece)
            total += product.sum(dim=1, keepdim=True)
            parts.append(product)
        else:
            product -= offset
            rough.addmm_(product, piece)
            n_rough += len(piece)
            if n_rough >= ROUGH_ROWS:
                image += rough
                rough.zero_()
                n_rough = 0
    if exact:
        image -= total * centre.rest
        return torch.cat(parts, dim=1), image
    return block.new_empty((0, 0)), (image + rough) / scale


def _times(rows: Rows, block: torch.Tensor, centre: _Centre) -> torch.Tensor:
    """Return B Xcᵀ, (w, n_samples), for B (w, n_features)."""
    rest = (block @ centre.rest)[:, None]
    result = block.new_empty((len(block), rows.n_samples))
    start = 0
    for piece in rows.shifted(centre.shift):
        torch.addmm(rest, block, piece.T, beta=-1, out=result[:, start : start + len(piece)])
        start += len(piece)
    return result


def _transposed_times(rows: Rows, block: torch.Tensor, centre: _Centre) -> torch.Tensor:
    """Return B Xc, (w, n_features), for B (w, n_samples)."""
    result = block.new_zeros((len(block), rows.n_features))
    start = 0
    for piece in rows.shifted(centre.shift):
        result.addmm_(block[:, start : start + len(piece)], piece)
        start += len(piece)
    return result - torch.outer(block.sum(dim=1), centre.rest)


# --- the block Krylov search ----------------------------------------------------------------------


def _search(
    apply: Callable[[torch.Tensor, bool], torch.Tensor],
    factors: torch.Tensor,
    weights: torch.Tensor,
    size: int,
    wanted: int,
    centrings: list[str],
    rough: bool,
    near: torch.Tensor | None,
    max_products: int,
    capacity: int,
) -> tuple[dict[str, torch.Tensor], bool]:
    """Find the leading eigenvectors of G and of G + factorsᵀ weights factors by one restarted block Krylov iteration.

    A space that holds the factors, and what G makes of its vectors but the last, is a Krylov space of both operators.
    The basis is kept orthonormal in full and grows by the residuals of the leading Ritz vectors of either; when it is
    full it shrinks to its leading Ritz vectors (thick restart: Wu & Simon 2000, in block form). Without a
    start it is random with a fixed seed. A pair has converged when its residual, as a singular triplet's, is below
    half of `RESIDUAL_TOLERANCE`, or at what float64 can resolve.

    With `rough` products the iteration first goes as far as these carry. Then the images of the leading Ritz vectors,
    which the answer is made of, are made again exactly, and whatever is added to them has coefficients so small that
    rough products will do (inexact Krylov methods: Simoncini & Szyld 2003). Where they will not, all are exact.

    Parameters
    ----------
    apply
        The operator G, positive semidefinite: (rows, size) to the same, and whether the product must be exact.
    factors, weights
        (r, size) and (r, r): what the raw operator has on top.
    size, wanted
        Order of the operator, and number of eigenvectors of each centring.
    centrings
        Which of `CENTRINGS` are wanted.
    rough
        Whether products may be inexact where they can.
    near
        Directions to start from, (any number, size), or None.
    max_products
        After so many applications the iteration gives up.
    capacity
        How many rows the basis may have before it shrinks.

    Returns
    -------
    vectors, converged
        {centring: (wanted, size), orthonormal rows in descending order of eigenvalue}, and whether all have converged.
    """
    if near is None:
        # Drawn on the CPU, so that every device starts from the same block.
        generator = torch.Generator().manual_seed(0)
        near = torch.randn((min(size, wanted + 3), size), dtype=torch.float64, generator=generator).to(factors.device)
    space = _Space(torch.linalg.qr(torch.cat([factors, near]).T)[0].T, apply, not rough)
    all_exact = not rough
    previous = float("inf")
    vectors: dict[str, torch.Tensor] = {}
    for _ in range(max_products):
        basis, image = space.basis, space.image
        along = basis @ factors.T
        rotations, residuals = [], []
        worst = 0.0
        for centring in centrings:
            projected = space.inner + along @ weights @ along.T if centring == "raw" else space.inner
            eigenvalues, eigenvectors = torch.linalg.eigh(projected)
            rotation = eigenvectors.flip(1).T
            values = eigenvalues.flip(0)[:wanted].clamp(min=0.0)
            ritz = rotation[:wanted] @ basis
            residual = torch.addcmul(rotation[:wanted] @ image, ritz, values[:, None], value=-1.0)
            if centring == "raw":
                residual.addmm_((rotation[:wanted] @ along) @ weights, factors)
            norms = torch.linalg.vector_norm(residual, dim=1)
            floor = 1e-14 * values[0].clamp(min=_TINY)
            relative = norms / (values * values[0]).sqrt().clamp(min=_TINY)
            relative = torch.where(norms > floor, relative, 0.0)
            worst = max(worst, float(relative.max()))
            still_open = relative > RESIDUAL_TOLERANCE / 2
            residuals.append(residual[still_open] / norms[still_open, None])
            rotations.append(rotation)
            vectors[centring] = ritz
        stalled = worst > previous / 2
        previous = worst
        if space.n_exact == 0 and not all_exact and (worst < _ROUGH_RESIDUAL or (stalled and worst < 1e-2)):
            space.refresh(torch.cat([rotation[:wanted] for rotation in rotations]))
            previous = float("inf")
            continue
        if worst <= RESIDUAL_TOLERANCE / 2:
            return vectors, True
        if stalled and space.n_exact:
            all_exact = True
            leading = torch.cat([vectors[centring] for centring in centrings])
            space = _Space(torch.linalg.qr(leading.T)[0].T, apply, True)
            previous = float("inf")
            continue
        if len(basis) >= size:
            return vectors, all_exact
        if len(basis) > capacity:
            space.shrink(torch.cat([rotation[: wanted + wanted // 2] for rotation in rotations]))
        # The residuals of Ritz vectors are orthogonal to the basis but for rounding, which scaling has made larger.
        fresh = _independent(space.without(torch.cat(residuals)), 1e-2)
        fresh = _independent(space.without(fresh), 1e-2)[: size - len(space.basis)]
        if len(fresh) == 0:  # an invariant subspace: it holds all that the operator does
            return vectors, all_exact
        space.grow(fresh, all_exact)
    return vectors, False


class _Space:
    """An orthonormal basis, (rows, size), what an operator makes of it, and the operator's matrix in it.

    The first `n_exact` rows of the image are exact where the others need not be.
    """

    def __init__(self, basis: torch.Tensor, apply: Callable[[torch.Tensor, bool], torch.Tensor], exact: bool) -> None:
        self.n_exact = 0
        self.inner = basis.new_empty((0, 0))
        self._apply = apply
        self._memory = basis.new_empty((2, 0, basis.shape[1]))
        self._rows = 0
        self.grow(basis, exact)

    @property
    def basis(self) -> torch.Tensor:
        return self._memory[0, : self._rows]

    @property
    def image(self) -> torch.Tensor:
        return self._memory[1, : self._rows]

    def without(self, block: torch.Tensor) -> torch.Tensor:
        """Return a block, (w, size), less its part in the space."""
        return torch.addmm(block, block @ self.basis.T, self.basis, alpha=-1.0)

    def grow(self, fresh: torch.Tensor, exact: bool) -> None:
        """Take in more rows, orthonormal to the basis."""
        old, rows = self._rows, self._rows + len(fresh)
        if rows > self._memory.shape[1]:
            memory = self._memory.new_empty((2, rows + rows // 2, fresh.shape[1]))
            memory[:, :old] = self._memory[:, :old]
            self._memory = memory
        self._memory[0, old:rows] = fresh
        self._memory[1, old:rows] = self._apply(fresh, exact)
        self._rows = rows
        inner = self.inner.new_empty((rows, rows))
        inner[:old, :old] = self.inner
        inner[old:] = self.image[old:] @ self.basis.T
        inner[:old, old:] = self.image[:old] @ self.basis[old:].T
        self._set_inner(inner)

    def refresh(self, leading: torch.Tensor) -> None:
        """Turn the basis so that it begins with some vectors of the space, given by coefficients; exact ones."""
        turn = torch.linalg.qr(leading.T, mode="complete")[0].T
        self._turn(turn)
        self.n_exact = min(len(leading), len(turn))
        self.image[: self.n_exact] = self._apply(self.basis[: self.n_exact], True)
        self._set_inner(self.image @ self.basis.T)

    def shrink(self, leading: torch.Tensor) -> None:
        """Keep only the span of some vectors of the space, given by coefficients."""
        self._turn(torch.linalg.qr(leading.T)[0].T)
        self.n_exact = 0  # what was exact is mixed with other rows now
        self._set_inner(self.image @ self.basis.T)

    def _turn(self, turn: torch.Tensor) -> None:
        # One after the other: no third matrix of this size is needed.
        self._memory[0, : len(turn)] = turn @ self.basis
        self._memory[1, : len(turn)] = turn @ self.image
        self._rows = len(turn)

    def _set_inner(self, inner: torch.Tensor) -> None:
        inner[:, : self.n_exact] = inner[: self.n_exact].T
        self.inner = (inner + inner.T) / 2


def _independent(block: torch.Tensor, tolerance: float) -> torch.Tensor:
    """Return orthonormal rows that span the block, but for directions below a tolerance relative to the largest."""
    if len(block) == 0:
        return block
    eigenvalues, eigenvectors = torch.linalg.eigh(block @ block.T)
    kept = eigenvalues > tolerance**2 * eigenvalues[-1]
    return (eigenvectors[:, kept] / eigenvalues[kept].sqrt()).T @ block
