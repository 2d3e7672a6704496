"""Anchor-copy initialisation: a video transformer that starts out looking at the first frame.

Trained from a usual initialisation, an image-to-video transformer first learns to copy the given
picture into frame one and only much later, through attention, into the others. Large models have
the time; a small one does not. So the copy is written into the initial weights:

* the patch embedding carries the given picture's patch in fixed channels of the residual stream;
* the learned positional embedding flags the tokens of frame one;
* in the first two blocks the queries and keys of some heads are, up to noise, constants: the
  biases of the query and key normalisation. Rotary embedding turns a constant into a position,
  and the score of two tokens becomes a sum of cosines of their distance, largest at distance zero
  or at a chosen offset. The key adds the flag in the slowest temporal pair, which rotary
  embedding barely turns, so that only frame one's tokens score high;
* values and output projections of those heads carry the picture's channels along.

Block one copies the patch at the same place, block two the four neighbours' patches. All of it is
ordinary initialisation: every weight is trained afterwards.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from anti_i2v_lit.surrogates.embedded.denoiser import Transformer


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnchorOptions:
    """Strengths of the construction."""

    fine: float = 8.0  # query and key amplitude in the fastest spatial pair (wavelength 6.3 tokens)
    coarse: float = 5.0  # the same in the second pair (wavelength 14 tokens), against its repeats
    flag: float = 3.0  # hidden value that marks frame one (minus that for all other tokens)
    flag_query: float = 5.0  # query amplitude that reads the flag
    flag_key: float = 0.8  # weight from the flag to the key, before normalisation
    gain: float = 2.0  # gain of the query and key normalisation in the two anchored blocks
    damping: float = 4.2  # constant part of the other heads there, before normalisation
    noise: float = 0.05  # deviation of the random part of keys and queries, share of the usual
    gate: float = 0.3  # initial gate of all other residual branches, [0, 1]
    seed: int = 0  # seed of the random parts

    def __post_init__(self) -> None:
        """Refuse strengths below zero."""
        values = dataclasses.astuple(self)
        if min(values) < 0:
            raise ValueError(f"{self} arrived; expected nothing below 0; raise the negative one.")


def rotary_slots(head_dim: int) -> tuple[slice, slice, slice]:
    """Channels of a head that rotate with time, height and width (diffusers' order)."""
    time, space = head_dim // 4, head_dim // 8 * 3
    return slice(0, time), slice(time, time + space), slice(time + space, time + 2 * space)


def position_query(
    head_dim: int, offset: tuple[int, int], options: AnchorOptions
) -> tuple[Tensor, Tensor]:
    """Constant query and key, each ``[head_dim]``, whose rotated score peaks at an offset.

    Args:
        head_dim: Channels of a head; a multiple of 8.
        offset: Rows and columns from the query's token to the key's token, in tokens.
        options: Amplitudes.
    """
    query, key = torch.zeros(head_dim), torch.zeros(head_dim)
    _, height, across = rotary_slots(head_dim)
    for slot, shift in zip((height, across), offset, strict=True):
        width = slot.stop - slot.start
        # Height positive and width negative: the normalisation then finds no mean to subtract.
        sign = 1.0 if slot is height else -1.0
        for pair, amplitude in ((0, sign * options.fine), (1, sign * options.coarse)):
            angle = shift * 10000.0 ** (-2.0 * pair / width)
            first = slot.start + 2 * pair
            query[first] = amplitude * math.cos(angle)
            query[first + 1] = amplitude * math.sin(angle)
            key[first] = amplitude
    return query, key


def trainable_positions(model: Transformer) -> None:
    """Turn the positional-embedding buffer into a parameter of the same name."""
    embed = model.patch_embed
    value = embed.pos_embedding
    del embed.pos_embedding
    embed.register_parameter("pos_embedding", nn.Parameter(value.clone()))


@torch.no_grad()
def anchor_copy_init(model: Transformer, options: AnchorOptions | None = None) -> None:
    """Initialise a CogVideoX image-to-video transformer so that later frames copy frame one.

    Hidden channels ``0..D-1`` (D the size of a head) hold the given picture's patch, ``D..2D-1``
    the noisy patch, the last one the flag.

    Args:
        model: Fresh model with rotary and learned positional embeddings, at least two blocks,
            patches that fit a head (``patch_size ** 2 * out_channels <= attention_head_dim``).
        options: Strengths; None takes the defaults.

    Raises:
        ValueError: The model's sizes do not allow the construction.
    """
    options = options or AnchorOptions()
    config = model.config
    head_dim, latent = config.attention_head_dim, config.out_channels
    patch = config.patch_size**2 * latent
    if patch > head_dim or config.num_layers < 2 or config.num_attention_heads < 3:
        raise ValueError(
            f"patch of {patch} values, head of {head_dim}, {config.num_layers} blocks and "
            f"{config.num_attention_heads} heads arrived; expected a patch no larger than a head, "
            "two blocks and three heads; change the sizes."
        )
    generator = torch.Generator().manual_seed(options.seed)
    _embed_patches(model, head_dim, patch, options)
    for index, block in enumerate(model.transformer_blocks):
        _quiet_gates(block, head_dim * config.num_attention_heads, options)
        if index == 0:
            _anchor_heads(block.attn1, [(0, 0)], options, generator, identity=True)
            _open_gate(block, slice(0, head_dim))
        elif index == 1:
            offsets = [(-1, 0), (1, 0), (0, -1), (0, 1)][: config.num_attention_heads]
            _anchor_heads(block.attn1, offsets, options, generator, identity=False)
            _open_gate(block, slice(head_dim, None))
    nn.init.normal_(model.proj_out.weight, std=0.02, generator=generator)
    nn.init.zeros_(model.proj_out.bias)


def _embed_patches(model: Transformer, head_dim: int, patch: int, options: AnchorOptions) -> None:
    embed, config = model.patch_embed, model.config
    latent, size = config.out_channels, config.patch_size
    # Input channels: the noisy latent first, then the given picture's.
    weight = embed.proj.weight
    weight[: 2 * head_dim] = 0.0
    for channel in range(latent):
        for place in range(size**2):
            row, column = divmod(place, size)
            hidden = channel * size**2 + place
            weight[hidden, latent + channel, row, column] = 1.0
            weight[head_dim + hidden, channel, row, column] = 1.0
    embed.proj.bias.zero_()
    positions = embed.pos_embedding.data
    positions *= 0.5
    positions[..., : head_dim + patch] = 0.0
    for module in (embed.proj, embed.text_proj):
        module.weight[-1] = 0.0
        module.bias[-1] = 0.0
    text = config.max_text_seq_length
    tokens = (config.sample_height // size) * (config.sample_width // size)
    positions[..., -1] = -options.flag
    positions[:, text : text + tokens, -1] = options.flag


def _quiet_gates(block: Any, width: int, options: AnchorOptions) -> None:
    """No modulation at the start; both residual branches pass with the same small gate."""
    for norm in (block.norm1, block.norm2):
        norm.linear.weight.mul_(0.1)
        bias = norm.linear.bias.zero_()
        bias[2 * width : 3 * width] = options.gate
        bias[5 * width : 6 * width] = options.gate


def _open_gate(block: Any, channels: slice) -> None:
    """Let the attention of video tokens through in full in the channels that carry the copy."""
    bias = block.norm1.linear.bias
    width = len(bias) // 6
    bias[2 * width : 3 * width][channels] = 1.0


def _anchor_heads(
    attention: Any,
    offsets: list[tuple[int, int]],
    options: AnchorOptions,
    generator: torch.Generator,
    *,
    identity: bool,
) -> None:
    """Make the first ``len(offsets)`` heads look at frame one, each at its own offset.

    All heads of a block share the gain and bias of the query and key normalisation. The constants,
    one for each head, are therefore biases of the projections; the normalisation gives them a
    fixed length and the gain the length that a sharp peak needs.
    """
    head_dim, width = attention.norm_q.weight.shape[0], attention.to_q.weight.shape[1]
    slow = rotary_slots(head_dim)[0].stop - 2
    flag = torch.zeros(head_dim)
    flag[slow], flag[slow + 1] = 1.0, -1.0
    attention.norm_q.weight.fill_(options.gain)
    attention.norm_k.weight.fill_(options.gain)
    for index in range(attention.heads):
        rows = slice(index * head_dim, (index + 1) * head_dim)
        if index < len(offsets):
            query, key = position_query(head_dim, offsets[index], options)
            query = query + options.flag_query * flag
            for projection, constant in ((attention.to_q, query), (attention.to_k, key)):
                projection.weight[rows] *= options.noise
                projection.bias[rows] = functional.normalize(constant, dim=0) * head_dim**0.5
            attention.to_k.weight[rows, -1] = options.flag_key * flag
            attention.to_v.weight[rows] = torch.eye(head_dim, width)
            attention.to_v.bias[rows] = 0.0
        else:
            # The gain is too much for an ordinary head. A constant that is the same for all
            # tokens takes up length and leaves the softmax alone.
            for projection in (attention.to_q, attention.to_k):
                projection.bias[rows] = options.damping * flag
    _anchor_output(attention, len(offsets), generator, identity=identity)


def _anchor_output(
    attention: Any, anchors: int, generator: torch.Generator, *, identity: bool
) -> None:
    """Carry the picture's channels to themselves, or mixed into the channels that are free."""
    head_dim, width = attention.norm_q.weight.shape[0], attention.to_q.weight.shape[1]
    out = attention.to_out[0]
    out.bias.zero_()
    out.weight[:head_dim] = 0.0
    out.weight[-1] = 0.0
    for index in range(anchors):
        columns = slice(index * head_dim, (index + 1) * head_dim)
        out.weight[:, columns] = 0.0
        if identity:
            out.weight[:head_dim, columns] = torch.eye(head_dim)
        else:
            free = width - 2 * head_dim - 1
            mixing = torch.randn(free, head_dim, generator=generator) / math.sqrt(free)
            out.weight[2 * head_dim : -1, columns] = mixing
