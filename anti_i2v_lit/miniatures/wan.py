"""Wan image-to-video pipelines at toy size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from anti_i2v_lit.miniatures.cogvideox import TEXT_WIDTH, tiny_tokenizer

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
    from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline

_CHANNELS = 4
_CLIP_PIXELS = 32


def tiny_wan_2_2(*, seed: int = 0) -> WanImageToVideoPipeline:
    """Build a miniature with the switches of Wan2.2-TI2V-5B: 3 blocks of 2 heads.

    Pixels per latent row and column: 16, video frames per latent frame: 4, sizes: multiples of
    32 pixels.

    Args:
        seed: of the random weights; the global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = _transformer(in_channels=_CHANNELS)
        vae = _autoencoder(
            is_residual=True, in_channels=12, out_channels=12, patch_size=2, scale_factor_spatial=16
        )
        return _pipeline(transformer, vae, flow_shift=5.0, expand_timesteps=True)


def tiny_wan_2_1(*, seed: int = 0) -> WanImageToVideoPipeline:
    """Build a miniature with the switches of Wan2.1-I2V-14B-480P: 3 blocks of 2 heads.

    Pixels per latent row and column: 8, video frames per latent frame: 4, sizes: multiples of 16
    pixels, CLIP input: 32 pixels.

    Args:
        seed: of the random weights; the global random state is left as it was.
    """
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=_CLIP_PIXELS,
        patch_size=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = _transformer(
            in_channels=2 * _CHANNELS + 4,
            image_dim=vision.hidden_size,
            added_kv_proj_dim=32,
        )
        return _pipeline(
            transformer,
            _autoencoder(),
            flow_shift=3.0,
            image_encoder=CLIPVisionModel(vision).eval(),
            image_processor=CLIPImageProcessor(
                size={"shortest_edge": _CLIP_PIXELS},
                crop_size={"height": _CLIP_PIXELS, "width": _CLIP_PIXELS},
            ),
        )


def _pipeline(
    transformer: WanTransformer3DModel, vae: AutoencoderKLWan, flow_shift: float, **parts: Any
) -> WanImageToVideoPipeline:
    from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline
    from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

    tokenizer: Any = tiny_tokenizer()
    return WanImageToVideoPipeline(
        tokenizer=tokenizer,
        text_encoder=_text_encoder(),
        vae=vae,
        transformer=transformer,
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=flow_shift
        ),
        **parts,
    )


def _transformer(**switches: Any) -> WanTransformer3DModel:
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        out_channels=_CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=16,
        ffn_dim=32,
        num_layers=3,
        rope_max_seq_len=32,
        **switches,
    ).eval()


def _autoencoder(**switches: Any) -> AutoencoderKLWan:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    return AutoencoderKLWan(
        base_dim=8,
        z_dim=_CHANNELS,
        num_res_blocks=1,
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[0.5, 0.8, 1.25, 0.7],
        **switches,
    ).eval()


def _text_encoder() -> Any:
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
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
    return UMT5EncoderModel(config).eval()
