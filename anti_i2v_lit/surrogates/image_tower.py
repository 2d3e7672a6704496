"""Loading a CLIP image tower of a diffusers folder without a converted copy in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from torch import nn

Tower = TypeVar("Tower", bound=nn.Module)
_STORED = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}


def load_image_tower(
    tower_class: type[Tower], folder: Path, dtype: torch.dtype, variant: str | None = None
) -> Tower:
    """Load a CLIP vision model of transformers, frozen.

    That library converts weights in threads of its own, where `ConvertedInFiles` does not reach
    them. So they are asked for in the precision of their files, in which they stay mapped from
    these, and each is converted here.

    Args:
        tower_class: a vision model class of transformers.
        folder: with `config.json` and whole or sharded safetensors weights.
        dtype: of all weights.
        variant: "fp16" for files of that variant, None for the plain ones.
    """
    loader: Any = tower_class
    tower: Tower = loader.from_pretrained(
        folder,
        dtype=_stored_dtype(folder, variant) or dtype,
        variant=variant,
        local_files_only=True,
    )
    # A weight that asks for gradients would not be converted into a file.
    return tower.requires_grad_(False).to(dtype)


def _stored_dtype(folder: Path, variant: str | None) -> torch.dtype | None:
    """The one precision of a folder's weights; None where they have several, or another kind."""
    found: set[str] = set()
    for file in folder.glob("*.safetensors"):
        if (variant or "") != _variant_of(file):
            continue
        with safe_open(file, framework="pt") as stored:
            found |= {stored.get_slice(key).get_dtype() for key in stored.keys()}  # noqa: SIM118
    found -= {"I64"}  # positions, which older files have among their weights
    return _STORED.get(found.pop()) if len(found) == 1 else None


def _variant_of(file: Path) -> str:
    """Return "fp16" of `model.fp16.safetensors` and `model.fp16-00001-of-00002.safetensors`."""
    words = file.name.split(".")[1:-1]
    return words[0].split("-")[0] if words else ""
