"""Photos that are being worked on: their tensors and facts, so that a killed run continues."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from anti_i2v_lit.archive.files import STATE_FOLDER, write_whole

_SUFFIX = ".safetensors"
_DAMAGED_SUFFIX = ".damaged"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """State of a group of photos in the middle of its loop.

    Attributes:
        tensors: perturbation and optimiser state, any dtype and shape, name -> tensor.
        facts: JSON data: the step and whatever else the loop must know; `status` shows
            the number under "step".
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Glimpse:
    """What a bystander may know about a group in flight: its photos and its facts."""

    keys: tuple[str, ...]
    facts: dict[str, Any]


class InFlightStore:
    """One safetensors file per group of photos, replaced whole at every save.

    Args:
        folder: the output folder; files lie in `.anti_i2v/in_flight` below it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / STATE_FOLDER / "in_flight"

    def save(self, keys: tuple[str, ...], progress: Progress) -> None:
        """Store the progress of a group, replacing the earlier one.

        Raises:
            ValueError: no keys, or facts that are not JSON (NaN included).
            OSError: disk full and the like; the earlier progress is then still there.
        """
        path = self._path(keys)
        tensors = {n: t.detach().cpu().contiguous() for n, t in progress.tensors.items()}
        try:
            facts = json.dumps(progress.facts, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"facts of {keys} are not JSON: {error}") from error
        names = json.dumps(list(keys))
        metadata = {"keys": names, "facts": facts, "sha256": _digest(names, facts, tensors)}
        write_whole(path, save(tensors, metadata=metadata))

    def load(self, keys: tuple[str, ...]) -> Progress | None:
        """Return the stored progress (tensors on the CPU), or None when there is none.

        A damaged file is renamed to `*.damaged` with a warning, and counts as none: its photos
        start again and end with the same bytes.
        """
        path = self._path(keys)
        try:
            found_keys, progress = _read(path)
            if found_keys != keys:
                raise ValueError(f"it belongs to {found_keys}")
        except FileNotFoundError:
            return None
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            _set_aside(path, error)
            return None
        return progress

    def groups(self) -> list[tuple[str, ...]]:
        """Return the keys of all stored groups, sorted; damaged files are set aside."""
        found = []
        for path in self._files():
            try:
                found.append(_peek(path).keys)
            except FileNotFoundError:
                continue
            except (SafetensorError, ValueError, KeyError, TypeError) as error:
                _set_aside(path, error)
        return sorted(found)

    def peek(self) -> list[Glimpse]:
        """Like `groups`, with the facts, and changing nothing: safe beside a running run."""
        found = []
        for path in self._files():
            try:
                found.append(_peek(path))
            except (OSError, SafetensorError, ValueError, KeyError, TypeError):
                continue
        return sorted(found, key=lambda glimpse: glimpse.keys)

    def discard(self, keys: tuple[str, ...]) -> None:
        """Forget a group; nothing happens when it is not there.

        One that a power cut brings back does no harm: its photos have their rows.
        """
        self._path(keys).unlink(missing_ok=True)

    def _path(self, keys: tuple[str, ...]) -> Path:
        if isinstance(keys, str) or not keys:
            raise ValueError(f"expected a tuple of photo keys, got {keys!r}")
        name = hashlib.sha256(json.dumps(list(keys)).encode()).hexdigest()[:32]
        return self._folder / (name + _SUFFIX)

    def _files(self) -> list[Path]:
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        return [self._folder / n for n in sorted(names) if n.endswith(_SUFFIX) and n[0] != "."]


def _peek(path: Path) -> Glimpse:
    with safe_open(path, framework="pt") as stored:
        metadata = stored.metadata()
    return Glimpse(keys=tuple(json.loads(metadata["keys"])), facts=json.loads(metadata["facts"]))


def _read(path: Path) -> tuple[tuple[str, ...], Progress]:
    with safe_open(path, framework="pt") as stored:
        metadata = stored.metadata()
        # Cloned: the loop changes them in place, and the file under a memory map is replaced.
        names = list(stored.keys())
        tensors = {name: stored.get_tensor(name).clone() for name in names}
    if _digest(metadata["keys"], metadata["facts"], tensors) != metadata["sha256"]:
        raise ValueError("its checksum is wrong")
    progress = Progress(tensors=tensors, facts=json.loads(metadata["facts"]))
    return tuple(json.loads(metadata["keys"])), progress


def _digest(names: str, facts: str, tensors: dict[str, Tensor]) -> str:
    """Checksum over everything stored; the safetensors format itself has none."""
    total = hashlib.sha256(f"{names}\x00{facts}".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"\x00{name}\x00{tensor.dtype}\x00{tuple(tensor.shape)}\x00".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _set_aside(path: Path, error: Exception) -> None:
    aside = path.with_name(path.name + _DAMAGED_SUFFIX)
    os.replace(path, aside)
    warnings.warn(
        f"stored progress {path.name} is damaged ({error}); kept as {aside.name}, "
        "its photos start from the first step",
        stacklevel=3,
    )
