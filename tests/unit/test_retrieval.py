"""Retrieval, against a server of the tests' own: every way in which a mirror can fail, and what is kept."""

import gzip
import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from featurespace.catalogue import PUBLISHED, IdxLayout, PublishedDataset, PublishedFile, verified_content
from featurespace.errors import FeaturespaceError
from featurespace.retrieval import Patience, retrieve

PAYLOAD = b"what was published" * 20_000
GOOD = gzip.compress(os.urandom(300_000), mtime=0)
HASTE = Patience(attempts=2, first_pause_s=0.01, connect_timeout_s=0.5, read_timeout_s=0.3)
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture
def server(monkeypatch):
    """A server whose answers are chosen by the first part of the path; `server.requests` lists the paths asked for."""
    monkeypatch.setenv("NO_PROXY", "*")
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.requests.append(self.path)
            mirror = self.path.split("/")[1]
            n_asked = sum(path == self.path for path in self.server.requests)
            if mirror == "missing":
                self.send_error(404)
            elif mirror == "broken" or (mirror == "recovering" and n_asked == 1):
                self.send_error(503)
            elif mirror == "moved":
                self.send_response(302)
                self.send_header("Location", self.path.replace("moved", "good"))
                self.end_headers()
            else:
                self.send_response(200)
                self.send_header("Content-Length", str(len(GOOD)))
                self.end_headers()
                match mirror:
                    case "truncated":
                        self.wfile.write(GOOD[:1000])
                    case "stalled":
                        self.wfile.write(GOOD[:1000])
                        self.wfile.flush()
                        over.wait(10)
                    case "wrong":
                        self.wfile.write(bytes(len(GOOD)))
                    case _:
                        self.wfile.write(GOOD)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        http.requests = []
        http.address = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield http
        over.set()
        http.shutdown()
        thread.join()


def published(*mirrors: str, **file) -> PublishedDataset:
    """A data set of one file, `data.gz`, whose published content is GOOD."""
    md5 = hashlib.md5(GOOD).hexdigest()
    return PublishedDataset(
        kind="tiny",
        mirrors=mirrors,
        files=(PublishedFile(**({"name": "data.gz", "md5": md5} | file)),),
        layout=IdxLayout(),
        image_shape=(1, 1, 1),
        n_train=1,
        n_test=1,
        n_classes=1,
        class_names=("only",),
    )


def assert_only(target: Path, *names: str) -> None:
    """Nothing but these files is left behind, drafts included."""
    assert sorted(path.name for path in target.iterdir()) == sorted(names)


def test_a_file_is_retrieved_checked_and_listed(server, tmp_path):
    retrieve(published(f"{server.address}/good/"), tmp_path, patience=HASTE)
    assert (tmp_path / "data.gz").read_bytes() == GOOD
    assert_only(tmp_path, "data.gz", "retrieved.json")
    assert json.loads((tmp_path / "retrieved.json").read_text()) == {
        "data.gz": {
            "md5": hashlib.md5(GOOD).hexdigest(),
            "sha256": hashlib.sha256(GOOD).hexdigest(),
            "bytes": len(GOOD),
        }
    }


def test_an_address_of_the_files_own_comes_first_whatever_its_name_there(server, tmp_path):
    sha256 = hashlib.sha256(GOOD).hexdigest()
    by_number = published(
        f"{server.address}/good/", md5=None, sha256=sha256, addresses=(f"{server.address}/moved/files/5975967",)
    )
    retrieve(by_number, tmp_path, patience=HASTE)
    assert server.requests == ["/moved/files/5975967", "/good/files/5975967"]
    assert (tmp_path / "data.gz").read_bytes() == GOOD
    assert_only(tmp_path, "data.gz", "retrieved.json")
    # known by its sha256, it has no md5 to list
    assert json.loads((tmp_path / "retrieved.json").read_text()) == {"data.gz": {"sha256": sha256, "bytes": len(GOOD)}}


@pytest.mark.parametrize("bad", ["missing", "broken", "truncated", "stalled", "wrong"])
def test_the_mirrors_take_over_from_an_address(server, tmp_path, bad):
    retrieve(published(f"{server.address}/good/", addresses=(f"{server.address}/{bad}/1",)), tmp_path, patience=HASTE)
    assert (tmp_path / "data.gz").read_bytes() == GOOD
    assert server.requests[-1] == "/good/data.gz"


def test_a_source_replaces_the_addresses_too(server, tmp_path):
    elsewhere = published(addresses=(f"{server.address}/missing/1",))
    retrieve(elsewhere, tmp_path, f"{server.address}/good/", HASTE)
    assert server.requests == ["/good/data.gz"]


