"""Miniatures of both Wan classes as surrogates, and what their tests share."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from PIL import Image

from anti_i2v_lit.miniatures.wan import tiny_wan_2_1, tiny_wan_2_2
from anti_i2v_lit.surrogates.wan import (
    Wan21Surrogate,
    Wan22Surrogate,
    WanSurrogate,
    WanSurrogateConfig,
)
from anti_i2v_lit.surrogates.wan_loading import parts_of
from anti_i2v_lit.types import Draw

# HTML entities and runs of spaces are cleaned before the tokenizer sees a prompt.
PROMPTS = ["a person  is &amp; talking", "smile"]
BUILDERS = {"wan_2_2": tiny_wan_2_2, "wan_2_1": tiny_wan_2_1}
CLASSES = {"wan_2_2": Wan22Surrogate, "wan_2_1": Wan21Surrogate}
SIDES = {"wan_2_2": 64, "wan_2_1": 32}
NAMES = sorted(BUILDERS)


def surrogate_of(name: str, pipeline: Any = None, **fields: Any) -> WanSurrogate:
    pipeline = BUILDERS[name]() if pipeline is None else copy.deepcopy(pipeline)
    sizes = {"height": SIDES[name], "width": SIDES[name]}
    return CLASSES[name](WanSurrogateConfig(**(sizes | fields)), parts_of(pipeline))


def photos(count: int, height: int, width: int) -> torch.Tensor:
    """8-bit photos, so that the pipeline's PIL images hold the same values."""
    pixels = torch.randint(
        0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(11)
    )
    return pixels / 255.0


def to_pil(photo: torch.Tensor) -> Image.Image:
    return Image.fromarray((photo * 255).round().byte().permute(1, 2, 0).numpy().astype(np.uint8))


def draws_of(surrogate: WanSurrogate, views: torch.Tensor, seeds: tuple[int, ...] = (1, 2)) -> Draw:
    clips = views.detach()[:, None].expand(-1, surrogate.num_frames, -1, -1, -1)
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    return surrogate.draw(surrogate.encode_clip(clips), generators, PROMPTS[: len(views)])
