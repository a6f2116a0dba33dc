"""Checksums: of a file, and of plain data."""

import hashlib
import json
from pathlib import Path
from typing import Any


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_data(content: Any) -> str:
    """Return the SHA-256, in hex, of plain data: of its JSON with sorted keys."""
    as_read = json.loads(json.dumps(content))  # where keys are text, and sorted as such
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()
