"""Make `import featurespace` work in .venv from anywhere, in a notebook say: called by setup.sh, with .venv's Python.

A plain path in a `.pth` file would come before the directory of the script that runs, and another checkout that shares
this .venv would compute with the library of this one. So the library is found here only where it is nowhere else.
"""

import sysconfig
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
LINE = (
    "import sys; from importlib.machinery import PathFinder as finder; sys.meta_path.append(type('Featurespace', (), "
    "{'find_spec': staticmethod(lambda name, path=None, target=None, finder=finder: "
    "finder.find_spec(name, [%r]) if name == 'featurespace' else None)}))\n"
)

if __name__ == "__main__":
    (Path(sysconfig.get_path("purelib")) / "featurespace.pth").write_text(LINE % str(SCRIPTS), encoding="utf-8")
