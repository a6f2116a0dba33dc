"""Finding the user's own code that a study names, and what it depends on, without running any of it."""

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from featurespace.closure import OwnCode, top_level_names
from featurespace.errors import FeaturespaceError

PLOT = "plot"  # the function of a figure's script


@dataclass(frozen=True)
class OwnFigure:
    """The script of a figure of one's own."""

    file: Path
    caption: str
    code: dict[str, str]


def find_script(script: str, search_path: Sequence[str | Path]) -> Path | None:
    """Find a script by the path that a study gives it, relative to one of some directories; None if none has it."""
    try:
        places = [Path(folder) / Path(script).expanduser() for folder in search_path]
        return next((place for place in places if place.is_file()), None)
    except (OSError, RuntimeError):  # a name that is too long, a user who is not there
        return None


def find_own_figure(name: str, script: str, search_path: Sequence[str | Path], own_code: OwnCode) -> OwnFigure:
    """Find the script of a figure, its caption, and the digests of it and of the local modules it imports.

    Raises
    ------
    FeaturespaceError
        If there is no such file, it is no Python, or it has no function `plot`.
    """
    where = f"own_figures.{name}.script"
    file = find_script(script, search_path)
    if file is None:
        raise FeaturespaceError(f"{where}: no file {script!r} (looked in {', '.join(map(str, search_path))})")
    try:
        digests = own_code.of_script(file)
        names = top_level_names(file)
        if names is not None and PLOT not in names:
            raise FeaturespaceError(f"{file} has no function `{PLOT}(tables)`")
    except FeaturespaceError as error:
        raise FeaturespaceError(f"{where}: {error}") from error
    caption = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return OwnFigure(file, caption, _as_own(digests))


def own_measures_code(functions: Sequence[str], own_code: OwnCode) -> dict[str, str]:
    """Return the digests of the modules that some functions are in, and of the local modules that these import.

    Parameters
    ----------
    functions
        Each `package.module:function`. Of those that are installed there is nothing: whoever installs another version
        says what is to run again.

    Raises
    ------
    FeaturespaceError
        If there is no such module, it is no Python, or it has no such function.
    """
    digests: dict[str, str] = {}
    for i, function in enumerate(functions):
        try:
            digests |= own_code.of_function(function)
        except FeaturespaceError as error:
            raise FeaturespaceError(f"analysis.measures.own.{i}: {error}") from error
    return _as_own(digests)


def _as_own(digests: dict[str, str]) -> dict[str, str]:
    """Keep the names of the user's files apart from those of the library."""
    return {f"own:{name}": digest for name, digest in digests.items()}
