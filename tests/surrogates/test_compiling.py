"""Compiled blocks answer as plain ones: predictions, taps, and the gradient to the photo."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from anti_i2v_lit.miniatures import tiny_cogvideox
from anti_i2v_lit.surrogates import SURROGATES
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.surrogates.cogvideox import CogVideoXSurrogate, CogVideoXSurrogateConfig
from anti_i2v_lit.surrogates.cogvideox_loading import parts_of

Answer = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    yield
    torch._dynamo.reset()


def answer(surrogate: Surrogate, taps: frozenset[str], prediction: bool) -> Answer:
    """Everything that a step looks at, and the gradient of all of it to the photo."""
    views = torch.rand(1, 3, *surrogate.view_size, generator=torch.Generator().manual_seed(2))
    clips = views[:, None].expand(-1, surrogate.num_frames, -1, -1, -1)
    draw = surrogate.draw(
        surrogate.encode_clip(clips), [torch.Generator().manual_seed(3)], ["smile"]
    )
    views.requires_grad_()
    denoised = surrogate.denoise(surrogate.condition(views, draw=draw), draw, taps, prediction)
    found = dict(denoised.features)
    if denoised.prediction is not None:
        found["prediction"] = denoised.prediction
    loss = torch.stack([value.square().mean() for value in found.values()]).sum()
    (found["gradient"],) = torch.autograd.grad(loss, views)
    return found


def assert_same(found: Answer, expected: Answer) -> None:
    assert found.keys() == expected.keys()
    assert expected["gradient"].abs().max() > 0
    for name, value in expected.items():
        scale = value.abs().max().item()
        torch.testing.assert_close(found[name], value, atol=1e-5 * scale, rtol=1e-4)


@pytest.mark.parametrize("name", SURROGATES.names())
def test_every_surrogate_can_be_compiled(name: str) -> None:
    surrogate = SURROGATES.load(name).tiny()
    taps = frozenset((surrogate.denoiser_taps[0], surrogate.denoiser_taps[-1]))
    expected = answer(surrogate, taps, prediction=True)
    counter = CompileCounterWithBackend("eager")
    surrogate.compile_blocks(counter)
    assert_same(answer(surrogate, taps, prediction=True), expected)
    assert counter.frame_count > 0


def test_recomputed_blocks_are_compiled_once_for_all() -> None:
    def built(checkpointing: bool) -> CogVideoXSurrogate:
        config = CogVideoXSurrogateConfig(activation_checkpointing=checkpointing)
        return CogVideoXSurrogate(config, parts_of(tiny_cogvideox()))

    taps = frozenset({"block.0"})
    for prediction in (True, False):
        expected = answer(built(False), taps, prediction)
        surrogate, counter = built(True), CompileCounterWithBackend("aot_eager")
        surrogate.compile_blocks(counter)
        assert_same(answer(surrogate, taps, prediction), expected)
        # One graph for the first block, whose words carry no gradient, and one for all others.
        assert counter.frame_count == (2 if prediction else 1)
        torch._dynamo.reset()


def test_the_setting_compiles_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(CogVideoXSurrogate, "compile_blocks", lambda self: seen.append("blocks"))
    for setting in ("none", "blocks"):
        CogVideoXSurrogate(CogVideoXSurrogateConfig(compile=setting), parts_of(tiny_cogvideox()))
    assert seen == ["blocks"]
    with pytest.raises(ValueError, match="Did you mean 'blocks'"):
        CogVideoXSurrogateConfig(compile="block")
