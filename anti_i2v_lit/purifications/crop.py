"""Cutting the border off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from anti_i2v_lit.ops.resize import crop_resize
from anti_i2v_lit.purifications.base import Purification
from anti_i2v_lit.purifications.resize import check_share


@final
class CentreCrop(Purification):
    """Keep the middle and enlarge it to the old size.

    Severity in native units: sides kept = 1 - severity * (1 - smallest_share) of the original
    ones.

    Source: Sun et al. 2026, arXiv 2604.23688: portrait defences hardly survive common
    transformations.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the crop.

        Attributes:
            smallest_share: sides kept at severity 1, as a share of the original sides, in (0, 1).
        """

        smallest_share: float = 0.7

        def __post_init__(self) -> None:
            check_share(self.smallest_share, "smallest_share")

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def is_differentiable(self) -> bool:
        """True: a linear map; the border that is cut off gets no gradient."""
        return True

    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        border = 0.5 * severity * (1.0 - self.config.smallest_share)
        size = (photos.shape[-2], photos.shape[-1])
        return crop_resize(photos, (border, border, 1.0 - border, 1.0 - border), size)
