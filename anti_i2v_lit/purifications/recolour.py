"""Removing the colours and painting them again, guided by the luma."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from kornia.color import rgb_to_ycbcr, ycbcr_to_rgb
from kornia.filters import box_blur
from torch import Tensor

from anti_i2v_lit.purifications.base import Purification

_SMOOTHNESS = 1e-3  # variance of the luma below which the new colour does not follow it


@final
class Recolour(Purification):
    """Replace Cb and Cr by a locally linear function of the luma (guided filter).

    What a colouriser that knows the photo's rough colours would paint. Patterns of colour that
    the luma does not show are gone. Severity in native units: the share of the old colour that
    is replaced.

    Source: He et al. 2013, "Guided Image Filtering", with the luma as guide.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the painting.

        Attributes:
            window_share: side of the windows, share of the shorter side, in (0, 1].
        """

        window_share: float = 0.12

        def __post_init__(self) -> None:
            if not 0 < self.window_share <= 1:
                raise ValueError(
                    "window_share must be above 0 and at most 1 (share of the shorter side), got "
                    f"{self.window_share:g}"
                )

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def is_differentiable(self) -> bool:
        """True: smooth."""
        return True

    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        shorter = min(photos.shape[-2:])
        # Odd, and short enough for the mirrored border.
        window = min(2 * round(self.config.window_share * shorter / 2) + 1, 2 * shorter - 1)
        ycc = rgb_to_ycbcr(photos)
        painted = _guided(ycc[:, :1], ycc[:, 1:], window)
        chroma = ycc[:, 1:].lerp(painted, severity)
        return ycbcr_to_rgb(torch.cat((ycc[:, :1], chroma), dim=1))


def _guided(guide: Tensor, images: Tensor, window: int) -> Tensor:
    """What `kornia.filters.guided_blur` does, with separable means for large windows."""

    def mean(values: Tensor) -> Tensor:
        return box_blur(values, (window, window), border_type="replicate", separable=True)

    mean_guide, mean_images = mean(guide), mean(images)
    variance = mean(guide * guide) - mean_guide**2
    slope = (mean(guide * images) - mean_guide * mean_images) / (variance + _SMOOTHNESS)
    return mean(slope) * guide + mean(mean_images - slope * mean_guide)
