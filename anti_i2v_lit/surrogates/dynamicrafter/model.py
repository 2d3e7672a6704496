"""All networks of a published checkpoint under its names, and the noise schedule."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from anti_i2v_lit.surrogates.dynamicrafter.clip import ImageEmbedder, TextEmbedder
from anti_i2v_lit.surrogates.dynamicrafter.first_stage import FirstStage
from anti_i2v_lit.surrogates.dynamicrafter.resampler import Resampler
from anti_i2v_lit.surrogates.dynamicrafter.settings import ModelSettings
from anti_i2v_lit.surrogates.dynamicrafter.unet import UNet


class DynamiCrafter(nn.Module):
    """The networks of one checkpoint: its state dict has the checkpoint's names and shapes.

    Args:
        settings: of the model.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.model = _Wrapped(UNet(**settings.unet))
        self.first_stage_model = FirstStage(**settings.first_stage)
        self.cond_stage_model = TextEmbedder(settings.clip, settings.penultimate_text)
        self.embedder = ImageEmbedder(settings.clip)
        self.image_proj_model = Resampler(**settings.resampler)

    @classmethod
    def on_meta(cls, settings: ModelSettings) -> Self:
        """Names and shapes alone, without memory; to be filled from a checkpoint."""
        with torch.device("meta"):
            return cls(settings)


class _Wrapped(nn.Module):
    """One more level in the names, as published."""

    def __init__(self, diffusion_model: UNet) -> None:
        super().__init__()
        self.diffusion_model = diffusion_model


class Schedule(nn.Module):
    """The noise schedule and the dynamic rescale.

    Betas whose square roots lie on a line; where wanted, rescaled so that the last timestep is
    pure noise (Lin et al. 2023, arXiv 2305.08891, algorithm 1). The dynamic rescale multiplies
    clean latents by a factor that falls from 1 to `base_scale` over the first `turning_step`
    timesteps ("DynamiCrafter", released code).

    Args:
        settings: of the model.
    """

    alphas_cumprod: Tensor
    scales: Tensor

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        ends = (settings.linear_start**0.5, settings.linear_end**0.5)
        roots = torch.linspace(*ends, settings.timesteps, dtype=torch.float64)
        alphas_cumprod = (1.0 - roots.square()).cumprod(0)
        if settings.zero_snr:
            alphas_cumprod = _ending_in_noise(alphas_cumprod)
        falling = torch.linspace(1.0, settings.base_scale, settings.turning_step)
        scales = torch.full((settings.timesteps,), settings.base_scale)
        count = min(settings.turning_step, settings.timesteps)
        scales[:count] = falling[:count]
        self.register_buffer("alphas_cumprod", alphas_cumprod.float(), persistent=False)
        self.register_buffer("scales", scales, persistent=False)


def _ending_in_noise(alphas_cumprod: Tensor) -> Tensor:
    roots = alphas_cumprod.sqrt()
    first, last = roots[0], roots[-1]
    return ((roots - last) * first / (first - last)).square()
