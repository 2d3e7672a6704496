"""A still picture of the clips of an evaluation, for documents: clean over cloaked, frame by frame.

python -m anti_i2v_lit.report.evaluation.picture EVALUATION docs/evaluation_strip.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from anti_i2v_lit.evaluation.facts import KeptClip
from anti_i2v_lit.evaluation.outcome import Outcome
from anti_i2v_lit.evaluation.outcome_file import read_outcome
from anti_i2v_lit.report.evaluation.clips import grouped, read_frames, strip
from anti_i2v_lit.report.evaluation.heat import knowledge_of
from anti_i2v_lit.report.evaluation.text import CLEAN

_LABEL_PX, _MARGIN_PX, _GAP_PX, _TEXT_PX = 110, 14, 6, 15
_QUALITY = 86
_INK, _SOFT = (20, 20, 20), (110, 110, 110)


def clips_picture(
    outcome: Outcome, folder: Path, photo: str = "", *, frames: int = 8, side_px: int = 128
) -> Image.Image:
    """Lay the kept clips of a photo under each other, one block per generator and purification.

    Args:
        outcome: of the evaluation.
        folder: that the clips' paths are relative to.
        photo: key; "" for the first photo with clips.
        frames: frames shown of each clip, evenly spaced.
        side_px: longer side of a shown frame, pixels.

    Raises:
        ValueError: no clip of such a photo was kept.
        OSError: a clip that cannot be read.
    """
    key = photo or next((clip.photo for clip in outcome.clips), "")
    groups = grouped(outcome, key)
    if not groups:
        known = ", ".join(sorted({clip.photo for clip in outcome.clips})) or "none"
        raise ValueError(f"no clip of photo {key!r} was kept; photos with clips: {known}")
    lines: list[tuple[str, str, Image.Image | None]] = []
    for clips in groups:
        first = clips[0]
        after = "" if first.purification == "none" else f", after {first.purification}"
        lines.append((f"{first.generator}{after}: \u201c{first.prompt}\u201d", "", None))
        for clip in clips:
            name = "photo's clip" if clip.protection == CLEAN else clip.protection
            known = knowledge_of(outcome, clip.protection, clip.generator)
            lines.append((name, known, _strip(folder, clip, frames, side_px)))
    return _page(lines)


def _strip(folder: Path, clip: KeptClip, frames: int, side_px: int) -> Image.Image:
    pixels = read_frames(folder / clip.path)
    chosen = np.linspace(0, len(pixels) - 1, min(frames, len(pixels))).round().astype(int)
    scale = side_px / max(pixels.shape[1:3])
    size = (max(1, round(pixels.shape[2] * scale)), max(1, round(pixels.shape[1] * scale)))
    return Image.fromarray(strip(pixels[chosen], size))


def _page(lines: list[tuple[str, str, Image.Image | None]]) -> Image.Image:
    font = ImageFont.load_default(size=_TEXT_PX)
    heights = [2 * _TEXT_PX if shown is None else shown.height for _, _, shown in lines]
    width = max(shown.width for _, _, shown in lines if shown is not None)
    size = (
        width + _LABEL_PX + 2 * _MARGIN_PX,
        sum(heights) + _GAP_PX * (len(lines) - 1) + 2 * _MARGIN_PX,
    )
    page = Image.new("RGB", size, (255, 255, 255))
    draw, top = ImageDraw.Draw(page), _MARGIN_PX
    for (name, note, shown), height in zip(lines, heights, strict=True):
        middle = top + height // 2 - _TEXT_PX
        draw.text((_MARGIN_PX, middle), name, fill=_INK, font=font)
        draw.text((_MARGIN_PX, middle + _TEXT_PX + 4), note, fill=_SOFT, font=font)
        if shown is not None:
            page.paste(shown, (_MARGIN_PX + _LABEL_PX, top))
        top += height + _GAP_PX
    return page


def main() -> None:
    """Write the picture of an evaluation's folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("evaluation", type=Path, help="--out of `anti-i2v evaluate`")
    parser.add_argument("picture", type=Path, help="file to be written: .jpg, .png or .webp")
    parser.add_argument("--photo", default="", help="key; default: the first with clips")
    parser.add_argument("--frames", type=int, default=8, help="frames of each clip")
    given = parser.parse_args()
    outcome = read_outcome(given.evaluation)
    made = clips_picture(outcome, given.evaluation, given.photo, frames=given.frames)
    made.save(given.picture, quality=_QUALITY)
    print(f"{given.picture}: {made.width} x {made.height} pixels")


if __name__ == "__main__":
    main()
