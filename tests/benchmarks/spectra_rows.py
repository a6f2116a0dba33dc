"""Spectra of one matrix, and of consecutive steps, against what else there is, and against what the machine allows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
import torch
from sklearn.utils.extmath import randomized_svd

from benchmarks.real_data import WIDE, Features
from benchmarks.table import Row, Target, alternate, require, seconds, settle, speedup
from featurespace.spectra import Rows, decompose

K = 8
SHAPES = (
    *((n, d) for n in (2_000, 20_000, 60_000) for d in (64, 512, 2_048)),
    (2_000, WIDE),
)
SIGMA_ERROR, RESIDUAL = 1e-10, 1e-8  # what accuracy that counts is
FULL_SVD_SIZE = 6e8  # n d min(n, d) up to which a full decomposition is worth waiting for
ROOFLINE_SIZE = 20_000 * 512  # entries from which on the share of the roofline counts
DEFAULTS = ("auto", 2)  # iterations of scikit-learn's randomised method, and of torch's
ITERATIONS = (8, 16, 32)  # of those that are not accurate as they are
STEP_ENTRIES = 20 * 20_000 * 512  # of all steps that are timed; of larger matrices there are fewer steps
FEW_STEPS = 6
RANDOMISED_ENTRIES = 2_000 * 2_048  # of a matrix that scikit-learn's gets more iterations on
SLOW_ENTRIES = 20_000 * 512  # of a matrix beyond which it is not tried, nor torch's with too few: see docs
REPETITION_SECONDS = 2.0  # of ours and the fastest others together, a shape
QUICK_SECONDS, SLOW_SECONDS = 0.2, 1.0  # others that are timed once more, and those that are not unless they are best
CLOSE = 1.5  # how many times as long as the fastest another may take to be timed once more
MOST_REPETITIONS = 5

Triplets = tuple[np.ndarray, np.ndarray, np.ndarray]  # values (k,), left (n, k), right (d, k)
Method = Callable[[np.ndarray], list[Triplets]]  # of a float32 matrix, raw and centred
Device = torch.device | str
Bests = dict[tuple[int, int], tuple[str, Method]]  # by shape, the fastest accurate other


# --- the others ---------------------------------------------------------------------------------------------------


def numpy_svd(matrix: np.ndarray) -> Triplets:
    """Decompose in full with NumPy."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return values[:K], left[:, :K], right[:K].T


def scipy_svd(matrix: np.ndarray) -> Triplets:
    """Decompose in full with SciPy."""
    left, values, right = scipy.linalg.svd(matrix, full_matrices=False, check_finite=False)
    return values[:K], left[:, :K], right[:K].T


def covariance_eigh(matrix: np.ndarray) -> Triplets:
    """Do what scikit-learn's PCA does for `covariance_eigh`, on the smaller side and for the wanted vectors only."""
    wide = matrix.shape[0] < matrix.shape[1]
    gram = matrix @ matrix.T if wide else matrix.T @ matrix
    last = len(gram) - 1
    squares, vectors = scipy.linalg.eigh(gram, subset_by_index=[last - K + 1, last], check_finite=False)
    values, vectors = np.sqrt(squares[::-1]), vectors[:, ::-1]
    others = (matrix.T if wide else matrix) @ vectors / values
    return (values, vectors, others) if wide else (values, others, vectors)


def svds(matrix: np.ndarray) -> Triplets:
    """Use SciPy's ARPACK."""
    left, values, right = scipy.sparse.linalg.svds(matrix, k=K, random_state=0)
    order = np.argsort(-values)
    return values[order], left[:, order], right[order].T


def scikit_randomized(n_iterations: int | str) -> Callable[[np.ndarray], Triplets]:
    """Return scikit-learn's `randomized_svd` with so many iterations."""

    def run(matrix: np.ndarray) -> Triplets:
        left, values, right = randomized_svd(matrix, n_components=K, n_iter=n_iterations, random_state=0)
        return values, left, right.T

    return run


def torch_lowrank(n_iterations: int) -> Callable[[torch.Tensor], Triplets]:
    """Return `torch.svd_lowrank` with so many iterations and ten vectors more than are wanted."""

    def run(matrix: torch.Tensor) -> Triplets:
        torch.manual_seed(0)
        q = min(K + 10, *matrix.shape)
        left, values, right = torch.svd_lowrank(matrix, q=q, niter=n_iterations)
        return values[:K].cpu().numpy(), left[:, :K].cpu().numpy(), right[:, :K].cpu().numpy()

    return run


