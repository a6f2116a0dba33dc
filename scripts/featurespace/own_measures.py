"""Measures of one's own: the user's functions of a layer's features, called and checked."""

import importlib
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from featurespace.errors import FeaturespaceError
from featurespace.own_errors import told

Measure = Callable[[np.ndarray, np.ndarray], Any]


def import_measures(functions: Sequence[str]) -> dict[str, Measure]:
    """Import functions, each `package.module:function`, by their names.

    Raises
    ------
    FeaturespaceError
        If a module cannot be imported, or has no such function.
    """
    found = {}
    for function in functions:
        module, _, name = function.partition(":")
        try:
            measure = getattr(importlib.import_module(module), name)
        except (Exception, SystemExit) as error:
            raise FeaturespaceError(f"{function} cannot be imported: {told(error)}") from error
        if not callable(measure):
            raise FeaturespaceError(f"{function} is no function")
        found[name] = measure
    return found


def apply_measure(name: str, measure: Measure, features: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, float]:
    """Call one function on one feature matrix.

    Parameters
    ----------
    features
        (n_samples, n_features), of any float type.
    labels
        (n_samples,).
    seed
        The run's: what the global generators of Python and NumPy begin with, so that a function that draws from them
        gives the same again.

    Returns
    -------
    dict
        {name: value}, or {name.key: value} for each key of the mapping that the function returns.

    Raises
    ------
    FeaturespaceError
        If the function fails, or returns neither a number nor numbers by name.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        # arrays of its own: it may write into them
        result = measure(np.array(features, dtype=np.float64), np.array(labels, dtype=np.int64))
    except (Exception, SystemExit) as error:
        raise FeaturespaceError(f"{name} failed: {told(error)}") from error
    if isinstance(result, Mapping):
        if not result or not all(isinstance(key, str) and key for key in result):
            raise FeaturespaceError(f"{name} should give {{name: number}}, not {result!r:.200}")
        return {f"{name}.{key}": _number(f"{name}, {key}", value) for key, value in result.items()}
    return {name: _number(name, result)}


def _number(what: str, value: Any) -> float:
    if not isinstance(value, str | bytes):
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError):
            pass
    shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
    raise FeaturespaceError(f"{what}: should be a number, not {type(value).__name__}{shape}")
