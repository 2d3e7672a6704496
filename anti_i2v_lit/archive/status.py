"""How far all runs of a folder are, read from it alone; works while they write."""

from __future__ import annotations

import datetime
from array import array
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anti_i2v_lit.archive.files import STATE_FOLDER
from anti_i2v_lit.archive.in_flight import InFlightStore
from anti_i2v_lit.archive.ledger import STATUSES, Ledger
from anti_i2v_lit.archive.lock import held_by
from anti_i2v_lit.archive.members import Members
from anti_i2v_lit.archive.outputs import shard_counts
from anti_i2v_lit.archive.plan import (
    duration_text,
    known_members,
    read_total,
    uncounted_units,
)
from anti_i2v_lit.archive.reasons import ReasonGroup, Reasons
from anti_i2v_lit.archive.row import Row
from anti_i2v_lit.archive.runs import Owner, Sighting, sightings

# Rate over the last photos only: it follows a change of load, and batches even out.
_WINDOW_PHOTOS = 200
_SHOWN_UNITS = 4
_SHOWN_KEYS = 5


@dataclass(frozen=True, kw_only=True)
class InFlight:
    """A group in the middle of its loop, as it was last saved.

    Attributes:
        keys: its photos.
        step: the stored step; None: not known.
        where: node, job and task that saved it, and when; empty: not known.
    """

    keys: tuple[str, ...]
    step: int | None
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A living run.

    Attributes:
        owner: the run.
        units: the shards that it holds, or "files".
    """

    owner: Owner
    units: tuple[str, ...]

    def __str__(self) -> str:
        shown = ", ".join(self.units[:_SHOWN_UNITS])
        more = f" and {len(self.units) - _SHOWN_UNITS} more" * (len(self.units) > _SHOWN_UNITS)
        devices = self.owner.place.devices
        on = f"{devices} x {self.owner.place.accelerator}"
        return f"{self.owner}, {on}: {shown or 'starting'}{more}"


@dataclass(frozen=True, kw_only=True)
class Status:
    """State of an output folder.

    Attributes:
        folder: the output folder.
        counts: status -> number of photos that belong to the whole; every status is there.
        in_flight: groups with stored progress.
        running: a run holds the folder now.
        owner: who holds or last held it.
        total: photos of the run, when known; of the units that were counted.
        uncounted: units, such as shards, that belong to the whole and that no run has looked into.
        photos_per_hour: cloaked photos per hour of the present or last run; None before the
            first one.
        seconds_left: time for the rest at that rate, when the total is known.
        reasons: refusals and failures.
        shards: shards that are written, and shards that are begun.
        workers: living runs and what they hold.
        accelerator: what all runs worked on, "cuda" or "cpu"; "device" for a mixture.
        hours_spent: hours of all runs times their devices, loading and lost work included.
        hours_left: the same for the rest, at what a photo took so far; None before the first.
        strangers: photos with a row that no run's input holds any more: renamed or removed.
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
    workers: tuple[Worker, ...] = ()
    accelerator: str = "device"
    hours_spent: float = 0.0
    hours_left: float | None = None
    uncounted: int = 0
    strangers: int = 0

    @property
    def complete(self) -> bool:
        """Whether every photo has its row and no shard is left to write."""
        return (
            self.total is not None
            and self.uncounted == 0
            and sum(self.counts.values()) >= self.total
            and self.shards[1] == 0
        )

    def render(self) -> str:
        """The status as text for a terminal."""
        recorded = sum(self.counts.values())
        least, about = ("at least ", "at least") if self.uncounted else ("", "about")
        of = f" of {least}{self.total}" if self.total is not None else ""
        state = f"running ({self.owner})" if self.running else "not running"
        lines = [
            f"{self.folder}: {state}",
            f"recorded   {recorded}{of}: "
            + ", ".join(f"{self.counts[name]} {name}" for name in STATUSES),
        ]
        if self.uncounted:
            lines.append(f"not begun  {self.uncounted} shards that no run has looked into")
        if self.strangers:
            lines.append(f"besides    {self.strangers} photos that are not in the input any more")
        if any(self.shards):
            lines.append(f"shards     {self.shards[0]} written, {self.shards[1]} begun")
        if self.photos_per_hour is not None:
            lines.append(f"speed      {self.photos_per_hour:.1f} photos per hour")
        if self.seconds_left is not None and self.seconds_left > 0:
            lines.append(f"time left  {about} {duration_text(self.seconds_left)}")
        if self.hours_spent > 0:
            left = "" if self.hours_left is None else f", {about} {self.hours_left:.2f} to go"
            name = "GPU" if self.accelerator == "cuda" else self.accelerator
            lines.append(f"{name} hours".ljust(11) + f"{self.hours_spent:.2f} spent{left}")
        lines += [f"run        {worker}" for worker in self.workers]
        for group in self.in_flight:
            step = f"at step {group.step}" if group.step is not None else "step unknown"
            lines.append(f"in flight  {', '.join(group.keys)} {step}{group.where}")
        for reason in self.reasons:
            lines.append(f"{reason.status:<10} {reason.count} x {reason.reason}")
            lines += [f"           {key}" for key in reason.keys[:_SHOWN_KEYS]]
            if reason.count > _SHOWN_KEYS:
                lines.append(f"           and {reason.count - _SHOWN_KEYS} more")
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
    tally = _Tally(rows.values(), known_members(folder) if total is None else None)
    runs = sightings(folder)
    living = [run for run in runs if run.living]
    total = read_total(folder) if total is None else total
    # Several runs at once count from the start of the first; without any, the last one counts.
    first = (living or runs[-1:])[:1]
    speed = tally.photos_per_hour(first[0].owner if first else None)
    spent = sum(run.seconds * run.owner.place.devices for run in runs) / 3600
    remaining = max(0, total - len(rows) + tally.strangers) if total is not None else None
    left = None
    if remaining is not None and speed:
        left = remaining / speed * 3600
    return Status(
        folder=folder,
        counts={name: tally.counts[name] for name in STATUSES},
        in_flight=_in_flight(folder),
        running=bool(living),
        owner=(living or runs)[-1].owner if runs else None,
        total=total,
        photos_per_hour=speed,
        seconds_left=left,
        reasons=tuple(tally.reasons.groups()),
        shards=shard_counts(folder),
        workers=_workers(folder, living),
        accelerator=_accelerator(runs),
        hours_spent=spent,
        hours_left=spent / len(rows) * remaining if rows and remaining is not None else None,
        uncounted=uncounted_units(folder),
        strangers=tally.strangers,
    )


