"""The black-box seam: a photo and a prompt become a clip."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self, final

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_photos


class VideoGenerator(ABC):
    """An image-to-video pipeline as an attacker runs it: no taps, no gradients.

    A variant provides `_generate`; `generate` is final: photos checked, one seed per photo,
    frames in [0, 1].
    """

    Config: type[Any]

    @property
    @abstractmethod
    def view_size(self) -> tuple[int, int]:
        """(H, W) in pixels of the photos it takes and of the frames it makes."""

    @classmethod
    @abstractmethod
    def tiny(cls) -> Self:
        """A miniature with seeded random weights, for tests."""

    @abstractmethod
    def _generate(self, photos: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor: ...

    @abstractmethod
    def encode(self, photos: Tensor) -> Tensor:
        """Photos [B, 3, H, W] as latents [B, C, h, w] of the model's own autoencoder, unscaled."""

    @abstractmethod
    def reconstruct(self, photos: Tensor) -> Tensor:
        """Photos [B, 3, H, W] through the autoencoder alone: the best a clip can look."""

    @final
    @torch.no_grad()
    def generate(self, photos: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Return clips [B, T, 3, H, W] in [0, 1] on the CPU.

        Args:
            photos: [B, 3, H, W] in [0, 1] of `view_size`.
            prompts: one text per photo.
            seeds: one seed per photo; same photo, prompt and seed give the same clip.

        Raises:
            ValueError: wrong shape or range, or counts that differ.
        """
        check_photos(photos)
        if not len(photos) == len(prompts) == len(seeds):
            raise ValueError(
                f"expected one prompt and one seed per photo, got {len(photos)} photos, "
                f"{len(prompts)} prompts, {len(seeds)} seeds"
            )
        clips = self._generate(photos, prompts, seeds)
        return clips.float().clamp(0.0, 1.0).cpu()
