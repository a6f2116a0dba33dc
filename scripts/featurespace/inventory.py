"""What lies in a user's own file or folder: names, sizes and checksums, of which only what is new is read again.

Contents decide what is stale, and a folder may hold 100,000 files: so the checksum of each is remembered together with
its size and its two time stamps. A look at a folder that nobody has touched reads no file, and a file that was only
touched has the same checksum as before. Plain Python: every Snakemake process imports this.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurespace.checksums import sha256
from featurespace.errors import FeaturespaceError
from featurespace.files import write_text_atomically

FORMAT = 1  # of what is remembered
CACHE = Path(".snakemake/featurespace")  # beside Snakemake's own records, and as dispensable

_SETTLED = 2 * 10**9  # ns: a file that was changed later than this before it was read may change within its time stamp
_MANY = 2000  # files, or
_MUCH = 2 * 10**9  # bytes, whose reading is announced

Stamp = tuple[int, int, int]  # size, mtime and ctime in ns: an edit that sets the first two back changes the third
Listing = dict[str, Stamp]

logger = logging.getLogger(__name__)


def list_source(root: Path, is_wanted: Callable[[str], bool] = lambda name: True) -> Listing:
    """List the files below a folder by relative POSIX name, or the one file itself as ""; hidden names do not count.

    Raises
    ------
    FeaturespaceError
        If there is no such file or folder, or a file in it is neither plain nor a link to a plain one in the folder.
    """
    try:
        top = root.stat()
        if not stat.S_ISDIR(top.st_mode):
            if not stat.S_ISREG(top.st_mode):
                raise FeaturespaceError(f"{shown(root)} is neither a file nor a folder")
            return {"": _stamp(top)}
        found: Listing = {}
        real_root = os.path.realpath(root)
        pending = [("", os.fspath(root))]
        while pending:
            prefix, folder = pending.pop()
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = prefix + entry.name
                    if entry.name.startswith("."):
                        continue
                    if entry.is_symlink():
                        if not (is_wanted(name) or entry.is_dir()):
                            continue
                        _require_inside(root, name, entry.path, real_root)
                    elif entry.is_dir():
                        pending.append((f"{name}/", entry.path))
                        continue
                    if not is_wanted(name):
                        continue
                    about = entry.stat()
                    if not stat.S_ISREG(about.st_mode):
                        raise FeaturespaceError(f"{shown(root)}: {shown(name)} is no plain file; move it away")
                    found[name] = _stamp(about)
    except OSError as error:
        raise FeaturespaceError(f"{shown(error.filename or root)} cannot be read ({error.strerror})") from error
    except ValueError as error:  # a null byte in a name
        raise FeaturespaceError(f"{shown(root)} cannot be read ({error})") from error
    return found


def shown(name: str | os.PathLike[str]) -> str:
    """Write a file's name, which a stranger may have chosen, so that a terminal obeys nothing in it."""
    text = os.fspath(name)
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def _stamp(about: os.stat_result) -> Stamp:
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns


def _require_inside(root: Path, name: str, path: str, real_root: str) -> None:
    """Refuse a link that leads out of its folder, to nothing, or to a folder: the last could go round in circles."""
    target, where = os.path.realpath(path), f"{shown(root)}: {shown(name)}"
    if os.path.commonpath([real_root, target]) != real_root:
        raise FeaturespaceError(f"{where} is a link that leads out of the folder; put the file itself there")
    if not Path(target).is_file():
        raise FeaturespaceError(f"{where} is a link to no file; put the files themselves there")


def contents_digest(checksums: Mapping[str, str]) -> str:
    """Return the SHA-256 of {name: SHA-256 of a file}, in the order of the names: what a source holds."""
    total = hashlib.sha256()
    for name in sorted(checksums):
        total.update(f"{name}\0{checksums[name]}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


@dataclass(frozen=True)
class Source:
    """What is known of a file or folder: the digest of what it holds, and facts worked out from that."""

    contents: str
    facts: dict[str, Any]


def look_at(
    root: Path,
    kind: str,
    describe: Callable[[Path, list[str]], dict[str, Any]],
    is_wanted: Callable[[str], bool] = lambda name: True,
    cache: Path = CACHE,
) -> Source:
    """Look at a file or folder, read what is new in it, and remember that.

    Parameters
    ----------
    root
        The file or folder.
    kind
        What it is looked at as; facts of the same files as something else are others.
    describe
        Works out facts, as plain data, from the root and the names of its files. Called only if the contents are new.
    is_wanted
        Which files count.
    cache
        Where it is remembered; where nothing can be written, all is read each time.
    """
    listing = list_source(root, is_wanted)
    known = _recall(_place(root, kind, cache))
    stamps = _digest_of_listing(listing)
    if known is not None and known["listing"] == stamps:
        return Source(known["contents"], known["facts"])
    checksums, is_settled = _read_new(root, listing, _place(root, "files", cache))
    contents = contents_digest(checksums)
    facts = known["facts"] if known is not None and known["contents"] == contents else describe(root, [*listing])
    content = {"format": FORMAT, "listing": stamps if is_settled else "", "contents": contents, "facts": facts}
    _remember(_place(root, kind, cache), content)
    return Source(contents, facts)


def recall(root: Path, kind: str, cache: Path = CACHE) -> Source | None:
    """Return what was last seen of a file or folder, without a look at it: for jobs, which may run elsewhere."""
    known = _recall(_place(root, kind, cache))
    return None if known is None else Source(known["contents"], known["facts"])


def _place(root: Path, kind: str, cache: Path) -> Path:
    return cache / f"{hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:24]}-{kind}.json"


def _recall(path: Path) -> dict[str, Any] | None:
    try:
        known = json.loads(path.read_bytes())
        return known if known["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(path: Path, content: dict[str, Any]) -> None:
    with suppress(OSError, FeaturespaceError):
        write_text_atomically(path, json.dumps(content, separators=(",", ":")))


def _digest_of_listing(listing: Listing) -> str:
    total = hashlib.sha256()
    for name in sorted(listing):
        total.update(f"{name}\0{listing[name]}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def _read_new(root: Path, listing: Listing, remembered: Path) -> tuple[dict[str, str], bool]:
    """Return {name: SHA-256}, of new files by reading them; and whether no file was changed just now."""
    known = (_recall(remembered) or {}).get("files", {})
    checksums = {name: known[name][3] for name, stamp in listing.items() if known.get(name, [])[:3] == [*stamp]}
    new = [name for name in listing if name not in checksums]
    n_bytes = sum(listing[name][0] for name in new)
    if len(new) > _MANY or n_bytes > _MUCH:
        print(f"featurespace: reading {len(new):,} new files of {root}, {n_bytes / 1e9:.3g} GB", file=sys.stderr)
    began = time.time_ns()
    with ThreadPoolExecutor(max_workers=4) as pool:
        checksums |= zip(new, pool.map(lambda name: _checksum(root, name), new), strict=True)
    settled = {name: stamp for name, stamp in listing.items() if max(stamp[1:]) < began - _SETTLED}
    if new or known.keys() != settled.keys():
        files = {name: [*stamp, checksums[name]] for name, stamp in settled.items()}
        _remember(remembered, {"format": FORMAT, "files": files})
    return checksums, len(settled) == len(listing)


def _checksum(root: Path, name: str) -> str:
    path = root / name if name else root
    try:
        return sha256(path)
    except OSError as error:
        raise FeaturespaceError(f"{shown(path)} cannot be read ({error.strerror})") from error
