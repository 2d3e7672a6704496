"""A lossy WebP save by the real encoder."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from anti_i2v_lit.checks import check_between
from anti_i2v_lit.ops.quantise import straight_through, to_uint8
from anti_i2v_lit.purifications.base import Purification


@final
class WebpSave(Purification):
    """Save as lossy WebP (chroma at half size, as the format demands) and read again.

    Severity in native units: quality = round(100 - severity * (100 - lowest_quality)); with the
    default lowest quality of 10, severity 0.22 is quality 80, Pillow's default.

    Source: libwebp through Pillow; many sites deliver WebP.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the WebP save.

        Attributes:
            lowest_quality: quality at severity 1, on libwebp's scale of 0 to 100.
        """

        lowest_quality: int = 10

        def __post_init__(self) -> None:
            check_between(self.lowest_quality, 0, 99, "lowest_quality")

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def is_differentiable(self) -> bool:
        """True: the gradient is that of the identity."""
        return True

    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        quality = round(100 - severity * (100 - self.config.lowest_quality))
        pixels = to_uint8(photos).permute(0, 2, 3, 1).cpu().numpy()
        saved = np.stack([_save(image, quality) for image in pixels])
        found = torch.from_numpy(saved).permute(0, 3, 1, 2).to(photos) / 255.0
        return straight_through(found, photos)


def _save(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))
