"""Ranks with photos of their own and weights in common: they run the same passes at the same time.

A pass of a sharded surrogate gathers weights from all ranks, so all ranks have to run it. Their
photos differ in number, in steps left and in what is cached; so before every pass the ranks tell
each other which kind they want next, agree on one, and run it together: those that want it with
their photo, the others ahead of time or with a dummy. A rank without photos keeps running dummies
until nobody wants anything.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from anti_i2v_lit.checks import NonFiniteLoss
from anti_i2v_lit.rank_loss import lost

T = TypeVar("T")
U = TypeVar("U")
_NOTHING = -1


@dataclass(frozen=True, kw_only=True)
class Pass:
    """Something that runs networks.

    Attributes:
        forward: runs them.
        backward: takes its result on, through the networks again or not at all.
    """

    forward: Callable[[], Any]
    backward: Callable[[Any], Any]


class Convoy(ABC):
    """How the passes of this rank relate to those of others."""

    @abstractmethod
    def run(self, kind: str, forward: Callable[[], T], backward: Callable[[T], U]) -> U:
        """Run a pass and return what `backward` makes of the result of `forward`.

        Args:
            kind: which pass; the same kind runs the same networks in the same order everywhere.
            forward: may be called again, with the same result.
            backward: called once, after `forward` went well on all ranks.

        Raises:
            NonFiniteLoss: this rank's own.
            PeerLost: another rank is gone.
        """

    @abstractmethod
    def finish(self) -> None:
        """Accompany the others until they have finished as well."""

    @property
    @abstractmethod
    def stopping(self) -> bool:
        """Whether some rank was asked to stop."""

    @abstractmethod
    def ask_to_stop(self) -> None:
        """Tell the others, with the next pass, that this rank was asked to stop."""


class Free(Convoy):
    """Whole surrogates: nobody waits for anybody."""

    def run(self, kind: str, forward: Callable[[], T], backward: Callable[[T], U]) -> U:
        """Run it."""
        return backward(forward())

    def finish(self) -> None:
        """There is nobody to accompany."""

    @property
    def stopping(self) -> bool:
        """Nobody asked."""
        return False

    def ask_to_stop(self) -> None:
        """There is nobody to tell."""


class InStep(Convoy):
    """Ranks that divide the weights of their surrogates.

    Args:
        ranks: process group for short messages on the CPU (gloo).
        kinds: all kinds of passes; where several are wanted, the first in this order runs.
        substitutes: kind -> what a rank runs that does not want it.
        release: drops what a pass left gathered.
    """

    def __init__(
        self,
        ranks: Any,
        kinds: Sequence[str],
        substitutes: Mapping[str, Callable[[], Pass]],
        release: Callable[[], None],
    ) -> None:
        self._ranks, self._kinds, self._substitutes = ranks, tuple(kinds), dict(substitutes)
        self._release = release
        self._asked = self._stopping = False

    @property
    def stopping(self) -> bool:
        """Whether some rank was asked to stop."""
        return self._stopping

    def ask_to_stop(self) -> None:
        """Tell the others with the next message."""
        self._asked = True

    def run(self, kind: str, forward: Callable[[], T], backward: Callable[[T], U]) -> U:
        """Wait for its turn, running what others want meanwhile."""
        own = Pass(forward=forward, backward=backward)
        while True:
            chosen = self._agree_on(kind)
            if chosen != kind:
                assert chosen is not None, "this rank wants something"
                self._accompany(chosen)
                continue
            done, found = self._together(own)
            if done:
                result: U = found
                return result

    def finish(self) -> None:
        """Accompany the others; returns on all ranks at the same time."""
        while (chosen := self._agree_on(None)) is not None:
            self._accompany(chosen)

    def _agree_on(self, kind: str | None) -> str | None:
        """The kind that runs next; None once nobody wants any."""
        wish = _NOTHING if kind is None else self._kinds.index(kind)
        wishes = self._exchange((wish, int(self._asked)))
        self._stopping = self._stopping or any(asked for _, asked in wishes)
        wanted = [position for position, _ in wishes if position != _NOTHING]
        return self._kinds[min(wanted)] if wanted else None

    def _accompany(self, kind: str) -> None:
        # Wherever this rank was waiting, with gradients or without.
        with torch.enable_grad():
            self._together(self._substitutes[kind]())

    def _together(self, mine: Pass) -> tuple[bool, Any]:
        """Run a pass with all ranks; (False, None) if it has to be repeated."""
        failure: NonFiniteLoss | None = None
        value: Any = None
        try:
            value = mine.forward()
        except NonFiniteLoss as caught:
            failure = caught
        except RuntimeError as error:
            raise lost(error) from error
        if any(failed for (failed,) in self._exchange((int(failure is not None),))):
            # Without one rank's backward pass nobody can run his.
            self._release()
            if failure is not None:
                raise failure
            return False, None
        try:
            return True, mine.backward(value)
        except RuntimeError as error:
            raise lost(error) from error
        finally:
            self._release()

    def _exchange(self, numbers: tuple[int, ...]) -> list[tuple[int, ...]]:
        mine = torch.tensor(numbers, dtype=torch.int64)
        found = [torch.empty_like(mine) for _ in range(dist.get_world_size(self._ranks))]
        try:
            dist.all_gather(found, mine, group=self._ranks)
        except RuntimeError as error:
            raise lost(error) from error
        return [tuple(numbers.tolist()) for numbers in found]
