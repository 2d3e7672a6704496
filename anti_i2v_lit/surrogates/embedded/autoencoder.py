"""What the stages need from an autoencoder, whichever family of models it belongs to."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentShape:
    """Sizes that every autoencoder has."""

    latent_channels: int = 16  # channels of a latent
    sample_size: int = 128  # height and width of a training image, pixels

    def __post_init__(self) -> None:
        """Refuse latents without channels and pictures that do not tile."""
        if self.latent_channels < 1:
            raise ValueError(
                f"latent_channels arrived as {self.latent_channels}; expected 1 or more; raise it."
            )
        if self.sample_size < self.stride or self.sample_size % self.stride:
            raise ValueError(
                f"sample_size arrived as {self.sample_size}; expected a multiple of "
                f"{self.stride} pixels; round it."
            )

    @property
    def stride(self) -> int:
        """Pixels of the image under one latent position, along each axis."""
        raise NotImplementedError


class PictureAutoencoder(nn.Module, ABC):
    """An autoencoder of single pictures in training.

    Its encoder ends in one convolution and its decoder reads the latent through convolutions
    alone, so that a linear map of the latent can be written into the weights exactly.
    """

    shape: LatentShape

    @abstractmethod
    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance, each ``[B, C, h, w]``, of images ``[B, 3, H, W]`` in [-1, 1]."""

    @abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """Images ``[B, 3, H, W]``, nominally in [-1, 1], of latents ``[B, C, h, w]``."""

    @abstractmethod
    def moment_layer(self) -> nn.Conv2d:
        """The last layer of the encoder; rows ``0..C-1`` give means, the others log variances."""

    @abstractmethod
    def latent_readers(self) -> list[nn.Conv2d]:
        """All layers of the decoder that the latent enters."""

    @torch.no_grad()
    def start_with_little_noise(self) -> None:
        """Begin at a log variance of about -6: under a tiny KL weight that is where it ends."""
        layer, channels = self.moment_layer(), self.shape.latent_channels
        assert layer.bias is not None
        layer.bias[channels:] = -6.0
        layer.weight[channels:] *= 0.1
