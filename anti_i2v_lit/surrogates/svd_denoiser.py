"""Stable Video Diffusion's U-Net as a list of steps that ends at the deepest tap needed.

The arithmetic is that of diffusers' `UNetSpatioTemporalConditionModel.forward`, in its order; the
test beside it compares the two. Taps are return values, as in the other denoisers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers.models.unets.unet_3d_blocks import (
    CrossAttnDownBlockSpatioTemporal,
    CrossAttnUpBlockSpatioTemporal,
    DownBlockSpatioTemporal,
    UpBlockSpatioTemporal,
)
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from torch import Tensor, nn

from anti_i2v_lit.surrogates.blocks import recomputed

DownBlock = DownBlockSpatioTemporal | CrossAttnDownBlockSpatioTemporal
UpBlock = UpBlockSpatioTemporal | CrossAttnUpBlockSpatioTemporal


@dataclass(kw_only=True)
class _Pass:
    """One forward pass under way.

    Attributes:
        hidden: frames in the batch dimension [B * F, D, h', w'].
        skips: outputs of the way down that the way up has not taken yet.
        embedding: of noise level and added ids, per frame [B * F, E].
        context: image embedding, per frame [B * F, 1, D].
        video: zeros [B, F], which say that every item is a frame of a video.
    """

    hidden: Tensor
    skips: list[Tensor]
    embedding: Tensor
    context: Tensor
    video: Tensor


# (tap name, "" for a step without one; what it does to the pass)
_Step = tuple[str, Callable[[_Pass], None]]


class TappedUNet(nn.Module):
    """The denoiser with its taps.

    Args:
        unet: a loaded U-Net.
        sigmas: noise level of every timestep [T].
        checkpointing: recompute each layer (residual block and transformer) in the backward pass
            instead of storing it, also in eval mode and with frozen weights.
    """

    sigmas: Tensor

    def __init__(
        self, unet: UNetSpatioTemporalConditionModel, sigmas: Tensor, checkpointing: bool
    ) -> None:
        super().__init__()
        self.unet = unet
        self.checkpointing = checkpointing
        self.register_buffer("sigmas", sigmas.float(), persistent=False)

    @property
    def tap_names(self) -> tuple[str, ...]:
        """Names of the taps, shallow to deep: each transformer, then the block that holds it."""
        return tuple(name for name, _ in self._steps() if name)

    def layers(self) -> list[nn.Module]:
        """Residual blocks and transformers, which run one by one."""
        unet: Any = self.unet
        sides = (*unet.down_blocks, unet.mid_block, *unet.up_blocks)
        kinds = {"resnets", "attentions"}
        lists = (part for side in sides for name, part in side.named_children() if name in kinds)
        return [layer for layers in lists for layer in layers]

    def forward(
        self,
        latents: Tensor,
        levels: Tensor,
        embedding: Tensor,
        added_ids: Tensor,
        taps: frozenset[str],
        prediction: bool,
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Run as many steps as the taps and the prediction need.

        Args:
            latents: scaled noisy latents and image latents joined on channels [B, F, 2C, h, w].
            levels: the network's noise level, log(sigma) / 4, float32 [B].
            embedding: image embedding [B, 1, D].
            added_ids: frame rate minus one, motion bucket, augmentation strength [B, 3].
            taps: names out of `tap_names`.
            prediction: whether the output is needed.

        Returns:
            The prediction [B, F, C, h, w] or None, and tap name -> tokens [B, F * h' * w', D].
        """
        features: dict[str, Tensor] = {}
        if not taps and not prediction:
            return None, features
        batch, frames = latents.shape[:2]
        state = self._start(latents, levels, embedding, added_ids)
        for name, step in self._steps():
            step(state)
            if name in taps:
                features[name] = _tokens(state.hidden, frames)
            if not prediction and len(features) == len(taps):
                return None, features
        unet = self.unet
        output = unet.conv_out(unet.conv_act(unet.conv_norm_out(state.hidden)))
        return output.unflatten(0, (batch, frames)), features

    def _start(
        self, latents: Tensor, levels: Tensor, embedding: Tensor, added_ids: Tensor
    ) -> _Pass:
        unet: Any = self.unet
        batch, frames = latents.shape[:2]
        time = unet.time_embedding(unet.time_proj(levels).to(latents.dtype))
        ids = unet.add_time_proj(added_ids.flatten()).reshape(batch, -1).to(time.dtype)
        time = time + unet.add_embedding(ids)
        hidden = unet.conv_in(latents.flatten(0, 1))
        return _Pass(
            hidden=hidden,
            skips=[hidden],
            embedding=time.repeat_interleave(frames, dim=0),
            context=embedding.repeat_interleave(frames, dim=0),
            video=latents.new_zeros(batch, frames),
        )

    def _steps(self) -> Iterator[_Step]:
        unet: Any = self.unet
        for i, down in enumerate(unet.down_blocks):
            yield from self._down(f"down.{i}", down)
        for j, transformer in enumerate(unet.mid_block.attentions):
            layer = (unet.mid_block.resnets[j], transformer)
            yield f"mid.attention.{j}", partial(self._layer, *layer)
        yield "mid", partial(self._layer, unet.mid_block.resnets[-1], None)
        for i, up in enumerate(unet.up_blocks):
            yield from self._up(f"up.{i}", up)

    def _down(self, name: str, block: DownBlock) -> Iterator[_Step]:
        for tap, resnet, transformer in _layers(name, block):
            yield tap, partial(self._layer_down, resnet, transformer)
        yield name, partial(_sample_down, block.downsamplers or ())

    def _up(self, name: str, block: UpBlock) -> Iterator[_Step]:
        for tap, resnet, transformer in _layers(name, block):
            yield tap, partial(self._layer_up, resnet, transformer)
        yield name, partial(_sample_up, block.upsamplers or ())

    def _layer_down(self, resnet: nn.Module, transformer: nn.Module | None, state: _Pass) -> None:
        self._layer(resnet, transformer, state)
        state.skips.append(state.hidden)

    def _layer_up(self, resnet: nn.Module, transformer: nn.Module | None, state: _Pass) -> None:
        state.hidden = torch.cat([state.hidden, state.skips.pop()], dim=1)
        self._layer(resnet, transformer, state)

    def _layer(self, resnet: nn.Module, transformer: nn.Module | None, state: _Pass) -> None:
        inputs = (state.hidden, state.embedding, state.context, state.video)
        run = partial(_run_layer, resnet, transformer)
        state.hidden = recomputed(run, self.checkpointing, *inputs)


