"""What is known about each photo and its protected files before any clip is made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from anti_i2v_lit.data.folder import SourceFile
from anti_i2v_lit.evaluation.facts import UNREADABLE, Problem, ProtectedFile
from anti_i2v_lit.evaluation.journal import Journal
from anti_i2v_lit.evaluation.outcome_file import from_plain, to_plain


@dataclass(frozen=True, kw_only=True)
class FileFigure:
    """What a further metric says of a protected file.

    Attributes:
        protection: whose file.
        name: label of the metric.
        settings: digest of the metric's settings and weights.
        value: of the figure; NaN where it is undefined.
    """

    protection: str
    name: str
    settings: str
    value: float


@dataclass(frozen=True, kw_only=True)
class PhotoRecord:
    """One photo, looked at.

    Attributes:
        identity: digest of the files and settings behind all but `person` and `figures`.
        key: the photo's name.
        path: where it lies.
        sha256: of its bytes; "" where it cannot be read.
        size: (H, W), pixels; (0, 0) where it cannot be read.
        has_face: whether a face was found.
        files: protected files that can be compared with it.
        cloaks: protections whose file is a cloak of this photo.
        problems: what is wrong with the photo or its files.
        person: face network with its digest -> vector of the main face, packed; "" where none
            was found when the network looked. Networks that were not at hand are not named.
        figures: of further metrics, whichever were ever asked for.
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
    person: dict[str, str] = field(default_factory=dict)
    figures: tuple[FileFigure, ...] = ()

    @property
    def is_readable(self) -> bool:
        """Whether the photo and all its files could be read."""
        return not any(problem.kind == UNREADABLE for problem in self.problems)

    def lacks(self, wanted: Mapping[str, str]) -> list[tuple[str, str]]:
        """(protection, label) of figures that were not taken with these settings.

        Args:
            wanted: label of a further metric -> digest of its settings.
        """
        known = {(figure.protection, figure.name, figure.settings) for figure in self.figures}
        return [
            (file.protection, name)
            for file in self.files
            for name, settings in wanted.items()
            if (file.protection, name, settings) not in known
        ]

    def with_figures(self, added: Iterable[FileFigure]) -> PhotoRecord:
        """The same with more figures; one that is there already stays."""
        found = {(f.protection, f.name, f.settings): f for f in (*added, *self.figures)}
        return replace(self, figures=tuple(found.values()))

    def joined(self, other: PhotoRecord) -> PhotoRecord:
        """What two processes saw of the same photo, which need not have looked for the same."""
        if not self.is_readable:
            return other
        if not other.is_readable:
            return self
        found = {network: text for network, text in other.person.items() if text}
        person = {**other.person, **self.person, **found}
        return replace(self, person=person).with_figures(other.figures)

    def files_with(self, wanted: Mapping[str, str]) -> tuple[ProtectedFile, ...]:
        """The protected files with the figures of these further metrics beside their own.

        Args:
            wanted: label -> digest of the metric's settings; others are left out.
        """
        more: dict[str, dict[str, float]] = {}
        for figure in self.figures:
            if wanted.get(figure.name) == figure.settings:
                more.setdefault(figure.protection, {})[figure.name] = figure.value
        return tuple(
            replace(file, figures={**file.figures, **more.get(file.protection, {})})
            for file in self.files
        )

    def file(self, protection: str) -> ProtectedFile:
        """The protected file of a protection."""
        return next(file for file in self.files if file.protection == protection)


class RecordStore:
    """`photos.jsonl` of a folder; several processes may write at once.

    Records of files that could not be read by an earlier run are forgotten: what was in the way
    (a disk, a permission, a limit, a missing decoder) may be mended, so they are read again once.

    Args:
        folder: made on the first write.
    """

    def __init__(self, folder: Path) -> None:
        self._journal = Journal(folder, "photos")
        self._known: dict[str, PhotoRecord] = {}
        self.refresh()
        self._known = {i: record for i, record in self._known.items() if record.is_readable}

    def refresh(self) -> None:
        """Read what other processes have written meanwhile."""
        for path, number, line in self._journal.new_lines():
            try:
                record = from_plain(PhotoRecord, json.loads(line), "photo")
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ValueError(
                    f"{path}, line {number} is not a photo's record: {error}; delete the line"
                ) from error
            known = self._known.get(record.identity)
            # Lines of several files are in no order of time.
            self._known[record.identity] = record if known is None else record.joined(known)

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
