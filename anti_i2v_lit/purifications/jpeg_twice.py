"""Two JPEG saves whose blocks do not line up, as after a crop between two uploads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from anti_i2v_lit.checks import check_between, check_in
from anti_i2v_lit.ops.jpeg import SUBSAMPLINGS, jpeg_emulated
from anti_i2v_lit.purifications.base import Purification

_SHIFT_PX = 4  # half a block: the second grid cuts the first one's blocks in the middle


@final
class JpegTwice(Purification):
    """Save as JPEG, shift the block grid by half a block, save again.

    Severity in native units: both qualities are round(100 - severity * (100 - lowest_quality)).

    Source: two uploads with a crop in between; the saves are those of `jpeg`.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the two saves.

        Attributes:
            subsampling: chroma resolution of both, "4:2:0" or "4:4:4".
            lowest_quality: quality of both at severity 1, on libjpeg's scale of 1 to 100.
        """

        subsampling: str = "4:2:0"
        lowest_quality: int = 30

        def __post_init__(self) -> None:
            check_in(self.subsampling, SUBSAMPLINGS, "chroma subsampling")
            check_between(self.lowest_quality, 1, 99, "lowest_quality")

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def is_differentiable(self) -> bool:
        """True: rounding is straight-through."""
        return True

    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        quality = round(100 - severity * (100 - self.config.lowest_quality))
        once = jpeg_emulated(photos, quality, self.config.subsampling)
        shifted = F.pad(once, (_SHIFT_PX, 0, _SHIFT_PX, 0), mode="replicate")
        twice = jpeg_emulated(shifted, quality, self.config.subsampling)
        return twice[..., _SHIFT_PX:, _SHIFT_PX:]
