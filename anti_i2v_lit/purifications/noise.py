"""Additive Gaussian noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from anti_i2v_lit.purifications.base import Purification


@final
class GaussianNoise(Purification):
    """Add independent normal noise to every channel, then clip to the range.

    Severity in native units: standard deviation = severity * largest_std_8bit grey levels. The
    same generator state gives the same noise at every severity, only scaled.

    Source: Hoenig et al. 2024, arXiv 2406.12027, with sigma 0.05 and 0.1, 12.75 and 25.5 levels.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the noise.

        Attributes:
            largest_std_8bit: standard deviation at severity 1, in grey levels of 255.
        """

        largest_std_8bit: float = 16.0

        def __post_init__(self) -> None:
            if not 0 < self.largest_std_8bit <= 255:
                raise ValueError(
                    "largest_std_8bit must be above 0 and at most 255 grey levels, got "
                    f"{self.largest_std_8bit:g}"
                )

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def is_differentiable(self) -> bool:
        """True: the noise does not depend on the photo."""
        return True

    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        std = severity * self.config.largest_std_8bit / 255.0
        return photos + std * torch.randn(photos.shape, generator=generator).to(photos)
