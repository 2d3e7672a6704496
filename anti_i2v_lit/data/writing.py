"""Writing a cloak so that a file under its final name is always whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.data.codecs import CODECS
from anti_i2v_lit.data.codecs.base import OutputConfig
from anti_i2v_lit.data.codecs.png import Chunk, encode_png
from anti_i2v_lit.data.photo import DecodedPhoto
from anti_i2v_lit.tars import holder

__all__ = [
    "OutputConfig",
    "encode_photo",
    "member_name",
    "output_names",
    "permissions_like",
    "remove_partials",
    "write_photo",
]

_PARTIAL_PREFIX, _PARTIAL_SUFFIX = ".anti-i2v-", ".partial"


def write_photo(photo: DecodedPhoto, path: Path, config: OutputConfig) -> str:
    """Write a photo: temporary name in the same folder, fsync, rename, fsync of the folder.

    Killed at any instruction, this leaves the old file, no file or the whole new file. Who may
    read the original may read the cloak: it has the original's mode, without execution, and its
    owner may always write it.

    Returns:
        SHA-256 of the written file, hex.

    Raises:
        PhotoFailure: the format cannot hold the photo, or the disk is full or not writable.
        ValueError: `path` is the original.
    """
    if path.exists() and photo.path.exists() and os.path.samefile(path, photo.path):
        raise ValueError(f"{path} is the original: choose another output folder")
    data = encode_photo(photo, config)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace_durably(path, data, permissions_like(photo.path))
    except OSError as error:
        raise PhotoFailure(f"cannot write {path}: {error.strerror or error}") from error
    return hashlib.sha256(data).hexdigest()


def encode_photo(photo: DecodedPhoto, config: OutputConfig) -> bytes:
    """The file content that `write_photo` writes; the same input gives the same bytes.

    Raises:
        PhotoFailure: the encoder refuses.
    """
    picture = photo.picture
    try:
        if config.format == "png" and picture.format != "PNG":
            return encode_png(picture, _png_metadata(photo), config.png_level)
        return CODECS.load(picture.format)().encode(picture, config)
    except PhotoFailure:
        raise
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        raise PhotoFailure(f"the {picture.format} encoder failed: {error}") from error


def output_names(keys: Sequence[str], config: OutputConfig) -> dict[str, str]:
    """Relative name of the written file for each key.

    With `format` "same" that is the key itself; with "png", "a.jpg" becomes "a.jpg.png", so that
    "a.jpg" and "a.png" stay two files.

    Raises:
        ValueError: two keys would be written to one name.
    """
    names: dict[str, str] = {}
    owners: dict[str, str] = {}
    for key in keys:
        keep = config.format == "same" or PurePosixPath(key).suffix.lower() == ".png"
        name = key if keep else f"{key}.png"
        if name in owners:
            raise ValueError(f"{owners[name]} and {key} would both be written as {name}")
        names[key], owners[name] = name, key
    return names


def member_name(key: str, config: OutputConfig) -> str:
    """Relative name of the cloak of a shard's photo: with "png", "p/a.jpg" becomes "p/a.png".

    The first dot of a member's name ends the name of its sample, which has one photo.
    """
    if config.format == "same":
        return key
    return PurePosixPath(key).with_suffix(".png").as_posix()


def permissions_like(original: Path) -> int | None:
    """Permissions for a cloak; None, the process' own, where the original cannot be asked."""
    try:
        place = holder(original)
        return ((place[0] if place else original).stat().st_mode & 0o644) | 0o600
    except (OSError, ValueError):
        return None


def remove_partials(folder: Path) -> int:
    """Delete unfinished files that killed runs left below a folder; returns how many.

    Only for a folder in which no other run is writing.
    """
    found = list(folder.rglob(f"{_PARTIAL_PREFIX}*{_PARTIAL_SUFFIX}"))
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def _replace_durably(path: Path, data: bytes, mode: int | None = None) -> None:
    # the name is short and random: long photo names have no room for an addition
    partial = path.parent / f"{_PARTIAL_PREFIX}{secrets.token_hex(8)}{_PARTIAL_SUFFIX}"
    try:
        start = 0o666 if mode is None else 0o600
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, start)
        with os.fdopen(descriptor, "wb") as file:
            if mode is not None:
                with contextlib.suppress(OSError):  # file systems without permissions
                    os.chmod(partial, mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system can do that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open folders
        return
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _png_metadata(photo: DecodedPhoto) -> list[Chunk]:
    """EXIF, XMP and ICC of another format as PNG chunks."""
    picture = photo.picture
    found: list[Chunk] = []
    if picture.icc:
        found.append((b"iCCP", b"ICC profile\x00\x00" + zlib.compress(picture.icc, 9)))
    if picture.exif:
        found.append((b"eXIf", picture.exif))
    if picture.xmp:
        found.append((b"iTXt", b"XML:com.adobe.xmp\x00\x00\x00\x00\x00" + picture.xmp))
    return found
