"""The tables of angles: P-vectors of every step against last steps, and of first or last steps against each other.

Only P-vectors over the same samples may meet here; the caller has made sure of that. Each table has a row for either
centring, with what an angle has to be read beside: the correlation of entries, both angles to the ones vector, the
permutation null, and whether the vectors are determined at all.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from featurespace import angles

CENTRINGS = ("raw", "centred")
OWN = "own"  # the reference that is the network itself at its last step
DETERMINED_GAP = 1e-3  # below this relative gap a vector may be any in the plane of its neighbours

RELATION_COLUMNS = [
    "angle_deg",
    "cosine",
    "correlation",
    "angle_to_ones_deg",
    "reference_angle_to_ones_deg",
    "null_mean_deg",
    "null_low_deg",
    "null_formula_deg",
    "p_value",
    "relative_gap",
    "determined",
]
DYNAMICS_COLUMNS = [
    *("dataset", "centring", "recipe", "layer", "seed", "step", "epoch", "reference", "reference_seed"),
    *RELATION_COLUMNS,
]
PAIRS_COLUMNS = [
    *("dataset", "centring", "stage", "recipe_a", "seed_a", "recipe_b", "seed_b"),
    *RELATION_COLUMNS,
    "principal_angle_max_deg",
]

_BATCH_BYTES = 2**28  # of P-vectors that are compared together, so that references are permuted once for all of them


@dataclass(frozen=True)
class Trajectory:
    """The P-vectors of one network over its steps.

    `steps` and `epochs` are (m,); `vectors` is (2, m, n_samples), unit rows, float64, by centring in the order of
    `CENTRINGS`, NaN where there is no vector; `relative_gaps` is (2, m).
    """

    recipe: str
    layer: str
    seed: int
    steps: np.ndarray
    epochs: np.ndarray
    vectors: np.ndarray
    relative_gaps: np.ndarray


@dataclass(frozen=True)
class Endpoint:
    """One network at its first or last step, or a data set.

    `vectors` is (2, n_samples), the P-vector of either centring, unit, NaN where there is none; `relative_gaps` is
    (2,). `read_basis` takes the index of a centring and gives the k leading left vectors, (k, n_samples); it is called
    once a centring, so that not all of them are in memory together. A `member` of a population is compared with data
    alone.
    """

    recipe: str
    seed: int
    vectors: np.ndarray
    relative_gaps: np.ndarray
    read_basis: Callable[[int], np.ndarray]
    member: bool = False
    is_data: bool = False


def compare_dynamics(
    dataset: str, trajectories: Iterable[Trajectory], references: Sequence[Endpoint], permutations: np.ndarray
) -> pd.DataFrame:
    """Compare every step of every network with its own last step and with references: `angle_dynamics.csv`.

    Parameters
    ----------
    dataset
        The name of the data set that all share.
    trajectories
        Taken in batches, so that a generator keeps memory bounded.
    references
        Last steps. The one of the trajectory's own recipe and seed is not repeated under its recipe's name.
    permutations
        (b, n_samples), from `angles.draw_permutations`.

    Returns
    -------
    DataFrame
        `DYNAMICS_COLUMNS`, of each step the reference `own` first; `relative_gap` is the smaller of the vector's and
        the reference's, and `determined` says that it is at least 1e-3. Where there is no vector, `determined` is
        False and the other numbers are missing.
    """
    parts = []
    for batch in _batches(trajectories):
        starts = np.cumsum([0, *(len(trajectory.steps) for trajectory in batch)])
        shared = [
            _relations(
                np.concatenate([trajectory.vectors[c] for trajectory in batch]),
                np.concatenate([trajectory.relative_gaps[c] for trajectory in batch]),
                np.stack([reference.vectors[c] for reference in references]),
                np.array([reference.relative_gaps[c] for reference in references]),
                permutations,
            )
            if references
            else {}
            for c in range(len(CENTRINGS))
        ]
        for trajectory, start in zip(batch, starts, strict=False):
            n_steps = len(trajectory.steps)
            mine = [i for i, reference in enumerate(references) if is_own(trajectory, reference)]
            others = [i for i in range(len(references)) if i not in mine]
            for c, centring in enumerate(CENTRINGS):
                rows = slice(start, start + n_steps)
                if mine:
                    order = [*mine, *others]
                    relations = {name: values[rows][:, order] for name, values in shared[c].items()}
                else:
                    vectors, gaps = trajectory.vectors[c], trajectory.relative_gaps[c]
                    relations = _relations(vectors, gaps, vectors[-1:], gaps[-1:], permutations)
                    relations = {
                        name: np.concatenate([values, shared[c][name][rows]], axis=1) if others else values
                        for name, values in relations.items()
                    }
                n_references = 1 + len(others)
                parts.append(
                    pd.DataFrame(
                        {
                            "dataset": dataset,
                            "centring": centring,
                            "recipe": trajectory.recipe,
                            "layer": trajectory.layer,
                            "seed": trajectory.seed,
                            "step": np.repeat(trajectory.steps, n_references),
                            "epoch": np.repeat(trajectory.epochs, n_references),
                            "reference": [OWN, *(references[i].recipe for i in others)] * n_steps,
                            "reference_seed": [trajectory.seed, *(references[i].seed for i in others)] * n_steps,
                            **{name: values.ravel() for name, values in relations.items()},
                        }
                    )
                )
    return pd.concat(parts, ignore_index=True)[DYNAMICS_COLUMNS] if parts else pd.DataFrame(columns=DYNAMICS_COLUMNS)


def compare_pairs(dataset: str, stage: str, endpoints: Sequence[Endpoint], permutations: np.ndarray) -> pd.DataFrame:
    """Compare every two endpoints, each pair once: the rows of one `stage` of `angle_pairs.csv`.

    Members of a population are compared with data alone.

    Returns
    -------
    DataFrame
        `PAIRS_COLUMNS`, pairs in the order of the input. `angle_to_ones_deg` is that of a and
        `reference_angle_to_ones_deg` that of b once it is turned to the side of a; it is b whose entries the null
        permutes. `principal_angle_max_deg` is the largest principal angle between the spans of all k vectors, missing
        unless all k exist on both sides.
    """
    pairs = [
        (i, j)
        for i, a in enumerate(endpoints)
        for j, b in enumerate(endpoints[i + 1 :], start=i + 1)
        if not (a.member or b.member) or a.is_data or b.is_data
    ]
    if not pairs:
        return pd.DataFrame(columns=PAIRS_COLUMNS)
    first, second = np.array(pairs).T
    parts = []
    for c, centring in enumerate(CENTRINGS):
        frame = pd.DataFrame(
            {
                "dataset": dataset,
                "centring": centring,
                "stage": stage,
                "recipe_a": [endpoints[i].recipe for i in first],
                "seed_a": [endpoints[i].seed for i in first],
                "recipe_b": [endpoints[j].recipe for j in second],
                "seed_b": [endpoints[j].seed for j in second],
            }
        )
        vectors = np.stack([endpoint.vectors[c] for endpoint in endpoints])
        gaps = np.array([endpoint.relative_gaps[c] for endpoint in endpoints])
        relations = {name: np.empty(len(pairs), bool if name == "determined" else float) for name in RELATION_COLUMNS}
        for j in np.unique(second):
            rows = np.flatnonzero(second == j)
            with_j = _relations(vectors[first[rows]], gaps[first[rows]], vectors[[j]], gaps[[j]], permutations)
            for name, values in with_j.items():
                relations[name][rows] = values[:, 0]
        frame = frame.assign(**relations)
        frame["principal_angle_max_deg"] = _largest_angles_deg(endpoints, pairs, c)
        parts.append(frame)
    return pd.concat(parts, ignore_index=True)[PAIRS_COLUMNS]


def is_own(trajectory: Trajectory, reference: Endpoint) -> bool:
    """Say whether a reference is the trajectory's own last step."""
    return (trajectory.recipe, trajectory.seed) == (reference.recipe, reference.seed)


