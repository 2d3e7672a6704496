"""CogVideoX's video autoencoder as a photo encoder: exact two-dimensional path, taps, memory.

A causal convolution pads a single frame in time by repeating it, so its kernel acts on a photo
like the sum of its temporal slices: conv3d equals conv2d with `weight.sum(dim=2)`, at a third of
the multiplications. The modules of one loaded autoencoder are replaced; diffusers' classes stay as
they are, and clips of several frames take the original path.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from diffusers.models.autoencoders.autoencoder_kl_cogvideox import (
    AutoencoderKLCogVideoX,
    CogVideoXCausalConv3d,
)
from diffusers.models.downsampling import CogVideoXDownsample3D
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


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
        weight = causal.conv.weight.detach()
        # Summed in float32: the sum of three bfloat16 numbers would be rounded twice.
        self.register_buffer(
            "photo_weight", weight.float().sum(dim=2).to(weight.dtype), persistent=False
        )

    def forward(
        self, inputs: Tensor, conv_cache: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the output and the frames that the next part of a clip needs.

        Args:
            inputs: [B, C, F, H, W].
            conv_cache: last frames of the part before; None at the start of a clip.
        """
        if inputs.shape[2] > 1 or conv_cache is not None:
            return self.causal(inputs, conv_cache=conv_cache)
        frame = functional.conv2d(
            inputs[:, :, 0],
            self.photo_weight,
            self.causal.conv.bias,
            padding=(self.causal.height_pad, self.causal.width_pad),
        )
        repeats = self.causal.time_kernel_size - 1
        return frame[:, :, None], inputs.expand(-1, -1, repeats, -1, -1)


class PhotoDownsample(nn.Module):
    """A downsampling step that skips the pooling in time, which leaves single frames alone."""

    def __init__(self, original: CogVideoXDownsample3D) -> None:
        super().__init__()
        self.original = original

    def forward(self, x: Tensor) -> Tensor:
        """Halve height and width (and time) of [B, C, F, H, W]."""
        if x.shape[2] > 1:
            return self.original(x)
        return self.original.conv(functional.pad(x[:, :, 0], (0, 1, 0, 1)))[:, :, None]


class PhotoEncoder(nn.Module):
    """The encoder half of an `AutoencoderKLCogVideoX`, with taps as return values.

    Args:
        vae: a loaded autoencoder; it loses its decoder and its convolutions are replaced.
        checkpointing: recompute each resolution in the backward pass instead of storing it.
    """

    def __init__(self, vae: AutoencoderKLCogVideoX, checkpointing: bool) -> None:
        super().__init__()
        if "decoder" in dict(vae.named_children()):
            del vae.decoder
        _replace(vae.encoder)
        self.vae = vae
        self.checkpointing = checkpointing

    @property
    def tap_names(self) -> tuple[str, ...]:
        """Names of the taps, shallow to deep."""
        downs = (f"encoder.down.{i}" for i in range(len(self.vae.encoder.down_blocks)))
        return ("encoder.conv_in", *downs, "encoder.mid")

    def forward(self, photos: Tensor, taps: frozenset[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Encode photos.

        Args:
            photos: [B, 3, H, W] in [-1, 1].
            taps: names out of `tap_names`.

        Returns:
            Mean of the posterior [B, C, h, w], unscaled, and tap name -> map [B, D, h', w'].
        """
        encoder = self.vae.encoder
        stages = (encoder.conv_in, *encoder.down_blocks, encoder.mid_block)
        features: dict[str, Tensor] = {}
        hidden = photos[:, :, None]
        for name, stage in zip(self.tap_names, stages, strict=True):
            hidden = self._run(partial(_first, stage), hidden)
            if name in taps:
                features[name] = hidden[:, :, 0]
        hidden = encoder.conv_act(encoder.norm_out(hidden))
        moments, _ = encoder.conv_out(hidden)
        if self.vae.quant_conv is not None:
            moments = self.vae.quant_conv(moments)
        return moments[:, :, 0].chunk(2, dim=1)[0], features

    def encode_clips(self, clips: Tensor) -> Tensor:
        """Return the posterior mean [B, C, F, h, w] of clips [B, 3, frames, H, W] in [-1, 1]."""
        return self.vae.encode(clips).latent_dist.mode()

    def _run(self, stage: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
        if not self.checkpointing:
            return stage(hidden)
        return checkpoint(stage, hidden, use_reentrant=False, preserve_rng_state=False)


def _first(stage: nn.Module, hidden: Tensor) -> Tensor:
    """The output of a stage without the frames it would hand to the next part of a clip."""
    return stage(hidden)[0]


def _replace(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, CogVideoXCausalConv3d):
            setattr(module, name, PhotoConv(child))
        elif isinstance(child, CogVideoXDownsample3D):
            # A list item: ModuleList takes its numeric name through setattr as well.
            setattr(module, name, PhotoDownsample(child))
        else:
            _replace(child)
