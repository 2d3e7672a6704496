"""One of several processes that share photos: `python -m tests.cloaking.sharing RANK WORLD ...`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from anti_i2v_lit.checks import NonFiniteLoss
from anti_i2v_lit.cloaking.loop import CloakLoop
from anti_i2v_lit.cloaking.peers import Alone, Peers, Ranks
from tests.cloaking.linear import LinearSurrogate, make_job, make_loop, optimiser_of

NODES = [{"name": "denoising"}, {"name": "ira_latent"}]
KEYS = ("a.png", "b.png")
WEIGHTS = {"one": 1.0, "two": 0.6, "three": 0.3}
STEPS = 6


class Negative(LinearSurrogate):
    """Sees the photo the other way round."""

    def _condition(self, views: Any, encoder_taps: Any) -> Any:
        return super()._condition(1 - views, encoder_taps)


def models() -> dict[str, LinearSurrogate]:
    """Three models with views of different sizes."""
    return {"one": LinearSurrogate(), "two": Negative(8), "three": LinearSurrogate(6)}


def loop_of(names: list[str], schedule: str, peers: Peers) -> CloakLoop:
    """A loop that holds some of the models."""
    weights = WEIGHTS if schedule != "round_robin" else dict.fromkeys(WEIGHTS, 1.0)
    return make_loop(
        NODES,
        {name: (models()[name], weights[name]) for name in names},
        ensemble={"schedule": schedule},
        weights=weights,
        peers=peers,
        space={"name": "dual"},
        framing={},
        momentum=0.9,
        random_start=0.3,
    )


def attack(loop: CloakLoop) -> dict[str, Any]:
    """Parameters, reports and judgements of two photos."""
    jobs = [make_job(key) for key in KEYS]
    for job in jobs:
        loop.begin(job)
    optimiser = optimiser_of(jobs, 0.9)
    reports = [loop.step(jobs, optimiser) for _ in range(STEPS)]
    pictures = [[j.canvas, loop.cloaked_canvas(j).detach()] for j in jobs]
    shown = pictures if loop.peers.leads else [[], []]
    return {
        "parameters": {f"{j.key} {n}": p.detach() for j in jobs for n, p in j.parameters.items()},
        "reports": reports,
        "judged": [
            (found.total, dict(found.by_surrogate))
            for job, some in zip(jobs, shown, strict=True)
            for found in loop.judge_all(job, some)
        ],
    }


def alone(schedule: str) -> dict[str, Any]:
    """All models in this process."""
    return attack(loop_of(list(WEIGHTS), schedule, Alone()))


def failures(peers: Ranks) -> dict[str, str]:
    """What each kind of failure of the last rank becomes on this one."""
    last = peers.rank == peers.ranks[-1]

    def breaks(error: Exception) -> Any:
        if last:
            raise error
        return peers.rank

    found = {}
    for name, error in {
        "value": ValueError("surrogate two did not load: no such folder"),
        "memory": MemoryError("too large"),
        "number": NonFiniteLoss("no number at step 3", ("b.png",)),
    }.items():
        try:
            peers.together(lambda error=error: breaks(error))  # type: ignore[misc]
        except NonFiniteLoss as caught:
            found[name] = f"NonFiniteLoss {caught} {caught.keys}"
        except Exception as caught:  # noqa: BLE001 (its kind is what the test asks)
            found[name] = f"{type(caught).__name__} {caught}"
    found["after"] = str(peers.together(lambda: peers.rank))
    found["wish"] = str((peers.any(last), peers.any(False)))
    return found


def main(rank: int, world: int, folder: Path) -> None:
    """Attack with one model of every schedule, then fail in every way."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    group = dist.new_group(range(world))
    peers = Ranks(ranks=range(world), rank=rank, plain=group, tensors=group)
    name = list(WEIGHTS)[rank]
    found: dict[str, Any] = {
        schedule: attack(loop_of([name], schedule, peers))
        for schedule in ("all", "round_robin", "sampled")
    }
    found["failures"] = failures(peers)
    torch.save(found, folder / f"rank{rank}.pt")
    peers.close()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
