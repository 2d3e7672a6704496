"""How far a run is, read from its folder alone; works while the run writes."""

from __future__ import annotations

import datetime
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from anti_i2v_lit.archive.files import STATE_FOLDER
from anti_i2v_lit.archive.in_flight import InFlightStore
from anti_i2v_lit.archive.ledger import STATUSES, Ledger
from anti_i2v_lit.archive.lock import Owner, is_running, read_owner
from anti_i2v_lit.archive.outputs import shard_counts
from anti_i2v_lit.archive.plan import duration_text, read_total
from anti_i2v_lit.archive.reasons import ReasonGroup, group_reasons
from anti_i2v_lit.archive.row import Row

# Rate over the last photos only: it follows a change of load, and batches even out.
_WINDOW_PHOTOS = 200


@dataclass(frozen=True, kw_only=True)
class InFlight:
    """A group in the middle of its loop: its photos and the stored step (None: not known)."""

    keys: tuple[str, ...]
    step: int | None


@dataclass(frozen=True, kw_only=True)
class Status:
    """State of an output folder.

    Attributes:
        folder: the output folder.
        counts: status -> number of photos; every status is there.
        in_flight: groups with stored progress.
        running: a run holds the folder now.
        owner: who holds or last held it.
        total: photos of the run, when known.
        photos_per_hour: cloaked photos per hour of the present or last run; None before the
            first one.
        seconds_left: time for the rest at that rate, when the total is known.
        reasons: refusals and failures.
        shards: shards that are written, and shards that are begun.
    """

    folder: Path
    counts: dict[str, int]
    in_flight: tuple[InFlight, ...]
    running: bool
    owner: Owner | None
    total: int | None
    photos_per_hour: float | None
    seconds_left: float | None
    reasons: tuple[ReasonGroup, ...]
    shards: tuple[int, int] = (0, 0)

    def render(self) -> str:
        """The status as text for a terminal."""
        recorded = sum(self.counts.values())
        of = f" of {self.total}" if self.total is not None else ""
        state = f"running ({self.owner})" if self.running else "not running"
        lines = [
            f"{self.folder}: {state}",
            f"recorded   {recorded}{of}: "
            + ", ".join(f"{self.counts[name]} {name}" for name in STATUSES),
        ]
        if any(self.shards):
            lines.append(f"shards     {self.shards[0]} written, {self.shards[1]} begun")
        if self.photos_per_hour is not None:
            lines.append(f"speed      {self.photos_per_hour:.1f} photos per hour")
        if self.seconds_left is not None and self.seconds_left > 0:
            lines.append(f"time left  about {duration_text(self.seconds_left)}")
        for group in self.in_flight:
            step = f"at step {group.step}" if group.step is not None else "step unknown"
            lines.append(f"in flight  {', '.join(group.keys)} {step}")
        for reason in self.reasons:
            lines.append(f"{reason.status:<10} {len(reason.keys)} x {reason.reason}")
            lines += [f"           {key}" for key in reason.keys[:5]]
            if len(reason.keys) > 5:
                lines.append(f"           and {len(reason.keys) - 5} more")
        # Keys may hold bytes that are not UTF-8; a terminal must still take the text.
        return "\n".join(lines).encode(errors="backslashreplace").decode()


def status(folder: Path, total: int | None = None) -> Status:
    """Read the state of an output folder; writes nothing.

    Args:
        folder: the output folder.
        total: photos of the run; by default what the run itself noted.

    Raises:
        ValueError: no such folder, one that no run wrote to, or a manifest that is damaged in its
            middle.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give the --out of a run")
    if not Ledger(folder).path.exists() and not (folder / STATE_FOLDER).exists():
        raise ValueError(f"{folder} holds no manifest; give the --out of a run")
    rows = Ledger(folder).rows()
    counts = Counter(row.status for row in rows.values())
    owner = read_owner(folder)
    total = read_total(folder) if total is None else total
    speed = _photos_per_hour(list(rows.values()), owner)
    left = None
    if total is not None and speed:
        left = max(0, total - len(rows)) / speed * 3600
    return Status(
        folder=folder,
        counts={name: counts[name] for name in STATUSES},
        in_flight=_in_flight(folder),
        running=is_running(folder),
        owner=owner,
        total=total,
        photos_per_hour=speed,
        seconds_left=left,
        reasons=tuple(group_reasons(rows.values())),
        shards=shard_counts(folder),
    )


def _in_flight(folder: Path) -> tuple[InFlight, ...]:
    found = []
    for glimpse in InFlightStore(folder).peek():
        step = glimpse.facts.get("step")
        found.append(InFlight(keys=glimpse.keys, step=step if isinstance(step, int) else None))
    return tuple(found)


def _photos_per_hour(rows: list[Row], owner: Owner | None) -> float | None:
    """Wall-clock rate since the run's start, else from the seconds that the rows state."""
    cloaked = [row for row in rows if row.status == "cloaked"]
    if owner is not None:
        begin = owner.started_seconds()
        times = sorted(t for t in map(_recorded_seconds, cloaked) if t is not None and t >= begin)
        if len(times) > _WINDOW_PHOTOS:
            begin = times[-_WINDOW_PHOTOS - 1]
            times = times[-_WINDOW_PHOTOS:]
        if times and times[-1] > begin:
            return 3600 * len(times) / (times[-1] - begin)
    seconds = sum(row.seconds for row in cloaked[-_WINDOW_PHOTOS:])
    return 3600 * len(cloaked[-_WINDOW_PHOTOS:]) / seconds if seconds > 0 else None


def _recorded_seconds(row: Row) -> float | None:
    try:
        return datetime.datetime.fromisoformat(row.recorded).timestamp()
    except ValueError:
        return None
