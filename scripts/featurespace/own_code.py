"""Finding the user's own code that a study names, and what it depends on, without running any of it."""

import ast
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from featurespace.closure import CodeIndex, defines, module_files, own_module, parse_file
from featurespace.errors import FeaturespaceError

PLOT = "plot"  # the function of a figure's script


@dataclass(frozen=True)
class OwnFigure:
    """The script of a figure of one's own."""

    file: Path
    caption: str
    code: dict[str, str]


def find_script(script: str, search_path: Sequence[Path]) -> Path | None:
    """Find a script by the path that a study gives it, relative to one of some directories; None if none has it."""
    try:
        places = [folder / Path(script).expanduser() for folder in search_path]
        return next((place for place in places if place.is_file()), None)
    except (OSError, RuntimeError):  # a name that is too long, a user who is not there
        return None


def find_own_figure(name: str, script: str, search_path: Sequence[Path], library: Path) -> OwnFigure:
    """Find the script of a figure, its caption, and the digests of it and of the local modules it imports.

    Parameters
    ----------
    library
        The directory that featurespace itself is imported from.

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
        tree = parse_file(file)
        if not defines(tree, PLOT):
            raise FeaturespaceError(f"{file} has no function `{PLOT}(tables)`")
        digests = CodeIndex(file.parent, *search_path, library).closure(file.name)
    except FeaturespaceError as error:
        raise FeaturespaceError(f"{where}: {error}") from error
    return OwnFigure(file, ast.get_docstring(tree) or "", _as_own(digests))


def own_measures_code(functions: Sequence[str], search_path: Sequence[Path], library: Path) -> dict[str, str]:
    """Return the digests of the modules that some functions are in, and of the local modules that these import.

    Parameters
    ----------
    functions
        Each `package.module:function`.

    Raises
    ------
    FeaturespaceError
        If there is no such module, it is no Python, or it has no such function.
    """
    digests: dict[str, str] = {}
    for i, function in enumerate(functions):
        module, _, name = function.partition(":")
        where = f"analysis.measures.own.{i}"
        if is_installed(module, search_path):
            continue  # whoever installs another version of it says what is to run again
        try:
            root, file = own_module(module, search_path)
            if not defines(parse_file(file), name):
                raise FeaturespaceError(f"{file} has no function {name!r}")
            others = [folder for folder in (*search_path, library) if folder != root]
            parts = module.split(".")
            packages = [root.joinpath(*parts[:n], "__init__.py") for n in range(1, len(parts))]
            index = CodeIndex(root, *others)
            for path in (*filter(Path.is_file, packages), file):
                digests |= index.closure(path.relative_to(root).as_posix())
        except FeaturespaceError as error:
            raise FeaturespaceError(f"{where}: {error}") from error
    return _as_own(digests)


def is_installed(module: str, search_path: Sequence[Path]) -> bool:
    """Say whether a module is part of an installed package, and not of the user's own files."""
    top = module.partition(".")[0]
    if any(list(module_files((top,), root)) or (root / top).is_dir() for root in search_path):
        return False
    try:
        return importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):
        return False


def _as_own(digests: dict[str, str]) -> dict[str, str]:
    """Keep the names of the user's files apart from those of the library."""
    return {f"own:{name}": digest for name, digest in digests.items()}
