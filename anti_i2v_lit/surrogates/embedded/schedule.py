"""Learning rate and weight averages shared by the training stages."""

from __future__ import annotations

import copy
import dataclasses
import math
import time

import torch
from torch import nn


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long a stage trains and how its learning rate runs."""

    max_steps: int  # optimiser steps at which the stage ends
    max_minutes: float | None = None  # wall clock at which it ends if sooner; None has no limit
    peak_rate: float = 1e-3  # learning rate after the warm-up
    final_share: float = 0.002  # learning rate at the end, share of the peak
    warmup_steps: int = 100  # steps of linear warm-up

    def __post_init__(self) -> None:
        """Refuse schedules that never end or never start."""
        if self.max_steps < 1:
            raise ValueError(
                f"max_steps arrived as {self.max_steps}; expected 1 or more; raise it."
            )
        if self.max_minutes is not None and self.max_minutes <= 0:
            raise ValueError(
                f"max_minutes arrived as {self.max_minutes}; expected a positive number of minutes "
                "or None; raise it."
            )
        if self.peak_rate <= 0 or not 0 <= self.final_share <= 1 or self.warmup_steps < 0:
            raise ValueError(
                f"peak_rate={self.peak_rate}, final_share={self.final_share}, warmup_steps="
                f"{self.warmup_steps} arrived; expected a positive rate, a share in [0, 1] and a "
                "count of 0 or more; correct them."
            )

    def progress(self, step: int, seconds: float) -> float:
        """Share of the stage that is over, in [0, 1]: by steps or by time, whichever is further."""
        by_time = 0.0 if self.max_minutes is None else seconds / (60.0 * self.max_minutes)
        return min(1.0, max(step / self.max_steps, by_time))

    def rate(self, step: int, seconds: float) -> float:
        """Learning rate of a step: linear warm-up, then half a cosine down to ``final_share``."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        cosine = 0.5 * (1.0 + math.cos(math.pi * self.progress(step, seconds)))
        return self.peak_rate * warm * (self.final_share + (1.0 - self.final_share) * cosine)


class Stopwatch:
    """Training seconds, counted over interruptions."""

    def __init__(self) -> None:
        self._before = 0.0
        self._since = time.monotonic()

    def seconds(self) -> float:
        """Seconds so far."""
        return self._before + time.monotonic() - self._since

    def restart(self, seconds: float) -> None:
        """Go on counting from ``seconds``."""
        self._before, self._since = seconds, time.monotonic()


class Average(nn.Module):
    """Exponential moving average of a module's parameters and buffers.

    Args:
        model: The module to follow; it is copied.
        decay: Largest share of the old average kept a step. Early steps keep less, so that the
            random start is forgotten: ``min(decay, (1 + n) / (10 + n))`` after n steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards ``model`` after step number ``step``."""
        keep = min(self.decay, (1.0 + step) / (10.0 + step))
        new = model.state_dict()
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                value.lerp_(new[name], 1.0 - keep)
            else:
                value.copy_(new[name])
