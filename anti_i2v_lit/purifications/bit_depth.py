"""Fewer grey levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_between
from anti_i2v_lit.ops.quantise import straight_through
from anti_i2v_lit.purifications.base import Purification


@final
class BitDepth(Purification):
    """Round to fewer levels per channel.

    Severity in native units: steps between black and white = 255 ** (1 - severity) times
    (2 ** lowest_bits - 1) ** severity, rounded, so that halving the depth is half of the scale.

    Source: Xu et al. 2018, "Feature Squeezing", NDSS, section III: fewer bits as a defence.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the rounding.

        Attributes:
            lowest_bits: depth at severity 1, bits per channel, 1 to 7.
        """

        lowest_bits: int = 3

        def __post_init__(self) -> None:
            check_between(self.lowest_bits, 1, 7, "lowest_bits")

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def is_differentiable(self) -> bool:
        """True: rounding is straight-through."""
        return True

    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        least = 2**self.config.lowest_bits - 1
        steps = round(255.0 ** (1.0 - severity) * least**severity)
        return straight_through(torch.round(photos.detach() * steps) / steps, photos)
