"""Loading an autoencoder of a diffusers folder without its decoder, which is never read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)
_STEM = "diffusion_pytorch_model"


def load_without_decoder(
    network_class: type[Network], folder: Path, dtype: torch.dtype, variant: str | None = None
) -> Network:
    """Load a diffusers autoencoder with everything but its child `decoder`.

    Nothing is allocated before the weights come; each tensor that is kept is mapped from the file
    and converted alone, so that no second copy of the network exists at any time.

    Args:
        network_class: an autoencoder class of diffusers.
        folder: with `config.json` and whole or sharded safetensors weights.
        dtype: of all weights.
        variant: "fp16" for files of that variant, None for the plain ones.

    Raises:
        ValueError: weights are missing, or names or shapes are not the class's.
    """
    loader: Any = network_class
    with init_empty_weights():
        network = loader.from_config(loader.load_config(folder))
    del network.decoder
    state: dict[str, Tensor] = {}
    for file in weight_files(folder, variant):
        with safe_open(file, framework="pt") as stored:
            kept = [key for key in stored.keys() if not key.startswith("decoder.")]  # noqa: SIM118
            state.update({key: stored.get_tensor(key).to(dtype) for key in kept})
    try:
        network.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{folder} does not hold a {network_class.__name__}: {error}") from error
    return network.eval()


def weight_files(folder: Path, variant: str | None = None) -> list[Path]:
    """Return the safetensors files of a diffusers network: one, or those of its index.

    Raises:
        ValueError: neither is there.
    """
    suffix = f".{variant}" if variant else ""
    whole = folder / f"{_STEM}{suffix}.safetensors"
    index = folder / f"{_STEM}.safetensors.index{suffix}.json"
    if whole.is_file():
        return [whole]
    if not index.is_file():
        raise ValueError(f"{folder}: expected {whole.name} or {index.name}, found neither")
    parts = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return [folder / name for name in sorted(set(parts))]
