"""A frozen pixel-space diffusion model and the loops that purifiers run with it.

Images inside lie in [-1, 1], as in Ho et al. 2020, "Denoising Diffusion Probabilistic Models",
arXiv 2006.11239, whose equations are cited here. Timesteps count from 0, so that adding the noise
of `t` steps of 1000 uses the cumulative product of timestep t - 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from anti_i2v_lit.checkpoints import EMBEDDED, only_variant, quiet_loading
from anti_i2v_lit.checks import check_in
from anti_i2v_lit.purifications.devices import best_device
from anti_i2v_lit.purifications.tiles import over_tiles

PACKAGED = Path(__file__).parent / "weights" / "patch_diffusion"
_PREDICTIONS = ("epsilon", "sample", "v_prediction")
_OVERLAP = 4  # tiles of the noise prediction overlap by a quarter of their side

NoisePrediction = Callable[[Tensor, int], Tensor]
"""Noisy images [B, 3, H, W] and a timestep to the noise in them, of the same shape."""


class DiffusionModel:
    """A noise predictor and its schedule.

    Args:
        network: takes [N, 3, side, side]; extra output channels (a learned variance) are unused.
        scheduler: gives the cumulative products and what the network predicts.

    Raises:
        ValueError: not a model of RGB images, or it predicts something unknown.
    """

    def __init__(self, network: UNet2DModel, scheduler: DDPMScheduler) -> None:
        settings: Any = network.config
        if settings.in_channels != 3 or settings.out_channels not in (3, 6):
            raise ValueError(
                f"expected a diffusion model of RGB pixels, got {settings.in_channels} channels "
                f"in and {settings.out_channels} out"
            )
        self.network = network.eval().requires_grad_(False)
        self.side_px: int = settings.sample_size
        self.alphas = scheduler.alphas_cumprod.double()
        self.prediction: str = scheduler.config.prediction_type  # type: ignore[attr-defined]
        check_in(self.prediction, _PREDICTIONS, "prediction type of the scheduler")

    @torch.no_grad()
    def noise(self, noisy: Tensor, timestep: int) -> Tensor:
        """The noise in tiles [N, 3, side, side], whatever form the network predicts it in."""
        device = self.network.device
        steps = torch.full((len(noisy),), timestep, device=device)
        found = self.network(noisy.to(device, self.network.dtype), steps).sample[:, :3].to(noisy)
        signal, spread = self.scales(timestep)
        if self.prediction == "sample":
            return (noisy - signal * found) / spread
        if self.prediction == "v_prediction":
            return spread * noisy + signal * found
        return found

    def noise_over_tiles(self, noisy: Tensor, timestep: int) -> Tensor:
        """The noise in images of any size: the mean over overlapping tiles, at every step.

        Bar-Tal et al. 2023, "MultiDiffusion", arXiv 2302.08113, with equal weights.
        """
        stride = self.side_px - self.side_px // _OVERLAP
        return over_tiles(noisy, self.side_px, stride, lambda tiles: self.noise(tiles, timestep))

    def scales(self, timestep: int) -> tuple[float, float]:
        """Factors of the image and of the noise at a timestep; 1 and 0 at timestep -1."""
        alpha = 1.0 if timestep < 0 else self.alphas[timestep].item()
        return alpha**0.5, (1.0 - alpha) ** 0.5

    def timestep_of(self, std: float) -> int:
        """The timestep whose noise, relative to its image, is nearest to a standard deviation."""
        spread = ((1.0 - self.alphas) / self.alphas).sqrt()
        return int((spread - std).abs().argmin())


def diffuse_and_reverse(
    model: DiffusionModel,
    images: Tensor,
    *,
    num_noise_steps: int,
    num_steps: int,
    generator: torch.Generator,
    predict: NoisePrediction,
) -> Tensor:
    """Add the noise of some steps (equation 4), then run the reverse process back to an image.

    Meng et al. 2021, "SDEdit", arXiv 2108.01073, algorithm 1; Nie et al. 2022, "Diffusion Models
    for Adversarial Purification", arXiv 2205.07460, section 3, with ancestral sampling instead of
    their SDE solver.

    Args:
        model: gives the schedule.
        images: [B, 3, H, W] in [-1, 1].
        num_noise_steps: steps of noise, at least 1 and at most the model's.
        num_steps: steps of the way back, evenly spaced; at most as many as noise steps are used.
        generator: CPU generator of all noise.
        predict: the model's noise prediction for images of this size.
    """
    steps = reverse_timesteps(num_noise_steps, num_steps)
    signal, spread = model.scales(steps[0])
    noisy = signal * images + spread * _noise_like(images, generator)
    return reverse(model, noisy, steps, generator, predict)


def reverse_timesteps(num_noise_steps: int, num_steps: int) -> list[int]:
    """Timesteps from `num_noise_steps` - 1 down to 0, evenly spaced; one step stays at the top."""
    count = min(num_steps, num_noise_steps)
    spaced = torch.linspace(num_noise_steps - 1, 0, count, dtype=torch.float64)
    return [int(step) for step in spaced.round()]


def reverse(
    model: DiffusionModel,
    noisy: Tensor,
    steps: Sequence[int],
    generator: torch.Generator,
    predict: NoisePrediction,
) -> Tensor:
    """Ancestral sampling over given timesteps (equations 6, 7 and 15), down to the image."""
    for step, following in zip(steps, [*steps[1:], -1], strict=True):
        signal, spread = model.scales(step)
        next_signal, next_spread = model.scales(following)
        clean = ((noisy - spread * predict(noisy, step)) / signal).clamp(-1.0, 1.0)
        kept = signal / next_signal  # square root of alpha over all steps in between
        beta = 1.0 - kept**2
        mean = (next_signal * beta * clean + kept * next_spread**2 * noisy) / spread**2
        if following < 0:
            return mean
        std = next_spread / spread * beta**0.5
        noisy = mean + std * _noise_like(noisy, generator)
    raise AssertionError("no timesteps")


def load_diffusion(model: str) -> DiffusionModel:
    """Load "embedded", or a local diffusers folder of a DDPM (`unet/` and `scheduler/`).

    Raises:
        ValueError: no such folder, or it holds another kind of model.
    """
    folder = PACKAGED if model == EMBEDDED else Path(model).expanduser()
    needed = [folder / "unet" / "config.json", folder / "scheduler" / "scheduler_config.json"]
    missing = [str(path.relative_to(folder)) for path in needed if not path.is_file()]
    if missing:
        raise ValueError(
            f"model: expected 'embedded' or a diffusers folder of a pixel-space DDPM, but "
            f"{folder} lacks {', '.join(missing)}; fetch one with 'hf download google/ddpm-"
            "celebahq-256 --local-dir FOLDER'"
        )
    found = json.loads(needed[0].read_text(encoding="utf-8")).get("_class_name")
    if found != "UNet2DModel":
        raise ValueError(f"{folder}: expected a UNet2DModel, got {found}")
    with quiet_loading():
        network = UNet2DModel.from_pretrained(
            folder / "unet",
            variant=only_variant(folder / "unet"),
            torch_dtype=torch.float32,
            local_files_only=True,
        )
    # DDIM and other schedulers of the folder share the fields that are read here.
    scheduler = DDPMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
    return DiffusionModel(network.to(best_device()), scheduler)


def _noise_like(images: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(images.shape, generator=generator).to(images)
