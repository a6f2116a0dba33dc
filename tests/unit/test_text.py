"""Texts: a made-up corpus in the published archive's form, what is stripped, TF-IDF, and what networks get of it."""

import hashlib
import io
import os
import runpy
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from published_files import GROUPS, posts, tar_of, write_published
from sklearn.datasets import _twenty_newsgroups as theirs
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer
from snakemake.iocontainers import InputFiles, OutputFiles

from featurespace import catalogue
from featurespace.catalogue import PUBLISHED, PublishedFile
from featurespace.config import parse_study
from featurespace.datasets import load_dataset, select_sample_set
from featurespace.errors import FeaturespaceError
from featurespace.networks import scale_inputs
from featurespace.plan import Plan
from featurespace.preparation import prepare, read_posts, read_published, rows_per_chunk
from featurespace.retrieval import Patience, retrieve
from featurespace.stores import FeatureStore
from featurespace.text import (
    parse_posts,
    strip_post,
    tfidf_rows,
    without_footer,
    without_headers,
    without_quotes,
)
from featurespace.training import train_block

SCRIPTS = Path(__file__).parents[2] / "scripts"
NAME = "20news-bydate.tar.gz"
TRAIN, TEST = "20news-bydate-train", "20news-bydate-test"
SPEC = {"kind": "newsgroups", "features": 40, "strip": True, "train_limit": None, "test_limit": None}


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """A folder with an archive of 60 + 20 made-up posts, which the catalogue takes for the published one."""
    monkeypatch.setitem(PUBLISHED, "newsgroups", PUBLISHED["newsgroups"])  # put back at the end
    patch = write_published("newsgroups", tmp_path / "corpus", n_train=60, n_test=20)
    exec(patch, dict(vars(catalogue)))
    return tmp_path / "corpus"


def published_as(directory: Path, archive: bytes, **changes):
    """Write an archive, and describe it as the published one."""
    directory.mkdir(exist_ok=True)
    (directory / NAME).write_bytes(archive)
    file = PublishedFile(NAME, sha256=hashlib.sha256(archive).hexdigest())
    return replace(PUBLISHED["newsgroups"], files=(file,), **changes)


# --- posts ------------------------------------------------------------------------------------------------------


def test_posts_are_read_by_group_and_number(corpus):
    texts, labels, split, names = read_posts(PUBLISHED["newsgroups"], corpus)
    assert names == list(GROUPS)
    np.testing.assert_array_equal(split, [0] * 60 + [1] * 20)
    np.testing.assert_array_equal(labels, [*np.repeat(np.arange(4), 15), *np.repeat(np.arange(4), 5)])
    assert (labels.dtype, split.dtype) == (np.int64, np.int8)
    members = posts(TRAIN, TEST, 60, 20)
    # 98, 102, ...: in the order of numbers, not of their digits
    expected = [members[f"{TRAIN}/test.apples/{98 + 4 * i}"].decode("latin-1") for i in range(15)]
    assert texts[:15] == expected
    assert texts[60] == members[f"{TEST}/test.apples/98"].decode("latin-1")
    assert any("café" in text for text in texts)


def test_members_of_another_form_are_no_posts():
    members = {
        "train/b/10": b"ten",
        "train/b/9": b"nine",
        "train/a/100": b"\xe9",
        "train/a/readme.txt": b"",
        "train/a/b/1": b"",
        "train/1": b"",
        "training/a/1": b"",
        "test/a/1": b"",
    }
    assert parse_posts(members, "train") == (["a", "b", "b"], ["é", "nine", "ten"])


def test_names_may_begin_with_the_folder_they_are_in(tmp_path):
    members = {f"./{name}": content for name, content in posts(TRAIN, TEST, 8, 4).items()}
    published = published_as(tmp_path, tar_of(members), n_train=8, n_test=4, n_classes=4)
    assert len(read_posts(published, tmp_path)[0]) == 12


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"n_train": 9}, "8 and 4 posts instead of 9 and 4"),
        ({"n_test": 5}, "8 and 4 posts instead of 8 and 5"),
        ({"n_classes": 5}, "not those of 5 groups"),
    ],
)
def test_a_corpus_of_another_size_is_refused(tmp_path, changes, reason):
    published = published_as(tmp_path, tar_of(posts(TRAIN, TEST, 8, 4)), n_train=8, n_test=4, n_classes=4)
    with pytest.raises(FeaturespaceError, match=f"newsgroups in .* cannot be read: .*{reason}"):
        read_posts(replace(published, **changes), tmp_path)


