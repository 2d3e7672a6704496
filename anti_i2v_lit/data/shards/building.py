"""From a data set to tar shards: the same input gives the same bytes, and a stop costs one shard.

A shard is made of a fixed run of the input's files, so it can be made without the others: by a
resumed run, or by one of many jobs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from anti_i2v_lit.checks import PhotoFailure, check_at_least
from anti_i2v_lit.config import digest
from anti_i2v_lit.data.shards.sources import SampleSource, Unit
from anti_i2v_lit.tars import TEMPORARY_SUFFIX, write_tar

INDEX = "index.json"
_STATE_FOLDER = ".shard_index"
_PREFIX = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_-]*$")


@dataclass(kw_only=True)
class BuildConfig:
    """How samples are spread over shards."""

    samples_per_shard: int = 1000
    """Most samples of a shard; a file of the input never spans two."""
    prefix: str = "shard"
    """Beginning of the shards' names: prefix-000000.tar."""

    def __post_init__(self) -> None:
        """Refuse empty shards and names that are none.

        Raises:
            ValueError: naming the field and the value.
        """
        check_at_least(self.samples_per_shard, 1, "samples_per_shard")
        if not _PREFIX.match(self.prefix):
            raise ValueError(f"prefix must be letters, digits, '_' and '-', got {self.prefix!r}")


@dataclass(kw_only=True)
class ShardEntry:
    """What the index says about one shard.

    Attributes:
        name: file name.
        samples: number of samples.
        size_bytes: size of the file.
        sha256: digest of the file, hex.
        made_from: digest of the input files' names, sizes and times and of the settings.
        skipped: file of the input -> why it gave no sample.
    """

    name: str
    samples: int
    size_bytes: int
    sha256: str
    made_from: str
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Built:
    """Outcome of a run: shards of this run's range, and those among them that were there."""

    shards: tuple[ShardEntry, ...]
    found_ready: int
    index_written: bool


