"""How much memory this process may still take, cgroup limits of batch systems included."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterator
from pathlib import Path

_FRESH_SECONDS = 0.2  # asking costs more than reading a small photo


def available_memory_bytes() -> int | None:
    """Memory that can be had without swapping or being killed; None where nobody says.

    The smallest of the system's free memory and every enclosing cgroup (v1 and v2) counts:
    SLURM and containers set their limits there. The answer may be a fifth of a second old.
    """
    return _free_at(int(time.monotonic() / _FRESH_SECONDS))


@functools.lru_cache(maxsize=1)
def _free_at(moment: int) -> int | None:
    del moment  # tells one answer from the next
    limits = [free for free in (_system_free(), *_cgroup_free()) if free is not None]
    return max(min(limits), 0) if limits else None


def _system_free() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _cgroup_free() -> Iterator[int | None]:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if not controllers:
            yield from _chain(Path("/sys/fs/cgroup"), name, "memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            yield from _chain(Path("/sys/fs/cgroup/memory"), name, *names)


def _chain(root: Path, name: str, limit: str, used: str) -> Iterator[int | None]:
    """Free bytes of a cgroup and of every cgroup around it."""
    relative = name.strip("/")
    current = root / relative
    while True:
        yield _difference(current / limit, current / used, current / "memory.stat")
        if current == root or root not in current.parents:
            return
        current = current.parent


def _difference(limit: Path, used: Path, stat: Path) -> int | None:
    try:
        text = limit.read_text().strip()
        if text == "max":
            return None
        return int(text) - int(used.read_text()) + _reclaimable(stat)
    except (OSError, ValueError):
        return None


def _reclaimable(stat: Path) -> int:
    """File cache counts as used but is given up under pressure."""
    for line in stat.read_text().splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0
