"""What is known about each photo and its protected files before any clip is made."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from anti_i2v_lit.data.folder import SourceFile
from anti_i2v_lit.evaluation.facts import Problem, ProtectedFile
from anti_i2v_lit.evaluation.journal import Journal
from anti_i2v_lit.evaluation.outcome_file import from_plain, to_plain


@dataclass(frozen=True, kw_only=True)
class PhotoRecord:
    """One photo, looked at.

    Attributes:
        identity: digest of the files and settings behind it.
        key: the photo's name.
        path: where it lies.
        sha256: of its bytes; "" where it cannot be read.
        size: (H, W), pixels; (0, 0) where it cannot be read.
        has_face: whether a face was found.
        files: protected files that can be compared with it.
        cloaks: protections whose file is a cloak of this photo.
        problems: what is wrong with the photo or its files.
    """

    identity: str
    key: str
    path: str
    sha256: str
    size: tuple[int, int]
    has_face: bool
    files: tuple[ProtectedFile, ...]
    cloaks: tuple[str, ...]
    problems: tuple[Problem, ...]

    def file(self, protection: str) -> ProtectedFile:
        """The protected file of a protection."""
        return next(file for file in self.files if file.protection == protection)


class RecordStore:
    """`photos.jsonl` of a folder; several processes may write at once.

    Args:
        folder: made on the first write.
    """

    def __init__(self, folder: Path) -> None:
        self._journal = Journal(folder, "photos")
        self._known: dict[str, PhotoRecord] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read what other processes have written meanwhile."""
        for path, number, line in self._journal.new_lines():
            try:
                record = from_plain(PhotoRecord, json.loads(line), "photo")
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ValueError(
                    f"{path}, line {number} is not a photo's record: {error}; delete the line"
                ) from error
            self._known[record.identity] = record

    def find(self, identity: str) -> PhotoRecord | None:
        """The record of this identity, if it was ever made."""
        return self._known.get(identity)

    def append(self, record: PhotoRecord) -> None:
        """Write a record and wait until it is on the disk."""
        self._journal.append([to_plain(record)])
        self._known[record.identity] = record


class Digests:
    """SHA-256 of files and samples of shards, each read once."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def of(self, source: SourceFile) -> str:
        """Hex digest; "" where the bytes cannot be read."""
        name = str(source.path)
        if name not in self._known:
            self._known[name] = _digest(source)
        return self._known[name]


def _digest(source: SourceFile) -> str:
    try:
        if source.sample is not None:
            return hashlib.sha256(source.sample.load()[0]).hexdigest()
        with source.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError):
        return ""
