"""The autoencoder of Open-Sora 1.2: a 2D one for every frame, a temporal one on its latents.

Names and arithmetic as in the published code (hpcaitech/Open-Sora, branch opensora/v1.2,
`opensora/models/vae/vae.py`): a clip goes through the 2D autoencoder a few frames at a time and
through the temporal one in pieces of 17 frames that know nothing of each other; each channel of
the latents is then brought to zero mean and unit spread by a constant.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn

from anti_i2v_lit.surrogates.open_sora.temporal_vae import TemporalVAE

PIXELS_PER_LATENT = 8
# Not the scaling factor in the configuration of SDXL's autoencoder, which is 0.13025.
SPATIAL_SCALE = 0.18215


class SpatialVAE(nn.Module):
    """A 2D autoencoder under the name that it has in the published checkpoint.

    Args:
        module: of SDXL's class.
        micro_batch_size: frames that it takes at once; None for all of them.
    """

    def __init__(self, module: AutoencoderKL, micro_batch_size: int | None) -> None:
        super().__init__()
        self.module = module
        self.micro_batch_size = micro_batch_size

    def encode(self, frames: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Encode frames, scaled.

        Args:
            frames: [N, 3, H, W] in [-1, 1].
            generator: to draw from the posteriors; None for their means.
        """
        latents = []
        for some in frames.split(self.micro_batch_size or len(frames)):
            posterior = self.module.encode(some).latent_dist
            latents.append(posterior.mode() if generator is None else posterior.sample(generator))
        return SPATIAL_SCALE * torch.cat(latents)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode scaled latents [N, C, h, w] to frames [N, 3, 8h, 8w] near [-1, 1]."""
        some = (latents / SPATIAL_SCALE).split(self.micro_batch_size or len(latents))
        return torch.cat([self.module.decode(part).sample for part in some])


class VideoVAE(nn.Module):
    """The whole autoencoder, `OpenSoraVAE_V1_2` as published.

    Args:
        spatial: for the frames.
        temporal: for their latents.
        shift: mean of each latent channel.
        scale: spread of each latent channel.
        micro_frame_size: frames that the temporal one takes at once; None for all of them.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        spatial: SpatialVAE,
        temporal: TemporalVAE,
        shift: float | Sequence[float],
        scale: float | Sequence[float],
        micro_frame_size: int | None,
    ) -> None:
        super().__init__()
        self.spatial_vae = spatial
        self.temporal_vae = temporal
        self.micro_frame_size = micro_frame_size
        self.register_buffer("scale", _per_channel(scale))
        self.register_buffer("shift", _per_channel(shift))

    def num_latent_frames(self, num_frames: int) -> int:
        """Frames of latents that a clip of so many frames becomes."""
        return sum(self.temporal_vae.num_latent_frames(n) for n in self._pieces(num_frames))

    def normalise(self, latents: Tensor) -> Tensor:
        """From the temporal autoencoder's scale to the denoiser's."""
        return (latents - self.shift) / self.scale

    def encode(self, clips: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Encode clips.

        Args:
            clips: [B, 3, T, H, W] in [-1, 1].
            generator: to draw from the posteriors as the published code does; None for their
                means.

        Returns:
            Latents [B, C, F, H / 8, W / 8] in the denoiser's scale.
        """
        flat = self.spatial_vae.encode(clips.transpose(1, 2).flatten(0, 1), generator)
        planes = flat.unflatten(0, (len(clips), -1)).transpose(1, 2)
        latents = []
        for piece in planes.split(self._pieces(planes.shape[2]), dim=2):
            posterior = self.temporal_vae.encode(piece)
            latents.append(posterior.mean if generator is None else posterior.sample(generator))
        return self.normalise(torch.cat(latents, dim=2))

    def decode(self, latents: Tensor, num_frames: int) -> Tensor:
        """Decode latents in the denoiser's scale.

        Args:
            latents: [B, C, F, h, w].
            num_frames: T of the clip that they stand for.

        Returns:
            [B, 3, T, 8h, 8w], near [-1, 1].
        """
        latents = latents * self.scale + self.shift
        lengths = self._pieces(num_frames)
        parts = latents.split([self.temporal_vae.num_latent_frames(n) for n in lengths], dim=2)
        planes = torch.cat(
            [self.temporal_vae.decode(z, n) for z, n in zip(parts, lengths, strict=True)], dim=2
        )
        flat = self.spatial_vae.decode(planes.transpose(1, 2).flatten(0, 1))
        return flat.unflatten(0, (len(latents), -1)).transpose(1, 2)

    def drop_decoder(self) -> None:
        """Remove what only decoding needs; `decode` fails from then on."""
        del self.temporal_vae.decoder, self.temporal_vae.post_quant_conv
        spatial = self.spatial_vae.module
        del spatial.decoder, spatial.post_quant_conv

    def _pieces(self, num_frames: int) -> list[int]:
        size = self.micro_frame_size or num_frames
        whole, rest = divmod(num_frames, size)
        return [size] * whole + [rest] * (rest > 0)


def _per_channel(values: float | Sequence[float]) -> Tensor:
    constant = torch.tensor(values, dtype=torch.float32)
    return constant[None, :, None, None, None] if constant.ndim else constant