def test_a_group_that_is_only_tested_is_refused(tmp_path):
    members = {f"{TRAIN}/a/1": b"", f"{TRAIN}/b/2": b"", f"{TEST}/c/3": b""}
    published = published_as(tmp_path, tar_of(members), n_train=2, n_test=1, n_classes=2)
    with pytest.raises(FeaturespaceError, match="the same in either split"):
        read_posts(published, tmp_path)


def member(name: str, kind: bytes = tarfile.REGTYPE, n_bytes: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, n_bytes
    info.linkname = "/etc/passwd" if kind != tarfile.REGTYPE else ""
    return info


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (member(f"{TRAIN}/../../escape"), "leads out"),
        (member("/etc/escape"), "leads out"),
        (member("elsewhere/link", tarfile.SYMTYPE), "no plain file"),
        (member(f"{TRAIN}/test.apples/98", tarfile.SYMTYPE), "no plain file"),
        (member(f"{TRAIN}/test.apples/98", tarfile.LNKTYPE), "no plain file"),
        (member(f"{TRAIN}/test.apples/98"), "there twice"),
        (member(f"./{TRAIN}/test.apples/98"), "there twice"),
        (member("bomb", n_bytes=2**40), "too large"),
    ],
)
def test_an_archive_with_more_than_plain_files_is_refused(tmp_path, other, reason):
    archive = tar_of(posts(TRAIN, TEST, 8, 4), other)
    published = published_as(tmp_path / "corpus", archive, n_train=8, n_test=4, n_classes=4)
    with pytest.raises(FeaturespaceError, match=reason):
        read_posts(published, tmp_path / "corpus")
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_a_post_that_is_cut_is_refused(tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        tar.fileobj.write(member(f"{TRAIN}/a/1", n_bytes=100_000).tobuf() + bytes(2048))
    published = published_as(tmp_path, stream.getvalue(), n_train=1, n_test=0, n_classes=1)
    with pytest.raises(FeaturespaceError, match=r"no whole tar archive|is cut"):
        read_posts(published, tmp_path)


def test_another_archive_is_never_opened(corpus, monkeypatch):
    (corpus / NAME).write_bytes(tar_of(posts(TRAIN, TEST, 60, 16)))
    monkeypatch.setattr("featurespace.preparation.read_wanted_members", pytest.fail)
    with pytest.raises(FeaturespaceError, match=f"{NAME} is not the published file .wrong checksum: sha256"):
        read_posts(PUBLISHED["newsgroups"], corpus)
    (corpus / NAME).unlink()
    with pytest.raises(FeaturespaceError, match=f"{NAME} is missing; to retrieve it again"):
        read_posts(PUBLISHED["newsgroups"], corpus)


def test_texts_are_no_images_and_images_are_no_texts(tmp_path):
    assert {kind for kind, published in PUBLISHED.items() if published.is_text} == {"newsgroups"}
    with pytest.raises(TypeError, match="holds no texts"):
        read_posts(PUBLISHED["mnist"], tmp_path)
    with pytest.raises(TypeError, match="holds no images"):
        read_published(published_as(tmp_path, b"anything"), tmp_path)


# --- what is stripped -------------------------------------------------------------------------------------------

POSTS = [
    "",
    "\n",
    "\n\n",
    "no header ends here\n",
    "From: a@b\nSubject: c\n\nbody\n",
    "From: a@b\n\n\n\nbody\n\n--\nsignature\n\n",
    "From: a@b\n\nfirst paragraph\n\nsecond paragraph",
    "From: a@b\n\nbody\n-----\nsignature",
    "From: a@b\n\nbody\n - - \nno footer, for there is a blank between hyphens",
    "From: a@b\n\nbody\n \t \nfooter after a line of blanks",
    "From: a@b\n\n--\nonly a footer",
    "From: a@b\n\n> quoted\n| quoted too\n >not at the start\nanswer\n",
    "From: a@b\n\nIn article <1@b> c writes:\nOn Monday d wrote:\ne says: f said: g\nhe writes in books\nQuoted from x",
    "From: a@b\n\nThe article. In article\nnot Quoted from\nwrote, said\n",
    "From: a@b\r\n\r\nbody of another system\r\n\r\nend",
]


def made_up(rng: np.random.Generator) -> str:
    parts = ["\n", "\n\n", "--", " ", "-", ">", "|", "writes:", "In article", "said:", "a", "word", "\t", "\r\n", "é"]
    return "".join(rng.choice(parts, rng.integers(0, 40)))


def test_the_same_is_stripped_as_by_scikit_learn():
    rng = np.random.default_rng(0)
    texts = [*POSTS, *(made_up(rng) for _ in range(2000))]
    for text in texts:
        assert without_headers(text) == theirs.strip_newsgroup_header(text)
        assert without_footer(text) == theirs.strip_newsgroup_footer(text)
        assert without_quotes(text) == theirs.strip_newsgroup_quoting(text)
        # in the order of fetch_20newsgroups
        header, footer, quotes = (
            theirs.strip_newsgroup_header,
            theirs.strip_newsgroup_footer,
            theirs.strip_newsgroup_quoting,
        )
        assert strip_post(text) == quotes(footer(header(text)))
    assert sum(strip_post(text) != "" for text in texts) > 100


def test_nothing_stays_that_names_the_group(corpus):
    texts, labels, _, names = read_posts(PUBLISHED["newsgroups"], corpus)
    groups = [names[label] for label in labels]
    assert all(group in text for group, text in zip(groups[:-1], texts[:-1], strict=True) if "Newsgroups:" in text)
    assert not any(group in strip_post(text) for group, text in zip(groups, texts, strict=True))


def test_our_archive_is_scikit_learns():
    (file,) = PUBLISHED["newsgroups"].files
    assert (file.name, file.checksum) == (theirs.ARCHIVE.filename, ("sha256", theirs.ARCHIVE.checksum))
    assert file.addresses == (theirs.ARCHIVE.url,)
    layout = PUBLISHED["newsgroups"].layout
    assert (layout.archive, layout.train, layout.test) == (file.name, theirs.TRAIN_FOLDER, theirs.TEST_FOLDER)


@pytest.mark.parametrize("strip", [True, False])
def test_scikit_learn_takes_the_same_posts_from_the_archive(corpus, tmp_path, monkeypatch, strip):
    copied = theirs.ARCHIVE._replace(url=(corpus / NAME).as_uri(), checksum=PUBLISHED["newsgroups"].files[0].sha256)
    monkeypatch.setattr(theirs, "ARCHIVE", copied)
    texts, labels, split, names = read_posts(PUBLISHED["newsgroups"], corpus)
    for i, subset in enumerate(("train", "test")):
        bunch = theirs.fetch_20newsgroups(
            data_home=tmp_path / "home", subset=subset, remove=("headers", "footers", "quotes") if strip else ()
        )
        ours = [strip_post(text) if strip else text for text, code in zip(texts, split, strict=True) if code == i]
        assert bunch.target_names == names
        # theirs are shuffled
        assert sorted(zip(bunch.data, bunch.target.tolist(), strict=True)) == sorted(
            zip(ours, labels[split == i].tolist(), strict=True)
        )


# --- features ---------------------------------------------------------------------------------------------------


def reference_tfidf(texts: list[str], is_training: np.ndarray, n_features: int) -> tuple[np.ndarray, list[str]]:
    """The definition, in float64: (1 + ln tf) (1 + ln((1 + n) / (1 + df))) over its length."""

    def words(text):
        letters = "".join(c if c.isalnum() or c == "_" else " " for c in text.lower())
        return [word for word in letters.split() if len(word) > 1 and word not in ENGLISH_STOP_WORDS]

    training = [words(text) for text, is_one in zip(texts, is_training, strict=True) if is_one]
    df = Counter(word for some in training for word in set(some))
    tf = Counter(word for some in training for word in some)
    usual = [word for word in df if 5 <= df[word] <= len(training) / 2]
    terms = sorted(sorted(usual, key=lambda word: -tf[word])[:n_features])
    values = np.zeros((len(texts), len(terms)))
    for i, text in enumerate(texts):
        counts = Counter(words(text))
        for j, term in enumerate(terms):
            if counts[term]:
                values[i, j] = (1 + np.log(counts[term])) * (1 + np.log((1 + len(training)) / (1 + df[term])))
        values[i] /= np.linalg.norm(values[i]) or 1
    return values, terms


def zipfian(n_texts: int, n_words: int) -> list[str]:
    """Texts of words that occur often and rarely; how often differs enough that the most frequent ones are settled."""
    rng = np.random.default_rng(1)
    shares = 1 / np.arange(1, n_words + 1) ** 1.5
    return [
        " ".join(f"wörd{i}" for i in rng.choice(n_words, 30, p=shares / shares.sum())) + " The and A"
        for _ in range(n_texts)
    ]


def test_rows_are_tfidf_by_its_definition_and_by_scikit_learn():
    texts = [*zipfian(200, 60), "", "nothing known"]
    is_training = np.arange(202) % 3 != 0
    is_training[-2:] = True
    values, terms = tfidf_rows(texts, is_training, 8)
    assert (values.dtype, values.shape) == (np.float32, (202, 8))
    expected, expected_terms = reference_tfidf(texts, is_training, 8)
    assert terms == expected_terms
    assert "wörd0" not in terms  # in more than half of the texts
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=0)
    vectorizer = TfidfVectorizer(
        sublinear_tf=True, min_df=5, max_df=0.5, max_features=8, stop_words="english", dtype=np.float64
    )
    vectorizer.fit([text for text, is_one in zip(texts, is_training, strict=True) if is_one])
    np.testing.assert_allclose(values, vectorizer.transform(texts).toarray(), rtol=1e-6, atol=0)
    np.testing.assert_array_equal(values[-2:], 0)
    lengths = np.linalg.norm(values[values.any(1)].astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-6)


