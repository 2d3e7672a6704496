"""The two ways a photo enters Stable Video Diffusion: image latent and image embedding."""

from __future__ import annotations

import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import (
    AutoencoderKLTemporalDecoder,
)
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import (
    _resize_with_antialiasing,
)
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection

from anti_i2v_lit.surrogates.blocks import recomputed

# The pipeline's own constant: what it resizes photos to before the image encoder.
_CLIP_SIZE = (224, 224)


class LatentEncoder(nn.Module):
    """The encoder half of the autoencoder, with taps as return values.

    Args:
        vae: a loaded autoencoder; only its encoder half is used.
        checkpointing: recompute each resolution in the backward pass instead of storing it.
    """

    def __init__(self, vae: AutoencoderKLTemporalDecoder, checkpointing: bool) -> None:
        super().__init__()
        self.encoder = vae.encoder
        self.quant_conv = vae.quant_conv
        self.checkpointing = checkpointing

    @property
    def tap_names(self) -> tuple[str, ...]:
        """Names of the taps, shallow to deep."""
        downs = (f"encoder.down.{i}" for i in range(len(self.encoder.down_blocks)))
        return ("encoder.conv_in", *downs, "encoder.mid")

    def forward(self, images: Tensor, taps: frozenset[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Encode images.

        Args:
            images: [B, 3, H, W] in [-1, 1] or a little outside, where noise was added.
            taps: names out of `tap_names`.

        Returns:
            Mean of the posterior [B, C, h, w], unscaled, and tap name -> map [B, D, h', w'].
        """
        encoder = self.encoder
        stages = (encoder.conv_in, *encoder.down_blocks, encoder.mid_block)
        features: dict[str, Tensor] = {}
        hidden = images
        for name, stage in zip(self.tap_names, stages, strict=True):
            hidden = recomputed(stage, self.checkpointing, hidden)
            if name in taps:
                features[name] = hidden
        hidden = encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(hidden)))
        return self.quant_conv(hidden).chunk(2, dim=1)[0], features


class ImageEmbedder(nn.Module):
    """The CLIP image encoder behind the pipeline's antialiased resize, differentiable.

    Args:
        image_encoder: loaded CLIP vision model with projection.
        mean: of the encoder's input normalisation, per channel of [0, 1] pixels.
        std: likewise.
        checkpointing: recompute the encoder in the backward pass instead of storing it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        image_encoder: CLIPVisionModelWithProjection,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        checkpointing: bool,
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.checkpointing = checkpointing
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, views: Tensor) -> Tensor:
        """Return the embedding [B, 1, D] of views [B, 3, H, W] in [0, 1], float32."""
        small = _resize_with_antialiasing(2.0 * views - 1.0, _CLIP_SIZE)
        pixels = ((small + 1.0) / 2.0 - self.mean) / self.std
        pixels = pixels.to(self.image_encoder.dtype)
        return recomputed(self._embed, self.checkpointing, pixels)[:, None]

    def _embed(self, pixels: Tensor) -> Tensor:
        return self.image_encoder(pixels).image_embeds