def _workers(folder: Path, living: list[Sighting]) -> tuple[Worker, ...]:
    units = held_by(folder) if living else {}
    return tuple(
        Worker(owner=run.owner, units=tuple(units.get(run.owner.token, ()))) for run in living
    )


def _accelerator(runs: list[Sighting]) -> str:
    kinds = {run.owner.place.accelerator for run in runs}
    return kinds.pop() if len(kinds) == 1 else "device"


def _in_flight(folder: Path) -> tuple[InFlight, ...]:
    found = []
    for glimpse in InFlightStore(folder).peek():
        step = glimpse.facts.get("step")
        known = step if isinstance(step, int) else None
        found.append(InFlight(keys=glimpse.keys, step=known, where=_where(glimpse.facts)))
    return tuple(found)


def _where(facts: dict[str, Any]) -> str:
    """Node, job, task and time of the last save, as text that follows the step."""
    place = facts.get("where")
    if not isinstance(place, dict):
        return ""
    job = f", job {place['job']}" if place.get("job") else ""
    return f" on {place.get('node')}{job}, task {place.get('task')}, saved {place.get('saved')}"


class _Tally:
    """What is taken from all rows; reads each once and keeps none.

    Args:
        rows: the last row of each photo.
        members: photos that belong to the whole; None: not known, all count.
    """

    def __init__(self, rows: Iterable[Row], members: Members | None) -> None:
        self.counts: Counter[str] = Counter()
        self.strangers = 0
        self.reasons = Reasons(keys_kept=_SHOWN_KEYS)
        self._times = array("d")
        self._seconds: deque[float] = deque(maxlen=_WINDOW_PHOTOS)
        for row in rows:
            if members is not None and row.key not in members:
                self.strangers += 1
                continue
            self.counts[row.status] += 1
            if row.status != "cloaked":
                self.reasons.add(row)
                continue
            self._seconds.append(row.seconds)
            recorded = _recorded_seconds(row)
            if recorded is not None:
                self._times.append(recorded)

    def photos_per_hour(self, owner: Owner | None) -> float | None:
        """Wall-clock rate since the run's start, else from the seconds that the rows state."""
        if owner is not None:
            begin = owner.started_seconds()
            times = sorted(time for time in self._times if time >= begin)
            if len(times) > _WINDOW_PHOTOS:
                begin = times[-_WINDOW_PHOTOS - 1]
                times = times[-_WINDOW_PHOTOS:]
            if times and times[-1] > begin:
                return 3600 * len(times) / (times[-1] - begin)
        seconds = sum(self._seconds)
        return 3600 * len(self._seconds) / seconds if seconds > 0 else None


def _recorded_seconds(row: Row) -> float | None:
    try:
        return datetime.datetime.fromisoformat(row.recorded).timestamp()
    except ValueError:
        return None
