"""Bring features that were made elsewhere into the standard stores: the sample set's, and at both ends the held-out."""

from pathlib import Path

from featurespace.datasets import load_dataset
from featurespace.ends import end_attributes, end_rows, first_and_last
from featurespace.own_features import open_source, place, require_unchanged, store_attributes, write_layers
from featurespace.script import script_edge
from featurespace.stores import FeatureWriter, store_draft, write_digest

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        spec = job.params
        # Where the features are is no parameter: what they are is.
        source = Path(job.config["features"][spec["recipe"]]["source"]).expanduser()
        dataset = load_dataset(job.input.dataset, job.input.dataset_digest)
        rows, n_sample_set = end_rows(dataset, spec["sample_set"], spec["held_out"])
        own = open_source(source)
        placed = place(own, dataset, rows, n_sample_set, str(source))
        ids, labels = dataset.sample_ids[rows], dataset.labels[rows]
        n_steps = len(own.steps)
        ends = first_and_last(range(n_steps))
        for path, digest, layers, steps, n_rows, more in (
            (job.output.store, job.output.digest, spec["layers"], range(n_steps), n_sample_set, {}),
            (
                *(job.output.ends, job.output.ends_digest, [spec["feature_layer"]], ends, len(placed.rows)),
                end_attributes(ids[: len(placed.rows)], n_sample_set),
            ),
        ):
            with store_draft(path) as draft:
                writer = FeatureWriter(
                    draft,
                    layers={layer: own.arrays[layer].shape[-1] for layer in layers},
                    seeds=spec["seeds"],
                    steps=[own.steps[step] for step in steps],
                    epochs=[own.epochs[step] for step in steps],
                    sample_ids=ids[:n_rows],
                    labels=labels[:n_rows],
                    attrs=store_attributes(spec, layers) | more,
                )
                write_layers(own, layers, steps, placed.rows[:n_rows], writer)
            write_digest(path, digest, writer.hashes)
        require_unchanged(source, spec["contents"])
