"""Purifying at the size that the attacker's video model takes."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from anti_i2v_lit.ops.resize import resize

DEFAULT_WORK_PX = 128
"""Shorter side of what the packaged video models see."""


def check_work_px(value: int) -> None:
    """Refuse a working size that no network can use.

    Raises:
        ValueError: neither 0 nor at least 16.
    """
    if value != 0 and value < 16:
        raise ValueError(f"work_px must be 0 (the photo's own size) or at least 16, got {value}")


def shrink(photos: Tensor, work_px: int) -> Tensor:
    """Photos [B, 3, H, W] with their shorter side at most `work_px`; 0 leaves them as they are."""
    height, width = photos.shape[-2:]
    share = work_px / min(height, width)
    if work_px == 0 or share >= 1.0:
        return photos
    size = (max(1, round(height * share)), max(1, round(width * share)))
    return resize(photos, size).clamp(0.0, 1.0)


def at_working_size(
    photos: Tensor, work_px: int, unit_px: int, change: Callable[[Tensor], Tensor]
) -> Tensor:
    """Shrink, change and enlarge again: what the change cannot see is lost, as for an attacker.

    Nothing above the size that a video model takes reaches it, so attackers purify there: it is
    cheaper, and a cloak made at a model's size is as fine as a purifier expects it to be.

    Args:
        photos: [B, 3, H, W] in [0, 1].
        work_px: shorter side during the change, pixels; 0 for the photo's own size; smaller
            photos keep theirs.
        unit_px: sides are padded to multiples of it by repetition for the change.
        change: [B, 3, h, w] in [0, 1] to the same shape.

    Returns:
        [B, 3, H, W]; the enlarging may overshoot [0, 1].
    """
    small = shrink(photos, work_px)
    height, width = small.shape[-2:]
    padded = pad_to(small, (-(-height // unit_px) * unit_px, -(-width // unit_px) * unit_px))
    return resize(change(padded)[..., :height, :width], (photos.shape[-2], photos.shape[-1]))


def pad_to(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Repeat the last row and column until the images have at least a size (H, W)."""
    down, right = max(0, size[0] - images.shape[-2]), max(0, size[1] - images.shape[-1])
    return F.pad(images, (0, right, 0, down), mode="replicate") if down or right else images
