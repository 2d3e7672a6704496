"""A framewise two-dimensional twin of ``AutoencoderKLCogVideoX``.

The causal 3-D convolutions of CogVideoX see a still image as the same frame repeated, so one frame
needs only the sum of the temporal taps. Training with plain 2-D convolutions is 2 to 2.5 times
faster; :func:`to_cogvideox` then writes each kernel into the last temporal tap and leaves the
others zero, which gives the diffusers model that is shipped, without any patched code in it.
Parameter names are those of diffusers, so the conversion is a walk over one state dict.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from diffusers import AutoencoderKLCogVideoX
from torch import Tensor, nn
from torch.nn import functional

from anti_i2v_lit.surrogates.embedded.autoencoder import LatentShape, PictureAutoencoder


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderShape(LatentShape):
    """Sizes of the autoencoder."""

    block_channels: tuple[int, ...] = (16, 32, 64, 96)  # channels from fine to coarse
    layers_per_block: int = 1  # residual blocks a resolution (the decoder has one more)
    norm_groups: int = 8  # groups of every group normalisation

    def __post_init__(self) -> None:
        """Refuse sizes that the architecture cannot take."""
        super().__post_init__()
        if len(self.block_channels) < 2 or any(c % self.norm_groups for c in self.block_channels):
            raise ValueError(
                f"block_channels arrived as {self.block_channels}; expected two or more multiples "
                f"of norm_groups={self.norm_groups}; change one of the two."
            )
        if self.layers_per_block < 1:
            raise ValueError(
                f"layers_per_block arrived as {self.layers_per_block}; expected 1 or more; "
                "raise it."
            )

    @property
    def stride(self) -> int:
        """Pixels of the image under one latent position, along each axis."""
        return 2 ** (len(self.block_channels) - 1)


class _NamedConv(nn.Module):
    """A convolution under the name ``conv``, as in the causal convolution it stands for."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class _SpatialNorm(nn.Module):
    """Group normalisation scaled and shifted by the latent at the same place."""

    def __init__(self, channels: int, latent_channels: int, groups: int) -> None:
        super().__init__()
        self.norm_layer = nn.GroupNorm(groups, channels, eps=1e-6)
        self.conv_y = _NamedConv(latent_channels, channels, 1)
        self.conv_b = _NamedConv(latent_channels, channels, 1)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        # 1x1 convolution and nearest-neighbour enlargement commute; this order is the cheap one.
        scale = functional.interpolate(self.conv_y(latent), size=x.shape[-2:])
        shift = functional.interpolate(self.conv_b(latent), size=x.shape[-2:])
        return self.norm_layer(x) * scale + shift


