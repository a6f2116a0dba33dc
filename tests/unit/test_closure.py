"""The digests of code: what changes them, and whose they are."""

import ast

import pytest

from featurespace.closure import CodeIndex, read_code
from featurespace.errors import FeaturespaceError

SOURCE = '''
"""What it does."""
import math

def area(r):
    """Return it."""
    return math.pi * r**2
'''


@pytest.mark.parametrize(
    "same",
    [
        SOURCE + "\n\n# a comment\n",
        SOURCE.replace('"""What it does."""', '"""Says it better."""'),
        SOURCE.replace('    """Return it."""\n', ""),
        SOURCE.replace("math.pi * r**2", "(math.pi\n        * r ** 2)"),
        SOURCE.replace("def area(r):", "def area(r):  # metres"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(same):
    assert read_code(ast.parse(same))[0] == read_code(ast.parse(SOURCE))[0]


@pytest.mark.parametrize(
    "other",
    [
        SOURCE.replace("r**2", "r**3"),
        SOURCE.replace("r**2", "r*2"),
        SOURCE.replace("r**2", "r**2.0"),
        SOURCE.replace("def area(r)", "def area(r, s=None)"),
        SOURCE.replace("def area", "async def area"),
        SOURCE + "\nx = 1\n",
        SOURCE.replace('"""Return it."""', '"""Return it."""\n    "kept"'),
    ],
)
def test_everything_else_counts(other):
    assert read_code(ast.parse(other))[0] != read_code(ast.parse(SOURCE))[0]


@pytest.fixture
def index(tmp_path):
    files = {
        "a.py": "from lib import one\nfrom lib.two import thing\nimport numpy\n",
        "b.py": "def late():\n    import lib.deep.three\n",
        "lib/__init__.py": "",
        "lib/one.py": "from . import four\n",
        "lib/two.py": "thing = 1\n",
        "lib/four.py": "from lib import one\n",  # a cycle
        "lib/deep/__init__.py": "",
        "lib/deep/three.py": "from ..two import thing\nfrom .. import one\n",
        "lib/unused.py": "",
        "lib/page.html": "<p>",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    return CodeIndex(tmp_path)


def test_a_closure_holds_what_is_imported_however_deep_and_nothing_else(index):
    assert list(index.closure("a.py")) == ["a.py", "lib/__init__.py", "lib/four.py", "lib/one.py", "lib/two.py"]


def test_imports_within_functions_and_relative_ones_count(index):
    assert set(index.closure("b.py")) == {
        *("b.py", "lib/__init__.py", "lib/deep/__init__.py", "lib/deep/three.py"),
        *("lib/two.py", "lib/one.py", "lib/four.py"),
    }


def test_data_files_are_hashed_as_they_are(index):
    before = index.closure("a.py", "lib/page.html")
    (index.root / "lib/page.html").write_text("<p> ")
    after = index.closure("a.py", "lib/page.html")
    assert {name for name in after if after[name] != before[name]} == {"lib/page.html"}


def test_code_that_does_not_parse_is_named(index):
    (index.root / "lib/two.py").write_text("def (:\n")
    with pytest.raises(FeaturespaceError, match=r"two\.py: line 1"):
        index.closure("a.py")
