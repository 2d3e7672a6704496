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
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from slurm.disturbing import Disturber, Event  # noqa: E402
from slurm.local_cluster import LocalCluster  # noqa: E402

SHARDS, PHOTOS_PER_SHARD = 8, 8
PHOTOS = SHARDS * PHOTOS_PER_SHARD
PARTS = 4
# So many that the work lasts longer than the events take.
STEPS = 120
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
    "attack": {"steps": STEPS, "checkpoint_every": 1, "num_draws": 1, "num_verification_draws": 1},
    "framing": {"canvas_side_px": 48},
    "gate": {"min_psnr_db": 0, "min_ssim": 0, "max_ciede2000": 0, "max_lpips": 0},
    "trainer": {"accelerator": "cpu", "logger": False},
}
SETTINGS["attack"]["momentum"] = 0.0  # type: ignore[index]


@dataclass(kw_only=True)
class Result:
    """What became of one mode."""

    mode: str
    seconds: float
    events: str
    states: str
    restarts: int
    same_shards: int
    rows: int
    keys: int
    findings: int

    @property
    def good(self) -> bool:
        """Whether all events happened, and every photo is there once, with the calm run's bytes."""
        fired, _, asked = self.events.partition(" of ")
        counts = (self.same_shards, self.rows, self.keys, self.findings)
        return fired == asked and counts == (SHARDS, PHOTOS, PHOTOS, 0)


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


def judge(mode: str, out: Path, calm: Path, disturber: Disturber, events: int) -> Result:
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
        events=f"{len(disturber.events)} of {events}",
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
        "| mode | seconds | events | jobs at the end | starts again | shards equal | rows |"
        " photos | findings of verify | passed |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in results:
        lines.append(
            f"| {r.mode} | {r.seconds:.0f} | {r.events} | {r.states} | {r.restarts} |"
            f" {r.same_shards} of {SHARDS} | {r.rows} | {r.keys} | {r.findings} |"
            f" {'yes' if r.good else 'NO'} |"
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
    # One thread as in the jobs: the number of threads changes the last bits of sums.
    inherited = {**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
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
            chance = random.Random(f"{seed} {mode}")
            disturber = Disturber(cluster, job, mode, out, PHOTOS, chance)
            disturber.run(events)
            log += disturber.events
            if calm.wait() != 0:
                raise RuntimeError("the undisturbed run failed")
            results.append(judge(mode, out, work / "calm", disturber, events))
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
