"""What generators with an autoencoder share, and what those around a diffusers pipeline do."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_photos
from anti_i2v_lit.generators.base import VideoGenerator


def device_for(name: str) -> torch.device:
    """The device of a `device` setting; "auto" is a GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


class LatentGenerator(VideoGenerator):
    """A generator of one size and length, whose autoencoder can be asked alone.

    A variant provides `_clips`, `_to_latents` and `_to_images`.

    Args:
        view_size: (H, W) in pixels.
        num_frames: of a clip.
    """

    def __init__(self, view_size: tuple[int, int], num_frames: int) -> None:
        self._size, self._frames = view_size, num_frames

    @property
    @final
    def view_size(self) -> tuple[int, int]:
        """(H, W) in pixels of the photos it takes and of the frames it makes."""
        return self._size

    @property
    @final
    def num_frames(self) -> int:
        """Frames of a clip."""
        return self._frames

    @abstractmethod
    def _clips(self, photos: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Clips [B, T, 3, H, W] near [0, 1] of photos of the right size."""

    @abstractmethod
    def _to_latents(self, images: Tensor) -> Tensor:
        """Mean of the posterior [B, C, h, w] of images [B, 3, H, W] in [-1, 1]; any device."""

    @abstractmethod
    def _to_images(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """Images [B, 3, *size] near [-1, 1] of latents [B, C, h, w]; any device."""

    @final
    def _generate(self, photos: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        if tuple(photos.shape[-2:]) != self._size:
            raise ValueError(f"photos: expected {self._size} pixels, got {photos.shape[-2:]}")
        return self._clips(photos, prompts, seeds)

    @final
    @torch.no_grad()
    def encode(self, photos: Tensor) -> Tensor:
        """Photos as latents, the mean of the posterior, unscaled.

        Args:
            photos: [B, 3, H, W] in [0, 1], H and W multiples of the autoencoder's ratio.

        Returns:
            [B, C, H / ratio, W / ratio], float32, on the CPU.
        """
        check_photos(photos)
        return self._to_latents(2.0 * photos - 1.0).float().cpu()

    @final
    @torch.no_grad()
    def reconstruct(self, photos: Tensor) -> Tensor:
        """Photos through the autoencoder alone: the best a clip can look.

        Args:
            photos: [B, 3, H, W] in [0, 1], H and W multiples of the autoencoder's ratio.

        Returns:
            [B, 3, H, W] in [0, 1], float32, on the CPU.
        """
        height, width = photos.shape[-2:]
        images = self._to_images(self.encode(photos), (height, width)).float()
        return (images / 2.0 + 0.5).clamp(0.0, 1.0).cpu()


class PipelineGenerator(LatentGenerator):
    """A diffusers pipeline with a video autoencoder.

    Args:
        pipeline: in memory; is moved.
        device: a `device` setting.
        view_size: (H, W) in pixels.
        num_frames: of a clip.
    """

    def __init__(
        self, pipeline: Any, device: str, view_size: tuple[int, int], num_frames: int
    ) -> None:
        super().__init__(view_size, num_frames)
        self.pipeline = pipeline
        pipeline.to(device_for(device))
        pipeline.set_progress_bar_config(disable=True)

    @final
    def _entered(self, values: Tensor) -> Tensor:
        """On the autoencoder's device, in its precision."""
        vae = self.pipeline.vae
        return values.to(device=vae.device, dtype=vae.dtype)

    def _to_latents(self, images: Tensor) -> Tensor:
        distribution = self.pipeline.vae.encode(self._entered(images)[:, :, None]).latent_dist
        return distribution.mode()[:, :, 0]

    def _to_images(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        del size  # that of the latents
        return self.pipeline.vae.decode(self._entered(latents)[:, :, None]).sample[:, :, 0]
