"""Wan's transformer as a loop over blocks that stops after the deepest one needed.

The arithmetic is that of diffusers' `WanTransformer3DModel.forward`, in its order; the test
beside it compares the two. Taps are return values: no hook and no exception ends a forward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor, nn

from anti_i2v_lit.surrogates.blocks import needed_depth, recomputed


class TappedWanTransformer(nn.Module):
    """The denoiser with its taps.

    Args:
        transformer: a loaded Wan transformer.
        checkpointing: recompute each block in the backward pass instead of storing it, also in
            eval mode and with frozen weights.
    """

    def __init__(self, transformer: WanTransformer3DModel, checkpointing: bool) -> None:
        super().__init__()
        self.transformer = transformer
        self.checkpointing = checkpointing

    @property
    def tap_names(self) -> tuple[str, ...]:
        """Names of the taps, shallow to deep: one per block."""
        return tuple(f"block.{i}" for i in range(len(self.transformer.blocks)))

    def forward(
        self,
        latents: Tensor,
        text: Tensor,
        image: Tensor | None,
        timesteps: Tensor,
        taps: frozenset[str],
        prediction: bool,
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Run as many blocks as the taps and the prediction need.

        Args:
            latents: all input channels [B, C, F, h, w].
            text: prompt embeddings [B, L, D_text].
            image: image embeddings [B, M, D_image] of models that take them, else None.
            timesteps: [B], or [B, N] with one per video token.
            taps: names out of `tap_names`.
            prediction: whether the output is needed.

        Returns:
            The prediction [B, C_out, F, h, w] or None, and tap name -> video tokens [B, N, D].
        """
        names = self.tap_names
        depth = needed_depth(names, taps, prediction)
        if depth == 0:
            return None, {}
        model = self.transformer
        rotary = model.rope(latents)
        embedding, modulation, context = self._embed(timesteps, text, image)
        video = model.patch_embedding(latents).flatten(2).transpose(1, 2).contiguous()
        features: dict[str, Tensor] = {}
        for name, block in zip(names[:depth], model.blocks[:depth], strict=True):
            video = recomputed(block, self.checkpointing, video, context, modulation, rotary)
            if name in taps:
                features[name] = video
        if not prediction:
            return None, features
        return self._project(video, embedding, latents.shape), features

    def _embed(
        self, timesteps: Tensor, text: Tensor, image: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Time embedding, its six modulations, and image and text tokens to attend to."""
        per_token = timesteps.ndim == 2
        embedding, modulation, words, picture = self.transformer.condition_embedder(
            timesteps.flatten(), text, image, timesteps.shape[1] if per_token else None
        )
        modulation = modulation.unflatten(2 if per_token else 1, (6, -1))
        context = words if picture is None else torch.cat([picture, words], dim=1)
        return embedding, modulation, context

    def _project(self, video: Tensor, embedding: Tensor, shape: torch.Size) -> Tensor:
        model = self.transformer
        table = model.scale_shift_table
        if embedding.ndim == 3:
            shift, scale = (table[None] + embedding[:, :, None]).chunk(2, dim=2)
            shift, scale = shift[:, :, 0], scale[:, :, 0]
        else:
            shift, scale = (table + embedding[:, None]).chunk(2, dim=1)
        video = (model.norm_out(video.float()) * (1 + scale) + shift).type_as(video)
        batch, _, frames, height, width = shape
        settings: Any = model.config
        p_t, p_h, p_w = settings.patch_size
        grid = model.proj_out(video).reshape(
            batch, frames // p_t, height // p_h, width // p_w, p_t, p_h, p_w, -1
        )
        return grid.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)
