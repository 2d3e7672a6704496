"""JPEG inside the graph: an emulation of libjpeg's arithmetic, and the real encoder.

kornia's differentiable JPEG was measured beside this one against Pillow: it always halves the
chroma (no 4:4:4), filters it more broadly than libjpeg, and replaces rounding by a polynomial that
does not round, so coefficients that a real file drops survive in it.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from anti_i2v_lit.checks import check_between, check_in
from anti_i2v_lit.ops.dct import analyse, synthesise
from anti_i2v_lit.ops.quantise import quantise_8bit, round_through, straight_through, to_uint8

SUBSAMPLINGS = ("4:2:0", "4:4:4")
"""Chroma at half size on both axes (what most platforms write), or at full size."""

_LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""ITU-T T.81 table K.1: step sizes of the luma coefficients at quality 50."""

_CHROMA_CORNER = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))
"""ITU-T T.81 table K.2: its first 4 x 4 entries; all others are 99."""

_TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)
"""JFIF: R'G'B' in [0, 255] to Y, Cb - 128, Cr - 128."""


def check_jpeg(quality: int, subsampling: str) -> None:
    """Refuse settings that no encoder here accepts.

    Raises:
        ValueError: quality outside [1, 100], or subsampling not in `SUBSAMPLINGS`.
    """
    check_between(quality, 1, 100, "JPEG quality")
    check_in(subsampling, SUBSAMPLINGS, "chroma subsampling")


def quantisation_tables(quality: int) -> tuple[Tensor, Tensor]:
    """Return luma and chroma step sizes [8, 8], float32, by the IJG rule that libjpeg uses."""
    luma = torch.tensor(_LUMA_TABLE, dtype=torch.float32)
    chroma = torch.full((8, 8), 99.0)
    chroma[:4, :4] = torch.tensor(_CHROMA_CORNER, dtype=torch.float32)
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    first, second = (((t * scale + 50) / 100).floor().clamp(1, 255) for t in (luma, chroma))
    return first, second


def jpeg_emulated(photos: Tensor, quality: int, subsampling: str = "4:2:0") -> Tensor:
    """Save and read again as JPEG, batched, on any device, with gradients.

    Follows libjpeg step by step: 8-bit input, JFIF colour, chroma averaged over 2 x 2 pixels,
    8 x 8 DCT, rounding to the quantisation steps, triangle-filter chroma upsampling, 8-bit output.
    Every rounding and clip is straight-through.

    Args:
        photos: [B, 3, H, W] in [0, 1].
        quality: 1 to 100, as libjpeg and Pillow mean it.
        subsampling: "4:2:0" or "4:4:4".

    Returns:
        [B, 3, H, W] in [0, 1], on the 8-bit grid.

    Raises:
        ValueError: unknown subsampling or quality out of range.
    """
    check_jpeg(quality, subsampling)
    height, width = photos.shape[-2:]
    to_ycc, to_rgb = _colour_matrices(photos.device)
    levels = quantise_8bit(photos) * 255.0
    planes = round_through(torch.einsum("dc,bchw->bdhw", to_ycc, levels))
    luma_steps, chroma_steps = _tables(quality, photos.device)
    luma = _code(planes[:, :1] - 128.0, luma_steps) + 128.0
    chroma = planes[:, 1:]
    if subsampling == "4:2:0":
        halved = round_through(F.avg_pool2d(_pad(chroma, 2), 2))
        coded = _code(halved, chroma_steps)
        doubled = F.interpolate(coded, scale_factor=2, mode="bilinear", align_corners=False)
        chroma = round_through(doubled)[..., :height, :width]
    else:
        chroma = _code(chroma, chroma_steps)
    rgb = torch.einsum("dc,bchw->bdhw", to_rgb, torch.cat((luma, chroma), dim=1))
    return quantise_8bit(rgb / 255.0)


def jpeg_saved(photos: Tensor, quality: int, subsampling: str = "4:2:0") -> Tensor:
    """Save and read again with Pillow's encoder; the gradient is that of the identity.

    Args:
        photos: [B, 3, H, W] in [0, 1], rounded to 8 bits on the way in.
        quality: 1 to 100.
        subsampling: "4:2:0" or "4:4:4".

    Returns:
        [B, 3, H, W] in [0, 1], on the 8-bit grid.

    Raises:
        ValueError: unknown subsampling or quality out of range.
    """
    check_jpeg(quality, subsampling)
    pixels = to_uint8(photos).permute(0, 2, 3, 1).cpu().numpy()
    saved = np.stack([_save(image, quality, subsampling) for image in pixels])
    found = torch.from_numpy(saved).permute(0, 3, 1, 2).to(photos) / 255.0
    return straight_through(found, photos)


def _save(pixels: np.ndarray, quality: int, subsampling: str) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(file))


def _code(planes: Tensor, steps: Tensor) -> Tensor:
    """Quantise 8 x 8 blocks of [B, C, h, w]; pads by repetition to whole blocks and crops again."""
    height, width = planes.shape[-2:]
    padded = _pad(planes, 8)
    blocks = padded.unfold(-2, 8, 8).unfold(-2, 8, 8)
    found = synthesise(round_through(analyse(blocks, (8, 8)) / steps) * steps, (8, 8))
    joined = found.transpose(-3, -2).reshape(padded.shape)
    clipped = joined.detach().clamp(-128.0, 127.0)
    return round_through(straight_through(clipped, joined))[..., :height, :width]


def _pad(planes: Tensor, multiple: int) -> Tensor:
    down, right = (-planes.shape[-2]) % multiple, (-planes.shape[-1]) % multiple
    return F.pad(planes, (0, right, 0, down), mode="replicate") if down or right else planes


@lru_cache(maxsize=256)
@torch.inference_mode(False)
def _tables(quality: int, device: torch.device) -> tuple[Tensor, Tensor]:
    luma, chroma = quantisation_tables(quality)
    return luma.to(device), chroma.to(device)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _colour_matrices(device: torch.device) -> tuple[Tensor, Tensor]:
    matrix = torch.tensor(_TO_YCC, dtype=torch.float64)
    return matrix.float().to(device), torch.linalg.inv(matrix).float().to(device)
