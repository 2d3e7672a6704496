"""How far a picture is from being a copy of another: its change without fine detail."""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor

from anti_i2v_lit.ops.resize import resize

COARSE_PX = 128  # longer side, or a quarter of the picture's where that is less
_LEAST_PX = 64
_FINE_SHARE = 0.25  # how much the change at full size counts


def coarse_change_8bit(picture: Tensor, reference: Tensor) -> float:
    """Root mean square of the change at 128 pixels, or a quarter of it at full size if larger.

    Saving again and resizing change fine detail, cloaks coarse structure too. Measured on eight
    held-out portraits of 1024 pixels: JPEG of quality 95, 75, 50, 30 leaves 0.3, 0.7, 1.1, 1.6
    grey levels, WebP of quality 60 1.0, resizing mostly below 0.6 (`other_resizes` included), by
    nearest neighbours up to 7, half size with JPEG of quality 75 1.1; cloaks of 16 levels
    leave 9 to 14, the weakest published objectives 2.9 to 5.1.

    Args:
        picture: [3, H, W] in [0, 1].
        reference: the same shape.

    Returns:
        Grey levels of 255.
    """
    change = picture - reference
    longer = max(change.shape[-2:])
    target = max(_LEAST_PX, min(COARSE_PX, longer // 4))
    shrink = min(1.0, target / longer)
    size = (max(1, round(change.shape[-2] * shrink)), max(1, round(change.shape[-1] * shrink)))
    small = resize(change[None], size, "bilinear")[0]
    return max(_rms_8bit(small), _FINE_SHARE * _rms_8bit(change))


def other_resizes(photo: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
    """A photo [3, H, W] at a size by the resizes of programs that do not antialias."""
    yield F.interpolate(photo[None], size=size, mode="bilinear", align_corners=False)[0]
    yield F.interpolate(photo[None], size=size, mode="bicubic", align_corners=False)[0].clamp(0, 1)
    yield F.interpolate(photo[None], size=size, mode="nearest-exact")[0]
    yield F.interpolate(photo[None], size=size, mode="nearest")[0]


def _rms_8bit(change: Tensor) -> float:
    return 255 * float(change.double().square().mean().sqrt())
