"""Floating-point operations and live tensor bytes, read off the operations as they run.

Works on any device, the meta device included, where nothing is computed: sizes and lifetimes of
tensors are the same there. What a kernel allocates inside itself is not seen.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

# The CUDA caching allocator hands out multiples of this many bytes.
_BLOCK_BYTES = 512
_CONVOLUTIONS = {torch.ops.aten.convolution, torch.ops.aten.convolution_backward}


class Meter(TorchDispatchMode):
    """Counts while it is active.

    Tensors that exist before (weights, inputs) are not counted; a tensor made under the meter is
    counted from its making until its storage is freed, views once.

    Attributes:
        live: bytes alive now.
        peaks: phase -> largest `live` while it ran.
        flops: phase -> operations, without recomputation.
        recomputed_flops: phase -> operations of activation checkpoints that run again.
        largest_convolution: bytes of input, weight and output of the largest convolution.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peaks: dict[str, int] = defaultdict(int)
        self.flops: dict[str, int] = defaultdict(int)
        self.recomputed_flops: dict[str, int] = defaultdict(int)
        self.largest_convolution = 0
        self._phase = "all"
        self._known: dict[int, weakref.ref[Any]] = {}

    @property
    def peak(self) -> int:
        """Largest `live` of all phases, bytes."""
        return max(self.peaks.values(), default=0)

    @property
    def total_flops(self) -> int:
        """Operations of all phases, without recomputation."""
        return sum(self.flops.values())

    @property
    def total_recomputed_flops(self) -> int:
        """Operations of all phases that only repeat what was computed before."""
        return sum(self.recomputed_flops.values())

    def enter(self, phase: str) -> None:
        """Count what follows under this name."""
        self._phase = phase
        self.peaks[phase] = max(self.peaks[phase], self.live)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation and count it."""
        kwargs = kwargs or {}
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                self._remember(tensor, counted=False)
        result = func(*args, **kwargs)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._remember(tensor, counted=True)
        self.peaks[self._phase] = max(self.peaks[self._phase], self.live)
        if func._overloadpacket in _CONVOLUTIONS:
            sizes = [t.nbytes for t in tree_leaves((args, result)) if isinstance(t, Tensor)]
            self.largest_convolution = max(self.largest_convolution, sum(sizes))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            # In a backward pass, formulas run without grad mode, repeated forwards with it.
            again = torch._C._current_graph_task_id() != -1 and torch.is_grad_enabled()
            counts = self.recomputed_flops if again else self.flops
            counts[self._phase] += formula(*args, **kwargs, out_val=result)
        return result

    def _remember(self, tensor: Tensor, *, counted: bool) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._known:
            return
        size = -(-storage.nbytes() // _BLOCK_BYTES) * _BLOCK_BYTES if counted else 0
        self.live += size

        def freed(_: Any) -> None:
            self.live -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, freed)
