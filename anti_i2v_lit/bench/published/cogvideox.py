"""CogVideoX image-to-video models at full size with random weights."""

from __future__ import annotations

from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler

from anti_i2v_lit.bench.published.base import Size, made_in_place, random_prompts, settle
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.surrogates.cogvideox import CogVideoXSurrogate, CogVideoXSurrogateConfig
from anti_i2v_lit.surrogates.cogvideox_loading import CogVideoXParts


def _cogvideox(size: Size, newer: bool) -> Surrogate:
    with made_in_place(size):
        transformer = CogVideoXTransformer3DModel(
            num_attention_heads=48,
            attention_head_dim=64,
            in_channels=32,
            out_channels=16,
            num_layers=size.num_blocks or 42,
            sample_width=300 if newer else (size.width or 720) // 8,
            sample_height=300 if newer else (size.height or 480) // 8,
            sample_frames=81 if newer else 49,
            patch_size=2,
            patch_size_t=2 if newer else None,
            patch_bias=not newer,
            ofs_embed_dim=512 if newer else None,
            max_text_seq_length=226,
            text_embed_dim=4096,
            spatial_interpolation_scale=1.875,
            use_rotary_positional_embeddings=True,
            use_learned_positional_embeddings=not newer,
        )
        vae = AutoencoderKLCogVideoX(
            block_out_channels=(128, 256, 256, 512),
            down_block_types=("CogVideoXDownBlock3D",) * 4,
            up_block_types=("CogVideoXUpBlock3D",) * 4,
            latent_channels=16,
            layers_per_block=3,
            scaling_factor=0.7,
            invert_scale_latents=newer,
        )
    settle(size.dtype, transformer, vae)
    scheduler = CogVideoXDDIMScheduler(
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=1.0,
        timestep_spacing="trailing",
    )
    config = CogVideoXSurrogateConfig(
        num_frames=size.num_frames or 4,
        height=size.height or (768 if newer else 480),
        width=size.width or (1360 if newer else 720),
        activation_checkpointing=size.activation_checkpointing,
    )
    prompts = random_prompts(4096, 226, size.dtype)
    parts = CogVideoXParts(transformer=transformer, vae=vae, scheduler=scheduler, prompts=prompts)
    return CogVideoXSurrogate(config, parts)


def cogvideox_5b(size: Size) -> Surrogate:
    """CogVideoX-5B-I2V (zai-org/CogVideoX-5b-I2V)."""
    return _cogvideox(size, newer=False)


def cogvideox_1_5_5b(size: Size) -> Surrogate:
    """CogVideoX1.5-5B-I2V (zai-org/CogVideoX1.5-5B-I2V)."""
    return _cogvideox(size, newer=True)
