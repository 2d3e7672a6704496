"""What a folder, a manifest or shards hold: pictures by key, and names that lead nowhere."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from anti_i2v_lit.archive.ledger import MANIFEST, Ledger
from anti_i2v_lit.archive.verify import source_path
from anti_i2v_lit.data.codecs import PHOTO_SUFFIXES
from anti_i2v_lit.data.folder import SourceFile, scan
from anti_i2v_lit.evaluation.facts import UNREADABLE, Problem
from anti_i2v_lit.tars import holder


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a folder or its shards hold: sources by key, and names that cannot be followed."""

    sources: tuple[SourceFile, ...]
    broken: tuple[tuple[str, str], ...] = ()

    def problems(self, protection: str, photos: Collection[str]) -> list[Problem]:
        """What is broken, each with its photo where one of `photos` has that name."""
        return [
            Problem(
                kind=UNREADABLE,
                protection=protection,
                photo=key if key in photos else "",
                reason=reason if key in photos else f"{key}: {reason}",
            )
            for key, reason in self.broken
        ]


def clean_photos(place: Path, out: Path) -> Found:
    """The clean photos of a folder, of the shards in it, of a manifest, or of what else is named.

    Raises:
        ValueError: nothing there, `out` lies in it, or it holds pictures beside shards.
    """
    if place.name == MANIFEST and place.is_file():
        return _originals(place, out)
    return scanned(place, out)


def scanned(place: Path, out: Path) -> Found:
    """Pictures below a folder (hidden folders left out), or the samples of its shards.

    Raises:
        ValueError: nothing there, `out` lies in it, or it holds pictures beside shards.
    """
    if place.is_dir():
        tars = [str(path) for path in sorted(place.glob("*.tar"))]
        if tars:
            _check_alone(place, tars[0], out)
            found = scan(tars, out)
            return Found(sources=found.sources, broken=found.broken)
    found = scan([str(place)], out)
    return Found(
        sources=tuple(source for source in found.sources if not _is_hidden(source.key)),
        broken=tuple((key, reason) for key, reason in found.broken if not _is_hidden(key)),
    )


def _originals(manifest: Path, out: Path) -> Found:
    """The originals of a manifest where they lie now, in files of their own or in tars."""
    rows = Ledger(manifest.parent).rows()
    tars: dict[Path, dict[Path, SourceFile]] = {}
    sources, broken = [], []
    for key, row in sorted(rows.items()):
        path = source_path(manifest.parent, row)
        if path is None:
            broken.append((key, f"the original is not at {row.source or 'any known place'}"))
            continue
        place = holder(path)
        if place is None:
            sources.append(SourceFile(key=key, path=path))
            continue
        if place[0] not in tars:
            tars[place[0]] = {s.path: s for s in scan([str(place[0])], out).sources}
        member = tars[place[0]].get(path)
        if member is None:
            broken.append((key, f"{path} is no sample of its shard"))
        else:
            sources.append(SourceFile(key=key, path=path, sample=member.sample))
    if not sources:
        raise ValueError(f"{manifest}: none of its originals is where it was")
    return Found(sources=tuple(sources), broken=tuple(broken))


def _check_alone(place: Path, tar: str, out: Path) -> None:
    """Refuse a folder of shards that holds pictures too: either could be meant."""
    picture = next(_pictures(place, out), "")
    if picture:
        raise ValueError(
            f"{place} holds shards ({Path(tar).name}) and pictures ({picture}) at once; say which "
            f"are meant, '{place}/*.tar' or '{place}/*{Path(picture).suffix}', or move the others "
            "to another folder"
        )


def _pictures(place: Path, out: Path) -> Iterator[str]:
    """Names of pictures below a folder, without hidden folders and the one that is written."""
    target = os.path.realpath(out)
    for current, folders, files in os.walk(place):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(os.path.join(current, name)) != target
        )
        for name in sorted(files):
            if Path(name).suffix.lower() in PHOTO_SUFFIXES and not name.startswith("."):
                yield os.path.relpath(os.path.join(current, name), place)


def _is_hidden(key: str) -> bool:
    return any(part.startswith(".") for part in key.split("/"))
