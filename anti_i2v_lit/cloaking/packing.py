"""Reference features at half the bytes, where nothing is lost by it.

Adapters hand out float32. What a bfloat16 model computed fits into bfloat16 exactly, and a photo
keeps the features of all its draws: gigabytes, for the published models.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from anti_i2v_lit.types import Observation

Fits = Callable[[Tensor], bool]


def is_exact(values: Tensor) -> bool:
    """Whether bfloat16 holds these values without rounding any."""
    return torch.equal(values.to(torch.bfloat16).to(values.dtype), values)


def packed(observation: Observation, fits: Fits = is_exact) -> Observation:
    """The observation with those features in bfloat16 that fit; the rest is left alone.

    Args:
        observation: detached.
        fits: decides for a float32 tensor; another than `is_exact` only to count shapes.
    """

    def smaller(values: Tensor) -> Tensor:
        wide = values.dtype == torch.float32
        return values.to(torch.bfloat16) if wide and fits(values) else values

    return _mapped(observation, smaller)


def unpacked(observation: Observation) -> Observation:
    """The observation with all features in float32 again, bit for bit."""
    return _mapped(observation, Tensor.float)


def _mapped(observation: Observation, change: Callable[[Tensor], Tensor]) -> Observation:
    condition, denoised = observation.condition, observation.denoised
    if condition is not None:
        features = {name: change(values) for name, values in condition.features.items()}
        condition = dataclasses.replace(condition, features=features)
    if denoised is not None:
        features = {name: change(values) for name, values in denoised.features.items()}
        denoised = dataclasses.replace(denoised, features=features)
    return dataclasses.replace(observation, condition=condition, denoised=denoised)
