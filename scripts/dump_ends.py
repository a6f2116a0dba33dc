"""Dump the ends of a run: its feature layer, at the first and the last kept step, with held-out samples too."""

from featurespace.datasets import load_dataset
from featurespace.device import lease_device
from featurespace.ends import end_attributes, end_rows, first_and_last
from featurespace.extraction import dump_run, layers_of, store_attributes
from featurespace.script import script_edge
from featurespace.stores import FeatureWriter, store_draft, write_digest
from featurespace.weights import KeptWeights

if __name__ == "__main__":
    with script_edge(snakemake) as job, lease_device(job.device_preference) as device:
        dataset = load_dataset(job.input.dataset, job.input.dataset_digest)
        weights = KeptWeights(job.input.weights, job.input.weights_digest)
        rows, n_sample_set = end_rows(dataset, job.params["sample_set"], job.params["held_out"])
        ids = dataset.sample_ids[rows]
        steps = first_and_last(weights.steps)
        layers = layers_of(job.params, dataset)
        with store_draft(job.output.store) as draft:
            writer = FeatureWriter(
                draft,
                layers={name: layer.width for name, layer in layers.items()},
                seeds=weights.seeds,
                steps=steps,
                epochs=first_and_last(weights.epochs),
                sample_ids=ids,
                labels=dataset.labels[rows],
                attrs=store_attributes(job.params, layers) | end_attributes(ids, n_sample_set),
            )
            dump_run(job.params, dataset, rows, weights, steps, writer, device)
        write_digest(job.output.store, job.output.digest, writer.hashes)
