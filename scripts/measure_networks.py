"""Measure what takes a run's weights: NC3, NC4, gradients, training-mode normalisation, and deep linear networks."""

from featurespace.datasets import load_dataset
from featurespace.device import lease_device
from featurespace.files import write_table
from featurespace.network_measures import measure_run
from featurespace.script import script_edge
from featurespace.weights import KeptWeights

if __name__ == "__main__":
    with script_edge(snakemake) as job, lease_device(job.device_preference) as device:
        dataset = load_dataset(job.input.dataset, job.input.dataset_digest)
        weights = KeptWeights(job.input.weights, job.input.weights_digest)
        write_table(job.output.table, measure_run(job.params, dataset, weights, device))
