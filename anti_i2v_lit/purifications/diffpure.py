"""DiffPure: drown the cloak in noise and let a diffusion model take the noise away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_at_least
from anti_i2v_lit.purifications.base import Purification
from anti_i2v_lit.purifications.diffusion import (
    DiffusionModel,
    diffuse_and_reverse,
    load_diffusion,
)
from anti_i2v_lit.purifications.working_size import (
    DEFAULT_WORK_PX,
    at_working_size,
    check_work_px,
)


@final
class DiffPure(Purification):
    """Add the noise of t* steps and run a pixel-space diffusion model back.

    Severity in native units: t* = max(1, round(severity * largest_timestep)) of the model's steps
    (1000 as a rule); 100 is the setting of the comparison in GrIDPure's paper, the original uses
    150 against larger perturbations of ImageNet photos. The photo is purified at the size that
    the video model takes, see `at_working_size`.

    Source: Nie et al. 2022, "Diffusion Models for Adversarial Purification", arXiv 2205.07460.

    Args:
        config: settings.
        model: already in memory; loaded by `config.model` if None.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the loop.

        Attributes:
            model: "embedded" for the packaged patch model, or a diffusers folder of a DDPM.
            largest_timestep: noise at severity 1, in steps of the model's schedule.
            num_steps: steps of the way back; no unit.
            work_px: shorter side during purification, pixels; 0 for the photo's own.
        """

        model: str = "embedded"
        largest_timestep: int = 100
        num_steps: int = 20
        work_px: int = DEFAULT_WORK_PX

        def __post_init__(self) -> None:
            check_at_least(self.largest_timestep, 1, "largest_timestep")
            check_at_least(self.num_steps, 1, "num_steps")
            check_work_px(self.work_px)

    def __init__(self, config: Config, model: DiffusionModel | None = None) -> None:
        self.config = config
        self.model = model or load_diffusion(config.model)
        check_timestep(config.largest_timestep, self.model)

    @property
    def is_differentiable(self) -> bool:
        """False: the loop keeps no graph."""
        return False

    @torch.no_grad()
    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        steps = max(1, round(severity * self.config.largest_timestep))

        def change(small: Tensor) -> Tensor:
            found = diffuse_and_reverse(
                self.model,
                2.0 * small - 1.0,
                num_noise_steps=steps,
                num_steps=self.config.num_steps,
                generator=generator,
                predict=self.model.noise_over_tiles,
            )
            return 0.5 * (found + 1.0)

        return at_working_size(photos, self.config.work_px, 1, change)


def check_timestep(largest: int, model: DiffusionModel) -> None:
    """Refuse more noise than the model knows.

    Raises:
        ValueError: with both numbers.
    """
    if largest > len(model.alphas):
        raise ValueError(
            f"largest_timestep: expected at most {len(model.alphas)}, the steps of this model, "
            f"got {largest}"
        )
