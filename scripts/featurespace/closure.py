"""What a script's result depends on in code: itself and the local modules it imports, by a static walk.

Snakemake's own trigger sees only the script file, and of that only its time stamp. So every rule carries, as a
parameter, a digest of each file in its script's closure: a touch runs nothing, and an edit runs exactly the rules
whose scripts import what was edited, however old the file claims to be.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
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


def files_of(root: Path, name: tuple[str, ...], with_namespaces: bool = False) -> Iterator[Path]:
    """Yield the files below a directory that importing a dotted name executes: its packages, and the module itself.

    A folder without `__init__.py` is a package too if `with_namespaces`.
    """
    for length in range(1, len(name) + 1):
        path = root.joinpath(*name[:length])
        if (path / "__init__.py").is_file():
            yield path / "__init__.py"
        elif path.with_suffix(".py").is_file():
            yield path.with_suffix(".py")
            return
        elif not (with_namespaces and path.is_dir()):
            return


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

    def _root_of(self, path: Path) -> Path:
        """Return the directory that a file's packages are imported from."""
        return self.root

    def _files(self, name: tuple[str, ...]) -> Iterator[Path]:
        """Yield the local files that importing a dotted name executes: its packages, and the module itself."""
        return files_of(self.root, name)

    def _parse_uncached(self, path: Path) -> tuple[str, tuple[Path, ...]]:
        """Return a file's digest, and the local files that it imports directly."""
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except SyntaxError as error:
            raise FeaturespaceError(f"{path}: line {error.lineno}: {error.msg}") from error
        except (OSError, ValueError, RecursionError) as error:
            raise FeaturespaceError(f"{path} cannot be read as Python: {error}") from error
        digest, imports = read_code(tree)
        package = path.relative_to(self._root_of(path)).parent.parts
        names = dict.fromkeys(_imported(imports, package))
        found = dict.fromkeys(file for name in names for file in self._files(name))
        return digest, tuple(found)

    def _closure(self, paths: Sequence[Path]) -> dict[Path, str]:
        """Return the digests of files and of all local files that they import, however deep."""
        pending, seen = list(paths), {}
        while pending:
            path = pending.pop()
            if path in seen:
                continue
            seen[path], imported = self._parse(path)
            pending.extend(imported)
        return seen

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
        seen = self._closure([self.root / script])
        for name in data_files:
            seen[self.root / name] = hashlib.sha256((self.root / name).read_bytes()).hexdigest()
        return {str(path.relative_to(self.root)): seen[path] for path in sorted(seen)}


class OwnCode(CodeIndex):
    """The closures of a user's own modules, that a study names.

    Parameters
    ----------
    roots
        The directories from which they are imported, those that are looked into first first. What is installed is in
        none of them.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        super().__init__(roots[0])
        self.roots = list(dict.fromkeys(roots))
        self._found_from: dict[Path, Path] = {}

    def _root_of(self, path: Path) -> Path:
        return self._found_from[path]

    def _files(self, name: tuple[str, ...]) -> Iterator[Path]:
        """Yield the files that importing a dotted name executes, all from the first directory that has any."""
        for root in self.roots:
            found = list(files_of(root, name, with_namespaces=True))
            self._found_from |= dict.fromkeys(found, root)
            if found:
                return iter(found)
        return iter(())

    def of_function(self, name: str) -> dict[str, str]:
        """Return {file: SHA-256} of the module of a function, `package.module:function`, and of all that it imports.

        Nothing is imported for that. Files are relative to the directory that they are found from; of a module that is
        installed there are none.

        Raises
        ------
        FeaturespaceError
            If there is no such module, or nothing of that name in it.
        """
        module, _, function = name.partition(":")
        parts = tuple(module.split("."))
        files = list(self._files(parts))
        if not files and _is_installed(parts[0]):
            return {}
        if not files or files[-1].relative_to(self._root_of(files[-1])).with_suffix("").parts not in (
            parts,
            (*parts, "__init__"),
        ):
            raise FeaturespaceError(
                f"no module {module!r}: it is looked for in the study file's folder, in the working directory, on "
                "PYTHONPATH and among what is installed"
            )
        if parts[0] in sys.stdlib_module_names:
            raise FeaturespaceError(f"{parts[0]} is the name of a module of Python's own; call yours otherwise")
        digests = self._closure(files)
        names = top_level_names(files[-1])
        first = function.partition(".")[0]
        if names is not None and first not in names:
            raise FeaturespaceError(f"{module} has no {first!r} (there are: {', '.join(names) or 'no names at all'})")
        return self._named(digests)

    def of_script(self, file: Path) -> dict[str, str]:
        """Return {file: SHA-256} of a script, which may import what is beside it, and of all that it imports."""
        index = OwnCode([file.parent, *self.roots])
        index._found_from[file] = file.parent
        return index._named(index._closure([file]))

    def _named(self, digests: Mapping[Path, str]) -> dict[str, str]:
        return {path.relative_to(self._root_of(path)).as_posix(): digests[path] for path in sorted(digests)}


def _is_installed(top: str) -> bool:
    try:
        return importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):
        return False


def top_level_names(file: Path) -> list[str] | None:
    """List the names that a module has, as far as they stand there; None if others may come from elsewhere."""
    names: list[str] = []
    pending: list[ast.AST] = [*ast.parse(file.read_text(encoding="utf-8")).body]
    while pending:
        node = pending.pop(0)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if node.name == "__getattr__":
                return None
            names.append(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            if any(alias.name == "*" for alias in node.names):
                return None
            names += [alias.asname or alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.append(node.id)
        else:
            pending += ast.iter_child_nodes(node)
    return list(dict.fromkeys(names))
