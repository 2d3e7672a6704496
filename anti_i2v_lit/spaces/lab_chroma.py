"""The a* and b* channels of CIE L*a*b*, with L* untouched before the RGB ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_share
from anti_i2v_lit.ops.colour import lab_to_rgb, rgb_to_lab
from anti_i2v_lit.spaces.base import Parameters, PerturbationSpace
from anti_i2v_lit.spaces.bounds import clip, residual_bounds

LAB_UNITS_PER_LEVEL = 110.0 / 255.0
"""a* and b* divided by 110 is the common normalisation; this is one grey level of it."""

_FITTING_ROUNDS = 2
"""Measured on a portrait at 16 levels: a third round moves the cloak by 0.08 levels on average."""


@final
class LabChromaSpace(PerturbationSpace):
    """Offsets of a* and b* per pixel; lightness L* stays, up to the RGB ball.

    One group, "chroma": offsets [B, 2, H, W] in a*, b* units; a step of one grey level is 110 / 255
    units. A pixel whose changed colour leaves
    the RGB ball or the gamut is moved to the nearest colour inside (per RGB channel), and its
    offsets become what is left of them in a*, b*. L* then moves a little there: white and black
    pixels have no other way to change colour. Source: the L*a*b* half of the dual-space
    perturbation of Anti-I2V (arXiv 2603.24570); parametrisation of AntiForgery (Wang et al.,
    IJCAI 2022).
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the chroma space.

        Attributes:
            budget_share: largest |change of a*| and of |b*|, as a share of 110 / 255 a*, b*
                units per grey level of the attack's budget (6.9 units at 16 levels), in (0, 1].
        """

        budget_share: float = 1.0

        def __post_init__(self) -> None:
            check_share(self.budget_share, "budget_share")

    def __init__(self, config: Config) -> None:
        self.config = config

    def fit(
        self, photo: Tensor, offsets: Tensor, low: Tensor, high: Tensor, budget_8bit: float
    ) -> Tensor:
        """Clip offsets to the chroma budget and pull back those whose residual leaves a box.

        Args:
            photo: [B, 3, H, W] in [0, 1].
            offsets: [B, 2, H, W] in a*, b* units.
            low: [B, 3, H, W] smallest residual allowed in [0, 1] units, at most 0.
            high: [B, 3, H, W] largest residual allowed, at least 0.
            budget_8bit: the attack's budget in grey levels.

        Returns:
            [B, 2, H, W]; offsets that were inside are returned bit for bit.
        """
        limit = self._limit(budget_8bit)
        lab = rgb_to_lab(photo)
        offsets = offsets.clamp(-limit, limit)
        for _ in range(_FITTING_ROUNDS):
            residual = _residual(lab, offsets)
            held = clip(residual, low, high)
            outside = (held != residual).any(dim=1, keepdim=True)
            fitted = rgb_to_lab(photo + held)[:, 1:] - lab[:, 1:]
            offsets = torch.where(outside, fitted.clamp(-limit, limit), offsets)
        return offsets

    def _limit(self, budget_8bit: float) -> float:
        return self.config.budget_share * LAB_UNITS_PER_LEVEL * budget_8bit

    def _scales(self, photo: Tensor, budget_8bit: float) -> dict[str, Tensor]:
        return {"chroma": torch.full((1, 1, 1, 1), self._limit(budget_8bit)).to(photo)}

    def _shapes(self, photo: Tensor) -> dict[str, tuple[int, ...]]:
        batch, _, height, width = photo.shape
        return {"chroma": (batch, 2, height, width)}

    def _decode(self, photo: Tensor, parameters: Parameters, budget_8bit: float) -> Tensor:
        # Adding the difference, not returning the converted colour, keeps untouched pixels exact.
        return photo + _residual(rgb_to_lab(photo), parameters["chroma"])

    def _project(self, photo: Tensor, parameters: Parameters, budget_8bit: float) -> Parameters:
        low, high = residual_bounds(photo, budget_8bit)
        return {"chroma": self.fit(photo, parameters["chroma"], low, high, budget_8bit)}

    def _direction(self, group: str, photo: Tensor, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def _step_shares(self, step: int, budget_8bit: float) -> dict[str, float]:
        # The scale carries the budget share; a step is not to shrink with it.
        return {"chroma": 1.0 / self.config.budget_share}


def _residual(lab: Tensor, offsets: Tensor) -> Tensor:
    changed = torch.cat((lab[:, :1], lab[:, 1:] + offsets), dim=1)
    return lab_to_rgb(changed) - lab_to_rgb(lab)
