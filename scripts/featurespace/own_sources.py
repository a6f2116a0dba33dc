"""What the plan of a study needs to know of a user's own data, features and code, without importing any of it.

The main process looks at them, and remembers; jobs, which may run on another machine, go by what was remembered.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from featurespace import image_folder
from featurespace.closure import OwnCode
from featurespace.config import ArrayFile, FunctionData, ImageFolder, Own, Study, input_shape, require_fit
from featurespace.errors import FeaturespaceError
from featurespace.inventory import Source, look_at, recall, shown
from featurespace.own_split import n_held_out


@dataclass(frozen=True)
class DatasetFacts:
    """Of a data set: K, how many samples each split has, the shape of a sample, and what decides its contents."""

    n_classes: int
    n_train: int
    n_test: int
    shape: tuple[int, ...]
    contents: Any  # plain data


@dataclass(frozen=True)
class FeatureFacts:
    """Of features that were made elsewhere: layers, the one that is compared, seeds, and the digest of the source."""

    layers: list[str]
    feature_layer: str
    seeds: list[int]
    contents: str


def _describe_arrays(channels: str | None) -> Callable[[Path, list[str]], dict[str, Any]]:
    """Return what describes a file of arrays; NumPy, and perhaps zarr, are imported when it is called."""

    def describe(path: Path, names: list[str]) -> dict[str, Any]:
        from featurespace import foreign, own_arrays

        arrays, _ = foreign.open_arrays(path)
        return own_arrays.describe(own_arrays.check_arrays(arrays, str(path), channels))

    return describe


def _describe_layers(path: Path, names: list[str]) -> dict[str, Any]:
    from featurespace import own_layers

    return own_layers.describe(path, names)


class OwnSources:
    """The sources of a study's own data sets and features.

    Parameters
    ----------
    study
        The study.
    look
        Whether to look at the sources themselves, or to go by what was last seen of them where that is remembered.
    places
        Folders in which modules are looked for.
    """

    def __init__(self, study: Study, look: bool = True, places: Sequence[str | Path] = (".",)) -> None:
        self.study = study
        self.look = look
        self.places = [Path(place) for place in places]
        self.dataset = cache(self._dataset)
        self.features = cache(self._features)

    def _find(self, path: str, kind: str, describe: Any, **how: Any) -> Source:
        try:
            root = Path(path).expanduser()
        except RuntimeError as error:
            raise FeaturespaceError(f"{path}: {error}") from error
        known = None if self.look else recall(root, kind)
        return known or look_at(root, kind, describe, **how)

    def _dataset(self, name: str) -> DatasetFacts:
        section = self.study.datasets[name]
        match section:
            case ImageFolder():
                found = self._find(section.folder, "images", image_folder.describe, is_wanted=image_folder.is_image)
                shape: Any = input_shape(section)
            case ArrayFile():
                kind = f"arrays-{section.channels}" if section.channels else "arrays"
                found = self._find(section.file, kind, _describe_arrays(section.channels))
                shape = found.facts["shape"]
            case FunctionData():
                files = [self._contents_of(path) for path in section.files]
                contents = {"code": OwnCode(self.places).of_function(section.function), "files": files}
                return DatasetFacts(section.classes, section.train, section.test, tuple(section.shape), contents)
            case _:
                raise TypeError(f"{section.kind} has no source of its own")
        counts, test = found.facts["train"], found.facts["test"]
        held_out = test or [n_held_out(n, section.test_fraction) if test is None else 0 for n in counts]
        n_train = sum(counts) - (sum(held_out) if test is None else 0)
        return DatasetFacts(len(counts), n_train, sum(held_out), tuple(shape), found.contents)

    def _contents_of(self, path: str) -> str:
        return self._find(path, "read", lambda path, names: {}).contents

    def _features(self, name: str) -> FeatureFacts:
        section = self.study.features[name]
        found = self._find(section.source, "features", _describe_layers)
        layers, compared = chosen_layers(found.facts["layers"], section.layers, section.feature_layer)
        return FeatureFacts(layers, compared, found.facts["seeds"], found.contents)

    # --- before any job runs ---

    def check(self, filename: str = "study") -> None:
        """Look at all sources, and check what the study says against what is there.

        Raises
        ------
        FeaturespaceError
            One line: the file, the key, what was wrong.
        """
        try:
            self._check(filename)
        except FeaturespaceError as error:
            raise FeaturespaceError(shown(" ".join(str(error).split()))) from error

    def _check(self, filename: str) -> None:
        own = {name: section for name, section in self.study.datasets.items() if isinstance(section, Own)}
        for name, section in own.items():
            key = {"images": "folder", "arrays": "file", "function": "function"}[section.kind]
            for i, path in enumerate(section.files if isinstance(section, FunctionData) else ()):
                with _key(f"{filename}: datasets.{name}.files.{i}"):
                    self._contents_of(path)
            with _key(f"{filename}: datasets.{name}.{key}"):
                facts = self.dataset(name)
            if section.sample_set.split == "test" and not facts.n_test:
                raise FeaturespaceError(f"{filename}: datasets.{name}.sample_set.split: there are no test samples")
        for name, recipe in self.study.all_recipes.items():
            if recipe.dataset in own:
                try:
                    shape = self.dataset(recipe.dataset).shape
                    require_fit(self.study.place_of(name), recipe, self.study.datasets[recipe.dataset], shape)
                except ValueError as error:
                    raise FeaturespaceError(f"{filename}: {error}") from error
        self._check_targets(filename, [*own])
        for name in self.study.features:
            where = f"{filename}: features.{name}"
            try:
                self.features(name)
            except FeaturespaceError as error:
                is_key = str(error).startswith(("layers: ", "feature_layer: "))
                raise FeaturespaceError(f"{where}.{error}" if is_key else f"{where}.source: {error}") from error

    def _check_targets(self, filename: str, own: list[str]) -> None:
        used = {recipe.dataset for recipe in self.study.all_recipes.values()}
        for i, name in enumerate(self.study.analysis.layer_probes.targets):
            where = f"{filename}: analysis.layer_probes.targets.{i}"
            if name in own and not self.dataset(name).n_test:
                raise FeaturespaceError(f"{where}: {name} has no test split to probe on")
            if self.shape(name) not in {self.shape(other) for other in used}:
                raise FeaturespaceError(f"{where}: no recipe is trained on samples of the shape of those of {name}")

    def shape(self, dataset: str) -> tuple[int, ...]:
        """Return the shape of a data set's samples."""
        return input_shape(self.study.datasets[dataset]) or self.dataset(dataset).shape


@contextmanager
def _key(where: str) -> Iterator[None]:
    try:
        yield
    except FeaturespaceError as error:
        raise FeaturespaceError(f"{where}: {error}") from error


def places_of_modules(study_files: Sequence[str]) -> list[str]:
    """List the folders that modules of a user's own are looked for in: the study file's, this one, and PYTHONPATH's."""
    folders = [str(Path(path).parent) for path in study_files]
    path = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    return list(dict.fromkeys([*folders, ".", *path]))


def chosen_layers(there: list[str], layers: list[str] | None, feature_layer: str | None) -> tuple[list[str], str]:
    """Choose layers out of those of a source, and the one that is compared: the deepest, if nothing is said.

    Raises
    ------
    FeaturespaceError
        If one is not there; it begins with the key.
    """
    chosen = there if layers is None else layers
    compared = chosen[-1] if feature_layer is None else feature_layer
    for key, names, known in (("layers", chosen, there), ("feature_layer", [compared], chosen)):
        for name in names:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise FeaturespaceError(f"{key}: no layer {name!r}{hint} (there are: {', '.join(known)})")
    return list(chosen), compared
