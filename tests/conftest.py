"""What all tests share: a record of the faults that were caused, and of what each cost."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from harness import TINY, Workflow, follow_page


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, worker_id) -> Workflow:
    """The tiny study, run to its end: once, whatever the number of test workers. Never change it: copy it."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    root = shared / "tiny"
    with FileLock(shared / "tiny.lock"):
        if not (shared / "tiny.done").exists():
            Workflow(root, TINY).run()
            (shared / "tiny.done").touch()
        return Workflow(root, TINY)


@pytest.fixture(scope="session")
def own(tiny, tmp_path_factory, worker_id) -> Workflow:
    """The tiny study with a measure and a figure of one's own, as the docs say, run to its end. Never change it."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    root = shared / "pages"
    with FileLock(shared / "pages.lock"):
        if not (shared / "pages.done").exists():
            workflow = tiny.copy_to(root)
            follow_page(workflow, "how-to/own-measure-and-figure.md")
            (shared / "pages.pending").write_text("\n".join(sorted(workflow.pending())))
            workflow.run()
            (shared / "pages.done").touch()
        return Workflow(root, yaml.safe_load((root / "study.yaml").read_text()))


@pytest.fixture
def record_fault() -> Callable[..., None]:
    """Return a function that notes a fault which a test has caused and seen mended or refused.

    `make faults` makes the table of docs/reliability.md of these notes; without it nothing is written.
    """

    def record(where: str, fault: str, outcome: str, times: int = 1, lost: int = 0) -> None:
        """Note a fault, after everything about it was asserted.

        Parameters
        ----------
        where
            What it happened to: a stage, a file, a cluster.
        fault
            What was done.
        outcome
            What the user sees, in a few words.
        times
            How often it was tried.
        lost
            In how many of them a result was lost, or damaged ones were taken for results.
        """
        if path := os.environ.get("FEATURESPACE_FAULTS"):
            note = {"where": where, "fault": fault, "outcome": outcome, "times": times, "lost": lost}
            # One write of one short line: test workers share the file.
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(json.dumps(note, ensure_ascii=False) + "\n")

    return record


@pytest.fixture
def thorough() -> bool:
    """Whether every fault is to be tried (`make faults`), and not a sample of each kind."""
    return "FEATURESPACE_FAULTS" in os.environ
