"""The encoder half of Wan's video autoencoder: taps, gradients, and no state between calls.

The encoder is causal and takes a clip in chunks of 1, 4, 4, ... frames; each convolution sees the
last frames of the chunk before. diffusers keeps those frames on the autoencoder; here they are
values that one call hands from chunk to chunk, so gradients flow through them, activation
checkpointing can recompute them, and nothing is left for the next call.

Before the first frame there are zeros, so on that frame a causal kernel acts by its last temporal
slice alone: conv3d equals conv2d with `weight[:, :, -1]`, at a third of the multiplications.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    AutoencoderKLWan,
    WanCausalConv3d,
    patchify,
)
from torch import Tensor, nn
from torch.nn import functional

from anti_i2v_lit.surrogates.blocks import recomputed

# Frames of each chunk after the first, and frames that a convolution keeps of a chunk.
_CHUNK, _KEPT = 4, 2
Cache = list[Tensor | None]
Stage = Callable[[Tensor, Cache | None, list[int]], Tensor]


class FirstFrameConv(nn.Module):
    """A causal convolution of Wan that takes the first frame of a clip through conv2d."""

    def __init__(self, causal: WanCausalConv3d) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, x: Tensor, cache_x: Tensor | None = None) -> Tensor:
        """Convolve [B, C, F, H, W], given the last frames of the chunk before."""
        if cache_x is not None or x.shape[2] > 1:
            return self.causal(x, cache_x)
        causal: Any = self.causal
        left, _, top, *_ = causal._padding
        weight = causal.weight[:, :, -1]
        return functional.conv2d(x[:, :, 0], weight, causal.bias, padding=(top, left))[:, :, None]


class WanEncoder(nn.Module):
    """Photos and clips to normalised latents.

    Args:
        vae: a loaded autoencoder; its encoder is taken over and its convolutions are replaced.
        checkpointing: recompute each stage in the backward pass instead of storing it.
    """

    latents_mean: Tensor
    latents_std: Tensor

    def __init__(self, vae: AutoencoderKLWan, checkpointing: bool) -> None:
        super().__init__()
        settings: Any = vae.config
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv
        _replace(self.encoder)
        self.checkpointing = checkpointing
        self._patch = settings.patch_size or 1
        for name in ("latents_mean", "latents_std"):
            values = torch.tensor(getattr(settings, name)).reshape(1, -1, 1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    @property
    def tap_names(self) -> tuple[str, ...]:
        """Names of the taps, shallow to deep: one per block of the encoder."""
        downs = (f"encoder.down.{i}" for i in range(len(self.encoder.down_blocks)))
        return ("encoder.conv_in", *downs, "encoder.mid")

    def forward(self, clips: Tensor, taps: frozenset[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Encode clips; a photo is a clip of one frame.

        Args:
            clips: [B, 3, frames, H, W] in [-1, 1], 1 plus a multiple of 4 frames.
            taps: names out of `tap_names`.

        Returns:
            Mean of the posterior [B, C, F, h, w], float32, with the model's mean and standard
            deviation of each channel taken out, and tap name -> map [B, D, h', w'] of the first
            frame.
        """
        patches = patchify(clips.to(self.quant_conv.weight.dtype), patch_size=self._patch)
        first = patches[:, :, :1]
        later = patches[:, :, 1:].split(_CHUNK, dim=2) if patches.shape[2] > 1 else ()
        # Alone, the first frame needs no memory of itself.
        caches: list[Cache] | None = None
        if later:
            caches = [[None] * _num_convs(module) for module in self._parts]
        codes, features = self._chunk(first, caches, taps)
        outputs = [codes]
        for chunk in later:
            outputs.append(self._chunk(chunk, caches, frozenset())[0])
        moments = self.quant_conv(torch.cat(outputs, dim=2))
        mean = moments.chunk(2, dim=1)[0].float()
        return (mean - self.latents_mean) / self.latents_std, features

    @property
    def _parts(self) -> tuple[nn.Module, ...]:
        encoder = self.encoder
        return (encoder.conv_in, *encoder.down_blocks, encoder.mid_block, encoder.conv_out)

    def _chunk(
        self, chunk: Tensor, caches: list[Cache] | None, taps: frozenset[str]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Encode one chunk and leave in `caches` what the next one needs."""
        encoder = self.encoder
        stages: list[Stage] = [
            partial(_cached_conv, encoder.conv_in),
            *encoder.down_blocks,
            encoder.mid_block,
            partial(_head, encoder),
        ]
        features: dict[str, Tensor] = {}
        hidden = chunk
        for index, (name, stage) in enumerate(zip((*self.tap_names, ""), stages, strict=True)):
            cache = None if caches is None else caches[index]
            hidden, kept = recomputed(_run_stage, self.checkpointing, stage, hidden, cache)
            if caches is not None and kept is not None:
                caches[index] = kept
            if name in taps:
                features[name] = hidden[:, :, 0]
        return hidden, features


def _run_stage(stage: Stage, hidden: Tensor, cache: Cache | None) -> tuple[Tensor, Cache | None]:
    """Run a stage on a copy of its cache, so that running it again gives the same."""
    if cache is None:
        return stage(hidden, None, [0]), None
    kept = list(cache)
    return stage(hidden, kept, [0]), kept


def _cached_conv(
    conv: nn.Module, hidden: Tensor, cache: Cache | None, position: list[int]
) -> Tensor:
    """Run a convolution that stands alone in the encoder, as its blocks run theirs."""
    if cache is None:
        return conv(hidden)
    before, kept = cache[0], hidden[:, :, -_KEPT:]
    if before is not None and kept.shape[2] < _KEPT:
        kept = torch.cat([before[:, :, -1:], kept], dim=2)
    cache[0] = kept
    return conv(hidden, before)


def _head(encoder: Any, hidden: Tensor, cache: Cache | None, position: list[int]) -> Tensor:
    hidden = encoder.nonlinearity(encoder.norm_out(hidden))
    return _cached_conv(encoder.conv_out, hidden, cache, position)


def _num_convs(module: nn.Module) -> int:
    return sum(isinstance(m, WanCausalConv3d) for m in module.modules())


def _replace(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, WanCausalConv3d):
            # Strided ones never see a first frame; kernels of one frame have nothing to gain.
            if child.stride[0] == 1 and child.kernel_size[0] > 1:
                setattr(module, name, FirstFrameConv(child))
        else:
            _replace(child)
