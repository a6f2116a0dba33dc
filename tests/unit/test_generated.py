"""Files that are made from code are as the code would make them now (`make generated`)."""

import difflib
import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def load(path: str):
    """Import a module by its path."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_same(expected: str, path: str) -> None:
    """Fail with a diff if a file is not what it should be."""
    found = (ROOT / path).read_text()
    lines = difflib.unified_diff(found.splitlines(), expected.splitlines(), path, "as generated", lineterm="")
    if found != expected:
        pytest.fail("run `make generated`:\n" + "\n".join(lines))


def test_the_reference_of_the_study_file():
    assert_same(load("docs/make_reference.py").reference(), "docs/config.md")


def test_the_schema_of_the_study_file():
    text = json.dumps(load("docs/make_reference.py").schema(), indent=2, ensure_ascii=False) + "\n"
    assert_same(text, "docs/config.schema.json")


def test_the_conda_file_has_the_pins_of_the_lock():
    make = load("envs/make_conda.py")
    requirements = (ROOT / "envs/requirements.in").read_text()
    lock = (ROOT / "envs/requirements.lock").read_text()
    assert_same(make.conda_file(requirements, lock), "envs/featurespace.yaml")
    assert {"torch", "snakemake", "zarr"} <= set(make.wanted(requirements))
    assert "pytest" not in make.wanted(requirements)


def test_the_bootstrap_pins_the_installer_that_the_lock_pins():
    bootstrap = (ROOT / "envs/bootstrap.lock").read_text()
    assert (
        load("envs/make_conda.py").pins(bootstrap)["uv"]
        == load("envs/make_conda.py").pins((ROOT / "envs/requirements.lock").read_text())["uv"]
    )


def test_the_locks_name_no_index():
    for lock in ROOT.glob("envs/*.lock"):
        assert "://" not in lock.read_text(), lock.name