def test_what_is_tested_decides_no_weight():
    texts = zipfian(120, 60)
    is_training = np.arange(120) < 80
    values, terms = tfidf_rows(texts, is_training, 6)
    others = [*texts[:80], *(["unseen " * 9 + texts[0]] * 40)]
    again, same_terms = tfidf_rows(others, is_training, 6)
    assert same_terms == terms
    np.testing.assert_array_equal(again[:80], values[:80])


@pytest.mark.parametrize("texts", [["one two three"] * 4, ["", ""], ["rare"] * 5 + ["often"] * 5])
def test_too_few_terms_are_an_error(texts):
    with pytest.raises(FeaturespaceError, match=r"features: only \d terms, not 3, .* lower features"):
        tfidf_rows(texts, np.ones(len(texts), bool), 3)


# --- the prepared data set --------------------------------------------------------------------------------------


def test_a_prepared_corpus_carries_all_that_consumers_need(corpus):
    dataset = prepare(SPEC, PUBLISHED["newsgroups"], corpus)
    assert dict(dataset.sizes) == {"sample": 80, "feature": 40}
    assert dataset.value.dtype == np.float32
    np.testing.assert_array_equal(dataset["sample"], np.arange(80))
    assert dataset.attrs["class_names"] == list(GROUPS)
    assert (dataset.attrs["offset"], dataset.attrs["scale"]) == (0.0, 1.0)
    assert dataset.attrs["made_by"] == SPEC
    assert len(dataset.attrs["terms"]) == 40 and "café" in dataset.attrs["terms"]
    # the last post of either folder is only headers: it stays, as a row of zeros
    assert dataset.attrs["n_empty_rows"] == 2
    assert int((~dataset.value.values.any(1)).sum()) == 2


