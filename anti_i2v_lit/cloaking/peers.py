"""Ranks that work on the same photos: one leads, all do the same steps, a failure is everyone's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from anti_i2v_lit.checks import NonFiniteLoss
from anti_i2v_lit.rank_loss import noticing_loss

T = TypeVar("T")


class Peers(ABC):
    """The ranks that share photos, this one among them.

    Every method but `leads` is a collective: all of them call it, in the same order. Whatever
    decides what happens next (losses, verdicts, a wish to stop) goes through here, never from a
    rank's own state.

    Raises:
        PeerLost: from every collective, when one of the ranks is gone.
    """

    @property
    @abstractmethod
    def leads(self) -> bool:
        """Whether this rank reads, writes and decides for all of them."""

    @abstractmethod
    def together(self, work: Callable[[], T]) -> list[T]:
        """Do a part of the work on each rank; its plain results in the order of the ranks.

        Raises:
            NonFiniteLoss: some rank's work raised one; the same one on all ranks.
            ValueError: some rank's work failed; with its message, on all ranks.
        """

    @abstractmethod
    def gather(self, values: Tensor) -> list[Tensor]:
        """Tensors of equal shape from all ranks, in their order, on this rank's device."""

    @abstractmethod
    def from_leader(self, value: T) -> T:
        """The leader's plain value or CPU tensors; those of other ranks are dropped."""

    @abstractmethod
    def close(self) -> None:
        """Give the process groups back; nothing can be shared any more."""

    def any(self, wish: bool) -> bool:
        """Whether any rank wishes it."""
        return any(self.together(lambda: wish))


class Alone(Peers):
    """A rank with photos of its own."""

    @property
    def leads(self) -> bool:
        """There is nobody else."""
        return True

    def together(self, work: Callable[[], T]) -> list[T]:
        """Do the work."""
        return [work()]

    def gather(self, values: Tensor) -> list[Tensor]:
        """The values themselves."""
        return [values]

    def from_leader(self, value: T) -> T:
        """The value itself."""
        return value

    def close(self) -> None:
        """Nothing was opened."""


@dataclass(frozen=True, kw_only=True)
class _Failure:
    """An exception in a form that every rank can raise."""

    rank: int
    text: str
    keys: tuple[str, ...] | None

    @staticmethod
    def of(error: Exception, rank: int) -> _Failure:
        if isinstance(error, NonFiniteLoss):
            return _Failure(rank=rank, text=str(error), keys=error.keys)
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        return _Failure(rank=rank, text=f"{kind}{error}", keys=None)

    def error(self) -> ValueError:
        if self.keys is not None:
            return NonFiniteLoss(self.text, self.keys)
        return ValueError(f"rank {self.rank}: {self.text}")


@dataclass(frozen=True, kw_only=True)
class _Said(Generic[T]):
    value: T | None
    failure: _Failure | None


class Ranks(Peers):
    """Several processes.

    Plain data go through the CPU (gloo notices at once when a process is gone), tensors through
    the device's own backend. Sums are taken by each rank over gathered parts in the order of the
    ranks, not by the network, whose order of addition depends on their number.

    Args:
        ranks: global ranks, the leader first.
        rank: this process's global rank.
        plain: process group of these ranks for Python objects (gloo).
        tensors: process group of these ranks for tensors on the device.
    """

    def __init__(self, *, ranks: Sequence[int], rank: int, plain: Any, tensors: Any) -> None:
        self.ranks, self.rank = tuple(ranks), rank
        self._plain, self._tensors = plain, tensors

    @property
    def leads(self) -> bool:
        """The first of the ranks leads."""
        return self.rank == self.ranks[0]

    def together(self, work: Callable[[], T]) -> list[T]:
        """Do the work, then hear how it went everywhere.

        Raises:
            NonFiniteLoss: as `Peers.together`.
            ValueError: likewise; the rank that failed raises its own exception.
        """
        error: Exception | None = None
        mine: _Said[T] = _Said(value=None, failure=None)
        try:
            mine = _Said(value=work(), failure=None)
        except Exception as caught:  # noqa: BLE001 (the others must hear of it, whatever it is)
            error = caught
            mine = _Said(value=None, failure=_Failure.of(caught, self.rank))
        said: list[Any] = [None] * len(self.ranks)
        with noticing_loss():
            dist.all_gather_object(said, mine, group=self._plain)
        failures = [s.failure for s in said if s.failure is not None]
        if not failures:
            return [s.value for s in said]
        # All ranks must raise the same; what ends the run goes before what drops a photo.
        first = min(failures, key=lambda f: (f.keys is not None, f.rank))
        if first.rank == self.rank and error is not None:
            raise error
        raise first.error() from error

    def gather(self, values: Tensor) -> list[Tensor]:
        """Exchange tensors."""
        found = [torch.empty_like(values) for _ in self.ranks]
        with noticing_loss():
            dist.all_gather(found, values.contiguous(), group=self._tensors)
        return found

    def from_leader(self, value: T) -> T:
        """Send or receive."""
        box: list[Any] = [value if self.leads else None]
        with noticing_loss():
            dist.broadcast_object_list(box, src=self.ranks[0], group=self._plain)
        shared: T = box[0]
        return shared

    def close(self) -> None:
        """Leave the process groups."""
        for group in {id(g): g for g in (self._plain, self._tensors)}.values():
            dist.destroy_process_group(group)
