"""Which protected file belongs to which photo, in a folder of ours, in shards, or in a peer's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from torch import Tensor

from anti_i2v_lit.archive.ledger import MANIFEST, Ledger
from anti_i2v_lit.archive.outputs import in_shard, output_exists, staged
from anti_i2v_lit.archive.row import Row
from anti_i2v_lit.archive.verify import source_path
from anti_i2v_lit.data.folder import SourceFile, scan
from anti_i2v_lit.evaluation.affixes import by_name
from anti_i2v_lit.evaluation.facts import UNREADABLE, Problem
from anti_i2v_lit.evaluation.likeness import assign, centre_box, thumbnail
from anti_i2v_lit.evaluation.pair_list import read_list

Read = Callable[[SourceFile], Tensor]
BY_MANIFEST, BY_USER, BY_BOTH = "manifest", "user", "manifest and the user"
_WHOLE = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A photo and the file that should protect it.

    Attributes:
        photo: the clean photo.
        file: the protected file.
        how: how they were recognised as a pair, a sentence.
        row: what the manifest says, if there is one.
    """

    photo: SourceFile
    file: SourceFile
    how: str
    row: Row | None = None


@dataclass(frozen=True, kw_only=True)
class Matched:
    """What a protected folder holds for a list of photos.

    Attributes:
        name: of the protection.
        folder: where it lies.
        source: "manifest", "shards" or "folder".
        surrogates: models that computed the cloaks, `name:path`.
        told_by: who says which models those are, "manifest", "user" or "manifest and the user"; ""
            where nobody says it of every cloak.
        pairs: key -> pair.
        problems: photos without a file, and files that could not be told apart.
        owners: SHA-256 of an original or cloak -> key of its photo, as far as a manifest says.
    """

    name: str
    folder: Path
    source: str
    surrogates: tuple[str, ...] = ()
    told_by: str = ""
    pairs: Mapping[str, Pair] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    owners: Mapping[str, str] = field(default_factory=dict)


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
        ValueError: nothing there, or `out` lies in it.
    """
    if place.name == MANIFEST and place.is_file():
        rows = Ledger(place.parent).rows().values()
        paths = {row.key: source_path(place.parent, row) for row in rows}
        found = [SourceFile(key=k, path=p) for k, p in paths.items() if p is not None]
        if not found:
            raise ValueError(f"{place}: none of its originals is where it was")
        return Found(sources=tuple(sorted(found, key=lambda source: source.key)))
    return _scanned(place, out)


def match(
    name: str,
    place: Path,
    photos: Sequence[SourceFile],
    *,
    out: Path,
    read: Read,
    sha256: Callable[[SourceFile], str],
    pairs_file: Path | None = None,
) -> Matched:
    """Find every photo's protected file.

    With a manifest its rows decide, by key or by the original's bytes. Else, in this order:
    `pairs_file`; the photo's key, also with ".png" added or with another picture suffix; the
    photo's stem inside the file's name; the picture itself, at 24 x 24 pixels.

    Args:
        name: of the protection.
        place: folder, manifest, or shards.
        photos: the clean photos.
        out: folder of the evaluation, which may not hold them.
        read: decodes a file; raises PhotoFailure or ValueError.
        sha256: digest of a file's bytes.
        pairs_file: CSV with two columns: name of a photo, name of its protected file.

    Raises:
        ValueError: no such folder, or not one photo has a protected file.
    """
    if has_manifest(place):
        found = _by_manifest(name, _folder(place), photos, out, sha256)
    else:
        found = _by_files(name, place, photos, out, read, pairs_file)
    if not found.pairs:
        raise ValueError(
            f"{place} holds no protected file for any of {len(photos)} photos; looked for names "
            f"such as {photos[0].key}, and for the same pictures under other names. "
            "Give --pairs NAME=FILE.csv with two columns: photo, protected file"
        )
    return found


def has_manifest(place: Path) -> bool:
    """Whether a folder, or the manifest itself, says which file belongs to which photo."""
    return (_folder(place) / MANIFEST).is_file()


def _folder(place: Path) -> Path:
    return place.parent if place.name == MANIFEST else place


def _scanned(place: Path, out: Path) -> Found:
    """Pictures below a folder (hidden folders left out), or the samples of its shards."""
    if place.is_dir():
        tars = [str(path) for path in sorted(place.glob("*.tar"))]
        if tars:
            found = scan(tars, out)
            return Found(sources=found.sources, broken=found.broken)
    found = scan([str(place)], out)
    return Found(
        sources=tuple(source for source in found.sources if not _is_hidden(source.key)),
        broken=tuple((key, reason) for key, reason in found.broken if not _is_hidden(key)),
    )


def _is_hidden(key: str) -> bool:
    return any(part.startswith(".") for part in key.split("/"))


def _by_manifest(
    name: str,
    folder: Path,
    photos: Sequence[SourceFile],
    out: Path,
    sha256: Callable[[SourceFile], str],
) -> Matched:
    rows = Ledger(folder).rows()
    members = _members(folder, rows, out)
    by_bytes: dict[str, Row] | None = None
    pairs, problems = {}, []
    for photo in photos:
        row, how = rows.get(photo.key), "named in the manifest"
        if row is None:
            if by_bytes is None:
                by_bytes = {r.source_sha256: r for r in rows.values() if r.source_sha256}
            row, how = by_bytes.get(sha256(photo)), "the manifest knows the original's bytes"
        file = _output(folder, row, members) if row is not None else None
        if row is None or file is None:
            problems.append(_missing(name, photo, row))
        else:
            pairs[photo.key] = Pair(photo=photo, file=file, how=how, row=row)
    owners = {r.source_sha256: r.key for r in rows.values() if r.source_sha256}
    owners.update({r.output_sha256: r.key for r in rows.values() if r.output_sha256})
    complete = all(row.surrogates for row in rows.values() if row.status == "cloaked")
    return Matched(
        name=name,
        folder=folder,
        source="manifest",
        surrogates=tuple(sorted({s for row in rows.values() for s in row.surrogates})),
        told_by=BY_MANIFEST if complete else "",
        pairs=pairs,
        problems=tuple(problems),
        owners=owners,
    )


def _members(folder: Path, rows: Mapping[str, Row], out: Path) -> dict[str, SourceFile]:
    """Recorded output in a shard -> the sample."""
    outputs = [row.output for row in rows.values()]
    inside = {o.partition("/")[0] for o in outputs if staged(folder, o) is not None}
    tars = [str(folder / tar) for tar in sorted(inside) if (folder / tar).is_file()]
    found = scan(tars, out).sources if tars else ()
    return {in_shard(source.key): source for source in found}


def _output(folder: Path, row: Row, members: Mapping[str, SourceFile]) -> SourceFile | None:
    if row.status != "cloaked" or not output_exists(folder, row.output):
        return None
    waiting = staged(folder, row.output)
    if waiting is not None and row.output in members:
        return members[row.output]
    path = waiting if waiting is not None else folder / row.output
    return SourceFile(key=row.output, path=path)


def _missing(name: str, photo: SourceFile, row: Row | None) -> Problem:
    if row is None:
        reason = "the manifest has no row for this photo"
    elif row.status != "cloaked":
        reason = f"it was {row.status}: {row.reason}"
    else:
        reason = f"{row.output} is gone"
    return Problem(kind="missing", protection=name, photo=photo.key, reason=reason)


def _by_files(
    name: str,
    place: Path,
    photos: Sequence[SourceFile],
    out: Path,
    read: Read,
    pairs_file: Path | None,
) -> Matched:
    found = _scanned(place, out)
    files = {source.key: source for source in found.sources}
    known = {photo.key: photo for photo in photos}
    chosen: dict[str, tuple[str, str]] = {}
    unclear: dict[str, list[str]] = {}
    if pairs_file is not None:
        chosen.update(read_list(pairs_file, known, files))
    for key, names in _by_key(known, files).items():
        _settle(key, names, "the same name", chosen, unclear)
    left = _left(files, chosen, unclear)
    stems = {key: _stem(key) for key in known if key not in chosen and key not in unclear}
    spoken = by_name(stems, {file: _stem(file) for file in left})
    shared = _shared(spoken)
    for key, names in spoken.items():
        clash = [other for file in names for other in shared.get(file, []) if other != key]
        if clash:
            unclear[key] = names
        else:
            _settle(key, names, "its name holds the photo's", chosen, unclear)
    rest = [key for key in known if key not in chosen and key not in unclear]
    left = _left(files, chosen, unclear)
    pairs, doubtful = _by_picture([known[key] for key in rest], [files[f] for f in left], read)
    chosen.update({key: (file, "the same picture") for key, file in pairs.items()})
    unclear.update(doubtful)
    return Matched(
        name=name,
        folder=place,
        source="shards" if any(s.sample is not None for s in files.values()) else "folder",
        pairs={
            key: Pair(photo=known[key], file=files[file], how=how)
            for key, (file, how) in chosen.items()
        },
        problems=(
            *found.problems(name, known),
            *_problems(name, known, files, chosen, unclear),
        ),
    )


def _settle(
    key: str,
    names: Sequence[str],
    how: str,
    chosen: dict[str, tuple[str, str]],
    unclear: dict[str, list[str]],
) -> None:
    if key in chosen:
        return
    if len(names) == 1:
        chosen[key] = (names[0], how)
    else:
        unclear[key] = list(names)


def _left(
    files: Mapping[str, SourceFile],
    chosen: Mapping[str, tuple[str, str]],
    unclear: Mapping[str, Sequence[str]],
) -> list[str]:
    used = {file for file, _ in chosen.values()} | {f for some in unclear.values() for f in some}
    return [name for name in files if name not in used]


def _shared(spoken: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    owners: dict[str, list[str]] = {}
    for key, names in spoken.items():
        for file in names:
            owners.setdefault(file, []).append(key)
    return owners


def _stem(key: str) -> str:
    return PurePosixPath(key).stem


def _by_key(
    photos: Mapping[str, SourceFile], files: Mapping[str, SourceFile]
) -> dict[str, list[str]]:
    """Photo -> files of its name: itself, with ".png" added, or with another suffix."""
    bare: dict[str, list[str]] = {}
    for name in files:
        bare.setdefault(str(PurePosixPath(name).with_suffix("")), []).append(name)
    found = {}
    for key in photos:
        exact = [name for name in (key, f"{key}.png") if name in files][:1]
        names = exact or bare.get(str(PurePosixPath(key).with_suffix("")), [])
        if names:
            found[key] = names
    return found


def _by_picture(
    photos: Sequence[SourceFile], files: Sequence[SourceFile], read: Read
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Pairs of what names did not tell, by the pictures; unreadable ones have none."""
    if not photos or not files:
        return {}, {}
    seen, shapes = {}, set()
    for source in files:
        picture = _read_or_none(source, read)
        if picture is not None:
            seen[source.key] = thumbnail(picture)
            shapes.add(round(picture.shape[-1] / picture.shape[-2], 2))
    thumbs = {}
    for source in photos:
        picture = _read_or_none(source, read)
        if picture is not None:
            size = (picture.shape[-2], picture.shape[-1])
            boxes = {_WHOLE, *(centre_box(size, aspect) for aspect in shapes)}
            thumbs[source.key] = [thumbnail(picture, box) for box in boxes]
    return assign(thumbs, seen)


def _read_or_none(source: SourceFile, read: Read) -> Tensor | None:
    try:
        return read(source)
    except (ValueError, OSError):
        return None


def _problems(
    name: str,
    photos: Mapping[str, SourceFile],
    files: Mapping[str, SourceFile],
    chosen: Mapping[str, tuple[str, str]],
    unclear: Mapping[str, Sequence[str]],
) -> tuple[Problem, ...]:
    found = []
    for key in photos:
        if key in unclear:
            meant = " or ".join(unclear[key])
            reason = f"it could be {meant}; name the right one with --pairs {name}=FILE.csv"
            found.append(Problem(kind="ambiguous", protection=name, photo=key, reason=reason))
        elif key not in chosen:
            reason = "no file of this name or picture"
            found.append(Problem(kind="missing", protection=name, photo=key, reason=reason))
    unused = _left(files, chosen, unclear)
    if unused:
        shown = ", ".join(unused[:5]) + (" ..." if len(unused) > 5 else "")
        reason = f"{len(unused)} files belong to none of the photos: {shown}"
        found.append(
            Problem(kind="unpaired", protection=name, photo="", reason=reason, fails=False)
        )
    return tuple(found)
