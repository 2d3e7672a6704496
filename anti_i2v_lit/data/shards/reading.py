"""Tar shards in WebDataset's layout: which photos they hold, and their bytes, without unpacking.

Local uncompressed tars are read at any place. Pipes, URLs and compressed tars are opened by
webdataset and read forward, one at a time; reading backwards opens them again.
"""

from __future__ import annotations

import contextlib
import json
import re
import tarfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, final

from webdataset.gopen import gopen
from webdataset.shardlists import expand_urls

from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.tars import DamagedTar, StrictHeader, plain_members

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
_SCHEME = re.compile(r"^(pipe:|[a-z][a-z0-9+.-]*://)", re.IGNORECASE)
_TAR_NAME = re.compile(r"([^/\s'\"?&=:]+?)\.(?:tar(?:\.\w+)?|tgz)(?![\w.])", re.IGNORECASE)
# tarfile, gzip and webdataset's pipes answer with these when the data is not what it should be.
_READ_ERRORS = (tarfile.TarError, DamagedTar, OSError, EOFError, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A member of a tar: its name, where its content begins, and its size in bytes."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Member(Entry):
    """A member as it stands in the tar: a file, a folder, or something else (a link, a device)."""

    is_file: bool
    is_folder: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSample:
    """One sample of a shard.

    Attributes:
        shard: where it lies.
        photo: the photo's member.
        text: the caption's member, if there is one.
        facts: the JSON member, if there is one; its "caption" counts where `text` is missing.
    """

    shard: Shard
    photo: Entry
    text: Entry | None = None
    facts: Entry | None = None

    def load(self) -> tuple[bytes, str]:
        """Read the photo's bytes and the caption ("" if there is none).

        Raises:
            PhotoFailure: the shard cannot be read there any more, or the caption is no text.
        """
        words = self.text or self.facts
        wanted = sorted((e for e in (self.photo, words) if e), key=lambda e: e.offset)
        found = dict(zip(wanted, self.shard.read(wanted), strict=True))
        return found[self.photo], "" if words is None else self._read(words, found[words])

    def caption(self) -> str:
        """Read the caption alone; errors as `load`."""
        words = self.text or self.facts
        if words is None:
            return ""
        (found,) = self.shard.read([words])
        return self._read(words, found)

    def _read(self, words: Entry, found: bytes) -> str:
        try:
            text = found.decode()
            return text.strip() if self.text else _caption(text)
        except ValueError as error:
            raise PhotoFailure(f"{words.name} in the shard cannot be read: {error}") from error


def _caption(text: str) -> str:
    facts = json.loads(text)
    caption = facts.get("caption", "") if isinstance(facts, dict) else ""
    return caption.strip() if isinstance(caption, str) else ""


class OpenTar:
    """A tar that is read forward; closing it closes its source.

    Args:
        source: where its bytes come from.
        mode: "r:" for a file, "r|*" for a stream, compressed or not.

    Raises:
        tarfile.TarError, DamagedTar: not a tar.
    """

    def __init__(self, source: IO[bytes], mode: str) -> None:
        self._source = source
        try:
            self._archive = tarfile.open(  # type: ignore[call-overload]  # noqa: SIM115
                fileobj=source, mode=mode, tarinfo=StrictHeader
            )
        except BaseException:
            self._close_source()
            raise

    def headers(self) -> Iterator[tarfile.TarInfo]:
        """The headers that are left; keeps none of them."""
        while (header := self._archive.next()) is not None:
            self._archive.members = []
            yield header

    def content(self, header: tarfile.TarInfo) -> bytes:
        """Bytes of the regular member whose header came last."""
        stream = self._archive.extractfile(header)
        assert stream is not None
        return stream.read()

    def close(self) -> None:
        """Close it; a pipe that is left early may complain about that, which says nothing."""
        self._archive.close()
        self._close_source()

    def _close_source(self) -> None:
        with contextlib.suppress(OSError):
            self._source.close()


class Shard(ABC):
    """A tar of samples.

    Args:
        url: path, pipe or URL, as webdataset takes it.
    """

    def __init__(self, url: str) -> None:
        self.url, self.name = url, shard_name(url)

    @final
    def members(self) -> Iterator[Member]:
        """All members, in order.

        Raises:
            DamagedTar: it cannot be opened or read on; what came before is right.
        """
        try:
            plain = self._plain_members()
            if plain is not None:
                for name, offset, size in plain:
                    yield Member(name=name, offset=offset, size=size, is_file=True, is_folder=False)
                return
            with contextlib.closing(self._opened()) as archive:
                for header in archive.headers():
                    yield Member(
                        name=header.name,
                        offset=header.offset_data,
                        size=header.size,
                        is_file=header.isreg() and not header.issparse(),
                        is_folder=header.isdir(),
                    )
        except _READ_ERRORS as error:
            raise DamagedTar(str(error)) from error

    def _plain_members(self) -> list[tuple[str, int, int]] | None:
        """Name, offset and size of all members, where there is a fast way to them."""
        return None

    @abstractmethod
    def _opened(self) -> OpenTar:
        """The archive at its first header."""

    @abstractmethod
    def read(self, entries: Sequence[Entry]) -> list[bytes]:
        """Contents of members, asked for in the order of their offsets.

        Raises:
            PhotoFailure: they cannot be read, or the shard is not what it was when it was listed.
        """


@final
class FileShard(Shard):
    """An uncompressed tar on a disk."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.path = Path(url)
        self._state = self._now()

    def _opened(self) -> OpenTar:
        return OpenTar(self.path.open("rb"), "r:")

    def _plain_members(self) -> list[tuple[str, int, int]] | None:
        return plain_members(self.path)

    def read(self, entries: Sequence[Entry]) -> list[bytes]:
        """See `Shard.read`."""
        found = []
        try:
            if self._now() != self._state:
                raise PhotoFailure(f"the shard {self.url} was changed during the run; run again")
            with self.path.open("rb") as stream:
                for entry in entries:
                    stream.seek(entry.offset)
                    found.append(stream.read(entry.size))
        except OSError as error:
            raise PhotoFailure(f"the shard cannot be read: {error.strerror or error}") from error
        if any(len(data) < e.size for data, e in zip(found, entries, strict=True)):
            raise PhotoFailure("the shard is cut off inside this sample")
        return found

    def _now(self) -> tuple[int, int]:
        state = self.path.stat()
        return state.st_size, state.st_mtime_ns


class ForwardReader:
    """At most one open pipe or URL, shared by the shards of a run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._url = ""
        self._archive: OpenTar | None = None
        self._position = 0

    def __getstate__(self) -> dict[str, Any]:
        """Another process opens its own."""
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start without an open stream."""
        del state
        self.__init__()  # type: ignore[misc]

    def read(self, url: str, entries: Sequence[Entry]) -> list[bytes]:
        """Contents of members, in the order of their offsets.

        Raises:
            DamagedTar, OSError, tarfile.TarError: not readable, or without these members.
        """
        with self._lock:
            try:
                return [self._content(url, entry) for entry in entries]
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Close the stream, if one is open."""
        if self._archive is not None:
            self._archive.close()
        self._archive, self._url, self._position = None, "", 0

    def _content(self, url: str, entry: Entry) -> bytes:
        if self._archive is None or self._url != url or entry.offset < self._position:
            self.close()
            self._archive, self._url = OpenTar(gopen(url), "r|*"), url
        for header in self._archive.headers():
            self._position = header.offset_data + header.size
            if header.offset_data >= entry.offset:
                found = Entry(name=header.name, offset=header.offset_data, size=header.size)
                if found != entry or not header.isreg():
                    break
                content = self._archive.content(header)
                if len(content) < entry.size:
                    raise DamagedTar("it is cut off inside this sample")
                return content
        raise DamagedTar("it is not what it was when it was listed; run again")


@final
class StreamShard(Shard):
    """A pipe, a URL or a compressed tar."""

    def __init__(self, url: str, reader: ForwardReader) -> None:
        super().__init__(url)
        self._reader = reader

    def _opened(self) -> OpenTar:
        return OpenTar(gopen(self.url), "r|*")

    def read(self, entries: Sequence[Entry]) -> list[bytes]:
        """See `Shard.read`."""
        try:
            return self._reader.read(self.url, entries)
        except _READ_ERRORS as error:
            raise PhotoFailure(f"the shard cannot be read: {error}") from error


def is_shard(word: str) -> bool:
    """Whether a word of the command line means shards: a pipe, a URL or the name of a tar."""
    return bool(_SCHEME.match(word)) or word.lower().endswith(TAR_SUFFIXES)


def expand_shards(word: str) -> list[str]:
    """Braces, `::` and ${WDS_...} variables, as webdataset takes them.

    Raises:
        ValueError: a variable that is not set, or unbalanced braces.
    """
    try:
        return [str(url) for url in expand_urls(word)]
    except (AssertionError, ValueError) as error:
        raise ValueError(f"{word}: {error}") from error


def shard_name(url: str) -> str:
    """The name of a shard without folders and suffix; the last tar that a pipe mentions.

    Raises:
        ValueError: a pipe or URL that mentions no tar, so that its cloaks would have no name.
    """
    found = [name for name in _TAR_NAME.findall(url) if not name.startswith(".")]
    if not found:
        raise ValueError(
            f"{url}: no name ending in .tar in it, so its cloaks would have no name; "
            "add one, such as a comment: 'pipe:... # portraits-000000.tar'"
        )
    return str(found[-1])


def open_shard(url: str, reader: ForwardReader) -> Shard:
    """The shard behind a path, pipe or URL.

    Raises:
        ValueError: no such file, or no name for it.
    """
    if _SCHEME.match(url):
        return StreamShard(url, reader)
    if not Path(url).is_file():
        raise ValueError(f"no such shard: {url}")
    return FileShard(url) if url.lower().endswith(".tar") else StreamShard(url, reader)
