"""LTX-Video as an attacker runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from diffusers.pipelines.ltx.pipeline_ltx_image2video import LTXImageToVideoPipeline
from torch import Tensor

from anti_i2v_lit.checkpoints import (
    LTX,
    check_clip_length,
    checkpoint_folder,
    free_view_size,
    quiet_loading,
    torch_dtype,
)
from anti_i2v_lit.checks import check_at_least, check_photos
from anti_i2v_lit.generators.base import VideoGenerator
from anti_i2v_lit.miniatures.ltx import tiny_ltx

# The pipeline's own.
_OWN_SIZE, _OWN_FRAMES = (512, 704), 161
# How the documentation runs decoders that take a timestep, from LTX-Video 0.9.1 on.
_DECODE_TIMESTEP, _DECODE_NOISE = 0.05, 0.025


@dataclass(kw_only=True)
class LTXGeneratorConfig:
    """Settings of an LTX-Video generator.

    Attributes:
        path: local diffusers folder; no unit. There is no packaged model of this class.
        dtype: precision of the weights, "float32" or "bfloat16".
        device: where it runs: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1" ...
        num_inference_steps: denoising steps of a clip, at least 2: the published schedule is
            stretched between its first and its last step.
        guidance_scale: weight of classifier-free guidance, a factor; 1 is none and twice as fast.
        negative_prompt: text that guidance leads away from.
        num_frames: length of the clips, video frames, 1 plus a multiple of 8; 0 for the
            pipeline's 161.
        height: of the frames, pixels; 0 for the pipeline's 512. A multiple of 32.
        width: of the frames, pixels; 0 for the pipeline's 704. A multiple of 32.
        frame_rate: of the clips, frames per second.
    """

    path: str = ""
    dtype: str = "float32"
    device: str = "auto"
    num_inference_steps: int = 50
    guidance_scale: float = 3.0
    negative_prompt: str = ""
    num_frames: int = 0
    height: int = 0
    width: int = 0
    frame_rate: float = 25.0

    def __post_init__(self) -> None:
        """Refuse values that no model can take."""
        torch_dtype(self.dtype)
        check_at_least(self.num_inference_steps, 2, "num_inference_steps")
        check_at_least(self.guidance_scale, 1.0, "guidance_scale")
        check_at_least(self.num_frames, 0, "num_frames")
        check_at_least(self.height, 0, "height")
        check_at_least(self.width, 0, "width")
        check_at_least(self.frame_rate, 1.0, "frame_rate")


class LTXGenerator(VideoGenerator):
    """The diffusers `LTXImageToVideoPipeline`, called once per photo.

    HaCohen et al. 2024, "LTX-Video", arXiv 2501.00103.

    Args:
        config: settings.
        pipeline: already in memory; loaded from `config.path` if None.

    Raises:
        ValueError: no such checkpoint, or a size or length that the model cannot take.
    """

    Config = LTXGeneratorConfig

    def __init__(
        self, config: LTXGeneratorConfig, pipeline: LTXImageToVideoPipeline | None = None
    ) -> None:
        self.config = config
        self.pipeline = _load(config) if pipeline is None else pipeline
        if config.device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        else:
            device = config.device
        self.pipeline.to(device)
        self.pipeline.set_progress_bar_config(disable=True)
        self._size = free_view_size(
            config.height,
            config.width,
            _OWN_SIZE,
            self.pipeline.vae_spatial_compression_ratio,
        )
        self._frames = config.num_frames or _OWN_FRAMES
        ratio = self.pipeline.vae_temporal_compression_ratio
        check_clip_length(self._frames, ratio, 1 + ratio)

    @classmethod
    def tiny(cls) -> Self:
        """A miniature with random weights: 64 px, 9 frames, 2 steps."""
        config = LTXGeneratorConfig(
            num_inference_steps=2, num_frames=9, height=64, width=64, device="cpu"
        )
        return cls(config, tiny_ltx())

    @property
    def view_size(self) -> tuple[int, int]:
        """(H, W) in pixels of the photos it takes and of the frames it makes."""
        return self._size

    @property
    def num_frames(self) -> int:
        """Frames of a clip."""
        return self._frames

    def _generate(self, photos: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        if tuple(photos.shape[-2:]) != self._size:
            raise ValueError(f"photos: expected {self._size} pixels, got {photos.shape[-2:]}")
        clips = [
            self._clip(photo, prompt, seed)
            for photo, prompt, seed in zip(photos, prompts, seeds, strict=True)
        ]
        return torch.cat(clips)

    def _clip(self, photo: Tensor, prompt: str, seed: int) -> Tensor:
        pipeline: Any = self.pipeline
        device = pipeline.device
        # Decoders that take a timestep get noise from a generator on their own device, and some
        # from the global one; all other noise is the same on every device.
        source = device if self._decodes_at_a_timestep else "cpu"
        decoding: dict[str, float] = {}
        if self._decodes_at_a_timestep:
            decoding = {"decode_timestep": _DECODE_TIMESTEP, "decode_noise_scale": _DECODE_NOISE}
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            return pipeline(
                image=photo[None],
                prompt=prompt,
                negative_prompt=self.config.negative_prompt,
                height=self._size[0],
                width=self._size[1],
                num_frames=self._frames,
                frame_rate=self.config.frame_rate,
                num_inference_steps=self.config.num_inference_steps,
                guidance_scale=self.config.guidance_scale,
                generator=torch.Generator(source).manual_seed(seed),
                output_type="pt",
                **decoding,
            ).frames.cpu()

    @property
    def _decodes_at_a_timestep(self) -> bool:
        settings: Any = self.pipeline.vae.config
        return bool(settings.timestep_conditioning)

    @torch.no_grad()
    def encode(self, photos: Tensor) -> Tensor:
        """Photos as latents, the mean of the posterior, unscaled.

        Args:
            photos: [B, 3, H, W] in [0, 1], H and W multiples of 32.

        Returns:
            [B, C, H / 32, W / 32], float32, on the CPU.
        """
        check_photos(photos)
        vae: Any = self.pipeline.vae
        images = (2.0 * photos - 1.0).to(device=vae.device, dtype=vae.dtype)[:, :, None]
        return vae.encode(images).latent_dist.mode()[:, :, 0].float().cpu()

    @torch.no_grad()
    def reconstruct(self, photos: Tensor) -> Tensor:
        """Photos through the autoencoder alone: the best a clip can look.

        Args:
            photos: [B, 3, H, W] in [0, 1], H and W multiples of 32.

        Returns:
            [B, 3, H, W] in [0, 1], float32, on the CPU.
        """
        vae: Any = self.pipeline.vae
        latents = self.encode(photos).to(device=vae.device, dtype=vae.dtype)[:, :, None]
        timestep = None
        if self._decodes_at_a_timestep:
            timestep = latents.new_full((len(latents),), _DECODE_TIMESTEP)
        # Some decoders add noise of the global generator.
        with torch.random.fork_rng(devices=[vae.device] if vae.device.type == "cuda" else []):
            torch.manual_seed(0)
            decoded = vae.decode(latents, timestep).sample[:, :, 0]
        return (decoded.float() / 2.0 + 0.5).clamp(0.0, 1.0).cpu()


def _load(config: LTXGeneratorConfig) -> LTXImageToVideoPipeline:
    folder = checkpoint_folder(config.path, LTX)
    with quiet_loading():
        return LTXImageToVideoPipeline.from_pretrained(
            folder, torch_dtype=torch_dtype(config.dtype), local_files_only=True
        )
