"""What happens to a workstation: a full disk, a read-only directory, a second Snakemake, a clock that jumps, a mount
that delivers late.
"""

import copy
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from disturbed import complaints, disturb, finish, made, outputs_of, remove, scripts_below, start, wait_for

import decompose_features

pytestmark = pytest.mark.workflow

THOROUGH = "FEATURESPACE_FAULTS" in os.environ  # the fixture `thorough`, when tests are collected
only_thorough = pytest.mark.skipif(not THOROUGH, reason="with `make faults` only")
SAME = "same bytes"


@pytest.fixture
def mount() -> Iterator[Callable[..., None]]:
    """Return a function that mounts something on a directory, until the test ends."""
    mounted: list[Path] = []

    def mount_on(place: Path, *arguments: str) -> None:
        done = subprocess.run(["mount", *arguments, str(place)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
        if "remount" not in " ".join(arguments):
            mounted.append(place)

    if os.geteuid():
        pytest.skip("only root may mount")
    yield mount_on
    for place in reversed(mounted):
        subprocess.run(["umount", str(place)], check=True)


# --- a full disk ----------------------------------------------------------------------------------


FILLING = [
    "decompose_features/runs/mlp/block-0",
    "train_run/mlp/block-0",
    "prepare_dataset/digits",
    "dump_features/mlp/block-0",
    "compare_runs",
    "tabulate_entries",
    "plot_training",
    "write_report",
]


@pytest.mark.parametrize("job", FILLING if THOROUGH else FILLING[:1])
def test_a_full_disk_is_one_line_and_what_is_freed_suffices(tiny, tmp_path, mount, record_fault, job):
    workflow = tiny.copy_to(tmp_path / "full")
    outputs = outputs_of(workflow, job)
    results = workflow.root / "results/tiny"
    shutil.rmtree(results)
    results.mkdir()
    mount(results, "-t", "tmpfs", "-o", "size=200m", "tmpfs")
    shutil.copytree(tiny.root / "results/tiny", results, dirs_exist_ok=True)
    before = made(workflow)
    taken = sum(path.stat().st_size for path in map(workflow.root.joinpath, outputs) if path.is_file())
    taken += sum(path.stat().st_size for store in outputs for path in (workflow.root / store).rglob("*"))
    remove(workflow, outputs)
    rng = random.Random(job)
    for share in (0, rng.random(), rng.random()) if THOROUGH else (rng.random(),):
        ballast = results / "ballast"
        with ballast.open("wb") as file:
            free = os.statvfs(results).f_bavail * os.statvfs(results).f_frsize
            os.posix_fallocate(file.fileno(), 0, max(1, free - int(0.9 * share * taken)))
        status, said = finish(workflow, *outputs)
        assert status != 0
        assert "Traceback" not in said
        (line,) = complaints(said)
        assert "the disk is full: " in line
        assert line.endswith("free some space and run again")
        ballast.unlink()
        workflow.run(*outputs, "--cores", "1")
        assert made(workflow) == before
        remove(workflow, outputs)
        record_fault(job.partition("/")[0], "the disk is full", f"one line that says so; then {SAME}")


def test_a_scratch_file_that_the_disk_has_no_room_for_is_an_error_and_not_a_crash(tmp_path, mount, record_fault):
    mount(tmp_path, "-t", "tmpfs", "-o", "size=1m", "tmpfs")
    with pytest.raises(OSError, match="No space left"):
        decompose_features._empty((1, decompose_features.MEMORY_BYTES), tmp_path)
    assert list(tmp_path.iterdir()) == []
    record_fault("decompose_features", "the disk is too small for its scratch file", "an error, no crash")


# --- a read-only directory ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "is_there",
    [pytest.param(True, marks=only_thorough), False],
    ids=["some outputs are there", "no output is there"],
)
def test_read_only_results_are_refused_before_anything_runs(tiny, tmp_path, record_fault, request, is_there):
    workflow = tiny.copy_to(tmp_path / "protected")
    outputs = outputs_of(workflow, "plot_training")
    remove(workflow, outputs[: 1 if is_there else None])
    results = workflow.root / "results"
    if os.geteuid():
        folders = [results, *(path for path in results.rglob("*") if path.is_dir())]
        for folder in folders:
            folder.chmod(0o555)
        request.addfinalizer(lambda: [folder.chmod(0o755) for folder in folders])
    else:  # whom no mode keeps from writing
        mount = request.getfixturevalue("mount")
        mount(results, "--bind", str(results))
        mount(results, "-o", "remount,ro,bind")
    before = made(workflow)
    status, said = finish(workflow, *outputs)
    assert status != 0
    assert "Traceback" not in said
    if is_there:
        assert "Write-protected output files" in said  # Snakemake's own words, with their names
    else:
        (line,) = complaints(said)
        assert "results/tiny cannot be written to" in line
    assert made(workflow) == before
    assert workflow.pending() == {"plot_training", "write_report"}  # it can still be looked at
    record_fault("results/", "read-only", "refused before anything runs")


# --- two at once ----------------------------------------------------------------------------------


def test_a_second_snakemake_in_the_directory_says_so_and_the_first_ends_well(tiny, tmp_path, record_fault):
    workflow = tiny.copy_to(tmp_path / "shared")
    outputs = outputs_of(workflow, "compare_similarity")
    before = made(workflow)
    remove(workflow, outputs)
    first = start(workflow, *outputs)
    wait_for(lambda: list(scripts_below(first.pid)))
    (job,) = scripts_below(first.pid)
    os.kill(job.pid, signal.SIGSTOP)  # until the second has said what it has to say
    second = workflow.snakemake(*outputs, "--cores", "1")
    os.kill(job.pid, signal.SIGCONT)
    assert second.returncode != 0
    assert "no other Snakemake process is trying to create the same files" in " ".join(second.stderr.split())
    assert "Traceback" not in second.stderr
    assert first.wait() == 0
    assert made(workflow) == before
    record_fault("a study", "a second `snakemake` in the directory", "the second says so and ends, the first goes on")


# --- a clock that jumps ---------------------------------------------------------------------------


JUMPS = """
import os, pathlib, sys, time

words = " ".join(sys.orig_argv)
if ".snakemake/scripts/" in words or "-m snakemake" in words:
    HOURS = (0, 24, -1, 1)
    starts = pathlib.Path(__file__).with_name("starts")  # as many bytes as jobs were started
    now, set_times, began = time.time, os.utime, time.monotonic()

    def shifted():
        # every job that starts sets the clock, and so does every second
        n = int(time.monotonic() - began) if ".snakemake/scripts/" in words else starts.stat().st_size
        return now() + 3600 * HOURS[n % 4]

    def date(path, times=None, **others):
        # Snakemake dates what a job has made: by the kernel's clock, which no test may set
        if times is None and "ns" not in others:
            times = (shifted(), shifted())
        set_times(path, times, **others)

    with starts.open("a") as file:
        file.write("x" if ".snakemake/scripts/" in words else "")
    time.time, time.time_ns, os.utime = shifted, (lambda: int(1e9 * shifted())), date
"""


@only_thorough
def test_a_clock_that_jumps_between_jobs_and_within_them_costs_a_job_at_most(tiny, tmp_path, record_fault):
    workflow = tiny.copy_to(tmp_path / "jumps")
    targets = [target for job in ("dump_ends", "probe_run") for target in outputs_of(workflow, f"{job}/mlp/block-0")]
    before = made(workflow)
    remove(workflow, targets)
    status, said = finish(workflow, *targets, **disturb(tmp_path / "clock", JUMPS))
    # a result that is a day older than what it was made from: Snakemake takes it for none
    assert status != 0
    assert (tmp_path / "clock/starts").read_text() == "xx"
    assert "older modification time" in said
    assert "Traceback" not in said
    assert (workflow.root / targets[0]).stat().st_mtime - time.time() > 80000
    workflow.run(*targets, "--cores", "1")
    assert made(workflow) == before
    assert workflow.pending() == set()
    record_fault("a study", "the clock jumps a day ahead, and back by more", f"the job runs again, {SAME}")


def test_what_is_made_when_the_clock_was_set_back_counts_as_new(tiny, tmp_path, record_fault):
    workflow = tiny.copy_to(tmp_path / "back")
    # as if all that is there was made by a clock that was a day ahead of what it is now
    for path in (workflow.root / "results").rglob("*"):
        date = path.stat().st_mtime + 86400
        os.utime(path, (date, date))
    study = copy.deepcopy(workflow.study)
    study["analysis"]["subspaces"]["null_draws"] += 1
    workflow.write_study(study)
    expected = workflow.pending()
    assert {"compare_subspaces", "plot_subspace_angles", "test_claims"} <= expected
    workflow.run("results/tiny/tables/subspaces.csv", "--cores", "1")
    assert workflow.pending() == expected - {"compare_subspaces"}
    record_fault("a study", "the clock is set back by a day between two runs", "what was made since counts as new")


def test_dates_that_make_no_sense_make_nothing_stale(tiny, tmp_path, record_fault):
    workflow = tiny.copy_records_to(tmp_path / "dates")
    rng = random.Random("dates")
    for path in sorted((workflow.root / "results").rglob("*"), reverse=True):
        when = time.time() + rng.uniform(-1, 1) * 365 * 86400
        os.utime(path, (when, when))
    assert workflow.pending() == set()
    record_fault("a study", "every file is dated at random, from a year ago to a year ahead", "nothing is stale")


# --- a mount that delivers late -------------------------------------------------------------------


LATE = """
import atexit, os, pathlib, subprocess, sys

def hide():
    job = sys.modules["__main__"].__dict__.get("snakemake")
    if job is None or job.rule != "dump_ends":
        return
    aside = pathlib.Path(__file__).parent
    for i, output in enumerate(WHAT(pathlib.Path(job.output.store), pathlib.Path(job.output.digest))):
        os.rename(output, aside / str(i))
        # for two minutes at most, should the test end before it lets go
        held = f"n=0; while [ -e {aside}/hold ] && [ $n -lt 1200 ]; do sleep 0.1; n=$((n+1)); done"
        back = f"sleep {SECONDS}; {held}; mv {aside}/{i} {output}"
        subprocess.Popen(["sh", "-c", back], start_new_session=True, stdin=-3, stdout=-3, stderr=-3)

if ".snakemake/scripts/" in " ".join(sys.orig_argv):
    atexit.register(hide)
"""


@only_thorough
def test_outputs_that_appear_late_are_waited_for(tiny, tmp_path, record_fault):
    workflow = tiny.copy_to(tmp_path / "late")
    targets = [target for job in ("dump_ends", "probe_run") for target in outputs_of(workflow, f"{job}/mlp/block-0")]
    before = made(workflow)
    remove(workflow, targets)
    code = "WHAT, SECONDS = (lambda store, digest: [store, digest]), 3\n" + LATE
    status, said = finish(workflow, *targets, **disturb(tmp_path / "mount", code))
    assert status == 0, said
    assert "Waiting at most 30 seconds for missing files" in said
    assert made(workflow) == before
    record_fault("a store and its digest", "they appear 3 s after the job has ended", f"waited for, {SAME}")


def test_a_store_of_which_a_part_is_late_is_never_computed_with(tiny, tmp_path, record_fault):
    workflow = tiny.copy_to(tmp_path / "late")
    targets = [target for job in ("dump_ends", "probe_run") for target in outputs_of(workflow, f"{job}/mlp/block-0")]
    before = made(workflow)
    remove(workflow, targets)
    code = "WHAT, SECONDS = (lambda store, digest: sorted(store.rglob('c.*'))[3:]), 0\n" + LATE
    environment = disturb(tmp_path / "mount", code)
    (tmp_path / "mount/hold").touch()
    status, said = finish(workflow, *targets, **environment)
    assert status != 0
    (line,) = complaints(said)
    assert "ends.zarr" in line
    assert "is missing" in line
    assert not (workflow.root / "results/tiny/runs/mlp/block-0/probe.csv").exists()
    (tmp_path / "mount/hold").unlink()  # now the mount delivers
    wait_for(lambda: not any(path.name.isdigit() for path in (tmp_path / "mount").iterdir()))
    workflow.run(*targets, "--cores", "1")
    assert made(workflow) == before
    record_fault("a store", "some of its chunks appear after its consumer began", f"refused by name; later {SAME}")
