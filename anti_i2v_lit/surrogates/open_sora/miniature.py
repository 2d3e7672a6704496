"""Open-Sora 1.2 at toy size with seeded random weights, and its folder in the published layout."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import save_file
from torch import nn
from transformers import T5Config, T5EncoderModel

from anti_i2v_lit.checkpoints import quiet_loading
from anti_i2v_lit.miniatures import TEXT_WIDTH, tiny_tokenizer
from anti_i2v_lit.surrogates.open_sora.captions import MaskedTextEncoder
from anti_i2v_lit.surrogates.open_sora.loading import AUTOENCODER, DENOISER, OpenSoraParts
from anti_i2v_lit.surrogates.open_sora.stdit3 import STDiT3
from anti_i2v_lit.surrogates.open_sora.temporal_vae import TemporalVAE
from anti_i2v_lit.surrogates.open_sora.video_vae import SpatialVAE, VideoVAE
from anti_i2v_lit.surrogates.prompts import PromptEmbedder, TextModel

MAX_WORDS = 48
_STDIT3 = {
    "depth": 3,
    "hidden_size": 32,
    "num_heads": 2,
    "caption_channels": TEXT_WIDTH,
    "model_max_length": MAX_WORDS,
    "in_channels": 4,
    "patch_size": [1, 2, 2],
    "input_sq_size": 512,
    "qk_norm": True,
    "pred_sigma": True,
}
_PLANE = {
    "block_out_channels": [8, 8, 8, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": 32,
}
_TEMPORAL = {"filters": 8, "num_groups": 4, "num_res_blocks": 1}
_PIPELINE = {
    # The published constants are for published latents; those of random weights are smaller.
    "shift": [-0.2, 0.01, -0.3, -0.1],
    "scale": [0.5, 0.4, 0.45, 0.5],
    "micro_frame_size": 17,
}


def tiny_parts(seed: int = 1) -> OpenSoraParts:
    """Build a miniature: 3 pairs of blocks of 2 heads, the published autoencoder's structure.

    Args:
        seed: of the random weights; the global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        plane: Any = AutoencoderKL.from_config(_PLANE)
        temporal: dict[str, Any] = dict(_TEMPORAL)
        settings: dict[str, Any] = dict(_STDIT3)
        pipeline: dict[str, Any] = dict(_PIPELINE)
        vae = VideoVAE(SpatialVAE(plane, 4), TemporalVAE(**temporal), **pipeline)
        denoiser = STDiT3(**settings)
    return OpenSoraParts(
        denoiser=denoiser.eval(),
        vae=vae.eval(),
        prompts=PromptEmbedder(partial(tiny_text_model, seed), MAX_WORDS, torch.float32),
    )


def tiny_text_model(seed: int = 1) -> TextModel:
    """The miniature's tokenizer and masking T5 encoder; arguments as in `tiny_parts`."""
    masked: Any = MaskedTextEncoder(_text_encoder(seed))
    return tiny_tokenizer(), masked


def save_tiny(folder: Path, seed: int = 1) -> None:
    """Write the miniature as its authors publish the model; see `loading` for the layout.

    Args:
        folder: made if absent.
        seed: as in `tiny_parts`.
    """
    parts = tiny_parts(seed)
    _save(folder / DENOISER, parts.denoiser, {**_STDIT3, "model_type": "STDiT3"})
    plane = {
        "type": "VideoAutoencoderKL",
        "from_pretrained": "PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers",
        "subfolder": "vae",
        "micro_batch_size": 4,
    }
    temporal = {"type": "VAE_Temporal", "from_pretrained": None, **_TEMPORAL}
    config = {"model_type": "VideoAutoencoderPipeline", "vae_2d": plane, "vae_temporal": temporal}
    _save(folder / AUTOENCODER, parts.vae, {**config, **_PIPELINE})
    (folder / "vae").mkdir()
    (folder / "vae" / "config.json").write_text(json.dumps(_PLANE), encoding="utf-8")
    tiny_tokenizer().save_pretrained(folder / "tokenizer")
    with quiet_loading():
        _text_encoder(seed).save_pretrained(folder / "text_encoder")


def _save(folder: Path, module: nn.Module, config: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    state = {name: value.contiguous() for name, value in module.state_dict().items()}
    save_file(state, folder / "model.safetensors")


def _text_encoder(seed: int) -> T5EncoderModel:
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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return T5EncoderModel(config).eval()
