"""The denoiser of the embedded surrogate: a small CogVideoX image-to-video transformer."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from torch import Tensor

from anti_i2v_lit.surrogates.embedded.text import TEXT_LENGTH, TEXT_WIDTH

# A CogVideoXTransformer3DModel. Diffusers builds its classes in a way that hides their base
# classes, and with them every attribute, from type checkers.
Transformer = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenoiserShape:
    """Sizes of the transformer."""

    heads: int = 4  # attention heads
    head_dim: int = 64  # channels of a head
    layers: int = 8  # blocks
    time_dim: int = 24  # channels of the timestep embedding
    latent_channels: int = 16  # channels of a latent
    latent_size: int = 16  # height and width of a latent, positions
    frames: int = 5  # frames of a clip
    patch: int = 2  # side of a token's patch, latent positions

    def __post_init__(self) -> None:
        """Refuse sizes that do not tile."""
        if self.head_dim % 8 or self.latent_size % self.patch:
            raise ValueError(
                f"head_dim={self.head_dim}, latent_size={self.latent_size}, patch={self.patch} "
                "arrived; expected head_dim a multiple of 8 and latent_size one of patch; round."
            )
        if min(self.heads, self.layers, self.time_dim, self.frames) < 1:
            raise ValueError(f"{self} arrived; expected counts of 1 or more; raise them.")


def build_denoiser(shape: DenoiserShape) -> Transformer:
    """A fresh transformer, built as CogVideoX-5B-I2V is: v-prediction, two kinds of positions."""
    return CogVideoXTransformer3DModel(
        num_attention_heads=shape.heads,
        attention_head_dim=shape.head_dim,
        in_channels=2 * shape.latent_channels,
        out_channels=shape.latent_channels,
        time_embed_dim=shape.time_dim,
        text_embed_dim=TEXT_WIDTH,
        num_layers=shape.layers,
        sample_width=shape.latent_size,
        sample_height=shape.latent_size,
        sample_frames=shape.frames,
        patch_size=shape.patch,
        temporal_compression_ratio=1,
        max_text_seq_length=TEXT_LENGTH,
        spatial_interpolation_scale=1.0,
        temporal_interpolation_scale=1.0,
        use_rotary_positional_embeddings=True,
        use_learned_positional_embeddings=True,
    )


def build_scheduler() -> CogVideoXDDIMScheduler:
    """The noise schedule of CogVideoX-5B-I2V."""
    return CogVideoXDDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        set_alpha_to_one=True,
        snr_shift_scale=1.0,
        timestep_spacing="trailing",
    )


def rotary_tables(shape: DenoiserShape) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each ``[tokens, head_dim]``, as the CogVideoX pipeline makes them."""
    side = shape.latent_size // shape.patch
    cosines, sines = get_3d_rotary_pos_embed(
        embed_dim=shape.head_dim,
        crops_coords=((0, 0), (side, side)),
        grid_size=(side, side),
        temporal_size=shape.frames,
        device=torch.device("cpu"),
    )
    return cosines, sines
