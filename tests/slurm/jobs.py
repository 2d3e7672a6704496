"""Watching jobs of a local cluster."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from slurm.local_cluster import LocalCluster

PATIENCE_SECONDS = 1000.0  # only a machine that hangs takes as long
OVER = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}


def facts(cluster: LocalCluster, job: str) -> dict[str, str]:
    """What `scontrol` says of a job; the text after "=" may hold spaces only in names we skip."""
    text = cluster.run("scontrol", "-o", "show", "job", job)
    return dict(re.findall(r"(\w+)=(\S*)", text))


def states(cluster: LocalCluster, job: str) -> list[str]:
    """States of a job, one per task of an array."""
    text = cluster.run("scontrol", "-o", "show", "job", job)
    return re.findall(r"JobState=(\w+)", text)


def wait(ready: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"waited {seconds} s until {what}"
        time.sleep(0.1)


def wait_over(cluster: LocalCluster, job: str, seconds: float = PATIENCE_SECONDS) -> list[str]:
    """States of a job once it, and every task of an array, is over."""
    wait(lambda: set(states(cluster, job)) <= OVER, f"job {job} is over", seconds)
    return states(cluster, job)


def submit(cluster: LocalCluster, script: Path, *options: str) -> str:
    return cluster.run("sbatch", "--parsable", *options, str(script)).strip()
