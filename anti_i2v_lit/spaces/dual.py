"""Chroma and low frequencies together: the dual-space perturbation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from torch import Tensor

from anti_i2v_lit.checks import check_at_least
from anti_i2v_lit.spaces.base import Parameters, PerturbationSpace
from anti_i2v_lit.spaces.bounds import residual_bounds
from anti_i2v_lit.spaces.lab_chroma import LabChromaSpace
from anti_i2v_lit.spaces.low_frequency import LowFrequencySpace


@final
class DualSpace(PerturbationSpace):
    """Offsets of a* and b* and low DCT coefficients, under one RGB ball.

    Groups "chroma" and "low_frequency" as in `LabChromaSpace` and `LowFrequencySpace`. The two
    residuals add up; the low frequencies keep their own share of the budget and the chroma gets
    what they leave, pixel by pixel, because smooth change survives a save and fine colour does
    not. Source: dual-space perturbation of Anti-I2V (arXiv 2603.24570); order, period and budgets
    are unpublished and therefore settings.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the dual space.

        Attributes:
            chroma: settings of the chroma part.
            low_frequency: settings of the low-frequency part.
            alternate_every: attack steps before the other part takes over, chroma first;
                0: both parts step at every step.
        """

        chroma: LabChromaSpace.Config = field(default_factory=LabChromaSpace.Config)
        low_frequency: LowFrequencySpace.Config = field(default_factory=LowFrequencySpace.Config)
        alternate_every: int = 0

        def __post_init__(self) -> None:
            check_at_least(self.alternate_every, 0, "alternate_every")

    def __init__(self, config: Config) -> None:
        self.config = config
        self._chroma = LabChromaSpace(config.chroma)
        self._low_frequency = LowFrequencySpace(config.low_frequency)

    def _scales(self, photo: Tensor, budget_8bit: float) -> dict[str, Tensor]:
        return {
            **self._chroma._scales(photo, budget_8bit),
            **self._low_frequency._scales(photo, budget_8bit),
        }

    def _shapes(self, photo: Tensor) -> dict[str, tuple[int, ...]]:
        return {**self._chroma._shapes(photo), **self._low_frequency._shapes(photo)}

    def _decode(self, photo: Tensor, parameters: Parameters, budget_8bit: float) -> Tensor:
        coloured = self._chroma._decode(photo, parameters, budget_8bit)
        smooth = self._low_frequency.residual(photo, parameters["low_frequency"], budget_8bit)
        return coloured + smooth

    def _project(self, photo: Tensor, parameters: Parameters, budget_8bit: float) -> Parameters:
        coefficients = self._low_frequency.fit(photo, parameters["low_frequency"], budget_8bit)
        low, high = residual_bounds(photo, budget_8bit)
        taken = self._low_frequency.residual(photo, coefficients, budget_8bit)
        offsets = self._chroma.fit(
            photo, parameters["chroma"], low - taken, high - taken, budget_8bit
        )
        return {"chroma": offsets, "low_frequency": coefficients}

    def _direction(self, group: str, photo: Tensor, gradient: Tensor) -> Tensor:
        part = self._chroma if group == "chroma" else self._low_frequency
        return part._direction(group, photo, gradient)

    def _step_shares(self, step: int, budget_8bit: float) -> dict[str, float]:
        parts = tuple(
            part._step_shares(step, budget_8bit) for part in (self._chroma, self._low_frequency)
        )
        if self.config.alternate_every == 0:
            return {**parts[0], **parts[1]}
        return parts[step // self.config.alternate_every % 2]
