"""The library for notebooks: its numbers against the definitions, its examples, and what importing it costs."""

import ast
import doctest
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import reference
import scipy.stats
import torch

import featurespace
from featurespace import arrays
from featurespace.closure import CodeIndex
from featurespace.exports import EXPORTS

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
LIBRARY = ("arrays", "exports", "recorder", "recordings")


@pytest.fixture(params=[(60, 20), (20, 60)], ids=["tall", "wide"])
def features(request):
    """Features off the origin, whose singular values decay."""
    n, d = request.param
    generator = np.random.default_rng(0)
    return generator.normal(size=(n, d)) * np.arange(1, d + 1) ** -0.5 + 0.5


@pytest.fixture
def labels(features):
    return np.arange(len(features)) % 4


# --- examples and names ---------------------------------------------------------------------------


def test_every_function_has_an_example_that_runs():
    done = doctest.testmod(arrays)
    assert done.failed == 0 and done.attempted > 30
    for name, module in EXPORTS.items():
        if module == "featurespace.arrays" and name[0].islower():
            assert ">>> " in getattr(arrays, name).__doc__, name


@pytest.mark.parametrize("name", EXPORTS)
def test_what_is_offered_is_there_and_documented(name):
    value = getattr(featurespace, name)
    assert value.__module__ == EXPORTS[name]
    assert value.__doc__
    assert name in dir(featurespace)


