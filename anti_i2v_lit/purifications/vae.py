"""A round trip through an autoencoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from anti_i2v_lit.purifications.autoencoders import Reconstructor, load_reconstructor
from anti_i2v_lit.purifications.base import Purification
from anti_i2v_lit.purifications.working_size import (
    DEFAULT_WORK_PX,
    at_working_size,
    check_work_px,
)


@final
class VaeRoundTrip(Purification):
    """Encode to latents and decode again: what a latent space cannot say is gone.

    With the autoencoder of the model that a cloak was made against it is its own ("own"), with any
    other a foreign one; attackers take whichever is at hand. One pass over the whole photo at the
    size that the video model takes, see `at_working_size`, since that model would encode it there.
    Severity in native units: the share of the way from the photo to its reconstruction.

    Source: the purification step of "Purify Once, Edit Freely" 2026, arXiv 2603.13028 (VAE-Trans),
    without its trained translation.

    Args:
        config: settings.
        autoencoder: already in memory; loaded by `config.model` if None.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the round trip.

        Attributes:
            model: "mmdit_128" or "unet_128" for a packaged model's autoencoder, or a diffusers
                folder of an `AutoencoderKL`, `AutoencoderTiny` or `AutoencoderKLCogVideoX`, or
                one with the two files of a TAESD.
            work_px: shorter side during the round trip, pixels; 0 for the photo's own.
        """

        model: str = "unet_128"
        work_px: int = DEFAULT_WORK_PX

        def __post_init__(self) -> None:
            check_work_px(self.work_px)

    def __init__(self, config: Config, autoencoder: Reconstructor | None = None) -> None:
        self.config = config
        self.autoencoder = autoencoder or load_reconstructor(config.model)

    @property
    def is_differentiable(self) -> bool:
        """True: the gradient goes through decoder and encoder."""
        return True

    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        found = at_working_size(
            photos,
            self.config.work_px,
            self.autoencoder.unit_px,
            self.autoencoder.reconstruct,
        )
        return photos + severity * (found - photos)
