"""One run per output folder at a time, held by the kernel and so released by a kill -9 too."""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from anti_i2v_lit.archive.files import STATE_FOLDER

# File systems mounted without locks (Lustre without -o flock, some FUSE) answer with these.
_UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_RETRY_SECONDS = 0.05


class FolderInUse(ValueError):
    """Another run holds the folder; the message names its process and host."""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Who holds, or last held, a folder.

    Attributes:
        pid: process id on `host`.
        host: host name.
        started: ISO 8601 time in UTC at which the run took the lock.
    """

    pid: int
    host: str
    started: str

    def started_seconds(self) -> float:
        """The start as seconds since 1970."""
        return datetime.datetime.fromisoformat(self.started).timestamp()

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.started}"


def lock_path(folder: Path) -> Path:
    """Where the lock of an output folder lies."""
    return folder / STATE_FOLDER / "lock"


class FolderLock:
    """Context manager that makes this process the only run of an output folder.

    `flock` and not `lockf`: a POSIX record lock would be lost as soon as anything in the process
    opened and closed the same file. The descriptor is closed in forked children (data-loader
    workers), so that a child which outlives a killed run does not keep the folder locked.

    Args:
        folder: the output folder; created with its state folder.
        wait_seconds: how long to try; a little by default, because `status` holds the lock
            for an instant when it looks.
    """

    def __init__(self, folder: Path, wait_seconds: float = 1.0) -> None:
        self._path = lock_path(folder)
        self._folder = folder
        self._wait_seconds = wait_seconds
        self._descriptor: int | None = None
        os.register_at_fork(after_in_child=self._close)

    def __enter__(self) -> FolderLock:
        """Take the lock.

        Raises:
            FolderInUse: another run holds it (also another lock object of this process).
        """
        assert self._descriptor is None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._take(descriptor)
            started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            owner = Owner(pid=os.getpid(), host=socket.gethostname(), started=started)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(asdict(owner)).encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the lock back; the file stays and names the last owner."""
        if self._descriptor is not None:
            # Not only closed: a child forked an instant ago may not have closed its copy yet.
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._close()

    def _take(self, descriptor: int) -> None:
        deadline = time.monotonic() + self._wait_seconds
        while not try_lock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                owner = read_owner(self._folder)
                raise FolderInUse(
                    f"{self._folder} is in use by another run ({owner or 'owner unknown'}). "
                    "Wait until it ends, stop it, or give another --out."
                )
            time.sleep(_RETRY_SECONDS)

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


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
    """Whether a run holds the folder now."""
    try:
        descriptor = os.open(lock_path(folder), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def read_owner(folder: Path) -> Owner | None:
    """The present or last owner; None when there was none or it is just being written."""
    try:
        return Owner(**json.loads(lock_path(folder).read_text()))
    except (OSError, ValueError, TypeError):
        return None
