"""Which protected file belongs to which photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from anti_i2v_lit.data.codecs import PHOTO_SUFFIXES
from anti_i2v_lit.data.folder import SourceFile


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """What a folder of protected photos holds for a list of photos.

    Attributes:
        found: photo key -> protected file.
        missing: keys without a protected file (refused, failed, or not made).
    """

    found: dict[str, Path]
    missing: tuple[str, ...]


def pair(photos: Sequence[SourceFile], folder: Path) -> Pairing:
    """Find every photo's protected file, whoever made the folder.

    Tried in this order, below `folder`: the photo's key; the key with ".png" added; the key with
    another picture suffix (tools that always write PNG).

    Raises:
        ValueError: no such folder, no photo has a protected file, or two files fit one photo.
    """
    if not folder.is_dir():
        raise ValueError(f"protected photos: expected a folder, got {folder}")
    found: dict[str, Path] = {}
    for photo in photos:
        path = _protected(photo.key, folder)
        if path is not None:
            found[photo.key] = path
    if photos and not found:
        raise ValueError(
            f"{folder} holds no protected file for any of {len(photos)} photos; looked for names "
            f"such as {photos[0].key}"
        )
    return Pairing(found=found, missing=tuple(p.key for p in photos if p.key not in found))


def _protected(key: str, folder: Path) -> Path | None:
    for name in (key, f"{key}.png"):
        if (folder / name).is_file():
            return folder / name
    stem = PurePosixPath(key).with_suffix("")
    others = [folder / f"{stem}{suffix}" for suffix in sorted(PHOTO_SUFFIXES)]
    fitting = [path for path in others if path.is_file()]
    if len(fitting) > 1:
        raise ValueError(
            f"{key} could be {' or '.join(str(p) for p in fitting)}; leave one of them"
        )
    return fitting[0] if fitting else None
