"""First frames of clips as photos: what an image-to-video attack on a clip starts from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from anti_i2v_lit.data.shards.frames import FrameConfig, FrameReader

SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})


def write_first_frames(clips: Sequence[Path], folder: Path) -> Path:
    """Write the first frame of each clip as PNG; those that exist are kept.

    Args:
        clips: video files, and folders that are searched for them.
        folder: where `<parent folder>_<name>.png` go.

    Returns:
        `folder`.

    Raises:
        ValueError: no clip, two that would get one name, or one that cannot be decoded.
    """
    reader = FrameReader(FrameConfig(require_face=False, search_frames=1, encoding="png"))
    names: dict[str, Path] = {}
    for path in _files(clips):
        name = f"{path.resolve().parent.name}_{path.stem}.png"
        if name in names:
            raise ValueError(f"{names[name]} and {path} would both become {name}; rename one")
        names[name] = path
    if not names:
        raise ValueError(
            f"--clips: no video among {', '.join(map(str, clips))}; known: {sorted(SUFFIXES)}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in names.items():
        if not (folder / name).is_file():
            try:
                (frame,) = reader.read(path)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            partial = folder / f"{name}.partial"
            partial.write_bytes(frame.photo)
            os.replace(partial, folder / name)
    return folder


def _files(clips: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in clips:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        elif path.is_file():
            found.append(path)
        else:
            raise ValueError(f"--clips: {path} does not exist")
    return found
