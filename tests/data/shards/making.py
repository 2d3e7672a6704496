"""Tars for tests, written with the standard library alone, good and bad."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from PIL import Image
from skimage import data as pictures


def photo_bytes(number: int, format: str = "PNG", size: tuple[int, int] = (40, 32)) -> bytes:
    """A small crop of the astronaut; another one for each number."""
    left = 8 * (number % 24)
    whole = Image.fromarray(pictures.astronaut())
    stream = io.BytesIO()
    whole.crop((left, left, left + 200, left + 160)).resize(size).save(stream, format, quality=90)
    return stream.getvalue()


def write(path: Path, members: list[tuple[str, bytes] | tarfile.TarInfo]) -> Path:
    """A tar of (name, content) pairs and ready headers."""
    with tarfile.open(path, "w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            header = tarfile.TarInfo(member[0])
            header.size = len(member[1])
            archive.addfile(header, io.BytesIO(member[1]))
    return path


def header(name: str, kind: bytes, target: str = "", size: int = 0) -> tarfile.TarInfo:
    """A header without content, such as a link."""
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.size = kind, target, size
    return found


def samples(count: int, start: int = 0) -> list[tuple[str, bytes] | tarfile.TarInfo]:
    """`count` samples of a photo (PNG, every third a JPEG) and a caption."""
    found: list[tuple[str, bytes] | tarfile.TarInfo] = []
    for number in range(start, start + count):
        suffix, format = ("jpg", "JPEG") if number % 3 == 2 else ("png", "PNG")
        found.append((f"{number:06d}.{suffix}", photo_bytes(number, format)))
        found.append((f"{number:06d}.txt", f"caption {number}".encode()))
    return found


def unpack(path: Path) -> dict[str, bytes]:
    """Name -> content of a tar, read by the standard library."""
    with tarfile.open(path) as archive:
        found = {}
        for member in archive.getmembers():
            stream = archive.extractfile(member)
            assert stream is not None
            found[member.name] = stream.read()
        return found
