"""`strategy=zero3|zero3_offload|fsdp2`: who divides weights with whom, and how such a run ends."""

from __future__ import annotations

import datetime
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning.pytorch as pl
import torch.distributed as dist

from anti_i2v_lit.cloaking.convoy import InStep
from anti_i2v_lit.cloaking.loop import CloakLoop
from anti_i2v_lit.cloaking.stand_in import StandIn
from anti_i2v_lit.rank_loss import lost
from anti_i2v_lit.settings import Settings
from anti_i2v_lit.surrogates.sharding import SHARDERS
from anti_i2v_lit.surrogates.sharding.base import Sharder
from anti_i2v_lit.surrogates.sharding.scratch import ConvertedInFiles

# Between passes a rank reads, writes and judges a photo while the others wait. Gloo notices at
# once when a process is gone; NCCL does not, and no pass on a GPU takes this long
# (`launching` ends a rank that still waits after a minute).
_PATIENCE = datetime.timedelta(hours=1)
_NCCL_PATIENCE = datetime.timedelta(seconds=40)
# They call parts of blocks, or write into lists that a block is given (docs/sharding.md).
_NOT_BY_FSDP2 = ("dynamicrafter", "svd", "wan_2_1", "wan_2_2")


def is_sharded(settings: Settings) -> bool:
    """Whether the weights of surrogates are divided over ranks."""
    return settings.strategy in SHARDERS.names()


def loading(settings: Settings) -> AbstractContextManager[object]:
    """What surrogates are loaded within: divided ones are never in memory whole, converted or not.

    Weights in the precision of their files stay mapped from these; others from scratch files.
    """
    return ConvertedInFiles() if is_sharded(settings) else nullcontext()


def check_sharding(world: int, settings: Settings) -> None:
    """Refuse what does not go together with divided weights.

    Args:
        world: number of devices of the run.
        settings: settings of the run.

    Raises:
        ValueError: with the reason and what to change.
    """
    if not is_sharded(settings):
        return
    strategy = f"strategy={settings.strategy}"
    if world < 2:
        raise ValueError(
            f"{strategy} divides the surrogate's weights over devices, and there is one: set "
            "trainer.devices=2 or more, or strategy=photo_parallel"
        )
    for node in settings.surrogates:
        if settings.strategy == "fsdp2" and node["name"] in _NOT_BY_FSDP2:
            raise ValueError(
                f"strategy=fsdp2 cannot divide surrogate {node['name']!r}, whose blocks do not "
                "keep to the calls that FSDP2 waits for; use strategy=zero3"
            )
        if node.get("compile", "none") != "none":
            raise ValueError(
                f"{strategy} and compile={node['compile']} exclude each other: weights that come "
                "and go cannot be compiled in; set surrogates.N.compile=none"
            )
    if len(settings.surrogates) > 1 and settings.ensemble.layout == "per_rank":
        raise ValueError(
            f"{strategy} and ensemble.layout=per_rank exclude each other: devices that share a "
            "photo and devices that share weights would wait for each other; use "
            "ensemble.layout=turns, where every device holds a part of all surrogates"
        )
    if len(settings.surrogates) > 1 and settings.ensemble.waiting == "cpu":
        raise ValueError(
            f"{strategy} and ensemble.waiting=cpu exclude each other: divided weights stay where "
            "they are; use ensemble.waiting=device, with strategy=zero3_offload if the parts do "
            "not fit the devices"
        )


class Convoys:
    """The process groups of this rank's convoy.

    Weights are divided among the devices of a node, so that no weight travels between nodes; with
    one device per node, among all nodes. All ranks make this at the same time.

    Args:
        trainer: launched.
        settings: with a strategy that divides weights.
    """

    def __init__(self, trainer: pl.Trainer, settings: Settings) -> None:
        world, per_node = int(trainer.world_size), int(trainer.num_devices)
        size = per_node if per_node > 1 else world
        self._mine: list[Any] = []
        on_gpu = dist.get_backend() != "gloo"
        for first in range(0, world, size):
            ranks = list(range(first, first + size))
            plain = dist.new_group(ranks, backend="gloo", timeout=_PATIENCE)
            weights = dist.new_group(ranks, timeout=_NCCL_PATIENCE if on_gpu else _PATIENCE)
            if trainer.global_rank in ranks:
                self._mine = [plain, weights]
        self.sharder: Sharder = SHARDERS.load(settings.strategy)(
            self._mine[1], trainer.strategy.root_device
        )

    def join(self, loop: CloakLoop) -> None:
        """Divide a loop's surrogates and put it in step with the other ranks.

        Raises:
            PeerLost: a rank is gone.
        """
        try:
            self._join(loop)
        except RuntimeError as error:
            raise lost(error) from error

    def _join(self, loop: CloakLoop) -> None:
        for member in loop.members.values():
            member.surrogate.truncate(member.request.denoiser, member.request.prediction)
            self.sharder.shard(member.surrogate)
        passes = StandIn(loop).passes()
        loop.join(InStep(self._mine[0], list(passes), passes, self.sharder.release))

    def close(self) -> None:
        """Leave the process groups."""
        for group in self._mine:
            dist.destroy_process_group(group)
