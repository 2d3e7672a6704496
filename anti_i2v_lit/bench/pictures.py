"""Labelled strips of pictures as PNG, clips side by side as an animated GIF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from anti_i2v_lit.ops.resize import resize

LABEL_PX, GAP_PX, MARGIN_PX = 26, 8, 12
BACKGROUND, INK = (255, 255, 255), (40, 40, 40)
FRAME_MS = 160
RESIDUAL_GAIN = 10.0

Labelled = tuple[str, Tensor]


def to_height(image: Tensor, height: int) -> Tensor:
    """Resize [3, H, W] to a height in pixels, proportions kept."""
    width = max(1, round(image.shape[-1] * height / image.shape[-2]))
    return resize(image[None], (height, width))[0].clamp(0, 1)


def amplified(residual: Tensor) -> Tensor:
    """A residual times 10 around mid grey, [3, H, W] in [0, 1]."""
    return (0.5 + RESIDUAL_GAIN * residual).clamp(0, 1)


def sheet(rows: Sequence[Sequence[Labelled]]) -> Image.Image:
    """Rows of labelled pictures [3, H, W] on white; pictures of a row have one height."""
    font = ImageFont.load_default(size=15)
    widths = [sum(i.shape[-1] for _, i in row) + GAP_PX * (len(row) - 1) for row in rows]
    heights = [LABEL_PX + max(image.shape[-2] for _, image in row) for row in rows]
    size = (
        max(widths) + 2 * MARGIN_PX,
        sum(heights) + GAP_PX * (len(rows) - 1) + 2 * MARGIN_PX,
    )
    page = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(page)
    top = MARGIN_PX
    for row, height in zip(rows, heights, strict=True):
        left = MARGIN_PX
        for label, image in row:
            draw.text((left, top + 3), label, fill=INK, font=font)
            page.paste(to_pil(image), (left, top + LABEL_PX))
            left += image.shape[-1] + GAP_PX
        top += height + GAP_PX
    return page


def to_pil(image: Tensor) -> Image.Image:
    """[3, H, W] in [0, 1] as an 8-bit picture."""
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(pixels.numpy()))


def save_side_by_side(clips: Sequence[tuple[str, Tensor]], path: Path, height: int) -> None:
    """Write labelled clips [T, 3, H, W] as one GIF that plays for ever.

    Args:
        clips: label and frames, all of one length.
        path: of the GIF.
        height: of a clip, pixels.
    """
    frames = [
        sheet([[(label, to_height(clip[index], height)) for label, clip in clips]])
        for index in range(len(clips[0][1]))
    ]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0)
