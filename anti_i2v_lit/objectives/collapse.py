"""IRC: the denoiser's deep features are pulled down to its shallow ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from anti_i2v_lit.objectives.base import Objective
from anti_i2v_lit.objectives.features import (
    chosen_taps,
    comparable,
    denoised_of,
    mean_square,
)
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.types import Observation, TapRequest


class RepresentationCollapse(Objective):
    """Internal representation collapse (IRC): deep features become like shallow ones.

    `mean over j of mean((f_j - f_i)^2) / mean((g_j - g_i)^2)`, with f the features under the
    cloak, g those under the clean photo at the same draw, i the shallow and j the deep taps.
    The value is 1 at the clean photo and 0 at total collapse, on any surrogate.

    The published form (Anti-I2V, arXiv 2603.24570) has no denominator and takes i = block 3 and
    j = the last three blocks; the denominator is ours, because late residual streams are orders
    of magnitude larger than other terms. Blocks of different shape are compared by the channel
    statistics of `features.comparable`.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the collapse term.

        Attributes:
            weight: signed factor in the total, no unit.
            shallow_tap: denoiser tap i, by name or by share of the depth from 0 (the first) to
                1 (the last); empty means the third (the first of a denoiser too shallow to have
                three deeper ones).
            deep_taps: denoiser taps j, likewise; empty means the last three.
            detach_shallow: whether the shallow features count as a fixed target, so that only
                the deep ones are moved.
        """

        weight: float = 1.0
        shallow_tap: str = ""
        deep_taps: list[str] = field(default_factory=list)
        detach_shallow: bool = False

        def __post_init__(self) -> None:
            """Refuse a tap compared with itself."""
            if self.shallow_tap and self.shallow_tap in self.deep_taps:
                raise ValueError(
                    f"shallow_tap {self.shallow_tap!r} is also in deep_taps; expected other taps"
                )

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def weight(self) -> float:
        """Signed factor of the term in the total."""
        return self.config.weight

    def taps(self, surrogate: Surrogate) -> TapRequest:
        """The shallow and the deep denoiser taps, of the cloak and of the clean photo.

        Raises:
            ValueError: an unknown tap, or a denoiser with fewer than two.
        """
        shallow, *deep = self._plan(surrogate)
        return TapRequest(denoiser=frozenset((shallow, *deep)), references=frozenset({"clean"}))

    def _plan(self, surrogate: Surrogate) -> tuple[str, ...]:
        """The shallow tap, then the deep ones."""
        known = surrogate.denoiser_taps
        if len(known) < 2:
            raise ValueError(
                f"collapse compares two depths, expected at least 2 denoiser taps, got {known}; "
                "remove the objective for this surrogate"
            )
        third = known[2] if len(known) >= 6 else known[0]
        configured = [self.config.shallow_tap] if self.config.shallow_tap else []
        shallow = chosen_taps(configured, known, [third], "denoiser tap")
        last = [name for name in known[-3:] if name not in shallow]
        deep = chosen_taps(self.config.deep_taps, known, last, "denoiser tap")
        if shallow[0] in deep:
            raise ValueError(
                f"the shallow tap {shallow[0]!r} is also a deep tap; expected other deep_taps"
            )
        return (*shallow, *deep)

    def _loss(
        self, surrogate: Surrogate, cloak: Observation, references: dict[str, Observation]
    ) -> Tensor:
        features = denoised_of(cloak).features
        clean = denoised_of(references["clean"]).features
        shallow, *deep = self._plan(surrogate)
        parts = [self._gap(features, shallow, j) / self._gap(clean, shallow, j) for j in deep]
        return torch.stack(parts).mean(dim=0)

    def _gap(self, features: Mapping[str, Tensor], shallow: str, deep: str) -> Tensor:
        low = features[shallow].detach() if self.config.detach_shallow else features[shallow]
        first, second = comparable(features[deep], low)
        return mean_square(first.float() - second.float())
