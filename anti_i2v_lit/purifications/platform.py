"""What an upload usually does: smaller, saved as JPEG, shown at size again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_between
from anti_i2v_lit.ops.jpeg import jpeg_emulated
from anti_i2v_lit.ops.resize import resize
from anti_i2v_lit.purifications.base import Purification
from anti_i2v_lit.purifications.resize import check_share, shrunk


@final
class PlatformStack(Purification):
    """Resize down, save as JPEG with 4:2:0 chroma, resize back.

    Severity in native units: sides times 1 - severity * (1 - smallest_share), quality
    round(100 - severity * (100 - lowest_quality)); severity 1 of the defaults is half size and
    quality 75, Pillow's default.

    Source: none for these two numbers: half size and Pillow's default quality are the project's own
    proxy of an upload; named networks are in `social_network`.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the stack.

        Attributes:
            smallest_share: sides at severity 1, as a share of the original sides, in (0, 1).
            lowest_quality: JPEG quality at severity 1, on libjpeg's scale of 1 to 100.
        """

        smallest_share: float = 0.5
        lowest_quality: int = 75

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
        small = shrunk(size, 1.0 - severity * (1.0 - self.config.smallest_share))
        quality = round(100 - severity * (100 - self.config.lowest_quality))
        saved = jpeg_emulated(resize(photos, small), quality, "4:2:0")
        return resize(saved, size)
