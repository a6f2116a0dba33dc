"""What a script's result depends on in code: itself and the local modules it imports, by a static walk.

Snakemake's own trigger sees only the script file, and of that only its time stamp. So every rule carries, as a
parameter, a digest of each file in its script's closure: a touch runs nothing, and an edit runs exactly the rules
whose scripts import what was edited, however old the file claims to be.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from featurespace.errors import FeaturespaceError


def _statements(node: ast.AST) -> Iterator[str]:
    """Write a syntax tree as tokens that comments, docstrings, layout and empty optional fields do not change."""
    for field, value in ast.iter_fields(node):
        body = value
        if field == "body" and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            has_docstring = ast.get_docstring(node, clean=False) is not None
            body = value[1:] if has_docstring else value
        if body is None or body == []:
            continue  # newer Pythons add optional fields: they must not change the digest of old code
        yield f"{type(node).__name__}.{field}="
        for item in body if isinstance(body, list) else [body]:
            if isinstance(item, ast.AST):
                yield f"{type(item).__name__}("
                yield from _statements(item)
                yield ")"
            else:
                yield repr(item)


def code_digest(tree: ast.AST) -> str:
    """Return the SHA-256 of what parsed Python does: comments, docstrings and layout do not count."""
    text = "\n".join(_statements(tree))
    return hashlib.sha256(text.encode()).hexdigest()


def _imported(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield dotted names that a module imports anywhere, each perhaps a module or a name within one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            for alias in node.names:
                yield (*base, alias.name)


class CodeIndex:
    """The closures of the scripts in one directory.

    Parameters
    ----------
    root
        The directory of the scripts, which is also where their packages are imported from.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._parse = cache(self._parse_uncached)

    def _files(self, name: tuple[str, ...]) -> Iterator[Path]:
        """Yield the local files that importing a dotted name executes: its packages, and the module itself."""
        for length in range(1, len(name) + 1):
            path = self.root.joinpath(*name[:length])
            if (path / "__init__.py").is_file():
                yield path / "__init__.py"
            elif path.with_suffix(".py").is_file():
                yield path.with_suffix(".py")
                return
            else:
                return

    def _parse_uncached(self, path: Path) -> tuple[str, tuple[Path, ...]]:
        """Return a file's digest, and the local files that it imports directly."""
        source = path.read_text(encoding="utf-8")
        try:
            tree = ast.parse(source)
        except SyntaxError as error:
            raise FeaturespaceError(f"{path}: line {error.lineno}: {error.msg}") from error
        package = path.relative_to(self.root).parent.parts
        found = dict.fromkeys(file for name in _imported(tree, package) for file in self._files(name))
        return code_digest(tree), tuple(found)

    def closure(self, script: str, *data_files: str) -> dict[str, str]:
        """Return {file: SHA-256} of a script and of all local modules it imports, however deep.

        Parameters
        ----------
        script
            The script, relative to the root.
        data_files
            Other files that are part of the code, a template say, hashed as they are.

        Returns
        -------
        dict
            Paths relative to the root, sorted.
        """
        pending, seen = [self.root / script], {}
        while pending:
            path = pending.pop()
            if path in seen:
                continue
            seen[path], imported = self._parse(path)
            pending.extend(imported)
        for name in data_files:
            seen[self.root / name] = hashlib.sha256((self.root / name).read_bytes()).hexdigest()
        return {str(path.relative_to(self.root)): seen[path] for path in sorted(seen)}