class _ResnetBlock(nn.Module):
    """Two normalised 3x3 convolutions and a shortcut; with a latent, the decoder's kind."""

    def __init__(
        self, in_channels: int, out_channels: int, groups: int, latent_channels: int | None
    ) -> None:
        super().__init__()
        self.norm1: nn.Module
        self.norm2: nn.Module
        if latent_channels is None:
            self.norm1 = nn.GroupNorm(groups, in_channels, eps=1e-6)
            self.norm2 = nn.GroupNorm(groups, out_channels, eps=1e-6)
        else:
            self.norm1 = _SpatialNorm(in_channels, latent_channels, groups)
            self.norm2 = _SpatialNorm(out_channels, latent_channels, groups)
        self.conv1 = _NamedConv(in_channels, out_channels, 3)
        self.conv2 = _NamedConv(out_channels, out_channels, 3)
        self.conv_shortcut: nn.Module | None = None
        if in_channels != out_channels:
            self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, latent: Tensor | None) -> Tensor:
        hidden = self.norm1(x) if latent is None else self.norm1(x, latent)
        hidden = self.conv1(functional.silu(hidden))
        hidden = self.norm2(hidden) if latent is None else self.norm2(hidden, latent)
        hidden = self.conv2(functional.silu(hidden))
        return hidden + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class _Resample(nn.Module):
    """Halve (pad right and bottom, stride 2) or double (nearest, then 3x3) the resolution."""

    def __init__(self, channels: int, *, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(channels, channels, 3, 1 if up else 2, padding=1 if up else 0)

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            return self.conv(functional.interpolate(x, scale_factor=2.0))
        return self.conv(functional.pad(x, (0, 1, 0, 1)))


class _Block(nn.Module):
    """Residual blocks and, where the resolution changes, a resampling step."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        layers: int,
        groups: int,
        *,
        latent_channels: int | None = None,
        resample: str | None = None,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            _ResnetBlock(
                in_channels if i == 0 else out_channels, out_channels, groups, latent_channels
            )
            for i in range(layers)
        )
        steps = [] if resample is None else [_Resample(out_channels, up=resample == "up")]
        # The names are those of diffusers; the empty list of the other kind adds no parameter.
        self.downsamplers = nn.ModuleList(steps if resample == "down" else [])
        self.upsamplers = nn.ModuleList(steps if resample == "up" else [])

    def forward(self, x: Tensor, latent: Tensor | None = None) -> Tensor:
        for resnet in self.resnets:
            x = resnet(x, latent)
        for step in (*self.downsamplers, *self.upsamplers):
            x = step(x)
        return x


class FrameEncoder(nn.Module):
    """Image ``[B, 3, H, W]`` in [-1, 1] to moments ``[B, 2C, H/8, W/8]`` (mean, log variance)."""

    def __init__(self, shape: AutoencoderShape) -> None:
        super().__init__()
        channels, groups = shape.block_channels, shape.norm_groups
        self.conv_in = _NamedConv(3, channels[0], 3)
        self.down_blocks = nn.ModuleList(
            _Block(
                channels[max(i - 1, 0)],
                width,
                shape.layers_per_block,
                groups,
                resample="down" if i < len(channels) - 1 else None,
            )
            for i, width in enumerate(channels)
        )
        self.mid_block = _Block(channels[-1], channels[-1], 2, groups)
        self.norm_out = nn.GroupNorm(groups, channels[-1], eps=1e-6)
        self.conv_out = _NamedConv(channels[-1], 2 * shape.latent_channels, 3)

    def forward(self, image: Tensor) -> Tensor:
        """Moments of a batch of images."""
        x = self.conv_in(image)
        for block in self.down_blocks:
            x = block(x)
        x = self.mid_block(x)
        return self.conv_out(functional.silu(self.norm_out(x)))


class FrameDecoder(nn.Module):
    """Latent ``[B, C, h, w]`` to image ``[B, 3, 8h, 8w]``, nominally in [-1, 1]."""

    def __init__(self, shape: AutoencoderShape) -> None:
        super().__init__()
        channels, groups = shape.block_channels[::-1], shape.norm_groups
        latent = shape.latent_channels
        self.conv_in = _NamedConv(latent, channels[0], 3)
        self.mid_block = _Block(channels[0], channels[0], 2, groups, latent_channels=latent)
        self.up_blocks = nn.ModuleList(
            _Block(
                channels[max(i - 1, 0)],
                width,
                shape.layers_per_block + 1,
                groups,
                latent_channels=latent,
                resample="up" if i < len(channels) - 1 else None,
            )
            for i, width in enumerate(channels)
        )
        self.norm_out = _SpatialNorm(channels[-1], latent, groups)
        self.conv_out = _NamedConv(channels[-1], 3, 3)

    def forward(self, latent: Tensor) -> Tensor:
        """Images of a batch of latents."""
        x = self.mid_block(self.conv_in(latent), latent)
        for block in self.up_blocks:
            x = block(x, latent)
        return self.conv_out(functional.silu(self.norm_out(x, latent)))


class FrameAutoencoder(PictureAutoencoder):
    """Encoder and decoder of single frames, trainable with 2-D convolutions."""

    def __init__(self, shape: AutoencoderShape) -> None:
        super().__init__()
        self.shape: AutoencoderShape = shape
        self.encoder = FrameEncoder(shape)
        self.decoder = FrameDecoder(shape)
        self.start_with_little_noise()

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance, each ``[B, C, H/8, W/8]``, of images in [-1, 1]."""
        mean, logvar = self.encoder(image).chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)

    def decode(self, latent: Tensor) -> Tensor:
        """Images ``[B, 3, H, W]`` of latents ``[B, C, H/8, W/8]``."""
        return self.decoder(latent)

    def moment_layer(self) -> nn.Conv2d:
        """The convolution that ends the encoder."""
        return self.encoder.conv_out.conv

    def latent_readers(self) -> list[nn.Conv2d]:
        """The first convolution and those of every spatial normalisation."""
        readers = [self.decoder.conv_in.conv]
        for module in self.decoder.modules():
            if isinstance(module, _SpatialNorm):
                readers.extend((module.conv_y.conv, module.conv_b.conv))
        return readers


def to_cogvideox(model: FrameAutoencoder, *, scaling_factor: float = 1.0) -> AutoencoderKLCogVideoX:
    """The same autoencoder as a diffusers model, every 2-D kernel in the last temporal tap.

    Args:
        model: The trained twin.
        scaling_factor: Factor the pipeline multiplies latents with (1 once they are whitened).

    Returns:
        A float32 ``AutoencoderKLCogVideoX`` without temporal compression. Single frames go through
        it exactly as through the twin. In a clip the group normalisations pool their statistics
        over the frames decoded together; that is the only place where frames meet.
    """
    shape = model.shape
    depth = len(shape.block_channels)
    # Diffusers hides the base classes of its models from type checkers.
    vae: Any = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * depth,
        up_block_types=("CogVideoXUpBlock3D",) * depth,
        block_out_channels=shape.block_channels,
        layers_per_block=shape.layers_per_block,
        latent_channels=shape.latent_channels,
        norm_num_groups=shape.norm_groups,
        temporal_compression_ratio=1,
        sample_height=shape.sample_size,
        sample_width=shape.sample_size,
        scaling_factor=scaling_factor,
        force_upcast=False,
    )
    target = vae.state_dict()
    for name, value in model.state_dict().items():
        slot = target[name]
        if slot.ndim == value.ndim + 1:
            slot.zero_()
            slot[:, :, -1] = value
        else:
            slot.copy_(value)
    vae.load_state_dict(target)
    return vae.eval()
