"""Tar files: the same members give the same bytes, and members are read without unpacking.

A path may lead through a tar, as in `shards/portraits-000003.tar/000017.jpg`.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import tarfile
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

TEMPORARY_SUFFIX = ".anti_i2v_tmp"
# Names and attributes before a member; a larger one is an attack on the reader's memory.
_MAX_HEADER_BYTES = 1 << 20
_LONG_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_BLOCK = tarfile.BLOCKSIZE
_END = bytes(_BLOCK)
_REGULAR = (b"0", b"\0")
_LISTINGS = 64


class DamagedTar(ValueError):
    """A tar that cannot be read any further; the message says why."""


class StrictHeader(tarfile.TarInfo):
    """A header that does not end the archive in silence when it is damaged.

    The standard reader takes a damaged header, or none, for the end of the archive. The proper
    end is a block of zeros.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> StrictHeader:
        """Parse one block.

        Raises:
            DamagedTar: the block is cut off or no header.
        """
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            what = "it ends without the end mark" if not buf else str(error)
            raise DamagedTar(what) from error

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.type in _LONG_HEADERS and self.size > _MAX_HEADER_BYTES:
            raise DamagedTar(f"a header of {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


@dataclass(frozen=True, kw_only=True)
class TarDigest:
    """What was written: size in bytes, SHA-256 (hex) and number of members."""

    size_bytes: int
    sha256: str
    members: int


class _HashingStream:
    """Passes bytes on and keeps their digest."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.state, self.size_bytes = stream, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.state.update(data)
        self.size_bytes += len(data)
        return self._stream.write(data)


def write_tar(
    path: Path, members: Iterable[tuple[str, bytes]], permissions: int | None = None
) -> TarDigest:
    """Write (name, content) pairs, in their order, as a tar that is whole or absent.

    Times, owners and modes are fixed, so that equal members give equal bytes. One member is in
    memory at a time.

    Args:
        path: the tar.
        members: what it will hold.
        permissions: of the file; None: those of the process.

    Raises:
        OSError: disk full, no permission; `path` is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"
    count = 0
    try:
        with temporary.open("xb") as stream:
            if permissions is not None:
                with suppress(OSError):  # file systems without permissions
                    temporary.chmod(permissions)
            hashing = _HashingStream(stream)
            with tarfile.open(fileobj=hashing, mode="w|", format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
                for name, content in members:
                    header = tarfile.TarInfo(name)
                    header.size = len(content)
                    archive.addfile(header, io.BytesIO(content))
                    archive.members = []
                    count += 1
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)
    return TarDigest(size_bytes=hashing.size_bytes, sha256=hashing.state.hexdigest(), members=count)


def list_tar(path: Path) -> Mapping[str, tuple[int, int]]:
    """Name -> (offset, size) of the regular members of an uncompressed tar; the last of a name.

    Listings are kept while the file stays the same.

    Raises:
        DamagedTar: not a tar, or a damaged one.
        OSError: missing or unreadable file.
    """
    state = path.stat()
    return _listing(str(path), state.st_size, state.st_mtime_ns, state.st_ino)


@functools.lru_cache(maxsize=_LISTINGS)
def _listing(path: str, size: int, mtime_ns: int, inode: int) -> Mapping[str, tuple[int, int]]:
    del size, mtime_ns, inode  # they tell one state of the file from another
    plain = plain_members(Path(path))
    if plain is None:
        return _careful_listing(path)
    return {name: (offset, size) for name, offset, size in plain}


def plain_members(path: Path) -> list[tuple[str, int, int]] | None:
    """Name, offset and size of each member of a whole tar of plain files; None for any other tar.

    Several times faster than the standard reader, which is for all others: extended headers,
    links, names that are not ASCII, damage.

    Raises:
        OSError: missing or unreadable file.
    """
    found = []
    offset = 0
    with path.open("rb", buffering=0) as stream:
        while (block := os.pread(stream.fileno(), _BLOCK, offset)) != _END:
            member = _plain_member(block, offset + _BLOCK)
            if member is None:
                return None
            found.append(member)
            offset += _BLOCK + -(-member[2] // _BLOCK) * _BLOCK
    return found


def _plain_member(block: bytes, offset: int) -> tuple[str, int, int] | None:
    if len(block) < _BLOCK or block[156:157] not in _REGULAR or block[345:346] != b"\0":
        return None
    try:
        size, checksum = int(block[124:135], 8), int(block[148:155].strip(b"\0 "), 8)
        name = block[:100].rstrip(b"\0").decode("ascii")
    except ValueError:
        return None
    if not name or name.endswith("/") or size < 0:
        return None
    is_right = checksum == sum(block) - sum(block[148:156]) + 8 * 32
    return (name, offset, size) if is_right else None


def _careful_listing(path: str) -> dict[str, tuple[int, int]]:
    found = {}
    try:
        with tarfile.open(path, "r:", tarinfo=StrictHeader) as archive:
            for header in archive:
                if header.isreg() and not header.issparse():
                    found[header.name] = (header.offset_data, header.size)
                archive.members = []  # type: ignore[attr-defined]
    except tarfile.TarError as error:
        raise DamagedTar(str(error)) from error
    return found


def holder(path: Path) -> tuple[Path, str] | None:
    """The file that a path leads through and the rest of the path; None if there is none."""
    for parent in path.parents:
        try:
            if parent.is_file():
                return parent, path.relative_to(parent).as_posix()
            if parent.is_dir():
                return None
        except (OSError, ValueError):
            continue
    return None


def open_path(path: Path) -> io.BufferedReader | io.BytesIO:
    """Open a file, or a member of a tar that the path leads through, for reading.

    Raises:
        FileNotFoundError: there is no such file or member.
        OSError: unreadable file.
    """
    try:
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        place = holder(path)
        if place is None:
            raise FileNotFoundError(2, "no such file", str(path)) from error
    tar, name = place
    try:
        span = list_tar(tar).get(name)
    except DamagedTar as error:
        raise OSError(5, f"damaged tar: {error}", str(tar)) from error
    if span is None:
        raise FileNotFoundError(2, "no such member", str(path))
    with tar.open("rb") as stream:
        stream.seek(span[0])
        content = stream.read(span[1])
    if len(content) < span[1]:
        raise OSError(5, "the tar is cut off inside this member", str(path))
    return io.BytesIO(content)


def path_exists(path: Path) -> bool:
    """Whether `open_path` would find something."""
    if path.is_file():
        return True
    place = holder(path)
    if place is None:
        return False
    try:
        return place[1] in list_tar(place[0])
    except (DamagedTar, OSError):
        return False


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
