"""A CSV file that a kill leaves readable: whole lines, each added by one write."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path


class MetricsFile:
    """Appends rows; a header comes first.

    A line is handed to the system whole, so a kill of the program loses none that was added and
    leaves none half. It is not forced to the disk: after a power cut the last ones may be missing.

    Args:
        path: the file; its folder is made. One that is there must have the same columns.
        columns: names of the columns.

    Raises:
        ValueError: it is there with other columns.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._columns = tuple(columns)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        header = _line(self._columns)
        found = os.pread(self._descriptor, len(header), 0)
        if not found:
            os.write(self._descriptor, header)
        elif found != header:
            os.close(self._descriptor)
            raise ValueError(f"{path} has other columns than {', '.join(self._columns)}")
        elif not path.read_bytes().endswith(b"\n"):
            os.write(self._descriptor, b"\n")  # a line that a full disk cut off

    def add(self, row: Mapping[str, object]) -> None:
        """Add a line; columns that are not named stay empty.

        Raises:
            ValueError: unknown column.
            OSError: disk full and the like.
        """
        unknown = row.keys() - set(self._columns)
        if unknown:
            raise ValueError(f"no such column: {', '.join(sorted(unknown))}")
        os.write(self._descriptor, _line([_text(row.get(name)) for name in self._columns]))

    def close(self) -> None:
        """Close the file; nothing can be added after that."""
        os.close(self._descriptor)


def _line(values: Sequence[str]) -> bytes:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(values)
    return stream.getvalue().encode(errors="backslashreplace")


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else str(value)
    return str(value).replace("\n", " ").replace("\r", " ")
