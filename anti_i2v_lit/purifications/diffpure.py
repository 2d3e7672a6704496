"""DiffPure: drown the cloak in noise and let a diffusion model take the noise away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_at_least
from anti_i2v_lit.purifications.by_diffusion import DiffusionConfig, DiffusionPurification
from anti_i2v_lit.purifications.diffusion import diffuse_and_reverse


@final
class DiffPure(DiffusionPurification):
    """Add the noise of t* steps and run a pixel-space diffusion model back.

    Severity in native units: t* = max(1, round(severity * largest_timestep)) of the model's steps
    (1000 as a rule); 100 is the setting of the comparison in GrIDPure's paper, the original uses
    150 against larger perturbations of ImageNet photos. The photo is purified at the size that
    the video model takes, see `at_working_size`.

    Source: Nie et al. 2022, "Diffusion Models for Adversarial Purification", arXiv 2205.07460.
    """

    @dataclass(kw_only=True)
    class Config(DiffusionConfig):
        """Settings of the loop; see `DiffusionConfig` for the others.

        Attributes:
            largest_timestep: noise at severity 1, in steps of the model's schedule.
        """

        largest_timestep: int = 100

        def __post_init__(self) -> None:
            super().__post_init__()
            check_at_least(self.largest_timestep, 1, "largest_timestep")

    config: Config

    @property
    def _largest_timestep(self) -> int:
        return self.config.largest_timestep

    def _change(self, images: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        return diffuse_and_reverse(
            self.model,
            images,
            num_noise_steps=max(1, round(severity * self.config.largest_timestep)),
            num_steps=self.config.num_steps,
            generator=generator,
            predict=self.model.noise_over_tiles,
        )
