"""A script's edge: its log, its one-line errors, its progress, and that it does not outlive Snakemake."""

import logging
import os
import re
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from featurespace import files, script
from featurespace.script import progress

SCRIPTS = Path(script.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SCRIPTS)}

PREAMBLE = """
import logging, os, sys, time, warnings
from types import SimpleNamespace
from featurespace.errors import FeaturespaceError
from featurespace.script import progress, script_edge
snakemake = SimpleNamespace(
    input=type("Inputs", (list,), {"store": "in"})(["in"]), output=type("Outputs", (list,), {"table": "out"})(["out"]),
    params=SimpleNamespace(spec={"k": 8}),
    config={"device": "cpu"}, threads=2, log=["logs/deep/rule.log"],
)
"""


def write_job(folder, body, preamble=PREAMBLE):
    path = folder / "job.py"
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    path.write_text(f"{preamble}\nwith script_edge(snakemake) as job:\n{lines}")
    return path


def run_job(folder, body, preamble=PREAMBLE):
    path = write_job(folder, body, preamble)
    return subprocess.run(
        [sys.executable, str(path)], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=60
    )


def log_of(folder):
    return (folder / "logs" / "deep" / "rule.log").read_text()


# --- log and errors -------------------------------------------------------------------------------


def test_a_log_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "logs").write_text("a file, where the folder of logs should be")
    done = run_job(tmp_path, "raise AssertionError('it was run')")
    assert done.returncode == 1
    assert done.stderr.startswith("featurespace: unexpected error: ")
    assert done.stderr.count("\n") == 1
    assert "logs" in done.stderr


def test_a_job_sees_its_inputs_and_logs_to_both_places(tmp_path):
    body = """
logging.getLogger("featurespace.spectra").info("layer %s", job.input.store)
warnings.warn("nearly singular")
assert (job.output.table, job.params, job.threads) == ("out", {"k": 8}, 2)
assert (job.device_preference, str(job.log)) == ("cpu", "logs/deep/rule.log")
"""
    result = run_job(tmp_path, body)
    assert result.returncode == 0, result.stderr
    for text in (result.stderr, log_of(tmp_path)):
        assert "INFO featurespace.spectra: layer in" in text
        assert "UserWarning: nearly singular" in text
    assert result.stdout == ""


def test_the_log_alone_ends_with_how_long_the_job_started_and_computed(tmp_path):
    preamble = f"import time\ntime.sleep(0.3)\n{PREAMBLE}"
    result = run_job(tmp_path, "time.sleep(0.2)", preamble)
    assert result.stderr == ""
    times = re.search(r"started in (\S+) s, computed for (\S+) s\n$", log_of(tmp_path))
    started, computed = map(float, times.groups())
    assert started >= 0.29  # ticks are hundredths of a second
    assert computed >= 0.2


def test_a_device_that_is_not_chosen_is_auto(tmp_path):
    preamble = PREAMBLE.replace('config={"device": "cpu"}', "config={}")
    result = run_job(tmp_path, 'assert job.device_preference == "auto"', preamble)
    assert result.returncode == 0, result.stderr


def test_an_explained_failure_is_one_line(tmp_path):
    result = run_job(tmp_path, 'raise FeaturespaceError("the store is\\ndamaged; make it again")')
    assert result.returncode == 1
    assert result.stderr == "featurespace: the store is damaged; make it again\n"
    assert "Traceback" in log_of(tmp_path)
    assert "job.py" in log_of(tmp_path)


def test_an_unexplained_failure_is_one_line_that_names_the_log(tmp_path):
    result = run_job(tmp_path, "1 / 0")
    assert result.returncode == 1
    assert result.stderr == (
        "featurespace: unexpected error: ZeroDivisionError: division by zero; see logs/deep/rule.log\n"
    )
    assert "Traceback" in log_of(tmp_path)


