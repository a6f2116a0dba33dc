"""Weights that were saved elsewhere: read, held against the network, and evaluated as if trained here."""

import pickle

import numpy as np
import own_nets
import pytest
import safetensors.torch
import torch
from test_own_networks import CPU, dataset, kept, own, recipe  # noqa: F401 (a fixture)

from featurespace.errors import FeaturespaceError
from featurespace.saved_weights import fitted, import_block, read_state
from featurespace.training import train_block


def saved_spec(model, weights, task="classify", **changes):
    spec = recipe(model, task=task, optimiser=None, schedule=None)
    return spec | {"seeds": sorted({one["seed"] for one in weights}), "weights": weights} | changes


def at(*steps, seed=0):
    return [{"seed": seed, "step": step, "epoch": step / 2} for step in steps]


@pytest.fixture
def state():
    torch.manual_seed(0)
    return own_nets.dense().state_dict()


def test_weights_that_were_trained_here_are_evaluated_as_they_were(dataset, tmp_path):  # noqa: F811
    model = own("dense")
    run = train_block(recipe(model), dataset, CPU, tmp_path / "run")
    files = sorted(run.weights.glob("*/*"))
    steps = [0, 2, 4, 6]
    again = import_block(saved_spec(model, at(*steps)), files, dataset, CPU, tmp_path / "again")
    for before, after in zip(run.history, again.history, strict=True):
        for key in ("step", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "weight_norm"):
            assert before[key] == after[key]
    assert [row["epoch"] for row in again.history] == [0.0, 1.0, 2.0, 3.0]
    assert again.facts["epochs"] == {"0": [0.0, 1.0, 2.0, 3.0]}
    weights = kept(again, tmp_path)
    for path, step in zip(files, steps, strict=True):
        expected = safetensors.torch.load_file(path)
        assert all(torch.equal(expected[name], tensor[0]) for name, tensor in weights.read([0], step).items())


def test_a_network_of_this_library_takes_them_too(dataset, tmp_path):  # noqa: F811
    model = {"kind": "mlp", "widths": [5], "batch_norm": True}
    run = train_block(recipe(model), dataset, CPU, tmp_path / "run")
    files = sorted(run.weights.glob("*/*"))
    again = import_block(saved_spec(model, at(0, 1, 2, 3)), files, dataset, CPU, tmp_path / "again")
    assert [row["test_loss"] for row in again.history] == [row["test_loss"] for row in run.history]


def test_each_seed_has_its_own_files(dataset, tmp_path, state):  # noqa: F811
    files = []
    for factor in (1, 2, 3, 4):
        files.append(tmp_path / f"{factor}.pt")
        torch.save({name: factor * tensor for name, tensor in state.items()}, files[-1])
    spec = saved_spec(own("dense"), [*at(0, 5, seed=3), *at(0, 5, seed=8)])
    weights = kept(import_block(spec, files, dataset, CPU, tmp_path / "run"), tmp_path)
    assert (weights.seeds, weights.steps, weights.epochs) == ([3, 8], [0, 5], [0.0, 2.5])
    torch.testing.assert_close(weights.read([8], 5)["1.weight"][0], 4 * state["1.weight"])
    torch.testing.assert_close(weights.read([3, 8], 0)["1.bias"][1], 3 * state["1.bias"])


def test_what_has_learned_something_else_is_not_evaluated(dataset, tmp_path):  # noqa: F811
    network = own_nets.Wrapped("wide")
    torch.save(network.state_dict(), tmp_path / "a.pth")
    spec = saved_spec(own("Wrapped", kind="wide"), at(7), task="saved")
    (row,) = import_block(spec, [tmp_path / "a.pth"], dataset, CPU, tmp_path / "run").history
    assert np.isnan(row["train_loss"]) and np.isnan(row["train_accuracy"])
    assert row["weight_norm"] > 0


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_what_a_state_dict_is_wrapped_in_is_unwrapped(tmp_path, state, wrapper, prefix):
    prefixed = {prefix + name: tensor for name, tensor in state.items()}
    torch.save({wrapper: prefixed, "epoch": 3} if wrapper else prefixed, tmp_path / "a.pt")
    found = read_state(tmp_path / "a.pt")
    assert list(found) == list(state)
    assert all(torch.equal(found[name], state[name]) for name in state)


class Evil:
    def __reduce__(self):
        return (print, ("obeyed",))


def test_a_file_that_holds_code_is_refused_and_nothing_is_run(tmp_path, capsys):
    torch.save({"a": Evil()}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Evil()))
    torch.save(own_nets.dense(), tmp_path / "c.pt")
    for name in ("a.pt", "b.pt", "c.pt"):
        with pytest.raises(FeaturespaceError, match=rf"{name}: (holds more than tensors|cannot be read)") as caught:
            read_state(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert "obeyed" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_a_damaged_file_is_named(tmp_path, name, state):
    path = tmp_path / name
    if name.endswith("pt"):
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"no weights at all"):
        path.write_bytes(damaged)
        with pytest.raises(FeaturespaceError, match=f"{name}: ") as caught:
            read_state(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [[1, 2], {}, 3.0, {"epoch": 3}, {"a": torch.ones(2), "b": "text"}])
def test_a_file_without_tensors_by_name_is_named(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(FeaturespaceError, match=r"a\.pt: "):
        read_state(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda s: s.pop("1.bias"), r"it lacks 1\.bias$"),
        (lambda s: s.update(other=torch.ones(2)), "it has unknown other$"),
        (lambda s: s.update({"1.bias": torch.ones(3)}), r"1\.bias has shape \(3,\), and the network's has \(8,\)"),
        (lambda s: s.update({"1.bias": torch.full((8,), torch.nan)}), r"1\.bias has a number that is not finite"),
        (lambda s: s.update({"1.bias": torch.ones(8, dtype=torch.int64)}), r"1\.bias is of type torch\.int64"),
    ],
)
def test_a_state_of_another_network_is_named_with_its_key(state, change, said):
    wanted = {name: tensor[None] for name, tensor in state.items()}
    other = dict(state)
    change(other)
    with pytest.raises(FeaturespaceError, match=rf"^here\.pt: .*{said}"):
        fitted(other, wanted, "here.pt")


def test_half_precision_becomes_the_network_s(state):
    wanted = {name: tensor[None] for name, tensor in state.items()}
    found = fitted({name: tensor.half() for name, tensor in state.items()}, wanted, "a.pt")
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}


def test_a_network_that_does_not_classify_is_not_evaluated_as_a_classifier(dataset, tmp_path):  # noqa: F811
    torch.save(own_nets.Wrapped("wide").state_dict(), tmp_path / "a.pt")
    spec = saved_spec(own("Wrapped", kind="wide"), at(0))
    with pytest.raises(FeaturespaceError, match=r"task classify needs \(10,\)"):
        import_block(spec, [tmp_path / "a.pt"], dataset, CPU, tmp_path / "run")
