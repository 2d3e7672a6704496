"""Photos in memory and random patches of them, for the training of small networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from anti_i2v_lit.ops.resize import crop_resize

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def picture_files(folder: Path) -> dict[str, Path]:
    """Path below the folder -> picture file, sorted.

    Raises:
        ValueError: not a folder, or no picture in it.
    """
    if not folder.is_dir():
        raise ValueError(f"expected a folder of photos, got {folder}")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES)
    if not found:
        raise ValueError(f"{folder}: no picture with one of {', '.join(sorted(_SUFFIXES))}")
    return {str(path.relative_to(folder)): path for path in found}


def load_pixels(path: Path) -> Tensor:
    """A picture's sRGB pixels [3, H, W], uint8, as stored (orientation tags are not applied)."""
    with Image.open(path) as image:
        pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def random_patch(
    pictures: Sequence[Tensor],
    side_px: int,
    smallest_scale: float,
    generator: torch.Generator,
    *,
    largest_scale: float = 1.0,
) -> Tensor:
    """The same random square of all given pictures of one size, maybe mirrored.

    Args:
        pictures: [3, H, W] uint8 each, of one size.
        side_px: side of the patch.
        smallest_scale: the square is downscaled by a factor drawn from here to `largest_scale`.
        generator: of the place, the scale and the mirroring.
        largest_scale: at most 1.

    Returns:
        [N, 3, side_px, side_px] in [0, 1].

    Raises:
        ValueError: pictures smaller than the patch.
    """
    height, width = pictures[0].shape[-2:]
    if min(height, width) < side_px:
        raise ValueError(f"expected pictures of at least {side_px} px, got {height} x {width}")
    draws = torch.rand(4, generator=generator).tolist()
    scale = max(smallest_scale, side_px / min(height, width))
    scale += (max(scale, largest_scale) - scale) * draws[0]
    side = min(round(side_px / scale), height, width)
    top, left = int(draws[1] * (height - side + 1)), int(draws[2] * (width - side + 1))
    cut = torch.stack([p[:, top : top + side, left : left + side] for p in pictures]).float() / 255
    patch = crop_resize(cut, (0.0, 0.0, 1.0, 1.0), (side_px, side_px)).clamp(0.0, 1.0)
    return patch.flip(-1) if draws[3] < 0.5 else patch
