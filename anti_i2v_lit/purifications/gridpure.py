"""GrIDPure: many small purifications of overlapping tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_at_least, check_between
from anti_i2v_lit.purifications.base import Purification
from anti_i2v_lit.purifications.diffpure import check_timestep
from anti_i2v_lit.purifications.diffusion import (
    DiffusionModel,
    diffuse_and_reverse,
    load_diffusion,
)
from anti_i2v_lit.purifications.tiles import tile_sums
from anti_i2v_lit.purifications.working_size import (
    DEFAULT_WORK_PX,
    at_working_size,
    check_work_px,
    pad_to,
)


@final
class GridPure(Purification):
    """Purify overlapping tiles with little noise, blend, and do it again and again.

    Every iteration runs DiffPure with `num_noise_steps` on tiles of the model's size that overlap
    by half, and on one tile put together from the photo's four corners, which only one other tile
    covers. Overlaps are averaged, and the result is (1 - gamma) times that plus gamma times the
    iteration's input. Severity in native units: round(severity * num_iterations) iterations, at
    least one; the paper's setting against published protections is 20 of 10 steps.

    Source: Zhao et al. 2024, "Can Protective Perturbation Safeguard Personal Data from Being
    Exploited by Stable Diffusion?", arXiv 2312.00084, and its published program for the corners.
    There, tiles are 256 px of 512; here they are the packaged model's 64 px of 128.

    Args:
        config: settings.
        model: already in memory; loaded by `config.model` if None.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the loop.

        Attributes:
            model: "embedded" for the packaged patch model, or a diffusers folder of a DDPM.
            num_iterations: iterations at severity 1; no unit.
            num_noise_steps: noise of an iteration, in steps of the model's schedule.
            num_steps: steps of each way back; the paper takes every one of the 10, two of them
                cost a fifth and differ little; no unit.
            gamma: weight of the iteration's input in its result, in [0, 1].
            work_px: shorter side during purification, pixels; 0 for the photo's own.
        """

        model: str = "embedded"
        num_iterations: int = 20
        num_noise_steps: int = 10
        num_steps: int = 2
        gamma: float = 0.1
        work_px: int = DEFAULT_WORK_PX

        def __post_init__(self) -> None:
            for name in ("num_iterations", "num_noise_steps", "num_steps"):
                check_at_least(getattr(self, name), 1, name)
            check_between(self.gamma, 0.0, 1.0, "gamma")
            check_work_px(self.work_px)

    def __init__(self, config: Config, model: DiffusionModel | None = None) -> None:
        self.config = config
        self.model = model or load_diffusion(config.model)
        check_timestep(config.num_noise_steps, self.model)

    @property
    def is_differentiable(self) -> bool:
        """False: the loop keeps no graph."""
        return False

    @torch.no_grad()
    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        count = max(1, round(severity * self.config.num_iterations))

        def change(small: Tensor) -> Tensor:
            images = pad_to(2.0 * small - 1.0, (self.model.side_px, self.model.side_px))
            for _ in range(count):
                purified = self._iteration(images, generator)
                images = (1.0 - self.config.gamma) * purified + self.config.gamma * images
            return 0.5 * (images + 1.0)[..., : small.shape[-2], : small.shape[-1]]

        return at_working_size(photos, self.config.work_px, 1, change)

    def _iteration(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """One pass over the grid and the corners of images at least as large as a tile."""

        def purify_tiles(tiles: Tensor) -> Tensor:
            return diffuse_and_reverse(
                self.model,
                tiles,
                num_noise_steps=self.config.num_noise_steps,
                num_steps=self.config.num_steps,
                generator=generator,
                predict=self.model.noise,
            )

        side = self.model.side_px
        total, count = tile_sums(images, side, side // 2, purify_tiles)
        half = side // 2
        height, width = images.shape[-2:]
        rows = torch.cat((torch.arange(half), torch.arange(height - half, height)))
        columns = torch.cat((torch.arange(half), torch.arange(width - half, width)))
        corners = purify_tiles(images[..., rows[:, None], columns])
        total[..., rows[:, None], columns] += corners
        count[..., rows[:, None], columns] += 1.0
        return total / count
