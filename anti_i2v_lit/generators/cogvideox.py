"""CogVideoX image-to-video pipelines as an attacker runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from diffusers.models.activations import GELU
from diffusers.pipelines.cogvideo.pipeline_cogvideox_image2video import (
    CogVideoXImageToVideoPipeline,
)
from torch import Tensor

from anti_i2v_lit.checkpoints import (
    COGVIDEOX,
    EMBEDDED,
    checkpoint_folder,
    cogvideox_view_size,
    quiet_loading,
    torch_dtype,
)
from anti_i2v_lit.checks import check_at_least
from anti_i2v_lit.generators.cogvideox_frames import dense_gelu, simplify
from anti_i2v_lit.generators.dense import quicken
from anti_i2v_lit.generators.latent import PipelineGenerator
from anti_i2v_lit.miniatures import tiny_cogvideox


@dataclass(kw_only=True)
class CogVideoXGeneratorConfig:
    """Settings of a CogVideoX generator.

    Attributes:
        path: "embedded" for the packaged model, else a local diffusers folder; no unit.
        dtype: precision of the weights, "float32" or "bfloat16".
        device: where it runs: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1" ...
        num_inference_steps: denoising steps of a clip; 0 for the model's own: 5 for the packaged
            one (its clips are no nearer to the person with more, docs/evaluation.md), 50 for the
            published ones.
        guidance_scale: weight of classifier-free guidance, a factor; 1 is none and twice as fast; 0
            for the model's own: 1 for the packaged one, 6 for the published ones.
        num_frames: length of the clips, video frames; 0 for the model's own.
        height: of the frames, pixels; 0 for the model's own. CogVideoX1.5 has no single size of
            its own (it was trained at 768 x 1360): give one.
        width: of the frames, pixels; 0 for the model's own.
    """

    path: str = "embedded"
    dtype: str = "float32"
    device: str = "auto"
    num_inference_steps: int = 0
    guidance_scale: float = 0.0
    num_frames: int = 0
    height: int = 0
    width: int = 0

    def __post_init__(self) -> None:
        """Refuse values that no model can take."""
        torch_dtype(self.dtype)
        check_at_least(self.num_inference_steps, 0, "num_inference_steps")
        if self.guidance_scale != 0:
            check_at_least(self.guidance_scale, 1.0, "guidance_scale")
        check_at_least(self.num_frames, 0, "num_frames")
        check_at_least(self.height, 0, "height")
        check_at_least(self.width, 0, "width")


class CogVideoXGenerator(PipelineGenerator):
    """The diffusers `CogVideoXImageToVideoPipeline`, called once per batch.

    Yang et al. 2024, "CogVideoX", arXiv 2408.06072.

    Args:
        config: settings.
        pipeline: already in memory; loaded from `config.path` if None.

    Raises:
        ValueError: no such checkpoint, or a size that the model cannot take.
    """

    Config = CogVideoXGeneratorConfig

    def __init__(
        self,
        config: CogVideoXGeneratorConfig,
        pipeline: CogVideoXImageToVideoPipeline | None = None,
    ) -> None:
        self.config = config
        loaded = _load(config) if pipeline is None else pipeline
        settings: Any = loaded.transformer.config
        ratio = loaded.vae_scale_factor_spatial
        size = cogvideox_view_size(settings, ratio, config.height, config.width)
        super().__init__(loaded, config.device, size, config.num_frames or settings.sample_frames)
        self._check_length()
        if pipeline is None and config.path == EMBEDDED:
            quicken(loaded.transformer, {GELU: dense_gelu})

    def _check_length(self) -> None:
        """Refuse lengths at which the autoencoder decodes another number of frames."""
        ratio = self.pipeline.vae_scale_factor_temporal
        # An even number of latent frames decodes to one video frame per slot, first one included.
        unit = 2 * ratio if ratio > 1 else 1
        if (self._frames - 1) % unit:
            raise ValueError(
                f"num_frames must be 1 plus a multiple of {unit} for this model, got {self._frames}"
            )

    @classmethod
    def tiny(cls) -> Self:
        """A miniature with random weights: 32 px, 9 frames, 2 steps."""
        config = CogVideoXGeneratorConfig(num_inference_steps=2, device="cpu")
        return cls(config, tiny_cogvideox(num_frames=9))

    def _guidance(self) -> float:
        own = 1.0 if self.config.path == EMBEDDED else 6.0
        return self.config.guidance_scale or own

    def _steps(self) -> int:
        own = 5 if self.config.path == EMBEDDED else 50
        return self.config.num_inference_steps or own

    def _clips(self, photos: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        # One generator per photo, on the CPU: the pipeline then draws each photo's noise from its
        # own, so that neither the batch nor the device changes a clip's random numbers.
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return self.pipeline(
            image=photos,
            prompt=list(prompts),
            height=self._size[0],
            width=self._size[1],
            num_frames=self._frames,
            num_inference_steps=self._steps(),
            guidance_scale=self._guidance(),
            generator=generators,
            max_sequence_length=self.pipeline.transformer.config.max_text_seq_length,
            output_type="pt",
        ).frames


def _load(config: CogVideoXGeneratorConfig) -> CogVideoXImageToVideoPipeline:
    folder = checkpoint_folder(config.path, COGVIDEOX)
    with quiet_loading():
        pipeline = CogVideoXImageToVideoPipeline.from_pretrained(
            folder, torch_dtype=torch_dtype(config.dtype), local_files_only=True
        )
    simplify(pipeline.vae)
    return pipeline