def _batches(trajectories: Iterable[Trajectory]) -> Iterator[list[Trajectory]]:
    batch: list[Trajectory] = []
    n_bytes = 0
    for trajectory in trajectories:
        if batch and n_bytes + trajectory.vectors.nbytes > _BATCH_BYTES:
            yield batch
            batch, n_bytes = [], 0
        batch.append(trajectory)
        n_bytes += trajectory.vectors.nbytes
    if batch:
        yield batch


def _relations(
    vectors: np.ndarray,
    gaps: np.ndarray,
    references: np.ndarray,
    reference_gaps: np.ndarray,
    permutations: np.ndarray,
) -> dict[str, np.ndarray]:
    """Return the columns of `RELATION_COLUMNS`, each (m, r), for vectors (m, n) and references (r, n).

    A vector is turned to the side of the ones vector, and a reference then to the side of the vector: its own angle
    to the ones vector may so exceed 90 degrees, and cosine, both of these angles and the correlation satisfy the
    identity of `angles` exactly.
    """
    sides = np.where(vectors.sum(axis=1) < 0, -1.0, 1.0)[:, None] * np.where(references.sum(axis=1) < 0, -1.0, 1.0)
    opposite = sides * (vectors @ references.T) < 0
    ones, reference_ones = angles.angle_to_ones_deg(vectors), angles.angle_to_ones_deg(references)
    null = angles.permutation_null(vectors, references, permutations)
    cosine = angles.cosine(vectors, references)
    gap = np.minimum(gaps[:, None], reference_gaps[None, :])
    exists = np.isfinite(cosine)
    columns = [
        angles.angle_deg(vectors, references),
        cosine,
        angles.correlation(vectors, references),
        np.broadcast_to(ones[:, None], gap.shape),
        np.where(opposite, 180.0 - reference_ones[None, :], reference_ones[None, :]),
        null.mean_deg,
        null.low_deg,
        angles.null_formula_deg(ones, reference_ones, vectors.shape[1]),
        null.p_value,
        gap,
    ]
    relations = {
        name: np.where(exists, values, np.nan) for name, values in zip(RELATION_COLUMNS, columns, strict=False)
    }
    return relations | {"determined": exists & (gap >= DETERMINED_GAP)}


def _largest_angles_deg(endpoints: Sequence[Endpoint], pairs: Sequence[tuple[int, int]], c: int) -> list[float]:
    """Return the largest principal angle of each pair; the bases of members are read when their turn comes."""

    def basis(endpoint: Endpoint) -> np.ndarray | None:
        vectors = endpoint.read_basis(c)
        return angles.orthonormal_basis(vectors) if np.isfinite(vectors).all() else None

    kept = {i: basis(endpoint) for i, endpoint in enumerate(endpoints) if not endpoint.member}
    largest = []
    for pair in pairs:
        a, b = (kept[i] if i in kept else basis(endpoints[i]) for i in pair)
        largest.append(float("nan") if a is None or b is None else angles.largest_principal_angle_deg(a, b))
    return largest
