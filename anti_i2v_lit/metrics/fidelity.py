"""How much of the photo is left in a clip, and how much the clip moves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from anti_i2v_lit.backbones.lpips_net import load_lpips, lpips_distance
from anti_i2v_lit.metrics.base import GeneratedClip, Metric
from anti_i2v_lit.metrics.frames import FrameMetric, FramesConfig
from anti_i2v_lit.metrics.imperceptibility import at_lpips_size, psnr, ssim

LPIPS_BATCH = 16  # frames per call


@dataclass(kw_only=True)
class NoSettings:
    """A metric without settings."""


def _photo_for(subject: GeneratedClip) -> Tensor:
    """The photo, for a comparison with the frames pixel by pixel.

    Raises:
        ValueError: photo and frames differ in size.
    """
    if subject.photo.shape != subject.frames.shape[1:]:
        raise ValueError(
            f"{subject.key}: expected the photo as the generator framed it, "
            f"{tuple(subject.frames.shape[1:])}, got {tuple(subject.photo.shape)}; resize it first"
        )
    return subject.photo


class ClipPsnr(FrameMetric):
    """Peak signal-to-noise ratio of frames against the clean photo, in dB."""

    Config = FramesConfig
    direction, unit = "lower", "dB"
    source = "10 log10(1 / mean squared error) per frame, mean over frames"

    def _score_frames(self, subject: GeneratedClip) -> Tensor:
        photo = _photo_for(subject)
        return torch.tensor([psnr(frame, photo) for frame in subject.frames])


class ClipSsim(FrameMetric):
    """Structural similarity of frames and the clean photo."""

    Config = FramesConfig
    direction, unit = "lower", "1"
    source = "Wang et al., Image quality assessment, IEEE TIP 2004; mean over frames"

    def _score_frames(self, subject: GeneratedClip) -> Tensor:
        photo = _photo_for(subject)
        return torch.tensor([ssim(frame, photo) for frame in subject.frames])


class ClipLpips(FrameMetric):
    """LPIPS (AlexNet) distance of frames to the clean photo."""

    Config = FramesConfig
    direction, unit = "higher", "1"
    source = "Zhang et al., CVPR 2018, v0.1; mean over frames"

    def __init__(self, config: FramesConfig) -> None:
        super().__init__(config)
        self._network = [load_lpips()]  # in a list, so that its weights are not ours

    def _score_frames(self, subject: GeneratedClip) -> Tensor:
        frames = subject.frames
        photo = at_lpips_size(_photo_for(subject)[None].to(frames.device))
        network = self._network[0].to(frames.device)
        # One photo against many frames: its features are computed once per batch.
        batches = at_lpips_size(frames).split(LPIPS_BATCH)
        return torch.cat([lpips_distance(network, batch, photo) for batch in batches])


class Motion(Metric[GeneratedClip]):
    """Mean absolute change from frame to frame, in grey levels; 0 for a still.

    It describes and does not judge: flicker and camera movement count like a moving face.
    """

    Config = NoSettings
    direction, unit = "none", "grey levels"
    source = "255 mean |x[t+1] - x[t]| over pixels, channels and frames"

    def __init__(self, config: NoSettings) -> None:
        super().__init__()

    def _score(self, subject: GeneratedClip) -> float:
        if len(subject.frames) < 2:
            raise ValueError(f"{subject.key}: motion needs at least 2 frames, got 1")
        return 255 * torch.diff(subject.frames, dim=0).abs().mean().item()
