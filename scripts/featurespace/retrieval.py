"""Retrieving published files: mirrors in order, retries, and nothing kept that is not what was published.

Pooch's downloader does the transfer; here is what it leaves open: which mirror comes next, when trying again helps,
and the check. A file appears under its own name only once it has been checked.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
from pooch import HTTPDownloader

from featurespace.catalogue import MAX_FILE_BYTES, PublishedDataset, PublishedFile, verified_content
from featurespace.errors import FeaturespaceError
from featurespace.files import full_disk_named, write_json

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True)
class Patience:
    """How long a mirror is waited for: attempts, the first pause between two (each later one doubles), timeouts."""

    attempts: int = 3
    first_pause_s: float = 1.0
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0


class _Transfer:
    """The progress bar that pooch drives: a log line now and then, and an end to a body without one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.total = 0  # set by pooch, 0 where the server does not say
        self._n_bytes = 0
        self._started = self._logged = time.monotonic()

    def update(self, n_bytes: int) -> None:
        self._n_bytes += n_bytes
        if self._n_bytes > MAX_FILE_BYTES:
            raise ValueError(f"the body has more than {MAX_FILE_BYTES} bytes")
        now = time.monotonic()
        if now - self._logged > 5 and self.total:
            self._logged = now
            left_s = (now - self._started) * max(self.total - self._n_bytes, 0) / self._n_bytes
            megabytes = f"{self._n_bytes / 1e6:.0f} of {self.total / 1e6:.0f} MB"
            logger.info("%s: %s, about %.0f s left", self.name, megabytes, left_s)

    def reset(self) -> None:
        self._n_bytes = 0

    def close(self) -> None:
        pass


def retrieve(
    published: PublishedDataset, target: Path, source: str | None = None, patience: Patience | None = None
) -> None:
    """Bring every file of a data set into a directory, checked, and list them in its `retrieved.json`.

    Files that are there already and are the published ones stay as they are. The list gives for every file the
    published md5, where it is that by which the file is known, and, of what the file holds (a gzip file's payload, an
    archive as it is), the sha256 and the size: it is the same wherever the files came from.

    Parameters
    ----------
    published
        What to retrieve.
    target
        The directory; made if it is missing.
    source
        A local directory, or an `http:` or `https:` address, that has the files under their published
        names. It is used instead of the mirrors.
    patience
        Attempts, pauses and timeouts.

    Raises
    ------
    FeaturespaceError
        If a file cannot be had: says what failed at each place.
    """
    target.mkdir(parents=True, exist_ok=True)
    for leftover in target.glob(".partial-*"):  # of a job that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    retrieved = {}
    for file in published.files:
        content = _kept_content(target / file.name, file)
        if content is None:
            content = _fetch(published, file, target, source, patience or Patience())
        retrieved[file.name] = {
            **({"md5": file.md5} if file.md5 is not None else {}),
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
        }
    write_json(target / "retrieved.json", retrieved)


def _kept_content(path: Path, file: PublishedFile) -> bytes | None:
    """Return what a file that is there already holds, or None if it is to be fetched."""
    try:
        content = verified_content(path, file)
    except FileNotFoundError:
        return None
    except ValueError as error:
        logger.warning("%s is replaced: %s", path, error)
        return None
    logger.info("%s is there already", path)
    return content


def _fetch(
    published: PublishedDataset, file: PublishedFile, target: Path, source: str | None, patience: Patience
) -> bytes:
    """Bring one file from the first place that has it, and return what it holds."""
    directory = _local_directory(published, source)
    if directory is not None:
        origins = [str(directory / file.name)]
    elif source is not None:
        origins = [f"{source.rstrip('/')}/{file.name}"]
    else:
        origins = [*file.addresses, *(f"{mirror}{file.name}" for mirror in published.mirrors)]
    failures = []
    # Beside the target, so that the rename stays within one file system.
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=target) as scratch:
        draft = Path(scratch) / file.name
        for origin in origins:
            try:
                with full_disk_named(target / file.name):
                    if directory:
                        shutil.copyfile(origin, draft)
                    else:
                        _download(origin, draft, patience)
                content = verified_content(draft, file)
            except (requests.RequestException, OSError, ValueError) as error:
                failures.append(f"{origin}: {_reason(error, patience)}")
                logger.warning("%s", failures[-1])
                continue
            draft.replace(target / file.name)
            logger.info("%s is from %s", target / file.name, origin)
            return content
    advice = "check the source" if source else "set `source:` to a directory or an address that has the files"
    raise FeaturespaceError(f"{published.kind}: cannot retrieve {file.name} ({'; '.join(failures)}); {advice}")


def _local_directory(published: PublishedDataset, source: str | None) -> Path | None:
    """Return the directory that a source names, or None if it is an address, or no source is given."""
    if source is None:
        return None
    if urlsplit(source).scheme in ("http", "https"):
        return None
    directory = Path(source).expanduser()
    if not directory.is_dir():
        names = ", ".join(file.name for file in published.files)
        raise FeaturespaceError(f"{published.kind}: source {directory} is no directory (it should have {names})")
    return directory


def _download(url: str, path: Path, patience: Patience) -> None:
    """Download one address to a file, trying again where that can help.

    Raises
    ------
    requests.RequestException
        The last attempt's failure.
    """
    for attempt in range(1, patience.attempts + 1):
        downloader = HTTPDownloader(
            progressbar=_Transfer(path.name),
            chunk_size=_CHUNK_BYTES,
            timeout=(patience.connect_timeout_s, patience.read_timeout_s),
            # A server that labels a .gz file as an encoding would have it decompressed on the way.
            headers={"Accept-Encoding": "identity"},
        )
        try:
            downloader(url, str(path), None)
            return
        except requests.RequestException as error:
            if attempt == patience.attempts or not _may_pass(error):
                raise
            pause_s = patience.first_pause_s * 2 ** (attempt - 1)
            logger.warning("%s: %s; again in %g s", url, _reason(error, patience), pause_s)
            time.sleep(pause_s)


def _may_pass(error: requests.RequestException) -> bool:
    """Say whether a failure may be gone at the next attempt: a lost connection or a busy server, not a missing file."""
    if isinstance(error, requests.HTTPError):
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    return isinstance(error, requests.ConnectionError | requests.Timeout | requests.exceptions.ChunkedEncodingError)


def _reason(error: Exception, patience: Patience) -> str:
    """Say in a few words why a transfer failed; the libraries' own messages nest several exceptions."""
    match error:
        case requests.HTTPError():
            return f"HTTP status {error.response.status_code}"
        case requests.ConnectTimeout():
            return f"no connection within {patience.connect_timeout_s:g} s"
        case requests.exceptions.ChunkedEncodingError():
            return "the body was cut short"
        case requests.exceptions.SSLError():
            return "no trusted TLS connection"
        # A stall within the body comes as a ConnectionError around urllib3's own exception.
        case requests.Timeout() | requests.ConnectionError() if "timed out" in str(error):
            return f"stalled: no data for {patience.read_timeout_s:g} s"
        case requests.ConnectionError():
            return "no connection"
        case FileNotFoundError():
            return "no such file"
        case OSError() if error.strerror:
            return error.strerror
    return str(error)
