"""Wan image-to-video models at full size with random weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

from anti_i2v_lit.bench.published.base import Size, made_in_place, random_prompts, settle
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.surrogates.wan import Wan21Surrogate, Wan22Surrogate, WanSurrogateConfig
from anti_i2v_lit.surrogates.wan_loading import MAX_TOKENS, WanParts


def wan_2_2_5b(size: Size) -> Surrogate:
    """Wan2.2-TI2V-5B (Wan-AI/Wan2.2-TI2V-5B-Diffusers)."""
    transformer = _transformer(
        size, 30, num_attention_heads=24, ffn_dim=14336, in_channels=48, out_channels=48
    )
    vae = _autoencoder(
        size,
        base_dim=160,
        decoder_base_dim=256,
        z_dim=48,
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
        latents_mean=[0.0] * 48,
        latents_std=[1.0] * 48,
    )
    return Wan22Surrogate(_config(size), _parts(size, transformer, vae, 5.0, True))


def wan_2_1_14b(size: Size) -> Surrogate:
    """Wan2.1-I2V-14B-480P (Wan-AI/Wan2.1-I2V-14B-480P-Diffusers)."""
    transformer = _transformer(
        size,
        40,
        num_attention_heads=40,
        ffn_dim=13824,
        in_channels=36,
        out_channels=16,
        image_dim=1280,
        added_kv_proj_dim=5120,
    )
    vision = CLIPVisionConfig(
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=16,
        image_size=224,
        patch_size=14,
        hidden_act="gelu",
    )
    with made_in_place(_encoding(size)):
        image_encoder = CLIPVisionModel(vision)
    parts = _parts(size, transformer, _autoencoder(size), 3.0, False)
    return Wan21Surrogate(
        _config(size),
        replace(parts, image_encoder=image_encoder, image_processor=CLIPImageProcessor()),
    )


def _encoding(size: Size) -> Size:
    """The encoders stay in float32, as the model cards run them."""
    return replace(size, dtype=torch.float32)


def _transformer(size: Size, num_blocks: int, **switches: Any) -> WanTransformer3DModel:
    with made_in_place(size):
        transformer = WanTransformer3DModel(
            attention_head_dim=128,
            text_dim=4096,
            freq_dim=256,
            num_layers=size.num_blocks or num_blocks,
            **switches,
        )
    settle(size.dtype, transformer)
    return transformer


def _autoencoder(size: Size, **switches: Any) -> AutoencoderKLWan:
    with made_in_place(_encoding(size)):
        return AutoencoderKLWan(**switches)


def _config(size: Size) -> WanSurrogateConfig:
    return WanSurrogateConfig(
        num_frames=size.num_frames,
        height=size.height,
        width=size.width,
        activation_checkpointing=size.activation_checkpointing,
    )


def _parts(
    size: Size,
    transformer: WanTransformer3DModel,
    vae: AutoencoderKLWan,
    flow_shift: float,
    expand_timesteps: bool,
) -> WanParts:
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=flow_shift
    )
    return WanParts(
        transformer=transformer,
        vae=vae,
        schedule=dict(scheduler.config),
        prompts=random_prompts(4096, MAX_TOKENS, size.dtype),
        expand_timesteps=expand_timesteps,
    )
