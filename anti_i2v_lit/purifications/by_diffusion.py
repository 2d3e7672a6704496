"""What purifications that run a pixel-space diffusion model have in common."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from anti_i2v_lit.checkpoints import EMBEDDED
from anti_i2v_lit.checks import check_at_least
from anti_i2v_lit.purifications.base import Purification
from anti_i2v_lit.purifications.diffusion import DiffusionModel, load_diffusion
from anti_i2v_lit.purifications.working_size import (
    DEFAULT_WORK_PX,
    at_working_size,
    check_work_px,
)


@dataclass(kw_only=True)
class DiffusionConfig:
    """Settings of every such loop.

    Attributes:
        model: "embedded" for the packaged patch model, or a diffusers folder of a DDPM.
        num_steps: steps of a way back; no unit.
        work_px: shorter side during purification, pixels; 0 for the photo's own.
    """

    model: str = EMBEDDED
    num_steps: int = 20
    work_px: int = DEFAULT_WORK_PX

    def __post_init__(self) -> None:
        """Refuse values without meaning."""
        check_at_least(self.num_steps, 1, "num_steps")
        check_work_px(self.work_px)


class DiffusionPurification(Purification):
    """Runs a frozen diffusion model at the size that the video model takes.

    A variant provides `_change`, and `_largest_timestep` of what its settings ask for.

    Args:
        config: settings.
        model: already in memory; loaded by `config.model` if None.

    Raises:
        ValueError: no such model, or more noise than it knows.
    """

    def __init__(self, config: DiffusionConfig, model: DiffusionModel | None = None) -> None:
        self.config = config
        self.model = model or load_diffusion(config.model)
        known = len(self.model.alphas)
        if self._largest_timestep > known:
            raise ValueError(
                f"largest_timestep: expected at most {known}, the steps of this model, got "
                f"{self._largest_timestep}"
            )

    @property
    @abstractmethod
    def _largest_timestep(self) -> int:
        """The most noise that is ever added, in steps of the model's schedule."""

    @property
    def is_differentiable(self) -> bool:
        """False: the loop keeps no graph."""
        return False

    @abstractmethod
    def _change(self, images: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        """Purify images [B, 3, h, w] in [-1, 1] of the working size, to the same shape."""

    @final
    @torch.no_grad()
    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        def change(small: Tensor) -> Tensor:
            return 0.5 * (self._change(2.0 * small - 1.0, severity, generator) + 1.0)

        return at_working_size(photos, self.config.work_px, 1, change)
