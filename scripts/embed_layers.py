"""Map the layers of a run's first network to the plane, and measure how apart the classes lie in each."""

from featurespace.embedding import embed_layers
from featurespace.files import write_table
from featurespace.script import script_edge
from featurespace.stores import FeatureStore, read_group

if __name__ == "__main__":
    with script_edge(snakemake) as job:
        class_names = list(read_group(job.input.dataset, digest=job.input.dataset_digest).attrs["class_names"])
        store = FeatureStore.open(job.input.store, job.input.digest)
        write_table(job.output.table, embed_layers(store, class_names, job.params))
