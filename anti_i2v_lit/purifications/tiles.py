"""Running a network of a fixed size over larger images, in overlapping tiles."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from anti_i2v_lit.purifications.working_size import pad_to

_TILES_AT_ONCE = 64  # bounds memory on large photos


def tile_starts(length: int, side: int, stride: int) -> list[int]:
    """Where tiles begin along an axis: every `stride`, and the last one flush with the end.

    Args:
        length: of the axis, pixels, at least `side`.
        side: of the tiles, pixels.
        stride: from tile to tile, pixels.
    """
    starts = list(range(0, length - side + 1, stride))
    return starts if starts[-1] == length - side else [*starts, length - side]


def over_tiles(
    images: Tensor, side: int, stride: int, change: Callable[[Tensor], Tensor]
) -> Tensor:
    """Change every tile by itself; where tiles overlap, take the mean.

    Args:
        images: [B, C, H, W]; sides shorter than a tile are continued by repetition.
        side: of the square tiles, pixels.
        stride: from tile to tile, pixels.
        change: [N, C, side, side] to the same shape.

    Returns:
        [B, C, H, W].
    """
    total, count = tile_sums(images, side, stride, change)
    return (total / count)[..., : images.shape[-2], : images.shape[-1]]


def tile_sums(
    images: Tensor, side: int, stride: int, change: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """The sum over changed tiles, and how many tiles cover each pixel; see `over_tiles`.

    Returns:
        [B, C, H', W'] and [1, 1, H', W'], the padded size.
    """
    padded = pad_to(images, (side, side))
    height, width = padded.shape[-2:]
    places = [
        (top, left)
        for top in tile_starts(height, side, stride)
        for left in tile_starts(width, side, stride)
    ]
    tiles = torch.stack([padded[..., t : t + side, x : x + side] for t, x in places])
    flat = tiles.flatten(0, 1)
    changed = torch.cat([change(part) for part in flat.split(_TILES_AT_ONCE)])
    total, count = torch.zeros_like(padded), padded.new_zeros(1, 1, height, width)
    for (top, left), tile in zip(places, changed.view_as(tiles), strict=True):
        total[..., top : top + side, left : left + side] += tile
        count[..., top : top + side, left : left + side] += 1.0
    return total, count
