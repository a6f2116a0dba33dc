"""Draw the features of a recipe without a network, for its data set's sample set and the held-out samples."""

from featurespace.datasets import load_dataset
from featurespace.ends import end_attributes, end_rows
from featurespace.noise import LAYER, store_attributes, write_noise
from featurespace.script import script_edge
from featurespace.stores import FeatureWriter, store_draft, write_digest

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        dataset = load_dataset(job.input.dataset, job.input.dataset_digest)
        rows, n_sample_set = end_rows(dataset, job.params["sample_set"], job.params["held_out"])
        ids, labels = dataset.sample_ids[rows], dataset.labels[rows]
        for path, digest, n_rows, more in (
            (job.output.store, job.output.digest, n_sample_set, {}),
            (job.output.ends, job.output.ends_digest, len(rows), end_attributes(ids, n_sample_set)),
        ):
            with store_draft(path) as draft:
                writer = FeatureWriter(
                    draft,
                    layers={LAYER: job.params["model"]["width"]},
                    seeds=job.params["seeds"],
                    steps=[0],
                    epochs=[0.0],
                    sample_ids=ids[:n_rows],
                    labels=labels[:n_rows],
                    attrs=store_attributes(job.params) | more,
                )
                write_noise(job.params, n_rows, writer)
            write_digest(path, digest)
