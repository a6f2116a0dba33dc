"""The features of a run: what the networks do, computed independently, in a store that says where it comes from."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import synthetic_stores
import torch
import torch.nn.functional as F
import xarray as xr
from snakemake.iocontainers import InputFiles, OutputFiles

from featurespace import extraction
from featurespace.architectures import layer_names
from featurespace.datasets import PreparedDataset, select_sample_set
from featurespace.errors import FeaturespaceError
from featurespace.networks import build_network, initialise
from featurespace.stores import FeatureStore, FeatureWriter, sample_hash, store_draft, write_digest, write_group
from featurespace.training import train_block
from featurespace.weights import KeptWeights, publish, step_file, write_tensors

CPU = torch.device("cpu")
SCRIPTS = Path(__file__).parents[2] / "scripts"
MODELS = {
    "mlp": {"kind": "mlp", "widths": [12, 7], "batch_norm": True},
    "linear": {"kind": "linear", "depth": 4, "width": 9},
    "cnn": {"kind": "cnn", "channels": [4, 6], "hidden": 5, "batch_norm": True},
    "autoencoder": {"kind": "autoencoder", "channels": [4, 6], "latent": 3},
}
N_SAMPLES = 90


@pytest.fixture(scope="module")
def images():
    """Ninety random images of three classes."""
    rng = np.random.default_rng(0)
    ids = np.arange(N_SAMPLES) * 3
    return PreparedDataset(
        images=rng.integers(0, 256, (N_SAMPLES, 1, 8, 8), dtype=np.uint8),
        labels=np.arange(N_SAMPLES) % 3,
        split=(np.arange(N_SAMPLES) % 5 == 0).astype(np.int8),
        sample_ids=ids,
        class_names=["a", "b", "c"],
        offset=0.4,
        scale=0.3,
        sample_hash=sample_hash(ids),
    )


def recipe(model):
    return {
        "recipe": "a-recipe",
        "dataset": "noise",
        "block": 1,
        "task": "reconstruct" if model["kind"] == "autoencoder" else "classify",
        "model": model,
        "init": {"scheme": "default", "scale": 1.0},
        "loss": "mse" if model["kind"] == "autoencoder" else "cross-entropy",
        "output_scale": 1.0,
        "augmentation": None,
        "autocast": None,
        "contrast": None,
        "optimiser": {"kind": "adam", "learning_rate": 1e-2, "weight_decay": 0.0},
        "schedule": {
            "epochs": 2,
            "batch_size": 40,
            "learning_rate_schedule": "constant",
            "final_fraction": 1.0,
            "milestones": [],
            "drop_factor": 0.2,
            "stop_loss": None,
            "keep_every": 1,
            "keep_early": [],
        },
        "noise": None,
        "head": None,
        "dtype": "float32",
        "threads": 1,
        "seeds": [3, 8],
    }


def dump_spec(spec, **changes):
    kept = {
        key: spec[key] for key in ("recipe", "dataset", "block", "task", "model", "head", "dtype", "threads", "seeds")
    }
    return (
        kept
        | {
            "layers": layer_names(spec["model"]),
            "pooling": "average",
            "projection": None,
            "sample_set": {"split": "train", "limit": None},
        }
        | changes
    )


def trained(model, dataset, folder):
    run = train_block(recipe(model), dataset, CPU, folder)
    publish(run.weights, folder / "published", folder / "weights.json", run.facts)
    return KeptWeights(folder / "published", folder / "weights.json")


def dumped(spec, dataset, weights, folder, chunk_bytes=2**20, steps=None):
    rows = np.flatnonzero(dataset.split == 0)
    steps = weights.steps if steps is None else steps
    layers = extraction.layers_of(spec, dataset)
    with store_draft(folder / "features.zarr") as draft:
        writer = FeatureWriter(
            draft,
            layers={name: layer.width for name, layer in layers.items()},
            seeds=weights.seeds,
            steps=steps,
            epochs=[weights.epochs[weights.steps.index(step)] for step in steps],
            sample_ids=dataset.sample_ids[rows],
            labels=dataset.labels[rows],
            attrs=extraction.store_attributes(spec, layers),
            chunk_bytes=chunk_bytes,
        )
        extraction.dump_run(spec, dataset, rows, weights, steps, writer, CPU)
    return FeatureStore.open(folder / "features.zarr")


def features_by_hand(model, state, x):
    """Every tap of one seed's network, from its weights without an axis of seeds, unpooled and in float64."""
    w = {name: tensor.double() for name, tensor in state.items()}
    h = torch.from_numpy(x).double()

    def normalised(h, i):
        return F.batch_norm(
            h, w[f"norm{i}.running_mean"], w[f"norm{i}.running_var"], w[f"norm{i}.weight"], w[f"norm{i}.bias"]
        )

    taps = {}
    match model["kind"]:
        case "mlp":
            h = h.flatten(1)
            for i in (1, 2):
                taps[f"hidden{i}"] = h = normalised(F.linear(h, w[f"hidden{i}.weight"]), i).relu()
        case "linear":
            h = h.flatten(1)
            for i in (1, 2, 3):
                taps[f"linear{i}"] = h = h @ w[f"linear{i}.weight"].T
        case "cnn":
            for i in (1, 2):
                h = normalised(F.conv2d(h, w[f"conv{i}.weight"], padding=1), i).relu()
                taps[f"conv{i}"] = h = F.max_pool2d(h, 2)
            taps["hidden"] = F.linear(h.flatten(1), w["hidden.weight"], w["hidden.bias"]).relu()
        case "autoencoder":
            for i in (1, 2):
                h = F.conv2d(h, w[f"conv{i}.weight"], w[f"conv{i}.bias"], stride=2, padding=1).relu()
                taps[f"conv{i}"] = h
            taps["latent"] = F.linear(h.flatten(1), w["latent.weight"], w["latent.bias"])
    return {layer: tap.numpy() for layer, tap in taps.items()}


