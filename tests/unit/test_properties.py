"""What holds for any input: the store round trip, spectra, angles and layer measures, and the study file."""

import copy
import itertools
import math
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import xarray as xr
from harness import TINY
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from featurespace import angles
from featurespace.config import parse_study
from featurespace.errors import FeaturespaceError
from featurespace.measures import measure
from featurespace.plan import Plan
from featurespace.spectra import CENTRINGS, Rows, decompose
from featurespace.stores import (
    FeatureStore,
    FeatureWriter,
    read_group,
    sample_hash,
    store_draft,
    verify_digest,
    write_digest,
    write_group,
)

# Always the same examples: what fails here fails everywhere.
quick = settings(
    derandomize=True, database=None, deadline=None, max_examples=40, suppress_health_check=list(HealthCheck)
)
slow = settings(quick, max_examples=20)

FLOATS32 = st.floats(width=32) | st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 1e-45, -1e-45, 1.1754942e-38])
FLOATS64 = st.floats() | st.sampled_from([math.nan, -0.0, 5e-324, -5e-324, 1.7976931348623157e308])


@contextmanager
def folder():
    """Give a directory to one example: a fixture would give the same one to all."""
    path = Path(tempfile.mkdtemp())
    try:
        yield path
    finally:
        shutil.rmtree(path)


