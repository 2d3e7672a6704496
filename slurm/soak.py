#!/usr/bin/env python3
"""Soak test: 64 photos through a real SLURM of two nodes, disturbed at random, must change no byte.

    python slurm/soak.py --out docs/soak.md [--events 10] [--seed 1] [--work DIR]

The photos lie in 8 shards. They are cloaked three times: by one undisturbed process, by a job
array, and by one job over two nodes. The last two are disturbed at random moments: by SLURM's
warning, a requeue by the operator, kill -9 of a task, the death of a node, the time limit and a
restart of the controller. The shards must then equal those of the undisturbed run, and the manifest
must hold every photo once. Needs root and Debian's SLURM (slurm/local_cluster.py install); the
surrogate is a miniature with random weights.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from slurm.local_cluster import LocalCluster  # noqa: E402

SHARDS, PHOTOS_PER_SHARD = 8, 8
PHOTOS = SHARDS * PHOTOS_PER_SHARD
PARTS = 4
LIMIT_SECONDS = 2400
OVER = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}
SITE = {
    "partition": "main",
    "time": "01:00:00",
    "warning_seconds": 30,
    "gpus_per_node": 0,
    "cpus_per_task": 2,
    "setup": ["export OMP_NUM_THREADS=1"],
}
SETTINGS = {
    "space": {"name": "dual", "low_frequency": {"frequency_share": 0.125, "budget_share": 0.5}},
    "objectives": [{"name": "denoising"}, {"name": "ira_latent", "direction": "away"}],
    "attack": {"steps": 8, "checkpoint_every": 1, "num_draws": 1, "num_verification_draws": 1},
    "framing": {"canvas_side_px": 48},
    "gate": {"min_psnr_db": 0, "min_ssim": 0, "max_ciede2000": 0, "max_lpips": 0},
    "trainer": {"accelerator": "cpu", "logger": False},
}
SETTINGS["attack"]["momentum"] = 0.0  # type: ignore[index]


@dataclass(kw_only=True)
class Event:
    """One disturbance: when, what, to what, and how far the work was."""

    seconds: float
    mode: str
    kind: str
    target: str
    done: int
    in_flight: str


@dataclass(kw_only=True)
class Result:
    """What became of one mode."""

    mode: str
    seconds: float
    states: str
    restarts: int
    same_shards: int
    rows: int
    keys: int
    findings: int

    @property
    def good(self) -> bool:
        """Whether every photo is there once, with the bytes of the undisturbed run."""
        counts = (self.same_shards, self.rows, self.keys, self.findings)
        return counts == (SHARDS, PHOTOS, PHOTOS, 0)


class Disturber:
    """Disturbs one job until its events are used up, then waits for its end.

    Args:
        cluster: the cluster.
        job: id of the job.
        mode: "array" or "nodes".
        out: folder of the cloaks.
        chance: decides what happens when.
    """

    def __init__(
        self, cluster: LocalCluster, job: str, mode: str, out: Path, chance: random.Random
    ) -> None:
        self.cluster, self.job, self.mode, self.out = cluster, job, mode, out
        self.chance = chance
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
        moments = sorted(self.chance.randrange(0, PHOTOS - 8) for _ in range(events))
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


def make_inputs(work: Path) -> None:
    """Shards, a miniature, settings and a site file."""
    from PIL import Image
    from skimage import data

    from anti_i2v_lit.miniatures import tiny_cogvideox

    tiny_cogvideox().save_pretrained(work / "tiny")
    surrogate = {"name": "cogvideox", "path": str(work / "tiny"), "weight": 1.0}
    settings = {"surrogates": [surrogate], **SETTINGS}
    (work / "cloak.yaml").write_text(yaml.safe_dump(settings))
    (work / "site.yaml").write_text(yaml.safe_dump(SITE))
    whole = Image.fromarray(data.astronaut())
    (work / "shards").mkdir()
    for shard in range(SHARDS):
        with tarfile.open(work / "shards" / f"soak-{shard:06d}.tar", "w") as archive:
            for number in range(shard * PHOTOS_PER_SHARD, (shard + 1) * PHOTOS_PER_SHARD):
                left, stream = 4 * number, io.BytesIO()
                whole.crop((left, left, left + 256, left + 200)).resize((48, 40)).save(
                    stream, "PNG"
                )
                header = tarfile.TarInfo(f"{number:06d}.png")
                header.size = stream.tell()
                archive.addfile(header, io.BytesIO(stream.getvalue()))


def snapshot(target: Path) -> Path:
    """The committed code: a job that starts again must not find other code than before."""
    target.mkdir()
    archive = subprocess.run(
        ["git", "archive", "HEAD", "anti_i2v_lit", "slurm"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(target, filter="data")
    return target


def judge(mode: str, out: Path, calm: Path, disturber: Disturber) -> Result:
    """Compare with the undisturbed run."""
    from anti_i2v_lit.archive.ledger import Ledger
    from anti_i2v_lit.archive.verify import verify

    names = [path.name for path in sorted(calm.glob("*.tar"))]
    assert len(names) == SHARDS, "the undisturbed run did not write all shards"
    same = sum(
        (out / n).is_file() and (out / n).read_bytes() == (calm / n).read_bytes() for n in names
    )
    states = Counter(disturber.states())
    return Result(
        mode=mode,
        seconds=time.monotonic() - disturber.began,
        states=", ".join(f"{count} {state}" for state, count in states.items()),
        restarts=disturber.restarts(),
        same_shards=same,
        rows=(out / "manifest.jsonl").read_bytes().count(b"\n"),
        keys=len(Ledger(out).rows()),
        findings=len(verify(out)),
    )


def report(events: list[Event], results: list[Result], seed: int) -> str:
    """The log as Markdown."""
    lines = [
        "# Soak test on SLURM",
        "",
        f"{PHOTOS} photos in {SHARDS} shards on a two-node SLURM on one machine with two cores",
        "(`slurm/local_cluster.py`), cloaked as a job array and as one job over two nodes, and",
        "disturbed at random. Every shard must equal that of an undisturbed run of one process,",
        "and every photo must be in the manifest once. Remake it with",
        "",
        "```bash",
        f"python slurm/soak.py --out docs/soak.md --seed {seed}",
        "```",
        "",
        "| mode | seconds | jobs at the end | starts again | shards equal | rows | photos |"
        " findings of verify | passed |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in results:
        lines.append(
            f"| {r.mode} | {r.seconds:.0f} | {r.states} | {r.restarts} | {r.same_shards} of "
            f"{SHARDS} | {r.rows} | {r.keys} | {r.findings} | {'yes' if r.good else 'NO'} |"
        )
    lines += [
        "",
        "What happened, with the photos that were in flight at the last save before it:",
        "",
        "| mode | second | event | target | photos done | in flight, at step |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {e.mode} | {e.seconds:.0f} | {e.kind} | {e.target} | {e.done} | {e.in_flight} |"
        for e in events
    ]
    return "\n".join(lines) + "\n"


def soak(work: Path, modes: list[str], events: int, seed: int) -> tuple[str, bool]:
    """Run everything; the report and whether all is well."""
    make_inputs(work)
    code = snapshot(work / "code")
    inherited = {**os.environ, "PYTHONPATH": str(code)}
    pattern = str(work / "shards" / "*.tar")
    program = [sys.executable, "-m", "anti_i2v_lit"]
    given = ["--config", str(work / "cloak.yaml")]
    words = [*program, "cloak", pattern, "--out", str(work / "calm"), *given]
    quiet = subprocess.DEVNULL
    calm = subprocess.Popen(words, cwd=code, env=inherited, stdout=quiet, stderr=quiet)
    log: list[Event] = []
    results: list[Result] = []
    cluster = LocalCluster(work / "cluster")
    cluster.start()
    layout = {"array": ["--parts", str(PARTS), "--max-running", "2"], "nodes": ["--nodes", "2"]}
    try:
        for mode in modes:
            out = work / mode
            words = [*program, "submit", mode, pattern, "--out", str(out), *given, *layout[mode]]
            words += ["--site", str(work / "site.yaml")]
            path = f"{Path(sys.executable).parent}:{cluster.environment['PATH']}"
            environment = {**inherited, **cluster.environment, "PATH": path}
            environment["PYTHONPATH"] = str(code)
            shown = subprocess.run(
                words, env=environment, cwd=code, check=True, capture_output=True, text=True
            ).stdout
            job = re.findall(r"job (\d+):", shown)[0]
            disturber = Disturber(cluster, job, mode, out, random.Random(f"{seed} {mode}"))
            disturber.run(events)
            log += disturber.events
            if calm.wait() != 0:
                raise RuntimeError("the undisturbed run failed")
            results.append(judge(mode, out, work / "calm", disturber))
            print(results[-1], flush=True)
    finally:
        cluster.stop()
    return report(log, results, seed), all(result.good for result in results)


def main() -> int:
    """Run the soak; 1 if it failed."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="Markdown file of the log")
    parser.add_argument("--events", type=int, default=10, help="events in each mode")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--modes", default="array,nodes")
    parser.add_argument("--work", type=Path, help="folder that is kept; must be short")
    given = parser.parse_args()
    work = given.work or Path(tempfile.mkdtemp(prefix="soak-", dir="/tmp"))
    work.mkdir(parents=True, exist_ok=True)
    text, good = soak(work, given.modes.split(","), given.events, given.seed)
    print(text)
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")
    if given.work is None and good:
        shutil.rmtree(work)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
