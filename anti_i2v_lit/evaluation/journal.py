"""Append-only JSON lines in one folder, written by any number of processes, one file each.

A process appends to a file that it holds by a lock and reads all of them, so a line torn by a kill
is cut off by nobody but the next holder of its file.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from anti_i2v_lit.archive.files import drop_torn_line
from anti_i2v_lit.archive.lock import try_lock


class NotWritten(OSError):
    """The folder takes no more data (full, over quota, read-only, gone): no photo's own fault."""


class Journal:
    """Lines `name.jsonl`, `name-1.jsonl`, `name-2.jsonl` ... of a folder.

    The first process that writes takes the first file, a second one at the same time the next.

    Args:
        folder: made on the first write.
        name: stem of the files.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._descriptor: int | None = None
        self._read: dict[Path, tuple[int, int]] = {}

    def new_lines(self) -> Iterator[tuple[Path, int, str]]:
        """(file, number, text) of all whole lines that were not read before, file by file."""
        paths = self._folder.glob(f"{self._name}*.jsonl")
        for path in sorted(p for p in paths if self._is_part(p)):
            offset, count = self._read.get(path, (0, 0))
            with path.open("rb") as stream:
                stream.seek(offset)
                added = stream.read()
            whole = added[: added.rfind(b"\n") + 1]
            lines = whole.decode().split("\n")[:-1]
            self._read[path] = (offset + len(whole), count + len(lines))
            for number, line in enumerate(lines, start=count + 1):
                yield path, number, line

    def append(self, items: Sequence[Any]) -> None:
        """Write JSON lines and wait until they are on the disk.

        Of lines that cannot be written a torn half is cut off again, so that the next ones are
        read. Whole ones before it stay: another process may have read them.

        Raises:
            ValueError: not plain data, or a number that strict JSON lacks.
            NotWritten: the file takes no more data.
        """
        texts = [json.dumps(item, sort_keys=True, allow_nan=False) + "\n" for item in items]
        data = "".join(texts).encode()
        try:
            if self._descriptor is None:
                self._descriptor = self._held()
            while data:
                data = data[os.write(self._descriptor, data) :]
            os.fsync(self._descriptor)
        except OSError as error:
            if self._descriptor is not None:
                with contextlib.suppress(OSError):  # then the file's next holder cuts it
                    drop_torn_line(self._descriptor)
            self.close()
            where = self._folder / self._name
            raise NotWritten(error.errno, error.strerror, f"{where}*.jsonl") from error

    def close(self) -> None:
        """Give the file back; the next write takes one again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.close()

    def _is_part(self, path: Path) -> bool:
        rest = path.stem.removeprefix(self._name)
        return not rest or (rest[0] == "-" and rest[1:].isdigit())

    def _held(self) -> int:
        """The first file that no living process holds, without a torn last line."""
        self._folder.mkdir(parents=True, exist_ok=True)
        number = 0
        while True:
            name = f"{self._name}-{number}.jsonl" if number else f"{self._name}.jsonl"
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
            descriptor = os.open(self._folder / name, flags, 0o644)
            if try_lock(descriptor, fcntl.LOCK_EX):
                drop_torn_line(descriptor)
                return descriptor
            os.close(descriptor)
            number += 1