def torch_svd(matrix: torch.Tensor) -> Triplets:
    """Decompose in full with torch."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return values[:K].cpu().numpy(), left[:, :K].cpu().numpy(), right[:K].T.cpu().numpy()


def torch_covariance_eigh(matrix: torch.Tensor) -> Triplets:
    """Do the same as `covariance_eigh` with torch, which has no solver for some of the vectors."""
    wide = matrix.shape[0] < matrix.shape[1]
    squares, vectors = torch.linalg.eigh(matrix @ matrix.T if wide else matrix.T @ matrix)
    values, vectors = squares[-K:].flip(0).sqrt(), vectors[:, -K:].flip(1)
    others = (matrix.T if wide else matrix) @ vectors / values
    left, right = (vectors, others) if wide else (others, vectors)
    return values.cpu().numpy(), left.cpu().numpy(), right.cpu().numpy()


def with_numpy(decompose_one: Callable[[np.ndarray], Triplets]) -> Method:
    """Call a function as a user with a float32 matrix does who wants both spectra, raw and centred."""

    def run(matrix: np.ndarray) -> list[Triplets]:
        doubles = matrix.astype(np.float64)
        return [decompose_one(doubles), decompose_one(doubles - doubles.mean(axis=0))]

    return run


def with_torch(decompose_one: Callable[[torch.Tensor], Triplets], device: Device) -> Method:
    """Do the same on a device."""

    def run(matrix: np.ndarray) -> list[Triplets]:
        doubles = torch.from_numpy(matrix).to(device).to(torch.float64)
        return [decompose_one(doubles), decompose_one(doubles - doubles.mean(dim=0))]

    return run


def ours(matrix: np.ndarray, device: Device = "cpu") -> Any:
    """Call `decompose` for the leading vectors."""
    return decompose(Rows.of(matrix, device=device), vectors=K, whole=False)


def triplets_of(spectra: Any) -> list[Triplets]:
    """Return what `decompose` found, raw and centred, in the form of the others."""
    return [(spectra.singular_values[c], spectra.left_vectors[c].T, spectra.right_vectors[c].T) for c in range(2)]


# --- what is right ------------------------------------------------------------------------------------------------


@dataclass
class Reference:
    """The leading singular values of a matrix, raw and centred, by NumPy in float64, and what others are worth.

    Small matrices are decomposed in full. Of large ones the Gram matrix gives a subspace twice as large as is wanted,
    and the decomposition of X times its basis the values, whose error is the square of the subspace's.
    """

    matrix: np.ndarray
    centrings: tuple[np.ndarray, np.ndarray] = field(init=False)  # the float64 matrix, raw and centred
    values: list[np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        doubles = self.matrix.astype(np.float64)
        self.centrings = doubles, doubles - doubles.mean(axis=0)
        self.values = [_leading_values(matrix) for matrix in self.centrings]

    def errors(self, found: Sequence[Triplets]) -> tuple[float, float]:
        """Return the worst relative error of a value, and the worst residual of a pair of vectors, over σ_1."""
        sigma, residual = 0.0, 0.0
        for matrix, expected, (values, left, right) in zip(self.centrings, self.values, found, strict=True):
            sigma = max(sigma, float(np.max(np.abs(values - expected) / expected)))
            misfits = (matrix @ right - left * values, matrix.T @ left - right * values)
            residual = max(residual, *(float(np.linalg.norm(m, axis=0).max() / expected[0]) for m in misfits))
        return sigma, residual

    def is_met(self, found: Sequence[Triplets]) -> bool:
        """Say whether a result has the accuracy that counts."""
        sigma, residual = self.errors(found)
        return sigma <= SIGMA_ERROR and residual <= RESIDUAL


def _leading_values(matrix: np.ndarray) -> np.ndarray:
    n, d = matrix.shape
    if n * d * min(n, d) <= FULL_SVD_SIZE:
        return np.linalg.svd(matrix, compute_uv=False)[:K]
    tall = matrix if n >= d else matrix.T
    gram = tall.T @ tall
    last = len(gram) - 1
    basis = scipy.linalg.eigh(gram, subset_by_index=[last - 2 * K + 1, last])[1]
    return np.linalg.svd(np.linalg.qr(tall @ basis, mode="r"), compute_uv=False)[:K]


# --- one matrix ---------------------------------------------------------------------------------------------------


@dataclass
class Contest:
    """What the others make of one matrix: seconds of the accurate ones and of the less accurate ones."""

    methods: dict[str, Method] = field(default_factory=dict)
    accurate: dict[str, float] = field(default_factory=dict)
    less_accurate: dict[str, tuple[float, str]] = field(default_factory=dict)

    @property
    def fastest(self) -> list[str]:
        """The accurate ones, from the fastest on."""
        return sorted(self.accurate, key=self.accurate.__getitem__)

    @property
    def best(self) -> str:
        """The fastest of the accurate ones."""
        return self.fastest[0]


def contest(matrix: np.ndarray, reference: Reference, device: Device = "cpu") -> Contest:
    """Try every other method once, and keep its time by whether its result is accurate enough.

    A randomised method that is not, as it is called by default, is tried with more iterations until it is or takes
    longer than the best; scikit-learn's on small matrices only, and torch's on the largest with more at once. On a GPU
    there are torch's methods only.
    """
    n, d = matrix.shape
    is_small = n * d * min(n, d) <= FULL_SVD_SIZE
    result = Contest()

    def enter(name: str, method: Method) -> bool:
        found: list[list[Triplets]] = []
        took = alternate({name: lambda: found.append(method(matrix))}, 1)[name]
        if took < QUICK_SECONDS:  # the first call of a library also pays for starting its threads
            took = alternate({name: lambda: method(matrix)}, 2)[name]
        if reference.is_met(found[0]):
            result.methods[name], result.accurate[name] = method, took
            return True
        sigma, residual = reference.errors(found[0])
        result.less_accurate[name] = (took, f"σ error {sigma:.0e}, residual {residual:.0e}")
        return bool(result.accurate) and took > result.accurate[result.best]

    def enter_first(name: str, method_of: Callable[[Any], Method], iterations: Sequence[Any]) -> None:
        for i in iterations:
            if enter(name if i in DEFAULTS else f"{name}, {i} iterations", method_of(i)):
                break

    if torch.device(device).type == "cpu":
        enter("covariance_eigh", with_numpy(covariance_eigh))
        if is_small:
            enter("numpy svd", with_numpy(numpy_svd))
            enter("scipy svd", with_numpy(scipy_svd))
        enter("scipy svds", with_numpy(svds))
        if n * d <= SLOW_ENTRIES:
            more = ITERATIONS if n * d <= RANDOMISED_ENTRIES else ()
            enter_first("randomized_svd", lambda i: with_numpy(scikit_randomized(i)), (DEFAULTS[0], *more))
    else:
        enter("torch covariance eigh", with_torch(torch_covariance_eigh, device))
        enter("torch svd", with_torch(torch_svd, device))
    default = DEFAULTS[1:] if n * d <= SLOW_ENTRIES else ()
    enter_first("svd_lowrank", lambda i: with_torch(torch_lowrank(i), device), (*default, *ITERATIONS))
    return result


def one_matrix(
    features: Features, shapes: Sequence[tuple[int, int]], bests: Bests, device: Device = "cpu"
) -> Iterator[Row]:
    """Compare with the others on one matrix a shape, and with the roofline on the large ones; fill in the `bests`."""
    name = "spectra of one matrix"
    ratios = []
    for n, d in shapes:
        matrix = features.matrix(n, d, features.n_steps // 2)
        reference = Reference(matrix)
        sigma, residual = reference.errors(triplets_of(ours(matrix, device)))
        accuracy = f"ours: σ error {sigma:.0e}, residual {residual:.0e}"
        require(sigma <= SIGMA_ERROR and residual <= RESIDUAL, f"{name}, {n} x {d}: {accuracy}")
        others = contest(matrix, reference, device)
        limit = min(CLOSE * others.accurate[others.best], SLOW_SECONDS)
        close = [other for other in others.fastest[:2] if other == others.best or others.accurate[other] <= limit]
        finalists: list[str] = []
        while close:
            finalists += close
            taking_turns = {"ours": partial(ours, matrix, device)}
            taking_turns |= {other: partial(others.methods[other], matrix) for other in finalists}
            times = alternate(taking_turns, 1)
            repetitions = min(MOST_REPETITIONS, int(REPETITION_SECONDS / sum(times.values())))
            if repetitions > 1:
                times = alternate(taking_turns, repetitions)
            best = min(finalists, key=times.__getitem__)
            # One that was faster when it was tried may be the best after all.
            close = [
                other for other in others.fastest if other not in finalists and others.accurate[other] < times[best]
            ]
        bests[n, d] = best, others.methods[best]
        ratios.append(times[best] / times["ours"])
        yield speedup(name, f"{n} x {d}", best, times["ours"], times[best], 1.0, accuracy)
        for other, took in others.accurate.items():
            if other != best:
                note = "" if other in finalists else "timed once"
                yield speedup(name, f"{n} x {d}", other, times["ours"], times.get(other, took), None, note)
        for other, (took, why) in others.less_accurate.items():
            yield speedup(name, f"{n} x {d}", other, times["ours"], took, None, f"less accurate: {why}")
        if n * d >= ROOFLINE_SIZE:
            del reference  # its copies of the matrix
            yield roofline(matrix, times["ours"], device)
    yield median_row(name, "median of the shapes, best accurate other", ratios, 1.5, "the aim is 2")


def median_row(row: str, case: str, ratios: Sequence[float], least: float, note: str = "") -> Row:
    """Sum up the ratios over shapes."""
    return Row(row, case, "", ratio=median(ratios), target=Target(">=", least), note=note)


# --- the roofline -------------------------------------------------------------------------------------------------


def read_rate(matrix: np.ndarray, device: Device = "cpu") -> float:
    """Return how many bytes of a matrix in memory are read a second: summed by torch's threads, or copied to a GPU."""
    tensor = torch.from_numpy(matrix)
    read = tensor.sum if torch.device(device).type == "cpu" else lambda: tensor.to(device)
    return matrix.nbytes / alternate({"read": read}, 3)["read"]


