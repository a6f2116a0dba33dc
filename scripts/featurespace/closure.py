"""What a script's result depends on in code: itself and the local modules it imports, by a static walk.

Snakemake's own trigger sees only the script file, and of that only its time stamp. So every rule carries, as a
parameter, a digest of each file in its script's closure: a touch runs nothing, and an edit runs exactly the rules
whose scripts import what was edited, however old the file claims to be.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Sequence
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


def parse_file(path: Path) -> ast.Module:
    """Parse a Python file.

    Raises
    ------
    FeaturespaceError
        If it is no Python, naming the line.
    """
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise FeaturespaceError(f"{path}: line {error.lineno}: {error.msg}") from error
    except (UnicodeDecodeError, ValueError) as error:
        raise FeaturespaceError(f"{path}: is no Python file ({error})") from error


def module_files(name: tuple[str, ...], root: Path) -> Iterator[Path]:
    """Yield the files below a directory that importing a dotted name executes: its packages, and the module itself."""
    for length in range(1, len(name) + 1):
        path = root.joinpath(*name[:length])
        if (path / "__init__.py").is_file():
            yield path / "__init__.py"
        elif path.with_suffix(".py").is_file():
            yield path.with_suffix(".py")
            return
        elif not path.is_dir():
            return


def own_module(name: str, search_path: Sequence[Path]) -> tuple[Path, Path]:
    """Find the source of a module of the user's without importing anything.

    Returns
    -------
    root, file
        Of the directories in order, the first that has it.

    Raises
    ------
    FeaturespaceError
        If none has.
    """
    for root in search_path:
        parts = tuple(name.split("."))
        files = list(module_files(parts, root))
        if files and files[-1] in (root.joinpath(*parts).with_suffix(".py"), root.joinpath(*parts, "__init__.py")):
            return root, files[-1]
    looked = ", ".join(str(root) for root in search_path)
    raise FeaturespaceError(f"there is no module {name!r} (looked in {looked})")


def defines(tree: ast.Module, name: str) -> bool:
    """Say whether a module has a name at its top level: a function, a class, a variable, or something imported."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.ClassDef() if node.name == name:
                return node in tree.body or any(node in getattr(part, "body", []) for part in tree.body)
            case ast.Import() | ast.ImportFrom():
                if any((alias.asname or alias.name) in (name, "*") for alias in node.names):
                    return True
            case ast.Name(id=found, ctx=ast.Store()) if found == name:
                return True
    return False


class CodeIndex:
    """The closures of the scripts in one directory.

    Parameters
    ----------
    root
        The directory of the scripts, which is also where their packages are imported from.
    others
        Further directories that modules are imported from, where the ones before have none of that name.
    """

    def __init__(self, root: Path, *others: Path) -> None:
        self.root = root
        self.roots = (root, *others)
        self._parse = cache(self._parse_uncached)

    def _files(self, name: tuple[str, ...]) -> list[tuple[Path, Path]]:
        """List the local files that importing a dotted name executes, each with the directory it is imported from."""
        for root in self.roots:
            if files := list(module_files(name, root)):
                return [(root, file) for file in files]
        return []

    def _parse_uncached(self, place: tuple[Path, Path]) -> tuple[str, tuple[tuple[Path, Path], ...]]:
        """Return a file's digest, and the local files that it imports directly."""
        root, path = place
        digest, imports = read_code(parse_file(path))
        package = path.relative_to(root).parent.parts
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
            Paths relative to the directory they are imported from, sorted.
        """
        pending, seen = [(self.root, self.root / script)], {}
        while pending:
            place = pending.pop()
            name = str(place[1].relative_to(place[0]))
            if name in seen:
                continue
            seen[name], imported = self._parse(place)
            pending.extend(imported)
        for name in data_files:
            seen[name] = hashlib.sha256((self.root / name).read_bytes()).hexdigest()
        return dict(sorted(seen.items()))