def test_a_job_leaves_a_terminal_alone_on_which_something_else_draws(tmp_path, monkeypatch):
    monkeypatch.setitem(ENVIRONMENT, "FEATURESPACE_QUIET", "1")
    result = run_job(tmp_path, 'logging.getLogger("x").warning("odd")\nraise FeaturespaceError("no")')
    assert result.returncode == 1
    assert result.stderr == ""
    assert "odd" in log_of(tmp_path)
    assert "featurespace: no" in log_of(tmp_path)


def test_the_log_alone_begins_with_the_process_that_writes_it(tmp_path):
    result = run_job(tmp_path, "pass")
    assert result.stderr == ""
    assert re.match(r"\S+ \S+ INFO featurespace\.script: process .+-\d+-\d+\n", log_of(tmp_path))


def test_an_interrupt_is_one_line(tmp_path):
    result = run_job(tmp_path, "raise KeyboardInterrupt")
    assert result.returncode == 130
    assert result.stderr == "interrupted\n"


def test_without_a_log_the_traceback_is_on_stderr(tmp_path):
    result = run_job(tmp_path, "1 / 0", PREAMBLE.replace('log=["logs/deep/rule.log"]', "log=[]"))
    assert result.returncode == 1
    assert "featurespace: unexpected error: ZeroDivisionError: division by zero\nTraceback" in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_log_on_a_full_disk_does_not_bury_the_error(tmp_path):
    preamble = PREAMBLE.replace("logs/deep/rule.log", "/dev/full")
    result = run_job(tmp_path, 'raise FeaturespaceError("the disk is full")', preamble)
    assert result.returncode == 1
    assert result.stderr == "featurespace: the disk is full\n"


# --- progress -------------------------------------------------------------------------------------


def test_progress_without_a_terminal_is_a_log_line_now_and_then(monkeypatch, caplog, capfd):
    monkeypatch.setattr(script, "LOG_INTERVAL", 0.1)
    caplog.set_level(logging.INFO)
    for _ in progress(range(40), "dumping", unit="step"):
        time.sleep(0.01)
    lines = caplog.messages
    assert 2 <= len(lines) < 40  # not one a step
    assert len(set(lines)) == len(lines)
    assert lines[0].startswith("dumping: ")
    assert re.search(r"/40 \[\d\d:\d\d<\d\d:\d\d, ", lines[0])
    assert [line.startswith("dumping: 40/40 ") for line in lines[-2:]] == [False, True]
    assert "\r" not in capfd.readouterr().err  # no bar; another test may have left its log on stderr


def test_progress_can_be_counted_by_hand(caplog):
    caplog.set_level(logging.INFO)
    with progress(10, "training") as bar:
        bar.update(4)
        bar.update(6)
    assert [line.split(" [")[0] for line in caplog.messages] == ["training: 10/10"]


def test_progress_of_an_empty_loop_says_nothing(caplog):
    caplog.set_level(logging.INFO)
    assert list(progress([], "nothing")) == []
    assert caplog.messages == []


def test_progress_on_a_terminal_is_a_bar(tmp_path):
    job = write_job(tmp_path, 'for i in progress(range(3), "dumping"):\n    logging.info("row %d", i)')
    reader, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    process = subprocess.Popen([sys.executable, str(job)], cwd=tmp_path, env=ENVIRONMENT, stderr=terminal)
    os.close(terminal)
    output = b""
    while True:
        try:
            output += os.read(reader, 4096)
        except OSError:  # the other end is closed
            break
    os.close(reader)
    assert process.wait(timeout=60) == 0
    assert b"dumping: 100%" in output
    assert b"row 2" in output
    assert "row 2" in log_of(tmp_path)
    assert "100%" not in log_of(tmp_path)


# --- jobs die with their parent -------------------------------------------------------------------

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="parent-death is watched on Linux only")

# A shell that stays between the two, as Snakemake's does, and that names Snakemake in its own command.
STAND_IN = """
import subprocess, sys
sys.exit(subprocess.call(["bash", "-c", f": snakemake; {sys.executable} job.py; echo after"]))
"""

SLEEP = """
open("pid.draft", "w").write(str(os.getpid()))
os.rename("pid.draft", "pid")
time.sleep(60)
"""


