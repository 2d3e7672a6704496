"""Named inner features, read through hooks that live only inside a `with` block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

Reader = Callable[[Any], Tensor]


@contextmanager
def tapped(points: Mapping[str, tuple[nn.Module, Reader]]) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of modules while the block is open.

    Args:
        points: tap name -> (module, reader that turns the module's output into a tensor).

    Yields:
        A dictionary that fills as the modules run. Hooks are removed on exit, also on errors.
    """
    store: dict[str, Tensor] = {}

    def hook_for(name: str, reader: Reader) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            store[name] = reader(output)

        return hook

    handles = [m.register_forward_hook(hook_for(n, r)) for n, (m, r) in points.items()]
    try:
        yield store
    finally:
        for handle in handles:
            handle.remove()
