"""Which photos belong to the whole, kept as eight bytes each: rows of others do not count.

A photo that was renamed or removed keeps its row for ever, so the number of rows says nothing.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable
from pathlib import Path

from anti_i2v_lit.archive.files import STATE_FOLDER, write_whole

_BYTES = 8


class Members:
    """Photos, as digests of their keys.

    Args:
        digests: of the keys.
    """

    def __init__(self, digests: Iterable[int]) -> None:
        self._digests = array("Q", sorted(digests))

    def __contains__(self, key: str) -> bool:
        wanted = _digest(key)
        place = bisect_left(self._digests, wanted)
        return place < len(self._digests) and self._digests[place] == wanted


def record_members(folder: Path, unit: str, keys: Collection[str]) -> None:
    """Note the photos of a unit in place of what was known of it."""
    path = _path(folder, unit)
    content = b"".join(sorted(_digest(key).to_bytes(_BYTES) for key in set(keys)))
    if not path.exists() or path.read_bytes() != content:
        write_whole(path, content)


def read_members(folder: Path, units: Iterable[str]) -> Members | None:
    """The photos of some units together; None if one of them was never noted."""
    found: list[int] = []
    for unit in units:
        try:
            content = _path(folder, unit).read_bytes()
        except FileNotFoundError:
            return None
        starts = range(0, len(content), _BYTES)
        found += (int.from_bytes(content[i : i + _BYTES]) for i in starts)
    return Members(found)


def _digest(key: str) -> int:
    text = key.encode(errors="surrogatepass")  # names of files need not be UTF-8
    return int.from_bytes(hashlib.blake2b(text, digest_size=_BYTES).digest())


def _path(folder: Path, unit: str) -> Path:
    name = hashlib.sha256(unit.encode(errors="surrogatepass")).hexdigest()[:32]
    return folder / STATE_FOLDER / "units" / f"{name}.keys"
