"""Smaller and back to size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_in
from anti_i2v_lit.ops.resize import KERNELS, resize
from anti_i2v_lit.purifications.base import Purification


@final
class ResizeDownUp(Purification):
    """Resize to a smaller size and back, antialiased.

    Severity in native units: both sides are multiplied by 1 - severity * (1 - smallest_share);
    with the default smallest share of 0.25, severity 0.67 is half size.

    Source: Sun et al. 2026, arXiv 2604.23688; the kernels are Pillow's.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the resize.

        Attributes:
            smallest_share: sides at severity 1, as a share of the original sides, in (0, 1).
            kernel: interpolation both ways: "bilinear", "bicubic", "box" or "lanczos".
        """

        smallest_share: float = 0.25
        kernel: str = "bicubic"

        def __post_init__(self) -> None:
            check_share(self.smallest_share, "smallest_share")
            check_in(self.kernel, KERNELS, "resize kernel")

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def is_differentiable(self) -> bool:
        """True: a linear map."""
        return True

    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        size = (photos.shape[-2], photos.shape[-1])
        small = shrunk(size, 1.0 - severity * (1.0 - self.config.smallest_share))
        kernel = self.config.kernel
        return resize(resize(photos, small, kernel), size, kernel)


def shrunk(size: tuple[int, int], share: float) -> tuple[int, int]:
    """Return (H, W) multiplied by a share, rounded, at least 1 pixel each."""
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def check_share(value: float, field: str) -> None:
    """Refuse a share outside (0, 1).

    Raises:
        ValueError: naming the field and the value.
    """
    if not 0 < value < 1:
        raise ValueError(f"{field} must be above 0 and below 1 (share of each side), got {value:g}")
