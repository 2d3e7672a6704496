"""Does a clip still show the photo's subject, steadily, and what its prompt says?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from anti_i2v_lit.metrics.base import GeneratedClip
from anti_i2v_lit.metrics.frames import FrameMetric, FramesConfig
from anti_i2v_lit.metrics.image_features import (
    CLIP_WEIGHTS,
    DINO_WEIGHTS,
    shared_clip,
    shared_dino,
)


@dataclass(kw_only=True)
class SemanticConfig(FramesConfig):
    """Settings of a metric with an image network.

    Attributes:
        weights: transformers folder of the network; empty means the one of its published name
            in $ANTI_I2V_DATA/models.
        frames: "all" (the mean over frames), "first" or "last".
    """

    weights: str = ""


class DinoPhoto(FrameMetric):
    """DINO similarity of frames and the clean photo (I2V subject consistency)."""

    Config = SemanticConfig
    direction, unit = "lower", "cosine"
    source = "VBench-I2V (2024), subject: DINO ViT-B/16 class tokens of frames and photo"
    needs = (DINO_WEIGHTS,)

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__(config)
        self._features = shared_dino(str(DINO_WEIGHTS.require(config.weights)))

    def _score_frames(self, subject: GeneratedClip) -> Tensor:
        return self._features.frames(subject) @ self._features.photo(subject)


class SubjectConsistency(FrameMetric):
    """DINO similarity of each frame with the first and the previous one.

    The first frame has no value. Negative cosines count as 0, as published.
    """

    Config = SemanticConfig
    direction, unit = "lower", "cosine"
    source = "VBench, Huang et al., CVPR 2024, subject consistency (DINO ViT-B/16)"
    needs = (DINO_WEIGHTS,)
    may_be_undefined = True

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__(config)
        self._features = shared_dino(str(DINO_WEIGHTS.require(config.weights)))

    def _score_frames(self, subject: GeneratedClip) -> Tensor:
        features = self._features.frames(subject)
        to_first = (features[1:] @ features[0]).clamp_min(0)
        to_previous = (features[1:] * features[:-1]).sum(dim=-1).clamp_min(0)
        return torch.cat([features.new_full((1,), torch.nan), (to_first + to_previous) / 2])


class ClipImage(FrameMetric):
    """CLIP-I: cosine of CLIP image embeddings of frames and the clean photo."""

    Config = SemanticConfig
    direction, unit = "lower", "cosine"
    source = "CLIP-I of DreamBooth, Ruiz et al., CVPR 2023; CLIP ViT-B/32"
    needs = (CLIP_WEIGHTS,)

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__(config)
        self._features = shared_clip(str(CLIP_WEIGHTS.require(config.weights)))

    def _score_frames(self, subject: GeneratedClip) -> Tensor:
        return self._features.frames(subject) @ self._features.photo(subject)


class ClipText(FrameMetric):
    """CLIP-T: cosine of CLIP embeddings of frames and the prompt; undefined without a prompt."""

    Config = SemanticConfig
    direction, unit = "lower", "cosine"
    source = "CLIP-T of DreamBooth, Ruiz et al., CVPR 2023; CLIP ViT-B/32"
    needs = (CLIP_WEIGHTS,)
    may_be_undefined = True

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__(config)
        self._features = shared_clip(str(CLIP_WEIGHTS.require(config.weights)))

    def _score_frames(self, subject: GeneratedClip) -> Tensor:
        if not subject.prompt:
            return torch.full((len(subject.frames),), torch.nan)
        return self._features.frames(subject) @ self._features.text(subject.prompt)
