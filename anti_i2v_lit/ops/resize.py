"""The one antialiased resize, whole images or fractional crops, differentiable.

Numbers are those of Pillow's `Image.resize` (triangle, Keys cubic with a = -0.5, box or Lanczos of
three lobes, the kernel widened by the downscaling ratio), without its rounding to 8 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from anti_i2v_lit.checks import check_at_least, check_in

Box = tuple[float, float, float, float]
"""Left, top, right, bottom as shares of an image's width and height, in [0, 1]."""

KERNELS = ("bilinear", "bicubic", "box", "lanczos")
"""Interpolation kernels; all are antialiased when an axis shrinks."""

_BY_TORCH = ("bilinear", "bicubic")
_WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
# Shares times a side are off whole pixels by rounding alone; this many pixels are not a fraction.
_WHOLE_PIXEL = 1e-6


def resize(images: Tensor, size: tuple[int, int], kernel: str = "bicubic") -> Tensor:
    """Resize whole images.

    Bicubic and Lanczos may overshoot the input's range: clamp with `.clamp(0, 1)` (no gradient at
    clipped pixels) or with `clamp_straight_through`. Value and gradient repeat bit for bit, on
    CUDA too: torch sums this gradient by atomics there, so images that carry one take
    `crop_resize`.

    Args:
        images: [B, C, H, W], any range.
        size: (h, w) in pixels.
        kernel: one of `KERNELS`.

    Raises:
        ValueError: wrong shape, size or kernel.
    """
    _check(images, size, kernel)
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    if images.requires_grad or kernel not in _BY_TORCH:
        return crop_resize(images, _WHOLE, size, kernel)
    return F.interpolate(images, size=size, mode=kernel, antialias=True, align_corners=False)


def crop_resize(images: Tensor, box: Box, size: tuple[int, int], kernel: str = "bicubic") -> Tensor:
    """Cut out a box, whose edges may lie between pixels, and resize it.

    Equals cropping first and resizing then: pixels that the box does not touch have no weight
    and get no gradient. Two matrix products; values and gradients repeat bit for bit.

    Args:
        images: [B, C, H, W], any range.
        box: shares of width and height, see `Box`.
        size: (h, w) of the result in pixels.
        kernel: one of `KERNELS`.

    Returns:
        [B, C, h, w]; bicubic and Lanczos may overshoot the input's range.

    Raises:
        ValueError: wrong shape, size or kernel, or an empty box or one outside [0, 1].
    """
    _check(images, size, kernel)
    check_box(box)
    left, top, right, bottom = box
    height, width = images.shape[-2:]
    rows, row_weights = _weights(height, top * height, bottom * height, size[0], kernel)
    columns, column_weights = _weights(width, left * width, right * width, size[1], kernel)
    inside = images[..., rows, columns]
    # TF32 and autocast would cut these products to 8 or 10 bits; neither touches float64, and
    # no autocast applies here. Other devices have no such shortcut and keep the image's dtype.
    dtype = torch.float64 if images.is_cuda else images.dtype
    vertical = row_weights.to(images.device, dtype)
    horizontal = column_weights.to(images.device, dtype).T
    kind = images.device.type
    # The meta device, on which memory is counted, has no autocast to turn off.
    with torch.autocast(kind if kind != "meta" else "cpu", enabled=False):
        result = _product(vertical, inside.to(dtype), horizontal)
    return result.to(images.dtype)


def clamp_straight_through(images: Tensor) -> Tensor:
    """Clamp to [0, 1] with the gradient of the identity, so that clipped pixels keep theirs."""
    # The zero is exact, so the result is exactly the clamped one and nothing leaves [0, 1].
    return images.detach().clamp(0.0, 1.0) + (images - images.detach())


def check_box(box: Box) -> None:
    """Refuse an empty box or one that leaves [0, 1].

    Raises:
        ValueError: with the box.
    """
    left, top, right, bottom = box
    if not (0.0 <= left < right <= 1.0 and 0.0 <= top < bottom <= 1.0):
        raise ValueError(
            f"box: expected 0 <= left < right <= 1 and 0 <= top < bottom <= 1, got {box}"
        )


def _product(vertical: Tensor, inside: Tensor, horizontal: Tensor) -> Tensor:
    """Multiply `vertical @ inside @ horizontal` in the cheaper order."""
    (out_h, in_h), (in_w, out_w) = vertical.shape, horizontal.shape
    if in_h * out_w * (in_w + out_h) <= out_h * in_w * (in_h + out_w):
        return vertical @ (inside @ horizontal)
    return (vertical @ inside) @ horizontal


def _weights(length: int, low: float, high: float, out: int, kernel: str) -> tuple[slice, Tensor]:
    """Return the pixels that [low, high] touches and the weights [out, touched] over them."""
    first = min(math.floor(low + _WHOLE_PIXEL), length - 1)
    last = max(math.ceil(high - _WHOLE_PIXEL), first + 1)
    scale = (high - low) / out
    centres = low + (torch.arange(out, dtype=torch.float64) + 0.5) * scale
    pixels = torch.arange(first, last, dtype=torch.float64)
    # Pillow's order of operations and its range, so that a pixel on the border of two boxes falls
    # to the same side.
    widened = max(scale, 1.0)
    support, shape = _SHAPES[kernel]
    starts, ends = (centres + sign * support * widened + 0.5 for sign in (-1, 1))
    inside = (pixels >= starts.trunc()[:, None]) & (pixels < ends.trunc()[:, None])
    raw = shape((pixels - centres[:, None] + 0.5) * (1.0 / widened)) * inside
    return slice(first, last), raw / raw.sum(dim=1, keepdim=True)


def _triangle(offset: Tensor) -> Tensor:
    return (1.0 - offset.abs()).clamp_min(0.0)


def _cubic(offset: Tensor) -> Tensor:
    """Keys (1981), equation 15, with a = -0.5."""
    distance = offset.abs()
    near = (1.5 * distance - 2.5) * distance**2 + 1.0
    far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    return torch.where(distance < 1.0, near, torch.where(distance < 2.0, far, 0.0))


def _box(offset: Tensor) -> Tensor:
    """Half-open, as Pillow's: a pixel on the border of two boxes belongs to one of them."""
    return ((offset > -0.5) & (offset <= 0.5)).to(offset.dtype)


def _lanczos(offset: Tensor) -> Tensor:
    """Three lobes: sinc(x) sinc(x / 3) for |x| < 3."""
    distance = offset.abs()
    return torch.where(distance < 3.0, torch.sinc(distance) * torch.sinc(distance / 3.0), 0.0)


# Half the width in output pixels, and the weight at an offset.
_SHAPES: dict[str, tuple[float, Callable[[Tensor], Tensor]]] = {
    "bilinear": (1.0, _triangle),
    "bicubic": (2.0, _cubic),
    "box": (0.5, _box),
    "lanczos": (3.0, _lanczos),
}


def _check(images: Tensor, size: tuple[int, int], kernel: str) -> None:
    check_in(kernel, KERNELS, "resize kernel")
    if images.ndim != 4:
        raise ValueError(f"images: expected shape [B, C, H, W], got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"images: expected floating point, got {images.dtype}; use .float()")
    for side, name in zip(size, ("height", "width"), strict=True):
        check_at_least(side, 1, f"resize {name} in pixels")
