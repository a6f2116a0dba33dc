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

_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _read_tree(node: ast.AST, tokens: list[str], imports: list[ast.AST]) -> None:
    """Write a syntax tree as tokens that comments, docstrings, layout and empty optional fields do not change.

    One walk into lists that grow, and no generators: every Snakemake process reads some 150 files before all else.

    Parameters
    ----------
    node
        The tree.
    tokens
        Its tokens are appended to this.
    imports
        The statements in it, at any depth, that import something are appended to this.
    """
    name = type(node).__name__
    for field in node._fields:
        body = getattr(node, field, None)
        if field == "body" and isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
            body = node.body[1:]
        if body is None or body == []:
            continue  # newer Pythons add optional fields: they must not change the digest of old code
        tokens.append(f"{name}.{field}=")
        for item in body if isinstance(body, list) else (body,):
            if isinstance(item, ast.AST):
                tokens.append(f"{type(item).__name__}(")
                if item._fields:
                    _read_tree(item, tokens, imports)
                tokens.append(")")
                if isinstance(item, ast.Import | ast.ImportFrom):
                    imports.append(item)
            else:
                tokens.append(repr(item))


def read_code(tree: ast.AST) -> tuple[str, list[ast.AST]]:
    """Return the SHA-256 of what parsed Python does, and its statements that import something.

    Comments, docstrings and layout do not count.
    """
    tokens: list[str] = []
    imports: list[ast.AST] = []
    _read_tree(tree, tokens, imports)
    return hashlib.sha256("\n".join(tokens).encode()).hexdigest(), imports


def _imported(statements: list[ast.AST], package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the dotted names that statements import, each perhaps a module or a name within one."""
    for node in statements:
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
        digest, imports = read_code(tree)
        package = path.relative_to(self.root).parent.parts
        names = dict.fromkeys(_imported(imports, package))
        found = dict.fromkeys(file for name in names for file in self._files(name))
        return digest, tuple(found)

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
