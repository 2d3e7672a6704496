"""Runs a program and watches its memory (Linux)."""

from __future__ import annotations

import math
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_RESIDENT = re.compile(r"VmRSS:\s+(\d+) kB")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One look at a running program.

    Attributes:
        seconds: since its start.
        rss_bytes: resident memory of all its processes.
        done: what it had done by then.
    """

    seconds: float
    rss_bytes: int
    done: int


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A program that ended.

    Attributes:
        code: exit code.
        seconds: wall time.
        cpu_seconds: processor time of all its processes.
        samples: looks at it, in order.
    """

    code: int
    seconds: float
    cpu_seconds: float
    samples: tuple[Sample, ...]


def watch(
    words: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    done: Callable[[], int],
    every_seconds: float,
    limit_seconds: float = math.inf,
) -> Watched:
    """Run a program to its end, or ask it to stop (SIGTERM) at a limit and wait for its end.

    Args:
        words: program and arguments.
        environment: its environment.
        log: gets all that it prints, after what is there.
        done: tells how much it has done.
        every_seconds: time between two looks.
        limit_seconds: wall time after which it is asked to stop.
    """
    before, started = os.times(), time.monotonic()
    samples: list[Sample] = []
    with log.open("ab") as stream:
        process = subprocess.Popen(words, env=dict(environment), stdout=stream, stderr=stream)
        while process.poll() is None:
            rss = sum(_resident(pid) for pid in _family(process.pid))
            spent = time.monotonic() - started
            samples.append(Sample(seconds=spent, rss_bytes=rss, done=done()))
            if spent >= limit_seconds:
                process.terminate()
                limit_seconds = math.inf
            try:
                process.wait(every_seconds)
            except subprocess.TimeoutExpired:
                continue
    after = os.times()
    cpu = after.children_user + after.children_system
    return Watched(
        code=process.returncode,
        seconds=time.monotonic() - started,
        cpu_seconds=cpu - before.children_user - before.children_system,
        samples=tuple(samples),
    )


def _family(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    for parent in found:
        try:
            text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
        except OSError:
            continue
        found += [int(word) for word in text.split()]
    return found


def _resident(pid: int) -> int:
    try:
        known = _RESIDENT.search(Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(known[1]) * 1024 if known else 0