@pytest.mark.parametrize("bad", ["missing", "broken", "truncated", "stalled", "wrong"])
def test_the_next_mirror_takes_over(server, tmp_path, bad):
    retrieve(published(f"{server.address}/{bad}/", f"{server.address}/good/"), tmp_path, patience=HASTE)
    assert (tmp_path / "data.gz").read_bytes() == GOOD
    assert server.requests[-1] == "/good/data.gz"


def test_a_mirror_that_is_down_is_passed_over(server, tmp_path):
    retrieve(published("http://127.0.0.1:9/", f"{server.address}/good/"), tmp_path, patience=HASTE)
    assert (tmp_path / "data.gz").read_bytes() == GOOD


def test_a_busy_mirror_is_asked_again(server, tmp_path):
    retrieve(published(f"{server.address}/recovering/"), tmp_path, patience=HASTE)
    assert server.requests == ["/recovering/data.gz"] * 2


@pytest.mark.parametrize(("bad", "n_requests"), [("missing", 1), ("wrong", 1), ("broken", 2), ("truncated", 2)])
def test_only_what_may_pass_is_tried_again(server, tmp_path, bad, n_requests):
    with pytest.raises(FeaturespaceError):
        retrieve(published(f"{server.address}/{bad}/"), tmp_path, patience=HASTE)
    assert len(server.requests) == n_requests


def test_pauses_double(server, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr("featurespace.retrieval.time.sleep", pauses.append)
    with pytest.raises(FeaturespaceError):
        retrieve(published(f"{server.address}/broken/"), tmp_path, patience=Patience(attempts=4, first_pause_s=0.5))
    assert pauses == [0.5, 1.0, 2.0]


def test_a_redirect_is_followed(server, tmp_path):
    retrieve(published(f"{server.address}/moved/"), tmp_path, patience=HASTE)
    assert (tmp_path / "data.gz").read_bytes() == GOOD


def test_when_all_fail_one_line_lists_each_failure_and_nothing_is_kept(server, tmp_path):
    mirrors = [f"{server.address}/{bad}/" for bad in ("missing", "broken", "truncated", "stalled", "wrong")]
    with pytest.raises(FeaturespaceError) as failure:
        retrieve(published(*mirrors, "http://127.0.0.1:9/"), tmp_path, patience=HASTE)
    message = str(failure.value)
    assert "\n" not in message
    for reason in (
        "missing/data.gz: HTTP status 404",
        "broken/data.gz: HTTP status 503",
        "truncated/data.gz: the body was cut short",
        "stalled/data.gz: stalled: no data for 0.3 s",
        "wrong/data.gz: wrong checksum",
        "127.0.0.1:9/data.gz: no connection",
        "set `source:`",
    ):
        assert reason in message
    assert_only(tmp_path)


def test_a_body_without_end_is_cut(server, tmp_path, monkeypatch):
    monkeypatch.setattr("featurespace.retrieval.MAX_FILE_BYTES", 100_000)
    with pytest.raises(FeaturespaceError, match="more than 100000 bytes"):
        retrieve(published(f"{server.address}/good/"), tmp_path, patience=HASTE)
    assert_only(tmp_path)


def test_good_files_are_not_fetched_again_and_bad_ones_are(server, tmp_path):
    good = published(f"{server.address}/good/")
    retrieve(good, tmp_path, patience=HASTE)
    listed = (tmp_path / "retrieved.json").read_bytes()
    retrieve(good, tmp_path, patience=HASTE)
    assert len(server.requests) == 1
    (tmp_path / "data.gz").write_bytes(b"rotten")
    (tmp_path / ".partial-killed").mkdir()
    retrieve(good, tmp_path, patience=HASTE)
    assert len(server.requests) == 2
    assert (tmp_path / "data.gz").read_bytes() == GOOD
    assert (tmp_path / "retrieved.json").read_bytes() == listed
    assert_only(tmp_path, "data.gz", "retrieved.json")


def test_a_source_address_replaces_the_mirrors(server, tmp_path):
    retrieve(published(f"{server.address}/missing/"), tmp_path, f"{server.address}/good", HASTE)
    assert server.requests == ["/good/data.gz"]


def test_a_source_directory_replaces_the_mirrors(server, tmp_path):
    source = tmp_path / "my source"
    source.mkdir()
    (source / "data.gz").write_bytes(GOOD)
    retrieve(published(f"{server.address}/good/"), tmp_path / "data", str(source))
    assert server.requests == []
    assert (tmp_path / "data/data.gz").read_bytes() == GOOD
    assert not (tmp_path / "data/data.gz").samefile(source / "data.gz")


def test_a_source_that_will_not_do_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FeaturespaceError, match=r"cannot retrieve data.gz \(.*empty/data.gz: no such file"):
        retrieve(published(), tmp_path / "data", str(tmp_path / "empty"))
    with pytest.raises(FeaturespaceError, match=r"absent is no directory \(it should have data.gz\)"):
        retrieve(published(), tmp_path / "data", str(tmp_path / "absent"))
    with pytest.raises(FeaturespaceError, match="is no directory"):
        retrieve(published(), tmp_path / "data", "ftp://127.0.0.1/")


