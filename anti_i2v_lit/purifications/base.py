"""What a platform or an attacker does to a photo, on one scale of severity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, final

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_between, check_photos


class Purification(ABC):
    """A change that may remove a cloak.

    A variant provides `_purify` and `is_differentiable`; `purify` is final: it leaves the input
    untouched, returns the input itself at severity 0, keeps shape and range.
    """

    Config: type[Any]

    @property
    @abstractmethod
    def is_differentiable(self) -> bool:
        """Whether gradients (possibly straight-through) reach the input."""

    @abstractmethod
    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor: ...

    @final
    def purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        """Return purified photos of the same shape in [0, 1].

        Args:
            photos: [B, 3, H, W] in [0, 1].
            severity: in [0, 1]; 0 is identity, 1 the harshest setting that people use.
            generator: CPU generator; same generator state, same result.
        """
        check_photos(photos)
        check_between(severity, 0.0, 1.0, "severity")
        if severity == 0.0:
            return photos
        changed = self._purify(photos, severity, generator)
        assert changed.shape == photos.shape
        return changed.clamp(0.0, 1.0)
