"""One photo in flight: its canvas, its parameters, and how far it has come."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from anti_i2v_lit.cloaking.draws import DrawPool
from anti_i2v_lit.data.faces import Face
from anti_i2v_lit.spaces.base import Parameters


@dataclass(kw_only=True)
class PhotoJob:
    """Mutable state of one photo's attack.

    Attributes:
        key: the photo's stable name.
        photo_size: (H, W) of the full photo, in pixels.
        canvas: clean canvas [1, 3, h, w] in [0, 1], float32.
        faces: detected faces, in shares of the photo.
        budget_8bit: budget of this attempt, in grey levels.
        caption: what is known to be in the photo; takes the place of {caption} in the prompt.
        parameters: name -> leaf tensor of the perturbation space.
        step: sign steps taken in this attempt.
        attempt: 0 for the first budget, 1 after the gate lowered it once, ...
        seconds: time spent optimising, over all attempts.
        pools: surrogate -> its pool of draws.
    """

    key: str
    photo_size: tuple[int, int]
    canvas: Tensor
    faces: tuple[Face, ...]
    budget_8bit: float
    caption: str = ""
    parameters: dict[str, nn.Parameter] = field(default_factory=dict)
    step: int = 0
    attempt: int = 0
    seconds: float = 0.0
    pools: dict[str, DrawPool] = field(default_factory=dict)

    def set_parameters(self, values: Parameters) -> None:
        """Replace the parameters by new leaves with these values."""
        self.parameters = {
            name: nn.Parameter(value.detach().clone().to(self.canvas))
            for name, value in values.items()
        }

    @torch.no_grad()
    def assign(self, values: Parameters) -> None:
        """Overwrite the values of the existing leaves."""
        for name, value in values.items():
            self.parameters[name].copy_(value)

    def facts(self) -> dict[str, Any]:
        """What has to be remembered beside the tensors, as plain data."""
        return {
            "step": self.step,
            "attempt": self.attempt,
            "seconds": self.seconds,
            "budget_8bit": self.budget_8bit,
        }
