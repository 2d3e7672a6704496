"""LTX-Video's transformer and encoder as loops over blocks, with taps as return values.

The arithmetic is that of diffusers' `LTXVideoTransformer3DModel.forward` and
`LTXVideoEncoder3d.forward`, in their order; the tests beside them compare the two.
"""

from __future__ import annotations

from typing import Any

from diffusers.models.autoencoders.autoencoder_kl_ltx import AutoencoderKLLTXVideo
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel
from torch import Tensor, nn

from anti_i2v_lit.surrogates.blocks import needed_depth, recomputed

Grid = tuple[int, int, int]
# What the published transformer adds to the attention of a padded token.
_MASKED = -10000.0


class TappedLTXTransformer(nn.Module):
    """The denoiser with its taps; it stops after the deepest block needed.

    Args:
        transformer: a loaded LTX-Video transformer.
        checkpointing: recompute each block in the backward pass instead of storing it, also in
            eval mode and with frozen weights.
    """

    def __init__(self, transformer: LTXVideoTransformer3DModel, checkpointing: bool) -> None:
        super().__init__()
        self.transformer = transformer
        self.checkpointing = checkpointing

    @property
    def tap_names(self) -> tuple[str, ...]:
        """Names of the taps, shallow to deep: one per block."""
        return tuple(f"block.{i}" for i in range(len(self.transformer.transformer_blocks)))

    def forward(
        self,
        tokens: Tensor,
        text: tuple[Tensor, Tensor],
        timesteps: Tensor,
        grid: tuple[Grid, tuple[float, float, float]],
        taps: frozenset[str],
        prediction: bool,
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Run as many blocks as the taps and the prediction need.

        Args:
            tokens: latents as video tokens [B, N, C].
            text: prompt embeddings [B, L, D_text] and mask [B, L], true for words.
            timesteps: [B, N].
            grid: latent frames, rows and columns, and the scale of the rotary positions.
            taps: names out of `tap_names`.
            prediction: whether the output is needed.

        Returns:
            The prediction [B, N, C] or None, and tap name -> video tokens [B, N, D].
        """
        names = self.tap_names
        depth = needed_depth(names, taps, prediction)
        if depth == 0:
            return None, {}
        model, batch = self.transformer, len(tokens)
        rotary = model.rope(tokens, *grid[0], grid[1], None)
        mask = ((1 - text[1].to(tokens.dtype)) * _MASKED)[:, None]
        video = model.proj_in(tokens)
        modulation, embedding = model.time_embed(
            timesteps.flatten(), batch_size=batch, hidden_dtype=video.dtype
        )
        modulation, embedding = (
            modulation.unflatten(0, (batch, -1)),
            embedding.unflatten(0, (batch, -1)),
        )
        words = model.caption_projection(text[0])
        features: dict[str, Tensor] = {}
        for name, block in zip(names[:depth], model.transformer_blocks[:depth], strict=True):
            inputs = (video, words, modulation, rotary, mask)
            video = recomputed(block, self.checkpointing, *inputs)
            if name in taps:
                features[name] = video
        if not prediction:
            return None, features
        shift, scale = (model.scale_shift_table[None, None] + embedding[:, :, None]).unbind(dim=2)
        return model.proj_out(model.norm_out(video) * (1 + scale) + shift), features


class LTXEncoder(nn.Module):
    """The encoder half of the autoencoder: photos and clips to normalised latents.

    Args:
        vae: a loaded autoencoder; its encoder is taken over.
        checkpointing: recompute each resolution in the backward pass instead of storing it.
    """

    latents_mean: Tensor
    latents_std: Tensor

    def __init__(self, vae: AutoencoderKLLTXVideo, checkpointing: bool) -> None:
        super().__init__()
        settings: Any = vae.config
        self.encoder = vae.encoder
        self.checkpointing = checkpointing
        for name, values in (
            ("latents_mean", vae.latents_mean),
            ("latents_std", vae.latents_std / settings.scaling_factor),
        ):
            self.register_buffer(name, values.float().reshape(1, -1, 1, 1, 1), persistent=False)

    @property
    def tap_names(self) -> tuple[str, ...]:
        """Names of the taps, shallow to deep."""
        downs = (f"encoder.down.{i}" for i in range(len(self.encoder.down_blocks)))
        return ("encoder.conv_in", *downs, "encoder.mid")

    def forward(self, clips: Tensor, taps: frozenset[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Encode clips; a photo is a clip of one frame.

        Args:
            clips: [B, 3, frames, H, W] in [-1, 1], 1 plus a multiple of 8 frames.
            taps: names out of `tap_names`.

        Returns:
            Mean of the posterior [B, C, F, h, w], float32, with the model's mean and standard
            deviation of each channel taken out, and tap name -> map [B, D, h', w'] of the first
            frame.
        """
        encoder = self.encoder
        hidden = _patchify(clips, encoder.patch_size, encoder.patch_size_t)
        hidden = hidden.to(encoder.conv_in.conv.weight.dtype)
        stages = (encoder.conv_in, *encoder.down_blocks, encoder.mid_block)
        features: dict[str, Tensor] = {}
        for name, stage in zip(self.tap_names, stages, strict=True):
            hidden = recomputed(stage, self.checkpointing, hidden)
            if name in taps:
                features[name] = hidden[:, :, 0]
        hidden = encoder.norm_out(hidden.movedim(1, -1)).movedim(-1, 1)
        # One more channel follows the mean: the variance that all of them share.
        mean = encoder.conv_out(encoder.conv_act(hidden))[:, :-1].float()
        return (mean - self.latents_mean) / self.latents_std, features


def _patchify(clips: Tensor, side: int, frames: int) -> Tensor:
    """Lay patches into the channels, in the published order: frames, columns, rows."""
    patches = clips.unflatten(4, (-1, side)).unflatten(3, (-1, side)).unflatten(2, (-1, frames))
    return patches.permute(0, 1, 3, 7, 5, 2, 4, 6).flatten(1, 4)
