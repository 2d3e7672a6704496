"""Every figure of a clip, its photo and the protected file."""

from __future__ import annotations

import copy
import math
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import lpips
import torch
from torch import Tensor

from anti_i2v_lit.backbones.lpips_net import load_lpips, lpips_distance
from anti_i2v_lit.data.faces import Face, FaceConfig, FaceDetector
from anti_i2v_lit.evaluation.columns import EMBEDDERS
from anti_i2v_lit.evaluation.foreign import ENCODER_FILE, ForeignEncoder
from anti_i2v_lit.metrics import FACE_EMBEDDERS
from anti_i2v_lit.metrics.base import GeneratedClip
from anti_i2v_lit.metrics.dlib_face import FILE as DLIB_FILE
from anti_i2v_lit.metrics.face_embedder import DATA_VARIABLE, FaceEmbedder
from anti_i2v_lit.metrics.fidelity import ClipLpips, ClipPsnr, ClipSsim
from anti_i2v_lit.metrics.frames import FrameMetric, FramesConfig
from anti_i2v_lit.metrics.hse_face import FILE as HSE_FILE
from anti_i2v_lit.metrics.identity import FaceComparison, faces_in
from anti_i2v_lit.metrics.imperceptibility import colour_difference, max_change_8bit, psnr, ssim

Encoder = Callable[[Tensor], Tensor]
_EMBEDDER_FILES = dict(zip(EMBEDDERS, (DLIB_FILE, HSE_FILE), strict=True))
PSNR_OF_EQUAL_DB = 100.0  # stands for infinity, so that means stay finite


class Detector(Protocol):
    """Anything that finds faces in a photo [3, H, W], largest first."""

    def detect(self, photo: Tensor) -> list[Face]:
        """Return the faces."""


