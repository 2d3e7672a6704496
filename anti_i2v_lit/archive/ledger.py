"""The ledger of an output folder: `manifest.jsonl`, one line per photo, the only proof of work."""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from anti_i2v_lit.archive.files import drop_torn_line, sync_folder
from anti_i2v_lit.archive.in_flight import InFlightStore
from anti_i2v_lit.archive.lock import try_lock
from anti_i2v_lit.archive.outputs import OutputsThere, open_output, output_exists
from anti_i2v_lit.archive.row import STATUSES, Row, decode_row, encode_row
from anti_i2v_lit.archive.settings import (
    differences,
    plain,
    read_settings,
    settings_path,
    write_settings,
)
from anti_i2v_lit.archive.stored import StoredRows

__all__ = ["MANIFEST", "STATUSES", "Ledger", "Row"]

MANIFEST = "manifest.jsonl"


class Ledger:
    """Rows of an output folder, appended one by one and never rewritten.

    A line counts once its newline is there. A kill during a write leaves a torn last line, which
    readers drop and the next writer removes. Several processes may append at once.

    Args:
        folder: the output folder; it need not exist before `open` or `append`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / MANIFEST
        self._begins: dict[str, int] = {}
        self._offset = 0
        self._lines = 0
        self._inode: int | None = None
        self._unsynced = False

    @property
    def path(self) -> Path:
        """The manifest file."""
        return self._path

    def open(self, settings: Mapping[str, Any]) -> None:
        """Bind the folder to plain, resolved settings, or check that it is bound to these.

        A folder in which nothing was done yet is bound anew: its settings may just have been
        wrong, such as the path of a model.

        Raises:
            ValueError: the folder was made with other settings (the message lists the fields),
                or the settings are not plain data.
        """
        if not settings_path(self._folder).exists():
            if self.rows():
                raise ValueError(
                    f"{self._path} has rows, but {settings_path(self._folder)} is missing, so "
                    "nobody can tell whether these settings made them. Give another --out."
                )
            write_settings(self._folder, settings)
            return
        different = differences(self.settings(), settings)
        if different and not self.rows() and not InFlightStore(self._folder).peek():
            write_settings(self._folder, settings)
        elif different:
            raise ValueError(
                f"{self._folder} was made with other settings:\n  "
                + "\n  ".join(different)
                + "\nGive another --out for these settings, or run with the folder's own: "
                f"{settings_path(self._folder)}"
            )

    def settings(self) -> dict[str, Any]:
        """Return the settings that the folder is bound to.

        Raises:
            ValueError: there are none, or the file is damaged.
        """
        found: dict[str, Any] = plain(read_settings(self._folder))
        return found

    def rows(self) -> StoredRows:
        """Return key -> last row of that key, in order of first appearance.

        Only lines added since the last call are read here; the rows stay in the file and are read
        again where they are asked for, so that a long ledger takes little memory.

        Raises:
            ValueError: a whole line that is no row; names the line.
        """
        self._catch_up()
        return StoredRows(self._path, dict(self._begins))

    def finished(self) -> set[str]:
        """Return keys that are cloaked and whose output is there.

        Lists each folder and shard once instead of asking for each file; contents are not read
        (see `verify`).
        """
        there = OutputsThere(self._folder)
        return {key for key, output in self.rows().cloaks() if output in there}

    def outputs(self) -> set[str]:
        """Return the outputs that any line names, also one that a later line replaced."""
        try:
            with self._path.open("rb") as stream:
                lines = (json.loads(line) for line in stream if line.endswith(b"\n"))
                return {line["output"] for line in lines if line.get("output")}
        except FileNotFoundError:
            return set()

    def append(self, row: Row) -> None:
        """Add one line and wait until it is on the disk; see `add`."""
        self.add(row)
        self.sync()

    def sync(self) -> None:
        """Wait until the lines that were added are on the disk."""
        if not self._unsynced:
            return
        descriptor = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._unsynced = False

    def add(self, row: Row) -> None:
        """Add one line, which others see at once and a killed process leaves whole.

        After a power cut it is there only if `sync` returned; several lines share one wait.
        A row that says what the last one of its photo says already is not repeated, nor is that
        of a lost cloak that was made again with the same bytes.

        Raises:
            ValueError: the photo is already cloaked and its output is there; a retry is for
                refused and failed photos, lost outputs and changed originals.
            OSError: disk full and the like; the file is then as it was.
        """
        if not row.recorded:
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
            row = replace(row, recorded=now)
        self._folder.mkdir(parents=True, exist_ok=True)
        is_new = not self._path.exists()
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            _lock_and_wait(descriptor)
            drop_torn_line(descriptor)
            self._catch_up()
            self._check_retry(row)
            if self._says_already(row):
                return
            line, state = encode_row(row), os.fstat(descriptor)
            _write_all(descriptor, line)
            self._unsynced = True
            if (state.st_ino, state.st_size) == (self._inode, self._offset):
                self._place(row.key, line)  # by the caller's text, which is in memory already
        finally:
            os.close(descriptor)
        if is_new:
            sync_folder(self._folder)

    def _check_retry(self, row: Row) -> None:
        known = self._known(row.key)
        if known is None or known.status != "cloaked":
            return
        if known.source_sha256 != row.source_sha256:
            return
        if output_exists(self._folder, known.output) and not self._was_made_again(row):
            raise ValueError(
                f"photo {row.key!r} is already in {self._path} as cloaked and its output is "
                "there; it must not be recorded twice"
            )

    def _was_made_again(self, row: Row) -> bool:
        """Whether the output there is the row's own, put in the place of a lost one."""
        with open_output(self._folder, row.output) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == row.output_sha256

    def _says_already(self, row: Row) -> bool:
        known = self._known(row.key)
        if known is None:
            return False
        same = known.status == row.status == "cloaked" and bool(row.output_sha256)
        facts = ("source_sha256", "output", "output_sha256", "config_sha256")
        if same and all(getattr(known, name) == getattr(row, name) for name in facts):
            return True
        return replace(known, recorded=row.recorded) == row

    def _known(self, key: str) -> Row | None:
        return StoredRows(self._path, self._begins).get(key)

    def _catch_up(self) -> None:
        try:
            with self._path.open("rb") as stream:
                state = os.fstat(stream.fileno())
                if state.st_ino != self._inode or state.st_size < self._offset:
                    self._forget(state.st_ino)
                stream.seek(self._offset)
                for line in stream:
                    if not line.endswith(b"\n"):
                        break  # torn, or still being written
                    self._note(line)
        except FileNotFoundError:
            self._forget(None)

    def _note(self, line: bytes) -> None:
        try:
            key = decode_row(line).key
        except ValueError as error:
            raise ValueError(f"{self._path}, line {self._lines + 1}: {error}") from error
        self._place(key, line)

    def _place(self, key: str, line: bytes) -> None:
        self._begins[key] = self._offset
        self._lines += 1
        self._offset += len(line)

    def _forget(self, inode: int | None) -> None:
        self._begins, self._offset, self._lines, self._inode = {}, 0, 0, inode


def _lock_and_wait(descriptor: int) -> None:
    if not try_lock(descriptor, fcntl.LOCK_EX):
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _write_all(descriptor: int, line: bytes) -> None:
    before = os.fstat(descriptor).st_size
    try:
        written = os.write(descriptor, line)
        while written < len(line):
            written += os.write(descriptor, line[written:])
    except OSError:
        os.ftruncate(descriptor, before)
        raise
