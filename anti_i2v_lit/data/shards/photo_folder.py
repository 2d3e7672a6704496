"""Photo folders: every photo is a sample, with its own bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.data.codecs import PHOTO_SUFFIXES, REFUSED_SUFFIXES
from anti_i2v_lit.data.shards.sources import Sample, SampleSource, Unit, files_below, key_of


@dataclass(kw_only=True)
class PhotoFolderConfig:
    """Settings of photo folders."""

    caption_suffix: str = ".txt"
    """Suffix of a text file beside a photo that holds its caption; "" for none."""

    def __post_init__(self) -> None:
        """Refuse what is no suffix."""
        if self.caption_suffix and not self.caption_suffix.startswith("."):
            raise ValueError(
                f"caption_suffix must start with a dot or be empty, got {self.caption_suffix!r}"
            )


@final
class PhotoFolder(SampleSource):
    """Photos in folders, recursively; bytes, and so metadata and quality, are kept.

    Pictures of formats that are not cloaked are skipped with a reason, not passed over.
    """

    Config = PhotoFolderConfig
    samples_per_unit = 1
    layout = f"expected photos ({', '.join(sorted(PHOTO_SUFFIXES))}), in folders or not"

    def companions(self, unit: Unit) -> list[Path]:
        """See `SampleSource.companions`."""
        suffix = self.config.caption_suffix
        return [unit.path.with_suffix(suffix)] if suffix else []

    def _units(self, given: Path) -> list[Unit]:
        if given.is_file():
            return [Unit(name=given.name, path=given)]
        wanted = PHOTO_SUFFIXES | REFUSED_SUFFIXES
        return [Unit(name=name, path=given / name) for name in files_below(given, wanted)]

    def _samples(self, unit: Unit) -> Iterator[Sample]:
        suffix = unit.path.suffix.lower()
        if suffix in REFUSED_SUFFIXES:
            raise PhotoFailure(
                f"{suffix.lstrip('.').upper()} files are not handled; "
                "export the photo as JPEG, PNG, WebP, TIFF or HEIC"
            )
        photo = unit.path.read_bytes()
        if not photo:
            raise PhotoFailure("the file is empty (zero bytes)")
        yield Sample(
            key=key_of(unit.name),
            suffix=suffix.lstrip("."),
            photo=photo,
            caption=self._caption(unit),
            facts={"source_sha256": hashlib.sha256(photo).hexdigest()},
        )

    def _caption(self, unit: Unit) -> str:
        path = next(iter(self.companions(unit)), None)
        if path is None or not path.is_file():
            return ""
        try:
            return path.read_text(encoding="utf-8").strip()
        except UnicodeDecodeError as error:
            raise PhotoFailure(f"the caption {path.name} is not UTF-8 text: {error}") from error
