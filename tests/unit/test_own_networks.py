"""Networks that are built elsewhere: what they see, how they begin and train, their layers, and what is refused."""

import random

import numpy as np
import own_nets
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from featurespace import training
from featurespace.architectures import matches_layer
from featurespace.datasets import PreparedDataset
from featurespace.errors import FeaturespaceError
from featurespace.extraction import layers_of, pool
from featurespace.layer_probes import probe_run
from featurespace.network_measures import measure_run
from featurespace.networks import OwnNetwork, build_network, initialise
from featurespace.own_networks import seeded
from featurespace.training import Trainer, train_block
from featurespace.weights import KeptWeights, publish

CPU = torch.device("cpu")


def own(name, inputs=None, **arguments):
    return {"kind": "module", "factory": f"own_nets:{name}", "arguments": arguments, "inputs": inputs}


def library(kind, name, inputs=None, **arguments):
    return {"kind": kind, "name": name, "arguments": arguments, "inputs": inputs}


def network_of(model, input_shape=(1, 8, 8), dtype=torch.float64):
    network = build_network(model, input_shape, 10, 1, dtype)
    initialise(network, "default", 1.0, [torch.Generator().manual_seed(5)])
    return network.eval()


def images(n=5, dtype=torch.float64):
    return torch.randn(1, n, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.fixture(scope="module")
def dataset():
    draws = np.random.default_rng(0)
    return PreparedDataset(
        images=draws.integers(0, 256, (60, 1, 8, 8), dtype=np.uint8),
        labels=np.arange(60) % 10,
        split=(np.arange(60) % 3 == 2).astype(np.int8),
        sample_ids=np.arange(60),
        class_names=[str(k) for k in range(10)],
        offset=0.0,
        scale=1.0,
        sample_hash="",
    )


def recipe(model, task="classify", **changes):
    spec = {
        "recipe": "mine",
        "dataset": "noise",
        "block": 0,
        "seeds": [0],
        "task": task,
        "model": model,
        "init": {"scheme": "default", "scale": 1.0},
        "loss": None if task in ("untrained", "saved") else "mse" if task == "reconstruct" else "cross-entropy",
        "output_scale": 1.0,
        "head": None,
        "noise": None,
        "augmentation": None,
        "autocast": None,
        "contrast": None,
        "dtype": "float32",
        "threads": 1,
        "optimiser": {"kind": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.01},
        "schedule": {
            "epochs": 3,
            "batch_size": 20,
            "learning_rate_schedule": "constant",
            "final_fraction": 0.1,
            "milestones": [],
            "drop_factor": 0.2,
            "stop_loss": None,
            "keep_every": 1,
            "keep_early": [],
        },
    }
    if task in ("untrained", "saved"):
        spec |= {"optimiser": None, "schedule": None}
    return spec | changes


def dump_spec(spec, layers, feature_layer, **changes):
    return (
        {key: spec[key] for key in ("recipe", "dataset", "block", "seeds", "model", "head", "dtype", "threads")}
        | {"layers": layers, "taps": layers, "feature_layer": feature_layer, "pooling": "average", "projection": None}
        | {"sample_set": {"split": "train", "limit": None}}
        | changes
    )


def kept(run, folder):
    publish(run.weights, folder / "published", folder / "weights.json", run.facts)
    return KeptWeights(folder / "published", folder / "weights.json")


# --- what they compute ---


def test_taps_are_what_a_forward_pass_by_hand_gives():
    network = network_of(own("Tokens"))
    network.tap(["**"])
    x = images()
    prediction, taps = network(x)
    state = {name: tensor[0] for name, tensor in network.state_dict().items()}
    rows = x[0].squeeze(1)
    h = torch.cat([state["token"].expand(5, -1, -1), rows], 1)
    q, k, v = (F.linear(h, state["attention.in_proj_weight"], state["attention.in_proj_bias"])).chunk(3, -1)
    heads = []
    for i in range(2):
        part = slice(4 * i, 4 * i + 4)
        weights = (q[..., part] @ k[..., part].transpose(1, 2) / 4**0.5).softmax(-1)
        heads.append(weights @ v[..., part])
    attended = F.linear(torch.cat(heads, -1), state["attention.out_proj.weight"], state["attention.out_proj.bias"])
    h = h + attended
    h = (h - h.mean(-1, keepdim=True)) / (h.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    h = h * state["norm.weight"] + state["norm.bias"]
    assert list(taps) == ["attention", "norm", "head"]  # the projection within runs as a function, and is no layer
    torch.testing.assert_close(taps["attention"][0], attended)
    torch.testing.assert_close(taps["norm"][0], h)
    torch.testing.assert_close(prediction[0], F.linear(h[:, 0], state["head.weight"], state["head.bias"]))
    torch.testing.assert_close(pool(taps["norm"], "average")[0], h.mean(1))
    torch.testing.assert_close(pool(taps["norm"], "flatten")[0], h.flatten(1))


def test_a_layer_is_what_its_module_gave_whatever_works_on_it_in_place():
    network = network_of(own("Convolutional"))
    network.tap(["norm", "relu", "conv", "blocks.*"])
    _, taps = network(images())
    state = {name: tensor[0] for name, tensor in network.state_dict().items()}
    conv = F.conv2d(images()[0], state["conv.weight"], state["conv.bias"], padding=1)
    norm = (conv / (1 + 1e-5) ** 0.5) * state["norm.weight"][:, None, None] + state["norm.bias"][:, None, None]
    h = norm.relu()
    blocks = []
    for i in range(3):
        h = F.conv2d(h, state[f"blocks.{i}.weight"], state[f"blocks.{i}.bias"])
        blocks.append(h)
    assert list(taps) == ["conv", "norm", "blocks.0", "blocks.1", "blocks.2", "relu"]
    assert (norm < 0).any()
    torch.testing.assert_close(taps["norm"][0], norm)  # not rectified
    torch.testing.assert_close(taps["blocks.2"][0], blocks[2])
    torch.testing.assert_close(taps["relu"][0], h.relu())  # of its two runs the last
    torch.testing.assert_close(pool(taps["conv"], "average")[0], conv.mean((2, 3)))


def test_what_comes_in_is_left_as_it_was():
    class InPlace(nn.Module):
        def forward(self, x):
            return x.zero_().flatten(1)[:, :10]

    own_nets.InPlace = InPlace
    x = images()
    before = x.clone()
    network_of(own("InPlace"))(x)
    assert torch.equal(x, before)


def test_images_are_changed_as_the_recipe_says():
    model = library("torchvision", "squeezenet1_1", {"channels": 3, "side": 33})
    network = network_of(model)
    network.tap(["features.0"])
    _, taps = network(images())
    resized = F.interpolate(images()[0], size=(33, 33), mode="bilinear", antialias=True).expand(-1, 3, -1, -1)
    state = {name: tensor[0] for name, tensor in network.state_dict().items()}
    conv = F.conv2d(resized, state["features.0.weight"], state["features.0.bias"], stride=2)
    torch.testing.assert_close(taps["features.0"][0], conv)


def test_a_library_s_network_has_the_parameters_it_begins_with_there():
    import timm

    network = network_of(library("timm", "test_vit", img_size=16), (1, 16, 16), torch.float32)
    with seeded(5):
        theirs = timm.create_model("test_vit", num_classes=10, in_chans=1, img_size=16).eval()
    x = torch.randn(1, 4, 1, 16, 16)
    network.tap(["blocks.*", "norm"])
    prediction, taps = network(x)
    assert taps["blocks.0"].shape == (1, 4, 2, 64)  # a class token, and one of a patch
    torch.testing.assert_close(prediction[0], theirs(x[0]))


def test_a_function_gets_what_it_names():
    network = build_network(own("offered", width=6), (1, 8, 8), 7, 1)
    assert network.state_dict()["1.weight"].shape == (1, 6, 64)
    assert network.state_dict()["2.weight"].shape == (1, 7, 6)


# --- how they begin, and how they train ---


def test_the_seed_decides_the_beginning_and_the_global_generators_stay():
    torch.manual_seed(11)
    random.seed(11)
    np.random.seed(11)  # noqa: NPY002
    expected = torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002
    torch.manual_seed(11)
    random.seed(11)
    np.random.seed(11)  # noqa: NPY002
    states = []
    for seed in (1, 1, 2):
        network = build_network(own("dense"), (1, 8, 8), 10, 1)
        initialise(network, "default", 1.0, [torch.Generator().manual_seed(seed)])
        states.append(network.state_dict())
    assert (torch.rand(1), random.random(), np.random.rand()) == expected  # noqa: NPY002
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["1.weight"], states[2]["1.weight"])


def by_hand(module, dataset, n_steps, learning_rate):
    """Train a plain module by gradient descent on the whole split."""
    rows = dataset.split == 0
    x = torch.from_numpy(dataset.images[rows] / 255)
    y = torch.from_numpy(dataset.labels[rows])
    parameters = [p for p in module.parameters() if p.requires_grad]
    for _ in range(n_steps):
        module.train()
        gradients = torch.autograd.grad(F.cross_entropy(module(x), y), parameters, allow_unused=True)
        with torch.no_grad():
            for p, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    p -= learning_rate * gradient
    return module.state_dict()


@pytest.mark.parametrize("name", ["dense", "Tokens", "Recurrent", "Convolutional", "Counter"])
def test_training_is_that_of_the_plain_module(dataset, tmp_path, name):
    spec = recipe(own(name), dtype="float64")
    spec["schedule"] |= {"batch_size": None, "epochs": 4}
    spec["optimiser"] |= {"momentum": 0.0, "weight_decay": 0.0}
    weights = kept(train_block(spec, dataset, CPU, tmp_path / "run"), tmp_path)
    factory = getattr(own_nets, name)
    plain = (factory(num_classes=10)).double()
    plain.load_state_dict({key: tensor[0] for key, tensor in weights.read([0], 0).items()})
    expected = by_hand(plain, dataset, 4, 0.1)
    for key, tensor in weights.read([0], 4).items():
        torch.testing.assert_close(tensor[0], expected[key], msg=key)


def test_what_shares_a_tensor_still_does_after_training(dataset, tmp_path):
    spec = recipe(own("Tied"), task="reconstruct")
    run = train_block(spec, dataset, CPU, tmp_path / "run")
    state = kept(run, tmp_path).read([0], 6)
    assert torch.equal(state["encoder.weight"], state["same.weight"])
    assert run.facts["n_parameters"] == 5 * 64
    losses = [row["relative_loss"] for row in run.history]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_run_that_is_cut_short_ends_as_one_that_is_not(dataset, tmp_path, monkeypatch, dropout):
    spec = recipe(own("Tokens", dropout=dropout))
    whole = train_block(spec, dataset, CPU, tmp_path / "whole")
    keep = Trainer._keep

    def cut(self, step):
        if step == 4:
            raise KeyboardInterrupt
        keep(self, step)

    monkeypatch.setattr(Trainer, "_keep", cut)
    with pytest.raises(KeyboardInterrupt):
        train_block(spec, dataset, CPU, tmp_path / "cut", save_seconds=0)
    monkeypatch.setattr(Trainer, "_keep", keep)
    torch.rand(17)  # whatever else was drawn
    resumed = train_block(spec, dataset, CPU, tmp_path / "cut", save_seconds=0)
    assert str(resumed.history) == str(whole.history)  # as text, where what is missing is itself
    for path in sorted(whole.weights.glob("*/*")):
        assert (resumed.weights / path.relative_to(whole.weights)).read_bytes() == path.read_bytes()


def test_what_is_drawn_in_a_step_is_the_seed_s_and_the_step_s_alone(dataset, tmp_path):
    for seed in (0, 1):
        spec = recipe(own("Tokens", dropout=0.5), seeds=[seed])
        trainer = Trainer(spec, dataset, [seed], CPU, tmp_path / str(seed))
        drawn = []
        for step in (0, 1, 0):
            with trainer._drawing(step):
                drawn.append(torch.rand(4))
        assert torch.equal(drawn[0], drawn[2])
        assert not torch.equal(drawn[0], drawn[1])


def test_measures_and_probes_are_those_of_the_same_network_of_the_library(dataset, tmp_path):
    theirs = recipe({"kind": "mlp", "widths": [8], "batch_norm": False})
    ours = recipe(own("dense"), recipe="mine")
    weights = kept(train_block(theirs, dataset, CPU, tmp_path / "run"), tmp_path)
    names = {
        "hidden1.weight": "1.weight",
        "hidden1.bias": "1.bias",
        "output.weight": "3.weight",
        "output.bias": "3.bias",
    }

    class Renamed:
        seeds, steps, epochs = weights.seeds, weights.steps, weights.epochs

        def read(self, seeds, step):
            return {names[name]: tensor for name, tensor in weights.read(seeds, step).items()}

    also = {"task": "classify", "loss": "cross-entropy", "output_scale": 1.0, "batch_size": 20, "rank_energy": 0.95}
    also |= {"targets": ["noise"], "regularisation": 1e-3, "silhouette_samples": 30}
    spec = dump_spec(theirs, ["hidden1"], "hidden1", **also)
    expected = measure_run(spec, dataset, weights, CPU)
    mine = dump_spec(ours, ["2"], "2", **also)
    found = measure_run(mine, dataset, Renamed(), CPU)
    assert found["quantity"].tolist() == expected["quantity"].tolist()
    assert "nc3" in set(found["quantity"])
    assert found["depth"].dropna().tolist() == expected["depth"].dropna().tolist() == [1.0, 1.0] * 2
    np.testing.assert_allclose(found["value"], expected["value"], rtol=1e-5)
    probes = [probe_run(one, [dataset], w, CPU) for one, w in ((spec, weights), (mine, Renamed()))]
    for column in ("depth", "train_accuracy", "test_accuracy", "silhouette"):
        np.testing.assert_allclose(probes[0][column], probes[1][column], rtol=1e-4, atol=1e-6)


def test_nc3_is_not_asked_of_a_layer_that_the_readout_does_not_read(dataset, tmp_path):
    spec = recipe(own("dense"))
    weights = kept(train_block(spec, dataset, CPU, tmp_path / "run"), tmp_path)
    also = {"task": "classify", "loss": "cross-entropy", "output_scale": 1.0, "batch_size": 20, "rank_energy": 0.95}
    table = measure_run(dump_spec(spec, ["1", "2"], "1", **also), dataset, weights, CPU)
    assert "nc3" not in set(table["quantity"])


# --- layers ---


@pytest.mark.parametrize(
    "glob, path, fits",
    [
        ("blocks.*", "blocks.3", True),
        ("blocks.*", "blocks.3.norm", False),
        ("blocks.*.norm", "blocks.3.norm", True),
        ("blocks.**", "blocks.3.norm", True),
        ("**", "a.b.c", True),
        ("**.norm", "norm", True),
        ("layer?.1", "layer4.1", True),
        ("layer?.1", "layer14.1", False),
        ("layer[12]", "layer3", False),
        ("Blocks.*", "blocks.3", False),
        ("blocks", "blocks.3", False),
    ],
)
def test_globs_keep_to_their_part(glob, path, fits):
    assert matches_layer(glob, path) == fits


def test_depth_counts_the_layers_of_the_recipe_in_the_order_in_which_they_run(dataset):
    spec = dump_spec(recipe(own("Convolutional")), ["output", "blocks.*", "conv"], "output")
    found = {name: (layer.width, layer.depth) for name, layer in layers_of(spec, dataset).items()}
    assert found == {"conv": (3, 1), "blocks.0": (3, 2), "blocks.1": (3, 3), "blocks.2": (3, 4), "output": (10, 5)}
    one = layers_of({**spec, "layers": ["output"]}, dataset)
    assert {name: layer.depth for name, layer in one.items()} == {"output": 5}
    flat = layers_of({**spec, "layers": ["conv"], "pooling": "flatten"}, dataset)
    assert flat["conv"].width == 3 * 64


@pytest.mark.parametrize(
    "name, layer, said",
    [
        ("Convolutional", "block.1", "no module 'block.1' in this network; there are, the nearest first: blocks.1"),
        ("Convolutional", "layer?.1", "no module 'layer?.1'"),
        ("Convolutional", "spare", "'spare' is in this network, but is not run"),
        ("Convolutional", "blocks", "'blocks' is in this network, but is not run"),
        ("Recurrent", "turn", "a first dimension of 8 for 3 samples"),
    ],
)
def test_a_wrong_layer_ends_in_one_line_that_lists_those_there_are(dataset, tmp_path, name, layer, said):
    with pytest.raises(FeaturespaceError) as caught:
        train_block(
            recipe(own(name)),
            dataset,
            CPU,
            tmp_path / "run",
            layers=["head", layer] if name == "Recurrent" else [layer],
        )
    message = str(caught.value)
    assert message.startswith("layers: ")
    assert said in message
    assert "output" in message or "head" in message
    assert not (tmp_path / "run/weights").exists()  # nothing was trained


def test_a_long_list_is_shortened():
    network = build_network(library("torchvision", "mobilenet_v2"), (3, 8, 8), 10, 1)
    with pytest.raises(FeaturespaceError, match=r"nearest first: features\.18, .* and \d\d\d? more$"):
        network.tap(["feature.18"])


def test_names_that_stores_need_are_no_layers():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.label = nn.Linear(64, 10)

        def forward(self, x):
            return self.label(x.flatten(1))

    own_nets.Named = Named
    with pytest.raises(FeaturespaceError, match="'label' cannot be a layer"):
        network_of(own("Named")).tap(["*"])


# --- what is refused ---


@pytest.mark.parametrize(
    "model, said",
    [
        (own("dens"), "own_nets has no 'dens'; there are, the nearest first: dense"),
        ({**own("dense"), "factory": "no_such_nets:dense"}, "no_such_nets cannot be imported: ModuleNotFoundError"),
        (own("dense", widht=3), "own_nets:dense cannot be built with (num_classes=10, widht=3): TypeError: "),
        (own("fails"), "RuntimeError: out of luck (own_nets.py:136)"),
        (own("no_module"), "gives a int, where a torch.nn.Module is needed"),
        (own("nn.Linear", in_features=1, out_features=1), "fails on inputs of shape (3, 1, 8, 8): RuntimeError"),
        (own("Wrapped", kind="tuple"), "returns a tuple where one tensor is needed"),
        (own("Wrapped", kind="dict"), "returns a dict where one tensor is needed"),
        (own("Wrapped", kind="number"), "returns a tensor of shape () for 3 samples"),
        (own("Wrapped", kind="transposed"), "returns a tensor of shape (10, 3) for 3 samples"),
        (own("Wrapped", kind="random"), "gives random answers in evaluation mode"),
        (own("Wrapped", kind="wide"), "returns numbers of shape (7,) for a sample, where task classify needs (10,)"),
        (own("Wrapped", kind="fails"), "fails on inputs of shape (3, 1, 8, 8): RuntimeError: "),
        (own("Frozen"), "has no parameter that takes a gradient"),
        (own("random_width"), "is another network each time it is built"),
        (
            library("timm", "vit_tinny_patch16_224"),
            "timm has no network 'vit_tinny_patch16_224'; there are, the nearest",
        ),
        (library("torchvision", "mobilenet_v9"), "torchvision has no network 'mobilenet_v9'; there are, the nearest"),
    ],
)
def test_a_network_that_cannot_be_trained_ends_in_one_line(dataset, tmp_path, model, said):
    with pytest.raises(FeaturespaceError) as caught:
        train_block(recipe(model), dataset, CPU, tmp_path / "run")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_reconstruction_has_the_shape_of_the_sample(dataset, tmp_path):
    with pytest.raises(FeaturespaceError, match=r"needs \(1, 8, 8\), as the sample has"):
        train_block(recipe(own("dense"), task="reconstruct"), dataset, CPU, tmp_path / "run")


@pytest.mark.parametrize("name, has_loss, has_accuracy", [("dense", True, True), ("Tied", True, False)])
def test_an_untrained_network_is_evaluated_as_what_it_is(dataset, tmp_path, name, has_loss, has_accuracy):
    run = train_block(recipe(own(name), task="untrained"), dataset, CPU, tmp_path / "run")
    (row,) = run.history
    assert np.isfinite(row["train_loss"]) == has_loss
    assert np.isfinite(row["train_accuracy"]) == has_accuracy


def test_an_untrained_network_that_neither_classifies_nor_reconstructs_is_not_evaluated(dataset, tmp_path):
    run = train_block(recipe(own("Wrapped", kind="wide"), task="untrained"), dataset, CPU, tmp_path / "run")
    (row,) = run.history
    assert np.isnan(row["train_loss"])
    assert np.isfinite(row["weight_norm"])


def test_a_network_on_another_precision_has_all_of_it():
    network = network_of(own("Counter"))
    assert isinstance(network, OwnNetwork)
    assert {tensor.dtype for tensor in network.state_dict().values()} == {torch.float64}
    assert not network.requires_grad_(True).state_dict(keep_vars=True)["fixed"].requires_grad
    assert training.FORWARD not in (training.INIT, training.ORDER, training.EVALUATION_ORDER)


def test_a_network_may_leave_its_sizes_to_the_first_samples():
    states = [network_of(own("lazy")).state_dict() for _ in range(2)]
    assert states[0]["1.weight"].shape == (1, 6, 64)
    assert torch.equal(states[0]["1.weight"], states[1]["1.weight"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["Tokens", "Recurrent", "Convolutional", "Counter"])
def test_a_gpu_trains_the_same_network(dataset, tmp_path, name):
    spec = recipe(own(name), dtype="float64")
    runs = [train_block(spec, dataset, torch.device(where), tmp_path / where) for where in ("cpu", "cuda")]
    for before, after in zip(runs[0].history, runs[1].history, strict=True):
        for key in ("train_loss", "test_loss", "weight_norm"):
            assert after[key] == pytest.approx(before[key], rel=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_what_is_drawn_on_a_gpu_is_the_step_s_too(dataset, tmp_path):
    spec = recipe(own("Tokens", dropout=0.5))
    runs = [train_block(spec, dataset, torch.device("cuda"), tmp_path / name) for name in ("a", "b")]
    for key in ("train_loss", "weight_norm"):
        assert [row[key] for row in runs[0].history] == pytest.approx([row[key] for row in runs[1].history], rel=1e-4)
