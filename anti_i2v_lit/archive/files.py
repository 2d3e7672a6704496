"""Files that are either whole or absent: temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path

from anti_i2v_lit.tars import TEMPORARY_SUFFIX

STATE_FOLDER = ".anti_i2v"
_BLOCK_BYTES = 1 << 16


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a kill at any moment, sees the old or the new bytes.

    The temporary file lies in the same folder (a rename is atomic inside one file system only)
    and its name does not grow with the target's, which may already be 255 bytes long.

    Raises:
        OSError: disk full, no permission; the target is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and new names inside a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clean_temporaries(folder: Path) -> int:
    """Remove what killed runs left half-written below `folder`; return how many files.

    Only for the holder of the folder's lock: a running writer's temporary looks the same.
    """
    removed = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            if name.startswith(".") and name.endswith(TEMPORARY_SUFFIX):
                Path(parent, name).unlink(missing_ok=True)
                removed += 1
    return removed


def drop_torn_line(descriptor: int) -> None:
    """Cut a file of lines after its last newline, which is looked for block by block.

    Only for the holder of the file's lock: the torn line may be one that is being written.
    """
    size = end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - _BLOCK_BYTES)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits, read in pieces.

    Raises:
        OSError: missing or unreadable file.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
