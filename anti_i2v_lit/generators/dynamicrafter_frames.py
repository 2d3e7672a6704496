"""DynamiCrafter's U-Net with its work over time in a form that suits a CPU.

The same sums in another order: PyTorch has no fast kernel there for convolutions over time alone
nor for attention among a handful of frames. Modules of one loaded U-Net are replaced; the classes
stay as they are.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from anti_i2v_lit.generators.dense import Dense, quicken
from anti_i2v_lit.surrogates.dynamicrafter.attention import (
    CrossAttention,
    GatedProjection,
    TemporalTransformer,
)
from anti_i2v_lit.surrogates.dynamicrafter.unet import UNet

# Frames above which products of all pairs need more memory than they save time.
_MOST_FRAMES = 8


class TimeConv(nn.Module):
    """A convolution over frames alone, as one over the rows of a flat map.

    Args:
        original: with a kernel of one pixel.
    """

    def __init__(self, original: nn.Conv3d) -> None:
        super().__init__()
        self.weight = nn.Parameter(original.weight.detach()[..., 0], requires_grad=False)
        self.bias = original.bias
        self.padding = (int(original.padding[0]), 0)

    def forward(self, clips: Tensor) -> Tensor:
        """[B, C, T, H, W] to the same shape."""
        flat = functional.conv2d(clips.flatten(3), self.weight, self.bias, padding=self.padding)
        return flat.unflatten(3, clips.shape[3:])


class FewFramesAttention(nn.Module):
    """Self-attention of short rows, by products of all pairs.

    Args:
        original: without positions and without a photo's weights.
    """

    def __init__(self, original: CrossAttention) -> None:
        super().__init__()
        self.original = original

    def forward(self, x: Tensor, context: Tensor | None = None, causal: bool = False) -> Tensor:
        """As the original: [N, L, D] to the same shape."""
        layer = self.original
        if context is not None or causal or x.shape[1] > _MOST_FRAMES:
            return layer(x, context, causal)
        query, key, value = (
            part(x).unflatten(-1, (layer.heads, -1))
            for part in (layer.to_q, layer.to_k, layer.to_v)
        )
        scores = (query[:, :, None] * key[:, None]).sum(dim=-1) * query.shape[-1] ** -0.5
        weights = scores.softmax(dim=2)
        mixed = (weights[..., None] * value[:, None]).sum(dim=2)
        return layer.to_out(mixed.flatten(2))


class GatedDense(nn.Module):
    """One half of a projection, gated by the GELU of the other.

    Args:
        original: a `GatedProjection`, whose weights it takes over.
    """

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        assert isinstance(original, GatedProjection)
        weights, biases = original.proj.weight.chunk(2), original.proj.bias.chunk(2)
        self.value = Dense(weights[0], biases[0])
        self.gate = Dense(weights[1], biases[1], gelu="none")

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to [..., inner]."""
        return self.value(x) * self.gate(x)


def simplify(unet: UNet) -> None:
    """Replace the layers of a float32 U-Net that can be cheaper on a CPU, in place."""
    for parent in list(unet.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv3d) and _is_over_time(child):
                setattr(parent, name, TimeConv(child))
    for transformer in unet.modules():
        if isinstance(transformer, TemporalTransformer):
            for block in transformer.transformer_blocks:
                for name, child in list(block.named_children()):
                    setattr(block, name, _short(child))
    quicken(unet, {GatedProjection: GatedDense})


def _is_over_time(layer: nn.Conv3d) -> bool:
    kernel, stride = tuple(layer.kernel_size), tuple(layer.stride)
    return kernel[1:] == (1, 1) and stride == (1, 1, 1) and not any(layer.padding[1:])


def _short(layer: nn.Module) -> nn.Module:
    if (
        not isinstance(layer, CrossAttention)
        or layer.image
        or layer.relative_position_k is not None
    ):
        return layer
    return FewFramesAttention(layer)
