"""Metrics of clips that have a value for every frame."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_in
from anti_i2v_lit.metrics.base import GeneratedClip, Metric

FRAMES = ("all", "first", "last")


@dataclass(kw_only=True)
class FramesConfig:
    """Which frames count.

    Attributes:
        frames: "all" (the mean over frames), "first" or "last".
    """

    frames: str = "all"

    def __post_init__(self) -> None:
        """Refuse an unknown choice."""
        check_in(self.frames, FRAMES, "frames")


class FrameMetric(Metric[GeneratedClip]):
    """A metric of clips whose value is a mean over frames.

    A variant provides `_score_frames`. The mean leaves out frames without a value.
    """

    def __init__(self, config: FramesConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def _score_frames(self, subject: GeneratedClip) -> Tensor:
        """The value of every frame, [T]; NaN where it is undefined."""

    @final
    @torch.no_grad()
    def per_frame(self, subject: GeneratedClip) -> Tensor:
        """The value of every frame, [T], float64 on the CPU; NaN where it is undefined.

        Raises:
            ValueError: an undefined value of a metric that is always defined.
        """
        values = self._score_frames(subject).double().cpu()
        assert values.shape == (len(subject.frames),), f"{type(self).__name__}: {values.shape}"
        if values.isnan().any() and not self.may_be_undefined:
            raise ValueError(f"{type(self).__name__} of {subject.key} is not a number")
        return values

    def reduce(self, values: Tensor) -> float:
        """The clip's value from those of its frames, [T]; NaN if no frame that counts has one."""
        return chosen(values, self.config.frames).nanmean().item() if len(values) else math.nan

    @final
    def _score(self, subject: GeneratedClip) -> float:
        return self.reduce(self.per_frame(subject))


def chosen(values: Tensor, frames: str) -> Tensor:
    """Those of the values [T, ...] whose frames count: all, the first or the last.

    Raises:
        ValueError: unknown choice.
    """
    check_in(frames, FRAMES, "frames")
    return {"all": values, "first": values[:1], "last": values[-1:]}[frames]