def test_type_checkers_see_the_same_names():
    (stub,) = (SCRIPTS / "featurespace").glob("__init__.pyi")
    seen = {
        alias.asname: node.module
        for node in ast.parse(stub.read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == EXPORTS


def test_a_name_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(ImportError):
        from featurespace import decomposed  # noqa: F401
    with pytest.raises(AttributeError, match=r"no attribute 'decomposed'; it has .*decompose, "):
        featurespace.decomposed  # noqa: B018


def test_importing_it_imports_nothing_else():
    code = (
        "import sys; before = set(sys.modules); import featurespace; dir(featurespace);"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["featurespace"]


def test_everything_is_imported_by_a_star():
    names: dict[str, object] = {}
    exec("from featurespace import *", names)
    assert set(names) - {"__builtins__"} == set(EXPORTS)


def test_no_rule_depends_on_it():
    index = CodeIndex(SCRIPTS)
    ours = {f"featurespace/{name}.py" for name in LIBRARY}
    for script in SCRIPTS.glob("*.py"):
        assert not ours & index.closure(script.name).keys(), script.name
    assert "featurespace/exports.py" not in index.closure("featurespace/__init__.py")


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("kind", ["float64", "float32", "tensor", "list", "int"])
def test_decompositions_are_those_of_a_full_svd(features, centred, kind):
    if kind == "int":
        features = (features * 100).round()
    X = {
        "float64": features,
        "float32": features.astype(np.float32),
        "tensor": torch.from_numpy(features).requires_grad_(),
        "list": features.tolist(),
        "int": features.astype(np.int64),
    }[kind]
    exact = features.astype(np.float32) if kind == "float32" else features
    left, values, right = reference.svd(exact, "centred" if centred else "raw")
    found = featurespace.decompose(X, k=3, centred=centred)
    assert found.centred is centred
    np.testing.assert_allclose(found.singular_values, values, rtol=1e-8, atol=1e-7 * values[0])
    assert found.left_vectors.shape == (len(features), 3)
    assert found.right_vectors.shape == (features.shape[1], 3)
    for i in range(3):
        assert reference.angle_deg(found.left_vectors[:, i], left[:, i]) < 1e-5
        assert reference.angle_deg(found.right_vectors[:, i], right[:, i]) < 1e-5
    np.testing.assert_allclose(found.relative_gap, 1 - values[1:4] / values[:3], rtol=1e-6)
    assert found.frobenius_norm == pytest.approx(np.sqrt((values**2).sum()), rel=1e-12)
    assert (found.residual < 1e-10).all()
    p = featurespace.p_vector(X, centred=centred)
    np.testing.assert_array_equal(p, featurespace.decompose(X, 1, centred=centred).left_vectors[:, 0])


@pytest.mark.parametrize("offset", [0.0, 1.0, -3.0])
def test_angles_are_those_of_the_definitions(offset):
    generator = np.random.default_rng(1)
    p, q = generator.normal(size=(2, 200)) + offset
    q += 0.3 * p
    found = featurespace.compare(5 * p, torch.from_numpy(-q))
    assert found.angle_deg == pytest.approx(reference.angle_deg(p, q), abs=1e-9)
    assert found.angle_deg == featurespace.angle_deg(5 * p, -q)
    assert found.p_ones_deg == pytest.approx(reference.angle_deg(p, np.ones(200)), abs=1e-9)
    assert found.q_ones_deg == pytest.approx(reference.angle_deg(q, np.ones(200)), abs=1e-9)
    assert featurespace.angle_to_ones_deg(p) == pytest.approx(found.p_ones_deg, abs=1e-12)
    assert found.correlation == pytest.approx(reference.correlation(p, -q), abs=1e-12)
    assert featurespace.correlation(p, q) == pytest.approx(found.correlation, abs=1e-12)


def test_a_permutation_null_is_that_of_shuffles():
    generator = np.random.default_rng(2)
    p, q = generator.normal(size=(2, 60)) + 1
    shuffled = [reference.angle_deg(p, generator.permutation(q)) for _ in range(4000)]
    null = featurespace.permutation_null(p, q, permutations=4000, seed=5)
    spread = np.std(shuffled) / np.sqrt(4000)
    assert null.mean_deg == pytest.approx(np.mean(shuffled), abs=6 * spread)
    assert null.low_deg == pytest.approx(np.quantile(shuffled, 0.05), abs=20 * spread)
    share = np.mean(np.array(shuffled) <= reference.angle_deg(p, q))
    assert null.p_value == pytest.approx(share, abs=0.05)
    whole = featurespace.compare(p, q, permutations=4000, seed=5)
    assert (whole.null_mean_deg, whole.null_low_deg, whole.p_value) == (null.mean_deg, null.low_deg, null.p_value)
    assert whole.null_formula_deg == pytest.approx(np.mean(shuffled), abs=0.5)
    assert featurespace.permutation_null(p, q, permutations=99, seed=6) != featurespace.permutation_null(
        p, q, permutations=99, seed=7
    )


def test_principal_angles_are_those_of_the_spans():
    generator = np.random.default_rng(3)
    U, V = generator.normal(size=(40, 2)), generator.normal(size=(40, 3))
    U[:, 1] = U[:, 0] + 1e-3 * U[:, 1]
    expected = reference.principal_angles_deg(U, V)
    np.testing.assert_allclose(featurespace.principal_angles_deg(1e5 * U, torch.from_numpy(V)), expected, atol=1e-8)
    np.testing.assert_allclose(featurespace.principal_angles_deg(V, U), expected, atol=1e-8)


def test_layer_measures_are_those_of_the_definitions(features, labels):
    found = featurespace.layer_measures(torch.from_numpy(features), labels)
    assert found.compression == pytest.approx(reference.compression(features, labels), rel=1e-10)
    assert found.discrimination == pytest.approx(reference.discrimination(features, labels), rel=1e-10)
    assert found.nc1 == pytest.approx(reference.nc1(features, labels), rel=1e-8)
    assert (found.nc2_equinorm, found.nc2_equiangular) == pytest.approx(reference.nc2(features, labels), rel=1e-9)
    assert found.numerical_rank == reference.numerical_rank(features)
    assert featurespace.layer_measures(features, labels, rank_energy=0.5).numerical_rank == reference.numerical_rank(
        features, 0.5
    )


def centred_similarity(X: np.ndarray) -> np.ndarray:
    """Return the similarity matrix (n_samples, n_samples) of centred features."""
    centred = X - X.mean(axis=0)
    return centred @ centred.T


def test_similarities_are_those_of_the_definitions(features):
    generator = np.random.default_rng(4)
    X, Y = (
        features,
        features @ generator.normal(size=(features.shape[1], 9)) + generator.normal(size=(len(features), 9)),
    )
    K, L, M = map(centred_similarity, (X, Y, features[:, :4]))
    assert featurespace.linear_cka(X, Y) == pytest.approx(
        (K * L).sum() / np.sqrt((K**2).sum() * (L**2).sum()), rel=1e-9
    )
    rest_x, rest_y = (S - M * (S * M).sum() / (M**2).sum() for S in (K, L))
    expected = (rest_x * rest_y).sum() / np.sqrt((rest_x**2).sum() * (rest_y**2).sum())
    assert featurespace.deconfounded_cka(X, Y, features[:, :4]) == pytest.approx(expected, rel=1e-8)
    x, y = ((Z - Z.mean(0)) / np.linalg.norm(Z - Z.mean(0)) for Z in (X, Y))
    expected = 2 - 2 * np.linalg.svd(x.T @ y, compute_uv=False).sum()
    assert featurespace.procrustes_distance(X, Y) == pytest.approx(expected, rel=1e-9)
    bases = []
    for Z in (x, y):
        left, values, _ = np.linalg.svd(Z, full_matrices=False)
        kept = 1
        while (values[:kept] ** 2).sum() < 0.9 * (values**2).sum():
            kept += 1
        bases.append(left[:, :kept])
    expected = np.cos(np.radians(reference.principal_angles_deg(*sorted(bases, key=lambda basis: basis.shape[1]))))
    assert featurespace.svcca(X, Y, variance=0.9) == pytest.approx(expected.mean(), rel=1e-9)


@pytest.mark.parametrize("centred", [False, True])
def test_random_subspaces_have_the_angles_of_the_null(centred):
    n, k = 12, 3
    drawn = [featurespace.random_subspace(n, k, centred=centred, seed=seed) for seed in range(800)]
    for basis in drawn[:3]:
        np.testing.assert_allclose(basis.T @ basis, np.eye(k), atol=1e-12)
        assert centred == bool(np.abs(basis.sum(axis=0)).max() < 1e-12)
    found = [featurespace.principal_angles_deg(a, b) for a, b in zip(drawn[::2], drawn[1::2], strict=True)]
    null = featurespace.haar_null(n, k, centred=centred, draws=20_000)
    spread = np.std([pair[-1] for pair in found]) / np.sqrt(len(found))
    assert null.largest_deg == pytest.approx(np.mean([pair[-1] for pair in found]), abs=5 * spread)
    assert null.mean_deg == pytest.approx(np.mean(found), abs=5 * np.std([p.mean() for p in found]) / 20)
    assert null.largest_low_deg == pytest.approx(np.quantile([pair[-1] for pair in found], 0.05), abs=20 * spread)


def test_noise_is_normal_or_its_positive_part():
    noise = featurespace.noise_features(200, 100, seed=3)
    assert noise.shape == (200, 100) and noise.dtype == np.float32
    assert scipy.stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    np.testing.assert_array_equal(
        featurespace.noise_features(200, 100, rectified=True, seed=3), np.where(noise > 0, noise, 0)
    )
    assert not np.array_equal(featurespace.noise_features(200, 100, seed=4), noise)


# --- what is refused ------------------------------------------------------------------------------

X = np.arange(12.0).reshape(4, 3)
HOLE = np.where(X == 7, np.nan, X)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: featurespace.decompose(X[0], centred=True), r"X has shape \(3,\): expected \(n_samples, n_features\)"),
        (lambda: featurespace.decompose(X[:0], centred=True), r"X has shape \(0, 3\)"),
        (lambda: featurespace.decompose(HOLE, centred=True), "X is not finite: sample 2 has a feature that is NaN"),
        (lambda: featurespace.decompose(X + 1j, centred=True), "X is of type complex128"),
        (lambda: featurespace.decompose([["a"]], centred=True), "X is of type <U1"),
        (lambda: featurespace.decompose(X, 0, centred=True), "k is 0"),
        (lambda: featurespace.p_vector(0 * X, centred=False), "X has no P-vector: all features are zero"),
        (lambda: featurespace.p_vector(0 * X + 2, centred=True), "X has no P-vector: all features are constant"),
        (lambda: featurespace.angle_deg(X, X), r"p has shape \(4, 3\): expected \(n_samples,\)"),
        (lambda: featurespace.angle_deg(X[0], X[:, 0]), "p has 3 entries and q has 4"),
        (lambda: featurespace.angle_deg(X[0], 0 * X[0]), "q is zero, and has no direction"),
        (lambda: featurespace.angle_to_ones_deg(HOLE[2]), "p is not finite: entry 1 is nan"),
        (lambda: featurespace.compare(X[0], X[1], permutations=0), "permutations is 0"),
        (lambda: featurespace.principal_angles_deg(X[:, :2], X[:3, :2]), "U has 4 rows and V has 3"),
        (lambda: featurespace.principal_angles_deg(X, X), "U has 3 columns that are linearly dependent"),
        (lambda: featurespace.layer_measures(X, [0, 1]), r"y has shape \(2,\) .*: expected an integer for each of 4"),
        (lambda: featurespace.layer_measures(X, [0.0, 1, 0, 1]), "y has shape .* and type float64"),
        (lambda: featurespace.layer_measures(X, [0, 1, 0, 1], rank_energy=0), "rank_energy is 0"),
        (lambda: featurespace.linear_cka(X, X[:3]), "X has 4 samples and Y has 3 samples"),
        (lambda: featurespace.procrustes_distance(X, 0 * X), "all features of Y are constant"),
        (lambda: featurespace.deconfounded_cka(X, X, HOLE), "inputs is not finite"),
        (lambda: featurespace.svcca(X, X, variance=2), "variance is 2"),
        (lambda: featurespace.haar_null(5, 5, centred=True), "k is 5: expected 1 to 4"),
        (lambda: featurespace.haar_null(5, 2, centred=True, draws=0), "draws is 0"),
        (lambda: featurespace.random_subspace(5, 6, centred=False), "k is 6: expected 1 to 5"),
        (lambda: featurespace.noise_features(0, 3), "0 samples of 3 features"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(call, says):
    with pytest.raises(ValueError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


# --- in somebody else's environment ---------------------------------------------------------------


@pytest.mark.skipif(
    find_spec("setuptools") is None or find_spec("pip") is None, reason="builds with pip and setuptools"
)
def test_a_wheel_holds_the_library_and_nothing_else_and_works_from_there(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(SCRIPTS, source / "scripts", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "pyproject.toml", source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*command, "--wheel-dir", tmp_path, source], check=True, timeout=120, capture_output=True)
    (wheel,) = tmp_path.glob("featurespace-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA"))).decode()
        archive.extractall(tmp_path / "installed")
    of_library = {
        path.relative_to(SCRIPTS).as_posix()
        for path in (SCRIPTS / "featurespace").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == of_library
    assert {"featurespace/templates/report.html.j2", "featurespace/decision_rules/p-vectors.yaml"} <= held
    needed = {line.split()[1].split(">")[0] for line in metadata.splitlines() if line.startswith("Requires-Dist: ")}
    assert needed == {"google-crc32c", "numpy", "pandas", "scipy", "torch", "xarray", "zarr"}
    imported = {"google_crc32c" if name == "google-crc32c" else name for name in needed}
    assert outside_imports("arrays", "recorder", "recordings", "exports") == imported
    code = """
import numpy as np, torch, featurespace
from featurespace import Recorder, compare, decompose
with Recorder("features.zarr", torch.nn.Sequential(torch.nn.Linear(3, 4)), ["0"], torch.ones(5, 3), [0] * 5, 0) as r:
    r.record(0, 0)
print(featurespace.__file__)
"""
    environment = {"PYTHONPATH": str(tmp_path / "installed"), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        check=True,
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == str(tmp_path / "installed/featurespace/__init__.py")
    assert (tmp_path / "features.json").exists()


def outside_imports(*modules: str) -> set[str]:
    """Name the packages that some modules, and the local ones that they import, import from elsewhere."""
    index = CodeIndex(SCRIPTS)
    found = set()
    for path in {path for module in modules for path in index.closure(f"featurespace/{module}.py")}:
        for node in ast.walk(ast.parse((SCRIPTS / path).read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"featurespace"}
