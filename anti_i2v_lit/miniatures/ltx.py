"""LTX-Video at toy size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from anti_i2v_lit.miniatures.cogvideox import TEXT_WIDTH, tiny_tokenizer

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_ltx import AutoencoderKLLTXVideo
    from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel
    from diffusers.pipelines.ltx.pipeline_ltx_image2video import LTXImageToVideoPipeline

_CHANNELS = 8
_WIDTH = 32


def tiny_ltx(*, timestep_conditioning: bool = False, seed: int = 0) -> LTXImageToVideoPipeline:
    """Build a miniature LTX-Video pipeline: 3 blocks of 2 heads, sizes in multiples of 32 pixels.

    Args:
        timestep_conditioning: whether its decoder takes a timestep, as from LTX-Video 0.9.1 on.
        seed: of the random weights; the global random state is left as it was.
    """
    from diffusers.pipelines.ltx.pipeline_ltx_image2video import LTXImageToVideoPipeline
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
        FlowMatchEulerDiscreteScheduler,
    )

    tokenizer: Any = tiny_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LTXImageToVideoPipeline(
            # The published schedule.
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True,
                base_image_seq_len=1024,
                max_image_seq_len=4096,
                base_shift=0.95,
                max_shift=2.05,
                shift_terminal=0.1,
            ),
            vae=_autoencoder(timestep_conditioning),
            text_encoder=_text_encoder(),
            tokenizer=tokenizer,
            transformer=_transformer(),
        )


def _transformer() -> LTXVideoTransformer3DModel:
    from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel

    return LTXVideoTransformer3DModel(
        in_channels=_CHANNELS,
        out_channels=_CHANNELS,
        num_attention_heads=2,
        attention_head_dim=_WIDTH // 2,
        cross_attention_dim=_WIDTH,
        num_layers=3,
        caption_channels=TEXT_WIDTH,
    ).eval()


def _autoencoder(timestep_conditioning: bool) -> AutoencoderKLLTXVideo:
    from diffusers.models.autoencoders.autoencoder_kl_ltx import AutoencoderKLLTXVideo

    vae = AutoencoderKLLTXVideo(
        latent_channels=_CHANNELS,
        block_out_channels=(16, 16, 16, 16),
        decoder_block_out_channels=(16, 16, 16, 16),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        decoder_inject_noise=(timestep_conditioning,) * 5,
        timestep_conditioning=timestep_conditioning,
    )
    vae.latents_mean.copy_(torch.linspace(-0.3, 0.3, _CHANNELS))
    vae.latents_std.copy_(torch.linspace(0.5, 1.5, _CHANNELS))
    return vae.eval()


def _text_encoder() -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=30,
        d_model=TEXT_WIDTH,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
    )
    return T5EncoderModel(config).eval()
