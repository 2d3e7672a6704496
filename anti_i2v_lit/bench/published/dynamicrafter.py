"""DynamiCrafter at full size with random weights."""

from __future__ import annotations

from anti_i2v_lit.bench.published.base import (
    Size,
    made_in_place,
    no_block_count,
    random_prompts,
    settle,
)
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.surrogates.dynamicrafter.adapter import (
    DynamiCrafterSurrogate,
    DynamiCrafterSurrogateConfig,
)
from anti_i2v_lit.surrogates.dynamicrafter.clip import ImageEmbedder
from anti_i2v_lit.surrogates.dynamicrafter.first_stage import FirstStage
from anti_i2v_lit.surrogates.dynamicrafter.loading import PUBLISHED, DynamiCrafterParts
from anti_i2v_lit.surrogates.dynamicrafter.resampler import Resampler
from anti_i2v_lit.surrogates.dynamicrafter.unet import UNet


def dynamicrafter_512(size: Size) -> Surrogate:
    """Doubiiu/DynamiCrafter_512."""
    return _dynamicrafter(size, 512)


def dynamicrafter_1024(size: Size) -> Surrogate:
    """Doubiiu/DynamiCrafter_1024."""
    return _dynamicrafter(size, 1024)


def _dynamicrafter(size: Size, model: int) -> Surrogate:
    no_block_count(size, "DynamiCrafter")
    settings = PUBLISHED[model]
    with made_in_place(size):
        unet = UNet(**settings.unet)
        first_stage = FirstStage(**settings.first_stage)
        embedder = ImageEmbedder(settings.clip)
        resampler = Resampler(**settings.resampler)
    settle(size.dtype, unet, first_stage, embedder, resampler)
    embedder.drop_text()
    config = DynamiCrafterSurrogateConfig(
        size=model,
        num_frames=size.num_frames,
        height=size.height,
        width=size.width,
        activation_checkpointing=size.activation_checkpointing,
    )
    prompts = random_prompts(1024, settings.clip.context_length, size.dtype)
    parts = DynamiCrafterParts(
        settings=settings,
        unet=unet,
        first_stage=first_stage,
        embedder=embedder,
        resampler=resampler,
        prompts=prompts,
    )
    return DynamiCrafterSurrogate(config, parts)
