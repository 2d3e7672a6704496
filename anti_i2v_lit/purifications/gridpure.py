"""GrIDPure: many small purifications of overlapping tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_at_least, check_between
from anti_i2v_lit.purifications.by_diffusion import DiffusionConfig, DiffusionPurification
from anti_i2v_lit.purifications.diffusion import diffuse_and_reverse
from anti_i2v_lit.purifications.tiles import tile_sums
from anti_i2v_lit.purifications.working_size import pad_to


@final
class GridPure(DiffusionPurification):
    """Purify overlapping tiles with little noise, blend, and do it again and again.

    Every iteration runs DiffPure with `num_noise_steps` on tiles of the model's size that overlap
    by half, and on one tile put together from the photo's four corners, which only one other tile
    covers. Overlaps are averaged, and the result is (1 - gamma) times that plus gamma times the
    iteration's input. Severity in native units: round(severity * num_iterations) iterations, at
    least one; the paper's setting against published protections is 20 of 10 steps.

    Source: Zhao et al. 2024, "Can Protective Perturbation Safeguard Personal Data from Being
    Exploited by Stable Diffusion?", arXiv 2312.00084, and its published program for the corners.
    There, tiles are 256 px of 512; here they are the packaged model's 64 px of 128.
    """

    @dataclass(kw_only=True)
    class Config(DiffusionConfig):
        """Settings of the loop; see `DiffusionConfig` for the others.

        Attributes:
            num_iterations: iterations at severity 1; no unit.
            num_noise_steps: noise of an iteration, in steps of the model's schedule.
            num_steps: steps of each way back; the paper takes every one of the 10, two of them
                cost a fifth and differ little; no unit.
            gamma: weight of the iteration's input in its result, in [0, 1].
        """

        num_iterations: int = 20
        num_noise_steps: int = 10
        num_steps: int = 2
        gamma: float = 0.1

        def __post_init__(self) -> None:
            super().__post_init__()
            check_at_least(self.num_iterations, 1, "num_iterations")
            check_at_least(self.num_noise_steps, 1, "num_noise_steps")
            check_between(self.gamma, 0.0, 1.0, "gamma")

    config: Config

    @property
    def _largest_timestep(self) -> int:
        return self.config.num_noise_steps

    def _change(self, images: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        height, width = images.shape[-2:]
        images = pad_to(images, (self.model.side_px, self.model.side_px))
        for _ in range(max(1, round(severity * self.config.num_iterations))):
            purified = self._iteration(images, generator)
            images = (1.0 - self.config.gamma) * purified + self.config.gamma * images
        return images[..., :height, :width]

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
