"""The temporal autoencoder of Open-Sora 1.2: four frames of 2D latents become one.

It sits on the latents of a 2D autoencoder and leaves rows and columns alone. The architecture
follows MAGVIT-v2 (Yu et al. 2023, arXiv 2310.05737): residual blocks of causal convolutions, so
that no frame sees a later one. Names and arithmetic as in the published code
(hpcaitech/Open-Sora, branch opensora/v1.2, `opensora/models/vae/vae_temporal.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from anti_i2v_lit.checks import check_in

_ACTIVATIONS: dict[str, type[nn.Module]] = {"swish": nn.SiLU, "relu": nn.ReLU}


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """A diagonal Gaussian over latents.

    Attributes:
        mean: [B, C, F, h, w].
        logvar: logarithm of the variance, same shape, in [-30, 20].
    """

    mean: Tensor
    logvar: Tensor

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw latents; the noise is drawn on the generator's device in float32."""
        noise = torch.randn(self.mean.shape, generator=generator, device=generator.device)
        return self.mean + (0.5 * self.logvar).exp() * noise.to(self.mean)


class CausalConv3d(nn.Module):
    """A convolution padded with zeros: at both sides in space, before the first frame in time.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        kernel: side of the kernel in all three axes, odd.
        time_stride: frames that it steps by.
        bias: whether it adds one.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, time_stride: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        side = kernel // 2
        self.padding = (side, side, side, side, kernel - time_stride, 0)
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride=(time_stride, 1, 1), bias=bias)

    def forward(self, clip: Tensor) -> Tensor:
        """Convolve [B, C, F, h, w]."""
        return self.conv(functional.pad(clip, self.padding))


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What encoder and decoder have in common.

    Attributes:
        channels: of the 2D latents.
        filters: channels of the first level.
        num_res_blocks: residual blocks per level.
        multipliers: channels of each level over `filters`.
        downsample: whether the number of frames halves after each level but the last.
        num_groups: of group normalisation.
        activation: "swish" or "relu".
    """

    channels: int
    filters: int
    num_res_blocks: int
    multipliers: tuple[int, ...]
    downsample: tuple[bool, ...]
    num_groups: int
    activation: str

    def width(self, level: int) -> int:
        """Channels of a level."""
        return self.filters * self.multipliers[level]

    def activate(self) -> nn.Module:
        """A fresh activation."""
        return _ACTIVATIONS[self.activation]()

    def residuals(self, inputs: int, outputs: int) -> nn.ModuleList:
        """The residual blocks of one level."""
        sizes = [inputs, *[outputs] * self.num_res_blocks]
        return nn.ModuleList(
            ResidualBlock(sizes[i], outputs, self) for i in range(self.num_res_blocks)
        )


class ResidualBlock(nn.Module):
    """Two convolutions beside a skip, which is convolved where the width changes.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        shape: group normalisation and activation.
    """

    def __init__(self, inputs: int, outputs: int, shape: Shape) -> None:
        super().__init__()
        self.activate = shape.activate()
        self.norm1 = nn.GroupNorm(shape.num_groups, inputs)
        self.conv1 = CausalConv3d(inputs, outputs, 3, bias=False)
        self.norm2 = nn.GroupNorm(shape.num_groups, outputs)
        self.conv2 = CausalConv3d(outputs, outputs, 3, bias=False)
        self.conv3: nn.Module = nn.Identity()
        if inputs != outputs:
            self.conv3 = CausalConv3d(inputs, outputs, 1, bias=False)

    def forward(self, clip: Tensor) -> Tensor:
        """Map [B, inputs, F, h, w] to [B, outputs, F, h, w]."""
        inner = self.conv1(self.activate(self.norm1(clip)))
        inner = self.conv2(self.activate(self.norm2(inner)))
        return inner + self.conv3(clip)


