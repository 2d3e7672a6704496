"""Gaussian blur."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor

from anti_i2v_lit.purifications.base import Purification


@final
class GaussianBlur(Purification):
    """Blur by a Gaussian, edges repeated.

    Severity in native units: standard deviation = severity * largest_sigma_px pixels.

    Source: the distortions of IP-Bench 2026, arXiv 2603.26154, which judges cloaks against
    video models.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the blur.

        Attributes:
            largest_sigma_px: standard deviation at severity 1, in pixels.
        """

        largest_sigma_px: float = 3.0

        def __post_init__(self) -> None:
            if not 0 < self.largest_sigma_px <= 100:
                raise ValueError(
                    "largest_sigma_px must be above 0 and at most 100 pixels, got "
                    f"{self.largest_sigma_px:g}"
                )

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def is_differentiable(self) -> bool:
        """True: a linear map."""
        return True

    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        sigma = severity * self.config.largest_sigma_px
        side = 2 * math.ceil(4.0 * sigma) + 1
        return gaussian_blur2d(photos, (side, side), (sigma, sigma), border_type="replicate")
