"""From settings to the loop and its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from anti_i2v_lit.cloaking.attack import AttackConfig
from anti_i2v_lit.cloaking.loop import CloakLoop, WeightedSurrogate
from anti_i2v_lit.cloaking.transforms import build_transforms
from anti_i2v_lit.data.framing import Framing
from anti_i2v_lit.objectives import OBJECTIVES
from anti_i2v_lit.objectives.base import Objective
from anti_i2v_lit.spaces import SPACES
from anti_i2v_lit.surrogates import SURROGATES


def build_surrogates(
    nodes: Sequence[Mapping[str, Any]], device: torch.device | str
) -> list[WeightedSurrogate]:
    """Load every surrogate of `{name, weight, <fields>}` nodes onto a device.

    Raises:
        ValueError: a checkpoint is missing or a field is wrong; names the surrogate.
    """
    found = []
    for position, node in enumerate(nodes):
        fields = {k: v for k, v in node.items() if k != "weight"}
        surrogate = SURROGATES.build(fields).to(device)
        name = f"{node['name']}{position}" if len(nodes) > 1 else str(node["name"])
        found.append(
            WeightedSurrogate(name=name, surrogate=surrogate, weight=float(node.get("weight", 1)))
        )
    return found


def build_loop(
    *,
    seed: int,
    attack: AttackConfig,
    space: Mapping[str, Any],
    objectives: Sequence[Mapping[str, Any]],
    surrogates: Sequence[WeightedSurrogate],
    framing: Framing,
    device: torch.device | str,
) -> CloakLoop:
    """Build the one loop from component nodes and loaded surrogates."""
    terms: dict[str, Objective] = {}
    for node in objectives:
        name = str(node.get("name"))
        name = name if name not in terms else f"{name}{len(terms)}"
        terms[name] = OBJECTIVES.build(node)
        terms[name].place(torch.device(device))
    return CloakLoop(
        seed=seed,
        config=attack,
        space=SPACES.build(space),
        objectives=terms,
        surrogates=surrogates,
        framing=framing,
        transforms=build_transforms(attack.transforms),
    )
