"""Turn raw data into `dataset.zarr`: uint8 images (or values) with labels, split, sample ids and their hash."""

from pathlib import Path

from featurespace.catalogue import PUBLISHED
from featurespace.preparation import prepare, rows_per_chunk
from featurespace.script import script_edge
from featurespace.stores import store_draft, write_digest, write_group

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        published = PUBLISHED.get(job.params["kind"])
        directory = Path(job.input.manifest).parent if published else None
        dataset = prepare(job.params, published, directory)
        with store_draft(job.output.store) as draft:
            write_group(draft, "", dataset, chunks={"sample": rows_per_chunk(dataset)})
        write_digest(job.output.store, job.output.digest, sample_hash=dataset.attrs["sample_hash"])
