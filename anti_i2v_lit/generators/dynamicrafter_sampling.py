"""DDIM as DynamiCrafter's authors run it: trailing steps, rescaled guidance, dynamic rescale."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_between, check_in
from anti_i2v_lit.surrogates.dynamicrafter.model import Schedule
from anti_i2v_lit.surrogates.parameterisation import Parameterisation, clean_and_noise

SPACINGS = ("uniform", "uniform_trailing")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One denoising step, from a timestep to the one before it.

    Attributes:
        timestep: in the training schedule.
        alpha_squared: there, in [0, 1].
        alpha_squared_before: at the timestep that the step leads to.
        sigma: standard deviation of the noise that the step adds.
        rescale: factor of the predicted clean latents.
    """

    timestep: int
    alpha_squared: float
    alpha_squared_before: float
    sigma: float
    rescale: float


def ddim_steps(schedule: Schedule, count: int, eta: float, spacing: str) -> list[Step]:
    """Return the steps from pure noise to clean latents.

    Song et al. 2021, arXiv 2010.02502, equations 12 and 16; the last step leads to timestep 0.

    Args:
        schedule: of the model.
        count: how many; "uniform" makes a few more where it does not divide the schedule.
        eta: 0 for none, 1 for as much noise as ancestral sampling.
        spacing: "uniform" counts up from timestep 1, "uniform_trailing" down from the last one.

    Raises:
        ValueError: unknown spacing, or more steps than it has room for.
    """
    check_in(spacing, SPACINGS, "timestep_spacing")
    length = len(schedule.alphas_cumprod)
    most = length if spacing == "uniform_trailing" else length // 2
    check_between(count, 1, most, "num_inference_steps")
    if spacing == "uniform":
        timesteps = torch.arange(0, length, length // count) + 1
    else:
        descending = torch.arange(length, 0, -length / count, dtype=torch.float64)
        timesteps = descending.round().long().flip(0) - 1
    squared = schedule.alphas_cumprod.double().cpu()
    at = squared[timesteps]
    before = torch.cat([squared[:1], at[:-1]])
    sigma = eta * ((1 - before) / (1 - at) * (1 - at / before)).sqrt()
    scales = schedule.scales.double().cpu()[timesteps]
    rescale = torch.cat([scales[:1], scales[:-1]]) / scales
    return [
        Step(
            timestep=int(timesteps[i]),
            alpha_squared=float(at[i]),
            alpha_squared_before=float(before[i]),
            sigma=float(sigma[i]),
            rescale=float(rescale[i]),
        )
        for i in reversed(range(len(timesteps)))
    ]


def take(
    step: Step, kind: Parameterisation, noisy: Tensor, answer: Tensor, noise: Tensor
) -> Tensor:
    """Take one step.

    Args:
        step: which.
        kind: what the denoiser predicts.
        noisy: latents [B, ...] at the step's timestep.
        answer: the denoiser's prediction, same shape.
        noise: standard normal, same shape.

    Returns:
        Latents at the timestep before.
    """
    alpha = noisy.new_full((len(noisy),), step.alpha_squared**0.5)
    sigma = noisy.new_full((len(noisy),), (1.0 - step.alpha_squared) ** 0.5)
    clean, seen = clean_and_noise(kind, answer, noisy, alpha, sigma)
    # Out of pure noise nothing of the old noise is kept: zero, but for rounding below it.
    kept = max(1.0 - step.alpha_squared_before - step.sigma**2, 0.0) ** 0.5
    ahead = step.alpha_squared_before**0.5 * step.rescale * clean
    return ahead + kept * seen + step.sigma * noise


def guided(conditional: Tensor, unconditional: Tensor, scale: float, rescale: float) -> Tensor:
    """Classifier-free guidance, drawn back to the contrast of the conditional prediction.

    Lin et al. 2023, arXiv 2305.08891, section 3.4.

    Args:
        conditional: prediction with photo and prompt [B, ...].
        unconditional: prediction without, same shape.
        scale: weight of the difference, a factor.
        rescale: share of the prediction with the conditional one's standard deviation, [0, 1].
    """
    mixed = unconditional + scale * (conditional - unconditional)
    if rescale == 0:
        return mixed
    axes = tuple(range(1, mixed.ndim))
    contrast = conditional.std(dim=axes, keepdim=True) / mixed.std(dim=axes, keepdim=True)
    return mixed * (rescale * contrast + 1.0 - rescale)
