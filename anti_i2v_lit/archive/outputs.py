"""Where a cloak lies: a file of the output folder, or a member of one of its shards.

The cloak of a photo from a shard is recorded as `portraits-000003.tar/000017.jpg`. Until the shard
is whole, it lies as a file in a folder of the run's state; the tar is made from those files.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

from anti_i2v_lit.archive.files import STATE_FOLDER
from anti_i2v_lit.tars import DamagedTar, list_tar, open_path, path_exists

SHARD_SUFFIX = ".tar"


def shard_stage(folder: Path) -> Path:
    """Where finished cloaks wait for their shard: one folder per shard, files named as members."""
    return folder / STATE_FOLDER / "shards"


def in_shard(name: str) -> str:
    """The recorded output of a cloak that waits as `portraits-000003/000017.jpg`."""
    shard, _, member = name.partition("/")
    return f"{shard}{SHARD_SUFFIX}/{member}"


def file_of(output: str) -> str:
    """The file that holds a recorded output: itself, or the shard that it is in."""
    shard, slash, _ = output.partition("/")
    return shard if slash and shard.endswith(SHARD_SUFFIX) else output


def staged(folder: Path, output: str) -> Path | None:
    """The file in which a shard's cloak waits or waited; None for outputs that are files."""
    shard, slash, member = output.partition("/")
    if not slash or not shard.endswith(SHARD_SUFFIX) or (folder / shard).is_dir():
        return None
    return shard_stage(folder) / shard.removesuffix(SHARD_SUFFIX) / member


def locate(folder: Path, output: str) -> Path:
    """The path of an output, through its tar if need be; it need not exist."""
    waiting = staged(folder, output)
    return waiting if waiting is not None and waiting.is_file() else folder / output


def output_exists(folder: Path, output: str) -> bool:
    """Whether a cloak is there, as a file, waiting, or in its shard."""
    return path_exists(locate(folder, output))


def shard_counts(folder: Path) -> tuple[int, int]:
    """Shards that are whole, and shards whose cloaks still wait."""
    whole = {path.stem for path in folder.glob(f"*{SHARD_SUFFIX}") if path.is_file()}
    try:
        waiting = {path.name for path in shard_stage(folder).iterdir() if path.is_dir()}
    except FileNotFoundError:
        waiting = set()
    return len(whole - waiting), len(waiting)


def open_output(folder: Path, output: str) -> io.BufferedReader | io.BytesIO:
    """Open a cloak for reading.

    Raises:
        FileNotFoundError: it is not there.
        OSError: unreadable file or damaged shard.
    """
    return open_path(locate(folder, output))


class OutputsThere:
    """Tells which outputs are there; lists each folder and each shard once, when it is asked for.

    Args:
        folder: the output folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listed: dict[str, set[str]] = {}

    def __contains__(self, output: str) -> bool:
        parent, _, name = output.rpartition("/")
        if parent not in self._listed:
            self._listed[parent] = _names(self._folder, parent)
        return name in self._listed[parent]


def _names(folder: Path, parent: str) -> set[str]:
    waiting = staged(folder, f"{parent}/.") if parent else None
    if waiting is None:
        return _files(folder / parent)
    tar, _, inside = parent.partition("/")
    start = f"{inside}/" if inside else ""
    try:
        members = list_tar(folder / tar)
    except (DamagedTar, OSError):
        return _files(waiting)
    within = {m.removeprefix(start) for m in members if m.startswith(start)}
    return {name for name in within if "/" not in name} | _files(waiting)


def _files(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {e.name for e in entries if e.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()
