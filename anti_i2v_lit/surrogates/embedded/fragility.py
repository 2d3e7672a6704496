"""How far small perturbations move a latent: the property an embedded encoder must share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from anti_i2v_lit.surrogates.embedded.photos import seeded


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fragility:
    """RMS displacement of the latent in standard deviations of the clean latent."""

    attacked: float  # after the sign attack
    random: float  # after random sign noise of the same strength


def measure_fragility(
    encode: Callable[[Tensor], Tensor],
    image: Tensor,
    *,
    levels: float = 16.0,
    steps: int = 60,
    step_levels: float = 4.0,
    seed: int = 0,
) -> Fragility:
    """Attack an encoder alone, maximising the squared distance of the latent.

    Args:
        encode: Differentiable map from images ``[B, 3, H, W]`` in [-1, 1] to latents.
        image: Such images.
        levels: Largest change of a value, grey levels of 255.
        steps: Sign-gradient steps.
        step_levels: Length of the first step in grey levels; it falls linearly to a tenth.
        seed: Seed of the noise and of the attack's start.
    """
    bound = levels / 127.5
    generator = seeded(seed, 0, "fragility")
    signs = torch.randint(0, 2, image.shape, generator=generator).to(image) * 2 - 1
    with torch.no_grad():
        clean = encode(image)
        scale = clean.std()
        noisy = (image + bound * signs).clamp(-1, 1)
        random = (encode(noisy) - clean).square().mean().sqrt() / scale
    moved = (image + 0.1 * bound * signs).clamp(-1, 1)
    for step in range(steps):
        moved.requires_grad_(True)
        gain = (encode(moved) - clean).square().mean()
        (slope,) = torch.autograd.grad(gain, moved)
        length = step_levels / 127.5 * (1.0 - 0.9 * step / max(1, steps - 1))
        moved = moved.detach() + length * slope.sign()
        moved = (image + (moved - image).clamp(-bound, bound)).clamp(-1, 1)
    with torch.no_grad():
        attacked = (encode(moved) - clean).square().mean().sqrt() / scale
    return Fragility(attacked=float(attacked), random=float(random))
