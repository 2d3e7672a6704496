"""Stable Video Diffusion at full size with random weights."""

from __future__ import annotations

from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import (
    AutoencoderKLTemporalDecoder,
)
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from anti_i2v_lit.bench.published.base import Size, made_in_place, no_block_count, settle
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.surrogates.svd import SVDSurrogate, SVDSurrogateConfig
from anti_i2v_lit.surrogates.svd_loading import SVDParts


def svd_xt(size: Size) -> Surrogate:
    """stabilityai/stable-video-diffusion-img2vid-xt; its U-Net is diffusers' default."""
    no_block_count(size, "Stable Video Diffusion")
    vision = CLIPVisionConfig(
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=16,
        image_size=224,
        patch_size=14,
        projection_dim=1024,
        hidden_act="gelu",
    )
    with made_in_place(size):
        unet = UNetSpatioTemporalConditionModel(num_attention_heads=(5, 10, 20, 20))
        vae = AutoencoderKLTemporalDecoder(
            down_block_types=("DownEncoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            sample_size=768,
        )
        image_encoder = CLIPVisionModelWithProjection(vision)
    settle(size.dtype, unet, vae, image_encoder)
    processor = CLIPImageProcessor()
    config = SVDSurrogateConfig(
        num_frames=size.num_frames or 14,
        height=size.height or 576,
        width=size.width or 1024,
        activation_checkpointing=size.activation_checkpointing,
    )
    parts = SVDParts(
        unet=unet,
        vae=vae,
        image_encoder=image_encoder,
        image_mean=tuple(processor.image_mean),
        image_std=tuple(processor.image_std),
    )
    return SVDSurrogate(config, parts)
