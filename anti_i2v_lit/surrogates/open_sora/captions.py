"""Captions as Open-Sora 1.2 was trained on them, and T5 states that remember their padding."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import T5EncoderModel

_PLAIN = str.maketrans({**dict.fromkeys("‐‑‒–—―−", "-"), **dict.fromkeys("“”„«»`´", '"')})
_PLAIN.update(str.maketrans({"‘": "'", "’": "'"}))
_HYPHENS = re.compile(r"[-_]")
_MANY_HYPHENS = 4  # as in a file name, not in a sentence
_SYMBOLS = re.compile(r"[#®•©™&@·º½¾¿¡§~()\[\]{}|\\/*]+")


def caption_of(prompt: str, aesthetic_score: float) -> str:
    """Word a prompt as the published sampler does: score appended, cleaned, lower case.

    The published cleaning (that of PixArt-alpha) also removes web addresses, file names and codes
    of scraped captions; a prompt that somebody wrote has none, and that part is left out.

    Args:
        prompt: any text.
        aesthetic_score: wanted, about 4 to 7; 0 appends nothing.
    """
    if aesthetic_score and "aesthetic score:" not in prompt:
        prompt = f"{prompt} aesthetic score: {aesthetic_score:.1f}."
    text = html.unescape(prompt).lower().translate(_PLAIN)
    text = _SYMBOLS.sub(" ", text)
    if len(_HYPHENS.findall(text)) >= _MANY_HYPHENS:
        text = _HYPHENS.sub(" ", text)
    text = re.sub(r"(?<=\D[,.])(?=\w)", " ", text)
    return re.sub(r"\s+", " ", text).strip()


class MaskedTextEncoder(nn.Module):
    """A T5 encoder that does not look at padding, and returns which words are padding.

    `PromptEmbedder` keeps one tensor per text; the mask rides in it as one more channel, which
    `masked_text.split_mark` takes off again.

    Args:
        encoder: of the T5 class.
    """

    def __init__(self, encoder: T5EncoderModel) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, tokens: Tensor) -> tuple[Tensor]:
        """Map token ids [B, L] to states with the mask as last channel [B, L, D + 1]."""
        valid = tokens.ne(self.encoder.config.pad_token_id or 0)
        states = self.encoder(tokens, attention_mask=valid.long())[0]
        return (torch.cat([states, valid[..., None].to(states)], dim=-1),)
