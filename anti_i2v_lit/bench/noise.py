"""The baseline that knows nothing: random signs at the budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from anti_i2v_lit.data.folder import SourceFile
from anti_i2v_lit.data.framing import Framing, size_for_view
from anti_i2v_lit.data.reading import read_photo
from anti_i2v_lit.data.writing import output_names, write_photo
from anti_i2v_lit.seeds import generator_for
from anti_i2v_lit.settings import Settings


def write_noise(
    photos: Sequence[SourceFile], folder: Path, settings: Settings, view_size: tuple[int, int]
) -> None:
    """Write noisy photos: signs on the view's grid, carried to full size and written like a cloak.

    Finer signs would be averaged away before any model sees them, and every row would beat them.
    Files that exist are kept; a file under its final name is whole.

    Args:
        photos: clean photos.
        folder: where the noisy ones go.
        settings: budget, seed, canvas, reading and writing.
        view_size: of the surrogate that the canvas is made for.

    Raises:
        PhotoFailure: a photo cannot be read or written.
    """
    framing = Framing(settings.framing)
    names = output_names([photo.key for photo in photos], settings.output)
    for source in photos:
        path = folder / names[source.key]
        if path.is_file():
            continue
        photo = read_photo(source, settings.reading)
        size = framing.canvas_size(photo.size, view_size)
        grid = size_for_view(size, view_size)
        signs = sign_noise(settings.seed, source.key, grid, settings.attack.budget_8bit)
        on_canvas = functional.interpolate(signs[None], size=size, mode="nearest-exact")[0]
        residual = framing.to_photo(on_canvas, photo.size)
        write_photo(photo.changed(residual, settings.attack.budget_8bit), path, settings.output)


def sign_noise(seed: int, key: str, size: tuple[int, int], budget_8bit: float) -> Tensor:
    """Independent signs times the budget, [3, h, w] in [0, 1] units; a function of seed and key."""
    generator = generator_for(seed, key, 0, "sign noise")
    signs = torch.randint(0, 2, (3, *size), generator=generator) * 2.0 - 1.0
    return signs * (budget_8bit / 255)