def build_shards(
    source: SampleSource,
    inputs: Sequence[Path],
    out: Path,
    config: BuildConfig,
    *,
    settings: dict[str, Any],
    shard_range: tuple[int, int] | None = None,
    on_shard: Callable[[ShardEntry, int], None] | None = None,
) -> Built:
    """Write the shards of a data set; those that are there and whole are not made again.

    Args:
        source: the kind of data set, with its settings.
        inputs: files and folders.
        out: folder of the shards; `index.json` is written into it when all are there.
        config: how samples are spread.
        settings: all settings as plain data; a folder made with others is refused.
        shard_range: first shard and the one after the last, to share the work among jobs.
        on_shard: called with each finished shard and the number of shards in all.

    Raises:
        ValueError: nothing to shard, a folder made with other settings or from a larger input,
            or an empty range.
        OSError: disk full and the like; finished shards stay.
    """
    units = source.find(inputs)
    per_shard = max(1, config.samples_per_shard // source.samples_per_unit)
    parts = [units[i : i + per_shard] for i in range(0, len(units), per_shard)]
    names = [f"{config.prefix}-{number:06d}.tar" for number in range(len(parts))]
    first, end = shard_range or (0, len(parts))
    if not 0 <= first < end <= len(parts):
        raise ValueError(
            f"--range: expected START:STOP within 0:{len(parts)}, which is all there is, "
            f"got {first}:{end}"
        )
    _check_folder(out, names, settings)
    entries, ready = [], 0
    for number in range(first, end):
        path = out / names[number]
        made_from = _made_from(source, parts[number], settings)
        entry = _ready(path, made_from)
        ready += entry is not None
        entry = entry or _build(source, parts[number], path, made_from)
        entries.append(entry)
        if on_shard is not None:
            on_shard(entry, len(parts))
    written = _write_index(out, names, settings)
    return Built(shards=tuple(entries), found_ready=ready, index_written=written)


def _build(source: SampleSource, units: Sequence[Unit], path: Path, made_from: str) -> ShardEntry:
    maker = _Members(source, units)
    found = write_tar(path, maker.members())
    entry = ShardEntry(
        name=path.name,
        samples=maker.samples,
        size_bytes=found.size_bytes,
        sha256=found.sha256,
        made_from=made_from,
        skipped=maker.skipped,
    )
    _write(_state(path), asdict(entry))
    return entry


class _Members:
    """Members of one shard, counted as they pass."""

    def __init__(self, source: SampleSource, units: Sequence[Unit]) -> None:
        self._source, self._units = source, units
        self.samples = 0
        self.skipped: dict[str, str] = {}

    def members(self) -> Iterator[tuple[str, bytes]]:
        """Photo, JSON and caption of each sample."""
        for unit in self._units:
            try:
                for sample in self._source.samples(unit):
                    self.samples += 1
                    yield f"{sample.key}.{sample.suffix}", sample.photo
                    facts = {"caption": sample.caption, "source": unit.name, **sample.facts}
                    yield f"{sample.key}.json", _json(facts)
                    if sample.caption:
                        yield f"{sample.key}.txt", sample.caption.encode()
            except PhotoFailure as failure:
                self.skipped[unit.name] = str(failure)


def _made_from(source: SampleSource, units: Sequence[Unit], settings: dict[str, Any]) -> str:
    files = []
    for unit in units:
        name = os.fsencode(unit.name).hex()
        files.append([name, *map(_file_state, (unit.path, *source.companions(unit)))])
    return digest([files, settings])


def _file_state(path: Path) -> list[int]:
    try:
        state = path.stat()
    except OSError:
        return []
    return [state.st_size, state.st_mtime_ns]


def _ready(path: Path, made_from: str) -> ShardEntry | None:
    """The entry of a shard that is there, whole, and made from the same files."""
    try:
        entry = ShardEntry(**json.loads(_state(path).read_text(encoding="utf-8")))
        if entry.made_from != made_from or path.stat().st_size != entry.size_bytes:
            return None
        with path.open("rb") as stream:
            same = hashlib.file_digest(stream, "sha256").hexdigest() == entry.sha256
    except (OSError, ValueError, TypeError):
        return None
    return entry if same else None


def _check_folder(out: Path, names: Sequence[str], settings: dict[str, Any]) -> None:
    """Bind the folder to its settings, or check that it is bound to these."""
    path = out / _STATE_FOLDER / "settings.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        strangers = sorted(p.name for p in out.glob("*.tar")) if out.is_dir() else []
        if strangers:
            raise ValueError(
                f"{out} holds other tars ({strangers[0]}): choose another --out"
            ) from None
        _write(path, settings)
        return
    if known != json.loads(_json(settings)):
        changed = [k for k in {**known, **settings} if known.get(k) != settings.get(k)]
        raise ValueError(
            f"{out} was made with other settings ({', '.join(sorted(changed))}): "
            "choose another --out"
        )
    extra = {p.name for p in out.glob("*.tar")} - set(names)
    if extra:
        raise ValueError(
            f"{out} holds {len(extra)} shards of an earlier, larger input, first {min(extra)}; "
            "delete them or choose another --out"
        )


def _write_index(out: Path, names: Sequence[str], settings: dict[str, Any]) -> bool:
    """Write the index once every shard is there, by whichever job."""
    entries = []
    for name in names:
        try:
            entries.append(json.loads(_state(out / name).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return False
    shards = [{k: v for k, v in e.items() if k not in ("made_from", "skipped")} for e in entries]
    index = {
        "settings": settings,
        "samples": sum(e["samples"] for e in entries),
        "size_bytes": sum(e["size_bytes"] for e in entries),
        "shards": shards,
        "skipped": {k: v for e in entries for k, v in e["skipped"].items()},
    }
    _write(out / INDEX, index)
    return True


def _state(path: Path) -> Path:
    return path.parent / _STATE_FOLDER / f"{path.name}.json"


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()


def _write(path: Path, value: Any) -> None:
    """Write a file that is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"
    try:
        with temporary.open("xb") as stream:
            stream.write(_json(value) + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
