"""Residual blocks of the U-Net, in space and in time, and its changes of resolution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from anti_i2v_lit.surrogates.dynamicrafter.attention import Conditioned, Signals

_LOG_MAX_PERIOD = math.log(10000.0)


@dataclass(frozen=True, kw_only=True)
class ResidualSettings:
    """What the residual blocks of one U-Net share.

    Attributes:
        embedding_dim: width of the embedding of timestep and frame rate.
        dropout: probability; without effect in eval mode.
        scale_shift: whether the embedding scales and shifts, else it is added.
        temporal_conv: whether convolutions over time follow.
        spatial_aware: whether those also see a neighbour in space.
    """

    embedding_dim: int
    dropout: float
    scale_shift: bool
    temporal_conv: bool
    spatial_aware: bool


class ResidualBlock(Conditioned):
    """Two convolutions told the timestep, then, where wanted, four over time.

    Args:
        settings: shared by all blocks of the U-Net.
        in_channels: of the frames that enter.
        out_channels: of those that leave.
        resample: changes the resolution on both branches; None to keep it. Such a block has no
            convolutions over time.
    """

    def __init__(
        self,
        settings: ResidualSettings,
        in_channels: int,
        out_channels: int,
        resample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.scale_shift = settings.scale_shift
        self.resample = resample
        factor = 2 if settings.scale_shift else 1
        self.in_layers = nn.Sequential(
            nn.GroupNorm(32, in_channels),
            nn.SiLU(),
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
        )
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(settings.embedding_dim, factor * out_channels)
        )
        last = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, out_channels), nn.SiLU(), nn.Dropout(settings.dropout), zeroed(last)
        )
        self.skip_connection: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.skip_connection = nn.Conv2d(in_channels, out_channels, 1)
        # "temopral" is how the published checkpoints spell it.
        self.temopral_conv: TemporalConv | None = None
        if settings.temporal_conv and resample is None:
            self.temopral_conv = TemporalConv(out_channels, settings.spatial_aware)

    def forward(self, x: Tensor, signals: Signals) -> Tensor:
        """Frames [B * T, C_in, H, W] to [B * T, C_out, H', W']."""
        norm, activation, convolution = self.in_layers
        hidden = activation(norm(x))
        if self.resample is not None:
            hidden, x = self.resample(hidden), self.resample(x)
        hidden = convolution(hidden)
        told = self.emb_layers(signals.embedding).to(hidden.dtype)[..., None, None]
        if self.scale_shift:
            scale, shift = told.chunk(2, dim=1)
            hidden = self.out_layers[0](hidden) * (1 + scale) + shift
            hidden = self.out_layers[1:](hidden)
        else:
            hidden = self.out_layers(hidden + told)
        hidden = self.skip_connection(x) + hidden
        if self.temopral_conv is None:
            return hidden
        clips = hidden.unflatten(0, (signals.num_clips, -1)).transpose(1, 2)
        return self.temopral_conv(clips).transpose(1, 2).flatten(0, 1)


class TemporalConv(nn.Module):
    """Four convolutions over three frames each, beside the identity."""

    def __init__(self, channels: int, spatial_aware: bool) -> None:
        super().__init__()
        tall = ((3, 3, 1), (1, 1, 0)) if spatial_aware else ((3, 1, 1), (1, 0, 0))
        wide = ((3, 1, 3), (1, 0, 1)) if spatial_aware else ((3, 1, 1), (1, 0, 0))

        def layer(kernel: tuple[tuple[int, ...], tuple[int, ...]], dropout: bool) -> nn.Sequential:
            between = [nn.Dropout(0.1)] if dropout else []
            convolution = nn.Conv3d(channels, channels, kernel[0], padding=kernel[1])  # type: ignore[arg-type]
            return nn.Sequential(nn.GroupNorm(32, channels), nn.SiLU(), *between, convolution)

        self.conv1 = layer(tall, dropout=False)
        self.conv2 = layer(wide, dropout=True)
        self.conv3 = layer(tall, dropout=True)
        self.conv4 = layer(wide, dropout=True)
        zeroed(self.conv4[-1])

    def forward(self, clips: Tensor) -> Tensor:
        """[B, C, T, H, W] to the same shape."""
        return clips + self.conv4(self.conv3(self.conv2(self.conv1(clips))))


class Downsample(nn.Module):
    """Halve height and width, by a convolution or by an average."""

    def __init__(self, channels: int, with_conv: bool) -> None:
        super().__init__()
        self.op: nn.Module = nn.AvgPool2d(2)
        if with_conv:
            self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to half the height and width."""
        return self.op(x)


class Upsample(nn.Module):
    """Double height and width by repetition, then convolve where wanted."""

    def __init__(self, channels: int, with_conv: bool) -> None:
        super().__init__()
        self.conv: nn.Conv2d | None = None
        if with_conv:
            self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, 2H, 2W]."""
        doubled = functional.interpolate(x, scale_factor=2, mode="nearest")
        return doubled if self.conv is None else self.conv(doubled)


class Block(nn.Sequential):
    """One numbered block of the U-Net: layers of which some take the signals."""

    def forward(self, x: Tensor, signals: Signals) -> Tensor:  # type: ignore[override]
        """Frames [B * T, C, H, W] to frames."""
        for layer in self:
            x = layer(x, signals) if isinstance(layer, Conditioned) else layer(x)
        return x


def zeroed(layer: nn.Module) -> nn.Module:
    """The layer with all parameters zero: a new branch adds nothing until it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def sinusoidal(numbers: Tensor, width: int) -> Tensor:
    """Cosines, then sines, of numbers at `width // 2` frequencies from 1 to 1/10000.

    Args:
        numbers: timesteps or frame rates [B].
        width: of the embedding; an odd one ends in a zero.

    Returns:
        [B, width], float32.
    """
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=numbers.device) / half
    angles = numbers.float()[:, None] * torch.exp(-_LOG_MAX_PERIOD * exponents)
    embedding = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return functional.pad(embedding, (0, width % 2))
