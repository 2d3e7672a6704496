"""From a diffusers folder of the CogVideoX image-to-video class to the parts of a surrogate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from diffusers.pipelines.cogvideo.pipeline_cogvideox_image2video import (
    CogVideoXImageToVideoPipeline,
)
from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler
from diffusers.schedulers.scheduling_dpm_cogvideox import CogVideoXDPMScheduler
from transformers import AutoTokenizer, T5EncoderModel

from anti_i2v_lit.checkpoints import COGVIDEOX, checkpoint_folder, quiet_loading
from anti_i2v_lit.checks import check_in
from anti_i2v_lit.surrogates.encoder_loading import load_without_decoder
from anti_i2v_lit.surrogates.prompts import (
    PromptEmbedder,
    Prompting,
    TextModel,
    text_model_key,
)

Scheduler = CogVideoXDDIMScheduler | CogVideoXDPMScheduler
_SCHEDULERS: dict[str, Any] = {
    "CogVideoXDDIMScheduler": CogVideoXDDIMScheduler,
    "CogVideoXDPMScheduler": CogVideoXDPMScheduler,
}


@dataclass(frozen=True, kw_only=True)
class CogVideoXParts:
    """What a surrogate needs of a pipeline, in memory.

    Attributes:
        transformer: the denoiser.
        vae: the autoencoder; a surrogate takes over its encoder.
        scheduler: noise schedule and prediction type.
        prompts: texts to embeddings.
    """

    transformer: CogVideoXTransformer3DModel
    vae: AutoencoderKLCogVideoX
    scheduler: Scheduler
    prompts: PromptEmbedder


def load_parts(path: str, dtype: torch.dtype, prompting: Prompting) -> CogVideoXParts:
    """Load transformer and the encoder half of the autoencoder straight in `dtype`.

    Weights in that precision on disk stay mapped from their files until they are moved to a
    device, so that the processes of one machine share one copy.

    Args:
        path: "embedded" or a local folder.
        dtype: of all weights.
        prompting: how texts are embedded; those it names are, before the transformer is loaded.

    Raises:
        ValueError: no such folder, or not a CogVideoX image-to-video folder.
    """
    folder = checkpoint_folder(path, COGVIDEOX)
    settings = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    check_in(str(settings.get("_class_name")), _SCHEDULERS, "CogVideoX scheduler class")
    embedder = _embedder(folder, dtype, prompting)
    embedder.prepare(prompting.texts)
    with quiet_loading():
        transformer = CogVideoXTransformer3DModel.from_pretrained(
            folder,
            subfolder="transformer",
            torch_dtype=dtype,
            low_cpu_mem_usage=True,
            local_files_only=True,
        )
        vae = load_without_decoder(AutoencoderKLCogVideoX, folder / "vae", dtype)
    return CogVideoXParts(
        transformer=transformer,
        vae=vae,
        scheduler=_SCHEDULERS[settings["_class_name"]].from_config(settings),
        prompts=embedder,
    )


def parts_of(pipeline: CogVideoXImageToVideoPipeline) -> CogVideoXParts:
    """Take the parts of a pipeline in memory; its encoder's modules will be replaced."""

    def load() -> TextModel:
        return pipeline.tokenizer, pipeline.text_encoder

    return CogVideoXParts(
        transformer=pipeline.transformer,
        vae=pipeline.vae,
        scheduler=pipeline.scheduler,
        prompts=PromptEmbedder(
            load,
            pipeline.transformer.config.max_text_seq_length,
            pipeline.transformer.dtype,
        ),
    )


def _embedder(folder: Path, dtype: torch.dtype, prompting: Prompting) -> PromptEmbedder:
    settings: Any = CogVideoXTransformer3DModel.load_config(folder / "transformer")
    _check_image_to_video(settings, folder)
    max_tokens = settings["max_text_seq_length"]
    return prompting.embedder(
        partial(_load_text_model, folder, dtype),
        max_tokens,
        dtype,
        lambda: text_model_key(folder, max_tokens, dtype),
    )


def _load_text_model(folder: Path, dtype: torch.dtype) -> TextModel:
    with quiet_loading():
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        encoder = T5EncoderModel.from_pretrained(
            folder / "text_encoder", dtype=dtype, local_files_only=True
        )
    return tokenizer, encoder.eval()


def _check_image_to_video(settings: Mapping[str, Any], folder: Path) -> None:
    channels, answered = settings["in_channels"], settings["out_channels"]
    if channels != 2 * answered:
        raise ValueError(
            f"path: {folder} is a text-to-video model ({channels} input channels for "
            f"{answered} output channels); an image-to-video model such as "
            f"{COGVIDEOX.source} is needed, whose input has room for the image latent"
        )
