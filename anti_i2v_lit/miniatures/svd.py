"""Stable Video Diffusion at toy size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import (
        StableVideoDiffusionPipeline,
    )
    from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

# The pipeline's own constant: what it resizes photos to before the image encoder.
CLIP_PIXELS = 224
EMBEDDING_WIDTH = 16


def tiny_svd(*, num_frames: int = 3, seed: int = 0) -> StableVideoDiffusionPipeline:
    """Build a miniature Stable Video Diffusion pipeline: two resolutions, any view size.

    The lower resolution has attention, the higher one has none, as the two ends of the published
    U-Net; all widths are the 32 that the fixed 32 groups of its normalisation need.

    Args:
        num_frames: length of its clips in video frames.
        seed: of the random weights; the global random state is left as it was.
    """
    from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import (
        AutoencoderKLTemporalDecoder,
    )
    from diffusers.models.unets.unet_spatio_temporal_condition import (
        UNetSpatioTemporalConditionModel,
    )
    from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import (
        StableVideoDiffusionPipeline,
    )

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNetSpatioTemporalConditionModel(
            sample_size=8,
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            block_out_channels=(32, 64),
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24,
            layers_per_block=1,
            cross_attention_dim=EMBEDDING_WIDTH,
            num_attention_heads=(2, 4),
            num_frames=num_frames,
        ).eval()
        vae = AutoencoderKLTemporalDecoder(
            down_block_types=("DownEncoderBlock2D",) * 4,
            block_out_channels=(32, 32, 32, 32),
            scaling_factor=0.18215,
        ).eval()
        image_encoder = _image_encoder()
    scheduler: Any = published_schedule()
    return StableVideoDiffusionPipeline(
        vae=vae,
        image_encoder=image_encoder,
        unet=unet,
        scheduler=scheduler,
        feature_extractor=_feature_extractor(),
    )


def published_schedule() -> EulerDiscreteScheduler:
    """The sampling schedule that the published folders hold."""
    from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        interpolation_type="linear",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
        timestep_spacing="leading",
        timestep_type="continuous",
        steps_offset=1,
    )


def _image_encoder() -> CLIPVisionModelWithProjection:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=CLIP_PIXELS,
        patch_size=56,
        projection_dim=EMBEDDING_WIDTH,
    )
    return CLIPVisionModelWithProjection(config).eval()


def _feature_extractor() -> CLIPImageProcessor:
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(
        size={"shortest_edge": CLIP_PIXELS},
        crop_size={"height": CLIP_PIXELS, "width": CLIP_PIXELS},
    )