@pytest.mark.parametrize("pooling", ["average", "flatten"])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_features_are_what_the_kept_weights_compute(images, tmp_path, monkeypatch, model, pooling):
    monkeypatch.setattr(extraction, "FORWARD_ROWS", 32)
    weights = trained(model, images, tmp_path)
    # chunks of another length for every layer, none of which divides the number of samples
    spec = dump_spec(recipe(model), pooling=pooling)
    store = dumped(spec, images, weights, tmp_path, chunk_bytes=700)
    assert store.layers == tuple(layer_names(model))
    assert list(store.seeds) == [3, 8]
    assert list(store.steps) == [0, 2, 4]
    assert list(store.epochs) == [0, 1, 2]
    assert store.attrs["depths"] == {layer: i for i, layer in enumerate(layer_names(model), start=1)}
    assert (store.attrs["recipe"], store.attrs["dataset"], store.attrs["block"]) == ("a-recipe", "noise", 1)
    assert store.attrs["made_by"] == spec
    x = images.inputs(images.split == 0, np.float64)
    for s, seed in enumerate(weights.seeds):
        for t, step in enumerate(weights.steps):
            state = {name: tensor[0] for name, tensor in weights.read([seed], step).items()}
            for layer, expected in features_by_hand(model, state, x).items():
                if expected.ndim == 4 and pooling == "average":
                    expected = expected.mean((2, 3))
                expected = expected.reshape(len(x), -1)
                np.testing.assert_allclose(store.matrix(layer, s, t), expected, rtol=1e-4, atol=1e-5)


def test_some_layers_can_be_left_out(images, tmp_path):
    weights = trained(MODELS["cnn"], images, tmp_path)
    store = dumped(dump_spec(recipe(MODELS["cnn"]), layers=["conv2", "hidden"]), images, weights, tmp_path)
    assert store.layers == ("conv2", "hidden")
    assert store.attrs["depths"] == {"conv2": 2, "hidden": 3}


def test_some_steps_can_be_left_out(images, tmp_path):
    weights = trained(MODELS["mlp"], images, tmp_path)
    spec = dump_spec(recipe(MODELS["mlp"]))
    whole = dumped(spec, images, weights, tmp_path)
    for name in ("some", "one"):
        (tmp_path / name).mkdir()
    some = dumped(spec, images, weights, tmp_path / "some", steps=[0, 4])
    one = dumped(spec, images, weights, tmp_path / "one", steps=[4])
    assert (list(some.steps), list(some.epochs), list(one.steps)) == ([0, 4], [0, 2], [4])
    np.testing.assert_array_equal(some.matrix("hidden2", 1, 0), whole.matrix("hidden2", 1, 0))
    np.testing.assert_array_equal(some.matrix("hidden2", 1, 1), whole.matrix("hidden2", 1, 2))
    np.testing.assert_array_equal(one.matrix("hidden1", 0, 0), whole.matrix("hidden1", 0, 2))


