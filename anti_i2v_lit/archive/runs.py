"""Who works on a folder: one record per run, kept fresh while the run lives (a lease).

Runs on several nodes share a file system and nothing else, so whether a run lives is told from its
record: on the same machine by its process, anywhere by how long ago the record was touched.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType

from anti_i2v_lit.archive.files import STATE_FOLDER

LEASE_SECONDS = 120.0
# Beats per lease: several may be lost or late (network file systems cache for up to 60 s).
_BEATS = 8


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where a run takes place; empty texts where there is no batch system.

    Attributes:
        job: SLURM job, "1234" or "1234_7".
        restart: how often SLURM has started this job again.
        devices: devices that work, over all nodes.
        accelerator: "cuda", "cpu" or what else Lightning calls it.
    """

    job: str = ""
    restart: int = 0
    devices: int = 1
    accelerator: str = "cpu"

    def is_later_life_of(self, other: Workplace) -> bool:
        """Whether SLURM started the other's job again, here."""
        return bool(self.job) and self.job == other.job and self.restart > other.restart


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A run of a folder, present or past.

    Attributes:
        token: unique name of the run.
        pid: process id on `host`.
        host: host name.
        started: ISO 8601 time in UTC.
        space: names the kernel and process namespace in which `pid` means something.
        birth: start time of the process, which tells it from a later one with the same id.
        place: where it takes place.
        ended: ISO 8601 time in UTC at which it ended by itself; empty for one that did not.
    """

    token: str
    pid: int
    host: str
    started: str
    space: str = ""
    birth: str = ""
    place: Workplace = Workplace()
    ended: str = ""

    def started_seconds(self) -> float:
        """The start as seconds since 1970."""
        return datetime.datetime.fromisoformat(self.started).timestamp()

    def is_beside(self, other: Owner) -> bool:
        """Whether both see each other's processes."""
        return self.host == other.host and self.space == other.space

    def __str__(self) -> str:
        job = f", job {self.place.job}" if self.place.job else ""
        return f"process {self.pid} on {self.host}{job}, since {self.started}"


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """A run's record as it was found.

    Attributes:
        owner: the run.
        touched: when its record was last touched, seconds since 1970 by the file server's clock.
        living: whether the run lives, as far as one can tell.
    """

    owner: Owner
    touched: float
    living: bool

    @property
    def seconds(self) -> float:
        """Wall-clock time from its start to its last sign of life."""
        return max(0.0, self.touched - self.owner.started_seconds())


def runs_folder(folder: Path) -> Path:
    """Where the records of an output folder lie."""
    return folder / STATE_FOLDER / "runs"


def sightings(folder: Path, lease_seconds: float = LEASE_SECONDS) -> list[Sighting]:
    """All runs of a folder, oldest first; writes nothing, and so goes by this machine's clock."""
    try:
        names = [n for n in os.listdir(runs_folder(folder)) if n.endswith(".json") and n[0] != "."]
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        known = read_record(folder, name.removesuffix(".json"))
        if known is not None:
            owner, touched = known
            living = lives(owner, touched, time.time(), lease_seconds)
            found.append(Sighting(owner=owner, touched=touched, living=living))
    return sorted(found, key=lambda sighting: sighting.owner.started)


def read_record(folder: Path, token: str) -> tuple[Owner, float] | None:
    """A run and the time of its last sign of life; None for a missing or damaged record."""
    try:
        # Opened, not only asked for its state: network file systems look again when opening.
        with (runs_folder(folder) / f"{token}.json").open("rb") as stream:
            touched = os.fstat(stream.fileno()).st_mtime
            known = json.load(stream)
        return Owner(**{**known, "place": Workplace(**known["place"])}), touched
    except (OSError, ValueError, TypeError, KeyError):
        return None


def lives(
    owner: Owner,
    touched: float,
    now: float,
    lease_seconds: float,
    asking: Workplace | None = None,
) -> bool:
    """Whether a run still works.

    Args:
        owner: the run.
        touched: its last sign of life, by the file server's clock.
        now: the present, by the same clock.
        lease_seconds: silence after which a run elsewhere counts as dead.
        asking: where the question comes from: SLURM starts a job again only when its earlier
            life is over.
    """
    if owner.ended:
        return False
    if owner.host == socket.gethostname() and owner.space == _space():
        return _is_process(owner)
    if asking is not None and asking.is_later_life_of(owner.place):
        return False
    return now - touched <= lease_seconds


class RunRecord:
    """Context manager: this process is a run of the folder, and says so until it ends.

    Args:
        folder: the output folder; created with its state folder.
        place: where the run takes place.
        lease_seconds: silence after which others take this run for dead.
        on_silence: called when this run itself was silent for that long (suspended, or the file
            system was away): others may have taken over.
    """

    def __init__(
        self,
        folder: Path,
        place: Workplace,
        lease_seconds: float = LEASE_SECONDS,
        on_silence: Callable[[], None] = lambda: None,
    ) -> None:
        self._lease_seconds, self._on_silence = lease_seconds, on_silence
        pid = os.getpid()
        self.owner = Owner(
            token=secrets.token_hex(8),
            pid=pid,
            host=socket.gethostname(),
            started=_now(),
            space=_space(),
            birth=_birth(pid),
            place=place,
        )
        self.path = runs_folder(folder) / f"{self.owner.token}.json"
        self._over = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> RunRecord:
        """Write the record and keep touching it."""
        self._write(self.owner)
        self._beating.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Say that the run is over; everything it held is free at once."""
        self._over.set()
        self._beating.join()
        self._write(replace(self.owner, ended=_now()))

    def touch(self) -> float:
        """Give a sign of life; returns the file server's time."""
        os.utime(self.path)
        return self.path.stat().st_mtime

    def _write(self, owner: Owner) -> None:
        # Not by a name that marks temporary files: another run, which does not know of this one
        # until the record is there, may be sweeping those up.
        temporary = self.path.with_suffix(".new")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(asdict(owner)), encoding="utf-8")
        os.replace(temporary, self.path)

    def _beat(self) -> None:
        last = time.monotonic()
        while not self._over.wait(self._lease_seconds / _BEATS):
            # What fails is tried again at the next beat; a silence counts until it was answered.
            with contextlib.suppress(OSError):
                self.touch()
                now = time.monotonic()
                if now - last > self._lease_seconds:
                    self._on_silence()
                last = now


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def _space() -> str:
    """Kernel and process namespace; empty where they have no names."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _birth(pid: int) -> str:
    """Start time of a process that is no zombie; empty where /proc is not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _is_process(owner: Owner) -> bool:
    if owner.birth:
        return _birth(owner.pid) == owner.birth
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
