"""What a run says about itself: where it is, how fast, and how much memory it has."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import torch

from anti_i2v_lit.archive.row import STATUSES, Row

_MB = 1e6
_STATM = Path("/proc/self/statm")


class Pace:
    """Photos of this rank: how many, of how many, how fast."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(STATUSES, 0)
        self.total = 0
        self._started = time.monotonic()

    def start(self, total: int) -> None:
        """Begin to count the time.

        Args:
            total: photos that this rank has to do.
        """
        self.total, self._started = total, time.monotonic()

    def count(self, row: Row) -> None:
        """Take a row that was just written."""
        self.counts[row.status] += 1

    @property
    def done(self) -> int:
        """Photos with a row."""
        return sum(self.counts.values())

    @property
    def photos_per_hour(self) -> float:
        """Cloaked photos per hour since the start."""
        hours = (time.monotonic() - self._started) / 3600
        return self.counts["cloaked"] / hours if hours > 0 else 0.0


def host_memory_mb() -> float:
    """Resident memory of this process now (its peak where the system does not tell), MB."""
    try:
        return int(_STATM.read_text().split()[1]) * resource.getpagesize() / _MB
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MB


def gpu_memory_mb(device: torch.device) -> float | None:
    """Largest allocation on the rank's GPU so far, MB; None without a GPU."""
    if device.type != "cuda":
        return None
    return torch.cuda.max_memory_allocated(device) / _MB
