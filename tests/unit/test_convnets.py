"""The deep convolutional networks: their functions, taps, axis of one seed, and initialisation."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
import torchvision.models
from torch import nn

from featurespace.architectures import DEEP_KINDS, feature_layer, layer_depth, layer_names, minimum_side
from featurespace.convnets import Conv, build_convnet
from featurespace.errors import FeaturespaceError
from featurespace.networks import build_network, initialise, stacks_of
from featurespace.weights import KeptWeights, publish, step_file, write_tensors

NARROW = {
    "resnet-18": {"kind": "resnet", "depth": 18, "width": 4, "stem_stride": 1},
    "resnet-34": {"kind": "resnet", "depth": 34, "width": 2, "stem_stride": 2},
    "resnet-50": {"kind": "resnet", "depth": 50, "width": 2, "stem_stride": 2},
    "wide-resnet": {"kind": "wide-resnet", "depth": 10, "widen": 2, "stem_stride": 1},
    "vgg": {"kind": "vgg", "depth": 11, "width": 4, "batch_norm": True, "stem_stride": 1},
    "vgg without batch norm": {"kind": "vgg", "depth": 13, "width": 4, "batch_norm": False, "stem_stride": 2},
    "densenet": {"kind": "densenet", "blocks": [2, 1, 3], "growth": 4, "stem_stride": 1},
}
STANDARD = {
    "resnet18": {"kind": "resnet", "depth": 18, "width": 64, "stem_stride": 1},
    "resnet34": {"kind": "resnet", "depth": 34, "width": 64, "stem_stride": 1},
    "resnet50": {"kind": "resnet", "depth": 50, "width": 64, "stem_stride": 1},
    "vgg11_bn": {"kind": "vgg", "depth": 11, "width": 64, "batch_norm": True, "stem_stride": 1},
    "vgg13_bn": {"kind": "vgg", "depth": 13, "width": 64, "batch_norm": True, "stem_stride": 1},
    "vgg16_bn": {"kind": "vgg", "depth": 16, "width": 64, "batch_norm": True, "stem_stride": 1},
    "densenet121": {"kind": "densenet", "blocks": [6, 12, 24, 16], "growth": 32, "stem_stride": 1},
}
TORCHVISION = {name: {"kind": "torchvision", "name": name} for name in STANDARD}
every_narrow = pytest.mark.parametrize("model", NARROW.values(), ids=NARROW)


def initialised(model, shape=(1, 8, 8), seed=0, scheme="default", scale=1.0, dtype=torch.float32, **heads):
    network = build_network(model, shape, 3, 1, dtype, **heads)
    initialise(network, scheme, scale, [torch.Generator().manual_seed(seed)])
    return network


def images(n, shape=(1, 8, 8), dtype=torch.float32, seed=1):
    return torch.rand(1, n, *shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def with_small_stem(name, n_channels, n_classes):
    """Build torchvision's network with a 3 x 3 stem and without the maximum, as its users do for CIFAR."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = torchvision.models.get_model(name, num_classes=n_classes)
        if name.startswith("resnet"):
            net.conv1 = nn.Conv2d(n_channels, 64, 3, padding=1, bias=False)
            net.maxpool = nn.Identity()
        elif name.startswith("densenet"):
            net.features.conv0 = nn.Conv2d(n_channels, 64, 3, padding=1, bias=False)
            net.features.pool0 = nn.Identity()
        else:
            net.features[0] = nn.Conv2d(n_channels, 64, 3, padding=1)
            net = nn.Sequential(net.features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, n_classes))
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.to(torch.float64)


