"""Attention over the places of a frame and over the frames of a place, and their transformers.

The parameter names are those of the published checkpoints.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

# Rows of a context that are words; whatever follows them is the photo.
TEXT_TOKENS = 77
# The grids of fused attention kernels end at 65535 rows; temporal attention has one per place.
_MAX_ROWS = 32768


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What every block of the U-Net is told besides its input.

    Attributes:
        embedding: of timestep and frame rate, one row per frame [B * T, D].
        context: text tokens, then image tokens, one row per frame [B * T, L, C].
        num_clips: B, by which frames [B * T, ...] fall apart into clips.
    """

    embedding: Tensor
    context: Tensor
    num_clips: int


class Conditioned(nn.Module):
    """A layer that also takes the signals."""

    @abstractmethod
    def forward(self, x: Tensor, signals: Signals) -> Tensor:
        """Frames [B * T, C, H, W] to frames."""


class RelativePosition(nn.Module):
    """A learned vector per distance between query and key, cut off at a largest distance."""

    def __init__(self, width: int, max_distance: int) -> None:
        super().__init__()
        self.max_distance = max_distance
        self.embeddings_table = nn.Parameter(torch.empty(2 * max_distance + 1, width))
        nn.init.xavier_uniform_(self.embeddings_table)

    def forward(self, num_queries: int, num_keys: int) -> Tensor:
        """Return [num_queries, num_keys, width]."""
        device = self.embeddings_table.device
        keys, queries = torch.arange(num_keys, device=device), torch.arange(num_queries)
        distance = keys[None] - queries.to(device)[:, None]
        clipped = distance.clamp(-self.max_distance, self.max_distance)
        return self.embeddings_table[clipped + self.max_distance]


