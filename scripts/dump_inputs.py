"""Dump the network input of the sample set as a feature store with the one layer `input`, as if it were a run."""

from math import prod

import numpy as np

from featurespace.architectures import INPUT_LAYER
from featurespace.datasets import load_dataset, select_sample_set
from featurespace.script import script_edge
from featurespace.stores import FeatureWriter, store_draft, write_digest

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        dataset = load_dataset(job.input.dataset, job.input.dataset_digest)
        rows = select_sample_set(dataset, **job.params["sample_set"])
        attrs = {
            "dataset": job.params["dataset"],
            "recipe": "data",
            "block": 0,
            "depths": {INPUT_LAYER: 0},
            "made_by": job.params,
        }
        with store_draft(job.output.store) as draft:
            writer = FeatureWriter(
                draft,
                layers={INPUT_LAYER: prod(dataset.input_shape)},
                seeds=np.array([0]),
                steps=np.array([0]),
                epochs=np.array([0.0]),
                sample_ids=dataset.sample_ids[rows],
                labels=dataset.labels[rows],
                attrs=attrs,
            )
            n_rows = writer.rows_per_chunk[INPUT_LAYER]
            for start in range(0, len(rows), n_rows):
                block = dataset.inputs(rows[start : start + n_rows])
                writer.write(INPUT_LAYER, 0, 0, start, block.reshape(len(block), -1))
        write_digest(job.output.store, job.output.digest, writer.hashes)
