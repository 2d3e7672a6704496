"""The figures of an evaluation for TensorBoard: one run per protection, so that lines compare."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from torch.utils.tensorboard import SummaryWriter

from anti_i2v_lit.evaluation.outcome import Outcome
from anti_i2v_lit.evaluation.settings import ReportSettings
from anti_i2v_lit.report.evaluation import clips, photos

FOLDER = "tensorboard"


def write_tensorboard(outcome: Outcome, folder: Path, config: ReportSettings | None = None) -> Path:
    """Write event files below DIR/tensorboard, in place of former ones; return that folder.

    Every protection, the clean photos and the noise are a run each. Means are scalars
    `mean/<generator>/<purification>/<figure>`, shares of protected photos
    `protected/<generator>/<purification>`, worst cases `worst/<generator>/<tier>/...`, and curves
    `frames/<generator>/<purification>/<figure>` with the frame index, counted from 1, as step.
    Kept clips of the photos that the page shows are images. Undefined numbers are left out.

    Raises:
        ValueError: no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give the --out of an evaluation")
    root = folder / FOLDER
    for old in root.glob("*/events.out.tfevents.*"):
        old.unlink()
    names = [row.protection for row in outcome.summary]
    names += [curve.protection for curve in outcome.curves]
    names += [protection.name for protection in outcome.protections]
    for name in dict.fromkeys(names):
        with SummaryWriter(str(root / run_name(name))) as writer:
            for tag, value, step in _scalars(outcome, name):
                if not math.isnan(value):
                    writer.add_scalar(tag, value, step)
            _images(writer, outcome, folder, name, config or ReportSettings())
    with SummaryWriter(str(root / run_name("outcome"))) as writer:
        writer.add_text("headline", _utf8("\n\n".join(outcome.headline)) or "Nothing was judged.")
    return root


def run_name(name: str) -> str:
    """A folder's name for a protection; a digest keeps names apart that were made safe."""
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:60]
    if safe and safe == name:
        return safe
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{safe}_{digest}"


def _scalars(outcome: Outcome, name: str) -> Iterable[tuple[str, float, int]]:
    """Tag, value and step of everything of one protection."""
    for row in outcome.summary:
        if row.protection == name:
            for figure, estimate in row.estimates.items():
                yield _tag("mean", row.generator, row.purification, figure), estimate.mean, 0
    for cell in outcome.heat:
        if cell.protection == name:
            tag = _tag("protected", cell.generator, cell.purification)
            yield tag, cell.share_protected.mean, 0
    for worst in outcome.worst:
        if worst.protection == name:
            tag = _tag("worst", worst.generator, worst.tier, "protected")
            yield tag, worst.share_protected.mean, 0
            for figure, estimate in worst.estimates.items():
                yield _tag("worst", worst.generator, worst.tier, figure), estimate.mean, 0
    for curve in outcome.curves:
        if curve.protection == name:
            tag = _tag("frames", curve.generator, curve.purification, curve.figure)
            for index, point in enumerate(curve.points, 1):
                yield tag, point.mean, index


def _tag(*parts: str) -> str:
    return _utf8("/".join(part.replace("/", "_") for part in parts))


def _utf8(text: str) -> str:
    """Text as TensorBoard takes it: bytes of names that are not UTF-8 as escapes."""
    return text.encode(errors="backslashreplace").decode()


def _images(
    writer: SummaryWriter, outcome: Outcome, folder: Path, name: str, config: ReportSettings
) -> None:
    """Kept clips as film strips [H, T W, 3]; those that cannot be read are left out."""
    shown = {photo.key for photo, _ in photos.chosen(outcome, config.photos)}
    for clip in outcome.clips:
        if clip.protection != name or clip.photo not in shown:
            continue
        try:
            frames = clips.read_frames(folder / clip.path)
        except (OSError, ValueError, SafetensorError):
            continue
        height, width = frames.shape[1:3]
        chosen = np.linspace(0, len(frames) - 1, min(len(frames), config.frames)).round()
        picture = clips.strip(frames[chosen.astype(int)], (width, height))
        tag = _tag("clip", clip.generator, clip.purification, clip.photo, clip.prompt)
        writer.add_image(tag, picture, clip.seed, dataformats="HWC")