@pytest.mark.parametrize(
    "heads",
    [{"projection": {"hidden": 6, "width": 4}}, {"head": {"layers": 2, "width": 6}}],
    ids=["projection head", "head"],
)
def test_a_head_among_the_weights_is_loaded_and_left_aside(images, tmp_path, heads):
    model = MODELS["cnn"]
    network = build_network(model, images.input_shape, images.n_classes, 1, **heads)
    initialise(network, "default", 1.0, [torch.Generator().manual_seed(0)])
    state = {name: tensor[0] for name, tensor in network.state_dict().items()}
    write_tensors(tmp_path / "kept" / step_file(3, 0), state)
    facts = {"recipe": "a-recipe", "seeds": [3], "steps": {"3": [0]}, "epochs": {"3": [0.0]}}
    publish(tmp_path / "kept", tmp_path / "published", tmp_path / "weights.json", facts)
    weights = KeptWeights(tmp_path / "published", tmp_path / "weights.json")
    store = dumped(dump_spec(recipe(model), **heads), images, weights, tmp_path)
    x = images.inputs(images.split == 0, np.float64)
    expected = features_by_hand(model, state, x)["hidden"]
    np.testing.assert_allclose(store.matrix("hidden", 0, 0), expected, rtol=1e-4, atol=1e-5)


def test_a_layer_that_is_not_there_is_refused(images):
    with pytest.raises(FeaturespaceError, match="no layer 'conv3' in this cnn: conv1, conv2, hidden"):
        extraction.layers_of(dump_spec(recipe(MODELS["cnn"]), layers=["conv3"]), images)


def test_damaged_weights_are_refused(images, tmp_path):
    weights = trained(MODELS["mlp"], images, tmp_path)
    path = tmp_path / "published" / "seed-8" / "step-00000002.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 16
    path.write_bytes(content)
    with pytest.raises(FeaturespaceError, match=r"seed-8/step-00000002.*recipe 'a-recipe'.*damaged"):
        dumped(dump_spec(recipe(MODELS["mlp"])), images, weights, tmp_path)
    assert not (tmp_path / "features.zarr").exists()


def run_script(name, folder, spec, inputs, outputs):
    """Run a rule's script as Snakemake does, with a stand-in for its object, in a process of its own."""
    job = {"input": inputs, "output": outputs, "spec": spec, "log": str(folder / f"{name}.log")}
    (folder / "job.json").write_text(json.dumps(job))
    code = f"import sys; sys.path[:0] = {[str(SCRIPTS), str(Path(__file__).parent)]!r}; import test_extraction as t; "
    code += f"t.play({str(SCRIPTS / name)!r}, {str(folder / 'job.json')!r})"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def play(script, job_file):
    job = json.loads(Path(job_file).read_text())

    class Params(dict):
        __getattr__ = dict.__getitem__

    stand_in = SimpleNamespace(
        input=InputFiles(fromdict=job["input"]),
        output=OutputFiles(fromdict=job["output"]),
        params=Params(spec=job["spec"], code={"a.py": "1"}),
        log=[job["log"]],
        config={"device": "cpu"},
        threads=1,
    )
    runpy.run_path(script, init_globals={"snakemake": stand_in}, run_name="__main__")


