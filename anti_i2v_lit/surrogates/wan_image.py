"""The CLIP path of Wan2.1: a photo as a sequence of image tokens, with gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from anti_i2v_lit.ops.resize import resize
from anti_i2v_lit.surrogates.blocks import recomputed

_BICUBIC = 3


class ImageEmbedder(nn.Module):
    """CLIP's image tower up to its last layer but one, behind the published preprocessing.

    The photo's shorter side is resized to the tower's input, the centre is cut out, and the mean
    and deviation of CLIP's training images are taken out, as `CLIPImageProcessor` does it on 8-bit
    photos; the rounding to 8 bits after its resize is left out, so that gradients flow.

    Args:
        tower: a loaded `CLIPVisionModel`; it loses its last layer, whose output Wan ignores.
        processor: the folder's `CLIPImageProcessor`, for its settings.
        checkpointing: recompute the tower in the backward pass instead of storing it.

    Raises:
        ValueError: a preprocessing other than the published one.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, tower: Any, processor: Any, checkpointing: bool) -> None:
        super().__init__()
        tower.encoder.layers = tower.encoder.layers[:-1]
        self.tower: nn.Module = tower
        self.checkpointing = checkpointing
        self._edge, self._crop = _sizes(processor)
        for name, values in (("mean", processor.image_mean), ("std", processor.image_std)):
            shaped = torch.tensor(values, dtype=torch.float32).reshape(1, 3, 1, 1)
            self.register_buffer(name, shaped, persistent=False)

    def forward(self, photos: Tensor) -> Tensor:
        """Return image tokens [B, N, D], float32, of photos [B, 3, H, W] in [0, 1]."""
        pixels = self.preprocess(photos).to(next(self.tower.parameters()).dtype)
        return recomputed(self._embed, self.checkpointing, pixels)

    def preprocess(self, photos: Tensor) -> Tensor:
        """Return what the tower sees [B, 3, h, w] of photos [B, 3, H, W] in [0, 1]."""
        height, width = photos.shape[-2:]
        short = min(height, width)
        size = (int(self._edge * height / short), int(self._edge * width / short))
        small = resize(photos, size, "bicubic").clamp(0.0, 1.0)
        top, left = (size[0] - self._crop[0]) // 2, (size[1] - self._crop[1]) // 2
        centre = small[..., top : top + self._crop[0], left : left + self._crop[1]]
        return (centre - self.mean) / self.std

    def _embed(self, pixels: Tensor) -> Tensor:
        return self.tower(pixel_values=pixels).last_hidden_state.float()


def _sizes(processor: Any) -> tuple[int, tuple[int, int]]:
    """Shorter side after the resize and size of the crop, both in pixels."""
    edge = processor.size["shortest_edge"]
    crop = (processor.crop_size["height"], processor.crop_size["width"])
    steps = (processor.do_resize, processor.do_center_crop, processor.do_normalize)
    if not all(steps) or processor.resample != _BICUBIC or edge is None or edge < max(crop):
        raise ValueError(
            "image_processor: expected a bicubic resize of the shorter side, a centre crop inside "
            "it and a normalisation, as the published folder has; copy preprocessor_config.json "
            "from there"
        )
    return int(edge), crop