def matrix_rate(d: int, device: Device = "cpu") -> float:
    """Return how many operations of a float64 matrix product AᵀA with d columns are made a second."""
    block = torch.randn(max(d, 4096), d, dtype=torch.float64, device=device)
    return 2 * len(block) * d**2 / alternate({"product": lambda: block.T @ block}, 3)["product"]


def eigensolver_seconds(matrix: np.ndarray, device: Device = "cpu") -> float:
    """Return how long the leading eigenvectors of the Gram matrix take: the fastest of LAPACK, ARPACK and the GPU's."""
    doubles = matrix.astype(np.float64)
    gram = doubles.T @ doubles if matrix.shape[0] >= matrix.shape[1] else doubles @ doubles.T
    last = len(gram) - 1
    solvers: dict[str, Callable[[], object]] = {
        "lapack": lambda: scipy.linalg.eigh(gram, subset_by_index=[last - K + 1, last], check_finite=False),
        "arpack": lambda: scipy.sparse.linalg.eigsh(gram, k=K),
    }
    if torch.device(device).type != "cpu":
        on_device = torch.from_numpy(gram).to(device)
        solvers["gpu"] = lambda: torch.linalg.eigh(on_device)
    return min(alternate(solvers, 2).values())


def arithmetic_seconds(matrix: np.ndarray, device: Device = "cpu") -> float:
    """Return the roofline of the arithmetic: 2 n d² operations, d the smaller side, and two eigensolvers."""
    n, d = max(matrix.shape), min(matrix.shape)
    return 2 * n * d**2 / matrix_rate(d, device) + 2 * eigensolver_seconds(matrix, device)


