"""From settings to the loop and its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from anti_i2v_lit.cloaking.attack import AttackConfig
from anti_i2v_lit.cloaking.ensemble import EnsembleConfig, WeightedSurrogate, names_of
from anti_i2v_lit.cloaking.loop import CloakLoop
from anti_i2v_lit.cloaking.peers import Peers
from anti_i2v_lit.cloaking.transforms import build_transforms
from anti_i2v_lit.data.framing import Framing
from anti_i2v_lit.objectives import OBJECTIVES
from anti_i2v_lit.objectives.base import Objective
from anti_i2v_lit.spaces import SPACES
from anti_i2v_lit.surrogates import SURROGATES
from anti_i2v_lit.surrogates.base import Surrogate

OF_THE_ENSEMBLE = ("weight", "objectives")
"""Fields of a surrogate's node that are not its adapter's."""

Node = Mapping[str, Any]


def load_surrogate(
    node: Node, device: torch.device | str, prompts: Sequence[str] = ()
) -> Surrogate:
    """Load the surrogate of a `{name, weight, objectives, <fields>}` node onto a device.

    Args:
        node: with all fields of the adapter's Config.
        device: where the weights go.
        prompts: texts to embed before the denoiser is loaded, besides those of the node; ignored
            by models without a text input.

    Raises:
        ValueError: it did not load, for whatever reason; names the surrogate and its path.
    """
    fields = {k: v for k, v in node.items() if k not in OF_THE_ENSEMBLE}
    if prompts and "prompts" in fields:
        texts = [text for text in prompts if "${" not in text and text != "???"]
        # A photo's caption is no setting: what a configuration would read as a reference to another
        # value is embedded when its photo comes.
        fields["prompts"] = list(dict.fromkeys([*fields["prompts"], *texts]))
    try:
        return SURROGATES.build(fields).to(device)
    except Exception as error:  # noqa: BLE001 (libraries raise what they like; the name counts)
        label = f"{node.get('name')}:{node.get('path', '')}"
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"surrogate {label} did not load: {kind}{error}") from error


def build_objectives(nodes: Sequence[Node], device: torch.device | str) -> dict[str, Objective]:
    """Name -> term of `{name, <fields>}` nodes; a name that comes again is numbered."""
    terms: dict[str, Objective] = {}
    for node in nodes:
        name = str(node.get("name"))
        name = name if name not in terms else f"{name}{len(terms)}"
        terms[name] = OBJECTIVES.build(node)
        terms[name].place(torch.device(device))
    return terms


def weights_of(nodes: Sequence[Node]) -> dict[str, float]:
    """Unique name -> weight of surrogate nodes, in their order."""
    weights = [float(node.get("weight", 1)) for node in nodes]
    return dict(zip(names_of(nodes), weights, strict=True))


def build_surrogates(
    nodes: Sequence[Node],
    device: torch.device | str,
    objectives: Sequence[Node] = (),
    *,
    waiting: str = "device",
    only: Sequence[int] | None = None,
    loaded_on: torch.device | str | None = None,
    prompts: Sequence[str] = (),
) -> list[WeightedSurrogate]:
    """Load surrogates with their terms.

    Args:
        nodes: `{name, weight, objectives, <fields>}` of the whole ensemble.
        device: where they work.
        objectives: terms of those that bring none of their own; shared among them.
        waiting: "device" to load all onto it; "cpu" where they wait elsewhere for their turn.
        only: positions of those to load; None for all.
        loaded_on: where their weights stay for now; None for where they work or wait.
        prompts: texts that will be needed, to embed before a denoiser is loaded.

    Raises:
        ValueError: a checkpoint is missing or a field is wrong; names the surrogate.
    """
    weights = list(weights_of(nodes).items())
    shared: dict[str, Objective] | None = None
    found = []
    for position in range(len(nodes)) if only is None else only:
        name, weight = weights[position]
        node = nodes[position]
        own = node.get("objectives")
        if not own and shared is None:
            shared = build_objectives(objectives, device)
        place = loaded_on or ("cpu" if waiting == "cpu" and len(nodes) > 1 else device)
        found.append(
            WeightedSurrogate(
                name=name,
                surrogate=load_surrogate(node, place, prompts),
                weight=weight,
                objectives=build_objectives(own, device) if own else shared or {},
            )
        )
    return found


def build_loop(
    *,
    seed: int,
    attack: AttackConfig,
    space: Node,
    surrogates: Sequence[WeightedSurrogate],
    framing: Framing,
    device: torch.device | str,
    ensemble: EnsembleConfig | None = None,
    weights: Mapping[str, float] | None = None,
    peers: Peers | None = None,
) -> CloakLoop:
    """Build the one loop from component nodes and loaded surrogates.

    Args:
        seed: seed of all randomness.
        attack: the attack.
        space: `{name, <fields>}`.
        surrogates: those of this rank.
        framing: canvas to views.
        device: where everything happens.
        ensemble: how several surrogates work together.
        weights: name -> weight of the whole ensemble; None if all of it is here.
        peers: ranks with the rest of the ensemble.
    """
    return CloakLoop(
        seed=seed,
        config=attack,
        space=SPACES.build(space),
        surrogates=surrogates,
        framing=framing,
        transforms=build_transforms(attack.transforms),
        ensemble=ensemble,
        weights=weights,
        peers=peers,
        device=torch.device(device),
    )
