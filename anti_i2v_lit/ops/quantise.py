"""Rounding to 8 bits, as the written file will be, with a gradient that ignores the rounding."""

from __future__ import annotations

import torch
from torch import Tensor


def straight_through(value: Tensor, source: Tensor) -> Tensor:
    """Return `value` exactly, with the gradient of the identity to `source`.

    Args:
        value: what the forward pass should see; its own graph is cut.
        source: same shape, finite; where the gradient should go.
    """
    return value.detach() + (source - source.detach())


def round_through(values: Tensor) -> Tensor:
    """Round to the nearest integer (ties to even); the gradient is that of the identity."""
    return straight_through(torch.round(values.detach()), values)


def quantise_8bit(photos: Tensor) -> Tensor:
    """Round to the nearest of 256 grey levels; the gradient is that of the identity.

    Args:
        photos: any shape, in [0, 1].

    Returns:
        Same shape; every value is a whole number divided by 255. Values outside [0, 1] are
        clipped, and the gradient passes through the clip too.
    """
    levels = torch.round(photos.detach().clamp(0.0, 1.0) * 255.0)
    return straight_through(levels / 255.0, photos)


def to_uint8(photos: Tensor) -> Tensor:
    """Return uint8 grey levels of photos in [0, 1]: rounded, not truncated, clipped."""
    return torch.round(photos.detach().clamp(0.0, 1.0) * 255.0).to(torch.uint8)
