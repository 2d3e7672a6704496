"""FSDP2: torch's own fully sharded modules, each unit by itself.

Zhao et al. 2023, "PyTorch FSDP"; `torch.distributed.fsdp.fully_shard`.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from anti_i2v_lit.surrogates.sharding.base import Sharder, size_of
from anti_i2v_lit.surrogates.sharding.units import Unit


class FullyShard(Sharder):
    """Torch's fully_shard: every rank keeps 1/N of the rows of each weight on its device."""

    _mesh: DeviceMesh | None = None

    def _begin(self) -> None:
        if self._mesh is None:
            self._mesh = DeviceMesh.from_group(self.ranks, self.device.type)

    def _divide(self, unit: Unit) -> None:
        # Every unit is a root of its own, so that a network may be entered anywhere; a root
        # would stay whole until the backward pass if it were not told to drop its weights.
        unit.module.register_forward_pre_hook(_refuse_lists, with_kwargs=True)
        mine = {id(p) for p in unit.parameters}
        fully_shard(
            unit.module,
            mesh=self._mesh,
            reshard_after_forward=True,
            ignored_params={p for p in unit.module.parameters() if id(p) not in mine},
        )

    def release(self) -> None:
        """Drop what a forward pass without a backward pass left gathered."""
        for unit in self._units:
            module: Any = unit.module
            module.reshard()

    def _parts(self, unit: Unit) -> tuple[int, int]:
        module: Any = unit.module
        items = [p for g in module._get_fsdp_state()._fsdp_param_groups for p in g.fsdp_params]
        whole = [out for item in items for out in item.all_gather_outputs]
        return (
            sum(size_of(item._sharded_param_data) for item in items),
            sum(out.untyped_storage().nbytes() for out in whole),
        )


def _refuse_lists(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    """FSDP2 hands copies of lists to a module: what it writes into them is lost, silently.

    Raises:
        ValueError: a network that communicates by lists (the video autoencoder of Wan does).
    """
    if any(isinstance(value, list | dict) for value in (*args, *options.values())):
        raise ValueError(
            f"strategy=fsdp2 cannot divide {type(module).__name__}, which writes into its "
            "arguments; use strategy=zero3"
        )
