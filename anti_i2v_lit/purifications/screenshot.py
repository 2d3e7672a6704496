"""A photo shown on a screen and captured from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_between
from anti_i2v_lit.ops.jpeg import jpeg_emulated
from anti_i2v_lit.ops.quantise import quantise_8bit
from anti_i2v_lit.ops.resize import resize
from anti_i2v_lit.purifications.base import Purification
from anti_i2v_lit.purifications.resize import check_share, shrunk


@final
class Screenshot(Purification):
    """Scale to the screen (bilinear, as browsers draw), 8 bits, save as JPEG 4:4:4, scale back.

    Severity in native units: the screen shows the photo at 1 - severity * (1 - smallest_share) of
    its sides; quality round(100 - severity * (100 - lowest_quality)).

    Source: users' questions to every cloaking tool; the chain is the project's own.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the chain.

        Attributes:
            smallest_share: sides on the screen at severity 1, share of the originals, in (0, 1).
            lowest_quality: JPEG quality of the capture at severity 1, libjpeg's scale of 1 to 100.
        """

        smallest_share: float = 0.4
        lowest_quality: int = 85

        def __post_init__(self) -> None:
            check_share(self.smallest_share, "smallest_share")
            check_between(self.lowest_quality, 1, 99, "lowest_quality")

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def is_differentiable(self) -> bool:
        """True: rounding is straight-through."""
        return True

    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        size = (photos.shape[-2], photos.shape[-1])
        screen = shrunk(size, 1.0 - severity * (1.0 - self.config.smallest_share))
        shown = quantise_8bit(resize(photos, screen, "bilinear"))
        quality = round(100 - severity * (100 - self.config.lowest_quality))
        return resize(jpeg_emulated(shown, quality, "4:4:4"), size)
