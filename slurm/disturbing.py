"""Random events for a job on the local cluster: warnings, requeues, kills, limits, restarts."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slurm.local_cluster import ClusterError, LocalCluster

LIMIT_SECONDS = 2400
# SLURM looks at time limits about once a minute, and kills what does not end by itself later.
EFFECT_SECONDS = 150
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

    An event counts once SLURM started the job again because of it, or, for the controller, once
    that was restarted. What had no effect (a task that was not up yet, a job that ended meanwhile)
    is tried again.

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
        self._seen = ""
        self.kinds: dict[str, Callable[[str, str], str | None]] = {
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
        for kind, moment in zip(kinds, moments, strict=True):
            if not self._happens(kind, moment):
                print("the work was done before all events", flush=True)
                return
        self._until(self._over)

    def _happens(self, kind: str, moment: int) -> bool:
        """Try an event until it did something; False once the work is over."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while time.monotonic() < deadline:
            self._until(lambda: self._due(moment))
            if self._over():
                return False
            time.sleep(self.chance.uniform(0.0, 1.5))
            if self._fire(kind):
                self._seen = self._progress()
                return True
        raise RuntimeError(f"{kind}: had no effect for {LIMIT_SECONDS} s: {self.states()}")

    def _due(self, moment: int) -> bool:
        self._lengthen()
        new = self._progress() != self._seen and bool(self._running())
        return self._over() or (new and self._done() >= moment)

    def _fire(self, kind: str) -> bool:
        """Try an event; whether it did something, and so was noted."""
        running = self._running()
        if not running:
            return False
        job, nodes = self.chance.choice(running)
        began, done, steps = time.monotonic() - self.began, self._done(), self._in_flight()
        try:
            target = self.kinds[kind](job, nodes)
        except ClusterError as error:
            print(f"{began:6.1f} s  {kind}: {error}", flush=True)
            return False
        if target is None:
            print(f"{began:6.1f} s  {kind}: job {job}: no effect", flush=True)
            return False
        event = Event(
            seconds=began,
            mode=self.mode,
            kind=kind,
            target=target,
            done=done,
            in_flight=steps,
        )
        self.events.append(event)
        print(f"{began:6.1f} s  {kind}: {target} ({done} photos done)", flush=True)
        return True

    def _warn(self, job: str, nodes: str) -> str | None:
        before = self._restarts(job)
        self.cluster.run("scancel", "--signal=USR1", job)
        return f"job {job}" if self._started_again(job, before) else None

    def _requeue(self, job: str, nodes: str) -> str | None:
        before = self._restarts(job)
        self.cluster.run("scontrol", "requeue", job)
        return f"job {job}" if self._started_again(job, before) else None

    def _kill_task(self, job: str, nodes: str) -> str | None:
        before, found = self._restarts(job), self._tasks(job)
        if not found:
            return None
        pid, rank = self.chance.choice(found)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return None
        return f"job {job}, task {rank}" if self._started_again(job, before) else None

    def _kill_node(self, job: str, nodes: str) -> str | None:
        before = self._restarts(job)
        node = self.chance.choice(["n1", "n2"]) if self.mode == "nodes" else nodes
        try:
            self.cluster.kill_node(node)
            time.sleep(1)
        finally:
            self.cluster.start_node(node)
        return f"{node} (job {job})" if self._started_again(job, before) else None

    def _time_limit(self, job: str, nodes: str) -> str | None:
        """Move the end of the job so near that SLURM warns it at its next look at the clock."""
        before, limit = self._restarts(job), self._minutes_run(job) + 1
        self.cluster.run("scontrol", "update", f"jobid={job}", f"timelimit={limit}")
        self._shortened.append(job)
        return f"job {job}, {limit} min" if self._started_again(job, before) else None

    def _restart_controller(self, job: str, nodes: str) -> str | None:
        self.cluster.restart_controller()
        return "slurmctld"

    def _minutes_run(self, job: str) -> int:
        """Whole minutes since the job's present start; 0 where SLURM does not say."""
        text = self.cluster.run("scontrol", "-o", "show", "job", job)
        found = re.search(r"RunTime=(?:(\d+)-)?(\d+):(\d+):", text)
        if found is None:
            return 0
        days, hours, minutes = (int(part or 0) for part in found.groups())
        return 60 * (24 * days + hours) + minutes

    def _started_again(self, job: str, before: int) -> bool:
        """Wait until SLURM counts one more start of a job; False if it ends, or goes on, without.

        Args:
            job: its id.
            before: its starts after the first one, before the event.
        """
        deadline = time.monotonic() + EFFECT_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(ClusterError):  # the controller is busy
                states, again = self._states(job), self._restarts(job) > before
                if again or (states and set(states) <= OVER):
                    return again
            time.sleep(0.5)
        return False

    def _lengthen(self) -> None:
        """Give jobs that were requeued at their limit the usual time again."""
        while self._shortened:
            job = self._shortened.pop()
            self.cluster.run("scontrol", "update", f"jobid={job}", "timelimit=60", check=False)

    def _restarts(self, job: str) -> int:
        found = re.findall(
            r"Restarts=(\d+)", self.cluster.run("scontrol", "-o", "show", "job", job)
        )
        if not found:
            raise ClusterError(f"scontrol says nothing of the starts of job {job}")
        return sum(map(int, found))

    def restarts(self) -> int:
        """How often SLURM started the job, or its tasks, again."""
        return self._restarts(self.job)

    def states(self) -> list[str]:
        """States of the job, one per task of an array."""
        return self._states(self.job)

    def _states(self, job: str) -> list[str]:
        text = self.cluster.run("scontrol", "-o", "show", "job", job, check=False)
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
        names = []
        for path in sorted(folder.glob("*.safetensors")):
            with contextlib.suppress(FileNotFoundError):  # replaced meanwhile
                names.append(f"{path.name} {path.stat().st_mtime_ns}")
        return f"{self._done()} {names}"

    def _in_flight(self) -> str:
        from anti_i2v_lit.archive.in_flight import InFlightStore

        found = InFlightStore(self.out).peek()
        return ", ".join(f"{'+'.join(g.keys)} at {g.facts.get('step')}" for g in found) or "none"

    def _until(self, ready: Callable[[], bool], seconds: float = LIMIT_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while True:
            if ready():
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"no end after {seconds} s: {self.states()}")
            time.sleep(0.5)
