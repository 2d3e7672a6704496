"""What becomes shards: a list of files, each of which gives some samples or the reason why not."""

from __future__ import annotations

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, final

from anti_i2v_lit.checks import PhotoFailure

_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9_-]+")
_MAX_KEY_LETTERS = 80


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One file of the input.

    Attributes:
        name: posix path relative to the input; unique.
        path: where it is.
        facts: what the data set's own lists say about it; goes into the samples' JSON.
    """

    name: str
    path: Path
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One photo to be put into a shard.

    Attributes:
        key: letters, digits, "_" and "-"; unique in the data set and independent of the others.
        suffix: of the photo's member, without a dot: "jpg".
        photo: the encoded photo.
        caption: text, "" for none.
        facts: plain data for the sample's JSON.
    """

    key: str
    suffix: str
    photo: bytes
    caption: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


class SampleSource(ABC):
    """A kind of data set.

    Args:
        config: settings of the kind.
    """

    Config: ClassVar[type[Any]]

    def __init__(self, config: Any) -> None:
        self.config = config

    @final
    def find(self, inputs: Sequence[Path]) -> list[Unit]:
        """List the files of the input, sorted by name; reads lists, decodes nothing.

        Raises:
            ValueError: no such input, nothing in it, or not the layout of this kind.
        """
        found: list[Unit] = []
        for given in inputs:
            if not given.exists():
                raise ValueError(f"no such file or folder: {given}")
            prefix = f"{given.name}/" if len(inputs) > 1 else ""
            units = self._units(given)
            found += [Unit(name=prefix + u.name, path=u.path, facts=u.facts) for u in units]
        names = [unit.name for unit in found]
        if len(set(names)) < len(names):
            raise ValueError("two inputs have the same name and the same files; rename one")
        if not found:
            raise ValueError(f"nothing to shard in {', '.join(map(str, inputs))}: {self.layout}")
        return sorted(found, key=lambda unit: unit.name)

    @final
    def samples(self, unit: Unit) -> Iterator[Sample]:
        """Read a file and give its samples, the same ones whenever the file is the same.

        Raises:
            PhotoFailure: the file gives no sample; the message is the reason.
        """
        try:
            yield from self._samples(unit)
        except OSError as error:
            raise PhotoFailure(f"cannot be read: {error.strerror or error}") from error

    def companions(self, unit: Unit) -> list[Path]:
        """Other files, which need not exist, that a file's samples are made from."""
        del unit
        return []

    @property
    @abstractmethod
    def samples_per_unit(self) -> int:
        """The most samples that one file can give."""

    @property
    @abstractmethod
    def layout(self) -> str:
        """One sentence on the files that this kind expects."""

    @abstractmethod
    def _units(self, given: Path) -> list[Unit]:
        """Files of one input, named relative to it."""

    @abstractmethod
    def _samples(self, unit: Unit) -> Iterator[Sample]:
        """Samples of one file; raises PhotoFailure or OSError."""


def key_of(name: str) -> str:
    """A key for a file: what can be read of its name, and a digest that tells it from all others.

    Keys of WebDataset must not hold dots, and keys that were counted would change with every
    file that is added.
    """
    stem = os.path.splitext(name)[0]
    readable = _NOT_IN_KEYS.sub("-", stem).strip("-")[-_MAX_KEY_LETTERS:].strip("-")
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:10]
    return f"{readable}-{digest}" if readable else digest


def files_below(folder: Path, suffixes: frozenset[str]) -> list[str]:
    """Posix paths, relative to a folder, of files with these suffixes; links are followed."""
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [f for f in folders if not f.startswith(".")]
        if len(Path(parent).relative_to(folder).parts) > 64:
            raise ValueError(f"{parent}: folders nested too deep, perhaps a link to a parent")
        for name in names:
            if os.path.splitext(name)[1].lower() in suffixes and not name.startswith("."):
                found.append(Path(parent, name).relative_to(folder).as_posix())
    return sorted(found)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hex.

    Raises:
        OSError: missing or unreadable file.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
