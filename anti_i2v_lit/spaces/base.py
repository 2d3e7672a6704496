"""Where a photo may change: parameters -> cloak, always in range and inside the budget."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, final

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_photos

Parameters = dict[str, Tensor]


class PerturbationSpace(ABC):
    """A parameterised set of small changes of a photo.

    The public methods are final: whatever a variant's hooks return, the cloak is in [0, 1],
    differs from the photo by at most `budget_8bit` grey levels, is the photo exactly where the
    parameters are zero, and has finite gradients.
    """

    Config: type[Any]

    @abstractmethod
    def _scales(self, photo: Tensor, budget_8bit: float) -> dict[str, Tensor]:
        """Group name -> tensor broadcastable to its parameters: their largest useful size.

        The first dimension of every parameter is the batch.
        """

    @abstractmethod
    def _shapes(self, photo: Tensor) -> dict[str, tuple[int, ...]]:
        """Group name -> full shape of its parameters for this photo batch."""

    @abstractmethod
    def _decode(self, photo: Tensor, parameters: Parameters, budget_8bit: float) -> Tensor:
        """Photo and parameters -> changed photo [B, 3, H, W]; need not respect range or budget."""

    @abstractmethod
    def _project(self, photo: Tensor, parameters: Parameters, budget_8bit: float) -> Parameters:
        """Bring the parameters back to where `_decode` respects range and budget (no gradient)."""

    @abstractmethod
    def _step_shares(self, step: int, budget_8bit: float) -> dict[str, float]:
        """Group name -> factor on its step; absent groups rest.

        The step of a group is `factor * scale * step_8bit / budget_8bit`; the factor has to undo
        whatever else is in the scale, so that a step means the same at every budget.
        """

    @abstractmethod
    def _direction(self, group: str, photo: Tensor, gradient: Tensor) -> Tensor:
        """What a step of unit size subtracts from a group whose (accumulated) gradient is given."""

    @final
    @torch.no_grad()
    def direction(self, group: str, photo: Tensor, gradient: Tensor) -> Tensor:
        """What a step of unit size subtracts from a group.

        Args:
            group: name of a group of parameters.
            photo: [B, 3, H, W] in [0, 1].
            gradient: of the loss by the group's parameters, in their shape; with momentum, the
                accumulated one.

        Returns:
            In the gradient's shape, without unit, root mean square about 1.
        """
        found = self._direction(group, photo, gradient)
        assert found.shape == gradient.shape, f"{group}: {found.shape} is not {gradient.shape}"
        return found

    @final
    def start(
        self,
        photo: Tensor,
        budget_8bit: float,
        generators: list[torch.Generator],
        random_share: float,
    ) -> Parameters:
        """Starting parameters: zero, or random signs of `random_share` of the budget.

        Args:
            photo: [B, 3, H, W] in [0, 1].
            budget_8bit: largest change in grey levels.
            generators: one CPU generator per photo.
            random_share: in [0, 1]; 0 starts at the photo itself.
        """
        check_photos(photo, "photo")
        scales = self._scales(photo, budget_8bit)
        found: Parameters = {}
        for name, shape in self._shapes(photo).items():
            signs = torch.stack(
                [torch.randint(0, 2, shape[1:], generator=g) * 2.0 - 1.0 for g in generators]
            ).to(photo)
            found[name] = random_share * scales[name] * signs
        return self.project(photo, found, budget_8bit) if random_share > 0 else found

    @final
    def decode(self, photo: Tensor, parameters: Parameters, budget_8bit: float) -> Tensor:
        """Return the cloak [B, 3, H, W]: in [0, 1], within the budget, differentiable.

        The clamps pass the gradient through (straight-through), so that a pixel at its limit can
        come back; `project` keeps the parameters from running away behind the clamp.
        """
        changed = self._decode(photo, parameters, budget_8bit)
        with torch.no_grad():
            budget = budget_8bit / 255.0
            held = (changed - photo).clamp(-budget, budget)
            # Adding and subtracting the photo can overshoot by one unit in the last place.
            held = torch.minimum(torch.maximum(photo + held, photo - budget), photo + budget)
            held = torch.where(changed == photo, photo, held).clamp(0.0, 1.0)
        # The difference is exactly zero, so that the value is `held` to the last bit.
        return held + (changed - changed.detach())

    @final
    @torch.no_grad()
    def project(self, photo: Tensor, parameters: Parameters, budget_8bit: float) -> Parameters:
        """Return parameters inside the budget; zero stays zero."""
        return self._project(photo, parameters, budget_8bit)

    @final
    @torch.no_grad()
    def step_sizes(
        self, photo: Tensor, step: int, step_8bit: float, budget_8bit: float
    ) -> dict[str, Tensor]:
        """Group name -> step size in the group's own unit; groups that rest are absent.

        Args:
            photo: [B, 3, H, W] in [0, 1].
            step: 0-based step of the attack.
            step_8bit: step in grey levels.
            budget_8bit: budget in grey levels.
        """
        scales = self._scales(photo, budget_8bit)
        share = step_8bit / budget_8bit
        return {
            name: scales[name] * (share * part)
            for name, part in self._step_shares(step, budget_8bit).items()
        }
