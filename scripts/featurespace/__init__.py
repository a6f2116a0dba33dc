"""The library that featurespace's rules share: importable, and tested, without Snakemake."""