# --- the functions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [True, False], ids=["ours", "torchvision kind"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg11_bn", "densenet121"])
def test_with_torchvision_s_weights_the_function_is_torchvision_s(name, own):
    side = 32 if name.startswith("vgg") else 16  # torchvision's VGG halves less to nothing
    theirs = with_small_stem(name, 3, 5)
    given = dict(theirs.state_dict())
    if name.startswith("vgg") and own:  # a bias before normalisation cancels: zero there, absent here
        for key, module in theirs.named_modules():
            if isinstance(module, nn.Conv2d):
                nn.init.zeros_(module.bias)
                del given[f"{key}.bias"]
    network = build_network(STANDARD[name] if own else TORCHVISION[name], (3, side, side), 5, 1, torch.float64)
    state = network.state_dict()
    assert [tuple(t.shape[1:]) for t in state.values()] == [tuple(t.shape) for t in given.values()]
    network.load_state_dict({key: t[None] for key, t in zip(state, given.values(), strict=True)})
    x = images(2, (3, side, side), torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(x)[0][0], theirs.eval()(x[0]), rtol=1e-10, atol=1e-10)
        # in training the running statistics move too, and the next evaluation is by those
        torch.testing.assert_close(network.train()(x)[0][0], theirs.train()(x[0]), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(network.eval()(x)[0][0], theirs.eval()(x[0]), rtol=1e-10, atol=1e-10)
        single = build_network(STANDARD[name] if own else TORCHVISION[name], (3, side, side), 5, 1)
        single.load_state_dict(network.state_dict())
        expected = theirs.float()(x[0].float())
        torch.testing.assert_close(
            single.eval()(x.float())[0][0], expected, rtol=1e-5, atol=1e-5 * expected.abs().max()
        )


def wide_resnet_by_hand(state, x, n_blocks, stem_stride):
    """Zagoruyko & Komodakis' network in evaluation mode, written as a formula over its tensors in order."""
    tensors = iter(state.values())

    def take(n):
        return [next(tensors)[0] for _ in range(n)]

    def norm_relu(h):
        weight, bias, mean, var, _ = take(5)
        h = (h - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt() * weight[:, None, None]
        return (h + bias[:, None, None]).clamp(min=0)

    h = F.conv2d(x, *take(1), stride=stem_stride, padding=1)
    for stage in range(3):
        for block in range(n_blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            start = norm_relu(h)
            inner = F.conv2d(start, *take(1), stride=stride, padding=1)
            inner = F.conv2d(norm_relu(inner), *take(1), padding=1)
            h = inner + (F.conv2d(start, *take(1), stride=stride) if block == 0 else h)
    features = norm_relu(h).mean((2, 3))
    weight, bias = take(2)
    assert next(tensors, None) is None
    return features @ weight.T + bias, features


@pytest.mark.parametrize("stem_stride", [1, 2])
def test_wide_resnet_is_its_formula(stem_stride):
    model = {"kind": "wide-resnet", "depth": 16, "widen": 2, "stem_stride": stem_stride}
    network = initialised(model, (3, 9, 8), dtype=torch.float64)
    generator = torch.Generator().manual_seed(4)
    for key, tensor in network.state_dict().items():
        if "norm" in key and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5, generator=generator)
    x = images(3, (3, 9, 8), torch.float64)
    with torch.no_grad():
        prediction, taps = network.eval()(x)
        expected, features = wide_resnet_by_hand(network.state_dict(), x[0], 2, stem_stride)
    torch.testing.assert_close(prediction[0], expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(taps["pooled"][0], features, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("model", "n_parameters", "n_features"),
    [
        pytest.param(STANDARD["resnet18"], 11_173_962, 512, id="resnet-18"),
        pytest.param(STANDARD["resnet50"], 23_520_842, 2048, id="resnet-50"),
        # VGG-16 has 14,728,266 with its 4,224 biases of normalised convolutions
        pytest.param(STANDARD["vgg16_bn"], 14_728_266 - 4_224, 512, id="vgg-16"),
        pytest.param(TORCHVISION["vgg16_bn"], 14_728_266, 512, id="torchvision vgg-16"),
        # torchvision's, with a 7 x 7 stem and 1,000 classes, has 7,978,856
        pytest.param(STANDARD["densenet121"], 7_978_856 - (49 - 9) * 3 * 64 - 990 * 1025, 1024, id="densenet-121"),
        pytest.param(
            {"kind": "wide-resnet", "depth": 28, "widen": 10, "stem_stride": 1}, 36_479_194, 640, id="wide-resnet-28-10"
        ),
    ],
)
def test_published_networks_have_their_published_size(model, n_parameters, n_features):
    network = build_network(model, (3, 32, 32), 10, 1)
    assert network.n_parameters == n_parameters
    assert network["output"].weight.shape == (1, 10, n_features)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_narrow_strided_one_by_one_convolution_has_the_right_gradients(dtype):
    conv = Conv(3, 6, 1, 2).to(dtype)
    nn.init.normal_(conv.weight, generator=torch.Generator().manual_seed(0))
    x = images(100, (3, 14, 14), dtype)[0].contiguous(memory_format=torch.channels_last).requires_grad_()
    up = images(100, (6, 7, 7), dtype)[0]
    y = conv(x)
    y.backward(up)
    kept = x.detach()[:, :, ::2, ::2]
    rtol = 1e-4 if dtype == torch.float32 else 1e-11
    weight = conv.weight.detach()[:, :, 0, 0]
    torch.testing.assert_close(y, torch.einsum("oi,bihw->bohw", weight, kept))
    torch.testing.assert_close(conv.weight.grad[:, :, 0, 0], torch.einsum("bohw,bihw->oi", up, kept), rtol=rtol, atol=0)
    expected = torch.zeros_like(x)
    expected[:, :, ::2, ::2] = torch.einsum("oi,bohw->bihw", weight, up)
    torch.testing.assert_close(x.grad, expected)


# --- taps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 9, 11)], ids=str)
@every_narrow
def test_taps_are_the_layers_that_the_architecture_names(model, shape):
    prediction, taps = initialised(model, shape)(images(2, shape))
    assert list(taps) == layer_names(model)
    assert feature_layer(model) == "pooled"
    assert layer_depth(model, "pooled") == len(taps)
    assert prediction.shape == (1, 2, 3)
    sizes = [(math.ceil(shape[1] / model["stem_stride"]), math.ceil(shape[2] / model["stem_stride"]))]
    for layer, tap in taps.items():
        if layer == "pooled":
            assert tap.shape == (1, 2, taps[layer_names(model)[-2]].shape[2])
            continue
        assert tap.ndim == 5
        assert tap.shape[:2] == (1, 2)
        sizes.append(tuple(tap.shape[3:]))
    for i, (before, after) in enumerate(pairwise(sizes)):
        if model["kind"] == "vgg":
            assert after == (before if 1 in before else tuple(side // 2 for side in before))
        elif i == 0:
            assert after == before
        else:
            halved = math.floor if model["kind"] == "densenet" else math.ceil
            assert after == tuple(halved(side / 2) for side in before)


@pytest.mark.parametrize("name", ["resnet34", "vgg11_bn", "densenet121"])
def test_torchvision_s_taps_are_those_of_its_name(name):
    model = TORCHVISION[name]
    prediction, taps = initialised(model, (1, 8, 8)).eval()(images(2))
    _, ours = initialised(STANDARD[name], (1, 8, 8)).eval()(images(2))
    assert list(taps) == layer_names(model) == layer_names(STANDARD[name])
    assert [tap.shape for tap in taps.values()] == [tap.shape for tap in ours.values()]
    assert prediction.shape == (1, 2, 3)


def test_widths_scale_with_their_numbers():
    def widths(model):
        return [tap.shape[2] for tap in initialised(model)(images(2))[1].values()]

    assert widths(NARROW["resnet-18"]) == [4, 8, 16, 32, 32]
    assert widths(NARROW["resnet-50"]) == [8, 16, 32, 64, 64]
    assert widths(NARROW["wide-resnet"]) == [32, 64, 128, 128]
    assert widths(NARROW["vgg"]) == [4, 8, 16, 32, 32, 32]
    # 8 + 2 x 4; half of it + 4; half of it + 3 x 4
    assert widths(NARROW["densenet"]) == [16, 12, 18, 18]


@every_narrow
def test_no_later_layer_writes_into_a_tap(model):
    network = initialised(model, dtype=torch.float64)
    copies = {}

    def copy(name):
        return lambda module, inputs, output: copies.update({name: output.clone()})

    for name in layer_names(model)[:-1]:
        network[name].register_forward_hook(copy(name))
    _, taps = network(images(4, dtype=torch.float64))
    assert len(copies) == len(taps) - 1
    for name, tensor in copies.items():
        assert torch.equal(taps[name][0], tensor)


@pytest.mark.parametrize(
    "model",
    [
        *(NARROW["densenet"] | {"blocks": [1] * n, "stem_stride": stride} for n in (1, 3, 4) for stride in (1, 2)),
        TORCHVISION["densenet121"],
        NARROW["resnet-18"],
        NARROW["vgg"],
    ],
    ids=lambda model: "-".join(str(value) for value in model.values()),
)
def test_images_of_the_least_side_pass_and_smaller_ones_are_refused(model):
    least = minimum_side(model)
    network = initialised(model, (1, least, least))
    assert network.eval()(images(2, (1, least, least)))[0].isfinite().all()
    if least > 1:
        with pytest.raises(FeaturespaceError, match=f"at least {least} x {least}"):
            build_network(model, (1, least, least - 1), 3, 1)
        with pytest.raises(RuntimeError, match="too small"):  # PyTorch's own, in the middle of a pass
            build_convnet(model, 1, 3)(torch.rand(2, 1, least - 1, least - 1))


@pytest.mark.parametrize("kind", DEEP_KINDS)
def test_rows_are_refused(kind):
    with pytest.raises(FeaturespaceError, match=f"{kind} needs images"):
        build_network({"kind": kind, "name": "resnet18"}, (50,), 3, 1)


# --- one seed ---------------------------------------------------------------------------------------------------------


def test_seeds_go_one_after_another():
    assert stacks_of(NARROW["resnet-18"], [3, 4]) == stacks_of(TORCHVISION["resnet18"], [3, 4]) == [[3], [4]]


@every_narrow
def test_every_tensor_has_the_axis_of_seeds_and_a_plain_name(model):
    network = initialised(model)
    plain = build_convnet(model, 1, 3)
    state = network.state_dict()
    assert list(state) == list(plain.state_dict())
    assert [t.shape for t in state.values()] == [(1, *t.shape) for t in plain.state_dict().values()]
    assert dict(network.named_buffers()).keys() == dict(plain.named_buffers()).keys()
    assert network.n_parameters == sum(parameter.numel() for parameter in plain.parameters())
    network(images(2))
    assert [t.shape for t in state.values()] == [t.shape for t in network.state_dict().values()]
    assert all(parameter.is_leaf and len(parameter) == 1 for parameter in network.parameters())


def test_a_pass_that_fails_leaves_the_tensors_as_they_were():
    network = initialised(NARROW["resnet-18"])
    shapes = [t.shape for t in network.state_dict().values()]
    with pytest.raises(RuntimeError):
        network(images(2, (3, 8, 8)))
    assert [t.shape for t in network.state_dict().values()] == shapes


def test_running_statistics_and_counts_of_batches_move_in_training_only():
    network = initialised(NARROW["resnet-18"])
    before = {key: t.clone() for key, t in network.state_dict().items()}
    network.eval()(images(4))
    assert all(torch.equal(t, before[key]) for key, t in network.state_dict().items())
    network.train()(images(4))
    for key, tensor in network.state_dict().items():
        moved = key.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(tensor, before[key]) != moved, key
    assert network.state_dict()["stem.1.num_batches_tracked"].tolist() == [1]


def test_a_state_is_written_through():
    network, other = initialised(NARROW["resnet-18"]), initialised(NARROW["resnet-18"], seed=1)
    one = torch.tensor([True])
    for key, tensor in network.state_dict().items():
        tensor[one] = other.state_dict()[key][one]
    assert torch.equal(network.eval()(images(3))[0], other.eval()(images(3))[0])


@pytest.mark.parametrize("name", ["resnet-50", "vgg without batch norm", "densenet"])
def test_kept_weights_give_back_the_network(name, tmp_path):
    network = initialised(NARROW[name])
    network.train()(images(6))
    state = {key: tensor[0] for key, tensor in network.state_dict().items()}
    write_tensors(tmp_path / "kept" / step_file(7, 3), state)
    facts = {"recipe": "r", "seeds": [7], "steps": {"7": [3]}, "epochs": {"7": [1.0]}}
    publish(tmp_path / "kept", tmp_path / "weights", tmp_path / "weights.json", facts)
    state = KeptWeights(tmp_path / "weights", tmp_path / "weights.json").read([7], 3)
    read = build_network(NARROW[name], (1, 8, 8), 3, 1)
    read.load_state_dict(state)
    for key, tensor in network.state_dict().items():
        assert read.state_dict()[key].dtype == tensor.dtype
        assert torch.equal(read.state_dict()[key], tensor)
    assert torch.equal(read.eval()(images(3))[0], network.eval()(images(3))[0])


@pytest.mark.parametrize("projection", [None, {"hidden": 5, "width": 4}], ids=["classifier", "projection"])
@every_narrow
def test_a_step_moves_every_parameter(model, projection):
    network = initialised(model, (1, 16, 16), projection=projection)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    network(images(16, (1, 16, 16)))[0].square().sum().backward()
    for (key, parameter), old in zip(network.named_parameters(), before, strict=True):
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        with torch.no_grad():
            parameter -= parameter.grad
        assert not torch.equal(parameter, old), key


@every_narrow
def test_in_evaluation_a_sample_s_features_do_not_depend_on_the_others(model):
    network = initialised(model, dtype=torch.float64)
    network.train()(images(8, dtype=torch.float64))
    network.eval()
    x = images(6, dtype=torch.float64, seed=2)
    prediction, taps = network(x)
    alone, alone_taps = network(x[:, 2:3])
    torch.testing.assert_close(alone, prediction[:, 2:3], rtol=1e-10, atol=1e-12)
    for layer, tap in alone_taps.items():
        torch.testing.assert_close(tap, taps[layer][:, 2:3], rtol=1e-10, atol=1e-12)


@every_narrow
def test_projection_takes_the_classifier_s_place_and_leaves_the_encoder(model):
    x = images(5)
    (_, expected), classifier = initialised(model)(x), initialised(model)
    for projection in ({"hidden": None, "width": 4}, {"hidden": 9, "width": 4}):
        network = initialised(model, projection=projection)
        prediction, taps = network(x)
        assert list(taps) == layer_names(model)
        for layer, tap in taps.items():
            assert torch.equal(tap, expected[layer])
        state = {key: tensor[0] for key, tensor in network.state_dict().items()}
        n_features = classifier["output"].weight.shape[2]
        assert state["projection.weight"].shape == (projection["hidden"] or n_features, n_features)
        hidden = (taps["pooled"][0] @ state["projection.weight"].T + state["projection.bias"]).clamp(min=0)
        torch.testing.assert_close(prediction[0], hidden @ state["output.weight"].T + state["output.bias"])


@every_narrow
def test_a_head_stands_between_the_features_and_the_classifier_and_is_not_tapped(model):
    x = images(5)
    _, expected = initialised(model)(x)
    for head in ({"layers": 2, "width": None}, {"layers": 1, "width": 9}):
        network = initialised(model, head=head)
        prediction, taps = network(x)
        assert list(taps) == layer_names(model)
        for layer, tap in taps.items():
            assert torch.equal(tap, expected[layer])
        state = {key: tensor[0] for key, tensor in network.state_dict().items()}
        h = taps["pooled"][0]
        width = head["width"] or h.shape[1]
        for i in range(1, head["layers"] + 1):
            h = (h @ state[f"head{i}.weight"].T + state[f"head{i}.bias"]).clamp(min=0)
            assert h.shape == (5, width)
        assert f"head{head['layers'] + 1}.weight" not in state
        torch.testing.assert_close(prediction[0], h @ state["output.weight"].T + state["output.bias"])


# --- initialisation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [*NARROW.values(), TORCHVISION["resnet18"]], ids=[*NARROW, "torchvision"])
def test_parameters_depend_on_the_given_generator_alone_and_the_global_one_stays(model):
    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        states.append(initialised(model, seed=5).state_dict())
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    other = initialised(model, seed=6).state_dict()
    for key, tensor in states[0].items():
        if tensor.ndim == 5 or key == "output.weight":
            assert not torch.equal(tensor, other[key]), key


def test_default_initialisation_is_he_s_by_fan_out_and_pytorch_s_for_the_classifier():
    model = {"kind": "resnet", "depth": 18, "width": 32, "stem_stride": 1}
    for key, tensor in initialised(model).state_dict().items():
        if tensor.ndim == 5:
            fan_out = tensor.shape[1] * tensor.shape[3] * tensor.shape[4]
            error = 4 * (2 / fan_out / tensor.numel()) ** 0.5  # four standard errors
            assert tensor.mean().item() == pytest.approx(0, abs=error), key
            assert tensor.std().item() == pytest.approx((2 / fan_out) ** 0.5, abs=error), key
            if tensor.numel() > 5000:  # normal: of kurtosis 3, where a uniform one has 1.8
                assert (tensor**4).mean() / (tensor**2).mean() ** 2 == pytest.approx(3, abs=0.5), key
        elif key.startswith("output"):
            assert tensor.abs().max().item() == pytest.approx(256**-0.5, rel=0.4)
        else:
            assert torch.equal(tensor, torch.full_like(tensor, key.endswith(("weight", "running_var")))), key
    state = initialised(NARROW["vgg without batch norm"]).state_dict()
    assert not state["stage1.0.bias"].any()
    assert state["stage1.0.weight"].any()


def test_layers_draw_in_order_of_depth():
    state = initialised(NARROW["vgg"], seed=5).state_dict()
    generator = torch.Generator().manual_seed(5)
    for key, tensor in state.items():
        if tensor.ndim == 5:
            std = (2 / (9 * tensor.shape[1])) ** 0.5
            assert torch.equal(tensor[0], torch.empty(tensor.shape[1:]).normal_(0, std, generator=generator)), key
    for key in ("output.weight", "output.bias"):
        drawn = torch.empty(state[key].shape[1:]).uniform_(-(32**-0.5), 32**-0.5, generator=generator)
        assert torch.equal(state[key][0], drawn)


@pytest.mark.parametrize("model", [NARROW["resnet-50"], NARROW["vgg without batch norm"]], ids=["resnet-50", "vgg"])
def test_orthogonal_initialisation_has_equal_singular_values_and_no_bias(model):
    network = initialised(model, scheme="orthogonal", scale=0.3, dtype=torch.float64)
    n_matrices = 0
    for key, parameter in network.named_parameters():
        if parameter.ndim in (3, 5):
            values = torch.linalg.svdvals(parameter.detach()[0].flatten(1))
            torch.testing.assert_close(values, torch.full_like(values, 0.3))
            n_matrices += 1
        elif key.endswith("bias"):
            assert not parameter.any(), key
        else:
            assert (parameter == 1).all(), key
    assert n_matrices > 10
