"""Models by the bytes of their files: what rows depend on, and whether two models share weights."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

from anti_i2v_lit.checkpoints import EMBEDDED, PACKAGED, packaged_folder

WHOLE_BYTES = 2 << 30  # larger files are known by both ends and their size
_EDGE_BYTES = 1 << 20
_PICKLES = {".bin", ".ckpt", ".pt", ".pth"}
_WEIGHTS = {".safetensors"} | _PICKLES
_SETTINGS = {".json", ".yaml"}


def rows_digest(name: str, path: str) -> str:
    """SHA-256 over a model's files, for the identity of rows; "" where there are no weights.

    Settings and weight files of 2 GiB at most count with all their bytes, larger ones with their
    size, first and last MiB; times do not count, as copies on the disks of several nodes are one
    model.

    Args:
        name: registered name of the generator.
        path: as in its settings.
    """
    weights = weight_files(name, path)
    if not weights:
        return ""
    folder, state = _folder(name, path), hashlib.sha256()
    for file in sorted([*weights, *_files(folder, _SETTINGS)]):
        status = file.stat()
        line = f"{file.relative_to(folder)} {status.st_size} {content_digest(file)}"
        state.update(f"{line}\n".encode(errors="surrogateescape"))
    return state.hexdigest()


def weight_files(name: str, path: str) -> list[Path]:
    """A model's weight files, sorted; empty where `path` leads to none.

    Args:
        name: registered name of the model, which "embedded" needs.
        path: as in its settings.
    """
    folder = _folder(name, path)
    return _files(folder, _WEIGHTS) if path and folder.is_dir() else []


def share_weights(some: Sequence[Path], others: Sequence[Path]) -> bool:
    """Whether a weight file of two models is the same.

    Files of more than 2 GiB count as the same if their sizes and ends are.
    """
    by_size: dict[int, list[Path]] = {}
    for file in others:
        by_size.setdefault(file.stat().st_size, []).append(file)
    for file in some:
        rivals = by_size.get(file.stat().st_size, [])
        if any(content_digest(file) == content_digest(rival) for rival in rivals):
            return True
    return False


def are_comparable(some: Sequence[Path], others: Sequence[Path]) -> bool:
    """Whether two models have weight files of one format: safetensors, or pickles."""
    return bool({_format(file) for file in some} & {_format(file) for file in others})


def content_digest(file: Path) -> str:
    """SHA-256 of a file's bytes; above 2 GiB of its size and both ends.

    Remembered until its size or time of change is another.
    """
    status = file.stat()
    return _digest(file.resolve(), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _digest(file: Path, size: int, mtime_ns: int) -> str:
    with file.open("rb") as stream:
        if size <= WHOLE_BYTES:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        state = hashlib.sha256(f"{size}\n".encode())
        state.update(stream.read(_EDGE_BYTES))
        stream.seek(size - _EDGE_BYTES)
        state.update(stream.read())
        return state.hexdigest()


def _folder(name: str, path: str) -> Path:
    embedded = path == EMBEDDED and name in PACKAGED
    return packaged_folder(name) if embedded else Path(path).expanduser()


def _files(folder: Path, suffixes: set[str]) -> list[Path]:
    return [f for f in sorted(folder.rglob("*")) if f.suffix in suffixes and f.is_file()]


def _format(file: Path) -> str:
    return "pickle" if file.suffix in _PICKLES else file.suffix