@dataclass(frozen=True, kw_only=True)
class KnownPhoto:
    """What the judge remembers of a clean photo.

    Attributes:
        key: a name that no other photo has, nor another frame of this one.
        photo: the photo at full size [3, H, W] in [0, 1].
        landmarks: [5, 2] of the largest face, pixels of the photo; None if no face was found.
        view: the photo as the generator sees it [3, h, w].
        latents: encoder -> latent [1, C, h', w'] of the view.
    """

    key: str
    photo: Tensor
    landmarks: Tensor | None
    view: Tensor
    latents: Mapping[str, Tensor]

    @property
    def has_face(self) -> bool:
        """Whether a face was found."""
        return self.landmarks is not None

    def clip(
        self, key: str, frames: Tensor, landmarks: Tensor | None, prompt: str | None = None
    ) -> GeneratedClip:
        """A clip of this photo, as registered metrics take it.

        Args:
            key: name of the clip.
            frames: [T, 3, h, w] in [0, 1].
            landmarks: [T, 5, 2] in pixels of the frames; None if nobody looked.
            prompt: its text.
        """
        if landmarks is None:
            landmarks = torch.full((len(frames), 5, 2), math.nan)
        return GeneratedClip(
            key=key,
            photo=self.view,
            frames=frames,
            full_photo=self.photo,
            photo_landmarks=self.landmarks,
            frame_landmarks=landmarks,
            photo_key=self.key,
            prompt=prompt,
        )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was seen in a clip.

    Attributes:
        figures: column -> value; NaN where it is undefined.
        by_frame: figure -> value per frame; "face" is 1 where one was found, "motion" is the
            change from the frame before.
        landmarks: [T, 5, 2] in pixels of the frames, NaN where no face was found; None if the
            photo has no face, so that nobody looked.
    """

    figures: dict[str, float]
    by_frame: dict[str, tuple[float, ...]]
    landmarks: Tensor | None


class Judge:
    """Measures clips and files; parts whose weights are absent are left out of the figures.

    Args:
        detector: finds faces.
        embedders: name (one of `EMBEDDERS`) -> face network.
        encoders: "own" and/or "foreign" -> views [B, 3, H, W] to latents.
    """

    def __init__(
        self,
        *,
        detector: Detector,
        embedders: Mapping[str, FaceEmbedder],
        encoders: Mapping[str, Encoder],
    ) -> None:
        self.detector, self.embedders, self.encoders = detector, dict(embedders), dict(encoders)
        self._lpips = load_lpips()
        self._faces = {name: FaceComparison(e) for name, e in self.embedders.items()}
        settings = FramesConfig()
        self._to_photo: dict[str, FrameMetric] = {
            "photo_psnr": ClipPsnr(settings),
            "photo_ssim": ClipSsim(settings),
            "photo_lpips": ClipLpips(settings),
        }

    @property
    def lpips(self) -> lpips.LPIPS:
        """The network of perceptual distances."""
        return self._lpips

    def beside(self, encode: Encoder) -> Judge:
        """This judge beside a generator: it measures in that one's latents as well."""
        other = copy.copy(self)
        other.encoders = {**self.encoders, "own": encode}
        return other

    @property
    def parts(self) -> list[str]:
        """Names of the optional parts at hand; figures of others are absent."""
        return sorted([*self.embedders, *(f"shift_{name}" for name in self.encoders)])

    @torch.no_grad()
    def know(self, photo: Tensor, view: Tensor, faces: Sequence[Face]) -> KnownPhoto:
        """Look at a clean photo once.

        Args:
            photo: [3, H, W] in [0, 1], full size.
            view: [3, h, w], as the generator sees it.
            faces: of the photo, largest first.
        """
        landmarks = pixel_landmarks(faces[0], photo) if faces else None
        latents = {name: encode(view[None]).float() for name, encode in self.encoders.items()}
        return KnownPhoto(
            key=uuid.uuid4().hex, photo=photo, landmarks=landmarks, view=view, latents=latents
        )

    @torch.no_grad()
    def judge_clip(self, known: KnownPhoto, clip: Tensor, clean_clip: Tensor) -> dict[str, float]:
        """The figures of `measure`."""
        return self.measure(known, clip, clean_clip).figures

    @torch.no_grad()
    def measure(self, known: KnownPhoto, clip: Tensor, clean_clip: Tensor | None) -> Measured:
        """Identity, fidelity and motion of a clip.

        Args:
            known: the clean photo.
            clip: [T, 3, h, w] in [0, 1].
            clean_clip: the clip of the clean photo with the same seed and purification; None if
                this is it, which leaves the figures against it undefined.
        """
        landmarks = self._landmarks(clip) if known.has_face else None
        subject = known.clip("clip", clip, landmarks)
        motion = 255 * torch.diff(clip, dim=0).abs().mean(dim=(1, 2, 3))
        by_frame = self._identity(subject)
        for name, metric in self._to_photo.items():
            by_frame[name] = metric.per_frame(subject)
        by_frame["photo_psnr"] = by_frame["photo_psnr"].clamp(max=PSNR_OF_EQUAL_DB)
        by_frame.update(self._to_clean(clip, clean_clip))
        figures = {"fdfr": 1.0 - by_frame["face"].mean().item(), "motion": motion.mean().item()}
        for name in self.embedders:
            figures.update(_identity_figures(name, by_frame[name], known.has_face))
        for name, values in by_frame.items():
            if name.startswith(("clip_", "photo_")):
                figures[name] = values.double().mean().item()
        by_frame["motion"] = torch.cat([torch.tensor([math.nan]), motion])
        listed = {name: tuple(values.tolist()) for name, values in by_frame.items()}
        return Measured(figures=figures, by_frame=listed, landmarks=landmarks)

    @torch.no_grad()
    def judge_latents(self, known: KnownPhoto, view: Tensor) -> dict[str, float]:
        """Displacement of the latent of a view [3, h, w] from the clean photo's."""
        return {
            f"shift_{name}": displacement(encode(view[None]).float(), known.latents[name])
            for name, encode in self.encoders.items()
        }

    def _landmarks(self, clip: Tensor) -> Tensor:
        """Landmarks of the largest face per frame, [T, 5, 2] in pixels; NaN where there is none."""
        landmarks = torch.full((len(clip), 5, 2), math.nan)
        for index, frame in enumerate(clip):
            faces = self.detector.detect(frame)
            if faces:
                landmarks[index] = pixel_landmarks(faces[0], frame)
        return landmarks

    def _identity(self, subject: GeneratedClip) -> dict[str, Tensor]:
        """Whether there is a face, and its similarity, per frame; unknown without one to match."""
        if subject.photo_landmarks is None:
            unknown = torch.full((len(subject.frames),), math.nan)
            return {"face": unknown, **dict.fromkeys(self.embedders, unknown)}
        similar = {name: faces.similarities(subject) for name, faces in self._faces.items()}
        return {"face": faces_in(subject).float(), **similar}

    def _to_clean(self, clip: Tensor, clean: Tensor | None) -> dict[str, Tensor]:
        """How far a clip is from the clean photo's clip, frame by frame."""
        if clean is None:
            unknown = torch.full((len(clip),), math.nan)
            return dict.fromkeys(("clip_psnr", "clip_ssim", "clip_lpips"), unknown)
        pairs = list(zip(clip, clean, strict=True))
        return {
            "clip_psnr": torch.tensor([min(psnr(a, b), PSNR_OF_EQUAL_DB) for a, b in pairs]),
            "clip_ssim": torch.tensor([ssim(a, b) for a, b in pairs]),
            "clip_lpips": lpips_distance(self._lpips, clip, clean).flatten(),
        }


