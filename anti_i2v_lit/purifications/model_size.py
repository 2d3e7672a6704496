"""Another purification at the size that the attacker's video model takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_in
from anti_i2v_lit.ops.resize import Box, resize
from anti_i2v_lit.purifications.base import Purification
from anti_i2v_lit.purifications.working_size import DEFAULT_WORK_PX, check_work_px, shrink

INNER = ("jpeg", "noise", "resize", "blur")


@final
class AtModelSize(Purification):
    """Shrink to the size of the model's frames, purify there, enlarge again.

    What an attacker does who cleans a photo for one model: at the photo's own size a save, a blur
    or noise of a large photo is averaged away before the model sees it.

    Severity in native units: that of the inner purification, with its defaults. At 0 nothing is
    shrunk either.

    Source: Hoenig et al. 2024, arXiv 2406.12027, who purify at the size of the model.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the purification at the model's size.

        Attributes:
            inner: name of what is done there, "jpeg", "noise", "resize" or "blur".
            work_px: shorter side there, pixels; 0 for the photo's own; smaller photos keep theirs.
        """

        inner: str = "jpeg"
        work_px: int = DEFAULT_WORK_PX

        def __post_init__(self) -> None:
            check_in(self.inner, INNER, "inner")
            check_work_px(self.work_px)

    def __init__(self, config: Config) -> None:
        # The table of names lists this file too.
        from anti_i2v_lit.purifications import PURIFICATIONS  # noqa: PLC0415

        self.config = config
        self._inner = PURIFICATIONS.build({"name": config.inner})

    @property
    def is_differentiable(self) -> bool:
        """True: the inner ones have a gradient or a straight-through one."""
        return self._inner.is_differentiable

    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        return self._purify_faces(photos, [None] * len(photos), severity, generator)

    def _purify_faces(
        self,
        photos: Tensor,
        faces: Sequence[Box | None],
        severity: float,
        generator: torch.Generator,
    ) -> Tensor:
        small = shrink(photos, self.config.work_px)
        changed = self._inner.purify(small, severity, generator, faces=faces)
        return resize(changed, (photos.shape[-2], photos.shape[-1]))
