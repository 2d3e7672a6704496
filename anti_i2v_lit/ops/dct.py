"""Whole-image orthonormal 2-D DCT-II, its inverse, and cheap synthesis from low frequencies.

Frequencies are counted as a share of each axis, so that a block of coefficients means the same
at every resolution and aspect ratio.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch_dct
from torch import Tensor


def dct_2d(images: Tensor) -> Tensor:
    """Orthonormal DCT-II over the last two axes; [..., H, W] -> [..., H, W], same energy."""
    return torch_dct.dct_2d(images, norm="ortho")


def idct_2d(coefficients: Tensor) -> Tensor:
    """Inverse of `dct_2d` (orthonormal DCT-III over the last two axes)."""
    return torch_dct.idct_2d(coefficients, norm="ortho")


def low_frequency_count(length: int, share: float) -> int:
    """Number of lowest frequencies that make `share` of an axis of `length` pixels, at least 1."""
    return min(length, max(1, round(share * length)))


def synthesise(coefficients: Tensor, size: tuple[int, int]) -> Tensor:
    """Image whose lowest DCT coefficients are given and whose others are zero.

    Equal to zero-padding the block and calling `idct_2d`, by two small matrix products.

    Args:
        coefficients: [..., kh, kw], orthonormal.
        size: (H, W) of the image, at least (kh, kw).

    Returns:
        [..., H, W] with the same sum of squares.
    """
    rows, columns = _bases(coefficients, size, tuple(coefficients.shape[-2:]))
    return rows.T @ coefficients @ columns


def analyse(images: Tensor, counts: tuple[int, int]) -> Tensor:
    """Return the lowest orthonormal DCT coefficients: the transpose (and inverse) of `synthesise`.

    Args:
        images: [..., H, W].
        counts: (kh, kw), at most (H, W).

    Returns:
        [..., kh, kw], equal to `dct_2d(images)[..., :kh, :kw]`.
    """
    rows, columns = _bases(images, tuple(images.shape[-2:]), counts)
    return rows @ images @ columns.T


def _bases(like: Tensor, size: tuple[int, ...], counts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    if counts[0] > size[0] or counts[1] > size[1]:
        raise ValueError(
            f"expected at most as many frequencies as pixels, got {counts} for {tuple(size)}"
        )
    first = _basis(counts[0], size[0], like.dtype, like.device)
    return first, _basis(counts[1], size[1], like.dtype, like.device)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _basis(count: int, length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """First `count` rows of the orthonormal DCT-II matrix of size `length`: [count, length]."""
    frequency = torch.arange(count, dtype=torch.float64)[:, None]
    position = torch.arange(length, dtype=torch.float64)[None]
    basis = torch.cos(math.pi / length * frequency * (position + 0.5)) * math.sqrt(2 / length)
    basis[0] = math.sqrt(1 / length)
    return basis.to(device, dtype)
