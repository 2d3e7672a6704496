"""OpenCLIP's two towers as the published checkpoints hold them: photo tokens and text tokens.

Radford et al. 2021, "CLIP", arXiv 2103.00020, in OpenCLIP's ViT-H-14. The image embedder of the
checkpoints still carries the text tower's embeddings, and the text embedder its projection: they
are part of the layout, compute nothing here, and can be dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from anti_i2v_lit.surrogates.blocks import recomputed
from anti_i2v_lit.surrogates.dynamicrafter.resizing import resizing_matrix

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_MLP_RATIO = 4


@dataclass(frozen=True, kw_only=True)
class TowerSettings:
    """Size of one tower.

    Attributes:
        width: channels of a token.
        layers: number of blocks.
        heads: heads of every attention.
    """

    width: int
    layers: int
    heads: int


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """Size of an OpenCLIP model; the defaults are ViT-H-14.

    Attributes:
        embed_dim: width of the space that both towers project into.
        image: image tower.
        text: text tower.
        image_size: side of the photos that the image tower takes, pixels.
        patch_size: side of a patch, pixels.
        context_length: tokens of a prompt.
        vocab_size: known tokens.
    """

    embed_dim: int = 1024
    image: TowerSettings = TowerSettings(width=1280, layers=32, heads=16)
    text: TowerSettings = TowerSettings(width=1024, layers=24, heads=16)
    image_size: int = 224
    patch_size: int = 14
    context_length: int = 77
    vocab_size: int = 49408


class ImageEmbedder(nn.Module):
    """Photos to the tokens of the image tower's last block, class token first.

    Args:
        settings: sizes.
    """

    def __init__(self, settings: ClipSettings) -> None:
        super().__init__()
        self.image_size = settings.image_size
        self.checkpointing = False
        self.model = _TextEnds(settings)
        self.model.visual = _ImageTower(settings)
        self._matrices: dict[tuple[int, torch.device], Tensor] = {}

    def drop_text(self) -> None:
        """Let go of the text tower's embeddings, which this embedder does not use."""
        for name in _TextEnds.NAMES:
            delattr(self.model, name)

    def forward(self, photos: Tensor) -> Tensor:
        """Photos [B, 3, H, W] in [-1, 1], float32, to tokens [B, 1 + patches, width]."""
        return self.model.visual(self.preprocess(photos), self.checkpointing)

    def preprocess(self, photos: Tensor) -> Tensor:
        """As published: antialiased bicubic resizing to the tower's side, CLIP's mean and scale.

        The resizing is that of `kornia.geometry.resize(..., interpolation="bicubic",
        align_corners=True, antialias=True)`, as two matrices, whose gradients repeat on any
        device.

        Args:
            photos: [B, 3, H, W] in [-1, 1], float32.

        Returns:
            [B, 3, side, side], float32.
        """
        rows, columns = (self._matrix(n, photos.device) for n in photos.shape[-2:])
        resized = rows @ photos @ columns.T
        mean, std = (photos.new_tensor(v)[:, None, None] for v in (_MEAN, _STD))
        return ((resized + 1.0) / 2.0 - mean) / std

    def _matrix(self, size: int, device: torch.device) -> Tensor:
        key = (size, device)
        if key not in self._matrices:
            self._matrices[key] = resizing_matrix(size, self.image_size).to(device)
        return self._matrices[key]


class TextEmbedder(nn.Module):
    """Prompts to the tokens after the last but one block, normalised.

    Args:
        settings: sizes.
        penultimate: whether the last block is left out, as in the published models.
    """

    def __init__(self, settings: ClipSettings, penultimate: bool = True) -> None:
        super().__init__()
        self.penultimate = penultimate
        self.model = _TextEnds(settings)
        self.model.transformer = _Blocks(settings.text)

    def forward(self, tokens: Tensor) -> tuple[Tensor]:
        """Token ids [B, context_length] to embeddings [B, context_length, width], in a tuple."""
        hidden = self.model.token_embedding(tokens) + self.model.positional_embedding
        blocks = self.model.transformer.resblocks
        for block in blocks[: len(blocks) - (1 if self.penultimate else 0)]:
            hidden = block(hidden, causal=True)
        return (self.model.ln_final(hidden),)


class _TextEnds(nn.Module):
    """What an OpenCLIP model holds besides its towers' blocks."""

    NAMES = (
        "positional_embedding",
        "text_projection",
        "logit_scale",
        "token_embedding",
        "ln_final",
    )

    visual: _ImageTower
    transformer: _Blocks

    def __init__(self, settings: ClipSettings) -> None:
        super().__init__()
        width = settings.text.width
        self.positional_embedding = _normal(settings.context_length, width)
        self.text_projection = _normal(width, settings.embed_dim)
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.token_embedding = nn.Embedding(settings.vocab_size, width)
        self.ln_final = nn.LayerNorm(width)


class _ImageTower(nn.Module):
    """A vision transformer; its final normalisation and projection belong to the layout only."""

    def __init__(self, settings: ClipSettings) -> None:
        super().__init__()
        width, patch = settings.image.width, settings.patch_size
        self.class_embedding = nn.Parameter(width**-0.5 * torch.randn(width))
        self.positional_embedding = _normal((settings.image_size // patch) ** 2 + 1, width)
        self.proj = _normal(width, settings.embed_dim)
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = _Blocks(settings.image)
        self.ln_post = nn.LayerNorm(width)

    def forward(self, photos: Tensor, checkpointing: bool) -> Tensor:
        patches = self.conv1(photos.to(self.conv1.weight.dtype)).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(patches), 1, -1)
        hidden = self.ln_pre(torch.cat([first, patches], dim=1) + self.positional_embedding)
        for block in self.transformer.resblocks:
            hidden = recomputed(block, checkpointing, hidden)
        return hidden


class _Blocks(nn.Module):
    def __init__(self, settings: TowerSettings) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(
            _Block(settings.width, settings.heads) for _ in range(settings.layers)
        )


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = _Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, _MLP_RATIO * width))
        self.mlp.add_module("gelu", nn.GELU())
        self.mlp.add_module("c_proj", nn.Linear(_MLP_RATIO * width, width))

    def forward(self, hidden: Tensor, causal: bool = False) -> Tensor:
        hidden = hidden + self.attn(self.ln_1(hidden), causal)
        return hidden + self.mlp(self.ln_2(hidden))


class _Attention(nn.Module):
    """Self-attention with query, key and value weights in one matrix, as OpenCLIP stores them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = _normal(3 * width, width)
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, hidden: Tensor, causal: bool) -> Tensor:
        joined = functional.linear(hidden, self.in_proj_weight, self.in_proj_bias)
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in joined.chunk(3, dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


def _normal(rows: int, columns: int) -> nn.Parameter:
    return nn.Parameter(columns**-0.5 * torch.randn(rows, columns))
