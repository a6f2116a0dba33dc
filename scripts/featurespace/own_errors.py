"""What went wrong in a user's own code, in one line that says where in it."""

import sysconfig
import traceback
from pathlib import Path

# Frames below these are not the user's: this library, Python's own, and what is installed.
_NOT_OWN = [
    Path(__file__).parent,
    *(Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib", "purelib", "platlib")),
]


def told(error: BaseException) -> str:
    """Write an exception in one line, with the deepest line of the user's own code that it came through."""
    said = " ".join(str(error).split())
    line = f"{type(error).__name__}: {said}" if said else type(error).__name__
    place = _place_of(error)
    return f"{line} ({place})" if place else line


def _place_of(error: BaseException) -> str:
    """Name file and line, `mine.py:10`; nothing if the exception came through no file of the user's."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        # what has no file is called <string> or <frozen ...>
        if file.suffix == ".py" and not any(file.is_relative_to(folder) for folder in _NOT_OWN):
            return f"{file.name}:{frame.lineno}"
    return ""
