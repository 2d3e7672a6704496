"""Random events for a job on the local cluster: warnings, requeues, kills, limits, restarts."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slurm.local_cluster import LocalCluster

LIMIT_SECONDS = 2400
OVER = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}


@dataclass(kw_only=True)
class Event:
    """One disturbance: when, what, to what, and how far the work was."""

    seconds: float
    mode: str
    kind: str
    target: str
    done: int
    in_flight: str


class Disturber:
    """Disturbs one job until its events are used up, then waits for its end.

    Args:
        cluster: the cluster.
        job: id of the job.
        mode: "array" or "nodes".
        out: folder of the cloaks.
        photos: how many there are.
        chance: decides what happens when.
    """

    def __init__(
        self,
        cluster: LocalCluster,
        job: str,
        mode: str,
        out: Path,
        photos: int,
        chance: random.Random,
    ) -> None:
        self.cluster, self.job, self.mode, self.out = cluster, job, mode, out
        self.photos, self.chance = photos, chance
        self.events: list[Event] = []
        self.began = time.monotonic()
        self._shortened: list[str] = []
        self.kinds: dict[str, Callable[[str, str], str]] = {
            "warning (scancel --signal)": self._warn,
            "requeue by the operator": self._requeue,
            "kill -9 of a task": self._kill_task,
            "node killed": self._kill_node,
            "time limit": self._time_limit,
            "controller restarted": self._restart_controller,
        }

    def run(self, events: int) -> None:
        """Fire the events, each after new progress, spread over the work; wait for the end.

        Raises:
            RuntimeError: the job does not come to its end.
        """
        kinds = list(self.kinds) * (events // len(self.kinds))
        kinds += self.chance.sample(list(self.kinds), events % len(self.kinds))
        self.chance.shuffle(kinds)
        moments = sorted(self.chance.randrange(0, self.photos - 8) for _ in range(events))
        seen = ""
        for kind, moment in zip(kinds, moments, strict=True):
            self._until(lambda m=moment, s=seen: self._due(m, s))  # type: ignore[misc]
            if self._over():
                print("the work was done before all events", flush=True)
                return
            time.sleep(self.chance.uniform(0.0, 1.5))
            self._fire(kind)
            seen = self._progress()
        self._until(self._over)

    def _due(self, moment: int, seen: str) -> bool:
        self._lengthen()
        new = self._progress() != seen and bool(self._running())
        return self._over() or (new and self._done() >= moment)

    def _fire(self, kind: str) -> None:
        running = self._running()
        if not running:
            return
        job, nodes = self.chance.choice(running)
        done, steps = self._done(), self._in_flight()
        target = self.kinds[kind](job, nodes)
        event = Event(
            seconds=time.monotonic() - self.began,
            mode=self.mode,
            kind=kind,
            target=target,
            done=done,
            in_flight=steps,
        )
        self.events.append(event)
        print(f"{event.seconds:6.1f} s  {kind}: {target} ({done} photos done)", flush=True)

    def _warn(self, job: str, nodes: str) -> str:
        self.cluster.run("scancel", "--signal=USR1", job, check=False)
        return f"job {job}"

    def _requeue(self, job: str, nodes: str) -> str:
        self.cluster.run("scontrol", "requeue", job, check=False)
        return f"job {job}"

    def _kill_task(self, job: str, nodes: str) -> str:
        found = self._tasks(job)
        if not found:
            return f"job {job}: no task was up"
        pid, rank = self.chance.choice(found)
        os.kill(pid, signal.SIGKILL)
        return f"job {job}, task {rank}"

    def _kill_node(self, job: str, nodes: str) -> str:
        node = self.chance.choice(["n1", "n2"]) if self.mode == "nodes" else nodes
        self.cluster.kill_node(node)
        time.sleep(1)
        self.cluster.start_node(node)
        return f"{node} (job {job})"

    def _time_limit(self, job: str, nodes: str) -> str:
        """Move the end of the job so near that SLURM warns it at its next look at the clock."""
        text = self.cluster.run("scontrol", "-o", "show", "job", job)
        days = re.findall(r"RunTime=(?:(\d+)-)?(\d+):(\d+):", text)
        hours, minutes = (int(days[0][1]), int(days[0][2])) if days else (0, 0)
        limit = 60 * hours + minutes + 1
        self.cluster.run("scontrol", "update", f"jobid={job}", f"timelimit={limit}")
        self._shortened.append(job)
        before = self._restarts(job)
        self._until(lambda: self._over() or self._restarts(job) > before, 150)
        return f"job {job}, {limit} min"

    def _lengthen(self) -> None:
        """Give jobs that were requeued at their limit the usual time again."""
        while self._shortened:
            job = self._shortened.pop()
            self.cluster.run("scontrol", "update", f"jobid={job}", "timelimit=60", check=False)

    def _restart_controller(self, job: str, nodes: str) -> str:
        self.cluster.restart_controller()
        return "slurmctld"

    def _restarts(self, job: str) -> int:
        text = self.cluster.run("scontrol", "-o", "show", "job", job, check=False)
        return sum(map(int, re.findall(r"Restarts=(\d+)", text)))

    def restarts(self) -> int:
        """How often SLURM started the job, or its tasks, again."""
        return self._restarts(self.job)

    def states(self) -> list[str]:
        """States of the job, one per task of an array."""
        text = self.cluster.run("scontrol", "-o", "show", "job", self.job, check=False)
        return re.findall(r"JobState=(\w+)", text)

    def _running(self) -> list[tuple[str, str]]:
        text = self.cluster.run("squeue", "-h", "-t", "R", "-o", "%i %N", check=False)
        pairs = [line.split() for line in text.splitlines() if len(line.split()) == 2]
        return [(i, nodes) for i, nodes in pairs if i.partition("_")[0] == self.job]

    def _tasks(self, job: str) -> list[tuple[int, str]]:
        """(process id, rank) of the job's tasks, which have this cluster in their environment."""
        array, _, index = job.partition("_")
        wanted = {f"SLURM_ARRAY_JOB_ID={array}", f"SLURM_ARRAY_TASK_ID={index}"}
        wanted = wanted if index else {f"SLURM_JOB_ID={job}"}
        wanted.add(f"SLURM_CONF={self.cluster.config}")
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            known = dict(word.partition("=")[::2] for word in words)
            program = b"python" in command.split(b"\0")[0] and b"cloak" in command
            if wanted <= set(words) and program and known.get("SLURM_STEP_ID") == "0":
                found.append((int(folder.name), known.get("SLURM_PROCID", "?")))
        return found

    def _over(self) -> bool:
        states = self.states()
        return bool(states) and set(states) <= OVER

    def _done(self) -> int:
        path = self.out / "manifest.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def _progress(self) -> str:
        folder = self.out / ".anti_i2v" / "in_flight"
        names = sorted(f"{p.name} {p.stat().st_mtime_ns}" for p in folder.glob("*.safetensors"))
        return f"{self._done()} {names}"

    def _in_flight(self) -> str:
        from anti_i2v_lit.archive.in_flight import InFlightStore

        found = InFlightStore(self.out).peek()
        return ", ".join(f"{'+'.join(g.keys)} at {g.facts.get('step')}" for g in found) or "none"

    def _until(self, ready: Callable[[], bool], seconds: float = LIMIT_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                if ready():
                    return
            except FileNotFoundError:
                pass  # a file in flight was replaced meanwhile
            if time.monotonic() > deadline:
                raise RuntimeError(f"no end after {seconds} s: {self.states()}")
            time.sleep(0.5)
