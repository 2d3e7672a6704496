"""The meter against hand counts, torch's own FLOP counter and the profiler's allocations."""

from __future__ import annotations

import pytest
import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from anti_i2v_lit.bench.meter import Meter

MIB = 2**20


def quarter_mib() -> torch.Tensor:
    return torch.ones(65536)  # 4 bytes each


def test_live_bytes_by_hand() -> None:
    before = quarter_mib()
    with Meter() as meter:
        first = before * 2
        assert meter.live == MIB // 4
        view = first.view(256, 256)[::2]
        second = view + 0  # half of it
        assert meter.live == MIB // 4 + MIB // 8
        del first
        assert meter.live == MIB // 4 + MIB // 8  # the view holds the whole
        del view
        assert meter.live == MIB // 8
        del second
        before.add_(1)
    assert meter.live == 0 and meter.peak == MIB // 4 + MIB // 8


def test_phases_have_their_own_peaks() -> None:
    with Meter() as meter:
        meter.enter("a")
        kept = quarter_mib()
        meter.enter("b")
        kept = kept + 1
        meter.enter("c")
        del kept
    assert meter.peaks == {"a": MIB // 4, "b": MIB // 2, "c": MIB // 4}


class Network(torch.nn.Module):
    def __init__(self, checkpointing: bool) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.Linear(256, 64))
            for _ in range(4)
        ).requires_grad_(False)
        self.checkpointing = checkpointing

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = x + (checkpoint(block, x, use_reentrant=False) if self.checkpointing else block(x))
        return x


def step(network: Network, x: torch.Tensor) -> None:
    network(x).sum().backward()


def metered(checkpointing: bool, device: str = "cpu") -> Meter:
    network = Network(checkpointing).to(device)
    x = torch.zeros(512, 64, device=device, requires_grad=True)
    with Meter() as meter:
        loss = network(x).sum()
        torch.autograd.grad(loss, x)
    return meter


def test_flops_are_those_of_torch() -> None:
    network, x = Network(False), torch.zeros(512, 64, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        step(network, x)
    plain, again = metered(False), metered(True)
    assert plain.total_flops == again.total_flops == counter.get_total_flops()
    assert plain.total_recomputed_flops == 0
    with FlopCounterMode(display=False) as counter:
        step(Network(True), x)
    assert again.total_flops + again.total_recomputed_flops == counter.get_total_flops()
    assert again.total_recomputed_flops > 0


@pytest.mark.parametrize("checkpointing", [False, True])
def test_peak_is_that_of_the_profiler(checkpointing: bool) -> None:
    network, x = Network(checkpointing), torch.zeros(512, 64, requires_grad=True)
    step(network, x)
    with torch.profiler.profile(profile_memory=True) as profile:
        step(network, x)
    level = peak = 0
    events: list[FunctionEvent] = profile.profiler.kineto_results.events()  # type: ignore[union-attr]
    for event in sorted(events, key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            level += event.nbytes()
            peak = max(peak, level)
    assert metered(checkpointing).peak == pytest.approx(peak, rel=0.05)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_meta_device_counts_the_same(checkpointing: bool) -> None:
    real, meta = metered(checkpointing), metered(checkpointing, "meta")
    assert meta.peak == pytest.approx(real.peak, rel=0.02)
    assert meta.total_flops == real.total_flops
    assert meta.total_recomputed_flops == real.total_recomputed_flops


def test_checkpointing_lowers_the_peak() -> None:
    assert metered(True).peak < 0.7 * metered(False).peak


def test_attention_is_counted() -> None:
    q = torch.zeros(1, 2, 64, 32, requires_grad=True)
    with Meter() as meter:
        functional.scaled_dot_product_attention(q, q, q).sum()
    assert meter.total_flops == 2 * (2 * 2 * 64 * 64 * 32)
