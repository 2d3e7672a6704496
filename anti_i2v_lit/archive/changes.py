"""Originals that are not (or may not be) what the manifest says was cloaked."""

from __future__ import annotations

import datetime
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from anti_i2v_lit.archive.row import Row
from anti_i2v_lit.tars import holder, open_path, path_exists


def possibly_changed(rows: Mapping[str, Row], sources: Mapping[str, Path]) -> set[str]:
    """Keys of cloaked photos whose originals must be read again: changed since, or moved.

    Costs one `stat` per photo; contents are read only where an original lies at another path
    than the recorded one while that one still exists.

    Args:
        rows: key -> last row.
        sources: key -> where the photo is now; the path may lead through a tar.

    Raises:
        ValueError: two different photos want one name in the output folder.
    """
    found = set()
    for key, path in sources.items():
        row = rows.get(key)
        if row is None or row.status != "cloaked":
            continue
        if row.source and row.source != str(path):
            _check_not_another(row, path)
            found.add(key)
        elif _is_changed(path, row):
            found.add(key)
    return found


def mtime_ns(path: Path) -> int | None:
    """When a file, or the tar that a path leads through, was last changed, ns since 1970.

    None if it cannot be asked.
    """
    try:
        place = holder(path)
        return (place[0] if place else path).stat().st_mtime_ns
    except (OSError, ValueError):
        return None


def _is_changed(path: Path, row: Row) -> bool:
    """Whether a file is another than the row's, by its time; another may be older as well."""
    changed = mtime_ns(path)
    if changed is None:
        return True
    if row.source_mtime_ns is not None:
        return changed != row.source_mtime_ns
    try:
        recorded = datetime.datetime.fromisoformat(row.recorded).timestamp()
    except ValueError:
        return True
    return changed > recorded * 1e9


def _check_not_another(row: Row, path: Path) -> None:
    earlier = Path(row.source)
    if not path_exists(earlier) or _same_place(earlier, path):
        return
    with open_path(path) as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() == row.source_sha256:
            return
    raise ValueError(
        f"{path} would be written as {row.key}, which is the cloak of {earlier}; "
        "give another --out, or name both folders in one command"
    )


def _same_place(one: Path, other: Path) -> bool:
    """Whether two existing paths, perhaps through tars, lead to the same photo."""
    first, second = holder(one), holder(other)
    if first is None or second is None:
        return first is second and os.path.samefile(one, other)
    return first[1] == second[1] and os.path.samefile(first[0], second[0])
