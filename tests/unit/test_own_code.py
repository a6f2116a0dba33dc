"""One's own measures and figures: how they are found, what they depend on, and what is said of those that fail."""

import copy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from test_config import STUDY

from featurespace import own_figures
from featurespace.closure import CodeIndex, OwnCode
from featurespace.config import parse_study
from featurespace.errors import FeaturespaceError
from featurespace.own_code import find_own_figure, find_script, own_measures_code
from featurespace.own_figures import Tables, draw_own
from featurespace.own_measures import apply_measure, import_measures
from featurespace.plan import Plan
from featurespace.style import recipe_looks

LIBRARY = Path(own_figures.__file__).parents[1]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Two directories of one's own modules; the first hides what the second has too."""
    files = {
        "first/norms.py": "from shared.tools import scale\ndef largest(features, labels):\n    return scale\n",
        "first/shared/tools.py": "scale = 2.0\n",  # a package without __init__.py
        "second/norms.py": "def largest(features, labels):\n    return 1\n",
        "second/pack/__init__.py": "from pack.inner import spread\n",
        "second/pack/inner.py": "from . import more\nimport featurespace.text\ndef spread(f, l):\n    return 1\n",
        "second/pack/more.py": "raise RuntimeError('it was imported')\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    path = [tmp_path / "first", tmp_path / "second"]
    monkeypatch.setattr(sys, "path", [*map(str, path), *sys.path])
    for name in ("norms", "shared", "shared.tools", "pack", "pack.inner", "pack.more"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return path


def code(roots):
    """Look for one's own code in some directories, and then in the library."""
    return OwnCode([*roots, LIBRARY])


# --- finding them -----------------------------------------------------------------------------------------------------


def test_a_module_is_found_in_the_first_directory_that_has_it_without_importing_it(mine):
    own = OwnCode(mine)
    assert own.of_function("norms:largest") == own.of_script(mine[0] / "norms.py")
    assert list(own.of_function("shared.tools:scale")) == ["shared/tools.py"]
    assert "pack/__init__.py" in own.of_function("pack.inner:spread")
    with pytest.raises(FeaturespaceError, match=r"no module 'pack\.other': it is looked for in "):
        own.of_function("pack.other:f")


def test_a_measure_depends_on_its_module_and_what_that_imports_of_ones_own_and_of_the_library(mine):
    assert set(own_measures_code(["norms:largest"], code(mine))) == {"own:norms.py", "own:shared/tools.py"}
    found = own_measures_code(["pack.inner:spread"], code(mine))
    assert set(found) >= {"own:pack/__init__.py", "own:pack/inner.py", "own:pack/more.py", "own:featurespace/text.py"}
    # a name that a package imports from one of its modules
    assert set(own_measures_code(["pack:spread"], code(mine))) == set(found)
    assert own_measures_code([], code(mine)) == {}


def test_a_comment_is_no_edit_and_another_line_is(mine):
    before = own_measures_code(["norms:largest"], code(mine))
    tools = mine[0] / "shared/tools.py"
    tools.write_text("# a comment\nscale = 2.0\n")
    assert own_measures_code(["norms:largest"], code(mine)) == before
    tools.write_text("scale = 3.0\n")
    after = own_measures_code(["norms:largest"], code(mine))
    assert {name for name in after if after[name] != before[name]} == {"own:shared/tools.py"}


def test_installed_packages_may_be_named_and_are_not_followed(mine):
    assert own_measures_code(["numpy.linalg:norm"], code(mine)) == {}


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("nowhere_at_all:f", r"analysis\.measures\.own\.0: no module 'nowhere_at_all'"),
        ("pack.nothing:f", r"analysis\.measures\.own\.0: no module 'pack\.nothing'"),
        ("norms:smallest", r"norms has no 'smallest' \(there are: scale, largest\)"),
    ],
)
def test_a_function_that_is_not_there_is_named_before_any_job(mine, function, says):
    with pytest.raises(FeaturespaceError, match=says):
        own_measures_code([function], code(mine))


def test_the_library_is_digested_alike_whether_a_rule_or_a_study_names_it(mine):
    assert CodeIndex(LIBRARY).closure("tabulate_own.py") == code(mine).of_script(LIBRARY / "tabulate_own.py")


