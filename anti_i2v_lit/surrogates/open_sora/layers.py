"""The layers of STDiT3: attention over tokens, attention to the caption, embedders.

Facts (names, order of operations, constants) from the published code of Open-Sora 1.2
(hpcaitech/Open-Sora, branch opensora/v1.2, `opensora/models/layers/blocks.py`), which builds on
PixArt-alpha (Chen et al. 2023, arXiv 2310.00426). Attention runs through PyTorch's
`scaled_dot_product_attention` everywhere.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_NUM_FREQUENCIES = 256  # width of the sinusoidal embedding of a number
_LONGEST_PERIOD = 10000.0


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last axis, in float32.

    Args:
        width: length of the last axis.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, values: Tensor) -> Tensor:
        """Normalise [..., width]."""
        wide = values.float()
        scale = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + 1e-6)
        return self.weight * (wide * scale).to(values.dtype)


class RotaryEmbedding(nn.Module):
    """Rotary positions in time (Su et al. 2021, arXiv 2104.09864), neighbours paired.

    Args:
        width: channels of one attention head.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        exponents = torch.arange(0, width, 2)[: width // 2].float() / width
        # A parameter in the published model as well: its checkpoint holds the frequencies.
        self.freqs = nn.Parameter(_LONGEST_PERIOD**-exponents, requires_grad=False)

    def angles(self, length: int) -> Tensor:
        """Angle of every position and channel, [length, width], in the weights' precision."""
        positions = torch.arange(length, device=self.freqs.device, dtype=self.freqs.dtype)
        return torch.outer(positions, self.freqs).repeat_interleave(2, dim=-1)


def rotate(values: Tensor, angles: Tensor) -> Tensor:
    """Turn each pair of neighbouring channels of [..., N, D] by its angle [N, D]."""
    first, second = values.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-second, first], dim=-1).flatten(-2)
    return (values * angles.cos() + turned * angles.sin()).to(values.dtype)


class SelfAttention(nn.Module):
    """Attention among the tokens of one frame, or of one place through time.

    Args:
        width: channels of a token.
        num_heads: attention heads.
        qk_norm: whether queries and keys are normalised.
    """

    def __init__(self, width: int, num_heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        head = width // num_heads
        self.q_norm: nn.Module = RMSNorm(head) if qk_norm else nn.Identity()
        self.k_norm: nn.Module = RMSNorm(head) if qk_norm else nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, angles: Tensor | None = None) -> Tensor:
        """Attend within each row of the batch.

        Args:
            tokens: [B, N, D].
            angles: rotary angles [N, D / num_heads]; None for attention without positions.
        """
        batch, length, width = tokens.shape
        joint = self.qkv(tokens).view(batch, length, 3, self.num_heads, -1)
        query, key, value = joint.permute(2, 0, 3, 1, 4).unbind(0)
        query, key = self.q_norm(query), self.k_norm(key)
        if angles is not None:
            query, key = rotate(query, angles), rotate(key, angles)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, length, width))


class CaptionAttention(nn.Module):
    """Attention from all tokens of a clip to the words of its caption.

    Args:
        width: channels of a token.
        num_heads: attention heads.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_linear = nn.Linear(width, width)
        self.kv_linear = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, words: Tensor, valid: Tensor | None) -> Tensor:
        """Attend to the valid words only.

        Args:
            tokens: [B, N, D].
            words: [B, L, D].
            valid: bool [B, L], False for padding; None if every word counts.
        """
        batch, length, width = tokens.shape
        query = self.q_linear(tokens).view(batch, length, self.num_heads, -1).transpose(1, 2)
        joint = self.kv_linear(words).view(batch, words.shape[1], 2, self.num_heads, -1)
        key, value = joint.permute(2, 0, 3, 1, 4).unbind(0)
        mask = None if valid is None else valid[:, None, None, :]
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.proj(mixed.transpose(1, 2).reshape(batch, length, width))


class MLP(nn.Module):
    """Two linear layers with the tanh form of GELU between them.

    Args:
        inputs: channels that come in.
        hidden: channels in between.
        outputs: channels that go out.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden)
        self.fc2 = nn.Linear(hidden, outputs)

    def forward(self, values: Tensor) -> Tensor:
        """Map [..., inputs] to [..., outputs]."""
        return self.fc2(functional.gelu(self.fc1(values), approximate="tanh"))


