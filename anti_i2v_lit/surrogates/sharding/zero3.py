"""ZeRO-3: DeepSpeed divides and gathers the weights; when, is decided here, unit by unit.

DeepSpeed's own engine gathers by the module and follows a recorded order of modules, which has no
place for networks with several entry points, or passes that alternate between models. Its worse
side for frozen weights: autograd keeps views of the gathered weights (`weight.t()` of a linear
layer) from the forward to the backward pass, so that after a forward pass the whole model is in
memory again. Here such a view is stored as its place in the weight, and taken from the weight
when it is gathered for the backward pass.

Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from anti_i2v_lit.surrogates.sharding.base import Sharder, size_of
from anti_i2v_lit.surrogates.sharding.units import Unit


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A tensor that autograd wants to keep, as its place in a weight."""

    unit: _Gathering
    weight: nn.Parameter
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


class _Gathering:
    """The weights of one unit: here, or divided."""

    def __init__(self, unit: Unit) -> None:
        self.parameters: Any = unit.parameters  # with DeepSpeed's attributes
        mine = {id(p) for p in unit.parameters}
        self._owners = [
            (module, name, parameter)
            for module in unit.module.modules()
            for name, parameter in module.named_parameters(recurse=False)
            if id(parameter) in mine
        ]

    def gather(self) -> None:
        """Show the modules whole weights, as tensors of their own.

        Checkpointing holds on to the weights of a recomputed block, by reference; DeepSpeed
        empties its parameters in place when it drops them.
        """
        self.parameters[0].all_gather_coalesced(self.parameters).wait()
        for module, name, parameter in self._owners:
            setattr(module, name, nn.Parameter(parameter.data, requires_grad=False))

    def release(self) -> None:
        for module, name, parameter in self._owners:
            setattr(module, name, parameter)
        self.parameters[0].partition(self.parameters)


class Zero3(Sharder):
    """DeepSpeed ZeRO stage 3: every rank keeps 1/N of each weight on its device."""

    _shards_on: str | None = None

    def __init__(self, ranks: Any, device: torch.device) -> None:
        super().__init__(ranks, device)
        self._open: _Gathering | None = None
        self._homes: dict[int, nn.Parameter] = {}  # address of an open weight -> the weight

    def _begin(self) -> None:
        deepspeed = _deepspeed()
        if not deepspeed.comm.is_initialized():
            deepspeed.init_distributed(dist.get_backend(), verbose=False)

    def _divide(self, unit: Unit) -> None:
        # Rank 0 of the group sends its weights to the others, whose own are never read.
        for parameter in unit.parameters:
            if dist.get_rank(self.ranks) == 0:
                parameter.data = parameter.data.contiguous()
            else:
                parameter.data = torch.empty(parameter.shape, dtype=parameter.dtype)
        for parameter in unit.parameters:
            _deepspeed().zero.Init(
                module=nn.ParameterList([parameter]),
                data_parallel_group=self.ranks,
                mem_efficient_linear=False,  # it would replace torch's linear for good
                remote_device=self._shards_on,
                pin_memory=self._shards_on is not None and self.device.type == "cuda",
                dtype=parameter.dtype,
            )
        gathering = _Gathering(unit)
        for module in unit.module.modules():
            if next(module.parameters(), None) is not None:
                module.forward = self._opening(module.forward, gathering)

    def _opening(self, forward: Callable[..., Any], gathering: _Gathering) -> Callable[..., Any]:
        """A module's `forward` with its unit's weights; they stay until another unit's turn.

        All modules of a unit open it, as some networks call the parts of a block one by one.
        """

        @wraps(forward)
        def run(*args: Any, **options: Any) -> Any:
            self._turn_to(gathering)
            return forward(*args, **options)

        return run

    def _turn_to(self, gathering: _Gathering) -> None:
        if self._open is gathering:
            return
        self.release()
        gathering.gather()
        self._open = gathering
        self._homes = {p.untyped_storage().data_ptr(): p for p in gathering.parameters}

    def release(self) -> None:
        """Drop the weights of the last unit."""
        if self._open is not None:
            self._open.release()
        self._open, self._homes = None, {}

    @contextmanager
    def _around(self) -> Iterator[None]:
        with saved_tensors_hooks(self._pack, self._unpack):
            try:
                yield
            finally:
                self.release()

    def _pack(self, tensor: Tensor) -> Tensor | _Place:
        """A view of a weight by its place; anything else as it is."""
        weight = self._homes.get(tensor.untyped_storage().data_ptr()) if tensor.numel() else None
        if self._open is None or weight is None or weight.dtype != tensor.dtype:
            return tensor
        return _Place(
            unit=self._open,
            weight=weight,
            size=tensor.shape,
            stride=tensor.stride(),
            offset=int(tensor.storage_offset()) - int(weight.storage_offset()),
        )

    def _unpack(self, kept: Tensor | _Place) -> Tensor:
        """The view again, its unit gathered for the backward pass."""
        if isinstance(kept, Tensor):
            return kept
        if self._open is not kept.unit:
            self._turn_to(kept.unit)
            engine: Any = torch.autograd.Variable._execution_engine
            engine.queue_callback(self.release)  # at the end of this backward pass
        whole = kept.weight.data
        return whole.as_strided(kept.size, kept.stride, whole.storage_offset() + kept.offset)

    def _parts(self, unit: Unit) -> tuple[int, int]:
        parameters: Any = unit.parameters
        return (
            sum(size_of(p.ds_tensor) for p in parameters),
            sum(p.untyped_storage().nbytes() for p in parameters),
        )


class Zero3Offload(Zero3):
    """DeepSpeed ZeRO stage 3 with CPU offload: 1/N waits in CPU memory, a unit is on the device."""

    _shards_on = "cpu"


def _deepspeed() -> Any:
    """DeepSpeed, told not to compile anything.

    Raises:
        ValueError: it cannot be imported.
    """
    os.environ.setdefault("LOCAL_RANK", "0")
    try:
        import deepspeed
    except Exception as error:  # noqa: BLE001 (its import looks for compilers and drivers)
        raise ValueError(
            f"strategy=zero3 needs DeepSpeed, which does not import: {error}; use strategy=fsdp2"
        ) from error
    # A shared-memory exchange that it would compile at start, for minutes; gloo does without.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
