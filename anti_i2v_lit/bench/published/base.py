"""What all published models with random weights share: sizes, place, and a stand-in for text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from anti_i2v_lit.checks import check_at_least
from anti_i2v_lit.surrogates.prompts import PromptEmbedder


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is built.

    Attributes:
        dtype: of the weights.
        device: where they are made; "meta" for shapes alone.
        height: of the views, pixels; 0 for the published size.
        width: likewise.
        num_frames: of the clip, video frames; 0 for the published attack's four or the nearest
            length above that the model takes.
        num_blocks: blocks of the denoiser; 0 for all of them.
        activation_checkpointing: whether blocks are recomputed in the backward pass.
    """

    dtype: torch.dtype = torch.bfloat16
    device: str = "cpu"
    height: int = 0
    width: int = 0
    num_frames: int = 0
    num_blocks: int = 0
    activation_checkpointing: bool = True

    def __post_init__(self) -> None:
        """Refuse negative sizes."""
        for name in ("height", "width", "num_frames", "num_blocks"):
            check_at_least(getattr(self, name), 0, f"--{name.replace('_', '-')}")


@contextmanager
def made_in_place(size: Size) -> Iterator[None]:
    """New parameters appear on the device in the precision; the random state is left alone."""
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]), torch.device(size.device):
        torch.manual_seed(0)
        torch.set_default_dtype(size.dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def settle(dtype: torch.dtype, *modules: nn.Module) -> None:
    """Cast what a constructor made in a precision of its own; the rest is not touched."""
    for module in modules:
        nn.Module.to(module, dtype)  # models' own method warns about a list that is empty


class RandomText(nn.Module):
    """In the place of a text encoder: standard normal embeddings [1, L, width].

    Args:
        width: of the embeddings, the mark included.
        dtype: of the embeddings.
        marked: whether the last channel says which tokens are words; all are.
    """

    def __init__(self, width: int, dtype: torch.dtype, marked: bool) -> None:
        super().__init__()
        self.width, self.dtype, self.marked = width, dtype, marked

    def forward(self, tokens: Tensor, *_: Any, **__: Any) -> tuple[Tensor]:
        """Embed token ids [1, L]; their values count for nothing."""
        shape = (*tokens.shape, self.width - self.marked)
        words = torch.randn(shape, device=tokens.device, dtype=self.dtype)
        return (torch.cat([words, torch.ones_like(words[..., : int(self.marked)])], dim=-1),)


def random_prompts(
    width: int, max_tokens: int, dtype: torch.dtype, *, marked: bool = False
) -> PromptEmbedder:
    """Prompts of a model whose text encoder is not built.

    Args:
        width: of the embeddings, the mark included.
        max_tokens: tokens per prompt.
        dtype: of the embeddings.
        marked: as for `RandomText`.
    """

    def tokenize(texts: Any, **_: Any) -> SimpleNamespace:
        ids = torch.zeros(1, max_tokens, dtype=torch.long)
        return SimpleNamespace(input_ids=ids, attention_mask=torch.ones_like(ids))

    def load() -> Any:
        return tokenize, RandomText(width, dtype, marked)

    return PromptEmbedder(load, max_tokens, dtype)


def no_block_count(size: Size, model: str) -> None:
    """Refuse a number of blocks for a U-Net.

    Raises:
        ValueError: `num_blocks` is set.
    """
    if size.num_blocks:
        raise ValueError(
            f"--num-blocks {size.num_blocks}: {model} is a U-Net, whose levels differ; expected 0, "
            "lower --height and --width instead"
        )
