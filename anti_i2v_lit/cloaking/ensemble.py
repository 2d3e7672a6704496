"""Several surrogates against one photo: whose turn it is, how loud each is, where each waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_in
from anti_i2v_lit.objectives.base import Objective
from anti_i2v_lit.seeds import generator_for
from anti_i2v_lit.surrogates.base import Surrogate

SCHEDULES = ("all", "round_robin", "sampled")
NORMS = ("l1", "l2", "none")
LAYOUTS = ("turns", "per_rank")
WAITING = ("device", "cpu")


@dataclass(kw_only=True)
class EnsembleConfig:
    """How several surrogates work on one photo; without effect when there is one.

    Attributes:
        schedule: who sees a photo at a step. "all": every surrogate. "round_robin": one after the
            other, each round beginning one later, so that none keeps meeting the same part of a
            space that alternates. "sampled": one, drawn with its weight as probability.
        normalise: what a surrogate's gradient is divided by before it is weighted and summed, per
            photo and per part of the space (each part takes steps of its own size): "l1" the mean
            of its absolute values, "l2" its root mean square, "none" nothing. So no model drowns
            the others, whatever the scale of its losses.
        layout: "turns": every device holds all surrogates, which take turns. "per_rank": each
            device holds one; neighbouring ranks form a group that works on the same photos, and
            groups divide the photos among them. The cloaks are the same.
        waiting: where surrogates are while another one works ("turns" only): "device", or "cpu"
            for models that do not fit together, at the price of copying them.
    """

    schedule: str = "all"
    normalise: str = "l1"
    layout: str = "turns"
    waiting: str = "device"

    def __post_init__(self) -> None:
        """Refuse unknown words and a place to wait where nobody waits."""
        check_in(self.schedule, SCHEDULES, "ensemble.schedule")
        check_in(self.normalise, NORMS, "ensemble.normalise")
        check_in(self.layout, LAYOUTS, "ensemble.layout")
        check_in(self.waiting, WAITING, "ensemble.waiting")
        if self.layout == "per_rank" and self.waiting == "cpu":
            raise ValueError(
                "ensemble.waiting=cpu belongs to ensemble.layout=turns: with per_rank every device "
                "holds one surrogate, which never waits; leave it at waiting=device"
            )

    def check_weights(self, weights: Sequence[float]) -> None:
        """Refuse weights that the schedule cannot honour.

        Raises:
            ValueError: unequal weights in turns of one, or no surrogate that could be drawn.
        """
        if len(weights) > 1 and self.schedule == "round_robin" and len(set(weights)) > 1:
            raise ValueError(
                f"ensemble.schedule=round_robin has no use for different weights {list(weights)}: "
                "a step sees one surrogate, and the length of a step does not depend on it; use "
                "schedule=sampled, where weights are probabilities, or schedule=all"
            )
        if len(weights) > 1 and sum(weights) <= 0:
            raise ValueError(
                f"surrogates: weights {list(weights)} leave nothing to do; expected one above 0"
            )


@dataclass(frozen=True, kw_only=True)
class WeightedSurrogate:
    """A loaded surrogate of an ensemble.

    Attributes:
        name: unique in its ensemble; part of the purpose of its random draws.
        surrogate: the model.
        weight: its factor in the total, at least 0.
        objectives: name -> term that it is asked for.
    """

    name: str
    surrogate: Surrogate
    weight: float
    objectives: Mapping[str, Objective]


def names_of(nodes: Sequence[Mapping[str, object]]) -> list[str]:
    """Unique names of surrogate nodes: the adapter's, numbered where it occurs more than once."""
    plain = [str(node["name"]) for node in nodes]
    numbered = [f"{name}{plain[:i].count(name)}" for i, name in enumerate(plain)]
    return [n if plain.count(n) == 1 else m for n, m in zip(plain, numbered, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Who works on a photo at a step: a function of seed, photo key, attempt and step.

    Attributes:
        kind: one of `SCHEDULES`.
        weights: name -> weight of every surrogate of the ensemble, in its order.
        seed: seed of the run.
    """

    kind: str
    weights: Mapping[str, float]
    seed: int

    def on_duty(self, key: str, attempt: int, step: int) -> dict[str, float]:
        """Name -> factor of its gradient, for those that work."""
        names = list(self.weights)
        if self.kind == "all" or len(names) == 1:
            return dict(self.weights)
        if self.kind == "round_robin":
            return {names[(step + step // len(names)) % len(names)]: 1.0}
        generator = generator_for(self.seed, key, step, f"surrogate{attempt}")
        shares = torch.tensor(list(self.weights.values()), dtype=torch.float64)
        return {names[int(torch.multinomial(shares, 1, generator=generator))]: 1.0}


def normalised(gradient: Tensor, norm: str) -> Tensor:
    """A gradient in units of its own size; zeros stay zeros.

    Args:
        gradient: of one photo, surrogate and part of the space; finite.
        norm: one of `NORMS`.
    """
    if norm == "none":
        return gradient
    size = gradient.abs().mean() if norm == "l1" else gradient.square().mean().sqrt()
    return gradient / size.clamp_min(torch.finfo(gradient.dtype).tiny)


class Residence:
    """Which of the surrogates of this rank are on its device.

    Args:
        surrogates: name -> model, as they were loaded.
        device: where they work.
        waiting: "device" to leave all of them there, "cpu" to keep one there at a time.
    """

    def __init__(
        self, surrogates: Mapping[str, Surrogate], device: torch.device, waiting: str
    ) -> None:
        self._surrogates, self._device = dict(surrogates), device
        self._one_at_a_time = waiting == "cpu" and len(surrogates) > 1
        self._present: str | None = None

    def ordered(self, names: Sequence[str]) -> list[str]:
        """The names, those first that need not be fetched."""
        return sorted(names, key=lambda name: self._one_at_a_time and name != self._present)

    def fetch(self, name: str) -> None:
        """Make sure that a surrogate is on the device, sending the former one away."""
        if not self._one_at_a_time or name == self._present:
            return
        if self._present is not None:
            self._surrogates[self._present].to("cpu")
        self._surrogates[name].to(self._device)
        self._present = name
