"""A small turn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from anti_i2v_lit.purifications.base import Purification


@final
class Rotation(Purification):
    """Turn about the centre by bilinear interpolation; the mirrored photo fills the corners.

    Severity in native units: angle = severity * largest_angle_degrees, counter-clockwise.

    Source: Athalye et al. 2018, "Synthesizing Robust Adversarial Examples", arXiv 1707.07397.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the turn.

        Attributes:
            largest_angle_degrees: angle at severity 1, in degrees.
        """

        largest_angle_degrees: float = 10.0

        def __post_init__(self) -> None:
            if not 0 < self.largest_angle_degrees <= 180:
                raise ValueError(
                    "largest_angle_degrees must be above 0 and at most 180 degrees, got "
                    f"{self.largest_angle_degrees:g}"
                )

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def is_differentiable(self) -> bool:
        """True: a linear map."""
        return True

    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        angle = math.radians(severity * self.config.largest_angle_degrees)
        height, width = photos.shape[-2:]
        cosine, sine = math.cos(angle), math.sin(angle)
        # The grid is in shares of each side, so the turn in pixels is sheared by their ratio.
        turn = [[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]]
        matrix = torch.tensor(turn, dtype=photos.dtype, device=photos.device)
        grid = F.affine_grid(
            matrix.expand(len(photos), -1, -1), list(photos.shape), align_corners=False
        )
        return F.grid_sample(photos, grid, padding_mode="reflection", align_corners=False)
