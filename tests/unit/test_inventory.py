"""Contents decide: which files are read again, and when a source counts as another."""

import hashlib
import json
import os
import time

import pytest

from featurespace import inventory
from featurespace.errors import FeaturespaceError
from featurespace.inventory import contents_digest, list_source, look_at, recall


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "photos"
    for name, content in (("a/1.png", b"one"), ("a/2.png", b"two"), ("b/3.png", b"three"), ("notes.txt", b"x")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
        age(root / name)
    return root


def age(path, seconds=3600):
    """Date a file back, as if it had been there for long; its ctime cannot be set."""
    when = time.time() - seconds
    os.utime(path, (when, when))


def is_png(name):
    return name.endswith(".png")


def look(root, cache, reads=None, described=None):
    """Look at a folder, and note which files were read and how often facts were worked out."""
    return look_at(
        root,
        "images",
        lambda path, names: (described.append(1) if described is not None else None) or {"n": len(names)},
        is_png,
        cache,
    )


@pytest.fixture
def reads(monkeypatch):
    """The names of files that were read; time stamps count as settled at once."""
    names = []
    honest = inventory.sha256
    monkeypatch.setattr(inventory, "sha256", lambda path: names.append(path.name) or honest(path))
    monkeypatch.setattr(inventory, "_SETTLED", 0)
    return names


def test_a_listing_is_of_what_is_wanted_and_not_hidden(folder):
    (folder / ".hidden.png").write_bytes(b"")
    (folder / ".git").mkdir()
    (folder / ".git/4.png").write_bytes(b"")
    assert sorted(list_source(folder, is_png)) == ["a/1.png", "a/2.png", "b/3.png"]
    about = (folder / "a/1.png").stat()
    assert list_source(folder)["a/1.png"] == (3, about.st_mtime_ns, about.st_ctime_ns)
    assert list(list_source(folder / "notes.txt")) == [""]


def test_the_digest_is_of_names_and_contents(folder, tmp_path):
    checksums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in list_source(folder, is_png)}
    lines = "".join(f"{name}\0{checksums[name]}\n" for name in sorted(checksums))
    expected = hashlib.sha256(lines.encode()).hexdigest()
    assert contents_digest(checksums) == expected == look(folder, tmp_path / "cache").contents


def test_only_new_files_are_read_and_a_touch_changes_nothing(folder, tmp_path, reads):
    cache, described = tmp_path / "cache", []
    first = look(folder, cache, described=described)
    assert sorted(reads) == ["1.png", "2.png", "3.png"]
    reads.clear()
    assert look(folder, cache, described=described) == first
    assert not reads
    (folder / "a/2.png").touch()
    assert look(folder, cache, described=described) == first
    assert reads == ["2.png"]
    reads.clear()
    assert look(folder, cache, described=described) == first
    assert not reads
    assert described == [1]


def test_every_change_of_contents_is_another_source(folder, tmp_path, reads):
    cache = tmp_path / "cache"
    seen = [look(folder, cache).contents]

    def edited():
        before = (folder / "b/3.png").stat()
        (folder / "b/3.png").write_bytes(b"THREE")
        os.utime(folder / "b/3.png", ns=(before.st_atime_ns, before.st_mtime_ns))  # same size, same time

    changes = [
        edited,
        lambda: (folder / "b/4.png").write_bytes(b"four"),
        lambda: (folder / "b/4.png").unlink(),
        lambda: (folder / "a/1.png").rename(folder / "b/1.png"),
        lambda: (folder / "b/1.png").rename(folder / "b/5.png"),
    ]
    for change in changes:
        change()
        seen.append(look(folder, cache).contents)
    assert seen[3] == seen[1]  # what was added is gone again
    del seen[3]
    assert len(set(seen)) == len(seen)


def test_a_file_that_was_changed_just_now_is_not_remembered(folder, tmp_path):
    # it may change again within the grain of its time stamp
    cache = tmp_path / "cache"
    look(folder, cache)
    (path,) = cache.glob("*-files.json")
    assert json.loads(path.read_text())["files"] == {}
    assert look(folder, cache) == look(folder, cache)


def test_a_job_goes_by_what_was_remembered(folder, tmp_path, reads):
    cache = tmp_path / "cache"
    assert recall(folder, "images", cache) is None
    found = look(folder, cache)
    (folder / "a/1.png").unlink()
    assert recall(folder, "images", cache) == found
    assert recall(folder, "arrays", cache) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 0}', b"\xff"])
def test_what_was_remembered_and_is_damaged_is_worked_out_again(folder, tmp_path, reads, content):
    cache = tmp_path / "cache"
    found = look(folder, cache)
    for path in cache.iterdir():
        path.write_bytes(content)
    assert look(folder, cache) == found


def test_where_nothing_can_be_written_all_is_read_each_time(folder, tmp_path, reads):
    (tmp_path / "file").write_bytes(b"")
    found = look(folder, tmp_path / "file")
    assert look(folder, tmp_path / "file") == found
    assert len(reads) == 6


def test_links_stay_within_the_folder(folder, tmp_path):
    (folder / "a/link.png").symlink_to("1.png")
    assert "a/link.png" in list_source(folder, is_png)
    (folder / "a/link.png").unlink()
    (tmp_path / "outside.png").write_bytes(b"secret")
    for target, reason in (
        (tmp_path / "outside.png", "leads out of the folder"),
        ("../../outside.png", "leads out of the folder"),
        ("nowhere.png", "is a link to no file"),
        ("link.png", "is a link to no file"),
    ):
        (folder / "a/link.png").symlink_to(target)
        with pytest.raises(FeaturespaceError, match=rf"photos: a/link\.png .*{reason}"):
            list_source(folder, is_png)
        (folder / "a/link.png").unlink()
    (folder / "c").symlink_to("a")  # a folder: it could go round in circles
    with pytest.raises(FeaturespaceError, match="c is a link to no file"):
        list_source(folder, is_png)


def test_what_is_no_file_is_refused(folder, tmp_path):
    os.mkfifo(folder / "a/pipe.png")
    with pytest.raises(FeaturespaceError, match=r"a/pipe\.png is no plain file"):
        list_source(folder, is_png)
    with pytest.raises(FeaturespaceError, match="is neither a file nor a folder"):
        list_source(folder / "a/pipe.png")
    with pytest.raises(FeaturespaceError, match=r"nowhere cannot be read \(No such file"):
        list_source(tmp_path / "nowhere")
