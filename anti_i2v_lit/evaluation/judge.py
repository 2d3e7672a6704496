"""Every figure of a clip, its photo and the protected file."""

from __future__ import annotations

import copy
import math
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import lpips
import torch
from torch import Tensor

from anti_i2v_lit.backbones.lpips_net import load_lpips, lpips_between, lpips_features
from anti_i2v_lit.checkpoints import files_digest
from anti_i2v_lit.data.faces import Face, FaceConfig, FaceDetector
from anti_i2v_lit.evaluation.columns import EMBEDDERS
from anti_i2v_lit.evaluation.foreign import ENCODER_FILE, ForeignEncoder
from anti_i2v_lit.evaluation.seen import KnownPhoto, Measured, SeenClip
from anti_i2v_lit.evaluation.strangers import with_digest
from anti_i2v_lit.metrics import FACE_EMBEDDERS
from anti_i2v_lit.metrics.dlib_face import FILE as DLIB_FILE
from anti_i2v_lit.metrics.face_embedder import DATA_VARIABLE, FaceEmbedder
from anti_i2v_lit.metrics.fidelity import LPIPS_BATCH, ClipPsnr, ClipSsim
from anti_i2v_lit.metrics.frames import FrameMetric, FramesConfig
from anti_i2v_lit.metrics.hse_face import FILE as HSE_FILE
from anti_i2v_lit.metrics.imperceptibility import (
    at_lpips_size,
    colour_difference,
    max_change_8bit,
    psnr,
    ssim,
)

Encoder = Callable[[Tensor], Tensor]
_EMBEDDER_FILES = dict(zip(EMBEDDERS, (DLIB_FILE, HSE_FILE), strict=True))
FRAMES_AT_ONCE = 16  # shown to the face networks, whatever the length of a clip
PSNR_OF_EQUAL_DB = 100.0  # stands for infinity, so that means stay finite


class Detector(Protocol):
    """Anything that finds faces in photos, largest first."""

    def detect(self, photo: Tensor) -> list[Face]:
        """Return the faces of a photo [3, H, W]."""

    def detect_all(self, photos: Tensor) -> list[list[Face]]:
        """Return the faces of every photo of [B, 3, H, W]."""


