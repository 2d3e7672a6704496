"""Is it still the same person? Face similarity of a clip to the clean photo."""

from __future__ import annotations

import functools
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_in
from anti_i2v_lit.metrics.arcface import ONNXRUNTIME, ArcFace
from anti_i2v_lit.metrics.arcface import WEIGHTS as ARCFACE_WEIGHTS
from anti_i2v_lit.metrics.base import GeneratedClip
from anti_i2v_lit.metrics.dlib_face import WEIGHTS as DLIB_WEIGHTS
from anti_i2v_lit.metrics.dlib_face import DlibFace
from anti_i2v_lit.metrics.face_embedder import FaceEmbedder
from anti_i2v_lit.metrics.frames import FrameMetric, FramesConfig
from anti_i2v_lit.metrics.hse_face import WEIGHTS as HSE_WEIGHTS
from anti_i2v_lit.metrics.hse_face import HseFace
from anti_i2v_lit.metrics.memory import LastResult, PhotoMemory, fingerprint
from anti_i2v_lit.metrics.requirements import WeightsFile


@dataclass(kw_only=True)
class IdentityConfig(FramesConfig):
    """Settings of an identity metric.

    Attributes:
        weights: path of the face network; empty means the one in $ANTI_I2V_DATA/models.
        frames: "all" (the mean over frames), "first" or "last".
        missing: what a frame without a face counts: "drop" leaves it out, as published ISM
            figures do (which flatters the video model exactly where protection works); "zero"
            counts it as a stranger.
    """

    weights: str = ""
    missing: str = "drop"

    def __post_init__(self) -> None:
        """Refuse unknown choices."""
        super().__post_init__()
        check_in(self.missing, ("drop", "zero"), "missing")


class FaceComparison:
    """Compares the faces of clips with those of photos; metrics with one network share one.

    Args:
        embedder: the face network.
    """

    def __init__(self, embedder: FaceEmbedder) -> None:
        self._embedder = embedder
        self._people: PhotoMemory[Tensor] = PhotoMemory()
        self._last: LastResult[Tensor] = LastResult()

    def similarities(self, subject: GeneratedClip) -> Tensor:
        """Cosine per frame, [T]; NaN where the frame or the photo has no face."""
        seen = (subject.frame_landmarks, subject.photo_landmarks, subject.face_photo)
        others = (subject.photo_key, *(fingerprint(tensor) for tensor in seen))
        return self._last.get(subject.frames, lambda: self._compare(subject), others)

    def _compare(self, subject: GeneratedClip) -> Tensor:
        found = faces_in(subject).nonzero()[:, 0]
        values = torch.full((len(subject.frames),), torch.nan)
        if subject.photo_landmarks is None or not len(found):
            return values
        frames, landmarks = subject.frames, subject.frame_landmarks
        assert landmarks is not None
        embedder = self._embedder.to(frames.device)
        photo, points = subject.face_photo.to(frames.device), subject.photo_landmarks
        person = self._people.get(
            subject.photo_key, photo, lambda: embedder.embed(photo, points), fingerprint(points)
        )
        faces = embedder.embed_all(frames[found.to(frames.device)], landmarks[found])
        cosines = (faces @ person).float().cpu()
        if not cosines.isfinite().all():
            raise ValueError(
                f"{subject.key}: {type(embedder).__name__} gave a similarity that is not a number; "
                "expected cosines, check its weights"
            )
        values[found.cpu()] = cosines
        return values


class IdentitySimilarity(FrameMetric):
    """Identity score matching (ISM): cosine of face embeddings, frames against clean photo.

    A variant provides `weights_file` and `_load`. Undefined (NaN, left out of the mean) if the
    photo has no face, or no frame that counts has one and missing frames are dropped: always
    read it beside `missing_faces`.
    """

    Config = IdentityConfig
    config: IdentityConfig
    direction, unit = "lower", "cosine"
    may_be_undefined = True
    weights_file: ClassVar[WeightsFile]

    def __init__(self, config: IdentityConfig) -> None:
        super().__init__(config)
        self._comparison = _comparison(type(self), str(self.weights_file.require(config.weights)))

    @classmethod
    @abstractmethod
    def _load(cls, weights: str) -> FaceEmbedder:
        """The face network from a path."""

    def _score_frames(self, subject: GeneratedClip) -> Tensor:
        values = self._comparison.similarities(subject)
        if self.config.missing == "zero" and subject.photo_landmarks is not None:
            return values.where(faces_in(subject).cpu(), 0.0)
        return values


class DlibIdentity(IdentitySimilarity):
    """Identity score matching (ISM) with dlib's face network: cosine, about 0 for strangers."""

    source = "ISM of Anti-DreamBooth (ICCV 2023) with dlib_face_recognition_resnet_model_v1"
    weights_file = DLIB_WEIGHTS
    needs = (DLIB_WEIGHTS,)

    @classmethod
    def _load(cls, weights: str) -> FaceEmbedder:
        return DlibFace(DlibFace.Config(weights=weights))


class HseIdentity(IdentitySimilarity):
    """Identity score matching (ISM) with HSE FaceRes: cosine, about 0 for strangers."""

    source = "ISM of Anti-DreamBooth (ICCV 2023) with HSE FaceRes (MobileNetV1, VGGFace2)"
    weights_file = HSE_WEIGHTS
    needs = (HSE_WEIGHTS,)

    @classmethod
    def _load(cls, weights: str) -> FaceEmbedder:
        return HseFace(HseFace.Config(weights=weights))


class ArcFaceIdentity(IdentitySimilarity):
    """Identity score matching (ISM) with ArcFace: cosine, about 0 for strangers."""

    source = "ISM of Anti-DreamBooth (ICCV 2023) with insightface's w600k_r50 (ArcFace, CVPR 2019)"
    weights_file = ARCFACE_WEIGHTS
    needs = (ARCFACE_WEIGHTS, ONNXRUNTIME)

    @classmethod
    def _load(cls, weights: str) -> FaceEmbedder:
        return ArcFace(ArcFace.Config(weights=weights))


@functools.lru_cache(maxsize=8)
def _comparison(metric: type[IdentitySimilarity], weights: str) -> FaceComparison:
    """The one comparison of all metrics of a class with the same weights."""
    return FaceComparison(metric._load(weights))


class MissingFaces(FrameMetric):
    """Face detection failure rate (FDFR): share of frames in which no face was found."""

    Config = FramesConfig
    direction, unit = "higher", "share of frames"
    source = "FDFR of Anti-DreamBooth, Le et al., ICCV 2023"

    def _score_frames(self, subject: GeneratedClip) -> Tensor:
        return 1.0 - faces_in(subject).float()


def faces_in(subject: GeneratedClip) -> Tensor:
    """Whether each frame has a face, bool [T].

    Raises:
        ValueError: nobody looked for faces in this clip.
    """
    if subject.frame_landmarks is None:
        raise ValueError(
            f"{subject.key}: expected frame_landmarks [T, 5, 2], got None; run a face detector"
        )
    return torch.isfinite(subject.frame_landmarks).all(dim=(1, 2))
