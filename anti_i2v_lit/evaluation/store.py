"""Results as JSON lines and reference clips as tensors, so that a killed evaluation resumes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Result:
    """One generated clip, judged.

    Attributes:
        photo: key of the photo.
        protection: name of what protected it; "clean" for the photo itself.
        purification: what was done to the file before the clip was made; "none" for nothing.
        prompt: text of the clip.
        seed: seed of the evaluation; the clip's own derives from it and the photo's key.
        identity: digest of everything that the figures depend on.
        figures: column -> value; NaN where it is undefined.
    """

    photo: str
    protection: str
    purification: str
    prompt: str
    seed: int
    identity: str
    figures: Mapping[str, float]


class ResultStore:
    """`results.jsonl` and `clips/` in a folder.

    Args:
        folder: made if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "results.jsonl"
        (folder / "clips").mkdir(parents=True, exist_ok=True)
        self._known = self._read()

    def find(self, identity: str) -> Result | None:
        """The result of this identity, if it was ever made."""
        return self._known.get(identity)

    def append(self, results: Sequence[Result]) -> None:
        """Write results, one line each, and wait until they are on the disk."""
        with self.path.open("a", encoding="utf-8") as file:
            for result in results:
                file.write(_line(result))
                self._known[result.identity] = result
            file.flush()
            os.fsync(file.fileno())

    def save_clip(self, name: str, clip: Tensor) -> None:
        """Keep a clip [T, 3, H, W] in [0, 1] as 8-bit frames, atomically."""
        path = self._clip_path(name)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        save_file({"frames": (clip * 255).round().to(torch.uint8)}, partial)
        os.replace(partial, path)

    def load_clip(self, name: str) -> Tensor | None:
        """A kept clip [T, 3, H, W] in [0, 1], or None."""
        path = self._clip_path(name)
        return load_file(path)["frames"].float() / 255 if path.is_file() else None

    def _clip_path(self, name: str) -> Path:
        return self.folder / "clips" / f"{name}.safetensors"

    def _read(self) -> dict[str, Result]:
        """All whole lines; a line torn by a kill is cut off, so that the next one starts clean."""
        if not self.path.is_file():
            return {}
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        found = {}
        for number, line in enumerate(whole.decode().splitlines(), start=1):
            try:
                result = _parsed(line)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ValueError(
                    f"{self.path}, line {number} is not a result: {error}; delete the line"
                ) from error
            found[result.identity] = result
        return found


def _line(result: Result) -> str:
    plain = {
        **vars(result),
        "figures": {n: None if math.isnan(v) else v for n, v in result.figures.items()},
    }
    return json.dumps(plain, sort_keys=True, allow_nan=False) + "\n"


def _parsed(line: str) -> Result:
    plain = json.loads(line)
    figures = {n: math.nan if v is None else float(v) for n, v in plain.pop("figures").items()}
    return Result(**plain, figures=figures)
