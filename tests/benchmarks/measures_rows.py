"""Layer measures against their definitions in NumPy."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from benchmarks.real_data import CPU, Features
from benchmarks.table import Row, Target, alternate, require, seconds, speedup
from featurespace.measures import measure
from featurespace.spectra import Rows

OUTER_SAMPLES = 200


def numpy_measures(features: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """Compute C, D and NC1 as one would write them down: both scatter matrices, their traces, a pseudo-inverse."""
    z = features.astype(np.float64)
    classes = np.unique(labels)
    means = np.stack([z[labels == k].mean(axis=0) for k in classes])
    deviations = z - means[np.searchsorted(classes, labels)]
    within = deviations.T @ deviations / len(z)
    offsets = means - z.mean(axis=0)
    between = offsets.T @ offsets / len(classes)
    units = means / np.linalg.norm(means, axis=1, keepdims=True)
    cosines = units @ units.T
    discrimination = 1 - np.max(cosines[~np.eye(len(classes), dtype=bool)])
    inverse = np.linalg.pinv(between, rcond=len(between) * np.finfo(float).eps, hermitian=True)
    nc1 = np.trace(within @ inverse) / len(classes)
    return float(np.trace(within) / np.trace(between)), float(discrimination), float(nc1)


def torch_measures(features: np.ndarray, labels: np.ndarray, device: torch.device) -> tuple[float, float, float]:
    """Compute the same with torch, on a device."""
    z = torch.from_numpy(features).to(device).to(torch.float64)
    index = torch.from_numpy(labels).to(device)
    members = torch.nn.functional.one_hot(index).to(torch.float64)
    means = members.T @ z / members.sum(dim=0)[:, None]
    deviations = z - means[index]
    within = deviations.T @ deviations / len(z)
    offsets = means - z.mean(dim=0)
    between = offsets.T @ offsets / len(means)
    units = means / torch.linalg.vector_norm(means, dim=1, keepdim=True)
    cosines = units @ units.T - 2 * torch.eye(len(units), dtype=torch.float64, device=device)
    rcond = len(between) * torch.finfo(torch.float64).eps
    nc1 = torch.trace(within @ torch.linalg.pinv(between, rtol=rcond, hermitian=True)) / len(means)
    return float(torch.trace(within) / torch.trace(between)), float(1 - cosines.max()), float(nc1)


def outer_products(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Add up the within-class scatter sample by sample, as the public code of the layerwise paper does."""
    z = features.astype(np.float64)
    means = {k: z[labels == k].mean(axis=0) for k in np.unique(labels)}
    within = np.zeros((z.shape[1], z.shape[1]))
    for row, label in zip(z, labels, strict=True):
        within += np.outer(row - means[label], row - means[label])
    return within / len(z)


class Counted:
    """A matrix in blocks of rows that counts how often it is gone through."""

    def __init__(self, matrix: np.ndarray, block_rows: int = 8192) -> None:
        self.matrix = matrix
        self.block_rows = block_rows
        self.n_rows = 0

    def __call__(self) -> Iterable[np.ndarray]:
        for start in range(0, len(self.matrix), self.block_rows):
            block = self.matrix[start : start + self.block_rows]
            self.n_rows += len(block)
            yield block


def measures(
    features: Features,
    n_samples: int = 60_000,
    width: int = 1_024,
    repetitions: int = 3,
    device: torch.device = CPU,
) -> Iterator[Row]:
    """Compare C, D and NC1 of one matrix with NumPy, or on a GPU with torch, and count the passes over it."""
    matrix = features.matrix(n_samples, width, features.n_steps // 2)
    labels = features.labels(n_samples)
    name, case = "layer measures C, D, NC1", f"{n_samples} x {width}"
    source = Counted(matrix)
    ours = measure(Rows(source, *matrix.shape, device=device), labels)
    expected = numpy_measures(matrix, labels)
    found = (ours.compression, ours.discrimination, ours.nc1)
    require(np.allclose(found, expected, rtol=1e-8), f"{name}: {found} instead of {expected}")
    on_cpu = device.type == "cpu"
    if not on_cpu:
        found = torch_measures(matrix, labels, device)
        require(np.allclose(found, expected, rtol=1e-8), f"{name}, by torch: {found} instead of {expected}")
    times = alternate(
        {
            "ours": lambda: measure(Rows.of(matrix, device=device), labels),
            "other": lambda: numpy_measures(matrix, labels) if on_cpu else torch_measures(matrix, labels, device),
        },
        repetitions,
    )
    against = f"{'NumPy' if on_cpu else 'torch'}, traces of scatter matrices"
    note = "ours also computes NC2 and the numerical rank"
    yield speedup(name, case, against, times["ours"], times["other"], 1.5, note)
    part = min(OUTER_SAMPLES, n_samples)
    scaled = seconds(lambda: outer_products(matrix[:part], labels[:part])) * n_samples / part
    note = f"timed on {part} samples and scaled up"
    yield speedup(name, case, "outer products, as in the public code", times["ours"], scaled, None, note)
    passes = source.n_rows / n_samples
    yield Row(name, case, "passes over the data", passes, 1.0, passes, Target("<=", 1.0), unit="passes")
