"""A foreign encoder: TAEF2, a distilled autoencoder of FLUX.2's latents, trained by others."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_photos
from anti_i2v_lit.purifications.taesd import load_tiny_encoder

ENCODER_FILE = "taef2_encoder.pth"
HOW_TO_GET = (
    f"It is {ENCODER_FILE} of github.com/madebyollin/taesd (MIT); put it into the weights folder"
)
_CHANNELS = 32  # of FLUX.2's latents; the same author's encoders of other models have 4 or 16


class ForeignEncoder:
    """TAEF2's encoder, frozen: photos [B, 3, H, W] in [0, 1] to latents [B, 32, H/8, W/8].

    Source: madebyollin, "TAESD", 2023 to 2026; the FLUX.2 variant has group-normalised blocks at
    the coarsest level.

    Args:
        path: `taef2_encoder.pth`, read with `weights_only`.

    Raises:
        ValueError: the file is missing or holds something else.
    """

    ratio = 8

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ValueError(f"foreign encoder: expected a file, got {path}. {HOW_TO_GET}")
        try:
            network = load_tiny_encoder(path)
        except ValueError as error:
            raise ValueError(f"{path} is not TAEF2's encoder: {error}. {HOW_TO_GET}") from error
        found = getattr(network[-1], "out_channels", 0)
        if found != _CHANNELS:
            raise ValueError(
                f"{path} is not TAEF2's encoder: expected latents of {_CHANNELS} channels, got "
                f"{found}. {HOW_TO_GET}"
            )
        self.network = network.requires_grad_(False).eval()

    @torch.no_grad()
    def encode(self, photos: Tensor) -> Tensor:
        """Return latents; sides must be multiples of 8 pixels.

        Raises:
            ValueError: wrong shape, range or size.
        """
        check_photos(photos)
        if photos.shape[-2] % self.ratio or photos.shape[-1] % self.ratio:
            raise ValueError(
                f"photos: expected sides that are multiples of {self.ratio} pixels, got "
                f"{tuple(photos.shape[-2:])}"
            )
        return self.network(photos)
