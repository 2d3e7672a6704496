"""Stable Video Diffusion pipelines as an attacker runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import (
    StableVideoDiffusionPipeline,
)
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from anti_i2v_lit.checkpoints import (
    SVD,
    checkpoint_folder,
    only_variant,
    quiet_loading,
    torch_dtype,
)
from anti_i2v_lit.checks import check_at_least
from anti_i2v_lit.generators.latent import PipelineGenerator
from anti_i2v_lit.miniatures.svd import tiny_svd


@dataclass(kw_only=True)
class SVDGeneratorConfig:
    """Settings of a Stable Video Diffusion generator; defaults are the pipeline's own.

    Attributes:
        path: a local diffusers folder; no unit.
        dtype: precision of the weights, "float32" or "bfloat16".
        device: where it runs: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1" ...
        num_inference_steps: denoising steps of a clip.
        min_guidance_scale: weight of classifier-free guidance at the first frame, a factor.
        max_guidance_scale: the same at the last frame; 1 is none and twice as fast.
        num_frames: length of the clips, video frames; 0 for the model's own, 14 or 25.
        height: of the frames, pixels.
        width: of the frames, pixels.
        fps: frame rate that the model is told, frames per second.
        motion_bucket_id: amount of motion that the model is told, 0 to 255 as in training.
        noise_aug_strength: standard deviation of the noise added to the photo, on the scale where
            pixels lie in [-1, 1].
        decode_chunk_size: frames decoded together; fewer take less memory and flicker more; 0 for
            all.
    """

    path: str = ""
    dtype: str = "float32"
    device: str = "auto"
    num_inference_steps: int = 25
    min_guidance_scale: float = 1.0
    max_guidance_scale: float = 3.0
    num_frames: int = 0
    height: int = 576
    width: int = 1024
    fps: int = 7
    motion_bucket_id: int = 127
    noise_aug_strength: float = 0.02
    decode_chunk_size: int = 0

    def __post_init__(self) -> None:
        """Refuse values that no model can take."""
        torch_dtype(self.dtype)
        for name in ("num_inference_steps", "height", "width", "fps"):
            check_at_least(getattr(self, name), 1, name)
        for name in ("num_frames", "motion_bucket_id", "noise_aug_strength", "decode_chunk_size"):
            check_at_least(getattr(self, name), 0, name)
        check_at_least(self.min_guidance_scale, 1.0, "min_guidance_scale")
        check_at_least(self.max_guidance_scale, self.min_guidance_scale, "max_guidance_scale")


class SVDGenerator(PipelineGenerator):
    """The diffusers `StableVideoDiffusionPipeline`, called once per photo.

    Blattmann et al. 2023, "Stable Video Diffusion", arXiv 2311.15127. Photos enter as 8-bit
    images, the only form for which the pipeline makes its own antialiased resize. There is no
    text input: prompts change nothing.

    Args:
        config: settings.
        pipeline: already in memory; loaded from `config.path` if None.

    Raises:
        ValueError: no such checkpoint, or a size that the model cannot take.
    """

    Config = SVDGeneratorConfig

    def __init__(
        self, config: SVDGeneratorConfig, pipeline: StableVideoDiffusionPipeline | None = None
    ) -> None:
        self.config = config
        loaded = _load(config) if pipeline is None else pipeline
        settings: Any = loaded.unet.config
        size = (config.height, config.width)
        super().__init__(loaded, config.device, size, config.num_frames or settings.num_frames)
        unit = loaded.vae_scale_factor * 2 ** (len(settings.block_out_channels) - 1)
        if config.height % unit or config.width % unit:
            raise ValueError(
                f"height and width must be multiples of {unit} pixels, got "
                f"{config.height} x {config.width}"
            )

    @classmethod
    def tiny(cls) -> Self:
        """A miniature with random weights: 32 px, 3 frames, 2 steps."""
        config = SVDGeneratorConfig(num_inference_steps=2, height=32, width=32, device="cpu")
        return cls(config, tiny_svd())

    def _clips(self, photos: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        # One call per photo: the pipeline decodes chunks of frames across photos.
        pairs = zip(photos, seeds, strict=True)
        return torch.cat([self._clip(photo, seed) for photo, seed in pairs])

    def _clip(self, photo: Tensor, seed: int) -> Tensor:
        config = self.config
        return self.pipeline(
            image=to_pil_image((photo.cpu() * 255.0).round().to(torch.uint8)),
            height=config.height,
            width=config.width,
            num_frames=self._frames,
            num_inference_steps=config.num_inference_steps,
            min_guidance_scale=config.min_guidance_scale,
            max_guidance_scale=config.max_guidance_scale,
            fps=config.fps,
            motion_bucket_id=config.motion_bucket_id,
            noise_aug_strength=config.noise_aug_strength,
            decode_chunk_size=config.decode_chunk_size or None,
            # On the CPU, so that the device does not change a clip's random numbers.
            generator=torch.Generator().manual_seed(seed),
            output_type="pt",
        ).frames

    def _to_latents(self, images: Tensor) -> Tensor:
        return self.pipeline.vae.encode(self._entered(images)).latent_dist.mode()

    def _to_images(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        del size  # that of the latents
        return self.pipeline.vae.decode(self._entered(latents), num_frames=1).sample


def _load(config: SVDGeneratorConfig) -> StableVideoDiffusionPipeline:
    folder = checkpoint_folder(config.path, SVD)
    with quiet_loading():
        return StableVideoDiffusionPipeline.from_pretrained(
            folder,
            torch_dtype=torch_dtype(config.dtype),
            variant=only_variant(folder / "unet"),
            local_files_only=True,
        )
