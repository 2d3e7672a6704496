"""Which photos a command line means, and under which names they are kept."""

from __future__ import annotations

import functools
import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from anti_i2v_lit.data.codecs import PHOTO_SUFFIXES, REFUSED_SUFFIXES
from anti_i2v_lit.data.shards.listing import ShardListing, list_shard
from anti_i2v_lit.data.shards.reading import (
    ForwardReader,
    ShardSample,
    expand_shards,
    is_shard,
    open_shard,
)

__all__ = ["REFUSED_SUFFIXES", "Originals", "Scan", "SourceFile", "scan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One photo to be cloaked.

    Attributes:
        key: posix path with suffix relative to the input; unique, stable, without "..".
        path: where the file is; for a photo in a shard, a path that leads through the tar.
        sample: the sample of a shard that the photo is; None for a file of its own.
    """

    key: str
    path: Path
    sample: ShardSample | None = None

    @property
    def size_bytes(self) -> int:
        """Size of the photo's file or member.

        Raises:
            OSError: the file is gone.
        """
        return self.path.stat().st_size if self.sample is None else self.sample.photo.size


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What the inputs hold.

    Attributes:
        sources: photos, sorted by key.
        broken: (key, reason) of names that cannot be followed: loops, dead links, no permission.
        ignored: number of files that are not pictures by their suffix.
        shards: the shards among the inputs, by name; their samples are in `sources` and `broken`.
    """

    sources: tuple[SourceFile, ...]
    broken: tuple[tuple[str, str], ...]
    ignored: int
    shards: tuple[ShardListing, ...] = ()


@dataclass(frozen=True)
class _Entry:
    key: str
    path: str
    problem: str = ""


class Originals:
    """Where the originals of a run lie, so that no cloak takes the place of one.

    Args:
        sources: the photos; those in a shard stand for the shard's file.
    """

    def __init__(self, sources: Sequence[SourceFile]) -> None:
        paths = {s.path if s.sample is None else Path(s.sample.shard.url) for s in sources}
        real_folder = functools.cache(os.path.realpath)  # one walk per folder, not per photo
        self._places = {place for path in paths for place in _places(path, real_folder)}

    def __contains__(self, target: Path) -> bool:
        """Whether writing to a path would replace an original, however links lead there."""
        return not self._places.isdisjoint(_places(target, os.path.realpath))


def _places(path: Path, real_folder: Callable[[Path], str]) -> set[str]:
    """What a path is, and what it leads to if its last part is a link."""
    place = os.path.join(real_folder(path.parent), path.name)
    return {place, os.path.realpath(place)} if os.path.islink(place) else {place}


def scan(inputs: Sequence[str], out: Path) -> Scan:
    """List the photos of files, folders (recursively, links followed), globs and tar shards.

    With one folder or glob, keys are relative to it; with several inputs, keys of a folder start
    with the folder's own name, and keys of a shard always with the shard's. The order of the
    inputs does not matter. Shards are given as webdataset takes them: names with braces, pipes
    and URLs.

    Raises:
        ValueError: an input that does not exist, an output folder that equals, contains or lies
            in an input, a cloak that would come to lie among originals, two photos that would get
            one name, or nothing to do.
    """
    if not inputs:
        raise ValueError("no photos given: name files, folders or globs")
    entries: dict[str, _Entry] = {}
    shards = _shards([word for word in inputs if _means_shards(word)], Path(out))
    for given in (word for word in inputs if not _means_shards(word)):
        for entry in _entries(given, Path(out), prefixed=len(inputs) > 1):
            known = entries.get(entry.path)
            if known is None or entry.key < known.key:
                entries[entry.path] = entry
    chosen, ignored = _by_suffix(list(entries.values()))
    _check_distinct(chosen, shards)
    _check_targets(chosen, Path(out))
    sources = [SourceFile(key=e.key, path=Path(e.path)) for e in chosen if not e.problem]
    broken = [(e.key, e.problem) for e in chosen if e.problem]
    for shard in shards:
        folder = Path(shard.shard.url)
        names = ((key, sample, sample.photo.name) for key, sample in shard.samples.items())
        sources += [SourceFile(key=k, path=folder / n, sample=s) for k, s, n in names]
        broken += shard.broken.items()
    if not chosen and not shards:
        raise ValueError(
            f"no photos found in {', '.join(inputs)} ({ignored} other files were passed over); "
            f"looked for {', '.join(sorted(PHOTO_SUFFIXES))}"
        )
    return Scan(
        sources=tuple(sorted(sources, key=lambda s: s.key)),
        broken=tuple(sorted(broken)),
        ignored=ignored,
        shards=shards,
    )


def _means_shards(word: str) -> bool:
    return is_shard(word) and not os.path.isdir(word)


def _shards(words: Sequence[str], out: Path) -> tuple[ShardListing, ...]:
    """The shards that words mean, by name; their headers are read, their photos are not."""
    reader = ForwardReader()
    urls: dict[str, str] = {}
    for word in words:
        expanded = expand_shards(word)
        if glob.has_magic(word) and len(expanded) == 1 and not os.path.exists(word):
            expanded = sorted(glob.glob(word, recursive=True)) or expanded
        for url in expanded:
            shard = open_shard(url, reader)
            if os.path.isfile(url):
                _check_not_in(os.path.abspath(url), out)
            known = urls.setdefault(shard.name, url)
            if known != url:
                raise ValueError(
                    f"{known} and {url} would both be written as {shard.name}.tar; "
                    "run twice with different --out folders"
                )
    wanted = PHOTO_SUFFIXES | REFUSED_SUFFIXES
    return tuple(list_shard(open_shard(urls[name], reader), wanted) for name in sorted(urls))


def _by_suffix(entries: list[_Entry]) -> tuple[list[_Entry], int]:
    wanted = PHOTO_SUFFIXES | REFUSED_SUFFIXES
    chosen = [e for e in entries if e.problem or Path(e.path).suffix.lower() in wanted]
    return chosen, len(entries) - len(chosen)


def _check_distinct(entries: list[_Entry], shards: Sequence[ShardListing]) -> None:
    """Refuse two photos of one name, also where a folder and a shard are namesakes."""
    named = [(entry.key, entry.path) for entry in entries]
    for shard in shards:
        named += [(key, shard.shard.url) for key in {**shard.samples, **shard.broken}]
    seen: dict[str, str] = {}
    for key, path in named:
        if key in seen:
            raise ValueError(
                f"{seen[key]} and {path} would both be written as {key}; "
                "give their common parent folder, or run twice with different --out folders"
            )
        seen[key] = path


def _check_targets(entries: list[_Entry], out: Path) -> None:
    """Refuse links in `out` that lead to a folder of originals."""
    homes = {os.path.dirname(entry.path) for entry in entries}
    originals = {os.path.realpath(home) for home in homes}
    originals |= {os.path.dirname(os.path.realpath(e.path)) for e in entries if _is_link(e)}
    for folder in sorted({os.path.dirname(entry.key) for entry in entries}):
        target = os.path.join(out, folder)
        if os.path.realpath(target) in originals:
            raise ValueError(
                f"{target} is {os.path.realpath(target)}, where originals lie that could be "
                "overwritten: choose another --out"
            )


def _is_link(entry: _Entry) -> bool:
    return not entry.problem and os.path.islink(entry.path)


def _entries(given: str, out: Path, prefixed: bool) -> Iterator[_Entry]:
    """All files that one input means."""
    path = os.path.abspath(given)
    if os.path.isdir(path):
        _check_apart(path, out)
        base = os.path.dirname(path) if prefixed else path
        yield from _walk(path, base, out)
    elif os.path.lexists(path):
        _check_not_in(path, out)
        yield _file_entry(path, os.path.dirname(path))
    elif glob.has_magic(given):
        yield from _globbed(given, out, prefixed)
    else:
        raise ValueError(f"no such file or folder: {given}")


def _globbed(pattern: str, out: Path, prefixed: bool) -> Iterator[_Entry]:
    found = sorted(glob.glob(pattern, recursive=True))
    if not found:
        raise ValueError(f"nothing matches {pattern}")
    fixed = Path(os.path.abspath(pattern))
    while glob.has_magic(str(fixed)):
        fixed = fixed.parent
    base = str(fixed.parent if prefixed else fixed)
    for name in found:
        path = os.path.abspath(name)
        if os.path.isdir(path):
            _check_apart(path, out)
            yield from _walk(path, base, out)
        else:
            _check_not_in(path, out)
            yield _file_entry(path, base)


def _check_not_in(path: str, out: Path) -> None:
    """Refuse an original that lies in `out`, itself or what it is a link to."""
    target = Path(os.path.realpath(out))
    whole = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    for real in (Path(whole), Path(os.path.realpath(path))):
        if target in real.parents:
            raise ValueError(
                f"the original {path} lies in --out {out} and could be overwritten: "
                "choose another --out"
            )


def _check_apart(folder: str, out: Path) -> None:
    source, target = Path(os.path.realpath(folder)), Path(os.path.realpath(out))
    if source == target or source in target.parents:
        raise ValueError(
            f"--out {out} lies in the input folder {folder}; cloaks would be cloaked again by the "
            "next run and originals could be overwritten: choose a folder outside it"
        )
    if target in source.parents:
        raise ValueError(
            f"the input folder {folder} lies in --out {out}; originals could be overwritten: "
            "choose another --out"
        )


def _key(path: str, base: str) -> str:
    return Path(os.path.relpath(path, base)).as_posix()


def _file_entry(path: str, base: str) -> _Entry:
    key = _key(path, base)
    try:
        os.stat(path)
    except OSError as error:
        return _Entry(key, path, _problem(path, error))
    return _Entry(key, path)


def _problem(path: str, error: OSError) -> str:
    if os.path.islink(path):
        loop = not isinstance(error, FileNotFoundError)
        kind = "a symbolic link that leads back to itself" if loop else "a broken symbolic link"
        return f"{kind} (to {os.readlink(path)})"
    return f"cannot be opened: {error.strerror}"


def _walk(folder: str, base: str, out: Path) -> Iterator[_Entry]:
    """Files below a folder; a link to one of its own parents is reported, not followed."""
    target = os.path.realpath(out)
    pending: list[tuple[str, tuple[str, ...]]] = [(folder, ())]
    while pending:
        current, parents = pending.pop()
        real = os.path.realpath(current)
        if real in parents:
            yield _Entry(_key(current, base), current, "a folder link that leads back to itself")
            continue
        if target in (real, *map(str, Path(real).parents)):
            raise ValueError(f"{current} leads into --out {out}; choose another --out")
        try:
            with os.scandir(current) as listing:
                children = sorted(listing, key=lambda e: e.name)
        except OSError as error:
            yield _Entry(_key(current, base), current, f"folder not readable: {error.strerror}")
            continue
        for child in children:
            # "._name.jpg" are resource forks that macOS leaves on foreign disks
            if child.name.startswith("._"):
                continue
            if os.path.isdir(child.path):
                pending.append((child.path, (*parents, real)))
            else:
                if child.is_symlink():
                    _check_not_in(child.path, out)
                yield _file_entry(child.path, base)