def test_the_scripts_train_and_dump_from_stores_to_stores(images, tmp_path):
    sample = {"sample": images.sample_ids}
    dataset = xr.Dataset(
        {
            "image": (("sample", "channel", "height", "width"), images.images),
            "label": ("sample", images.labels),
            "split": ("sample", images.split),
        },
        sample,
        {"kind": "noise", "class_names": images.class_names, "offset": images.offset, "scale": images.scale}
        | {"sample_hash": images.sample_hash},
    )
    with store_draft(tmp_path / "dataset.zarr") as draft:
        write_group(draft, "", dataset)
    write_digest(tmp_path / "dataset.zarr", tmp_path / "dataset.json")
    data = {"dataset": str(tmp_path / "dataset.zarr"), "dataset_digest": str(tmp_path / "dataset.json")}
    block = tmp_path / "block-1"
    spec = recipe(MODELS["mlp"])
    weights = {"weights": str(block / "weights"), "digest": str(block / "weights.json")}
    done = run_script("train_run.py", tmp_path, spec, data, weights | {"history": str(block / "history.csv")})
    assert done.returncode == 0, done.stderr
    assert not list(block.glob(".*"))
    expected = train_block(spec, images, CPU, tmp_path / "again")
    history = pd.read_csv(block / "history.csv")
    pd.testing.assert_frame_equal(history, pd.DataFrame(expected.history), check_exact=True, check_dtype=False)

    inputs = {f"in_{name}": path for name, path in data.items()}
    inputs |= {"in_weights": weights["weights"], "in_weights_digest": weights["digest"]}
    outputs = {"out_store": str(block / "features.zarr"), "out_digest": str(block / "features.json")}
    synthetic_stores.run_script("dump_features", dump_spec(spec), **inputs, **outputs)
    store = FeatureStore.open(block / "features.zarr", block / "features.json")
    assert list(store.sample_ids) == list(images.sample_ids[images.split == 0])
    opened = xr.open_zarr(block / "features.zarr")
    assert opened["hidden2"].dims == ("seed", "step", "sample", "feature_hidden2")
    assert np.isfinite(opened["hidden2"].to_numpy()).all()

    outputs = {"out_store": str(block / "ends.zarr"), "out_digest": str(block / "ends.json")}
    synthetic_stores.run_script("dump_ends", dump_spec(spec, layers=["hidden2"], held_out=7), **inputs, **outputs)
    ends = FeatureStore.open(block / "ends.zarr", block / "ends.json")
    assert (ends.layers, list(ends.steps), list(ends.epochs)) == (("hidden2",), [0, 4], [0, 2])
    n = ends.attrs["n_sample_set"]
    assert ends.attrs["sample_set_hash"] == store.sample_hash
    assert list(ends.sample_ids[:n]) == list(store.sample_ids)
    held_out = images.sample_ids[select_sample_set(images, "test", 7)]
    assert list(ends.sample_ids[n:]) == list(held_out)
    for i in range(2):
        np.testing.assert_allclose(ends.matrix("hidden2", i, 0)[:n], store.matrix("hidden2", i, 0), atol=1e-6)
        np.testing.assert_allclose(ends.matrix("hidden2", i, 1)[:n], store.matrix("hidden2", i, 2), atol=1e-6)
    kept = KeptWeights(weights["weights"], weights["digest"])
    state = {name: tensor[0] for name, tensor in kept.read([8], 4).items()}
    expected = features_by_hand(spec["model"], state, images.inputs(held_out // 3, np.float64))["hidden2"]
    np.testing.assert_allclose(ends.matrix("hidden2", 1, 1)[n:], expected, rtol=1e-4, atol=1e-5)

    diverging = spec | {"optimiser": spec["optimiser"] | {"learning_rate": 1e30}}
    done = run_script("train_run.py", tmp_path, diverging, data, weights | {"history": str(block / "history.csv")})
    assert done.returncode == 1
    assert "is not finite at step" in done.stderr.strip().splitlines()[-1]


def test_a_write_that_fails_in_the_thread_fails_the_dump(images, tmp_path, monkeypatch):
    weights = trained(MODELS["mlp"], images, tmp_path)

    def write(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(FeatureWriter, "write", write)
    with pytest.raises(OSError, match="Input/output error"):
        dumped(dump_spec(recipe(MODELS["mlp"])), images, weights, tmp_path)
    assert not (tmp_path / "features.zarr").exists()


@pytest.mark.parametrize("bundle_bytes", [1, 2000])
def test_features_do_not_depend_on_how_many_are_written_at_once(images, tmp_path, monkeypatch, bundle_bytes):
    weights, spec = trained(MODELS["mlp"], images, tmp_path), dump_spec(recipe(MODELS["mlp"]))
    monkeypatch.setattr(extraction, "FORWARD_ROWS", 16)
    whole = dumped(spec, images, weights, tmp_path / "whole")
    monkeypatch.setattr(extraction, "BUNDLE_BYTES", bundle_bytes)
    parts = dumped(spec, images, weights, tmp_path / "parts", chunk_bytes=500)
    for layer in whole.layers:
        for seed in range(2):
            for step in range(len(weights.steps)):
                np.testing.assert_array_equal(parts.matrix(layer, seed, step), whole.matrix(layer, seed, step))
