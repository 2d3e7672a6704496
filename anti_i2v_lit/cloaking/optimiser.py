"""Sign descent with optional momentum, as a torch optimiser whose groups come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Direction = Callable[[Tensor], Tensor]
"""(Accumulated) gradient of a parameter -> the step of unit size against which it moves."""


class SignDescent(torch.optim.Optimizer):
    """p <- p - step_size * sign(m), m <- momentum * m + g / mean|g| (Dong et al. 2018; PGD at 0).

    A parameter may have a direction of its own in the sign's place. Each photo is one parameter
    group; `step_sizes` (a tensor per parameter, in the parameter's own unit) is set before every
    step by whoever owns the space. A parameter without gradient or step size rests.

    Args:
        momentum: share of the accumulated gradient kept, in [0, 1].
    """

    def __init__(self, momentum: float) -> None:
        super().__init__([{"params": []}], {"momentum": momentum, "step_sizes": {}})
        # Beside the groups, which checkpoints copy; changed in place, because Lightning's wrapper
        # has the same dictionary under its own attribute.
        self._directions: dict[int, Direction] = {}

    def add_photo(self, parameters: Iterable[nn.Parameter]) -> None:
        """Start optimising the parameters of one photo."""
        self.add_param_group({"params": list(parameters), "step_sizes": {}})

    def drop_photo(self, parameters: Iterable[nn.Parameter]) -> None:
        """Forget the parameters of one photo and their momentum."""
        gone = {id(p) for p in parameters}
        self.param_groups[:] = [
            g for g in self.param_groups if not any(id(p) in gone for p in g["params"])
        ]
        for parameter in [p for p in self.state if id(p) in gone]:
            del self.state[parameter]

    def set_step_sizes(
        self,
        sizes: dict[nn.Parameter, Tensor],
        directions: Mapping[nn.Parameter, Direction] | None = None,
    ) -> None:
        """Set the step of every parameter for the next step; absent ones rest.

        Args:
            sizes: parameter -> step in its own unit.
            directions: parameter -> where it goes; absent ones go along the sign.
        """
        self._directions.clear()
        self._directions.update({id(p): found for p, found in (directions or {}).items()})
        for group in self.param_groups:
            group["step_sizes"] = {id(p): sizes[p] for p in group["params"] if p in sizes}

    def momentum_of(self, parameter: nn.Parameter) -> Tensor:
        """The accumulated gradient of a parameter (zeros before its first step)."""
        state = self.state.get(parameter, {})
        return state.get("accumulated", torch.zeros_like(parameter))

    def set_momentum_of(self, parameter: nn.Parameter, value: Tensor) -> None:
        """Restore an accumulated gradient."""
        self.state[parameter]["accumulated"] = value.to(parameter).clone()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one sign step along every gradient that is set."""
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                size = group["step_sizes"].get(id(parameter))
                if parameter.grad is None or size is None:
                    continue
                direction = parameter.grad
                if group["momentum"] > 0:
                    scale = direction.abs().mean().clamp_min(1e-20)
                    direction = group["momentum"] * self.momentum_of(parameter) + direction / scale
                    self.state[parameter]["accumulated"] = direction
                parameter.sub_(size * self._directions.get(id(parameter), torch.sign)(direction))
        return result
