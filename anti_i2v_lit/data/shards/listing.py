"""The samples of a shard, told apart from what cannot be one, with the reason."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from anti_i2v_lit.data.shards.reading import Entry, Member, Shard, ShardSample
from anti_i2v_lit.tars import DamagedTar

# Photos above this are no photos, and reading them would cost a node its memory.
MAX_PHOTO_BYTES = 512 << 20
MAX_TEXT_BYTES = 1 << 20
# webdataset's own rules: a name is cut at the first dot after the last slash, and members
# named __like_this__ belong to nobody.
_NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$", re.DOTALL)
_META = re.compile(r"__[^/]*__($|/)")


@dataclass(frozen=True, kw_only=True)
class ShardListing:
    """What a shard holds.

    Attributes:
        shard: the shard.
        samples: photo's key -> sample, in the order of the tar; a key is the shard's name, a
            slash and the name of the photo's member.
        broken: key -> reason of what cannot be cloaked, and of damage that belongs to no sample.
        keys: the keys of all samples, good or broken, in the order of the tar.
    """

    shard: Shard
    samples: dict[str, ShardSample]
    broken: dict[str, str]
    keys: tuple[str, ...]


@dataclass(kw_only=True)
class _Group:
    """Members of one sample, as far as they were seen."""

    key: str
    photos: list[Entry] = field(default_factory=list)
    text: Entry | None = None
    facts: Entry | None = None
    extensions: set[str] = field(default_factory=set)
    problem: str = ""


def list_shard(shard: Shard, photo_suffixes: Collection[str]) -> ShardListing:
    """Read all headers of a shard.

    Args:
        shard: the shard.
        photo_suffixes: suffixes (".jpg") of members that are taken for photos.
    """
    collector = _Collector(shard.name, frozenset(photo_suffixes))
    damage = ""
    try:
        for member in shard.members():
            collector.add(member)
    except DamagedTar as error:
        damage = str(error)
    return collector.listing(shard, damage)


class _Collector:
    """Sorts members into samples."""

    def __init__(self, name: str, photo_suffixes: frozenset[str]) -> None:
        self._name, self._suffixes = name, photo_suffixes
        self._groups: dict[str, _Group] = {}
        self._last: _Group | None = None
        self._members = 0

    def add(self, member: Member) -> None:
        """Take one member."""
        self._members += 1
        name = member.name.removeprefix("./")
        if member.is_folder or _META.match(name):
            return
        if not _is_safe(name):
            label = f"[member {self._members}]"
            problem = f"the shard holds {member.name!r}, a name that leaves its folder"
            self._groups[label] = _Group(key=label, problem=problem)
            return
        parts = _NAME.match(name)
        if parts is None:
            return
        group = self._group(parts[1])
        extension = parts[2].lower()
        if extension in group.extensions:
            group.problem = f"{name} is in the shard twice"
        group.extensions.add(extension)
        self._sort_in(group, member, name, extension)

    def _group(self, key: str) -> _Group:
        if self._last is not None and self._last.key == key:
            return self._last
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(key=key)
        else:
            group.problem = f"the sample {key} is in the shard twice"
        self._last = group
        return group

    def _sort_in(self, group: _Group, member: Member, name: str, extension: str) -> None:
        is_photo = f".{extension}" in self._suffixes
        if not is_photo and extension not in ("txt", "json"):
            return
        entry = Entry(name=member.name, offset=member.offset, size=member.size)
        limit = MAX_PHOTO_BYTES if is_photo else MAX_TEXT_BYTES
        if not member.is_file:
            group.problem = f"{name} is a link or a special file; a shard may hold files only"
        elif member.size > limit:
            group.problem = f"{name} has {member.size} bytes, over the limit of {limit}"
        if is_photo:
            group.photos.append(entry)
        elif extension == "txt":
            group.text = entry
        else:
            group.facts = entry

    def listing(self, shard: Shard, damage: str) -> ShardListing:
        """The result, once all headers are in."""
        if damage and self._last is not None:
            # Nobody knows whether the members around the damage are all of the last sample.
            self._last.problem = f"the shard is damaged at this sample: {damage}"
        samples: dict[str, ShardSample] = {}
        broken: dict[str, str] = {}
        keys = []
        for group in self._groups.values():
            name = group.photos[0].name.removeprefix("./") if group.photos else group.key
            key, problem = f"{self._name}/{name}", group.problem or _lack(group)
            if group.extensions:
                keys.append(key)
            if problem:
                broken[key] = problem
            else:
                samples[key] = ShardSample(
                    shard=shard, photo=group.photos[0], text=group.text, facts=group.facts
                )
        rest = f"{self._name}/[rest of the shard]"
        if damage:
            broken[rest] = (
                f"the shard is damaged after {self._members} members ({damage}); "
                "samples that may follow are lost"
            )
        elif not self._groups:
            broken[rest] = "the shard holds no samples"
        return ShardListing(shard=shard, samples=samples, broken=broken, keys=tuple(keys))


def _lack(group: _Group) -> str:
    if not group.photos:
        return f"no photo in the sample, only {', '.join(sorted(group.extensions))}"
    if len(group.photos) > 1:
        names = ", ".join(PurePosixPath(p.name).name for p in group.photos)
        return f"several photos in one sample: {names}; give each its own key"
    return ""


def _is_safe(name: str) -> bool:
    """Whether a name stays inside the folder that it is written to, on any system."""
    parts = name.replace("\\", "/").split("/")
    return not any(part in ("", ".", "..") for part in parts) and "\0" not in name
