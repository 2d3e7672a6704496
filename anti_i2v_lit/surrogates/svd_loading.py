"""From a diffusers folder of Stable Video Diffusion to the parts of a surrogate."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import (
    AutoencoderKLTemporalDecoder,
)
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import (
    StableVideoDiffusionPipeline,
)
from transformers import CLIPVisionModelWithProjection

from anti_i2v_lit.checkpoints import SVD, checkpoint_folder, only_variant, quiet_loading
from anti_i2v_lit.surrogates.encoder_loading import load_without_decoder
from anti_i2v_lit.surrogates.image_tower import load_image_tower

_SCHEDULE = {
    "_class_name": "EulerDiscreteScheduler",
    "prediction_type": "v_prediction",
    "timestep_type": "continuous",
}


@dataclass(frozen=True, kw_only=True)
class SVDParts:
    """What a surrogate needs of a pipeline, in memory.

    Attributes:
        unet: the denoiser.
        vae: the autoencoder; only its encoder half is used.
        image_encoder: CLIP vision model.
        image_mean: of the image encoder's input normalisation, per channel of [0, 1] pixels.
        image_std: likewise.
    """

    unet: UNetSpatioTemporalConditionModel
    vae: AutoencoderKLTemporalDecoder
    image_encoder: CLIPVisionModelWithProjection
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]


def load_parts(path: str, dtype: torch.dtype) -> SVDParts:
    """Load U-Net, image encoder and the encoder half of the autoencoder straight in `dtype`.

    Args:
        path: a local folder.
        dtype: of all weights.

    Raises:
        ValueError: no such folder, or not a Stable Video Diffusion folder.
    """
    folder = checkpoint_folder(path, SVD)
    _check_schedule(folder)
    processor = json.loads((folder / "feature_extractor" / "preprocessor_config.json").read_text())
    with quiet_loading():
        unet = UNetSpatioTemporalConditionModel.from_pretrained(
            folder,
            subfolder="unet",
            torch_dtype=dtype,
            low_cpu_mem_usage=True,
            variant=only_variant(folder / "unet"),
            local_files_only=True,
        )
        image_encoder = load_image_tower(
            CLIPVisionModelWithProjection,
            folder / "image_encoder",
            dtype,
            only_variant(folder / "image_encoder"),
        )
        vae = load_without_decoder(
            AutoencoderKLTemporalDecoder, folder / "vae", dtype, only_variant(folder / "vae")
        )
    return SVDParts(
        unet=unet,
        vae=vae,
        image_encoder=image_encoder,
        image_mean=tuple(processor["image_mean"]),
        image_std=tuple(processor["image_std"]),
    )


def parts_of(pipeline: StableVideoDiffusionPipeline) -> SVDParts:
    """Take the parts of a pipeline in memory."""
    extractor: Any = pipeline.feature_extractor
    return SVDParts(
        unet=pipeline.unet,
        vae=pipeline.vae,
        image_encoder=pipeline.image_encoder,
        image_mean=tuple(extractor.image_mean),
        image_std=tuple(extractor.image_std),
    )


def _check_schedule(folder: Path) -> None:
    found = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    for name, expected in _SCHEDULE.items():
        if found.get(name) != expected:
            raise ValueError(
                f"path: {folder} has a scheduler with {name} {found.get(name)!r}; expected "
                f"{expected!r}, which {SVD.source} is published with"
            )
