"""Is it still the same person? Face similarity of a clip to the clean photo."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_in
from anti_i2v_lit.metrics.base import GeneratedClip, Metric
from anti_i2v_lit.metrics.dlib_face import DlibFace
from anti_i2v_lit.metrics.face_embedder import FaceEmbedder
from anti_i2v_lit.metrics.fidelity import FRAMES, FramesConfig, chosen_frames
from anti_i2v_lit.metrics.hse_face import HseFace


@dataclass(kw_only=True)
class IdentityConfig:
    """Settings of an identity metric.

    Attributes:
        weights: path of the face network; empty means the one in $ANTI_I2V_DATA/models.
        frames: "all" (the mean over frames), "first" or "last".
        missing: what a frame without a face counts: "drop" leaves it out, as published ISM
            figures do (which flatters the video model exactly where protection works); "zero"
            counts it as a stranger.
    """

    weights: str = ""
    frames: str = "all"
    missing: str = "drop"

    def __post_init__(self) -> None:
        """Refuse unknown choices."""
        check_in(self.frames, FRAMES, "frames")
        check_in(self.missing, ("drop", "zero"), "missing")


class IdentitySimilarity(Metric[GeneratedClip]):
    """Identity score matching (ISM): cosine of face embeddings, frames against clean photo.

    Undefined (NaN, left out of the mean) if the photo has no face, or no frame that counts has
    one and missing frames are dropped: always read it beside `missing_faces`.
    """

    Config = IdentityConfig
    may_be_undefined = True

    def __init__(self, config: IdentityConfig) -> None:
        super().__init__()
        self.config = config
        self._embedder = self._load(config.weights)

    @abstractmethod
    def _load(self, weights: str) -> FaceEmbedder:
        """The face network from a path, or from the default place if it is empty."""

    def _score(self, subject: GeneratedClip) -> float:
        landmarks, found = _found(subject, self.config.frames)
        if subject.photo_landmarks is None:
            return math.nan
        if not found:
            return 0.0 if self.config.missing == "zero" else math.nan
        embedder = self._embedder.to(subject.frames.device)
        person = embedder.embed(subject.photo.to(subject.frames.device), subject.photo_landmarks)
        faces = embedder.embed_all(subject.frames[found], landmarks[found])
        total = (faces @ person).sum().item()
        num_all = len(chosen_frames(len(subject.frames), self.config.frames))
        return total / (num_all if self.config.missing == "zero" else len(found))


class DlibIdentity(IdentitySimilarity):
    """Identity score matching (ISM) with dlib's face network: cosine, about 0 for strangers."""

    direction, unit = "lower", "cosine"
    source = "ISM of Anti-DreamBooth (ICCV 2023) with dlib_face_recognition_resnet_model_v1"

    def _load(self, weights: str) -> FaceEmbedder:
        return DlibFace(DlibFace.Config(weights=weights))


class HseIdentity(IdentitySimilarity):
    """Identity score matching (ISM) with HSE FaceRes: cosine, about 0 for strangers."""

    direction, unit = "lower", "cosine"
    source = "ISM of Anti-DreamBooth (ICCV 2023) with HSE FaceRes (MobileNetV1, VGGFace2)"

    def _load(self, weights: str) -> FaceEmbedder:
        return HseFace(HseFace.Config(weights=weights))


class MissingFaces(Metric[GeneratedClip]):
    """Face detection failure rate (FDFR): share of frames in which no face was found."""

    Config = FramesConfig
    direction, unit = "higher", "share of frames"
    source = "FDFR of Anti-DreamBooth, Le et al., ICCV 2023"

    def __init__(self, config: FramesConfig) -> None:
        super().__init__()
        self.config = config

    def _score(self, subject: GeneratedClip) -> float:
        _, found = _found(subject, self.config.frames)
        return 1.0 - len(found) / len(chosen_frames(len(subject.frames), self.config.frames))


def _found(subject: GeneratedClip, choice: str) -> tuple[Tensor, list[int]]:
    """All landmarks, and the indices of the frames that count and have a face.

    Raises:
        ValueError: nobody looked for faces in this clip.
    """
    if subject.frame_landmarks is None:
        raise ValueError(
            f"{subject.key}: expected frame_landmarks [T, 5, 2], got None; run a face detector"
        )
    has_face = torch.isfinite(subject.frame_landmarks).all(dim=(1, 2)).tolist()
    wanted = chosen_frames(len(subject.frames), choice)
    return subject.frame_landmarks, [index for index in wanted if has_face[index]]
