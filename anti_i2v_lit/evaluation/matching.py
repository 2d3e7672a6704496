"""Which protected file belongs to which photo, in a folder of ours, in shards, or in a peer's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from torch import Tensor

from anti_i2v_lit.archive.ledger import MANIFEST, Ledger
from anti_i2v_lit.archive.outputs import in_shard, output_exists, staged
from anti_i2v_lit.archive.row import Row
from anti_i2v_lit.data.folder import SourceFile, scan
from anti_i2v_lit.evaluation.affixes import by_name
from anti_i2v_lit.evaluation.facts import Problem
from anti_i2v_lit.evaluation.likeness import assign, centre_box, thumbnail
from anti_i2v_lit.evaluation.pair_list import read_list
from anti_i2v_lit.evaluation.places import scanned

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
    photo's stem inside the file's name; the picture itself, at 24 x 24 pixels. Each file is taken
    by one photo; what two photos could mean by their names is unclear for both.

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
    found = scanned(place, out)
    files = {source.key: source for source in found.sources}
    known = {photo.key: photo for photo in photos}
    chosen: dict[str, tuple[str, str]] = {}
    unclear: dict[str, list[str]] = {}
    if pairs_file is not None:
        chosen.update(read_list(pairs_file, known, files))
    rest = [key for key in known if key not in chosen]
    chosen.update(_by_key(rest, _left(files, chosen, unclear)))
    rest = [key for key in rest if key not in chosen]
    _settle(_by_other_suffix(rest, _left(files, chosen, unclear)), "the same name", chosen, unclear)
    stems = {file: _stem(file) for file in _left(files, chosen, unclear)}
    spoken = by_name({key: _stem(key) for key in known}, stems)
    _settle(spoken, "its name holds the photo's", chosen, unclear)
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
    found: Mapping[str, Sequence[str]],
    how: str,
    chosen: dict[str, tuple[str, str]],
    unclear: dict[str, list[str]],
) -> None:
    """Choose the files of photos that have one each; what two photos share is unclear for both."""
    owners = Counter(file for names in found.values() for file in names)
    for key, names in found.items():
        if key in chosen or key in unclear:
            continue
        if len(names) == 1 and owners[names[0]] == 1:
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


def _stem(key: str) -> str:
    return PurePosixPath(key).stem


def _by_key(photos: Sequence[str], files: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Photo -> the file of its whole name, or of that with ".png" added; each file once."""
    names, found = set(files), {}
    for added in ("", ".png"):
        for key in photos:
            if key not in found and key + added in names:
                names.remove(key + added)
                found[key] = (key + added, "the same name")
    return found


def _by_other_suffix(photos: Sequence[str], files: Sequence[str]) -> dict[str, list[str]]:
    """Photo -> files that are called like it but for the suffix."""
    bare: dict[str, list[str]] = {}
    for name in files:
        bare.setdefault(_without_suffix(name), []).append(name)
    return {key: bare[_without_suffix(key)] for key in photos if _without_suffix(key) in bare}


def _without_suffix(key: str) -> str:
    return str(PurePosixPath(key).with_suffix(""))


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
