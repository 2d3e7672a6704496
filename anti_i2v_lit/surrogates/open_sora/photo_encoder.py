"""Photos as one latent frame, with the encoders' inner features as return values."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from anti_i2v_lit.surrogates.blocks import recomputed
from anti_i2v_lit.surrogates.open_sora.video_vae import SPATIAL_SCALE, VideoVAE


class PhotoEncoder(nn.Module):
    """The encoder half of a `VideoVAE`.

    A photo is a clip of one frame: the temporal autoencoder puts zeros before it up to four
    frames. Its taps are the photo's own frame, the last one.

    Args:
        vae: a loaded autoencoder, with or without its decoder.
        checkpointing: recompute each stage in the backward pass instead of storing it.
    """

    def __init__(self, vae: VideoVAE, checkpointing: bool) -> None:
        super().__init__()
        self.vae = vae
        self.checkpointing = checkpointing

    @property
    def tap_names(self) -> tuple[str, ...]:
        """Names of the taps, shallow to deep."""
        levels = range(len(self.vae.spatial_vae.module.encoder.down_blocks))
        spatial = ("conv_in", *(f"down.{i}" for i in levels), "mid")
        temporal = self.vae.temporal_vae.encoder.stage_names
        return (*(f"spatial.{n}" for n in spatial), *(f"temporal.{n}" for n in temporal))

    def forward(self, photos: Tensor, taps: frozenset[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Encode photos.

        Args:
            photos: [B, 3, H, W] in [-1, 1].
            taps: names out of `tap_names`.

        Returns:
            Mean of the posterior [B, C, h, w] in the denoiser's scale, and tap name -> map
            [B, D, h', w'].
        """
        features: dict[str, Tensor] = {}
        plane = self._spatial(photos, features)
        mean = self._temporal(plane, features)
        return mean, {name: features[name] for name in self.tap_names if name in taps}

    def encode_clips(self, clips: Tensor) -> Tensor:
        """Return the latents [B, C, F, h, w] of clips [B, 3, T, H, W] in [-1, 1]."""
        return self.vae.encode(clips)

    def _spatial(self, photos: Tensor, features: dict[str, Tensor]) -> Tensor:
        """2D latents [B, C, h, w], scaled."""
        module = self.vae.spatial_vae.module
        encoder = module.encoder
        downs = ((f"down.{i}", block) for i, block in enumerate(encoder.down_blocks))
        hidden = photos
        for name, stage in (("conv_in", encoder.conv_in), *downs, ("mid", encoder.mid_block)):
            hidden = features[f"spatial.{name}"] = recomputed(stage, self.checkpointing, hidden)
        moments = encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(hidden)))
        if module.quant_conv is not None:
            moments = module.quant_conv(moments)
        return SPATIAL_SCALE * moments.chunk(2, dim=1)[0]

    def _temporal(self, plane: Tensor, features: dict[str, Tensor]) -> Tensor:
        """Latents [B, C, h, w] in the denoiser's scale."""
        temporal = self.vae.temporal_vae
        hidden = temporal.padded(plane[:, :, None])
        for name in temporal.encoder.stage_names:
            stage = partial(temporal.encoder.stage, name)
            hidden = recomputed(stage, self.checkpointing, hidden)
            features[f"temporal.{name}"] = hidden[:, :, -1]
        mean = temporal.posterior(temporal.encoder.finish(hidden)).mean
        return self.vae.normalise(mean)[:, :, -1]
