"""The packaged CogVideoX autoencoder with less work where the result is the same.

It was trained on pictures: all its causal convolutions are zero for earlier frames. Two identities
hold, each but for the order of float additions:

- Such a convolution is one of single frames, at a third of the multiplications.
- The decoder's normalisations scale and shift by a 1x1 convolution of the enlarged latent.
  Enlarging repeats values, so the convolution may come first, at a fraction of the places.

Modules of one loaded autoencoder are replaced; diffusers' classes stay as they are, and so do
autoencoders that look at earlier frames, as the published ones do.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.activations import GELU
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import (
    CogVideoXCausalConv3d,
    CogVideoXSpatialNorm3D,
)
from torch import Tensor, nn
from torch.nn import functional

from anti_i2v_lit.generators.dense import Dense

Cache = dict[str, Any] | None


class FrameConv(nn.Module):
    """A causal convolution that looks at no earlier frame, frame by frame.

    Args:
        causal: whose kernel is zero but for the present frame.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, causal: CogVideoXCausalConv3d) -> None:
        super().__init__()
        original: Any = causal
        self.register_buffer("weight", original.conv.weight.detach()[:, :, -1].contiguous())
        self.register_buffer("bias", original.conv.bias.detach())
        self.padding = (original.height_pad, original.width_pad)

    def forward(self, inputs: Tensor, conv_cache: Tensor | None = None) -> tuple[Tensor, None]:
        """[B, C, T, H, W] to the same with other channels; nothing is handed on to later frames."""
        del conv_cache
        frames = inputs.transpose(1, 2).flatten(0, 1)
        made = functional.conv2d(frames, self.weight, self.bias, padding=self.padding)
        return made.unflatten(0, (len(inputs), -1)).transpose(1, 2).contiguous(), None


class LatentNorm(nn.Module):
    """Group normalisation, scaled and shifted by the latent at the same place.

    Args:
        original: whose layers it takes over.
    """

    def __init__(self, original: CogVideoXSpatialNorm3D) -> None:
        super().__init__()
        layers: Any = original
        self.norm_layer = layers.norm_layer
        self.conv_y, self.conv_b = layers.conv_y.conv, layers.conv_b.conv

    def forward(
        self, f: Tensor, zq: Tensor, conv_cache: Cache = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Features [B, C, T, H, W] and latents [B, D, t, h, w] to features."""
        del conv_cache  # a 1x1x1 kernel sees no other frame
        size = (f.shape[2], f.shape[3], f.shape[4])
        scale, shift = (_enlarged(layer(zq), size) for layer in (self.conv_y, self.conv_b))
        return torch.addcmul(shift, self.norm_layer(f), scale), {}


def simplify(autoencoder: nn.Module) -> bool:
    """Replace the layers of an autoencoder that looks at one frame at a time, in place.

    Returns:
        Whether it is one; else it is left as it was.
    """
    layers = [m for m in autoencoder.modules() if isinstance(m, CogVideoXCausalConv3d)]
    if not layers or not all(map(sees_one_frame, layers)):
        return False
    for parent, name, child in _children(autoencoder):
        if isinstance(child, CogVideoXSpatialNorm3D):
            setattr(parent, name, LatentNorm(child))
    for parent, name, child in _children(autoencoder):
        if isinstance(child, CogVideoXCausalConv3d):
            setattr(parent, name, FrameConv(child))
    return True


def _children(root: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """(parent, name, child) of all modules below a root."""
    return [(parent, *named) for parent in root.modules() for named in parent.named_children()]


def dense_gelu(original: nn.Module) -> Dense:
    """A linear layer and the GELU behind it, in one."""
    assert isinstance(original, GELU)
    layers: Any = original
    return Dense(layers.proj.weight, layers.proj.bias, gelu=layers.approximate)


def sees_one_frame(causal: CogVideoXCausalConv3d) -> bool:
    """Whether a convolution's kernel is zero for all frames but the present one."""
    layer: Any = causal
    simple = layer.pad_mode != "replicate" and tuple(layer.conv.stride) == (1, 1, 1)
    return simple and not layer.conv.weight[:, :, :-1].any()


def _enlarged(values: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Repeat values [B, C, t, h, w] to (T, H, W), as diffusers does: odd clips begin alone."""
    frames, height, width = size
    if frames > 1 and frames % 2 == 1:
        first = functional.interpolate(values[:, :, :1], size=(1, height, width))
        rest = functional.interpolate(values[:, :, 1:], size=(frames - 1, height, width))
        return torch.cat([first, rest], dim=2)
    return functional.interpolate(values, size=size)
