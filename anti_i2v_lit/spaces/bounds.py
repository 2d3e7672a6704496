"""The box of residuals that every space shares: the RGB ball, cut to the range of a photo."""

from __future__ import annotations

import torch
from torch import Tensor


def residual_bounds(photo: Tensor, limit_8bit: float) -> tuple[Tensor, Tensor]:
    """Return the smallest and largest residual per pixel and channel.

    Args:
        photo: [B, 3, H, W] in [0, 1].
        limit_8bit: radius of the L-infinity ball in grey levels.

    Returns:
        (low, high), both [B, 3, H, W] in [0, 1] units, low <= 0 <= high: inside them the photo
        plus the residual is in range and within the limit.
    """
    limit = limit_8bit / 255.0
    return (-photo).clamp(min=-limit), (1.0 - photo).clamp(max=limit)


def clip(residual: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Clip elementwise; values inside are returned bit for bit."""
    return torch.minimum(torch.maximum(residual, low), high)
