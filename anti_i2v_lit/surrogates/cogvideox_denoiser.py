"""CogVideoX's transformer as a loop over blocks that stops after the deepest one needed.

The arithmetic is that of diffusers' `CogVideoXTransformer3DModel.forward`, in its order; the test
beside it compares the two. Taps are return values, so that no exception or hook has to end a
forward pass early, which a sharded model would not survive.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from torch import Tensor, nn

from anti_i2v_lit.surrogates.blocks import needed_depth, recomputed

Rotary = tuple[Tensor, Tensor]
# The pipeline feeds this constant to the offset embedding of CogVideoX1.5.
_OFFSET = 2.0


def keep_learned_positions(
    transformer: CogVideoXTransformer3DModel, num_latent_frames: int
) -> None:
    """Let a model with learned positions take shorter clips at those of its first frames.

    Without this, diffusers gives such clips sinusoidal positions, which CogVideoX-5B-I2V never
    saw; the first frames of an attacker's clip have the learned ones. Models with other
    positions, and clips that are not shorter, are left as they are.

    Args:
        transformer: changed in place.
        num_latent_frames: of the clips to come.
    """
    embed: Any = transformer.patch_embed
    ratio = embed.temporal_compression_ratio
    learned = (embed.sample_frames - 1) // ratio + 1
    if not embed.use_learned_positional_embeddings or num_latent_frames >= learned:
        return
    per_frame = (embed.sample_height // embed.patch_size) * (embed.sample_width // embed.patch_size)
    end = embed.max_text_seq_length + num_latent_frames * per_frame
    embed.pos_embedding = embed.pos_embedding[:, :end].clone()
    embed.sample_frames = (num_latent_frames - 1) * ratio + 1


class TappedTransformer(nn.Module):
    """The denoiser with its taps.

    Args:
        transformer: a loaded CogVideoX transformer.
        alphas_cumprod: squared alpha of every timestep [T] of the model's schedule.
        checkpointing: recompute each block in the backward pass instead of storing it, also in
            eval mode and with frozen weights.
    """

    alphas_cumprod: Tensor

    def __init__(
        self,
        transformer: CogVideoXTransformer3DModel,
        alphas_cumprod: Tensor,
        checkpointing: bool,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.checkpointing = checkpointing
        blocks = range(len(transformer.transformer_blocks))
        self._tap_names = tuple(f"block.{i}" for i in blocks)
        self.register_buffer("alphas_cumprod", alphas_cumprod.float(), persistent=False)

    @property
    def tap_names(self) -> tuple[str, ...]:
        """Names of the taps, shallow to deep: one per block."""
        return self._tap_names

    def truncate(self, taps: frozenset[str]) -> None:
        """Give up the prediction and every block after the deepest of these taps."""
        depth = needed_depth(self.tap_names, taps, prediction=False)
        model: Any = self.transformer
        del model.transformer_blocks[depth:]
        del model.norm_final, model.norm_out, model.proj_out

    def forward(
        self,
        latents: Tensor,
        text: Tensor,
        timesteps: Tensor,
        rotary: Rotary | None,
        taps: frozenset[str],
        prediction: bool,
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Run as many blocks as the taps and the prediction need.

        Args:
            latents: noisy latents and image latents joined on channels [B, F, 2C, h, w].
            text: prompt embeddings [B, L, D_text].
            timesteps: integers [B].
            rotary: cosine and sine of the rotary positions, if the model uses them.
            taps: names out of `tap_names`.
            prediction: whether the output is needed.

        Returns:
            The prediction [B, F, C, h, w] or None, and tap name -> video tokens [B, N, D].
        """
        names = self.tap_names
        depth = needed_depth(names, taps, prediction)
        if depth == 0:
            return None, {}
        model = self.transformer
        embedding = self._time_embedding(latents, timesteps)
        tokens = model.embedding_dropout(model.patch_embed(text, latents))
        words, video = tokens[:, : text.shape[1]], tokens[:, text.shape[1] :]
        features: dict[str, Tensor] = {}
        for name, block in zip(names[:depth], model.transformer_blocks[:depth], strict=True):
            inputs = (video, words, embedding, rotary)
            video, words = recomputed(block, self.checkpointing, *inputs)
            if name in taps:
                features[name] = video
        if not prediction:
            return None, features
        output = model.norm_out(model.norm_final(video), temb=embedding)
        return self._unpatchify(model.proj_out(output), latents.shape), features

    def _time_embedding(self, latents: Tensor, timesteps: Tensor) -> Tensor:
        model = self.transformer
        embedding = model.time_embedding(model.time_proj(timesteps).to(latents.dtype))
        if model.ofs_proj is None or model.ofs_embedding is None:
            return embedding
        offset = model.ofs_proj(latents.new_full((1,), _OFFSET)).to(latents.dtype)
        return embedding + model.ofs_embedding(offset)

    def _unpatchify(self, output: Tensor, shape: torch.Size) -> Tensor:
        batch, frames, _, height, width = shape
        settings: Any = self.transformer.config
        p, p_t = settings.patch_size, settings.patch_size_t
        if p_t is None:
            grid = output.reshape(batch, frames, height // p, width // p, -1, p, p)
            return grid.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)
        grid = output.reshape(batch, frames // p_t, height // p, width // p, -1, p_t, p, p)
        grid = grid.permute(0, 1, 5, 4, 2, 6, 3, 7)
        return grid.flatten(6, 7).flatten(4, 5).flatten(1, 2)
