"""Clips as film strips: all frames of a clip side by side in one embedded picture."""

from __future__ import annotations

import base64
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open

from anti_i2v_lit.evaluation.facts import KeptClip
from anti_i2v_lit.evaluation.outcome import Outcome
from anti_i2v_lit.evaluation.settings import ReportSettings
from anti_i2v_lit.report.evaluation.heat import knowledge_of
from anti_i2v_lit.report.evaluation.text import CLEAN

_QUALITY = 84
_LONGEST_WEBP = 16_383

Frames = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Film:
    """One clip as a strip.

    Attributes:
        name: of the protection, or "clean".
        knowledge: one of `facts.KNOWLEDGE`; "" for the clean photo and noise.
        uri: WebP of all frames from left to right; "" with a reason in `problem`.
        frames: indices of the shown frames, counted from 0.
        length: frames of the whole clip.
        size: (width, height) of one shown frame, pixels.
        problem: why there is no strip.
    """

    name: str
    knowledge: str
    uri: str = ""
    frames: tuple[int, ...] = ()
    length: int = 0
    size: tuple[int, int] = (1, 1)
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The photo's clip over the clips of its cloaks: same model, prompt, seed, purification."""

    photo: str
    generator: str
    purification: str
    prompt: str
    seed: int
    films: tuple[Film, ...]


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """What is shown of the kept clips.

    Attributes:
        by_photo: key -> its comparisons.
        kept: comparisons of the shown photos that were kept.
        shown: how many of them are on the page.
        megabytes: size of their strips, 10^6 bytes.
    """

    by_photo: dict[str, list[Comparison]]
    kept: int
    shown: int
    megabytes: float


def comparisons(
    outcome: Outcome, folder: Path, photos: list[str], config: ReportSettings
) -> Comparisons:
    """Embed clips of some photos, the first comparison of every photo before any second one.

    Args:
        outcome: with kept clips.
        folder: that the clips' paths are relative to.
        photos: keys, in the order of the page.
        config: limits.
    """
    kept = {key: grouped(outcome, key) for key in photos}
    by_photo: dict[str, list[Comparison]] = {key: [] for key in photos}
    left = config.clip_megabytes * 1e6
    turns = range(config.comparisons_per_photo)
    for key, clips in ((k, kept[k][t]) for t in turns for k in photos if t < len(kept[k])):
        made = _comparison(outcome, folder, clips, config)
        size = sum(len(film.uri) for film in made.films)
        if size > left:
            break
        left -= size
        by_photo[key].append(made)
    return Comparisons(
        by_photo=by_photo,
        kept=sum(map(len, kept.values())),
        shown=sum(map(len, by_photo.values())),
        megabytes=config.clip_megabytes - left / 1e6,
    )


def grouped(outcome: Outcome, photo: str) -> list[list[KeptClip]]:
    """Kept clips of a photo that may be compared, held-out generators and first rows first."""
    groups: dict[tuple[str, str, str, int], list[KeptClip]] = {}
    for clip in outcome.clips:
        if clip.photo == photo:
            key = (clip.generator, clip.purification, clip.prompt, clip.seed)
            groups.setdefault(key, []).append(clip)
    purifications = [p.label for p in outcome.purifications]
    generators = [g.label for g in outcome.generators]
    names = [CLEAN, *(p.name for p in outcome.protections)]
    ordered = sorted(
        groups,
        key=lambda k: (_place(k[1], purifications), _place(k[0], generators), k[2], k[3]),
    )
    # Every generator once before any second purification, prompt or seed of the first one.
    seen: Counter[str] = Counter()
    turns = {}
    for key in ordered:
        turns[key] = seen[key[0]]
        seen[key[0]] += 1
    ordered.sort(key=turns.__getitem__)
    return [sorted(groups[key], key=lambda clip: _place(clip.protection, names)) for key in ordered]


def _place(name: str, names: list[str]) -> int:
    return names.index(name) if name in names else len(names)


def _comparison(
    outcome: Outcome, folder: Path, clips: list[KeptClip], config: ReportSettings
) -> Comparison:
    first = clips[0]
    films = []
    for clip in clips:
        knowledge = knowledge_of(outcome, clip.protection, clip.generator)
        films.append(film(folder / clip.path, clip.protection, knowledge, config))
    return Comparison(
        photo=first.photo,
        generator=first.generator,
        purification=first.purification,
        prompt=first.prompt,
        seed=first.seed,
        films=tuple(films),
    )


def film(path: Path, name: str, knowledge: str, config: ReportSettings) -> Film:
    """Read a kept clip and lay its frames side by side; a failure is a text, never a crash."""
    try:
        frames = read_frames(path)
    except (OSError, ValueError, SafetensorError) as error:
        return Film(name=name, knowledge=knowledge, problem=f"the clip cannot be shown: {error}")
    length, height, width = frames.shape[:3]
    scale = min(1.0, config.frame_side_px / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    count = min(length, config.frames, _LONGEST_WEBP // size[0])
    chosen = np.linspace(0, length - 1, count).round().astype(int)
    return Film(
        name=name,
        knowledge=knowledge,
        uri=_webp(strip(frames[chosen], size)),
        frames=tuple(int(i) for i in chosen),
        length=length,
        size=size,
    )


def read_frames(path: Path) -> Frames:
    """Frames [T, H, W, 3] of a kept clip.

    Raises:
        OSError: no such file.
        ValueError: the file holds something else.
    """
    with safe_open(path, framework="numpy") as stored:
        if "frames" not in stored.keys():  # noqa: SIM118 - not a mapping
            raise ValueError(f"{path.name} has no frames")
        frames = stored.get_tensor("frames")
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1] != 3 or frames.size == 0:
        raise ValueError(f"{path.name}: expected [T, 3, H, W] of uint8, got {frames.shape}")
    return np.ascontiguousarray(frames.transpose(0, 2, 3, 1))


def strip(frames: Frames, size: tuple[int, int]) -> Frames:
    """Frames [T, H, W, 3] from left to right, each of `size` (width, height) pixels."""
    small = [
        np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))
        for frame in frames
    ]
    return np.concatenate(small, axis=1)


def _webp(pixels: Frames) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "WEBP", quality=_QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
