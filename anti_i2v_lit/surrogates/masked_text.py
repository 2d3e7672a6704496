"""T5-like encoders whose padding matters: what `PromptEmbedder` runs for Wan and LTX-Video.

Both wrap a text encoder as a network from token ids [1, L] to a tuple with the embedding
[1, L, D] first, as `PromptEmbedder` calls it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class ZeroPadded(nn.Module):
    """Wan's way: padding is masked inside the encoder and its embeddings are set to zero.

    Args:
        encoder: a UMT5 encoder.
        pad_id: token id of padding.
    """

    def __init__(self, encoder: Any, pad_id: int) -> None:
        super().__init__()
        self.encoder, self.pad_id = encoder, pad_id

    def forward(self, tokens: Tensor) -> tuple[Tensor]:
        """Return embeddings [1, L, D] of token ids [1, L]."""
        mask = tokens != self.pad_id
        hidden = self.encoder(tokens, mask.long()).last_hidden_state
        return (hidden * mask[..., None],)


class Marked(nn.Module):
    """LTX-Video's way: padding is embedded like words, and the denoiser masks it.

    The mask travels as one more channel, 1 for words and 0 for padding, so that an embedding and
    its mask are stored together; `split_mark` takes them apart.

    Args:
        encoder: a T5 encoder.
        pad_id: token id of padding.
    """

    def __init__(self, encoder: Any, pad_id: int) -> None:
        super().__init__()
        self.encoder, self.pad_id = encoder, pad_id

    def forward(self, tokens: Tensor) -> tuple[Tensor]:
        """Return embeddings with their mask [1, L, D + 1] of token ids [1, L]."""
        hidden = self.encoder(tokens).last_hidden_state
        mask = (tokens != self.pad_id)[..., None].to(hidden)
        return (torch.cat([hidden, mask], dim=-1),)


def split_mark(marked: Tensor) -> tuple[Tensor, Tensor]:
    """Return embeddings [B, L, D] and mask [B, L], bool, of what `Marked` made."""
    return marked[..., :-1], marked[..., -1] > 0.5
