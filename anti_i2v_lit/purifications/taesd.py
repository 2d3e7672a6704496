"""Tiny autoencoders in their author's own layout: an encoder and a decoder file.

madebyollin, "TAESD: Tiny AutoEncoder for Stable Diffusion", github.com/madebyollin/taesd, MIT. The
networks are plain sequences, so their state dicts say what they are: convolutions without a bias
change the size, and blocks of later variants (FLUX.2) have a group-normalised side branch.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)
_LATENT_LIMIT = 3.0
_POOL_GROUPS = 4
_ENCODER, _DECODER = "_encoder.pth", "_decoder.pth"


class _Block(nn.Module):
    """Three convolutions around a skip, after an optional side branch."""

    def __init__(self, width: int, side_width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        self.conv = nn.Sequential(*layers[:-1])
        self.pool: nn.Sequential | None = None
        if side_width:
            self.pool = nn.Sequential(
                nn.Conv2d(width, side_width, 1, bias=False),
                nn.GroupNorm(_POOL_GROUPS, side_width),
                nn.ReLU(),
                nn.Conv2d(side_width, width, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class _SoftLimit(nn.Module):
    """Keeps latents within a range."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / _LATENT_LIMIT) * _LATENT_LIMIT


class TinyAutoencoder(nn.Module):
    """Encoder and decoder; pixels in [0, 1] on both sides.

    Args:
        encoder: state dict of the encoder.
        decoder: state dict of the decoder.

    Raises:
        RuntimeError: names or shapes that do not make a network.
    """

    def __init__(self, encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.encoder = _encoder(encoder)
        self.decoder = _sequence(decoder, enlarges=True)

    def forward(self, photos: Tensor) -> Tensor:
        """Photos [B, 3, H, W] in [0, 1] through both; may overshoot [0, 1]."""
        return self.decoder(self.encoder(photos))


def tiny_files(folder: Path) -> tuple[Path, Path] | None:
    """The encoder's and the decoder's file of a folder, or None if there is no single pair."""
    encoders = sorted(folder.glob(f"*{_ENCODER}"))
    if len(encoders) != 1:
        return None
    decoder = encoders[0].with_name(encoders[0].name.removesuffix(_ENCODER) + _DECODER)
    return (encoders[0], decoder) if decoder.is_file() else None


def load_tiny(encoder: Path, decoder: Path) -> TinyAutoencoder:
    """Load both files, with `weights_only`.

    Raises:
        ValueError: they hold something else.
    """
    return _loaded(TinyAutoencoder, encoder, decoder)


def load_tiny_encoder(path: Path) -> nn.Sequential:
    """Load an encoder alone, with `weights_only`: photos [B, 3, H, W] in [0, 1] to latents.

    Raises:
        ValueError: the file holds something else.
    """
    return _loaded(_encoder, path)


def _encoder(state: Mapping[str, Tensor]) -> nn.Sequential:
    return _sequence(state, enlarges=False)


def _loaded(make: Callable[..., M], *paths: Path) -> M:
    try:
        states = [torch.load(path, map_location="cpu", weights_only=True) for path in paths]
        return make(*states)
    except (RuntimeError, AttributeError, LookupError, ValueError, pickle.UnpicklingError) as error:
        first = str(error).split("\n")[0]
        raise ValueError(f"{paths[0]}: not a tiny autoencoder: {first}") from error


def _sequence(state: Mapping[str, Tensor], enlarges: bool) -> nn.Sequential:
    """The network that a state dict says it belongs to, with these weights.

    Raises:
        RuntimeError, LookupError, ValueError: it says no such thing.
    """
    positions = {int(name.split(".")[0]) for name in state}
    layers: list[nn.Module] = []
    for position in range(max(positions) + 1):
        if position in positions:
            layers.append(_layer(state, position, enlarges))
        elif position == 0:
            layers.append(_SoftLimit())
        elif f"{position + 1}.weight" in state:
            layers.append(nn.Upsample(scale_factor=2))
        else:
            layers.append(nn.ReLU())
    network = nn.Sequential(*layers)
    network.load_state_dict({name: value.float() for name, value in state.items()})
    return network


def _layer(state: Mapping[str, Tensor], position: int, enlarges: bool) -> nn.Module:
    kernel = state.get(f"{position}.weight")
    if kernel is None:
        side = state.get(f"{position}.pool.0.weight")
        width = state[f"{position}.conv.0.weight"].shape[0]
        return _Block(width, 0 if side is None else side.shape[0])
    has_bias = f"{position}.bias" in state
    stride = 1 if has_bias or enlarges else 2
    return nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, stride, padding=1, bias=has_bias)
