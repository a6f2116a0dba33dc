"""What the documentation says holds: links lead somewhere, code runs, commands exist, studies are valid.

The language of a fenced block says what is done with it:

    python   run, block after block of a page in one process, in a copy of the project
    yaml     a study, or sections of one, which must be valid
    sh       `make` targets and programs must exist; a dry run must find a way to what `snakemake` is asked for

A block whose first line is a comment with a path (`# studies/mine.yaml`, `# mine/nets.py`), or that stands behind a
line with nothing but a path in backticks and a colon, is that file: it is written before anything of its page is run.
Words behind the language say why a block is left alone: `sh not run: needs SLURM`.
"""

import ast
import copy
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import _FORKS, PARTS, ROOT, _snakemake_in_fork

from featurespace.checksums import sha256
from featurespace.config import Study, parse_study

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "profiles/**/*.md")
    for path in ROOT.glob(pattern)
)
LEFT_ALONE = re.compile(r"not run: \w+")
PATH = r"(?:[\w.-]+/)*[\w-]+\.(?:ya?ml|py)"
PATH_LINE, PATH_BEFORE = re.compile(f"# ({PATH})"), re.compile(f"`({PATH})`:")
SETTING = re.compile(r"[A-Z_]+=\S*")
# Programs of every system, of which nothing is checked here.
PROGRAMS = {
    "cd",
    "cp",
    "cat",
    "du",
    "git",
    "ls",
    "mkdir",
    "sinfo",
    "squeue",
    "sacct",
    "sacctmgr",
    "xdg-open",
    "nvidia-smi",
}
# Options with which Snakemake does something else than run jobs.
OTHER_BUSINESS = {"--unlock", "--list", "--report", "--profile", "--summary", "--delete-temp-output"}
RUN_ELSEWHERE = ("notebook.md", "record.md")  # by test_library_examples.py
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
# What a reader can look up: a path in backticks that begins with a folder of the project.
NAMED_PATH = re.compile(r"`((?:docs|studies|profiles|scripts|tests|rules|envs)/[\w./-]+\w)`")
NAMED_FUNCTION = re.compile(r"`([a-z_]+)\.([A-Za-z_.]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language, what is said behind it and in the line before, its text."""

    page: str
    line: int
    language: str
    remark: str
    before: str
    text: str

    @property
    def file(self) -> str | None:
        """The path that the block is the content of."""
        found = PATH_LINE.fullmatch(self.text.partition("\n")[0]) or PATH_BEFORE.fullmatch(self.before)
        return found[1] if found else None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@cache
def content(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def blocks(page: str) -> list[Block]:
    """Find the fenced blocks of a page."""
    found, start, fence, head, before, lines = [], 0, "", "", "", []
    for number, line in enumerate(content(page).splitlines(), start=1):
        stripped = line.strip()
        if not fence and stripped.startswith("```"):
            fence, head, start, lines = line[: line.index("`")] + "```", stripped[3:], number, []
        elif fence and stripped == "```":
            language, _, remark = head.partition(" ")
            indent = len(fence) - 3
            text = "\n".join(line[indent:] for line in lines) + "\n"
            found.append(Block(page, start, language, remark.strip(), before, text))
            fence = before = ""
        elif fence:
            lines.append(line)
        elif stripped:
            before = stripped
    assert not fence, f"{page}:{start}: the block has no end"
    return found


def prose(page: str) -> str:
    """Return a page without its blocks."""
    return re.sub(r"^\s*```.*?^\s*```", "", content(page), flags=re.MULTILINE | re.DOTALL)


def anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings, as they are made on the usual sites."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    slugs = set()
    for heading in headings:
        kept = [c for c in heading.strip().lower() if c in " -_" or unicodedata.category(c)[0] in "LNM"]
        slugs.add("".join(kept).replace(" ", "-"))
    return slugs


# --- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    broken = []
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (ROOT / page).parent / path if path else ROOT / page
        if not place.exists():
            broken.append(target)
        elif anchor and anchor not in anchors(place.resolve().relative_to(ROOT).as_posix()):
            broken.append(f"{target} (no such heading)")
    assert not broken, f"{page} links to what is not there: {', '.join(broken)}"


@pytest.mark.parametrize("page", PAGES)
def test_paths_in_the_text_exist(page):
    own = {block.file for block in blocks(page)}
    missing = [path for path in NAMED_PATH.findall(prose(page)) if not (ROOT / path).exists() and path not in own]
    assert not missing, f"{page} names what is not there: {', '.join(missing)}"


def test_every_page_is_in_the_index():
    linked = {target.partition("#")[0] for target in LINK.findall(prose("docs/index.md"))}
    pages = {page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")} - {"index.md"}
    assert pages <= linked, f"docs/index.md does not mention {', '.join(sorted(pages - linked))}"


# --- blocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_what_is_not_run_says_why(page):
    for block in blocks(page):
        assert block.language in ("python", "sh", "yaml", "text", "csv", "json"), f"{block}: which language is this?"
        if block.remark:
            assert LEFT_ALONE.match(block.remark), f"{block}: {block.remark!r} does not say `not run: why`"


@pytest.mark.parametrize("page", PAGES)
def test_studies_are_valid(page):
    sections: dict[str, Any] = {}  # as the page has them so far: what follows may build on them
    for block in blocks(page):
        if block.language != "yaml" or block.remark:
            continue
        study = yaml.safe_load(block.text)
        if block.file and "study" not in study:
            continue  # another file, such as a profile's
        if "study" not in study:
            unknown = study.keys() - Study.model_fields.keys()
            assert not unknown, f"{block}: neither a study nor sections of one ({', '.join(sorted(unknown))})"
            merge(sections, study)
            study = with_sections(sections)
        parse_study(study, str(block))


def merge(study: dict[str, Any], section: dict[str, Any]) -> None:
    """Put sections into a study; what is of another kind takes the place of what was there."""
    for key, value in section.items():
        there = study.get(key)
        if isinstance(value, dict) and isinstance(there, dict) and value.get("kind") == there.get("kind"):
            merge(there, value)
        else:
            study[key] = copy.deepcopy(value)


def with_sections(sections: dict[str, Any]) -> dict[str, Any]:
    """Complete sections to a study: the data set and the recipe that they do not have."""
    study: dict[str, Any] = {"study": "sections", **copy.deepcopy(sections)}
    datasets = study.setdefault("datasets", {"digits": {"kind": "digits"}})
    name = next(iter(datasets))
    mlp = {"dataset": name, "model": {"kind": "mlp", "widths": [8]}, "schedule": {"epochs": 1}}
    study.setdefault("recipes", {"mlp": mlp})
    for recipe in study["recipes"].values():
        if recipe.get("dataset") not in (None, *datasets):
            datasets[recipe["dataset"]] = {"kind": "digits"}
    return study


@dataclass(frozen=True)
class Command:
    """One command of a block: its words, without the settings of the environment in front."""

    block: Block
    words: tuple[str, ...]


def commands(page: str) -> list[Command]:
    """Read the commands of a page's shell blocks, but of those that are left alone."""
    found = []
    for block in blocks(page):
        if block.language == "sh" and not block.remark:
            for line in block.text.replace("\\\n", " ").splitlines():
                for part in re.split(r"&&|\|\||\|", line):
                    words = shlex.split(part, comments=True)
                    while words and SETTING.fullmatch(words[0]):
                        words.pop(0)
                    if words:
                        found.append(Command(block, tuple(words)))
    return found


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize("page", PAGES)
def test_programs_exist(page):
    for command in commands(page):
        program, *arguments = command.words
        if program == "make":
            targets = {word for word in arguments if not SETTING.match(word)}
            unknown = targets - makefile_targets()
            assert not unknown, f"{command.block}: no `make {' '.join(unknown)}`"
        elif program.startswith((".venv/bin/", "/")):
            assert Path(program).name in ("snakemake", "python", "pytest"), f"{command.block}: {program}"
            scripts = [word for word in arguments[:1] if word.endswith(".py")]
            own = {block.file for block in blocks(page)}
            assert all((ROOT / script).exists() or script in own for script in scripts), f"{command.block}: {scripts}"
        elif "/" in program:
            assert os.access(ROOT / program, os.X_OK), f"{command.block}: {program} cannot be run"
        else:
            assert program in PROGRAMS, f"{command.block}: what is {program}?"


# --- what is run ------------------------------------------------------------------------------------------------------


def files_of(page: str) -> dict[str, str]:
    """Return the files that a page has, by path.

    A study that it only speaks of is another page's, with the sections that this page gives of it.
    """
    files = {block.file: block.text for block in blocks(page) if block.file and not block.remark}
    sections = [
        yaml.safe_load(block.text)
        for block in blocks(page)
        if block.language == "yaml" and not block.remark and not block.file
    ]
    spoken_of = {
        command.words[i + 1]
        for command in commands(page)
        for i, word in enumerate(command.words[:-1])
        if word == "--configfile"
    }
    for path in sorted(spoken_of - files.keys()):
        if (ROOT / path).exists():
            continue
        others = [block for other in PAGES for block in blocks(other) if block.file == path]
        assert others, f"{page}: no page has {path}"
        files[path] = others[0].text
        if sections:
            study = yaml.safe_load(others[0].text)
            for section in sections:
                merge(study, section)
            files[path] = yaml.safe_dump(study, sort_keys=False)
    return files


def project(root: Path, page: str) -> Path:
    """Copy the project, and write the files that a page has."""
    root.mkdir()
    for part in (*PARTS, "studies"):
        copying = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
        copying(ROOT / part, root / part)
    # Where the published files are has no part in what would run, and differs from machine to machine.
    for study in (root / "studies").glob("*.yaml"):
        study.write_text(re.sub(r"\n? *,? source: /[^,}\n]+", "", study.read_text()))
    for path, text in files_of(page).items() if page else ():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def code_of(page: str) -> str:
    """Return the code of a page, one block after another; each raises with its own place in the page."""
    return "\n".join(
        f"exec(compile({chr(10) * block.line + block.text!r}, {block.page!r}, 'exec'))"
        for block in blocks(page)
        if block.language == "python" and not block.remark and not block.file
    )


def run_code(page: str, root: Path) -> None:
    environment = os.environ | {"PYTHONPATH": "scripts", "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code_of(page)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, f"{page}: {done.stderr[-3000:]}"


@dataclass(frozen=True)
class Request:
    """What a command asks Snakemake for.

    `page` is empty if what would be made does not depend on the page; `options` name the study.
    """

    page: str
    options: tuple[str, ...]
    targets: tuple[str, ...]


def requests(page: str) -> list[Request]:
    """Take the Snakemake commands of a page apart, with Snakemake's own parser."""
    found = []
    for command in commands(page):
        program, *arguments = command.words
        if Path(program).name != "snakemake" or {word.partition("=")[0] for word in arguments} & OTHER_BUSINESS:
            continue
        try:
            parsed = snakemake_parser().parse_args(arguments)
        except SystemExit:
            pytest.fail(f"{command.block}: Snakemake does not understand {' '.join(command.words)}")
        studies = [os.path.relpath(path) for path in parsed.configfile or []]
        options = ["--configfile", *studies] if studies else []
        is_own = any(path in files_of(page) for path in studies)
        forced = [path for path in parsed.forcerun or [] if "/" in path]
        targets = [*map(str, parsed.targets), *forced] or (["all"] if is_own and parsed.dryrun else [])
        found.append(Request(page if is_own else "", tuple(options), tuple(targets)))
    return found


@cache
def snakemake_parser():
    from snakemake.cli import get_argument_parser

    return get_argument_parser()


def asked_for() -> dict[tuple[str, tuple[str, ...]], list[str]]:
    """Gather the targets by study, so that one dry run does for all commands."""
    asked: dict[tuple[str, tuple[str, ...]], set[str]] = {}
    for page in PAGES:
        for request in requests(page):
            asked.setdefault((request.page, request.options), set()).update(request.targets)
    return {key: sorted(targets) for key, targets in asked.items() if targets}


@pytest.mark.parametrize("page", [page for page in PAGES if code_of(page) and Path(page).name not in RUN_ELSEWHERE])
def test_code_runs(page, tmp_path):
    run_code(page, project(tmp_path / "project", page))


@pytest.mark.parametrize("page", PAGES)
def test_commands_name_studies_that_are_valid(page):
    files = files_of(page)
    for request in requests(page):
        for path in request.options[1:]:
            text = files[path] if path in files else (ROOT / path).read_text()
            parse_study(yaml.safe_load(text), f"{page}: {path}")


def test_what_commands_ask_for_can_be_made(tmp_path):
    """One dry run of the real Snakemake a study, of all that pages ask of it."""
    failures = []
    for number, ((page, options), targets) in enumerate(asked_for().items()):
        root = project(tmp_path / str(number), page)
        if page and code_of(page):
            run_code(page, root)  # a folder of images, say
        arguments = [*targets, "-n", "--quiet", *options]
        out, err = root / "dry-run.out", root / "dry-run.err"
        fork = _FORKS.Process(target=_snakemake_in_fork, args=(root, arguments, out, err))
        fork.start()
        fork.join(timeout=120)
        if fork.exitcode != 0:
            said = out.read_text() + err.read_text()
            failures.append(f"{page or 'all pages'}: snakemake {' '.join(arguments)}\n{said[-1500:]}")
    assert not failures, "\n".join(failures)


# --- what is named ----------------------------------------------------------------------------------------------------


@cache
def defined_in(module: str) -> set[str]:
    """Return what a module of the library, or a script, defines."""
    places = [ROOT / f"scripts/{folder}{module}.py" for folder in ("featurespace/", "")]
    return set().union(*(names_of(ast.parse(place.read_text())) for place in places if place.exists()))


def names_of(tree: ast.Module | ast.ClassDef) -> set[str]:
    """Return what a module defines, with the members of its classes behind a dot."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{member}" for member in names_of(node)}
    return names


def test_formulas_name_the_functions_that_compute_them():
    named = set(NAMED_FUNCTION.findall(prose("docs/mathematics.md")))
    unknown, n_known = [], 0
    for module, attribute in sorted(named):
        is_known = attribute in defined_in(module)
        n_known += is_known
        if not is_known and attribute != "csv":
            unknown.append(f"{module}.{attribute}")
    assert not unknown, f"docs/mathematics.md: {', '.join(unknown)}"
    assert n_known > 60


def test_figures_are_those_that_a_rule_made():
    figures = sorted((ROOT / "docs/figures").glob("*.svg"))
    assert figures
    for figure in figures:
        provenance = json.loads(figure.with_suffix(".json").read_text())
        assert provenance["sha256"]["figure"] == sha256(figure)
        assert figure.name.startswith(f"{provenance['study']}-")
        assert provenance["command"].split()[1] == figure.relative_to(ROOT).as_posix()
        assert len(provenance["sha256"]["numbers"]) == 64
        assert provenance["versions"]["torch"]
    shown = {Path(target).name for page in PAGES for target in LINK.findall(prose(page)) if target.endswith(".svg")}
    assert {figure.name for figure in figures} == shown


def test_the_version_is_one():
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert version is not None
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version[1]
    assert f"\n## {version[1]} - {citation['date-released']}\n" in content("CHANGELOG.md")
    assert (ROOT / "LICENSE").read_text().startswith(citation["license"])
