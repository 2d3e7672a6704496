"""A crop around the face, so that it lies elsewhere and larger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from anti_i2v_lit.ops.resize import Box, crop_resize
from anti_i2v_lit.purifications.base import Purification
from anti_i2v_lit.purifications.resize import check_share

_MIDDLE: Box = (1 / 3, 1 / 3, 2 / 3, 2 / 3)
# A face that already fills the photo is still cropped a little, and a tiny one not beyond reason.
_LARGEST_WINDOW, _SMALLEST_WINDOW = 0.9, 0.3


@final
class FaceCrop(Purification):
    """Crop around the face and enlarge to the old size: the face moves and grows.

    Severity in native units: the kept window goes straight from the whole photo to the one at
    severity 1, in which the face's longer share of the sides fills `face_share` and its centre
    lies in the middle (as near as the photo's border allows). Without a face the middle third of
    the photo stands for it.

    Source: portrait tools and I2V pipelines crop to the face first; Sun et al. 2026,
    arXiv 2604.23688, on defences that do not survive common transformations.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the crop.

        Attributes:
            face_share: longer side of the face at severity 1, share of the window, in (0, 1).
        """

        face_share: float = 0.6

        def __post_init__(self) -> None:
            check_share(self.face_share, "face_share")

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def is_differentiable(self) -> bool:
        """True: a linear map; what is cut off gets no gradient."""
        return True

    def window(self, face: Box | None, severity: float) -> Box:
        """Return what is kept, as shares of the sides.

        Args:
            face: box of the face, see `purify`; None for the middle third.
            severity: in [0, 1].
        """
        left, top, right, bottom = face or _MIDDLE
        wanted = max(right - left, bottom - top) / self.config.face_share
        side = min(max(wanted, _SMALLEST_WINDOW), _LARGEST_WINDOW)
        x = min(max(0.5 * (left + right - side), 0.0), 1.0 - side)
        y = min(max(0.5 * (top + bottom - side), 0.0), 1.0 - side)
        rest = 1.0 - severity
        # Rounding may carry an edge beyond the border.
        far_x, far_y = (min(severity * (edge + side) + rest, 1.0) for edge in (x, y))
        return severity * x, severity * y, far_x, far_y

    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        return self._purify_faces(photos, [None] * len(photos), severity, generator)

    def _purify_faces(
        self,
        photos: Tensor,
        faces: Sequence[Box | None],
        severity: float,
        generator: torch.Generator,
    ) -> Tensor:
        size = (photos.shape[-2], photos.shape[-1])
        pairs = zip(photos.split(1), faces, strict=True)
        return torch.cat([crop_resize(p, self.window(face, severity), size) for p, face in pairs])