class Encoder(nn.Module):
    """2D latents to moments, as a sequence of named stages.

    Args:
        shape: of the network.
        moments: channels that go out.
    """

    def __init__(self, shape: Shape, moments: int) -> None:
        super().__init__()
        levels = range(len(shape.multipliers))
        widths = [shape.filters, *(shape.width(i) for i in levels)]
        self.conv_in = CausalConv3d(shape.channels, shape.filters, 3, bias=False)
        self.block_res_blocks = nn.ModuleList(
            shape.residuals(widths[i], widths[i + 1]) for i in levels
        )
        self.conv_blocks = nn.ModuleList(
            CausalConv3d(width, width, 3, time_stride=2) if halve else nn.Identity()
            for width, halve in zip(widths[1:-1], shape.downsample, strict=True)
        )
        self.res_blocks = shape.residuals(widths[-1], widths[-1])
        self.norm1 = nn.GroupNorm(shape.num_groups, widths[-1])
        self.activate = shape.activate()
        self.conv2 = CausalConv3d(widths[-1], moments, 1)

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the stages in their order."""
        levels = (f"level.{i}" for i in range(len(self.block_res_blocks)))
        return ("conv_in", *levels, "mid")

    def stage(self, name: str, clip: Tensor) -> Tensor:
        """Run one stage; a level halves the frames at its end where it does so at all."""
        if name == "conv_in":
            return self.conv_in(clip)
        level = -1 if name == "mid" else int(name.removeprefix("level."))
        blocks = self.res_blocks if level < 0 else self.block_res_blocks[level]
        for block in blocks.children():
            clip = block(clip)
        if 0 <= level < len(self.conv_blocks):
            clip = self.conv_blocks[level](clip)
        return clip

    def finish(self, clip: Tensor) -> Tensor:
        """From the last stage to the moments."""
        return self.conv2(self.activate(self.norm1(clip)))

    def forward(self, clip: Tensor) -> Tensor:
        """Map [B, C, F, h, w] to moments [B, moments, F / factor, h, w]."""
        for name in self.stage_names:
            clip = self.stage(name, clip)
        return self.finish(clip)


class Decoder(nn.Module):
    """Latents to 2D latents.

    Args:
        shape: of the network.
        latents: channels that come in.
    """

    def __init__(self, shape: Shape, latents: int) -> None:
        super().__init__()
        levels = range(len(shape.multipliers))
        last = shape.width(-1)
        self.doubles = shape.downsample
        self.conv1 = CausalConv3d(latents, last, 3)
        self.res_blocks = shape.residuals(last, last)
        # Level i is entered at the width of the level above it.
        above = [shape.width(min(i + 1, len(levels) - 1)) for i in levels]
        self.block_res_blocks = nn.ModuleList(
            shape.residuals(above[i], shape.width(i)) for i in levels
        )
        self.conv_blocks = nn.ModuleList(
            CausalConv3d(shape.width(i + 1), 2 * shape.width(i + 1), 3) if double else nn.Identity()
            for i, double in enumerate(shape.downsample)
        )
        self.norm1 = nn.GroupNorm(shape.num_groups, shape.width(0))
        self.activate = shape.activate()
        self.conv_out = CausalConv3d(shape.width(0), shape.channels, 3)

    def forward(self, clip: Tensor) -> Tensor:
        """Map [B, latents, F, h, w] to [B, C, F * factor, h, w]."""
        clip = self.conv1(clip)
        for block in self.res_blocks:
            clip = block(clip)
        for level in reversed(range(len(self.block_res_blocks))):
            for block in self.block_res_blocks[level].children():
                clip = block(clip)
            if level > 0:
                clip = self.conv_blocks[level - 1](clip)
            if level > 0 and self.doubles[level - 1]:
                clip = _interleave(clip)
        return self.conv_out(self.activate(self.norm1(clip)))


def _interleave(clip: Tensor) -> Tensor:
    """From [B, 2C, F, h, w] to [B, C, 2F, h, w]: neighbouring channels, neighbouring frames."""
    return clip.unflatten(1, (-1, 2)).transpose(2, 3).flatten(2, 3)


class TemporalVAE(nn.Module):
    """The temporal autoencoder; without arguments it is the published one.

    Args:
        in_out_channels: channels of the 2D latents.
        latent_embed_dim: channels between network and latent.
        embed_dim: channels of the latent.
        filters: channels of the first level.
        num_res_blocks: residual blocks per level.
        channel_multipliers: channels of each level over `filters`.
        temporal_downsample: whether the number of frames halves after each level but the last.
        num_groups: of group normalisation.
        activation_fn: "swish" or "relu".

    Raises:
        ValueError: an unknown activation, or not one downsampling entry per level but the last.
    """

    def __init__(
        self,
        *,
        in_out_channels: int = 4,
        latent_embed_dim: int = 4,
        embed_dim: int = 4,
        filters: int = 128,
        num_res_blocks: int = 4,
        channel_multipliers: Sequence[int] = (1, 2, 2, 4),
        temporal_downsample: Sequence[bool] = (False, True, True),
        num_groups: int = 32,
        activation_fn: str = "swish",
    ) -> None:
        super().__init__()
        check_in(activation_fn, _ACTIVATIONS, "activation_fn")
        if len(temporal_downsample) != len(channel_multipliers) - 1:
            raise ValueError(
                f"temporal_downsample: expected {len(channel_multipliers) - 1} entries, one per "
                f"level but the last, got {len(temporal_downsample)}"
            )
        shape = Shape(
            channels=in_out_channels,
            filters=filters,
            num_res_blocks=num_res_blocks,
            multipliers=tuple(channel_multipliers),
            downsample=tuple(temporal_downsample),
            num_groups=num_groups,
            activation=activation_fn,
        )
        self.time_factor = 2 ** sum(shape.downsample)
        self.encoder = Encoder(shape, 2 * latent_embed_dim)
        self.quant_conv = CausalConv3d(2 * latent_embed_dim, 2 * embed_dim, 1)
        self.post_quant_conv = CausalConv3d(embed_dim, latent_embed_dim, 1)
        self.decoder = Decoder(shape, latent_embed_dim)

    def num_latent_frames(self, num_frames: int) -> int:
        """Frames of latents that a clip of so many frames becomes."""
        return -(-num_frames // self.time_factor)

    def padded(self, x: Tensor) -> Tensor:
        """Put zeros before the first frame of [B, C, F, h, w] up to whole groups of frames."""
        return functional.pad(x, (0, 0, 0, 0, -x.shape[2] % self.time_factor, 0))

    def posterior(self, features: Tensor) -> Posterior:
        """The Gaussian that the encoder's output stands for."""
        mean, logvar = self.quant_conv(features).chunk(2, dim=1)
        return Posterior(mean=mean, logvar=logvar.clamp(-30.0, 20.0))

    def encode(self, x: Tensor) -> Posterior:
        """Encode 2D latents [B, C, F, h, w]; zeros go before the first frame if need be."""
        return self.posterior(self.encoder(self.padded(x)))

    def decode(self, z: Tensor, num_frames: int) -> Tensor:
        """Decode latents to 2D latents.

        Args:
            z: [B, embed_dim, F', h, w].
            num_frames: of the clip that was encoded; what was padded is cut off again.
        """
        return self.decoder(self.post_quant_conv(z))[:, :, -num_frames % self.time_factor :]
