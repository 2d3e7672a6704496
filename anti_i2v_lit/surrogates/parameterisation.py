"""The four ways a denoiser can answer (noise, velocity, clean sample, flow) and their conversion.

Everything follows from x_t = alpha * x_0 + sigma * noise. Variance-preserving schedules have
alpha^2 + sigma^2 = 1 (CogVideoX, Stable Video Diffusion's c-factors aside), rectified flows have
alpha + sigma = 1 (Open-Sora, Wan). With
    v    = alpha * noise - sigma * x_0    (Salimans and Ho 2022, arXiv 2202.00512, appendix D)
    flow = noise - x_0                    (Liu et al. 2022, arXiv 2209.03003)
each answer and x_t together give x_0 and the noise.
"""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor


class Parameterisation(StrEnum):
    """What a denoiser predicts, under the names of diffusers' scheduler settings."""

    EPSILON = "epsilon"
    VELOCITY = "v_prediction"
    SAMPLE = "sample"
    FLOW = "flow_prediction"


def diffusion_coefficients(alphas_cumprod: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """Return alpha and sigma, each [B], of integer timesteps [B].

    Args:
        alphas_cumprod: squared alpha of every timestep [T], in [0, 1].
        timesteps: integers in [0, T).
    """
    squared = alphas_cumprod[timesteps]
    return squared.sqrt(), (1.0 - squared).sqrt()


def add_noise(clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Return x_t = alpha * x_0 + sigma * noise.

    Args:
        clean: x_0 [B, ...].
        noise: standard normal, same shape.
        alpha: [B].
        sigma: [B].
    """
    return _as(alpha, clean) * clean + _as(sigma, clean) * noise


def target(
    kind: Parameterisation, clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor
) -> Tensor:
    """Return what the training loss compares a prediction of this kind with.

    Args:
        kind: what the network predicts.
        clean: x_0 [B, ...].
        noise: standard normal, same shape.
        alpha: [B].
        sigma: [B].
    """
    match kind:
        case Parameterisation.EPSILON:
            return noise
        case Parameterisation.SAMPLE:
            return clean
        case Parameterisation.FLOW:
            return noise - clean
        case Parameterisation.VELOCITY:
            return _as(alpha, clean) * noise - _as(sigma, clean) * clean


def clean_and_noise(
    kind: Parameterisation, prediction: Tensor, noisy: Tensor, alpha: Tensor, sigma: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the x_0 and the noise that a prediction implies.

    Args:
        kind: what `prediction` is.
        prediction: network output [B, ...].
        noisy: x_t, same shape.
        alpha: [B].
        sigma: [B].

    Raises:
        ValueError: the answer is not determined: predicted noise where alpha is 0 (pure noise, as
            at the last step of CogVideoX), or predicted x_0 where sigma is 0.
    """
    a, s = _as(alpha, noisy), _as(sigma, noisy)
    match kind:
        case Parameterisation.EPSILON:
            _refuse_zero(alpha, "epsilon", "alpha")
            return (noisy - s * prediction) / a, prediction
        case Parameterisation.SAMPLE:
            _refuse_zero(sigma, "sample", "sigma")
            return prediction, (noisy - a * prediction) / s
        case Parameterisation.FLOW:
            return (
                (noisy - s * prediction) / (a + s),
                (noisy + a * prediction) / (a + s),
            )
        case Parameterisation.VELOCITY:
            power = a * a + s * s
            return (a * noisy - s * prediction) / power, (s * noisy + a * prediction) / power


def convert(
    prediction: Tensor,
    noisy: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    source: Parameterisation,
    to: Parameterisation,
) -> Tensor:
    """Say the same prediction in another parameterisation.

    Args:
        prediction: network output [B, ...] of kind `source`.
        noisy: x_t, same shape.
        alpha: [B].
        sigma: [B].
        source: what `prediction` is.
        to: what is wanted.

    Raises:
        ValueError: as `clean_and_noise`.
    """
    if source is to:
        return prediction
    clean, noise = clean_and_noise(source, prediction, noisy, alpha, sigma)
    return target(to, clean, noise, alpha, sigma)


def _as(coefficient: Tensor, like: Tensor) -> Tensor:
    shape = (-1, *[1] * (like.ndim - 1))
    return coefficient.to(device=like.device, dtype=like.dtype).reshape(shape)


def _refuse_zero(coefficient: Tensor, kind: str, name: str) -> None:
    if torch.any(coefficient == 0):
        raise ValueError(
            f"a prediction of kind {kind!r} says nothing about the other half of x_t where "
            f"{name} is 0; use another timestep or parameterisation"
        )