class CrossAttention(nn.Module):
    """Attention of tokens to themselves or to a context, whose image part has its own weights.

    Args:
        query_dim: width of the tokens.
        context_dim: width of the context; of the tokens if None.
        heads: number of heads.
        dim_head: width of a head.
        image: whether tokens of the context after the text have keys and values of their own.
        image_scale_learnable: whether a learned factor in (0, 2) weighs the image part.
        max_distance: largest distance of learned relative positions; None for no positions.
    """

    def __init__(
        self,
        query_dim: int,
        context_dim: int | None,
        heads: int,
        dim_head: int,
        image: bool = False,
        image_scale_learnable: bool = False,
        max_distance: int | None = None,
    ) -> None:
        super().__init__()
        context_dim = query_dim if context_dim is None else context_dim
        inner = heads * dim_head
        self.heads, self.image = heads, image
        self.to_q = nn.Linear(query_dim, inner, bias=False)
        self.to_k = nn.Linear(context_dim, inner, bias=False)
        self.to_v = nn.Linear(context_dim, inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, query_dim), nn.Dropout(0.0))
        self.relative_position_k: RelativePosition | None = None
        self.relative_position_v: RelativePosition | None = None
        if max_distance is not None:
            self.relative_position_k = RelativePosition(dim_head, max_distance)
            self.relative_position_v = RelativePosition(dim_head, max_distance)
        self.alpha: nn.Parameter | None = None
        if image:
            self.to_k_ip = nn.Linear(context_dim, inner, bias=False)
            self.to_v_ip = nn.Linear(context_dim, inner, bias=False)
        if image and image_scale_learnable:
            self.alpha = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor, context: Tensor | None = None, causal: bool = False) -> Tensor:
        """Attend.

        Args:
            x: tokens [N, L, D].
            context: [N, M, C]; None for self-attention.
            causal: whether a token sees no later one.

        Returns:
            [N, L, D].
        """
        query = self._split(self.to_q(x))
        source = x if context is None else context[:, :TEXT_TOKENS]
        key, value = self._split(self.to_k(source)), self._split(self.to_v(source))
        if self.relative_position_k is None or self.relative_position_v is None:
            mixed = attend(query, key, value, causal)
        else:
            mixed = _attend_with_positions(
                query, key, value, causal, self.relative_position_k, self.relative_position_v
            )
        if self.image and context is not None:
            photo = context[:, TEXT_TOKENS:]
            seen = attend(
                query, self._split(self.to_k_ip(photo)), self._split(self.to_v_ip(photo)), False
            )
            mixed = mixed + (seen if self.alpha is None else seen * (self.alpha.tanh() + 1))
        return self.to_out(mixed.transpose(1, 2).flatten(2))

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
    """Scaled dot-product attention [N, heads, L, D], in parts where N exceeds a kernel's grid."""
    parts = zip(query.split(_MAX_ROWS), key.split(_MAX_ROWS), value.split(_MAX_ROWS), strict=True)
    outputs = [
        functional.scaled_dot_product_attention(q, k, v, is_causal=causal) for q, k, v in parts
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _attend_with_positions(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    causal: bool,
    key_positions: RelativePosition,
    value_positions: RelativePosition,
) -> Tensor:
    """Shaw et al. 2018, arXiv 1803.02155: positions join the keys' and the values' side."""
    lengths = (query.shape[2], key.shape[2])
    scores = query @ key.transpose(-1, -2)
    scores = scores + torch.einsum("nhld,lmd->nhlm", query, key_positions(*lengths))
    scores = scores * query.shape[-1] ** -0.5
    if causal:
        later = torch.ones(lengths, dtype=torch.bool, device=query.device).triu(1)
        scores = scores.masked_fill(later, -torch.finfo(scores.dtype).max)
    weights = scores.softmax(dim=-1)
    placed = torch.einsum("nhlm,lmd->nhld", weights, value_positions(*lengths))
    return weights @ value + placed


class GatedProjection(nn.Module):
    """GEGLU: one half of a projection, gated by the GELU of the other."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to [..., inner]."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * functional.gelu(gate)


class FeedForward(nn.Module):
    """A gated projection to four times the width, and back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            GatedProjection(width, 4 * width), nn.Dropout(0.0), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to the same shape."""
        return self.net(x)


class TransformerBlock(nn.Module):
    """Two attentions and a feed-forward network, each normalised before and added after."""

    def __init__(self, width: int, attn1: CrossAttention, attn2: CrossAttention) -> None:
        super().__init__()
        self.attn1, self.ff, self.attn2 = attn1, FeedForward(width), attn2
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor | None, causal: bool) -> Tensor:
        """Tokens [N, L, D] to the same shape; the second attention sees the context, if any."""
        x = self.attn1(self.norm1(x), causal=causal) + x
        x = self.attn2(self.norm2(x), context=context, causal=causal) + x
        return self.ff(self.norm3(x)) + x


@dataclass(frozen=True, kw_only=True)
class TransformerSizes:
    """Shape of a transformer.

    Attributes:
        channels: of the maps it works on.
        heads: number of heads.
        dim_head: width of a head.
        depth: number of blocks.
        context_dim: width of the context; None where there is none.
        use_linear: whether its outer projections are linear layers, else convolutions.
    """

    channels: int
    heads: int
    dim_head: int
    depth: int
    context_dim: int | None
    use_linear: bool

    @property
    def inner(self) -> int:
        """Width of its tokens."""
        return self.heads * self.dim_head


class SpatialTransformer(Conditioned):
    """Attention among the places of each frame, and from them to text and photo."""

    def __init__(self, sizes: TransformerSizes, image: bool, image_scale_learnable: bool) -> None:
        super().__init__()
        inner, heads = sizes.inner, (sizes.heads, sizes.dim_head)
        self.use_linear = sizes.use_linear
        self.norm = nn.GroupNorm(32, sizes.channels, eps=1e-6)
        self.proj_in = _projection(sizes, nn.Conv2d, sizes.channels, inner)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(
                inner,
                CrossAttention(inner, None, *heads),
                CrossAttention(inner, sizes.context_dim, *heads, image, image_scale_learnable),
            )
            for _ in range(sizes.depth)
        )
        self.proj_out = _projection(sizes, nn.Conv2d, inner, sizes.channels)
        _zero(self.proj_out)

    def forward(self, x: Tensor, signals: Signals) -> Tensor:
        """Frames [B * T, C, H, W] to the same shape."""
        hidden = self.norm(x)
        if not self.use_linear:
            hidden = self.proj_in(hidden)
        tokens = hidden.flatten(2).transpose(1, 2)
        if self.use_linear:
            tokens = self.proj_in(tokens)
        for block in self.transformer_blocks:
            tokens = block(tokens, signals.context, False)
        if self.use_linear:
            tokens = self.proj_out(tokens)
        hidden = tokens.transpose(1, 2).unflatten(2, x.shape[2:])
        return x + (hidden if self.use_linear else self.proj_out(hidden))


class TemporalTransformer(Conditioned):
    """Attention among the frames of each place.

    Args:
        sizes: shape; a `context_dim` lets the second attention see the text, else both are
            self-attention.
        causal: whether a frame sees no later one.
        max_distance: largest distance of learned relative positions; None for no positions.
    """

    def __init__(self, sizes: TransformerSizes, causal: bool, max_distance: int | None) -> None:
        super().__init__()
        inner, heads = sizes.inner, (sizes.heads, sizes.dim_head)
        self.use_linear, self.causal = sizes.use_linear, causal
        self.sees_text = sizes.context_dim is not None
        self.norm = nn.GroupNorm(32, sizes.channels, eps=1e-6)
        self.proj_in = _projection(sizes, nn.Conv1d, sizes.channels, inner)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(
                inner,
                CrossAttention(inner, None, *heads, max_distance=max_distance),
                CrossAttention(inner, sizes.context_dim, *heads, max_distance=max_distance),
            )
            for _ in range(sizes.depth)
        )
        self.proj_out = _projection(sizes, nn.Conv1d, inner, sizes.channels)
        _zero(self.proj_out)

    def forward(self, x: Tensor, signals: Signals) -> Tensor:
        """Frames [B * T, C, H, W] to the same shape."""
        clips = x.unflatten(0, (signals.num_clips, -1)).transpose(1, 2)
        rows = self.norm(clips).permute(0, 3, 4, 1, 2).flatten(0, 2)  # (B H W) C T
        if not self.use_linear:
            rows = self.proj_in(rows)
        tokens = rows.transpose(1, 2)
        if self.use_linear:
            tokens = self.proj_in(tokens)
        context = self._context(signals, x.shape[2] * x.shape[3])
        for block in self.transformer_blocks:
            # The published code masks no block that sees a context.
            tokens = block(tokens, context, self.causal and context is None)
        if self.use_linear:
            tokens = self.proj_out(tokens)
        rows = tokens.transpose(1, 2)
        if not self.use_linear:
            rows = self.proj_out(rows)
        places = (signals.num_clips, x.shape[2], x.shape[3])
        hidden = rows.unflatten(0, places).permute(0, 4, 3, 1, 2)
        return x + hidden.flatten(0, 1)

    def _context(self, signals: Signals, num_places: int) -> Tensor | None:
        """As published: place p of a clip of T frames gets the context of frame p // (HW / T)."""
        if not self.sees_text:
            return None
        frames = signals.context.unflatten(0, (signals.num_clips, -1))
        if num_places % frames.shape[1]:
            raise ValueError(
                f"temporal attention to the text needs height times width to be a multiple of "
                f"the {frames.shape[1]} frames, got {num_places} places"
            )
        return frames.repeat_interleave(num_places // frames.shape[1], dim=1).flatten(0, 1)


def _projection(
    sizes: TransformerSizes, convolution: type[nn.Conv1d | nn.Conv2d], entering: int, leaving: int
) -> nn.Module:
    return nn.Linear(entering, leaving) if sizes.use_linear else convolution(entering, leaving, 1)


def _zero(layer: nn.Module) -> None:
    """A new transformer adds nothing until it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
