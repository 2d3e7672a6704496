"""LPIPS between the cloak and the clean photo, kept small or driven up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from anti_i2v_lit.backbones.lpips_net import load_lpips, lpips_distance
from anti_i2v_lit.objectives.base import Objective
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.types import Observation, TapRequest


class PerceptualDistance(Objective):
    """LPIPS distance of the cloaked view to the clean view.

    Zhang et al., CVPR 2018, version 0.1 with AlexNet. A positive weight keeps the cloak
    perceptually close to the photo; a negative one drives it away, as some readings of Anti-I2V
    have it. The gradient is zero at the clean photo itself.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the perceptual term.

        Attributes:
            weight: signed factor in the total, no unit; positive keeps the change small.
        """

        weight: float = 1.0

    def __init__(self, config: Config) -> None:
        self.config = config
        self._network = load_lpips()

    @property
    def weight(self) -> float:
        """Signed factor of the term in the total."""
        return self.config.weight

    def place(self, device: torch.device) -> None:
        """Move AlexNet to a device."""
        self._network.to(device)

    def taps(self, surrogate: Surrogate) -> TapRequest:
        """The views alone, of the cloak and of the clean photo."""
        return TapRequest(references=frozenset({"clean"}))

    def _loss(
        self, surrogate: Surrogate, cloak: Observation, references: dict[str, Observation]
    ) -> Tensor:
        return lpips_distance(self._network, cloak.views, references["clean"].views)