def roofline(matrix: np.ndarray, taken: float, device: Device = "cpu") -> Row:
    """Compare a time with the limit: max(bytes / read rate, operations / matrix rate)."""
    reading, computing = matrix.nbytes / read_rate(matrix, device), arithmetic_seconds(matrix, device)
    limit = max(reading, computing)
    n, d = matrix.shape
    return Row(
        "spectra against the roofline",
        f"{n} x {d}",
        "reading" if reading > computing else "2 n d² operations and two eigensolvers",
        taken,
        limit,
        limit / taken,
        Target(">=", 0.6),
    )


# --- consecutive steps --------------------------------------------------------------------------------------------


def consecutive_steps(
    features: Features, shapes: Sequence[tuple[int, int]], bests: Bests, device: Device = "cpu"
) -> Iterator[Row]:
    """Decompose the steps of a run one after another.

    Each step's matrix is there before it is timed, and counts by the median over steps. The other method is timed at
    every fifth step, or at each where there are few.
    """
    name = f"spectra of {features.n_steps} consecutive steps"
    ratios = []
    for n, d in shapes:
        n_steps = min(features.n_steps, max(2, STEP_ENTRIES // (n * d)))
        if (n, d) not in bests:
            matrix = features.matrix(n, d, features.n_steps // 2)
            others = contest(matrix, Reference(matrix), device)
            bests[n, d] = others.best, others.methods[others.best]
        against, best = bests[n, d]
        if n_steps == features.n_steps:  # of the largest, the row of one matrix checks a step
            _check_step(features, n, d, device)
        times: dict[str, list[float]] = {"ours": [], "other": []}
        for step in range(1, n_steps + 1):
            matrix = features.matrix(n, d, step)
            if step % 5 == 1 or n_steps <= FEW_STEPS:
                settle()
                times["other"].append(seconds(lambda m=matrix, f=best: f(m)))
            settle()
            times["ours"].append(seconds(lambda m=matrix: ours(m, device)))
        taken, other = (n_steps * median(times[side]) for side in ("ours", "other"))
        ratios.append(other / taken)
        note = "" if n_steps == features.n_steps else f"the first {n_steps} steps only"
        yield speedup(name, f"{n} x {d}", against, taken, other, None, note)
    yield median_row(name, "median of the shapes, best accurate other", ratios, 2.5)


def _check_step(features: Features, n: int, d: int, device: Device) -> None:
    """Require that the spectra of a step are right."""
    matrix = features.matrix(n, d, 2)
    sigma, residual = Reference(matrix).errors(triplets_of(ours(matrix, device)))
    require(
        sigma <= SIGMA_ERROR and residual <= RESIDUAL,
        f"spectra of consecutive steps, {n} x {d}: σ error {sigma:.0e}, residual {residual:.0e}",
    )
