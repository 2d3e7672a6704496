"""Rectified flow as Wan and LTX-Video use it: noise levels of integer timesteps, given frames.

x_t = (1 - sigma) * x_0 + sigma * noise, and the network predicts noise - x_0 (Liu et al. 2022,
arXiv 2209.03003). A surrogate's integer timestep t in [0, T) stands for the noise level

    u = (t + 1) / T,    sigma = shift * u / (1 + (shift - 1) * u),

which is the schedule of the published scheduler over all its T levels, in ascending order. So a
uniform draw of t visits noise levels as often as the published sampler does, most of them high
when shift > 1. What the network is told is T * sigma, as in the published pipelines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class FlowSchedule:
    """The noise levels of one model.

    Attributes:
        num_timesteps: T, length of the schedule.
        shift: how far levels are pushed toward noise, a factor; 1 is the straight schedule.
        terminal: lowest level that the sampler steps from; the levels are stretched to end
            there. 0 for no stretching.
    """

    num_timesteps: int
    shift: float
    terminal: float = 0.0

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], num_tokens: int) -> Self:
        """Read a scheduler's configuration.

        Args:
            settings: of a `UniPCMultistepScheduler` on flow sigmas or of a
                `FlowMatchEulerDiscreteScheduler`.
            num_tokens: video tokens of a clip; shifts that depend on the length of the sequence
                (LTX-Video) are taken there.

        Raises:
            ValueError: not the schedule of a rectified flow.
        """
        length = int(settings.get("num_train_timesteps", 1000))
        if settings.get("use_flow_sigmas"):
            kind = settings.get("prediction_type")
            if kind != "flow_prediction":
                raise ValueError(f"scheduler: expected prediction_type flow_prediction, got {kind}")
            return cls(num_timesteps=length, shift=float(settings["flow_shift"]))
        if "shift" not in settings:
            raise ValueError(
                "scheduler: expected the schedule of a rectified flow, with 'shift' or with "
                "'use_flow_sigmas'; this folder holds another kind of model"
            )
        terminal = float(settings.get("shift_terminal") or 0.0)
        if not settings.get("use_dynamic_shifting"):
            return cls(num_timesteps=length, shift=float(settings["shift"]), terminal=terminal)
        shift = math.exp(_dynamic_shift(settings, num_tokens))
        return cls(num_timesteps=length, shift=shift, terminal=terminal)

    def sigmas(self, timesteps: Tensor) -> Tensor:
        """Return the noise levels, in (0, 1], float64, of integer timesteps [B]."""
        levels = self._shifted((timesteps.double() + 1.0) / self.num_timesteps)
        return 1.0 - (1.0 - levels) * self._stretch()

    def timesteps_of(self, sigmas: Tensor) -> Tensor:
        """Return the timesteps, float64 and between integers, that have these noise levels."""
        levels = 1.0 - (1.0 - sigmas.double()) / self._stretch()
        straight = levels / (self.shift - (self.shift - 1.0) * levels)
        return straight * self.num_timesteps - 1.0

    def network_timesteps(self, timesteps: Tensor) -> Tensor:
        """Return what the network is told of timesteps [B], float32 in (0, num_timesteps]."""
        return (self.num_timesteps * self.sigmas(timesteps)).float()

    def _shifted(self, straight: Tensor) -> Tensor:
        return self.shift * straight / (1.0 + (self.shift - 1.0) * straight)

    def _stretch(self) -> float:
        if not self.terminal:
            return 1.0
        lowest = self._shifted(torch.tensor(1.0 / self.num_timesteps, dtype=torch.float64))
        return (1.0 - self.terminal) / (1.0 - lowest.item())


def with_given_frame(noisy: Tensor, image: Tensor) -> Tensor:
    """Put the image latent in the place of the first latent frame.

    Args:
        noisy: [B, F, C, h, w].
        image: [B, C, h, w].
    """
    return torch.cat([image[:, None], noisy[:, 1:]], dim=1)


def without_given_frame(values: Tensor) -> Tensor:
    """Set the first latent frame of [B, F, C, h, w] to zero.

    The model is given that frame at noise level 0: training masks its loss and sampling throws
    its prediction away. Zeros in prediction and target alike let it count for nothing.
    """
    return torch.cat([torch.zeros_like(values[:, :1]), values[:, 1:]], dim=1)


def _dynamic_shift(settings: Mapping[str, Any], num_tokens: int) -> float:
    """The exponent of the shift: linear in the number of tokens, as the pipelines compute it."""
    kind = settings.get("time_shift_type", "exponential")
    if kind != "exponential":
        raise ValueError(f"scheduler: expected time_shift_type exponential, got {kind}")
    low_tokens = settings.get("base_image_seq_len", 256)
    high_tokens = settings.get("max_image_seq_len", 4096)
    low, high = settings.get("base_shift", 0.5), settings.get("max_shift", 1.15)
    slope = (high - low) / (high_tokens - low_tokens)
    return low + slope * (num_tokens - low_tokens)
