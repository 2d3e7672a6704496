"""Weights per rank and seconds per step: whole surrogates beside divided ones, on two processes.

`python -m anti_i2v_lit.bench.sharding` starts the two processes on the CPU, pins each to a core of
its own where there are two, runs all strategies in turn in each round, so that other work on the
machine disturbs all alike, and prints the table of docs/sharding.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from anti_i2v_lit.cloaking.build import load_surrogate
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.surrogates.sharding import SHARDERS
from anti_i2v_lit.surrogates.sharding.base import Sharder, size_of

_STRATEGIES = ("replicated", *SHARDERS.table)
_MIB = 2**20


def step(surrogate: Surrogate) -> torch.Tensor:
    """Gradient of the training loss with respect to a photo: one forward and one backward pass."""
    noise = torch.Generator().manual_seed(dist.get_rank())
    views = torch.rand(1, 3, *surrogate.view_size, generator=noise).requires_grad_()
    clip = views.detach()[:, None].expand(-1, surrogate.num_frames, -1, -1, -1)
    condition = surrogate.condition(views)
    latents = condition.latents.detach()
    frames = surrogate.encode_clip(clip) if surrogate.num_frames > 1 else latents[:, None]
    draw = surrogate.draw(frames, [noise], ["a person is talking"])
    denoised = surrogate.denoise(condition, draw, frozenset(), True)
    assert denoised.prediction is not None
    loss = (denoised.prediction - denoised.target).square().mean()
    return torch.autograd.grad(loss, views)[0]


def measure(node: dict[str, Any], rounds: int) -> dict[str, dict[str, float]]:
    """Strategy -> weights in MiB and medians of seconds per step, on this rank."""
    device = torch.device("cpu")
    models: dict[str, tuple[Surrogate, Sharder | None]] = {}
    expected: torch.Tensor | None = None
    found: dict[str, dict[str, float]] = {}
    for name in _STRATEGIES:
        surrogate, sharder = load_surrogate(node, device), None
        if name in SHARDERS.names():
            sharder = SHARDERS.load(name)(dist.group.WORLD, device)
            sharder.shard(surrogate)
        gradient = step(surrogate)  # warm up
        expected = gradient if expected is None else expected
        models[name] = (surrogate, sharder)
        found[name] = {
            "weights_mib": _held(surrogate, sharder) / _MIB,
            "error": float((gradient - expected).abs().max() / expected.abs().max()),
        }
    wall: dict[str, list[float]] = {name: [] for name in _STRATEGIES}
    processor: dict[str, list[float]] = {name: [] for name in _STRATEGIES}
    for _ in range(rounds):
        for name, (surrogate, _sharder) in models.items():
            dist.barrier()
            started, used = time.perf_counter(), time.process_time()
            step(surrogate)
            wall[name].append(time.perf_counter() - started)
            processor[name].append(time.process_time() - used)
    for name in _STRATEGIES:
        found[name]["seconds"] = statistics.median(wall[name])
        found[name]["cpu_seconds"] = statistics.median(processor[name])
    return found


def _held(surrogate: Surrogate, sharder: Sharder | None) -> int:
    if sharder is not None:
        return sharder.memory().held
    return sum(size_of(t) for m in surrogate.modules for t in (*m.parameters(), *m.buffers()))


def _work(rank: int, folder: Path, node: dict[str, Any], rounds: int) -> None:
    """One of the two processes."""
    torch.set_num_threads(1)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})
    os.environ["LOCAL_RANK"] = str(rank)
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    text = json.dumps(measure(node, rounds))
    (folder / f"{rank}.json").write_text(text, encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def table(ranks: list[dict[str, dict[str, float]]]) -> str:
    """Markdown; of the two ranks the one that holds or needs more."""
    lines = [
        "| strategy | weights per rank, MiB | share | s per step | processor s per step | error |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    whole = ranks[0]["replicated"]["weights_mib"]
    for name in _STRATEGIES:
        most = {key: max(rank[name][key] for rank in ranks) for key in ranks[0][name]}
        lines.append(
            f"| {name} | {most['weights_mib']:.1f} | {most['weights_mib'] / whole:.0%} | "
            f"{most['seconds']:.2f} | {most['cpu_seconds']:.2f} | {most['error']:.1g} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Parse, start both processes, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--surrogate", default="cogvideox", help="name of a surrogate")
    parser.add_argument("--path", default="embedded", help="its checkpoint")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps per strategy")
    parser.add_argument("--work", nargs=2, metavar=("RANK", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    node = {"name": given.surrogate, "path": given.path}
    if given.work:
        _work(int(given.work[0]), Path(given.work[1]), node, given.rounds)
        return
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "anti_i2v_lit.bench.sharding", *sys.argv[1:], "--work"]
        both = [subprocess.Popen([*words, str(rank), folder]) for rank in (0, 1)]
        if any([process.wait() for process in both]):
            sys.exit("a process failed; its message is above")
        files = [Path(folder) / f"{rank}.json" for rank in (0, 1)]
        print(table([json.loads(file.read_text(encoding="utf-8")) for file in files]))


if __name__ == "__main__":
    main()
