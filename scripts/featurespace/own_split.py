"""The split of a user's own data into training and test samples: how many of each class are held out, and which."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def n_held_out(n_samples: int, fraction: float | None) -> int:
    """Return how many samples of a class of n are held out: the nearest number to the fraction, halves up.

    At least one and never all; none of a class of one, and none if there is no fraction.
    """
    if fraction is None or n_samples < 2:
        return 0
    return min(max(1, math.floor(fraction * n_samples + 0.5)), n_samples - 1)


def held_out_rows(labels: np.ndarray, fraction: float | None, seed: int) -> np.ndarray:
    """Choose the rows that are held out, class by class: another sample in one class leaves the others' split alone.

    Parameters
    ----------
    labels
        (n,) int.
    fraction
        Share of each class, in (0, 1), or None for none.
    seed
        Of the choice.

    Returns
    -------
    np.ndarray
        (m,) int64, ascending.
    """
    import numpy as np

    chosen = [np.empty(0, np.int64)]
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        generator = np.random.default_rng(np.random.SeedSequence([seed, int(label)]))
        chosen.append(generator.permutation(rows)[: n_held_out(len(rows), fraction)])
    return np.sort(np.concatenate(chosen))
