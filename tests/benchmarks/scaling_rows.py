"""Cost against size: each stage at 1x, 4x and 16x the work, in steps, seeds, samples and layers."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.real_data import recipe_of
from benchmarks.stages import Stages
from benchmarks.table import Row, Target, alternate

FACTORS = (1, 4, 16)
LINEAR = 1.1  # exponents above it are worse than linear
BASE = {"steps": 4, "seeds": 1, "samples": 2_000, "layers": 2}
SMALLEST = {"steps": 2, "seeds": 1, "samples": 200, "layers": 1}
WIDTH = 64
RECIPE = "network"
REPETITIONS = {1: 5, 4: 3, 16: 1}  # by factor, after one that does not count
QUADRATIC = {("compare_runs", "seeds"): "its table has a row for every pair of seeds"}


def stages_at(folder: Path, published: Path, size: dict[str, int]) -> Stages:
    """Lay out a study of one block of MLPs of that size; training lasts for as many epochs as there are steps.

    Nothing else changes: the batch size is the same, so more samples are more updates.
    """
    model = {"kind": "mlp", "widths": [WIDTH] * size["layers"]}
    recipe: dict[str, Any] = recipe_of(model, size["steps"], block=size["seeds"])
    study = {
        "study": "bench",
        "seeds": size["seeds"],
        "datasets": {
            "fashion": {"kind": "fashion-mnist", "train_limit": size["samples"], "test_limit": size["samples"] // 4}
        },
        "recipes": {RECIPE: recipe},
        "figures": [],
    }
    return Stages(folder, study, published)


# each after those whose output it reads
JOBS: dict[str, Callable[[Stages], object]] = {
    "train_run": lambda stages: stages.train_run(RECIPE),
    "dump_features": lambda stages: stages.dump_features(RECIPE),
    "decompose_features": lambda stages: stages.decompose_features(stages.run_of(RECIPE)),
    "measure_layers": lambda stages: stages.measure_layers(RECIPE),
    "measure_networks": lambda stages: stages.measure_networks(RECIPE),
    "probe_layers": lambda stages: stages.probe_layers(RECIPE),
    "compare_runs": lambda stages: stages.compare_runs(),
}


def exponent(factors: tuple[int, ...], times: list[float]) -> float:
    """Fit times ∝ factor^exponent by least squares of the logarithms."""
    return float(np.polyfit(np.log(factors), np.log(times), 1)[0])


def scaling(published: Path, folder: Path, quick: bool = False, axes: Sequence[str] = tuple(BASE)) -> Iterator[Row]:
    """Time every stage along every axis, and fit an exponent.

    What a job costs before it does anything makes a fit over all three sizes look better than it is. So the exponent
    of the last step, from 4x to 16x, is what counts, and the fit stands beside it in the note.
    """
    factors = FACTORS[:2] if quick else FACTORS
    base = SMALLEST if quick else BASE
    taken: dict[tuple[str, int], dict[str, float]] = {}
    for axis in axes:
        for factor in factors:
            if factor == 1 and axis != axes[0]:
                taken[axis, 1] = taken[axes[0], 1]
                continue
            stages = stages_at(folder, published, base | {axis: factor * base[axis]})
            stages.prepare_dataset()
            stages.decompose_features("datasets/fashion")
            times = {}
            for name, job in JOBS.items():
                job(stages)
                times |= alternate({name: partial(job, stages)}, 1 if quick else REPETITIONS[factor])
            taken[axis, factor] = times
            shutil.rmtree(folder)
    for axis in axes:
        for name in taken[axis, 1]:
            times_of = [taken[axis, factor][name] for factor in factors]
            fitted = exponent(factors, times_of)
            last = exponent(factors[-2:], times_of[-2:])
            said = ", ".join(f"{f}x {t:.2f} s" for f, t in zip(factors, times_of, strict=True))
            note = f"{said}; fit over all {fitted:.2f}"
            if (name, axis) in QUADRATIC:
                note += f"; {QUADRATIC[name, axis]}"
            yield Row(
                f"cost in {axis}",
                name,
                "linear",
                times_of[-1],
                times_of[0] * factors[-1],
                last,
                Target("<=", LINEAR),
                note,
            )
