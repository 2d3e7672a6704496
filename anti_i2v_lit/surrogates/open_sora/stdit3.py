"""STDiT3, the denoiser of Open-Sora 1.2, with the published parameter names.

Zheng et al. 2024, "Open-Sora: Democratizing Efficient Video Production for All", arXiv 2412.20404,
and `docs/report_03.md` of hpcaitech/Open-Sora; arithmetic as in the published code (branch
opensora/v1.2, `opensora/models/stdit/stdit3.py`). For inference: no dropout, no dropped captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from anti_i2v_lit.surrogates.open_sora.layers import (
    MLP,
    CaptionAttention,
    CaptionEmbedder,
    NumberEmbedder,
    PatchEmbedder,
    RotaryEmbedding,
    SelfAttention,
    plane_positions,
)


@dataclass(frozen=True, kw_only=True)
class Context:
    """All that a block sees besides the tokens.

    Attributes:
        words: caption [B, L, D].
        valid_words: bool [B, L]; None if every word counts.
        modulation: shift, scale and gate of attention and of the MLP [B, T or 1, 6, D]; one row
            per frame where some frames are conditions and others are noisy.
        angles: rotary angles of the frames [T, D / heads].
        num_frames: T, frames of tokens.
    """

    words: Tensor
    valid_words: Tensor | None
    modulation: Tensor
    angles: Tensor
    num_frames: int


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Embedded timestep and frame rate.

    Attributes:
        noisy: of the clip [B, 1, D].
        clean: of a condition frame, at timestep 0 [B, 1, D].
        is_noisy: bool [B, T, 1]; None if every frame is.
    """

    noisy: Tensor
    clean: Tensor
    is_noisy: Tensor | None

    def chosen(self, noisy: Tensor, clean: Tensor) -> Tensor:
        """Pick per frame [B, T, 1, ...] between two answers [B, T or 1, ...]."""
        if self.is_noisy is None:
            return noisy
        extra = noisy.ndim - self.is_noisy.ndim
        return torch.where(self.is_noisy[(..., *[None] * extra)], noisy, clean)


@dataclass(frozen=True, kw_only=True)
class Start:
    """A clip on its way into the blocks.

    Attributes:
        tokens: [B, T * S, D], frame by frame, rows before columns.
        context: for the blocks.
        timing: for the last layer.
        grid: tokens per clip (frames, rows, columns).
        size: latents per clip (frames, rows, columns), before padding to whole patches.
    """

    tokens: Tensor
    context: Context
    timing: Timing
    grid: tuple[int, int, int]
    size: tuple[int, int, int]


class STDiT3Block(nn.Module):
    """One transformer block: self-attention, caption, MLP.

    Args:
        width: channels of a token.
        num_heads: attention heads.
        mlp_ratio: hidden channels of the MLP over `width`.
        qk_norm: whether queries and keys are normalised.
        temporal: attend through time at each place, with rotary positions, instead of within
            each frame.
    """

    def __init__(
        self, width: int, num_heads: int, mlp_ratio: float, qk_norm: bool, temporal: bool
    ) -> None:
        super().__init__()
        self.temporal = temporal
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attn = SelfAttention(width, num_heads, qk_norm)
        self.cross_attn = CaptionAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = MLP(width, int(width * mlp_ratio), width)
        self.scale_shift_table = nn.Parameter(torch.randn(6, width) / width**0.5)

    def forward(self, tokens: Tensor, context: Context) -> Tensor:
        """Map tokens [B, T * S, D] to tokens of the same shape."""
        frames = (context.num_frames, -1)
        table = self.scale_shift_table + context.modulation
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = table[..., None, :].unbind(2)
        grid = self.norm1(tokens).unflatten(1, frames) * (1 + scale) + shift
        tokens = tokens + (gate * self._attend(grid, context)).flatten(1, 2)
        tokens = tokens + self.cross_attn(tokens, context.words, context.valid_words)
        grid = self.norm2(tokens).unflatten(1, frames) * (1 + mlp_scale) + mlp_shift
        return tokens + (mlp_gate * self.mlp(grid)).flatten(1, 2)

    def _attend(self, grid: Tensor, context: Context) -> Tensor:
        batch = len(grid)
        if not self.temporal:
            return self.attn(grid.flatten(0, 1)).unflatten(0, (batch, -1))
        columns = self.attn(grid.transpose(1, 2).flatten(0, 1), context.angles)
        return columns.unflatten(0, (batch, -1)).transpose(1, 2)


