#!/usr/bin/env python3
"""A real SLURM cluster on one machine, for tests: munged, slurmctld and one slurmd per node.

    slurm/local_cluster.py install                       Debian packages (as root)
    slurm/local_cluster.py start DIR [--nodes 2]         prints the line that points clients at it
    slurm/local_cluster.py stop DIR
    slurm/local_cluster.py kill-node DIR NODE            as if its power went
    slurm/local_cluster.py start-node DIR NODE
    slurm/local_cluster.py restart-controller DIR

Every node is a slurmd in its own mount, host name and process namespace: killing the first process
of the namespace kills the whole node. All state lies under DIR, which must be short, because the
path of a socket may have 107 characters at most. Processes are ended by the recorded id, checked
against the recorded start time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PACKAGES = ("slurm-wlm", "munge")
INSTALL = f"apt-get install -y --no-install-recommends {' '.join(PACKAGES)}"
PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "scontrol", "unshare")
# Only a machine that hangs takes as long to start, to answer a client, or to stop.
START_SECONDS = 600
CLIENT_SECONDS = 300
STOP_SECONDS = 120
MAX_FOLDER = 80
PORTS, PORTS_PER_PROCESS = (20_000, 30_000), 16
# Debian installs daemons here, which is not in every PATH.
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"

CONFIG = """\
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job may start after this many seconds: 120 by default, and 120 if below 5.
AuthInfo=socket={folder}/munge/socket,cred_expire=5
SlurmctldPort={port}
SlurmctldPidFile={folder}/run/slurmctld.own
SlurmctldLogFile={folder}/log/slurmctld.log
StateSaveLocation={folder}/state
SlurmdPidFile={folder}/run/slurmd-%n.own
SlurmdLogFile={folder}/log/slurmd-%n.log
SlurmdSpoolDir={folder}/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MailProg=/bin/true
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=256
# Nodes claim more processors than the machine has.
SlurmdParameters=config_overrides
ReturnToService=2
# Nodes that are killed are reported; a slow machine is no dead node.
SlurmdTimeout=300
KillWait=4
InactiveLimit=0
MinJobAge=3600
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0,sched_min_interval=0
{nodes}
PartitionName=main Nodes=ALL Default=YES PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE
PartitionName=urgent Nodes=ALL PriorityTier=20 PreemptMode=OFF MaxTime=INFINITE
PartitionName=scavenge Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime=20 MaxTime=INFINITE
"""

# The first process of a node's namespaces: host names as the others know them, then slurmd.
NODE = """
set -e
mount --bind "$1/etc/hosts" /etc/hosts
echo "$2" > /proc/sys/kernel/hostname
set +e
SLURM_CONF="$1/etc/slurm.conf" slurmd -D -N "$2" & wait
"""


class ClusterError(RuntimeError):
    """The cluster cannot be started; the message holds the ends of the logs."""


def why_not() -> str:
    """Why no cluster can run here; empty if one can."""
    if os.geteuid() != 0:
        return "a local SLURM needs root"
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if missing:
        return f"SLURM is not installed ({', '.join(missing)}): run `{INSTALL}`"
    namespaces = ["unshare", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "true"]
    if subprocess.run(namespaces, capture_output=True, check=False).returncode != 0:
        return "this machine does not allow namespaces (unshare), which the nodes need"
    return ""


class LocalCluster:
    """A cluster below one folder.

    Args:
        folder: everything lies below it; at most 80 characters.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.config = self.folder / "etc" / "slurm.conf"
        self.environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(self.config)}

    def start(self, nodes: int = 2, cpus: int = 4) -> None:
        """Start everything and wait until all nodes are idle.

        Raises:
            ClusterError: it cannot run here, or did not come up; nothing is left running.
        """
        reason = why_not()
        if reason:
            raise ClusterError(reason)
        if len(str(self.folder)) > MAX_FOLDER:
            raise ClusterError(f"{self.folder} is longer than {MAX_FOLDER} characters")
        for name in ("etc", "munge", "run", "log", "state"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "munge").chmod(0o711)
        names = [f"n{number + 1}" for number in range(nodes)]
        try:
            self._write_config(names, cpus)
            self._start_munge()
            self.start_controller("-c", "-i")
            for name in names:
                self.start_node(name)
            self._wait(self.healthy, "all nodes are idle")
        except ClusterError:
            self.stop()
            raise

    def stop(self) -> None:
        """End all processes; nothing happens if none runs."""
        if self._recorded("slurmctld"):
            self.run("scancel", "--quiet", "--user=root", check=False)
        self._end("slurmctld")
        for record in sorted((self.folder / "run").glob("node-*.json")):
            self._end(record.stem, signal.SIGKILL)
        self._end("munged")

    def start_node(self, name: str) -> None:
        """Start a node that does not run."""
        if self._recorded(f"node-{name}"):
            return
        (self.folder / f"spool-{name}").mkdir(exist_ok=True)
        namespaces = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child"]
        script = ["bash", "-c", NODE, "slurm-node", str(self.folder), name]
        self._spawn(f"node-{name}", [*namespaces, "--mount-proc", *script])

    def kill_node(self, name: str) -> None:
        """Kill a node with all its jobs, and tell the controller, which would find out later."""
        self._end(f"node-{name}", signal.SIGKILL)
        self.run("scontrol", "update", f"nodename={name}", "state=down", "reason=killed")

    def start_controller(self, *options: str) -> None:
        """Start the controller; without options it continues from its saved state."""
        self._spawn("slurmctld", ["slurmctld", "-D", *options])
        self._wait(self._answers, "the controller answers")

    def restart_controller(self) -> None:
        """Stop the controller and start it again from its saved state.

        Not by SIGKILL: it saves every few seconds only, and would forget the jobs since.
        """
        self._end("slurmctld")
        self.start_controller()

    def run(self, *words: str, check: bool = True) -> str:
        """Run a client command against this cluster; returns what it printed.

        Raises:
            ClusterError: it failed and `check` is set.
        """
        try:
            found = subprocess.run(
                words,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=CLIENT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            if check:
                raise ClusterError(
                    f"{' '.join(words)}: no answer within {CLIENT_SECONDS} s"
                ) from None
            return ""
        if check and found.returncode != 0:
            raise ClusterError(f"{' '.join(words)}: {found.stderr.strip()}")
        return found.stdout

    def healthy(self) -> bool:
        """Whether every node is up."""
        lines = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%T", check=False).split()
        up = {"idle", "mixed", "allocated", "completing"}
        return len(lines) == len(list(self.folder.glob("spool-*"))) and set(lines) <= up

    def _write_config(self, names: list[str], cpus: int) -> None:
        host, ports = socket.gethostname().split(".")[0], _free_ports(len(names) + 1)
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={name} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} "
            "RealMemory=4096 State=UNKNOWN"
            for name, port in zip(names, ports[1:], strict=True)
        )
        text = CONFIG.format(host=host, folder=self.folder, port=ports[0], nodes=nodes)
        self.config.write_text(text)
        hosts = ["localhost", host, *names]
        lines = "".join(f"127.0.0.1 {name}\n" for name in hosts)
        (self.folder / "etc" / "hosts").write_text(lines)

    def _start_munge(self) -> None:
        munge = self.folder / "munge"
        if not (munge / "key").exists():
            self.run("mungekey", "-c", "-k", str(munge / "key"))
        (munge / "socket").unlink(missing_ok=True)
        options = [f"--key-file={munge}/key", f"--socket={munge}/socket"]
        options += [f"--pid-file={munge}/own-pid", f"--seed-file={munge}/seed"]
        self._spawn("munged", ["munged", "-F", "--force", *options])
        self._wait((munge / "socket").exists, "munge answers")

    def _answers(self) -> bool:
        return "is UP" in self.run("scontrol", "ping", check=False)

    def _wait(self, ready: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if time.monotonic() > deadline:
                raise ClusterError(f"waited {START_SECONDS} s until {what}\n{self._logs()}")
            time.sleep(0.1)

    def _logs(self) -> str:
        paths = sorted((self.folder / "log").glob("*"))
        ends = [(path.name, path.read_text(errors="replace").splitlines()[-8:]) for path in paths]
        return "\n".join(f"{name}: {line}" for name, lines in ends for line in lines)

    def _spawn(self, name: str, words: list[str]) -> None:
        with (self.folder / "log" / f"{name}.out").open("ab") as log:
            process = subprocess.Popen(
                words,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        began = _began(process.pid)
        record = self.folder / "run" / f"{name}.json"
        record.write_text(json.dumps({"pid": process.pid, "began": began}))

    def _recorded(self, name: str) -> int | None:
        """The recorded process, if that very process still lives."""
        try:
            known = json.loads((self.folder / "run" / f"{name}.json").read_text())
        except (OSError, ValueError):
            return None
        pid = int(known["pid"])
        return pid if known["began"] and _began(pid) == known["began"] else None

    def _end(self, name: str, first: signal.Signals = signal.SIGTERM) -> None:
        for number in (first, signal.SIGKILL):
            pid = self._recorded(name)
            if pid is not None:
                os.kill(pid, number)
            deadline = time.monotonic() + STOP_SECONDS
            while self._recorded(name) and time.monotonic() < deadline:
                time.sleep(0.05)
        (self.folder / "run" / f"{name}.json").unlink(missing_ok=True)


def _began(pid: int) -> str:
    """Start time of a live process that is no zombie, in clock ticks since boot; empty else."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _free_ports(count: int) -> list[int]:
    """Ports that no program gets by chance before a daemon takes them: below the kernel's range.

    Where to look first depends on the process, so that two clusters that start together differ.
    """
    first, last = PORTS
    with contextlib.suppress(OSError, ValueError):
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        first, last = (first, min(last, lowest)) if lowest > first + 1000 else PORTS
    found: list[int] = []
    begin = os.getpid() * PORTS_PER_PROCESS
    for step in range(last - first):
        port = first + (begin + step) % (last - first)
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            found.append(port)
        if len(found) == count:
            return found
    raise ClusterError(f"no {count} free ports between {first} and {last}")


def install() -> int:
    """Install the packages without starting their services."""
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    subprocess.run(["apt-get", "update", "-q"], env=quiet, check=False)
    return subprocess.run(INSTALL.split(), env=quiet, check=False).returncode


def main() -> int:
    """Run one command; returns the exit code."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = ("install", "start", "stop", "kill-node", "start-node", "restart-controller")
    parser.add_argument("command", choices=commands)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("node", nargs="?")
    parser.add_argument("--nodes", type=int, default=2)
    given = parser.parse_args()
    if given.command == "install":
        return install()
    if given.folder is None or (given.command.endswith("-node") and given.node is None):
        parser.error("DIR, or NODE, is missing")
    cluster = LocalCluster(given.folder)
    try:
        if given.command == "start":
            cluster.start(given.nodes)
            print(f"export SLURM_CONF={cluster.config}")
        elif given.node is not None:
            {"kill-node": cluster.kill_node, "start-node": cluster.start_node}[given.command](
                given.node
            )
        else:
            {"stop": cluster.stop, "restart-controller": cluster.restart_controller}[
                given.command
            ]()
    except ClusterError as error:
        print(f"local_cluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