# --- recognising files ------------------------------------------------------------------------------------------


def gzip_file(**changes) -> PublishedFile:
    facts = {
        "name": "data.gz",
        "md5": hashlib.md5(gzip.compress(PAYLOAD, mtime=0)).hexdigest(),
        "payload_bytes": len(PAYLOAD),
        "payload_sha256": hashlib.sha256(PAYLOAD).hexdigest(),
    }
    return PublishedFile(**(facts | changes))


def test_a_file_compressed_anew_is_recognised_by_its_content(tmp_path):
    path = tmp_path / "data.gz"
    for level in (9, 1):
        path.write_bytes(gzip.compress(PAYLOAD, compresslevel=level, mtime=0))
        assert verified_content(path, gzip_file()) == PAYLOAD
    with pytest.raises(ValueError, match="wrong checksum: md5"):
        verified_content(path, gzip_file(payload_sha256=None))  # where only the file's own checksum is published


def test_a_file_is_known_by_its_sha256_where_that_is_published(tmp_path):
    path = tmp_path / "data.gz"
    path.write_bytes(GOOD)
    sha256 = hashlib.sha256(GOOD).hexdigest()
    assert verified_content(path, PublishedFile("data.gz", sha256=sha256)) == GOOD
    with pytest.raises(ValueError, match=f"wrong checksum: sha256 {sha256}, published 00"):
        verified_content(path, PublishedFile("data.gz", sha256="00" * 32))


@pytest.mark.parametrize("known_by", [{}, {"md5": "0" * 32, "sha256": "0" * 64}])
def test_a_file_is_known_by_one_checksum(known_by):
    with pytest.raises(ValueError, match="one of the two"):
        PublishedFile("data.gz", **known_by)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (gzip.compress(PAYLOAD + b"!"), "more bytes"),
        (gzip.compress(PAYLOAD[:-1]), f"{len(PAYLOAD) - 1} bytes"),
        (gzip.compress(bytes(len(PAYLOAD))), "sha256"),
        (gzip.compress(PAYLOAD)[:-20], "no whole gzip file"),
        (b"not compressed", "no whole gzip file"),
        (b"", "0 bytes"),
    ],
)
def test_another_content_is_refused(tmp_path, content, reason):
    (tmp_path / "data.gz").write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        verified_content(tmp_path / "data.gz", gzip_file())


def test_a_decompression_bomb_is_not_unpacked(tmp_path):
    import tracemalloc

    bomb = gzip.compress(bytes(200_000_000), compresslevel=9)
    (tmp_path / "data.gz").write_bytes(bomb)
    tracemalloc.start()
    with pytest.raises(ValueError, match="more bytes"):
        verified_content(tmp_path / "data.gz", gzip_file())
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


@pytest.mark.skipif(not DEBIAN_FASHION.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_debians_fashion_mnist_is_the_published_one(tmp_path):
    fashion = PUBLISHED["fashion-mnist"]
    retrieve(fashion, tmp_path, str(DEBIAN_FASHION))
    listed = json.loads((tmp_path / "retrieved.json").read_text())
    for file in fashion.files:
        # Debian's files are compressed anew; the list says what they hold, as it would of the publisher's own.
        assert hashlib.md5((tmp_path / file.name).read_bytes()).hexdigest() != file.md5
        assert listed[file.name] == {
            "md5": file.md5,
            "sha256": file.payload_sha256,
            "bytes": file.payload_bytes,
        }


def test_the_catalogue_agrees_with_torchvision():
    from torchvision import datasets

    for kind, theirs in (("mnist", datasets.MNIST), ("fashion-mnist", datasets.FashionMNIST)):
        ours = PUBLISHED[kind]
        assert sorted((file.name, file.md5) for file in ours.files) == sorted(theirs.resources)
        assert [mirror for mirror in ours.mirrors if mirror in theirs.mirrors] == theirs.mirrors
    assert list(PUBLISHED["fashion-mnist"].class_names or ()) == datasets.FashionMNIST.classes
    for kind, theirs in (("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)):
        ours = PUBLISHED[kind]
        (file,), layout = ours.files, ours.layout
        assert (file.name, file.md5, ours.mirrors[0] + file.name) == (theirs.filename, theirs.tgz_md5, theirs.url)
        assert layout.train == tuple(f"{theirs.base_folder}/{name}" for name, _ in theirs.train_list)
        assert layout.test == tuple(f"{theirs.base_folder}/{name}" for name, _ in theirs.test_list)
        assert layout.meta == f"{theirs.base_folder}/{theirs.meta['filename']}"
        assert layout.class_names_key == theirs.meta["key"]
