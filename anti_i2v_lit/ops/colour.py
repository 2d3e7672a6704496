"""SRGB <-> CIE L*a*b* (D65) with finite gradients everywhere, and CIEDE2000.

Both curves of the conversion have an unbounded slope at zero: the cube root of L*a*b* and the
power of sRGB. Their published definitions replace the curve near zero by a line, but
`torch.where` alone would still differentiate the untaken branch and give 0 * inf = NaN at black;
so the untaken branch never sees an argument below its threshold.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

_RGB_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
"""Linear sRGB (IEC 61966-2-1 primaries, D65) to XYZ; the rows sum to the white point."""

_SRGB_THRESHOLD = 0.04045
_LINEAR_THRESHOLD = 0.0031308
_DELTA = 6 / 29
"""CIE 15: below `_DELTA ** 3` the cube root is replaced by its tangent."""


def srgb_to_linear(rgb: Tensor) -> Tensor:
    """Undo the sRGB curve; any shape; the line near black continues below 0."""
    curve = ((rgb.clamp(min=_SRGB_THRESHOLD) + 0.055) / 1.055) ** 2.4
    return torch.where(rgb > _SRGB_THRESHOLD, curve, rgb / 12.92)


def linear_to_srgb(linear: Tensor) -> Tensor:
    """Apply the sRGB curve; any shape; continues below 0 (line) and above 1 (curve)."""
    curve = 1.055 * linear.clamp(min=_LINEAR_THRESHOLD) ** (1 / 2.4) - 0.055
    return torch.where(linear > _LINEAR_THRESHOLD, curve, linear * 12.92)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """Convert sRGB to CIE L*a*b* under D65.

    Args:
        rgb: [B, 3, H, W], nominally in [0, 1]; values outside are continued smoothly.

    Returns:
        [B, 3, H, W]: L* in [0, 100] for colours in range, a* and b* in CIE units (about -110
        to 110). Greys have a* = b* = 0. Value and gradient are finite for every finite input.
    """
    to_xyz, _ = _matrices(rgb.dtype, rgb.device)
    x, y, z = _root(_mix(to_xyz, srgb_to_linear(rgb))).unbind(1)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), dim=1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Convert CIE L*a*b* (D65) to sRGB, without clipping to the gamut.

    Args:
        lab: [B, 3, H, W] as `rgb_to_lab` returns it.

    Returns:
        [B, 3, H, W]; outside [0, 1] where the colour is outside the sRGB gamut. Value and
        gradient are finite for every finite input.
    """
    _, from_xyz = _matrices(lab.dtype, lab.device)
    lightness, a, b = lab.unbind(1)
    y = (lightness + 16) / 116
    return linear_to_srgb(_mix(from_xyz, _cube(torch.stack((y + a / 500, y, y - b / 200), dim=1))))


@torch.no_grad()
def ciede2000(first: Tensor, second: Tensor) -> Tensor:
    """Return the CIEDE2000 colour difference of two L*a*b* images; a measure, not a loss.

    Source: Sharma, Wu, Dalal, "The CIEDE2000 color-difference formula", 2005, equations 2 to 22,
    with k_L = k_C = k_H = 1.

    Args:
        first: [B, 3, H, W] as `rgb_to_lab` returns it.
        second: same shape.

    Returns:
        [B, H, W]; about 1 is just noticeable, 0 is equal. No gradient.
    """
    l1, a1, b1 = first.unbind(1)
    l2, a2, b2 = second.unbind(1)
    stretch = 1.5 - 0.5 * _sigmoid7((torch.hypot(a1, b1) + torch.hypot(a2, b2)) / 2)
    a1, a2 = a1 * stretch, a2 * stretch
    c1, c2 = torch.hypot(a1, b1), torch.hypot(a2, b2)
    h1, h2 = _hue(a1, b1), _hue(a2, b2)
    turn = torch.remainder(h2 - h1 + math.pi, 2 * math.pi) - math.pi
    hue_step = 2 * (c1 * c2).sqrt() * torch.sin(turn / 2)
    mean_l, mean_c = (l1 + l2) / 2, (c1 + c2) / 2
    mean_h = torch.where(c1 * c2 == 0, h1 + h2, _mean_hue(h1, h2))
    s_l = 1 + 0.015 * (mean_l - 50) ** 2 / (20 + (mean_l - 50) ** 2).sqrt()
    s_c = 1 + 0.045 * mean_c
    s_h = 1 + 0.015 * mean_c * _hue_weight(mean_h)
    bump = torch.exp(-(((torch.rad2deg(mean_h) - 275) / 25) ** 2))
    rotation = -2 * _sigmoid7(mean_c) * torch.sin(torch.deg2rad(60 * bump))
    dl, dc, dh = (l2 - l1) / s_l, (c2 - c1) / s_c, hue_step / s_h
    return (dl**2 + dc**2 + dh**2 + rotation * dc * dh).clamp(min=0).sqrt()


def _root(t: Tensor) -> Tensor:
    curve = t.clamp(min=_DELTA**3) ** (1 / 3)
    return torch.where(t > _DELTA**3, curve, t / (3 * _DELTA**2) + 4 / 29)


def _cube(t: Tensor) -> Tensor:
    return torch.where(t > _DELTA, t**3, 3 * _DELTA**2 * (t - 4 / 29))


def _mix(matrix: Tensor, channels: Tensor) -> Tensor:
    return torch.einsum("dc,bchw->bdhw", matrix, channels)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _matrices(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Linear RGB -> XYZ relative to white, and its inverse."""
    matrix = torch.tensor(_RGB_TO_XYZ, dtype=torch.float64)
    matrix = matrix / matrix.sum(1, keepdim=True)
    return matrix.to(device, dtype), torch.linalg.inv(matrix).to(device, dtype)


def _sigmoid7(chroma: Tensor) -> Tensor:
    seventh = chroma**7
    return (seventh / (seventh + 25.0**7)).sqrt()


def _hue(a: Tensor, b: Tensor) -> Tensor:
    return torch.remainder(torch.atan2(b, a), 2 * math.pi)


def _mean_hue(h1: Tensor, h2: Tensor) -> Tensor:
    """Sharma 2005, equation 14: the middle of the shorter arc, in [0, 2 pi)."""
    middle = (h1 + h2) / 2
    far = (h1 - h2).abs() > math.pi
    shift = torch.where(h1 + h2 < 2 * math.pi, math.pi, -math.pi)
    return torch.where(far, middle + shift, middle)


def _hue_weight(hue: Tensor) -> Tensor:
    return (
        1
        - 0.17 * torch.cos(hue - math.radians(30))
        + 0.24 * torch.cos(2 * hue)
        + 0.32 * torch.cos(3 * hue + math.radians(6))
        - 0.20 * torch.cos(4 * hue - math.radians(63))
    )