def test_a_figure_is_found_beside_the_study_or_where_its_path_says(mine):
    script = mine[1] / "plots/mine.py"
    script.parent.mkdir()
    (script.parent / "nuances.py").write_text("")
    script.write_text('"""What it shows."""\nimport nuances, norms\n\ndef plot(tables):\n    """Draw."""\n')
    found = find_own_figure("mine", "plots/mine.py", mine, code(mine))
    assert found.file == script == find_script(str(script), mine)
    assert found.caption == "What it shows."
    assert set(found.code) == {"own:mine.py", "own:nuances.py", "own:norms.py", "own:shared/tools.py"}
    for nowhere in ("plots/none.py", "~nobody-of-this-name/x.py", f"{'x' * 3000}.py", "a\0.py"):
        with pytest.raises(FeaturespaceError, match=r"own_figures\.mine\.script: no file "):
            find_own_figure("mine", nowhere, mine, code(mine))
    script.write_text("def plott(tables):\n    pass\n")
    with pytest.raises(FeaturespaceError, match=r"own_figures\.mine\.script: \S+ has no function `plot\(tables\)`"):
        find_own_figure("mine", "plots/mine.py", mine, code(mine))
    script.write_text("def plot(:\n")
    with pytest.raises(FeaturespaceError, match=r"own_figures\.mine\.script: \S+mine\.py: line 1"):
        find_own_figure("mine", "plots/mine.py", mine, code(mine))


# --- measures ---------------------------------------------------------------------------------------------------------

FEATURES = np.arange(12, dtype=np.float32).reshape(4, 3)
LABELS = np.array([0, 1, 0, 1])


def test_functions_are_imported_by_their_names(mine):
    found = import_measures(["norms:largest"])
    assert found["largest"](FEATURES, LABELS) == 2.0
    with pytest.raises(
        FeaturespaceError, match=r"pack\.inner:spread cannot be imported: RuntimeError: it was imported"
    ):
        import_measures(["pack.inner:spread"])
    with pytest.raises(FeaturespaceError, match="norms:smallest cannot be imported: AttributeError"):
        import_measures(["norms:smallest"])


def test_a_measure_gives_a_number_or_several_by_name():
    assert apply_measure("most", lambda f, y: f.max(), FEATURES, LABELS, 0) == {"most": 11.0}
    both = apply_measure("ends", lambda f, y: {"low": f.min(), "high": np.float32(3)}, FEATURES, LABELS, 0)
    assert both == {"ends.low": 0.0, "ends.high": 3.0}
    assert np.isnan(apply_measure("none", lambda f, y: float("nan"), FEATURES, LABELS, 0)["none"])


def test_a_measure_gets_float64_arrays_of_its_own():
    def spoil(features, labels):
        assert (features.dtype, labels.dtype) == (np.float64, np.int64)
        features[:] = labels[:] = 0
        return 0

    features, labels = FEATURES.copy(), LABELS.copy()
    apply_measure("spoil", spoil, features, labels, 0)
    assert (features == FEATURES).all()
    assert (labels == LABELS).all()


def test_what_a_measure_draws_comes_from_the_seed():
    def draw(features, labels):
        return np.random.normal()  # noqa: NPY002

    first, again, other = (apply_measure("draw", draw, FEATURES, LABELS, seed)["draw"] for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (np.zeros(3), r"bad: should be a number, not ndarray of shape \(3,\)"),
        ("1.5", "bad: should be a number, not str"),
        (None, "bad: should be a number, not NoneType"),
        ({}, r"bad should give \{name: number\}, not \{\}"),
        ({"a": [1, 2]}, "bad, a: should be a number, not list"),
        ({1: 2}, r"bad should give \{name: number\}"),
    ],
)
def test_anything_else_is_named(result, says):
    with pytest.raises(FeaturespaceError, match=says):
        apply_measure("bad", lambda f, y: result, FEATURES, LABELS, 0)


def test_a_measure_that_raises_is_named_with_its_line(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "raises.py").write_text(
        "import numpy as np\ndef bad(features, labels):\n\n    return np.linalg.inv(features)\n"
    )
    with pytest.raises(FeaturespaceError, match=r"bad failed: LinAlgError: .*square \(raises\.py:4\)$"):
        apply_measure("bad", import_measures(["raises:bad"])["bad"], FEATURES, LABELS, 0)
    (tmp_path / "raises_at_once.py").write_text("def bad(): ...\n1 / 0\n")
    with pytest.raises(FeaturespaceError, match=r"ZeroDivisionError: division by zero \(raises_at_once\.py:2\)$"):
        import_measures(["raises_at_once:bad"])


# --- figures ----------------------------------------------------------------------------------------------------------


def tables() -> Tables:
    frames = {"runs": pd.DataFrame({"a": [1]}), "history": pd.DataFrame({"b": [2]})}
    return Tables(frames, ["mlp", "cnn"])


