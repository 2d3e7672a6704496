"""The autoencoder of the U-Net family: a narrow first stage of latent diffusion models."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor, nn

from anti_i2v_lit.surrogates.dynamicrafter.first_stage import FirstStage
from anti_i2v_lit.surrogates.embedded.autoencoder import LatentShape, PictureAutoencoder
from anti_i2v_lit.surrogates.embedded.pass_through import pass_through_init


@dataclasses.dataclass(frozen=True, kw_only=True)
class LdmShape(LatentShape):
    """Sizes of the first stage."""

    channels: int = 32  # channels of the finest level
    multiples: tuple[int, ...] = (1, 1, 2, 3)  # channels of each level, multiples of ``channels``
    norm_groups: int = 8  # groups of every group normalisation

    def __post_init__(self) -> None:
        """Refuse channels that the normalisation cannot group."""
        super().__post_init__()
        if self.channels % self.norm_groups:
            raise ValueError(
                f"channels={self.channels}, norm_groups={self.norm_groups} arrived; expected a "
                "multiple; change one of the two."
            )

    @property
    def stride(self) -> int:
        """Pixels of the image under one latent position, along each axis."""
        return 2 ** (len(self.multiples) - 1)

    def settings(self) -> dict[str, Any]:
        """Keywords of ``FirstStage``, under their published names."""
        return {
            "double_z": True,
            "z_channels": self.latent_channels,
            "resolution": self.sample_size,
            "in_channels": 3,
            "out_ch": 3,
            "ch": self.channels,
            "ch_mult": list(self.multiples),
            "num_res_blocks": 1,
            "attn_resolutions": [],
            "dropout": 0.0,
            "norm_groups": self.norm_groups,
        }


class LdmAutoencoder(PictureAutoencoder):
    """A ``FirstStage`` in training; the weights below ``first_stage`` are what is shipped."""

    def __init__(self, shape: LdmShape) -> None:
        super().__init__()
        self.shape: LdmShape = shape
        self.first_stage = FirstStage(**shape.settings())
        pass_through_init(self.first_stage)
        self.start_with_little_noise()

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance, each ``[B, C, H/8, W/8]``, of images in [-1, 1]."""
        mean, logvar = self.first_stage.moments(image).chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)

    def decode(self, latent: Tensor) -> Tensor:
        """Images ``[B, 3, H, W]`` of latents ``[B, C, H/8, W/8]``."""
        return self.first_stage.decode(latent)

    def moment_layer(self) -> nn.Conv2d:
        """``quant_conv``."""
        return self.first_stage.quant_conv

    def latent_readers(self) -> list[nn.Conv2d]:
        """``post_quant_conv``."""
        layer = self.first_stage.post_quant_conv
        assert layer is not None
        return [layer]
