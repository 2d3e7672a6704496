"""Efficiency of photos in parallel: one process on a core against two on two cores.

`python -m anti_i2v_lit.bench.parallel` cloaks the same number of photos per process, with every
process pinned to a core of its own, and prints the table of docs/sharding.md. What counts is the
rate between a process's first and last photo, so loading is left out. Cores that share memory and
caches are slower side by side whatever runs on them, so two runs that know nothing of each other
are timed too: what they lose is the machine's, the rest is the strategy's. Run it on a machine
that does nothing else; it says how busy the machine was.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anti_i2v_lit.archive.paths import logs_folder
from anti_i2v_lit.bench.subjects import write_photos

SIDE_PX = 512
GOAL = 0.95
# Runs at the start of every interpreter that has the folder in its PYTHONPATH: Lightning starts
# the second process itself, and tells it its rank only.
_PIN = """import os
cores = [int(core) for core in os.environ["BENCH_CORES"].split(",")]
os.sched_setaffinity(0, {cores[int(os.environ.get("LOCAL_RANK", "0"))]})
"""


@dataclass(frozen=True, kw_only=True)
class Round:
    """Photos per hour of each process: alone, in runs of their own side by side, in one run."""

    alone: float
    apart: tuple[float, ...]
    together: tuple[float, ...]

    @property
    def efficiency(self) -> float:
        """Photos per hour of all processes over as many times that of one alone."""
        return sum(self.together) / (len(self.together) * self.alone)

    @property
    def against_apart(self) -> float:
        """Photos per hour of one run of several processes over those of as many separate runs."""
        return sum(self.together) / sum(self.apart)


def steady_rate(metrics: Path) -> float:
    """Photos per hour between the first and the last photo of a rank, by its CSV file.

    Raises:
        ValueError: fewer than two photos were cloaked.
    """
    with metrics.open(newline="", encoding="utf-8") as stream:
        times = [
            datetime.datetime.fromisoformat(row["time"]).timestamp()
            for row in csv.DictReader(stream)
            if row["event"] == "cloaked"
        ]
    if len(times) < 2:
        raise ValueError(f"{metrics}: a rate needs two photos, {len(times)} were cloaked")
    return 3600 * (len(times) - 1) / (times[-1] - times[0])


def pinned(folder: Path, cores: Sequence[int]) -> dict[str, str]:
    """Environment of programs whose process of rank I runs on the I-th core alone.

    Args:
        folder: a new one, for what pins them.
        cores: numbers of cores.
    """
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(_PIN, encoding="utf-8")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
        "BENCH_CORES": ",".join(map(str, cores)),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }


def rates(work: Path, cores: Sequence[int], photos_each: int, words: Sequence[str]) -> list[float]:
    """Cloak with one process per core; photos per hour of each.

    Raises:
        ValueError: the run failed.
    """
    return finished(work, started(work, cores, photos_each, words))


def rates_apart(
    work: Path, cores: Sequence[int], photos_each: int, words: Sequence[str]
) -> list[float]:
    """Cloak with one run of one process per core, all at once; photos per hour of each.

    Raises:
        ValueError: a run failed.
    """
    folders = [work / str(core) for core in cores]
    runs = [
        started(folder, [core], photos_each, words)
        for folder, core in zip(folders, cores, strict=True)
    ]
    return [
        rate for folder, run in zip(folders, runs, strict=True) for rate in finished(folder, run)
    ]


def started(
    work: Path, cores: Sequence[int], photos_each: int, words: Sequence[str]
) -> subprocess.Popen[bytes]:
    """A run with one process per core in a new folder."""
    environment = pinned(work / "pin", cores)
    write_photos(work / "photos", photos_each * len(cores), SIDE_PX)
    program = [sys.executable, "-m", "anti_i2v_lit", "cloak", str(work / "photos")]
    program += ["--out", str(work / "out"), "trainer.accelerator=cpu"]
    program += [f"trainer.devices={len(cores)}", *words]
    with (work / "log").open("wb") as stream:
        return subprocess.Popen(program, env=environment, stdout=stream, stderr=stream)


def finished(work: Path, run: subprocess.Popen[bytes]) -> list[float]:
    """Photos per hour of each process of a run, once it has ended.

    Raises:
        ValueError: it failed.
    """
    if (code := run.wait()) != 0:
        text = (work / "log").read_text()
        raise ValueError(f"the run in {work} ended with {code}:\n{text[-2000:]}")
    files = sorted(logs_folder(work / "out").glob("*/rank-*/metrics.csv"))
    return [steady_rate(file) for file in files]


def table(rounds: Sequence[Round], busy: float) -> str:
    """Markdown, with the median efficiency."""
    lines = [
        "| round | one alone, photos/h | two separate runs | one run of two | of twice one alone"
    ]
    lines[0] += " | of the separate runs |"
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for number, found in enumerate(rounds, start=1):
        apart, each = (
            " and ".join(f"{rate:.1f}" for rate in rates) for rates in (found.apart, found.together)
        )
        lines.append(
            f"| {number} | {found.alone:.1f} | {apart} | {each} | {found.efficiency:.1%} |"
            f" {found.against_apart:.1%} |"
        )
    for name, values in (
        ("Of twice one alone", [found.efficiency for found in rounds]),
        ("Of the separate runs", [found.against_apart for found in rounds]),
    ):
        median = statistics.median(values)
        verdict = "reached" if median >= GOAL else "missed"
        lines += ["", f"{name}: median {median:.1%}; the goal of {GOAL:.0%} is {verdict}."]
    lines.append(f"Load of the machine before the first round: {busy:.2f}.")
    return "\n".join(lines)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("overrides", nargs="*", metavar="section.field=value", help="settings")
    parser.add_argument("--photos", type=int, default=6, help="photos per process")
    parser.add_argument("--steps", type=int, default=20, help="sign steps per photo")
    parser.add_argument("--rounds", type=int, default=2, help="times that both are run")
    parser.add_argument("--cores", default="0,1", help="cores of the two processes")
    given = parser.parse_args()
    cores = [int(core) for core in given.cores.split(",")]
    busy = os.getloadavg()[0]
    if busy > 0.5:
        print(f"the machine is busy (load {busy:.1f}): the result will say little", file=sys.stderr)
    words, found = [f"attack.steps={given.steps}", *given.overrides], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.rounds):
            work = Path(folder) / str(number)
            (alone,) = rates(work / "one", cores[:1], given.photos, words)
            apart = tuple(rates_apart(work / "apart", cores, given.photos, words))
            together = tuple(rates(work / "two", cores, given.photos, words))
            found.append(Round(alone=alone, apart=apart, together=together))
    print(table(found, busy))


if __name__ == "__main__":
    main()
