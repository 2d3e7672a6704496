"""CogVideoX's video autoencoder as an encoder of photos and clips, with taps, in little memory.

A causal convolution pads a single frame in time by repeating it, so its kernel acts on a photo
like the sum of its temporal slices: conv3d equals conv2d with `weight.sum(dim=2)`, at a third of
the multiplications. Clips without gradients are convolved a few frames at a time, activations are
applied in place, and frames for the next part of a clip are kept only where one follows: what a
layer needs beside its input and output does not grow with the clip. The modules of one loaded
autoencoder are replaced; diffusers' classes stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import (
    AutoencoderKLCogVideoX,
    CogVideoXCausalConv3d,
)
from diffusers.models.downsampling import CogVideoXDownsample3D
from torch import Tensor, nn
from torch.nn import functional

from anti_i2v_lit.surrogates.blocks import recomputed

# Frames of a clip are convolved together as long as their inputs are not larger than this.
PIECE_BYTES = 64 * 2**20


@dataclass(kw_only=True)
class Past:
    """What the parts of a long clip hand on: the last inputs of every convolution.

    Attributes:
        frames: convolution -> last inputs [B, C, reach, H, W] of the part before.
    """

    frames: dict[nn.Module, Tensor] = field(default_factory=dict)


class PhotoConv(nn.Module):
    """A causal convolution of CogVideoX that takes single frames through conv2d."""

    photo_weight: Tensor

    def __init__(self, causal: CogVideoXCausalConv3d) -> None:
        super().__init__()
        if causal.pad_mode == "replicate" or tuple(causal.conv.stride) != (1, 1, 1):
            raise ValueError(
                f"autoencoder: expected stride 1 and zero padding in space, got stride "
                f"{causal.conv.stride} and pad_mode {causal.pad_mode!r}; this is not a CogVideoX "
                "autoencoder"
            )
        self.causal = causal
        self.reach = causal.time_kernel_size - 1
        weight = causal.conv.weight.detach()
        # Summed in float32: the sum of three bfloat16 numbers would be rounded twice.
        self.register_buffer(
            "photo_weight", weight.float().sum(dim=2).to(weight.dtype), persistent=False
        )

    def forward(self, inputs: Tensor, past: Past | None = None) -> Tensor:
        """Convolve [B, C, F, H, W].

        Args:
            inputs: a photo (one frame), a clip, or a part of one.
            past: last inputs of the part before; receives those of this one.
        """
        if past is None and inputs.shape[2] == 1:
            return self._photo(inputs[:, :, 0])[:, :, None]
        before = inputs[:, :, :1].expand(-1, -1, self.reach, -1, -1)
        if past is not None:
            before = past.frames.get(self, before)
            known = torch.cat([before, inputs[:, :, -self.reach :]], dim=2)
            past.frames[self] = known[:, :, -self.reach :].clone()
        if torch.is_grad_enabled():
            return self.causal.conv(torch.cat([before, inputs], dim=2))
        return self._in_pieces(inputs, before)

    def _photo(self, frame: Tensor) -> Tensor:
        padding = (self.causal.height_pad, self.causal.width_pad)
        return functional.conv2d(frame, self.photo_weight, self.causal.conv.bias, padding=padding)

    def _in_pieces(self, inputs: Tensor, before: Tensor) -> Tensor:
        """The convolution a few frames at a time, behind the frames before."""
        batch, _, frames, height, width = inputs.shape
        output = inputs.new_empty(batch, self.causal.conv.out_channels, frames, height, width)
        length = max(1, PIECE_BYTES * frames // inputs.nbytes)
        for start in range(0, frames, length):
            stop = min(start + length, frames)
            first = start - self.reach
            output[:, :, start:stop] = self.causal.conv(_seen(inputs, before, first, stop))
        return output


def _seen(inputs: Tensor, before: Tensor, first: int, stop: int) -> Tensor:
    """Frames `first` (negative: out of those before) to `stop`."""
    inside = inputs[:, :, max(first, 0) : stop]
    return inside if first >= 0 else torch.cat([before[:, :, first:], inside], dim=2)


class PhotoDownsample(nn.Module):
    """A downsampling step, frame by frame; it skips the pooling in time of single frames."""

    def __init__(self, original: CogVideoXDownsample3D) -> None:
        super().__init__()
        self.conv, self.compress_time = original.conv, original.compress_time

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        """Halve height and width (and time) of [B, C, F, H, W]; nothing is taken from the past."""
        del past
        if self.compress_time and x.shape[2] > 1:
            x = _halved_in_time(x)
        frames = [self.conv(functional.pad(frame, (0, 1, 0, 1))) for frame in x.unbind(dim=2)]
        return torch.stack(frames, dim=2)


def _halved_in_time(x: Tensor) -> Tensor:
    """Means of neighbouring frames of [B, C, F, H, W]; an odd first one stays alone."""
    odd = x.shape[2] % 2
    means = (x[:, :, odd::2] + x[:, :, odd + 1 :: 2]) / 2
    return torch.cat([x[:, :, :odd], means], dim=2) if odd else means


class PhotoResnet(nn.Module):
    """A residual block of CogVideoX's encoder; its arithmetic in its order.

    Args:
        block: whose layers are taken over, convolutions replaced already.
        checkpointing: recompute photos in the backward pass instead of storing them.
    """

    def __init__(self, block: Any, checkpointing: bool) -> None:
        super().__init__()
        if not isinstance(block.nonlinearity, nn.SiLU):
            raise ValueError(
                f"autoencoder: expected SiLU activations, got {block.nonlinearity}; this is not a "
                "CogVideoX autoencoder"
            )
        self.norm1, self.conv1 = block.norm1, block.conv1
        self.norm2, self.conv2 = block.norm2, block.conv2
        self.shortcut = nn.Identity()
        if block.in_channels != block.out_channels:
            self.shortcut = block.conv_shortcut
        self.checkpointing = checkpointing

    def forward(self, hidden: Tensor, past: Past | None = None) -> Tensor:
        """Return [B, D', F, H, W] of [B, D, F, H, W]."""
        photo = past is None and hidden.shape[2] == 1
        return recomputed(self._run, self.checkpointing and photo, hidden, past)

    def _run(self, hidden: Tensor, past: Past | None) -> Tensor:
        in_place = not torch.is_grad_enabled()
        inner = hidden
        # One statement each, so that a layer's input is gone when the next one runs.
        for norm, conv in ((self.norm1, self.conv1), (self.norm2, self.conv2)):
            inner = norm(inner)
            inner = conv(functional.silu(inner, inplace=in_place), past)
        if in_place:
            return inner.add_(self.shortcut(hidden))
        return inner + self.shortcut(hidden)


class PhotoEncoder(nn.Module):
    """The encoder half of an `AutoencoderKLCogVideoX`, with taps as return values.

    Args:
        vae: a loaded autoencoder; its encoder is taken over and its modules are replaced.
        checkpointing: recompute each residual block in the backward pass instead of storing it.
    """

    def __init__(self, vae: AutoencoderKLCogVideoX, checkpointing: bool) -> None:
        super().__init__()
        encoder: Any = vae.encoder
        _replace(encoder)
        encoder.down_blocks = nn.ModuleList(
            _layers(stage.resnets, stage.downsamplers or (), checkpointing)
            for stage in encoder.down_blocks
        )
        encoder.mid_block = _layers(encoder.mid_block.resnets, (), checkpointing)
        self.encoder = encoder
        self.quant_conv = vae.quant_conv
        self._part = vae.num_sample_frames_batch_size

    @property
    def tap_names(self) -> tuple[str, ...]:
        """Names of the taps, shallow to deep."""
        downs = (f"encoder.down.{i}" for i in range(len(self.encoder.down_blocks)))
        return ("encoder.conv_in", *downs, "encoder.mid")

    def forward(self, photos: Tensor, taps: frozenset[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Encode photos.

        Args:
            photos: [B, 3, H, W] in [-1, 1].
            taps: names out of `tap_names`.

        Returns:
            Mean of the posterior [B, C, h, w], unscaled, and tap name -> map [B, D, h', w'].
        """
        mean, features = self._encode(photos[:, :, None], None, taps)
        return mean[:, :, 0], {name: value[:, :, 0] for name, value in features.items()}

    def encode_clips(self, clips: Tensor) -> Tensor:
        """Return the posterior mean [B, C, F, h, w] of clips [B, 3, frames, H, W] in [-1, 1].

        In parts of 8 frames, as diffusers does it; a first one takes what is over.
        """
        frames = clips.shape[2]
        starts = range(frames % self._part, frames - self._part + 1, self._part)
        bounds = [0, *starts[1:], frames]
        past = Past() if len(bounds) > 2 else None
        means = [
            self._encode(clips[:, :, start:stop], past, frozenset())[0]
            for start, stop in zip(bounds, bounds[1:], strict=False)
        ]
        return torch.cat(means, dim=2)

    def _encode(
        self, clip: Tensor, past: Past | None, taps: frozenset[str]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean and taps, all [B, ., F', h', w'], of a photo, a clip, or a part of one."""
        encoder = self.encoder
        stages = ([encoder.conv_in], *encoder.down_blocks, encoder.mid_block)
        features: dict[str, Tensor] = {}
        hidden = clip
        for name, layers in zip(self.tap_names, stages, strict=True):
            for layer in layers:
                hidden = layer(hidden, past)
            if name in taps:
                features[name] = hidden
        moments = encoder.conv_out(encoder.conv_act(encoder.norm_out(hidden)), past)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        return moments.chunk(2, dim=1)[0], features


def _layers(
    resnets: Iterable[Any], steps: Iterable[nn.Module], checkpointing: bool
) -> nn.ModuleList:
    """The residual blocks of a resolution and, of a down block, the step to the next.

    A list, not a module of its own: its caller would hold on to the stage's input all along.
    """
    return nn.ModuleList([*(PhotoResnet(block, checkpointing) for block in resnets), *steps])


def _replace(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, CogVideoXCausalConv3d):
            setattr(module, name, PhotoConv(child))
        elif isinstance(child, CogVideoXDownsample3D):
            # A list item: ModuleList takes its numeric name through setattr as well.
            setattr(module, name, PhotoDownsample(child))
        else:
            _replace(child)
