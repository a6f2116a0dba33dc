"""The tables of angles: P-vectors of every step against last steps, and of last steps against each other.

Only P-vectors over the same samples may meet here; the caller has made sure of that. Each table has a row for either
centring, with what an angle has to be read beside: the correlation of entries, both angles to the ones vector, the
permutation null, and whether the vectors are determined at all.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from featurespace import angles

CENTRINGS = ("raw", "centred")
DATA = "data"  # the recipe under which a data set's own P-vector goes
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
    *("dataset", "centring", "recipe_a", "seed_a", "recipe_b", "seed_b"),
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
class LastStep:
    """The leading left vectors of one network at its last step, or of a data set: recipe `data`.

    `vectors` is (2, k, n_samples), the P-vector first, `relative_gaps` (2,), that of the P-vector.
    """

    recipe: str
    seed: int
    vectors: np.ndarray
    relative_gaps: np.ndarray


def compare_dynamics(
    dataset: str, trajectories: Iterable[Trajectory], references: Sequence[LastStep], permutations: np.ndarray
) -> pd.DataFrame:
    """Compare every step of every network with every last step: `angle_dynamics.csv`.

    Parameters
    ----------
    dataset
        The name of the data set that all share.
    trajectories
        Taken in batches, so that a generator keeps memory bounded.
    references
        The last steps. One of the trajectory's own recipe and seed gets the name `own`.
    permutations
        (b, n_samples), from `angles.draw_permutations`.

    Returns
    -------
    DataFrame
        `DYNAMICS_COLUMNS`; `relative_gap` is the smaller of the vector's and the reference's, and `determined` says
        that it is at least 1e-3. Where there is no vector, `determined` is False and the other numbers are missing.
    """
    parts = []
    for batch in _batches(trajectories):
        frames = []
        for c, centring in enumerate(CENTRINGS):
            relations = _relations(
                np.concatenate([trajectory.vectors[c] for trajectory in batch]),
                np.concatenate([trajectory.relative_gaps[c] for trajectory in batch]),
                np.stack([reference.vectors[c, 0] for reference in references]),
                np.array([reference.relative_gaps[c] for reference in references]),
                permutations,
            )
            rows = [
                (
                    i,
                    c,
                    dataset,
                    centring,
                    trajectory.recipe,
                    trajectory.layer,
                    trajectory.seed,
                    step,
                    epoch,
                    "own" if is_own(trajectory, reference) else reference.recipe,
                    reference.seed,
                )
                for i, trajectory in enumerate(batch)
                for step, epoch in zip(trajectory.steps.tolist(), trajectory.epochs.tolist(), strict=True)
                for reference in references
            ]
            frame = pd.DataFrame(rows, columns=["_trajectory", "_centring", *DYNAMICS_COLUMNS[:9]])
            frames.append(frame.assign(**{name: values.ravel() for name, values in relations.items()}))
        both = pd.concat(frames).sort_values(["_trajectory", "_centring"], kind="stable")
        parts.append(both[DYNAMICS_COLUMNS])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=DYNAMICS_COLUMNS)


def compare_pairs(dataset: str, last_steps: Sequence[LastStep], permutations: np.ndarray) -> pd.DataFrame:
    """Compare every two last steps, each pair once: `angle_pairs.csv`.

    Returns
    -------
    DataFrame
        `PAIRS_COLUMNS`, pairs in the order of the input. `angle_to_ones_deg` is that of a and
        `reference_angle_to_ones_deg` that of b once it is turned to the side of a; it is b whose entries the null
        permutes. `principal_angle_max_deg` is the largest principal angle between the spans of all k vectors, missing
        unless all k exist on both sides.
    """
    pairs = [(i, j) for i in range(len(last_steps)) for j in range(i + 1, len(last_steps))]
    first = np.array([i for i, _ in pairs], dtype=int)
    second = np.array([j for _, j in pairs], dtype=int)
    parts = []
    for c, centring in enumerate(CENTRINGS):
        if not pairs:
            break
        vectors = np.stack([last.vectors[c, 0] for last in last_steps])
        gaps = np.array([last.relative_gaps[c] for last in last_steps])
        bases = [
            angles.orthonormal_basis(last.vectors[c]) if np.isfinite(last.vectors[c]).all() else None
            for last in last_steps
        ]
        frame = pd.DataFrame(
            {
                "dataset": dataset,
                "centring": centring,
                "recipe_a": [last_steps[i].recipe for i in first],
                "seed_a": [last_steps[i].seed for i in first],
                "recipe_b": [last_steps[j].recipe for j in second],
                "seed_b": [last_steps[j].seed for j in second],
            }
        )
        relations = _relations(vectors, gaps, vectors, gaps, permutations)
        frame = frame.assign(**{name: values[first, second] for name, values in relations.items()})
        frame["principal_angle_max_deg"] = [_largest_angle_deg(bases[i], bases[j]) for i, j in pairs]
        parts.append(frame)
    return pd.concat(parts, ignore_index=True)[PAIRS_COLUMNS] if parts else pd.DataFrame(columns=PAIRS_COLUMNS)


def is_own(trajectory: Trajectory, reference: LastStep) -> bool:
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
        angles.null_formula_deg(ones, reference_ones),
        null.p_value,
        gap,
    ]
    relations = {
        name: np.where(exists, values, np.nan) for name, values in zip(RELATION_COLUMNS, columns, strict=False)
    }
    return relations | {"determined": exists & (gap >= DETERMINED_GAP)}


def _largest_angle_deg(basis_a: np.ndarray | None, basis_b: np.ndarray | None) -> float:
    if basis_a is None or basis_b is None:
        return float("nan")
    return float(angles.principal_angles_deg(basis_a, basis_b)[-1])
