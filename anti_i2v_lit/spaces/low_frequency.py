"""The lowest frequencies of the whole image's discrete cosine transform."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_at_least, check_in, check_share
from anti_i2v_lit.ops.dct import analyse, low_frequency_count, synthesise
from anti_i2v_lit.ops.quantise import straight_through
from anti_i2v_lit.spaces.base import Parameters, PerturbationSpace
from anti_i2v_lit.spaces.bounds import clip, residual_bounds

STEP_RULES = ("pixel_sign", "proportional", "sign")
"""How a gradient of the coefficients becomes a step."""


@final
class LowFrequencySpace(PerturbationSpace):
    """Orthonormal DCT-II coefficients of the residual's lowest frequencies, all RGB channels.

    One group, "low_frequency": coefficients [B, 3, kh, kw] in the [0, 1] units of the photo, with
    kh and kw the configured share of each axis. A sign step of all of them changes pixels by the
    attack's step in root mean square: step / sqrt(q), where q is the share of coefficients.
    Source: the frequency half of the dual-space perturbation of Anti-I2V (arXiv 2603.24570).
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the low-frequency space.

        Attributes:
            frequency_share: lowest frequencies kept, as a share of each axis, in (0, 1]. At 0.125
                the finest wave is 16 pixels long, the finest that a latent of 8 times fewer
                pixels holds; three quarters or more of it survive a save at quality 75. Cloaks
                of more frequencies hold up better (docs/tables.md).
            budget_share: largest change by these frequencies, as a share of the attack's budget
                in grey levels, in (0, 1]; smooth changes are easier to see.
            step_rule: "pixel_sign" steps along the sign of the gradient in pixels, of which the
                space keeps what lies in its band; "proportional" along the gradient of the
                coefficients; "sign" along the sign of that, which gives every frequency one
                amplitude and so forgets where in the photo the gradient was (docs/ablation.md).
            largest_step_rms: largest entry of a step that is no sign, in the step's root mean
                squares. The largest entries are those of the lowest frequencies. Held at 4, steps
                reach less of the loss on the model itself and, on one that was held out, the
                same at a smaller change of colour (docs/tables_search.md); 1e9 holds nothing.
        """

        frequency_share: float = 0.75
        budget_share: float = 1.0
        step_rule: str = "proportional"
        largest_step_rms: float = 4.0

        def __post_init__(self) -> None:
            check_in(self.step_rule, STEP_RULES, "step_rule")
            check_at_least(self.largest_step_rms, 1, "largest_step_rms")
            check_share(self.frequency_share, "frequency_share")
            check_share(self.budget_share, "budget_share")

    def __init__(self, config: Config) -> None:
        self.config = config

    def counts(self, photo: Tensor) -> tuple[int, int]:
        """Number of frequencies (kh, kw) for photos [B, 3, H, W]."""
        height, width = photo.shape[-2:]
        share = self.config.frequency_share
        return low_frequency_count(height, share), low_frequency_count(width, share)

    def residual(self, photo: Tensor, coefficients: Tensor, budget_8bit: float) -> Tensor:
        """Change of the photo that the coefficients stand for.

        Peaks above this space's share of the budget, or out of the photo's range, are clipped,
        straight-through.

        Args:
            photo: [B, 3, H, W] in [0, 1].
            coefficients: [B, 3, kh, kw].
            budget_8bit: the attack's budget in grey levels.

        Returns:
            [B, 3, H, W] in [0, 1] units.
        """
        change = synthesise(coefficients, (photo.shape[-2], photo.shape[-1]))
        low, high = residual_bounds(photo, self.config.budget_share * budget_8bit)
        return straight_through(clip(change.detach(), low, high), change)

    def fit(self, photo: Tensor, coefficients: Tensor, budget_8bit: float) -> Tensor:
        """Keep the coefficients from running away behind the clip of `residual`.

        The change is clipped to the limit and to the photo's range, and the clipped change is
        low-passed again. Once a step is enough: measured over 60 sign steps at 16 levels, 99.6 %
        of the residual's energy stays in the band, and a linear objective gains twice as much as by
        rescaling until the highest peak fits.

        Args:
            photo: [B, 3, H, W] in [0, 1].
            coefficients: [B, 3, kh, kw].
            budget_8bit: the attack's budget in grey levels.

        Returns:
            [B, 3, kh, kw]; coefficients that were inside are returned bit for bit.
        """
        change = synthesise(coefficients, (photo.shape[-2], photo.shape[-1]))
        low, high = residual_bounds(photo, self.config.budget_share * budget_8bit)
        return coefficients + analyse(clip(change, low, high) - change, self.counts(photo))

    def _limit(self, budget_8bit: float) -> float:
        return self.config.budget_share * budget_8bit / 255.0

    def _scales(self, photo: Tensor, budget_8bit: float) -> dict[str, Tensor]:
        (kh, kw), (height, width) = self.counts(photo), photo.shape[-2:]
        spread = math.sqrt(height * width / (kh * kw))
        largest = self._limit(budget_8bit) * spread
        return {"low_frequency": torch.full((1, 1, 1, 1), largest).to(photo)}

    def _shapes(self, photo: Tensor) -> dict[str, tuple[int, ...]]:
        return {"low_frequency": (photo.shape[0], 3, *self.counts(photo))}

    def _decode(self, photo: Tensor, parameters: Parameters, budget_8bit: float) -> Tensor:
        return photo + self.residual(photo, parameters["low_frequency"], budget_8bit)

    def _project(self, photo: Tensor, parameters: Parameters, budget_8bit: float) -> Parameters:
        return {"low_frequency": self.fit(photo, parameters["low_frequency"], budget_8bit)}

    def _direction(self, group: str, photo: Tensor, gradient: Tensor) -> Tensor:
        if self.config.step_rule == "sign":
            return gradient.sign()
        if self.config.step_rule == "pixel_sign":
            # The synthesis is orthonormal: the pixels' gradient in the band is that of their own.
            pixels = synthesise(gradient, (photo.shape[-2], photo.shape[-1]))
            gradient = analyse(pixels.sign(), self.counts(photo))
        scale = gradient.square().mean().sqrt().clamp_min(1e-20)
        largest = self.config.largest_step_rms
        return (gradient / scale).clamp(-largest, largest)

    def _step_shares(self, step: int, budget_8bit: float) -> dict[str, float]:
        # The scale carries the budget share; a step is not to shrink with it.
        return {"low_frequency": 1.0 / self.config.budget_share}
