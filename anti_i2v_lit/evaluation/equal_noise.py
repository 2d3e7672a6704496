"""Random noise of the size of a cloak's residual: what a change of this size does by itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from anti_i2v_lit.data.framing import size_for_view
from anti_i2v_lit.ops.resize import resize
from anti_i2v_lit.seeds import generator_for

_ROUNDS = 8


def equal_noise(
    photo: Tensor,
    protected: Tensor,
    *,
    view_size: tuple[int, int],
    look: Callable[[Tensor], Tensor],
    key: str,
    purpose: str,
) -> Tensor:
    """A photo with noise that changes what a generator is shown as much as a cloak does.

    Gaussian, drawn on a grid as fine as the generator's view and enlarged to the photo. The root
    mean square change is equal in the view, not in the file: a cloak is computed for views, and
    noise of the file's own fineness would lose half of it or more in the resize to them, so that
    any cloak would beat it for that reason alone.

    Args:
        photo: [3, H, W] in [0, 1].
        protected: its cloak, same shape.
        view_size: (height, width) of what the generator is shown, pixels.
        look: picture of the photo's size -> what the generator is shown of it [3, h, w].
        key: the photo's name; with `purpose` it decides the numbers.
        purpose: for instance the protection that is copied in size.

    Returns:
        [3, H, W] in [0, 1], rounded to 8 bits. What is clipped at black and white is made up for
        elsewhere, so the size is met to about 1 %, or as far as the photo has room for it.
    """
    size = (photo.shape[-2], photo.shape[-1])
    grid, source = size_for_view(size, view_size), generator_for(0, key, 0, purpose)
    drawn = resize(torch.randn(1, 3, *grid, generator=source), size)[0]
    drawn = drawn / drawn.square().mean().sqrt().clamp_min(1e-12)
    seen = look(photo)
    wanted = _rms(look(protected) - seen)
    factor, noisy = wanted, photo
    for _ in range(_ROUNDS):
        noisy = ((photo + factor * drawn).clamp(0.0, 1.0) * 255).round() / 255
        made = _rms(look(noisy) - seen)
        if made <= 0 or abs(made - wanted) < 0.01 * wanted:
            break
        factor *= min(2.0, wanted / made)
    return noisy


def _rms(change: Tensor) -> float:
    return change.square().mean().sqrt().item()
