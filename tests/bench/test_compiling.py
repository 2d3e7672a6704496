"""The comparison of compiled blocks with plain ones, with a backend that makes no code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx

from anti_i2v_lit.bench.compiling import Compiled, measure, table
from anti_i2v_lit.settings import load_settings
from tests.conftest import fast_values


def test_a_model_is_compared_with_itself(tiny_checkpoint: Path) -> None:
    settings = load_settings(values=fast_values(tiny_checkpoint))
    graphs: list[fx.GraphModule] = []

    def backend(graph: fx.GraphModule, examples: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    found = measure(settings, rounds=2, backend=backend)
    torch._dynamo.reset()
    assert graphs, "one of the two was compiled"
    assert found.loss_error < 1e-5 and found.gradient_error < 1e-4
    assert found.compiling > found.compiled > 0 and found.plain > 0
    assert found.compiling_cpu > found.plain_cpu > 0


def row(compiled: float) -> Compiled:
    return Compiled(
        name="model", loss_error=1e-7, gradient_error=2e-6, plain=0.5, compiled=compiled,
        plain_cpu=0.5, compiled_cpu=compiled, compiling=60.0, compiling_cpu=50.0,
    )  # fmt: skip


def test_compiling_pays_once_the_steps_have_saved_as_much() -> None:
    assert row(0.4).pays_after == pytest.approx(500)
    assert row(0.6).pays_after == float("inf")
    text = table([row(0.4), row(0.6)]).splitlines()
    assert text[2].endswith("| 1.25 | 60 (50) | 500 steps |")
    assert text[3].endswith("| 0.83 | 60 (50) | never |")
    assert "| 1e-07, 2e-06 |" in text[2]
