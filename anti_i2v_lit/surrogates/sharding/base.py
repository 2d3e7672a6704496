"""The seam of sharding: networks in, divided networks out, and an account of what is in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.surrogates.sharding.units import (
    Unit,
    large_buffers_become_parameters,
    units_of,
)


@dataclass(frozen=True, kw_only=True)
class WeightMemory:
    """Weights of a surrogate on this rank, in bytes.

    Attributes:
        whole: of the unsharded surrogate, buffers that count as weights included.
        shard: this rank's part of the divided weights.
        replicated: weights that stay whole on every rank.
        gathered: whole weights that are in memory now beside the shard.
    """

    whole: int
    shard: int
    replicated: int
    gathered: int

    @property
    def held(self) -> int:
        """All that is in memory now."""
        return self.shard + self.replicated + self.gathered


class Sharder(ABC):
    """Divides the weights of surrogates over a group of ranks.

    Every rank of the group runs the same passes in the same order; each with pixels of its own.

    Args:
        ranks: process group over which weights are divided.
        device: where this rank computes.
    """

    def __init__(self, ranks: Any, device: torch.device) -> None:
        self.ranks, self.device = ranks, device
        self._units: list[Unit] = []
        self._loose: list[nn.Parameter] = []
        self._whole = 0

    @property
    def units(self) -> Sequence[Unit]:
        """What is gathered as one, of all surrogates sharded so far."""
        return tuple(self._units)

    @abstractmethod
    def _divide(self, unit: Unit) -> None:
        """Keep this rank's part of a unit on the device; gather it whenever its module runs."""

    @abstractmethod
    def _parts(self, unit: Unit) -> tuple[int, int]:
        """(bytes of this rank's part, bytes of whole weights gathered now) of a unit."""

    @abstractmethod
    def _begin(self) -> None:
        """Before the first unit is divided."""

    def _around(self) -> AbstractContextManager[object]:
        """What every pass of a sharded surrogate runs within."""
        return nullcontext()

    @abstractmethod
    def release(self) -> None:
        """Drop whatever is still gathered; called after a backward pass."""

    @final
    def shard(self, surrogate: Surrogate) -> None:
        """Divide a surrogate's weights in place, one unit after the other.

        It was loaded on the CPU, where weights stay mapped from their files until they are
        touched; each rank goes through them unit by unit, so that it never holds them all.

        Args:
            surrogate: frozen; truncated already, where blocks are not needed.
        """
        self._begin()
        for network in surrogate.modules:
            large_buffers_become_parameters(network)
            self._whole += sum(size_of(p) for p in network.parameters())
            units = units_of(network)
            inside = {id(p) for unit in units for p in unit.parameters}
            loose = [p for p in network.parameters() if id(p) not in inside]
            for unit in units:
                self._divide(unit)
            self._place_rest(network, loose)
            self._units += units
            self._loose += loose
        surrogate.run_within(self._around)

    def _place_rest(self, network: nn.Module, loose: Sequence[nn.Parameter]) -> None:
        for parameter in loose:
            # Copied, so that no mapping of a whole file stays behind for a few numbers.
            parameter.data = parameter.data.to(self.device, copy=True)
        for module in network.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(self.device, copy=True))

    @final
    def memory(self) -> WeightMemory:
        """Count the weights in memory now."""
        parts = [self._parts(unit) for unit in self._units]
        return WeightMemory(
            whole=self._whole,
            shard=sum(part for part, _ in parts),
            replicated=sum(size_of(p) for p in self._loose),
            gathered=sum(gathered for _, gathered in parts),
        )


def size_of(tensor: Tensor) -> int:
    """Bytes of a tensor's elements."""
    return tensor.numel() * tensor.element_size()
