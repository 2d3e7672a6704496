"""Noisy upscaling: shrink, add noise, and let an upscaler paint the details anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final

import torch
from torch import Tensor

from anti_i2v_lit.checkpoints import quiet_loading
from anti_i2v_lit.ops.resize import resize
from anti_i2v_lit.purifications.base import Purification
from anti_i2v_lit.purifications.devices import best_device
from anti_i2v_lit.purifications.diffusion import (
    DiffusionModel,
    load_diffusion,
    reverse,
    reverse_timesteps,
)
from anti_i2v_lit.purifications.resize import check_share, shrunk
from anti_i2v_lit.purifications.working_size import DEFAULT_WORK_PX, check_work_px, shrink

_REVERSE_STEPS = 10
_PIPELINE_STEPS = 75  # the pipeline's own default
_NOISE_LEVEL = 320
_SEEDS = 2**31 - 1


class Upscaler(Protocol):
    """Noisy small photos to clean large ones."""

    def upscale(self, noisy: Tensor, std: float, generator: torch.Generator) -> Tensor:
        """[B, 3, h, w] with noise of a standard deviation, to [B, 3, H, W] in [0, 1].

        The size is the upscaler's own affair; the caller resizes.
        """
        ...


class DenoisingUpscaler:
    """The packaged patch model takes the noise away; the enlarging is left to the caller."""

    def __init__(self, model: DiffusionModel) -> None:
        self.model = model

    def upscale(self, noisy: Tensor, std: float, generator: torch.Generator) -> Tensor:
        """See `Upscaler`. The way back starts at the timestep whose noise is as strong."""
        top = self.model.timestep_of(2.0 * std)  # images lie in [-1, 1] inside
        signal, _ = self.model.scales(top)
        steps = reverse_timesteps(top + 1, _REVERSE_STEPS)
        images = signal * (2.0 * noisy - 1.0)
        found = reverse(self.model, images, steps, generator, self.model.noise_over_tiles)
        return 0.5 * (found + 1.0)


class PipelineUpscaler:
    """A diffusers `StableDiffusionUpscalePipeline`: four times as large, without a prompt.

    Args:
        folder: of the pipeline, on this machine.

    Raises:
        ValueError: no such pipeline.
    """

    def __init__(self, folder: Path) -> None:
        from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_upscale import (
            StableDiffusionUpscalePipeline,
        )

        if not (folder / "model_index.json").is_file():
            raise ValueError(
                f"upscaler: expected 'embedded' or a diffusers folder, got {folder}; fetch one "
                "with 'hf download stabilityai/stable-diffusion-x4-upscaler --local-dir FOLDER'"
            )
        with quiet_loading():
            pipeline: Any = StableDiffusionUpscalePipeline.from_pretrained(
                folder, local_files_only=True
            )
        self._pipeline = pipeline.to(best_device())
        self._pipeline.set_progress_bar_config(disable=True)

    def upscale(self, noisy: Tensor, std: float, generator: torch.Generator) -> Tensor:
        """See `Upscaler`; noise level 320, as in the published attack."""
        seed = int(torch.randint(_SEEDS, (), generator=generator))
        made = [
            self._pipeline(
                prompt="",  # so that guidance, at twice the cost, would change nothing
                guidance_scale=1.0,
                image=photo.clamp(0.0, 1.0),
                noise_level=_NOISE_LEVEL,
                num_inference_steps=_PIPELINE_STEPS,
                generator=torch.Generator().manual_seed(seed),
                output_type="pt",
            ).images
            for photo in noisy.split(1)
        ]
        return torch.cat(made).to(noisy)


@final
class NoisyUpscaling(Purification):
    """Shrink to the model's size and further, add Gaussian noise, remove it and enlarge.

    Severity in native units: noise of severity * largest_std_8bit grey levels, after shrinking to
    1 - severity * (1 - smallest_share) of the working size; 25.5 levels are the published sigma of
    0.1. The published attack enlarges with Stable Diffusion's x4 upscaler, which is used where its
    folder is given; the packaged patch model stands in for it and is far weaker.

    Source: Hoenig et al. 2024, "Adversarial Perturbations Cannot Reliably Protect Artists From
    Generative AI", arXiv 2406.12027.

    Args:
        config: settings.
        upscaler: already in memory; loaded by `config.upscaler` if None.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the chain.

        Attributes:
            upscaler: "embedded", or a diffusers folder of a `StableDiffusionUpscalePipeline`.
            largest_std_8bit: noise at severity 1, standard deviation in grey levels.
            smallest_share: sides at severity 1, share of the working size, in (0, 1).
            work_px: shorter side of the working size, pixels; 0 for the photo's own.
        """

        upscaler: str = "embedded"
        largest_std_8bit: float = 25.5
        smallest_share: float = 0.5
        work_px: int = DEFAULT_WORK_PX

        def __post_init__(self) -> None:
            if not 0 < self.largest_std_8bit <= 255:
                raise ValueError(
                    "largest_std_8bit must be above 0 and at most 255 grey levels, got "
                    f"{self.largest_std_8bit:g}"
                )
            check_share(self.smallest_share, "smallest_share")
            check_work_px(self.work_px)

    def __init__(self, config: Config, upscaler: Upscaler | None = None) -> None:
        self.config = config
        self.upscaler = upscaler or _load(config.upscaler)

    @property
    def is_differentiable(self) -> bool:
        """False: the upscaler keeps no graph."""
        return False

    @torch.no_grad()
    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        std = severity * self.config.largest_std_8bit / 255.0
        work = shrink(photos, self.config.work_px)
        share = 1.0 - severity * (1.0 - self.config.smallest_share)
        small = resize(work, shrunk((work.shape[-2], work.shape[-1]), share)).clamp(0.0, 1.0)
        noise = torch.randn(small.shape, generator=generator).to(small)
        large = self.upscaler.upscale(small + std * noise, std, generator)
        return resize(large, (photos.shape[-2], photos.shape[-1]))


def _load(name: str) -> Upscaler:
    if name == "embedded":
        return DenoisingUpscaler(load_diffusion(name))
    return PipelineUpscaler(Path(name).expanduser())
