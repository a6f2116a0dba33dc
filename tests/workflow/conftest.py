"""Fixtures of the tests that run the real Snakemake."""

import pytest
from filelock import FileLock
from harness import TINY, Workflow


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