class FinalLayer(nn.Module):
    """From tokens to the values of their patches.

    Args:
        width: channels of a token.
        values: numbers per patch.
    """

    def __init__(self, width: int, values: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.linear = nn.Linear(width, values)
        self.scale_shift_table = nn.Parameter(torch.randn(2, width) / width**0.5)

    def forward(self, tokens: Tensor, timing: Timing, num_frames: int) -> Tensor:
        """Map tokens [B, T * S, D] to [B, T * S, values].

        Condition frames pass the norm twice, as they do in the published code, which overwrites
        its input; nothing reads what is predicted for them, but the numbers are the published.
        """
        grid = self._modulated(tokens.unflatten(1, (num_frames, -1)), timing.noisy)
        grid = timing.chosen(grid, self._modulated(grid, timing.clean))
        return self.linear(grid.flatten(1, 2))

    def _modulated(self, grid: Tensor, timing: Tensor) -> Tensor:
        table = self.scale_shift_table + timing[:, :, None]
        shift, scale = table[..., None, :].unbind(2)
        return self.norm_final(grid) * (1 + scale) + shift


class STDiT3(nn.Module):
    """Spatial-temporal diffusion transformer, 28 pairs of blocks as published (STDiT3-XL/2).

    The keywords are those of the published `config.json`. Those of training and of the authors'
    kernels (`input_size`, `class_dropout_prob`, `drop_path`, `enable_*`, `only_train_temporal`,
    `freeze_y_embedder`) are taken and change nothing here.

    Args:
        input_size: latents per clip of the training run.
        input_sq_size: side in pixels at which positions are unstretched.
        in_channels: channels of the latents.
        patch_size: (frames, rows, columns) of latents per token.
        hidden_size: channels of a token, a multiple of 4 and of `num_heads`.
        depth: pairs of a spatial and a temporal block.
        num_heads: attention heads.
        mlp_ratio: hidden channels of an MLP over `hidden_size`.
        class_dropout_prob: of captions in training.
        pred_sigma: whether twice the channels come out, of which only the first half is used.
        drop_path: of blocks in training.
        caption_channels: of the text encoder's states.
        model_max_length: words of a padded caption.
        qk_norm: whether queries and keys are normalised.
        enable_flash_attn: of the published code.
        enable_layernorm_kernel: of the published code.
        enable_sequence_parallelism: of the published code.
        only_train_temporal: of training.
        freeze_y_embedder: of training.
        skip_y_embedder: captions embedded beforehand, a switch of training: refused.

    Raises:
        ValueError: a width that positions or heads do not divide, or `skip_y_embedder`.
    """

    def __init__(
        self,
        *,
        input_size: Sequence[int | None] = (None, None, None),
        input_sq_size: int = 512,
        in_channels: int = 4,
        patch_size: Sequence[int] = (1, 2, 2),
        hidden_size: int = 1152,
        depth: int = 28,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        class_dropout_prob: float = 0.1,
        pred_sigma: bool = True,
        drop_path: float = 0.0,
        caption_channels: int = 4096,
        model_max_length: int = 300,
        qk_norm: bool = True,
        enable_flash_attn: bool = False,
        enable_layernorm_kernel: bool = False,
        enable_sequence_parallelism: bool = False,
        only_train_temporal: bool = False,
        freeze_y_embedder: bool = False,
        skip_y_embedder: bool = False,
    ) -> None:
        super().__init__()
        _check(hidden_size, num_heads, skip_y_embedder)
        frames, rows, columns = patch_size
        self.patch_size = (frames, rows, columns)
        self.in_channels = in_channels
        self.out_channels = 2 * in_channels if pred_sigma else in_channels
        self.input_sq_size = input_sq_size
        self.model_max_length = model_max_length
        self.rope = RotaryEmbedding(hidden_size // num_heads)
        self.x_embedder = PatchEmbedder(self.patch_size, in_channels, hidden_size)
        self.t_embedder = NumberEmbedder(hidden_size)
        self.fps_embedder = NumberEmbedder(hidden_size)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 6 * hidden_size))
        self.y_embedder = CaptionEmbedder(caption_channels, hidden_size, model_max_length)

        def blocks(temporal: bool) -> nn.ModuleList:
            made = (
                STDiT3Block(hidden_size, num_heads, mlp_ratio, qk_norm, temporal)
                for _ in range(depth)
            )
            return nn.ModuleList(made)

        self.spatial_blocks, self.temporal_blocks = blocks(False), blocks(True)
        self.final_layer = FinalLayer(hidden_size, frames * rows * columns * self.out_channels)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.x_embedder.proj.weight.dtype

    def blocks(self) -> list[nn.Module]:
        """All blocks in the order in which they run: spatial 0, temporal 0, spatial 1, ..."""
        return list(chain(*zip(self.spatial_blocks, self.temporal_blocks, strict=True)))

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        y: Tensor,
        mask: Tensor | None = None,
        x_mask: Tensor | None = None,
        fps: Tensor | None = None,
        height: Tensor | None = None,
        width: Tensor | None = None,
        num_frames: Tensor | None = None,
        ar: Tensor | None = None,
    ) -> Tensor:
        """Predict the velocity, as the published model does; arguments as in `start`.

        Args:
            x: latents [B, C, F, h, w].
            timestep: [B].
            y: caption states [B, 1, L, C_text].
            mask: valid words.
            x_mask: noisy frames.
            fps: frames per second [B].
            height: of the clip in pixels [B].
            width: of the clip in pixels [B].
            num_frames: of the clip; taken because the published sampler hands it over, unused.
            ar: aspect ratio; taken for the same reason, unused.

        Returns:
            [B, C or 2C, F, h, w], float32.
        """
        start = self.start(x, timestep, y, mask, x_mask, fps, height, width)
        tokens = start.tokens
        for block in self.blocks():
            tokens = block(tokens, start.context)
        return self.finish(tokens, start)

    def start(
        self,
        x: Tensor,
        timestep: Tensor,
        y: Tensor,
        mask: Tensor | None,
        x_mask: Tensor | None,
        fps: Tensor | None,
        height: Tensor | None,
        width: Tensor | None,
    ) -> Start:
        """Embed everything that goes into the blocks.

        Args:
            x: latents [B, C, F, h, w].
            timestep: [B], in [0, 1000], fractions allowed.
            y: caption states [B, 1, L, C_text].
            mask: non-zero for valid words [B, L], or fewer rows, which then repeat.
            x_mask: bool [B, T], False for condition frames, which count as timestep 0.
            fps: frames per second [B], or fewer, which then repeat.
            height: of the clip in pixels [B]; the first one counts.
            width: of the clip in pixels [B]; the first one counts.

        Raises:
            ValueError: `fps`, `height` or `width` is missing.
        """
        if fps is None or height is None or width is None:
            raise ValueError("STDiT3 needs fps, height and width, each [B]; got None")
        batch, patches = len(x), self.x_embedder(x.to(self.dtype))
        frames, rows, columns = patches.shape[2:]
        tokens = patches.permute(0, 2, 3, 4, 1).flatten(2, 3)
        side = (height[0].item() * width[0].item()) ** 0.5
        resolution = side / self.input_sq_size
        channels = tokens.shape[-1]
        tokens = tokens + plane_positions(rows, columns, channels, resolution, tokens)
        timing = self._timing(timestep.to(self.dtype), _repeated(fps, batch), x_mask)
        modulation = timing.chosen(self.t_block(timing.noisy), self.t_block(timing.clean))
        return Start(
            tokens=tokens.flatten(1, 2),
            context=Context(
                words=self.y_embedder(y.to(self.dtype)).squeeze(1),
                valid_words=None if mask is None else _valid(mask, batch),
                modulation=modulation.unflatten(-1, (6, -1)),
                angles=self.rope.angles(frames),
                num_frames=frames,
            ),
            timing=timing,
            grid=(frames, rows, columns),
            size=(x.shape[2], x.shape[3], x.shape[4]),
        )

    def finish(self, tokens: Tensor, start: Start) -> Tensor:
        """From the last block's tokens to the prediction [B, C or 2C, F, h, w], float32."""
        values = self.final_layer(tokens, start.timing, start.grid[0])
        grid = values.unflatten(1, start.grid).unflatten(-1, (*self.patch_size, -1))
        clip = grid.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)
        frames, rows, columns = start.size
        return clip[:, :, :frames, :rows, :columns].float()

    def _timing(self, timestep: Tensor, fps: Tensor, x_mask: Tensor | None) -> Timing:
        rate = self.fps_embedder(fps)
        return Timing(
            noisy=(self.t_embedder(timestep) + rate)[:, None],
            clean=(self.t_embedder(torch.zeros_like(timestep)) + rate)[:, None],
            is_noisy=None if x_mask is None else x_mask.bool()[:, :, None],
        )


def _check(hidden_size: int, num_heads: int, skip_y_embedder: bool) -> None:
    if hidden_size % num_heads or hidden_size % 4:
        raise ValueError(
            f"hidden_size must be a multiple of 4 and of num_heads ({num_heads}), got {hidden_size}"
        )
    if skip_y_embedder:
        raise ValueError("skip_y_embedder is a switch of training; expected False, got True")


def _repeated(values: Tensor, batch: int) -> Tensor:
    values = values.reshape(-1)
    return values if len(values) == batch else values.repeat(batch // len(values))


def _valid(mask: Tensor, batch: int) -> Tensor:
    rows = mask.reshape(len(mask), -1) != 0
    return rows if len(rows) == batch else rows.repeat(batch // len(rows), 1)
