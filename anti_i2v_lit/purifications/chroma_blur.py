"""Blurring colour alone, against cloaks that live in the chroma."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from kornia.color import rgb_to_ycbcr, ycbcr_to_rgb
from kornia.filters import gaussian_blur2d
from torch import Tensor

from anti_i2v_lit.purifications.base import Purification


@final
class ChromaBlur(Purification):
    """Low-pass of Cb and Cr (JFIF); the luma stays.

    Severity in native units: standard deviation = severity * largest_sigma_share of the shorter
    side.

    Source: none; it follows from cloaks that lie in a* and b*: whoever knows that blurs them.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the low-pass.

        Attributes:
            largest_sigma_share: standard deviation at severity 1, share of the shorter side.
        """

        largest_sigma_share: float = 0.03

        def __post_init__(self) -> None:
            if not 0 < self.largest_sigma_share <= 1:
                raise ValueError(
                    "largest_sigma_share must be above 0 and at most 1 (share of the shorter "
                    f"side), got {self.largest_sigma_share:g}"
                )

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def is_differentiable(self) -> bool:
        """True: a linear map."""
        return True

    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        sigma = severity * self.config.largest_sigma_share * min(photos.shape[-2:])
        side = 2 * math.ceil(4.0 * sigma) + 1
        ycc = rgb_to_ycbcr(photos)
        chroma = gaussian_blur2d(ycc[:, 1:], (side, side), (sigma, sigma), border_type="replicate")
        return ycbcr_to_rgb(torch.cat((ycc[:, :1], chroma), dim=1))
