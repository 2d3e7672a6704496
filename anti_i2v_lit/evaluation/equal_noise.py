"""Random noise of the size of a cloak's residual: what a change of this size does by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from anti_i2v_lit.ops.resize import resize
from anti_i2v_lit.seeds import generator_for

_ROUNDS = 8


def equal_noise(
    photo: Tensor, rms_8bit: float, *, key: str, purpose: str, canvas_side_px: int
) -> Tensor:
    """A photo with noise whose written root mean square change is that of a cloak.

    Gaussian, drawn on a grid whose shorter side is `canvas_side_px` and enlarged to the photo:
    white noise at full size would be averaged away by the resize to a generator's frame, and a
    cloak would beat it for that reason alone.

    Args:
        photo: [3, H, W] in [0, 1].
        rms_8bit: size of the change, grey levels, at least 0.
        key: the photo's name; with `purpose` it decides the numbers.
        purpose: for instance the protection that is copied in size.
        canvas_side_px: shorter side of the grid, at most the photo's own.

    Returns:
        [3, H, W] in [0, 1], rounded to 8 bits. What is clipped at black and white is made up for
        elsewhere, so the size is met to about 1 %, or as far as the photo has room for it.
    """
    height, width = photo.shape[-2:]
    scale = min(1.0, canvas_side_px / min(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    source = generator_for(0, key, 0, purpose)
    drawn = resize(torch.randn(1, 3, *size, generator=source), (height, width))[0]
    drawn = drawn / drawn.square().mean().sqrt().clamp_min(1e-12)
    factor, wanted = rms_8bit / 255, rms_8bit / 255
    noisy = photo
    for _ in range(_ROUNDS):
        noisy = ((photo + factor * drawn).clamp(0.0, 1.0) * 255).round() / 255
        made = (noisy - photo).square().mean().sqrt().item()
        if made <= 0 or abs(made - wanted) < 0.01 * wanted:
            break
        factor *= min(2.0, wanted / made)
    return noisy
