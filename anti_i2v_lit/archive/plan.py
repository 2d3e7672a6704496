"""Before a run: what would be done, what would be refused, and what it would cost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from anti_i2v_lit.archive.files import STATE_FOLDER, write_whole
from anti_i2v_lit.archive.members import Members, read_members, record_members
from anti_i2v_lit.checks import check_at_least

_SHOWN_REFUSALS = 20


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A file that a run would take.

    Attributes:
        key: stable name of the photo.
        format: "JPEG", "PNG" and so on; "" when unknown.
        size_bytes: size of the file.
        pixels: width times height.
        refusal: why it would be refused; empty when it would be cloaked.
    """

    key: str
    format: str = ""
    size_bytes: int = 0
    pixels: int = 0
    refusal: str = ""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Measured or assumed costs that an estimate is made from.

    Attributes:
        seconds_per_photo: time of one photo on one device, s.
        devices: photos are spread over this many devices.
        batch_size: photos in flight per device.
        fixed_bytes: memory of model and program, bytes.
        bytes_per_photo: memory of one photo in flight at canvas size, bytes.
        bytes_per_pixel: memory of one photo at full size while it is written, bytes per pixel.
        size_growth: size of an output file in units of its original.
    """

    seconds_per_photo: float
    devices: int = 1
    batch_size: int = 1
    fixed_bytes: int = 0
    bytes_per_photo: int = 0
    bytes_per_pixel: float = 64.0
    size_growth: float = 1.5

    def __post_init__(self) -> None:
        check_at_least(self.seconds_per_photo, 0, "seconds_per_photo")
        check_at_least(self.devices, 1, "devices")
        check_at_least(self.batch_size, 1, "batch_size")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run would do.

    Attributes:
        formats: format -> number of photos that would be cloaked or already are.
        refusals: (key, reason) of the others.
        done: photos that an earlier run finished.
        remaining: photos still to cloak.
        seconds: time for the remaining ones.
        memory_bytes: peak of one process.
        disk_bytes: what the remaining outputs will take.
        free_bytes: free space at the output folder; None when not asked for.
    """

    formats: dict[str, int]
    refusals: tuple[tuple[str, str], ...]
    done: int
    remaining: int
    seconds: float
    memory_bytes: int
    disk_bytes: int
    free_bytes: int | None = None

    def render(self) -> str:
        """The plan as text for a terminal."""
        formats = ", ".join(f"{n} {f or 'unknown'}" for f, n in sorted(self.formats.items()))
        lines = [
            f"photos     {sum(self.formats.values())} ({formats or 'none'})",
            f"done       {self.done}",
            f"to cloak   {self.remaining}",
            f"time       about {duration_text(self.seconds)}",
            f"memory     about {bytes_text(self.memory_bytes)} per process",
            f"disk       about {bytes_text(self.disk_bytes)}" + self._free_text(),
            f"refused    {len(self.refusals)}",
        ]
        lines += [f"  {key}: {reason}" for key, reason in self.refusals[:_SHOWN_REFUSALS]]
        if len(self.refusals) > _SHOWN_REFUSALS:
            lines.append(f"  and {len(self.refusals) - _SHOWN_REFUSALS} more")
        return "\n".join(lines)

    def _free_text(self) -> str:
        if self.free_bytes is None:
            return ""
        short = "" if self.free_bytes >= self.disk_bytes else ": NOT ENOUGH"
        return f" of {bytes_text(self.free_bytes)} free{short}"


def make_plan(
    candidates: Iterable[Candidate],
    finished: set[str],
    costs: Costs,
    free_bytes: int | None = None,
) -> Plan:
    """Add up a dry run.

    Args:
        candidates: all files that were found.
        finished: keys that need no work (`Ledger.finished`).
        costs: what one photo takes.
        free_bytes: free space at the output folder.
    """
    taken = list(candidates)
    good = [c for c in taken if not c.refusal]
    todo = [c for c in good if c.key not in finished]
    largest = max((c.pixels for c in todo), default=0)
    in_flight = min(costs.batch_size, len(todo))
    return Plan(
        formats=dict(Counter(c.format for c in good)),
        refusals=tuple((c.key, c.refusal) for c in taken if c.refusal),
        done=len(good) - len(todo),
        remaining=len(todo),
        seconds=len(todo) * costs.seconds_per_photo / min(costs.devices, max(1, len(todo))),
        memory_bytes=round(
            costs.fixed_bytes + in_flight * costs.bytes_per_photo + largest * costs.bytes_per_pixel
        ),
        disk_bytes=round(sum(c.size_bytes for c in todo) * costs.size_growth),
        free_bytes=free_bytes,
    )


def record_total(
    folder: Path, keys: Mapping[str, Collection[str]], expected: Collection[str] = ()
) -> None:
    """Note which photos there are in all, so that `status` can tell what is left.

    Args:
        folder: the output folder.
        keys: unit of work, such as a shard -> its photos; joins what other runs noted.
        expected: units that belong to the whole, whoever works on them; joins likewise.
    """
    before = _read_totals(folder)
    for unit, names in keys.items():
        record_members(folder, unit, names)
    photos = {unit: len(set(names)) for unit, names in keys.items()}
    known = _Totals(
        photos={**before.photos, **photos}, expected=before.expected.union(photos, expected)
    )
    if known != before:
        facts = {"photos": known.photos, "expected": sorted(known.expected)}
        write_whole(_total_path(folder), json.dumps(facts).encode())


def read_total(folder: Path) -> int | None:
    """How many photos all runs so far have in all; None when nobody noted it."""
    known = _read_totals(folder).photos
    return sum(known.values()) if known else None


def known_members(folder: Path) -> Members | None:
    """The photos of all units; None where nobody noted more than their number, or nothing."""
    units = _read_totals(folder).photos
    return read_members(folder, units) if units else None


def uncounted_units(folder: Path) -> int:
    """Units that belong to the whole and that no run has looked into yet."""
    known = _read_totals(folder)
    return len(known.expected - known.photos.keys())


@dataclass(frozen=True, kw_only=True)
class _Totals:
    """Photos of the units that were counted, and all units; the former alone in older files."""

    photos: dict[str, int]
    expected: frozenset[str]


def _read_totals(folder: Path) -> _Totals:
    try:
        found = json.loads(_total_path(folder).read_text())
        photos = {str(unit): int(count) for unit, count in found["photos"].items()}
        return _Totals(photos=photos, expected=frozenset(found.get("expected", photos)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return _Totals(photos={}, expected=frozenset())


def duration_text(seconds: float) -> str:
    """Seconds as "3 d 4 h", "2 h 5 min", "4 min 10 s" or "9 s"."""
    whole = round(seconds)
    for unit, sub, size, sub_size in (("d", "h", 86400, 3600), ("h", "min", 3600, 60)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // sub_size} {sub}"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def bytes_text(count: float) -> str:
    """Bytes in decimal units, "1.4 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _total_path(folder: Path) -> Path:
    return folder / STATE_FOLDER / "total.json"
