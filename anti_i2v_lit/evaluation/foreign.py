"""A foreign encoder: TAEF2, a distilled autoencoder of FLUX.2's latents, trained by others."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from anti_i2v_lit.checks import check_photos

ENCODER_FILE = "taef2_encoder.pth"
HOW_TO_GET = (
    f"It is {ENCODER_FILE} of github.com/madebyollin/taesd (MIT); put it into the weights folder"
)
_CHANNELS = 64
_DOWNSAMPLING = (2, 6, 10)  # positions of the stride-2 convolutions
_NORMALISED = (11, 12, 13)  # blocks with a group-normalised side branch
_LAST = 14


class TinyBlock(nn.Module):
    """Three 3x3 convolutions around a skip, after an optional group-normalised 1x1 branch.

    Args:
        normalised: whether the branch exists.
    """

    def __init__(self, normalised: bool) -> None:
        super().__init__()
        width = _CHANNELS
        self.conv = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.pool: nn.Sequential | None = None
        if normalised:
            self.pool = nn.Sequential(
                nn.Conv2d(width, 4 * width, 1, bias=False),
                nn.GroupNorm(4, 4 * width),
                nn.ReLU(),
                nn.Conv2d(4 * width, width, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the input's shape."""
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class ForeignEncoder:
    """TAEF2's encoder, frozen: photos [B, 3, H, W] in [0, 1] to latents [B, 32, H/8, W/8].

    Source: madebyollin, "TAESD", 2023 to 2026; the FLUX.2 variant has group-normalised blocks at
    the coarsest level.

    Args:
        path: `taef2_encoder.pth`, read with `weights_only`.

    Raises:
        ValueError: the file is missing or holds something else.
    """

    ratio = 8

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ValueError(f"foreign encoder: expected a file, got {path}. {HOW_TO_GET}")
        self.network = nn.Sequential(*(_layer(i) for i in range(_LAST + 1)))
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.network.load_state_dict({name: value.float() for name, value in state.items()})
        except (RuntimeError, AttributeError, pickle.UnpicklingError) as error:
            first = str(error).split("\n")[0]
            raise ValueError(f"{path} is not TAEF2's encoder: {first}. {HOW_TO_GET}") from error
        self.network.requires_grad_(False).eval()

    @torch.no_grad()
    def encode(self, photos: Tensor) -> Tensor:
        """Return latents; sides must be multiples of 8 pixels.

        Raises:
            ValueError: wrong shape, range or size.
        """
        check_photos(photos)
        if photos.shape[-2] % self.ratio or photos.shape[-1] % self.ratio:
            raise ValueError(
                f"photos: expected sides that are multiples of {self.ratio} pixels, got "
                f"{tuple(photos.shape[-2:])}"
            )
        return self.network(photos)


def _layer(position: int) -> nn.Module:
    if position == 0:
        return nn.Conv2d(3, _CHANNELS, 3, padding=1)
    if position in _DOWNSAMPLING:
        return nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1, stride=2, bias=False)
    if position == _LAST:
        return nn.Conv2d(_CHANNELS, 32, 3, padding=1)
    return TinyBlock(position in _NORMALISED)
