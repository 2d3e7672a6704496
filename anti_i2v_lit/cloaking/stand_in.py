"""What a rank runs when others need its part of the weights and it has nothing of its own to do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from anti_i2v_lit.cloaking.convoy import Pass
from anti_i2v_lit.cloaking.job import PhotoJob
from anti_i2v_lit.cloaking.loop import CloakLoop
from anti_i2v_lit.cloaking.member import Member
from anti_i2v_lit.seeds import generator_for

CAPTION = ""
"""Its caption, whose texts are embedded with those of the photos."""
_KEY = "stand-in"


class StandIn:
    """A picture of noise, in the place of a photo.

    Args:
        loop: the attack; all ranks make their stand-in at the same time, before the first photo,
            because it runs passes that nobody has asked for.
    """

    def __init__(self, loop: CloakLoop) -> None:
        self._loop = loop
        height, width = loop.view_size
        noise = torch.rand(1, 3, height, width, generator=generator_for(loop.seed, _KEY, 0, _KEY))
        self._job = PhotoJob(
            key=_KEY,
            photo_size=(height, width),
            canvas=noise.to(loop.device),
            faces=(),
            budget_8bit=loop.config.budget_8bit,
            caption=CAPTION,
        )
        loop.begin(self._job)
        for member in loop.members.values():
            member.look_at_anchor()
            member.entry(self._job, 0)

    def passes(self) -> dict[str, Callable[[], Pass]]:
        """Kind -> substitute. Entries come first and steps last, so that steps coincide."""
        members = self._loop.members.items()
        return {
            **{f"entry {n}": partial(self._entry, m) for n, m in members},
            **{f"look {n}": partial(self._look, m) for n, m in members},
            **{f"voice {n}": partial(self._voice, m) for n, m in members},
        }

    def _entry(self, member: Member) -> Pass:
        def forward() -> None:
            """Make an entry that this rank will need, if there is one."""
            if not member.work_ahead(self._loop.in_flight):
                member.made(self._job, 0)

        return Pass(forward=forward, backward=_nothing)

    def _look(self, member: Member) -> Pass:
        @torch.no_grad()
        def forward() -> Tensor:
            return self._losses(member)

        return Pass(forward=forward, backward=_nothing)

    def _voice(self, member: Member) -> Pass:
        def backward(losses: Tensor) -> None:
            torch.autograd.grad(losses.sum(), list(self._job.parameters.values()))

        return Pass(forward=lambda: self._losses(member), backward=backward)

    def _losses(self, member: Member) -> Tensor:
        canvas = self._loop.cloaked_canvas(self._job)
        return member.losses([self._job], [canvas], [member.entry(self._job, 0)])["total"]


def _nothing(found: object) -> None:
    """There is no backward pass."""
