"""How much a clip moves, how smoothly, and how it flickers."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from anti_i2v_lit.metrics.base import GeneratedClip
from anti_i2v_lit.metrics.frames import FrameMetric, FramesConfig
from anti_i2v_lit.metrics.optical_flow import (
    RAFT_WEIGHTS,
    OpticalFlow,
    is_visible,
    midpoint,
    shared_dis,
    shared_raft,
    warp,
)

FASTEST_SHARE = 0.05  # of the pixels, as VBench's dynamic degree takes them
STILL_SHARE = 0.02  # of the pixels, as VBench's static filter takes them
STILL_PIXELS_AT_256 = 3.0  # flow, in pixels of a clip with a shorter side of 256 pixels


@dataclass(kw_only=True)
class RaftConfig(FramesConfig):
    """Settings of a metric with RAFT.

    Attributes:
        weights: torchvision's file; empty means the one in $ANTI_I2V_DATA/models.
        frames: "all" (the mean over frames), "first" or "last".
    """

    weights: str = ""


class FlowAmount(FrameMetric):
    """Motion by optical flow: how far the fastest twentieth of the pixels goes per frame.

    The first frame has no value. VBench calls a pair of frames dynamic above 2.3 %.
    """

    direction, unit = "none", "% of the shorter side per frame"
    may_be_undefined = True

    @property
    @abstractmethod
    def _flow(self) -> OpticalFlow:
        """The method."""

    def _score_frames(self, subject: GeneratedClip) -> Tensor:
        flow = self._flow.forward(subject.frames)
        fastest = _mean_of_fastest(flow, FASTEST_SHARE) * 100 / min(flow.shape[-2:])
        return _from_second(fastest)


class MotionAmount(FlowAmount):
    """Motion by optical flow (DIS): distance of the fastest twentieth of the pixels per frame.

    The first frame has no value. VBench calls a pair of frames dynamic above 2.3 %.
    """

    Config = FramesConfig
    source = "VBench, CVPR 2024, dynamic degree, before its threshold; flow: DIS, ECCV 2016"

    @property
    def _flow(self) -> OpticalFlow:
        return shared_dis()


class MotionAmountRaft(FlowAmount):
    """Motion by optical flow (RAFT): distance of the fastest twentieth of the pixels per frame.

    The first frame has no value. VBench calls a pair of frames dynamic above 2.3 %.
    """

    Config = RaftConfig
    source = "VBench, CVPR 2024, dynamic degree, before its threshold; flow: RAFT of torchvision"
    needs = (RAFT_WEIGHTS,)

    def __init__(self, config: RaftConfig) -> None:
        super().__init__(config)
        self._raft = shared_raft(str(RAFT_WEIGHTS.require(config.weights)))

    @property
    def _flow(self) -> OpticalFlow:
        return self._raft


class MotionSmoothness(FrameMetric):
    """Motion smoothness: how well every other frame follows from its neighbours, 1 for wholly.

    VBench's protocol with a classical interpolation in place of its network AMT, so the numbers
    are not VBench's. Only frames between two others, every second one, have a value.
    """

    Config = FramesConfig
    direction, unit = "lower", "1"
    source = (
        "VBench, CVPR 2024, motion smoothness, 1 - mean |x - interpolated|; interpolation: "
        "Super SloMo (CVPR 2018), equation 4, with DIS flow"
    )
    may_be_undefined = True

    def _score_frames(self, subject: GeneratedClip) -> Tensor:
        frames, dis = subject.frames, shared_dis()
        values = torch.full((len(frames),), torch.nan)
        left, right = frames[:-2:2], frames[2::2]
        if len(left):
            middle = midpoint(left, right, dis.between(left, right), dis.between(right, left))
            error = (frames[1:-1:2] - middle).abs().mean(dim=(1, 2, 3))
            values[1:-1:2] = 1 - error.cpu()
        return values


class WarpingError(FrameMetric):
    """Warping error: change of colour along the motion, where nothing is covered.

    The first frame has no value, nor has one whose pixels are all covered.
    """

    Config = FramesConfig
    direction, unit = "higher", "squared intensity (0 to 3)"
    source = (
        "Lai et al., Learning blind video temporal consistency, ECCV 2018, E_warp; "
        "flow: DIS, ECCV 2016"
    )
    may_be_undefined = True

    def _score_frames(self, subject: GeneratedClip) -> Tensor:
        frames, dis = subject.frames, shared_dis()
        forth = dis.forward(frames)
        visible = is_visible(forth, dis.backward(frames)).float()
        change = (frames[:-1] - warp(frames[1:], forth)).square().sum(dim=1)
        return _from_second((change * visible).sum(dim=(1, 2)) / visible.sum(dim=(1, 2)))


class Flicker(FrameMetric):
    """Temporal flickering: mean absolute change from frame to frame, where frames are still.

    A frame has a value if the fastest fiftieth of its pixels came at most 3 pixels (of a shorter
    side of 256) from where it was; a clip that always moves is undefined.
    """

    Config = FramesConfig
    direction, unit = "higher", "grey levels"
    source = (
        "VBench, CVPR 2024, temporal flickering (255 less its score times 255), with the "
        "threshold of its static filter per pair of frames; flow: DIS, ECCV 2016"
    )
    may_be_undefined = True

    def _score_frames(self, subject: GeneratedClip) -> Tensor:
        frames = subject.frames
        flow = shared_dis().forward(frames)
        limit = STILL_PIXELS_AT_256 * min(flow.shape[-2:]) / 256
        change = 255 * frames.diff(dim=0).abs().mean(dim=(1, 2, 3))
        change[_mean_of_fastest(flow, STILL_SHARE) > limit] = torch.nan
        return _from_second(change)


def _mean_of_fastest(flow: Tensor, share: float) -> Tensor:
    """Mean length of the longest vectors of [N, 2, H, W], a share of all, in pixels, [N]."""
    speed = flow.square().sum(dim=1).sqrt().flatten(1)
    return speed.topk(max(1, int(share * speed.shape[1])), dim=1).values.mean(dim=1)


def _from_second(values: Tensor) -> Tensor:
    """Values [T - 1] of all frames but the first, with NaN for that one."""
    return torch.cat([values.new_full((1,), torch.nan), values])
