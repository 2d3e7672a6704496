"""The Resampler: CLIP's tokens of the photo to a few tokens for each frame of the clip.

A Perceiver (Alayrac et al. 2022, "Flamingo", arXiv 2204.14198, section 3.1.1) whose queries are
learned. The parameter names are those of the published checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Resampler(nn.Module):
    """Image tokens to context tokens, as `Resampler(**config)` of the published settings.

    Args:
        dim: width inside.
        depth: number of layers.
        dim_head: width of a head.
        heads: number of heads.
        num_queries: tokens that leave, for each frame.
        embedding_dim: width of the tokens that enter.
        output_dim: width of those that leave.
        ff_mult: width of the feed-forward layers, as a multiple of `dim`.
        video_length: frames of a clip; None for one set of tokens that all frames share.
    """

    def __init__(
        self,
        *,
        dim: int = 1024,
        depth: int = 8,
        dim_head: int = 64,
        heads: int = 16,
        num_queries: int = 8,
        embedding_dim: int = 768,
        output_dim: int = 1024,
        ff_mult: float = 4,
        video_length: int | None = None,
    ) -> None:
        super().__init__()
        self.num_queries, self.video_length = num_queries, video_length
        count = num_queries * (1 if video_length is None else video_length)
        self.latents = nn.Parameter(torch.randn(1, count, dim) / dim**0.5)
        self.proj_in = nn.Linear(embedding_dim, dim)
        self.proj_out = nn.Linear(dim, output_dim)
        self.norm_out = nn.LayerNorm(output_dim)
        self.layers = nn.ModuleList(
            _Layer([_Attention(dim, dim_head, heads), _feed_forward(dim, ff_mult)])
            for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Image tokens [B, N, embedding_dim] to [B, num_queries * frames, output_dim].

        The tokens of the first frame come first.
        """
        queries = self.latents.expand(len(x), -1, -1)
        tokens = self.proj_in(x)
        for layer in self.layers:
            queries = layer(tokens, queries)
        return self.norm_out(self.proj_out(queries))

    def first_frames(self, tokens: Tensor, num_frames: int) -> Tensor:
        """The tokens of the first frames of a clip.

        Args:
            tokens: [B, N, output_dim] from `forward`.
            num_frames: how many; tokens that all frames share are returned whole.
        """
        if self.video_length is None:
            return tokens
        return tokens[:, : num_frames * self.num_queries]


class _Layer(nn.ModuleList):
    """Attention and a feed-forward network, each beside the identity."""

    def forward(self, tokens: Tensor, queries: Tensor) -> Tensor:
        attention, feed_forward = self
        queries = attention(tokens, queries) + queries
        return feed_forward(queries) + queries


class _Attention(nn.Module):
    """The queries attend to the photo's tokens and to each other."""

    def __init__(self, dim: int, dim_head: int, heads: int) -> None:
        super().__init__()
        inner = dim_head * heads
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(self, tokens: Tensor, queries: Tensor) -> Tensor:
        tokens, queries = self.norm1(tokens), self.norm2(queries)
        both = self.to_kv(torch.cat([tokens, queries], dim=1))
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.to_q(queries), *both.chunk(2, dim=-1))
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.to_out(mixed.transpose(1, 2).flatten(2))


def _feed_forward(dim: int, mult: float) -> nn.Sequential:
    inner = int(dim * mult)
    return nn.Sequential(
        nn.LayerNorm(dim),
        nn.Linear(dim, inner, bias=False),
        nn.GELU(),
        nn.Linear(inner, dim, bias=False),
    )
