"""Wan's encoder and transformer, block by block, against diffusers' own forward passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from anti_i2v_lit.surrogates.wan import (
    WanSurrogate,
)
from anti_i2v_lit.surrogates.wan_denoiser import TappedWanTransformer
from tests.surrogates.wan_models import (
    BUILDERS,
    NAMES,
    draws_of,
    photos,
    surrogate_of,
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("frames", [1, 5, 13])
def test_encoder_equals_the_autoencoders_own_and_leaves_nothing_behind(
    name: str, frames: int
) -> None:
    pipeline = BUILDERS[name]()
    clips = torch.rand(2, 3, frames, 32, 64, generator=torch.Generator().manual_seed(5)) * 2 - 1
    with torch.no_grad():
        mean = pipeline.vae.encode(clips).latent_dist.mode()
    shape = (1, -1, 1, 1, 1)
    config = pipeline.vae.config
    expected = mean - torch.tensor(config.latents_mean).reshape(shape)
    expected = expected / torch.tensor(config.latents_std).reshape(shape)
    encoder: Any = surrogate_of(name, pipeline).modules[1]
    for _ in range(2):
        found, _ = encoder(clips, frozenset())
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    # A photo after a clip sees nothing of the clip.
    photo, _ = encoder(clips[:, :, :1], frozenset())
    torch.testing.assert_close(photo, expected[:, :, :1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_flow_from_chunk_to_chunk(name: str, checkpointing: bool) -> None:
    surrogate = surrogate_of(name, activation_checkpointing=checkpointing)
    reference = BUILDERS[name]().vae.requires_grad_(False)
    clips = torch.rand(1, 3, 9, 32, 32, generator=torch.Generator().manual_seed(5)) * 2 - 1
    weights = torch.randn(1, 4, 1, 1, generator=torch.Generator().manual_seed(6))
    gradients = []
    # The mean that is taken out of the latents is constant, so its gradient is zero.
    for encode in (
        lambda x: (
            reference.encode(x).latent_dist.mode()
            / torch.tensor(reference.config.latents_std).reshape(1, -1, 1, 1, 1)
        ),
        lambda x: surrogate.modules[1](x, frozenset())[0],
    ):
        leaf = clips.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((weights * encode(leaf)[:, :, -1]).sum(), leaf)
        gradients.append(gradient)
    # The last latent frame depends on the photo in the first chunk.
    assert gradients[0][:, :, 0].abs().max() > 0
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_block_loop_equals_the_transformers_forward(name: str) -> None:
    model = BUILDERS[name]().transformer
    loop = TappedWanTransformer(model, False)
    generator = torch.Generator().manual_seed(6)
    latents = torch.randn(2, model.config.in_channels, 2, 4, 4, generator=generator)
    text = torch.randn(2, 512, model.config.text_dim, generator=generator)
    image = torch.randn(2, 5, 16, generator=generator) if name == "wan_2_1" else None
    times = torch.tensor([10.0, 900.0])
    if name == "wan_2_2":
        times = times[:, None] * (torch.arange(8) >= 4)
    blocks: list[torch.Tensor] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _m, _i, output: blocks.append(output))
    with torch.no_grad():
        expected = model(latents, times, text, image).sample
        expected_blocks = list(blocks)
        found, features = loop(latents, text, image, times, frozenset(loop.tap_names), True)
    assert torch.equal(found, expected)
    assert len(expected_blocks) == len(features) == 3
    for value, wanted in zip(features.values(), expected_blocks, strict=True):
        assert torch.equal(value, wanted)


def run_counted(
    surrogate: WanSurrogate, taps: set[str], prediction: bool
) -> tuple[list[int], torch.Tensor | None]:
    """Forward and backward; how often each block began, and the photo's gradient."""
    counts = [0, 0, 0]
    model: Any = surrogate.modules[0]
    handles = [
        block.register_forward_pre_hook(lambda *_, i=i: counts.__setitem__(i, counts[i] + 1))
        for i, block in enumerate(model.transformer.blocks)
    ]
    views = photos(2, *surrogate.view_size).requires_grad_()
    draw = draws_of(surrogate, views)
    denoised = surrogate.denoise(surrogate.condition(views), draw, frozenset(taps), prediction)
    values = [*denoised.features.values()]
    if denoised.prediction is not None:
        values.append(denoised.prediction)
    if values:
        sum(v.square().mean() for v in values).backward()
    for handle in handles:
        handle.remove()
    return counts, views.grad


@pytest.mark.parametrize("name", NAMES)
def test_blocks_after_the_deepest_tap_do_not_run(name: str) -> None:
    surrogate = surrogate_of(name)
    assert run_counted(surrogate, {"block.0"}, False)[0] == [1, 0, 0]
    assert run_counted(surrogate, {"block.0", "block.1"}, False)[0] == [1, 1, 0]
    assert run_counted(surrogate, {"block.0"}, True)[0] == [1, 1, 1]
    assert run_counted(surrogate, set(), False)[0] == [0, 0, 0]


@pytest.mark.parametrize("name", NAMES)
def test_checkpointing_is_on_in_eval_mode_and_changes_nothing(name: str) -> None:
    pipeline = BUILDERS[name]()
    plain, saving = (
        surrogate_of(name, pipeline, activation_checkpointing=on) for on in (False, True)
    )
    once, expected = run_counted(plain, {"block.1"}, True)
    twice, found = run_counted(saving, {"block.1"}, True)
    assert (once, twice) == ([1, 1, 1], [2, 2, 2])
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_checkpointing_stores_less(name: str) -> None:
    stored = {}
    for on in (False, True):
        surrogate = surrogate_of(name, activation_checkpointing=on)
        size = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal size
            size += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            surrogate.condition(photos(2, *surrogate.view_size).requires_grad_())
        stored[on] = size
    assert stored[True] < 0.5 * stored[False]


@pytest.mark.parametrize("name", NAMES)
def test_only_the_encoder_half_is_kept(name: str) -> None:
    pipeline = BUILDERS[name]()
    autoencoder = pipeline.vae
    kept = [*autoencoder.encoder.parameters(), *autoencoder.quant_conv.parameters()]
    found = surrogate_of(name, pipeline).modules[1]
    assert sum(p.numel() for p in found.parameters()) == sum(p.numel() for p in kept)
