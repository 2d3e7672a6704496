"""What the stages need from a family of models: its parts, its conditions, how it is shipped."""

from __future__ import annotations

import dataclasses
import pathlib
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from anti_i2v_lit.surrogates.embedded.autoencoder import PictureAutoencoder


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipCondition:
    """What the denoiser is told about a batch of clips."""

    first: Tensor  # [B, C, h, w], latent of the first frame; zeros tell nothing
    text: Tensor  # [B, L, D], embedded prompts
    picture: Tensor  # [B, N, W], the first frame as the image encoder sees it; N = 0 without one

    def to(self, device: torch.device) -> ClipCondition:
        """The same on another device."""
        return ClipCondition(
            first=self.first.to(device), text=self.text.to(device), picture=self.picture.to(device)
        )


class PictureEncoder(nn.Module, ABC):
    """The second way by which a photo enters the denoiser, trained before it."""

    @abstractmethod
    def tokens(self, images: Tensor) -> Tensor:
        """Image tokens ``[B, N, W]`` of images ``[B, 3, H, W]`` in [-1, 1]."""

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """One vector an image, ``[B, D]``, on which people are told apart."""


class NoPictureEncoder(PictureEncoder):
    """For families whose photo enters through latents alone: no tokens, nothing to train."""

    def tokens(self, images: Tensor) -> Tensor:
        """``[B, 0, 0]``."""
        return images.new_zeros(len(images), 0, 0)

    def embed(self, images: Tensor) -> Tensor:
        """``[B, 0]``."""
        return images.new_zeros(len(images), 0)


class Denoising(nn.Module, ABC):
    """How the denoiser of a family is told its conditions; constant tables, no weights."""

    alphas: Tensor  # [1000], cumulative products of the noise schedule

    @abstractmethod
    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings ``[N, L, D]`` of prompts."""

    @abstractmethod
    def withhold(self, condition: ClipCondition, generator: torch.Generator) -> ClipCondition:
        """The condition with parts of it taken away from some clips, by the family's recipe."""

    @abstractmethod
    def predict(
        self, model: nn.Module, noisy: Tensor, timesteps: Tensor, condition: ClipCondition
    ) -> Tensor:
        """The model's v for noisy clips ``[B, T, C, h, w]`` at timesteps ``[B]``."""


class Family(ABC):
    """One architecture of embedded models."""

    @abstractmethod
    def autoencoder(self) -> PictureAutoencoder:
        """A fresh autoencoder."""

    @abstractmethod
    def picture_encoder(self) -> PictureEncoder:
        """A fresh image encoder, or :class:`NoPictureEncoder`."""

    @abstractmethod
    def denoiser(self, seed: int) -> nn.Module:
        """A fresh denoiser; its weights depend on the seed alone."""

    @abstractmethod
    def denoising(self, encoder: PictureEncoder) -> Denoising:
        """How that denoiser is told its conditions.

        Args:
            encoder: The trained image encoder.
        """

    @abstractmethod
    def export(
        self,
        autoencoder: PictureAutoencoder,
        encoder: PictureEncoder,
        denoiser: nn.Module,
        folder: pathlib.Path,
    ) -> int:
        """Write the trained parts in the layout in which such models are published.

        Args:
            autoencoder: Whitened.
            encoder: The image encoder.
            denoiser: With averaged weights.
            folder: Written in full; a ``MODEL_CARD.md`` there is kept.

        Returns:
            Size of the folder in bytes.
        """
