"""Compiled blocks beside plain ones: how they differ, seconds per step, and what compiling costs.

`python -m anti_i2v_lit.bench.compiling` prints the rows of docs/bench.md for a packaged model, on
the CPU and one thread. Both kinds take turns, so that other work on the machine disturbs both
alike; nothing compiled earlier is used. `--backend aot_eager` traces without making code.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from anti_i2v_lit.bench.subjects import jobs_of, loop_of
from anti_i2v_lit.cloaking.job import PhotoJob
from anti_i2v_lit.cloaking.loop import CloakLoop
from anti_i2v_lit.settings import Settings, load_settings


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """One model, plain and compiled.

    Attributes:
        name: of the surrogate.
        loss_error: difference of the losses, relative to the plain one.
        gradient_error: largest difference of the gradients, relative to the largest plain value.
        plain: median of wall seconds per step.
        compiled: likewise.
        plain_cpu: median of processor seconds per step.
        compiled_cpu: likewise.
        compiling: wall seconds from the first call to the first gradient.
        compiling_cpu: processor seconds of the same, those of the C++ compiler included.
    """

    name: str
    loss_error: float
    gradient_error: float
    plain: float
    compiled: float
    plain_cpu: float
    compiled_cpu: float
    compiling: float
    compiling_cpu: float

    @property
    def pays_after(self) -> float:
        """Steps until compiling has paid for itself, by processor time; infinite if it never does.

        A photo has 200 steps, and a run compiles once.
        """
        saved = self.plain_cpu - self.compiled_cpu
        return self.compiling_cpu / saved if saved > 0 else float("inf")


def step(loop: CloakLoop, job: PhotoJob) -> tuple[Tensor, Tensor]:
    """Loss and gradient of a step of the product, both flat."""
    (member,) = loop.members.values()
    canvas = loop.cloaked_canvas(job)
    loss = member.losses([job], [canvas], [member.entry(job, 0)])["total"]
    gradients = torch.autograd.grad(loss.sum(), list(job.parameters.values()))
    return loss.detach(), torch.cat([gradient.flatten() for gradient in gradients])


def measure(settings: Settings, *, rounds: int, backend: str | Callable[..., Any]) -> Compiled:
    """Compare one model with itself.

    Args:
        settings: with one surrogate, whose `compile` is ignored.
        rounds: timed steps of each kind.
        backend: of torch.compile.
    """
    loops = {kind: loop_of(settings) for kind in ("plain", "compiled")}
    loops["compiled"].surrogates[0].surrogate.compile_blocks(backend)
    jobs = {}
    for kind, loop in loops.items():
        (jobs[kind],) = jobs_of(settings, loop, 1)
        loop.begin(jobs[kind])
    expected_loss, expected = step(loops["plain"], jobs["plain"])
    wall, processor = time.perf_counter(), _processor()
    loss, gradient = step(loops["compiled"], jobs["compiled"])
    compiling, compiling_cpu = time.perf_counter() - wall, _processor() - processor
    walls: dict[str, list[float]] = {kind: [] for kind in loops}
    cpus: dict[str, list[float]] = {kind: [] for kind in loops}
    for _ in range(rounds):
        for kind, loop in loops.items():
            wall, processor = time.perf_counter(), _processor()
            step(loop, jobs[kind])
            walls[kind].append(time.perf_counter() - wall)
            cpus[kind].append(_processor() - processor)
    return Compiled(
        name=str(settings.surrogates[0]["name"]),
        loss_error=_relative(loss, expected_loss),
        gradient_error=_relative(gradient, expected),
        plain=statistics.median(walls["plain"]),
        compiled=statistics.median(walls["compiled"]),
        plain_cpu=statistics.median(cpus["plain"]),
        compiled_cpu=statistics.median(cpus["compiled"]),
        compiling=compiling,
        compiling_cpu=compiling_cpu,
    )


def _relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


def _processor() -> float:
    """Processor seconds of this process and of the compilers that it has waited for."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in spent)


def table(rows: Sequence[Compiled]) -> str:
    """Markdown."""
    lines = [
        "| model | error of loss, gradient | s per step, plain / compiled | processor s per step, "
        "plain / compiled | speed by processor time | compiling, s (processor s) | pays after |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        steps = row.pays_after
        lines.append(
            f"| {row.name} | {row.loss_error:.1g}, {row.gradient_error:.1g} "
            f"| {row.plain:.3f} / {row.compiled:.3f} "
            f"| {row.plain_cpu:.3f} / {row.compiled_cpu:.3f} "
            f"| {row.plain_cpu / row.compiled_cpu:.2f} "
            f"| {row.compiling:.0f} ({row.compiling_cpu:.0f}) "
            f"| {'never' if steps == float('inf') else f'{steps:.0f} steps'} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--surrogates", default="cogvideox,dynamicrafter", help="packaged models, by name"
    )
    parser.add_argument("--rounds", type=int, default=20, help="timed steps of each kind")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="anti-i2v-compiled-") as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        rows = []
        for name in given.surrogates.split(","):
            settings = load_settings(
                values={"surrogates": [{"name": name, "path": "embedded"}]},
                overrides=["trainer.accelerator=cpu"],
            )
            rows.append(measure(settings, rounds=given.rounds, backend=given.backend))
            torch._dynamo.reset()
        load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
        print(
            f"torch {torch.__version__}, backend {given.backend}, 1 thread, {given.rounds} rounds"
        )
        print(f"load of the machine over 1, 5, 15 minutes: {load} on {os.cpu_count()} cores\n")
        print(table(rows))


if __name__ == "__main__":
    main()
