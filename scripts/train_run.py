"""Train a recipe's block of seeds; write the weights it keeps, their digest and its history."""

from pathlib import Path

import pandas as pd

from featurespace.datasets import load_dataset
from featurespace.device import lease_device
from featurespace.files import write_table
from featurespace.script import script_edge
from featurespace.stores import read_digest
from featurespace.training import HISTORY_COLUMNS, forget_others, resume_folder, train_block
from featurespace.weights import forget_when_taken, publish

if __name__ == "__main__":
    with script_edge(snakemake) as job, lease_device(job.device_preference) as device:
        weights = Path(job.output.weights)
        folder = resume_folder(
            weights.parent,
            device,
            params=job.params,
            code=snakemake.params.get("code"),
            data=read_digest(job.input.dataset_digest)["digest"],
        )
        dataset = load_dataset(job.input.dataset, job.input.dataset_digest)
        # no parameter of this job: another choice of layers trains nothing anew
        layers = job.config.get("tapped_layers", {}).get(job.params["recipe"])
        run = train_block(job.params, dataset, device, folder, layers=layers)
        write_table(job.output.history, pd.DataFrame(run.history, columns=HISTORY_COLUMNS))
        publish(run.weights, weights, job.output.digest, run.facts, run.checksums)
        forget_others(folder)
        forget_when_taken(folder)
