"""The plain RGB ball: the space of the baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from anti_i2v_lit.spaces.base import Parameters, PerturbationSpace
from anti_i2v_lit.spaces.bounds import clip, residual_bounds


@final
class RgbSpace(PerturbationSpace):
    """Every channel of every pixel, in an L-infinity ball of `budget_8bit` grey levels.

    One group, "rgb": the residual [B, 3, H, W] in [0, 1] units. Source: projected gradient
    descent of Madry et al., 2018, as PhotoGuard, Mist and AdvDM use it.
    """

    @dataclass(kw_only=True)
    class Config:
        """No settings: the budget belongs to the attack."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def _scales(self, photo: Tensor, budget_8bit: float) -> dict[str, Tensor]:
        return {"rgb": torch.full((1, 1, 1, 1), budget_8bit / 255.0).to(photo)}

    def _shapes(self, photo: Tensor) -> dict[str, tuple[int, ...]]:
        return {"rgb": tuple(photo.shape)}

    def _decode(self, photo: Tensor, parameters: Parameters, budget_8bit: float) -> Tensor:
        return photo + parameters["rgb"]

    def _project(self, photo: Tensor, parameters: Parameters, budget_8bit: float) -> Parameters:
        low, high = residual_bounds(photo, budget_8bit)
        return {"rgb": clip(parameters["rgb"], low, high)}

    def _direction(self, group: str, photo: Tensor, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def _step_shares(self, step: int, budget_8bit: float) -> dict[str, float]:
        return {"rgb": 1.0}
