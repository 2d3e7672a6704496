"""What a run holds of a folder: shards, or all photos outside shards; nobody else writes those.

`claim_files` says how a claim is made; whether its owner lives is told by `runs`.
"""

from __future__ import annotations

import errno
import fcntl
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from anti_i2v_lit.archive.claim_files import ClaimFiles
from anti_i2v_lit.archive.runs import (
    LEASE_SECONDS,
    Owner,
    RunRecord,
    Workplace,
    lives,
    read_record,
    sightings,
)

# Photos outside shards are one unit: they have no borders that two runs could agree on.
FILES = "files"
_STARTING = "starting"
_START_SECONDS = 600.0
_RETRY_SECONDS = 0.1
# File systems mounted without locks (Lustre without -o flock, some FUSE) answer with these.
_UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


class FolderInUse(ValueError):
    """Another run holds what this one needs; the message names its process, host and job."""


class Claims:
    """Context manager: a run of an output folder, and what it holds there.

    Args:
        folder: the output folder; created with its state folder.
        place: where the run takes place.
        lease_seconds: silence after which a run on another machine counts as dead.
    """

    def __init__(
        self,
        folder: Path,
        place: Workplace | None = None,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._folder, self._files = folder, ClaimFiles(folder)
        self._place, self._lease_seconds = place or Workplace(), lease_seconds
        self._record = RunRecord(folder, self._place, lease_seconds, self._after_silence)
        self._held: dict[str, int] = {}
        self.lost = False

    def __enter__(self) -> Claims:
        """Register the run."""
        self._record.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the run; what it held is free at once."""
        self._record.__exit__(kind, error, trace)

    @property
    def owner(self) -> Owner:
        """This run, as others see it."""
        return self._record.owner

    @contextmanager
    def starting(self, wait_seconds: float = _START_SECONDS) -> Iterator[None]:
        """Let only one run at a time look at the folder, tidy it and choose its work.

        Raises:
            FolderInUse: another run has been starting for too long.
        """
        deadline = time.monotonic() + wait_seconds
        while others := self._take([_STARTING]):
            if time.monotonic() > deadline:
                raise FolderInUse(
                    f"{self._folder}: another run is starting ({others[_STARTING]}); "
                    "wait until it works, or stop it"
                )
            time.sleep(_RETRY_SECONDS)
        try:
            yield
        finally:
            self._files.give_back(_STARTING, self._held.pop(_STARTING))

    def claim(self, units: Sequence[str]) -> dict[str, Owner]:
        """Take what is free, or was held by a dead run; returns the owners of the rest.

        A run on another machine that was just seen may be dead already, so this waits until its
        record is touched again or its lease is over.
        """
        first_seen: dict[str, float] = {}
        while True:
            others = self._take(units)
            known = {unit: owner for unit, owner in others.items() if owner is not None}
            owners = {owner.token: owner for owner in known.values()}
            silent = [owner for owner in owners.values() if self._is_silent(owner, first_seen)]
            if len(known) == len(others) and not silent:
                return known
            time.sleep(_RETRY_SECONDS)

    def alone(self) -> bool:
        """Whether no other run of the folder lives."""
        now = self._record.touch()
        found = [s for s in sightings(self._folder) if s.owner.token != self.owner.token]
        return not any(self._lives(s.owner, s.touched, now) for s in found)

    def still_held(self) -> bool:
        """Whether nobody has taken anything over from this run.

        Raises:
            OSError: a claim cannot be read, so nobody knows.
        """
        mine = self.owner.token
        # A copy: the lease's thread asks this while the run goes on claiming.
        return all(self._files.head(unit, 0.0).token == mine for unit in list(self._held))

    def _after_silence(self) -> None:
        self.lost = self.lost or not self.still_held()

    def _is_silent(self, owner: Owner, first_seen: dict[str, float]) -> bool:
        """Whether a run elsewhere has given no sign of life since it was first seen here."""
        known = read_record(self._folder, owner.token)
        if known is None or owner.is_beside(self.owner):
            return False
        return first_seen.setdefault(owner.token, known[1]) == known[1]

    def _take(self, units: Sequence[str]) -> dict[str, Owner | None]:
        """One try at every unit that is not held.

        Returns:
            The owner of each unit that could not be had; None where it changed hands meanwhile.
        """
        now = self._record.touch()
        living: dict[str, Owner | None] = {"": None}
        others: dict[str, Owner | None] = {}
        for unit in [unit for unit in units if unit not in self._held]:
            head = self._files.head(unit, now - self._lease_seconds)
            if head.token is None:
                others[unit] = None
                continue
            if head.token not in living:
                living[head.token] = self._living(head.token, now)
            if living[head.token] is not None:
                others[unit] = living[head.token]
                continue
            self._files.make(unit, head.number + 1, self.owner.token)
            head = self._files.head(unit, now - self._lease_seconds)
            if head.token == self.owner.token:
                self._held[unit] = head.number
                self._files.remove_below(unit, head.number)
            else:
                others[unit] = self._living(head.token, now)
        return others

    def _living(self, token: str | None, now: float) -> Owner | None:
        known = read_record(self._folder, token) if token else None
        return known[0] if known is not None and self._lives(*known, now) else None

    def _lives(self, owner: Owner, touched: float, now: float) -> bool:
        return lives(owner, touched, now, self._lease_seconds, self._place)


def held_by(folder: Path) -> Mapping[str, list[str]]:
    """Token of a run -> the units that it holds or held last; for reports."""
    held: dict[str, list[str]] = {}
    for unit, token in ClaimFiles(folder).all():
        if token and unit != _STARTING:
            held.setdefault(token, []).append(unit)
    return {token: sorted(units) for token, units in held.items()}


def try_lock(descriptor: int, operation: int) -> bool:
    """Try to take a `flock` without waiting; False when somebody else holds it.

    Where the file system has no locks this warns and answers True: refusing to work there would
    help nobody, but the user must know that two runs at once are not caught.
    """
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        warnings.warn(
            f"this file system has no file locks ({error.strerror}); "
            "make sure that only one run at a time writes to the folder",
            stacklevel=2,
        )
    return True


def is_running(folder: Path) -> bool:
    """Whether any run of the folder lives."""
    return any(sighting.living for sighting in sightings(folder))


def read_owner(folder: Path) -> Owner | None:
    """The latest run that lives, else the latest; None when there was none."""
    found = sightings(folder)
    living = [sighting.owner for sighting in found if sighting.living]
    if living:
        return living[-1]
    return found[-1].owner if found else None
