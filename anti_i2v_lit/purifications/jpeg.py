"""A JPEG save, emulated in the graph or by the real encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_between, check_in
from anti_i2v_lit.ops.jpeg import SUBSAMPLINGS, jpeg_emulated, jpeg_saved
from anti_i2v_lit.purifications.base import Purification

_CODECS = {"emulated": jpeg_emulated, "pillow": jpeg_saved}


@final
class JpegSave(Purification):
    """Save as JPEG and read again.

    Severity in native units: quality = round(100 - severity * (100 - lowest_quality)); with the
    default lowest quality of 10, severity 0.28 is quality 75.

    Source: ITU-T T.81 and libjpeg; Sandoval-Segura et al. 2023, arXiv 2304.02234: PhotoGuard
    is lost by a JPEG save.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the JPEG save.

        Attributes:
            subsampling: chroma resolution, "4:2:0" (most platforms) or "4:4:4".
            lowest_quality: quality at severity 1, on libjpeg's scale of 1 to 100.
            codec: "emulated" (batched, on the photos' device, gradient through the transform) or
                "pillow" (the real encoder, on the CPU, gradient of the identity).
        """

        subsampling: str = "4:2:0"
        lowest_quality: int = 10
        codec: str = "emulated"

        def __post_init__(self) -> None:
            check_in(self.subsampling, SUBSAMPLINGS, "chroma subsampling")
            check_between(self.lowest_quality, 1, 99, "lowest_quality")
            check_in(self.codec, _CODECS, "JPEG codec")

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def is_differentiable(self) -> bool:
        """True: rounding is straight-through."""
        return True

    def quality(self, severity: float) -> int:
        """Return the quality that a severity in [0, 1] stands for."""
        return round(100 - severity * (100 - self.config.lowest_quality))

    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        codec = _CODECS[self.config.codec]
        return codec(photos, self.quality(severity), self.config.subsampling)
