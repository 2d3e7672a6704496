"""A miniature whose weights follow a formula, for numbers of the published implementation.

`published.json` holds what the published code (hpcaitech/Open-Sora, branch opensora/v1.2) computed
with these weights: its sampler with masks and guidance, and the network inside its training loss.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anti_i2v_lit.surrogates.open_sora.loading import OpenSoraParts
from anti_i2v_lit.surrogates.open_sora.miniature import MAX_WORDS, tiny_parts, tiny_text_model
from anti_i2v_lit.surrogates.prompts import PromptEmbedder

PROMPT = "A person is talking."
SIZE, FRAMES = (16, 24), 17


def fill(module: nn.Module, prefix: str) -> None:
    """Matrices and kernels: sines of their indices, scaled to keep values small; biases: 0.

    The sine's phase depends on the name, so that no two tensors are alike, unless `prefix` is
    empty: the names inside the text encoder belong to another library.
    """
    with torch.no_grad():
        for name, value in module.named_parameters():
            if name.endswith("freqs"):
                continue
            if value.ndim < 2:
                value.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
                continue
            number = zlib.crc32(f"{prefix}.{name}".encode()) % 1000 if prefix else 0
            steps = torch.arange(value.numel(), dtype=torch.float64)
            wave = torch.sin(steps * (1.0 + 0.37 * (number % 11)) + number)
            value.copy_((0.6 * wave / (0.5 * value[0].numel()) ** 0.5).reshape(value.shape))


def patterned_parts() -> OpenSoraParts:
    """The miniature with the formula's weights in denoiser, autoencoder and text encoder."""
    parts = tiny_parts()
    tokenizer, encoder = tiny_text_model()
    for module, prefix in ((parts.denoiser, "denoiser"), (parts.vae, "vae"), (encoder, "")):
        fill(module, prefix)
    embedding = parts.denoiser.y_embedder.y_embedding
    embedding.copy_(torch.sin(0.7 * torch.arange(embedding.numel())).reshape(embedding.shape))
    prompts = PromptEmbedder(lambda: (tokenizer, encoder), MAX_WORDS, torch.float32)
    return dataclasses.replace(parts, prompts=prompts)


def photo() -> Tensor:
    """A smooth picture [1, 3, H, W] in [0, 1]."""
    steps = torch.arange(3 * SIZE[0] * SIZE[1], dtype=torch.float64)
    return (0.5 + 0.4 * torch.sin(steps * 0.05)).float().reshape(1, 3, *SIZE)


def waves(shape: tuple[int, ...], speed: float) -> Tensor:
    """Numbers of mean zero and spread one, by a formula."""
    steps = torch.arange(int(torch.tensor(shape).prod()), dtype=torch.float64)
    return (2**0.5 * torch.sin(steps * speed + 0.3)).float().reshape(shape)


def published() -> dict[str, Any]:
    """Numbers of the published implementation."""
    return json.loads((Path(__file__).parent / "published.json").read_text())
