"""Loading weights in another precision than that of their files, without holding them all.

Weights in the files' own precision stay mapped from the files. Converted ones would be a whole
network in memory before the first of them is divided. Here each goes, as it is converted, into a
scratch file that is mapped in its place: the pages belong to the file, and the system takes them
back when memory is short. A scratch file has no name any more once it is mapped, and its space is
free again when its weight was divided.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Smaller ones are converted in memory.
_SMALLEST_BYTES = 1 << 16
_CASTS: Mapping[Any, torch.dtype | None] = {
    Tensor.to: None,
    Tensor.float: torch.float32,
    Tensor.bfloat16: torch.bfloat16,
    Tensor.half: torch.float16,
}


class _Suspension(threading.local):
    """How many `conversions_in_memory` this thread is within."""

    depth = 0


_SUSPENSION = _Suspension()


@contextmanager
def conversions_in_memory() -> Iterator[None]:
    """Suspend `ConvertedInFiles` in this thread: for networks that run while others load.

    Their activations are converted in every layer; each would make, fill and map a file.
    """
    _SUSPENSION.depth += 1
    try:
        yield
    finally:
        _SUSPENSION.depth -= 1


@final
class ConvertedInFiles(TorchFunctionMode):
    """While active in this thread, conversions of large CPU tensors go to scratch files.

    Args:
        folder: where the scratch files lie, on a disk; None for that of temporary files (TMPDIR).
    """

    def __init__(self, folder: str | None = None) -> None:
        super().__init__()
        self.folder = folder or tempfile.gettempdir()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one operation; a conversion into a file.

        Raises:
            ValueError: no room for the file.
        """
        options = dict(kwargs or {})
        if func in _CASTS and not _SUSPENSION.depth:
            dtype = _CASTS[func] or _dtype_asked(args, options)
            if dtype is not None and _is_large_conversion(args[0], dtype):
                return self._converted(args[0], dtype)
        return func(*args, **options)

    def _converted(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        size = tensor.numel() * dtype.itemsize
        descriptor, name = tempfile.mkstemp(prefix="anti_i2v_weight_", dir=self.folder)
        try:
            # Reserved first: a mapped file that the disk has no room for would end the process.
            os.posix_fallocate(descriptor, 0, size)
            storage = torch.UntypedStorage.from_file(name, shared=True, nbytes=size)
        except OSError as error:
            raise ValueError(
                f"no room for converted weights in {self.folder} ({error.strerror}): set TMPDIR "
                "to a larger disk, or the surrogate's dtype to that of its files"
            ) from error
        finally:
            os.close(descriptor)
            os.unlink(name)
        found = torch.empty(0, dtype=dtype).set_(storage, 0, tensor.shape)  # type: ignore[call-overload]
        with torch.no_grad():
            found.copy_(tensor)
        return found


def _dtype_asked(args: Sequence[Any], options: Mapping[str, Any]) -> torch.dtype | None:
    """The precision of a call of `Tensor.to`; None where it changes the device too, or neither."""
    words = [*args[1:], *options.values()]
    if any(isinstance(word, Tensor | str | torch.device) for word in words):
        return None
    return next((word for word in words if isinstance(word, torch.dtype)), None)


def _is_large_conversion(tensor: Any, dtype: torch.dtype) -> bool:
    return (
        type(tensor) in (Tensor, torch.nn.Parameter)
        and tensor.device.type == "cpu"
        and tensor.is_floating_point()
        and dtype.is_floating_point
        and tensor.dtype != dtype
        and not tensor.requires_grad
        and tensor.numel() * dtype.itemsize >= _SMALLEST_BYTES
    )