class NumberEmbedder(nn.Module):
    """A number (timestep, frames per second) as a vector: sinusoids, then two layers.

    Args:
        width: length of the vector.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(_NUM_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width)
        )

    def forward(self, numbers: Tensor) -> Tensor:
        """Map [B] to [B, width] in the weights' precision."""
        half = _NUM_FREQUENCIES // 2
        steps = torch.arange(half, dtype=torch.float32, device=numbers.device) / half
        angles = numbers[:, None].float() * torch.exp(-math.log(_LONGEST_PERIOD) * steps)
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
        return self.mlp(waves.to(next(self.parameters()).dtype))


class CaptionEmbedder(nn.Module):
    """Text-encoder states in the denoiser's width, and the state that stands for "no caption".

    Args:
        inputs: channels of the text encoder.
        width: channels of a token.
        max_words: words of a padded caption.
    """

    y_embedding: Tensor

    def __init__(self, inputs: int, width: int, max_words: int) -> None:
        super().__init__()
        self.y_proj = MLP(inputs, width, width)
        self.register_buffer("y_embedding", torch.randn(max_words, inputs) / inputs**0.5)

    def forward(self, caption: Tensor) -> Tensor:
        """Map [..., inputs] to [..., width]."""
        return self.y_proj(caption)


class PatchEmbedder(nn.Module):
    """Latents to tokens; sizes that the patch does not divide are padded with zeros at the end.

    Args:
        patch_size: (frames, rows, columns) of a patch.
        channels: of the latents.
        width: channels of a token.
    """

    def __init__(self, patch_size: tuple[int, int, int], channels: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv3d(channels, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, latents: Tensor) -> Tensor:
        """Map [B, C, F, h, w] to [B, D, T, H, W]."""
        frames, rows, columns = (
            -size % patch for size, patch in zip(latents.shape[2:], self.patch_size, strict=True)
        )
        if frames or rows or columns:
            latents = functional.pad(latents, (0, columns, 0, rows, 0, frames))
        return self.proj(latents)


def plane_positions(rows: int, columns: int, width: int, resolution: float, like: Tensor) -> Tensor:
    """Sinusoidal positions of a frame's tokens, [rows * columns, width].

    They are stretched so that a model sees the same range at every aspect ratio, and spread by
    the resolution, as PixArt-sigma does (Chen et al. 2024, arXiv 2403.04692).

    Args:
        rows: of tokens.
        columns: of tokens.
        width: channels of a token, a multiple of 4.
        resolution: side of the clip relative to the one of the first training stage.
        like: gives device and precision.
    """
    half = width // 2
    exponents = torch.arange(0, half, 2, device=like.device).float() / half
    # The published code keeps these frequencies in the weights' precision.
    frequencies = (1.0 / _LONGEST_PERIOD**exponents).to(like.dtype).float()
    base = round((rows * columns) ** 0.5)
    across = torch.arange(columns, device=like.device) / resolution * (base / columns)
    down = torch.arange(rows, device=like.device) / resolution * (base / rows)
    grid = (rows, columns, half)
    horizontal = _waves(across, frequencies)[None, :].expand(grid)
    vertical = _waves(down, frequencies)[:, None].expand(grid)
    return torch.cat([horizontal, vertical], dim=-1).flatten(0, 1).to(like.dtype)


def _waves(positions: Tensor, frequencies: Tensor) -> Tensor:
    angles = torch.outer(positions, frequencies)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
