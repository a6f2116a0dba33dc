"""The library that featurespace's rules share: importable, and tested, without Snakemake.

`from featurespace import Recorder, decompose, compare, ...`: what there is for notebooks and for training loops that
live elsewhere is listed in `featurespace.exports`, and imported when it is asked for.
"""


def __getattr__(name: str) -> object:
    # Asked for by name: this file is part of every rule's code, and what it imported would be too.
    from importlib import import_module

    exports = import_module("featurespace.exports").EXPORTS
    if name == "__all__":
        return sorted(exports)
    if name not in exports:
        raise AttributeError(f"module 'featurespace' has no attribute {name!r}; it has {', '.join(sorted(exports))}")
    value = getattr(import_module(exports[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    from importlib import import_module

    return sorted([*globals(), *import_module("featurespace.exports").EXPORTS])
