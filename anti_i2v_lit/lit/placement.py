"""Which rank does what: photos are dealt to groups of ranks, surrogates to the ranks of a group."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

import lightning.pytorch as pl
import torch.distributed as dist

from anti_i2v_lit.cloaking.peers import Alone, Peers, Ranks
from anti_i2v_lit.lit.sharded import check_sharding
from anti_i2v_lit.settings import Settings

# A follower waits while its leader reads, writes and judges the photos of one group.
_PATIENCE = datetime.timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """One rank's place.

    Neighbouring ranks form a group, which works on the same photos, one surrogate per rank, so
    that with `members` dividing the devices of a node no gradient leaves the node. Across groups,
    `replicas` hold the same surrogate: this is where its weights can be partitioned.

    Attributes:
        rank: global rank.
        world: number of ranks.
        members: ranks per group; 1 where every rank has photos of its own.
    """

    rank: int = 0
    world: int = 1
    members: int = 1

    @property
    def group(self) -> int:
        """Number of this rank's group; photos are dealt to groups."""
        return self.rank // self.members

    @property
    def num_groups(self) -> int:
        """Groups in all."""
        return self.world // self.members

    @property
    def member(self) -> int:
        """Position in the group, which is that of the surrogate in the ensemble."""
        return self.rank % self.members

    @property
    def leads(self) -> bool:
        """Whether this rank reads and writes for its group."""
        return self.member == 0

    @property
    def peers(self) -> tuple[int, ...]:
        """Ranks of this rank's group, in the order of the ensemble."""
        first = self.group * self.members
        return tuple(range(first, first + self.members))

    @property
    def replicas(self) -> tuple[int, ...]:
        """Ranks of all groups that hold the same surrogate as this one."""
        return tuple(range(self.member, self.world, self.members))


def placement_of(trainer: pl.Trainer, settings: Settings) -> Placement:
    """This rank's place.

    Raises:
        ValueError: the devices cannot be divided into groups, or do not go with the strategy;
            says what to change.
    """
    world = int(trainer.world_size)
    check_sharding(world, settings)
    return placement_in(world, settings, trainer.global_rank)


def placement_in(world: int, settings: Settings, rank: int = 0) -> Placement:
    """The place of a rank among `world` devices.

    Raises:
        ValueError: as `placement_of`.
    """
    count = len(settings.surrogates)
    if settings.ensemble.layout != "per_rank" or count == 1:
        return Placement(rank=rank, world=world)
    if world % count:
        above = world + count - world % count
        fewer = f"{world - world % count} or " if world > count else ""
        raise ValueError(
            f"ensemble.layout=per_rank puts one of {count} surrogates on each device, and "
            f"{world} device(s) (trainer.devices x trainer.num_nodes) are not a multiple of "
            f"{count}: take {fewer}{above} devices, or ensemble.layout=turns, where each device "
            "holds all surrogates"
        )
    return Placement(rank=rank, world=world, members=count)


def meet(placement: Placement) -> tuple[Peers, Peers]:
    """The ranks of this rank's group, and all ranks; every rank calls this once.

    Python objects travel by gloo whatever the device, because it notices a dead process at once.
    """
    if placement.world == 1:
        return Alone(), Alone()
    plain_backend = dist.get_backend() == "gloo"
    world = dist.group.WORLD
    control = world if plain_backend else dist.new_group(backend="gloo", timeout=_PATIENCE)
    everyone = Ranks(
        ranks=range(placement.world), rank=placement.rank, plain=control, tensors=world
    )
    if placement.members == 1:
        return Alone(), everyone
    own: Peers = Alone()
    for group in range(placement.num_groups):  # all ranks make all groups, in the same order
        ranks = Placement(
            rank=group * placement.members, world=placement.world, members=placement.members
        ).peers
        plain = dist.new_group(ranks, backend="gloo", timeout=_PATIENCE)
        tensors = plain if plain_backend else dist.new_group(ranks, timeout=_PATIENCE)
        if group == placement.group:
            own = Ranks(ranks=ranks, rank=placement.rank, plain=plain, tensors=tensors)
    return own, everyone
