"""Files that are whole or absent: text, JSON and tables, written beside their place and renamed into it."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurespace.errors import FeaturespaceError

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def full_disk_named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn "no space left", from whichever library, into one line that names what was being written.

    Raises
    ------
    FeaturespaceError
        If the body fails because the disk, or the user's quota, is full.
    """
    try:
        yield
    except FeaturespaceError:
        raise
    except Exception as error:
        if _is_disk_full(error):
            raise FeaturespaceError(
                f"the disk is full: {os.fspath(path)} could not be written; free some space and run again"
            ) from error
        raise


def _is_disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        # Libraries written in Rust or C++ (safetensors, torch) pass on the message without the number.
        if "No space left on device" in str(error) or "os error 28" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def write_text_atomically(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file so that a reader sees the old content or the new, never a part of it.

    Parameters
    ----------
    path
        The file; directories above it are made.
    text
        Its content, written as it is (line ends are not translated).

    Raises
    ------
    FeaturespaceError
        If the disk is full; what was there before is still there.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with full_disk_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write plain data as indented JSON, keys in the order given, atomically; NaN and infinities are refused."""
    write_text_atomically(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_table(path: str | os.PathLike[str], table: "pd.DataFrame") -> None:
    """Write a tidy table as CSV, atomically, without its index.

    Floats get 17 significant digits, which is what it takes to read the same float64 back; a missing value is
    an empty field.
    """
    text = table.to_csv(index=False, float_format="%.17g", lineterminator="\n")
    write_text_atomically(path, text)
