"""Sign descent with optional momentum, as a torch optimiser whose groups come and go."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn

LARGEST_SHARE = 4.0
"""Largest entry of a proportional step, in root mean squares of the gradient."""


class SignDescent(torch.optim.Optimizer):
    """p <- p - step_size * sign(m), m <- momentum * m + g / mean|g| (Dong et al. 2018; PGD at 0).

    Each photo is one parameter group; `step_sizes` (a tensor per parameter, in the parameter's
    own unit) is set before every step by whoever owns the space. A parameter without gradient
    or step size rests.

    Args:
        momentum: share of the accumulated gradient kept, in [0, 1].
    """

    def __init__(self, momentum: float) -> None:
        super().__init__([{"params": []}], _fresh(momentum))

    def add_photo(self, parameters: Iterable[nn.Parameter]) -> None:
        """Start optimising the parameters of one photo."""
        self.add_param_group({"params": list(parameters), "step_sizes": {}, "proportional": set()})

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
        proportional: Collection[nn.Parameter] = (),
    ) -> None:
        """Set the step of every parameter for the next step; absent ones rest.

        Args:
            sizes: parameter -> step in its own unit.
            proportional: parameters that follow the gradient itself, scaled to unit root mean
                square and held within `LARGEST_SHARE`, instead of its sign.
        """
        followers = {id(p) for p in proportional}
        for group in self.param_groups:
            group["step_sizes"] = {id(p): sizes[p] for p in group["params"] if p in sizes}
            group["proportional"] = {id(p) for p in group["params"]} & followers

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
                follows = id(parameter) in group["proportional"]
                parameter.sub_(size * (_unit(direction) if follows else direction.sign()))
        return result


def _fresh(momentum: float) -> dict[str, Any]:
    return {"momentum": momentum, "step_sizes": {}, "proportional": set()}


def _unit(gradient: Tensor) -> Tensor:
    """The gradient at unit root mean square, its outliers held."""
    scale = gradient.square().mean().sqrt().clamp_min(1e-20)
    return (gradient / scale).clamp(-LARGEST_SHARE, LARGEST_SHARE)
