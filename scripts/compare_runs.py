"""Compare P-vectors: of every step with last steps and with the data, and of first and last steps with each other."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from featurespace.angles import draw_permutations
from featurespace.comparison import Endpoint, Trajectory, compare_dynamics, compare_pairs
from featurespace.files import write_table
from featurespace.script import progress, script_edge
from featurespace.sources import DATA, Source, open_sources

STAGES = {"first": slice(0, 1), "last": slice(-1, None)}  # a network that is not trained has one step, which is both


def read_endpoints(source: Source, stage: str) -> Iterator[Endpoint]:
    """Read the P-vectors of every seed at one stage."""
    steps = STAGES[stage]
    for i, seed in enumerate(source.seeds):
        yield Endpoint(
            recipe=source.recipe,
            seed=seed,
            vectors=source.p_vectors(i, steps)[:, 0],
            relative_gaps=source.relative_gaps(i, steps)[:, 0],
            read_basis=lambda centring_index, i=i: source.vectors(i, centring_index, steps)[0],
            member=source.population != "",
            is_data=source.recipe == DATA,
        )


def read_trajectories(sources: Sequence[Source]) -> Iterator[Trajectory]:
    """Read the P-vectors of all steps, one seed at a time."""
    for source in sources:
        for i, seed in enumerate(source.seeds):
            yield Trajectory(
                recipe=source.recipe,
                layer=source.layer,
                seed=seed,
                steps=source.steps,
                epochs=source.epochs,
                vectors=source.p_vectors(i),
                relative_gaps=source.relative_gaps(i),
            )


def compare(sources: Mapping[str, list[Source]], spec: Mapping[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make both tables, `angle_dynamics.csv` and `angle_pairs.csv`, each data set for itself.

    Members of a population enter the pairs of last steps, against the data, and nothing else.
    """
    dynamics, pairs = [], []
    for dataset, own in sources.items():
        main = [source for source in own if not source.population]
        permutations = draw_permutations(own[-1].n_samples, spec["permutations"], spec["permutation_seed"])
        references = [
            endpoint
            for source in main
            if source.recipe == DATA or spec["references"] is None or source.recipe in spec["references"]
            for endpoint in read_endpoints(source, "last")
        ]
        steps = progress(read_trajectories(main[:-1]), f"comparing on {dataset}", "network")
        dynamics.append(compare_dynamics(dataset, steps, references, permutations))
        for stage, compared in (("first", main), ("last", own)):
            endpoints = [endpoint for source in compared for endpoint in read_endpoints(source, stage)]
            pairs.append(compare_pairs(dataset, stage, endpoints, permutations))
    return _stack(dynamics), _stack(pairs)


def _stack(frames: list[pd.DataFrame]) -> pd.DataFrame:
    # A frame without rows has no types, and would take theirs from the others.
    return pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)


if __name__ == "__main__":
    with script_edge(snakemake) as job:
        sources = open_sources(
            job.params, job.input.runs, job.input.run_digests, job.input.data, job.input.data_digests
        )
        dynamics, pairs = compare(sources, job.params)
        write_table(job.output.dynamics, dynamics)
        write_table(job.output.pairs, pairs)
