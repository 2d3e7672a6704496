"""Arithmetic that objectives share: which taps a term uses, and distances per photo."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from anti_i2v_lit.checks import check_between, check_in
from anti_i2v_lit.types import Condition, Denoised, Observation


def chosen_taps(
    configured: Sequence[str], known: Sequence[str], automatic: Sequence[str], what: str
) -> tuple[str, ...]:
    """The configured taps, checked, or the automatic ones if none are configured.

    Args:
        configured: names, or shares of the depth such as "0.5"; empty means automatic.
        known: the surrogate's taps.
        automatic: names to use when nothing is configured.
        what: "denoiser tap" or "encoder tap", for messages.

    Raises:
        ValueError: an unknown name, a share outside [0, 1], two that are the same tap, or a
            surrogate that has none of these taps.
    """
    if not known:
        raise ValueError(
            f"expected a surrogate with at least one {what}, got none; remove the objective"
        )
    found = tuple(_tap(name, known, what) for name in configured)
    if len(set(found)) < len(found):
        raise ValueError(
            f"{what}s {', '.join(configured)} are {', '.join(found)} of this surrogate; expected "
            "different ones"
        )
    return found or tuple(automatic)


def _tap(wanted: str, known: Sequence[str], what: str) -> str:
    """The tap of a name, or the one nearest to a share of the depth."""
    try:
        share = float(wanted)
    except ValueError:
        check_in(wanted, known, what)
        return wanted
    check_between(share, 0.0, 1.0, f"{what} as a share of the depth")
    return known[round(share * (len(known) - 1))]


def condition_of(observation: Observation) -> Condition:
    """The condition of an observation that was requested with one."""
    assert observation.condition is not None, "the term requested a condition"
    return observation.condition


def denoised_of(observation: Observation) -> Denoised:
    """The denoiser's answer in an observation that was requested with one."""
    assert observation.denoised is not None, "the term requested the denoiser"
    return observation.denoised


def mean_square(values: Tensor) -> Tensor:
    """Mean of squares per photo, float32 [B], of a tensor [B, ...]."""
    return values.float().square().flatten(1).mean(dim=1)


def spread(values: Tensor) -> Tensor:
    """Variance per photo about the photo's own mean, float32 [B], of a tensor [B, ...]."""
    flat = values.detach().float().flatten(1)
    return (flat - flat.mean(dim=1, keepdim=True)).square().mean(dim=1)


def channel_statistics(tokens: Tensor, num_channels: int) -> Tensor:
    """Mean and standard deviation of each channel over the tokens, [B, 2, num_channels].

    This is what can be compared between blocks of different resolution (METHOD.md, U-Nets).
    Where widths differ too, neighbouring channels are averaged down to `num_channels`.

    Args:
        tokens: [B, N, D] with D >= num_channels.
        num_channels: width of the result.
    """
    tokens = tokens.float()
    # The offset keeps the gradient of the root finite where a channel is constant.
    deviation = (tokens.var(dim=1, correction=0) + 1e-12).sqrt()
    statistics = torch.stack([tokens.mean(dim=1), deviation], dim=1)
    if statistics.shape[-1] == num_channels:
        return statistics
    return F.adaptive_avg_pool1d(statistics, num_channels)


def comparable(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two feature maps in a form that can be subtracted.

    Maps of equal shape (the blocks of a transformer) are returned as they are, so that every
    token is compared with itself. Others (the levels of a U-Net) become channel statistics.

    Args:
        first: tokens [B, N, D].
        second: tokens [B, M, E].
    """
    if first.shape == second.shape:
        return first, second
    width = min(first.shape[-1], second.shape[-1])
    return channel_statistics(first, width), channel_statistics(second, width)
