"""Compare the spans of leading singular vectors: of each step with the last one and the data, and of last steps."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from featurespace.files import write_table
from featurespace.script import progress, script_edge
from featurespace.sources import Source, open_sources
from featurespace.subspaces import CENTRINGS, COLUMNS, Bases, compare_last_steps, compare_steps, draw_nulls


def read_bases(sources: Sequence[Source], centring_index: int, k: int) -> Iterator[Bases]:
    """Read the k leading vectors of all steps, one seed at a time."""
    for source in sources:
        for i, seed in enumerate(source.seeds):
            yield Bases(source.recipe, seed, source.steps, source.epochs, source.vectors(i, centring_index, k=k))


def compare(sources: Mapping[str, list[Source]], spec: Mapping[str, Any]) -> pd.DataFrame:
    """Make `subspaces.csv`, each data set for itself. All last steps are in memory together, other steps are not."""
    frames = [pd.DataFrame(columns=COLUMNS)]
    dimensions = sorted(set(spec["dimensions"]))
    for dataset, own in sources.items():
        for c, centring in enumerate(CENTRINGS):
            nulls = draw_nulls(own[-1].n_samples, centring, dimensions, spec["null_draws"], spec["null_seed"])
            [data] = read_bases(own[-1:], c, dimensions[-1])
            last_steps = []
            networks = read_bases(own[:-1], c, dimensions[-1])
            for network in progress(networks, f"comparing on {dataset}, {centring}", "network"):
                last_steps.append(network.last())
                frames.append(compare_steps(dataset, centring, network, last_steps[-1], "own", nulls))
                frames.append(compare_steps(dataset, centring, network, data, data.recipe, nulls))
            frames.append(compare_last_steps(dataset, centring, last_steps, nulls))
    return pd.concat([frame for frame in frames if len(frame)] or frames, ignore_index=True)


if __name__ == "__main__":
    with script_edge(snakemake) as job:
        sources = open_sources(
            job.params, job.input.runs, job.input.run_digests, job.input.data, job.input.data_digests
        )
        write_table(job.output.table, compare(sources, job.params))
