"""The networks: their layers, the independence of stacked seeds, their initialisation."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from featurespace import networks
from featurespace.architectures import layer_names, minimum_side
from featurespace.errors import FeaturespaceError
from featurespace.networks import BatchNorm, Dense, Inputs, build_network, initialise, scale_inputs, stacks_of

MODELS = {
    "mlp": {"kind": "mlp", "widths": [12, 7], "batch_norm": False},
    "mlp with batch norm": {"kind": "mlp", "widths": [12, 7], "batch_norm": True},
    "linear": {"kind": "linear", "depth": 4, "width": 9},
    "hybrid": {"kind": "hybrid", "nonlinear": 2, "linear": 3, "width": 7, "batch_norm": False},
    "hybrid with batch norm": {"kind": "hybrid", "nonlinear": 1, "linear": 2, "width": 7, "batch_norm": True},
    "hybrid without linear layers": {"kind": "hybrid", "nonlinear": 2, "linear": 0, "width": 7, "batch_norm": True},
    "cnn": {"kind": "cnn", "channels": [4, 6], "hidden": 5, "batch_norm": True},
    "autoencoder": {"kind": "autoencoder", "channels": [4, 6], "latent": 3},
}

PROJECTIONS = {"as wide": {"hidden": None, "width": 4}, "wider": {"hidden": 9, "width": 4}}
HEADS = {
    "as wide": {"layers": 3, "width": None},
    "wider": {"layers": 2, "width": 9},
    "of one": {"layers": 1, "width": 4},
}


def generators(seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def initialised(model, shape, seeds, scheme="default", scale=1.0, dtype=torch.float32, **heads):
    network = build_network(model, shape, n_classes=3, n_seeds=len(seeds), dtype=dtype, **heads)
    initialise(network, scheme, scale, generators(seeds))
    return network


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_taps_are_the_layers_that_the_architecture_names_in_order_of_depth(model):
    network = initialised(model, (1, 8, 8), [0])
    prediction, taps = network(torch.rand(1, 5, 1, 8, 8))
    assert list(taps) == layer_names(model)
    assert all(tap.shape[:2] == (1, 5) for tap in taps.values())
    assert prediction.shape == ((1, 5, 1, 8, 8) if model["kind"] == "autoencoder" else (1, 5, 3))


def test_taps_have_the_documented_shapes():
    _, taps = initialised(MODELS["cnn"], (2, 9, 8), [0])(torch.rand(1, 5, 2, 9, 8))
    assert [tuple(tap.shape) for tap in taps.values()] == [(1, 5, 4, 4, 4), (1, 5, 6, 2, 2), (1, 5, 5)]
    _, taps = initialised(MODELS["autoencoder"], (2, 9, 8), [0])(torch.rand(1, 5, 2, 9, 8))
    assert [tuple(tap.shape) for tap in taps.values()] == [(1, 5, 4, 5, 4), (1, 5, 6, 3, 2), (1, 5, 3)]
    assert all((taps[f"conv{i}"] >= 0).all() for i in (1, 2))
    assert (taps["latent"] < 0).any()


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 7, 5), (1, 1, 3)])
def test_autoencoder_gives_back_the_shape_of_its_input(shape):
    model = {"kind": "autoencoder", "channels": [2, 3, 4], "latent": 3}
    assert initialised(model, shape, [0])(torch.rand(1, 2, *shape))[0].shape == (1, 2, *shape)


@pytest.mark.parametrize("name", ["mlp", "mlp with batch norm", "linear", "hybrid", "hybrid with batch norm"])
def test_stacked_networks_are_the_single_ones(name):
    x = torch.rand(3, 10, 1, 4, 4, dtype=torch.float64)
    stacked = initialised(MODELS[name], (1, 4, 4), [5, 6, 7], dtype=torch.float64)
    prediction, taps = stacked(x)
    for s, seed in enumerate([5, 6, 7]):
        single = initialised(MODELS[name], (1, 4, 4), [seed], dtype=torch.float64)
        expected, expected_taps = single(x[s : s + 1])
        torch.testing.assert_close(prediction[s : s + 1], expected, rtol=1e-12, atol=1e-14)
        for layer, tap in expected_taps.items():
            torch.testing.assert_close(taps[layer][s : s + 1], tap, rtol=1e-12, atol=1e-14)
        assert torch.equal(dict(stacked.named_parameters())["output.weight"][s], single["output"].weight[0])


@pytest.mark.parametrize("name", ["mlp with batch norm", "hybrid with batch norm"])
def test_no_gradient_of_one_seed_reaches_another(name):
    network = initialised(MODELS[name], (6,), [0, 1])
    network(torch.rand(2, 9, 6))[0][0].square().sum().backward()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert not parameter.grad[1].any()
    assert network["output"].weight.grad[0].any()


def test_batch_norm_is_pytorch_s_for_each_seed():
    ours = BatchNorm(2, 3, {"dtype": torch.float64})
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    y = ours(x)
    for s in range(2):
        theirs = nn.BatchNorm1d(3, dtype=torch.float64)
        torch.testing.assert_close(y[s], theirs(x[s]))
        torch.testing.assert_close(ours.running_mean[s], theirs.running_mean)
        torch.testing.assert_close(ours.running_var[s], theirs.running_var)
        torch.testing.assert_close(ours.eval()(x)[s], theirs.eval()(x[s]))
    images = torch.randn(1, 7, 3, 2, 2, dtype=torch.float64)
    theirs = nn.BatchNorm2d(3, dtype=torch.float64)
    torch.testing.assert_close(BatchNorm(1, 3, {"dtype": torch.float64})(images)[0], theirs(images[0]))


def test_default_initialisation_has_pytorch_s_bounds():
    torch.manual_seed(0)
    model = {"kind": "autoencoder", "channels": [64, 128], "latent": 200}
    network = initialised(model, (1, 8, 8), [0])
    theirs = {
        "conv2": nn.Conv2d(64, 128, 3),
        "latent": nn.Linear(512, 200),
        "deconv2": nn.ConvTranspose2d(128, 64, 3),
    }
    for name, layer in theirs.items():
        for ours, other in ((network[name].weight[0], layer.weight), (network[name].bias[0], layer.bias)):
            assert ours.shape == other.shape
            assert ours.abs().max().item() == pytest.approx(other.abs().max().item(), rel=0.1)
            assert ours.abs().mean().item() == pytest.approx(other.abs().mean().item(), rel=0.2)


@pytest.mark.parametrize("name", ["mlp with batch norm", "linear", "hybrid", "cnn", "autoencoder"])
def test_default_initialisation_draws_weight_and_bias_of_each_layer_in_turn(name):
    state = initialised(MODELS[name], (1, 8, 8), [5]).state_dict()
    generator = torch.Generator().manual_seed(5)
    for key, tensor in state.items():
        layer, _, kind = key.partition(".")
        if layer.startswith("norm"):
            assert torch.equal(tensor, torch.full_like(tensor, float(kind in ("weight", "running_var"))))
            continue
        bound = state[f"{layer}.weight"][0, 0].numel() ** -0.5
        assert torch.equal(tensor[0], torch.empty(tensor.shape[1:]).uniform_(-bound, bound, generator=generator))


@pytest.mark.parametrize("name", ["mlp", "linear", "hybrid with batch norm", "cnn"])
def test_orthogonal_initialisation_has_equal_singular_values_and_no_bias(name):
    seeds = [0] if name == "cnn" else [0, 1]
    network = initialised(MODELS[name], (1, 8, 8), seeds, "orthogonal", 0.3, torch.float64)
    for key, parameter in network.named_parameters():
        if key.endswith("bias"):
            assert not parameter.any()
        elif not key.startswith("norm"):
            for matrix in parameter.detach():
                values = torch.linalg.svdvals(matrix.flatten(1))
                torch.testing.assert_close(values, torch.full_like(values, 0.3))


def test_seeds_of_a_block_share_a_network_where_they_can():
    assert stacks_of(MODELS["mlp"], [3, 4]) == stacks_of(MODELS["linear"], [3, 4]) == [[3, 4]]
    assert stacks_of(MODELS["hybrid"], [3, 4]) == [[3, 4]]
    assert stacks_of(MODELS["cnn"], [3, 4]) == stacks_of(MODELS["autoencoder"], [3, 4]) == [[3], [4]]


def test_inputs_are_pixels_in_the_unit_interval_or_values_as_they_are():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8)
    torch.testing.assert_close(scale_inputs(pixels, 0.2, 2.0, torch.float32), torch.tensor([-0.1, 0.0, 0.4]))
    values = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert torch.equal(scale_inputs(values, 0.0, 1.0, torch.float64), values)


@pytest.mark.parametrize("projection", PROJECTIONS.values(), ids=PROJECTIONS)
@pytest.mark.parametrize("name", ["mlp", "mlp with batch norm", "cnn"])
def test_projection_takes_the_classifier_s_place_and_leaves_the_encoder(name, projection):
    x = torch.rand(1, 5, 1, 8, 8)
    classifier = initialised(MODELS[name], (1, 8, 8), [0])
    network = initialised(MODELS[name], (1, 8, 8), [0], projection=projection)
    (_, expected), (prediction, taps) = classifier(x), network(x)
    assert list(taps) == layer_names(MODELS[name])
    for layer, tap in taps.items():
        assert torch.equal(tap, expected[layer])
    features = taps[layer_names(MODELS[name])[-1]][0]
    assert network["projection"].weight.shape == (1, projection["hidden"] or features.shape[1], features.shape[1])
    state = {key: tensor[0] for key, tensor in network.state_dict().items()}
    hidden = (features @ state["projection.weight"].T + state["projection.bias"]).clamp(min=0)
    torch.testing.assert_close(prediction[0], hidden @ state["output.weight"].T + state["output.bias"])
    assert prediction.shape == (1, 5, 4)


def test_projection_heads_of_stacked_seeds_are_the_single_ones():
    x = torch.rand(2, 6, 5, dtype=torch.float64)
    options = {"dtype": torch.float64, "projection": {"hidden": None, "width": 4}}
    stacked = initialised(MODELS["mlp with batch norm"], (5,), [3, 4], **options)(x)[0]
    for s, seed in enumerate([3, 4]):
        single = initialised(MODELS["mlp with batch norm"], (5,), [seed], **options)(x[s : s + 1])[0]
        torch.testing.assert_close(stacked[s : s + 1], single, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["linear", "hybrid", "autoencoder"])
def test_a_head_is_refused_where_there_is_none(name):
    with pytest.raises(FeaturespaceError, match="takes no projection head"):
        build_network(MODELS[name], (1, 8, 8), 3, 1, projection={"hidden": None, "width": 4})
    with pytest.raises(FeaturespaceError, match=f"head: .*{MODELS[name]['kind']}.* takes no head"):
        build_network(MODELS[name], (1, 8, 8), 3, 1, head={"layers": 1, "width": None})


def test_two_heads_are_refused():
    projection, head = {"hidden": None, "width": 4}, {"layers": 1, "width": None}
    with pytest.raises(FeaturespaceError, match="takes no other head"):
        build_network(MODELS["mlp"], (5,), 3, 1, projection=projection, head=head)


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("name", ["mlp", "mlp with batch norm", "cnn"])
def test_a_head_stands_between_the_features_and_the_classifier_and_is_not_tapped(name, head):
    x = torch.rand(1, 5, 1, 8, 8, dtype=torch.float64)
    without = initialised(MODELS[name], (1, 8, 8), [0], dtype=torch.float64)
    network = initialised(MODELS[name], (1, 8, 8), [0], dtype=torch.float64, head=head)
    (_, expected), (prediction, taps) = without(x), network(x)
    assert list(taps) == layer_names(MODELS[name])
    for layer, tap in taps.items():
        assert torch.equal(tap, expected[layer])
    features = h = taps[layer_names(MODELS[name])[-1]][0]
    state = {key: tensor[0] for key, tensor in network.state_dict().items()}
    added = [f"head{i}.{kind}" for i in range(1, head["layers"] + 1) for kind in ("weight", "bias")]
    assert [key for key in state if key.startswith("head")] == added
    assert list(state)[-2:] == ["output.weight", "output.bias"]
    for i in range(1, head["layers"] + 1):
        h = (h @ state[f"head{i}.weight"].T + state[f"head{i}.bias"]).clamp(min=0)
        assert h.shape[1] == (head["width"] or features.shape[1])
    torch.testing.assert_close(prediction[0], h @ state["output.weight"].T + state["output.bias"])
    assert prediction.shape == (1, 5, 3)
    assert network.n_parameters == sum(tensor.numel() for tensor in dict(network.named_parameters()).values())


def test_heads_of_stacked_seeds_are_the_single_ones():
    x = torch.rand(2, 6, 5, dtype=torch.float64)
    options = {"dtype": torch.float64, "head": {"layers": 2, "width": 4}}
    stacked = initialised(MODELS["mlp with batch norm"], (5,), [3, 4], **options)(x)[0]
    for s, seed in enumerate([3, 4]):
        single = initialised(MODELS["mlp with batch norm"], (5,), [seed], **options)(x[s : s + 1])[0]
        torch.testing.assert_close(stacked[s : s + 1], single, rtol=1e-12, atol=1e-14)


def test_a_hybrid_is_rectified_layers_and_a_deep_linear_network_on_them():
    x = torch.rand(1, 5, 1, 2, 3, dtype=torch.float64)
    network = initialised(MODELS["hybrid"], (1, 2, 3), [0], dtype=torch.float64)
    prediction, taps = network(x)
    state = {key: tensor[0] for key, tensor in network.state_dict().items()}
    biased = [key for key in state if key.endswith("bias")]
    assert biased == ["hidden1.bias", "hidden2.bias"]
    h = x[0].flatten(1)
    for i in (1, 2):
        h = (h @ state[f"hidden{i}.weight"].T + state[f"hidden{i}.bias"]).clamp(min=0)
        torch.testing.assert_close(taps[f"hidden{i}"][0], h)
    for i in (1, 2, 3):
        assert state[f"linear{i}.weight"].shape == (7, 7)
        h = h @ state[f"linear{i}.weight"].T
        torch.testing.assert_close(taps[f"linear{i}"][0], h)
    assert (h < 0).any()
    torch.testing.assert_close(prediction[0], h @ state["output.weight"].T)


def test_a_hybrid_s_rectified_layers_are_an_mlp_s():
    x = torch.rand(2, 9, 6)
    hybrid = initialised(MODELS["hybrid without linear layers"], (6,), [0, 1])
    mlp = initialised({"kind": "mlp", "widths": [7, 7], "batch_norm": True}, (6,), [0, 1])
    assert list(hybrid.state_dict()) == [key for key in mlp.state_dict() if key != "output.bias"]
    mlp["output"].bias.data.zero_()
    (ours, our_taps), (theirs, their_taps) = hybrid(x), mlp(x)
    torch.testing.assert_close(ours, theirs)
    for name, tap in their_taps.items():
        assert torch.equal(our_taps[name], tap)


def test_a_network_that_does_not_fit_the_data_is_refused():
    with pytest.raises(FeaturespaceError, match="to nothing"):
        build_network(MODELS["cnn"], (1, 3, 8), 3, 1)
    assert minimum_side(MODELS["cnn"]) == 4
    assert build_network(MODELS["cnn"], (1, 4, 8), 3, 1)["hidden"].weight.shape == (1, 5, 6 * 1 * 2)
    with pytest.raises(FeaturespaceError, match="needs images"):
        build_network(MODELS["autoencoder"], (50,), 3, 1)
    with pytest.raises(FeaturespaceError, match="unknown architecture: 'noise'"):
        build_network({"kind": "noise", "width": 4, "rectified": False}, (50,), 3, 1)


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_of_a_dense_layer_are_those_of_finite_differences_in_the_layout_of_the_weights(bias):
    generator = torch.Generator().manual_seed(0)
    layer = Dense(3, 5, 4, {"dtype": torch.float64}, bias=bias)
    for parameter in layer.parameters():
        parameter.data.normal_(generator=generator)
    x = torch.randn(3, 7, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    expected = torch.stack(
        [F.linear(x[s], layer.weight[s], None if layer.bias is None else layer.bias[s]) for s in range(3)]
    )
    torch.testing.assert_close(layer(x), expected)
    names = list(dict(layer.named_parameters()))

    def by_inputs(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(by_inputs, (x, *layer.parameters()))
    layer(x).square().sum().backward()
    assert layer.weight.grad.is_contiguous()


@pytest.mark.parametrize("kind", ["pixels", "values"])
@pytest.mark.parametrize("limit", [10**6, 0])
def test_inputs_kept_or_made_on_demand_are_those_of_scaling(monkeypatch, kind, limit):
    monkeypatch.setattr(networks, "SCALED_BYTES", limit)
    monkeypatch.setattr(networks, "SCALED_ROWS", 4)
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (11, 2, 3), dtype=np.uint8) if kind == "pixels" else rng.normal(size=(11, 6))
    inputs = Inputs(torch.from_numpy(array.copy()), 0.3, 0.7, torch.float32)
    assert (inputs.scaled is not None) == bool(limit)
    exact = ((array / 255 if kind == "pixels" else array) - 0.3) / 0.7
    rows = torch.tensor([[3, 0], [10, 3]])
    np.testing.assert_array_equal(inputs[rows].numpy(), exact.astype(np.float32)[rows.numpy()])
    np.testing.assert_array_equal(inputs[2:9].numpy(), exact.astype(np.float32)[2:9])
    np.testing.assert_array_equal(torch.cat(list(inputs.in_float64(4))).numpy(), exact)
    np.testing.assert_array_equal(inputs.stored.numpy(), array)
    assert len(inputs) == 11
