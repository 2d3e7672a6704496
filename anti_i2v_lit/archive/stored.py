"""Rows that stay in the manifest: only where each one lies is in memory."""

from __future__ import annotations

import json
from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from pathlib import Path
from typing import BinaryIO

from anti_i2v_lit.archive.row import Row, decode_row


class StoredRows(Mapping[str, Row]):
    """Key -> last row of that key, in order of first appearance; decoded when asked for.

    A row takes about 1.4 kB as an object and 0.25 kB here. Lines that are added later are not seen.
    Reading all rows through `values` or `items` opens the manifest once.

    Args:
        path: the manifest, which only grows.
        offsets: key -> where its last line begins, bytes.
    """

    def __init__(self, path: Path, offsets: Mapping[str, int]) -> None:
        self._path, self._offsets = path, offsets

    def __getitem__(self, key: str) -> Row:
        """Read one row.

        Raises:
            KeyError: no such photo.
            ValueError: the line is not what it was.
        """
        offset = self._offsets[key]
        with self._path.open("rb") as stream:
            return self._read(stream, key, offset)

    def __contains__(self, key: object) -> bool:
        return key in self._offsets

    def __iter__(self) -> Iterator[str]:
        return iter(self._offsets)

    def __len__(self) -> int:
        return len(self._offsets)

    def values(self) -> ValuesView[Row]:
        """All rows, read one after the other."""
        return _Values(self)

    def items(self) -> ItemsView[str, Row]:
        """All (key, row) pairs, read one after the other."""
        return _Items(self)

    def pairs(self) -> Iterator[tuple[str, Row]]:
        """What `items` iterates over."""
        if not self._offsets:
            return
        with self._path.open("rb") as stream:
            for key, offset in self._offsets.items():
                yield key, self._read(stream, key, offset)

    def cloaks(self) -> Iterator[tuple[str, str]]:
        """(key, output) of the cloaked photos, without making rows: the ledger has checked them."""
        if not self._offsets:
            return
        with self._path.open("rb") as stream:
            for key, offset in self._offsets.items():
                stream.seek(offset)
                known = json.loads(stream.readline())
                self._check(known["key"], key)
                if known["status"] == "cloaked":
                    yield key, known["output"]

    def _read(self, stream: BinaryIO, key: str, offset: int) -> Row:
        stream.seek(offset)
        row = decode_row(stream.readline())
        self._check(row.key, key)
        return row

    def _check(self, found: str, key: str) -> None:
        if found != key:
            raise ValueError(f"{self._path} was replaced while it was read; run again")


class _Values(ValuesView[Row]):
    _mapping: StoredRows

    def __iter__(self) -> Iterator[Row]:
        return (row for _, row in self._mapping.pairs())


class _Items(ItemsView[str, Row]):
    _mapping: StoredRows

    def __iter__(self) -> Iterator[tuple[str, Row]]:
        return self._mapping.pairs()
