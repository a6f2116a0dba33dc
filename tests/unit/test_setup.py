"""Setting up fails in one clear line: no Python, a full disk, no module for virtual environments, no network."""

import os
import shutil
import subprocess
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("sh", "cat", "cut", "sha256sum", "dirname", "awk", "grep", "sed", "rm", "env")


@pytest.fixture
def clone(tmp_path) -> Path:
    """A fresh clone's setup, and a PATH that has only the tools every system has."""
    shutil.copytree(ROOT / "envs", tmp_path / "clone/envs")
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (tools / tool).symlink_to(found)
    pretend(tools / "df", "echo Filesystem; echo none 0 0 99999999 0% /")
    return tmp_path / "clone"


def pretend(path: Path, script: str) -> None:
    """Write a program that stands in for another."""
    path.unlink(missing_ok=True)
    path.write_text(f"#!{shutil.which('sh')}\n{script}\n")
    path.chmod(0o755)


def set_up(clone: Path) -> subprocess.CompletedProcess[str]:
    """Run the setup with nothing but the pretended tools."""
    environment = {"PATH": str(clone.parent / "bin"), "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(
        [clone / "envs/setup.sh"], capture_output=True, text=True, env=environment, check=False, timeout=60
    )


def assert_one_line(done: subprocess.CompletedProcess[str], says: str) -> None:
    """Check that it failed, and said so in one line."""
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("featurespace: ")
    assert says in done.stderr


def test_no_python(clone):
    assert_one_line(set_up(clone), "no Python 3.11 or newer was found")


def test_a_python_that_is_too_old(clone):
    pretend(clone.parent / "bin/python3", "exit 1")
    assert_one_line(set_up(clone), "no Python 3.11 or newer was found")


def test_a_full_disk_before_anything_is_installed(clone):
    pretend(clone.parent / "bin/python3", "exit 0")
    pretend(clone.parent / "bin/df", "echo Filesystem; echo none 0 0 2097152 0% /")
    assert_one_line(set_up(clone), "needs about 7 GB, and 2 GB are free")
    assert not (clone / ".venv").exists()


def test_a_disk_that_fills_up_meanwhile(clone):
    pretend(clone.parent / "bin/python3", 'case "$1" in -m) echo "[Errno 28] No space left on device"; exit 1;; esac')
    done = set_up(clone)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith("featurespace: the disk is full")


def test_a_python_without_virtual_environments(clone):
    pretend(clone.parent / "bin/python3", 'case "$1" in -m) exit 1;; esac')
    assert_one_line(set_up(clone), "apt install python3-venv")
    assert not (clone / ".venv").exists()


def test_nothing_is_done_twice(clone):
    (clone / ".venv").mkdir()
    digest = subprocess.run(
        "cat envs/requirements.lock envs/bootstrap.lock envs/setup.sh | sha256sum | cut -d' ' -f1",
        shell=True,
        cwd=clone,
        capture_output=True,
        text=True,
        check=True,
    )
    (clone / ".venv/installed").write_text(digest.stdout)
    done = set_up(clone)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def imports_from(python: Path, elsewhere: Path, code: str = "") -> str:
    """Say which file `import featurespace` finds, in an environment of its own and with no path set."""
    code += "\nimport featurespace; print(featurespace.__file__)"
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [python, "-c", code], cwd=elsewhere, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_the_library_is_found_from_anywhere_and_where_a_checkout_has_its_own_that_one(clone, tmp_path):
    shutil.copytree(ROOT / "scripts/featurespace", clone / "scripts/featurespace")
    other = tmp_path / "it's another/scripts/featurespace"
    shutil.copytree(ROOT / "scripts/featurespace", other)
    venv.create(clone / ".venv", with_pip=False)
    python = clone / ".venv/bin/python"
    assert "link_library.py\n" in (clone / "envs/setup.sh").read_text()
    subprocess.run([python, clone / "envs/link_library.py"], check=True, timeout=60)
    assert imports_from(python, tmp_path) == str(clone / "scripts/featurespace/__init__.py")
    # as Snakemake adds a script's directory: behind all others
    code = f"import sys; sys.path.append({str(other.parent)!r})"
    assert imports_from(python, tmp_path, code) == str(other / "__init__.py")