def test_headers_count_if_they_are_not_stripped(corpus):
    spec = SPEC | {"features": 50}
    stripped = prepare(spec, PUBLISHED["newsgroups"], corpus)
    whole = prepare(spec | {"strip": False}, PUBLISHED["newsgroups"], corpus)
    assert "apples" in whole.attrs["terms"] and "apples" not in stripped.attrs["terms"]


def test_limits_come_before_the_weights(corpus):
    spec = SPEC | {"features": 10, "train_limit": 40, "test_limit": 8}
    dataset = prepare(spec, PUBLISHED["newsgroups"], corpus)
    labels, split, ids = (dataset[name].to_numpy() for name in ("label", "split", "sample"))
    assert np.bincount(labels[split == 0]).tolist() == [10] * 4
    assert np.bincount(labels[split == 1]).tolist() == [2] * 4
    assert (np.diff(ids) > 0).all() and set(np.diff(ids)) != {1}
    texts, all_labels, all_split, _ = read_posts(PUBLISHED["newsgroups"], corpus)
    np.testing.assert_array_equal(labels, all_labels[ids])
    np.testing.assert_array_equal(split, all_split[ids])
    values, terms = tfidf_rows([strip_post(texts[i]) for i in ids], split == 0, 10)
    np.testing.assert_array_equal(dataset.value, values)
    assert dataset.attrs["terms"] == terms
    with pytest.raises(FeaturespaceError, match="newsgroups: features: only"):
        prepare(spec | {"features": 1000}, PUBLISHED["newsgroups"], corpus)


def run_script(monkeypatch, name: str, tmp_path: Path, spec: dict, outputs: dict, inputs=None, config=None) -> None:
    """Run a rule's script as Snakemake would: with an object named `snakemake` among its globals."""
    snakemake = SimpleNamespace(
        input=InputFiles(fromdict=inputs or {}),
        output=OutputFiles(fromdict=outputs),
        params=SimpleNamespace(spec=spec),
        config=config or {},
        wildcards=SimpleNamespace(),
        threads=1,
        log=[str(tmp_path / f"{name}.log")],
    )
    monkeypatch.setattr("featurespace.script._die_with_snakemake", lambda: None)
    monkeypatch.setattr("featurespace.script._start_logging", lambda log: None)
    runpy.run_path(str(SCRIPTS / f"{name}.py"), {"snakemake": snakemake}, "__main__")