def judge_file(photo: Tensor, protected: Tensor) -> dict[str, float]:
    """Visibility of a protected file [3, H, W] against its photo; NaN if the sizes differ."""
    if photo.shape != protected.shape:
        return dict.fromkeys(("psnr", "ciede2000", "max_change_8bit"), math.nan)
    return {
        "psnr": min(psnr(protected, photo), PSNR_OF_EQUAL_DB),
        "ciede2000": colour_difference(protected, photo)[0],
        "max_change_8bit": max_change_8bit(protected, photo),
    }


def displacement(latents: Tensor, clean: Tensor) -> float:
    """Root mean square distance in standard deviations of the clean latent."""
    distance = (latents - clean).double().square().mean().sqrt()
    return (distance / clean.double().std()).item()


def pixel_landmarks(face: Face, photo: Tensor) -> Tensor:
    """Five landmarks [5, 2] in pixels of a photo [3, H, W]."""
    height, width = photo.shape[-2:]
    return torch.tensor(face.landmarks) * torch.tensor([width, height])


def _identity_figures(name: str, similarity: Tensor, has_face: bool) -> dict[str, float]:
    """Columns of one embedder from the similarity per frame [T], NaN where no face was found."""
    zeroed = similarity.nan_to_num(0.0) if has_face else similarity
    chosen = {"first": slice(0, 1), "last": slice(-1, None), "mean": slice(None)}
    figures = {}
    for frame, part in chosen.items():
        figures[f"{name}_{frame}"] = similarity[part].nanmean().item()
        figures[f"{name}_{frame}_zero"] = zeroed[part].mean().item()
    return figures


def weights_folder(given: Path | None) -> Path | None:
    """The folder of judges' weights: `given`, else $ANTI_I2V_DATA/models, else ../shared/data.

    Raises:
        ValueError: `given` is not a folder.
    """
    if given is not None:
        if not given.is_dir():
            raise ValueError(f"--weights: expected a folder, got {given}")
        return given
    data = os.environ.get(DATA_VARIABLE)
    folder = Path(data or "../shared/data") / "models"
    return folder if folder.is_dir() else None


def build_judge(
    weights: Path | None, own_encoder: Encoder | None, detector: Detector | None = None
) -> Judge:
    """The judge with every optional part whose weights are in the folder.

    Args:
        weights: folder of `dlib_face_resnet_fp16.safetensors`,
            `hse_faceres_mobilenet1_fp16.safetensors` and `taef2_encoder.pth`; any may be absent.
        own_encoder: the generator's own autoencoder.
        detector: finds faces; the packaged one by default.
    """
    embedders: dict[str, FaceEmbedder] = {}
    encoders: dict[str, Encoder] = {}
    if own_encoder is not None:
        encoders["own"] = own_encoder
    for name, file in _EMBEDDER_FILES.items():
        if weights is not None and (weights / file).is_file():
            embedders[name] = FACE_EMBEDDERS.build({"name": name, "weights": str(weights / file)})
    if weights is not None and (weights / ENCODER_FILE).is_file():
        encoders["foreign"] = ForeignEncoder(weights / ENCODER_FILE).encode
    return Judge(
        detector=detector or FaceDetector(FaceConfig()), embedders=embedders, encoders=encoders
    )
