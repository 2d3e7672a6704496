"""Metrics that look at the same clip or photo share what was computed for it."""

from __future__ import annotations

import hashlib
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
MAX_PHOTOS = 1024
# Larger tensors (photos, clips) are told apart by a sample; landmarks and vectors by every value.
_HASHED_WHOLE = 1 << 16
_FINGERPRINT_STRIDE = 101  # a prime, so that the sample does not follow rows or channels


class LastResult(Generic[T]):
    """Remembers what was computed for the last tensor, as long as that tensor lives."""

    def __init__(self) -> None:
        self._tensor: Callable[[], Tensor | None] = lambda: None
        self._version = -1
        self._extra: object = None
        self._result: T | None = None

    def get(self, tensor: Tensor, compute: Callable[[], T], extra: object = None) -> T:
        """The result for a tensor, computed unless it is the last one, unchanged.

        Args:
            tensor: what the result belongs to.
            compute: makes the result.
            extra: anything else that the result depends on, compared with ==.
        """
        same = self._tensor() is tensor and self._version == tensor._version
        if not same or self._extra != extra or self._result is None:
            self._result = compute()
            self._tensor, self._version = weakref.ref(tensor), tensor._version
            self._extra = extra
        return self._result


class PhotoMemory(Generic[T]):
    """Remembers a result per photo name, for the last 1024 photos."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[object, object, T]] = OrderedDict()

    def get(
        self, photo_key: str, photo: Tensor, compute: Callable[[], T], extra: object = None
    ) -> T:
        """The result for a photo, computed once.

        Args:
            photo_key: its name; "" remembers nothing.
            photo: its pixels [3, H, W].
            compute: makes the result.
            extra: anything else that the result depends on, compared with ==; another one makes
                the result anew.

        Raises:
            ValueError: the name is known with other pixels.
        """
        if not photo_key:
            return compute()
        seen = fingerprint(photo)
        known = self._known.get(photo_key)
        if known is not None and known[0] != seen:
            raise ValueError(
                f"photo_key {photo_key!r} came with two different photos; give each clean photo "
                'a name of its own, or "" to remember none'
            )
        if known is None or known[1] != extra:
            known = self._known[photo_key] = (seen, extra, compute())
        self._known.move_to_end(photo_key)
        if len(self._known) > MAX_PHOTOS:
            self._known.popitem(last=False)
        return known[2]


def fingerprint(tensor: Tensor | None) -> tuple[object, ...]:
    """Shape and a digest of all values, or of large tensors sums over a sample of them."""
    if tensor is None:
        return ()
    shape, values = tuple(tensor.shape), tensor.detach().flatten()
    if len(values) <= _HASHED_WHOLE:
        whole = values.to("cpu", torch.float64).numpy()
        return shape, hashlib.sha256(whole.tobytes()).hexdigest()
    sample = values[::_FINGERPRINT_STRIDE].double().nan_to_num(-1.0)
    return shape, sample.sum().item(), sample.square().sum().item()
