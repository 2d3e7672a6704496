"""The resizing in front of CLIP as a matrix: a Gaussian against aliasing, then bicubic weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def resizing_matrix(size: int, wanted: int) -> Tensor:
    """Return the weights of `kornia.geometry.resize` along one axis, with its antialiasing.

    Args:
        size: pixels that enter.
        wanted: pixels that leave; corners stay corners.

    Returns:
        [wanted, size], float32; rows sum to 1.
    """
    pixels = torch.eye(size, dtype=torch.float64)
    if size > wanted:
        pixels = _blurred(pixels, sigma=(size / wanted - 1.0) / 2.0)
    # The axis to resize is the last but one; the other one is the identity.
    grid = functional.interpolate(
        pixels[None, None], size=(wanted, size), mode="bicubic", align_corners=True
    )
    return grid[0, 0].float()


def _blurred(pixels: Tensor, sigma: float) -> Tensor:
    """Blur the columns of [N, M], reflected at the ends, by a kernel of an odd length."""
    sigma = max(sigma, 0.001)
    length = int(max(4.0 * sigma, 3)) | 1
    places = torch.arange(length, dtype=pixels.dtype) - length // 2
    kernel = torch.exp(-places.square() / (2.0 * sigma**2))
    padded = functional.pad(pixels.T[:, None], (length // 2, length // 2), mode="reflect")
    return functional.conv1d(padded, (kernel / kernel.sum())[None, None])[:, 0].T
