"""The U-Net's published settings and the layers that follow from them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import nn

from anti_i2v_lit.surrogates.dynamicrafter.attention import (
    SpatialTransformer,
    TemporalTransformer,
    TransformerSizes,
)
from anti_i2v_lit.surrogates.dynamicrafter.blocks import (
    Downsample,
    ResidualBlock,
    ResidualSettings,
    Upsample,
)

_INIT_HEADS = 8


@dataclass(frozen=True, kw_only=True)
class UNetSettings:
    """Keywords of the U-Net, under their published names.

    Attributes:
        in_channels: of noisy latents joined with image latents.
        model_channels: channels of the first level.
        out_channels: of the prediction.
        num_res_blocks: residual blocks per level on the way down; one more on the way up.
        attention_resolutions: downsampling factors whose levels have attention.
        dropout: probability; without effect in eval mode.
        channel_mult: channels of each level, multiples of `model_channels`.
        conv_resample: whether a convolution goes with every change of resolution.
        context_dim: width of text and image tokens.
        use_scale_shift_norm: whether the timestep scales and shifts, else it is added.
        resblock_updown: whether residual blocks change the resolution.
        num_heads: heads of every attention; -1 to follow from `num_head_channels`.
        num_head_channels: width of every head; -1 to follow from `num_heads`.
        transformer_depth: blocks per transformer.
        use_linear: whether the transformers' outer projections are linear layers.
        use_checkpoint: whether blocks are recomputed in the backward pass instead of stored.
        temporal_conv: whether residual blocks convolve over time.
        tempspatial_aware: whether those convolutions also see a neighbour in space.
        temporal_attention: whether temporal transformers follow the spatial ones.
        use_relative_position: whether temporal attention has learned relative positions.
        use_causal_attention: whether a frame sees no later one.
        temporal_length: frames of the training clips; with relative positions, their reach.
        addition_attention: whether a temporal transformer follows the first convolution.
        temporal_selfatt_only: whether that one has no eyes for the text.
        image_cross_attention: whether image tokens have keys and values of their own.
        image_cross_attention_scale_learnable: whether a learned factor weighs them.
        default_fs: frame rate (or stride) where none is given.
        fs_condition: whether the frame rate (or stride) is a condition.
    """

    in_channels: int
    model_channels: int
    out_channels: int
    num_res_blocks: int
    attention_resolutions: Collection[int]
    dropout: float = 0.0
    channel_mult: Sequence[int] = (1, 2, 4, 8)
    conv_resample: bool = True
    context_dim: int | None = None
    use_scale_shift_norm: bool = False
    resblock_updown: bool = False
    num_heads: int = -1
    num_head_channels: int = -1
    transformer_depth: int = 1
    use_linear: bool = False
    use_checkpoint: bool = False
    temporal_conv: bool = False
    tempspatial_aware: bool = False
    temporal_attention: bool = True
    use_relative_position: bool = True
    use_causal_attention: bool = False
    temporal_length: int | None = None
    addition_attention: bool = False
    temporal_selfatt_only: bool = True
    image_cross_attention: bool = False
    image_cross_attention_scale_learnable: bool = False
    default_fs: int = 4
    fs_condition: bool = False

    def __post_init__(self) -> None:
        """Refuse settings that leave the number of heads or the reach of positions open."""
        if self.num_heads == -1 and self.num_head_channels == -1:
            raise ValueError("num_heads or num_head_channels must be given, got -1 for both")
        if self.addition_attention and self.num_head_channels == -1:
            raise ValueError("addition_attention needs num_head_channels, got -1")
        if self.use_relative_position and self.temporal_length is None:
            raise ValueError("use_relative_position needs temporal_length, the positions' reach")

    @property
    def embedding_dim(self) -> int:
        """Width of the embedding of timestep and frame rate."""
        return 4 * self.model_channels

    def residual(
        self, in_channels: int, out_channels: int, resample: nn.Module | None = None
    ) -> ResidualBlock:
        """A residual block."""
        shared = ResidualSettings(
            embedding_dim=self.embedding_dim,
            dropout=self.dropout,
            scale_shift=self.use_scale_shift_norm,
            temporal_conv=self.temporal_conv,
            spatial_aware=self.tempspatial_aware,
        )
        return ResidualBlock(shared, in_channels, out_channels, resample)

    def transformers(self, channels: int) -> list[nn.Module]:
        """The spatial transformer and, where the model has them, the temporal one after it."""
        spatial = SpatialTransformer(
            self._sizes(channels, self.context_dim),
            self.image_cross_attention,
            self.image_cross_attention_scale_learnable,
        )
        if not self.temporal_attention:
            return [spatial]
        sizes = self._sizes(channels, None)
        return [spatial, TemporalTransformer(sizes, self.use_causal_attention, self._reach)]

    def first_transformer(self) -> TemporalTransformer:
        """The one after the first convolution: eight heads whatever the channels, no masks."""
        sizes = TransformerSizes(
            channels=self.model_channels,
            heads=_INIT_HEADS,
            dim_head=self.num_head_channels,
            depth=self.transformer_depth,
            context_dim=None if self.temporal_selfatt_only else self.context_dim,
            use_linear=False,
        )
        return TemporalTransformer(sizes, False, self._reach)

    def down(self, channels: int) -> nn.Module:
        """What halves height and width."""
        if self.resblock_updown:
            return self.residual(channels, channels, Downsample(channels, False))
        return Downsample(channels, self.conv_resample)

    def up(self, channels: int) -> nn.Module:
        """What doubles height and width."""
        if self.resblock_updown:
            return self.residual(channels, channels, Upsample(channels, False))
        return Upsample(channels, self.conv_resample)

    @property
    def _reach(self) -> int | None:
        return self.temporal_length if self.use_relative_position else None

    def _sizes(self, channels: int, context_dim: int | None) -> TransformerSizes:
        by_width = self.num_head_channels != -1
        heads = channels // self.num_head_channels if by_width else self.num_heads
        return TransformerSizes(
            channels=channels,
            heads=heads,
            dim_head=self.num_head_channels if by_width else channels // heads,
            depth=self.transformer_depth,
            context_dim=context_dim,
            use_linear=self.use_linear,
        )
