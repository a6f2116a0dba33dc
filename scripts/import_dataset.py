"""Turn a user's own images, arrays or function into `dataset.zarr`, as `prepare_dataset` does for published data."""

from pathlib import Path

from featurespace.own_data import read_own
from featurespace.preparation import rows_per_chunk
from featurespace.script import script_edge
from featurespace.stores import store_draft, write_digest, write_group

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        # Where the data are is no parameter: what they are is.
        section = job.config["datasets"][job.params["name"]]
        source = section.get("folder") or section.get("file")
        spec = {key: value for key, value in job.params.items() if key != "name"}
        places = job.config["module_path"]
        dataset = read_own(spec, Path(source).expanduser() if source else None, places, job.threads)
        with store_draft(job.output.store) as draft:
            write_group(draft, "", dataset, chunks={"sample": rows_per_chunk(dataset)})
        write_digest(job.output.store, job.output.digest, sample_hash=dataset.attrs["sample_hash"])
