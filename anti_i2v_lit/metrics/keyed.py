"""States of metrics: a row of numbers beside its key, gathered over ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
import torchmetrics
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

_STATES = {
    "values": torch.float64,
    "value_lengths": torch.int64,
    "key_bytes": torch.uint8,
    "key_lengths": torch.int64,
}


class KeyedMetric(torchmetrics.Metric):
    """Keeps numbers per key; a key that comes again counts once, on whichever rank."""

    full_state_update = False
    is_differentiable = False

    values: list[Tensor] | Tensor
    value_lengths: list[Tensor] | Tensor
    key_bytes: list[Tensor] | Tensor
    key_lengths: list[Tensor] | Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in _STATES:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    @final
    def _remember(self, key: str, values: Tensor) -> None:
        """Keep a row of numbers [N]."""
        name = torch.frombuffer(bytearray(key.encode()), dtype=torch.uint8)
        for state, entry in (
            ("values", values.detach().double()),
            ("value_lengths", torch.tensor([len(values)])),
            ("key_bytes", name.clone()),
            ("key_lengths", torch.tensor([len(name)])),
        ):
            getattr(self, state).append(entry.to(self.device))

    @final
    def _gathered(self) -> dict[str, Tensor]:
        """`_by_key` over all ranks; every rank has to call it."""
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync, should_unsync=True
        ):
            return self._by_key()

    @final
    def _by_key(self) -> dict[str, Tensor]:
        """Key -> numbers of the states as they are now, sorted by key.

        Raises:
            ValueError: one key with different numbers.
        """
        if isinstance(self.values, list) and not self.values:
            return {}
        lengths = dim_zero_cat(self.value_lengths).tolist()
        rows = dim_zero_cat(self.values).cpu().split(lengths)
        text = bytes(dim_zero_cat(self.key_bytes).tolist())
        found: dict[str, Tensor] = {}
        start = 0
        for row, length in zip(rows, dim_zero_cat(self.key_lengths).tolist(), strict=True):
            key, start = text[start : start + length].decode(), start + length
            if key in found and not _same(found[key], row):
                raise ValueError(
                    f"{type(self).__name__}: {key} has the values {_text(found[key])} and "
                    f"{_text(row)}; expected one per key, give each clip a key of its own"
                )
            found.setdefault(key, row)
        return dict(sorted(found.items()))

    def _sync_dist(
        self, dist_sync_fn: Callable = gather_all_tensors, process_group: Any | None = None
    ) -> None:
        # torchmetrics would send float32 for a rank without photos, whatever the others send.
        for name, dtype in _STATES.items():
            if len(getattr(self, name)) == 0:
                setattr(self, name, [torch.zeros(0, dtype=dtype, device=self.device)])
        super()._sync_dist(dist_sync_fn, process_group)


def _same(first: Tensor, second: Tensor) -> bool:
    """Equal up to what another device's arithmetic may change; NaN equals NaN."""
    return first.shape == second.shape and torch.allclose(
        first, second, rtol=1e-3, atol=1e-6, equal_nan=True
    )


def _text(row: Tensor) -> str:
    return ", ".join(f"{value:g}" for value in row[:3].tolist()) + (" ..." if len(row) > 3 else "")
