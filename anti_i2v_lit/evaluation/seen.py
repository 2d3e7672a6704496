"""What is known of a photo and of a clip before the two are compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from anti_i2v_lit.metrics.base import GeneratedClip


@dataclass(frozen=True, kw_only=True)
class KnownPhoto:
    """What the judge remembers of a clean photo.

    Attributes:
        key: a name that no other photo has, nor another frame of this one.
        photo: the photo at full size [3, H, W] in [0, 1].
        landmarks: [5, 2] of the largest face, pixels of the photo; None if no face was found.
        view: the photo as the generator sees it [3, h, w].
        latents: encoder -> latent [1, C, h', w'] of the view.
        person: face network -> unit vector [D] of the largest face; empty without a face.
        perceptual: LPIPS features of the view.
    """

    key: str
    photo: Tensor
    landmarks: Tensor | None
    view: Tensor
    latents: Mapping[str, Tensor]
    person: Mapping[str, Tensor]
    perceptual: tuple[Tensor, ...]

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
class SeenClip:
    """What networks see in a clip, whatever it is compared with.

    Attributes:
        frames: [T, 3, h, w] in [0, 1].
        landmarks: [T, 5, 2] in pixels of the frames, NaN where no face was found; None if nobody
            looked.
        vectors: face network -> unit vectors [T, D], NaN where no face was found; empty if nobody
            looked.
    """

    frames: Tensor
    landmarks: Tensor | None
    vectors: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Figures of a clip beside its photo.

    Attributes:
        figures: column -> value; NaN where it is undefined.
        by_frame: figure -> value per frame; "face" is 1 where one was found, "motion" is the
            change from the frame before.
    """

    figures: dict[str, float]
    by_frame: dict[str, tuple[float, ...]]
