"""What the how-to pages on networks and weights show does what they say."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from test_own_networks import CPU, kept

from featurespace.closure import OwnCode
from featurespace.config import check_sources, parse_study
from featurespace.datasets import PreparedDataset
from featurespace.extraction import layers_of
from featurespace.networks import build_network
from featurespace.plan import Plan
from featurespace.saved_weights import import_block

PAGES = Path(__file__).parents[2] / "docs/how-to"


def blocks_of(page):
    """Return the code blocks of a page by the file that they are said to be, or by number."""
    text = (PAGES / page).read_text(encoding="utf-8")
    found = re.findall(r"(?:`([\w.]+)`:\n\n)?```(\w+)\n(.*?)```", text, re.DOTALL)
    return {name or f"{i}.{language}": code for i, (name, language, code) in enumerate(found)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def digits_of(n_samples=60):
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = (raw.images[:n_samples, None] * (255 / 16)).round().astype("uint8")
    labels = raw.target[:n_samples].astype("int64")
    split = (torch.arange(n_samples) % 3 == 0).numpy().astype("int8")
    names = [str(k) for k in range(10)]
    return PreparedDataset(images, labels, split, torch.arange(n_samples).numpy(), names, 0.0, 1.0, "")


def test_the_page_on_networks_has_networks_with_those_layers(folder):
    blocks = blocks_of("own-network.md")
    (folder / "mynets.py").write_text(blocks["mynets.py"])
    plan = Plan(parse_study(yaml.safe_load(blocks["mystudy.yaml"])))
    assert list(OwnCode([folder]).of_function(plan.factories["residual"])) == ["mynets.py"]
    found = layers_of(plan.dump_features("residual", 0), digits_of())
    assert list(found) == ["0", "1.0", "1.1", "1.2", "2"]
    assert plan.feature_layer("residual") == "2"


def test_the_page_s_networks_of_libraries_have_those_layers():
    (study,) = [yaml.safe_load(code) for name, code in blocks_of("own-network.md").items() if name.endswith("4.yaml")]
    plan = Plan(parse_study(study))
    for recipe, last in (("vit", "norm"), ("mobilenet", "avgpool")):
        spec = plan.dump_features(recipe, 0)
        network = build_network(spec["model"], (1, 8, 8), 10, 1)
        assert network.find_layers(spec["layers"])[-1] == last


def test_the_page_on_weights_trains_elsewhere_and_analyses_here(folder):
    blocks = blocks_of("own-weights.md")
    (folder / "train_elsewhere.py").write_text(blocks["train_elsewhere.py"])
    import train_elsewhere

    train_elsewhere.train("checkpoints", epochs=2)
    study = parse_study(yaml.safe_load(blocks["saved.yaml"]))
    check_sources(study)
    plan = Plan(study)
    data = digits_of()
    spec, files = plan.import_weights("elsewhere", 0), plan.weight_files("elsewhere", 0)
    run = import_block(spec, files, data, CPU, folder / "run", plan.layers("elsewhere"))
    accuracies = [row["test_accuracy"] for row in run.history]
    assert accuracies[0] < 0.5 < accuracies[-1]
    assert kept(run, folder).epochs == [0.0, 1.0, 2.0]
    assert list(layers_of(plan.dump_features("elsewhere", 0), data)) == ["1", "2"]
