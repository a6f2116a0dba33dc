"""The digests of code: what changes them, and whose they are."""

import ast

import pytest

from featurespace.closure import CodeIndex, OwnCode, read_code
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


# --- modules of the user's ---


@pytest.fixture
def own(tmp_path):
    files = {
        "study/nets.py": "import numpy\nfrom parts.blocks import Block\n\ndef build(): ...\n"
        "class Net: ...\nwidth, (a, b) = 1, (2, 3)\n",
        "study/parts/blocks.py": "from .deep import x\n",  # a folder without __init__.py is a package
        "study/parts/deep.py": "x = 1\n",
        "work/nets.py": "y = 1\n",  # hidden by the first
        "work/elsewhere/__init__.py": "import nets\n",
        "work/elsewhere/model.py": "from nets import *\n",
        "work/random.py": "def build(): ...\n",
        "work/broken.py": "def (:\n",
        "work/binary.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "work/binary.py").write_bytes(b"\xff\x00")
    return OwnCode([tmp_path / "study", tmp_path / "work"])


def test_an_own_function_s_closure_is_found_without_importing_it(own):
    assert list(own.of_function("nets:build")) == ["nets.py", "parts/blocks.py", "parts/deep.py"]
    assert set(own.of_function("elsewhere.model:whatever")) == {
        *("elsewhere/__init__.py", "elsewhere/model.py"),
        *("nets.py", "parts/blocks.py", "parts/deep.py"),
    }
    for name in ("Net", "width", "a", "Net.build", "numpy", "Block"):
        assert "nets.py" in own.of_function(f"nets:{name}")


def test_an_edit_changes_the_digest_of_its_file_and_a_comment_none(own):
    before = own.of_function("nets:build")
    path = own.roots[0] / "parts/deep.py"
    path.write_text("x = 1  # a comment\n")
    assert OwnCode(own.roots).of_function("nets:build") == before
    path.write_text("x = 2\n")
    after = OwnCode(own.roots).of_function("nets:build")
    assert {name for name in after if after[name] != before[name]} == {"parts/deep.py"}


def test_what_is_installed_is_no_code_of_the_user_s(own):
    assert own.of_function("torchvision.models:resnet18") == {}
    assert own.of_function("collections:OrderedDict") == {}


@pytest.mark.parametrize(
    "name, said",
    [
        ("nowhere:build", "no module 'nowhere': it is looked for in"),
        ("nets.deeper:build", "no module 'nets.deeper'"),
        ("elsewhere.other:build", "no module 'elsewhere.other'"),
        ("parts:build", "no module 'parts'"),
        ("nets:biuld", r"nets has no 'biuld' \(there are: numpy, Block, build, Net, width, a, b\)"),
        ("random:build", "random is the name of a module of Python's own"),
        ("broken:build", r"broken\.py: line 1"),
        ("binary:build", r"binary\.py cannot be read as Python"),
    ],
)
def test_a_function_that_is_not_there_is_named(own, name, said):
    with pytest.raises(FeaturespaceError, match=said):
        own.of_function(name)
