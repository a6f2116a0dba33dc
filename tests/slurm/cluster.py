"""A SLURM of one's own: Debian's daemons on loopback, two virtual nodes on this machine, accounting in a MariaDB.

    python tests/slurm/cluster.py FOLDER      starts one, prints what to export, and stops it at Ctrl-C

Everything lies in one folder, sockets and keys included. A SLURM that this machine belongs to is neither used nor
touched: `SLURM_CONF` decides which one is spoken to.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

PROGRAMS = (
    "munged",
    "mariadbd",
    "mariadb-install-db",
    "slurmdbd",
    "slurmctld",
    "slurmd",
    "sacctmgr",
    "scontrol",
    "setpriv",
)
NODES = ("n1", "n2")  # each with two GPUs, of which there is no more than the name
MEMORY_MB = 12_000  # of a node, as far as SLURM knows
START_SECONDS = 60.0


def why_not() -> str | None:
    """Say why no SLURM can be started here; None if one can."""
    if missing := [name for name in PROGRAMS if shutil.which(name, path=_search_path()) is None]:
        return f"no {', '.join(missing)}: apt-get install slurm-wlm slurmdbd mariadb-server munge"
    if os.getuid() != 0:
        return "SLURM's daemons start jobs as other users, which takes root"
    return None


def _search_path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # where Debian keeps daemons


class Cluster:
    """The daemons, and what they are asked.

    Parameters
    ----------
    folder
        An empty one whose path is short: sockets' names have a limit.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.ports = dict(zip(("database", "slurmdbd", "slurmctld", *NODES), _free_ports(3 + len(NODES)), strict=True))
        self.conf = folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to speak with this SLURM."""
        return {"SLURM_CONF": str(self.conf), "PATH": f"{self.folder / 'bin'}:{_search_path()}"}

    def ask(self, *command: str) -> str:
        """Run one of SLURM's commands and return what it says.

        Raises
        ------
        RuntimeError
            If it fails.
        """
        done = subprocess.run(command, env=os.environ | self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    # --- start and stop ---

    def start(self) -> None:
        """Start everything, and wait until jobs can be given to both nodes."""
        self._write_files()
        self._start_munge()
        self._start_database()
        self._start("slurmdbd", ["slurmdbd", "-D"], {"SLURM_CONF": str(self.conf)})
        _wait("slurmdbd", lambda: self._answers("sacctmgr", "--noheader", "list", "cluster"), self)
        for what in (["cluster", "test"], ["account", "study", "cluster=test"], ["user", "root", "account=study"]):
            self.ask("sacctmgr", "--immediate", "add", *what)
        self._start("slurmctld", ["slurmctld", "-D", "-f", str(self.conf)])
        for node in NODES:
            self.start_node(node)
        for node in NODES:
            self.wait_for_node(node)

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        self._start(node, ["slurmd", "-D", "-N", node, "-f", str(self.conf)])

    def wait_for_node(self, node: str) -> None:
        """Wait until jobs can be given to a node."""
        _wait(node, lambda: self.ask("sinfo", "-h", "-n", node, "-o", "%T").split()[0] in ("idle", "mixed"), self)

    def kill_node(self, node: str) -> None:
        """Let a node die: its daemon, and every process of every job on it; SLURM is not told."""
        self.processes.pop(node).kill()
        for pid in _processes_of_jobs(self.folder, node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """Stop everything, jobs included."""
        with contextlib.suppress(RuntimeError):
            self.ask("scancel", "--user=root")
            time.sleep(1)
        for node in NODES:
            if node in self.processes:
                self.kill_node(node)
        for name in ("slurmctld", "slurmdbd", "mariadbd", "munged"):
            if process := self.processes.pop(name, None):
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def log(self, name: str) -> str:
        """Return the end of what a daemon said."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    def _answers(self, *command: str) -> bool:
        try:
            self.ask(*command)
        except RuntimeError:
            return False
        return True

    def _start(self, name: str, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            # Whatever becomes of who started it, a daemon does not stay.
            self.processes[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command],
                env=os.environ | {"PATH": _search_path()} | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for who started this, who then stops them in their order
            )

    def _start_munge(self) -> None:
        key, munge = self.folder / "munge.key", self.folder / "munge"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        munge.mkdir(mode=0o755)
        files = {
            "socket": munge / "socket",
            "pid-file": munge / "pid",
            "log-file": munge / "log",
            "seed-file": munge / "seed",
        }
        options = [f"--{name}={path}" for name, path in {**files, "key-file": key}.items()]
        self._start("munged", ["munged", "--foreground", "--force", *options])
        _wait("munged", files["socket"].exists, self)

    def _start_database(self) -> None:
        data, where = self.folder / "database", self.folder / "sql"
        common = ["--no-defaults", "--user=root", f"--datadir={data}"]
        subprocess.run(
            ["mariadb-install-db", *common, "--auth-root-authentication-method=normal", "--skip-test-db"],
            env=os.environ | {"PATH": _search_path()},
            capture_output=True,
            check=True,
        )
        listen = ["--bind-address=127.0.0.1", f"--port={self.ports['database']}", f"--socket={where}"]
        small = [
            "--innodb-buffer-pool-size=64M",
            "--innodb-lock-wait-timeout=900",
            f"--pid-file={self.folder / 'sql.pid'}",
        ]
        self._start("mariadbd", ["mariadbd", *common, *listen, *small])
        user = "'slurm'@'127.0.0.1'"
        sql = f"CREATE DATABASE slurm; CREATE USER {user} IDENTIFIED BY 'slurm'; GRANT ALL ON slurm.* TO {user};"
        client = ["mariadb", "--no-defaults", "--user=root", f"--socket={where}"]

        def made() -> bool:
            return subprocess.run([*client, "--execute", sql], capture_output=True, check=False).returncode == 0

        _wait("mariadbd", made, self)

    def _write_files(self) -> None:
        host, folder = socket.gethostname().partition(".")[0], self.folder
        cores = len(os.sched_getaffinity(0))
        auth = f"AuthType=auth/munge\nAuthInfo=socket={folder}/munge/socket\n"
        nodes = "".join(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={self.ports[node]} CPUs={cores}"
            f" RealMemory={MEMORY_MB} Gres=gpu:2\n"
            for node in NODES
        )
        self.conf.write_text(f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={self.ports["slurmctld"]}
SlurmUser=root
{auth}CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePass={folder}/munge/socket
AccountingStoragePort={self.ports["slurmdbd"]}
ReturnToService=2
SlurmdTimeout=10
KillWait=2
MinJobAge=600
GresTypes=gpu
{nodes}PartitionName=cpu Nodes={",".join(NODES)} Default=YES State=UP
PartitionName=gpu Nodes={",".join(NODES)} State=UP
""")
        (folder / "gres.conf").write_text("Name=gpu File=/dev/null,/dev/zero\n")
        (folder / "state").mkdir()
        # Snakemake's plugin takes all of SLURM's variables from the srun that it calls, this one too.
        (folder / "bin").mkdir()
        srun = folder / "bin" / "srun"
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.conf} exec {shutil.which("srun")} "$@"\n')
        srun.chmod(0o755)
        for node in NODES:
            (folder / f"spool-{node}").mkdir()
        accounting = folder / "slurmdbd.conf"
        accounting.write_text(f"""{auth}DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={self.ports["slurmdbd"]}
CommunicationParameters=NoInAddrAny
SlurmUser=root
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={self.ports["database"]}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
""")
        accounting.chmod(0o600)


def _free_ports(n: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [int(s.getsockname()[1]) for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _wait(what: str, is_there: Callable[[], bool], cluster: Cluster) -> None:
    until = time.monotonic() + START_SECONDS
    while not is_there():
        process = cluster.processes.get(what)
        if time.monotonic() > until or (process and process.poll() is not None):
            raise RuntimeError(f"{what} does not come up:\n{cluster.log(what)}")
        time.sleep(0.2)


def _processes_of_jobs(folder: Path, node: str) -> list[int]:
    """List the processes of a node's jobs: first the step daemons, which would report an end, then what they started.

    A job's processes carry the node's name in their environment; a step daemon is known by what it started.
    """
    parents: dict[int, int] = {}
    daemons, found = set(), set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry.name)
            parents[pid] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            environment = (entry / "environ").read_bytes().split(b"\0")
            if (entry / "cmdline").read_bytes().startswith(b"slurmstepd"):
                daemons.add(pid)
            elif f"SLURMD_NODENAME={node}".encode() in environment and any(
                bytes(folder) in value for value in environment
            ):
                found.add(pid)
    return [*sorted(daemons & {parents[pid] for pid in found}), *sorted(found)]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """Have a SLURM for as long as the body runs."""
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def main() -> None:
    """Start one, and stop it when interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    if reason := why_not():
        sys.exit(reason)
    folder.mkdir(parents=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with running(folder) as cluster:
        print(f"export SLURM_CONF={cluster.conf} PATH={folder / 'bin'}:$PATH", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
