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
from anti_i2v_lit.checks import check_at_least
from anti_i2v_lit.generators.latent import PipelineGenerator
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


class LTXGenerator(PipelineGenerator):
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
        loaded = _load(config) if pipeline is None else pipeline
        unit = loaded.vae_spatial_compression_ratio
        size = free_view_size(config.height, config.width, _OWN_SIZE, unit)
        super().__init__(loaded, config.device, size, config.num_frames or _OWN_FRAMES)
        ratio = loaded.vae_temporal_compression_ratio
        check_clip_length(self.num_frames, ratio, 1 + ratio)

    @classmethod
    def tiny(cls) -> Self:
        """A miniature with random weights: 64 px, 9 frames, 2 steps."""
        config = LTXGeneratorConfig(
            num_inference_steps=2, num_frames=9, height=64, width=64, device="cpu"
        )
        return cls(config, tiny_ltx())

    def _clips(self, photos: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        clips = [
            self._clip(photo, prompt, seed)
            for photo, prompt, seed in zip(photos, prompts, seeds, strict=True)
        ]
        return torch.cat(clips)

    def _clip(self, photo: Tensor, prompt: str, seed: int) -> Tensor:
        device = self.pipeline.device
        # Decoders that take a timestep get noise from a generator on their own device, and some
        # from the global one; all other noise is the same on every device.
        source = device if self._decodes_at_a_timestep else "cpu"
        decoding: dict[str, float] = {}
        if self._decodes_at_a_timestep:
            decoding = {"decode_timestep": _DECODE_TIMESTEP, "decode_noise_scale": _DECODE_NOISE}
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            return self.pipeline(
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

    def _to_images(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        del size  # that of the latents
        entered, vae = self._entered(latents)[:, :, None], self.pipeline.vae
        timestep = None
        if self._decodes_at_a_timestep:
            timestep = entered.new_full((len(entered),), _DECODE_TIMESTEP)
        # Some decoders add noise of the global generator.
        with torch.random.fork_rng(devices=[vae.device] if vae.device.type == "cuda" else []):
            torch.manual_seed(0)
            return vae.decode(entered, timestep).sample[:, :, 0]


def _load(config: LTXGeneratorConfig) -> LTXImageToVideoPipeline:
    folder = checkpoint_folder(config.path, LTX)
    with quiet_loading():
        return LTXImageToVideoPipeline.from_pretrained(
            folder, torch_dtype=torch_dtype(config.dtype), local_files_only=True
        )
