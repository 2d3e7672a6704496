"""Lists of pairs that the user writes, for folders whose names do not tell."""

from __future__ import annotations

import csv
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from anti_i2v_lit.data.codecs import PHOTO_SUFFIXES
from anti_i2v_lit.data.folder import REFUSED_SUFFIXES


def read_list(
    path: Path, photos: Collection[str], files: Collection[str]
) -> dict[str, tuple[str, str]]:
    """Pairs of a CSV file with two columns.

    Empty lines are passed over, and a first line that names no pictures, which is a heading.

    Args:
        path: of the file, UTF-8, with or without a byte order mark.
        photos: keys of the clean photos.
        files: keys of the protected files.

    Returns:
        Photo -> its protected file, and how the two were recognised as a pair.

    Raises:
        ValueError: no such file, another form, or a name that is none of them.
    """
    if not path.is_file():
        raise ValueError(f"--pairs: {path} is not a file")
    found: dict[str, tuple[str, str]] = {}
    with path.open(newline="", encoding="utf-8-sig") as stream:
        rows = [[cell.strip() for cell in cells] for cells in csv.reader(stream)]
    written = [(number, cells) for number, cells in enumerate(rows, start=1) if any(cells)]
    for place, (number, cells) in enumerate(written):
        if len(cells) != 2:
            raise ValueError(f"{path}, line {number}: expected two columns, got {cells}")
        photo, file = cells
        if photo in photos and file in files:
            found[photo] = (file, f"listed in {path.name}")
        elif place or any(map(_names_a_picture, (photo, file))):
            unknown = file if photo in photos else photo
            raise ValueError(f"{path}, line {number}: no file is called {unknown!r}")
    return found


def _names_a_picture(cell: str) -> bool:
    return PurePosixPath(cell).suffix.lower() in PHOTO_SUFFIXES | REFUSED_SUFFIXES