def _run_layer(
    resnet: nn.Module,
    transformer: nn.Module | None,
    hidden: Tensor,
    embedding: Tensor,
    context: Tensor,
    video: Tensor,
) -> Tensor:
    hidden = resnet(hidden, embedding, image_only_indicator=video)
    if transformer is None:
        return hidden
    return transformer(
        hidden, encoder_hidden_states=context, image_only_indicator=video, return_dict=False
    )[0]


def _sample_down(samplers: Iterable[nn.Module], state: _Pass) -> None:
    for sampler in samplers:
        state.hidden = sampler(state.hidden)
        state.skips.append(state.hidden)


def _sample_up(samplers: Iterable[nn.Module], state: _Pass) -> None:
    for sampler in samplers:
        state.hidden = sampler(state.hidden)


def _layers(
    name: str, block: DownBlock | UpBlock
) -> Iterator[tuple[str, nn.Module, nn.Module | None]]:
    """(tap name or "", residual block, transformer or None) of each layer of a block."""
    if isinstance(block, CrossAttnDownBlockSpatioTemporal | CrossAttnUpBlockSpatioTemporal):
        pairs = zip(block.resnets, block.attentions, strict=True)
        for j, (resnet, transformer) in enumerate(pairs):
            yield f"{name}.attention.{j}", resnet, transformer
        return
    for resnet in block.resnets:
        yield "", resnet, None


def _tokens(hidden: Tensor, frames: int) -> Tensor:
    """Maps [B * F, D, h, w] as tokens [B, F * h * w, D]."""
    maps = hidden.unflatten(0, (-1, frames)).flatten(3)
    return maps.transpose(2, 3).flatten(1, 2)
