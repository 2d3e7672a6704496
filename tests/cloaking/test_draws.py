"""Observations of single photos and of batches."""

from __future__ import annotations

import torch

from anti_i2v_lit.cloaking.draws import join, join_draws, observe, split
from anti_i2v_lit.types import Draw, TapRequest
from tests.cloaking.linear import SIDE, LinearSurrogate

ALL = TapRequest(
    denoiser=frozenset({"block.0", "block.1"}), encoder=frozenset({"level.0"}), prediction=True
)


def draws(count: int) -> Draw:
    model = LinearSurrogate()
    clips = torch.rand(count, 1, 3, SIDE, SIDE)
    generators = [torch.Generator().manual_seed(i) for i in range(count)]
    return model.draw(model.encode_clip(clips), generators, [f"text {i}" for i in range(count)])


def test_parts_join_to_the_whole_and_are_detached() -> None:
    views = torch.rand(3, 3, SIDE, SIDE).requires_grad_()
    draw = draws(3)
    whole = observe(LinearSurrogate(), views, draw, ALL)
    parts = [split(whole, i) for i in range(3)]
    again = join(parts)
    assert whole.condition and whole.denoised and again.condition and again.denoised
    pairs = [
        (whole.views, again.views),
        (whole.condition.latents, again.condition.latents),
        (whole.condition.features["level.0"], again.condition.features["level.0"]),
        (whole.denoised.prediction, again.denoised.prediction),
        (whole.denoised.target, again.denoised.target),
        (whole.denoised.features["block.1"], again.denoised.features["block.1"]),
    ]
    for first, second in pairs:
        assert first is not None and second is not None
        assert torch.equal(first, second) and not second.requires_grad
    assert whole.denoised.prediction is not None and whole.denoised.prediction.requires_grad


def test_draws_join_in_order() -> None:
    whole = draws(2)
    joined = join_draws([draws(1), whole])
    assert joined.prompts == ("text 0", "text 0", "text 1")
    assert torch.equal(joined.noise[1:], whole.noise)
    assert joined.timesteps[0] == whole.timesteps[0]


def test_only_what_was_asked_for_is_run() -> None:
    views = torch.rand(1, 3, SIDE, SIDE)
    assert observe(LinearSurrogate(), views, None, TapRequest()).condition is None
    found = observe(LinearSurrogate(), views, None, TapRequest(condition=True))
    assert found.condition is not None and found.denoised is None
