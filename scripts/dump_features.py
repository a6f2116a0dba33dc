"""Dump the features of a run: every tapped layer, at every kept step, for its data set's sample set."""

from pathlib import Path

from featurespace.datasets import load_dataset, select_sample_set
from featurespace.device import lease_device
from featurespace.extraction import dump_run, layers_of, store_attributes
from featurespace.script import script_edge
from featurespace.stores import FeatureWriter, store_draft, write_digest
from featurespace.weights import KeptWeights, forget_taken

if __name__ == "__main__":
    with script_edge(snakemake) as job, lease_device(job.device_preference) as device:
        dataset = load_dataset(job.input.dataset, job.input.dataset_digest)
        weights = KeptWeights(job.input.weights, job.input.weights_digest)
        forget_taken(Path(job.input.weights).parent)
        rows = select_sample_set(dataset, job.params["sample_set"]["split"], job.params["sample_set"]["limit"])
        layers = layers_of(job.params, dataset)
        with store_draft(job.output.store) as draft:
            writer = FeatureWriter(
                draft,
                layers={name: layer.width for name, layer in layers.items()},
                seeds=weights.seeds,
                steps=weights.steps,
                epochs=weights.epochs,
                sample_ids=dataset.sample_ids[rows],
                labels=dataset.labels[rows],
                attrs=store_attributes(job.params, layers),
            )
            dump_run(job.params, dataset, rows, weights, weights.steps, writer, device)
        write_digest(job.output.store, job.output.digest, writer.hashes)
