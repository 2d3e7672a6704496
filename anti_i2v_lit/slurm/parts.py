"""Shards shared among jobs: equal ranges of a list that every job makes for itself."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

import braceexpand

_PART = re.compile(r"^(\d+)/(\d+)$")
_STREAM = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:")


def list_shards(words: Sequence[str]) -> list[str]:
    """Shards that words mean: braces, `::` and globs expanded, in order of their names.

    Raises:
        ValueError: a folder or file that is no tar, or a glob that matches nothing.
    """
    found: set[str] = set()
    for word in words:
        for name in (n for part in word.split("::") for n in braceexpand.braceexpand(part)):
            matches = glob.glob(name) if glob.has_magic(name) and not Path(name).exists() else []
            if glob.has_magic(name) and not matches and not Path(name).exists():
                raise ValueError(f"nothing matches {name}")
            found.update(matches or [name])
    for name in found:
        if ".tar" not in name and not _STREAM.match(name):
            raise ValueError(
                f"{name} is no shard, and only shards can be shared among jobs: make some with "
                "`anti-i2v shard`, or use one job over several nodes"
            )
    return sorted(found)


def part_of(shards: Sequence[str], part: str) -> list[str]:
    """The shards of one part.

    Args:
        shards: all of them (`list_shards`).
        part: "I/N": the I-th (from 0) of N ranges whose lengths differ by one at most.

    Raises:
        ValueError: another notation.
    """
    match = _PART.match(part)
    if match is None or int(match[1]) >= int(match[2]):
        raise ValueError(f"--part: expected I/N with I from 0 to N-1, such as 0/8, got {part!r}")
    index, count = int(match[1]), int(match[2])
    return list(shards[index * len(shards) // count : (index + 1) * len(shards) // count])