def assert_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    """Hold arrays against each other byte by byte: NaNs by their payload, zeros by their sign."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert np.ascontiguousarray(found).tobytes() == np.ascontiguousarray(expected).tobytes()


# --- stores -----------------------------------------------------------------------------------------------------


@st.composite
def feature_sets(draw) -> dict[str, Any]:
    """Draw what a feature store is written from: some seeds, steps, samples and layers, and any values."""
    n_seeds, n_steps, n_samples = (draw(st.integers(1, n)) for n in (2, 3, 9))
    integers = st.integers(-(2**63), 2**63 - 1)
    names = st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True)
    taken = {"seed", "step", "epoch", "sample", "label"}
    layers = draw(st.lists(names.filter(lambda name: name not in taken), min_size=1, max_size=3, unique=True))
    return {
        "seeds": draw(st.lists(st.integers(0, 2**63 - 1), min_size=n_seeds, max_size=n_seeds, unique=True)),
        "steps": sorted(draw(st.lists(st.integers(0, 2**62), min_size=n_steps, max_size=n_steps, unique=True))),
        "epochs": draw(st.lists(st.floats(0, 1e6), min_size=n_steps, max_size=n_steps)),
        "sample_ids": draw(hnp.arrays(np.int64, n_samples, elements=integers)),
        "labels": draw(hnp.arrays(np.int64, n_samples, elements=integers)),
        "values": {
            layer: draw(
                hnp.arrays(np.float32, (n_seeds, n_steps, n_samples, draw(st.integers(1, 5))), elements=FLOATS32)
            )
            for layer in layers
        },
        "chunk_bytes": draw(st.integers(1, 200)),
        "cuts": draw(st.lists(st.integers(1, n_samples), max_size=3)),
    }


@quick
@given(feature_sets())
def test_what_a_feature_store_gives_back_is_what_went_in_bit_for_bit(drawn):
    values, n_samples = drawn["values"], len(drawn["sample_ids"])
    with folder() as path:
        store_path, digest = path / "features.zarr", path / "features.json"
        with store_draft(store_path) as draft:
            writer = FeatureWriter(
                draft,
                layers={layer: array.shape[3] for layer, array in values.items()},
                attrs={"made_by": "any"},
                **{key: drawn[key] for key in ("seeds", "steps", "epochs", "sample_ids", "labels", "chunk_bytes")},
            )
            bounds = sorted({0, *drawn["cuts"], n_samples})
            for layer, array in values.items():
                for seed, step in np.ndindex(array.shape[:2]):
                    for start, stop in itertools.pairwise(bounds):
                        writer.write(layer, seed, step, start, array[seed, step, start:stop])
        write_digest(store_path, digest, writer.hashes)
        verify_digest(store_path, digest)

        store = FeatureStore.open(store_path, digest)
        assert store.layers == tuple(values)
        assert (store.seeds.tolist(), store.steps.tolist()) == (drawn["seeds"], drawn["steps"])
        assert store.epochs.tolist() == drawn["epochs"]
        assert_same_bits(store.sample_ids, drawn["sample_ids"])
        assert_same_bits(store.labels, drawn["labels"])
        assert store.sample_hash == sample_hash(drawn["sample_ids"])
        for layer, array in values.items():
            for seed, step in np.ndindex(array.shape[:2]):
                assert_same_bits(store.matrix(layer, seed, step), array[seed, step])
                assert_same_bits(np.concatenate(list(store.blocks(layer, seed, step))), array[seed, step])
        with xr.open_zarr(store_path, chunks=None) as opened:
            for layer, array in values.items():
                assert_same_bits(opened[layer].to_numpy(), array)


NUMBERS = [np.bool_, *(np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)), np.float32, np.float64]


@st.composite
def datasets(draw) -> xr.Dataset:
    """Draw an xarray data set: numbers of every kind, texts, any dimensions up to three, none of them empty."""
    sizes = {name: draw(st.integers(1, 4)) for name in ("seed", "step", "component")}
    variables = {}
    for i in range(draw(st.integers(1, 3))):
        dimensions = draw(st.lists(st.sampled_from(sorted(sizes)), unique=True, max_size=3))
        shape = tuple(sizes[dimension] for dimension in dimensions)
        dtype = np.dtype(draw(st.sampled_from(NUMBERS)))
        elements = {"f4": FLOATS32, "f8": FLOATS64}.get(dtype.str[1:])
        variables[f"v{i}"] = (dimensions, draw(hnp.arrays(dtype, shape, elements=elements)))
    words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=6)
    texts = draw(st.lists(words, min_size=sizes["step"], max_size=sizes["step"]))
    variables["words"] = (("step",), np.array(texts, dtype=np.dtypes.StringDType()))
    attributes = st.dictionaries(st.sampled_from(["a", "b"]), st.integers() | words | st.booleans())
    return xr.Dataset(variables, coords={"seed": np.arange(sizes["seed"])}, attrs=draw(attributes))


@quick
@given(
    datasets(),
    st.sampled_from(["", "hidden1", "a/b"]),
    st.dictionaries(st.sampled_from(["seed", "step"]), st.integers(1, 5)),
)
def test_what_a_group_gives_back_is_what_went_in(dataset, group, chunks):
    with folder() as path:
        with store_draft(path / "s.zarr") as draft:
            write_group(draft, group, dataset, chunks=chunks)
        write_digest(path / "s.zarr", path / "s.json")
        found = read_group(path / "s.zarr", group, path / "s.json").load()
    attributes = {key: value for key, value in found.attrs.items() if key != "featurespace_format"}
    assert attributes == dataset.attrs
    assert set(found.variables) == set(dataset.variables)
    for name, variable in dataset.variables.items():
        assert found[name].dims == variable.dims
        if name == "words":
            assert found[name].to_numpy().tolist() == variable.to_numpy().tolist()
        else:
            assert_same_bits(found[name].to_numpy(), variable.to_numpy())


# --- numerics ---------------------------------------------------------------------------------------------------


@st.composite
def matrices(draw) -> np.ndarray:
    """Draw features: any small shape and scale, some columns or rows alike, some dead, with or without a mean."""
    n_samples, n_features = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    elements = st.floats(-1, 1, width=32).filter(lambda x: x == 0 or abs(x) > 1e-6)
    matrix = draw(hnp.arrays(np.float32, (n_samples, n_features), elements=elements))
    matrix = matrix * np.float32(10.0 ** draw(st.integers(-6, 6)))
    if draw(st.booleans()):
        matrix[:, draw(st.integers(0, n_features - 1))] = 0
    if draw(st.booleans()):
        matrix[draw(st.integers(0, n_samples - 1))] = matrix[0]
    return matrix


@quick
@given(matrices(), st.integers(1, 6), st.integers(1, 15), st.booleans())
def test_spectra_are_those_of_a_full_decomposition(matrix, vectors, block_rows, whole):
    found = decompose(Rows.of(matrix, block_rows=block_rows), vectors=vectors, whole=whole)
    largest = np.linalg.norm(matrix.astype(np.float64), 2)
    for index, centring in enumerate(CENTRINGS):
        left, values, _ = reference.svd(matrix, centring)
        got = found.singular_values[index]
        assert len(got) == (len(values) if whole else min(vectors, len(values)))
        expected = values[: len(got)]
        # To 1e-8 of each value down to a thousandth of the largest, and to 1e-8 of the largest below.
        tolerance = np.where(expected >= 1e-3 * values[0], 1e-8 * expected, 1e-7 * values[0]) + 1e-13 * largest
        assert np.all(np.abs(got - expected) <= tolerance)
        assert np.all(np.diff(got) <= 0)
        assert found.frobenius_norm[index] == pytest.approx(np.linalg.norm(values), rel=1e-10, abs=1e-13 * largest)
        below = np.append(values, 0.0)
        for i in range(min(vectors, len(values))):
            vector = found.left_vectors[index, i]
            if values[i] < 1e-3 * values[0] or values[0] < 1e-10 * largest or not values[0]:
                continue
            assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-12)
            apart = min(below[i] - below[i + 1], values[i - 1] - values[i] if i else math.inf) / values[0]
            if apart > 1e-2:
                assert abs(vector @ left[:, i]) == pytest.approx(1, abs=1e-9)


@quick
@given(matrices(), st.integers(0, 10**6), st.sampled_from([math.nan, math.inf, -math.inf]))
def test_a_value_that_is_not_finite_is_named_wherever_it_is(matrix, position, value):
    row, column = np.unravel_index(position % matrix.size, matrix.shape)
    matrix[row, column] = value
    with pytest.raises(FeaturespaceError, match=f"sample {row} has a feature that is NaN or infinite"):
        decompose(Rows.of(matrix, block_rows=4), vectors=2)


@st.composite
def unit_rows(draw, n: int) -> np.ndarray:
    """Draw a unit vector of n entries, (1, n)."""
    vector = draw(hnp.arrays(np.float64, n, elements=st.floats(-1, 1)))
    length = np.linalg.norm(vector)
    assume(length > 1e-3)
    return (vector / length)[None]


@quick
@given(st.integers(2, 12).flatmap(lambda n: st.tuples(unit_rows(n), unit_rows(n))), st.floats(-12, 0))
def test_angles_are_those_of_the_definition_also_between_nearly_equal_vectors(pair, exponent):
    a, b = pair
    near = a + 10.0**exponent * (b - (a @ b.T) * a)
    near /= np.linalg.norm(near)
    for other in (b, near):
        angle = angles.angle_deg(a, other)[0, 0]
        # the definition itself is off by rounding, in radians
        assert angle == pytest.approx(reference.angle_deg(a[0], other[0]), rel=1e-9, abs=np.degrees(4e-15))
        assert 0 <= angle <= 90 + 1e-12
        assert angles.angle_deg(other, a)[0, 0] == pytest.approx(angle, rel=1e-9, abs=1e-13)
        assert angles.angle_deg(a, -other)[0, 0] == pytest.approx(angle, rel=1e-9, abs=1e-13)
        assert math.cos(math.radians(angle)) == pytest.approx(angles.cosine(a, other)[0, 0], abs=1e-12)
    assert angles.angle_deg(a, a)[0, 0] == 0
    assert angles.angle_deg(a, -a)[0, 0] == 0
    expected = reference.angle_deg(a[0], np.ones(a.shape[1]))
    assert angles.angle_to_ones_deg(a)[0] == pytest.approx(expected, rel=1e-9, abs=1e-6)


def frames(n: int, k: int) -> st.SearchStrategy[np.ndarray]:
    """Draw k vectors of n entries, (n, k)."""
    return hnp.arrays(np.float64, (n, k), elements=st.floats(-1, 1))


@quick
@given(st.integers(3, 10).flatmap(lambda n: st.tuples(frames(n, 2), frames(n, 3))))
def test_principal_angles_are_those_of_the_projectors(pair):
    a, b = pair
    assume(min(np.linalg.svd(m, compute_uv=False)[-1] for m in pair) > 1e-2)
    bases = [angles.orthonormal_basis(m.T) for m in pair]
    found = angles.principal_angles_deg(*bases)
    np.testing.assert_allclose(found, reference.principal_angles_deg(a, b), atol=1e-6)
    np.testing.assert_allclose(angles.principal_angles_deg(*reversed(bases)), found, atol=1e-9)
    assert angles.largest_principal_angle_deg(*bases) == pytest.approx(found[-1], abs=1e-6)


@st.composite
def labelled(draw) -> tuple[np.ndarray, np.ndarray]:
    """Draw features in two classes or more, which lie apart, far from zero or near it, and of any size."""
    n_classes, n_features = draw(st.integers(2, 4)), draw(st.integers(1, 9))
    counts = draw(st.lists(st.integers(1, 7), min_size=n_classes, max_size=n_classes))
    labels = np.repeat(draw(st.permutations(range(-3, n_classes + 3)))[:n_classes], counts)
    labels = labels[draw(st.permutations(range(len(labels))))]
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    means = {label: generator.normal(size=n_features) for label in np.unique(labels)}
    spread = 10.0 ** draw(st.integers(-3, 1))
    features = np.array([means[label] for label in labels]) + spread * generator.normal(size=(len(labels), n_features))
    return (10.0 ** draw(st.integers(-4, 4)) * features).astype(np.float32), labels


@quick
@given(labelled(), st.integers(1, 9))
def test_compression_and_discrimination_are_those_of_the_definitions(drawn, block_rows):
    features, labels = drawn
    found = measure(Rows.of(features, block_rows=block_rows), labels)
    within, between = reference.scatter(features, labels)
    assert found.within_trace == pytest.approx(np.trace(within), rel=1e-9, abs=1e-13 * np.trace(between))
    assert found.between_trace == pytest.approx(np.trace(between), rel=1e-9)
    if found.reliable:
        assert found.compression == pytest.approx(reference.compression(features, labels), rel=1e-8)
    assert found.discrimination == pytest.approx(reference.discrimination(features, labels), rel=1e-8, abs=1e-12)
    assert found.frobenius_norm == pytest.approx(np.linalg.norm(features.astype(np.float64)), rel=1e-12)
    # neither sees the order of the samples, nor the unit they are measured in
    order = np.random.default_rng(0).permutation(len(labels))
    other = measure(Rows.of(4 * features[order]), labels[order])
    assert other.discrimination == pytest.approx(found.discrimination, rel=1e-8, abs=1e-12)
    if found.reliable:
        assert other.compression == pytest.approx(found.compression, rel=1e-8)


# --- the study file ---------------------------------------------------------------------------------------------

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(section: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List where plain data can be changed: every key and every position."""
    members = section.items() if isinstance(section, dict) else enumerate(section) if isinstance(section, list) else ()
    return [place for key, member in members for place in ((*above, key), *places(member, (*above, key)))]


@settings(quick, max_examples=200)
@given(st.sampled_from(places(TINY)), PLAIN)
def test_any_value_anywhere_is_taken_or_refused_in_one_line_and_what_is_taken_stays_itself(place, value):
    study = copy.deepcopy(TINY)
    section = study
    for part in place[:-1]:
        section = section[part]
    section[place[-1]] = value
    try:
        parsed = parse_study(study, "my.yaml")
    except FeaturespaceError as error:
        assert str(error).startswith("my.yaml: ")
        assert str(error).isprintable()
        return
    once = parsed.model_dump(mode="json", exclude_unset=True)
    again = parse_study(once)
    assert again == parsed
    assert again.model_dump(mode="json", exclude_unset=True) == once
    assert Plan(again).write_study() == Plan(parsed).write_study()


@slow
@given(st.recursive(PLAIN, lambda inner: st.lists(inner), max_leaves=3))
def test_anything_for_a_study_is_refused_in_one_line(data):
    with pytest.raises(FeaturespaceError) as caught:
        parse_study(data, "my.yaml")
    assert str(caught.value).isprintable()
