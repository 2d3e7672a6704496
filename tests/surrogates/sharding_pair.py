"""One of two processes that share weights; arguments: its rank, and a folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from anti_i2v_lit.surrogates import SURROGATES
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.surrogates.sharding import SHARDERS
from anti_i2v_lit.surrogates.sharding.base import Sharder
from anti_i2v_lit.surrogates.sharding.scratch import ConvertedInFiles

# Every registered surrogate by ZeRO-3, and by whatever else is offered for it.
PARITY = {name: ("zero3",) for name in SURROGATES.names()} | {
    "cogvideox": ("zero3", "zero3_offload", "fsdp2"),
    "ltx": ("zero3", "fsdp2"),
    "open_sora": ("zero3", "fsdp2"),
}
_CPU = torch.device("cpu")


def loss_of(surrogate: Surrogate, rank: int, prediction: bool = True) -> tuple[Tensor, Tensor]:
    """A loss that passes through every network, and the views it depends on."""
    noise = torch.Generator().manual_seed(10 + rank)
    views = torch.rand(1, 3, *surrogate.view_size, generator=noise).requires_grad_()
    clip = views.detach()[:, None].expand(-1, surrogate.num_frames, -1, -1, -1)
    latents = surrogate.encode_clip(clip)
    draw = surrogate.draw(latents, [torch.Generator().manual_seed(rank)], ["a person"])
    condition = surrogate.condition(views, frozenset(surrogate.encoder_taps[:1]), draw)
    denoised = surrogate.denoise(
        condition, draw, frozenset(surrogate.denoiser_taps[:2]), prediction
    )
    terms = [f.square().mean() for f in (*condition.features.values(), *denoised.features.values())]
    if denoised.prediction is not None:
        terms.append((denoised.prediction - denoised.target).square().mean())
    return torch.stack(terms).sum(), views


def gradient_of(surrogate: Surrogate, rank: int, prediction: bool = True) -> tuple[float, Tensor]:
    loss, views = loss_of(surrogate, rank, prediction)
    return loss.item(), torch.autograd.grad(loss, views)[0]


def sharded(strategy: str, surrogate: Surrogate) -> Sharder:
    sharder = SHARDERS.load(strategy)(dist.group.WORLD, _CPU)
    sharder.shard(surrogate)
    return sharder


def parity(name: str, strategy: str, rank: int, expected: tuple[float, Tensor]) -> dict[str, Any]:
    """Two steps of a sharded surrogate, and its weights in memory at every moment."""
    surrogate = SURROGATES.load(name).tiny()
    sharder = sharded(strategy, surrogate)
    memory = {"built": sharder.memory()}
    gradient_of(surrogate, rank)
    loss, views = loss_of(surrogate, rank)
    memory["forward"] = sharder.memory()
    gradient = torch.autograd.grad(loss, views)[0]
    memory["backward"] = sharder.memory()
    with torch.no_grad():
        loss_of(surrogate, rank)
    sharder.release()
    memory["evaluated"] = sharder.memory()
    largest = max(sum(p for p in _sizes(unit)) for unit in sharder.units)
    return {
        "loss": loss.item() - expected[0],
        "gradient": (gradient - expected[1]).abs().max().item(),
        "scale": expected[1].abs().max().item(),
        "memory": {moment: vars(found) for moment, found in memory.items()},
        "units": len(sharder.units),
        "largest": largest,
    }


def _sizes(unit: Any) -> list[int]:
    return [getattr(p, "ds_numel", p.numel()) * p.element_size() for p in unit.parameters]


def gathered_alive(rank: int, careless: bool) -> dict[str, int]:
    """Bytes of gathered weights that anybody, autograd above all, still holds.

    Args:
        rank: of this process.
        careless: without the storing of places instead of weights, as plain hooks around
            modules would gather and drop.
    """
    surrogate = SURROGATES.load("cogvideox").tiny()
    sharder: Any = sharded("zero3", surrogate)
    gradient_of(surrogate, rank)
    if careless:
        surrogate.run_within(nullcontext)
    seen: list[tuple[StorageWeakRef, int]] = []
    peak = [0]

    def alive() -> int:
        return sum(size for storage, size in seen if not storage.expired())

    def turn_to(gathering: Any, original: Callable[[Any], None] = sharder._turn_to) -> None:
        if gathering is sharder._open:
            return
        original(gathering)
        for weight in gathering.parameters:
            storage = weight.untyped_storage()
            seen.append((StorageWeakRef(storage), storage.nbytes()))
        peak[0] = max(peak[0], alive())

    sharder._turn_to = turn_to
    loss, views = loss_of(surrogate, rank)
    sharder.release()
    found = {"forward": alive(), "weights": sharder.memory().whole}
    if not careless:
        torch.autograd.grad(loss, views)
        found.update(backward=alive(), peak=peak[0], gathers=len(seen))
    return found


def checkpointed(folder: str, rank: int) -> dict[str, Any]:
    """A truncated model from a folder, its blocks recomputed; anonymous memory while it loads."""
    node = {"name": "cogvideox", "path": folder, "activation_checkpointing": True}
    whole = SURROGATES.build(node)
    expected = gradient_of(whole, rank, prediction=False)
    plain = gradient_of(SURROGATES.build({**node, "activation_checkpointing": False}), rank, False)
    found: dict[str, Any] = {"recomputed": (expected[1] - plain[1]).abs().max().item()}
    for strategy in ("zero3", "fsdp2"):
        surrogate = SURROGATES.build(node)
        names = surrogate.denoiser_taps
        surrogate.truncate(frozenset(names[:2]), prediction=False)
        sharder = sharded(strategy, surrogate)
        gradient_of(surrogate, rank, prediction=False)
        loss, gradient = gradient_of(surrogate, rank, prediction=False)
        found[strategy] = {
            "loss": loss - expected[0],
            "gradient": (gradient - expected[1]).abs().max().item(),
            "gathered": sharder.memory().gathered,
            "same_names": surrogate.denoiser_taps == names,
            "blocks": [u.name for u in sharder.units if "transformer_blocks.2" in u.name],
        }
    return found


def loading(folder: str, converted: bool) -> dict[str, Any]:
    """How far anonymous memory grows while a checkpoint is loaded and divided, in bytes.

    Args:
        folder: the checkpoint.
        converted: whether its files have another precision than that asked for.
    """
    found: dict[str, Any] = {}
    for strategy in ("zero3", "fsdp2"):
        sharder = SHARDERS.load(strategy)(dist.group.WORLD, _CPU)
        sharder._begin()
        before = _anonymous()
        with ConvertedInFiles() if converted else nullcontext():
            surrogate = SURROGATES.build({"name": "cogvideox", "path": folder})
        peak = [_anonymous() - before]
        divide = sharder._divide

        def watched(
            unit: Any, divide: Any = divide, peak: Any = peak, before: int = before
        ) -> None:
            divide(unit)
            peak.append(_anonymous() - before)

        sharder._divide = watched  # type: ignore[method-assign]
        sharder.shard(surrogate)
        found[strategy] = {"peak": max(peak), "memory": vars(sharder.memory()), "built": peak[0]}
        del surrogate, sharder
    return found


def _anonymous() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))


def main(rank: int, folder: Path) -> None:
    """Measure everything and save it."""
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    found: dict[str, Any] = {"parity": {}}
    for name, strategies in PARITY.items():
        expected = gradient_of(SURROGATES.load(name).tiny(), rank)
        for strategy in strategies:
            found["parity"][f"{name} {strategy}"] = parity(name, strategy, rank, expected)
    found["alive"] = gathered_alive(rank, careless=False)
    found["careless"] = gathered_alive(rank, careless=True)
    found["checkpointed"] = checkpointed(str(folder / "tiny"), rank)
    # Last: every import has been paid for.
    found["loading"] = loading(str(folder / "large"), converted=False)
    found["converting"] = loading("embedded", converted=True)
    torch.save(found, folder / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
