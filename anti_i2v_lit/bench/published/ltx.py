"""LTX-Video at full size with random weights."""

from __future__ import annotations

from diffusers.models.autoencoders.autoencoder_kl_ltx import AutoencoderKLLTXVideo
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)

from anti_i2v_lit.bench.published.base import Size, made_in_place, random_prompts, settle
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.surrogates.ltx import LTXParts, LTXSurrogate, LTXSurrogateConfig


def ltx_2b(size: Size) -> Surrogate:
    """Lightricks/LTX-Video, the 2B model; both networks are diffusers' defaults."""
    with made_in_place(size):
        transformer = LTXVideoTransformer3DModel(num_layers=size.num_blocks or 28)
        vae = AutoencoderKLLTXVideo()
    settle(size.dtype, transformer, vae)
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_image_seq_len=1024,
        max_image_seq_len=4096,
        base_shift=0.95,
        max_shift=2.05,
        shift_terminal=0.1,
    )
    config = LTXSurrogateConfig(
        num_frames=size.num_frames,
        height=size.height,
        width=size.width,
        activation_checkpointing=size.activation_checkpointing,
    )
    parts = LTXParts(
        transformer=transformer,
        vae=vae,
        schedule=dict(scheduler.config),
        prompts=random_prompts(4097, 128, size.dtype, marked=True),
    )
    return LTXSurrogate(config, parts)
