"""Longer clips than a model makes: each clip's last frame is the next one's photo."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from anti_i2v_lit.generators.base import VideoGenerator
from anti_i2v_lit.seeds import derived_seed


def chained(
    generator: VideoGenerator,
    views: Tensor,
    *,
    prompts: Sequence[str],
    seeds: Sequence[int],
    keys: Sequence[str],
    chains: int,
) -> Tensor:
    """Clips of `chains + 1` links, frames rounded to 8 bits as a file of them would be.

    Args:
        generator: the model.
        views: [B, 3, H, W] in [0, 1].
        prompts: one text per photo.
        seeds: one seed per photo; a link's own derives from it, the key and its number.
        keys: names of the photos.
        chains: how often a last frame is fed back.

    Returns:
        [B, (chains + 1) * T, 3, H, W] in [0, 1]; link n begins at frame n * T with the model's
        version of the last frame before it.
    """
    links, shown = [], views
    for link in range(chains + 1):
        own = [derived_seed(s, k, link, "clip") for s, k in zip(seeds, keys, strict=True)]
        made = (generator.generate(shown, prompts, own) * 255).round() / 255
        links.append(made)
        shown = made[:, -1]
    return torch.cat(links, dim=1)
