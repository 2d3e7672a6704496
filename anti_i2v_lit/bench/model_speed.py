"""What one photo costs on one model: time, utilisation, memory, beside the plain loop."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from anti_i2v_lit.bench.count import weight_bytes
from anti_i2v_lit.bench.meter import Meter
from anti_i2v_lit.bench.plain_loop import PlainLoop
from anti_i2v_lit.bench.subjects import jobs_of
from anti_i2v_lit.cloaking.build import build_loop, build_objectives
from anti_i2v_lit.cloaking.ensemble import WeightedSurrogate
from anti_i2v_lit.cloaking.job import PhotoJob
from anti_i2v_lit.cloaking.loop import CloakLoop
from anti_i2v_lit.cloaking.member import Member
from anti_i2v_lit.cloaking.optimiser import SignDescent
from anti_i2v_lit.data.framing import Framing
from anti_i2v_lit.settings import Settings
from anti_i2v_lit.surrogates.base import Surrogate

# Sides of the square matrices of the measured rate: large enough to keep the device busy.
_SIDES = {"cuda": 8192, "cpu": 1024}
_RATE_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class ModelSpeed:
    """Costs of one photo in flight.

    Attributes:
        steps: sign steps per photo.
        num_draws: draws per photo.
        step_seconds: one step of the product, its draw already made.
        draw_seconds: making one draw: clip encoded, references observed.
        plain_step_seconds: one step of the plain loop.
        flops: operations of one step without recomputation.
        recomputed_flops: operations that checkpoints repeat in one step.
        matmul_flops: measured rate of large matrix products, operations per second.
        weight_bytes: of the networks.
        peak_bytes: largest use beside the weights while draws are made and steps taken: the
            allocator's on a GPU, counted elsewhere.
    """

    steps: int
    num_draws: int
    step_seconds: float
    draw_seconds: float
    plain_step_seconds: float
    flops: int
    recomputed_flops: int
    matmul_flops: float
    weight_bytes: int
    peak_bytes: int

    @property
    def photo_seconds(self) -> float:
        """One photo: all its draws and steps."""
        return self.num_draws * self.draw_seconds + self.steps * self.step_seconds

    @property
    def ratio(self) -> float:
        """Photos per hour over those of the plain loop."""
        return self.steps * self.plain_step_seconds / self.photo_seconds

    @property
    def utilisation(self) -> float:
        """Share of the measured matrix rate that a step's needed operations reach."""
        return self.flops / self.step_seconds / self.matmul_flops

    @property
    def busy(self) -> float:
        """The same with recomputation counted."""
        return (self.flops + self.recomputed_flops) / self.step_seconds / self.matmul_flops


def matmul_rate(device: str, dtype: torch.dtype) -> float:
    """Operations per second of large square matrix products, median over a second."""
    side = _SIDES[torch.device(device).type]
    first = torch.randn(side, side, device=device).to(dtype)
    second = torch.randn(side, side, device=device).to(dtype)
    _seconds(lambda: first @ second)
    times: list[float] = []
    while sum(times) < _RATE_SECONDS:
        times.append(_seconds(lambda: first @ second))
    return 2 * side**3 / statistics.median(times)


def measure_model(settings: Settings, surrogate: Surrogate, *, steps: int) -> ModelSpeed:
    """Measure a loaded surrogate with the attack of the settings.

    Args:
        settings: attack, objectives, space, framing; its surrogates are not used.
        surrogate: on its device.
        steps: steps that are timed, of each loop.
    """
    device = str(surrogate.device)
    loop = _loop(settings, surrogate)
    (job,) = jobs_of(settings, loop, 1)
    loop.begin(job)
    member = loop.members["model"]
    member.entry(job, 0)  # libraries and prompts load at the first call
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    draws = [_seconds(partial(member.entry, job, n)) for n in range(1, settings.attack.num_draws)]
    draws = draws or [_seconds(partial(member.made, job, 0))]
    optimiser = SignDescent(loop.config.momentum)
    optimiser.add_photo(job.parameters.values())
    loop.step([job], optimiser)
    with Meter() as meter:
        loop.step([job], optimiser)
    stepping = [_seconds(lambda: loop.step([job], optimiser)) for _ in range(steps)]
    weights = sum(weight_bytes(surrogate).values())
    if device.startswith("cuda"):
        peak = torch.cuda.max_memory_allocated() - weights
    else:
        peak = _counted_peak(member, job, meter.peak)
    (other,) = jobs_of(settings, loop, 1)
    loop.begin(other)
    plain = PlainLoop(loop)
    plain.run(other, 1)
    return ModelSpeed(
        steps=settings.attack.steps,
        num_draws=settings.attack.num_draws,
        step_seconds=statistics.median(stepping),
        draw_seconds=statistics.median(draws),
        plain_step_seconds=_seconds(lambda: plain.run(other, steps)) / steps,
        flops=meter.total_flops,
        recomputed_flops=meter.total_recomputed_flops,
        matmul_flops=matmul_rate(device, next(surrogate.modules[0].parameters()).dtype),
        weight_bytes=weights,
        peak_bytes=peak,
    )


def _counted_peak(member: Member, job: PhotoJob, step_peak: int) -> int:
    """Bytes beside the weights at the worst moment: all draws, and a step or one more draw."""
    with Meter() as meter:
        entry = member.made(job, 0)
    kept = meter.live
    del entry
    return member.config.num_draws * kept + max(step_peak, meter.peak - kept)


def _loop(settings: Settings, surrogate: Surrogate) -> CloakLoop:
    device = surrogate.device
    model = WeightedSurrogate(
        name="model",
        surrogate=surrogate,
        weight=1.0,
        objectives=build_objectives(settings.objectives, device),
    )
    return build_loop(
        seed=settings.seed,
        attack=settings.attack,
        space=settings.space,
        surrogates=[model],
        framing=Framing(settings.framing),
        device=device,
    )


def _seconds(work: Callable[[], object]) -> float:
    _wait()
    started = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
