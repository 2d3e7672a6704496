"""Results as JSON lines and clips as tensors, so that a killed evaluation resumes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from anti_i2v_lit.archive.files import write_whole
from anti_i2v_lit.evaluation.journal import Journal, NotWritten

_FRAMES, _PICTURE = "frames", "picture"


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
        generator: label of the model that made the clip; "" where there is only one.
        frame: which part of the photo is shown, at which size; "" for the photo as it is.
        by_frame: figure -> value per frame of the clip; NaN where it is undefined.
        faces: face network -> mean face vector of the clip as text (`strangers.py`), of clips that
            identity thresholds are found on.
    """

    photo: str
    protection: str
    purification: str
    prompt: str
    seed: int
    identity: str
    figures: Mapping[str, float]
    generator: str = ""
    frame: str = ""
    by_frame: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    faces: Mapping[str, str] = field(default_factory=dict)


class ResultStore:
    """`results.jsonl` and `clips/` in a folder; several processes may write at once.

    Args:
        folder: made if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "results.jsonl"
        (folder / "clips").mkdir(parents=True, exist_ok=True)
        self._journal = Journal(folder, "results")
        self._known: dict[str, Result] = {}
        self.refresh()

    def find(self, identity: str) -> Result | None:
        """The result of this identity, if it was ever made."""
        return self._known.get(identity)

    def refresh(self) -> None:
        """Read what other processes have written meanwhile."""
        for path, number, line in self._journal.new_lines():
            try:
                result = _parsed(line)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ValueError(
                    f"{path}, line {number} is not a result: {error}; delete the line"
                ) from error
            known = self._known.get(result.identity)
            # Lines of several files are in no order of time: one with more in it stays.
            if known is None or len(result.faces) >= len(known.faces):
                self._known[result.identity] = result

    def append(self, results: Sequence[Result]) -> None:
        """Write results, one line each, and wait until they are on the disk."""
        self._journal.append([_plain(result) for result in results])
        self._known.update({result.identity: result for result in results})

    def save_clip(self, name: str, clip: Tensor, picture: Tensor | None = None) -> None:
        """Keep a clip [T, 3, H, W] in [0, 1] as 8-bit frames, atomically and through a power cut.

        Args:
            name: of the clip.
            clip: its frames.
            picture: what it was made from [3, h, w] in [0, 1], kept beside the frames.

        Raises:
            NotWritten: the folder takes no more data.
        """
        path = self.clip_path(name)
        tensors = {_FRAMES: clip} if picture is None else {_FRAMES: clip, _PICTURE: picture}
        data = save({n: (t * 255).round().to(torch.uint8) for n, t in tensors.items()})
        try:
            write_whole(path, data)
        except OSError as error:
            raise NotWritten(error.errno, error.strerror, str(path)) from error

    def load_clip(self, name: str) -> Tensor | None:
        """A kept clip [T, 3, H, W] in [0, 1]; None where there is none or it cannot be read."""
        try:
            with safe_open(self.clip_path(name), framework="pt") as stored:
                frames: Tensor = stored.get_tensor(_FRAMES)
        except (OSError, SafetensorError):
            return None
        return frames.float() / 255

    def has_clip(self, name: str) -> bool:
        """Whether a clip is kept, its header whole and its file of the size that this says."""
        try:
            with safe_open(self.clip_path(name), framework="pt") as stored:
                return _FRAMES in stored.keys()  # noqa: SIM118 (it is no mapping)
        except (OSError, SafetensorError):
            return False

    def drop_clips(self, names: Iterable[str]) -> None:
        """Remove clips that nobody needs any more."""
        for name in names:
            self.clip_path(name).unlink(missing_ok=True)

    def clip_path(self, name: str) -> Path:
        """Where a clip of this name is kept."""
        return self.folder / "clips" / f"{name}.safetensors"


def _plain(result: Result) -> dict[str, Any]:
    return {
        **vars(result),
        "figures": {name: _storable(value) for name, value in result.figures.items()},
        "by_frame": {n: [_storable(round(v, 6)) for v in vs] for n, vs in result.by_frame.items()},
    }


def _storable(value: float) -> float | str | None:
    """What strict JSON can say: undefined is null, infinity the text `inf` or `-inf`."""
    if math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)


def _number(value: float | str | None) -> float:
    return math.nan if value is None else float(value)


def _parsed(line: str) -> Result:
    plain = json.loads(line)
    figures = {name: _number(value) for name, value in plain.pop("figures").items()}
    by_frame = {
        name: tuple(_number(value) for value in values)
        for name, values in plain.pop("by_frame", {}).items()
    }
    return Result(**plain, figures=figures, by_frame=by_frame)