def wait_for(condition, what, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def start_and_kill(folder, command):
    """Start a command, wait for its job, kill the command's process alone, and return the job's pid."""
    process = subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        wait_for(lambda: (folder / "pid").exists() or process.poll() is not None, "the job has started")
        assert process.poll() is None, process.stdout.read()
        pid = int((folder / "pid").read_text())
        assert is_alive(pid)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    return pid


@on_linux
@pytest.mark.parametrize("as_module", [False, True])
def test_a_job_dies_when_snakemake_is_killed(tmp_path, as_module):
    write_job(tmp_path, SLEEP)
    if as_module:
        (tmp_path / "snakemake.py").write_text(STAND_IN)
        command = [sys.executable, "-m", "snakemake", "--cores", "1"]
    else:
        (tmp_path / "snakemake").write_text(STAND_IN)
        command = [sys.executable, str(tmp_path / "snakemake")]
    pid = start_and_kill(tmp_path, command)
    wait_for(lambda: not is_alive(pid), "the job has died", seconds=5)


@on_linux
def test_a_job_dies_when_the_outer_of_two_snakemakes_is_killed(tmp_path):
    write_job(tmp_path, SLEEP)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "snakemake").write_text(STAND_IN)
    (tmp_path / "snakemake").write_text(STAND_IN.replace("job.py", "inner/snakemake"))
    pid = start_and_kill(tmp_path, [sys.executable, str(tmp_path / "snakemake")])
    wait_for(lambda: not is_alive(pid), "the job has died", seconds=5)


@on_linux
def test_a_job_dies_with_its_direct_parent_where_there_is_no_snakemake(tmp_path):
    write_job(tmp_path, SLEEP)
    pid = start_and_kill(tmp_path, ["bash", "-c", f"{sys.executable} job.py; echo after"])
    wait_for(lambda: not is_alive(pid), "the job has died", seconds=5)


@on_linux
def test_a_job_that_started_after_its_snakemake_died_does_not_run(monkeypatch):
    gone = subprocess.Popen(["true"])
    gone.wait()
    killed = []
    monkeypatch.setattr(script, "_snakemake_ancestors", lambda: [gone.pid])
    monkeypatch.setattr(script.ctypes, "CDLL", lambda name: SimpleNamespace(prctl=lambda *args: 0))
    monkeypatch.setattr(script.os, "kill", lambda pid, number: killed.append((pid, number)))
    monkeypatch.setattr(script.threading.Thread, "start", lambda self: None)
    script._die_with_snakemake()
    assert killed == [(os.getpid(), signal.SIGKILL)]


SNAKEFILE = """
rule make_table:
    output: table="table.csv"
    log: "logs/make_table.log"
    params: spec={"k": 8}
    script: "job.py"
"""

REAL_PREAMBLE = """
import os, sys, time
from featurespace.errors import FeaturespaceError
from featurespace.script import script_edge
"""


@pytest.mark.workflow
def test_under_the_real_snakemake(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--nolock"]
    write_job(tmp_path, 'raise FeaturespaceError(f"cannot make {job.output.table} with {job.params}")', REAL_PREAMBLE)
    result = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert "\nfeaturespace: cannot make table.csv with {'k': 8}\n" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in (tmp_path / "logs" / "make_table.log").read_text()

    if sys.platform == "linux":
        write_job(tmp_path, SLEEP, REAL_PREAMBLE)
        pid = start_and_kill(tmp_path, command)
        wait_for(lambda: not is_alive(pid), "the job has died", seconds=5)


@on_linux
def test_a_process_that_has_ended_is_told_from_one_that_has_not(monkeypatch):
    mine = files.this_process()
    assert not files.has_ended(mine)
    gone = subprocess.Popen(["true"])
    gone.wait()
    host, pid, start = mine.rsplit("-", 2)
    assert files.has_ended(f"{host}-{gone.pid}-{start}")
    assert files.has_ended(f"{host}-{pid}-{int(start) - 1}")  # its pid is another process's now
    assert not files.has_ended(f"elsewhere-{gone.pid}-{start}")
    assert not files.has_ended("")
    assert files.has_ended(f"{host}-{gone.pid}-{start}-job7")