def drawn(tmp_path: Path, body: str) -> tuple[Figure, pd.DataFrame]:
    (tmp_path / "helper.py").write_text("def fail():\n    raise ValueError('no')\n")
    script = tmp_path / "mine.py"
    script.write_text("from matplotlib.figure import Figure\ndef plot(tables):\n" + body)
    return draw_own(script, tables())


def test_a_figure_comes_with_the_first_of_its_tables_or_with_its_own(tmp_path):
    figure, data = drawn(tmp_path, "    return Figure()\n")
    assert isinstance(figure, Figure)
    assert list(data) == ["a"]
    _, data = drawn(tmp_path, "    return Figure(), tables['history']\n")
    assert list(data) == ["b"]
    figure, _ = drawn(tmp_path, "    import matplotlib.pyplot as plt\n    return plt.figure()\n")
    assert isinstance(figure, Figure)


def test_a_figure_has_the_style_and_the_colours_of_all_figures(tmp_path):
    body = "    f = Figure()\n    f.text(0, 0, tables.looks['cnn'].colour)\n    return f\n"
    figure, _ = drawn(tmp_path, body)
    assert figure.texts[0].get_text() == recipe_looks([{"name": "mlp"}, {"name": "cnn"}])["cnn"].colour
    assert figure.texts[0].get_fontsize() == 8


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("    return 3\n", r"mine\.py: plot should give a matplotlib Figure, or \(Figure, DataFrame\), and not int"),
        ("    return Figure(), 3\n", "and not Figure, int"),
        ("    return tables['angles']\n", r"plot failed: KeyError: .*'angles' is not among .* \(mine\.py:3\)$"),
        ("    exit(1)\n", r"plot failed: SystemExit: 1 \(mine\.py:3\)$"),
        ("\n    tables['runs'].nothing\n", r"plot failed: AttributeError: .* \(mine\.py:4\)$"),
        ("    from helper import fail\n    fail()\n", r"plot failed: ValueError: no \(helper\.py:2\)$"),
        ("    return (\n", r"plot failed: SyntaxError: .*mine\.py, line 3\)$"),
    ],
)
def test_a_figure_that_fails_is_named(tmp_path, body, says):
    with pytest.raises(FeaturespaceError, match=says):
        drawn(tmp_path, body)


# --- the study --------------------------------------------------------------------------------------------------------


def study(**more: object) -> dict:
    return {**copy.deepcopy(STUDY), **more}


OWN = {"figure": {"script": "mine.py", "tables": ["runs"]}}


def test_a_measure_or_figure_of_ones_own_changes_no_other_job():
    plain, own = (
        Plan(parse_study(study(**more)))
        for more in ({}, {"analysis": {"measures": {"own": ["a.b:c"]}}, "own_figures": OWN})
    )
    assert own.measure_layers() == plain.measure_layers()
    assert own.plot("spectra") == plain.plot("spectra")
    assert own.measure_own() == {"functions": ["a.b:c"]}
    assert own.figures == [*plain.figures, "figure"]
    assert own.verify("")["figures"][-1] == own.write_report("")["figures"][-1] == "figure"
    assert own.plot_own("figure") == {"script": "mine.py", "tables": ["runs"], "recipes": ["mlp", "seen"]}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            {"analysis": {"measures": {"own": ["a.b.c"]}}},
            "'a.b.c' is no function: it should be `package.module:function`",
        ),
        ({"analysis": {"measures": {"own": ["a:f", "b:f"]}}}, "measures.own: two functions are called f"),
        ({"own_figures": {"f": {"script": "f.txt", "tables": ["runs"]}}}, "'f.txt' is no Python file"),
        ({"own_figures": {"f": {"script": "f.py", "tables": []}}}, "own_figures.f.tables: is empty"),
        ({"own_figures": {"f": {"script": "f.py", "tables": ["rums"]}}}, "did you mean 'runs'?"),
        ({"own_figures": {"f": {"script": "f.py", "tables": ["runs", "runs"]}}}, "f.tables: one is named twice"),
        ({"own_figures": {"f": {"script": "f.py", "tables": ["claims"]}}}, "there is no claims without ledgers"),
        (
            {"own_figures": {"f": {"script": "f.py", "tables": ["own_measures"]}}},
            "there is no own_measures without analysis.measures.own",
        ),
        (
            {"own_figures": {"spectra": {"script": "f.py", "tables": ["runs"]}}},
            "own_figures.spectra: there is a figure",
        ),
    ],
)
def test_what_is_wrong_with_them_is_said_in_one_line(more, says):
    with pytest.raises(FeaturespaceError) as caught:
        parse_study(study(**more), "mine.yaml")
    assert says in str(caught.value)
    assert str(caught.value).startswith("mine.yaml: ")
