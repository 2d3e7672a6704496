"""CogVideoX at toy size: both generations, and the tokenizer that other miniatures share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
    from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
    from diffusers.pipelines.cogvideo.pipeline_cogvideox_image2video import (
        CogVideoXImageToVideoPipeline,
    )
    from transformers import T5EncoderModel, T5Tokenizer

TEXT_TOKENS = 32
TEXT_WIDTH = 16
LATENT_CHANNELS = 4
VIEW_PIXELS = 32


def tiny_cogvideox(
    generation: Literal["1.0", "1.5", "2B"] = "1.0",
    *,
    temporal_ratio: int = 4,
    num_frames: int = 5,
    seed: int = 0,
) -> CogVideoXImageToVideoPipeline:
    """Build a miniature CogVideoX pipeline: 3 blocks of 2 heads, 32x32 px views.

    Args:
        generation: "1.0" has the switches of CogVideoX-5B-I2V (learned and rotary positions);
            "1.5" those of CogVideoX1.5-5B-I2V (`patch_size_t` 2, `ofs`, inverted latent scale,
            rotary positions only); "2B" those of CogVideoX-2B (sinusoidal positions only) with
            room for the image latent, as in image-to-video models that were tuned from it.
        temporal_ratio: video frames per latent frame after the first; 4 as published, 1 as in
            the packaged model.
        num_frames: length of its clips in video frames.
        seed: of the random weights; the global random state is left as it was.
    """
    from diffusers.pipelines.cogvideo.pipeline_cogvideox_image2video import (
        CogVideoXImageToVideoPipeline,
    )
    from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = _transformer(generation, temporal_ratio, num_frames)
        vae = _autoencoder(generation, temporal_ratio)
        text_encoder = _text_encoder()
    # The published schedule of CogVideoX: v-prediction with zero terminal signal-to-noise ratio.
    scheduler = CogVideoXDDIMScheduler(
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=1.0,
        timestep_spacing="trailing",
    )
    return CogVideoXImageToVideoPipeline(
        tokenizer=tiny_tokenizer(),
        text_encoder=text_encoder,
        vae=vae,
        transformer=transformer,
        scheduler=scheduler,
    )


def tiny_tokenizer() -> T5Tokenizer:
    """A T5 tokenizer over single letters, made in code."""
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    return T5Tokenizer(vocab=pieces, extra_ids=0)


def _transformer(
    generation: str, temporal_ratio: int, num_frames: int
) -> CogVideoXTransformer3DModel:
    from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel

    newer = generation == "1.5"
    return CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=2 * LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        time_embed_dim=16,
        ofs_embed_dim=16 if newer else None,
        text_embed_dim=TEXT_WIDTH,
        num_layers=3,
        sample_width=VIEW_PIXELS // 8,
        sample_height=VIEW_PIXELS // 8,
        sample_frames=num_frames,
        patch_size=2,
        patch_size_t=2 if newer else None,
        patch_bias=not newer,
        temporal_compression_ratio=temporal_ratio,
        max_text_seq_length=TEXT_TOKENS,
        spatial_interpolation_scale=1.0,
        use_rotary_positional_embeddings=generation != "2B",
        use_learned_positional_embeddings=generation == "1.0",
    ).eval()


def _autoencoder(generation: str, temporal_ratio: int) -> AutoencoderKLCogVideoX:
    from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX

    return AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 16),
        latent_channels=LATENT_CHANNELS,
        layers_per_block=1,
        norm_num_groups=4,
        temporal_compression_ratio=temporal_ratio,
        sample_height=VIEW_PIXELS,
        sample_width=VIEW_PIXELS,
        scaling_factor=0.7,
        invert_scale_latents=generation == "1.5",
    ).eval()


def _text_encoder() -> T5EncoderModel:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=30,
        d_model=TEXT_WIDTH,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
    )
    return T5EncoderModel(config).eval()
