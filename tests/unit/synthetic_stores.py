"""Small stores of random features, and a rule's script run on files as Snakemake would run it."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from featurespace.stores import FeatureWriter, store_draft, write_digest

SCRIPTS = Path(__file__).parents[2] / "scripts"
N_SAMPLES = 60


def run_script(name: str, spec: dict, **files: object) -> None:
    """Run a rule's script as Snakemake would: `in_x=` and `out_x=` are its named inputs and outputs."""
    inputs = {key.removeprefix("in_"): value for key, value in files.items() if key.startswith("in_")}
    outputs = {key.removeprefix("out_"): value for key, value in files.items() if key.startswith("out_")}
    job = SimpleNamespace(
        input=SimpleNamespace(**inputs),
        output=SimpleNamespace(**outputs),
        params=SimpleNamespace(spec=spec),
        config={"device": "cpu"},
        threads=1,
        log=[],
    )
    runpy.run_path(str(SCRIPTS / f"{name}.py"), {"snakemake": job}, run_name="__main__")


def make_features(folder: Path, recipe: str, layers: dict[str, int], *, n_seeds=1, n_steps=1, n_samples=N_SAMPLES):
    """Write a feature store of random features and its digest."""
    generator = np.random.default_rng(len(recipe))
    labels = np.arange(n_samples) % 3
    folder.mkdir(parents=True)
    with store_draft(folder / "features.zarr") as draft:
        writer = FeatureWriter(
            draft,
            layers=layers,
            seeds=np.arange(n_seeds),
            steps=np.arange(n_steps) * 5,
            epochs=np.arange(n_steps) / 4,
            sample_ids=np.arange(n_samples) + 7,
            labels=labels,
            attrs={
                "dataset": "toy",
                "recipe": recipe,
                "block": 0,
                "depths": {layer: 0 if layer == "input" else i + 1 for i, layer in enumerate(layers)},
                "made_by": {},
            },
            chunk_bytes=800,
        )
        for layer, d in layers.items():
            for i in range(n_seeds):
                for j in range(n_steps):
                    block = 2 + labels[:, None] + generator.normal(size=(n_samples, d))
                    # The first step of the last layer is dead.
                    dead = j == 0 and n_steps > 1 and layer == list(layers)[-1]
                    writer.write(layer, i, j, 0, (block * (not dead)).astype(np.float32))
    write_digest(folder / "features.zarr", folder / "features.json")


def decompose(folder: Path, spectrum: str = "whole") -> None:
    run_script(
        "decompose_features",
        {"vectors": 4, "spectrum": spectrum},
        in_store=str(folder / "features.zarr"),
        in_digest=str(folder / "features.json"),
        out_store=str(folder / "spectra.zarr"),
        out_digest=str(folder / "spectra.json"),
        out_table=str(folder / "spectra.csv"),
    )
