"""What a platform or an attacker does to a photo, on one scale of severity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_between, check_photos
from anti_i2v_lit.ops.resize import Box, check_box


class Purification(ABC):
    """A change that may remove a cloak.

    A variant provides `_purify` and `is_differentiable`; `purify` is final: it leaves the input
    untouched, returns the input itself at severity 0, keeps shape and range. A variant that looks
    at faces overrides `_purify_faces` as well.
    """

    Config: type[Any]

    @property
    @abstractmethod
    def is_differentiable(self) -> bool:
        """Whether gradients (possibly straight-through) reach the input."""

    @abstractmethod
    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor: ...

    def _purify_faces(
        self,
        photos: Tensor,
        faces: Sequence[Box | None],
        severity: float,
        generator: torch.Generator,
    ) -> Tensor:
        """Purify photos whose faces are known; most purifications do not look at them."""
        return self._purify(photos, severity, generator)

    @final
    def purify(
        self,
        photos: Tensor,
        severity: float,
        generator: torch.Generator,
        *,
        faces: Sequence[Box | None] | None = None,
    ) -> Tensor:
        """Return purified photos of the same shape in [0, 1].

        Hand in `faces` whenever they are known: a purification that needs none ignores them, and
        one that needs them (`face_crop`) takes the middle of the photo without. Crops, turns and
        face crops move the face: whoever frames the result by its face has to find it again.

        Args:
            photos: [B, 3, H, W] in [0, 1].
            severity: in [0, 1]; 0 is identity, 1 the harshest setting that people use.
            generator: CPU generator; same generator state, same result.
            faces: per photo the box (left, top, right, bottom) of its main face as shares of
                width and height (`Face.box` of the detector), or None where there is none.

        Raises:
            ValueError: photos, severity or boxes out of range, or not one box per photo.
        """
        check_photos(photos)
        check_between(severity, 0.0, 1.0, "severity")
        if faces is not None and len(faces) != len(photos):
            raise ValueError(
                f"faces: expected one box or None per photo, got {len(faces)} for {len(photos)}"
            )
        for box in faces or ():
            if box is not None:
                check_box(box)
        if severity == 0.0:
            return photos
        if faces is None:
            changed = self._purify(photos, severity, generator)
        else:
            changed = self._purify_faces(photos, faces, severity, generator)
        assert changed.shape == photos.shape
        return changed.clamp(0.0, 1.0)
