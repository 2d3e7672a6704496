"""Wan image-to-video pipelines as an attacker runs them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, final

import torch
from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from anti_i2v_lit.checkpoints import (
    WAN_2_1,
    WAN_2_2,
    Layout,
    check_clip_length,
    checkpoint_folder,
    free_view_size,
    quiet_loading,
    torch_dtype,
)
from anti_i2v_lit.checks import check_at_least
from anti_i2v_lit.generators.latent import PipelineGenerator
from anti_i2v_lit.miniatures.wan import tiny_wan_2_1, tiny_wan_2_2


@dataclass(kw_only=True)
class WanGeneratorConfig:
    """Settings of a Wan generator.

    Attributes:
        path: local diffusers folder; no unit. There is no packaged model of this class.
        dtype: precision of the transformer's and text encoder's weights, "float32" or
            "bfloat16"; autoencoder and image encoder stay in float32, as in the model cards.
        device: where it runs: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1" ...
        num_inference_steps: denoising steps of a clip.
        guidance_scale: weight of classifier-free guidance, a factor; 1 is none and twice as fast.
        negative_prompt: text that guidance leads away from.
        num_frames: length of the clips, video frames, 1 plus a multiple of 4; 0 for the
            published 121 (Wan2.2-TI2V-5B) or 81 (Wan2.1).
        height: of the frames, pixels; 0 for the published 704 (Wan2.2-TI2V-5B) or 480 (Wan2.1).
        width: of the frames, pixels; 0 for the published 1280 (Wan2.2-TI2V-5B) or 832 (Wan2.1).
    """

    path: str = ""
    dtype: str = "float32"
    device: str = "auto"
    num_inference_steps: int = 50
    guidance_scale: float = 5.0
    negative_prompt: str = ""
    num_frames: int = 0
    height: int = 0
    width: int = 0

    def __post_init__(self) -> None:
        """Refuse values that no model can take."""
        torch_dtype(self.dtype)
        check_at_least(self.num_inference_steps, 1, "num_inference_steps")
        check_at_least(self.guidance_scale, 1.0, "guidance_scale")
        check_at_least(self.num_frames, 0, "num_frames")
        check_at_least(self.height, 0, "height")
        check_at_least(self.width, 0, "width")


class WanGenerator(PipelineGenerator):
    """The diffusers `WanImageToVideoPipeline`, called once per photo.

    Wan Team 2025, arXiv 2503.20314. The pipeline takes one image per call (a batch would mix the
    photos up) and gets it as an 8-bit picture, which CLIP's preprocessing expects.

    Args:
        config: settings.
        pipeline: already in memory; loaded from `config.path` if None.

    Raises:
        ValueError: no such checkpoint, or a size or length that the model cannot take.
    """

    Config = WanGeneratorConfig
    layout: Layout
    own_size: tuple[int, int]
    own_frames: int

    def __init__(
        self, config: WanGeneratorConfig, pipeline: WanImageToVideoPipeline | None = None
    ) -> None:
        self.config = config
        loaded = _load(config, self.layout) if pipeline is None else pipeline
        self._check_class(loaded)
        settings: Any = loaded.transformer.config
        unit = loaded.vae_scale_factor_spatial * settings.patch_size[1]
        size = free_view_size(config.height, config.width, self.own_size, unit)
        super().__init__(loaded, config.device, size, config.num_frames or self.own_frames)
        ratio = loaded.vae_scale_factor_temporal
        check_clip_length(self.num_frames, ratio, 1 + ratio)

    @abstractmethod
    def _check_class(self, pipeline: WanImageToVideoPipeline) -> None:
        """Refuse a pipeline of another class of models."""

    def _clips(self, photos: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        clips = [
            self._clip(photo, prompt, seed)
            for photo, prompt, seed in zip(photos.cpu(), prompts, seeds, strict=True)
        ]
        return torch.cat(clips)

    def _clip(self, photo: Tensor, prompt: str, seed: int) -> Tensor:
        return self.pipeline(
            image=to_pil_image((255.0 * photo).round().byte()),
            prompt=prompt,
            negative_prompt=self.config.negative_prompt,
            height=self._size[0],
            width=self._size[1],
            num_frames=self._frames,
            num_inference_steps=self.config.num_inference_steps,
            guidance_scale=self.config.guidance_scale,
            # On the CPU, so that the device does not change a clip's random numbers.
            generator=torch.Generator().manual_seed(seed),
            output_type="pt",
        ).frames.cpu()


@final
class Wan22Generator(WanGenerator):
    """Wan2.2-TI2V-5B: text, image or both to video at 704 x 1280 pixels and 24 frames a second."""

    layout = WAN_2_2
    own_size = (704, 1280)
    own_frames = 121

    @classmethod
    def tiny(cls) -> Self:
        """A miniature with random weights: 64 px, 5 frames, 2 steps."""
        return cls(_tiny_config(64), tiny_wan_2_2())

    def _check_class(self, pipeline: WanImageToVideoPipeline) -> None:
        settings: Any = pipeline.config
        if not settings.expand_timesteps:
            raise ValueError(
                "path: this folder's model_index.json lacks expand_timesteps; expected a folder "
                f"like {self.layout.source}. For {WAN_2_1.source} use the generator wan_2_1"
            )


@final
class Wan21Generator(WanGenerator):
    """Wan2.1-I2V-14B-480P: image and text to video at 480 x 832 pixels, 16 frames a second."""

    layout = WAN_2_1
    own_size = (480, 832)
    own_frames = 81

    @classmethod
    def tiny(cls) -> Self:
        """A miniature with random weights: 32 px, 5 frames, 2 steps."""
        return cls(_tiny_config(32), tiny_wan_2_1())

    def _check_class(self, pipeline: WanImageToVideoPipeline) -> None:
        settings: Any = pipeline.transformer.config
        if settings.image_dim is None:
            raise ValueError(
                "path: this folder's transformer takes no image embedding; expected a folder like "
                f"{self.layout.source}. For {WAN_2_2.source} use the generator wan_2_2"
            )


def _tiny_config(side: int) -> WanGeneratorConfig:
    return WanGeneratorConfig(
        num_inference_steps=2, num_frames=5, height=side, width=side, device="cpu"
    )


def _load(config: WanGeneratorConfig, layout: Layout) -> WanImageToVideoPipeline:
    folder = checkpoint_folder(config.path, layout)
    dtypes: Any = {
        "vae": torch.float32,
        "image_encoder": torch.float32,
        "default": torch_dtype(config.dtype),
    }
    with quiet_loading():
        return WanImageToVideoPipeline.from_pretrained(
            folder, torch_dtype=dtypes, local_files_only=True
        )
