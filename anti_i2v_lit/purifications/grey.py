"""Removing colour, which removes whatever a cloak put into the chroma."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from kornia.color import rgb_to_grayscale
from torch import Tensor

from anti_i2v_lit.purifications.base import Purification


@final
class Greyscale(Purification):
    """Fade towards greyscale.

    Severity in native units: the share of colour removed; at 1 the photo is its ITU-R BT.601
    luma, as Pillow's "L" mode, repeated over three channels.

    Source: none for cloaks; it follows from cloaks that lie in a* and b*.
    """

    @dataclass(kw_only=True)
    class Config:
        """No settings."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def is_differentiable(self) -> bool:
        """True: a linear map."""
        return True

    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        return photos + severity * (rgb_to_grayscale(photos) - photos)