@pytest.fixture
def stored(corpus, tmp_path, monkeypatch):
    """The corpus, from its local directory through retrieval and preparation into `dataset.zarr`."""
    manifest = tmp_path / "data/newsgroups/retrieved.json"
    section = {"kind": "newsgroups", "source": os.fspath(corpus)}
    config = {"datasets": {"posts": section}}
    kind = {"kind": "newsgroups"}
    run_script(monkeypatch, "retrieve_dataset", tmp_path, kind, {"manifest": str(manifest)}, config=config)
    outputs = {"store": str(tmp_path / "dataset.zarr"), "digest": str(tmp_path / "dataset.json")}
    run_script(monkeypatch, "prepare_dataset", tmp_path, SPEC, outputs, {"manifest": str(manifest)})
    return outputs


def test_what_networks_get_is_the_rows_themselves(stored, corpus, tmp_path, monkeypatch):
    dataset = load_dataset(stored["store"], stored["digest"])
    expected = prepare(SPEC, PUBLISHED["newsgroups"], corpus)
    assert rows_per_chunk(expected) == 80
    np.testing.assert_array_equal(dataset.images, expected.value)
    assert (dataset.images.dtype, dataset.is_image, dataset.input_shape) == (np.float32, False, (40,))
    np.testing.assert_array_equal(dataset.inputs(dtype=np.float32), dataset.images)
    for dtype in (np.float32, np.float64):
        ours = dataset.inputs(slice(0, 9), dtype)
        assert ours.dtype == dtype
        # stored rows in single precision, any scaling in double and rounded once, as training does it
        shifted = replace(dataset, offset=0.1, scale=0.3)
        tensors = scale_inputs(torch.from_numpy(dataset.images[:9]), 0.1, 0.3, getattr(torch, dtype.__name__))
        np.testing.assert_array_equal(shifted.inputs(slice(0, 9), dtype), tensors.numpy())
    features = {"store": str(tmp_path / "features.zarr"), "digest": str(tmp_path / "features.json")}
    inputs = {"dataset": stored["store"], "dataset_digest": stored["digest"]}
    spec = {"dataset": "posts", "sample_set": {"split": "test", "limit": 12}}
    run_script(monkeypatch, "dump_inputs", tmp_path, spec, features, inputs)
    rows = select_sample_set(dataset, "test", 12)
    store = FeatureStore.open(features["store"], features["digest"])
    np.testing.assert_array_equal(store.matrix("input", 0, 0), dataset.images[rows])
    np.testing.assert_array_equal(store.sample_ids, rows)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_network_learns_the_groups(stored, tmp_path, dtype):
    study = parse_study(
        {
            "study": "posts",
            "seeds": 1,
            "datasets": {"posts": {key: SPEC[key] for key in ("kind", "features")}},
            "recipes": {
                "mlp": {
                    "dataset": "posts",
                    "task": "classify",
                    "dtype": dtype,
                    "model": {"kind": "mlp", "widths": [16]},
                    "optimiser": {"kind": "adam", "learning_rate": 0.03},
                    "schedule": {"epochs": 30, "batch_size": 20},
                }
            },
        }
    )
    plan = Plan(study)
    assert plan.prepare_dataset("posts") == SPEC
    dataset = load_dataset(stored["store"], stored["digest"])
    run = train_block(plan.train_run("mlp", 0), dataset, torch.device("cpu"), tmp_path / "state")
    last = run.history[-1]
    # all but the post of which nothing is left
    assert last["train_accuracy"] >= 59 / 60 and last["test_accuracy"] >= 0.9


def test_without_the_corpus_one_line_says_where_it_goes(tmp_path, monkeypatch):
    offline = replace(
        PUBLISHED["newsgroups"],
        mirrors=("http://127.0.0.1:9/20Newsgroups/",),
        files=(replace(PUBLISHED["newsgroups"].files[0], addresses=("http://127.0.0.1:9/files/5975967",)),),
    )
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(FeaturespaceError) as failure:
        retrieve(offline, tmp_path / "data", patience=Patience(attempts=1))
    assert str(failure.value) == (
        f"newsgroups: cannot retrieve {NAME} (http://127.0.0.1:9/files/5975967: no connection; "
        f"http://127.0.0.1:9/20Newsgroups/{NAME}: no connection); "
        "set `source:` to a directory or an address that has the files"
    )
    assert list((tmp_path / "data").iterdir()) == []
