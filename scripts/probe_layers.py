"""Probe the layers of a run's networks: how well a linear map reads the classes, of its own data and of others."""

from featurespace.datasets import load_dataset
from featurespace.device import lease_device
from featurespace.files import write_table
from featurespace.layer_probes import probe_run
from featurespace.script import script_edge
from featurespace.weights import KeptWeights

if __name__ == "__main__":
    with script_edge(snakemake) as job, lease_device(job.device_preference) as device:
        digests = job.input.dataset_digests
        datasets = [load_dataset(path, digest) for path, digest in zip(job.input.datasets, digests, strict=True)]
        weights = KeptWeights(job.input.weights, job.input.weights_digest)
        write_table(job.output.table, probe_run(job.params, datasets, weights, device))
