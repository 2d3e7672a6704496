"""Which parts of a network are gathered as one: its blocks, or parts of very large blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

# A part with more than this share of its network's weights is divided further where it can be.
_LARGEST_SHARE = 1 / 8
# Buffers from this number of elements on are weights in all but name.
_LARGE_BUFFER = 1024
# Units below this number of elements are not worth a message; they stay whole.
_SMALLEST_UNIT = 256
_LISTS = (nn.ModuleList, nn.ModuleDict)
_DIVISIBLE = (*_LISTS, nn.Sequential)


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A module whose weights are gathered together.

    Attributes:
        name: dotted name within its network.
        module: the module; nothing outside it reads a weight from inside it.
        parameters: its weights, with those of its children.
    """

    name: str
    module: nn.Module
    parameters: tuple[nn.Parameter, ...]


def large_buffers_become_parameters(network: nn.Module) -> None:
    """Turn large floating-point buffers (folded kernels, learned positions) into frozen weights.

    Only parameters are divided; a buffer would stay whole on every rank.
    """
    for module in network.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_floating_point() and buffer.numel() >= _LARGE_BUFFER:
                delattr(module, name)
                module.register_parameter(name, nn.Parameter(buffer, requires_grad=False))


def units_of(network: nn.Module) -> list[Unit]:
    """Divide a network into units, in the order of its modules.

    Weights that several units share, and those that belong to the modules around the units (a
    table of a transformer, a class token), are in no unit: they stay whole on every rank.

    Args:
        network: any network; lists of blocks are looked for at every depth.
    """
    total = sum(p.numel() for p in network.parameters())
    found = list(_divided("", network, total * _LARGEST_SHARE))
    owners = Counter(id(p) for _, module in found for p in module.parameters())
    inside = {id(p) for _, module in found for p in module.parameters()}
    around = {id(p) for m in _around(network, found) for p in m.parameters(recurse=False)}
    own = {key for key in inside - around if owners[key] == 1}
    units = [
        Unit(name=name, module=m, parameters=tuple(p for p in m.parameters() if id(p) in own))
        for name, m in found
    ]
    return [unit for unit in units if sum(p.numel() for p in unit.parameters) >= _SMALLEST_UNIT]


def _divided(name: str, module: nn.Module, limit: float) -> Iterator[tuple[str, nn.Module]]:
    size = sum(p.numel() for p in module.parameters())
    if size == 0:
        return
    whole = name and not isinstance(module, _LISTS) and _can_be_called(module)
    if whole and (size <= limit or not _has_parts(module)):
        yield name, module
        return
    for child_name, child in module.named_children():
        yield from _divided(f"{name}.{child_name}".lstrip("."), child, limit)


def _has_parts(module: nn.Module) -> bool:
    """Whether it is a stage of blocks rather than a block that reads its children's weights."""
    return any(isinstance(part, _DIVISIBLE) for part in module.modules())


def _can_be_called(module: nn.Module) -> bool:
    return type(module).forward is not nn.Module.forward


def _around(network: nn.Module, units: list[tuple[str, nn.Module]]) -> Iterator[nn.Module]:
    inside = {id(part) for _, module in units for part in module.modules()}
    return (module for module in network.modules() if id(module) not in inside)
