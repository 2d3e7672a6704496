"""Compiled blocks answer as plain ones: predictions, taps, and the gradient to the photo.

By torch's own tracing of forward and backward passes (the graphs that inductor makes code of).
The code of inductor itself takes a C++ compiler and minutes: `python -m
anti_i2v_lit.bench.compiling` compares that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch._dynamo.backends.common import aot_autograd
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


class Traced:
    """A backend that runs traced graphs as they are, and counts how often; or spoils one kind.

    Args:
        spoilt: "forward" or "backward" to scale the floating-point results of these graphs.
    """

    def __init__(self, spoilt: str = "") -> None:
        self.runs = {"forward": 0, "backward": 0}
        self.operations = 0
        self.spoilt = spoilt
        self.backend = aot_autograd(
            fw_compiler=self._compiler("forward"), bw_compiler=self._compiler("backward")
        )

    def _compiler(self, kind: str) -> Callable[[fx.GraphModule, Any], Callable[..., Any]]:
        def compile_graph(graph: fx.GraphModule, examples: Any) -> Callable[..., Any]:
            del examples
            self.operations += sum(node.op == "call_function" for node in graph.graph.nodes)

            def run(inputs: list[Any]) -> Any:
                self.runs[kind] += 1
                found = list(graph(*inputs))
                inputs.clear()
                if self.spoilt == kind:
                    return [self._scaled(value) for value in found]
                return found

            run._boxed_call = True  # type: ignore[attr-defined]
            return run

        return compile_graph

    @staticmethod
    def _scaled(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return value * 1.01
        return value


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


def differing(found: Answer, expected: Answer) -> set[str]:
    """Names of what is not the same to float tolerance."""
    assert found.keys() == expected.keys()
    names = set()
    for name, value in expected.items():
        scale = value.abs().max().item()
        assert scale > 0, name
        if not torch.allclose(found[name], value, atol=1e-5 * scale, rtol=1e-4):
            names.add(name)
    return names


def one_of_each_kind(blocks: Sequence[nn.Module]) -> list[nn.Module]:
    """The first block of every structure: a U-Net has as many shapes as blocks, few structures."""
    kinds: dict[tuple[str, ...], nn.Module] = {}
    for block in blocks:
        kinds.setdefault(tuple(type(part).__name__ for part in block.modules()), block)
    return list(kinds.values())


@pytest.mark.parametrize("name", SURROGATES.names())
def test_every_surrogate_can_be_compiled(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of block runs as a traced graph, forward and backward; every answer stays."""
    surrogate = SURROGATES.load(name).tiny()
    taps = frozenset(surrogate.denoiser_taps)
    expected = answer(surrogate, taps, prediction=True)
    blocks = surrogate._blocks()
    assert len(blocks) >= 2
    few = one_of_each_kind(blocks)
    monkeypatch.setattr(surrogate, "_blocks", lambda: few)
    traced = Traced()
    surrogate.compile_blocks(traced.backend)
    assert differing(answer(surrogate, taps, prediction=True), expected) == set()
    assert traced.runs["forward"] >= len(few)
    # A block that nothing of the photo reaches has no gradient to pass on.
    assert traced.runs["backward"] >= max(1, len(few) - 1)
    assert traced.operations > 10 * len(few)


@pytest.mark.parametrize(
    ("spoilt", "changed"),
    [("forward", {"block.2", "prediction", "gradient"}), ("backward", {"gradient"})],
)
def test_a_wrong_graph_would_be_seen(
    spoilt: str, changed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers do come from the compiled graphs: one percent in a block is seen behind it."""
    surrogate = SURROGATES.load("cogvideox").tiny()
    taps = frozenset({"block.0", "block.2"})
    expected = answer(surrogate, taps, prediction=True)
    second = surrogate._blocks()[1:2]
    monkeypatch.setattr(surrogate, "_blocks", lambda: second)
    surrogate.compile_blocks(Traced(spoilt).backend)
    assert differing(answer(surrogate, taps, prediction=True), expected) == changed


def test_recomputed_blocks_are_compiled_once_for_all() -> None:
    def built(checkpointing: bool) -> CogVideoXSurrogate:
        config = CogVideoXSurrogateConfig(activation_checkpointing=checkpointing)
        return CogVideoXSurrogate(config, parts_of(tiny_cogvideox()))

    taps = frozenset({"block.0"})
    for prediction in (True, False):
        expected = answer(built(False), taps, prediction)
        surrogate, counter = built(True), CompileCounterWithBackend("aot_eager")
        surrogate.compile_blocks(counter)
        assert differing(answer(surrogate, taps, prediction), expected) == set()
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
