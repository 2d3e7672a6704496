"""Photos per hour and final loss of the product's loop and of the plain one, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from anti_i2v_lit.bench.plain_loop import PlainLoop
from anti_i2v_lit.bench.subjects import jobs_of, loop_of
from anti_i2v_lit.cloaking.job import PhotoJob
from anti_i2v_lit.cloaking.loop import CloakLoop
from anti_i2v_lit.cloaking.optimiser import SignDescent
from anti_i2v_lit.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Pace:
    """One loop over all photos.

    Attributes:
        seconds: wall time per photo.
        cpu_seconds: processor time per photo, which other programs disturb less.
        loss: mean loss at the verification draws, before.
        loss_last: the same, after.
    """

    seconds: float
    cpu_seconds: float
    loss: float
    loss_last: float


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Both loops on the same photos, steps and surrogates."""

    product: Pace
    plain: Pace

    @property
    def ratio(self) -> float:
        """Photos per hour of the product over those of the plain loop, by wall time."""
        return self.plain.seconds / self.product.seconds

    @property
    def cpu_ratio(self) -> float:
        """The same by processor time."""
        return self.plain.cpu_seconds / self.product.cpu_seconds


def run_product(loop: CloakLoop, jobs: Sequence[PhotoJob], steps: int) -> None:
    """The product's loop on a batch of begun photos."""
    optimiser = SignDescent(loop.config.momentum)
    for job in jobs:
        optimiser.add_photo(job.parameters.values())
    for _ in range(steps):
        loop.step(jobs, optimiser)


def run_plain(loop: CloakLoop, jobs: Sequence[PhotoJob], steps: int) -> None:
    """The plain loop on begun photos, one after the other."""
    plain = PlainLoop(loop)
    for job in jobs:
        plain.run(job, steps)


def measure_speed(settings: Settings, num_photos: int) -> Speed:
    """Run both loops, batch by batch in turn, so that both see the same disturbances.

    Args:
        settings: `attack.steps` and `attack.batch_size` say how much.
        num_photos: photos in all.
    """
    loop = loop_of(settings)
    steps, size = settings.attack.steps, settings.attack.batch_size
    spent: dict[str, list[float]] = {"product": [0.0, 0.0], "plain": [0.0, 0.0]}
    losses: dict[str, list[tuple[float, float]]] = {"product": [], "plain": []}
    runners: dict[str, Callable[[CloakLoop, Sequence[PhotoJob], int], None]] = {
        "product": run_product,
        "plain": run_plain,
    }
    for runner in runners.values():  # warm up
        _timed(loop, jobs_of(settings, loop, min(size, num_photos)), 1, runner)
    for start in range(0, num_photos, size):
        for name, runner in runners.items():
            jobs = jobs_of(settings, loop, num_photos)[start : start + size]
            wall, processor = _timed(loop, jobs, steps, runner)
            spent[name][0] += wall / num_photos
            spent[name][1] += processor / num_photos
            losses[name] += [_losses(loop, job) for job in jobs]
    return Speed(**{name: _pace(spent[name], losses[name]) for name in runners})


def _timed(
    loop: CloakLoop,
    jobs: Sequence[PhotoJob],
    steps: int,
    runner: Callable[[CloakLoop, Sequence[PhotoJob], int], None],
) -> tuple[float, float]:
    _wait()
    wall, processor = time.perf_counter(), time.process_time()
    for job in jobs:
        loop.begin(job)
    runner(loop, jobs, steps)
    _wait()
    return time.perf_counter() - wall, time.process_time() - processor


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@torch.no_grad()
def _losses(loop: CloakLoop, job: PhotoJob) -> tuple[float, float]:
    return loop.judge(job, job.canvas), loop.judge(job, loop.cloaked_canvas(job))


def _pace(spent: Sequence[float], losses: Sequence[tuple[float, float]]) -> Pace:
    first, last = (sum(values) / len(losses) for values in zip(*losses, strict=True))
    return Pace(seconds=spent[0], cpu_seconds=spent[1], loss=first, loss_last=last)