class Judge:
    """Measures clips and files; parts whose weights are absent are left out of the figures.

    Args:
        detector: finds faces.
        embedders: name (one of `EMBEDDERS`) -> face network.
        encoders: "own" and/or "foreign" -> views [B, 3, H, W] to latents.
        digests: of the weights of encoders that no generator's settings tell of.
    """

    def __init__(
        self,
        *,
        detector: Detector,
        embedders: Mapping[str, FaceEmbedder],
        encoders: Mapping[str, Encoder],
        digests: Mapping[str, str] | None = None,
    ) -> None:
        self.detector, self.embedders, self.encoders = detector, dict(embedders), dict(encoders)
        self._digests = dict(digests or {})
        self._lpips = load_lpips()
        settings = FramesConfig()
        self._to_photo: dict[str, FrameMetric] = {
            "photo_psnr": ClipPsnr(settings),
            "photo_ssim": ClipSsim(settings),
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
    def networks(self) -> dict[str, str]:
        """Face network -> its name with a digest of its weights, under which vectors are kept."""
        return {name: with_digest(name, e.digest) for name, e in self.embedders.items()}

    @property
    def parts(self) -> list[str]:
        """The optional parts at hand with digests of their weights; part of rows' identity."""
        known = self._digests
        shifts = (
            with_digest(f"shift_{name}", known[name]) if name in known else f"shift_{name}"
            for name in self.encoders
        )
        return sorted([*self.networks.values(), *shifts])

    @torch.no_grad()
    def know(self, photo: Tensor, view: Tensor, faces: Sequence[Face]) -> KnownPhoto:
        """Look at a clean photo once.

        Args:
            photo: [3, H, W] in [0, 1], full size.
            view: [3, h, w], as the generator sees it.
            faces: of the photo, largest first.
        """
        landmarks = pixel_landmarks(faces[0], photo) if faces else None
        person = {}
        if landmarks is not None:
            person = {name: e.embed(photo, landmarks) for name, e in self.embedders.items()}
        return KnownPhoto(
            key=uuid.uuid4().hex,
            photo=photo,
            landmarks=landmarks,
            view=view,
            latents={name: encode(view[None]).float() for name, encode in self.encoders.items()},
            person=person,
            perceptual=self._features(view[None]),
        )

    @torch.no_grad()
    def look(self, clips: Sequence[Tensor], for_faces: Sequence[bool]) -> list[SeenClip]:
        """Look at clips of one size, frames of several together.

        Args:
            clips: [T, 3, h, w] each, in [0, 1].
            for_faces: per clip, whether to look for faces; a photo without one needs none.
        """
        searched = [clip for clip, wanted in zip(clips, for_faces, strict=True) if wanted]
        found = iter(self._faces_in(searched) if searched else [])
        seen = []
        for clip, wanted in zip(clips, for_faces, strict=True):
            landmarks, vectors = next(found) if wanted else (None, {})
            seen.append(SeenClip(frames=clip, landmarks=landmarks, vectors=vectors))
        return seen

    @torch.no_grad()
    def judge_clip(self, known: KnownPhoto, clip: Tensor, clean_clip: Tensor) -> dict[str, float]:
        """The figures of `measure` for a clip [T, 3, h, w] and the clean photo's."""
        seen, clean = self.look([clip, clean_clip], [known.has_face, False])
        return self.measure(known, seen, clean).figures

    @torch.no_grad()
    def measure(self, known: KnownPhoto, seen: SeenClip, clean: SeenClip | None) -> Measured:
        """Identity, fidelity and motion of a clip.

        Args:
            known: the clean photo.
            seen: the clip; nobody has to look for faces if the photo has none.
            clean: the clip of the clean photo with the same seed and purification; None if this
                is it, which leaves the figures against it undefined.
        """
        clip = seen.frames
        subject = known.clip("clip", clip, seen.landmarks)
        motion = 255 * torch.diff(clip, dim=0).abs().mean(dim=(1, 2, 3))
        by_frame = self._identity(known, seen)
        for name, metric in self._to_photo.items():
            by_frame[name] = metric.per_frame(subject)
        by_frame["photo_psnr"] = by_frame["photo_psnr"].clamp(max=PSNR_OF_EQUAL_DB)
        by_frame.update(self._to_clean(seen, clean))
        by_frame.update(self._perceptual(known, seen, clean))
        figures = {"fdfr": 1.0 - by_frame["face"].mean().item(), "motion": motion.mean().item()}
        for name in self.embedders:
            figures.update(_identity_figures(name, by_frame[name], known.has_face))
        for name, values in by_frame.items():
            if name.startswith(("clip_", "photo_")):
                figures[name] = values.double().mean().item()
        by_frame["motion"] = torch.cat([torch.tensor([math.nan]), motion])
        listed = {name: tuple(values.tolist()) for name, values in by_frame.items()}
        return Measured(figures=figures, by_frame=listed)

    @torch.no_grad()
    def judge_latents(self, known: KnownPhoto, view: Tensor) -> dict[str, float]:
        """Displacement of the latent of a view [3, h, w] from the clean photo's."""
        return self.judge_all_latents([known], view[None])[0]

    @torch.no_grad()
    def judge_all_latents(
        self, known: Sequence[KnownPhoto], views: Tensor
    ) -> list[dict[str, float]]:
        """Displacements of the latents of views [N, 3, h, w], each from its clean photo's.

        Views are encoded one by one, as photos are: in half precision a batch rounds otherwise.
        """
        return [
            {
                f"shift_{name}": displacement(encode(view[None]).float(), photo.latents[name])
                for name, encode in self.encoders.items()
            }
            for photo, view in zip(known, views, strict=True)
        ]

    def _faces_in(self, clips: Sequence[Tensor]) -> list[tuple[Tensor, dict[str, Tensor]]]:
        """Landmarks and vectors of the largest face of every frame, clip by clip."""
        frames, lengths = [frame for clip in clips for frame in clip], [len(clip) for clip in clips]
        parts = [
            self._faces_of(torch.stack(frames[start : start + FRAMES_AT_ONCE]))
            for start in range(0, len(frames), FRAMES_AT_ONCE)
        ]
        marks = torch.cat([landmarks for landmarks, _ in parts]).split(lengths)
        vectors = {}
        for name in self.embedders:
            found = [of_part[name] for _, of_part in parts]
            size = max(rows.shape[1] for rows in found)  # 1 where no frame of a part has a face
            vectors[name] = torch.cat([rows.expand(-1, size) for rows in found]).split(lengths)
        return [(marks[i], {n: v[i] for n, v in vectors.items()}) for i in range(len(clips))]

    def _faces_of(self, frames: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Landmarks and vectors of the largest face of every frame; NaN without one."""
        landmarks = torch.full((len(frames), 5, 2), math.nan)
        for index, faces in enumerate(self.detector.detect_all(frames)):
            if faces:
                landmarks[index] = pixel_landmarks(faces[0], frames[index])
        shown = has_face(landmarks)
        vectors = {}
        for name, embedder in self.embedders.items():
            vectors[name] = torch.full((len(frames), 1), math.nan)
            if shown.any():
                found = embedder.embed_all(frames[shown], landmarks[shown]).float()
                _check_finite(found, embedder)
                vectors[name] = torch.full((len(frames), found.shape[1]), math.nan)
                vectors[name][shown] = found
        return landmarks, vectors

    def _features(self, images: Tensor) -> tuple[Tensor, ...]:
        """LPIPS features of images [N, 3, h, w], at most 512 pixels large."""
        return lpips_features(self._lpips, at_lpips_size(images))

    def _perceptual(
        self, known: KnownPhoto, seen: SeenClip, clean: SeenClip | None
    ) -> dict[str, Tensor]:
        """LPIPS of every frame to the photo and to the clean photo's clip.

        Features are 7 MB a frame: they are made for a few frames and not kept, so that the memory
        does not grow with the clips. Those of a clean clip are made for every clip beside it.
        """
        to_photo, to_clean = [], []
        starts = range(0, len(seen.frames), LPIPS_BATCH)
        for part in (slice(start, start + LPIPS_BATCH) for start in starts):
            features = self._features(seen.frames[part])
            to_photo.append(lpips_between(self._lpips, features, known.perceptual))
            if clean is not None:
                others = self._features(clean.frames[part])
                to_clean.append(lpips_between(self._lpips, features, others))
        unknown = torch.full((len(seen.frames),), math.nan)
        return {
            "photo_lpips": torch.cat(to_photo),
            "clip_lpips": torch.cat(to_clean) if to_clean else unknown,
        }

    def _identity(self, known: KnownPhoto, seen: SeenClip) -> dict[str, Tensor]:
        """Whether there is a face, and its similarity, per frame; unknown without one to match."""
        if known.landmarks is None:
            unknown = torch.full((len(seen.frames),), math.nan)
            return {"face": unknown, **dict.fromkeys(self.embedders, unknown)}
        if seen.landmarks is None:
            raise ValueError("expected a clip that was searched for faces, as its photo has one")
        shown = has_face(seen.landmarks)
        found: dict[str, Tensor] = {"face": shown.float()}
        for name, vectors in seen.vectors.items():
            found[name] = torch.full((len(shown),), math.nan)
            if shown.any():
                found[name][shown] = (vectors[shown] @ known.person[name]).float()
        return found

    def _to_clean(self, seen: SeenClip, clean: SeenClip | None) -> dict[str, Tensor]:
        """PSNR and SSIM of a clip to the clean photo's clip, frame by frame."""
        if clean is None:
            unknown = torch.full((len(seen.frames),), math.nan)
            return dict.fromkeys(("clip_psnr", "clip_ssim"), unknown)
        pairs = list(zip(seen.frames, clean.frames, strict=True))
        return {
            "clip_psnr": torch.tensor([min(psnr(a, b), PSNR_OF_EQUAL_DB) for a, b in pairs]),
            "clip_ssim": torch.tensor([ssim(a, b) for a, b in pairs]),
        }


def has_face(landmarks: Tensor) -> Tensor:
    """Whether each frame of [T, 5, 2] landmarks has a face, bool [T]."""
    return landmarks.isfinite().all(dim=(1, 2))


def _check_finite(vectors: Tensor, embedder: FaceEmbedder) -> None:
    if not vectors.isfinite().all():
        raise ValueError(
            f"{type(embedder).__name__} gave a vector that is not of numbers; check its weights"
        )


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
    digests: dict[str, str] = {}
    if own_encoder is not None:
        encoders["own"] = own_encoder
    for name, file in _EMBEDDER_FILES.items():
        if weights is not None and (weights / file).is_file():
            embedders[name] = FACE_EMBEDDERS.build({"name": name, "weights": str(weights / file)})
    if weights is not None and (weights / ENCODER_FILE).is_file():
        encoders["foreign"] = ForeignEncoder(weights / ENCODER_FILE).encode
        digests["foreign"] = files_digest([weights / ENCODER_FILE])
    return Judge(
        detector=detector or FaceDetector(FaceConfig()),
        embedders=embedders,
        encoders=encoders,
        digests=digests,
    )
