"""From a diffusers folder of Wan's image-to-video models to the parts of a surrogate."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline, prompt_clean
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPVisionModel, UMT5EncoderModel

from anti_i2v_lit.checkpoints import Layout, checkpoint_folder, quiet_loading
from anti_i2v_lit.surrogates.encoder_loading import load_without_decoder
from anti_i2v_lit.surrogates.image_tower import load_image_tower
from anti_i2v_lit.surrogates.masked_text import ZeroPadded
from anti_i2v_lit.surrogates.prompts import PromptEmbedder, Prompting, text_model_key

# The pipeline's own; the attention of Wan2.1 counts image tokens as all before the last 512.
MAX_TOKENS = 512


@dataclass(frozen=True, kw_only=True)
class WanParts:
    """What a surrogate needs of a pipeline, in memory.

    Attributes:
        transformer: the denoiser.
        vae: the autoencoder; the surrogate takes its encoder.
        schedule: configuration of the scheduler.
        prompts: texts to embeddings.
        expand_timesteps: whether the photo is given as the first latent frame, at timestep 0.
        image_encoder: CLIP's image tower, of models that look at the photo through it.
        image_processor: its preprocessing.
    """

    transformer: WanTransformer3DModel
    vae: AutoencoderKLWan
    schedule: Mapping[str, Any]
    prompts: PromptEmbedder
    expand_timesteps: bool
    image_encoder: CLIPVisionModel | None = None
    image_processor: CLIPImageProcessor | None = None


def load_parts(
    path: str,
    layout: Layout,
    dtype: torch.dtype,
    encoder_dtype: torch.dtype,
    prompting: Prompting,
) -> WanParts:
    """Load the networks straight in their precision; the autoencoder without its decoder.

    Args:
        path: a local folder.
        layout: what the folder should hold.
        dtype: of the transformer and of prompt embeddings.
        encoder_dtype: of the autoencoder and of the image encoder.
        prompting: how texts are embedded; those it names are, before the transformer is loaded.

    Raises:
        ValueError: no such folder, or a file is missing.
    """
    folder = checkpoint_folder(path, layout)
    index = json.loads((folder / "model_index.json").read_text())
    schedule = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    embedder = _embedder_of(folder, dtype, prompting)
    embedder.prepare([prompt_clean(text) for text in prompting.texts])
    image_encoder = image_processor = None
    with quiet_loading():
        transformer = WanTransformer3DModel.from_pretrained(
            folder, subfolder="transformer", torch_dtype=dtype, local_files_only=True
        )
        vae = load_without_decoder(AutoencoderKLWan, folder / "vae", encoder_dtype)
        if (folder / "image_encoder").is_dir():
            image_encoder = load_image_tower(
                CLIPVisionModel, folder / "image_encoder", encoder_dtype
            )
            image_processor = CLIPImageProcessor.from_pretrained(
                folder / "image_processor", local_files_only=True
            )
    return WanParts(
        transformer=transformer,
        vae=vae,
        schedule=schedule,
        prompts=embedder,
        expand_timesteps=bool(index.get("expand_timesteps")),
        image_encoder=image_encoder,
        image_processor=image_processor,
    )


def parts_of(pipeline: WanImageToVideoPipeline) -> WanParts:
    """Take the parts of a pipeline in memory; its encoders will be changed."""

    def load() -> tuple[Any, Any]:
        return pipeline.tokenizer, pipeline.text_encoder

    settings: Any = pipeline.config
    return WanParts(
        transformer=pipeline.transformer,
        vae=pipeline.vae,
        schedule=dict(pipeline.scheduler.config),
        prompts=_embedder(load, pipeline.transformer.patch_embedding.weight.dtype, Prompting()),
        expand_timesteps=bool(settings.expand_timesteps),
        image_encoder=pipeline.image_encoder,
        image_processor=pipeline.image_processor,
    )


def _embedder_of(folder: Path, dtype: torch.dtype, prompting: Prompting) -> PromptEmbedder:
    return _embedder(
        partial(_load_text_model, folder, dtype),
        dtype,
        prompting,
        lambda: f"{text_model_key(folder, MAX_TOKENS, dtype)} zero padded",
    )


def _embedder(
    load: Callable[[], tuple[Any, Any]],
    dtype: torch.dtype,
    prompting: Prompting,
    model_key: Callable[[], str] = str,
) -> PromptEmbedder:
    def load_zero_padded() -> Any:
        tokenizer, encoder = load()
        return tokenizer, ZeroPadded(encoder, tokenizer.pad_token_id)

    return prompting.embedder(load_zero_padded, MAX_TOKENS, dtype, model_key)


def _load_text_model(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    with quiet_loading():
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        encoder = UMT5EncoderModel.from_pretrained(
            folder / "text_encoder", dtype=dtype, local_files_only=True
        )
    return tokenizer, encoder.eval()
