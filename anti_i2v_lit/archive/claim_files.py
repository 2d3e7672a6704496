"""Claims as files: who holds which unit of a folder, whatever else is held there.

A unit has a folder `held/<digest of its name>`, and a claim is a file in it whose name is a number,
made by a hard link, which exactly one process can make. The highest number counts and is never
removed, so taking over from a dead run is the same single step as claiming something free: making
the next number. A claim looks at its own unit's folder only.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from anti_i2v_lit.archive.files import STATE_FOLDER, write_whole

_DAY_SECONDS = 86_400.0  # more than clocks of two machines differ
# What file systems without hard links answer.
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP)
# A file that was removed while it was being opened; network file systems say the second.
_GONE = (errno.ENOENT, errno.ESTALE)


@dataclass(frozen=True, kw_only=True)
class Head:
    """The claim that counts for a unit.

    Attributes:
        number: how often the unit was claimed so far; 0: never.
        token: the run that made it; empty: nobody's; None: it is just being written.
    """

    number: int
    token: str | None


_FREE = Head(number=0, token="")


class ClaimFiles:
    """The claims of an output folder.

    Args:
        folder: the output folder; claims lie in `.anti_i2v/held` below it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / STATE_FOLDER / "held"

    def head(self, unit: str, written_before: float) -> Head:
        """The claim that counts for a unit.

        Args:
            unit: its name.
            written_before: a claim that cannot be understood is nobody's if it was last changed
                before this time (seconds since 1970, by the file server's clock). A younger one
                may be half written, on file systems without hard links.

        Raises:
            OSError: the claim cannot be read, so nobody knows whose it is.
        """
        place = self._place(unit)
        number = _highest(place)
        if number == 0:
            return _FREE
        try:
            with (place / str(number)).open("rb") as stream:
                changed, content = os.fstat(stream.fileno()).st_mtime, stream.read()
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return Head(number=number, token="")  # whoever made a higher one removed it
        known = _decoded(content)
        if known is not None:
            return Head(number=number, token=known[0])
        return Head(number=number, token="" if changed < written_before else None)

    def make(self, unit: str, number: int, token: str) -> None:
        """Make a claim, whole, unless somebody else has made it; `head` tells who did."""
        place, content = self._place(unit), _content(unit, token)
        place.mkdir(parents=True, exist_ok=True)
        temporary = place / f".{uuid.uuid4().hex}"
        temporary.write_bytes(content)
        try:
            with contextlib.suppress(FileExistsError):
                os.link(temporary, place / str(number))
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # Memory cards and the like: exclusive as well, but not whole from the first moment.
            target = place / str(number)
            with contextlib.suppress(FileExistsError), target.open("xb") as stream:
                stream.write(content)
        finally:
            temporary.unlink()

    def give_back(self, unit: str, number: int) -> None:
        """Say that a claim is over."""
        write_whole(self._place(unit) / str(number), _content(unit, ""))

    def remove_below(self, unit: str, number: int) -> None:
        """Remove the claims that a unit's present one replaced."""
        if number == 1:
            return
        place = self._place(unit)
        for name in os.listdir(place):
            # Also what a run that was killed between writing and linking has left.
            if (name.isdigit() and int(name) < number) or self._is_abandoned(place / name):
                (place / name).unlink(missing_ok=True)

    def all(self) -> Iterator[tuple[str, str]]:
        """(unit, token) of every claim that counts, in no order; reads all of them."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return
        for name in names:
            place = self._folder / name
            try:
                known = _decoded((place / str(_highest(place))).read_bytes())
            except OSError:
                continue
            if known is not None:
                yield known[1], known[0]

    @staticmethod
    def _is_abandoned(path: Path) -> bool:
        try:
            return path.name.startswith(".") and time.time() - path.stat().st_mtime > _DAY_SECONDS
        except OSError:
            return False

    def _place(self, unit: str) -> Path:
        """A unit's folder; its own name may be too long for one."""
        name = hashlib.sha256(unit.encode(errors="surrogateescape")).hexdigest()[:24]
        return self._folder / name


def _highest(place: Path) -> int:
    try:
        return max((int(name) for name in os.listdir(place) if name.isdigit()), default=0)
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _content(unit: str, token: str) -> bytes:
    return json.dumps({"unit": unit, "token": token}).encode()


def _decoded(content: bytes) -> tuple[str, str] | None:
    """Token and unit; None for what is no claim."""
    try:
        known = json.loads(content)
        return str(known["token"]), str(known["unit"])
    except (ValueError, KeyError, TypeError):
        return None
