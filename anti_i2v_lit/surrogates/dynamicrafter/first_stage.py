"""The first stage: a KL autoencoder of single frames, 8 pixels to a latent in the full models.

Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models", arXiv
2112.10752. The names of the layers are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from anti_i2v_lit.checks import check_in
from anti_i2v_lit.surrogates.blocks import recomputed

_ATTENTIONS = ("vanilla", "none")


class FirstStage(nn.Module):
    """Encoder and decoder of frames, as `FirstStage(**config)` of the published settings.

    Args:
        double_z: whether the encoder says mean and log-variance; the published models do.
        z_channels: channels of the latents.
        resolution: side of the training frames, pixels; says where `attn_resolutions` lie.
        in_channels: of the frames.
        out_ch: channels of decoded frames.
        ch: channels of the first level.
        ch_mult: channels of each level, multiples of `ch`; each further level halves the frame.
        num_res_blocks: residual blocks per level of the encoder; the decoder has one more.
        attn_resolutions: sides, pixels, whose levels have attention.
        dropout: probability; without effect in eval mode.
        embed_dim: channels of the latents after `quant_conv`; `z_channels` if None.
        resamp_with_conv: whether a convolution goes with every change of resolution.
        attn_type: "vanilla" or "none".
        tanh_out: whether decoded frames end in a hyperbolic tangent.
        norm_groups: groups of every normalisation; the published models have 32. Where `ch` is
            small, 32 groups would normalise each channel alone and lose the brightness of a frame.

    Raises:
        ValueError: unknown kind of attention.
    """

    def __init__(
        self,
        *,
        double_z: bool = True,
        z_channels: int = 4,
        resolution: int = 256,
        in_channels: int = 3,
        out_ch: int = 3,
        ch: int = 128,
        ch_mult: Sequence[int] = (1, 2, 4, 4),
        num_res_blocks: int = 2,
        attn_resolutions: Sequence[int] = (),
        dropout: float = 0.0,
        embed_dim: int | None = None,
        resamp_with_conv: bool = True,
        attn_type: str = "vanilla",
        tanh_out: bool = False,
        norm_groups: int = 32,
    ) -> None:
        super().__init__()
        check_in(attn_type, _ATTENTIONS, "attention of the first stage")
        moments = 2 if double_z else 1
        embed_dim = z_channels if embed_dim is None else embed_dim
        layout = _Layout(
            ch,
            ch_mult,
            num_res_blocks,
            resolution,
            attn_resolutions,
            dropout,
            attn_type,
            norm_groups,
        )
        self.encoder = Encoder(layout, in_channels, moments * z_channels, resamp_with_conv)
        self.decoder: Decoder | None = Decoder(
            layout, z_channels, out_ch, resamp_with_conv, tanh_out
        )
        self.quant_conv = nn.Conv2d(moments * z_channels, moments * embed_dim, 1)
        self.post_quant_conv: nn.Conv2d | None = nn.Conv2d(embed_dim, z_channels, 1)

    @property
    def tap_names(self) -> tuple[str, ...]:
        """Names of the encoder's taps, shallow to deep."""
        downs = (f"encoder.down.{i}" for i in range(len(self.encoder.down)))
        return ("encoder.conv_in", *downs, "encoder.mid")

    @property
    def ratio(self) -> int:
        """Pixels per latent, along each side."""
        return 2 ** (len(self.encoder.down) - 1)

    def drop_decoder(self) -> None:
        """Let go of the decoder, for a model that only encodes."""
        self.decoder, self.post_quant_conv = None, None

    def moments(self, x: Tensor) -> Tensor:
        """Return mean and log-variance, joined on channels.

        Args:
            x: frames [N, 3, H, W] in [-1, 1].

        Returns:
            [N, 2C, h, w] ([N, C, h, w] without `double_z`), unscaled.
        """
        return self.moments_and_taps(x, frozenset(), False)[0]

    def moments_and_taps(
        self, x: Tensor, taps: frozenset[str], checkpointing: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return `moments` and the features of the encoder's levels.

        Args:
            x: frames [N, 3, H, W] in [-1, 1].
            taps: names out of `tap_names`.
            checkpointing: recompute each block in the backward pass instead of storing it.

        Returns:
            The moments, and tap name -> map [N, D, h', w'].
        """
        hidden, features = self.encoder(x, taps, checkpointing)
        return self.quant_conv(hidden), features

    def decode(self, z: Tensor) -> Tensor:
        """Return frames [N, 3, H, W], about [-1, 1], of unscaled latents [N, C, h, w].

        Raises:
            ValueError: the decoder was dropped.
        """
        if self.decoder is None or self.post_quant_conv is None:
            raise ValueError("this first stage was loaded without its decoder; it only encodes")
        return self.decoder(self.post_quant_conv(z))


class Encoder(nn.Module):
    """Frames to the input of `quant_conv`; levels of residual blocks, then a middle."""

    def __init__(
        self, layout: _Layout, in_channels: int, out_channels: int, resamp_with_conv: bool
    ) -> None:
        super().__init__()
        widths = [layout.ch * m for m in (1, *layout.ch_mult)]
        self.conv_in = _conv(in_channels, layout.ch)
        self.down = nn.ModuleList()
        for level in range(len(layout.ch_mult)):
            blocks = layout.blocks(widths[level], widths[level + 1], layout.num_res_blocks)
            stage = _Level(blocks, layout.attentions(level, widths[level + 1], len(blocks)))
            if level != len(layout.ch_mult) - 1:
                stage.downsample = Downsample(widths[level + 1], resamp_with_conv)
            self.down.append(stage)
        self.mid = Middle(widths[-1], layout)
        self.norm_out = layout.norm(widths[-1])
        self.conv_out = _conv(widths[-1], out_channels)

    def forward(
        self, x: Tensor, taps: frozenset[str], checkpointing: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Encode frames [N, 3, H, W]; features are taken after each level's last block."""
        features: dict[str, Tensor] = {}
        hidden = self.conv_in(x)
        _keep(features, taps, "encoder.conv_in", hidden)
        for index, level in enumerate(self.down):
            assert isinstance(level, _Level)
            hidden = level(hidden, checkpointing)
            _keep(features, taps, f"encoder.down.{index}", hidden)
            hidden = level.leave(hidden)
        hidden = self.mid(hidden, checkpointing)
        _keep(features, taps, "encoder.mid", hidden)
        return self.conv_out(functional.silu(self.norm_out(hidden))), features


class Decoder(nn.Module):
    """The output of `post_quant_conv` to frames; levels are numbered from the frames' side."""

    def __init__(
        self,
        layout: _Layout,
        z_channels: int,
        out_channels: int,
        resamp_with_conv: bool,
        tanh_out: bool,
    ) -> None:
        super().__init__()
        widths = [layout.ch * m for m in layout.ch_mult]
        entering = [*widths[1:], widths[-1]]
        self.conv_in = _conv(z_channels, widths[-1])
        self.mid = Middle(widths[-1], layout)
        self.up = nn.ModuleList()
        for level, width in enumerate(widths):
            blocks = layout.blocks(entering[level], width, layout.num_res_blocks + 1)
            stage = _Level(blocks, layout.attentions(level, width, len(blocks)))
            if level != 0:
                stage.upsample = Upsample(width, resamp_with_conv)
            self.up.append(stage)
        self.norm_out = layout.norm(widths[0])
        self.conv_out = _conv(widths[0], out_channels)
        self.tanh_out = tanh_out

    def forward(self, z: Tensor) -> Tensor:
        """Decode [N, C, h, w]."""
        hidden = self.mid(self.conv_in(z), False)
        for level in reversed(self.up):
            assert isinstance(level, _Level)
            hidden = level.leave(level(hidden, False))
        hidden = self.conv_out(functional.silu(self.norm_out(hidden)))
        return hidden.tanh() if self.tanh_out else hidden


class ResidualBlock(nn.Module):
    """Two normalised convolutions beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float, groups: int) -> None:
        super().__init__()
        self.norm1 = _norm(in_channels, groups)
        self.conv1 = _conv(in_channels, out_channels)
        self.norm2 = _norm(out_channels, groups)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = _conv(out_channels, out_channels)
        self.nin_shortcut: nn.Conv2d | None = None
        if in_channels != out_channels:
            self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C_in, H, W] to [N, C_out, H, W]."""
        hidden = self.conv1(functional.silu(self.norm1(x)))
        hidden = self.conv2(self.dropout(functional.silu(self.norm2(hidden))))
        return (x if self.nin_shortcut is None else self.nin_shortcut(x)) + hidden


class PixelAttention(nn.Module):
    """Self-attention over all places of a map, one head as wide as the channels."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = _norm(channels, groups)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same shape."""
        hidden = self.norm(x)
        query, key, value = (
            layer(hidden).flatten(2).transpose(1, 2)[:, None] for layer in (self.q, self.k, self.v)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return x + self.proj_out(mixed[:, 0].transpose(1, 2).reshape(x.shape))


class Middle(nn.Module):
    """A residual block, attention and another block at the lowest resolution."""

    def __init__(self, channels: int, layout: _Layout) -> None:
        super().__init__()
        self.block_1 = layout.block(channels, channels)
        self.attn_1 = layout.attention(channels)
        self.block_2 = layout.block(channels, channels)

    def forward(self, x: Tensor, checkpointing: bool) -> Tensor:
        """[N, C, H, W] to the same shape."""
        for layer in (self.block_1, self.attn_1, self.block_2):
            x = recomputed(layer, checkpointing, x)
        return x


class Downsample(nn.Module):
    """Halve height and width: a convolution padded below and on the right, or an average."""

    def __init__(self, channels: int, with_conv: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2) if with_conv else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, H // 2, W // 2]."""
        if self.conv is None:
            return functional.avg_pool2d(x, 2)
        return self.conv(functional.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double height and width by repetition, then a convolution."""

    def __init__(self, channels: int, with_conv: bool) -> None:
        super().__init__()
        self.conv = _conv(channels, channels) if with_conv else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, 2H, 2W]."""
        doubled = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return doubled if self.conv is None else self.conv(doubled)


class _Level(nn.Module):
    """The blocks of one resolution, each with its attention if the level has any."""

    def __init__(self, block: nn.ModuleList, attn: nn.ModuleList) -> None:
        super().__init__()
        self.block, self.attn = block, attn
        self.downsample: Downsample | None = None
        self.upsample: Upsample | None = None

    def forward(self, x: Tensor, checkpointing: bool) -> Tensor:
        for index, block in enumerate(self.block):
            x = recomputed(block, checkpointing, x)
            if len(self.attn):
                x = recomputed(self.attn[index], checkpointing, x)
        return x

    def leave(self, x: Tensor) -> Tensor:
        """Change the resolution, where another level follows."""
        if self.downsample is not None:
            return self.downsample(x)
        return x if self.upsample is None else self.upsample(x)


class _Layout:
    """What encoder and decoder share."""

    def __init__(
        self,
        ch: int,
        ch_mult: Sequence[int],
        num_res_blocks: int,
        resolution: int,
        attn_resolutions: Sequence[int],
        dropout: float,
        attn_type: str,
        norm_groups: int,
    ) -> None:
        self.ch, self.ch_mult, self.num_res_blocks = ch, tuple(ch_mult), num_res_blocks
        self._dropout, self._attn_type, self._groups = dropout, attn_type, norm_groups
        self._attended = {
            level
            for level in range(len(self.ch_mult))
            if resolution // 2**level in set(attn_resolutions)
        }

    def norm(self, channels: int) -> nn.GroupNorm:
        return _norm(channels, self._groups)

    def block(self, entering: int, width: int) -> nn.Module:
        return ResidualBlock(entering, width, self._dropout, self._groups)

    def blocks(self, entering: int, width: int, count: int) -> nn.ModuleList:
        sizes = [entering, *[width] * count]
        return nn.ModuleList(self.block(sizes[i], width) for i in range(count))

    def attentions(self, level: int, width: int, count: int) -> nn.ModuleList:
        attended = level in self._attended
        return nn.ModuleList(self.attention(width) for _ in range(count if attended else 0))

    def attention(self, width: int) -> nn.Module:
        if self._attn_type != "vanilla":
            return nn.Identity()
        return PixelAttention(width, self._groups)


def _norm(channels: int, groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=1e-6)


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def _keep(features: dict[str, Tensor], taps: frozenset[str], name: str, value: Tensor) -> None:
    if name in taps:
        features[name] = value
